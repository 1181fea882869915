package jit

import (
	"math/bits"
	"syscall"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"
)

// reserveCore makes room for r8 bytes in this CPU's ring: see the documentation of
// package shm. It leaves in rax the address of the bytes, or 0; it uses rcx, rdx,
// rdi, r9, r10 and r11, and keeps rsi and r8.
func (c *compiler) reserveCore(r routine) {
	a, m := &c.a, r.m
	c.cpu(asm.R10)
	a.Mov(8, asm.R11, asm.R10)
	a.Shift(asm.SHL, 8, asm.R11, uint8(bits.TrailingZeros(shm.RingHeader)))
	a.MovAddr(asm.RAX, Shared, int64(m.Rings))
	a.ALU(asm.ADD, 8, asm.R11, asm.RAX)
	lost := a.NewLabel()
	a.ALUImm(asm.CMP, 8, asm.R8, int32(m.MaxRecord))
	a.Jcc(asm.A, lost)
	a.Lea(asm.R9, asm.At(asm.R8, shm.RingWord+7))
	a.ALUImm(asm.AND, 8, asm.R9, -8)
	a.Load(8, asm.RAX, asm.At(asm.R11, shm.RingHead))

	again, join, fits := a.Here(), a.NewLabel(), a.NewLabel()
	a.Mov(4, asm.RCX, asm.RAX)
	a.ALUImm(asm.AND, 4, asm.RCX, int32(m.RingSize-1))
	a.Lea(asm.RDI, asm.Idx(asm.RCX, asm.R9, 1, 0))
	a.ALUImm(asm.CMP, 8, asm.RDI, int32(m.RingSize))
	a.JccNear(asm.BE, fits)
	a.MovImm(asm.RDI, int64(m.RingSize)) // padding to the end
	a.ALU(asm.SUB, 8, asm.RDI, asm.RCX)
	a.JmpNear(join)
	a.Bind(fits)
	a.Zero(asm.RDI)
	a.Bind(join)
	a.Lea(asm.RCX, asm.Idx(asm.RAX, asm.RDI, 1, 0))
	a.ALU(asm.ADD, 8, asm.RCX, asm.R9)
	a.Mov(8, asm.RDX, asm.RCX)
	a.ALULoad(asm.SUB, 8, asm.RDX, asm.At(asm.R11, shm.RingTail))
	a.ALUImm(asm.CMP, 8, asm.RDX, int32(m.RingSize))
	a.Jcc(asm.A, lost)
	a.LockCmpxchg(8, asm.At(asm.R11, shm.RingHead), asm.RCX)
	a.Jcc(asm.NE, again)

	a.Mov(4, asm.RCX, asm.RAX)
	a.ALUImm(asm.AND, 4, asm.RCX, int32(m.RingSize-1))
	a.Mov(8, asm.RDX, asm.R10)
	a.Shift(asm.SHL, 8, asm.RDX, uint8(bits.TrailingZeros64(m.RingSize)))
	a.MovAddr(asm.RAX, Shared, int64(m.Data))
	a.ALU(asm.ADD, 8, asm.RDX, asm.RAX)
	whole := a.NewLabel()
	a.Test(8, asm.RDI, asm.RDI)
	a.JccNear(asm.E, whole)
	a.ALUImm(asm.SUB, 8, asm.RDI, shm.RingWord)
	a.MovImm(asm.RAX, shm.RingPadding<<32)
	a.ALU(asm.OR, 8, asm.RAX, asm.RDI)
	a.Store(8, asm.Idx(asm.RDX, asm.RCX, 1, 0), asm.RAX)
	a.Zero(asm.RCX)
	a.Bind(whole)
	a.MovImm(asm.R9, shm.RingBusy<<32)
	a.ALU(asm.OR, 8, asm.R9, asm.R8)
	a.Lea(asm.RAX, asm.Idx(asm.RDX, asm.RCX, 1, shm.RingWord))
	a.Store(8, asm.At(asm.RAX, -shm.RingWord), asm.R9)
	// What is written soon is in no cache, or in the reader's, and the next locked
	// instruction would wait for it. In a traced program that is a third of what the
	// records of an entry and its exit cost: 48 instead of 72 ns.
	for line := byte(0); line < 4; line++ {
		a.Bytes(0x0f, 0x0d, 0x88, 64*line, 1024>>8, 0, 0) // prefetchw 1024+64*line(%rax)
	}
	a.Ret()
	a.Bind(lost)
	a.LockInc(8, asm.At(asm.R11, shm.RingLost))
	a.Zero(asm.RAX)
	a.Ret()
}

