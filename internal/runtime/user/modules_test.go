package user_test

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/target"
)

// plugin is the library that the fixture host loads, with probes of its own functions:
// cookie 0 is twice's entry, 1 early's, 2 and 3 are their exits'.
func plugin(t testing.TB, p fixture.Profile) (host string, x *elfText, probes []runtime.Probe) {
	t.Helper()
	host = fixture.Build(t, "host", p)
	x = openText(t, fixture.Library(t, "plugin", p))
	return host, x, pluginProbes(x)
}

func pluginProbes(x *elfText) []runtime.Probe {
	fs := append(x.named("plugin4work5twice"), x.named("plugin4work5early")...)
	return append(x.entries("count", fs), x.anyExits("count", fs, uint64(len(fs)))...)
}

// told is what a session tells of files that are mapped.
type told struct {
	mu  sync.Mutex
	all []user.Mapped
}

func (m *told) add(e user.Mapped) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, e)
}

func (m *told) take() (all []user.Mapped) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, m.all = m.all, nil
	return all
}

// check fails the test unless a file was mapped so many times, and nothing was missed.
func (m *told) check(t testing.TB, times int) {
	t.Helper()
	all := m.take()
	if len(all) != times {
		t.Errorf("told %d times, not %d: %+v", len(all), times, all)
	}
	for _, e := range all {
		if e.Missed || e.Err != nil || len(e.Failed) > 0 {
			t.Errorf("%+v", e)
		}
	}
}

func loadTold(t testing.TB, m *told, x *elfText) runtime.Session {
	t.Helper()
	rt, err := user.New(user.Options{Text: func(string) (user.Text, error) { return x, nil }, Mapped: m.add})
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.Load(t.Context(), spec())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// order has the host do something, and waits until it has.
func (p *proc) order(what string) {
	p.T.Helper()
	p.send(what)
	p.done(what)
}

func (p *proc) send(what string) {
	p.T.Helper()
	if _, err := io.WriteString(p.In, what+"\n"); err != nil {
		p.T.Fatal(err)
	}
}

func (p *proc) done(what string) {
	p.T.Helper()
	for p.Line() != "done "+what {
	}
}

var profiles = []fixture.Profile{fixture.Debug, fixture.Release}

// anywhere fails the test unless a process has the code that it had, of libraries perhaps
// at another address.
func (before footprint) anywhere(t testing.TB, pid int) {
	t.Helper()
	files := func(f footprint) map[string]string {
		code := map[string]string{}
		for name, b := range f.code {
			path, _, _ := strings.Cut(name, " ")
			code[path] += b
		}
		return code
	}
	after := footprintOf(t, pid)
	want, have := files(before), files(after)
	for path, code := range want {
		if have[path] != code {
			t.Errorf("%s has changed", path)
		}
	}
	if len(have) != len(want) || len(after.ours) > 0 || after.files != before.files {
		t.Errorf("%d files are mapped, there were %d; left behind: %q", len(have), len(want), after.ours)
	}
}

// TestModule: a library is loaded and unloaded while it is traced. Every call is counted,
// from the first on, which the dynamic linker makes.
func TestModule(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile.Name, func(t *testing.T) {
			host, x, probes := plugin(t, profile)
			p := launch(t, host, "orders", x.path)
			empty := footprintOf(t, p.PID)
			p.order("open")
			mapped := footprintOf(t, p.PID)
			p.order("close")
			who := runtime.Who{PIDs: []int{p.PID}}
			counted := func(s runtime.Session, twice, early uint64) {
				t.Helper()
				for i, want := range []uint64{twice, early, twice, early} {
					if n := sum(t, s, runtime.MapCounts, uint32(i)); n != want {
						t.Errorf("%d hits of probe %d, not %d", n, i, want)
					}
				}
			}
			var m told

			// It is mapped later, several times, and not mapped at the end.
			s := loadTold(t, &m, x)
			attach(t, s, probes, who)
			for range 3 {
				p.order("open")
				p.order("quiet 10")
				p.order("close")
			}
			counted(s, 30, 3)
			m.check(t, 3)
			mustClose(t, s)
			empty.same(t, p.PID)

			// It is mapped at the end.
			s = loadTold(t, &m, x)
			attach(t, s, probes, who)
			p.order("open")
			p.order("quiet 10")
			counted(s, 10, 1)
			m.check(t, 1)
			mustClose(t, s)
			mapped.anywhere(t, p.PID)

			// It is mapped at the beginning.
			s = loadTold(t, &m, x)
			attach(t, s, probes, who)
			p.order("quiet 10")
			p.order("close")
			p.order("open")
			p.order("quiet 10")
			p.order("close")
			counted(s, 20, 1)
			m.check(t, 1)
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
			p.order("open")
			p.order("quiet 10")
			counted(s, 20, 1)
			mustClose(t, s)
			mapped.anywhere(t, p.PID)
			p.In.Close()
			p.Finish(0)
		})
	}
}

// TestModuleCommand: the library of a command that maps it later.
func TestModuleCommand(t *testing.T) {
	host, x, probes := plugin(t, fixture.Release)
	var m told
	s := loadTold(t, &m, x)
	c := hold(t, host, "quiet", x.path, "20")
	attach(t, s, probes, runtime.Who{PIDs: []int{c.PID}, Command: c})
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, c); st.String() != "exit status 0" {
		t.Errorf("it ended with %s", st)
	}
	if err := s.Detach(); err != nil {
		t.Error(err)
	}
	if n := sum(t, s, runtime.MapCounts, 0); n != 190 {
		t.Errorf("%d calls counted, 190 were made", n)
	}
	m.check(t, 20)
	mustClose(t, s)
}

