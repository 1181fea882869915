package jit

import (
	"syscall"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

// clock() is nanoseconds: see shm's clocks. It changes rax, rdx, r10 and r11 only.
func (c *compiler) clock(r routine) {
	a := &c.a
	slow := a.NewLabel()
	a.MovAddr(asm.R11, Shared, shm.OffClocks)
	a.ALULoad(asm.ADD, 8, asm.R11, asm.At(asm.R11, shm.OffClock-shm.OffClocks))
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.R11, shm.ClockMult), 0)
	a.JccNear(asm.E, slow)
	a.Rdtsc()
	a.Shift(asm.SHL, 8, asm.RDX, 32)
	a.ALU(asm.OR, 8, asm.RAX, asm.RDX)
	a.MulMem(8, asm.At(asm.R11, shm.ClockMult))
	a.Mov(8, asm.RAX, asm.RDX)
	a.ALULoad(asm.ADD, 8, asm.RAX, asm.At(asm.R11, shm.ClockOffset))
	if r.n != 0 {
		a.ALULoad(asm.ADD, 8, asm.RAX, asm.At(asm.R11, int32(r.n)))
	}
	a.Ret()

	a.Bind(slow)
	id := map[int]int64{0: unix.CLOCK_MONOTONIC, shm.ClockBoot: unix.CLOCK_BOOTTIME, shm.ClockTAI: unix.CLOCK_TAI}[r.n]
	keep := []asm.Reg{asm.RDI, asm.RSI, asm.RCX}
	for _, k := range keep {
		a.Push(k)
	}
	a.ALUImm(asm.SUB, 8, asm.RSP, 16)
	a.MovImm(asm.RDI, id)
	a.Mov(8, asm.RSI, asm.RSP)
	a.MovImm(asm.RAX, unix.SYS_CLOCK_GETTIME)
	a.Syscall()
	a.Load(8, asm.RAX, asm.At(asm.RSP, 0))
	a.ImulImm(8, asm.RAX, asm.RAX, 1_000_000_000)
	a.ALULoad(asm.ADD, 8, asm.RAX, asm.At(asm.RSP, 8))
	a.ALUImm(asm.ADD, 8, asm.RSP, 16)
	for i := len(keep) - 1; i >= 0; i-- {
		a.Pop(keep[i])
	}
	a.Ret()
}

// pidTgid() is tgid<<32 | tid. It changes rax, rcx, r9 and r11 only.
func (c *compiler) pidTgid(routine) {
	a := &c.a
	ask := a.NewLabel()
	c.knownTid(ask)
	a.Load(4, asm.RCX, asm.At(asm.R11, shm.ProcPID))
	a.Test(4, asm.RCX, asm.RCX)
	a.JccNear(asm.E, ask)
	a.Shift(asm.SHL, 8, asm.RCX, 32)
	a.ALU(asm.OR, 8, asm.RAX, asm.RCX)
	a.Ret()
	a.Bind(ask)
	a.Call(c.routine(routine{kind: doTid}))
	a.Mov(4, asm.R9, asm.RAX)
	a.Call(c.routine(routine{kind: doPid}))
	a.Shift(asm.SHL, 8, asm.RAX, 32)
	a.ALU(asm.OR, 8, asm.RAX, asm.R9)
	a.Ret()
}

// orQuiet jumps to l if no system call may be made; it uses r11.
func (c *compiler) orQuiet(l asm.Label) {
	c.a.MovAddr(asm.R11, Process, 0)
	c.a.ALUMemImm(asm.CMP, 4, asm.At(asm.R11, shm.ProcQuiet), 0)
	c.a.Jcc(asm.NE, l)
}

