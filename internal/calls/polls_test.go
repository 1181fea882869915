package calls

import (
	"testing"
	"time"

	"ferrotrace/internal/event"
)

// TestPolls: a future's polls are counted from its first one on, and not at all if that
// was not seen.
func TestPolls(t *testing.T) {
	var got []uint64
	j := New(stacksAt{{0x1000, 0x9000}}, func(uint64) (t time.Time) { return }, func(e event.Event) {
		if c, ok := e.(event.Call); ok {
			got = append(got, c.Poll)
		}
	})
	site := func(name string, inline *event.Inline) *Site {
		s := entry(1, name)
		s.Polls, s.Exits, s.Inline = true, false, inline
		return s
	}
	f, g := site("f", nil), site("g", nil)
	exact, inexact := site("f", &event.Inline{Exact: true}), site("f", &event.Inline{})
	poll := func(s *Site, future uint64, first bool, want uint64) {
		t.Helper()
		got = nil
		j.Add(Record{Site: s, CFA: 0x2000, Future: future, First: first, Thread: event.Thread{PID: 1, TID: 1}})
		if len(got) != 1 || got[0] != want {
			t.Errorf("%v, not poll %d", got, want)
		}
	}
	poll(f, 0x10, false, 0) // polled before the trace began
	poll(f, 0x20, true, 1)
	poll(f, 0x20, false, 2)
	poll(g, 0x20, true, 1) // what f awaits may begin where f's future does
	poll(exact, 0x20, false, 3)
	poll(inexact, 0x20, false, 0)
	poll(f, 0x20, true, 1) // another one in its place
	poll(f, 0x20, false, 2)
	poll(f, 0, true, 0) // unknown
	j.ForgetPolls()
	poll(f, 0x20, false, 0)
	for i := range uint64(maxFutures) {
		poll(f, 0x1000+i, true, 1)
	}
	poll(f, 0x1000, false, 2)
	poll(f, 0x30, true, 1)
	poll(f, 0x1000, false, 0) // it had to be forgotten
	poll(f, 0x1001, false, 2)
	if n := len(j.polls.n); n != maxFutures {
		t.Errorf("%d futures are remembered", n)
	}
}
