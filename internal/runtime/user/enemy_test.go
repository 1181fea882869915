package user_test

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/proctest"
	"ferrotrace/internal/x86"
)

const (
	selfVerifying = "inject/testdata/target.c"
	enemy         = "testdata/enemy.c"
)

// compile compiles a program of one file.
func compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	return proctest.Compile(t, append([]string{"-O2", source}, flags...)...)
}

type proc struct{ *proctest.Process }

// launch starts a program.
func launch(t testing.TB, file string, args ...string) *proc {
	t.Helper()
	return &proc{proctest.Start(t, file, args...)}
}

// alive fails the test, with what the program says, if it has ended.
func (p *proc) alive() {
	p.T.Helper()
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID)); err != nil || strings.Contains(string(b), ") Z ") {
		s, _ := io.ReadAll(p.Out)
		p.T.Fatalf("the program ended: %s", s)
	}
}

// opened waits until the program has so many descriptors.
func (p *proc) opened(n int) {
	p.T.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
		if err != nil {
			p.T.Fatal(err)
		}
		if len(es) >= n {
			return
		}
		if time.Now().After(deadline) {
			p.T.Fatalf("the program has %d descriptors, not %d", len(es), n)
		}
	}
}

// soaking is whether there is time for all of it.
func soaking() bool { return os.Getenv("FERROTRACE_SOAK") != "" }

// rounds counts to so many, in an ordinary run for as long only as a test may take on a
// busy machine.
func rounds(ordinary, soak int) iter.Seq[int] {
	return func(yield func(int) bool) {
		n := ordinary
		if soaking() {
			n = soak
		}
		for i, begin := 0, time.Now(); i < n && (i < 3 || soaking() || time.Since(begin) < time.Second/2) && yield(i); i++ {
		}
	}
}

// all are the functions of a program of C that can be traced: those of the start files
// are not complete.
func (x *elfText) all() (fs []function) {
	for _, f := range x.funcs {
		if !strings.HasPrefix(f.name, "_") && !strings.Contains(f.name, "_tm_clones") && f.name != "frame_dummy" {
			fs = append(fs, f)
		}
	}
	return fs
}

// anyExits is exits, without those of functions whose exits are not known.
func (x *elfText) anyExits(program string, fs []function, first uint64) (ps []runtime.Probe) {
	for i, f := range fs {
		code, err := x86.NewFunc(x.Bytes, []x86.Range{f.Range}, nil)
		if err != nil {
			continue
		}
		all, err := code.Exits()
		if err != nil {
			continue
		}
		for _, e := range all {
			ps = append(ps, runtime.Probe{Path: x.path, Offset: x.offset(e.Addr), Cookie: first + uint64(i), Program: program})
		}
	}
	return ps
}

// mappings are the executable mappings of a process, and those that are ours; files
// are how many it has open.
type footprint struct {
	code  map[string]string
	ours  []string
	files int
}

func footprintOf(t testing.TB, pid int) footprint {
	t.Helper()
	es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return footprint{code(t, pid), ours(pid), len(es)}
}

// ours are the mappings of a process that ferrotrace has put there, if it has a name.
func ours(pid int) (lines []string) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "ferrotrace") && strings.Contains(line, "memfd") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// same fails the test unless a process is as it was.
func (before footprint) same(t testing.TB, pid int) {
	t.Helper()
	after := footprintOf(t, pid)
	for _, name := range slices.Sorted(maps.Keys(after.code)) {
		b, a := before.code[name], after.code[name]
		if len(b) != len(a) {
			t.Errorf("there is %s, of %d bytes; it had %d", name, len(a), len(b))
			continue
		}
		for i := range a {
			if a[i] != b[i] {
				t.Errorf("%s: at %#x is %#x, it was %#x", name, i, a[i], b[i])
				break
			}
		}
	}
	if len(after.code) != len(before.code) {
		t.Errorf("%d executable mappings, there were %d", len(after.code), len(before.code))
	}
	if len(after.ours) != 0 {
		t.Errorf("left behind: %q", after.ours)
	}
	if after.files != before.files {
		t.Errorf("%d files are open, there were %d", after.files, before.files)
	}
}

// attachSome attaches, and returns which probes could not be planted.
func attachSome(t testing.TB, s runtime.Session, probes []runtime.Probe, who runtime.Who) []*runtime.ProbeError {
	t.Helper()
	failed, err := s.Attach(t.Context(), probes, who)
	if err != nil {
		t.Fatal(err)
	}
	return failed
}

func mustClose(t testing.TB, s runtime.Session) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
}