// knownTid leaves in eax the thread, and in r11 the process block, or jumps to ask if
// the kernel has to say.
func (c *compiler) knownTid(ask asm.Label) {
	a := &c.a
	a.MovAddr(asm.R11, Process, 0)
	a.Load(8, asm.RAX, asm.At(asm.R11, shm.ProcTID))
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.E, ask)
	a.Load(4, asm.RAX, asm.Mem{Base: asm.RAX, Index: asm.None, Scale: 1, FS: true})
	a.Test(4, asm.RAX, asm.RAX)
	a.Jcc(asm.E, ask)
}

// tid leaves the thread in eax. It changes rcx and r11 too.
func (c *compiler) tid(routine) {
	a := &c.a
	ask, unknown := a.NewLabel(), a.NewLabel()
	c.knownTid(ask)
	a.Ret()
	a.Bind(ask)
	c.orQuiet(unknown)
	a.MovImm(asm.RAX, unix.SYS_GETTID)
	a.Syscall()
	a.Ret()
	a.Bind(unknown)
	a.Zero(asm.RAX)
	a.Ret()
}

// pid leaves the thread group in eax. It changes rcx and r11 too. The page with the
// cached number is wiped on fork.
func (c *compiler) pid(routine) {
	a := &c.a
	ask, unknown := a.NewLabel(), a.NewLabel()
	a.MovAddr(asm.R11, Process, 0)
	a.Load(4, asm.RAX, asm.At(asm.R11, shm.ProcPID))
	a.Test(4, asm.RAX, asm.RAX)
	a.JccNear(asm.E, ask)
	a.Ret()
	a.Bind(ask)
	c.orQuiet(unknown)
	a.MovImm(asm.RAX, unix.SYS_GETPID)
	a.Syscall()
	// While the thread's number is asked for each time, so is this: the child of a vfork
	// has its parent's memory.
	forget := a.NewLabel()
	a.MovAddr(asm.R11, Process, 0)
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.R11, shm.ProcTID), 0)
	a.JccNear(asm.E, forget)
	a.Store(4, asm.At(asm.R11, shm.ProcPID), asm.RAX)
	a.Bind(forget)
	a.Ret()
	a.Bind(unknown)
	a.Zero(asm.RAX)
	a.Ret()
}

// nsPidTgid(dev, ino, info, size) fills struct bpf_pidns_info {pid, tgid}. The
// process knows its numbers in its own namespace only.
func (c *compiler) nsPidTgid(routine) {
	a := &c.a
	bad := a.NewLabel()
	a.ALUImm(asm.CMP, 4, asm.RCX, 8)
	a.JccNear(asm.NE, bad)
	a.Call(c.routine(routine{kind: doPidTgid}))
	a.Store(8, asm.At(asm.RDX, 0), asm.RAX)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(bad)
	a.Mov(8, asm.RDI, asm.RDX)
	a.Mov(4, asm.RCX, asm.RCX)
	a.Zero(asm.RAX)
	a.RepStosb()
	c.fail(syscall.EINVAL)
}

// uidGid() is gid<<32 | uid, asked of the kernel each time: it may change.
func (c *compiler) uidGid(routine) {
	a := &c.a
	unknown := a.NewLabel()
	c.orQuiet(unknown)
	a.MovImm(asm.RAX, unix.SYS_GETGID)
	a.Syscall()
	a.Mov(4, asm.RDX, asm.RAX)
	a.MovImm(asm.RAX, unix.SYS_GETUID)
	a.Syscall()
	a.Mov(4, asm.RAX, asm.RAX)
	a.Shift(asm.SHL, 8, asm.RDX, 32)
	a.ALU(asm.OR, 8, asm.RAX, asm.RDX)
	a.Ret()
	a.Bind(unknown)
	a.Zero(asm.RAX)
	a.Ret()
}

