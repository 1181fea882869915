package bench

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
)

// BenchmarkOneLiner is how long a usual one-liner takes from its start until its probe is
// armed, and bpftrace's for the same. Both start the command when they are ready, so that
// is when the command's first line appears.
func BenchmarkOneLiner(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("skipped: needs root, for the kernel's uprobes")
	}
	if _, err := exec.LookPath("bpftrace"); err != nil {
		b.Skip("skipped: there is no bpftrace to compare with")
	}
	tool := filepath.Join(b.TempDir(), "ferrotrace")
	if out, err := exec.Command("go", "build", "-o", tool, "ferrotrace/cmd/ferrotrace").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	program := fixture.Build(b, "scripts", fixture.Release)
	command := []string{program, "results"}
	symbol := symbolWith(b, program, "scripts6number17h")
	ours, theirs := "uprobe:scripts::number { @[args.n] = count(); }", "uprobe:"+program+":"+symbol+" { @[arg0] = count(); }"
	ways := map[string][]string{
		"user":     append([]string{tool, "run", "--runtime", "user", "-e", ours, "--"}, command...),
		"kernel":   append([]string{tool, "run", "--runtime", "kernel", "-e", ours, "--"}, command...),
		"bpftrace": {"bpftrace", "-e", theirs, "-c", strings.Join(command, " ")},
	}
	took := map[string][]float64{}
	for b.Loop() {
		for _, way := range []string{"user", "kernel", "bpftrace"} {
			took[way] = append(took[way], armed(b, ways[way]))
		}
	}
	b.ReportMetric(0, "ns/op")
	for way, ms := range took {
		b.ReportMetric(median(ms), way+"-ms")
	}
	b.ReportMetric(median(took["bpftrace"])/median(took["user"]), "bpftrace/user")
	b.ReportMetric(median(took["bpftrace"])/median(took["kernel"]), "bpftrace/kernel")
}

// armed is after how many milliseconds the traced command says something.
func armed(b *testing.B, args []string) float64 {
	cmd := exec.Command(args[0], args[1:]...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ms := 0.0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if line := lines.Text(); ms == 0 && line != "" && !strings.HasPrefix(line, "Attach") && !strings.HasPrefix(line, "@") {
			ms = float64(time.Since(start).Microseconds()) / 1000
		}
	}
	if err := cmd.Wait(); err != nil || ms == 0 {
		b.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return ms
}
