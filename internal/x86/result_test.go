package x86

import "testing"

func TestResultWritten(t *testing.T) {
	m := assemble(t, `
FUNC callee
	ret
END callee
FUNC zero
	xor %eax,%eax
	ret
END zero
FUNC unoptimised
	push %rbp
	mov %rsp,%rbp
	mov %rdi,-8(%rbp)
	mov -8(%rbp),%rax
	mov %rax,-16(%rbp)
	mov -16(%rbp),%rax
	add $0x20,%rsp
	pop %rbp
	ret
END unoptimised
FUNC branches
	test %edi,%edi
	je 1f
	mov $1,%eax
	ret
1:	mov $2,%eax
	jmp 2f
2:	ret
END branches
FUNC joined
	test %edi,%edi
	je 1f
	mov $1,%eax
	jmp 2f
1:	mov $2,%eax
2:	ret
END joined
FUNC bool
	cmp %edi,%esi
	sete %al
	ret
END bool
FUNC sum
	lea (%rdi,%rsi,1),%rax
	ret
END sum
FUNC imm
	push $42
	pop %rax
	ret
END imm
# nothing written
FUNC nothing
	mov %edi,(%rsi)
	ret
END nothing
FUNC aligned
	mov %edi,(%rsi)
	pop %rax
	ret
END aligned
# one path only
FUNC half
	test %edi,%edi
	je 1f
	mov $1,%eax
1:	ret
END half
# a call's result
FUNC passed
	push %rcx
	call callee
	pop %rcx
	ret
END passed
# used
FUNC stored
	mov (%rdi),%rax
	mov %rax,(%rsi)
	ret
END stored
FUNC counter
	mov $10,%eax
1:	incl (%rdi)
	dec %eax
	jne 1b
	ret
END counter
FUNC lea_counter
	xor %eax,%eax
1:	mov (%rdi,%rax,8),%rcx
	lea 1(%rax),%rax
	cmp %rcx,%rsi
	jne 1b
	ret
END lea_counter
FUNC flags
	sub %rsi,%rdi
	mov %rdi,%rax
	sub %rsi,%rax
	jb 1f
	incl (%rdx)
1:	ret
END flags
FUNC pair
	xor %eax,%eax
	mov %rdi,%rdx
	ret
END pair
FUNC remainder
	mov %rdi,%rax
	xor %edx,%edx
	div %rsi
	ret
END remainder
FUNC float
	addsd %xmm1,%xmm0
	ret
END float
FUNC float_used
	addsd %xmm1,%xmm0
	movsd %xmm0,(%rdi)
	ret
END float_used
FUNC argument
	mov $5,%edx
	test %edi,%edi
	je 1f
	ret
1:	call callee
	ret
END argument
FUNC exchange
	mov $1,%eax
	lock xadd %rax,(%rdi)
	ret
END exchange
FUNC pads
	push %rax
	call callee
	pop %rcx
	ret
	mov %rax,%rdi
	mov $1,%eax
	ret
END pads
FUNC tail
	mov $1,%eax
	jmp callee
END tail
`)
	for _, c := range []struct {
		fn   string
		reg  Reg
		want Evidence
	}{
		{"zero", RAX, Yes}, {"unoptimised", RAX, Yes}, {"branches", RAX, Yes}, {"joined", RAX, Yes},
		{"bool", RAX, Yes}, {"sum", RAX, Yes}, {"imm", RAX, Yes},
		{"nothing", RAX, No}, {"aligned", RAX, No}, {"zero", RDX, No},
		{"half", RAX, Unknown}, {"passed", RAX, Unknown}, {"stored", RAX, Unknown},
		{"counter", RAX, Unknown}, {"lea_counter", RAX, Unknown}, {"flags", RAX, Unknown},
		{"pair", RAX, Yes}, {"pair", RDX, Yes}, {"remainder", RAX, Unknown}, {"remainder", RDX, Unknown},
		{"float", X0, Yes}, {"float", X0 + 1, No}, {"float_used", X0, Unknown},
		{"argument", RDX, Unknown}, {"argument", RAX, Unknown}, {"exchange", RAX, Unknown},
		{"pads", RAX, Unknown}, {"tail", RAX, Unknown},
	} {
		f := m.newFunc(t, c.fn)
		exits, err := f.Exits()
		if err != nil || len(exits) == 0 {
			t.Fatalf("%s: %v %v", c.fn, exits, err)
		}
		// All exits together: the weakest answer.
		got := f.ResultWritten(exits[0], c.reg)
		for _, e := range exits[1:] {
			if g := f.ResultWritten(e, c.reg); g != got {
				got = Unknown
			}
		}
		if got != c.want {
			t.Errorf("%s %v: %v, want %v", c.fn, c.reg, got, c.want)
		}
	}
}

