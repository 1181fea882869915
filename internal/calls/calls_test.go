package calls

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program"
)

// stacksAt are the stacks of every process in these tests: one from 0x1000 to
// 0x9000, and a fiber's above it.
type stacksAt [][2]uint64

func (s stacksAt) Stack(_ uint32, addr uint64) (uint64, uint64, bool) {
	for _, r := range s {
		if r[0] <= addr && addr < r[1] {
			return r[0], r[1], true
		}
	}
	return 0, 0, false
}

var (
	outer   = entry(1, "outer")
	inner   = entry(2, "inner")
	leaf    = entry(3, "leaf")
	inlined = &Site{Kind: program.Entry, Instance: 4, Function: "inlined", Inline: &event.Inline{Caller: "outer"}}
	looping = &Site{Kind: program.Entry, Instance: 6, Function: "loop", Exits: true, Loops: true}
	late    = &Site{Kind: program.Entry, Instance: 5, Function: "late", Awaits: true, Exits: true,
		Args: []event.Value{{Name: "a"}, {Name: "b", Missing: "lost"}}, ArgOf: []int{0}}
	lateMore = &Site{Kind: program.More, Instance: 5, ArgOf: []int{1}}
	aLine    = &Site{Kind: program.Line, Function: "outer", Source: event.Place{File: "a.rs", Line: 7}, Exact: true,
		Args: []event.Value{{Name: "x", Missing: "lost"}, {Name: "y", Missing: "moved"}}, ArgOf: []int{0}}
	panics  = &Site{Kind: program.Panic}
	landing = &Site{Kind: program.Landing}
)

func entry(n int, name string) *Site {
	return &Site{Kind: program.Entry, Instance: n, Function: name, Exits: true}
}

func exit(of *Site) *Site {
	return &Site{Kind: program.Exit, Instance: of.Instance, Function: of.Function}
}

func show(e event.Event) string {
	switch e := e.(type) {
	case event.Call:
		s := fmt.Sprintf("> %d %s", e.ID, e.Function)
		for _, a := range e.Args {
			s += fmt.Sprintf(" %s=%s%s", a.Name, a.Text, a.Missing)
		}
		return s
	case event.Line:
		s := fmt.Sprintf("@ %d %s:%d %s", e.ID, e.Source.File, e.Source.Line, e.Function)
		for _, v := range e.Locals {
			s += fmt.Sprintf(" %s=%s%s", v.Name, v.Text, v.Missing)
		}
		return s
	case event.Return:
		return fmt.Sprintf("< %d %s %d", e.ID, e.Function, e.Duration)
	case event.Unwind:
		return fmt.Sprintf("unwind %d %s %d", e.ID, e.Function, e.Duration)
	case event.Ended:
		return fmt.Sprintf("ended %d %s %d", e.ID, e.Function, e.Duration)
	}
	return fmt.Sprintf("%T", e)
}

type step struct {
	site   *Site
	cfa    uint64
	tid    uint32
	values []event.Value
}

