package oracle

import (
	"testing"

	"ferrotrace/internal/fixture"
)

// TestStd: types of std, whose contents are not their fields, in a build that TestValues
// does not make, and cut by limits.
func TestStd(t *testing.T) {
	each(t, []fixture.Profile{fixture.Debug, fixture.OptS}, func(t *testing.T, p fixture.Profile, rt string) {
		for _, module := range []string{"cells", "shared", "tables"} {
			for _, limits := range [][]string{
				{"--max-items", "64"}, {"--max-items", "3", "--max-str", "2"}, {"--max-items", "0"},
				{"--depth", "1"}, {"--depth", "2"}, {"--depth", "0"}, {"--max-items", "100000", "--max-str", "100000"},
			} {
				t.Run(module, func(t *testing.T) {
					args := append(limits[:len(limits):len(limits)], "values::"+module+"::**", "--", fixture.Build(t, "values", p), module)
					truth, events := run(t, rt, "trace", args...)
					if v := check(t, truth, events, nil); v.Right+v.Cut < 35 {
						t.Error("little was compared")
					}
				})
			}
		}
	})
}
