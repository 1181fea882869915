package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ferrotrace/internal/output"
	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/session"
)

// finding is one thing that tracing depends on.
type finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Runtime is the one that it matters for, "" if it does for both; Need says that it
	// can't be used without.
	Runtime string `json:"runtime,omitempty"`
	Need    bool   `json:"needed"`
	Found   string `json:"found"`
	Means   string `json:"means"`        // what hangs on it
	Do      string `json:"do,omitempty"` // what to do where it is missing
}

// notPermitted says that this machine or user lacks what tracing needs.
type notPermitted struct{ what, advice string }

func (e *notPermitted) Error() string { return e.what }
func (e *notPermitted) Hint() string  { return e.advice }
func (e *notPermitted) ExitCode() int { return exitNotPermitted }

func newDoctor() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this machine can do, and what to do about what it can't",
		Example: `  $ sudo ferrotrace doctor
  ok       kernel        6.12.9
  missing  uprobe_multi  not supported
           thousands of probes are armed at once
           → a kernel from 6.6 on; without it probes are armed one by one`,
		Long: `The last two lines say which runtimes can be used. Exit status 4 says that none can.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m := machine{root: "/", arch: runtime.GOARCH, features: append(kernelFeatures(kernel.ProbeFeatures()), userFeatures()...)}
			findings := m.examine()
			runtimes, err := verdict(findings)
			return cmp.Or(writeFindings(cmd.OutOrStdout(), f.format, append(findings, runtimes...)), err)
		},
	}
	f.addFormat(cmd)
	return cmd
}

// verdict says of each runtime whether it can be used; it is an error if none can.
func verdict(findings []finding) (runtimes []finding, err error) {
	usable := 0
	advice := ""
	var missing []string
	for _, rt := range []string{session.Kernel, session.User} {
		v := finding{Name: rt + " runtime", Runtime: rt, OK: true, Found: "can be used", Means: "it can't be used here"}
		var lacks []string
		for _, f := range findings {
			if f.Need && !f.OK && (f.Runtime == rt || f.Runtime == "") {
				lacks = append(lacks, f.Name)
				v.Do = cmp.Or(v.Do, f.Do)
			}
		}
		if lacks == nil {
			usable++
		} else {
			v.OK, v.Found = false, "missing "+strings.Join(lacks, ", ")
			missing = append(missing, rt+": "+v.Found)
			advice = cmp.Or(advice, v.Do)
		}
		runtimes = append(runtimes, v)
	}
	if usable == 0 {
		err = &notPermitted{"no runtime can be used here; " + strings.Join(missing, "; "), advice}
	}
	return runtimes, err
}

func writeFindings(w io.Writer, format output.Format, findings []finding) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Name))
	}
	var errs []error
	for _, f := range findings {
		if format == output.JSON {
			errs = append(errs, output.JSONLine(w, "check", f))
			continue
		}
		state := "ok"
		if !f.OK {
			state = "missing"
		}
		_, err := fmt.Fprintf(w, "%-7s  %-*s  %s\n", state, width, f.Name, output.Escape(f.Found))
		errs = append(errs, err)
		margin := strings.Repeat(" ", 9+width+2)
		if !f.OK {
			_, err = fmt.Fprintf(w, "%s%s\n%s→ %s\n", margin, f.Means, margin, f.Do)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// feature is what was found by trying; err is nil if it works.
type feature struct {
	name      string
	runtime   string
	need      bool
	means, do string
	err       error
}

// machine is what doctor looks at; tests put a directory in place of the root.
type machine struct {
	root     string
	arch     string
	features []feature
}

// read returns the text of a file of /proc or /sys, "" if it can't be had.
func (m machine) read(path string) string {
	b, err := os.ReadFile(filepath.Join(m.root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (m machine) exists(path string) bool {
	_, err := os.Stat(filepath.Join(m.root, path))
	return err == nil
}

func (m machine) examine() []finding {
	fs := []finding{
		{Name: "kernel", OK: true, Found: m.read("proc/sys/kernel/osrelease"), Means: "tested are 6.1, 6.12 and 6.18; others by their features below"},
		{Name: "arch", OK: m.arch == "amd64", Need: true, Found: m.arch, Means: "code and registers of x86-64 are understood, no others", Do: "use an x86-64 machine"},
		m.debugFiles(),
		m.capabilities(),
		m.uprobes(),
		m.btf(),
		m.lockdown(),
		m.paranoid(),
	}
	for _, x := range m.features {
		found := "works"
		if x.err != nil {
			found = x.err.Error()
		}
		fs = append(fs, finding{Name: x.name, OK: x.err == nil, Runtime: x.runtime, Need: x.need, Found: found, Means: x.means, Do: x.do})
	}
	fs = append(fs, m.ptrace(), m.othersProcesses(), m.shadowStack(), m.clock(), m.rdpid())
	for i := range fs {
		if fs[i].OK {
			fs[i].Do = "" // nothing is to be done
		}
	}
	return fs
}

// Capability numbers of linux/capability.h.
const (
	capSysPtrace = 19
	capSysAdmin  = 21
	capPerfmon   = 38
	capBPF       = 39
)

// caps is the set of effective capabilities (proc_pid_status(5), CapEff).
func (m machine) caps() uint64 {
	for line := range strings.Lines(m.read("proc/self/status")) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err == nil {
				return set
			}
		}
	}
	return 0
}

// capabilities: perf_uprobe_event_init asks for CAP_SYS_ADMIN since mid-2025, in
// stable kernels too; uprobe_multi goes on to take CAP_PERFMON (tried on 6.18).
func (m machine) capabilities() finding {
	set := m.caps()
	has := func(c int) bool { return set&(1<<c) != 0 }
	f := finding{Name: "capabilities", Runtime: session.Kernel, Need: true,
		Means: "programs are loaded with CAP_BPF and attached with CAP_PERFMON; CAP_SYS_ADMIN stands for both, and is a must for probes attached one by one on kernels since 2025",
		Do:    "run it as root, or: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep $(which ferrotrace)"}
	f.OK = has(capSysAdmin) || has(capBPF) && has(capPerfmon)
	var names []string
	for _, c := range []struct {
		n    int
		name string
	}{{capBPF, "CAP_BPF"}, {capPerfmon, "CAP_PERFMON"}, {capSysAdmin, "CAP_SYS_ADMIN"}, {capSysPtrace, "CAP_SYS_PTRACE"}} {
		if has(c.n) {
			names = append(names, c.name)
		}
	}
	f.Found = strings.Join(names, " ")
	if f.Found == "" {
		f.Found = "none"
	}
	return f
}

func (m machine) uprobes() finding {
	f := finding{Name: "uprobes", Runtime: session.Kernel, Need: true, OK: m.exists("sys/bus/event_source/devices/uprobe"), Found: "CONFIG_UPROBE_EVENTS",
		Means: "the kernel stops a program at a function and runs a probe there",
		Do:    "a kernel with CONFIG_UPROBE_EVENTS=y, and /sys mounted"}
	if !f.OK {
		f.Found = "/sys/bus/event_source/devices/uprobe is not there"
	}
	return f
}

func (m machine) btf() finding {
	f := finding{Name: "BTF", Runtime: session.Kernel, OK: m.exists("sys/kernel/btf/vmlinux"), Found: "/sys/kernel/btf/vmlinux",
		Means: "a process's children can be followed, and pid namespaces told apart",
		Do:    "a kernel with CONFIG_DEBUG_INFO_BTF=y"}
	if !f.OK {
		f.Found = "/sys/kernel/btf/vmlinux is not there"
	}
	return f
}

// lockdown never stands in the way: it guards the kernel's memory
// (bpf_tracing_func_proto in kernel/trace/bpf_trace.c asks for reads of kernel
// memory only), and probes read the target's.
func (m machine) lockdown() finding {
	f := finding{Name: "lockdown", Runtime: session.Kernel, OK: true, Found: "none", Means: "guards the kernel's memory; probes read the target's only"}
	for _, word := range strings.Fields(m.read("sys/kernel/security/lockdown")) {
		if mode, ok := strings.CutPrefix(word, "["); ok {
			f.Found = strings.TrimSuffix(mode, "]")
		}
	}
	return f
}

// paranoid never stands in the way either: a uprobe asks for its capability
// whatever the level (perf_uprobe_event_init in kernel/events/core.c).
func (m machine) paranoid() finding {
	f := finding{Name: "perf_event_paranoid", Runtime: session.Kernel, OK: true, Found: m.read("proc/sys/kernel/perf_event_paranoid"),
		Means: "probes need their capabilities at any level, and with them none matters"}
	if f.Found == "" {
		f.Found = "unknown"
	}
	return f
}

func (m machine) debugFiles() finding {
	f := finding{Name: "debug files", OK: m.exists("usr/lib/debug"), Found: "/usr/lib/debug",
		Means: "debug info of installed programs, kept apart from them, is looked for there",
		Do:    "install the program's -dbgsym or -debuginfo package, or name the file with --debug-file; your own builds don't need it"}
	if !f.OK {
		f.Found = "/usr/lib/debug is not there"
	}
	return f
}

// kernelFeatures says what the kernel runtime found by trying.
func kernelFeatures(k kernel.Features) []feature {
	if k.Err != nil {
		return []feature{{name: "kernel features", runtime: session.Kernel, need: true, err: k.Err,
			means: "ring buffers, sleepable programs and more can only be found by trying",
			do:    "run it as root, or see capabilities above"}}
	}
	row := func(name string, have, need bool, since, means, without string) feature {
		f := feature{name: name, runtime: session.Kernel, need: need, means: means, do: "a kernel from " + since + " on" + without}
		if !have {
			f.err = errors.New("not supported")
		}
		return f
	}
	return []feature{
		row("ring buffer", k.RingBuf, true, "5.8", "what probes see gets to ferrotrace through it", ""),
		row("cookies", k.Cookie, true, "5.15", "a program is told which probe it runs for", ""),
		row("bpf_loop", k.Loop, false, "5.17", "values behind many pointers are read in a loop of the kernel's", "; without it in a smaller one"),
		row("sleepable", k.Sleepable, false, "6.0", "a page that nobody has touched yet can be read", "; without it such values are <unreadable>"),
		row("uprobe_multi", k.UprobeMulti, false, "6.6", "thousands of probes are armed at once", "; without it they are armed one by one, for which kernels since 2025 want CAP_SYS_ADMIN"),
		row("process filter", k.MultiPIDFilter, false, "6.10", "the kernel itself keeps other processes out", "; without it programs do, at a cost for those processes"),
	}
}
