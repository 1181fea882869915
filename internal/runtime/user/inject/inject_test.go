package inject

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/proctest"

	"golang.org/x/sys/unix"
)

func TestSyscalls(t *testing.T) {
	for _, work := range []string{"regs", "epoll", "sleep", "read", "idle"} {
		t.Run(work, func(t *testing.T) {
			ctx := t.Context()
			p := start(t, work)
			for range 20 {
				tr := attachTo(t, p)
				// On a busy machine the leader may not stop in time, and another thread does.
				if tid, err := tr.Gettid(ctx); err != nil || tgid(tid) != p.PID {
					t.Fatalf("gettid: %d, %v; want %d", tid, err, p.PID)
				}
				must(t, tr.Stop(ctx))
				base, err := tr.FSBase(ctx)
				if err != nil || base == 0 {
					t.Fatalf("FS base %#x, %v", base, err)
				}
				at, err := tr.Mmap(ctx, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0)
				must(t, err)
				must(t, tr.WriteMem(ctx, []byte("hello"), at+4094))
				b := make([]byte, 5)
				must(t, tr.ReadMem(ctx, b, at+4094))
				if string(b) != "hello" {
					t.Errorf("read %q", b)
				}
				must(t, tr.Mprotect(ctx, at, 8192, unix.PROT_READ))
				must(t, tr.Membarrier(ctx))
				fd, f, err := tr.MemfdCreate(ctx, "shared")
				must(t, err)
				must(t, f.Truncate(4096))
				sh, err := tr.Mmap(ctx, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, fd, 0)
				must(t, err)
				must(t, tr.CloseFD(ctx, fd))
				if _, err := f.WriteAt([]byte("shared"), 10); err != nil {
					t.Fatal(err)
				}
				b = make([]byte, 6)
				must(t, tr.ReadMem(ctx, b, sh+10))
				if string(b) != "shared" {
					t.Errorf("read %q", b)
				}
				f.Close()
				old, err := tr.RtSigaction(ctx, 37, nil)
				if err != nil || old.Handler < 4096 || old.Flags&4 == 0 {
					t.Errorf("%+v, %v", old, err)
				}
				again, err := tr.RtSigaction(ctx, 37, &old)
				if err != nil || again != old {
					t.Errorf("%+v, %v", again, err)
				}
				if _, err := tr.Mmap(ctx, 0, 0, 0, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0); !errors.Is(err, unix.EINVAL) {
					t.Errorf("mmap of nothing: %v", err)
				}
				must(t, tr.Munmap(ctx, at, 8192))
				must(t, tr.Munmap(ctx, sh, 4096))
				if _, err := tr.Resume(); err != nil {
					t.Fatal(err)
				}
				must(t, tr.Detach())
				must(t, tr.Detach())
				if _, err := tr.Gettid(ctx); !errors.Is(err, ErrDetached) {
					t.Error(err)
				}
			}
			ms, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID))
			if err != nil || strings.Contains(string(ms), "memfd") {
				t.Errorf("left behind: %s, %v", ms, err)
			}
			p.finish()
		})
	}
}

// Attach, stop, call, resume, detach, while the target does all that could suffer.
func TestCycles(t *testing.T) {
	soak(t)
	long := 3 * time.Second
	if testing.Short() {
		long = time.Second
	}
	for _, works := range [][]string{
		{"regs", "sum", "sleep", "epoll", "read"},
		{"regs", "churn", "churn"},
		{"sum", "fork", "vfork", "sleep"},
		{"sum", "fork", "epoll"},
		{"epoll", "churn", "vfork", "sleep", "read"},
		{"fork", "sum"},
		{"vfork", "sum"},
	} {
		t.Run(strings.Join(works, "+"), func(t *testing.T) {
			p := start(t, works...)
			done := make(chan struct{})
			signals := works[0] == "regs" || works[0] == "sum"
			var sent <-chan int
			if signals {
				sent = proctest.SendSignals(p.PID, time.Millisecond, done)
			}
			n, left := 0, 0
			var took []time.Duration
			for begin := time.Now(); time.Since(begin) < long; n++ {
				tr := attachTo(t, p)
				st, err := tr.StopAll(t.Context(), Range{p.victim, p.victim + 5})
				if err != nil {
					t.Fatalf("%v\n%s%s", err, p.States(), p.rest())
				}
				left += len(st.LeftAlone)
				took = append(took, st.Took)
				if n%3 == 0 {
					if _, err := tr.Gettid(t.Context()); err != nil {
						t.Fatalf("%v\n%s%s", err, p.States(), p.rest())
					}
				}
				if n%2 == 0 {
					if _, err := tr.Resume(); err != nil {
						t.Fatal(err)
					}
				}
				must(t, tr.Detach())
			}
			close(done)
			want := 0
			if signals {
				want = <-sent
				time.Sleep(50 * time.Millisecond)
			}
			_, got, made, forks := p.finish()
			if got != want {
				t.Errorf("%d signals of %d", got, want)
			}
			slices.Sort(took)
			t.Logf("%d cycles, stopped in %v (median) %v (most), %d left alone, %d signals, %d threads, %d forks", n, took[len(took)/2], took[len(took)-1], left, got, made, forks)
			if n < 3 {
				t.Errorf("only %d cycles", n)
			}
		})
	}
}

