// Package bench measures what the README and docs/costs.md claim: side by side, in one
// run, since the machines that it runs on differ and are noisy.
//
//	make bench
package bench

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
)

// BenchmarkHit is what a call of a traced function costs more than one that is not
// traced, in ns/hit; the program says how long its calls took.
func BenchmarkHit(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("skipped: needs root, for the kernel's uprobes")
	}
	tool := filepath.Join(b.TempDir(), "ferrotrace")
	if out, err := exec.Command("go", "build", "-o", tool, "ferrotrace/cmd/ferrotrace").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	program := fixture.Build(b, "flow", fixture.Release)
	const calls = "200000"
	run := func(args ...string) time.Duration {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdout = io.Discard
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"count", []string{tool, "count", "-q", "flow::plain::hot", "--"}},
		{"trace-entry-and-exit", []string{tool, "trace", "-q", "--out", os.DevNull, "flow::plain::hot", "--"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var traced, idle, plain time.Duration
			for b.Loop() {
				plain += run(program, "busy", calls)
				// Attaching and detaching cost too, but not by the hit.
				idle += run(append(c.args, program, "busy", "1")...)
				traced += run(append(c.args, program, "busy", calls)...)
			}
			b.ReportMetric(float64((traced-idle-plain).Nanoseconds())/float64(b.N)/200000, "ns/hit")
			b.ReportMetric(0, "ns/op")
		})
	}
}
