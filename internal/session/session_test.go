package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/program"

	"golang.org/x/sys/unix"
)

// The commands' standard input never ends: it is how the story "server" is ended.
func TestMain(m *testing.M) {
	r, w, err := os.Pipe()
	if err == nil {
		err = unix.Dup2(int(r.Fd()), 0)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	w.Close()
	os.Exit(code)
}

// told is what a run yields.
type told struct {
	events   []event.Event
	warnings []string
	notes    []string
	err      error
}

// needRoot skips a test that uses the kernel runtime.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, for the kernel's uprobes")
	}
}

// both runs a test on each runtime.
func both(t *testing.T, test func(t *testing.T, runtime string)) {
	for _, rt := range []string{Kernel, User} {
		t.Run(rt, func(t *testing.T) { test(t, rt) })
	}
}

// everywhere is a copy of the fixture flow: the kernel runtime may probe every process
// that runs a file, and those of other tests, in which the user runtime may be, are to be
// left alone.
func everywhere(t *testing.T) string {
	t.Helper()
	return fixture.Private(t, fixture.Build(t, "flow", fixture.Release))
}

// flow runs a session on a story of the fixture flow. emit may be nil.
func flow(t *testing.T, run func(context.Context, Options) error, emit func(event.Event) error, o Options, story ...string) *told {
	t.Helper()
	if o.Runtime == Kernel {
		needRoot(t)
	}
	if o.Runtime == "" {
		o.Runtime = Auto
	}
	got := &told{}
	if o.Command == nil && story != nil {
		o.Command = append([]string{everywhere(t)}, story...)
	}
	o.Inlined, o.Limits = true, program.Limits{MaxStr: 256, MaxItems: 64, Depth: 8}
	o.Idle = func() error { return nil }
	o.Doing = func(string) {}
	o.Note = func(format string, a ...any) { got.notes = append(got.notes, fmt.Sprintf(format, a...)) }
	o.Warn = func(format string, a ...any) { got.warnings = append(got.warnings, fmt.Sprintf(format, a...)) }
	o.Emit = func(e event.Event) error {
		got.events = append(got.events, e)
		if emit != nil {
			return emit(e)
		}
		return nil
	}
	got.err = run(t.Context(), o)
	return got
}

// summary checks the frame of a run: what comes first and last, and the sums.
func (g *told) summary(t *testing.T) event.Summary {
	t.Helper()
	if len(g.events) < 3 {
		t.Fatalf("only %v; error: %v", g.events, g.err)
	}
	if _, ok := g.events[0].(event.Attached); !ok {
		t.Errorf("the first event is %T", g.events[0])
	}
	s, ok := g.events[len(g.events)-1].(event.Summary)
	if !ok {
		t.Fatalf("the last event is %T", g.events[len(g.events)-1])
	}
	if s.Calls != s.Shown+s.Hidden+s.Lost {
		t.Errorf("%d calls, but %d shown, %d hidden, %d lost", s.Calls, s.Shown, s.Hidden, s.Lost)
	}
	return s
}

// status is the exit status that a run's error leads to.
func (g *told) status() int {
	var coder interface{ ExitCode() int }
	switch {
	case g.err == nil:
		return 0
	case errors.As(g.err, &coder):
		return coder.ExitCode()
	}
	return failed
}

// calls counts the events of the two halves of calls.
func (g *told) calls() (calls, ends int) {
	for _, e := range g.events {
		switch e.(type) {
		case event.Call:
			calls++
		case event.Return, event.Unwind, event.Ended:
			ends++
		}
	}
	return calls, ends
}

// What does not fit into the ring while nobody reads is counted, call by call.
func TestLossesAreExact(t *testing.T) { both(t, lossesAreExact) }

