package kernel

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// PermissionError says what this process may not do. It is an os.ErrPermission.
type PermissionError struct {
	// Missing are capabilities, as "CAP_BPF", or a phrase for what else stands in
	// the way; at least one.
	Missing []string
	Err     error // of the kernel; nil if it was not asked
}

func (e *PermissionError) Error() string {
	return "not permitted: missing " + strings.Join(e.Missing, ", ")
}

func (e *PermissionError) Is(target error) bool { return target == os.ErrPermission }
func (e *PermissionError) Unwrap() error        { return e.Err }

// Permission returns nil if this process has the capabilities to load programs
// and attach them to any process, else a *PermissionError. They are CAP_BPF and
// CAP_PERFMON, or CAP_SYS_ADMIN for both.
//
// The sysctls kernel.unprivileged_bpf_disabled and kernel.perf_event_paranoid
// forbid nothing to who has these, and lockdown guards only the kernel's memory,
// which is not read.
func Permission() error {
	if missing := missing(effective(), initialUserNamespace()); missing != nil {
		return &PermissionError{Missing: missing}
	}
	return nil
}

// missing is what lacks for the set of effective capabilities; initial is whether
// they are held in the initial user namespace: bpf(2) and perf_event_open(2) ask
// for no others (bpf_capable, perfmon_capable in include/linux/capability.h).
func missing(set uint64, initial bool) []string {
	has := func(c int) bool { return set&(1<<c) != 0 }
	var names []string
	if !has(unix.CAP_SYS_ADMIN) {
		if !has(unix.CAP_BPF) {
			names = append(names, "CAP_BPF")
		}
		if !has(unix.CAP_PERFMON) {
			names = append(names, "CAP_PERFMON")
		}
	}
	if names == nil && !initial {
		names = append(names, "CAP_BPF and CAP_PERFMON outside of this user namespace")
	}
	return names
}

// permission turns a refusal of the kernel into a *PermissionError and leaves
// other errors as they are.
func permission(err error) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	var (
		p       *PermissionError
		refused *ebpf.VerifierError // of a program, not of the process
	)
	switch {
	case errors.As(err, &p), errors.As(err, &refused):
		return err
	case errors.As(Permission(), &p):
		return &PermissionError{Missing: p.Missing, Err: err}
	case effective()&(1<<unix.CAP_SYS_ADMIN) == 0:
		// Recent kernels want it for uprobes through perf events
		// (perf_uprobe_event_init in kernel/events/core.c).
		return &PermissionError{Missing: []string{"CAP_SYS_ADMIN"}, Err: err}
	}
	return &PermissionError{Missing: []string{"a system call that a seccomp filter or security module forbids"}, Err: err}
}

// effective is the set of effective capabilities (proc_pid_status(5)).
func effective() uint64 {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil {
				return set
			}
		}
	}
	return 0
}

// Inode numbers of the initial namespaces (include/linux/proc_ns.h).
const (
	initialUserIno = 0xEFFFFFFD
	initialPIDIno  = 0xEFFFFFFC
)

func initialUserNamespace() bool { return inode("/proc/thread-self/ns/user") == initialUserIno }
func initialPIDNamespace() bool  { return inode("/proc/thread-self/ns/pid") == initialPIDIno }

func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}
