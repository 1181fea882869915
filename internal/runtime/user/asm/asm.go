// Package asm writes x86-64 machine code: the instructions that the user runtime
// needs, with labels, and with a list of the words that hold absolute addresses, so
// that the code can be placed anywhere. References are to the Intel SDM, volume 2.
package asm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Reg is a general-purpose register by its number in encodings.
type Reg uint8

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
	// None stands for no register in Mem.
	None Reg = 0xff
)

var regNames = [16]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func (r Reg) String() string {
	if int(r) < len(regNames) {
		return regNames[r]
	}
	return "none"
}

// RegSet is a set of registers, bit r for register r.
type RegSet uint16

// Set makes a set.
func Set(regs ...Reg) RegSet {
	var s RegSet
	for _, r := range regs {
		s |= 1 << r
	}
	return s
}

// Has says whether r is in the set.
func (s RegSet) Has(r Reg) bool { return s>>r&1 != 0 }

// Cond is a condition code (SDM, table B-10).
type Cond uint8

const (
	O Cond = iota
	NO
	B
	AE
	E
	NE
	BE
	A
	S
	NS
	P
	NP
	L
	GE
	LE
	G
)

// Not is the opposite condition.
func (c Cond) Not() Cond { return c ^ 1 }

// Mem is a memory operand: Base + Index*Scale + Disp.
type Mem struct {
	Base, Index Reg
	Scale       uint8 // 1, 2, 4 or 8
	Disp        int32
	FS          bool // relative to the FS base: thread-local storage
}

// At is the operand base + disp.
func At(base Reg, disp int32) Mem { return Mem{Base: base, Index: None, Scale: 1, Disp: disp} }

// Idx is the operand base + index*scale + disp.
func Idx(base, index Reg, scale uint8, disp int32) Mem {
	return Mem{Base: base, Index: index, Scale: scale, Disp: disp}
}

// Label is a place in the code, known when it is bound.
type Label int

// Reloc is a word of 8 bytes in the code to which the base address of what Symbol
// names must be added.
type Reloc struct {
	Offset int
	Symbol int // the user's own numbering
}

type fixup struct {
	at    int // of the displacement
	size  int // 1 or 4
	label Label
}

// Assembler appends instructions to a buffer. Its methods do not fail: what cannot
// be encoded is reported by Finish.
type Assembler struct {
	buf    []byte
	labels []int // offset, -1 while unbound
	fixups []fixup
	relocs []Reloc
	err    error
}

// Len is the offset of the next instruction.
func (a *Assembler) Len() int { return len(a.buf) }

// Bytes appends raw bytes.
func (a *Assembler) Bytes(b ...byte) { a.buf = append(a.buf, b...) }

// Align appends int3 until the offset is a multiple of n.
func (a *Assembler) Align(n int) {
	for len(a.buf)%n != 0 {
		a.buf = append(a.buf, 0xcc)
	}
}

// NewLabel makes an unbound label.
func (a *Assembler) NewLabel() Label {
	a.labels = append(a.labels, -1)
	return Label(len(a.labels) - 1)
}

// Bind puts l here.
func (a *Assembler) Bind(l Label) {
	if a.labels[l] >= 0 {
		a.fail(fmt.Errorf("label %d is bound twice", l))
	}
	a.labels[l] = len(a.buf)
}

// Here makes a label that is bound here.
func (a *Assembler) Here() Label {
	l := a.NewLabel()
	a.Bind(l)
	return l
}

// Offset is where a bound label is.
func (a *Assembler) Offset(l Label) int { return a.labels[l] }

func (a *Assembler) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// ErrEncode is wrapped by the errors of Finish.
var ErrEncode = errors.New("cannot be encoded")

