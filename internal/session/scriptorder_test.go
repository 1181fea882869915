package session

import (
	"slices"
	"testing"

	"ferrotrace/internal/fixture"
)

// Handlers at one address run in the order of the script.
func TestOrder(t *testing.T) { both(t, order) }

func order(t *testing.T, rt string) {
	program := fixture.Private(t, fixture.Build(t, "sdt", fixture.Release))
	got := script(t, Options{Runtime: rt, Command: []string{program, "count", "1"}}, `
usdt:*:priced { printf("1\n"); }
usdt:*:priced, usdt:*:priced { printf("2\n"); }
usdt:*:p* { printf("3\n"); }`, nil)
	if got.err != nil {
		t.Fatal(got.err)
	}
	if lines := got.lines(); !slices.Equal(lines, []string{"1", "2", "2", "3"}) {
		t.Errorf("got %q", lines)
	}
}