func TestCallerReads(t *testing.T) {
	m := assemble(t, `
FUNC callee
	ret
END callee
FUNC use
	call callee
u1:	mov %rbx,%rdi
	test %al,%al
	ret
END use
FUNC over
	call callee
o1:	xor %eax,%eax
	ret
END over
FUNC again
	call callee
a1:	mov %rbx,%rdi
	call callee
	ret
END again
FUNC both
	call callee
b1:	test %ebx,%ebx
	je 1f
	mov %rax,(%rbx)
	ret
1:	mov %rax,%rcx
	ret
END both
FUNC differ
	call callee
d1:	test %ebx,%ebx
	je 1f
	mov %rax,(%rbx)
	ret
1:	xor %eax,%eax
	ret
END differ
FUNC trapped
	call callee
t1:	test %ebx,%ebx
	je 1f
	mov %rax,(%rbx)
	ret
1:	ud2
END trapped
FUNC loop
	call callee
l1:	jmp l1
END loop
FUNC pushed
	call callee
p1:	push %rax
	call callee
	ret
END pushed
FUNC returned
	call callee
r1:	pop %rbx
	ret
END returned
FUNC partial
	call callee
q1:	mov $1,%al
	movzbl %al,%eax
	ret
END partial
FUNC far
	call callee
f1:	nop
	nop
	nop
	mov %rax,%rcx
	ret
END far
`)
	for _, c := range []struct {
		at    string
		reg   Reg
		limit int
		want  Evidence
	}{
		{"u1", RAX, 50, Yes}, {"u1", RDX, 50, Unknown}, {"o1", RAX, 50, No}, {"a1", RAX, 50, No}, {"a1", RDX, 50, Unknown},
		{"b1", RAX, 50, Yes}, {"d1", RAX, 50, Unknown}, {"t1", RAX, 50, Yes}, {"l1", RAX, 50, Unknown},
		{"p1", RAX, 50, Unknown}, {"r1", RAX, 50, Unknown}, {"q1", RAX, 50, Unknown},
		{"f1", RAX, 50, Yes}, {"f1", RAX, 2, Unknown},
	} {
		if got := CallerReads(m.code, m.label(t, c.at), c.reg, c.limit); got != c.want {
			t.Errorf("%s %v within %d: %v, want %v", c.at, c.reg, c.limit, got, c.want)
		}
	}
}

