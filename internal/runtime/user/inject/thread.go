package inject

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Regs are a thread's registers (struct user_regs_struct in the kernel's
// arch/x86/include/asm/user_64.h).
type Regs = unix.PtraceRegs

// thread is one that is seized.
type thread struct {
	tid     int
	pid     int // its thread group; not the Tracee's for a vfork child
	stopped bool
	group   bool      // the stop is, or is part of, a group stop: SIGSTOP and its like
	since   time.Time // it was interrupted by StopAll, if it does not stand yet
	regs    Regs
}

// A stop is why a thread stopped: what ptrace(2) packs into the status of wait.
type stop struct {
	sig   int // 0: the thread has ended
	event int
}

const (
	// sysgood marks system call stops (PTRACE_O_TRACESYSGOOD). It is more than a
	// convenience: a tracer that dies leaves the stop's status as a signal to be sent,
	// and SIGTRAP|0x80 is none, where SIGTRAP would kill (ptrace_report_syscall in
	// include/linux/ptrace.h).
	sysgood = int(unix.SIGTRAP) | 0x80

	options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC
)

func (s stop) interrupted() bool { return s.event == unix.PTRACE_EVENT_STOP }
func (s stop) syscall() bool     { return s.sig == sysgood }
func (s stop) signal() bool      { return s.event == 0 && s.sig != 0 && s.sig != sysgood }

