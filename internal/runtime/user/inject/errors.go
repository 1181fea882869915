package inject

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone: the process has ended.
	ErrGone = errors.New("the process is gone")
	// ErrExec: the process has executed another program, and with it everything that
	// was put into it is gone.
	ErrExec = errors.New("the process executed another program")
	// ErrBusy: a thread could not be stopped, or not be brought out of a range, in the
	// time there was.
	ErrBusy = errors.New("a thread cannot be stopped at a safe place")
	// ErrConflict: memory does not hold what it should; see ConflictError.
	ErrConflict = errors.New("the code was changed by another")
	// ErrDetached: the Tracee has been detached.
	ErrDetached = errors.New("detached")
	// ErrShadowStack: the process runs under a user shadow stack, where a jump into a
	// pushed return address faults.
	ErrShadowStack = errors.New("the process runs under a user shadow stack")
	// ErrNot64: the process is not a 64-bit x86 program (32-bit and x32 have other
	// system calls and registers).
	ErrNot64 = errors.New("not a 64-bit x86 program")
	// ErrSeccomp: the process has a seccomp filter and this process may not suspend
	// it (that takes CAP_SYS_ADMIN, and no filter of its own). Filters can't be read
	// without that right either, and one that kills gives no second chance.
	ErrSeccomp = errors.New("the process is under seccomp, which only CAP_SYS_ADMIN may suspend")
	// ErrNoRoom: no free place that is large and near enough.
	ErrNoRoom = errors.New("no room in the address space")
)

// TracedError: another tracer, such as a debugger, has the process. One can.
type TracedError struct {
	PID, Tracer int
	Comm        string // the tracer's name
}

func (e *TracedError) Error() string {
	return fmt.Sprintf("process %d is traced by process %d (%s) already", e.PID, e.Tracer, e.Comm)
}

// PermissionError says why ptrace is not allowed. It is os.ErrPermission.
type PermissionError struct {
	PID    int
	Reason string
	Err    error
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("process %d: not permitted to trace it: %s", e.PID, e.Reason)
}

func (e *PermissionError) Unwrap() error { return e.Err }

// permission finds what stands against PTRACE_MODE_ATTACH_REALCREDS (ptrace(2),
// "Ptrace access mode checking").
func permission(pid int, err error) error {
	e := &PermissionError{PID: pid, Err: err}
	st, _ := status(pid)
	scope := 0
	if b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil {
		scope, _ = strconv.Atoi(strings.TrimSpace(string(b)))
	}
	ours, _ := os.Readlink("/proc/self/ns/user")
	theirs, nserr := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	uid, _, _ := strings.Cut(st["Uid"], "\t")
	switch {
	case uid != "" && uid != strconv.Itoa(os.Getuid()):
		e.Reason = "it is user " + uid + "'s; that takes CAP_SYS_PTRACE"
	case scope == 3:
		e.Reason = "Yama forbids tracing (kernel.yama.ptrace_scope is 3)"
	case scope == 2:
		e.Reason = "Yama asks for CAP_SYS_PTRACE (kernel.yama.ptrace_scope is 2)"
	case nserr == nil && ours != theirs:
		e.Reason = "it is in another user namespace"
	case scope == 1:
		e.Reason = "Yama permits tracing one's own children only (kernel.yama.ptrace_scope is 1): start it as a command, or be root"
	case st["Seccomp"] != "" && ownSeccomp():
		e.Reason = "this process is under seccomp, or in a container that forbids ptrace"
	default:
		e.Reason = "it changed its privileges, is not dumpable, or a security module forbids it"
	}
	return e
}

func ownSeccomp() bool {
	st, err := status(os.Getpid())
	return err == nil && st["Seccomp"] != "0"
}

// status is /proc/ID/status (proc_pid_status(5)), of a process or a thread.
func status(id int) (map[string]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil, ErrGone
		}
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m, nil
}

// refuse returns why a process can't be traced whatever the permissions are.
func refuse(pid int) error {
	st, err := status(pid)
	if err != nil {
		return err
	}
	if strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X") {
		return ErrGone
	}
	// Documentation/arch/x86/shstk.rst, "Proc Status".
	if strings.Contains(st["x86_Thread_features"], "shstk") {
		return ErrShadowStack
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return permission(pid, err)
		}
		if errors.Is(err, os.ErrNotExist) {
			return ErrGone
		}
		return err
	}
	defer f.Close()
	var h [20]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		return fmt.Errorf("its executable: %w", err)
	}
	if elf.Class(h[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Machine(uint16(h[18])|uint16(h[19])<<8) != elf.EM_X86_64 {
		return ErrNot64
	}
	if tracer, _ := strconv.Atoi(st["TracerPid"]); tracer != 0 {
		e := &TracedError{PID: pid, Tracer: tracer}
		if ts, err := status(tracer); err == nil {
			e.Comm = ts["Name"]
			e.Tracer, _ = strconv.Atoi(ts["Tgid"]) // TracerPid is a thread
		}
		return e
	}
	return nil
}

// Check says why this process may not trace another, nil if it may. It does not stop it.
// A process that this process traces already, as it does a command that it holds, is
// one that it may.
func Check(pid int) error {
	err := refuse(pid)
	var (
		traced *TracedError
		denied *PermissionError
	)
	switch {
	case errors.As(err, &traced) && traced.Tracer == os.Getpid():
		return nil
	case errors.As(err, &traced), errors.As(err, &denied): // they name the process
		return err
	case err != nil:
		return fmt.Errorf("process %d: %w", pid, err)
	}
	// Opening it asks what attaching does (mem_open in the kernel's fs/proc/base.c).
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrPermission):
		return permission(pid, err)
	case err != nil:
		return fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return f.Close()
}