func TestHundredThreads(t *testing.T) {
	works := []string{"sum"}
	for range 98 { // one more waits for SIGTERM
		works = append(works, "idle")
	}
	p := start(t, works...)
	var took, all []time.Duration
	for range 20 {
		tr := attachTo(t, p)
		st, err := tr.StopAll(t.Context())
		must(t, err)
		ths, err := tr.Threads(t.Context())
		if err != nil || len(ths) != 100 {
			t.Errorf("%d threads, %v", len(ths), err)
		}
		d, err := tr.Resume()
		must(t, err)
		must(t, tr.Detach())
		took, all = append(took, st.Took), append(all, d)
	}
	slices.Sort(took)
	slices.Sort(all)
	t.Logf("100 threads: all stopped after %v, running again after %v (medians)", took[10], all[10])
	p.finish()
}

// A vfork parent does not stop, and need not: its child, which has its memory, does.
func TestVforkParent(t *testing.T) {
	p := start(t, "vforkslow", "sum")
	time.Sleep(50 * time.Millisecond)
	for range 3 {
		begin := time.Now()
		tr := attachTo(t, p)
		st, err := tr.StopAll(t.Context(), Range{p.victim, p.victim + 5})
		must(t, err)
		if !slices.Equal(st.LeftAlone, []int{p.PID}) {
			t.Errorf("left alone: %v", st.LeftAlone)
		}
		ths, err := tr.Threads(t.Context())
		must(t, err)
		child := 0
		for _, th := range ths {
			if th.PID != p.PID {
				child = th.TID
			}
		}
		if child == 0 || len(ths) != 3 {
			t.Errorf("the child is not among %+v", ths)
		}
		if _, err := tr.Gettid(t.Context()); err != nil { // another thread does it
			t.Error(err)
		}
		_, err = tr.Resume()
		must(t, err)
		must(t, tr.Detach())
		if d := time.Since(begin); d > 500*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		// It would return into the range: not to be left alone.
		tr = attachTo(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if st, err := tr.StopAll(ctx, Range{0, 1 << 47}); err == nil {
			t.Errorf("%+v", st)
		}
		cancel()
		must(t, tr.Detach())
	}
	time.Sleep(1600 * time.Millisecond) // the child ends, the parent goes on
	if _, _, _, forks := p.finish(); forks == 0 {
		t.Error("the vfork parent did not go on")
	}
}

func TestExecExit(t *testing.T) {
	for work, want := range map[string]error{"exec": ErrExec, "execother": ErrExec, "exit": ErrGone} {
		t.Run(work, func(t *testing.T) {
			t.Parallel()
			p := start(t, work)
			tr := attachTo(t, p)
			if work == "execother" { // all threads are traced for a while
				_, err := tr.StopAll(t.Context())
				must(t, err)
				_, err = tr.Resume()
				must(t, err)
			}
			var err error
			for begin := time.Now(); err == nil && time.Since(begin) < 5*time.Second; {
				_, err = tr.Gettid(t.Context())
				time.Sleep(time.Millisecond)
			}
			if !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			must(t, tr.Detach())
			wantStatus := "status 0"
			if work == "exit" {
				wantStatus = "status 3"
			}
			if s := p.Line(); s != wantStatus {
				t.Errorf("the target ends with %s, want %s", s, wantStatus)
			}
		})
	}
	if _, err := Attach(t.Context(), 1<<22-1); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

func waitState(t *testing.T, pid int, want byte) {
	t.Helper()
	for range 2000 {
		if stateOf(pid) == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("state %c, want %c", stateOf(pid), want)
}

func TestGroupStop(t *testing.T) {
	p := start(t, "regs", "sum", "sleep")
	for range 20 {
		must(t, unix.Kill(p.PID, unix.SIGSTOP))
		waitState(t, p.PID, 'T')
		tr := attachTo(t, p)
		_, err := tr.StopAll(t.Context())
		must(t, err)
		_, err = tr.Gettid(t.Context())
		must(t, err)
		_, err = tr.Resume()
		must(t, err)
		waitState(t, p.PID, 'T')
		_, err = tr.Gettid(t.Context())
		must(t, err)
		must(t, tr.Detach())
		waitState(t, p.PID, 'T')
		must(t, unix.Kill(p.PID, unix.SIGCONT))
	}
	// Stopped and continued while attached.
	tr := attachTo(t, p)
	must(t, unix.Kill(p.PID, unix.SIGSTOP))
	time.Sleep(10 * time.Millisecond)
	_, err := tr.Gettid(t.Context())
	must(t, err)
	must(t, unix.Kill(p.PID, unix.SIGCONT))
	time.Sleep(10 * time.Millisecond)
	_, err = tr.Gettid(t.Context())
	must(t, err)
	must(t, tr.Detach())
	p.finish()
}

func TestSeccomp(t *testing.T) {
	p := start(t, "strict")
	time.Sleep(20 * time.Millisecond)
	tr, err := Attach(t.Context(), p.PID)
	if !maySuspendSeccomp() {
		if !errors.Is(err, ErrSeccomp) {
			t.Errorf("%v, want ErrSeccomp", err)
		}
		return
	}
	must(t, err)
	if !tr.Seccomp() {
		t.Error("the filter is not seen")
	}
	for range 50 {
		at, err := tr.Mmap(t.Context(), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0)
		must(t, err)
		must(t, tr.Munmap(t.Context(), at, 4096))
		fmt.Fprint(p.In, "x")
	}
	must(t, tr.Detach())
	fmt.Fprint(p.In, "x")
	p.In.Close()
	if s := p.Line(); s != "fine" {
		t.Errorf("the target: %s", s)
	}
	if s := p.Line(); s != "status 0" {
		t.Errorf("the target: %s", s)
	}
}

func TestTraced(t *testing.T) {
	p := start(t, "sum")
	tr := attachTo(t, p)
	var traced *TracedError
	if _, err := Attach(t.Context(), p.PID); !errors.As(err, &traced) || traced.Tracer != os.Getpid() {
		t.Errorf("%v", err)
	}
	must(t, tr.Detach())
}

func TestNotPermitted(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may trace all")
	}
	var perm *PermissionError
	if _, err := Attach(t.Context(), 1); !errors.As(err, &perm) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}

// The first instructions of victim, at their beginning and 5 bytes long at least.

// A patch is made and taken back under running threads; it is a jump to what does the
// same.
func tracerRound(ctx context.Context, pid int, victim uint64) error {
	t, err := Attach(ctx, pid)
	if err != nil {
		return err
	}
	defer t.Detach()
	js, err := t.FindJournals(ctx)
	if err != nil {
		return err
	}
	for _, j := range js {
		if j.Owned() {
			return errors.New("the journal of a killed tracer is owned")
		}
		if _, conflicts, err := j.Restore(ctx); err != nil || len(conflicts) > 0 {
			return fmt.Errorf("restoring: %v, %w", conflicts, err)
		}
		if err := j.Close(ctx); err != nil {
			return err
		}
	}
	j, err := t.CreateJournal(ctx, 100)
	if err != nil {
		return err
	}
	old := make([]byte, 10)
	if err := t.ReadMem(ctx, old, victim); err != nil {
		return err
	}
	if _, err := t.StopAll(ctx, Range{victim, victim + 10}); err != nil {
		return err
	}
	ths, err := t.Threads(ctx)
	if err != nil {
		return err
	}
	inside := false
	for _, th := range ths {
		inside = inside || th.Regs.Rip >= victim && th.Regs.Rip < victim+10
	}
	if !inside {
		// victim(5) is 1 now.
		if errs, err := j.Apply(ctx, Patch{Addr: victim, Old: old[:6], New: []byte{0xb8, 1, 0, 0, 0, 0xc3}}); err != nil || errs[0] != nil {
			return fmt.Errorf("%v, %w", errs, err)
		}
	}
	if _, err := t.Resume(); err != nil {
		return err
	}
	if err := t.Membarrier(ctx); err != nil {
		return err
	}
	if _, _, err := j.Restore(ctx); err != nil {
		return err
	}
	return j.Close(ctx)
}

// The tracer is killed at any point of its work; the target goes on, and the next tracer
// cleans up.
func TestKilled(t *testing.T) {
	soak(t)
	long := 20 * time.Second
	if testing.Short() {
		long = 3 * time.Second
	}
	for _, works := range [][]string{{"regs", "calls", "sum", "sleep"}, {"sleep", "calls", "read", "churn"}} {
		t.Run(works[0], func(t *testing.T) {
			t.Parallel()
			p := start(t, works...)
			n := 0
			for begin := time.Now(); time.Since(begin) < long; n++ {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", tracerEnv, p.PID), fmt.Sprintf("%s_VICTIM=%#x", tracerEnv, p.victim))
				out, err := cmd.StdoutPipe()
				must(t, err)
				must(t, cmd.Start())
				b := make([]byte, 6)
				if _, err := out.Read(b); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rand.IntN(6000)) * time.Microsecond)
				_ = cmd.Process.Kill()
				rest := make([]byte, 1000)
				k, _ := out.Read(rest)
				if k > 0 && strings.Contains(string(rest[:k]), "tracer:") {
					t.Fatalf("the tracer: %s", rest[:k])
				}
				_ = cmd.Wait()
				if !living(p.PID) {
					t.Fatalf("the target died: %s", p.Line())
				}
			}
			t.Logf("%d tracers killed", n)
			tr := attachTo(t, p)
			js, err := tr.FindJournals(t.Context())
			must(t, err)
			for _, j := range js {
				if _, c, err := j.Restore(t.Context()); err != nil || len(c) > 0 {
					t.Errorf("%v, %v", c, err)
				}
				must(t, j.Close(t.Context()))
			}
			must(t, tr.Detach())
			p.finish()
		})
	}
}
