package inject

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Range is [Start, End) in the process's memory.
type Range struct{ Start, End uint64 }

func (r Range) has(addr uint64) bool { return r.Start <= addr && addr < r.End }

// sorted is ranges in order of address, as InAny wants them. They may not overlap.
func sorted(rs []Range) []Range {
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	return rs
}

// InAny looks an address up in ranges, which are in order of address and do not overlap.
func InAny(rs []Range, addr uint64) bool {
	_, found := slices.BinarySearchFunc(rs, addr, func(r Range, a uint64) int {
		switch {
		case r.has(a):
			return 0
		case r.Start > a:
			return 1
		}
		return -1
	})
	return found
}

// Stopped is what StopAll did.
type Stopped struct {
	// LeftAlone are the threads that wait in the kernel and don't stop: a vfork parent,
	// one that waits for a disk. They are nowhere in the ranges. Before Resume they
	// execute nothing: a vfork parent waits for its child, which is stopped, the others
	// stop when their wait ends.
	LeftAlone []int
	// Took is from the first thread's interruption to the last one's stop.
	Took time.Duration
}

// ThreadState is a stopped thread.
type ThreadState struct {
	TID int
	// PID is the Tracee's, or that of a child that shares its memory, as one made by
	// vfork does until it executes another program.
	PID  int
	Regs Regs
}

// blockedWait is how long a thread that waits in the kernel, and can't be woken, has to
// come out.
const blockedWait = 2 * time.Millisecond

