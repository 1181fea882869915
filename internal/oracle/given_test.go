package oracle

import (
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/index"
)

// signatures are patterns with the signatures of a crate's functions, as far as they can
// be given for a build without debug info: the build with debug info knows them.
func signatures(t *testing.T, crate string, typed, plain fixture.Profile) (patterns []string) {
	t.Helper()
	from, err := index.Open(fixture.Build(t, crate, typed), "")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := index.Open(fixture.Build(t, crate, plain), "")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	seen := map[string]int{}
	for _, fn := range from.Functions() {
		seen[fn.Name]++
	}
	refused := 0
	for _, fn := range from.Functions() {
		params, ok := strings.CutPrefix(fn.Type(), "fn")
		if !strings.Contains(fn.Name, crate+"::") || !ok || seen[fn.Name] > 1 || strings.Contains(fn.Name, "::<") || strings.Contains(fn.Name, "{") {
			continue
		}
		p, err := index.ParsePattern(fn.Name + params)
		if err != nil {
			t.Errorf("%s%s: %v", fn.Name, params, err)
			continue
		}
		found := to.Find(p)
		if note, err := to.Give(p, found); err != nil || note != "" {
			refused++
		} else if len(found) > 0 {
			patterns = append(patterns, p.Text)
		}
	}
	t.Logf("%d signatures, %d refused", len(patterns), refused)
	return patterns
}

// TestGiven: what a signature that is right makes of the registers of a program without
// debug info is what the program prints, whatever the optimiser has made of it.
func TestGiven(t *testing.T) {
	for _, c := range []struct {
		crate string
		right int
		args  []string
	}{{"values", 200, nil}, {"traps", 10, nil}, {"flow", 10, []string{"recursion"}}, {"flow", 10, []string{"exits"}}} {
		t.Run(strings.Join(append([]string{c.crate}, c.args...), " "), func(t *testing.T) {
			each(t, []fixture.Profile{fixture.Plain}, func(t *testing.T, p fixture.Profile, rt string) {
				patterns := signatures(t, c.crate, fixture.Release, p)
				args := append(patterns, "--", fixture.Build(t, c.crate, p))
				truth, events := run(t, rt, "trace", append(args, c.args...)...)
				v := check(t, truth, events, func(path string, told, traced int) bool {
					// Inlined calls have no name in such a file; merged ones another's.
					return traced < told || strings.HasPrefix(path, "traps::merged::") || path == "traps::arguments::tail_recursive"
				})
				if v.Right < c.right {
					t.Errorf("only %d values were right", v.Right)
				}
				for _, g := range v.Missing {
					t.Log(g)
				}
				for _, e := range events {
					if c, ok := e.(event.Call); ok {
						for _, a := range c.Args {
							if !a.Given {
								t.Errorf("%s: %+v is not marked as given", c.Function, a)
							}
						}
					}
				}
			})
		})
	}
}