// random() is 32 bits of splitmix64 from this CPU's seed.
func (c *compiler) random(routine) {
	a := &c.a
	c.cpu(asm.R11)
	a.Shift(asm.SHL, 8, asm.R11, 6)
	a.MovAddr(asm.R10, Shared, shm.OffSeeds)
	var weyl, mul1, mul2 uint64 = 0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb
	a.MovImm(asm.RAX, int64(weyl))
	a.LockXadd(8, asm.Idx(asm.R10, asm.R11, 1, 0), asm.RAX)
	mix := func(shift uint8, mul uint64) {
		a.Mov(8, asm.R11, asm.RAX)
		a.Shift(asm.SHR, 8, asm.R11, shift)
		a.ALU(asm.XOR, 8, asm.RAX, asm.R11)
		a.MovImm(asm.R10, int64(mul))
		a.Imul(8, asm.RAX, asm.R10)
	}
	mix(30, mul1)
	mix(27, mul2)
	a.Shift(asm.SHR, 8, asm.RAX, 32)
	a.Ret()
}

// comm(buf, size) copies the thread's name, from the cache if it is fresh: asking
// the kernel takes longer than all the rest of a record. r8 is the buffer, r10 its
// size; the name gets into rax and rdx.
func (c *compiler) comm(routine) {
	a := &c.a
	ask, got, bad, small, done, unknown := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.Mov(8, asm.R8, asm.RDI)
	a.Mov(4, asm.R10, asm.RSI)
	a.Test(4, asm.R10, asm.R10)
	a.Jcc(asm.E, bad)
	ofThread, tid := a.NewLabel(), a.NewLabel()
	c.knownTid(ofThread)
	a.Bind(tid)
	a.MovAddr(asm.R11, Shared, 0)
	a.Load(4, asm.RSI, asm.At(asm.R11, shm.OffEpoch))
	a.Shift(asm.SHL, 8, asm.RSI, 32)
	a.ALU(asm.OR, 8, asm.RSI, asm.RAX) // epoch<<32 | tid
	a.ALUImm(asm.AND, 4, asm.RAX, shm.CommSlots-1)
	c.scale(asm.RAX, shm.CommSize)
	a.Lea(asm.RDI, asm.Idx(asm.R11, asm.RAX, 1, shm.OffComms))
	a.ALULoad(asm.CMP, 8, asm.RSI, asm.At(asm.RDI, 0))
	a.JccNear(asm.NE, ask)
	a.Load(8, asm.RAX, asm.At(asm.RDI, 8))
	a.Load(8, asm.RDX, asm.At(asm.RDI, 16))
	a.ALULoad(asm.CMP, 8, asm.RSI, asm.At(asm.RDI, 0)) // nobody wrote meanwhile
	a.JccNear(asm.E, got)
	a.Bind(ask)
	c.orQuiet(unknown)
	a.Push(asm.RDI)
	a.Push(asm.RSI)
	a.Push(asm.R8)
	a.Push(asm.R10)
	a.ALUImm(asm.SUB, 8, asm.RSP, 16)
	a.MovImm(asm.RDI, unix.PR_GET_NAME)
	a.Mov(8, asm.RSI, asm.RSP)
	a.Zero(asm.RDX)
	a.Zero(asm.R10)
	a.Zero(asm.R8)
	a.MovImm(asm.RAX, unix.SYS_PRCTL)
	a.Syscall()
	a.Pop(asm.RAX)
	a.Pop(asm.RDX)
	a.Pop(asm.R10)
	a.Pop(asm.R8)
	a.Pop(asm.RSI)
	a.Pop(asm.RDI)
	a.StoreImm(8, asm.At(asm.RDI, 0), 0)
	a.Store(8, asm.At(asm.RDI, 8), asm.RAX)
	a.Store(8, asm.At(asm.RDI, 16), asm.RDX)
	a.Store(8, asm.At(asm.RDI, 0), asm.RSI)
	a.Bind(got)
	a.ALUImm(asm.CMP, 4, asm.R10, 16)
	a.JccNear(asm.B, small)
	a.Store(8, asm.At(asm.R8, 0), asm.RAX)
	a.Store(8, asm.At(asm.R8, 8), asm.RDX)
	a.JccNear(asm.E, done) // the usual size
	a.Lea(asm.RDI, asm.At(asm.R8, 16))
	a.Lea(asm.RCX, asm.At(asm.R10, -16))
	a.Zero(asm.RAX)
	a.RepStosb()
	a.JmpNear(done)
	// Byte by byte, the last one zero.
	a.Bind(small)
	a.Push(asm.RDX)
	a.Push(asm.RAX)
	a.Lea(asm.RCX, asm.At(asm.R10, -1))
	a.Mov(8, asm.RSI, asm.RSP)
	a.Mov(8, asm.RDI, asm.R8)
	a.RepMovsb()
	a.StoreImm(1, asm.At(asm.RDI, 0), 0)
	a.ALUImm(asm.ADD, 8, asm.RSP, 16)
	a.Bind(done)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(unknown)
	a.Zero(asm.RAX)
	a.Zero(asm.RDX)
	a.Jmp(got)
	a.Bind(ofThread)
	a.Call(c.routine(routine{kind: doTid}))
	a.Jmp(tid)
	a.Bind(bad)
	c.fail(syscall.EINVAL)
}

