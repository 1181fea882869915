package user_test

import (
	"testing"
	"time"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
)

// BenchmarkAttach attaches to a running program and detaches: the time until its
// probes are armed, without what reading its file takes, and that until they are out.
func BenchmarkAttach(b *testing.B) {
	x := openText(b, fixture.Build(b, "flow", fixture.Release))
	cmd := start(b, x.path, "server", "600")
	time.Sleep(100 * time.Millisecond)
	fs := x.named("plain", "serve")
	probes := append(x.entries("count", fs), x.exits(b, "count", fs)...)
	var in, out, stop time.Duration
	n := 0
	for b.Loop() {
		s := load(b, x)
		begin := time.Now()
		attach(b, s, probes, runtime.Who{PIDs: []int{cmd.Process.Pid}})
		armed := time.Now()
		stop += user.LongestStop(s)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		in, out, n = in+armed.Sub(begin), out+time.Since(armed), n+1
	}
	b.ReportMetric(float64(in.Microseconds())/float64(n), "µs/attach")
	b.ReportMetric(float64(stop.Microseconds())/float64(n), "µs/stop")
	b.ReportMetric(float64(out.Microseconds())/float64(n), "µs/detach")
}
