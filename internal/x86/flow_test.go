package x86

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// exitsOf writes the exits of a function as "kind at symbol -> target".
func exitsOf(t *testing.T, m *image, f *Func) string {
	t.Helper()
	exits, err := f.Exits()
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, e := range exits {
		s := e.Kind.String() + " " + m.names(e.Addr)
		if e.Target != 0 {
			s += " -> " + m.names(e.Target)
		}
		if e.Indirect {
			s += " indirect"
		}
		if e.Cond >= 0 {
			s += fmt.Sprintf(" if %d", e.Cond)
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestExits(t *testing.T) {
	m := assemble(t, `
FUNC other
	ret
END other
FUNC straight
	nop
	ret
	.byte 0xcc, 0xcc
END straight

FUNC conditional
	test %edi,%edi
c1:	je other
	jmp conditional     # a loop, not an exit
c2:	repz ret
END conditional

FUNC split
	cmp $3,%edi
	ja split.cold
	mov $1,%eax
s1:	ret
END split
FUNC split.cold
	mov $2,%eax
s2:	jmp other
	jmp split+3
END split.cold

FUNC got
	sub $8,%rsp
	call other
	add $8,%rsp
g1:	jmp *slot(%rip)
END got

FUNC vtable
	push %rax
	mov 8(%rdi),%rax
	pop %rcx
v1:	jmp *24(%rax)
v2:	jmp *%rax
END vtable

# LLVM: switch with a bound
FUNC switch
	push %rbx
	cmp $3,%edi
	ja 9f
	mov %edi,%eax
	lea table(%rip),%rcx
	movslq (%rcx,%rax,4),%rax
	add %rcx,%rax
	jmp *%rax
w0:	mov $10,%eax
	jmp 8f
w1:	mov $11,%eax
8:	pop %rbx
w5:	ret
w2:	mov $12,%eax
	jmp 8b
9:	ud2
END switch

# the table's address hoisted out of a loop, no bound, GCC's order of add
FUNC hoisted
	push %rbx
	lea table2(%rip),%rbx
1:	movzbl (%rdi),%eax
	inc %rdi
	movslq (%rbx,%rax,4),%rdx
	mov %rdi,%rsi
	add %rbx,%rdx
	jmp *%rdx
h0:	call other
	jmp 1b
h1:	pop %rbx
h2:	ret
END hoisted

FUNC absolute
	cmp $1,%edi
	jae 1f
	mov %edi,%edi
	jmp *table3(,%rdi,8)
1:	xor %eax,%eax
a1:	ret
END absolute

FUNC unknown
	mov %rsi,%rsp
u1:	jmp *%rdi
END unknown

# a dispatch deep in the stack that cannot be read is no exit
FUNC deep
	sub $24,%rsp
	mov 8(%rsp),%rax
	jmp *%rax
1:	add $24,%rsp
d1:	ret
END deep

# a tail call through a register after a call that does not return, whose
# block has another stack depth
FUNC depth
	test %rdi,%rdi
	je 2f
	push %rax
	call stop
2:	mov (%rsi),%rax
p1:	jmp *%rax
END depth
FUNC stop
	push %rax
	call stop2
	int3
END stop
FUNC stop2
1:	pause
	jmp 1b
END stop2

# LLVM's inline stack probes
FUNC probes
	lea -0x5000(%rsp),%r11
1:	sub $0x1000,%rsp
	movq $0,(%rsp)
	cmp %r11,%rsp
	jne 1b
	sub $0x100,%rsp
	mov %rdi,8(%rsp)
	add $0x5100,%rsp
	mov (%rdi),%rax
q1:	jmp *%rax
END probes

	.section .rodata
slot:	.quad other
	.balign 4
table:	.long w0-table, w1-table, w2-table, w1-table
table2:	.long h0-table2, h1-table2
	.long other-table2
	.balign 8
table3:	.quad a1
`)
	for _, c := range []struct{ names, want string }{
		{"straight", "ret ?"},
		{"conditional", "tail c1 -> other if 4; ret c2"},
		{"split split.cold", "ret s1; tail s2 -> other"},
		{"got", "tail g1 indirect"},
		{"vtable", "tail v1 indirect; tail v2 indirect"},
		{"switch", "ret w5"},
		{"hoisted", "ret h2"},
		{"absolute", "ret a1"},
		{"deep", "ret d1"},
		{"depth", "tail p1 indirect"},
		{"probes", "tail q1 indirect"},
	} {
		f := m.newFunc(t, strings.Fields(c.names)...)
		if c.names == "vtable" {
			// v2 is not reached in this source, its depth comes from outside.
			f.AtEntryDepth = func(addr uint64) (bool, bool) { return addr == m.label(t, "v2"), true }
		}
		if got := exitsOf(t, m, f); got != c.want && !(c.names == "straight" && got == "ret "+m.names(m.label(t, "straight")+1)) {
			t.Errorf("%s: %s; want %s", c.names, got, c.want)
		}
	}
	f := m.newFunc(t, "unknown")
	if _, err := f.Exits(); !errors.Is(err, ErrUnknownExit) || !strings.Contains(err.Error(), fmt.Sprintf("%#x", m.label(t, "u1"))) {
		t.Errorf("unknown: %v", err)
	}
	if d := m.newFunc(t, "switch").tables; len(d) != 1 || !d[0].bounded || len(d[0].targets) != 3 {
		t.Errorf("switch: %+v", d)
	}
	if d := m.newFunc(t, "hoisted").tables; len(d) != 1 || d[0].bounded || len(d[0].targets) != 2 {
		t.Errorf("hoisted: %+v", d)
	}
	if u := m.newFunc(t, "deep").Unresolved(); len(u) != 1 {
		t.Errorf("deep: unresolved %#x", u)
	}
	if !NoReturn(m.code)(m.label(t, "stop")) || NoReturn(m.code)(m.label(t, "other")) {
		t.Error("NoReturn: stop returns, or other does not")
	}
}

func TestNewFuncErrors(t *testing.T) {
	code := func(addr uint64) []byte {
		if addr >= 0x1000 && addr < 0x1004 {
			return []byte{0x90, 0x06, 0x90, 0xc3}[addr-0x1000:]
		}
		return nil
	}
	if _, err := NewFunc(code, []Range{{0x1000, 0x1004}}, nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "0x1001") {
		t.Errorf("undecodable: %v", err)
	}
	if _, err := NewFunc(code, []Range{{0x1002, 0x1008}}, nil); !errors.Is(err, ErrTruncated) {
		t.Errorf("beyond the segment: %v", err)
	}
	if _, err := NewFunc(code, nil, nil); err == nil {
		t.Error("no ranges: no error")
	}
	if _, err := NewFunc(code, []Range{{0x1002, 0x1004}, {0x1003, 0x1004}}, nil); err == nil {
		t.Error("overlapping ranges: no error")
	}
	if _, err := NewFunc(code, []Range{{0, 1 << 60}}, nil); err == nil {
		t.Error("a huge range: no error")
	}
	if f, err := NewFunc(code, []Range{{0x1002, 0x1004}}, nil); err != nil || len(f.Insts) != 2 {
		t.Errorf("nop, ret: %v", err)
	}
}

// between returns the ranges between pairs of labels.
func (m *image) between(t *testing.T, labels ...string) []Range {
	var rs []Range
	for i := 0; i < len(labels); i += 2 {
		rs = append(rs, Range{m.label(t, labels[i]), m.label(t, labels[i+1])})
	}
	return rs
}

func TestEntries(t *testing.T) {
	m := assemble(t, `
FUNC callee
	ret
END callee
FUNC panic
	ud2
END panic

# run into
FUNC simple
	push %rbx
i1:	mov %rdi,%rbx
	call callee
i2:	pop %rbx
	ret
END simple

# the range begins with a nop that is jumped over
FUNC skipped
	xor %eax,%eax
	jmp k2
k1:	nopl 0(%rax)
k2:	inc %eax
k3:	cmp %edi,%eax
	jne k2
	ret
END skipped

# a loop of the function around it: the head is in the instance
FUNC looped
	xor %eax,%eax
	.balign 16
l1:	add $2,%eax
l2:	cmp %edi,%eax
	jne l1
	ret
END looped

# an instruction of the code around among those of the instance
FUNC mixed
	xor %eax,%eax
	.balign 16
m1:	mov (%rdi),%edx
m2:	inc %eax
m3:	mov %edx,(%rsi)
m4:	cmp %ecx,%eax
	jne m1
	ret
END mixed

# a loop inside the instance
FUNC own
	xor %eax,%eax
	.balign 16
o1:	add $2,%eax
	cmp %edi,%eax
	jne o1
o2:	ret
END own

# two ways in, and one after a call that does not return
FUNC two
	test %edi,%edi
	je t2
	call panic
t1:	mov $1,%eax
	jmp t3
t2:	mov $2,%eax
t3:	ret
	call panic
t4:	jmp t1
END two

# a table outside, cases inside and outside
FUNC cases
	cmp $1,%edi
	ja 1f
	mov %edi,%edi
	lea ctable(%rip),%rax
	movslq (%rax,%rdi,4),%rcx
	add %rax,%rcx
	jmp *%rcx
e1:	mov $1,%eax
	ret
e2:	mov $2,%eax
	ret
1:	xor %eax,%eax
	ret
END cases

# nops at the end of the instance that run out of it
FUNC tail
	test %edi,%edi
	je n1
	inc %eax
n1:	nopw 0(%rax,%rax,1)
n2:	dec %eax
	ret
END tail

# a landing pad
FUNC pad
	push %rax
g0:	call callee
g1:	pop %rax
	ret
g2:	mov %rax,%rdi
	call callee
	ud2
END pad

# an indirect jump that is not resolved
FUNC blind
	sub $24,%rsp
	mov 8(%rsp),%rax
b0:	jmp *%rax
b1:	inc %eax
b2:	add $24,%rsp
	ret
END blind

	.section .rodata
	.balign 4
ctable:	.long e1-ctable, e2-ctable
`)
	for _, c := range []struct {
		fn     string
		inst   []Range
		edges  []Edge
		want   string // labels, with ~ for a looped entry
		reason string
	}{
		{"simple", m.between(t, "i1", "i2"), nil, "i1", ""},
		{"simple", m.between(t, "simple", "i1"), nil, "simple", ""},
		{"skipped", m.between(t, "k1", "k3"), nil, "k2", ""},
		{"looped", m.between(t, "l1", "l2"), nil, "l1", ""},
		{"mixed", m.between(t, "m1", "m2", "m3", "m4"), nil, "m1", ""},
		{"mixed", m.between(t, "m2", "m3", "m4", "m4"), nil, "m2", ""},
		{"own", m.between(t, "o1", "o2"), nil, "o1~", ""},
		{"two", m.between(t, "t1", "t2"), nil, "t1", ""},
		{"two", m.between(t, "t2", "t3"), nil, "t2", ""},
		{"two", m.between(t, "t1", "t3"), nil, "t1 t2", ""},
		{"cases", m.between(t, "e1", "e2"), nil, "e1", ""},
		{"tail", m.between(t, "n1", "n2"), nil, "", ""},
		{"pad", []Range{{m.label(t, "g2"), m.sym(t, "pad").High}}, []Edge{{m.label(t, "g0"), m.label(t, "g2")}}, "g2", ""},
		{"pad", []Range{{m.label(t, "g2"), m.sym(t, "pad").High}}, nil, "", "nothing is known to lead to"},
		{"blind", m.between(t, "b1", "b2"), nil, "", "the jump at"},
	} {
		f := m.newFunc(t, c.fn)
		got := f.Entries(c.inst, c.edges)
		var names []string
		for _, e := range got.Entries {
			n := m.names(e.Addr)
			if e.Looped {
				n += "~"
			}
			names = append(names, n)
		}
		if s := strings.Join(names, " "); s != c.want {
			t.Errorf("%s %#x: entries %q, want %q", c.fn, c.inst, s, c.want)
		}
		if got.Exact != (c.reason == "") || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s %#x: exact %v (%s), want %q", c.fn, c.inst, got.Exact, got.Reason, c.reason)
		}
	}
	// The package function gives the same, and an error where not exact.
	addrs, err := Entries(m.code, []Range{m.sym(t, "simple")}, m.between(t, "i1", "i2"), nil)
	if err != nil || !slices.Equal(addrs, []uint64{m.label(t, "i1")}) {
		t.Errorf("Entries: %#x, %v", addrs, err)
	}
	if _, err := Entries(m.code, []Range{m.sym(t, "blind")}, m.between(t, "b1", "b2"), nil); err == nil {
		t.Error("Entries of blind: no error")
	}
}

func TestStraight(t *testing.T) {
	m := assemble(t, `
FUNC callee
	ret
END callee
# unoptimised code with a frame pointer
FUNC frame
	push %rbp
	mov %rsp,%rbp
	sub $0x20,%rsp
	mov %rdi,-8(%rbp)
f1:	movl $5,-12(%rbp)
	mov %si,-16(%rbp)
	lea -24(%rbp),%rax
	movups %xmm0,0(%rsp)
f2:	call callee
	mov %rdx,(%rax)
	test %edi,%edi
f3:	je 1f
	nop
1:	leave
	ret
END frame
# a jump comes back into the window
FUNC back
	push %rbx
	sub $16,%rsp
y1:	mov %rdi,8(%rsp)
y2:	dec %rdi
	jne y1
	add $16,%rsp
	pop %rbx
	ret
END back
# through a register that holds a frame address; then the stack is realigned
FUNC align
	sub $0x18,%rsp
	lea 8(%rsp),%rcx
	mov %rdi,(%rcx)
z1:	mov %rsi,8(%rcx)
	and $-32,%rsp
z2:	mov %rdi,(%rsp)
	ret
END align
`)
	steps := m.newFunc(t, "frame").Straight(m.label(t, "frame"))
	last := steps[len(steps)-1]
	if last.Addr != m.label(t, "f3") || !last.AfterCall || last.RSP != -0x30 || last.RBP != -16 {
		t.Errorf("frame: last step %#x %+v", last.Addr, last)
	}
	if steps[0].RSP != -8 || !steps[0].Stores || steps[0].To != (Store{-16, 8}) || steps[0].RBPKnown {
		t.Errorf("frame: first step %+v", steps[0])
	}
	for _, c := range []struct {
		off  int64
		size int
		want string
	}{
		{-24, 8, "f1"}, // -8(%rbp)
		{-24, 4, "f1"},
		{-48, 16, "f2"}, // (%rsp)
		{-40, 8, "f2"},
		{-32, 4, ""},  // of which only two bytes are stored
		{-16, 16, ""}, // the return address is not stored by the function
	} {
		addr, ok := WrittenAt(steps, c.off, c.size)
		if ok != (c.want != "") || ok && addr != m.label(t, c.want) {
			t.Errorf("frame: slot %d+%d written at %s (%v), want %q", c.off, c.size, m.names(addr), ok, c.want)
		}
	}
	// rax is lost over the call, so the store through it is not known.
	if s := steps[len(steps)-3]; s.Stores {
		t.Errorf("frame: store through a clobbered register: %+v", s)
	}
	if got, want := m.names(PathCrosses(steps)...), "frame f2 f3"; got != want {
		t.Errorf("frame crosses %q, want %q", got, want)
	}

	steps = m.newFunc(t, "back").Straight(m.label(t, "back"))
	if len(steps) != 2 {
		t.Errorf("back: %d steps, want 2", len(steps))
	}
	if _, ok := WrittenAt(steps, -16, 8); !ok {
		// push stores at -16, and sub follows it
		t.Error("back: the pushed register is not found")
	}

	steps = m.newFunc(t, "align").Straight(m.label(t, "align"))
	if s := steps[len(steps)-1]; s.Addr != m.label(t, "z2") || s.RSPKnown {
		t.Errorf("align: last step %+v", s)
	}
	if addr, ok := WrittenAt(steps, -0x18, 8); !ok || addr != m.label(t, "z1") {
		t.Errorf("align: slot written at %#x %v", addr, ok)
	}
}

// FuzzFunc looks at any bytes as a function's code: nothing may panic or run
// away, and what is returned must lie in the function.
func FuzzFunc(f *testing.F) {
	f.Add([]byte("\x55\x48\x89\xe5\x83\xff\x03\x77\x09\xff\xe0\x74\xfd\xc3\x90\xeb\xf0\x5d\xc3"), uint8(3), uint8(9))
	f.Add([]byte("\x48\x8d\x0d\x20\x00\x00\x00\x48\x63\x04\x81\x48\x01\xc8\xff\xe0\x31\xc0\xc3"), uint8(0), uint8(16))
	f.Fuzz(func(t *testing.T, b []byte, lo, hi uint8) {
		const base = 0x1000
		code := func(addr uint64) []byte {
			if addr < base || addr-base >= uint64(len(b)) {
				return nil
			}
			return b[addr-base:]
		}
		all := Range{base, base + uint64(len(b))}
		fn, err := NewFunc(code, []Range{all}, NoReturn(code))
		if err != nil {
			return
		}
		exits, _ := fn.Exits()
		for _, e := range exits {
			if !all.Contains(e.Addr) || all.Contains(e.Target) {
				t.Fatalf("exit %+v", e)
			}
			fn.ResultWritten(e, RAX)
			fn.ResultWritten(e, X0)
		}
		inst := []Range{{base + uint64(lo), base + uint64(hi)}}
		for _, e := range fn.Entries(inst, []Edge{{base, base + uint64(hi)}}).Entries {
			if !inst[0].Contains(e.Addr) {
				t.Fatalf("entry %+v", e)
			}
		}
		steps := fn.Straight(base)
		WrittenAt(steps, -16, 8)
		PathCrosses(steps)
		CallerReads(code, base, RAX, 100)
		FindRefs(b, base, map[uint64]struct{}{base: {}, base + uint64(lo): {}})
	})
}