// TestModuleFork: what a child maps by itself is not traced, and that is told.
func TestModuleFork(t *testing.T) {
	host, x, probes := plugin(t, fixture.Release)
	var m told
	s := loadTold(t, &m, x)
	c := hold(t, host, "fork", x.path)
	attach(t, s, probes, runtime.Who{PIDs: []int{c.PID}, Command: c})
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	if st := wait(t, c); st.String() != "exit status 0" {
		t.Errorf("it ended with %s", st)
	}
	mustClose(t, s)
	if all := m.take(); len(all) != 1 || !errors.Is(all[0].Err, user.ErrFork) || all[0].PID == c.PID {
		t.Errorf("%+v", all)
	}
}

// TestModuleStorm: threads load, call and unload the library all the time, and fork, while
// probes are planted and taken out.
func TestModuleStorm(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile.Name, func(t *testing.T) {
			host, x, probes := plugin(t, profile)
			p := launch(t, host, "storm", x.path, "3")
			for i := range rounds(15, 300) {
				var m told
				s := loadTold(t, &m, x)
				attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
				for deadline := time.Now().Add(20 * time.Second); i%3 > 0 && sum(t, s, runtime.MapCounts, 0) == 0; time.Sleep(time.Millisecond) {
					if p.alive(); time.Now().After(deadline) {
						t.Fatal("no call was counted")
					}
				}
				mustClose(t, s)
				p.alive()
				if left := ours(p.PID); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
				for _, e := range m.take() {
					if e.Err != nil || len(e.Failed) > 0 {
						t.Errorf("%+v", e)
					}
				}
				if t.Failed() {
					t.Fatalf("in round %d", i)
				}
			}
			p.In.Close()
			if s := p.Finish(0); !strings.Contains(s, "loads ") {
				t.Error(s)
			}
		})
	}
}

// TestModuleKilled: tracers are killed at any moment, of a process that loads and unloads
// the library all the time, or that waits for the tracer's answer.
func TestModuleKilled(t *testing.T) {
	for _, story := range []string{"storm", "orders"} {
		t.Run(story, func(t *testing.T) {
			host, x, probes := plugin(t, fixture.Release)
			p := launch(t, host, story, x.path, "2")
			for i := range rounds(15, 200) {
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
				for line := ""; line != "attached\n"; {
					if line, err = r.ReadString('\n'); err != nil || strings.Contains(line, "tracer:") {
						t.Fatalf("%q, %v", line, err)
					}
				}
				if story == "orders" {
					// It is killed while a thread asks it, or before.
					if i%2 == 0 {
						p.send("open")
					}
					time.Sleep(time.Duration(rand.IntN(3_000)) * time.Microsecond)
				} else {
					time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
				}
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				if story == "orders" {
					if i%2 == 0 {
						p.done("open")
						p.order("quiet 10")
						p.order("close")
					}
					p.order("open")
					p.order("quiet 10")
					if i%3 == 0 {
						p.order("close")
					}
				}
				p.alive()
			}
			for range 20 { // what could not be taken out at once is later
				s := load(t, x)
				attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
				mustClose(t, s)
				if len(ours(p.PID)) == 0 {
					break
				}
			}
			if left := ours(p.PID); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			p.In.Close()
			p.Finish(0)
		})
	}
}

// tracedBy are the probes of a tracer of its own.
func tracedBy(x *elfText) []runtime.Probe {
	if filepath.Ext(x.path) == ".so" {
		return pluginProbes(x)
	}
	return append(everything(x, "count"), x.entries("write", x.all())...)
}

// TestModulePolled: a process whose dynamic linker can't be watched, for its code is not its
// file's. Its libraries are noticed all the same, with what may have been missed.
func TestModulePolled(t *testing.T) {
	host, x, probes := plugin(t, fixture.Release)
	p := launch(t, host, "orders", x.path)
	blind(t, p.PID)
	empty := footprintOf(t, p.PID)
	var m told
	s := loadTold(t, &m, x)
	attach(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
	for i := range 2 {
		p.order("open")
		var all []user.Mapped
		for deadline := time.Now().Add(20 * time.Second); len(all) == 0; time.Sleep(time.Millisecond) {
			if all = m.take(); time.Now().After(deadline) {
				t.Fatal("it was not noticed")
			}
		}
		if e := all[0]; !e.Missed || e.Err != nil || len(e.Failed) > 0 {
			t.Errorf("%+v", e)
		}
		p.order("quiet 10")
		p.order("close")
		if n := sum(t, s, runtime.MapCounts, 0); n != uint64(10*(i+1)) {
			t.Errorf("%d calls counted in round %d", n, i)
		}
	}
	mustClose(t, s)
	empty.same(t, p.PID)
	p.In.Close()
	p.Finish(0)
}

// blind changes the function of the dynamic linker that tells of libraries: it returns by
// another instruction.
func blind(t *testing.T, pid int) {
	t.Helper()
	proc, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	ms, err := proc.Maps()
	if err != nil {
		t.Fatal(err)
	}
	for _, mp := range ms {
		if !strings.HasPrefix(filepath.Base(mp.Path), "ld-") || mp.Offset != 0 {
			continue
		}
		f, err := elf.Open(mp.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		syms, _ := f.DynamicSymbols()
		for _, s := range syms {
			if s.Name != "_dl_debug_state" {
				continue
			}
			mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			if _, err := mem.WriteAt([]byte{0xf3, 0xc3}, int64(mp.Start+s.Value)); err != nil { // rep ret
				t.Fatal(err)
			}
			return
		}
	}
	t.Skip("skipped: the dynamic linker does not name its _dl_debug_state")
}
