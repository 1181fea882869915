package asm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	names8  = [16]string{"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b", "r15b"}
	names16 = [16]string{"ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w", "r13w", "r14w", "r15w"}
	names32 = [16]string{"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"}
)

func name(size int, r Reg) string {
	switch size {
	case 1:
		return names8[r]
	case 2:
		return names16[r]
	case 4:
		return names32[r]
	}
	return r.String()
}

var ptr = map[int]string{1: "BYTE PTR ", 2: "WORD PTR ", 4: "DWORD PTR ", 8: "QWORD PTR "}

func mem(m Mem) string {
	s := "["
	if m.FS {
		s = "fs:["
	}
	var parts []string
	if m.Base != None {
		parts = append(parts, m.Base.String())
	}
	if m.Index != None {
		parts = append(parts, fmt.Sprintf("%s*%d", m.Index, m.Scale))
	}
	s += strings.Join(parts, "+")
	switch {
	case len(parts) == 0:
		s = fmt.Sprintf("%s%#x", strings.TrimSuffix(s, "["), uint64(m.Disp))
		return s
	case m.Disp > 0 || m.Base&7 == RBP: // rbp and r13 always have a displacement
		s += fmt.Sprintf("+%#x", m.Disp)
	case m.Disp < 0:
		s += fmt.Sprintf("-%#x", -int64(m.Disp))
	}
	return s + "]"
}

