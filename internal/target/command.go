package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is a command that was started to be traced. Its input, output, error
// output, environment, process group and signals are those that it would have had
// without a tracer.
type Command struct {
	// Process is the command, at the first instruction of its program: its
	// executable is mapped, its libraries are not.
	*Process
	// Script is the script's path if the command is one; the executable is then its
	// interpreter's.
	Script string

	mu     sync.Mutex
	held   bool
	orders chan order    // to the thread that holds it
	done   chan struct{} // closed when status is set
	state  Status
	err    error
}

type order int

const (
	release order = iota
	kill
)

// Status is how a command ended.
type Status struct {
	Code   int            // its exit status, if Signal is 0
	Signal syscall.Signal // that killed it
	Core   bool           // a core was dumped
}

// String is as "exit status 3" or "killed by SIGSEGV (core dumped)".
func (s Status) String() string {
	if s.Signal == 0 {
		return fmt.Sprintf("exit status %d", s.Code)
	}
	name := unix.SignalName(s.Signal)
	if name == "" {
		name = fmt.Sprintf("signal %d", int(s.Signal)) // real-time signals have no names
	}
	if s.Core {
		name += " (core dumped)"
	}
	return "killed by " + name
}

// StartError says why a command can't be started.
type StartError struct {
	Name string
	Err  error // exec.ErrNotFound, os.ErrPermission, ErrSetuid, or another
}

func (e *StartError) Error() string {
	switch {
	case errors.Is(e.Err, exec.ErrNotFound), errors.Is(e.Err, os.ErrNotExist):
		return "command not found: " + e.Name
	case errors.Is(e.Err, syscall.ENOEXEC):
		return e.Name + " is not a program: neither ELF nor a script that names its interpreter"
	}
	return e.Name + ": " + e.Err.Error()
}

func (e *StartError) Unwrap() error { return e.Err }

// ErrSetuid: the command would get privileges by being executed, which the kernel
// does not grant to what a process traces that has not got them itself.
var ErrSetuid = errors.New("it is setuid, setgid or has file capabilities, and would run without them: start it yourself and trace it with -p, or be root")

// Start starts a command, which does not run yet: Release or Terminate must be
// called. If this process dies before, the command is killed.
//
// It is held by ptrace at the end of its execve, which is invisible to it once
// released: no signal is sent to it, no signal mask or disposition is changed. Files
// are passed on as they are, without Go's os/exec, which might change whether they
// block.
func Start(argv []string) (*Command, error) {
	if len(argv) == 0 {
		return nil, errors.New("no command")
	}
	fail := func(err error) (*Command, error) { return nil, &StartError{argv[0], err} }
	path, err := look(argv[0])
	if err != nil {
		var e *exec.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return fail(err)
	}
	script := ""
	if _, ok := interpreter(path); ok {
		script = path
	}
	if script == "" && privileged(path) && !canKeepPrivileges() {
		return fail(ErrSetuid)
	}

	c := &Command{Script: script, held: true, orders: make(chan order), done: make(chan struct{})}
	started := make(chan error)
	var pid int
	go c.hold(path, argv, &pid, started)
	if err := <-started; err != nil {
		return fail(err)
	}
	if c.Process, err = Open(pid); err != nil {
		_ = c.Terminate()
		<-c.done
		return fail(err)
	}
	return c, nil
}

// hold starts the command, and is its tracer until it gets an order: all of ptrace
// must come from one thread, and when that ends so does its hold.
func (c *Command) hold(path string, argv []string, pid *int, started chan<- error) {
	defer close(c.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p, status, err := startStopped(path, argv)
	if err != nil {
		started <- err
		return
	}
	if !status.Stopped() { // killed before its first instruction
		c.ended(status)
		started <- errors.New(c.state.String() + " before it began")
		return
	}
	*pid = p
	started <- nil

	if <-c.orders == kill {
		_ = unix.Kill(p, unix.SIGKILL)
	} else if err := unix.PtraceDetach(p); err != nil && err != unix.ESRCH {
		// ESRCH: a SIGKILL came first.
		c.err = fmt.Errorf("releasing the command: %w", err)
	}
	// Not by wait alone: that would take the stops of a command that this process
	// traces meanwhile, whichever thread of it is the tracer (wait_consider_task in the
	// kernel's kernel/exit.c).
	if err := ended(p); err != nil {
		c.err = errors.Join(c.err, err)
	}
	if status, err = wait(p, 0); err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	c.ended(status)
}

// ended waits until a child has ended, and leaves its status to be asked for.
func ended(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// startStopped returns a child that stands at the end of its execve, or its end if
// a signal killed it there.
func startStopped(path string, argv []string) (pid int, status unix.WaitStatus, err error) {
	pid, err = syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, 0, err
	}
	for {
		if status, err = wait(pid, 0); err != nil || !status.Stopped() {
			return pid, status, err
		}
		sig := status.StopSignal()
		if sig == unix.SIGTRAP {
			break
		}
		// Another signal came before the SIGTRAP of execve: it is the command's.
		if err := unix.PtraceCont(pid, int(sig)); err != nil && err != unix.ESRCH {
			return pid, status, err
		}
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL); err != nil && err != unix.ESRCH {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = wait(pid, 0)
		return 0, 0, fmt.Errorf("holding the command: %w", err)
	}
	return pid, status, nil
}

// wait waits for a child to stop or end.
func wait(pid, options int) (status unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &status, options, nil); err != unix.EINTR {
			return status, os.NewSyscallError("wait4", err)
		}
	}
}

func (c *Command) ended(s unix.WaitStatus) {
	if s.Signaled() {
		c.state = Status{Signal: s.Signal(), Core: s.CoreDump()}
		return
	}
	c.state = Status{Code: s.ExitStatus()}
}

// order gives the thread that holds the command its one order.
func (c *Command) order(o order) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return false
	}
	c.held = false
	c.orders <- o
	return true
}

// Release lets the command run. From here on nothing ties it to this process but
// that it is its child.
func (c *Command) Release() { c.order(release) }

// Terminate asks the command to end, by SIGTERM; one that has not run yet is
// killed. It is no error if it has ended.
func (c *Command) Terminate() error {
	if c.order(kill) {
		return nil
	}
	return c.Signal(unix.SIGTERM)
}

// Kill ends the command.
func (c *Command) Kill() error {
	if c.order(kill) {
		return nil
	}
	return c.Signal(unix.SIGKILL)
}

// Wait returns how the released command ended, or ctx's error.
func (c *Command) Wait(ctx context.Context) (Status, error) {
	select {
	case <-c.done:
		return c.state, c.err
	case <-ctx.Done():
		return Status{}, context.Cause(ctx)
	}
}

// Done is closed when the command has ended.
func (c *Command) Done() <-chan struct{} { return c.done }

// privileged says whether executing a file changes the user, the group or the
// capabilities.
func privileged(path string) bool {
	st, err := os.Stat(path)
	if err != nil {
		return false
	}
	if st.Mode()&fs.ModeSetuid != 0 || st.Mode()&fs.ModeSetgid != 0 && st.Mode()&0o010 != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// canKeepPrivileges says whether the kernel leaves what this process traces its
// privileges at execve: with CAP_SYS_PTRACE (ptracer_capable, called by
// cap_bprm_creds_from_file in security/commoncap.c).
func canKeepPrivileges() bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&h, &d[0]) == nil && d[0].Effective&(1<<unix.CAP_SYS_PTRACE) != 0
}
