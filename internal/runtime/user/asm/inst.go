package asm

import (
	"encoding/binary"
	"fmt"
)

// ALUOp is one of the eight classic operations by its number in encodings.
type ALUOp uint8

const (
	ADD ALUOp = 0
	OR  ALUOp = 1
	AND ALUOp = 4
	SUB ALUOp = 5
	XOR ALUOp = 6
	CMP ALUOp = 7
)

// ShiftOp is a shift or rotation by its number in encodings.
type ShiftOp uint8

const (
	ROL ShiftOp = 0
	SHL ShiftOp = 4
	SHR ShiftOp = 5
	SAR ShiftOp = 7
)

// Mov is dst = src, 4 bytes (clearing the upper half) or 8.
func (a *Assembler) Mov(size int, dst, src Reg) { a.rr(size, src, dst, 0x89) }

// MovImm is dst = v by the shortest encoding; flags are kept.
func (a *Assembler) MovImm(dst Reg, v int64) {
	switch {
	case v == int64(uint32(v)):
		a.rex(0, 0, 0, dst, false)
		a.buf = append(a.buf, 0xb8|byte(dst&7))
		a.imm32(int32(uint32(v)))
	case fits32(v):
		a.rr(8, 0, dst, 0xc7)
		a.imm32(int32(v))
	default:
		a.movabs(dst, uint64(v))
	}
}

func (a *Assembler) movabs(dst Reg, v uint64) {
	a.rex(rexW, 0, 0, dst, false)
	a.buf = append(a.buf, 0xb8|byte(dst&7))
	a.buf = binary.LittleEndian.AppendUint64(a.buf, v)
}

// MovAddr is dst = address of symbol + addend.
func (a *Assembler) MovAddr(dst Reg, symbol int, addend int64) {
	a.movabs(dst, uint64(addend))
	a.relocs = append(a.relocs, Reloc{Offset: len(a.buf) - 8, Symbol: symbol})
}

// Zero is dst = 0; flags are destroyed.
func (a *Assembler) Zero(dst Reg) { a.rr(4, dst, dst, 0x31) }

// Load is dst = zero-extended memory of size bytes.
func (a *Assembler) Load(size int, dst Reg, m Mem) {
	switch size {
	case 1:
		a.rm(4, dst, m, 0x0f, 0xb6)
	case 2:
		a.rm(4, dst, m, 0x0f, 0xb7)
	default:
		a.rm(size, dst, m, 0x8b)
	}
}

// LoadSX is dst = sign-extended memory of 1, 2 or 4 bytes.
func (a *Assembler) LoadSX(size int, dst Reg, m Mem) { a.rm(8, dst, m, movsx[size]...) }

// MovSX sign-extends the lowest from bytes of src to size bytes of dst.
func (a *Assembler) MovSX(size, from int, dst, src Reg) {
	if from == 1 && size != 8 && src >= 4 && src < 8 {
		a.rex(0, dst, 0, src, true) // sil and its like need a REX prefix
		a.buf = append(a.buf, 0x0f, 0xbe, 0xc0|byte(dst&7)<<3|byte(src&7))
		return
	}
	a.rr(size, dst, src, movsx[from]...)
}

var movsx = map[int][]byte{1: {0x0f, 0xbe}, 2: {0x0f, 0xbf}, 4: {0x63}}

// MovZX16 is dst = the lowest 2 bytes of src.
func (a *Assembler) MovZX16(dst, src Reg) { a.rr(4, dst, src, 0x0f, 0xb7) }

// MovZX8 is dst = the lowest byte of src.
func (a *Assembler) MovZX8(dst, src Reg) {
	a.rex(0, dst, 0, src, src >= 4)
	a.buf = append(a.buf, 0x0f, 0xb6, 0xc0|byte(dst&7)<<3|byte(src&7))
}

// Store writes the lowest size bytes of src.
func (a *Assembler) Store(size int, m Mem, src Reg) {
	op := byte(0x89)
	if size == 1 {
		op = 0x88
	}
	a.rm(size, src, m, op)
}

// StoreImm writes size bytes of v, which is sign-extended.
func (a *Assembler) StoreImm(size int, m Mem, v int32) {
	op := byte(0xc7)
	if size == 1 {
		op = 0xc6
	}
	a.rm(size, 0, m, op)
	a.imm(size, v)
}

func (a *Assembler) imm(size int, v int32) {
	switch size {
	case 1:
		a.buf = append(a.buf, byte(v))
	case 2:
		a.buf = binary.LittleEndian.AppendUint16(a.buf, uint16(v))
	default:
		a.imm32(v)
	}
}

// Lea is dst = address of m.
func (a *Assembler) Lea(dst Reg, m Mem) { a.rm(8, dst, m, 0x8d) }

