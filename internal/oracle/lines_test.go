package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
	each(t, profiles, func(t *testing.T, p fixture.Profile, rt string) {
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
							if i == 0 {
								t.Logf("%s: %s is %s", path, a.Name, lines[i].Locals[n].Missing)
							}
						}
					case lines[i].Locals[n].Text != a.Text:
						t.Errorf("%s: %s is shown as %s, and is %s", path, a.Name, lines[i].Locals[n].Text, a.Text)
					default:
						right++
					}
				}
			}
		}
		t.Logf("%d lines, %d passes, %d values right, missing %v, %d lines uneven", len(patterns), len(truth), right, missing, uneven)
		least := 25
		if p.Name == fixture.Debug.Name {
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