// maxLoops is the kernel's BPF_MAX_LOOPS.
const maxLoops = 8 << 20

// loop(count, callback, ctx, flags): rbx counts to r12, r13 is the callback, r14
// its context.
func (c *compiler) loop(routine) {
	a := &c.a
	bad, big, end := a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.Test(8, asm.RCX, asm.RCX)
	a.Jcc(asm.NE, bad)
	a.ALUImm(asm.CMP, 4, asm.RDI, maxLoops)
	a.Jcc(asm.A, big)
	saved := []asm.Reg{asm.RBX, asm.R12, asm.R13, asm.R14}
	for _, s := range saved {
		a.Push(s)
	}
	a.Mov(4, asm.R12, asm.RDI)
	a.Mov(8, asm.R13, asm.RSI)
	a.Mov(8, asm.R14, asm.RDX)
	a.Zero(asm.RBX)
	top := a.Here()
	a.ALU(asm.CMP, 4, asm.RBX, asm.R12)
	a.JccNear(asm.AE, end)
	a.Mov(4, asm.RDI, asm.RBX)
	a.Mov(8, asm.RSI, asm.R14)
	a.CallReg(asm.R13)
	a.ALUImm(asm.ADD, 4, asm.RBX, 1)
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.E, top)
	a.Bind(end)
	a.Mov(4, asm.RAX, asm.RBX)
	for i := len(saved) - 1; i >= 0; i-- {
		a.Pop(saved[i])
	}
	a.Ret()
	a.Bind(bad)
	c.fail(syscall.EINVAL)
	a.Bind(big)
	c.fail(syscall.E2BIG)
}

// strncmp(s1, size, s2) is -1, 0 or 1.
func (c *compiler) strncmp(routine) {
	a := &c.a
	equal, less, more := a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.Mov(4, asm.RCX, asm.RSI)
	a.Zero(asm.R9)
	top := a.Here()
	a.ALU(asm.CMP, 8, asm.R9, asm.RCX)
	a.JccNear(asm.AE, equal)
	a.Load(1, asm.RAX, asm.Idx(asm.RDI, asm.R9, 1, 0))
	a.ALULoad(asm.CMP, 1, asm.RAX, asm.Idx(asm.RDX, asm.R9, 1, 0))
	a.JccNear(asm.B, less)
	a.JccNear(asm.A, more)
	a.ALUImm(asm.ADD, 8, asm.R9, 1)
	a.Test(4, asm.RAX, asm.RAX)
	a.Jcc(asm.NE, top)
	a.Bind(equal)
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(less)
	a.MovImm(asm.RAX, -1)
	a.Ret()
	a.Bind(more)
	a.MovImm(asm.RAX, 1)
	a.Ret()
}

