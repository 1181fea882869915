package session

import (
	"errors"
	"fmt"
	"os"

	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/runtime/user/inject"
)

// Exit statuses that an error of this package may ask for.
const (
	failed       = 1
	usage        = 2
	nothing      = 3
	notPermitted = 4
)

// refusal is an error with the exit status it leads to and what to do about it.
type refusal struct {
	error
	status int
	advice string
}

func refuse(status int, err error, advice string) error { return &refusal{err, status, advice} }

func (e *refusal) Unwrap() error { return e.error }
func (e *refusal) ExitCode() int { return e.status }
func (e *refusal) Hint() string  { return e.advice }

// errInterrupted: the user has ended the run before its probes were in. The command,
// if there is one, has not run.
var errInterrupted = errors.New("interrupted before the trace began")

const bePrivileged = "run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep $(which ferrotrace); ferrotrace doctor says what is missing"

// permitted makes a refusal of what a file's mode forbids.
func permitted(err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	return refuse(notPermitted, err, bePrivileged)
}

// kernelRefused makes a refusal of what the kernel forbids its runtime.
func (r *run) kernelRefused(err error) error {
	if errors.Is(err, os.ErrPermission) && mayUser(&r.o) == nil {
		return refuse(notPermitted, err, "the user runtime would do: --runtime user")
	}
	return permitted(err)
}

// userRefused makes a refusal of what stands against the user runtime.
func userRefused(err error) error {
	var kernelHint string
	if kernel.Permission() == nil {
		kernelHint = "the kernel runtime would do: --runtime kernel"
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, user.ErrEverywhere):
		return refuse(usage, err, "name a process (-p PID) or a command (-- COMMAND ARG...), or take --runtime kernel")
	case errors.Is(err, inject.ErrGone):
		return err
	case forbidden(err) && kernelHint == "":
		return refuse(notPermitted, err, bePrivileged)
	case forbidden(err):
		return refuse(notPermitted, err, kernelHint)
	}
	return refuse(failed, err, kernelHint)
}

// forbidden says whether somebody forbids what another user, or another time, might be
// permitted.
func forbidden(err error) bool {
	var traced *inject.TracedError
	return errors.Is(err, os.ErrPermission) || errors.Is(err, inject.ErrSeccomp) || errors.Is(err, user.ErrSeccomp) || errors.As(err, &traced)
}

// neither is what stands against both runtimes; nil if nothing does against the
// kernel's.
func neither(notUser, notKernel error) error {
	if notKernel == nil {
		return nil
	}
	if errors.Is(notKernel, kernel.ErrGone) {
		return notKernel
	}
	err := fmt.Errorf("neither runtime will do; user: %w; kernel: %w", notUser, notKernel)
	if !errors.Is(notKernel, os.ErrPermission) {
		return err
	}
	advice := bePrivileged
	var incomplete *incompleteError
	if errors.As(notUser, &incomplete) {
		advice = "--runtime user leaves out what can't be planted; or " + advice
	}
	return refuse(notPermitted, err, advice)
}

// incompleteError: not every site can have a probe on the user runtime.
type incompleteError struct{ error }

func (e *incompleteError) Unwrap() error { return e.error }
