package bench

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
)

// BenchmarkScripts is what a hit of a script's probe costs, on either runtime and in
// bpftrace, if that is installed and runs: the same program, in turns and in one run.
// The traced program, testdata/fixtures/hot, times its own calls.
func BenchmarkScripts(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("skipped: needs root, for the kernel's uprobes")
	}
	tool := filepath.Join(b.TempDir(), "ferrotrace")
	if out, err := exec.Command("go", "build", "-o", tool, "ferrotrace/cmd/ferrotrace").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	program := fixture.Build(b, "hot", fixture.Release)
	symbol := symbolWith(b, program, "6pushed17h")
	command := []string{program, "pushed", "1", "5000", "4"}
	for _, bm := range []struct{ name, ours, theirs string }{
		{"count", "uprobe:hot::pushed { @ = count(); }", "uprobe:F { @ = count(); }"},
		{"count-by-number", "uprobe:hot::pushed { @[args.n % 8] = count(); }", "uprobe:F { @[arg0 % 8] = count(); }"},
		{"count-by-text", "uprobe:hot::pushed { @[args.s] = count(); }", "uprobe:F { @[str(arg1, arg2)] = count(); }"},
		{"hist", "uprobe:hot::pushed { @ = hist(args.n); }", "uprobe:F { @ = hist(arg0); }"},
		{"latency", "uprobe:hot::pushed { @t[tid] = nsecs; } uretprobe:hot::pushed { @ns = hist(nsecs - @t[tid]); delete(@t, tid); }",
			"uprobe:F { @t[tid] = nsecs; } uretprobe:F { @ns = hist(nsecs - @t[tid]); delete(@t[tid]); }"},
		{"printf", `uprobe:hot::pushed { printf("%d\n", args.n); }`, `uprobe:F { printf("%d\n", arg0); }`},
		{"false-predicate", `uprobe:hot::pushed /args.n > 1000000/ { printf("%d\n", args.n); }`, `uprobe:F /arg0 > 1000000/ { printf("%d\n", arg0); }`},
	} {
		b.Run(bm.name, func(b *testing.B) {
			ways := map[string][]string{"none": command}
			for _, rt := range []string{"user", "kernel"} {
				ways[rt] = append([]string{tool, "run", "--runtime", rt, "-q", "-e", bm.ours, "--"}, command...)
			}
			if _, err := exec.LookPath("bpftrace"); err == nil {
				ways["bpftrace"] = []string{"bpftrace", "-e", strings.ReplaceAll(bm.theirs, "F", program+":"+symbol), "-c", strings.Join(command, " ")}
			}
			took := map[string][]float64{}
			for b.Loop() {
				for _, way := range []string{"none", "user", "kernel", "bpftrace"} {
					if args := ways[way]; args != nil {
						took[way] = append(took[way], perCall(b, args))
					}
				}
			}
			cost := func(way string) float64 { return median(took[way]) - median(took["none"]) }
			b.ReportMetric(0, "ns/op")
			for way := range ways {
				if way != "none" {
					b.ReportMetric(cost(way), way+"-ns")
				}
			}
			if ways["bpftrace"] != nil {
				b.ReportMetric(cost("bpftrace")/cost("kernel"), "bpftrace/kernel")
				b.ReportMetric(cost("bpftrace")/cost("user"), "bpftrace/user")
			}
		})
	}
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	xs = slices.Sorted(slices.Values(xs))
	return xs[len(xs)/2]
}

// symbolWith is the one symbol of a file whose name has a part.
func symbolWith(b *testing.B, path, part string) string {
	f, err := elf.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range all {
		if strings.Contains(s.Name, part) {
			return s.Name
		}
	}
	b.Fatal(fmt.Errorf("%s has no symbol with %q", path, part))
	return ""
}
