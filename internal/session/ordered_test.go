package session

import (
	"errors"
	"slices"
	"testing"
)

func TestOrdered(t *testing.T) {
	o := newOrdered(func(v *uint64) uint64 { return *v })
	var got []uint64
	take := func(before uint64) {
		if err := o.take(before, func(v *uint64) error { got = append(got, *v); return nil }); err != nil {
			t.Error(err)
		}
	}
	for _, v := range []uint64{5, 3, 9, 4} {
		if _, due := o.add(v); due {
			t.Error("four are no flood")
		}
	}
	take(5)
	o.add(2) // late, but not lost
	take(^uint64(0))
	if want := []uint64{3, 4, 2, 5, 9}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	o.add(1)
	o.add(2)
	stop := errors.New("stop")
	if err := o.take(9, func(*uint64) error { return stop }); err != stop || len(o.pending) != 1 {
		t.Errorf("%v, %d left", err, len(o.pending))
	}
	o.take(9, func(*uint64) error { return nil })

	// A flood that is too young to be passed on is not sorted anew for each that comes.
	now := uint64(1 << 40)
	asked := 0
	for range 4 * maxPending {
		now++
		if before, due := o.add(now); due {
			asked++
			take(before)
		}
	}
	if asked == 0 || asked > 4 {
		t.Errorf("asked %d times", asked)
	}
}
