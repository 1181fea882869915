package show

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"ferrotrace/internal/program/ir"
)

// Entry is an element of a map. The bytes of Key are not read if the map has none.
type Entry struct {
	Key    []byte
	Values [][]byte // one for each CPU, or one
}

// MapView is a map as print shows it.
type MapView struct {
	e       *Env
	m       *ir.Map
	div     int64
	entries []element
	first   uint64 // of a Series, the intervals shown: they are the same for all keys
	last    uint64
}

// element is an entry, its values one.
type element struct {
	key []byte
	// value is what stands in the map, if it is no aggregate.
	value    []byte
	total    ir.Total
	counters []uint64
	points   []ir.Point
	// order is what the elements are sorted by, by the value's signedness.
	order uint64
}

// Map is what print(@m, top, div) shows of a map with the entries: in the order of the numbers, or of how
// many numbers are in a histogram, and of equals in that of the keys; other values, and
// series, in the order of the keys. If top is not 0 only the last that many are shown, but of
// series all. Numbers, averages and counts of a Hist are divided by div if it is not 0.
//
// A map that has no entries shows nothing; print of a map of one value shows zeros
// then: Zero.
func (e *Env) Map(m *ir.Map, entries []Entry, top, div int64) *MapView {
	v := &MapView{e: e, m: m, div: max(div, 1)}
	t := m.Value
	for _, entry := range entries {
		v.entries = append(v.entries, newElement(t, entry))
	}
	signed := t.Signed && t.Kind != ir.Hist && t.Kind != ir.LHist
	slices.SortFunc(v.entries, func(a, b element) int {
		c := cmp.Compare(a.order, b.order)
		if signed {
			c = cmp.Compare(int64(a.order), int64(b.order))
		}
		if c == 0 && m.Key != nil {
			c = compare(m.Key, a.key, b.key)
		}
		return c
	})
	if t.Kind == ir.Series {
		v.first, v.last = span(t, v.entries)
	} else if n := int64(len(v.entries)); top > 0 && top < n {
		v.entries = v.entries[n-top:]
	}
	return v
}

// Zero is the entry of a map of one value that has none yet.
func Zero() Entry { return Entry{Values: [][]byte{nil}} }

func newElement(t *ir.Type, entry Entry) element {
	el := element{key: entry.Key}
	switch t.Kind {
	case ir.Count, ir.Sum, ir.Avg, ir.Stats, ir.Min, ir.Max:
		el.total = t.Total(entry.Values)
		el.order = el.total.Number
	case ir.Hist, ir.LHist:
		el.counters = t.Counters(entry.Values)
		for _, n := range el.counters {
			el.order += n
		}
	case ir.Series:
		el.points = t.Points(entry.Values)
	case ir.Int:
		// A map declared to be per CPU is added up.
		var n uint64
		for _, b := range entry.Values {
			n += intOf(t, b)
		}
		el.value = appendWord(nil, n)
		el.order = intOf(t, el.value)
	default:
		for _, b := range entry.Values {
			if el.value == nil || len(bytes.Trim(el.value, "\x00")) == 0 {
				el.value = b
			}
		}
	}
	return el
}

// compare orders values, as keys.
func compare(t *ir.Type, a, b []byte) int {
	switch t.Kind {
	case ir.Int:
		if t.Signed {
			return cmp.Compare(int64(intOf(t, a)), int64(intOf(t, b)))
		}
		return cmp.Compare(intOf(t, a), intOf(t, b))
	case ir.Bool:
		return cmp.Compare(word(a, 1), word(b, 1))
	case ir.Pointer, ir.Name, ir.Stamp, ir.Symbol:
		return cmp.Compare(word(a, 8), word(b, 8))
	case ir.Text:
		return bytes.Compare(textOf(t, a), textOf(t, b))
	case ir.Bytes:
		return bytes.Compare(bytesOf(t, a), bytesOf(t, b))
	case ir.Tuple:
		for _, f := range t.Fields {
			if c := compare(f.Type, slice(a, f.Off, f.Type.Size), slice(b, f.Off, f.Type.Size)); c != 0 {
				return c
			}
		}
		return 0
	case ir.Array:
		for i := range t.Count {
			if c := compare(t.Elem, slice(a, i*t.Elem.Size, t.Elem.Size), slice(b, i*t.Elem.Size, t.Elem.Size)); c != 0 {
				return c
			}
		}
		return 0
	}
	return bytes.Compare(a, b)
}

