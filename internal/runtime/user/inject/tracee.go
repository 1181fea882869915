// Package inject changes a running process from outside, by ptrace and /proc: it
// stops threads, makes system calls in their name, writes code, and keeps a journal of
// what it wrote in the process itself. It knows nothing of what the code is for.
//
// Two rules hold it together. A thread is never left in a state that needs the tracer:
// whenever the tracer is killed, the kernel detaches it, and every thread runs on as if
// nothing had been. And no wait is without end.
package inject

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// Tracee is a process that this process traces. Its methods may be called from any
// goroutine; they are carried out one after the other by one that owns the thread which
// is the tracer, as ptrace demands. A method that needs the process stopped stops its
// leader and lets it run again, unless Stop or StopAll have stopped it already.
type Tracee struct {
	PID int

	requests chan request
	done     chan struct{} // closed when the tracer has ended

	// What follows is the tracer's own.
	pid     int
	tracer  int // its thread id
	child   bool
	entry   uint64
	proc    *target.Process
	mem     *os.File
	seccomp bool
	threads map[int]*thread // the seized ones
	worker  *thread         // in whose name system calls are made: the leader if it can
	cave    cave
	scratch uint64
	sync    bool // membarrier is registered
	began   time.Time
	err     error // that the process is lost by
}

type request struct {
	ctx  context.Context
	do   func(ctx context.Context, deadline time.Time) error
	done chan error
	end  bool
}

// Attach begins to trace a running process, which must be a whole one and not a thread,
// and does not stop it. The Tracee must be detached, whatever happens to the process.
//
// The process is the kernel's tracee from here to the first Resume, and from each stop to
// its Resume, and no longer: a traced process is woken by signals that it ignores, and
// its signals wait for the tracer.
//
// The error is a *PermissionError, a *TracedError, ErrGone, ErrNot64, ErrShadowStack,
// ErrSeccomp, ErrBusy, or another.
func Attach(ctx context.Context, pid int) (*Tracee, error) {
	return attach(ctx, pid, options)
}

func attach(ctx context.Context, pid int, opts uintptr) (*Tracee, error) {
	if err := refuse(pid); err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p, err := target.Open(pid)
	if err != nil {
		if errors.Is(err, target.ErrGone) || errors.Is(err, target.ErrNoExecutable) { // it had one
			err = fmt.Errorf("process %d: %w", pid, ErrGone)
		}
		return nil, err
	}
	t := &Tracee{
		PID: pid, pid: pid, proc: p,
		requests: make(chan request), done: make(chan struct{}),
		threads: map[int]*thread{},
	}
	started := make(chan error)
	onThread(func(tid int) {
		t.tracer = tid
		t.run(opts, started)
	})
	if err := <-started; err != nil {
		<-t.done
		return nil, err
	}
	if err := t.call(ctx, t.check); err != nil {
		_ = t.Detach()
		return nil, err
	}
	return t, nil
}

// run is the tracer.
func (t *Tracee) run(opts uintptr, started chan<- error) {
	defer close(t.done)
	defer t.proc.Close()
	if err := t.begin(opts); err != nil {
		started <- err
		return
	}
	defer t.mem.Close()
	started <- nil
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-t.requests:
			if r.end {
				t.detach()
				r.done <- nil
				return
			}
			if t.err != nil {
				r.done <- t.err
				continue
			}
			deadline := time.Now().Add(maxWait)
			if d, ok := r.ctx.Deadline(); ok && d.Before(deadline) {
				deadline = d
			}
			r.done <- t.verdict(r.do(r.ctx, deadline))
		case <-tick.C:
			t.pump()
		}
	}
}

func (t *Tracee) begin(opts uintptr) error {
	if err := t.seizeLeader(opts); err != nil {
		return err
	}
	t.child = parentOf(t.pid) == os.Getpid()
	entry, err := entryPoint(t.pid)
	var p patience
	for begin := time.Now(); err != nil && running(t.pid) && time.Since(begin) < leaderWait; p.pause() {
		entry, err = entryPoint(t.pid) // there is none for a moment, in an execve
	}
	if err == nil {
		t.mem, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", t.pid), os.O_RDWR, 0)
	}
	if err != nil {
		if !running(t.pid) {
			err = ErrGone
		}
		return fmt.Errorf("process %d: %w", t.pid, err)
	}
	t.entry = entry
	return nil
}

// seizeLeader makes the process this tracer's.
func (t *Tracee) seizeLeader(opts uintptr) error {
	var p patience
	for begin := time.Now(); ; p.pause() {
		err := t.seize(t.pid, opts)
		switch err {
		case nil:
			t.worker = &thread{tid: t.pid, pid: t.pid}
			t.threads[t.pid] = t.worker
			return nil
		case unix.ESRCH:
			return fmt.Errorf("process %d: %w", t.pid, ErrGone)
		case unix.EPERM, unix.EACCES:
		default:
			return fmt.Errorf("process %d: ptrace seize: %w", t.pid, err)
		}
		// That is also the answer for a leader that is dead, as it is for a moment while
		// another of its threads executes a program, and for one that is about to die, so that
		// this tracer could not let it go.
		t.bury()
		why := refuse(t.pid)
		if why != nil && !errors.Is(why, ErrGone) && !t.ours(t.pid) {
			return fmt.Errorf("process %d: %w", t.pid, why) // someone was faster
		}
		if t.same() == nil && time.Since(begin) < leaderWait {
			continue
		}
		if why == nil {
			return permission(t.pid, err)
		}
		return fmt.Errorf("process %d: %w", t.pid, ErrGone)
	}
}

