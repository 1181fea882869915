package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

var ferrotrace = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ferrotrace-oracle")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ferrotrace")
	out, err := exec.Command("go", "build", "-o", bin, "ferrotrace/cmd/ferrotrace").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

func tool(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, for the kernel's uprobes")
	}
	bin, err := ferrotrace()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := ferrotrace(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

var runtimes = []string{"kernel", "user"}

// run traces or counts on a runtime and returns what the program told and what
// ferrotrace did.
func run(t *testing.T, rt, verb string, args ...string) (truth []fixture.Line, events []event.Event) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "events")
	if i := slices.Index(args, "--"); rt == "kernel" && !slices.Contains(args, "-b") { // a test with libraries has its own copies
		args = slices.Clone(args)
		args[i+1] = fixture.Private(t, args[i+1])
	}
	all := append([]string{verb, "--runtime", rt, "-o", "json", "--out", file, "-q"}, args...)
	cmd := exec.Command(tool(t), all...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ferrotrace %s: %v\n%s", strings.Join(all, " "), err, errs.Bytes())
	}
	truth, err := fixture.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		e, err := parse(line)
		if err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if e != nil {
			events = append(events, e)
		}
	}
	return truth, events
}

type jsonValue struct {
	Name      string  `json:"name"`
	Type      string  `json:"type"`
	Text      *string `json:"text"`
	Missing   string  `json:"missing"`
	Truncated bool    `json:"truncated"`
	Partial   bool    `json:"partial"`
	Given     bool    `json:"given"`
}

func (v jsonValue) value() event.Value {
	out := event.Value{Name: v.Name, Rust: v.Type, Missing: v.Missing, Truncated: v.Truncated, Partial: v.Partial, Given: v.Given}
	if v.Text != nil {
		out.Text = *v.Text
	}
	return out
}