// Text writes the map: a line for each element, or several for what is drawn.
func (v *MapView) Text(w io.Writer) error {
	var b strings.Builder
	for i := range v.entries {
		el := &v.entries[i]
		b.WriteString(v.e.escape(v.m.Name))
		if v.m.Key != nil {
			b.WriteString("[" + v.key(el, false) + "]")
		}
		b.WriteString(":")
		if drawn(v.m.Value) {
			b.WriteString("\n")
		} else {
			b.WriteString(" ")
		}
		b.WriteString(v.value(el) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Value is the text of the first element's value, without the map's name: for print(@m[k]).
func (v *MapView) Value() string {
	if len(v.entries) == 0 {
		return ""
	}
	return v.value(&v.entries[0])
}

// ValueJSON is the same as JSON.
func (v *MapView) ValueJSON() JSON {
	if len(v.entries) == 0 {
		return JSON("null")
	}
	return v.valueJSON(&v.entries[0])
}

// Type is the type of the map's line of JSON: "map", "hist", "stats" or "tseries".
func (v *MapView) Type() string {
	switch v.m.Value.Kind {
	case ir.Hist, ir.LHist:
		return "hist"
	case ir.Avg, ir.Stats:
		return "stats"
	case ir.Series:
		return "tseries"
	}
	return "map"
}

// JSON writes the map as a line: {"type": TYPE, "data": {NAME: VALUE}}, or with an object of
// values by key as VALUE. It writes nothing if the map has no elements.
func (v *MapView) JSON(w io.Writer) error {
	if len(v.entries) == 0 {
		return nil
	}
	b := append(JSON("{"), Quote(v.m.Name)...)
	b = append(b, ": "...)
	if v.m.Key == nil {
		b = append(b, v.valueJSON(&v.entries[0])...)
	} else {
		b = append(b, '{')
		for i := range v.entries {
			el := &v.entries[i]
			b = appendKey(b, i, v.key(el, true))
			b = append(b, v.valueJSON(el)...)
		}
		b = append(b, '}')
	}
	return Line(w, v.Type(), append(b, '}'))
}

// key is a key's text: a tuple's without its parentheses; as JSON has it without spaces,
// and not escaped.
func (v *MapView) key(el *element, json bool) string {
	env := *v.e
	env.Raw = env.Raw || json
	p := printer{e: &env, div: 1, compact: json}
	p.value(v.m.Key, el.key)
	s := p.b.String()
	if v.m.Key.Kind == ir.Tuple && !isRecord(v.m.Key) {
		s = strings.TrimSuffix(strings.TrimPrefix(s, "("), ")")
	}
	return s
}

// drawn says whether values stand below the map's name.
func drawn(t *ir.Type) bool { return t.Kind == ir.Hist || t.Kind == ir.LHist || t.Kind == ir.Series }

func (v *MapView) value(el *element) string {
	t := v.m.Value
	switch t.Kind {
	case ir.Hist, ir.LHist:
		return histText(v.buckets(el))
	case ir.Series:
		return v.series(el)
	case ir.Stats:
		return fmt.Sprintf("{ .count = %d, .average = %s, .total = %s }", el.total.Count, decimal(t, divide(t, el.total.Number, v.div)), decimal(t, el.total.Sum))
	case ir.Count, ir.Sum, ir.Avg, ir.Min, ir.Max:
		return decimal(t, divide(t, el.total.Number, v.div))
	}
	p := printer{e: v.e, div: v.div}
	p.value(t, el.value)
	return p.b.String()
}

func (v *MapView) valueJSON(el *element) JSON {
	t := v.m.Value
	switch t.Kind {
	case ir.Hist, ir.LHist:
		return histJSON(v.buckets(el))
	case ir.Series:
		return v.seriesJSON(el)
	case ir.Stats:
		b := appendNumber(JSON(`{"count": `), ir.U64, el.total.Count)
		b = appendNumber(append(b, `, "average": `...), t, divide(t, el.total.Number, v.div))
		b = appendNumber(append(b, `, "total": `...), t, el.total.Sum)
		return append(b, '}')
	case ir.Count, ir.Sum, ir.Avg, ir.Min, ir.Max:
		return appendNumber(nil, t, divide(t, el.total.Number, v.div))
	}
	return v.e.appendJSON(nil, t, el.value, v.div)
}

func (v *MapView) buckets(el *element) []bucket {
	buckets := bucketsOf(v.m.Value, el.counters)
	if v.m.Value.Kind == ir.Hist {
		for i := range buckets {
			buckets[i].count /= uint64(v.div)
		}
	}
	return buckets
}
