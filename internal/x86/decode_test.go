package x86

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func set(rs ...Reg) (s RegSet) {
	for _, r := range rs {
		s |= r.Set()
	}
	return s
}

func TestDecode(t *testing.T) {
	const x0, x1, x2 = X0, X0 + 1, X0 + 2
	none := RegSet(0)
	for _, c := range []struct {
		code          string
		text          string
		kind          Kind
		reads, writes RegSet
		full          RegSet // if nil, as writes
	}{
		{"48 89 e5", "mov %rsp,%rbp", MovRegReg, set(RSP), set(RBP), set(RBP)},
		{"89 f8", "mov %edi,%eax", MovRegReg, set(RDI), set(RAX), set(RAX)},
		{"88 c8", "mov %cl,%al", Other, set(RCX), set(RAX), none},
		{"88 e0", "mov %ah,%al", Other, set(RAX), set(RAX), none},
		{"40 88 e0", "mov %spl,%al", Other, set(RSP), set(RAX), none},
		{"31 c0", "xor %eax,%eax", Xor, none, set(RAX, Flags), set(RAX, Flags)},
		{"30 c0", "xor %al,%al", Other, none, set(RAX, Flags), set(Flags)},
		{"31 c8", "xor %ecx,%eax", Xor, set(RAX, RCX), set(RAX, Flags), set(RAX, Flags)},
		{"19 c0", "sbb %eax,%eax", Other, set(Flags), set(RAX, Flags), set(RAX, Flags)},
		{"30 c4", "xor %al,%ah", Other, set(RAX), set(RAX, Flags), set(Flags)},
		{"83 c8 ff", "or $-1,%eax", Other, none, set(RAX, Flags), set(RAX, Flags)},
		{"48 83 ec 28", "sub $0x28,%rsp", Sub, set(RSP), set(RSP, Flags), set(RSP, Flags)},
		{"48 03 47 08", "add 8(%rdi),%rax", Add, set(RAX, RDI), set(RAX, Flags), set(RAX, Flags)},
		{"48 01 47 08", "add %rax,8(%rdi)", Add, set(RAX, RDI), set(Flags), set(Flags)},
		{"3c 05", "cmp $5,%al", Cmp, set(RAX), set(Flags), set(Flags)},
		{"84 c0", "test %al,%al", Other, set(RAX), set(Flags), set(Flags)},
		{"0f 94 c0", "sete %al", Other, set(Flags), set(RAX), none},
		{"0f 44 c1", "cmove %ecx,%eax", Other, set(RAX, RCX, Flags), set(RAX), set(RAX)},
		{"0f b6 c1", "movzbl %cl,%eax", Movzx, set(RCX), set(RAX), set(RAX)},
		{"48 63 04 87", "movslq (%rdi,%rax,4),%rax", Movsx, set(RDI, RAX), set(RAX), set(RAX)},
		{"48 98", "cltq", Movsx, set(RAX), set(RAX), set(RAX)},
		{"48 99", "cqto", Other, set(RAX), set(RDX), set(RDX)},
		{"48 f7 f1", "div %rcx", Other, set(RAX, RDX, RCX), set(RAX, RDX, Flags), set(RAX, RDX)},
		{"48 f7 e1", "mul %rcx", Other, set(RAX, RCX), set(RAX, RDX, Flags), set(RAX, RDX, Flags)},
		{"f6 e1", "mul %cl", Other, set(RAX, RCX), set(RAX, Flags), set(Flags)},
		{"48 d3 e0", "shl %cl,%rax", Other, set(RAX, RCX), set(RAX, Flags), set(RAX)},
		{"f3 48 ab", "rep stos %rax,(%rdi)", Other, set(RAX, RCX, RDI), set(RCX, RDI), set(RCX)},
		{"48 a5", "movsq", Other, set(RSI, RDI), set(RSI, RDI), set(RSI, RDI)},
		{"f0 0f b1 0f", "lock cmpxchg %ecx,(%rdi)", Other, set(RAX, RCX, RDI), set(RAX, Flags), set(RAX, Flags)},
		{"f0 48 0f c1 07", "lock xadd %rax,(%rdi)", Other, set(RAX, RDI), set(RAX, Flags), set(RAX, Flags)},
		{"87 07", "xchg %eax,(%rdi)", Other, set(RAX, RDI), set(RAX), set(RAX)},
		{"49 90", "xchg %rax,%r8", Other, set(RAX, R8), set(RAX, R8), set(RAX, R8)},
		{"90", "nop", Nop, none, none, none},
		{"66 2e 0f 1f 84 00 00 00 00 00", "cs nopw 0(%rax,%rax,1)", Nop, none, none, none},
		{"f3 0f 1e fa", "endbr64", Nop, none, none, none},
		{"f3 90", "pause", Other, none, none, none},
		{"c3", "ret", Ret, set(RSP), set(RSP), set(RSP)},
		{"f3 c3", "repz ret", Ret, set(RSP), set(RSP), set(RSP)},
		{"c9", "leave", Leave, set(RBP), set(RSP, RBP), set(RSP, RBP)},
		{"0f 0b", "ud2", Trap, none, none, none},
		{"0f 05", "syscall", Syscall, set(RAX, RDI, RSI, RDX, R10, R8, R9), set(RAX, RCX, R11), set(RAX, RCX, R11)},
		{"41 57", "push %r15", Push, set(R15, RSP), set(RSP), set(RSP)},
		{"58", "pop %rax", Pop, set(RSP), set(RAX, RSP), set(RAX, RSP)},
		{"0f a2", "cpuid", Other, set(RAX, RCX), set(RAX, RBX, RCX, RDX), set(RAX, RBX, RCX, RDX)},
		{"ff e0", "jmp *%rax", JmpIndirect, set(RAX), none, none},
		{"3e ff e0", "notrack jmp *%rax", JmpIndirect, set(RAX), none, none},
		{"ff 25 00 00 00 00", "jmp *(%rip)", JmpIndirect, none, none, none},
		{"ff 57 18", "call *0x18(%rdi)", CallIndirect, set(RDI, RSP), set(RSP), set(RSP)},
		{"0f 28 c1", "movaps %xmm1,%xmm0", Other, set(x1), set(x0), set(x0)},
		{"0f 57 c0", "xorps %xmm0,%xmm0", Other, none, set(x0), set(x0)},
		{"66 0f ef c1", "pxor %xmm1,%xmm0", Other, set(x0, x1), set(x0), set(x0)},
		{"f2 0f 58 c1", "addsd %xmm1,%xmm0", Other, set(x0, x1), set(x0), set(x0)},
		{"f2 0f 10 07", "movsd (%rdi),%xmm0", Other, set(RDI), set(x0), set(x0)},
		{"f2 0f 11 07", "movsd %xmm0,(%rdi)", Other, set(RDI, x0), none, none},
		{"66 0f 2e c1", "ucomisd %xmm1,%xmm0", Other, set(x0, x1), set(Flags), set(Flags)},
		{"f2 48 0f 2a c0", "cvtsi2sd %rax,%xmm0", Other, set(RAX), set(x0), set(x0)},
		{"f2 48 0f 2c c0", "cvttsd2si %xmm0,%rax", Other, set(x0), set(RAX), set(RAX)},
		{"66 48 0f 6e c7", "movq %rdi,%xmm0", Other, set(RDI), set(x0), set(x0)},
		{"66 48 0f 7e c0", "movq %xmm0,%rax", Other, set(x0), set(RAX), set(RAX)},
		{"66 0f d7 c0", "pmovmskb %xmm0,%eax", Other, set(x0), set(RAX), set(RAX)},
		{"66 0f 3a 0f c1 08", "palignr $8,%xmm1,%xmm0", Other, set(x0, x1), set(x0), set(x0)},
		{"f2 48 0f 38 f1 c1", "crc32q %rcx,%rax", Other, set(RAX, RCX), set(RAX), set(RAX)},
		{"c5 f8 57 c0", "vxorps %xmm0,%xmm0,%xmm0", Other, none, set(x0), set(x0)},
		{"c5 f3 58 c2", "vaddsd %xmm2,%xmm1,%xmm0", Other, set(x1, x2), set(x0), set(x0)},
		{"c5 fe 7f 07", "vmovdqu %ymm0,(%rdi)", Other, set(RDI, x0), none, none},
		{"c4 e2 f1 f7 c2", "shlx %rcx,%rdx,%rax", Other, set(RCX, RDX), set(RAX), set(RAX)},
		{"c4 e2 f3 f6 c6", "mulx %rsi,%rcx,%rax", Other, set(RDX, RSI), set(RAX, RCX), set(RAX, RCX)},
		{"c4 e3 fb f0 c7 05", "rorx $5,%rdi,%rax", Other, set(RDI), set(RAX), set(RAX)},
		{"c4 e2 f8 f3 cf", "blsr %rdi,%rax", Other, set(RDI), set(RAX, Flags), set(RAX, Flags)},
		{"c4 e2 f1 b8 c2", "vfmadd231pd %xmm2,%xmm1,%xmm0", Other, set(x0, x1, x2), set(x0), set(x0)},
		{"62 f1 fe 48 6f 07", "vmovdqu64 (%rdi),%zmm0", Other, set(RDI), set(x0), set(x0)},
		{"62 a1 fd 48 6f c8", "vmovdqa64 %zmm16,%zmm17", Other, set(X0 + 16), set(X0 + 17), set(X0 + 17)},
		{"62 f1 7d 48 74 c1", "vpcmpeqb %zmm1,%zmm0,%k0", Other, set(x0, x1), none, none},
		{"62 f1 75 48 74 c2", "vpcmpeqb %zmm2,%zmm1,%k0", Other, set(x1, x2), none, none},
		{"62 f2 7d 48 7c c0", "vpbroadcastd %eax,%zmm0", Other, set(RAX), set(x0), set(x0)},
		{"d9 07", "flds (%rdi)", Other, set(RDI), none, none},
		{"df e0", "fnstsw %ax", Other, none, set(RAX), none},
		{"db e9", "fucomi %st(1)", Other, none, set(Flags), set(Flags)},
	} {
		b := unhex(t, c.code)
		in, err := Decode(append(b, 0x90, 0x90), 0x1000)
		if err != nil {
			t.Errorf("%s (%s): %v", c.text, c.code, err)
			continue
		}
		if in.Len != len(b) {
			t.Errorf("%s: length %d, want %d", c.text, in.Len, len(b))
		}
		if in.Kind != c.kind {
			t.Errorf("%s: kind %v, want %v", c.text, in.Kind, c.kind)
		}
		if in.Reads != c.reads || in.Writes != c.writes || in.WritesFull != c.full {
			t.Errorf("%s: reads %v writes %v full %v; want %v %v %v", c.text, in.Reads, in.Writes, in.WritesFull, c.reads, c.writes, c.full)
		}
		for n := range b {
			if _, err := Decode(b[:n], 0x1000); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s cut to %d bytes: %v", c.text, n, err)
			}
		}
	}
}

