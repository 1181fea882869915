package session

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/script/verb"
)

// ended is a call with its end.
type ended struct {
	function, arg string
	end           string // "→ 7", "unwind", "ended", ""
}

// pairs are the calls of a trace, in the order of their text.
func (g *told) pairs(t *testing.T) (all []ended) {
	t.Helper()
	at := map[uint64]int{}
	end := func(id uint64, how string) {
		i, ok := at[id]
		if !ok {
			t.Fatalf("%s of call %d, which was not shown", how, id)
		}
		all[i].end = how
	}
	for _, e := range g.events {
		switch e := e.(type) {
		case event.Call:
			at[e.ID] = len(all)
			all = append(all, ended{function: e.Function, arg: e.Args[0].Text})
		case event.Return:
			end(e.ID, "→ "+e.Value.Text)
		case event.Unwind:
			end(e.ID, "unwind")
		case event.Ended:
			end(e.ID, "ended")
		}
	}
	slices.SortFunc(all, func(a, b ended) int {
		return slices.Compare([]string{a.function, a.arg, a.end}, []string{b.function, b.arg, b.end})
	})
	return all
}

func (e ended) n() uint64 { n, _ := strconv.ParseUint(e.arg, 10, 64); return n }

// result is what the call returned; false if it did not.
func (e ended) result() (n uint64, ok bool) {
	_, err := fmt.Sscanf(e.end, "→ %d", &n)
	return n, err == nil
}

// A trace with a predicate shows what one without shows for which it holds, and says how
// many calls it has not shown.
func TestWhere(t *testing.T) { both(t, testWhere) }

func testWhere(t *testing.T, rt string) {
	returned := func(f func(ended, uint64) bool) func(ended) bool {
		return func(e ended) bool {
			n, ok := e.result()
			return ok && f(e, n)
		}
	}
	for _, c := range []struct {
		pattern, story, where string
		holds                 func(ended) bool
	}{
		{"flow::plain::fib", "recursion", "args.n == 6", func(e ended) bool { return e.n() == 6 }},
		{"flow::plain::fib", "recursion", "args.n % 2 == 0", func(e ended) bool { return e.n()%2 == 0 }},
		{"flow::plain::fib", "recursion", "retval > 2", returned(func(_ ended, n uint64) bool { return n > 2 })},
		{"flow::plain::deep", "recursion", `args.s == "bottom" && args.n < 3`, func(e ended) bool { return e.n() < 3 }},
		{"flow::plain::many_exits", "exits", "args.n > 10 && duration > 0", func(e ended) bool { return e.n() > 10 && e.end != "" }},
		{"flow::panics::risky", "panics", "args.n < 2", func(e ended) bool { return e.n() < 2 }},
		{"flow::panics::risky", "panics", "retval < 3", returned(func(_ ended, n uint64) bool { return n < 3 })},
	} {
		t.Run(c.pattern+" "+c.where, func(t *testing.T) {
			all := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{c.pattern}}, c.story)
			some := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{c.pattern}, Where: c.where}, c.story)
			if some.err != nil || all.err != nil {
				t.Fatal(all.err, some.err)
			}
			want := slices.DeleteFunc(all.pairs(t), func(e ended) bool { return !c.holds(e) })
			got := some.pairs(t)
			if !slices.Equal(got, want) {
				t.Errorf("%v\nwant %v", got, want)
			}
			s := some.summary(t)
			if s.Calls != all.summary(t).Calls || s.Shown != uint64(len(want)) || s.Lost != 0 {
				t.Errorf("%+v of %+v", s, all.summary(t))
			}
			if len(want) == 0 || s.Hidden == 0 {
				t.Errorf("nothing to see: %+v", s)
			}
		})
	}
}

// Figures by argument and result are those that a trace shows.
func TestMeasure(t *testing.T) { both(t, measure) }

func measure(t *testing.T, rt string) {
	all := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"flow::plain::fib"}}, "recursion")
	want := map[string]uint64{}
	for _, e := range all.pairs(t) {
		if n, ok := e.result(); ok && e.n() > 1 {
			want[fmt.Sprintf("%s, %d", e.arg, n)]++
		}
	}
	for _, kind := range []verb.Kind{verb.Count, verb.Latency, verb.Hist} {
		run := func(ctx context.Context, o Options) error {
			v := verb.Verb{Kind: kind, Where: "args.n > 1", By: "args.n, retval"}
			if kind == verb.Hist {
				v.Value = "duration"
			}
			return Measure(ctx, o, v)
		}
		m := flow(t, run, nil, Options{Runtime: rt, Patterns: []string{"flow::plain::fib"}}, "recursion")
		if m.err != nil {
			t.Fatal(m.err)
		}
		got := map[string]uint64{}
		for _, e := range m.events {
			switch e := e.(type) {
			case event.Count:
				got[e.By] = e.Count
			case event.Hist:
				got[e.By] = e.Count
			case event.Latency:
				got[e.By] = e.Count
				if !slices.IsSorted([]int64{1, int64(e.Min), int64(e.P50), int64(e.P90), int64(e.P99), int64(e.P999), int64(e.Max), int64(e.Sum)}) {
					t.Errorf("%+v", e)
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", kind, got, want)
		}
		if s := m.summary(t); s.Calls != all.summary(t).Calls || s.Lost != 0 {
			t.Errorf("%s: %+v of %+v", kind, s, all.summary(t))
		}
	}
}
