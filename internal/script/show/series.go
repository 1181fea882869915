package show

import (
	"fmt"
	"strings"
	"time"

	"ferrotrace/internal/program/ir"
)

// span is which intervals are shown of series: the last Count of them all.
func span(t *ir.Type, entries []element) (first, last uint64) {
	for _, el := range entries {
		if n := len(el.points); n > 0 {
			last = max(last, el.points[n-1].Interval)
		}
	}
	return last - min(last, uint64(max(t.Count-1, 0))), last
}

// graphWidth is the width of the drawing with its borders.
const graphWidth = 53

// shown are the points of a series from its first one within the span on.
func (v *MapView) shown(el *element) []ir.Point {
	for i, p := range el.points {
		if p.Interval >= v.first {
			return el.points[i:]
		}
	}
	return nil
}

// start is when an interval began.
func (v *MapView) start(interval uint64) time.Time {
	if v.e.Wall == nil {
		return time.Time{}
	}
	return v.e.Wall(ir.TAI, interval*uint64(v.m.Value.Every))
}

// series draws a series: a line for each interval from the first that has a value to the
// last of the span.
func (v *MapView) series(el *element) string {
	points := v.shown(el)
	if len(points) == 0 {
		return "<no data>"
	}
	t := v.m.Value
	low, high := points[0].Number, points[0].Number
	less := func(a, b uint64) bool {
		if t.Signed {
			return int64(a) < int64(b)
		}
		return a < b
	}
	for _, p := range points {
		if less(p.Number, low) {
			low = p.Number
		}
		if less(high, p.Number) {
			high = p.Number
		}
	}
	if low == high {
		if less(low-1, low) {
			low--
		}
		if less(high, high+1) {
			high++
		}
	}
	unit, digits := "", 0
	switch {
	case t.Every >= time.Second:
	case t.Every >= time.Millisecond:
		unit, digits = "ms", 3
	case t.Every >= time.Microsecond:
		unit, digits = "μs", 6
	default:
		unit, digits = "ns", 9
	}
	head, width := "hh:mm:ss", len("hh:mm:ss")
	if digits > 0 {
		head += "." + unit
		width += 1 + digits
	}
	var b strings.Builder
	scale := func() {
		fmt.Fprintf(&b, "%*s%-21s%*s\n", width+1, "", decimal(t, low), graphWidth-21, decimal(t, high))
	}
	scale()
	fmt.Fprintf(&b, "%-*s|%s|\n", width+1, head, strings.Repeat("_", graphWidth-2))
	// The distances are right in 64 bits unsigned, whatever the sign.
	zero := 0
	if t.Signed && int64(low) < 0 && int64(high) > 0 {
		zero = int(graphWidth * float32(-low) / float32(high-low))
	}
	next := 0
	for n := points[0].Interval; ; n++ {
		line := []byte("|" + strings.Repeat(" ", graphWidth-2) + "|")
		if zero > 0 {
			line[min(zero, graphWidth-1)] = '.'
		}
		value := "-"
		if next < len(points) && points[next].Interval == n {
			number := points[next].Number
			at := int((graphWidth - 1) * float32(number-low) / float32(high-low))
			line[min(max(at, 0), graphWidth-1)] = '*'
			value = decimal(t, number)
			next++
		}
		start := v.start(n)
		clock := start.Format("15:04:05")
		if digits > 0 {
			clock += "." + fmt.Sprintf("%09d", start.Nanosecond())[:digits]
		}
		fmt.Fprintf(&b, "%s %s %s\n", clock, line, value)
		if n == v.last {
			break
		}
	}
	fmt.Fprintf(&b, "%*sv%sv\n", width+1, "", strings.Repeat("_", graphWidth-2))
	scale()
	return b.String()
}

func (v *MapView) seriesJSON(el *element) JSON {
	b := JSON("[")
	for i, p := range v.shown(el) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"interval_start":`...)
		b = append(b, Quote(v.start(p.Interval).UTC().Format("2006-01-02 15:04:05.000000000"))...)
		b = append(b, `,"value":`...)
		b = append(b, decimal(v.m.Value, p.Number)...)
		b = append(b, '}')
	}
	return append(b, ']')
}