func TestJoin(t *testing.T) {
	at := func(s *Site, cfa uint64) step { return step{site: s, cfa: cfa, tid: 1} }
	for _, c := range []struct {
		name  string
		steps []step
		want  string
		open  uint64
	}{
		{name: "nested", steps: []step{at(outer, 0x8000), at(inner, 0x7000), at(exit(inner), 0x7000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inner\n< 2 inner 10\n< 1 outer 30"},
		{name: "recursion", steps: []step{at(outer, 0x8000), at(outer, 0x7000), at(outer, 0x6000), at(exit(outer), 0x6000), at(exit(outer), 0x7000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 outer\n> 3 outer\n< 3 outer 10\n< 2 outer 30\n< 1 outer 50"},
		{name: "panic lands", steps: []step{at(outer, 0x8000), at(inner, 0x7000), at(leaf, 0x6000), at(panics, 0x5000), at(landing, 0x7000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inner\n> 3 leaf\nunwind 3 leaf 20\nunwind 2 inner 30\n< 1 outer 50"},
		{name: "destructor runs while unwinding", steps: []step{at(outer, 0x8000), at(inner, 0x6000), at(panics, 0x5000), at(leaf, 0x7000), at(exit(leaf), 0x7000), at(landing, 0x7800)},
			want: "> 1 outer\n> 2 inner\nunwind 2 inner 20\n> 3 leaf\n< 3 leaf 10", open: 1},
		{name: "longjmp", steps: []step{at(outer, 0x8000), at(inner, 0x7000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inner\nended 2 inner 10\n< 1 outer 20"},
		{name: "next call proves the last one over", steps: []step{at(outer, 0x8000), at(inner, 0x7000), at(leaf, 0x7000), at(exit(leaf), 0x7000)},
			want: "> 1 outer\n> 2 inner\nended 2 inner 10\n> 3 leaf\n< 3 leaf 10", open: 1},
		{name: "inlined call in an open frame", steps: []step{at(outer, 0x8000), at(inlined, 0x8000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inlined\n< 1 outer 20"},
		{name: "fiber", steps: []step{at(outer, 0x8000), at(inner, 0x1a000), at(exit(inner), 0x1a000), at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inner\n< 2 inner 10\n< 1 outer 30"},
		{name: "loop to the first instruction", steps: []step{at(looping, 0x8000), at(looping, 0x8000), at(looping, 0x7000), at(exit(looping), 0x7000), at(exit(looping), 0x8000), at(looping, 0x8000)},
			want: "> 1 loop\n> 2 loop\n< 2 loop 10\n< 1 loop 40\n> 3 loop", open: 1},
		{name: "exit without entry", steps: []step{at(exit(inner), 0x7000), at(outer, 0x8000)},
			want: "> 1 outer", open: 1},
		{name: "arguments in two records", steps: []step{{late, 0x8000, 1, []event.Value{{Name: "a", Text: "1"}}}, {lateMore, 0x8000, 1, []event.Value{{Name: "b", Text: "2"}}}},
			want: "> 1 late a=1 b=2", open: 1},
		{name: "inlined between two records", steps: []step{{late, 0x8000, 1, []event.Value{{Name: "a", Text: "1"}}}, at(inlined, 0x8000), {lateMore, 0x8000, 1, []event.Value{{Name: "b", Text: "2"}}}, at(exit(late), 0x8000)},
			want: "> 1 late a=1 b=2\n> 2 inlined\n< 1 late 30"},
		{name: "inlined, second record lost", steps: []step{{late, 0x8000, 1, []event.Value{{Name: "a", Text: "1"}}}, at(inlined, 0x8000), at(inner, 0x7000)},
			want: "> 1 late a=1 b=lost\n> 2 inlined\n> 3 inner", open: 2},
		{name: "second record lost", steps: []step{{late, 0x8000, 1, []event.Value{{Name: "a", Text: "1"}}}, at(inner, 0x7000)},
			want: "> 1 late a=1 b=lost\n> 2 inner", open: 2},
		{name: "a line ends what is deeper, not its own call", steps: []step{at(outer, 0x8000), at(inner, 0x7000), {aLine, 0x8000, 1, []event.Value{{Name: "x", Text: "1"}}}, at(exit(outer), 0x8000)},
			want: "> 1 outer\n> 2 inner\nended 2 inner 10\n@ 3 a.rs:7 outer x=1 y=moved\n< 1 outer 30"},
		{name: "a line between two records", steps: []step{{late, 0x8000, 1, []event.Value{{Name: "a", Text: "1"}}}, at(aLine, 0x8000), {lateMore, 0x8000, 1, []event.Value{{Name: "b", Text: "2"}}}},
			want: "> 1 late a=1 b=2\n@ 2 a.rs:7 outer x=lost y=moved", open: 1},
		{name: "threads", steps: []step{at(outer, 0x8000), {outer, 0x8000, 2, nil}, at(exit(outer), 0x8000), {exit(outer), 0x8000, 2, nil}},
			want: "> 1 outer\n> 2 outer\n< 1 outer 20\n< 2 outer 20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			j := New(stacksAt{{0x1000, 0x9000}, {0x10000, 0x20000}}, func(uint64) time.Time { return time.Time{} },
				func(e event.Event) { got = append(got, show(e)) })
			for i, s := range c.steps {
				j.Add(Record{Site: s.site, Time: uint64(10 * i), CFA: s.cfa, Values: s.values, Thread: event.Thread{PID: 1, TID: s.tid}})
			}
			open, _ := j.Close()
			if g := strings.Join(got, "\n"); g != c.want {
				t.Errorf("got\n%s\nwant\n%s", g, c.want)
			}
			if open != c.open {
				t.Errorf("%d calls open, want %d", open, c.open)
			}
		})
	}
}

func TestGoneThread(t *testing.T) {
	var got []string
	j := New(stacksAt{{0x1000, 0x9000}}, func(uint64) time.Time { return time.Time{} },
		func(e event.Event) { got = append(got, show(e)) })
	j.Add(Record{Site: outer, CFA: 0x8000, Thread: event.Thread{PID: 1, TID: 7}})
	j.Add(Record{Site: inner, CFA: 0x7000, Time: 5, Thread: event.Thread{PID: 1, TID: 7}})
	j.Gone(7, 20)
	want := "> 1 outer\n> 2 inner\nended 2 inner 15\nended 1 outer 20"
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
}

// What was open before an exec is over with the stack that it was on.
func TestVanishedStack(t *testing.T) {
	var got []string
	stacks := stacksAt{{0x1000, 0x9000}}
	j := New(&stacks, func(uint64) time.Time { return time.Time{} }, func(e event.Event) { got = append(got, show(e)) })
	j.Add(Record{Site: outer, CFA: 0x8000, Thread: event.Thread{PID: 1, TID: 1}})
	stacks[0] = [2]uint64{0x30000, 0x40000}
	j.Add(Record{Site: inner, CFA: 0x3f000, Time: 10, Thread: event.Thread{PID: 1, TID: 1}})
	// A process that has ended can't be asked: nothing is concluded from that.
	stacks[0] = [2]uint64{}
	j.Add(Record{Site: leaf, CFA: 0x7fff0000, Time: 20, Thread: event.Thread{PID: 1, TID: 1}})
	want := "> 1 outer\nended 1 outer 10\n> 2 inner\n> 3 leaf"
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
	if open, _ := j.Close(); open != 2 {
		t.Errorf("%d calls open, want 2", open)
	}
}

// Calls of an ended process stay open, and its threads are forgotten.
func TestExited(t *testing.T) {
	j := New(stacksAt{{0x1000, 0x9000}}, func(uint64) time.Time { return time.Time{} }, func(event.Event) {})
	for tid := range uint32(100) {
		j.Add(Record{Site: outer, CFA: 0x8000, Thread: event.Thread{PID: 1, TID: tid}})
	}
	j.Threads(func(_, tid uint32) { j.Exited(tid) })
	if open, _ := j.Close(); open != 100 || len(j.threads) != 0 {
		t.Errorf("%d calls open, want 100; %d threads known, want 0", open, len(j.threads))
	}
}

// Where an exit may have been lost, nothing is said of how a call ended.
func TestLosses(t *testing.T) {
	var got []string
	j := New(stacksAt{{0x1000, 0x9000}}, func(uint64) time.Time { return time.Time{} },
		func(e event.Event) { got = append(got, show(e)) })
	j.Losses = func(since uint64) bool { return since < 15 }
	for i, s := range []*Site{outer, inner, leaf, exit(outer)} {
		j.Add(Record{Site: s, CFA: 0x8000 - uint64(i%3)<<12, Time: uint64(10 * i), Thread: event.Thread{PID: 1, TID: 1}})
	}
	want := "> 1 outer\n> 2 inner\n> 3 leaf\nended 3 leaf 10\n< 1 outer 30"
	if g := strings.Join(got, "\n"); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
	if open, _ := j.Close(); open != 0 {
		t.Errorf("%d calls open, want 0", open)
	}
}
