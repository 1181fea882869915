package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/output"
	"ferrotrace/internal/runtime/kernel"
)

// fake makes a machine of files: path → text.
func fake(t *testing.T, files map[string]string, features ...feature) machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return machine{root: root, arch: "amd64", features: features}
}

func able() map[string]string {
	return map[string]string{
		"proc/sys/kernel/osrelease":                                       "6.12.9",
		"proc/self/status":                                                "Name:\tx\nCapEff:\t000001ffffffffff",
		"proc/sys/kernel/perf_event_paranoid":                             "3",
		"proc/sys/kernel/yama/ptrace_scope":                               "1",
		"sys/bus/event_source/devices/uprobe/type":                        "9",
		"sys/kernel/btf/vmlinux":                                          "",
		"sys/kernel/security/lockdown":                                    "none [integrity] confidentiality",
		"usr/lib/debug/.build-id/00/00000000000000.debug":                 "",
		"proc/cpuinfo":                                                    "processor\t: 0\nflags\t\t: fpu constant_tsc nonstop_tsc rdpid\n\nprocessor\t: 1",
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
	}
}

func find(t *testing.T, fs []finding, name string) finding {
	t.Helper()
	for _, f := range fs {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing is found about %s", name)
	return finding{}
}

func TestDoctorOnAnAbleMachine(t *testing.T) {
	fs := fake(t, able(), feature{name: "ring buffer", need: true, means: "m"}).examine()
	for _, f := range fs {
		if !f.OK {
			t.Errorf("%s is missing: %s", f.Name, f.Found)
		}
		if f.Means == "" || f.Found == "" {
			t.Errorf("%s says nothing: %+v", f.Name, f)
		}
	}
	runtimes, err := verdict(fs)
	if err != nil || len(runtimes) != 2 || !runtimes[0].OK || !runtimes[1].OK {
		t.Errorf("%+v, %v", runtimes, err)
	}
	if got := find(t, fs, "lockdown").Found; got != "integrity" {
		t.Errorf("lockdown is %q", got)
	}
}

func TestDoctorOnAPoorMachine(t *testing.T) {
	files := able()
	delete(files, "sys/bus/event_source/devices/uprobe/type")
	delete(files, "sys/kernel/btf/vmlinux")
	files["proc/self/status"] = "CapEff:\t0000000000000000"
	files["proc/sys/kernel/yama/ptrace_scope"] = "2"
	files["proc/cpuinfo"] = "flags\t: fpu"
	fs := fake(t, files, feature{name: "ring buffer", runtime: "kernel", need: true, err: errors.New("not supported"), means: "m", do: "d"},
		feature{name: "uprobe_multi", runtime: "kernel", err: errors.New("not supported"), means: "m", do: "d"}).examine()
	for _, name := range []string{"capabilities", "uprobes", "BTF", "ptrace_scope", "ring buffer", "uprobe_multi", "CAP_SYS_PTRACE", "invariant TSC", "rdpid"} {
		f := find(t, fs, name)
		if f.OK || f.Do == "" {
			t.Errorf("%s: ok, or no word of what to do: %+v", name, f)
		}
	}
	_, err := verdict(fs)
	if err == nil || exitCode(err) != 4 {
		t.Fatalf("%v, %d", err, exitCode(err))
	}
	for _, part := range []string{"kernel: missing capabilities", "uprobes", "ring buffer", "user: missing ptrace_scope"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
	if strings.Contains(err.Error(), "BTF") || strings.Contains(err.Error(), "uprobe_multi") {
		t.Errorf("%q names what is not needed", err)
	}
}

// Two capabilities are enough, and none of their parts is.
func TestDoctorCapabilities(t *testing.T) {
	for set, want := range map[string]bool{"000000c000000000": true, "0000008000000000": false, "0000004000000000": false,
		"0000000000200000": true, "0000000000000000": false, "": false} {
		if got := fake(t, map[string]string{"proc/self/status": "CapEff:\t" + set}).capabilities().OK; got != want {
			t.Errorf("CapEff %s: ok is %v, want %v", set, got, want)
		}
	}
}

func TestDoctorText(t *testing.T) {
	var b bytes.Buffer
	err := writeFindings(&b, output.Text, []finding{
		{Name: "kernel", OK: true, Found: "6.12.9", Means: "x"},
		{Name: "uprobe_multi", Found: "not supported", Means: "thousands of probes are armed at once", Do: "a kernel from 6.6 on"},
	})
	want := `ok       kernel        6.12.9
missing  uprobe_multi  not supported
                       thousands of probes are armed at once
                       → a kernel from 6.6 on
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// What is needed is missing where the kernel lacks it; the rest is only told.
func TestDoctorKernelFeatures(t *testing.T) {
	missing := func(k kernel.Features) string {
		runtimes, err := verdict(fake(t, able(), kernelFeatures(k)...).examine())
		if err != nil {
			t.Errorf("the user runtime would do: %v", err)
		}
		if runtimes[0].OK {
			return ""
		}
		return strings.TrimPrefix(runtimes[0].Found, "missing ")
	}
	for want, k := range map[string]kernel.Features{
		"":                     {RingBuf: true, Cookie: true},
		"cookies":              {RingBuf: true, Loop: true, Sleepable: true, UprobeMulti: true},
		"ring buffer, cookies": {},
		"kernel features":      {Err: errors.New("not permitted")},
	} {
		if got := missing(k); got != want {
			t.Errorf("%+v: missing %q, want %q", k, got, want)
		}
	}
}

// Yama's scopes: what ferrotrace starts may be traced up to the first, and privileges
// count up to the second.
func TestDoctorPtraceScope(t *testing.T) {
	const none, ptrace = "0000000000000000", "0000000000080000"
	for _, c := range []struct {
		scope, caps string
		ok, usable  bool
	}{
		{"0", none, true, true}, {"", none, true, true}, {"1", none, false, true}, {"1", ptrace, true, true},
		{"2", none, false, false}, {"2", ptrace, true, true}, {"3", none, false, false}, {"3", ptrace, false, false},
	} {
		files := able()
		files["proc/self/status"] = "CapEff:\t" + c.caps
		files["proc/sys/kernel/yama/ptrace_scope"] = c.scope
		fs := fake(t, files).examine()
		if got := find(t, fs, "ptrace_scope").OK; got != c.ok {
			t.Errorf("scope %q, CapEff %s: ok is %v", c.scope, c.caps, got)
		}
		runtimes, err := verdict(fs)
		if got := runtimes[1].OK; got != c.usable || (err == nil) != c.usable {
			t.Errorf("scope %q, CapEff %s: user runtime: %v, %v", c.scope, c.caps, got, err)
		}
	}
}

func TestDoctorProcessor(t *testing.T) {
	files := able()
	files["sys/devices/system/clocksource/clocksource0/current_clocksource"] = "hpet"
	files["proc/self/status"] = "x86_Thread_features:\tshstk wrss"
	fs := fake(t, files).examine()
	if f := find(t, fs, "invariant TSC"); f.OK || !strings.Contains(f.Found, "hpet") {
		t.Errorf("%+v", f)
	}
	if f := find(t, fs, "shadow stack"); f.OK {
		t.Errorf("%+v", f)
	}
}