// ptrace is a request to the kernel. It blocks for no longer than the tracee's locks are
// held, so the scheduler need not know.
func ptrace(request, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// wait returns the next stop of a thread if there is one. Only threads of this tracer
// are waited for, so that no other child's status is taken, nor the leader's end if that is
// this process's own child, which someone else waits for: that is looked at only.
func (t *Tracee) wait(th *thread) (s stop, ok bool, err error) {
	flags := unix.WSTOPPED | unix.WALL
	if !t.awaited(th.tid) {
		flags |= unix.WEXITED
	}
	c, err := waitid(unix.P_PID, th.tid, flags)
	if err == nil && c.pid == 0 && t.awaited(th.tid) {
		c, err = waitid(unix.P_PID, th.tid, unix.WEXITED|unix.WNOWAIT|unix.WALL)
		if !c.end() {
			c.pid = 0 // it has stopped just now
		}
	}
	if err == unix.ECHILD {
		return s, false, ErrGone
	}
	if err != nil {
		return s, false, os.NewSyscallError("waitid", err)
	}
	if c.pid == 0 {
		return s, false, nil
	}
	if c.end() {
		return stop{}, true, nil
	}
	return stop{sig: c.status & 0xff, event: c.status >> 8}, true, nil
}

// awaited reports whether it is for another thread of this process to wait for an end.
func (t *Tracee) awaited(tid int) bool { return t.child && tid == t.pid }

// change is what waitid tells; pid is 0 if that is nothing.
type change struct{ pid, code, status int }

// end: CLD_EXITED, CLD_KILLED or CLD_DUMPED.
func (c change) end() bool { return c.code >= 1 && c.code <= 3 }

// waitid looks for a change of what this thread traces, or is the parent of. Stops of what
// it traces are told even if they are not asked for (wait_task_stopped in the kernel's
// kernel/exit.c).
func waitid(which, id, flags int) (c change, err error) {
	// siginfo_t: si_code at 8, si_pid at 16, si_status at 24
	// (include/uapi/asm-generic/siginfo.h).
	var info [128]byte
	for {
		_, _, e := unix.RawSyscall6(unix.SYS_WAITID, uintptr(which), uintptr(id), uintptr(unsafe.Pointer(&info)), uintptr(flags|unix.WNOHANG|unix.WNOTHREAD), 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return c, e
		}
		at := func(off int) int { return int(int32(binary.LittleEndian.Uint32(info[off:]))) }
		return change{pid: at(16), code: at(8), status: at(24)}, nil
	}
}

// bury takes notice of the end of all that this tracer traces, also of what died when it
// was about to be let go, or as it began, before it was known of. For a dead thread stays
// as long as its tracer has not taken notice, and its process with it, of whose end its
// parent hears nothing (ptrace(2), "Death under ptrace").
func (t *Tracee) bury() {
	for {
		// Without WALL, for WCLONE means all that is traced, but of this thread's own
		// children none that fork made (eligible_child in the kernel's kernel/exit.c).
		c, err := waitid(unix.P_ALL, 0, unix.WEXITED|unix.WNOWAIT|unix.WCLONE)
		if err != nil || c.pid == 0 {
			return
		}
		th := t.threads[c.pid]
		if !c.end() {
			if th == nil { // its parent died before it told of it
				t.threads[c.pid] = &thread{tid: c.pid, pid: tgid(c.pid)}
			}
			return // who waits for it will see it
		}
		if !t.awaited(c.pid) {
			_, _ = waitid(unix.P_PID, c.pid, unix.WEXITED|unix.WALL)
		}
		if th != nil && th == t.worker {
			t.worker = nil
		}
		delete(t.threads, c.pid)
		if c.pid == t.pid { // all of its threads have, therefore
			t.fail(ErrGone)
			return
		}
	}
}

// patience waits between two looks: it yields at first, for most stops take
// microseconds, and sleeps longer and longer later.
type patience struct{ since time.Time }

func (p *patience) pause() {
	if p.since.IsZero() {
		p.since = time.Now()
	}
	switch d := time.Since(p.since); {
	case d < 100*time.Microsecond:
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	case d < 5*time.Millisecond:
		time.Sleep(20 * time.Microsecond)
	default:
		time.Sleep(500 * time.Microsecond)
	}
}

// maxWait bounds every wait for which the caller's context sets no earlier end.
const maxWait = 5 * time.Second

// await waits for the next stop of a thread. The error is ErrGone if it ended, ErrExec,
// ErrBusy if it doesn't stop by the deadline, or ctx's.
func (t *Tracee) await(ctx context.Context, th *thread, deadline time.Time) (stop, error) {
	var p patience
	for n := 0; ; n++ {
		s, ok, err := t.wait(th)
		if err != nil {
			return s, t.lost(th, err)
		}
		if ok {
			if s.sig == 0 {
				return s, t.lost(th, ErrGone)
			}
			if s.event == unix.PTRACE_EVENT_EXEC {
				return s, t.execed(th)
			}
			return s, nil
		}
		if n%64 == 63 {
			t.bury()
			if !living(th.tid) {
				return s, t.lost(th, ErrGone)
			}
		}
		if err := ctx.Err(); err != nil {
			return s, context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			return s, fmt.Errorf("%w: thread %d does not stop", ErrBusy, th.tid)
		}
		p.pause()
	}
}

// lost forgets a thread that is not there any more. If it is the leader, the process
// has ended or, when another thread did so, executed another program: the kernel does
// not say (ptrace(2), "execve(2) under ptrace").
func (t *Tracee) lost(th *thread, err error) error {
	delete(t.threads, th.tid)
	if !errors.Is(err, ErrGone) {
		return err
	}
	if th == t.worker {
		t.worker = nil
		// The leader ends before the other thread's new memory is there (begin_new_exec in
		// the kernel's fs/exec.c: de_thread, then exec_mmap).
		for range execPatience {
			if serr := t.same(); serr != nil {
				err = serr
				break
			}
			t.bury() // who executes waits for the end of the others
			time.Sleep(time.Millisecond)
		}
		t.fail(err)
	}
	return fmt.Errorf("thread %d: %w", th.tid, err)
}

// execPatience is how long, in milliseconds, an execve by another thread is given.
const execPatience = 100

// execed lets a process go that stands at the end of its execve.
func (t *Tracee) execed(th *thread) error {
	t.leave(th)
	if th.pid != t.pid { // a vfork child, which shares nothing any more
		return fmt.Errorf("thread %d: %w", th.tid, ErrGone)
	}
	for tid, th := range t.threads {
		if th.pid == t.pid {
			delete(t.threads, tid)
		}
	}
	t.fail(ErrExec)
	return t.err
}

// living reports whether a thread has not ended.
func living(tid int) bool {
	s := stateOf(tid)
	return s != 0 && s != 'Z' && s != 'X'
}

// stateOf is the state in /proc/TID/stat, 0 if there is no such thread.
func stateOf(tid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/stat")
	if err != nil {
		return 0
	}
	for i := len(b) - 3; i >= 0; i-- {
		if b[i] == ')' {
			return b[i+2]
		}
	}
	return 0
}

// settle brings a thread that was interrupted to its stop. Whatever stops it before,
// it is let go on from, with its signal, and interrupted again, for any stop takes the
// interrupt that is under way (ptrace_stop in kernel/signal.c). So no signal is ever
// held back here: it is delivered, and the thread stands before the first instruction
// of its handler.
func (t *Tracee) settle(ctx context.Context, th *thread, deadline time.Time) error {
	for {
		s, err := t.await(ctx, th, deadline)
		if err != nil {
			return err
		}
		done, err := t.take(th, s)
		if err != nil || done {
			return err
		}
	}
}

// take deals with one stop of an interrupted thread. done says that it stands.
func (t *Tracee) take(th *thread, s stop) (done bool, err error) {
	if s.interrupted() {
		th.stopped, th.group, th.since = true, s.sig != int(unix.SIGTRAP), time.Time{}
		return true, t.load(th)
	}
	if s.event == unix.PTRACE_EVENT_CLONE {
		t.adopt(th)
	}
	sig := 0
	if s.signal() {
		sig = s.sig
		// A traced thread is woken even by signals that it ignores (sig_ignored in
		// kernel/signal.c), as SIGCHLD mostly is: that must not be seen either.
		if err := t.load(th); err != nil {
			return false, err
		}
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0); err != nil {
		return false, t.ptraceError(th, "interrupt", err)
	}
	return false, t.ptraceError(th, "cont", ptrace(unix.PTRACE_CONT, th.tid, 0, uintptr(sig)))
}

// adopt notes the thread that another has just made; it is seized and about to stop.
func (t *Tracee) adopt(parent *thread) {
	var msg uint64
	if ptrace(unix.PTRACE_GETEVENTMSG, parent.tid, 0, uintptr(unsafe.Pointer(&msg))) != nil {
		return
	}
	tid := int(msg)
	if t.threads[tid] == nil {
		t.threads[tid] = &thread{tid: tid, pid: tgid(tid)}
	}
}

func tgid(tid int) int {
	st, err := status(tid)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(st["Tgid"])
	return n
}

// load reads the registers of a thread that has just stopped, and mends them: see
// restartable.
func (t *Tracee) load(th *thread) error {
	if err := ptrace(unix.PTRACE_GETREGS, th.tid, 0, uintptr(unsafe.Pointer(&th.regs))); err != nil {
		return t.ptraceError(th, "getregs", err)
	}
	if !restartable(&th.regs) {
		return nil
	}
	th.regs.Rax = errno(eRestartNoHand)
	return t.store(th, &th.regs)
}

func (t *Tracee) store(th *thread, r *Regs) error {
	return t.ptraceError(th, "setregs", ptrace(unix.PTRACE_SETREGS, th.tid, 0, uintptr(unsafe.Pointer(r))))
}

// What the kernel leaves in rax for itself (include/linux/errno.h).
const (
	eRestartSys     = 512
	eRestartNoIntr  = 513
	eRestartNoHand  = 514
	eRestartRestart = 516

	noSyscall = ^uint64(0)
)

func errno(e uint64) uint64 { return -e }

// restartable says whether a thread is at the end of a system call which failed with
// EINTR because of the stop alone, and which may begin again. As ERESTARTNOHAND it is
// EINTR still if a handler is run, else the call begins again, a timeout included.
func restartable(r *Regs) bool {
	return r.Rax == errno(uint64(unix.EINTR)) && prone(r.Orig_rax)
}

// prone are the system calls that return EINTR after any stop (signal(7), "Interruption
// of system calls and library functions by stop signals"), where the kernel restarts
// others. A program that expects no signals takes that for a failure.
//
// There is no way to hide it where the thread does not stop: while a thread is traced, a
// signal that is ignored, such as SIGCHLD for its child, wakes any other. So these are
// stopped first and let go last.
func prone(nr uint64) bool {
	switch nr {
	case unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2,
		unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_SEMOP, unix.SYS_SEMTIMEDOP,
		unix.SYS_IO_GETEVENTS, unix.SYS_IO_PGETEVENTS, unix.SYS_IO_URING_ENTER,
		// Sockets with a timeout (sock_intr_errno in include/net/sock.h).
		unix.SYS_READ, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_ACCEPT, unix.SYS_ACCEPT4:
		return true
	}
	return false
}

// restarted are the registers with which a thread goes on in user mode when no signal is
// to be handled: arch_do_signal_or_restart in the kernel's arch/x86/kernel/signal.c.
func restarted(r Regs) Regs {
	if int64(r.Orig_rax) < 0 {
		return r
	}
	switch -r.Rax {
	case eRestartSys, eRestartNoIntr, eRestartNoHand:
		r.Rax = r.Orig_rax
		r.Rip -= 2
	case eRestartRestart:
		r.Rax = unix.SYS_RESTART_SYSCALL
		r.Rip -= 2
	}
	r.Orig_rax = noSyscall
	return r
}

func (t *Tracee) ptraceError(th *thread, what string, err error) error {
	if err == nil {
		return nil
	}
	if err == unix.ESRCH { // it was killed, or is about to be
		for range execPatience {
			if !living(th.tid) {
				return t.lost(th, ErrGone)
			}
			time.Sleep(time.Millisecond)
		}
		return fmt.Errorf("thread %d: %w", th.tid, ErrGone)
	}
	return fmt.Errorf("thread %d: ptrace %s: %w", th.tid, what, err)
}

// interrupt stops one thread.
func (t *Tracee) interrupt(ctx context.Context, th *thread, deadline time.Time) error {
	if th.stopped {
		return nil
	}
	if err := ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0); err != nil {
		return t.ptraceError(th, "interrupt", err)
	}
	return t.settle(ctx, th, deadline)
}

