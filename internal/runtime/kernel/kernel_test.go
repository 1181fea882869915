package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
)

// ways runs a test for each way of attaching that the kernel has.
func ways(t *testing.T, f func(t *testing.T, single bool)) {
	needRoot(t)
	t.Run("multi", func(t *testing.T) {
		if !ProbeFeatures().UprobeMulti {
			t.Skip("this kernel has no uprobe_multi")
		}
		f(t, false)
	})
	t.Run("single", func(t *testing.T) { f(t, true) })
}

func at(t *testing.T, path, name string, cookie uint64, program string) runtime.Probe {
	offset, _ := symbol(t, path, name)
	return runtime.Probe{Path: path, Offset: offset, Cookie: cookie, Program: program}
}

func byCookie(rs []record) map[uint64]int {
	m := make(map[uint64]int)
	for _, r := range rs {
		m[r.cookie]++
	}
	return m
}

func byPID(rs []record) map[int]int {
	m := make(map[int]int)
	for _, r := range rs {
		m[int(r.pid)]++
	}
	return m
}

func check[K comparable](t *testing.T, got, want map[K]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%v records, want %v", got, want)
	}
}

func TestRecords(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		for _, sleepable := range []bool{false, true} {
			t.Run(fmt.Sprintf("sleepable=%v", sleepable), func(t *testing.T) {
				if sleepable && !ProbeFeatures().Sleepable {
					t.Skip("this kernel has no sleepable uprobes")
				}
				path := newTarget(t)
				p := start(t, path)
				s := load(t, single, newSpec(true, sleepable))
				s.mustAttach(t, runtime.Who{PIDs: []int{p.pid()}},
					at(t, path, "work", 7, "record"), at(t, path, "other", 1<<40, "record"), at(t, path, "work", 0, "count"))
				if s.multi == single {
					t.Fatalf("multi is %v", s.multi)
				}
				p.do("work 3")
				p.do("other 2")
				p.do("thread 4")
				if err := s.Detach(); err != nil {
					t.Fatal(err)
				}
				p.do("work 10") // not seen
				rs := s.records(t)
				check(t, byCookie(rs), map[uint64]int{7: 7, 1 << 40: 2})
				check(t, byPID(rs), map[int]int{p.pid(): 9})
				m, ok := s.Map(runtime.MapCounts)
				if !ok {
					t.Fatal("no map of counts")
				}
				if n, err := m.Sum(0); err != nil || n != 7 {
					t.Errorf("count is %d, %v; want 7", n, err)
				}
				st, err := s.Stats()
				if err != nil || st.Counters != [runtime.NumCounters]uint64{} || len(st.Missed) != 0 {
					t.Errorf("losses: %+v, %v", st, err)
				}
			})
		}
	})
}

// Probes that can't be planted are told one by one, and the others work.
func TestCulprits(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("running=%v", running), func(t *testing.T) {
				path := newTarget(t)
				var p *process
				var who runtime.Who
				if running {
					p = start(t, path)
					who.PIDs = []int{p.pid()}
				}
				data, _ := symbol(t, path, "main")
				probes := []runtime.Probe{
					at(t, path, "work", 1, "record"),
					at(t, path, "refused", 2, "record"),
					at(t, path, "other", 3, "record"),
					{Path: path, Offset: 1 << 30, Cookie: 4, Program: "record"},
					{Path: path, Offset: 1, Cookie: 5, Program: "record"}, // the ELF header
					{Path: path, Offset: data, Cookie: 6, Program: "absent"},
					{Path: path + ".gone", Offset: data, Cookie: 7, Program: "record"},
				}
				s := load(t, single, newSpec(false, false))
				failed, err := s.Attach(t.Context(), probes, who)
				if err != nil {
					t.Fatal(err)
				}
				var cookies []uint64
				for _, e := range failed {
					cookies = append(cookies, e.Probe.Cookie)
					t.Logf("%d: %v", e.Probe.Cookie, e)
					if e.Probe.Cookie == 7 && !errors.Is(e, os.ErrNotExist) {
						t.Errorf("the missing file: %v", e)
					}
				}
				slices.Sort(cookies)
				if want := []uint64{2, 4, 5, 6, 7}; !slices.Equal(cookies, want) {
					t.Errorf("failed are %v, want %v", cookies, want)
				}
				if p == nil {
					p = start(t, path)
				}
				p.do("work 2")
				p.do("other 1")
				check(t, byCookie(s.records(t)), map[uint64]int{1: 2, 3: 1})
			})
		}
	})
}

