package user_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"

	"golang.org/x/sys/unix"
)

// readAll reads what is in the rings.
func readAll(t testing.TB, s runtime.Session) (records []record) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Read(ctx, func(b []byte) error {
		records = append(records, parseRecord(t, b))
		return nil
	}, func(uint64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return records
}

// running are the processes that run a file.
func running(t testing.TB, path string) (pids []int) {
	t.Helper()
	es, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if exe, _ := os.Readlink("/proc/" + e.Name() + "/exe"); exe == path {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestFamily: child and grandchild of a traced process are traced, as themselves; all of
// them get their bytes back, whether their ancestor lives or not, and go on.
func TestFamily(t *testing.T) {
	for _, orphaned := range []bool{false, true} {
		t.Run(map[bool]string{false: "together", true: "orphaned"}[orphaned], func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			s := load(t, x)
			c := hold(t, x.path, "family", map[bool]string{false: "0", true: "1"}[orphaned])
			t.Cleanup(func() {
				for _, pid := range running(t, x.path) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			})
			fs := x.named("inside")
			attachSome(t, s, append(x.entries("count", fs), append(x.entries("write", fs), x.exits(t, "count", x.all())...)...), runtime.Who{PIDs: []int{c.PID}, Command: c})
			if err := s.Release(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			for deadline := time.Now().Add(10 * time.Second); len(pids) != 3; pids = running(t, x.path) {
				if time.Now().After(deadline) {
					t.Fatal("there is no family")
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			if orphaned {
				wait(t, c)
			}
			for _, pid := range pids {
				if pid != c.PID || !orphaned {
					if len(ours(pid)) == 0 {
						t.Errorf("process %d has no probes", pid)
					}
				}
			}
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
			seen := map[uint32]int{}
			for _, r := range readAll(t, s) {
				seen[r.PID]++
				if r.PID != r.TID {
					t.Errorf("%+v", r)
				}
			}
			for _, pid := range pids {
				if seen[uint32(pid)] == 0 {
					t.Errorf("process %d has no records; there are %v", pid, seen)
				}
				if orphaned && pid == c.PID {
					continue
				}
				if o := ours(pid); len(o) != 0 {
					t.Errorf("process %d has still %q", pid, o)
				}
				for name, b := range code(t, pid) {
					if strings.HasPrefix(name, x.path) && b != mapped(t, x, name, len(b)) {
						t.Errorf("%s of process %d is not as it was", name, pid)
					}
				}
			}
			if len(seen) != 3 {
				t.Errorf("records of %v, want %v", seen, pids)
			}
			time.Sleep(20 * time.Millisecond)
			if got := len(running(t, x.path)); got != 3 && !orphaned || got < 2 {
				t.Errorf("%d processes go on", got)
			}
		})
	}
}

// mapped is what the file has where a process has mapped it.
func mapped(t testing.TB, x *elfText, name string, size int) string {
	t.Helper()
	b0 := string(make([]byte, 4096))
	for _, s := range x.segs {
		if b := x.Bytes(s.addr); s.exec && (len(b)+4095)&^4095 == size {
			return string(b) + b0[:size-len(b)]
		}
	}
	t.Errorf("%s, of %d bytes, is no segment", name, size)
	return ""
}

// TestForkStorm detaches while processes come and go all the time.
func TestForkStorm(t *testing.T) {
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "forks")
	probes := everything(x, "count")
	for i := range rounds(20, 500) {
		s := load(t, x)
		attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
		time.Sleep(time.Duration(i%6) * time.Millisecond)
		mustClose(t, s)
		p.alive()
		for _, pid := range running(t, x.path) {
			if o := ours(pid); len(o) != 0 {
				t.Fatalf("in round %d, process %d has still %q", i, pid, o)
			}
		}
	}
	p.Finish(unix.SIGUSR1)
}

// TestChain: each process ends as soon as its child has begun.
func TestChain(t *testing.T) {
	x := openText(t, compile(t, enemy))
	probes := everything(x, "count")
	for i := range rounds(10, 300) {
		s := load(t, x)
		c := hold(t, x.path, "chain", "200")
		attachSome(t, s, probes, runtime.Who{PIDs: []int{c.PID}, Command: c})
		if err := s.Release(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+i) * time.Millisecond)
		mustClose(t, s)
		for _, pid := range running(t, x.path) {
			if o := ours(pid); len(o) != 0 {
				t.Errorf("in round %d, process %d has still %q", i, pid, o)
			}
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for deadline := time.Now().Add(10 * time.Second); len(running(t, x.path)) != 0; {
			for _, pid := range running(t, x.path) {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			if time.Now().After(deadline) {
				t.Fatal("the chain does not end")
			}
		}
	}
}

// TestExact: calls counted, and records written or lost, are the calls made.
func TestExact(t *testing.T) {
	for _, threads := range []int{1, 2, 4, 8} {
		t.Run(fmt.Sprint(threads), func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			s := load(t, x)
			c := hold(t, x.path, "calls", fmt.Sprint(threads))
			fs := x.named("inside")
			attach(t, s, append(append(x.entries("count", fs), x.entries("write", fs)...), x.anyExits("count", fs, 1)...), runtime.Who{PIDs: []int{c.PID}, Command: c})
			if err := s.Release(); err != nil {
				t.Fatal(err)
			}
			if st := wait(t, c); st.String() != "exit status 0" {
				t.Errorf("the program: %s", st)
			}
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
			want := uint64(threads * 20000)
			if in, out := sum(t, s, runtime.MapCounts, 0), sum(t, s, runtime.MapCounts, 1); in != want || out != want {
				t.Errorf("%d calls and %d returns counted of %d", in, out, want)
			}
			seen, tids := uint64(0), map[uint32]bool{}
			last := map[uint32]uint64{}
			for _, r := range readAll(t, s) {
				seen++
				tids[r.TID] = true
				if int(r.PID) != c.PID {
					t.Errorf("%+v", r)
				}
				last[r.TID] = r.Time
			}
			st, err := s.Stats()
			if err != nil {
				t.Fatal(err)
			}
			if lost := st.Counters[runtime.EntryNoRoom]; seen+lost != want || seen == 0 || lost == 0 {
				t.Errorf("%d records, %d lost, of %d", seen, lost, want)
			}
			if len(tids) > threads || tids[uint32(c.PID)] {
				t.Errorf("records of threads %v", tids)
			}
		})
	}
}

// TestRead: all records come through when they are read at the same time.
func TestRead(t *testing.T) {
	x := openText(t, compile(t, enemy))
	s := load(t, x)
	c := hold(t, x.path, "calls", "2")
	attach(t, s, x.entries("write", x.named("inside")), runtime.Who{PIDs: []int{c.PID}, Command: c})
	ctx, cancel := context.WithCancel(t.Context())
	n, done := uint64(0), make(chan error)
	go func() {
		done <- s.Read(ctx, func([]byte) error { n++; return nil }, func(uint64) error { return nil })
	}()
	if err := s.Release(); err != nil {
		t.Fatal(err)
	}
	wait(t, c)
	if err := s.Detach(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	st, err := s.Stats()
	if lost := st.Counters[runtime.EntryNoRoom]; err != nil || n+lost != 40000 {
		t.Errorf("%d records, %d lost, %v", n, lost, err)
	}
}

// TestDiesInRecord: threads and processes end in the midst of a record; the reader gets
// past it.
func TestDiesInRecord(t *testing.T) {
	for _, work := range []string{"cancel", "kill"} {
		t.Run(work, func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			p := launch(t, x.path, work)
			s := load(t, x)
			attach(t, s, x.entries("write", x.named("inside")), runtime.Who{PIDs: []int{p.PID}})
			ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
			defer cancel()
			last, longest, n := time.Now(), time.Duration(0), 0
			if err := s.Read(ctx, func(b []byte) error {
				parseRecord(t, b)
				longest, last = max(longest, time.Since(last)), time.Now()
				n++
				return nil
			}, func(uint64) error { return nil }); err != nil {
				t.Error(err)
			}
			if n == 0 {
				t.Error("no records")
			}
			st, err := s.Stats()
			t.Logf("%d records, longest gap %v, lost %v, %v", n, longest, st.Counters, err)
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
			p.alive()
			p.Finish(unix.SIGUSR1)
		})
	}
}
