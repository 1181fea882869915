package check

import (
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
	"time"
)

// aggregate is @m[k] = count() and the like.
func (c *checker) aggregate(t *table, m *ast.Map, x *ast.Call) {
	at := &ir.Type{Kind: aggregates[x.Name]}
	args := map[string][2]int{"count": {0, 0}, "hist": {1, 2}, "lhist": {4, 4}, "tseries": {3, 4}}
	want, ok := args[x.Name]
	if !ok {
		want = [2]int{1, 1}
	}
	if n := len(x.Args); n < want[0] || n > want[1] {
		c.errorf(x, "", "%s() takes %d to %d arguments, and is given %d", x.Name, want[0], want[1], n)
		return
	}
	agg := &ir.Aggregate{Map: t.number}
	if len(x.Args) > 0 {
		o := c.scalar(x.Args[0])
		if o == nil {
			return
		}
		at.Signed = o.t.Signed
		agg.X = convert(o, integer(8, o.t.Signed))
	}
	number := func(i int, lo, hi int64) (int64, bool) {
		v, ok := c.constant(x.Args[i])
		if !ok || int64(v) < lo || int64(v) > hi {
			c.errorf(x.Args[i], "", "%s() wants a number between %d and %d here that is known before the script runs", x.Name, lo, hi)
			return 0, false
		}
		return int64(v), true
	}
	switch at.Kind {
	case ir.Hist:
		if len(x.Args) == 2 {
			b, ok := number(1, 0, 5)
			if !ok {
				return
			}
			at.Bits = int(b)
		}
		at.Signed = true
		agg.X = &ir.Cast{T: ir.I64, X: agg.X}
	case ir.LHist:
		const far = 1 << 53
		from, ok1 := number(1, -far, far)
		to, ok2 := number(2, -far, far)
		step, ok3 := number(3, 1, far)
		if !ok1 || !ok2 || !ok3 {
			return
		}
		if to <= from {
			c.errorf(x, "", "lhist() max must be greater than min (%d, %d)", from, to)
			return
		}
		at.From, at.To, at.Step = from, to, step
		if n := (to - from) / step; n > maxBuckets {
			c.errorf(x, "", "lhist() too many buckets, must be <= %d (would need %d)", maxBuckets, n)
			return
		}
		at.Signed = true
		agg.X = &ir.Cast{T: ir.I64, X: agg.X}
	case ir.Series:
		every, ok1 := number(1, 1, int64(time.Hour)*24)
		n, ok2 := number(2, 1, maxIntervals)
		if !ok1 || !ok2 {
			return
		}
		at.Every, at.Count = time.Duration(every), int(n)
		if len(x.Args) == 4 {
			s, ok := c.literal(x.Args[3], "tseries()")
			if !ok {
				return
			}
			switch k := aggregates[s]; k {
			case ir.Avg, ir.Max, ir.Min, ir.Sum:
				at.Agg = k
			default:
				c.errorf(x.Args[3], "avg, max, min, sum", "tseries() has no %q", s)
				return
			}
		}
	}
	key := c.keyOf(t, m)
	agg.Key = key
	if t.val != nil && !t.val.Kind.Aggregate() {
		c.errorf(m, "", "type mismatch for @%s: it holds %s, and %s() is assigned", t.name, describe(t.val), x.Name)
		return
	}
	if !c.setVal(t, &typ{Type: at}, m) {
		return
	}
	c.emit(agg)
}

// Bounds of histograms and time series.
const (
	maxBuckets   = 1000
	maxIntervals = 1000
)