func lossesAreExact(t *testing.T, rt string) {
	made := uint64(100_000)
	if rt == User {
		made = 1_000_000 // its rings are larger, and it is faster
	}
	slow := true
	got := flow(t, Trace, func(e event.Event) error {
		if _, ok := e.(event.Call); ok && slow {
			slow = false
			time.Sleep(4 * time.Second) // the ring fills
		}
		return nil
	}, Options{Runtime: rt, Patterns: []string{"flow::plain::hot"}}, "busy", strconv.FormatUint(made, 10))
	if got.err != nil {
		t.Fatal(got.err)
	}
	s := got.summary(t)
	calls, ends := got.calls()
	if s.Calls != made || int(s.Shown) != calls {
		t.Errorf("%d calls were made; %d calls said, %d shown said, %d shown", made, s.Calls, s.Shown, calls)
	}
	if s.Lost == 0 {
		t.Log("nothing was lost: the machine is too slow to fill the ring")
	}
	for _, e := range got.events {
		// It returned, and its exit was lost.
		if e, ok := e.(event.Ended); ok {
			t.Errorf("said to have ended without a return: %+v", e)
		}
	}
	if missing := uint64(calls - ends); missing > s.LostExits+s.Open {
		t.Errorf("%d calls have no end, but %d exits were lost and %d are open", missing, s.LostExits, s.Open)
	}
}

// A limit shows so many calls with their ends; the others are hidden, not lost.
func TestLimit(t *testing.T) { both(t, limit) }

func limit(t *testing.T, rt string) {
	got := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"flow::plain::serve"}, Limit: 7}, "server", "20")
	if got.err != nil {
		t.Fatal(got.err)
	}
	s := got.summary(t)
	if calls, ends := got.calls(); calls != 7 || ends != 7 || s.Shown != 7 {
		t.Errorf("%d calls and %d ends shown, %d said; want 7", calls, ends, s.Shown)
	}
	if s.ExitStatus != "killed by SIGTERM" {
		t.Errorf("the command: %s", s.ExitStatus)
	}
}

// Whatever ends the output, the run is closed: no probe stays, the command ends.
func TestOutputFails(t *testing.T) { both(t, outputFails) }

func outputFails(t *testing.T, rt string) {
	for name, run := range map[string]func(context.Context, Options) error{"trace": Trace, "count": Count} {
		t.Run(name, func(t *testing.T) {
			full := errors.New("disk full")
			failed := 0
			got := flow(t, run, func(e event.Event) error {
				switch e.(type) {
				case event.Call, event.Count:
					failed++
					return full
				}
				return nil
			}, Options{Runtime: rt, Patterns: []string{"serve"}, For: 2 * time.Second}, "server", "20")
			if !errors.Is(got.err, full) {
				t.Errorf("error: %v", got.err)
			}
			if failed != 1 {
				t.Errorf("%d events were emitted after one had failed", failed-1)
			}
			if s := got.summary(t); s.ExitStatus != "killed by SIGTERM" {
				t.Errorf("the command: %s", s.ExitStatus)
			}
		})
	}
}

// The command runs on if that is wished, without a probe.
func TestLeave(t *testing.T) { both(t, leave) }

func leave(t *testing.T, rt string) {
	got := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"serve"}, For: 200 * time.Millisecond, Leave: true}, "server", "2")
	if got.err != nil {
		t.Fatal(got.err)
	}
	if s := got.summary(t); s.ExitStatus != "left running" {
		t.Errorf("the command: %s", s.ExitStatus)
	}
}

// What matches nothing is a warning beside others; alone it ends the run, with
// everything that was not found.
func TestPatterns(t *testing.T) {
	got := flow(t, Count, nil, Options{Patterns: []string{"nosuch", "work"}}, "work", "3")
	if got.err != nil || len(got.warnings) != 1 {
		t.Errorf("error: %v, warnings: %q", got.err, got.warnings)
	}
	got = flow(t, Count, nil, Options{Patterns: []string{"nosuch", "nowhere"}}, "work", "3")
	if got.err == nil || !strings.Contains(got.err.Error(), "nosuch") || !strings.Contains(got.err.Error(), "nowhere") {
		t.Errorf("error: %v", got.err)
	}
	for pattern, want := range map[string]int{"nosuch": 3, "a::(": 2, "/(/": 2, "src/x.rs:3": 3} {
		if got := flow(t, Trace, nil, Options{Patterns: []string{pattern}}, "work", "3"); got.status() != want {
			t.Errorf("%s: %v does not exit with %d", pattern, got.err, want)
		}
	}
}

