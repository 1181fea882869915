package show

import (
	"math/bits"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/program/ir"
)

func bar(n int) string { return "|" + strings.Repeat("@", n) + strings.Repeat(" ", 52-n) + "|\n" }

// counters of a histogram with one in each of the buckets.
func counters(t *ir.Type, buckets ...int) []byte {
	b := make([]byte, 8*t.Buckets())
	for _, i := range buckets {
		b[8*i]++
	}
	return b
}

// entries of a Series from an interval on.
func series(t *ir.Type, from uint64, numbers ...int) []byte {
	b := make([]byte, t.Count*ir.SeriesSize)
	for i, n := range numbers {
		interval := from + uint64(i)
		v := uint64(n)
		if t.Agg == ir.Min || t.Agg == ir.Max {
			v = t.Rank(v)
		}
		copy(b[interval%uint64(t.Count)*ir.SeriesSize:], le(interval+1, v, 1))
	}
	return b
}

func TestMaps(t *testing.T) {
	text := ir.TextType(8)
	pair := ir.TupleOf(nil, []*ir.Type{text, ir.I32})
	one := func(b ...any) [][]byte { return [][]byte{le(b...)} }
	hist := &ir.Type{Kind: ir.Hist, Signed: true}
	fine := &ir.Type{Kind: ir.Hist, Bits: 2}
	lhist := &ir.Type{Kind: ir.LHist, Signed: true, From: -4, To: 4, Step: 4}
	kilo := &ir.Type{Kind: ir.LHist, From: 0, To: 3 << 20, Step: 1 << 19}
	avg, stats := &ir.Type{Kind: ir.Avg, Signed: true}, &ir.Type{Kind: ir.Stats, Signed: true}
	least, most := &ir.Type{Kind: ir.Min, Signed: true}, &ir.Type{Kind: ir.Max}
	ticks := &ir.Type{Kind: ir.Series, Count: 4, Every: time.Second, Signed: true, Agg: ir.Min}
	for _, c := range []struct {
		name       string
		m          ir.Map
		entries    []Entry
		top, div   int64
		text, json string
	}{
		{"none", ir.Map{Name: "@", Value: ir.I64}, nil, 0, 0, "", ""},
		{"zero", ir.Map{Name: "@", Value: ir.TupleOf([]string{"a", "b"}, []*ir.Type{ir.I64, pair})}, []Entry{Zero()}, 0, 0, "@: { .a = 0, .b = (, 0) }\n", `{"type": "map", "data": {"@": {"a": 0, "b": ["",0]}}}`},
		{"one", ir.Map{Name: "@x", Value: ir.I64}, []Entry{{nil, one(-3)}}, 0, 0, "@x: -3\n", `{"type": "map", "data": {"@x": -3}}`},
		{"text", ir.Map{Name: "@x", Value: text}, []Entry{{nil, one("a \n b")}}, 0, 0, `@x: a \n b` + "\n", `{"type": "map", "data": {"@x": "a \n b"}}`},
		{"by number, then key", ir.Map{Name: "@", Key: ir.I64, Value: ir.I64}, []Entry{{le(3), one(7)}, {le(9), one(-1)}, {le(-5), one(7)}}, 0, 0,
			"@[9]: -1\n@[-5]: 7\n@[3]: 7\n", `{"type": "map", "data": {"@": {"9": -1, "-5": 7, "3": 7}}}`},
		{"by key", ir.Map{Name: "@", Key: pair, Value: text}, []Entry{{le("b b\x00\x00\x00\x00\x00", 1), one("x")}, {le("a\x00\x00\x00\x00\x00\x00\x00", 2), one("y")}, {le("a\x00\x00\x00\x00\x00\x00\x00", -2), one("z")}}, 0, 0,
			"@[a, -2]: z\n@[a, 2]: y\n@[b b, 1]: x\n", `{"type": "map", "data": {"@": {"a,-2": "z", "a,2": "y", "b b,1": "x"}}}`},
		{"keys", ir.Map{Name: "@", Key: ir.TupleOf(nil, []*ir.Type{pair, ir.BoolType}), Value: ir.U8}, []Entry{{le("(x)\x00\x00\x00\x00\x00", 1, 1), one(1)}}, 0, 0,
			"@[((x), 1), true]: 1\n", `{"type": "map", "data": {"@": {"((x),1),true": 1}}}`},
		{"a key in parentheses", ir.Map{Name: "@", Key: text, Value: ir.U8}, []Entry{{le("(x, y)\x00\x00"), one(1)}}, 0, 0,
			"@[(x, y)]: 1\n", `{"type": "map", "data": {"@": {"(x, y)": 1}}}`},
		{"a record as key", ir.Map{Name: "@", Key: ir.TupleOf([]string{"m", "n"}, []*ir.Type{ir.I64, ir.I64}), Value: ir.U8}, []Entry{{le(1, 2), one(1)}}, 0, 0,
			"@[{ .m = 1, .n = 2 }]: 1\n", `{"type": "map", "data": {"@": {"{.m=1,.n=2}": 1}}}`},
		{"top, div", ir.Map{Name: "@", Key: text, Value: &ir.Type{Kind: ir.Count}}, []Entry{{le("a"), [][]byte{le(5), le(20)}}, {le("b"), [][]byte{le(1), le(0)}}, {le("c"), [][]byte{le(14), nil}}}, 2, 10,
			"@[c]: 1\n@[a]: 2\n", `{"type": "map", "data": {"@": {"c": 1, "a": 2}}}`},
		{"more than there are", ir.Map{Name: "@", Key: text, Value: &ir.Type{Kind: ir.Sum, Signed: true}}, []Entry{{le("a"), [][]byte{le(-5), le(2)}}}, 9, 0, "@[a]: -3\n", `{"type": "map", "data": {"@": {"a": -3}}}`},
		{"avg", ir.Map{Name: "@", Value: avg}, []Entry{{nil, [][]byte{le(-7, 1), le(2, 1), le(0, 0)}}}, 0, 0, "@: -2\n", `{"type": "stats", "data": {"@": -2}}`},
		{"avg of none", ir.Map{Name: "@", Value: avg}, []Entry{Zero()}, 0, 0, "@: 0\n", `{"type": "stats", "data": {"@": 0}}`},
		{"stats", ir.Map{Name: "@", Key: text, Value: stats}, []Entry{{le("a"), [][]byte{le(10, 2), le(0, 1)}}, {le("b"), [][]byte{le(2, 1)}}}, 0, 2,
			"@[b]: { .count = 1, .average = 1, .total = 2 }\n@[a]: { .count = 3, .average = 1, .total = 10 }\n", `{"type": "stats", "data": {"@": {"b": {"count": 1, "average": 1, "total": 2}, "a": {"count": 3, "average": 1, "total": 10}}}}`},
		{"min", ir.Map{Name: "@", Key: ir.U8, Value: least}, []Entry{{le(1), [][]byte{le(least.Rank(5), 1), le(0, 0), le(least.Rank(1<<64-3), 1)}}, {le(2), [][]byte{le(least.Rank(1<<64-4), 1)}}}, 0, 0,
			"@[2]: -4\n@[1]: -3\n", `{"type": "map", "data": {"@": {"2": -4, "1": -3}}}`},
		{"max", ir.Map{Name: "@", Value: most}, []Entry{{nil, [][]byte{le(5, 1), le(0, 0), le(uint64(1<<64-1), 1)}}}, 0, 0, "@: 18446744073709551615\n", `{"type": "map", "data": {"@": "18446744073709551615"}}`},
		{"hist", ir.Map{Name: "@h", Value: hist}, []Entry{{nil, [][]byte{counters(hist, 0, 2), counters(hist, 2, 4)}}}, 0, 0,
			"@h:\n(..., 0)               1 " + bar(26) + "[0]                    0 " + bar(0) + "[1]                    2 " + bar(52) + "[2, 4)                 0 " + bar(0) + "[4, 8)                 1 " + bar(26) + "\n",
			`{"type": "hist", "data": {"@h": [{"max": -1, "count": 1},{"min": 0, "max": 0, "count": 0},{"min": 1, "max": 1, "count": 2},{"min": 2, "max": 3, "count": 0},{"min": 4, "max": 7, "count": 1}]}}`},
		{"hist of nothing", ir.Map{Name: "@h", Value: hist}, []Entry{Zero()}, 0, 0, "@h:\n\n", `{"type": "hist", "data": {"@h": []}}`},
		{"hist, fine", ir.Map{Name: "@", Key: text, Value: fine}, []Entry{{le("b"), [][]byte{counters(fine, 8, 9), nil}}, {le("a"), [][]byte{counters(fine, 64-1+4)}}, {le("c"), [][]byte{counters(fine, 5, 5, 5, 6, 6, 6)}}}, 2, 2,
			"@[b]:\n[7]                    0 " + bar(0) + "[8, 10)                0 " + bar(0) + "\n@[c]:\n[4]                    1 " + bar(52) + "[5]                    1 " + bar(52) + "\n",
			`{"type": "hist", "data": {"@": {"b": [{"min": 7, "max": 7, "count": 0},{"min": 8, "max": 9, "count": 0}], "c": [{"min": 4, "max": 4, "count": 1},{"min": 5, "max": 5, "count": 1}]}}}`},
		{"hist of the largest", ir.Map{Name: "@", Value: &ir.Type{Kind: ir.Hist}}, []Entry{{nil, [][]byte{counters(&ir.Type{Kind: ir.Hist}, 65)}}}, 0, 0,
			"@:\n[8E, 16E)              1 " + bar(52) + "\n", `{"type": "hist", "data": {"@": [{"min": 9223372036854775808, "max": "18446744073709551615", "count": 1}]}}`},
		{"lhist", ir.Map{Name: "@", Value: lhist}, []Entry{{nil, [][]byte{counters(lhist, 0, 1, 2, 3)}}}, 0, 0,
			"@:\n(..., -4)              1 " + bar(52) + "[-4, 0)                1 " + bar(52) + "[0, 4)                 1 " + bar(52) + "[4, ...)               1 " + bar(52) + "\n",
			`{"type": "hist", "data": {"@": [{"max": -5, "count": 1},{"min": -4, "max": -1, "count": 1},{"min": 0, "max": 3, "count": 1},{"min": 4, "count": 1}]}}`},
		{"lhist, last part", ir.Map{Name: "@", Value: &ir.Type{Kind: ir.LHist, To: 4, Step: 3}}, []Entry{{nil, [][]byte{counters(&ir.Type{Kind: ir.LHist, To: 4, Step: 3}, 2, 3)}}}, 0, 0,
			"@:\n[3]                    1 " + bar(52) + "[4, ...)               1 " + bar(52) + "\n", `{"type": "hist", "data": {"@": [{"min": 3, "max": 3, "count": 1},{"min": 4, "count": 1}]}}`},
		{"lhist, suffixes", ir.Map{Name: "@", Value: kilo}, []Entry{{nil, [][]byte{counters(kilo, 1, 2)}}}, 0, 0,
			"@:\n[0, 512K)              1 " + bar(52) + "[512K, 1M)             1 " + bar(52) + "\n", `{"type": "hist", "data": {"@": [{"min": 0, "max": 524287, "count": 1},{"min": 524288, "max": 1048575, "count": 1}]}}`},
		{"series", ir.Map{Name: "@s", Key: text, Value: ticks}, []Entry{{le("b"), [][]byte{series(ticks, 8, 2), series(ticks, 10, -2)}}, {le("a"), [][]byte{series(ticks, 6, 9, 9), series(ticks, 7, 5)}}}, 1, 0, `@s[a]:
         4                                                   6
hh:mm:ss |___________________________________________________|
00:00:07 |                         *                         | 5
00:00:08 |                                                   | -
00:00:09 |                                                   | -
00:00:10 |                                                   | -
         v___________________________________________________v
         4                                                   6

@s[b]:
         -2                                                  2
hh:mm:ss |___________________________________________________|
00:00:08 |                         .                         * 2
00:00:09 |                         .                         | -
00:00:10 *                         .                         | -2
         v___________________________________________________v
         -2                                                  2

`, `{"type": "tseries", "data": {"@s": {"a": [{"interval_start":"1970-01-01 00:00:07.000000000","value":5}], "b": [{"interval_start":"1970-01-01 00:00:08.000000000","value":2},{"interval_start":"1970-01-01 00:00:10.000000000","value":-2}]}}}`},
		{"series of nothing", ir.Map{Name: "@s", Value: ticks}, []Entry{Zero()}, 0, 0, "@s:\n<no data>\n", `{"type": "tseries", "data": {"@s": []}}`},
	} {
		v := env.Map(&c.m, c.entries, c.top, c.div)
		var b strings.Builder
		if err := v.Text(&b); err != nil || b.String() != c.text {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, b.String(), c.text)
		}
		b.Reset()
		if err := v.JSON(&b); err != nil || strings.TrimSuffix(b.String(), "\n") != c.json {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, b.String(), c.json)
		}
	}
	v := env.Map(&ir.Map{Name: "@", Key: text, Value: avg}, []Entry{{le("x"), one(9, 3)}}, 0, 0)
	if v.Value() != "3" || string(v.ValueJSON()) != "3" {
		t.Errorf("value %s, %s", v.Value(), v.ValueJSON())
	}
	v = env.Map(&ir.Map{Name: "@", Value: avg}, nil, 0, 0)
	if v.Value() != "" || string(v.ValueJSON()) != "null" {
		t.Errorf("no value: %s, %s", v.Value(), v.ValueJSON())
	}
}

