// Package insn is the eBPF instruction set of RFC 9669 as both the interpreter and
// the JIT read it: raw bytecode is decoded and checked once, strictly, so that
// whoever runs it meets only well-formed instructions. What is not supported is
// refused here, by name.
//
// What is checked is form: opcodes, registers, unused fields, jumps, the bounds of
// functions. Whether memory accesses are safe is the verifier's business, not this
// package's.
package insn

import (
	"errors"
	"fmt"
)

// Size is the size in bytes of one slot of bytecode. A 64-bit immediate load takes
// two slots.
const Size = 8

// Bounds of a program, those of the kernel.
const (
	// MaxSlots bounds a program (BPF_COMPLEXITY_LIMIT_INSNS of the kernel).
	MaxSlots = 1_000_000
	// StackSize is the size in bytes of one function's frame.
	StackSize = 512
	// MaxDepth is how many frames may be in use at once.
	MaxDepth = 8
)

// ErrRefused is wrapped by every refusal of a program.
var ErrRefused = errors.New("program refused")

// Op is what an instruction does. Width and operand are in Insn.
type Op uint8

const (
	// Second marks the second slot of LoadImm: no instruction.
	Second Op = iota

	// Arithmetic: dst = dst op operand, on 64 bits with Wide and else on 32 with
	// the upper half of dst cleared.
	Add
	Sub
	Mul
	Div
	SDiv
	Or
	And
	Lsh
	Rsh
	Neg
	Mod
	SMod
	Xor
	Mov
	Arsh
	// MovSX is Mov of the lowest Bytes bytes of the source, sign-extended.
	MovSX
	// ToLE, ToBE and Swap act on the lowest Bytes bytes of dst and clear the rest.
	ToLE
	ToBE
	Swap

	// Load is dst = *(Bytes *)(src + off), zero-extended; LoadSX sign-extended.
	Load
	LoadSX
	// Store is *(Bytes *)(dst + off) = operand.
	Store

	// Atomics act on *(Bytes *)(dst + off) with src; with Fetch the old value goes
	// to src. Xchg fetches always; CmpXchg compares with r0 and fetches to r0.
	AtomicAdd
	AtomicOr
	AtomicAnd
	AtomicXor
	Xchg
	CmpXchg

	// Jumps compare dst with the operand, on 64 bits with Wide, else on 32.
	Ja
	JEq
	JNe
	JGt
	JGe
	JLt
	JLe
	JSet
	JSGt
	JSGe
	JSLt
	JSLe

	// Call calls the helper Imm, CallLocal the function at slot Target.
	Call
	CallLocal
	Exit

	// LoadImm is dst = Imm; LoadMap the map Map; LoadValue the address Imm bytes
	// into the only value of the array Map; LoadFunc the function at slot Target.
	LoadImm
	LoadMap
	LoadValue
	LoadFunc

	numOps
)

var opNames = [numOps]string{
	"second", "add", "sub", "mul", "div", "sdiv", "or", "and", "lsh", "rsh", "neg", "mod", "smod", "xor", "mov", "arsh",
	"movsx", "le", "be", "bswap", "ldx", "ldxs", "st", "lock add", "lock or", "lock and", "lock xor", "xchg", "cmpxchg",
	"ja", "jeq", "jne", "jgt", "jge", "jlt", "jle", "jset", "jsgt", "jsge", "jslt", "jsle",
	"call", "call local", "exit", "lddw", "lddw map", "lddw value", "lddw func",
}

func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// IsALU says whether o is arithmetic.
func (o Op) IsALU() bool { return o >= Add && o <= Swap }

// IsAtomic says whether o is an atomic operation on memory.
func (o Op) IsAtomic() bool { return o >= AtomicAdd && o <= CmpXchg }

// IsJump says whether o may continue elsewhere in its function.
func (o Op) IsJump() bool { return o >= Ja && o <= JSLe }

// IsCond says whether o is a conditional jump.
func (o Op) IsCond() bool { return o > Ja && o <= JSLe }

// Insn is one checked instruction.
type Insn struct {
	Op    Op
	Wide  bool // 64 bits
	Reg   bool // the operand is Src and not Imm
	Fetch bool
	Bytes uint8 // of memory, of a swap or of a sign extension: 1, 2, 4, 8
	Dst   uint8 // 0…10
	Src   uint8
	Off   int16
	Map   int   // index into Program.Maps
	Imm   int64 // sign-extended
	// Target is the slot that a jump, a local call or LoadFunc leads to.
	Target int
}

func (i Insn) String() string {
	operand := fmt.Sprint(i.Imm)
	if i.Reg {
		operand = fmt.Sprintf("r%d", i.Src)
	}
	width := ""
	if !i.Wide {
		width = "32"
	}
	switch {
	case i.Op == Neg:
		return fmt.Sprintf("neg%s r%d", width, i.Dst)
	case i.Op == ToLE || i.Op == ToBE || i.Op == Swap:
		return fmt.Sprintf("%s%d r%d", i.Op, int(i.Bytes)*8, i.Dst)
	case i.Op == MovSX:
		return fmt.Sprintf("movsx%d%s r%d, r%d", int(i.Bytes)*8, width, i.Dst, i.Src)
	case i.Op.IsALU():
		return fmt.Sprintf("%s%s r%d, %s", i.Op, width, i.Dst, operand)
	case i.Op == Load || i.Op == LoadSX:
		return fmt.Sprintf("%s%d r%d, [r%d%+d]", i.Op, int(i.Bytes)*8, i.Dst, i.Src, i.Off)
	case i.Op == Store:
		return fmt.Sprintf("st%d [r%d%+d], %s", int(i.Bytes)*8, i.Dst, i.Off, operand)
	case i.Op.IsAtomic():
		fetch := ""
		if i.Fetch {
			fetch = " fetch"
		}
		return fmt.Sprintf("%s%d%s [r%d%+d], r%d", i.Op, int(i.Bytes)*8, fetch, i.Dst, i.Off, i.Src)
	case i.Op == Ja:
		return fmt.Sprintf("ja %d", i.Target)
	case i.Op.IsCond():
		return fmt.Sprintf("%s%s r%d, %s, %d", i.Op, width, i.Dst, operand, i.Target)
	case i.Op == Call:
		return fmt.Sprintf("call %d", i.Imm)
	case i.Op == CallLocal:
		return fmt.Sprintf("call local %d", i.Target)
	case i.Op == LoadImm:
		return fmt.Sprintf("lddw r%d, %#x", i.Dst, uint64(i.Imm))
	case i.Op == LoadMap, i.Op == LoadValue:
		return fmt.Sprintf("%s r%d, %d%+d", i.Op, i.Dst, i.Map, i.Imm)
	case i.Op == LoadFunc:
		return fmt.Sprintf("%s r%d, %d", i.Op, i.Dst, i.Target)
	}
	return i.Op.String()
}

// Func is one function of a program.
type Func struct {
	Name       string // "" if unknown
	Start, End int    // slots; the first function is the program's entry
}

// Program is checked bytecode. It is not modified once it is made and may be
// shared.
type Program struct {
	Name  string
	Insns []Insn   // one a slot
	Funcs []Func   // by Start, without gaps
	Maps  []string // the maps that instructions name by their index
}

// FuncAt returns the index of the function that begins at slot, which must be one
// that a call or LoadFunc of p leads to.
func (p *Program) FuncAt(slot int) int {
	lo, hi := 0, len(p.Funcs)
	for lo+1 < hi {
		if mid := (lo + hi) / 2; p.Funcs[mid].Start <= slot {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}