// again makes a process this tracer's that was let go by Resume, if it is still the same
// program: the descriptor of its memory goes on to mean the memory that it had then,
// which an exec throws away.
func (t *Tracee) again() error {
	if t.worker != nil {
		return nil
	}
	if th := t.threads[t.pid]; th != nil { // another thread was taken in its place
		t.worker = th
		return nil
	}
	err := t.seizeLeader(options)
	if serr := t.same(); serr != nil {
		t.fail(serr)
		if err == nil { // to be let go of when it has stopped
			t.worker = nil
			_ = ptrace(unix.PTRACE_INTERRUPT, t.pid, 0, 0)
		}
		return t.err
	}
	return err
}

// Same returns ErrExec if the process has executed another program since it was attached
// to, ErrGone if it has ended. It need not be stopped.
func (t *Tracee) Same(ctx context.Context) error {
	return t.call(ctx, func(context.Context, time.Time) error { return t.same() })
}

// same returns ErrExec or ErrGone if the memory that was opened is no one's any more.
func (t *Tracee) same() error {
	var b [1]byte
	if n, err := unix.Pread(int(t.mem.Fd()), b[:], int64(t.entry)); n == 0 && err == nil {
		if running(t.pid) {
			return ErrExec
		}
		return ErrGone
	}
	return nil
}

// running reports whether a process runs a program. One that ends has none any more
// before it is seen to have ended.
func running(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && living(pid)
}

func parentOf(pid int) int {
	st, err := status(pid)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(st["PPid"])
	return n
}

// check finds out whether system calls can be made for the process.
func (t *Tracee) check(context.Context, time.Time) error {
	st, err := status(t.pid)
	if err != nil {
		return err
	}
	t.seccomp = st["Seccomp"] != "" && st["Seccomp"] != "0"
	if t.seccomp && !maySuspendSeccomp() {
		return fmt.Errorf("process %d: %w", t.pid, ErrSeccomp)
	}
	return nil
}

// maySuspendSeccomp is what ptrace_setoptions asks (check_ptrace_options in the
// kernel's kernel/ptrace.c): CAP_SYS_ADMIN, in the initial user namespace, and no filter
// of one's own. Kernels without CONFIG_CHECKPOINT_RESTORE refuse when it is tried.
func maySuspendSeccomp() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil || d[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return false
	}
	return !ownSeccomp()
}

// call has the tracer do something.
func (t *Tracee) call(ctx context.Context, do func(context.Context, time.Time) error) error {
	r := request{ctx: ctx, do: do, done: make(chan error, 1)}
	select {
	case t.requests <- r:
	case <-t.done:
		return ErrDetached
	}
	// The tracer minds ctx, and never waits without a bound.
	return <-r.done
}

// verdict has whatever failed fail for the end of the process, if that has ended: its memory
// is gone before it is, and what is known of it in /proc.
func (t *Tracee) verdict(err error) error {
	if err == nil || t.err != nil || errors.Is(err, ErrGone) {
		return err
	}
	why := t.same()
	if why == nil && !running(t.pid) {
		why = ErrGone
	}
	if why == nil {
		return err
	}
	return fmt.Errorf("process %d: %w: %w", t.pid, why, err)
}

// fail notes that the process is lost: what is left is to detach.
func (t *Tracee) fail(err error) {
	if t.err == nil {
		t.err = fmt.Errorf("process %d: %w", t.pid, err)
	}
}

// Detach lets the process go, running or stopped by a signal as it would be now, with
// the bytes that system calls needed put back. What was written by WriteCode stays. It
// is no error if the process has ended. A second time, nothing happens.
func (t *Tracee) Detach() error {
	r := request{ctx: context.Background(), done: make(chan error, 1), end: true}
	select {
	case t.requests <- r:
		err := <-r.done
		<-t.done
		t.gone()
		return err
	case <-t.done:
		return nil
	}
}

