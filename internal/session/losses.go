package session

import "ferrotrace/internal/runtime"

// losses knows since when no exit and no mark of a panic has been lost. After a loss
// it can't be said of a call that was not seen to end how it did.
type losses struct {
	counters interface{ Sum(uint32) (uint64, error) } // nil: none are counted
	clock    func() uint64
	seen     []loss // when their number was found to have grown
}

type loss struct {
	at uint64 // monotonic
	n  uint64
}

// maxLosses bounds what is remembered: of older times losses are assumed.
const maxLosses = 1000

func (l *losses) count() (n uint64) {
	return sum(l.counters, runtime.ExitNoRoom, runtime.ExitNoSlot, runtime.MarkNoRoom, runtime.MarkNoSlot)
}

// sum adds counters up; nil has none.
func sum(counters interface{ Sum(uint32) (uint64, error) }, which ...runtime.Counter) (n uint64) {
	if counters == nil {
		return 0
	}
	for _, c := range which {
		sum, err := counters.Sum(uint32(c))
		if err != nil {
			return ^uint64(0)
		}
		n += sum
	}
	return n
}

// look is to be called now and then. The time is read after the number, so that none
// of it was lost later.
func (l *losses) look() {
	n := l.count()
	now := l.clock()
	if len(l.seen) == 0 && n == 0 || len(l.seen) > 0 && l.seen[len(l.seen)-1].n == n {
		return
	}
	if len(l.seen) == maxLosses {
		l.seen = append(l.seen[:0], l.seen[maxLosses/2:]...)
	}
	l.seen = append(l.seen, loss{now, n})
}

// since says whether something may have been lost since a time.
func (l *losses) since(t uint64) bool {
	var before uint64
	for i := len(l.seen) - 1; i >= 0; i-- {
		if l.seen[i].at <= t {
			before = l.seen[i].n
			break
		}
	}
	return l.count() != before
}
