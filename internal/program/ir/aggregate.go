package ir

import "encoding/binary"

// Offsets in a value of Avg, Stats, Min and Max, of which each CPU has one. Count and Sum
// are at 0 too, and a histogram's counters lie one after the other.
//
// Min and Max hold the largest of what Rank makes of the numbers, so that zeros are the
// least of all.
const (
	AggSum   = 0
	AggCount = 8
	AggRank  = 0
	AggSet   = 8
)

// An entry of a Series: the interval's number plus one, a value, and how many values it
// is made of; or, of a Series that keeps the last value, when that was, in TAI. A Min or Max has Rank's value. The entry of interval n is
// n modulo the type's Count.
const (
	SeriesInterval = 0
	SeriesValue    = 8
	SeriesCount    = 16
	SeriesSize     = 24
)

// Rank makes of a number of a Min, Max or a Series of these one whose unsigned order is
// that of the numbers, for Max, or the opposite one, for Min. It is its own inverse.
func (t *Type) Rank(n uint64) uint64 {
	if t.Signed {
		n ^= 1 << 63
	}
	if t.Kind == Min || t.Agg == Min {
		n = ^n
	}
	return n
}

// A Total is an aggregate over all CPUs.
type Total struct {
	// Number is what it stands for: how many, the sum, the average, the least or the
	// greatest; by the type an int64 or a uint64.
	Number uint64
	// Sum and Count are those of Avg and Stats.
	Sum, Count uint64
}

// Total adds up the values, one for each CPU, of a Count, Sum, Avg, Stats, Min or Max. It
// is the same number as codegen makes of them. What is missing of a value is zeros.
func (t *Type) Total(cpus [][]byte) Total {
	var r Total
	rank := uint64(0)
	for _, b := range cpus {
		first, second := wordAt(b, 0), wordAt(b, 8)
		switch t.Kind {
		case Count, Sum:
			r.Number += first
		case Avg, Stats:
			r.Sum += first
			r.Count += second
		case Min, Max:
			if second != 0 {
				rank = max(rank, first)
				r.Count = 1
			}
		}
	}
	switch {
	case r.Count == 0: // Count and Sum, and what has no value
	case t.Kind == Min || t.Kind == Max:
		r.Number = t.Rank(rank)
	default:
		r.Number = t.average(r.Sum, r.Count)
	}
	return r
}

func (t *Type) average(sum, count uint64) uint64 {
	switch {
	case count == 0:
		return 0
	case t.Signed:
		if n := int64(count); n > 0 {
			return uint64(int64(sum) / n)
		}
		return 0
	}
	return sum / count
}

// A Point is the value of one interval of a Series: from the interval's number times
// Every on, in nanoseconds of TAI: intervals begin at whole ones of the day, as long as the kernel
// is told of no leap seconds.
type Point struct {
	Interval uint64
	Number   uint64 // by the type an int64 or a uint64
}

// Points are the intervals of a Series that have a value, over all CPUs: in order, the
// last Count of them at most.
func (t *Type) Points(cpus [][]byte) []Point {
	type entry struct{ value, count uint64 }
	all := map[uint64]entry{}
	latest := uint64(0)
	for _, b := range cpus {
		for i := range t.Count {
			if (i+1)*SeriesSize > len(b) {
				break
			}
			b := b[i*SeriesSize:]
			n := wordAt(b, SeriesInterval)
			// Nothing but entry n of Count is of interval n.
			if n == 0 || (n-1)%uint64(t.Count) != uint64(i) {
				continue
			}
			latest = max(latest, n)
			e := entry{wordAt(b, SeriesValue), wordAt(b, SeriesCount)}
			old, ok := all[n]
			switch {
			case !ok:
			case t.Agg == Min || t.Agg == Max:
				e.value = max(e.value, old.value)
			case t.Agg == Void:
				if old.count > e.count {
					e = old
				}
			default:
				e.value += old.value
				e.count += old.count
			}
			all[n] = e
		}
	}
	var points []Point
	// n is one more than the interval's number.
	for i := range uint64(t.Count) {
		n := latest - uint64(t.Count) + 1 + i
		e, ok := all[n]
		if !ok || n > latest {
			continue
		}
		p := Point{Interval: n - 1, Number: e.value}
		switch t.Agg {
		case Min, Max:
			p.Number = t.Rank(e.value)
		case Avg, Stats:
			p.Number = t.average(e.value, e.count)
		case Count:
			p.Number = e.count
		}
		points = append(points, p)
	}
	return points
}

// Counters adds up the counters of a histogram over all CPUs.
func (t *Type) Counters(cpus [][]byte) []uint64 {
	counters := make([]uint64, t.Buckets())
	for _, b := range cpus {
		for i := range min(len(counters), len(b)/8) {
			counters[i] += wordAt(b, 8*i)
		}
	}
	return counters
}

func wordAt(b []byte, off int) uint64 {
	if off+8 > len(b) {
		return 0
	}
	return binary.NativeEndian.Uint64(b[off:])
}
