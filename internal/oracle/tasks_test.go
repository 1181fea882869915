package oracle

import (
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
)

// TestTasks: closures show what they capture, futures the state that they are in, and
// polls are calls of the async function that say which they are.
func TestTasks(t *testing.T) {
	each(t, profiles, func(t *testing.T, p fixture.Profile, rt string) {
		right := 200
		if p == fixture.Debug {
			right = 370
		}
		tasks(t, p, rt, fixture.Toolchain{}, right)
	})
	for _, c := range []struct {
		p     fixture.Profile
		tc    fixture.Toolchain
		right int
	}{
		{fixture.Debug, fixture.Nightly, 370},
		{fixture.Release, fixture.Nightly, 200},
		{fixture.Debug, fixture.Debian12, 200},
		{fixture.Release, fixture.Debian12, 100},
	} {
		t.Run(c.p.Name+"-"+c.tc.Name+"/user", func(t *testing.T) { tasks(t, c.p, "user", c.tc, c.right) })
	}
}

func tasks(t *testing.T, p fixture.Profile, rt string, tc fixture.Toolchain, right int) {
	debug, old := p == fixture.Debug, tc == fixture.Debian12
	truth, events := run(t, rt, "trace", "tasks::**", "--", fixture.Build(t, "tasks", p.On(tc)))
	for i := range truth {
		// Before 1.64 bodies return a GeneratorState, which is not the poll's result.
		if l := &truth[i]; old && l.Kind == fixture.Ret && strings.HasPrefix(l.Path, "tasks::polls::") {
			l.Text = ""
		}
	}
	// Those of what is inlined are there, though not always one by one.
	v := check(t, truth, events, func(path string, _, _ int) bool {
		return !debug && path == "tasks::polls::small"
	})
	if v.Right < right {
		t.Errorf("only %d values were right", v.Right)
	}
	for _, g := range v.Missing {
		switch g.Why {
		case "unsupported: it may have been moved or dropped since the first poll",
			"unsupported: several variables of the body have its name":
			// An argument is where it was passed only until the first poll.
		default:
			if debug && !old {
				t.Errorf("%s: %s", g.Where, g.Why)
			}
		}
	}
}
