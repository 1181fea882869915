package cli

import (
	"bytes"
	"strings"
	"testing"

	"ferrotrace/internal/event"
)

// A table is drawn over the one before, and never larger than the terminal.
func TestLive(t *testing.T) {
	var b bytes.Buffer
	l := &live{w: &b, size: func() (int, int) { return 20, 4 }}
	l.draw([]event.Event{event.Count{Function: "a::b", Count: 1, Exact: true}})
	if want := "COUNT  FUNCTION\n    1  a::b\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	rows := []event.Event{event.Count{Function: "a::" + strings.Repeat("long", 10), Count: 9, Exact: true}}
	for range 9 {
		rows = append(rows, event.Count{Function: "c", Count: 1, Exact: true})
	}
	l.draw(rows)
	if want := "\x1b[2A\r\x1b[JCOUNT  FUNCTION\n    9  a::longlongl\n    1  c\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	// What is said on standard error takes its place.
	p := newProgress(&b, false)
	p.live = l
	p.Write([]byte("warning\n"))
	l.erase()
	if want := "\x1b[3A\r\x1b[Jwarning\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	(*live)(nil).erase()
}