// Each of these is refused, with nothing started.
func TestTargets(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Command: []string{"nosuchcommand"}}, "command not found"},
		{Options{Command: []string{script}}, "a script"},
		{Options{Command: []string{t.TempDir()}}, "not a regular file"},
		{Options{Binary: "nosuchfile"}, "nosuchfile"},
		{Options{PIDs: []int{1<<31 - 1}}, "gone"},
		{Options{PIDs: []int{2}}, "kernel thread"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if c.o.Command == nil {
				needRoot(t) // else it is refused for want of permission first
			}
			c.o.Patterns = []string{"x"}
			got := flow(t, Trace, nil, c.o)
			if got.err == nil || !strings.Contains(got.err.Error(), c.want) || len(got.events) > 0 {
				t.Errorf("%v; want …%s…", got.err, c.want)
			}
		})
	}
}

// Ctrl-C while files are being read: the command is not started for nothing.
func TestInterrupted(t *testing.T) {
	var ran bool
	got := flow(t, func(_ context.Context, o Options) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return Trace(ctx, o)
	}, func(event.Event) error { ran = true; return nil }, Options{Patterns: []string{"work"}}, "work", "3")
	if !errors.Is(got.err, errInterrupted) || ran {
		t.Errorf("error: %v; events: %v", got.err, got.events)
	}
}

// Probes that are in already, another tracer's, are not taken for the program's code,
// and not written over.
func TestTwoAtOnce(t *testing.T) {
	needRoot(t)
	file := everywhere(t)
	for _, rt := range []string{Kernel, User, Auto} {
		t.Run(rt, func(t *testing.T) {
			var second *told
			first := flow(t, Trace, func(e event.Event) error {
				if _, ok := e.(event.Attached); ok {
					second = flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"work"}, Command: []string{file, "work", "3"}})
				}
				return nil
			}, Options{Patterns: []string{"work"}, Binary: file, For: 500 * time.Millisecond})
			if first.err != nil || second == nil {
				t.Fatalf("first: %v, second: %+v", first.err, second)
			}
			if rt == User { // forced: what can't be planted is left out by name
				told := strings.Join(second.warnings, "\n")
				if second.err != nil {
					told = second.err.Error()
				}
				if calls, _ := second.calls(); calls != 0 || !strings.Contains(told, "breakpoint") {
					t.Errorf("over the kernel's breakpoints: %d calls, %s", calls, told)
				}
				if calls, ends := first.calls(); calls != ends { // none if the command did not run
					t.Errorf("the first sees %d calls and %d ends", calls, ends)
				}
				return
			}
			if second.err != nil || len(second.warnings) > 0 {
				t.Fatalf("second: %+v", second)
			}
			if s := second.summary(t); s.Runtime != Kernel {
				t.Errorf("%s took the %s runtime", rt, s.Runtime)
			}
			if rt == Auto && (len(second.notes) != 1 || !strings.HasPrefix(second.notes[0], "kernel runtime: ")) {
				t.Errorf("notes: %q", second.notes)
			}
			if calls, ends := second.calls(); calls != 1 || ends != 1 {
				t.Errorf("%d calls and %d ends, want one of each", calls, ends)
			}
		})
	}
}

// A file that the process does not run is a library that it may load yet.
func TestNotMapped(t *testing.T) {
	needRoot(t)
	got := flow(t, Count, nil, Options{Runtime: Kernel, Patterns: []string{"serve"}, PIDs: []int{os.Getpid()},
		Binary: fixture.Build(t, "flow", fixture.Release), For: 100 * time.Millisecond})
	if got.err != nil || len(got.notes) != 1 || !strings.Contains(got.notes[0], "has not mapped") {
		t.Errorf("error: %v, notes: %q", got.err, got.notes)
	}
	got.summary(t)
}

func TestNotes(t *testing.T) {
	var got []string
	n := notes{inlined: map[string]*inlined{}}
	for range 6 {
		n.add("f never returns")
	}
	for i := range 6 {
		n.add(strconv.Itoa(i))
	}
	note := func(format string, _ ...any) { got = append(got, format) }
	n.print(note, false)
	if len(got) != maxNotes+1 {
		t.Errorf("%d notes, want %d", len(got), maxNotes+1)
	}
	got = nil
	n.print(note, true)
	if len(got) != 7 {
		t.Errorf("%d notes, want 7", len(got))
	}
}
