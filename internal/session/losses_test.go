package session

import "testing"

type counters map[uint32]uint64

func (c counters) Sum(i uint32) (uint64, error) { return c[i], nil }

func TestLossesSince(t *testing.T) {
	c := counters{}
	var now uint64
	l := losses{counters: c, clock: func() uint64 { return now }}
	look := func(at uint64) {
		now = at
		l.look()
	}
	look(10)
	if l.since(0) || l.since(10) {
		t.Error("nothing was lost")
	}
	c[4] = 3 // between 10 and 20
	if !l.since(10) {
		t.Error("a loss that was not looked for yet")
	}
	look(20)
	if !l.since(15) || l.since(20) {
		t.Error("what was lost before 20 was not lost since")
	}
	c[7]++
	if !l.since(20) {
		t.Error("a mark was lost")
	}
	for i := range uint64(5 * maxLosses) {
		c[4]++
		look(30 + i)
	}
	if len(l.seen) > maxLosses || !l.since(25) || l.since(30+5*maxLosses) {
		t.Errorf("%d losses are remembered", len(l.seen))
	}
}
