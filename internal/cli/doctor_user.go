package cli

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ferrotrace/internal/session"
)

// The findings of this file are about the user runtime.

func (m machine) ptrace() finding {
	f := finding{Name: "ptrace_scope", Runtime: session.User, OK: true, Found: "0: processes of the same user",
		Means: "the user runtime gets into a process by ptrace",
		Do:    "run it as root or with CAP_SYS_PTRACE"}
	privileged := m.caps()&(1<<capSysPtrace) != 0
	// Documentation/admin-guide/LSM/Yama.rst
	switch m.read("proc/sys/kernel/yama/ptrace_scope") {
	case "1": // a command that ferrotrace starts is its child
		f.OK, f.Found = privileged, "1: only what ferrotrace starts, unless with CAP_SYS_PTRACE"
		f.Do += "; or let ferrotrace start the command"
	case "2":
		f.OK, f.Found, f.Need = privileged, "2: only with CAP_SYS_PTRACE", true
	case "3":
		f.OK, f.Found, f.Need = false, "3: nobody", true
		f.Do = "kernel.yama.ptrace_scope can be lowered by a reboot only; use the kernel runtime, with -p or -b"
	}
	return f
}

// othersProcesses: what __ptrace_may_access in the kernel's kernel/ptrace.c asks for.
func (m machine) othersProcesses() finding {
	f := finding{Name: "CAP_SYS_PTRACE", Runtime: session.User, OK: m.caps()&(1<<capSysPtrace) != 0, Found: "held",
		Means: "the user runtime can be in processes of other users, and in those that have changed theirs",
		Do:    "run it as root, or: sudo setcap cap_sys_ptrace+ep $(which ferrotrace); your own processes don't need it"}
	if !f.OK {
		f.Found = "not held"
	}
	return f
}

// cpuFlag says whether the first processor has a feature, by its name in /proc/cpuinfo.
func (m machine) cpuFlag(name string) bool {
	for line := range strings.Lines(m.read("proc/cpuinfo")) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "flags" {
			return slices.Contains(strings.Fields(value), name)
		}
	}
	return false
}

// shadowStack: a return address that is not on the shadow stack faults, and probes push
// some. Documentation/arch/x86/shstk.rst.
func (m machine) shadowStack() finding {
	f := finding{Name: "shadow stack", Runtime: session.User, OK: true, Found: "none",
		Means: "a program that runs under a user shadow stack can't be traced by the user runtime",
		Do:    "run the program with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off, or take --runtime kernel"}
	switch {
	case strings.Contains(m.read("proc/self/status"), "shstk"):
		f.OK, f.Found = false, "in use: programs are given one here"
	case m.cpuFlag("user_shstk"):
		f.Found = "for programs that ask for one: those are refused"
	}
	return f
}

func (m machine) clock() finding {
	const source = "sys/devices/system/clocksource/clocksource0/current_clocksource"
	f := finding{Name: "invariant TSC", Runtime: session.User, Found: "constant_tsc nonstop_tsc, clock source " + m.read(source),
		Means: "a record's time costs some 10 ns",
		Do:    "nothing that you can do; records ask the kernel for the time, at some 100 ns more each"}
	f.OK = m.cpuFlag("constant_tsc") && m.cpuFlag("nonstop_tsc")
	switch s := m.read(source); {
	case !f.OK:
		f.Found = "the processor has none"
	case s == "tsc", s == "kvm-clock", s == "xen", strings.HasPrefix(s, "hyperv"):
	default: // the kernel has found it to be wrong
		f.OK, f.Found = false, "the kernel does not use it: its clock source is "+s
	}
	return f
}

func (m machine) rdpid() finding {
	f := finding{Name: "rdpid", Runtime: session.User, OK: m.cpuFlag("rdpid"), Found: "works",
		Means: "a probe gets the number of its processor by one instruction",
		Do:    "nothing that you can do; without it probes look it up in a segment, at some ns more"}
	if !f.OK {
		f.Found = "not supported"
	}
	return f
}

// userFeatures says what the user runtime would ask the kernel for in a process, as
// found by asking for it here.
func userFeatures() []feature {
	memfd := feature{name: "memfd", runtime: session.User, need: true,
		means: "memory that a process and its tracer share", do: "a kernel from 3.17 with CONFIG_MEMFD_CREATE=y"}
	fd, err := unix.MemfdCreate("ferrotrace", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Close(fd)
	}
	memfd.err = err

	barrier := feature{name: "membarrier", runtime: session.User,
		means: "running threads see changed code at once", do: "a kernel from 4.16 with CONFIG_MEMBARRIER=y; without it all of them are stopped for it"}
	const query, syncCore = 0, 1<<5 | 1<<6 // include/uapi/linux/membarrier.h
	commands, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, query, 0, 0)
	switch {
	case errno != 0:
		barrier.err = errno
	case commands&syncCore != syncCore:
		barrier.err = errors.New("no expedited barrier for changed code")
	}
	return []feature{memfd, barrier}
}
