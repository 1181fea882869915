package fault

import (
	"time"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

// Watch is a function of the C library that changes what signals do, with a program that
// is to be run at its entry.
type Watch struct {
	Name    string
	Program patch.Program
	// Optional: not every C library has it. Of one that is not optional, and that is not in
	// a shared C library, the code is somewhere else (until glibc 2.31 in libpthread) and
	// counts as unwatched; what a static program does not have it does not call.
	Optional bool
}

// Inner are functions of C libraries that the watched ones call, if they are there.
var Inner = []string{"__libc_sigaction", "__sigaction", "__sigprocmask", "__pthread_sigmask"}

// Watches are the functions to be watched, for a process block. Other ways to these
// calls, such as signal, sigset, sighold and siglongjmp, are by way of them in both
// glibc and musl.
func Watches(block uint64) []Watch {
	return []Watch{
		{Name: "sigaction", Program: sigaction(block)}, // (sig, act, old)
		{Name: "sigprocmask", Program: unlessNull(block, asm.RSI)},
		{Name: "pthread_sigmask", Program: unlessNull(block, asm.RSI)},
		// These have masks of their own.
		{Name: "sigsuspend", Program: unlessNull(block, asm.RDI), Optional: true},
		{Name: "ppoll", Program: unlessNull(block, asm.RCX), Optional: true},
		{Name: "pselect", Program: unlessNull(block, asm.R9), Optional: true},
		{Name: "epoll_pwait", Program: unlessNull(block, asm.R8), Optional: true},
		{Name: "epoll_pwait2", Program: unlessNull(block, asm.R8), Optional: true},
		{Name: "setcontext", Program: unlessNull(block, asm.RDI), Optional: true},
		{Name: "swapcontext", Program: unlessNull(block, asm.RSI), Optional: true},
	}
}

// unlessNull turns direct reads off if an argument is not null.
func unlessNull(block uint64, arg asm.Reg) patch.Program {
	return patch.Inline(asm.Set(asm.RAX), []asm.Reg{arg}, func(a *asm.Assembler) {
		end := a.NewLabel()
		a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDI, patch.RegOffset(arg)), 0)
		a.JccNear(asm.E, end)
		a.MovImm(asm.RAX, int64(block))
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcDirect), 0)
		a.Bind(end)
	})
}

// A thread that changes the action of SIGSEGV or SIGBUS has to wait for the reads of
// other threads that have begun as direct ones: their faults must find our handler. That
// they have ended is the tracer's to say (Guard.drain); they take a microsecond, and if
// it does not, drains times drain is a while. A fork has no tracer, and began with one
// thread.
const (
	drain      = time.Millisecond
	drains     = 100
	forkDrains = 5
)

// sigaction turns direct reads off if a signal's action is about to change, and notes
// that the program gets to know the handler of one that is ours.
func sigaction(block uint64) patch.Program {
	// rcx, rsi and r11 are the system call's.
	return patch.Inline(asm.Set(asm.RAX, asm.RCX, asm.RSI, asm.R11), []asm.Reg{asm.RDI, asm.RSI, asm.RDX}, func(a *asm.Assembler) {
		ours, replaced, others, fork, drained, end := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
		a.MovImm(asm.RAX, int64(block))
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RDI, patch.RegOffset(asm.RDI)), int32(unix.SIGSEGV))
		a.Jcc(asm.E, ours)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RDI, patch.RegOffset(asm.RDI)), int32(unix.SIGBUS))
		a.Jcc(asm.NE, others)
		a.Bind(ours)
		a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDI, patch.RegOffset(asm.RDX)), 0)
		a.JccNear(asm.E, replaced)
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcSaved), 1)
		a.Bind(replaced)
		a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDI, patch.RegOffset(asm.RSI)), 0)
		a.Jcc(asm.E, end)
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcDirect), 0)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RAX, shm.ProcDirected), 0)
		a.Jcc(asm.E, end)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RAX, shm.ProcQuiet), 0)
		a.Jcc(asm.NE, end)
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcDirected), 2)
		a.Push(asm.RAX)
		a.MovImm(asm.RCX, forkDrains)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RAX, shm.ProcTraced), 0)
		a.JccNear(asm.E, fork)
		a.MovImm(asm.RCX, drains)
		a.Bind(fork)
		a.Push(asm.RCX)
		a.MovImm(asm.RAX, drain.Nanoseconds())
		a.Push(asm.RAX)
		a.Zero(asm.RAX)
		a.Push(asm.RAX)
		wait := a.Here() // at rsp: struct timespec, drains, the block
		a.Mov(8, asm.RDI, asm.RSP)
		a.Zero(asm.RSI)
		a.MovImm(asm.RAX, unix.SYS_NANOSLEEP)
		a.Syscall()
		a.Load(8, asm.RAX, asm.At(asm.RSP, 24))
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RAX, shm.ProcDirected), 0)
		a.JccNear(asm.E, drained)
		a.ALUMemImm(asm.SUB, 4, asm.At(asm.RSP, 16), 1)
		a.Jcc(asm.NE, wait)
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcDirected), 0)
		a.Bind(drained)
		a.ALUImm(asm.ADD, 8, asm.RSP, 32)
		a.Jmp(end)
		a.Bind(others)
		a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDI, patch.RegOffset(asm.RSI)), 0)
		a.Jcc(asm.E, end)
		a.StoreImm(4, asm.At(asm.RAX, shm.ProcDirect), 0)
		a.Bind(end)
	})
}

// waits are the system calls of watched functions that a thread may wait in; its mask has
// changed then.
var waits = map[uint64]bool{
	unix.SYS_RT_SIGSUSPEND: true, unix.SYS_PPOLL: true, unix.SYS_PSELECT6: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true,
}
