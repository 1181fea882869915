package session

import (
	"cmp"
	"slices"
	"sort"
)

// ordered holds back what comes out of a ring until it is known what comes before it.
type ordered[T any] struct {
	time    func(*T) uint64 // monotonic
	pending []T
	enough  int // that are passed on though the ring is not empty
}

// maxPending is how many records wait for their order before they are passed on with
// the ring not yet empty.
const maxPending = 1 << 15

func newOrdered[T any](time func(*T) uint64) ordered[T] {
	return ordered[T]{time: time, enough: maxPending}
}

// add takes one more. If so many wait that the ring seems never to be empty, due says so:
// what is older than before is in order nevertheless.
func (o *ordered[T]) add(v T) (before uint64, due bool) {
	o.pending = append(o.pending, v)
	t := o.time(&v)
	return t - min(t, uint64(10*slack)), len(o.pending) >= o.enough
}

// take passes what happened before a time to f, in order. After an error the others are
// there still.
func (o *ordered[T]) take(before uint64, f func(*T) error) (err error) {
	inOrder := func(a, b T) int { return cmp.Compare(o.time(&a), o.time(&b)) }
	if !slices.IsSortedFunc(o.pending, inOrder) { // it mostly is
		slices.SortStableFunc(o.pending, inOrder)
	}
	n := sort.Search(len(o.pending), func(i int) bool { return o.time(&o.pending[i]) >= before })
	done := 0
	for ; done < n && err == nil; done++ {
		err = f(&o.pending[done])
	}
	o.pending = slices.Delete(o.pending, 0, done)
	o.enough = max(maxPending, 2*len(o.pending))
	return err
}
