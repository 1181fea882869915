package index

import (
	"slices"
	"testing"

	"ferrotrace/internal/fixture"
)

// TestAsyncFunctions: the path of an async function is its body's, in every mangling and
// whatever debug info there is, and that of what makes its future ends in {new}.
func TestAsyncFunctions(t *testing.T) {
	for _, p := range []fixture.Profile{fixture.Debug, fixture.Release, fixture.ReleaseV0, fixture.Limited} {
		t.Run(p.Name, func(t *testing.T) {
			ix := open(t, fixture.Build(t, "tasks", p))
			for pattern, want := range map[string][]string{
				"polls::fetch":                        {"tasks::polls::fetch"},
				"tasks::polls::Server::serve":         {"tasks::polls::Server::serve"},
				"tasks::polls::generic":               {"tasks::polls::generic::<(u8, char)>"},
				"tasks::polls::fetch::{async_fn#0}":   nil,
				"tasks::polls::generic::{async_fn#0}": nil,
			} {
				ps, err := ParsePattern(pattern)
				if err != nil {
					t.Fatal(err)
				}
				if got := namesOf(ix.Find(ps)); !slices.Equal(got, want) {
					t.Errorf("%s finds %q, not %q", pattern, got, want)
				}
			}
			if p != fixture.Debug {
				return
			}
			for pattern, want := range map[string][]string{
				"fetch::{new}":                 {"tasks::polls::fetch::{new}"},
				"tasks::polls::generic::{new}": {"tasks::polls::generic::<(u8, char)>::{new}"},
				"Server::serve::{new}":         {"tasks::polls::Server::serve::{new}", "tasks::states::Server::serve::{new}"},
			} {
				ps, err := ParsePattern(pattern)
				if err != nil {
					t.Fatal(err)
				}
				got := ix.Find(ps)
				if !slices.Equal(namesOf(got), want) {
					t.Fatalf("%s finds %q, not %q", pattern, namesOf(got), want)
				}
			}
		})
	}
}