// LeaLabel is dst = address of l.
func (a *Assembler) LeaLabel(dst Reg, l Label) {
	a.rex(rexW, dst, 0, 0, false)
	a.buf = append(a.buf, 0x8d, byte(dst&7)<<3|5)
	a.rel32(l)
}

// ALU is dst = dst op src; CMP only sets flags.
func (a *Assembler) ALU(op ALUOp, size int, dst, src Reg) { a.rr(size, src, dst, byte(op)<<3|1) }

// ALUImm is dst = dst op v.
func (a *Assembler) ALUImm(op ALUOp, size int, dst Reg, v int32) {
	if v == int32(int8(v)) {
		a.rr(size, Reg(op), dst, 0x83)
		a.buf = append(a.buf, byte(v))
		return
	}
	a.rr(size, Reg(op), dst, 0x81)
	a.imm32(v)
}

// ALULoad is dst = dst op memory.
func (a *Assembler) ALULoad(op ALUOp, size int, dst Reg, m Mem) {
	if size == 1 {
		a.rm(size, dst, m, byte(op)<<3|2)
		return
	}
	a.rm(size, dst, m, byte(op)<<3|3)
}

// ALUMemImm is memory = memory op v, on 4 or 8 bytes.
func (a *Assembler) ALUMemImm(op ALUOp, size int, m Mem, v int32) {
	if v == int32(int8(v)) {
		a.rm(size, Reg(op), m, 0x83)
		a.buf = append(a.buf, byte(v))
		return
	}
	a.rm(size, Reg(op), m, 0x81)
	a.imm32(v)
}

// Test sets the flags of x & y.
func (a *Assembler) Test(size int, x, y Reg) { a.rr(size, y, x, 0x85) }

// TestImm sets the flags of x & v.
func (a *Assembler) TestImm(size int, x Reg, v int32) {
	a.rr(size, 0, x, 0xf7)
	a.imm32(v)
}

// Shift shifts by a constant.
func (a *Assembler) Shift(op ShiftOp, size int, dst Reg, n uint8) {
	a.rr(size, Reg(op), dst, 0xc1)
	a.buf = append(a.buf, n)
}

// ShiftCL shifts by cl, modulo the size.
func (a *Assembler) ShiftCL(op ShiftOp, size int, dst Reg) { a.rr(size, Reg(op), dst, 0xd3) }

// Neg is dst = -dst.
func (a *Assembler) Neg(size int, dst Reg) { a.rr(size, 3, dst, 0xf7) }

// Imul is dst = dst * src.
func (a *Assembler) Imul(size int, dst, src Reg) { a.rr(size, dst, src, 0x0f, 0xaf) }

// ImulImm is dst = src * v.
func (a *Assembler) ImulImm(size int, dst, src Reg, v int32) {
	if v == int32(int8(v)) {
		a.rr(size, dst, src, 0x6b)
		a.buf = append(a.buf, byte(v))
		return
	}
	a.rr(size, dst, src, 0x69)
	a.imm32(v)
}

// Mul is rdx:rax = rax * src, unsigned.
func (a *Assembler) Mul(size int, src Reg) { a.rr(size, 4, src, 0xf7) }

// MulMem is rdx:rax = rax * memory, unsigned.
func (a *Assembler) MulMem(size int, m Mem) { a.rm(size, 4, m, 0xf7) }

// Div divides rdx:rax by src, unsigned: quotient in rax, remainder in rdx.
func (a *Assembler) Div(size int, src Reg) { a.rr(size, 6, src, 0xf7) }

// IDiv is Div, signed.
func (a *Assembler) IDiv(size int, src Reg) { a.rr(size, 7, src, 0xf7) }

// SignExtendA fills rdx (edx) with the sign of rax (eax).
func (a *Assembler) SignExtendA(size int) {
	if size == 8 {
		a.buf = append(a.buf, 0x48)
	}
	a.buf = append(a.buf, 0x99)
}

// Bswap reverses the bytes of dst, 4 or 8.
func (a *Assembler) Bswap(size int, dst Reg) {
	var w byte
	if size == 8 {
		w = rexW
	}
	a.rex(w, 0, 0, dst, false)
	a.buf = append(a.buf, 0x0f, 0xc8|byte(dst&7))
}

// Xchg swaps registers.
func (a *Assembler) Xchg(x, y Reg) { a.rr(8, x, y, 0x87) }

// LockALU is memory = memory op src, atomically.
func (a *Assembler) LockALU(op ALUOp, size int, m Mem, src Reg) {
	a.buf = append(a.buf, 0xf0)
	a.rm(size, src, m, byte(op)<<3|1)
}

// LockInc adds 1 to memory, atomically.
func (a *Assembler) LockInc(size int, m Mem) {
	a.buf = append(a.buf, 0xf0)
	a.rm(size, 0, m, 0xff)
}

// LockDec subtracts 1 from memory, atomically.
func (a *Assembler) LockDec(size int, m Mem) {
	a.buf = append(a.buf, 0xf0)
	a.rm(size, 1, m, 0xff)
}

