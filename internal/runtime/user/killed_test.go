package user_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/runtime/user/proctest"

	"golang.org/x/sys/unix"
)

// tracerEnv, "PID PATH", makes the test binary a tracer that goes on until it is killed.
const tracerEnv = "FERROTRACE_TEST_TRACER"

func TestMain(m *testing.M) {
	if what := os.Getenv(tracerEnv); what != "" {
		n, path, _ := strings.Cut(what, " ")
		pid, _ := strconv.Atoi(n)
		if err := tracer(pid, path); err != nil {
			fmt.Println("tracer:", err)
		}
		os.Exit(1)
	}
	proctest.Main(m)
}

// tracer attaches to a process and detaches, without end.
func tracer(pid int, path string) error {
	x, err := readText(path)
	if err != nil {
		return err
	}
	probes := tracedBy(x)
	rt, err := user.New(user.Options{Text: func(string) (user.Text, error) { return x, nil }})
	if err != nil {
		return err
	}
	for {
		s, err := rt.Load(context.Background(), spec())
		if err != nil {
			return err
		}
		fmt.Println("attaching")
		if _, err := s.Attach(context.Background(), probes, runtime.Who{PIDs: []int{pid}}); err != nil {
			return err
		}
		fmt.Println("attached")
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
		if err := s.Close(); err != nil {
			return err
		}
	}
}

// TestKilled: tracers are killed at any moment. The process goes on, and the next tracer
// takes out what they have left.
func TestKilled(t *testing.T) {
	for _, c := range []struct {
		source string
		works  []string
		end    unix.Signal
	}{
		{selfVerifying, []string{"regs", "calls", "sum", "sleep"}, unix.SIGTERM},
		{enemy, []string{"storm", "2"}, unix.SIGUSR1},
		{enemy, []string{"timers"}, unix.SIGUSR1},
	} {
		t.Run(c.works[0], func(t *testing.T) {
			x := openText(t, compile(t, c.source))
			p := launch(t, x.path, c.works...)
			time.Sleep(20 * time.Millisecond)
			before := footprintOf(t, p.PID)
			n := 0
			for range rounds(15, 300) {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", tracerEnv, p.PID, x.path))
				out, err := cmd.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				r := bufio.NewReader(out)
				line, err := r.ReadString('\n')
				if err != nil || strings.Contains(line, "tracer:") {
					t.Fatalf("%q, %v", line, err)
				}
				time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
				_ = cmd.Process.Kill()
				for line, err := r.ReadString('\n'); err == nil; line, err = r.ReadString('\n') {
					if strings.Contains(line, "tracer:") {
						t.Fatal(line)
					}
				}
				_ = cmd.Wait()
				p.alive()
				n++
			}
			time.Sleep(20 * time.Millisecond)
			p.alive()
			for range 20 { // what could not be taken out at once is later
				s := load(t, x)
				attachSome(t, s, everything(x, "count"), runtime.Who{PIDs: []int{p.PID}})
				mustClose(t, s)
				if after := footprintOf(t, p.PID); len(after.ours) == 0 && maps.Equal(after.code, before.code) {
					break
				}
			}
			before.same(t, p.PID)
			p.Finish(c.end)
			t.Logf("%d tracers killed", n)
		})
	}
}

// TestOwned: a process has one tracer; another is told, and the first is not harmed.
func TestOwned(t *testing.T) {
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "storm", "0")
	before := footprintOf(t, p.PID)
	s := load(t, x)
	probes := everything(x, "count")
	who := runtime.Who{PIDs: []int{p.PID}}
	attachSome(t, s, probes, who)
	for range 3 {
		other := load(t, x)
		var owned *user.OwnedError
		if _, err := other.Attach(t.Context(), probes, who); !errors.As(err, &owned) || owned.PID != p.PID || owned.Tracer != os.Getpid() {
			t.Errorf("%v", err)
		}
		mustClose(t, other)
	}
	mix := uint32(slices.IndexFunc(x.all(), func(f function) bool { return f.name == "mix" }))
	n := sum(t, s, runtime.MapCounts, mix)
	for deadline := time.Now().Add(10 * time.Second); sum(t, s, runtime.MapCounts, mix) == n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first counts no more")
		}
	}
	mustClose(t, s)
	before.same(t, p.PID)
	s = load(t, x)
	attachSome(t, s, probes, who)
	mustClose(t, s)
	before.same(t, p.PID)
	p.Finish(unix.SIGUSR1)
}

