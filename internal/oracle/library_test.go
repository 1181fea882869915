package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

// beside copies files into one folder of the test's own, and returns their paths there.
func beside(t *testing.T, files ...string) (copies []string) {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, to)
	}
	return copies
}

// TestLibrary: a library that the program loads and unloads while it is traced, and one
// that it is linked with, on both runtimes.
func TestLibrary(t *testing.T) {
	each(t, profiles[:2], func(t *testing.T, p fixture.Profile, rt string) {
		t.Run("dlopen", func(t *testing.T) {
			files := beside(t, fixture.Build(t, "host", p), fixture.Library(t, "plugin", p))
			truth, events := run(t, rt, "trace", "plugin::work::*", "-b", files[1], "--", files[0], "again", files[1], "4")
			for _, e := range events {
				// It is inlined in one place, and has code of its own.
				if c, ok := e.(event.Call); ok && strings.HasSuffix(c.Function, "::fmt") && (len(c.Args) != 2 || c.Args[0].Name != "self") {
					t.Errorf("%+v", c)
				}
			}
			if v := check(t, truth, events, nil); v.Calls < 15 || v.Right < 30 {
				t.Errorf("only %d calls and %d values were compared", v.Calls, v.Right)
			}
		})
		t.Run("unloaded", func(t *testing.T) {
			files := beside(t, fixture.Build(t, "host", p), fixture.Library(t, "plugin", p))
			truth, events := run(t, rt, "count", "plugin::work::twice", "-b", files[1], "--", files[0], "quiet", files[1], "30")
			i := slices.IndexFunc(events, func(e event.Event) bool { _, ok := e.(event.Count); return ok })
			if i < 0 || len(truth) != 1 || fmt.Sprint(events[i].(event.Count).Count) != truth[0].Text {
				t.Errorf("%v of %v", events, truth)
			}
		})
		t.Run("linked", func(t *testing.T) {
			files := beside(t, fixture.Build(t, "linked", p), fixture.Library(t, "shared", p))
			truth, events := run(t, rt, "trace", "shared::double", "shared::greet", "shared::pair", "-b", files[1], "--", files[0])
			truth = slices.DeleteFunc(truth, func(l fixture.Line) bool { return l.Path == "linked::own" })
			if v := check(t, truth, events, nil); v.Calls != 3 || v.Right < 6 {
				t.Errorf("%d calls, %d values right", v.Calls, v.Right)
			}
		})
	})
}