func TestFindRefs(t *testing.T) {
	m := assemble(t, `
FUNC target
	ret
END target
FUNC second
	ret
END second
FUNC refs
	call target
	{disp32} jmp target
	{disp32} je target
	lea target(%rip),%rax
	lea second(%rip),%r9
	mov target(%rip),%rcx
	cmpl $5,target(%rip)
	cmpb $5,target(%rip)
	call *second(%rip)
	movups target(%rip),%xmm0
	jmp refs
END refs
`)
	r := m.sym(t, "refs")
	code := m.code(r.Low)
	targets := map[uint64]struct{}{m.label(t, "target"): {}, m.label(t, "second"): {}}
	var want []Ref
	for addr := r.Low; addr < r.High; {
		in, err := Decode(m.code(addr), addr)
		if err != nil {
			t.Fatal(err)
		}
		to, kind := in.Target, RefMem
		if in.Mem.RIPRel {
			to = in.Mem.Target
		}
		switch in.Kind {
		case Call, CallIndirect:
			kind = RefCall
		case Jmp:
			kind = RefJmp
		case Jcc:
			kind = RefJcc
		case Lea:
			kind = RefLea
		}
		if _, ok := targets[to]; ok {
			want = append(want, Ref{addr, to, kind})
		}
		addr = in.End()
	}
	got := FindRefs(code, r.Low, targets)
	if len(want) != 10 || len(got) != len(want) {
		t.Fatalf("found %d of %d references: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("reference %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if got := FindRefs(code, r.Low, nil); got != nil {
		t.Errorf("without targets: %+v", got)
	}
}

func BenchmarkFindRefs(b *testing.B) {
	code := make([]byte, 1<<24)
	x := uint32(1)
	for i := range code {
		x = x*1664525 + 1013904223
		code[i] = byte(x >> 24)
	}
	targets := map[uint64]struct{}{0x1000: {}, 0x2000: {}, 0x3450: {}}
	b.SetBytes(int64(len(code)))
	for b.Loop() {
		FindRefs(code, 0x400000, targets)
	}
}

func TestUprobe(t *testing.T) {
	for _, c := range []struct {
		code, text         string
		probe, emul, newer bool // CanProbe, Emulated, EmulatedNop
	}{
		{"55", "push %rbp", true, true, false},
		{"41 57", "push %r15", true, true, false},
		{"40 55", "rex push %rbp", true, false, false},
		{"48 83 ec 08", "sub $8,%rsp", true, false, false},
		{"90", "nop", true, true, false},
		{"66 90", "xchg %ax,%ax", true, true, false},
		{"f3 90", "pause", true, true, false},
		{"49 90", "xchg %rax,%r8", false, false, false},
		{"0f 1f 44 00 00", "nopl", true, false, true},
		{"66 0f 1f 44 00 00", "nopw", true, false, true},
		{"66 2e 0f 1f 84 00 00 00 00 00", "cs nopw", false, false, false},
		{"f3 0f 1e fa", "endbr64", true, false, false},
		{"eb 00", "jmp", true, true, false},
		{"0f 84 00 00 00 00", "je", true, true, false},
		{"74 00", "je", true, true, false},
		{"3e 74 00", "je,pt", false, false, false},
		{"e8 00 00 00 00", "call", true, true, false},
		{"ff d0", "call *%rax", true, false, false},
		{"ff 25 00 00 00 00", "jmp *(%rip)", true, false, false},
		{"3e ff e0", "notrack jmp *%rax", false, false, false},
		{"c3", "ret", true, false, false},
		{"f0 ff 07", "lock incl (%rdi)", false, false, false},
		{"64 48 8b 04 25 00 00 00 00", "mov %fs:0,%rax", true, false, false},
		{"cc", "int3", false, false, false},
		{"0f 0b", "ud2", false, false, false},
		{"0f 05", "syscall", false, false, false},
		{"8e d0", "mov %eax,%ss", false, false, false},
		{"9a", "", false, false, false},
		{"c5 f8 28 c1", "vmovaps", true, false, false},
		{"c5 f1 eb c2", "vpor", false, false, false},
		{"c5 f0 c2 c2 00", "vcmpeqps", false, false, false},
		{"c5 fe 7f 07", "vmovdqu %ymm0,(%rdi)", false, false, false},
		{"c5 f8 77", "vzeroupper", false, false, false},
		{"66 0f eb c1", "por", true, false, false},
	} {
		in, err := Decode(unhex(t, c.code), 0x1000)
		if err != nil && c.text != "" {
			t.Fatalf("%s: %v", c.text, err)
		}
		if CanProbe(in) != c.probe || Emulated(in) != c.emul || EmulatedNop(in) != c.newer {
			t.Errorf("%s: CanProbe %v Emulated %v EmulatedNop %v, want %v %v %v", c.text, CanProbe(in), Emulated(in), EmulatedNop(in), c.probe, c.emul, c.newer)
		}
	}
	nop5 := unhex(t, "0f 1f 44 00 00")
	for addr, want := range map[uint64]bool{0x1000: true, 0x1ffb: true, 0x1ffc: false} {
		if in, _ := Decode(nop5, addr); IsNop5(in) != want {
			t.Errorf("IsNop5 at %#x: %v", addr, !want)
		}
	}
	if in, _ := Decode(unhex(t, "0f 1f 44 00 08"), 0x1000); IsNop5(in) {
		t.Error("IsNop5 of another five-byte nop")
	}
}
