package index

import (
	"slices"
	"testing"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/rust/path"
)

// TestFindNamesEnough: by a pattern, those functions are found that would be if all had
// their names before.
func TestFindNamesEnough(t *testing.T) {
	for _, p := range []fixture.Profile{fixture.Debug, fixture.LTO, fixture.ReleaseV0, fixture.Plain, fixture.Limited} {
		t.Run(p.Name, func(t *testing.T) {
			ix := open(t, fixture.Build(t, "flow", p))
			verbatim := 0
			for _, f := range ix.Functions() {
				for _, name := range append([]string{f.Name}, f.Aliases...) {
					pattern, err := path.ParsePattern(name)
					if err != nil || pattern.MatchName(name) == path.NoMatch || !isVerbatim(pattern.Hint()) {
						continue
					}
					verbatim++
					if !ix.mentions(f.is, pattern.Hint()) {
						t.Errorf("%s is not found by %q", name, pattern.Hint())
					}
				}
			}
			if verbatim < 500 {
				t.Errorf("only %d of %d names are found by what is in symbols", verbatim, len(ix.Functions()))
			}

			for _, text := range []string{"risky", "flow::panics::risky", "fmt", "*::drop_in_place*", "<* as Debug>::fmt", "Formatter::pad", "{closure#0}", "/panic/"} {
				pattern, err := ParsePattern(text)
				if err != nil {
					t.Fatal(err)
				}
				fresh := open(t, ix.File.Path)
				want, got := namesOf(find(pattern, ix.Functions())), namesOf(fresh.Find(pattern))
				if len(want) == 0 && p != fixture.Plain && p != fixture.Limited || !slices.Equal(got, want) {
					t.Errorf("%s finds %q, not %q", text, got, want)
				}
			}
		})
	}
}

func namesOf(functions []*Function) (names []string) {
	for _, f := range functions {
		names = append(names, f.Name)
	}
	return names
}
