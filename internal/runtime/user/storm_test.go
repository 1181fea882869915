package user_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/runtime/user/proctest"

	"golang.org/x/sys/unix"
)

// TestStorm plants probes in all of a program that verifies itself, and takes them out,
// again and again.
func TestStorm(t *testing.T) {
	for _, works := range [][]string{
		{"regs", "sum", "sleep", "calls", "read"},
		{"sum", "churn", "calls", "calls"},
		{"calls", "fork", "vfork", "regs"},
		{"regs", "epoll", "churn", "sleep"},
	} {
		t.Run(strings.Join(works, "+"), func(t *testing.T) {
			x := openText(t, compile(t, selfVerifying))
			fs := x.all()
			probes := append(x.entries("count", fs), x.anyExits("count", fs, uint64(len(fs)))...)
			p := launch(t, x.path, works...)
			signals := works[0] == "regs" || works[0] == "sum"
			done := make(chan struct{})
			var sent <-chan int
			if signals {
				sent = proctest.SendSignals(p.PID, time.Millisecond, done)
			}
			time.Sleep(20 * time.Millisecond)
			if slices.Contains(works, "read") || slices.Contains(works, "epoll") {
				p.opened(3 + 4) // a pipe, an eventfd, an epoll
			}
			before := footprintOf(t, p.PID)
			before.ours = nil
			victim := slices.IndexFunc(fs, func(f function) bool { return f.name == "victim" })
			var stops, ins, outs []time.Duration
			for i := range rounds(20, 500) {
				s := load(t, x)
				begin := time.Now()
				failed := attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
				ins = append(ins, time.Since(begin))
				if i == 0 {
					for _, e := range failed {
						t.Logf("%#x: %v", e.Probe.Offset, e)
					}
				}
				time.Sleep(time.Duration(i%7) * time.Millisecond)
				if slices.Contains(works, "calls") {
					for deadline := time.Now().Add(5 * time.Second); sum(t, s, runtime.MapCounts, uint32(victim)) == 0; {
						if p.alive(); time.Now().After(deadline) {
							t.Fatal("no call was counted")
						}
						time.Sleep(time.Millisecond)
					}
				}
				begin = time.Now()
				if err := s.Detach(); err != nil {
					t.Fatal(err)
				}
				outs = append(outs, time.Since(begin))
				stops = append(stops, user.LongestStop(s))
				in, out := sum(t, s, runtime.MapCounts, uint32(victim)), sum(t, s, runtime.MapCounts, uint32(len(fs)+victim))
				if d := int64(in - out); d < -8 || d > 8 { // those that were under way
					t.Errorf("%d calls, %d returns", in, out)
				}
				mustClose(t, s)
				p.alive()
				before.same(t, p.PID)
				if t.Failed() {
					t.Fatalf("in round %d", i)
				}
			}
			close(done)
			want := 0
			if signals {
				want = <-sent
				time.Sleep(50 * time.Millisecond)
			}
			var work, got, made, forks int
			if s := p.Finish(unix.SIGTERM); true {
				if _, err := fmt.Sscanf(s, "work %d signals %d made %d forks %d", &work, &got, &made, &forks); err != nil {
					t.Fatal(s)
				}
			}
			if got != want || work == 0 {
				t.Errorf("%d signals of %d, %d work", got, want, work)
			}
			t.Logf("%d probes, medians: attached in %v, detached in %v, longest stop %v (most %v)", len(probes), median(ins), median(outs), median(stops), slices.Max(stops))
		})
	}
}

func median(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)/2]
}