// StopAll stops all threads of the process, and those of its children that share its
// memory. A thread that does not stop is left alone if it will not execute or return
// into any of the ranges, which are those that are about to change; else the error is
// ErrBusy and all threads run again. They must be resumed by Resume.
//
// All threads means also those that are being made meanwhile: the stopped can't make any,
// what the others make is seized as it begins, and the list is read until there is
// nothing new in it.
func (t *Tracee) StopAll(ctx context.Context, ranges ...Range) (*Stopped, error) {
	st := &Stopped{}
	err := t.call(ctx, func(ctx context.Context, deadline time.Time) error {
		err := t.stopAll(ctx, deadline, sorted(ranges), st)
		if err != nil {
			_, _ = t.resume()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return st, nil
}

func (t *Tracee) stopAll(ctx context.Context, deadline time.Time, ranges []Range, st *Stopped) error {
	if err := t.again(); err != nil {
		return err
	}
	if t.began.IsZero() {
		t.began = time.Now()
	}
	// The leader is seized already: no time for it to be woken by what others get.
	if w := t.worker; !w.stopped {
		if err := ptrace(unix.PTRACE_INTERRUPT, w.tid, 0, 0); err != nil {
			return t.ptraceError(w, "interrupt", err)
		}
		w.since = time.Now()
	}
	left := map[int]bool{}
	var p patience
	for {
		tids, err := tasks(t.pid)
		if err != nil {
			return err
		}
		now, waiting := time.Now(), 0
		tids = slices.DeleteFunc(tids, func(tid int) bool {
			wait, done := t.vforkParent(tid, ranges)
			if done {
				left[tid] = true
			}
			if wait && !done {
				waiting++
			}
			return wait
		})
		fresh, err := t.seizeNew(t.pid, tids)
		if err != nil {
			return err
		}
		for _, th := range t.all() {
			if th.stopped || left[th.tid] {
				continue
			}
			if th.since.IsZero() {
				if err := ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0); err != nil {
					if err := t.excuse(t.ptraceError(th, "interrupt", err)); err != nil {
						return err
					}
					waiting++ // it ends: look at the list again
					continue
				}
				th.since = now
			}
			if err := t.excuse(t.progress(th)); err != nil {
				return err
			}
			if th.stopped || t.threads[th.tid] == nil {
				continue
			}
			if now.Sub(th.since) > blockedWait && stateOf(th.tid) == 'D' {
				ok, err := t.elsewhere(th, ranges)
				if err != nil {
					return err
				}
				if ok {
					left[th.tid] = true
					continue
				}
			}
			waiting++
		}
		if waiting == 0 && !fresh {
			break
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if now.After(deadline) {
			return fmt.Errorf("process %d: %w: %d threads do not stop", t.pid, ErrBusy, waiting)
		}
		if waiting > 0 {
			t.bury()
			p.pause()
		}
	}
	for tid := range left {
		if th := t.threads[tid]; th == nil || !th.stopped {
			st.LeftAlone = append(st.LeftAlone, tid)
		}
	}
	slices.Sort(st.LeftAlone)
	st.Took = time.Since(t.began)
	if t.worker == nil || !t.worker.stopped {
		for _, th := range t.all() {
			if th.stopped && th.pid == t.pid {
				t.worker = th
				break
			}
		}
		if t.worker == nil || !t.worker.stopped {
			return fmt.Errorf("process %d: %w: none of its threads stops", t.pid, ErrBusy)
		}
	}
	return t.checkRegs()
}

// all are the seized threads, in a list of its own: the map changes while they are gone
// through.
func (t *Tracee) all() []*thread {
	ths := make([]*thread, 0, len(t.threads))
	for _, th := range t.threads {
		ths = append(ths, th)
	}
	slices.SortFunc(ths, func(a, b *thread) int { return a.tid - b.tid })
	return ths
}

// excuse forgives the end of a thread, if it is not the process's.
func (t *Tracee) excuse(err error) error {
	if t.err != nil {
		return t.err
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	return err
}

// progress takes what stops an interrupted thread has made, without waiting.
func (t *Tracee) progress(th *thread) error {
	for {
		s, ok, err := t.wait(th)
		if err != nil {
			return t.lost(th, err)
		}
		if !ok {
			return nil
		}
		if s.sig == 0 {
			return t.lost(th, ErrGone)
		}
		if s.event == unix.PTRACE_EVENT_EXEC {
			return t.execed(th)
		}
		if done, err := t.take(th, s); err != nil || done {
			return err
		}
	}
}

// tasks are the threads of a process.
func tasks(pid int) (tids []int, err error) {
	d, err := os.Open("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && len(names) == 0 {
		return nil, fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}

// vforkParent looks for a thread that waits for its vfork child, and stops that. The
// parent is not seized, unless it is the leader and is already: it would not stop, and
// while it is traced the child's SIGCHLD wakes others (see prone). wait says that it is such a thread; done, that its child is
// stopped and it will not return into the ranges.
func (t *Tracee) vforkParent(tid int, ranges []Range) (wait, done bool) {
	if th := t.threads[tid]; th != nil && (th.stopped || th != t.worker) {
		return false, false
	}
	if !vforking(tid) {
		return false, false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", t.pid, tid))
	if err != nil {
		return false, false
	}
	for _, name := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(name)
		if err != nil || !t.shares(pid) {
			continue
		}
		ctids, err := tasks(pid)
		if err != nil {
			continue
		}
		if _, err := t.seizeNew(pid, ctids); err != nil {
			return false, false // not to be traced, as a setuid program's
		}
		wait, done = true, true
		for _, ctid := range ctids {
			done = done && t.threads[ctid] != nil && t.threads[ctid].stopped
		}
	}
	if done {
		there, err := t.elsewhere(&thread{tid: tid, pid: t.pid}, ranges)
		done = err == nil && there && vforking(tid)
	}
	return wait, done
}

// seizeNew seizes and interrupts those threads of a process that are not yet, and
// reports whether there were any.
func (t *Tracee) seizeNew(pid int, all []int) (fresh bool, err error) {
	var tids, last []int
	for _, tid := range all {
		if t.threads[tid] != nil {
			continue
		}
		if prone(syscallOf(tid)) {
			tids = append(tids, tid)
		} else {
			last = append(last, tid)
		}
	}
	for _, tid := range append(tids, last...) {
		// Only now are its clones of interest: the leader may have to live on with its
		// tracer attached.
		err := t.seize(tid, options|unix.PTRACE_O_TRACECLONE)
		switch err {
		case nil:
		case unix.ESRCH:
			continue
		case unix.EPERM:
			// It has ended, or was seized as it began and its event is still to come.
			if !t.ours(tid) {
				if living(tid) && living(t.pid) {
					fresh = true // between: look again
				}
				continue
			}
		default:
			return fresh, fmt.Errorf("thread %d: ptrace seize: %w", tid, err)
		}
		t.threads[tid] = &thread{tid: tid, pid: pid}
		fresh = true
		if ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0) == nil {
			t.threads[tid].since = time.Now()
		}
	}
	return fresh, nil
}

// Vforking reports whether a thread of a process waits for a child that has its memory.
func Vforking(pid int) bool {
	tids, _ := tasks(pid)
	return slices.ContainsFunc(tids, vforking)
}

func vforking(tid int) bool {
	if stateOf(tid) != 'D' {
		return false
	}
	switch syscallOf(tid) {
	case unix.SYS_VFORK, unix.SYS_CLONE, unix.SYS_CLONE3:
		return true
	}
	return false
}

// syscallOf is the system call that a thread waits in (proc_pid_syscall(5)).
func syscallOf(tid int) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/syscall")
	if err != nil {
		return noSyscall
	}
	nr, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.ParseUint(nr, 10, 64)
	if err != nil {
		return noSyscall
	}
	return n
}

// ours reports whether this tracer traces a thread.
func (t *Tracee) ours(tid int) bool {
	st, err := status(tid)
	return err == nil && st["TracerPid"] == strconv.Itoa(t.tracer)
}

// shares reports whether another process has the same memory: kcmp(2), KCMP_VM.
func (t *Tracee) shares(pid int) bool {
	const vm = 1
	r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(t.pid), uintptr(pid), vm, 0, 0, 0)
	return e == 0 && r == 0
}

// elsewhere reports whether a thread that waits in the kernel will not come back into
// the ranges: not at its next instruction, nor by a return address on its stack. It
// errs on the other side, for a stack holds old addresses too.
func (t *Tracee) elsewhere(th *thread, ranges []Range) (bool, error) {
	// "NUMBER ARGS... SP PC" (proc_pid_syscall(5)), or "running".
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", th.pid, th.tid))
	if err != nil {
		return false, nil
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return false, nil
	}
	sp, err1 := strconv.ParseUint(f[len(f)-2], 0, 64)
	pc, err2 := strconv.ParseUint(f[len(f)-1], 0, 64)
	if err1 != nil || err2 != nil {
		return false, nil
	}
	// A call that is restarted begins two bytes before.
	return !InAny(ranges, pc) && !InAny(ranges, pc-2) && !t.stackHas(sp, ranges), nil
}

// Elsewhere is whether a thread that was left alone is and will come back to none of the
// ranges, which may not overlap: it is not there, and has no return address there. A stack
// holds old addresses too, so "no" means perhaps.
func (t *Tracee) Elsewhere(ctx context.Context, tid int, ranges ...Range) (elsewhere bool, err error) {
	err = t.call(ctx, func(context.Context, time.Time) error {
		elsewhere, err = t.elsewhere(&thread{tid: tid, pid: tgid(tid)}, sorted(ranges))
		return err
	})
	return elsewhere, err
}

// stackDepth is how much of a stack is looked through.
const stackDepth = 1 << 20

// stackHas reports whether a stack holds, at or above sp, an address in one of the
// ranges.
func (t *Tracee) stackHas(sp uint64, ranges []Range) bool {
	return len(ranges) > 0 && t.searchStack(sp, func(w [3]uint64) bool { return InAny(ranges, w[0]) })
}

// interruptedIn reports whether a stack holds, at or above sp, a signal frame by whose end
// the thread goes on in a range: struct sigcontext in the kernel's
// arch/x86/include/uapi/asm/sigcontext.h has rip, eflags, cs.
func (t *Tracee) interruptedIn(sp uint64, r Range) bool {
	const userCS, alwaysOne = 0x33, 1 << 1
	return t.searchStack(sp, func(w [3]uint64) bool {
		return r.has(w[0]) && w[1]&alwaysOne != 0 && w[1]>>22 == 0 && w[2]&0xffff == userCS
	})
}

// searchStack looks through a stack for a word, which it passes with the two above.
func (t *Tracee) searchStack(sp uint64, found func(w [3]uint64) bool) bool {
	b := make([]byte, 4096+16)
	at := sp &^ 7
	for end := at + stackDepth; at < end; {
		n := 4096 - at&4095
		if t.readAt(b[:n+16], at) != nil {
			clear(b[n:])
			if t.readAt(b[:n], at) != nil {
				return false // the stack ends
			}
		}
		for i := uint64(0); i < n; i += 8 {
			var w [3]uint64
			for j := range w {
				w[j] = binary.LittleEndian.Uint64(b[i+8*uint64(j):])
			}
			if found(w) {
				return true
			}
		}
		at += n
	}
	return false
}

// Threads are the threads that are stopped, by id. System calls of the leader leave its
// state as it is here.
func (t *Tracee) Threads(ctx context.Context) ([]ThreadState, error) {
	var all []ThreadState
	err := t.call(ctx, func(context.Context, time.Time) error {
		for _, th := range t.all() {
			if th.stopped {
				all = append(all, ThreadState{th.tid, th.pid, th.regs})
			}
		}
		return nil
	})
	return all, err
}

// stoppedThread finds one by its id.
func (t *Tracee) stoppedThread(tid int) (*thread, error) {
	th := t.threads[tid]
	if th == nil || !th.stopped {
		return nil, fmt.Errorf("thread %d is not stopped", tid)
	}
	return th, nil
}

// SetRIP moves a stopped thread to another place, as from bytes that are about to change
// to their copy. A system call that it stands in is not restarted there: see InSyscall.
func (t *Tracee) SetRIP(ctx context.Context, tid int, rip uint64) error {
	return t.call(ctx, func(context.Context, time.Time) error {
		th, err := t.stoppedThread(tid)
		if err != nil {
			return err
		}
		r := th.regs
		r.Rip = rip
		if err := t.store(th, &r); err != nil {
			return err
		}
		th.regs = r
		return nil
	})
}

// InSyscall reports whether a thread stands at the end of a system call that the kernel
// is to restart: it then goes back by the two bytes of the syscall instruction.
func (s ThreadState) InSyscall() bool {
	r := restarted(s.Regs)
	return r.Rip != s.Regs.Rip
}

// StackHas reports whether a stopped thread's stack holds an address in one of the
// ranges, which it may return to. Old addresses count too, so "yes" means perhaps.
func (t *Tracee) StackHas(ctx context.Context, tid int, ranges ...Range) (has bool, err error) {
	err = t.call(ctx, func(context.Context, time.Time) error {
		th, err := t.stoppedThread(tid)
		if err == nil {
			has = t.stackHas(th.regs.Rsp, sorted(ranges))
		}
		return err
	})
	return has, err
}

// StepOut executes single instructions of a stopped thread until it is outside of the
// range, at most max. It is ErrBusy if the thread is still inside then, handles a signal
// in between, or comes to an instruction that must not be stepped: pushf would show the
// program the trap flag, popf would clear it, and a system call may wait.
func (t *Tracee) StepOut(ctx context.Context, tid int, r Range, most int) error {
	return t.call(ctx, func(ctx context.Context, deadline time.Time) error {
		th, err := t.stoppedThread(tid)
		if err != nil {
			return err
		}
		if th.group {
			return fmt.Errorf("%w: thread %d is stopped by a signal", ErrBusy, tid)
		}
		stepped := false
		err = t.stepOut(ctx, deadline, th, r, most, &stepped)
		if stepped && (err == nil || errors.Is(err, ErrBusy)) && !th.stopped {
			// From the trap of the last step, which is not passed on, into the stop that
			// all others are in.
			if _, terr := t.take(th, stop{}); terr != nil {
				return terr
			}
			if serr := t.settle(ctx, th, deadline); serr != nil {
				return serr
			}
		}
		return err
	})
}

func (t *Tracee) stepOut(ctx context.Context, deadline time.Time, th *thread, r Range, most int, stepped *bool) error {
	for range most {
		if !r.has(th.regs.Rip) {
			return nil
		}
		b := make([]byte, 15)
		for n := len(b); t.readAt(b[:n], th.regs.Rip) != nil; n-- {
			if n == 1 {
				return fmt.Errorf("%w: thread %d has no code at %#x", ErrBusy, th.tid, th.regs.Rip)
			}
		}
		if !steppable(b) || int64(th.regs.Orig_rax) >= 0 && th.regs.Rip != restarted(th.regs).Rip {
			return fmt.Errorf("%w: thread %d stands at an instruction that cannot be stepped, at %#x", ErrBusy, th.tid, th.regs.Rip)
		}
		if err := ptrace(unix.PTRACE_SINGLESTEP, th.tid, 0, 0); err != nil {
			return t.ptraceError(th, "singlestep", err)
		}
		th.stopped, *stepped = false, true
		s, err := t.await(ctx, th, deadline)
		if err != nil {
			return err
		}
		if s.sig == int(unix.SIGTRAP) && s.signal() && t.trapped(th) {
			if err := t.load(th); err != nil {
				return err
			}
			continue
		}
		// Anything else is passed on and ends the stepping.
		done, err := t.take(th, s)
		if err == nil && !done {
			err = t.settle(ctx, th, deadline)
		}
		if err != nil {
			return err
		}
		if !r.has(th.regs.Rip) && !t.stackHas(th.regs.Rsp, []Range{r}) {
			return nil
		}
		return fmt.Errorf("%w: thread %d handles a signal", ErrBusy, th.tid)
	}
	if r.has(th.regs.Rip) {
		return fmt.Errorf("%w: thread %d does not leave %#x", ErrBusy, th.tid, r.Start)
	}
	return nil
}

// trapped reports whether a SIGTRAP is that of a step, and not one that was sent: its
// si_code is TRAP_TRACE, TRAP_BRKPT or, after a system call, SI_KERNEL and above 0.
func (t *Tracee) trapped(th *thread) bool {
	code, ok := t.sigcode(th)
	return ok && code > 0
}

// steppable looks at the opcode behind the prefixes.
func steppable(b []byte) bool {
	for i, c := range b {
		switch c {
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3:
			continue
		}
		if c&0xf0 == 0x40 && i+1 < len(b) { // REX
			c = b[i+1]
			i++
		}
		switch c {
		case 0x9c, 0x9d, // pushf, popf
			0xcc, 0xcd, 0xce, 0xcf, 0xf1, // int3, int, into, iret, int1
			0x8e, 0x17: // mov to ss delays the trap
			return false
		case 0x0f:
			return i+1 < len(b) && b[i+1] != 0x05 && b[i+1] != 0x34 // syscall, sysenter
		}
		return true
	}
	return false
}