// Many probes, a culprit here and there.
func TestManyCulprits(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		p := start(t, path)
		s := load(t, single, newSpec(true, false))
		var probes []runtime.Probe
		n := 200
		if single {
			n = 30 // recent kernels wait for a grace period at each detach
		}
		for i := range n {
			name := "work"
			if i%13 == 5 {
				name = "refused"
			}
			probes = append(probes, at(t, path, name, uint64(i), "record"))
		}
		failed, err := s.Attach(t.Context(), probes, runtime.Who{PIDs: []int{p.pid()}})
		if err != nil {
			t.Fatal(err)
		}
		if bad := (n + 7) / 13; len(failed) != bad {
			t.Errorf("%d failed, want %d", len(failed), bad)
		}
		p.do("work 1")
		if got := len(s.records(t)); got != n-len(failed) {
			t.Errorf("%d records, want %d", got, n-len(failed))
		}
	})
}

// A process is traced, another of the same file is not, with and without a map of
// targets.
func TestIsolation(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		for _, targets := range []bool{true, false} {
			t.Run(fmt.Sprintf("targets=%v", targets), func(t *testing.T) {
				path := newTarget(t)
				a, b, c := start(t, path), start(t, path), start(t, path)
				s := load(t, single, newSpec(targets, false))
				s.mustAttach(t, runtime.Who{PIDs: []int{a.pid(), b.pid()}}, at(t, path, "work", 1, "record"))
				if s.confine(runtime.Who{PIDs: []int{a.pid()}}) != nil {
					if err := c.text(path, "work"); err != nil {
						t.Errorf("the third process is not left alone: %v", err)
					}
				}
				a.do("work 2")
				b.do("thread 3")
				c.do("work 5")
				c.do("fork 5")
				a.do("fork 7") // a child, and children are not followed
				check(t, byPID(s.records(t)), map[int]int{a.pid(): 2, b.pid(): 3})
			})
		}
	})
}

func TestEveryProcess(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		a := start(t, path)
		s := load(t, single, newSpec(false, false))
		s.mustAttach(t, runtime.Who{}, at(t, path, "work", 1, "record"))
		b := start(t, path)
		a.do("work 2")
		b.do("work 3")
		child := b.do("fork 4")
		check(t, byPID(s.records(t)), map[int]int{a.pid(): 2, b.pid(): 3, child: 4})
	})
}

func TestForks(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		if !initialPIDNamespace() {
			t.Skip("not in the initial pid namespace")
		}
		if !ProbeFeatures().BTF {
			t.Skip("this kernel has no BTF")
		}
		path := newTarget(t)
		a, b := start(t, path), start(t, path)
		s := load(t, single, newSpec(true, false))
		s.mustAttach(t, runtime.Who{PIDs: []int{a.pid()}, Forks: true}, at(t, path, "work", 1, "record"))
		a.do("work 2")
		a.do("thread 1")
		child := a.do("fork 3")
		b.do("work 5")
		b.do("fork 5")
		check(t, byPID(s.records(t)), map[int]int{a.pid(): 3, child: 3})

		// The child has ended, and its pid is anybody's.
		var yes uint8
		targets := s.coll.Maps[runtime.MapTargets]
		if err := targets.Lookup(uint32(child), &yes); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("the ended child in targets: %v", err)
		}
		if err := targets.Lookup(uint32(a.pid()), &yes); err != nil {
			t.Errorf("the parent in targets: %v", err)
		}

		// More children than there is room for.
		for i := range uint32(63) {
			if err := targets.Put(1<<30+i, uint8(1)); err != nil {
				t.Fatal(err)
			}
		}
		a.do("fork 3")
		if st, err := s.Stats(); err != nil || st.Unfollowed != 1 {
			t.Errorf("%d not followed, %v; want 1", st.Unfollowed, err)
		}
	})
}