// LockXadd adds src to memory, atomically; src becomes the old value.
func (a *Assembler) LockXadd(size int, m Mem, src Reg) {
	a.buf = append(a.buf, 0xf0)
	a.rm(size, src, m, 0x0f, 0xc1)
}

// XchgMem swaps src with memory, atomically.
func (a *Assembler) XchgMem(size int, m Mem, src Reg) { a.rm(size, src, m, 0x87) }

// LockCmpxchg stores src if memory equals rax, atomically, and sets ZF; else rax
// (eax) becomes what is there.
func (a *Assembler) LockCmpxchg(size int, m Mem, src Reg) {
	a.buf = append(a.buf, 0xf0)
	a.rm(size, src, m, 0x0f, 0xb1)
}

// Push and Pop move 8 bytes.
func (a *Assembler) Push(r Reg) {
	a.rex(0, 0, 0, r, false)
	a.buf = append(a.buf, 0x50|byte(r&7))
}

func (a *Assembler) Pop(r Reg) {
	a.rex(0, 0, 0, r, false)
	a.buf = append(a.buf, 0x58|byte(r&7))
}

// Instructions without operands.
func (a *Assembler) Ret()     { a.Bytes(0xc3) }
func (a *Assembler) Leave()   { a.Bytes(0xc9) }
func (a *Assembler) Rdtsc()   { a.Bytes(0x0f, 0x31) }
func (a *Assembler) Syscall() { a.Bytes(0x0f, 0x05) }
func (a *Assembler) Pause()   { a.Bytes(0xf3, 0x90) }
func (a *Assembler) Int3()    { a.Bytes(0xcc) }

// RepStosb stores al rcx times at rdi, RepMovsb copies rcx bytes from rsi to rdi;
// the direction flag must be clear.
func (a *Assembler) RepStosb() { a.Bytes(0xf3, 0xaa) }
func (a *Assembler) RepMovsb() { a.Bytes(0xf3, 0xa4) }

// Rdpid is dst = IA32_TSC_AUX.
func (a *Assembler) Rdpid(dst Reg) {
	a.buf = append(a.buf, 0xf3)
	a.rex(0, 0, 0, dst, false)
	a.buf = append(a.buf, 0x0f, 0xc7, 0xc0|7<<3|byte(dst&7))
}

// Lsl is dst = the limit of the segment that the selector src names.
func (a *Assembler) Lsl(dst, src Reg) { a.rr(4, dst, src, 0x0f, 0x03) }

// CMov is dst = src if c.
func (a *Assembler) CMov(c Cond, size int, dst, src Reg) { a.rr(size, dst, src, 0x0f, 0x40|byte(c)) }

// Jmp jumps to l, Jcc if c, Call calls it.
func (a *Assembler) Jmp(l Label) {
	if rel, ok := a.short(l); ok {
		a.buf = append(a.buf, 0xeb, rel)
		return
	}
	a.buf = append(a.buf, 0xe9)
	a.rel32(l)
}

func (a *Assembler) Jcc(c Cond, l Label) {
	if rel, ok := a.short(l); ok {
		a.buf = append(a.buf, 0x70|byte(c), rel)
		return
	}
	a.buf = append(a.buf, 0x0f, 0x80|byte(c))
	a.rel32(l)
}

// JmpNear and JccNear are for labels less than 128 bytes ahead.
func (a *Assembler) JmpNear(l Label) {
	a.buf = append(a.buf, 0xeb)
	a.rel8(l)
}

func (a *Assembler) JccNear(c Cond, l Label) {
	a.buf = append(a.buf, 0x70|byte(c))
	a.rel8(l)
}

func (a *Assembler) Call(l Label) {
	a.buf = append(a.buf, 0xe8)
	a.rel32(l)
}

// CallReg calls the address in r, JmpReg jumps there.
func (a *Assembler) CallReg(r Reg) { a.rr(4, 2, r, 0xff) }
func (a *Assembler) JmpReg(r Reg)  { a.rr(4, 4, r, 0xff) }

// short is the displacement of a two-byte jump from here to l, which must lie
// behind.
func (a *Assembler) short(l Label) (byte, bool) {
	if a.labels[l] < 0 {
		return 0, false
	}
	rel := a.labels[l] - (len(a.buf) + 2)
	return byte(rel), rel == int(int8(rel))
}

func (a *Assembler) rel32(l Label) {
	a.fixups = append(a.fixups, fixup{len(a.buf), 4, l})
	a.imm32(0)
}

func (a *Assembler) rel8(l Label) {
	a.fixups = append(a.fixups, fixup{len(a.buf), 1, l})
	a.buf = append(a.buf, 0)
}

// Check records a condition that the caller relies on.
func (a *Assembler) Check(ok bool, format string, args ...any) {
	if !ok {
		a.fail(fmt.Errorf(format, args...))
	}
}