// The units of a series that is drawn are its interval's.
func TestSeriesUnits(t *testing.T) {
	for every, want := range map[time.Duration]string{
		250 * time.Millisecond: "hh:mm:ss.ms  |", 5 * time.Microsecond: "hh:mm:ss.μs     |", 7: "hh:mm:ss.ns        |",
	} {
		st := &ir.Type{Kind: ir.Series, Count: 2, Every: every}
		var b strings.Builder
		if err := env.Map(&ir.Map{Name: "@", Value: st}, []Entry{{nil, [][]byte{series(st, 3, 1)}}}, 0, 0).Text(&b); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(b.String(), "\n")
		if !strings.HasPrefix(lines[2], want) || strings.IndexByte(lines[3], '|') != len([]rune(want))-1 {
			t.Errorf("%v:\n%s", every, b.String())
		}
	}
}

// A number is in the bucket that says so, and buckets leave nothing out.
func TestHistBounds(t *testing.T) {
	for k := range 6 {
		ht := &ir.Type{Kind: ir.Hist, Bits: k}
		last := ht.Buckets() - 1
		for i := 1; i <= last; i++ {
			low, high := lowBound(ht, i), lowBound(ht, i+1)
			top, _ := high.inclusive()
			if i < last && (high.over || high.n <= low.n) || i == last && !high.over {
				t.Errorf("%d bits: bucket %d is from %d to %d", k, i, low.n, high.n)
			}
			for _, n := range []uint64{low.n, top, low.n + (top-low.n)/2} {
				// The rule of ir.Type.Buckets.
				want := int(n) + 1
				if p := bits.Len64(n) - 1; p > k {
					want = 1 + 2<<k + (p-k-1)<<k + int(n>>(p-k))&(1<<k-1)
				}
				if want != i {
					t.Errorf("%d bits: %d is in bucket %d, not %d", k, n, want, i)
				}
			}
		}
	}
}

