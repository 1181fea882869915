package inject

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tracerEnv makes the test binary a tracer that goes on until it is killed.
const tracerEnv = "FERROTRACE_TEST_TRACER"

func TestMain(m *testing.M) {
	if what := os.Getenv(tracerEnv); what != "" {
		tracerMain(what)
		return
	}
	os.Exit(m.Run())
}

var (
	built    = map[string]string{}
	builtErr = map[string]error{}
	building sync.Mutex
)

// build compiles the target with flags of its own, once.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	key := strings.Join(flags, " ")
	if err := builtErr[key]; err != nil {
		t.Skip(err)
	}
	if built[key] == "" {
		gcc, err := exec.LookPath("gcc")
		if err != nil {
			t.Skip("gcc is missing: it compiles the programs that this test traces")
		}
		dir, err := os.MkdirTemp("", "ferrotrace-inject")
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "target")
		args := append([]string{"-O1", "-pthread", "-o", out, "testdata/target.c"}, flags...)
		if b, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
			builtErr[key] = fmt.Errorf("gcc %s: %w\n%s", key, err, b)
			t.Skip(builtErr[key])
		}
		built[key] = out
	}
	return built[key]
}

// proc is a target under test. Its parent is a shell, so that it is no child of the
// tracer's, which would wait for it too.
type proc struct {
	t      *testing.T
	pid    int
	victim uint64
	shell  *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
}

func start(t *testing.T, work ...string) *proc {
	t.Helper()
	return startFile(t, build(t), work...)
}

func startFile(t *testing.T, file string, work ...string) *proc {
	t.Helper()
	args := append([]string{"-c", `"$0" "$@" <&3; echo status $?`, file}, work...)
	p := &proc{t: t, shell: exec.Command("sh", args...)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = w
	p.shell.ExtraFiles = []*os.File{r}
	out, err := p.shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.shell.Stderr = os.Stderr
	if err := p.shell.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	p.out = bufio.NewReader(out)
	if _, err := fmt.Sscanf(p.line(), "ready %d 0x%x", &p.pid, &p.victim); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		p.in.Close()
		_ = p.shell.Wait()
	})
	return p
}

func (p *proc) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("the target says nothing more: %q, %v", s, err)
	}
	return strings.TrimSpace(s)
}

// finish ends the target and verifies that it was well, and worked.
func (p *proc) finish() (work, signals, made, forks int) {
	p.t.Helper()
	if err := unix.Kill(p.pid, unix.SIGTERM); err != nil {
		p.t.Errorf("the target is gone: %v", err)
	}
	got := make(chan string, 1)
	go func() { b, _ := io.ReadAll(p.out); got <- string(b) }()
	select {
	case s := <-got:
		if !strings.HasSuffix(s, "status 0\n") || strings.Contains(s, "FAIL") {
			p.t.Fatalf("the target: %s", s)
		}
		if _, err := fmt.Sscanf(s, "work %d signals %d made %d forks %d", &work, &signals, &made, &forks); err != nil {
			p.t.Fatalf("the target: %s", s)
		}
	case <-time.After(10 * time.Second):
		p.t.Fatalf("the target hangs:\n%s", p.states())
	}
	if work == 0 {
		p.t.Error("the target did not work")
	}
	return work, signals, made, forks
}

// states is what all threads are doing, for a failure's message.
func (p *proc) states() string {
	var b strings.Builder
	es, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	for _, e := range es {
		tid, _ := strconv.Atoi(e.Name())
		st, _ := status(tid)
		sc, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
		fmt.Fprintf(&b, "%d %s tracer %s %s", tid, st["State"], st["TracerPid"], sc)
	}
	return b.String()
}

// rest is what the target says until it is dead, which it is made.
func (p *proc) rest() string {
	_ = unix.Kill(p.pid, unix.SIGKILL)
	b, _ := io.ReadAll(p.out)
	return string(b)
}

func attachTo(t *testing.T, p *proc) *Tracee {
	t.Helper()
	tr, err := Attach(t.Context(), p.pid)
	var perm *PermissionError
	if errors.As(err, &perm) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, p.states(), p.rest())
	}
	t.Cleanup(func() { _ = tr.Detach() })
	return tr
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tracerMain attaches, stops, calls, patches and detaches without end.
func tracerMain(what string) {
	pid, _ := strconv.Atoi(what)
	victim, _ := strconv.ParseUint(os.Getenv(tracerEnv+"_VICTIM"), 0, 64)
	fmt.Println("begun")
	for {
		if err := tracerRound(context.Background(), pid, victim); err != nil {
			fmt.Println("tracer:", err)
			os.Exit(1)
		}
	}
}

// soak skips what is long, and what a loaded machine can still make fail: a stop that
// meets a signal which the target ignores ends another thread's epoll_wait with EINTR.
func soak(t *testing.T) {
	t.Helper()
	if os.Getenv("FERROTRACE_SOAK") == "" {
		t.Skip("skipped: long; make soak runs it")
	}
}
