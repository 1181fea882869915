package inject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"ferrotrace/internal/runtime/user/proctest"

	"golang.org/x/sys/unix"
)

// tracerEnv makes the test binary a tracer that goes on until it is killed.
const tracerEnv = "FERROTRACE_TEST_TRACER"

func TestMain(m *testing.M) {
	if what := os.Getenv(tracerEnv); what != "" {
		tracerMain(what)
		return
	}
	proctest.Main(m)
}

// build compiles the target with flags of its own.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	return proctest.Compile(t, append([]string{"-O1", "testdata/target.c"}, flags...)...)
}

// proc is a target under test.
type proc struct {
	*proctest.Process
	victim uint64
}

func start(t *testing.T, work ...string) *proc {
	t.Helper()
	return startFile(t, build(t), work...)
}

func startFile(t *testing.T, file string, work ...string) *proc {
	t.Helper()
	p := &proc{Process: proctest.Start(t, file, work...)}
	if _, err := fmt.Sscanf(p.Ready, "ready %d 0x%x", &p.PID, &p.victim); err != nil {
		t.Fatal(err)
	}
	return p
}

// finish ends the target and verifies that it was well, and worked.
func (p *proc) finish() (work, signals, made, forks int) {
	p.T.Helper()
	s := p.Finish(unix.SIGTERM)
	if _, err := fmt.Sscanf(s, "work %d signals %d made %d forks %d", &work, &signals, &made, &forks); err != nil {
		p.T.Fatalf("the target: %s", s)
	}
	if work == 0 {
		p.T.Error("the target did not work")
	}
	return work, signals, made, forks
}

// rest is what the target says until it is dead, which it is made.
func (p *proc) rest() string {
	_ = unix.Kill(p.PID, unix.SIGKILL)
	b, _ := io.ReadAll(p.Out)
	return string(b)
}

func attachTo(t *testing.T, p *proc) *Tracee {
	t.Helper()
	tr, err := Attach(t.Context(), p.PID)
	var perm *PermissionError
	if errors.As(err, &perm) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, p.States(), p.rest())
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
