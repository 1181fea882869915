package user_test

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

const (
	selfVerifying = "inject/testdata/target.c"
	enemy         = "testdata/enemy.c"
)

var (
	built    = map[string]string{}
	builtErr = map[string]error{}
	building sync.Mutex
)

// compile compiles a program of one file, once.
func compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	key := source + " " + strings.Join(flags, " ")
	if err := builtErr[key]; err != nil {
		t.Skip(err)
	}
	if built[key] == "" {
		gcc, err := exec.LookPath("gcc")
		if err != nil {
			t.Skip("skipped: gcc is missing; it compiles the programs that this test traces")
		}
		dir, err := os.MkdirTemp("", "ferrotrace-user")
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
		out := filepath.Join(dir, strings.TrimSuffix(filepath.Base(source), ".c"))
		args := append([]string{"-O2", "-pthread", "-o", out, source}, flags...)
		if b, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
			builtErr[key] = fmt.Errorf("skipped: gcc %s: %w\n%s", key, err, b)
			t.Skip(builtErr[key])
		}
		built[key] = out
	}
	return built[key]
}

var dirs []string // of compiled programs

// proc is a program under test. Its parent is a shell, so that it is no child of the
// tracer's.
type proc struct {
	t     testing.TB
	pid   int
	shell *exec.Cmd
	out   *bufio.Reader
}

// launch starts a program, which says "ready PID" first.
func launch(t testing.TB, file string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, shell: exec.Command("sh", append([]string{"-c", `"$0" "$@"; echo status $?`, file}, args...)...)}
	out, err := p.shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.shell.Stderr = os.Stderr
	if err := p.shell.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if _, err := fmt.Sscanf(p.line(), "ready %d", &p.pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		_ = p.shell.Process.Kill()
		out.Close()
		_ = p.shell.Wait()
	})
	return p
}

func (p *proc) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the program says nothing more: %q, %v", s, err)
	}
	return strings.TrimSpace(s)
}

// finish ends the program by a signal, unless that is 0, and returns all that it says
// until then, which must not be of a failure.
func (p *proc) finish(sig unix.Signal) string {
	p.t.Helper()
	if sig != 0 {
		if err := unix.Kill(p.pid, sig); err != nil {
			p.t.Errorf("the program is gone: %v", err)
		}
	}
	got := make(chan string, 1)
	go func() { b, _ := io.ReadAll(p.out); got <- string(b) }()
	select {
	case s := <-got:
		if !strings.HasSuffix(s, "status 0\n") || strings.Contains(s, "FAIL") {
			p.t.Fatalf("the program: %s", s)
		}
		return s
	case <-time.After(20 * time.Second):
		p.t.Fatal("the program hangs")
		return ""
	}
}

// alive fails the test, with what the program says, if it has ended.
func (p *proc) alive() {
	p.t.Helper()
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid)); err != nil || strings.Contains(string(b), ") Z ") {
		s, _ := io.ReadAll(p.out)
		p.t.Fatalf("the program ended: %s", s)
	}
}

// opened waits until the program has so many descriptors.
func (p *proc) opened(n int) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		es, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
		if err != nil {
			p.t.Fatal(err)
		}
		if len(es) >= n {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the program has %d descriptors, not %d", len(es), n)
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
