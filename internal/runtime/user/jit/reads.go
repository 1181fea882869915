package jit

import (
	"syscall"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

// mayFault emits an instruction whose fault continues at target.
func (c *compiler) mayFault(target asm.Label, emit func()) {
	start := c.a.Here()
	emit()
	c.fixups = append(c.fixups, fixup{start, c.a.Here(), target})
}

// orChecked jumps to l if foreign memory must not be read by plain instructions;
// it uses r11.
func (c *compiler) orChecked(l asm.Label) {
	c.a.MovAddr(asm.R11, Process, 0)
	c.a.ALUMemImm(asm.CMP, 4, asm.At(asm.R11, shm.ProcDirect), 0)
	c.a.Jcc(asm.E, l)
}

// unreadable ends a read that failed: the r10 bytes at r9 become zero, as the
// kernel leaves them.
func (c *compiler) unreadable() {
	a := &c.a
	a.Mov(8, asm.RDI, asm.R9)
	a.Mov(4, asm.RCX, asm.R10)
	a.Zero(asm.RAX)
	a.RepStosb()
	c.fail(syscall.EFAULT)
}

// read(dst, size, src).
func (c *compiler) read(routine) {
	a := &c.a
	fault, checked, short, done := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	words, tail := a.NewLabel(), a.NewLabel()
	a.Mov(8, asm.R9, asm.RDI)
	a.Mov(4, asm.R10, asm.RSI)
	a.Mov(4, asm.RCX, asm.RSI)
	c.orChecked(checked)
	a.ALUImm(asm.CMP, 8, asm.RCX, 8)
	a.Jcc(asm.B, short)
	// Four words a turn: 1 ns less for 64 bytes.
	a.ALUImm(asm.SUB, 8, asm.RCX, 32)
	a.JccNear(asm.B, words)
	top := a.Here()
	for off := int32(0); off < 32; off += 8 {
		c.mayFault(fault, func() { a.Load(8, asm.RAX, asm.At(asm.RDX, off)) })
		a.Store(8, asm.At(asm.RDI, off), asm.RAX)
	}
	a.ALUImm(asm.ADD, 8, asm.RDX, 32)
	a.ALUImm(asm.ADD, 8, asm.RDI, 32)
	a.ALUImm(asm.SUB, 8, asm.RCX, 32)
	a.Jcc(asm.AE, top)
	a.Bind(words)
	a.ALUImm(asm.ADD, 8, asm.RCX, 32-8)
	a.JccNear(asm.S, tail)
	top = a.Here()
	c.mayFault(fault, func() { a.Load(8, asm.RAX, asm.At(asm.RDX, 0)) })
	a.Store(8, asm.At(asm.RDI, 0), asm.RAX)
	a.ALUImm(asm.ADD, 8, asm.RDX, 8)
	a.ALUImm(asm.ADD, 8, asm.RDI, 8)
	a.ALUImm(asm.SUB, 8, asm.RCX, 8)
	a.Jcc(asm.AE, top)
	a.Bind(tail)
	a.ALUImm(asm.ADD, 8, asm.RCX, 8)
	a.Jcc(asm.E, done)
	// The last word overlaps the one before it.
	c.mayFault(fault, func() { a.Load(8, asm.RAX, asm.Idx(asm.RDX, asm.RCX, 1, -8)) })
	a.Store(8, asm.Idx(asm.RDI, asm.RCX, 1, -8), asm.RAX)
	a.Bind(done)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(short)
	a.Test(8, asm.RCX, asm.RCX)
	a.Jcc(asm.E, done)
	bytes := a.NewLabel()
	a.ALUImm(asm.CMP, 8, asm.RCX, 4)
	a.JccNear(asm.B, bytes)
	c.mayFault(fault, func() { a.Load(4, asm.RAX, asm.At(asm.RDX, 0)) })
	c.mayFault(fault, func() { a.Load(4, asm.RSI, asm.Idx(asm.RDX, asm.RCX, 1, -4)) })
	a.Store(4, asm.At(asm.RDI, 0), asm.RAX)
	a.Store(4, asm.Idx(asm.RDI, asm.RCX, 1, -4), asm.RSI)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(bytes)
	top = a.Here()
	c.mayFault(fault, func() { a.Load(1, asm.RAX, asm.Idx(asm.RDX, asm.RCX, 1, -1)) })
	a.Store(1, asm.Idx(asm.RDI, asm.RCX, 1, -1), asm.RAX)
	a.ALUImm(asm.SUB, 8, asm.RCX, 1)
	a.Jcc(asm.NE, top)
	a.Zero(asm.RAX)
	a.Ret()

	a.Bind(checked)
	a.Test(8, asm.RCX, asm.RCX)
	a.Jcc(asm.E, done)
	a.Call(c.routine(routine{kind: doCheckedRead}))
	a.ALU(asm.CMP, 8, asm.RAX, asm.R10)
	a.Jcc(asm.E, done)
	a.Bind(fault)
	c.unreadable()
}

// checkedRead reads rcx bytes from rdx to rdi by process_vm_readv, and leaves in
// rax how many it has read, or an error number. It keeps rcx, rdx, rdi, r9 and r10.
func (c *compiler) checkedRead(routine) {
	a := &c.a
	quiet := a.NewLabel()
	c.orQuiet(quiet)
	keep := []asm.Reg{asm.RCX, asm.RDX, asm.RDI, asm.R9, asm.R10}
	for _, r := range keep {
		a.Push(r)
	}
	// struct iovec {base, len}: the local one at the top, then the remote one.
	a.Push(asm.RCX)
	a.Push(asm.RDX)
	a.Push(asm.RCX)
	a.Push(asm.RDI)
	a.Call(c.routine(routine{kind: doPid}))
	a.Mov(4, asm.RDI, asm.RAX)
	a.Mov(8, asm.RSI, asm.RSP)
	a.MovImm(asm.RDX, 1)
	a.Lea(asm.R10, asm.At(asm.RSP, 16))
	a.MovImm(asm.R8, 1)
	a.Zero(asm.R9)
	a.MovImm(asm.RAX, unix.SYS_PROCESS_VM_READV)
	a.Syscall()
	a.ALUImm(asm.ADD, 8, asm.RSP, 32)
	for i := len(keep) - 1; i >= 0; i-- {
		a.Pop(keep[i])
	}
	a.Ret()
	a.Bind(quiet)
	c.fail(syscall.EPERM)
}

// readStr(dst, size, src) returns the length with the final zero byte.
func (c *compiler) readStr(routine) {
	a := &c.a
	fault, checked, empty, cut, end := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.Mov(8, asm.R9, asm.RDI)
	a.Mov(4, asm.R10, asm.RSI)
	a.Mov(4, asm.RCX, asm.RSI)
	a.Test(4, asm.RCX, asm.RCX)
	a.Jcc(asm.E, empty)
	c.orChecked(checked)
	top := a.Here()
	c.mayFault(fault, func() { a.Load(1, asm.RAX, asm.At(asm.RDX, 0)) })
	a.Store(1, asm.At(asm.RDI, 0), asm.RAX)
	a.ALUImm(asm.ADD, 8, asm.RDX, 1)
	a.ALUImm(asm.ADD, 8, asm.RDI, 1)
	a.Test(4, asm.RAX, asm.RAX)
	a.Jcc(asm.E, end)
	a.ALUImm(asm.SUB, 4, asm.RCX, 1)
	a.Jcc(asm.NE, top)
	a.Bind(cut)
	a.StoreImm(1, asm.At(asm.RDI, -1), 0)
	a.Bind(end)
	a.Mov(8, asm.RAX, asm.RDI)
	a.ALU(asm.SUB, 8, asm.RAX, asm.R9)
	a.Ret()
	a.Bind(empty)
	a.Zero(asm.RAX)
	a.Ret()

	// Page by page: what follows the string may not be there. rsi is the number of
	// bytes wanted after this page.
	a.Bind(checked)
	page := a.Here()
	a.Mov(4, asm.RSI, asm.RCX)
	a.Mov(4, asm.RAX, asm.RDX)
	a.ALUImm(asm.AND, 4, asm.RAX, 4095)
	a.Neg(4, asm.RAX)
	a.ALUImm(asm.ADD, 4, asm.RAX, 4096)
	whole := a.NewLabel()
	a.ALU(asm.CMP, 4, asm.RCX, asm.RAX)
	a.JccNear(asm.BE, whole)
	a.Mov(4, asm.RCX, asm.RAX)
	a.Bind(whole)
	a.ALU(asm.SUB, 4, asm.RSI, asm.RCX)
	a.Push(asm.RSI)
	a.Call(c.routine(routine{kind: doCheckedRead}))
	a.Pop(asm.RSI)
	a.ALU(asm.CMP, 8, asm.RAX, asm.RCX)
	a.Jcc(asm.NE, fault)
	a.ALU(asm.ADD, 8, asm.RDX, asm.RCX)
	top = a.Here()
	a.Load(1, asm.RAX, asm.At(asm.RDI, 0))
	a.ALUImm(asm.ADD, 8, asm.RDI, 1)
	a.Test(4, asm.RAX, asm.RAX)
	a.Jcc(asm.E, end)
	a.ALUImm(asm.SUB, 4, asm.RCX, 1)
	a.Jcc(asm.NE, top)
	a.Mov(4, asm.RCX, asm.RSI)
	a.Test(4, asm.RCX, asm.RCX)
	a.Jcc(asm.NE, page)
	a.Jmp(cut)
	a.Bind(fault)
	c.unreadable()
}
