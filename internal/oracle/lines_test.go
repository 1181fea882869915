package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

// gone is what the fixture tells of a variable that has no value where it is told of:
// one that is not initialised yet, or whose value has been moved away.
const gone = "<gone>"

// TestLines: control comes to the lines that the program tells of as often as it says,
// and the variables in scope there have the values that it prints. One that has no value
// is not shown with any.
func TestLines(t *testing.T) {
	ps := append(slices.Clone(profiles), fixture.DebugDWARF5, fixture.Opt1, fixture.OptS, fixture.LTO, fixture.FramePointers)
	each(t, ps, func(t *testing.T, p fixture.Profile, rt string) {
		debug := p == fixture.Debug || p == fixture.DebugDWARF5
		program := fixture.Build(t, "lines", p)
		var patterns []string
		for _, l := range fixture.Run(t, program) {
			if !slices.Contains(patterns, l.Path) {
				patterns = append(patterns, l.Path)
			}
		}
		truth, events := run(t, rt, "trace", append(append([]string{"--locals"}, patterns...), "--", program)...)
		told := map[string][]fixture.Line{}
		for _, l := range truth {
			told[l.Path] = append(told[l.Path], l)
		}
		seen := map[string][]event.Line{}
		for _, e := range events {
			switch e := e.(type) {
			case event.Line:
				path := fmt.Sprintf("%s:%d", strings.TrimPrefix(e.Source.File, "lines/"), e.Source.Line)
				seen[path] = append(seen[path], e)
			case event.Summary:
				if e.Lost+e.LostExits > 0 || int(e.Calls) != len(truth) && !slices.ContainsFunc(events, inexact) {
					t.Errorf("%+v", e)
				}
			}
		}
		right, missing, uneven := 0, map[string]int{}, 0
		for _, path := range patterns {
			lines := seen[path]
			if len(lines) != len(told[path]) {
				uneven++
				if len(lines) == 0 || !slices.ContainsFunc(lines, func(e event.Line) bool { return !e.Exact }) {
					t.Errorf("%s: %d passes seen, %d made", path, len(lines), len(told[path]))
				}
				continue
			}
			for i, l := range told[path] {
				for _, a := range l.Args {
					n := slices.IndexFunc(lines[i].Locals, func(v event.Value) bool { return v.Name == a.Name })
					switch {
					case n < 0 && a.Text != gone:
						missing["not in scope"]++
						t.Logf("%s: no %s", path, a.Name)
					case n < 0:
					case lines[i].Locals[n].Missing != "":
						if a.Text != gone {
							missing[lines[i].Locals[n].Missing]++
							if i == 0 && debug {
								t.Logf("%s: %s is %s", path, a.Name, lines[i].Locals[n].Missing)
							}
						}
					case lines[i].Locals[n].Partial && a.Text != gone && !debug:
						missing["in part"]++
					case lines[i].Locals[n].Text != a.Text:
						t.Errorf("%s: %s is shown as %s, and is %s", path, a.Name, lines[i].Locals[n].Text, a.Text)
					default:
						right++
					}
				}
			}
		}
		t.Logf("%d lines, %d passes, %d values right, missing %v, %d lines uneven", len(patterns), len(truth), right, missing, uneven)
		least := 50
		if debug {
			least = 180
			if len(missing)+uneven > 0 {
				t.Error("in a debug build every pass is seen, and every variable that is in use has its value")
			}
		}
		if right < least {
			t.Errorf("only %d values", right)
		}
	})
}

func inexact(e event.Event) bool {
	l, ok := e.(event.Line)
	return ok && !l.Exact
}

// TestEveryLine: with a probe on every line that has code, of the program and of what it
// has from the standard library, the program does what it does without.
func TestEveryLine(t *testing.T) {
	each(t, []fixture.Profile{fixture.Debug, fixture.Release}, func(t *testing.T, p fixture.Profile, rt string) {
		program := fixture.Build(t, "lines", p)
		args := []string{"--locals"}
		for n := 1; n < 360; n++ {
			args = append(args, fmt.Sprintf("lines/src/main.rs:%d", n))
			if rt == "user" {
				args = append(args, fmt.Sprintf("core/src/fmt/mod.rs:%d", n))
			}
		}
		want := fixture.Run(t, program)
		got, events := run(t, rt, "trace", append(args, "--", program)...)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		n := 0
		for _, e := range events {
			switch e := e.(type) {
			case event.Line:
				n++
			case event.Summary:
				if e.Lost+e.LostExits > 0 {
					t.Errorf("%+v", e)
				}
			}
		}
		if n < 200 {
			t.Errorf("%d lines seen", n)
		}
	})
}
