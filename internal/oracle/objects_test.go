package oracle

import (
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
)

// TestObjects: trait objects, and errors that hold them, in builds whose vtables are
// found in other ways, or merged.
func TestObjects(t *testing.T) {
	profiles := []fixture.Profile{fixture.LTO, fixture.UnpackedDebug, fixture.Static}
	each(t, profiles, func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "values::objects::**", "--", fixture.Build(t, "values", p), "objects")
		v := check(t, truth, events, nil)
		if v.Right < 300 {
			t.Errorf("only %d values were right", v.Right)
		}
		if p == fixture.UnpackedDebug && v.Cut > 0 {
			t.Errorf("%d values in part", v.Cut)
		}
		for _, m := range v.Missing {
			if rt == "user" && p == fixture.UnpackedDebug && !strings.HasPrefix(m.Where, "values::objects::broken::") {
				t.Errorf("missing: %v", m)
			}
		}
	})
	// What limits cut is told so.
	for _, rt := range runtimes {
		for _, limits := range [][]string{{"--depth", "0"}, {"--depth", "1"}, {"--depth", "3"}, {"--max-items", "1", "--max-str", "1"}} {
			t.Run(limits[0]+limits[1]+"/"+rt, func(t *testing.T) {
				args := append(slices.Clone(limits), "values::objects::**", "--", fixture.Build(t, "values", fixture.Debug), "objects")
				truth, events := run(t, rt, "trace", args...)
				if v := check(t, truth, events, nil); v.Right+v.Cut < 100 {
					t.Error("little was compared")
				}
			})
		}
	}
}