// leave detaches from a stopped thread; the kernel brings it back into a group stop if
// there is one (__ptrace_unlink in kernel/ptrace.c).
func (t *Tracee) leave(th *thread) {
	_ = ptrace(unix.PTRACE_DETACH, th.tid, 0, 0)
	delete(t.threads, th.tid)
}

// pump serves the threads that are seized and run: a leader that has not been stopped
// yet, and what StopAll left alone and has now come out of the kernel; and those that have
// ended.
func (t *Tracee) pump() {
	t.bury()
	for _, th := range t.threads {
		for !th.stopped {
			s, ok, err := t.wait(th)
			if err != nil || ok && s.sig == 0 {
				_ = t.lost(th, ErrGone)
				break
			}
			if !ok {
				break
			}
			if s.event == unix.PTRACE_EVENT_EXEC {
				_ = t.execed(th)
				return
			}
			if s.event == unix.PTRACE_EVENT_CLONE {
				t.adopt(th)
			}
			sig := 0
			if s.signal() {
				sig = s.sig
			}
			if s.interrupted() || sig != 0 {
				_ = t.load(th)
			}
			if s.interrupted() && !t.began.IsZero() { // of the stop that is
				th.stopped, th.group = true, s.sig != int(unix.SIGTRAP)
				break
			}
			th.since = time.Time{}
			if th != t.worker { // which may be needed at once
				_ = ptrace(unix.PTRACE_DETACH, th.tid, 0, uintptr(sig))
				delete(t.threads, th.tid)
				break
			}
			how := unix.PTRACE_CONT
			if s.interrupted() && s.sig != int(unix.SIGTRAP) {
				how = unix.PTRACE_LISTEN // the group stop goes on
			}
			_ = ptrace(how, th.tid, 0, uintptr(sig))
		}
	}
}

// onThread runs f on a thread of its own, which ends with it, and so the kernel detaches
// what that still traces. It must not be the process's first thread, for Go can't end
// that.
func onThread(f func(tid int)) {
	go func() {
		runtime.LockOSThread()
		tid := unix.Gettid()
		if tid == os.Getpid() {
			placed := make(chan struct{})
			onThread(func(tid int) { close(placed); f(tid) })
			<-placed
			runtime.UnlockOSThread()
			return
		}
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		f(tid)
	}()
}

// Hurry runs f while this process comes first when threads get to run, if it may: that
// needs CAP_SYS_NICE. Threads of others wait meanwhile, which f stops, for ours; among many
// that run these might have to wait for long. One f runs at a time.
func Hurry(f func()) {
	hurry.Lock()
	defer hurry.Unlock()
	old, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	old = 20 - old // the system call's own form (getpriority(2))
	if err == nil && prioritize(-20) {
		defer prioritize(old)
	}
	f()
}

var hurry sync.Mutex

// prioritize sets the nice value of all threads, for it is a thread's.
func prioritize(nice int) bool {
	tids, _ := tasks(os.Getpid())
	for _, tid := range tids {
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err == unix.EACCES || err == unix.EPERM {
			return false
		}
	}
	return true
}