// Finish resolves the labels and returns the code with its relocations. The words
// that are relocated hold the addend.
func (a *Assembler) Finish() ([]byte, []Reloc, error) {
	for _, f := range a.fixups {
		target := a.labels[f.label]
		if target < 0 {
			a.fail(fmt.Errorf("label %d is not bound", f.label))
			continue
		}
		rel := target - (f.at + f.size)
		switch {
		case f.size == 1 && rel == int(int8(rel)):
			a.buf[f.at] = byte(rel)
		case f.size == 4 && rel == int(int32(rel)):
			binary.LittleEndian.PutUint32(a.buf[f.at:], uint32(rel))
		default:
			a.fail(fmt.Errorf("jump at %#x over %d bytes", f.at, rel))
		}
	}
	if a.err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrEncode, a.err)
	}
	return a.buf, a.relocs, nil
}

func (a *Assembler) imm32(v int32) {
	a.buf = binary.LittleEndian.AppendUint32(a.buf, uint32(v))
}

const rexW = 8

// rex appends a REX prefix if one is needed (SDM, 2.2.1). force asks for one even
// if it is empty, which makes register numbers 4 to 7 mean spl … dil.
func (a *Assembler) rex(w byte, reg, index, base Reg, force bool) {
	p := w
	if reg&8 != 0 && reg != None {
		p |= 4
	}
	if index&8 != 0 && index != None {
		p |= 2
	}
	if base&8 != 0 && base != None {
		p |= 1
	}
	if p != 0 || force {
		a.buf = append(a.buf, 0x40|p)
	}
}

// rr appends an instruction whose r/m operand is a register. size is that of the
// operands in bytes.
func (a *Assembler) rr(size int, reg, rm Reg, op ...byte) {
	if size == 2 {
		a.buf = append(a.buf, 0x66)
	}
	var w byte
	if size == 8 {
		w = rexW
	}
	a.rex(w, reg, 0, rm, size == 1 && (reg >= 4 || rm >= 4))
	a.buf = append(a.buf, op...)
	a.buf = append(a.buf, 0xc0|byte(reg&7)<<3|byte(rm&7))
}

// rm appends an instruction whose r/m operand is memory; op follows the prefixes.
func (a *Assembler) rm(size int, reg Reg, m Mem, op ...byte) {
	if m.FS {
		a.buf = append(a.buf, 0x64)
	}
	if size == 2 {
		a.buf = append(a.buf, 0x66)
	}
	var w byte
	if size == 8 {
		w = rexW
	}
	a.rex(w, reg, m.Index, m.Base, size == 1 && reg >= 4)
	a.buf = append(a.buf, op...)
	a.modrm(reg, m)
}

// modrm appends ModRM, SIB and displacement (SDM, tables 2-2 and 2-3).
func (a *Assembler) modrm(reg Reg, m Mem) {
	r := byte(reg&7) << 3
	scale := map[uint8]byte{1: 0, 2: 0x40, 4: 0x80, 8: 0xc0}[m.Scale]
	if m.Index == RSP {
		a.fail(errors.New("rsp as an index"))
	}
	if m.Base == None { // SIB without a base has a 32-bit displacement
		index := byte(4)
		if m.Index != None {
			index = byte(m.Index & 7)
		}
		a.buf = append(a.buf, r|4, scale|index<<3|5)
		a.imm32(m.Disp)
		return
	}
	mod := byte(0x80)
	switch {
	case m.Disp == 0 && m.Base&7 != RBP: // without a displacement, 5 means another thing
		mod = 0
	case m.Disp == int32(int8(m.Disp)):
		mod = 0x40
	}
	if m.Index != None || m.Base&7 == RSP {
		index := byte(4)
		if m.Index != None {
			index = byte(m.Index & 7)
		}
		a.buf = append(a.buf, mod|r|4, scale|index<<3|byte(m.Base&7))
	} else {
		a.buf = append(a.buf, mod|r|byte(m.Base&7))
	}
	switch mod {
	case 0x40:
		a.buf = append(a.buf, byte(m.Disp))
	case 0x80:
		a.imm32(m.Disp)
	}
}

func fits32(v int64) bool { return v >= math.MinInt32 && v <= math.MaxInt32 }