func TestForksWithoutTargets(t *testing.T) {
	needRoot(t)
	path := newTarget(t)
	p := start(t, path)
	s := load(t, false, newSpec(false, false))
	if _, err := s.Attach(t.Context(), []runtime.Probe{at(t, path, "work", 1, "record")}, runtime.Who{PIDs: []int{p.pid()}, Forks: true}); err == nil {
		t.Fatal("no error")
	}
	if err := p.text(path, "work"); err != nil {
		t.Error(err)
	}
}

func TestOverflow(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		p := start(t, path)
		r, err := New(Options{RingSize: 5000}) // 8192: 256 records of 24 and 8 bytes
		if err != nil {
			t.Fatal(err)
		}
		r.single = single
		ss, err := r.Load(t.Context(), newSpec(true, false))
		if err != nil {
			t.Fatal(err)
		}
		defer ss.Close()
		s := ss.(*session)
		s.mustAttach(t, runtime.Who{PIDs: []int{p.pid()}}, at(t, path, "work", 1, "record"))
		p.do("work 1000")
		if err := s.Detach(); err != nil {
			t.Fatal(err)
		}
		n := uint64(len(s.records(t)))
		st, err := s.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if lost := st.Counters[runtime.EntryNoRoom]; n+lost != 1000 || n < 200 || n > 256 {
			t.Errorf("%d records and %d lost; want 1000 together, about 255 records", n, lost)
		}
	})
}

func TestDetach(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		for _, pids := range []bool{true, false} {
			path := newTarget(t)
			p := start(t, path)
			s := load(t, single, newSpec(false, true))
			var who runtime.Who
			if pids {
				who.PIDs = []int{p.pid()}
			}
			s.mustAttach(t, who, at(t, path, "work", 1, "record"))
			if err := p.text(path, "work"); err == nil {
				t.Error("a breakpoint can't be seen; this test sees nothing")
			}
			if err := s.Detach(); err != nil {
				t.Fatal(err)
			}
			if err := p.text(path, "work"); err != nil {
				t.Errorf("detached: %v", err)
			}
			// Once more, and closed at once.
			s.mustAttach(t, who, at(t, path, "work", 1, "record"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := p.text(path, "work"); err != nil {
				t.Errorf("closed: %v", err)
			}
			if _, err := s.Attach(t.Context(), nil, who); err == nil {
				t.Error("a closed session attaches")
			}
		}
	})
}

func TestGone(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		p := start(t, path)
		dead := exec.Command("true")
		if err := dead.Run(); err != nil {
			t.Skip(err)
		}
		s := load(t, single, newSpec(true, false))
		probes := []runtime.Probe{at(t, path, "work", 1, "record")}
		if _, err := s.Attach(t.Context(), probes, runtime.Who{PIDs: []int{dead.Process.Pid}}); !errors.Is(err, ErrGone) {
			t.Errorf("a process that has ended: %v", err)
		}
		// One of two.
		s.mustAttach(t, runtime.Who{PIDs: []int{dead.Process.Pid, p.pid()}}, probes...)
		p.do("work 2")
		check(t, byCookie(s.records(t)), map[uint64]int{1: 2})
	})
}

func TestCancelledAttach(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		p := start(t, path)
		s := load(t, single, newSpec(true, false))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Attach(ctx, []runtime.Probe{at(t, path, "work", 1, "record")}, runtime.Who{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := p.text(path, "work"); err != nil {
			t.Error(err)
		}
	})
}

