package x86

import (
	"errors"
	"math/bits"
	"strconv"
	"strings"
)

// ErrTruncated is returned by Decode when the bytes end inside an instruction,
// ErrInvalid when they are not an instruction that this package knows.
var (
	ErrTruncated = errors.New("x86: truncated instruction")
	ErrInvalid   = errors.New("x86: invalid instruction")
)

// Reg is a register. The general-purpose registers have their hardware numbers
// (not DWARF's, which swap rcx and rdx), Flags is the status flags and X0+n is
// xmmN, whatever the vector length.
type Reg uint8

// The registers.
const (
	RAX Reg = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	Flags
	X0    Reg = 32 // X0+n is xmmN, n < 32
	RIP   Reg = 0xfe
	NoReg Reg = 0xff
)

var gprNames = [...]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "flags"}

// String returns the register's usual name, the 64-bit one for general-purpose
// registers.
func (r Reg) String() string {
	switch {
	case int(r) < len(gprNames):
		return gprNames[r]
	case r >= X0 && r < X0+32:
		return "xmm" + strconv.Itoa(int(r-X0))
	case r == RIP:
		return "rip"
	}
	return "none"
}

// RegSet is a set of registers: bit r stands for register r.
type RegSet uint64

// Set returns the set that holds r alone; NoReg and RIP give the empty set.
func (r Reg) Set() RegSet {
	if r > 63 {
		return 0
	}
	return 1 << r
}

// Has says whether r is in s.
func (s RegSet) Has(r Reg) bool { return s&r.Set() != 0 }

func (s RegSet) String() string {
	var names []string
	for ; s != 0; s &= s - 1 {
		names = append(names, Reg(bits.TrailingZeros64(uint64(s))).String())
	}
	return "{" + strings.Join(names, " ") + "}"
}

// Kind is what an instruction is, as far as control flow and the tracking of
// the stack need to tell instructions apart.
type Kind uint8

// The kinds of instruction.
const (
	Other        Kind = iota
	Ret               // near return, with or without an immediate
	Jmp               // direct jump
	Jcc               // direct conditional jump, also loop, jrcxz and xbegin
	JmpIndirect       // jump through a register or memory
	Call              // direct call
	CallIndirect      // call through a register or memory
	Push              // push of a register, memory, immediate, or flags
	Pop               // pop into a register, memory, or flags
	Nop               // nop of any length, endbr64; not pause
	Trap              // ud0, ud1, ud2, int3, int1, hlt: control does not go on
	Lea               // lea Dst, Mem
	MovRegReg         // mov Dst, Src of 4 or 8 bytes (see OpSize)
	MovRegImm         // mov Dst, Imm of 4 or 8 bytes
	MovLoad           // mov Dst, Mem
	MovStore          // mov Mem, Src or Imm (Src is NoReg)
	Movsx             // movsx, movsxd: Dst from Src or Mem
	Movzx             // movzx: Dst from Src or Mem
	Add               // add Dst, Src | Mem | Imm
	Sub               // sub Dst, Src | Mem | Imm
	And               // and Dst, Src | Mem | Imm, of any size (see OpSize)
	Xor               // xor Dst, Src | Mem | Imm
	Shr               // shr Dst, Imm of 4 or 8 bytes (see OpSize)
	Cmp               // cmp Src, Imm (Src), or of other operands (Src is NoReg)
	Leave             // mov rsp, rbp; pop rbp
	Syscall           // syscall, sysenter, int n
)

var kindNames = [...]string{"other", "ret", "jmp", "jcc", "jmp*", "call", "call*", "push", "pop", "nop",
	"trap", "lea", "mov", "movi", "load", "store", "movsx", "movzx", "add", "sub", "and", "xor", "shr", "cmp", "leave", "syscall"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Cond values of Jcc that are not condition codes: they test rcx, or start a
// transaction.
const (
	CondLoopne = 16 + iota
	CondLoope
	CondLoop
	CondRcxz
	CondXbegin
)

// Mem is an instruction's memory operand.
type Mem struct {
	Has         bool
	RIPRel      bool  // Target is the absolute address; Base is RIP
	Vague       bool  // EVEX disp8 with a factor this package does not know: Disp is not usable
	Seg         bool  // fs: or gs: is added, so that the address is not Base+Index*Scale+Disp
	Scale       uint8 // 1, 2, 4 or 8; 0 without Index
	Base, Index Reg
	Disp        int64
	Target      uint64
}

// Inst is one decoded instruction. It holds no pointers.
type Inst struct {
	Addr   uint64
	Target uint64 // of a direct jump or call
	Imm    int64  // sign-extended immediate
	Mem    Mem

	// Reads and Writes hold the registers read and written, implicit ones
	// too; what a callee may clobber is not here. A register is not read by
	// an idiom whose result does not depend on it (xor eax, eax), nor by
	// copying an old upper half (sqrtsd, cvtsi2sd). If Loose is set, both are
	// over-approximations.
	Reads, Writes RegSet
	// WritesFull is the part of Writes whose old value is gone entirely:
	// 32- and 64-bit writes are (SDM vol. 1, 3.4.1.1), 8- and 16-bit ones are
	// not. A vector register counts as replaced when its lowest lane is.
	WritesFull RegSet

	MemSize int // bytes accessed at Mem; 0 if unknown, or if it is not accessed
	Len     int // bytes, 1 to 15

	Kind     Kind
	Cond     uint8 // of a Jcc: condition code 0..15, or CondLoopne...
	OpSize   uint8 // operand size in bytes; 0 where it has no meaning
	Dst, Src Reg   // explicit register operands where Kind names them; Dst also for other instructions that have one destination register and no other effect than flags
	Opcode   uint8 // last opcode byte
	Map      uint8 // opcode map: 0 one byte, 1 0F, 2 0F38, 3 0F3A, 5, 6
	Vex      bool  // VEX- or EVEX-encoded
	Evex     bool
	REX      uint8 // the REX prefix, 0 if none
	Prefixes Prefixes

	MemRead, MemWrite bool
	Loose             bool
	HasImm            bool
	High              bool // an operand is ah, ch, dh or bh: Dst or Src is the register that it is a part of

	nopl bool // 0F 1F /0
	toSS bool // mov to ss
}

// Prefixes is the set of legacy prefixes of an instruction.
type Prefixes uint16

// The legacy prefixes.
const (
	PrefixES Prefixes = 1 << iota
	PrefixCS
	PrefixSS
	PrefixDS
	PrefixFS
	PrefixGS
	Prefix66
	Prefix67
	PrefixLock
	PrefixF2
	PrefixF3
)

// FallsThrough says whether control can go on to the instruction after in. It
// can after a call, though the callee may never return (see NoReturn).
func (in *Inst) FallsThrough() bool {
	switch in.Kind {
	case Ret, Jmp, JmpIndirect, Trap:
		return false
	}
	return true
}

// End returns the address after in.
func (in *Inst) End() uint64 { return in.Addr + uint64(in.Len) }

// Branches says whether in is a direct jump, conditional or not.
func (in *Inst) Branches() bool { return in.Kind == Jmp || in.Kind == Jcc }
