package x86

import (
	"slices"
	"testing"
)

func TestPasses(t *testing.T) {
	m := assemble(t, `
FUNC callee
	ret
END callee

# for: what comes before the loop, and its head, which the body jumps back to; the jump is
# the line's too
FUNC header
f1:	xor %eax,%eax
f2:	inc %eax
	cmp %edi,%eax
	jge f5
f3:	call callee
f4:	jmp f2
f5:	ret
END header

# a loop's head that is always reached, from before and from the body
FUNC head
h1:	xor %eax,%eax
h2:	cmp %edi,%eax
	jge h4
h3:	inc %eax
	jmp h2
h4:	ret
END head

# the same, with code of no line at the head
FUNC shared
s1:	xor %eax,%eax
s2:	mov %edi,%ecx
s3:	cmp %ecx,%eax
	jge s5
s4:	inc %eax
	jmp s2
s5:	ret
END shared

# one statement on two lines, with code of no line in between
FUNC resumed
r1:	push %rbx
r2:	mov %edi,%ebx
r3:	nop
	mov %ebx,%edi
r4:	call callee
r5:	pop %rbx
	ret
END resumed

# code that runs round on one line
FUNC round
	xor %eax,%eax
n1:	inc %eax
	cmp %edi,%eax
	jne n1
n2:	ret
END round

# a landing pad that ends up in the same line
FUNC pad
	push %rbx
p1:	call callee
p2:	pop %rbx
	ret
p3:	mov %rax,%rdi
	jmp p2
END pad
`)
	for _, c := range []struct {
		name, function string
		code, neutral  []string // pairs of labels
		edge           []string
		want           []string
		resumed        int
		exact          bool
	}{
		{"every way round a loop is a pass", "header", []string{"f1", "f3", "f4", "f5"}, nil, nil, []string{"f1", "f4"}, 0, true},
		{"what always leads to another begins there", "head", []string{"h1", "h3"}, nil, nil, []string{"h2"}, 0, true},
		{"also if code of no line lies between", "shared", []string{"s1", "s2", "s3", "s4"}, []string{"s2", "s3"}, nil, []string{"s3"}, 0, true},
		{"one pass in two pieces", "resumed", []string{"r1", "r2", "r4", "r5"}, nil, nil, []string{"r1"}, 1, true},
		{"what has no line joins", "resumed", []string{"r2", "r3", "r4", "r5"}, []string{"r3", "r4"}, nil, []string{"r2"}, 0, true},
		{"a loop within", "round", []string{"n1", "n2"}, nil, nil, []string{"n1"}, 0, false},
		{"a panic is no pass", "pad", []string{"p2", "p3"}, nil, []string{"p1", "p3"}, []string{"p2"}, 0, true},
		{"but if nothing else leads there", "pad", []string{"p3", "p3"}, nil, []string{"p1", "p3"}, []string{"p3"}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := NewFunc(m.code, []Range{m.sym(t, c.function)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			code := m.between(t, c.code...)
			for i := range code {
				if code[i].Low == code[i].High { // the one instruction
					code[i].High += 3
				}
			}
			neutral := m.between(t, c.neutral...)
			var edges []Edge
			if c.edge != nil {
				edges = []Edge{{m.label(t, c.edge[0]), m.label(t, c.edge[1])}}
			}
			got := f.Passes(code, func(addr uint64) bool { return contains(neutral, addr) }, edges)
			var want []uint64
			for _, l := range c.want {
				want = append(want, m.label(t, l))
			}
			if !slices.Equal(got.Addrs, want) || got.Exact != c.exact || len(got.Resumed) != c.resumed {
				t.Errorf("got %#x, exact %v (%s), resumed %#x; want %#x", got.Addrs, got.Exact, got.Reason, got.Resumed, want)
			}
		})
	}
}