// What Read promises: records as they come, idle with a time by which all that is
// older has been passed, and the rest after the end.
func TestRead(t *testing.T) {
	needRoot(t)
	path := newTarget(t)
	p := start(t, path)
	s := load(t, false, newSpec(true, false))
	s.mustAttach(t, runtime.Who{PIDs: []int{p.pid()}}, at(t, path, "work", 1, "record"))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last uint64
	n := 0
	came, done := make(chan int, 10_000), make(chan error, 1)
	go func() {
		done <- s.Read(ctx, func(b []byte) error {
			r := decode(b)
			// A program can be preempted between the clock and the ring, not for long here.
			if r.time+uint64(time.Second) < last {
				t.Errorf("a record of %d after idle(%d)", r.time, last)
			}
			n++
			came <- n
			return nil
		}, func(now uint64) error {
			if now < last {
				t.Errorf("idle(%d) after idle(%d)", now, last)
			}
			last = now
			return nil
		})
	}()
	for i := range 50 {
		p.do("work 2")
		for range 2 {
			select {
			case <-came:
			case <-time.After(10 * time.Second):
				t.Fatalf("round %d: no record", i)
			}
		}
	}
	p.do("work 100")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n != 200 {
		t.Errorf("%d records, want 200", n)
	}

	// The error of f ends it.
	p.do("work 3")
	stop := errors.New("stop")
	err := s.Read(t.Context(), func([]byte) error { return stop }, func(uint64) error { return nil })
	if err != stop {
		t.Errorf("%v, want f's error", err)
	}
	if n := len(s.records(t)); n != 2 {
		t.Errorf("%d records left, want 2", n)
	}
}

