package oracle

import (
	"testing"

	"ferrotrace/internal/fixture"
)

// TestTasks: closures show what they capture, futures the state that they are in, and
// polls are calls of the async function that say which they are.
func TestTasks(t *testing.T) {
	each(t, profiles, func(t *testing.T, p fixture.Profile, rt string) {
		truth, events := run(t, rt, "trace", "tasks::**", "--", fixture.Build(t, "tasks", p))
		// Those of what is inlined are there, though not always one by one.
		v := check(t, truth, events, func(path string, _, _ int) bool {
			return p != fixture.Debug && path == "tasks::polls::small"
		})
		right := 200
		if p == fixture.Debug {
			right = 330
			// An argument is where it was passed only until the first poll.
			gone := map[string]bool{
				"unsupported: it may have been moved or dropped since the first poll": true,
				"unsupported: several variables of the body have its name":            true,
			}
			for _, g := range v.Missing {
				if !gone[g.Why] {
					t.Errorf("%s: %s", g.Where, g.Why)
				}
			}
		}
		if v.Right < right {
			t.Errorf("only %d values were right", v.Right)
		}
	})
}