// getStack(ctx, buf, size, flags) follows frame pointers as the kernel's
// perf_callchain_user does. rbx is the buffer, r12 its end, r13 the next place, r14
// the frame, r15 how many entries are to be skipped.
func (c *compiler) getStack(routine) {
	a := &c.a
	bad, out, end := a.NewLabel(), a.NewLabel(), a.NewLabel()
	const skipMask, userStack = 0xff, 1 << 8
	saved := []asm.Reg{asm.RBX, asm.R12, asm.R13, asm.R14, asm.R15}
	for _, s := range saved {
		a.Push(s)
	}
	a.ALUImm(asm.SUB, 8, asm.RSP, 16) // a frame: its caller's, the return address
	a.Mov(8, asm.RBX, asm.RSI)
	a.Mov(4, asm.RDX, asm.RDX)
	a.Lea(asm.R12, asm.Idx(asm.RSI, asm.RDX, 1, 0))
	a.Mov(8, asm.R13, asm.RSI)
	a.TestImm(4, asm.RDX, 7)
	a.Jcc(asm.NE, bad)
	a.Mov(8, asm.RAX, asm.RCX)
	a.ALUImm(asm.AND, 8, asm.RAX, ^skipMask)
	a.ALUImm(asm.CMP, 8, asm.RAX, userStack)
	a.Jcc(asm.NE, bad)
	a.Mov(4, asm.R15, asm.RCX)
	a.ALUImm(asm.AND, 4, asm.R15, skipMask)
	a.Load(8, asm.R14, asm.At(asm.RDI, regBP))
	a.Load(8, asm.RAX, asm.At(asm.RDI, regIP))
	add, skip := a.Here(), a.NewLabel()
	a.ALUImm(asm.SUB, 4, asm.R15, 1)
	a.JccNear(asm.NS, skip)
	a.Zero(asm.R15)
	a.ALU(asm.CMP, 8, asm.R13, asm.R12)
	a.JccNear(asm.AE, end)
	a.Store(8, asm.At(asm.R13, 0), asm.RAX)
	a.ALUImm(asm.ADD, 8, asm.R13, 8)
	a.Bind(skip)
	a.Test(8, asm.R14, asm.R14)
	a.JccNear(asm.E, end)
	a.Mov(8, asm.RDI, asm.RSP)
	a.MovImm(asm.RSI, 16)
	a.Mov(8, asm.RDX, asm.R14)
	a.Call(c.routine(routine{kind: doRead}))
	a.Test(8, asm.RAX, asm.RAX)
	a.JccNear(asm.NE, end)
	// Frames lie one above the other, or the chain is none.
	a.Load(8, asm.RAX, asm.At(asm.RSP, 0))
	a.ALU(asm.CMP, 8, asm.RAX, asm.R14)
	a.Mov(8, asm.R14, asm.RAX)
	a.Load(8, asm.RAX, asm.At(asm.RSP, 8))
	a.Jcc(asm.A, add)
	a.Zero(asm.R14) // the last one
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.NE, add)
	a.Bind(end)
	a.Mov(8, asm.RDX, asm.R13)
	a.ALU(asm.SUB, 8, asm.RDX, asm.RBX)
	a.Bind(out)
	a.Mov(8, asm.RDI, asm.R13) // what is not used becomes zero
	a.Mov(8, asm.RCX, asm.R12)
	a.ALU(asm.SUB, 8, asm.RCX, asm.R13)
	a.Zero(asm.RAX)
	a.RepStosb()
	a.Mov(8, asm.RAX, asm.RDX)
	a.ALUImm(asm.ADD, 8, asm.RSP, 16)
	for i := len(saved) - 1; i >= 0; i-- {
		a.Pop(saved[i])
	}
	a.Ret()
	a.Bind(bad)
	a.MovImm(asm.RDX, -int64(syscall.EINVAL))
	a.Jmp(out)
}