// parse reads back what a test needs of an event.
func parse(line []byte) (event.Event, error) {
	var e struct {
		Type string `json:"type"`
		Data struct {
			ID       uint64      `json:"id"`
			TID      uint32      `json:"tid"`
			Function string      `json:"function"`
			Inlined  bool        `json:"inlined"`
			Exact    bool        `json:"exact"`
			File     string      `json:"file"`
			Line     int         `json:"line"`
			Poll     uint64      `json:"poll"`
			Args     []jsonValue `json:"args"`
			Locals   []jsonValue `json:"locals"`
			Value    *jsonValue  `json:"value"`

			Count, Calls, Shown, Hidden, Lost, Open uint64
			LostExits                               uint64 `json:"lost_exits"`
		} `json:"data"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, err
	}
	d := &e.Data
	switch e.Type {
	case "call":
		c := event.Call{ID: d.ID, Thread: event.Thread{TID: d.TID}, Function: d.Function, Poll: d.Poll}
		if d.Inlined {
			c.Inline = &event.Inline{Exact: d.Exact}
		}
		for _, a := range d.Args {
			c.Args = append(c.Args, a.value())
		}
		return c, nil
	case "line":
		l := event.Line{ID: d.ID, Thread: event.Thread{TID: d.TID}, Function: d.Function, Source: event.Place{File: d.File, Line: d.Line}, Exact: d.Exact}
		for _, a := range d.Locals {
			l.Locals = append(l.Locals, a.value())
		}
		return l, nil
	case "return":
		r := event.Return{ID: d.ID, Function: d.Function}
		if d.Value != nil {
			v := d.Value.value()
			r.Value = &v
		}
		return r, nil
	case "unwind":
		return event.Unwind{ID: d.ID}, nil
	case "ended":
		return event.Ended{ID: d.ID}, nil
	case "count":
		return event.Count{Function: d.Function, Count: d.Count, Exact: d.Exact}, nil
	case "summary":
		return event.Summary{Calls: d.Calls, Shown: d.Shown, Hidden: d.Hidden, Lost: d.Lost, LostExits: d.LostExits, Open: d.Open}, nil
	}
	return nil, nil
}

// check reports every lie of a trace, every call too few or too many that uneven does
// not excuse, and every record lost.
func check(t *testing.T, truth []fixture.Line, events []event.Event, uneven func(path string, told, traced int) bool) fixture.Verdict {
	t.Helper()
	v := fixture.Compare(truth, events)
	for _, w := range v.Wrong {
		t.Error(w)
	}
	for _, u := range v.Uneven {
		if uneven == nil || !uneven(u.Path, u.Told, u.Traced) {
			t.Errorf("%s: %d calls seen, %d made", u.Path, u.Traced, u.Told)
		}
	}
	for _, e := range events {
		if s, ok := e.(event.Summary); ok {
			if s.Lost+s.LostExits > 0 || s.Calls != s.Shown {
				t.Errorf("%+v", s)
			}
		}
	}
	why := map[string]int{}
	for _, g := range v.Missing {
		why[g.Why]++
	}
	t.Logf("%d calls, %d values right, %d in part, %d missing, %d wrong; missing: %v", v.Calls, v.Right, v.Cut, len(v.Missing), len(v.Wrong), why)
	return v
}

var profiles = []fixture.Profile{fixture.Debug, fixture.Release, fixture.ReleaseDWARF5, fixture.ReleaseV0}

// each runs a test for each profile on each runtime.
func each(t *testing.T, ps []fixture.Profile, f func(t *testing.T, p fixture.Profile, rt string)) {
	for _, p := range ps {
		for _, rt := range runtimes {
			t.Run(p.Name+"/"+rt, func(t *testing.T) { f(t, p, rt) })
		}
	}
}

// TestValues: what functions of every kind of argument and result are shown to get
// and give is what they print.
func TestValues(t *testing.T) {
	each(t, profiles, func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "values::**", "--", fixture.Build(t, "values", p))
		v := check(t, truth, events, func(path string, _, _ int) bool {
			// v0 symbols call it <values::traits::Cat as values::traits::Speak>::whisper.
			return p == fixture.ReleaseV0 && path == "values::traits::Speak::whisper"
		})
		if v.Right < 300 {
			t.Errorf("only %d values were right", v.Right)
		}
	})
}

// TestTraps: where the optimiser has taken things away, what is shown is right or
// said to be missing.
func TestTraps(t *testing.T) {
	each(t, append(slices.Clone(profiles), fixture.OptS, fixture.LTO, fixture.FramePointers), func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "traps::**", "--", fixture.Build(t, "traps", p))
		// Of functions that LLVM has merged one may be left, in code, symbols and debug
		// info: nothing tells that calls of it were another's.
		truth = slices.DeleteFunc(truth, func(l fixture.Line) bool {
			return l.Path == "traps::merged::generic" || strings.HasPrefix(l.Path, "traps::merged::generic::")
		})
		check(t, truth, events, func(path string, told, traced int) bool {
			// The inner calls of the recursion are not told.
			return strings.HasPrefix(path, "traps::merged::") || path == "traps::arguments::tail_recursive" && traced > told
		})
	})
}

// TestFlow: recursion, threads, panics and other ends.
func TestFlow(t *testing.T) {
	each(t, append(profiles[:2:2], fixture.Musl), func(t *testing.T, p fixture.Profile, rt string) {
		for _, story := range []string{"recursion", "exits", "threads", "panics", "jump", "die", "signal"} {
			t.Run(story, func(t *testing.T) {
				truth, events := run(t, rt, "trace", "flow::**", "--", fixture.Build(t, "flow", p), story)
				if v := check(t, truth, events, nil); v.Calls == 0 {
					t.Error("no call was compared")
				}
			})
		}
	})
}

// TestCounts: the calls of inlined functions are counted right or said to be inexact.
func TestCounts(t *testing.T) {
	each(t, append(slices.Clone(profiles), fixture.OptS), func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "count", "traps::**", "--", fixture.Build(t, "traps", p))
		counts := map[string]event.Count{}
		for _, e := range events {
			if c, ok := e.(event.Count); ok {
				counts[c.Function] = c
			}
		}
		compared, inexact := 0, 0
		for _, l := range truth {
			if l.Kind != fixture.Count {
				continue
			}
			c, ok := counts[l.Path]
			switch {
			case !ok:
				t.Logf("%s: not there, %s calls made", l.Path, l.Text)
			case !c.Exact:
				inexact++
				t.Logf("%s: ≈%d, %s calls made", l.Path, c.Count, l.Text)
			case fmt.Sprint(c.Count) != l.Text:
				t.Errorf("%s: %d calls counted, %s made", l.Path, c.Count, l.Text)
			default:
				compared++
			}
		}
		t.Logf("%d exact and right, %d inexact", compared, inexact)
		if compared+inexact == 0 {
			t.Error("nothing was compared")
		}
	})
}

// TestKinds: files of every kind that linkers and profiles make.
func TestKinds(t *testing.T) {
	each(t, []fixture.Profile{fixture.NonPIE, fixture.Static, fixture.StaticPIE, fixture.DebugDWARF5, fixture.Opt1, fixture.Abort,
		fixture.Packed, fixture.PackedDWARF5, fixture.Unpacked, fixture.UnpackedDebug,
		fixture.OptZ, fixture.Thin, fixture.OneUnit, fixture.MuslDebug, fixture.MuslNonPIE, fixture.LTO, fixture.FramePointers}, func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "flow::**", "--", fixture.Build(t, "flow", p), "recursion")
		if v := check(t, truth, events, nil); v.Calls == 0 || v.Right == 0 {
			t.Error("nothing was compared")
		}
	})
	// Without types there are calls and their ends, and nothing is made up.
	each(t, []fixture.Profile{fixture.Limited, fixture.Plain}, func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "flow::plain::**", "--", fixture.Build(t, "flow", p), "recursion")
		for i := range truth {
			truth[i].Args = nil
			truth[i].Text = ""
		}
		if v := check(t, truth, events, nil); v.Calls == 0 || v.Ends == 0 || v.Right != 0 {
			t.Errorf("%d calls, %d ends, %d values", v.Calls, v.Ends, v.Right)
		}
	})
}