// output(ring, data, size, flags).
func (c *compiler) output(r routine) {
	a := &c.a
	bad, full := a.NewLabel(), a.NewLabel()
	a.TestImm(8, asm.RCX, ^3) // of waking the reader
	a.Jcc(asm.NE, bad)
	a.Mov(8, asm.R8, asm.RDX)
	a.Call(c.routine(routine{kind: doReserveCore, m: r.m}))
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.E, full)
	a.Mov(8, asm.RDI, asm.RAX)
	a.Mov(8, asm.RCX, asm.R8)
	c.copyVar()
	a.StoreImm(4, asm.At(asm.RAX, -4), shm.RingDone)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(bad)
	c.fail(syscall.EINVAL)
	a.Bind(full)
	c.fail(syscall.EAGAIN)
}

// copyVar copies rcx bytes from rsi to rdi; it uses rdx, and keeps rax. Both sides
// are our own memory.
func (c *compiler) copyVar() {
	a := &c.a
	words, tail, bytes, done := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.ALUImm(asm.CMP, 8, asm.RCX, 512)
	a.JccNear(asm.B, words)
	a.RepMovsb()
	a.JmpNear(done)
	a.Bind(words)
	rest := a.NewLabel()
	a.ALUImm(asm.SUB, 8, asm.RCX, 32)
	a.JccNear(asm.B, rest)
	top := a.Here()
	for off := int32(0); off < 32; off += 8 {
		a.Load(8, asm.RDX, asm.At(asm.RSI, off))
		a.Store(8, asm.At(asm.RDI, off), asm.RDX)
	}
	a.ALUImm(asm.ADD, 8, asm.RSI, 32)
	a.ALUImm(asm.ADD, 8, asm.RDI, 32)
	a.ALUImm(asm.SUB, 8, asm.RCX, 32)
	a.Jcc(asm.AE, top)
	a.Bind(rest)
	a.ALUImm(asm.ADD, 8, asm.RCX, 32-8)
	a.JccNear(asm.S, tail)
	top = a.Here()
	a.Load(8, asm.RDX, asm.At(asm.RSI, 0))
	a.Store(8, asm.At(asm.RDI, 0), asm.RDX)
	a.ALUImm(asm.ADD, 8, asm.RSI, 8)
	a.ALUImm(asm.ADD, 8, asm.RDI, 8)
	a.ALUImm(asm.SUB, 8, asm.RCX, 8)
	a.Jcc(asm.AE, top)
	a.Bind(tail)
	a.ALUImm(asm.ADD, 8, asm.RCX, 8)
	a.JccNear(asm.E, done)
	a.Bind(bytes)
	a.Load(1, asm.RDX, asm.Idx(asm.RSI, asm.RCX, 1, -1))
	a.Store(1, asm.Idx(asm.RDI, asm.RCX, 1, -1), asm.RDX)
	a.ALUImm(asm.SUB, 8, asm.RCX, 1)
	a.Jcc(asm.NE, bytes)
	a.Bind(done)
}

// reserve(ring, size, flags).
func (c *compiler) reserve(r routine) {
	a := &c.a
	bad := a.NewLabel()
	a.Test(8, asm.RDX, asm.RDX)
	a.JccNear(asm.NE, bad)
	a.Mov(8, asm.R8, asm.RSI)
	a.Jmp(c.routine(routine{kind: doReserveCore, m: r.m}))
	a.Bind(bad)
	a.Zero(asm.RAX)
	a.Ret()
}

// query(ring, what) answers for this CPU's ring.
func (c *compiler) query(r routine) {
	a, m := &c.a, r.m
	const size, consumer, producer = 1, 2, 3
	c.cpu(asm.R11)
	a.Shift(asm.SHL, 8, asm.R11, uint8(bits.TrailingZeros(shm.RingHeader)))
	a.MovAddr(asm.RAX, Shared, int64(m.Rings))
	a.ALU(asm.ADD, 8, asm.R11, asm.RAX)
	answer := func(what int32, f func()) {
		next := a.NewLabel()
		a.ALUImm(asm.CMP, 8, asm.RSI, what)
		a.JccNear(asm.NE, next)
		f()
		a.Ret()
		a.Bind(next)
	}
	answer(0, func() {
		a.Load(8, asm.RAX, asm.At(asm.R11, shm.RingHead))
		a.ALULoad(asm.SUB, 8, asm.RAX, asm.At(asm.R11, shm.RingTail))
	})
	answer(size, func() { a.MovImm(asm.RAX, int64(m.RingSize)) })
	answer(consumer, func() { a.Load(8, asm.RAX, asm.At(asm.R11, shm.RingTail)) })
	answer(producer, func() { a.Load(8, asm.RAX, asm.At(asm.R11, shm.RingHead)) })
	a.Zero(asm.RAX)
	a.Ret()
}
