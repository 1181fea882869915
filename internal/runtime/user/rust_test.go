package user_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/runtime"

	"golang.org/x/sys/unix"
)

// TestRust: programs of which all Rust functions are traced, those of the standard library
// too, say what they say otherwise, and end as they end otherwise.
func TestRust(t *testing.T) {
	for _, profile := range []fixture.Profile{fixture.Debug, fixture.Release, fixture.Static} {
		x := openText(t, fixture.Build(t, "flow", profile))
		fs := x.rusts()
		probes := append(x.entries("count", fs), x.anyExits("count", fs, 0)...)
		for i := range probes {
			probes[i].Cookie %= counts
		}
		for _, story := range []string{"recursion", "exits", "threads", "panics", "jump", "exit", "abort", "die", "signal", "fork", "exec"} {
			t.Run(profile.Name+"/"+story, func(t *testing.T) {
				without, status := run(t, nil, nil, x.path, story)
				with, traced := run(t, x, probes, x.path, story)
				if traced != status {
					t.Errorf("it ended with %q, not %q", traced, status)
				}
				if with != without {
					t.Errorf("it said\n%s\ninstead of\n%s", with, without)
				}
			})
		}
	}
}

// numbers are those of processes and threads.
var numbers = regexp.MustCompile(`@[0-9]+|split\|[0-9]+`)

// run runs a program, with probes if there are any, and returns its standard output, in
// order of its lines and without numbers, and how it ended.
func run(t *testing.T, x *elfText, probes []runtime.Probe, argv ...string) (out, status string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	said := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r)
		lines := strings.Split(numbers.ReplaceAllString(b.String(), "@N"), "\n")
		slices.Sort(lines)
		said <- strings.Join(lines, "\n")
	}()
	if probes == nil {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		_ = cmd.Wait()
		status := "exit status 0"
		if s := cmd.ProcessState.String(); s != status {
			status = strings.Replace(s, "signal: aborted", "killed by SIGABRT", 1)
		}
		return <-said, status
	}
	// A command has the tracer's own output.
	old, err := unix.Dup(1)
	if err != nil {
		t.Fatal(err)
	}
	s := load(t, x)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Dup3(int(w.Fd()), 1, 0))
	c := hold(t, argv...)
	must(unix.Dup3(old, 1, 0))
	must(unix.Close(old))
	w.Close()
	failed := attachSome(t, s, probes, runtime.Who{PIDs: []int{c.PID}, Command: c})
	if len(failed) > len(probes)/20 {
		t.Errorf("%d of %d probes could not be planted, as %v", len(failed), len(probes), failed[0])
	}
	must(s.Release())
	st := wait(t, c)
	must(s.Detach())
	main := slices.IndexFunc(x.rusts(), func(f function) bool { return strings.Contains(f.name, "4flow4main17h") })
	if n := sum(t, s, runtime.MapCounts, uint32(main%counts)); n < 1 {
		t.Errorf("%d hits in main", n)
	}
	must(s.Close())
	return <-said, st.String()
}
