package show

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"ferrotrace/internal/program/ir"
)

// bound is one end of a bucket: a number and how it is written.
type bound struct {
	n        uint64
	negative bool // n is an int64
	label    string
	// whole: the label is the number, in full.
	whole bool
	// over: it is 2^64, and n is 0.
	over bool
}

// bucket is a bucket of a histogram: from low on, up to high, which is not in it. Either
// may be missing.
type bucket struct {
	low, high *bound
	count     uint64
}

// bucketsOf are the buckets from the first to the last that have something in them.
func bucketsOf(t *ir.Type, counters []uint64) []bucket {
	first, last := -1, -1
	for i, n := range counters {
		if n == 0 {
			continue
		}
		if first < 0 {
			first = i
		}
		last = i
	}
	if first < 0 {
		return nil
	}
	var buckets []bucket
	for i := first; i <= last; i++ {
		b := bucket{count: counters[i]}
		if i > 0 {
			b.low = lowBound(t, i)
		}
		if t.Kind == ir.Hist || i+1 < len(counters) {
			b.high = lowBound(t, i+1)
		}
		buckets = append(buckets, b)
	}
	return buckets
}

// lowBound is where bucket i begins, of 1 on. What ir.Type.Buckets says of their order is
// read backwards.
func lowBound(t *ir.Type, i int) *bound {
	if t.Kind == ir.LHist {
		n := min(t.From+int64(i-1)*t.Step, t.To)
		b := &bound{n: uint64(n), negative: n < 0, label: strconv.FormatInt(n, 10), whole: t.Step%1024 != 0}
		switch {
		case b.whole || n == 0:
		case n%(1<<20) == 0:
			b.label = strconv.FormatInt(n>>20, 10) + "M"
		case n%1024 == 0:
			b.label = strconv.FormatInt(n>>10, 10) + "K"
		}
		return b
	}
	i-- // values, for a while
	if i <= 2<<t.Bits {
		return &bound{n: uint64(i), label: strconv.Itoa(i), whole: true}
	}
	part := 1<<t.Bits + i&(1<<t.Bits-1)
	power := i>>t.Bits - 1
	b := &bound{n: uint64(part) << power, over: power == 64-t.Bits}
	b.label = strconv.FormatUint(uint64(part)<<(power%10), 10) + strings.TrimSpace(" KMGTPE"[power/10:power/10+1])
	return b
}

// inclusive is the last number below a bound, and whether it is an int64.
func (b *bound) inclusive() (n uint64, signed bool) {
	return b.n - 1, b.negative || b.n == 0 && !b.over
}

const barWidth = 52

// histText draws a histogram.
func histText(buckets []bucket) string {
	most := uint64(0)
	for _, b := range buckets {
		most = max(most, b.count)
	}
	var out strings.Builder
	for _, b := range buckets {
		bar := 0
		if most > 0 {
			bar = int(float32(b.count) / float32(most) * barWidth)
		}
		fmt.Fprintf(&out, "%-16s%8d |%-*s|\n", b.label(), b.count, barWidth, strings.Repeat("@", bar))
	}
	return out.String()
}

func (b bucket) label() string {
	switch {
	case b.low == nil:
		return "(..., " + b.high.label + ")"
	case b.high == nil:
		return "[" + b.low.label + ", ...)"
	case b.low.whole && b.high.whole && b.high.n == b.low.n+1:
		return "[" + b.low.label + "]"
	}
	return "[" + b.low.label + ", " + b.high.label + ")"
}

func histJSON(buckets []bucket) JSON {
	out := JSON("[")
	for i, b := range buckets {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '{')
		if b.low != nil {
			out = append(out, `"min": `...)
			out = appendNumber(out, &ir.Type{Kind: ir.Int, Signed: b.low.negative}, b.low.n)
			out = append(out, ", "...)
		}
		if b.high != nil {
			n, signed := b.high.inclusive()
			out = append(out, `"max": `...)
			out = appendNumber(out, &ir.Type{Kind: ir.Int, Signed: signed}, n)
			out = append(out, ", "...)
		}
		out = append(out, `"count": `...)
		out = strconv.AppendUint(out, b.count, 10)
		out = append(out, '}')
	}
	return append(out, ']')
}

// Bucket is a bucket of a Hist of what can't be negative: Count numbers from Min to Max.
type Bucket struct {
	Min   uint64 `json:"min"`
	Max   uint64 `json:"max"`
	Count uint64 `json:"count"`
}

// Distribution is what a Hist says of numbers that can't be negative.
type Distribution struct {
	Count   uint64
	Buckets []Bucket // from the first to the last that have something in them
}

// HistStats reads the counters of a Hist, which ir.Type.Counters adds up. What is in the
// bucket of negative numbers does not count.
func HistStats(t *ir.Type, counters []uint64) Distribution {
	var d Distribution
	if len(counters) > 0 {
		counters = append([]uint64{0}, counters[1:]...)
	}
	for _, b := range bucketsOf(t, counters) {
		high, _ := b.high.inclusive()
		d.Buckets = append(d.Buckets, Bucket{Min: b.low.n, Max: high, Count: b.count})
		d.Count += b.count
	}
	return d
}

// Powers are the same buckets, put together to one for each power of two, up to the last
// that has something in it.
func (d Distribution) Powers() (out []Bucket) {
	for _, b := range d.Buckets {
		if n := len(out); n > 0 && bits.Len64(out[n-1].Min) == bits.Len64(b.Min) {
			out[n-1].Max = b.Max
			out[n-1].Count += b.Count
			continue
		}
		// A whole one, also where its first part is empty.
		low := b.Min
		if low > 1 {
			low = 1 << (bits.Len64(low) - 1)
		}
		out = append(out, Bucket{Min: low, Max: b.Max, Count: b.Count})
	}
	if n := len(out); n > 0 && out[n-1].Max > 1 {
		out[n-1].Max = 1<<bits.Len64(out[n-1].Min) - 1
	}
	return out
}

// Percentile is a number that p of 1 of all are not above: that of rank ⌈p·Count⌉, taken
// to lie in its bucket as if the bucket's numbers were spread evenly. It is off by less than
// the bucket is wide, 2^-Bits of its value, and never out of it. 0 if there are none.
func (d Distribution) Percentile(p float64) uint64 {
	rank := uint64(math.Ceil(p * float64(d.Count)))
	rank = min(max(rank, 1), d.Count)
	for _, b := range d.Buckets {
		if rank <= b.Count {
			if rank == 0 {
				return 0
			}
			part := (float64(rank) - 0.5) / float64(b.Count)
			return min(b.Min+uint64(part*(float64(b.Max-b.Min)+1)), b.Max)
		}
		rank -= b.Count
	}
	return 0
}

func appendWord(b []byte, n uint64) []byte { return binary.NativeEndian.AppendUint64(b, n) }
