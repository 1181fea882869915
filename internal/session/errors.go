package session

import (
	"errors"
	"os"
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

// permitted makes a refusal of what the kernel, or a file's mode, forbids.
func permitted(err error) error {
	if !errors.Is(err, os.ErrPermission) {
		return err
	}
	return refuse(notPermitted, err,
		"run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep $(which ferrotrace); ferrotrace doctor says what is missing")
}