// Reading ends although the probes go on.
func TestReadEnds(t *testing.T) {
	needRoot(t)
	path := newTarget(t)
	p := start(t, path)
	s := load(t, false, newSpec(true, false))
	s.mustAttach(t, runtime.Who{PIDs: []int{p.pid()}}, at(t, path, "work", 1, "record"))
	if _, err := io.WriteString(p.in, "work 1000000\n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.Read(ctx, func([]byte) error { return nil }, func(uint64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
}

const tracerEnv = "FERROTRACE_TEST_TRACER"

// tracerMain is a tracer that is going to be killed.
func tracerMain() int {
	var path, program string
	var offset uint64
	single := false
	if _, err := fmt.Sscan(os.Getenv(tracerEnv), &path, &offset, &program, &single); err != nil {
		fmt.Println(err)
		return 1
	}
	r, err := New(Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	r.single = single
	s, err := r.Load(context.Background(), newSpec(true, true))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	_, err = s.Attach(context.Background(), []runtime.Probe{{Path: path, Offset: offset, Program: program}}, runtime.Who{})
	fmt.Println("attached", err)
	time.Sleep(time.Hour)
	return 0
}

func TestKilledTracer(t *testing.T) {
	ways(t, func(t *testing.T, single bool) {
		path := newTarget(t)
		p := start(t, path)
		offset, _ := symbol(t, path, "work")
		tracer := exec.Command(os.Args[0])
		tracer.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d record %v", tracerEnv, path, offset, single))
		out, err := tracer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := tracer.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "attached <nil>\n" {
			t.Errorf("the tracer: %q, %v", line, err)
		}
		if err := p.text(path, "work"); err == nil {
			t.Error("a breakpoint can't be seen; this test sees nothing")
		}
		p.do("work 5")
		if err := tracer.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = tracer.Wait()
		p.do("work 5")
		// The kernel takes probes out when it has closed the last descriptor.
		deadline := time.Now().Add(10 * time.Second)
		for err = p.text(path, "work"); err != nil && time.Now().Before(deadline); err = p.text(path, "work") {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func TestScratchIsSized(t *testing.T) {
	needRoot(t)
	s := load(t, false, newSpec(false, false))
	if got, want := s.coll.Maps[runtime.MapScratch].MaxEntries(), uint32(runtime.SlotsPerCPU*ebpf.MustPossibleCPU()); got != want {
		t.Errorf("%d slots, want %d", got, want)
	}
}

// A verifier's refusal is neither a lack of permission nor without its reason.
func TestRefusedProgram(t *testing.T) {
	needRoot(t)
	spec := newSpec(false, false)
	spec.Programs["record"].Instructions = spec.Programs["record"].Instructions[1:] // r6 is not set
	r, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Load(t.Context(), spec)
	var ve *ebpf.VerifierError
	if !errors.As(err, &ve) || errors.Is(err, os.ErrPermission) && !errors.Is(ve, os.ErrPermission) {
		t.Errorf("%v", err)
	}
	if !strings.Contains(fmt.Sprint(err), "R6") {
		t.Errorf("the reason is missing: %v", err)
	}
}

func TestFeatures(t *testing.T) {
	needRoot(t)
	f := ProbeFeatures()
	t.Logf("%+v", f)
	if f.Err != nil {
		t.Fatal(f.Err)
	}
	if f.MultiPIDFilter && !f.UprobeMulti {
		t.Error("a filter of nothing")
	}
}

func TestMissing(t *testing.T) {
	const bpf, perfmon, admin = 1 << 39, 1 << 38, 1 << 21
	for _, c := range []struct {
		set     uint64
		initial bool
		want    string
	}{
		{bpf | perfmon, true, ""},
		{admin, true, ""},
		{0, true, "CAP_BPF, CAP_PERFMON"},
		{bpf, true, "CAP_PERFMON"},
		{perfmon, true, "CAP_BPF"},
		{^uint64(0), false, "CAP_BPF and CAP_PERFMON outside of this user namespace"},
	} {
		if got := strings.Join(missing(c.set, c.initial), ", "); got != c.want {
			t.Errorf("%#x, %v: missing %q, want %q", c.set, c.initial, got, c.want)
		}
	}
	err := fmt.Errorf("loading: %w", &PermissionError{Missing: []string{"CAP_BPF"}})
	if !errors.Is(err, os.ErrPermission) {
		t.Error("it is no os.ErrPermission")
	}
}

// Without capabilities New says which.
func TestUnprivileged(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("dropping capabilities needs root and setpriv")
	}
	b, err := exec.Command(setpriv, "--inh-caps=-all", "--bounding-set=-bpf,-perfmon,-sys_admin", os.Args[0], "-test.run=TestIsUnprivileged", "-test.v").CombinedOutput()
	if err != nil || !bytes.Contains(b, []byte("not permitted: missing CAP_BPF, CAP_PERFMON")) {
		t.Errorf("%v: %s", err, b)
	}
}

// With CAP_BPF and CAP_PERFMON alone probes are attached, or it is said what more
// this kernel wants.
func TestFewCapabilities(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("dropping capabilities needs root and setpriv")
	}
	path := newTarget(t)
	offset, _ := symbol(t, path, "work")
	for _, single := range []bool{false, true} {
		cmd := exec.Command(setpriv, "--inh-caps=-all", "--bounding-set=-all,+bpf,+perfmon", os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d record %v", tracerEnv, path, offset, single))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || line != "attached <nil>\n" && !strings.Contains(line, "missing CAP_SYS_ADMIN") {
			t.Errorf("single=%v: %q, %v", single, line, err)
		}
		t.Logf("single=%v: %s", single, line)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func TestIsUnprivileged(t *testing.T) {
	if Permission() == nil {
		t.Skip("this process has all capabilities")
	}
	_, err := New(Options{})
	var p *PermissionError
	if !errors.As(err, &p) || !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	t.Log(err)
}

func TestCost(t *testing.T) {
	if c := Cost(true, true, false); c > Cost(true, false, false) || c <= 0 {
		t.Error(c)
	}
	if Cost(true, false, false) >= Cost(false, false, true) {
		t.Error("emulated is not cheaper than single-stepped")
	}
}

// Offsets outside of code are refused before the kernel would plant them.
func TestExecutable(t *testing.T) {
	path, err := built()
	if err != nil {
		t.Skipf("no target: %v", err)
	}
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	work, _ := symbol(t, path, "work")
	for offset, want := range map[uint64]bool{work: true, 0: false, 1: false, 1 << 40: false} {
		if f.executable(offset) != want {
			t.Errorf("%#x: executable is %v", offset, !want)
		}
	}
	if _, err := openFile(filepath.Dir(path)); err == nil {
		t.Error("a directory opens")
	}
}