// TestAgainstObjdump encodes every instruction with many operands and compares
// with what objdump reads.
func TestAgainstObjdump(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump is missing")
	}
	var (
		a    Assembler
		want []string
	)
	add := func(format string, args ...any) { want = append(want, fmt.Sprintf(format, args...)) }
	regs := []Reg{RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15}
	mems := []Mem{
		At(RAX, 0), At(RBP, 0), At(RSP, 0), At(RSP, 8), At(R12, 0), At(R13, 0), At(RBX, -8), At(R8, 0x1234), At(RDI, -0x1234),
		Idx(RAX, RCX, 8, 0), Idx(R13, R14, 4, 0), Idx(RBP, R12, 2, 0x10), Idx(R12, RBP, 1, -0x1000), Idx(RSP, R9, 8, 0),
		{Base: RAX, Index: None, Scale: 1, FS: true}, {Base: None, Index: None, Scale: 1, Disp: 0x28, FS: true},
	}
	alu := map[ALUOp]string{ADD: "add", OR: "or", AND: "and", SUB: "sub", XOR: "xor", CMP: "cmp"}
	shift := map[ShiftOp]string{SHL: "shl", SHR: "shr", SAR: "sar", ROL: "rol"}
	for _, x := range regs {
		for _, y := range regs {
			for _, n := range []int{4, 8} {
				a.Mov(n, x, y)
				add("mov %s,%s", name(n, x), name(n, y))
				for op, s := range alu {
					a.ALU(op, n, x, y)
					add("%s %s,%s", s, name(n, x), name(n, y))
				}
				a.Test(n, x, y)
				add("test %s,%s", name(n, x), name(n, y))
				a.Imul(n, x, y)
				add("imul %s,%s", name(n, x), name(n, y))
				a.ImulImm(n, x, y, 0x30)
				add("imul %s,%s,0x30", name(n, x), name(n, y))
				a.CMov(E, n, x, y)
				add("cmove %s,%s", name(n, x), name(n, y))
				a.MovSX(n, 1, x, y)
				add("movsx %s,%s", name(n, x), name(1, y))
				a.MovSX(n, 2, x, y)
				add("movsx %s,%s", name(n, x), name(2, y))
			}
			a.MovSX(8, 4, x, y)
			add("movsxd %s,%s", x, name(4, y))
			a.MovZX16(x, y)
			add("movzx %s,%s", name(4, x), name(2, y))
			a.MovZX8(x, y)
			add("movzx %s,%s", name(4, x), name(1, y))
			a.Lsl(x, y)
			add("lsl %s,%s", name(4, x), name(4, y))
			if x != RAX && y != RAX {
				a.Xchg(x, y)
				add("xchg %s,%s", y, x)
			}
		}
		for _, n := range []int{4, 8} {
			for op, s := range alu {
				a.ALUImm(op, n, x, 0x11)
				add("%s %s,0x11", s, name(n, x))
				if x != RAX { // there a shorter form is what objdump's output looks like too
					a.ALUImm(op, n, x, 0x1122)
					add("%s %s,0x1122", s, name(n, x))
				}
			}
			for op, s := range shift {
				a.Shift(op, n, x, 5)
				add("%s %s,0x5", s, name(n, x))
				a.ShiftCL(op, n, x)
				add("%s %s,cl", s, name(n, x))
			}
			a.TestImm(n, x, 0x77)
			add("test %s,0x77", name(n, x))
			a.Neg(n, x)
			add("neg %s", name(n, x))
			a.Mul(n, x)
			add("mul %s", name(n, x))
			a.Div(n, x)
			add("div %s", name(n, x))
			a.IDiv(n, x)
			add("idiv %s", name(n, x))
			a.Bswap(n, x)
			add("bswap %s", name(n, x))
		}
		a.Shift(ROL, 2, x, 8)
		add("rol %s,0x8", name(2, x))
		a.Push(x)
		add("push %s", x)
		a.Pop(x)
		add("pop %s", x)
		a.Rdpid(x)
		add("rdpid %s", x)
		a.CallReg(x)
		add("call %s", x)
		a.JmpReg(x)
		add("jmp %s", x)
		a.Zero(x)
		add("xor %s,%s", name(4, x), name(4, x))
		a.MovImm(x, 0x12345678)
		add("mov %s,0x12345678", name(4, x))
		a.MovImm(x, -2)
		add("mov %s,0xfffffffffffffffe", x)
		a.MovImm(x, 0x1122334455667788)
		add("movabs %s,0x1122334455667788", x)
		for _, m := range mems {
			a.Load(1, x, m)
			add("movzx %s,%s%s", name(4, x), ptr[1], mem(m))
			a.Load(2, x, m)
			add("movzx %s,%s%s", name(4, x), ptr[2], mem(m))
			a.LoadSX(1, x, m)
			add("movsx %s,%s%s", x, ptr[1], mem(m))
			a.LoadSX(2, x, m)
			add("movsx %s,%s%s", x, ptr[2], mem(m))
			a.LoadSX(4, x, m)
			add("movsxd %s,%s%s", x, ptr[4], mem(m))
			for _, n := range []int{1, 2} {
				a.ALULoad(CMP, n, x, m)
				add("cmp %s,%s%s", name(n, x), ptr[n], mem(m))
			}
			for _, n := range []int{1, 2, 4, 8} {
				a.Store(n, m, x)
				add("mov %s%s,%s", ptr[n], mem(m), name(n, x))
				a.StoreImm(n, m, 0x12)
				add("mov %s%s,0x12", ptr[n], mem(m))
			}
			for _, n := range []int{4, 8} {
				a.Load(n, x, m)
				add("mov %s,%s%s", name(n, x), ptr[n], mem(m))
				a.ALULoad(CMP, n, x, m)
				add("cmp %s,%s%s", name(n, x), ptr[n], mem(m))
				a.ALUMemImm(ADD, n, m, 0x21)
				add("add %s%s,0x21", ptr[n], mem(m))
				a.MulMem(n, m)
				add("mul %s%s", ptr[n], mem(m))
				a.LockALU(ADD, n, m, x)
				add("lock add %s%s,%s", ptr[n], mem(m), name(n, x))
				a.LockXadd(n, m, x)
				add("lock xadd %s%s,%s", ptr[n], mem(m), name(n, x))
				a.LockCmpxchg(n, m, x)
				add("lock cmpxchg %s%s,%s", ptr[n], mem(m), name(n, x))
				a.XchgMem(n, m, x)
				add("xchg %s%s,%s", ptr[n], mem(m), name(n, x))
				a.LockInc(n, m)
				add("lock inc %s%s", ptr[n], mem(m))
				a.LockDec(n, m)
				add("lock dec %s%s", ptr[n], mem(m))
			}
			if !m.FS {
				a.Lea(x, m)
				add("lea %s,%s", x, mem(m))
			}
		}
	}
	a.SignExtendA(4)
	add("cdq")
	a.SignExtendA(8)
	add("cqo")
	a.Ret()
	add("ret")
	a.Leave()
	add("leave")
	a.Rdtsc()
	add("rdtsc")
	a.Syscall()
	add("syscall")
	a.Pause()
	add("pause")
	a.RepStosb()
	add("rep stos BYTE PTR es:[rdi],al")
	a.RepMovsb()
	add("rep movs BYTE PTR es:[rdi],BYTE PTR ds:[rsi]")
	code, _, err := a.Finish()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	line, spaces := regexp.MustCompile(`(?m)^\s*[0-9a-f]+:\t(.*)$`), regexp.MustCompile(`\s+`)
	got := line.FindAllSubmatch(out, -1)
	for i, w := range want {
		if i >= len(got) {
			t.Fatalf("objdump reads %d instructions of %d", len(got), len(want))
		}
		g := string(bytes.TrimSpace(spaces.ReplaceAll(got[i][1], []byte(" "))))
		if g != w {
			t.Fatalf("instruction %d: objdump reads %q, want %q", i, g, w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("objdump reads %d instructions, want %d", len(got), len(want))
	}
}

func TestLabels(t *testing.T) {
	var a Assembler
	l, end := a.NewLabel(), a.NewLabel()
	top := a.Here()
	a.Jcc(E, l)
	a.JccNear(NE, end)
	a.Jmp(top)
	a.Bind(l)
	a.MovAddr(R11, 7, 0x40)
	a.Bind(end)
	a.LeaLabel(RAX, top)
	a.Ret()
	code, relocs, err := a.Finish()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		0x0f, 0x84, 4, 0, 0, 0, 0x75, 12, 0xeb, 0xf6,
		0x49, 0xbb, 0x40, 0, 0, 0, 0, 0, 0, 0,
		0x48, 0x8d, 0x05, 0xe5, 0xff, 0xff, 0xff, 0xc3,
	}
	if !bytes.Equal(code, want) {
		t.Errorf("% x\nwant % x", code, want)
	}
	if len(relocs) != 1 || relocs[0] != (Reloc{Offset: 12, Symbol: 7}) {
		t.Error(relocs)
	}
}

func TestErrors(t *testing.T) {
	var a Assembler
	a.Jmp(a.NewLabel())
	if _, _, err := a.Finish(); err == nil {
		t.Error("an unbound label is no error")
	}
	a = Assembler{}
	l := a.NewLabel()
	a.JmpNear(l)
	a.Bytes(make([]byte, 200)...)
	a.Bind(l)
	if _, _, err := a.Finish(); err == nil {
		t.Error("a near jump over 200 bytes is no error")
	}
}