// gone waits for the end of the tracer's thread, for it is that which detaches from
// threads that did not stop.
func (t *Tracee) gone() {
	path := fmt.Sprintf("/proc/self/task/%d/comm", t.tracer)
	for range 1000 {
		if _, err := os.Stat(path); err != nil {
			return
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// detachWait is how long a detaching tracer waits for a thread to stop, which it need
// not: the kernel does the same for threads that run when the tracer's thread ends.
const detachWait = 100 * time.Millisecond

func (t *Tracee) detach() {
	ctx, deadline := context.Background(), time.Now().Add(detachWait)
	if t.err == nil {
		if t.scratch != 0 && t.stopWorker(ctx, deadline) == nil {
			t.cleanScratch(ctx, deadline)
		}
		t.closeCave()
	}
	for _, th := range t.threads {
		if !th.stopped {
			_ = ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0)
		}
	}
	for _, th := range t.threads {
		if th.stopped || t.settle(ctx, th, deadline) == nil {
			t.leave(th)
		}
	}
}

// Stop stops the leader, and no other thread, so that several calls in a row cost one
// stop. If the leader does not stop, as one that waits for its vfork child, another
// thread is taken in its place.
func (t *Tracee) Stop(ctx context.Context) error {
	return t.call(ctx, t.stopWorker)
}

// leaderWait is how long the leader has to stop before another thread is looked for.
const leaderWait = 50 * time.Millisecond

func (t *Tracee) stopWorker(ctx context.Context, deadline time.Time) error {
	if err := t.again(); err != nil {
		return err
	}
	if t.worker.stopped {
		return nil
	}
	if t.began.IsZero() {
		t.began = time.Now()
	}
	first := time.Now().Add(leaderWait)
	if deadline.Before(first) {
		first = deadline
	}
	err := t.interrupt(ctx, t.worker, first)
	if err == nil {
		return t.checkRegs()
	}
	if !errors.Is(err, ErrBusy) {
		return err
	}
	ids, terr := t.proc.Threads()
	if terr != nil {
		return err
	}
	for _, tid := range ids {
		th := t.threads[tid]
		if th == nil {
			if t.seize(tid, options) != nil {
				continue
			}
			th = &thread{tid: tid, pid: t.pid}
			t.threads[tid] = th
		}
		if t.interrupt(ctx, th, earlier(time.Now().Add(leaderWait), deadline)) == nil {
			t.worker = th
			return t.checkRegs()
		}
	}
	if leader := t.threads[t.pid]; leader != nil && time.Now().Before(deadline) {
		if err = t.interrupt(ctx, leader, deadline); err == nil {
			t.worker = leader
			return t.checkRegs()
		}
	}
	return err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// checkRegs refuses a thread that runs 32-bit code: __USER_CS is 0x33
// (arch/x86/include/asm/segment.h).
func (t *Tracee) checkRegs() error {
	if t.worker.regs.Cs != 0x33 {
		return fmt.Errorf("thread %d: %w", t.worker.tid, ErrNot64)
	}
	return nil
}

// with runs do while the worker is stopped.
func (t *Tracee) with(ctx context.Context, do func(context.Context, time.Time) error) error {
	return t.call(ctx, func(ctx context.Context, deadline time.Time) error {
		if t.worker != nil && t.worker.stopped {
			return do(ctx, deadline)
		}
		if err := t.stopWorker(ctx, deadline); err != nil {
			return err
		}
		err := do(ctx, deadline)
		if _, rerr := t.resume(); err == nil {
			err = rerr
		}
		return err
	})
}

// Resume lets all threads run that Stop or StopAll have stopped, and returns how long
// it was since they began to.
func (t *Tracee) Resume() (stopped time.Duration, err error) {
	err = t.call(context.Background(), func(context.Context, time.Time) error {
		stopped, err = t.resume()
		return err
	})
	return stopped, err
}

// ResumeThreads lets some threads run that StopAll has stopped, and no others.
func (t *Tracee) ResumeThreads(ctx context.Context, tids ...int) error {
	return t.call(ctx, func(context.Context, time.Time) error {
		t.closeCave()
		for _, tid := range tids {
			th := t.threads[tid]
			if th == nil || !th.stopped {
				continue
			}
			t.leave(th)
			if th == t.worker {
				t.worker = nil
			}
		}
		return t.err
	})
}

func (t *Tracee) resume() (time.Duration, error) {
	t.closeCave()
	ths := t.all()
	// Those that could see an EINTR last: see prone.
	slices.SortStableFunc(ths, func(a, b *thread) int { return btoi(prone(a.regs.Orig_rax)) - btoi(prone(b.regs.Orig_rax)) })
	for _, th := range ths {
		if th.stopped {
			t.leave(th)
		}
	}
	if t.worker != nil && t.worker.stopped {
		t.worker = nil
	}
	d := time.Duration(0)
	if !t.began.IsZero() {
		d = time.Since(t.began)
	}
	t.began = time.Time{}
	return d, t.err
}

// Kill ends the process, which must not be detached from yet. It is no error if it has
// ended.
func (t *Tracee) Kill() error { return t.proc.Signal(unix.SIGKILL) }

// Seccomp reports whether the process runs under a seccomp filter: system calls that
// are made for it are exempt, those that code in it makes are not.
func (t *Tracee) Seccomp() bool { return t.seccomp }

// Alive reports whether the process has not ended.
func (t *Tracee) Alive() bool {
	st, err := status(t.pid)
	return err == nil && !strings.HasPrefix(st["State"], "Z") && !strings.HasPrefix(st["State"], "X")
}