// TestEnds: the process ends, or becomes another program, at any moment.
func TestEnds(t *testing.T) {
	for _, work := range []string{"exec", "exit"} {
		t.Run(work, func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			probes := everything(x, "count")
			for i := range rounds(20, 300) {
				p := launch(t, x.path, work, fmt.Sprint(i%20*3))
				s := load(t, x)
				for range 3 {
					_, err := s.Attach(t.Context(), probes, runtime.Who{PIDs: []int{p.PID}})
					if err == nil {
						err = s.Detach()
					}
					if err != nil {
						if !user.Over(err) && !strings.Contains(err.Error(), "has not mapped") {
							t.Errorf("in round %d: %v", i, err)
						}
						break
					}
					mustClose(t, s)
					s = load(t, x)
				}
				mustClose(t, s)
				want := "status 0"
				if work == "exit" {
					want = "status 3"
				}
				if i%5 != 0 && work == "exec" {
					_ = unix.Kill(p.PID, unix.SIGKILL) // it sleeps, if all is well
					continue
				}
				if s := p.Line(); s != want {
					t.Errorf("it ended with %s, not %s", s, want)
				}
			}
		})
	}
}

// TestExecuted: a traced process that becomes another program is not harmed.
func TestExecuted(t *testing.T) {
	x := openText(t, compile(t, enemy))
	s := load(t, x)
	c := hold(t, x.path, "exec", "30")
	attachSome(t, s, everything(x, "count"), runtime.Who{PIDs: []int{c.PID}, Command: c})
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, c); st.String() != "exit status 0" {
		t.Errorf("it ended with %s", st)
	}
	mustClose(t, s)
}

// TestStopped: a process that is stopped by a signal is attached to, and stays stopped.
func TestStopped(t *testing.T) {
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "storm", "3")
	probes := everything(x, "count")
	before := footprintOf(t, p.PID)
	for i := range rounds(10, 200) {
		if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		state(t, p.PID, 'T')
		s := load(t, x)
		attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
		state(t, p.PID, 'T')
		if err := s.Detach(); err != nil {
			// A thread may have stopped inside of a probe only if there was one.
			t.Error(err)
		}
		mustClose(t, s)
		state(t, p.PID, 'T')
		before.same(t, p.PID)
		if i > 0 && !soaking() { // it takes long
			_ = unix.Kill(p.PID, unix.SIGCONT)
			continue
		}
		s = load(t, x)
		attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
		_ = unix.Kill(p.PID, unix.SIGCONT)
		time.Sleep(3 * time.Millisecond)
		_ = unix.Kill(p.PID, unix.SIGSTOP)
		if err := s.Detach(); err != nil {
			t.Logf("stopped inside: %v", err)
		}
		_ = unix.Kill(p.PID, unix.SIGCONT)
		mustClose(t, s)
		p.alive()
		s = load(t, x) // takes out what is left
		attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
		mustClose(t, s)
		before.same(t, p.PID)
		if t.Failed() {
			break
		}
	}
	p.Finish(unix.SIGUSR1)
}

// state waits until a process is in a state.
func state(t testing.TB, pid int, want byte) {
	t.Helper()
	for range 5000 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if strings.Contains(string(b), fmt.Sprintf(") %c ", want)) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("process %d does not come into the state %c", pid, want)
}

// TestVfork: a thread that waits for its vfork child is not waited for.
func TestVfork(t *testing.T) {
	x := openText(t, compile(t, selfVerifying))
	p := launch(t, x.path, "vforkslow", "sum")
	time.Sleep(50 * time.Millisecond)
	for range 3 {
		s := load(t, x)
		begin := time.Now()
		attachSome(t, s, everything(x, "count"), runtime.Who{PIDs: []int{p.PID}})
		if err := s.Detach(); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 1200*time.Millisecond {
			t.Logf("it took %v", d)
		}
		mustClose(t, s)
		p.alive()
	}
	p.Finish(unix.SIGTERM)
}
