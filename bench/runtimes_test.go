package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"ferrotrace/internal/fixture"
)

// BenchmarkRuntimes is what a call of a traced function costs more than one that is not
// traced, on either runtime and untraced in one run: counted, and traced with the text
// of its arguments and its result and duration. The program, testdata/fixtures/hot,
// times its own calls. pushed begins with an instruction that the kernel emulates,
// stepped with one that it single-steps. The calls that are reported must be those
// that were made.
func BenchmarkRuntimes(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("skipped: needs root, for the kernel's uprobes")
	}
	tool := filepath.Join(b.TempDir(), "ferrotrace")
	if out, err := exec.Command("go", "build", "-o", tool, "ferrotrace/cmd/ferrotrace").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	program := fixture.Build(b, "hot", fixture.Release)
	const calls, rounds = 5000, 8
	for _, verb := range []string{"count", "trace"} {
		for _, function := range []string{"pushed", "stepped"} {
			for _, threads := range []int{1, 2, 4} {
				b.Run(fmt.Sprintf("%s/%s/threads-%d", verb, function, threads), func(b *testing.B) {
					command := []string{program, function, fmt.Sprint(threads), fmt.Sprint(calls), fmt.Sprint(rounds)}
					best := map[string]float64{}
					for b.Loop() {
						for _, rt := range []string{"none", "user", "kernel"} {
							args := command
							out := ""
							if rt != "none" {
								out = filepath.Join(b.TempDir(), "events")
								args = append([]string{tool, verb, "--runtime", rt, "-q", "-o", "json", "--out", out, "hot::" + function, "--"}, command...)
							}
							t := perCall(b, args)
							if v, ok := best[rt]; !ok || t < v {
								best[rt] = t
							}
							if out != "" {
								verify(b, out, threads*calls*rounds)
							}
						}
					}
					user, kernel := best["user"]-best["none"], best["kernel"]-best["none"]
					b.ReportMetric(0, "ns/op")
					b.ReportMetric(best["none"], "untraced-ns")
					b.ReportMetric(user, "user-ns")
					b.ReportMetric(kernel, "kernel-ns")
					b.ReportMetric(kernel/user, "ratio")
				})
			}
		}
	}
}

var saysPerCall = regexp.MustCompile(`(?m)^([0-9.]+) ns/call$`)

// perCall runs the program and returns what it says of itself.
func perCall(b *testing.B, args []string) (ns float64) {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%v: %v\n%s", args, err, stderr.Bytes())
	}
	// What a script prints may stand around it.
	m := saysPerCall.FindSubmatch(out)
	if m == nil {
		b.Fatalf("%v: no time in %q", args, out[:min(len(out), 1000)])
	}
	if ns, err = strconv.ParseFloat(string(m[1]), 64); err != nil {
		b.Fatal(err)
	}
	return ns
}

// verify compares the calls that were seen with those that were made.
func verify(b *testing.B, events string, made int) {
	b.Helper()
	f, err := os.Open(events)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var last struct {
		Type string
		Data struct {
			Calls, Lost, LostExits int `json:",omitempty"`
		}
	}
	for d := json.NewDecoder(f); d.More(); {
		if err := d.Decode(&last); err != nil {
			b.Fatal(err)
		}
	}
	if last.Type != "summary" || last.Data.Calls != made || last.Data.Lost != 0 {
		b.Fatalf("%d calls were made; %+v", made, last)
	}
}
