package inject

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// seize makes a thread of the process, or of a child that shares its memory, this
// tracer's.
//
// It may have to wait: a thread that executes a program keeps others from attaching
// (cred_guard_mutex) while it waits for the end of its siblings (de_thread in the kernel's
// fs/exec.c), and those that are traced already have not ended before their tracer has
// taken notice. That is the thread that waits here; so another of this process does it.
func (t *Tracee) seize(tid int, opts uintptr) error {
	done := make(chan struct{})
	defer close(done)
	timer := time.AfterFunc(seizeWait, func() { reap(t.pid, t.tracer, done) })
	defer timer.Stop()
	// Not a raw system call, as those are that never wait: Go would wait for its end.
	_, _, e := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, opts, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// seizeWait is how long to seize a thread may take before it is looked what that waits for.
const seizeWait = 20 * time.Millisecond

// reap takes notice of the end of threads of a process that a thread here traces, until
// done. The leader's end is for the one who executes.
func reap(pid, tracer int, done <-chan struct{}) {
	self := strconv.Itoa(tracer)
	for {
		tids, _ := tasks(pid)
		for _, tid := range tids {
			if st, err := status(tid); err == nil && tid != pid && st["TracerPid"] == self && stateOf(tid) == 'Z' {
				_, _, _ = unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(tid), 0, unix.WEXITED|unix.WNOHANG|unix.WALL, 0, 0)
			}
		}
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}