func TestDecodeOperands(t *testing.T) {
	for _, c := range []struct {
		code string
		want func(in *Inst) bool
		text string
	}{
		{"48 8b 44 24 18", func(in *Inst) bool {
			return in.Kind == MovLoad && in.Dst == RAX && in.Mem.Base == RSP && in.Mem.Index == NoReg && in.Mem.Disp == 0x18 && in.MemRead && in.MemSize == 8
		}, "mov 0x18(%rsp),%rax"},
		{"89 7c 24 fc", func(in *Inst) bool {
			return in.Kind == MovStore && in.Src == RDI && in.MemWrite && !in.MemRead && in.MemSize == 4 && in.Mem.Disp == -4
		}, "mov %edi,-4(%rsp)"},
		{"c6 45 ff 01", func(in *Inst) bool {
			return in.Kind == MovStore && in.Src == NoReg && in.Imm == 1 && in.MemSize == 1 && in.Mem.Base == RBP
		}, "movb $1,-1(%rbp)"},
		{"48 8d 0d 10 00 00 00", func(in *Inst) bool {
			return in.Kind == Lea && in.Dst == RCX && in.Mem.RIPRel && in.Mem.Target == 0x1017 && !in.MemRead
		}, "lea 0x10(%rip),%rcx"},
		{"83 3d 10 00 00 00 05", func(in *Inst) bool { return in.Kind == Cmp && in.Mem.Target == 0x1017 }, "cmpl $5,0x10(%rip)"},
		{"ff 24 c5 00 20 40 00", func(in *Inst) bool {
			return in.Kind == JmpIndirect && in.Mem.Base == NoReg && in.Mem.Index == RAX && in.Mem.Scale == 8 && in.Mem.Disp == 0x402000
		}, "jmp *0x402000(,%rax,8)"},
		{"0f 84 fa ff ff ff", func(in *Inst) bool { return in.Kind == Jcc && in.Cond == 4 && in.Target == 0x1000 }, "je ."},
		{"e8 fb ff ff ff", func(in *Inst) bool { return in.Kind == Call && in.Target == 0x1000 }, "call ."},
		{"e3 fe", func(in *Inst) bool { return in.Kind == Jcc && in.Cond == CondRcxz && in.Target == 0x1000 }, "jrcxz ."},
		{"b8 ff ff ff ff", func(in *Inst) bool { return in.Kind == MovRegImm && in.Imm == 0xffffffff }, "mov $0xffffffff,%eax"},
		{"48 c7 c0 ff ff ff ff", func(in *Inst) bool { return in.Kind == MovRegImm && in.Imm == -1 }, "mov $-1,%rax"},
		{"0f 29 44 24 10", func(in *Inst) bool { return in.MemWrite && in.MemSize == 16 && in.Mem.Disp == 16 }, "movaps %xmm0,0x10(%rsp)"},
		{"c5 fc 11 44 24 20", func(in *Inst) bool { return in.MemWrite && in.MemSize == 32 }, "vmovups %ymm0,0x20(%rsp)"},
		{"62 f1 7c 48 11 44 24 01", func(in *Inst) bool { return in.MemWrite && in.MemSize == 64 && in.Mem.Disp == 64 }, "vmovups %zmm0,0x40(%rsp)"},
		{"62 f1 7c 49 11 44 24 01", func(in *Inst) bool { return in.MemWrite && in.MemSize == 0 }, "vmovups %zmm0,0x40(%rsp){%k1}"},
		{"62 f1 75 48 fe 44 24 01", func(in *Inst) bool { return in.Mem.Vague }, "vpaddd 0x40(%rsp),%zmm1,%zmm0"},
		{"64 48 8b 04 25 28 00 00 00", func(in *Inst) bool { return in.Mem.Seg && in.Mem.Base == NoReg && in.Mem.Disp == 0x28 }, "mov %fs:0x28,%rax"},
	} {
		in, err := Decode(unhex(t, c.code), 0x1000)
		if err != nil || !c.want(&in) {
			t.Errorf("%s (%s): %+v, %v", c.text, c.code, in, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for code, why := range map[string]string{
		"06":                "push es",
		"0f 0f c1 9e":       "3DNow! pfadd",
		"8f e8 78 c2 ec 0e": "XOP vprotd",
		"d5 18 89 c0":       "APX REX2",
		"62 fc 7c 08 01 c0": "APX EVEX map 4",
		"f0 89 07":          "lock mov",
		"f0 01 c0":          "lock add of a register",
		"66 e8 00 00 00 00": "16-bit call",
		"c4 e0 78 57 c0":    "VEX map 0",
		"66 c5 f8 57 c0":    "VEX after 66",
		"0f b8 c0":          "popcnt without F3",
		"48 8d c0":          "lea of a register",
		"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90": "16 bytes",
	} {
		if in, err := Decode(unhex(t, code), 0); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, length %d", why, err, in.Len)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x62, 0xf1, 0x7c, 0x48, 0x11, 0x44, 0x24, 0x01})
	f.Add([]byte{0xc4, 0xe2, 0xf1, 0xf7, 0xc2})
	f.Add([]byte{0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Decode(b, 0x1234)
		if err != nil {
			return
		}
		if in.Len < 1 || in.Len > 15 || in.Len > len(b) {
			t.Fatalf("length %d of % x", in.Len, b)
		}
		if in.WritesFull&^in.Writes != 0 {
			t.Fatalf("full writes %v of % x are not among the writes %v", in.WritesFull, b, in.Writes)
		}
		// What comes after an instruction does not change it.
		again, err := Decode(b[:in.Len], 0x1234)
		if err != nil || again != in {
			t.Fatalf("% x decodes differently alone", b[:in.Len])
		}
		if Emulated(in) && EmulatedNop(in) && in.Kind != Nop {
			t.Fatalf("% x is emulated as a nop, but is a %s", b[:in.Len], in.Kind)
		}
		if IsNop5(in) && (in.Len != 5 || !CanProbe(in)) {
			t.Fatalf("% x is no five-byte nop that can be probed", b[:in.Len])
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	code := unhex(b, "554889e5 41574156 4883ec28 488b4718 48634487f8 0f1f440000 c5f877 e800000000 0f8400000000 f20f1045f0 660f7f4510 c3")
	b.SetBytes(int64(len(code)))
	b.ReportAllocs()
	for b.Loop() {
		for c := code; len(c) > 0; {
			in, err := Decode(c, 0)
			if err != nil {
				b.Fatal(err)
			}
			c = c[in.Len:]
		}
	}
}
