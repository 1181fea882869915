package fault

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"ferrotrace/internal/runtime/user/inject"

	"golang.org/x/sys/unix"
)

// caughtBy is the set of signals that a process has handlers of (proc_pid_status(5)).
func caughtBy(pid int) (uint64, error) {
	return signalSet(fmt.Sprintf("/proc/%d/status", pid), "SigCgt:", pid)
}

// blocking says which thread, if any, has one of the signals blocked.
func blocking(pid int) (why string, err error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, inject.ErrGone)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return "", fmt.Errorf("process %d: %w", pid, inject.ErrGone)
	}
	for _, name := range names {
		blocked, err := signalSet(d.Name()+"/"+name+"/status", "SigBlk:", pid)
		if err != nil {
			if _, err := os.Stat(d.Name() + "/" + name); err != nil {
				continue // it has ended
			}
			return "", err
		}
		for _, sig := range signals {
			if blocked>>(sig-1)&1 != 0 {
				return fmt.Sprintf("thread %s has %s blocked", name, unix.SignalName(sig)), nil
			}
		}
	}
	return "", nil
}

// signalSet reads a line of a status file.
func signalSet(path, key string, pid int) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("process %d: %w", pid, inject.ErrGone)
	}
	_, rest, ok := bytes.Cut(b, []byte("\n"+key))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	set, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("%s has no %s", path, key)
	}
	return set, nil
}

// inSyscall reports whether a thread that does not stop waits in a system call
// (proc_pid_syscall(5)). One that waits for a page of its code may be on its way to one.
func inSyscall(pid, tid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, tid))
	nr, _, _ := bytes.Cut(b, []byte(" "))
	_, nerr := strconv.ParseUint(string(nr), 10, 64) // else "running", or -1
	return err == nil && nerr == nil
}