func TestHistStats(t *testing.T) {
	ht := &ir.Type{Kind: ir.Hist, Bits: 2, Signed: true}
	c := make([]uint64, ht.Buckets())
	c[0] = 100 // negative
	c[2], c[9], c[11] = 1, 2, 1
	d := HistStats(ht, c)
	if d.Count != 4 || len(d.Buckets) != 10 || d.Buckets[0] != (Bucket{1, 1, 1}) || d.Buckets[7] != (Bucket{8, 9, 2}) || d.Buckets[9] != (Bucket{12, 13, 1}) {
		t.Errorf("%+v", d)
	}
	for p, want := range map[float64]uint64{0: 1, 0.25: 1, 0.26: 8, 0.5: 8, 0.75: 9, 0.9: 13, 1: 13, 2: 13} {
		if got := d.Percentile(p); got != want {
			t.Errorf("p%v is %d, want %d", 100*p, got, want)
		}
	}
	if d := HistStats(ht, make([]uint64, ht.Buckets())); d.Count != 0 || d.Buckets != nil || d.Percentile(0.5) != 0 {
		t.Errorf("of nothing: %+v", d)
	}
	// Evenly spread numbers have the percentiles that they should have.
	ht.Bits = 4
	c = make([]uint64, ht.Buckets())
	for i := range c[1:] {
		low, high := lowBound(ht, i+1), lowBound(ht, i+2)
		if high.n > 1<<20 || high.over {
			break
		}
		c[i+1] = high.n - low.n
	}
	d = HistStats(ht, c)
	for _, p := range []float64{0.5, 0.9, 0.99, 0.999} {
		if got, want := float64(d.Percentile(p)), p*float64(d.Count); got < want-1 || got > want+1 {
			t.Errorf("p%v is %v, want %v", 100*p, got, want)
		}
	}
}

// Buckets put together have the same numbers in them, and are whole powers of two.
func TestPowers(t *testing.T) {
	fine := &ir.Type{Kind: ir.Hist, Bits: 5}
	counters := make([]uint64, fine.Buckets())
	for i := range counters[1:] {
		counters[i+1] = 1
	}
	d := HistStats(fine, counters)
	var n uint64
	for i, b := range d.Powers() {
		n += b.Count
		want := Bucket{Min: uint64(i), Max: uint64(i), Count: 1}
		if i > 1 {
			want = Bucket{Min: 1 << (i - 1), Max: 1<<i - 1, Count: min(32, uint64(1)<<(i-1))}
		}
		if b != want {
			t.Errorf("bucket %d is %+v, want %+v", i, b, want)
		}
	}
	if n != d.Count {
		t.Errorf("%d numbers, want %d", n, d.Count)
	}
	one := make([]uint64, fine.Buckets())
	one[1+100] = 7
	b := HistStats(fine, one).Buckets[0]
	if got := HistStats(fine, one).Powers(); len(got) != 1 || got[0].Min > b.Min || got[0].Max < b.Max || got[0].Count != 7 {
		t.Errorf("%+v of %+v", got, b)
	}
}
