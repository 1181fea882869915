package verb

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/show"
)

// Rows are what the maps of the script hold, as rows of the verb's table: those with most
// calls first. elements reads a map by its number. The calls are those in all rows.
func (v *Verb) Rows(env *show.Env, s *ir.Script, elements func(m int) ([]show.Entry, error)) (rows []event.Event, calls uint64, err error) {
	var all []row
	switch v.Kind {
	case Latency:
		all, err = v.latencies(env, s, elements)
	default:
		all, err = v.counted(env, s, elements)
	}
	slices.SortFunc(all, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.calls, a.calls), cmp.Compare(a.function, b.function), cmp.Compare(a.by, b.by))
	})
	for _, r := range all {
		rows = append(rows, r.event)
		calls += r.calls
	}
	return rows, calls, err
}

type row struct {
	function, by string
	calls        uint64
	event        event.Event
}

// mapOf finds a map; nil if the script has none of that name.
func mapOf(s *ir.Script, name string) (int, *ir.Map) {
	for i, m := range s.Maps {
		if m.Name == name {
			return i, m
		}
	}
	return -1, nil
}

// counted are the rows of count and hist.
func (v *Verb) counted(env *show.Env, s *ir.Script, elements func(int) ([]show.Entry, error)) (rows []row, err error) {
	i, m := mapOf(s, counts)
	if m == nil {
		return nil, nil
	}
	all, err := elements(i)
	for _, e := range all {
		r := v.rowOf(env, m.Key, e.Key)
		if v.Kind == Hist {
			for _, n := range m.Value.Counters(e.Values) {
				r.calls += n
			}
			view := env.Map(m, []show.Entry{e}, 0, 0)
			r.event = event.Hist{Function: r.function, By: r.by, Count: r.calls, Text: view.Value(), Buckets: view.ValueJSON()}
		} else {
			r.calls = m.Value.Total(e.Values).Number
			r.event = event.Count{Function: r.function, By: r.by, Count: r.calls}
		}
		if r.calls > 0 {
			rows = append(rows, r)
		}
	}
	return rows, err
}

// latencies are the rows of latency. All its maps have the same keys.
func (v *Verb) latencies(env *show.Env, s *ir.Script, elements func(int) ([]show.Entry, error)) ([]row, error) {
	total := func(name string) (map[string]uint64, error) {
		i, m := mapOf(s, name)
		if m == nil {
			return nil, nil
		}
		all, err := elements(i)
		numbers := map[string]uint64{}
		for _, e := range all {
			numbers[string(e.Key)] = m.Value.Total(e.Values).Number
		}
		return numbers, err
	}
	i, m := mapOf(s, durations)
	if m == nil {
		return nil, nil
	}
	all, err := elements(i)
	if err != nil {
		return nil, err
	}
	var figures [3]map[string]uint64
	for i, name := range []string{shortest, longest, sum} {
		if figures[i], err = total(name); err != nil {
			return nil, err
		}
	}
	var rows []row
	for _, e := range all {
		d := show.HistStats(m.Value, m.Value.Counters(e.Values))
		if d.Count == 0 {
			continue
		}
		r := v.rowOf(env, m.Key, e.Key)
		r.calls = d.Count
		least, most := figures[0][string(e.Key)], figures[1][string(e.Key)]
		percentile := func(p float64) time.Duration {
			// A bucket is wider than what is in it.
			return time.Duration(max(least, min(d.Percentile(p), most)))
		}
		l := event.Latency{
			Function: r.function, By: r.by, Count: d.Count, Min: time.Duration(least), Max: time.Duration(most),
			P50: percentile(0.5), P90: percentile(0.9), P99: percentile(0.99), P999: percentile(0.999),
			Sum: time.Duration(figures[2][string(e.Key)]),
		}
		for _, b := range d.Powers() {
			l.Hist = append(l.Hist, event.Bucket(b))
		}
		r.event = l
		rows = append(rows, r)
	}
	return rows, nil
}

// rowOf reads a key: the function or probe, and what --by adds to it.
func (v *Verb) rowOf(env *show.Env, t *ir.Type, key []byte) (r row) {
	part := func(i int) show.Arg {
		f := t.Fields[i]
		return show.Arg{Type: f.Type, Bytes: key[min(f.Off, len(key)):min(f.Off+f.Type.Size, len(key))]}
	}
	raw := *env
	raw.Raw = true // outputs escape what they print
	if t.Kind != ir.Tuple {
		r.function = raw.Text(show.Arg{Type: t, Bytes: key})
	} else {
		r.function = raw.Text(part(0))
		var by []string
		for i := range t.Fields[1:] {
			by = append(by, raw.Debug(part(i+1)))
		}
		r.by = strings.Join(by, ", ")
	}
	if v.lines() { // it is a probe, which has a pattern behind its provider
		_, r.function, _ = strings.Cut(r.function, ":")
	}
	return r
}
