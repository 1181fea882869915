package user

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"ferrotrace/internal/runtime/user/inject"
)

// Reasons of Check beside those of package inject.
var (
	// ErrSeccomp: what probes ask of the kernel might be what the filter kills for.
	ErrSeccomp = errors.New("it runs under seccomp, whose filter might kill it for the system calls that probes make now and then")
	// ErrNamespace: the process's own number, which its probes record, is not the one
	// that it is known by here.
	ErrNamespace = errors.New("it is in another pid namespace")
)

// Check says why a process may not be traced by this runtime, nil if it may. It does
// not stop it. A process that this process itself holds may be traced.
func Check(pid int) error {
	if err := inject.Check(pid); err != nil {
		return err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, inject.ErrGone)
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case key == "Seccomp" && len(fields) == 1 && fields[0] != "0":
			return fmt.Errorf("process %d: %w", pid, ErrSeccomp)
		case key == "NSpid" && len(fields) > 1:
			return fmt.Errorf("process %d: %w", pid, ErrNamespace)
		}
	}
	return nil
}
