package output

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"ferrotrace/internal/event"
)

// threads follows, for the text's margin, which thread an event is of and how
// deep in traced calls it stands.
type threads struct {
	known map[threadID]*thread
	// several is set from the second thread on: only then lines are headed by
	// their thread's name, and once there is a second process by its pid too.
	several, processes bool
	first              *threadID
	width              int
	// unended holds functions that were called and never seen to end though
	// their callers did: their exits can't be probed, so they open no level.
	unended map[string]bool
}

type threadID struct{ pid, tid uint32 }

type thread struct {
	comm string
	open []openCall
}

type openCall struct {
	id       uint64
	function string
}

const (
	// maxThreads bounds the memory for threads that were seen: beyond it all is
	// forgotten, which costs no more than some indentation.
	maxThreads = 10000
	// maxIndent keeps deep recursion readable.
	maxIndent = 24
	// maxUnended is the number of calls of one function, none of which ended,
	// from which on it is taken for one whose end is never seen.
	maxUnended = 16
)

func newThreads() threads {
	return threads{known: make(map[threadID]*thread), unended: make(map[string]bool)}
}

// at returns the event's thread and the margin of its line.
func (ts *threads) at(t event.Thread) (*thread, string) {
	id := threadID{t.PID, t.TID}
	if ts.first == nil {
		ts.first = &id
	}
	ts.several = ts.several || id != *ts.first
	ts.processes = ts.processes || id.pid != ts.first.pid
	th := ts.known[id]
	if th == nil {
		if len(ts.known) >= maxThreads {
			clear(ts.known)
		}
		th = &thread{}
		ts.known[id] = th
	}
	if t.Comm != "" {
		th.comm = t.Comm
	}
	if !ts.several {
		return th, ""
	}
	name := fmt.Sprintf("[%s %d", Escape(th.comm), id.tid)
	if ts.processes {
		name = fmt.Sprintf("[%s %d/%d", Escape(th.comm), id.pid, id.tid)
	}
	name = strings.Replace(name, "[ ", "[", 1) + "] "
	ts.width = max(ts.width, utf8.RuneCountInString(name))
	return th, name + strings.Repeat(" ", ts.width-utf8.RuneCountInString(name))
}

// enter opens a level for a call and returns the margin and depth of its line.
// An inlined call may have no end, so it opens none.
func (ts *threads) enter(e event.Call) (margin string, depth int) {
	th, margin := ts.at(e.Thread)
	depth = min(len(th.open), maxIndent)
	if e.Inline != nil || ts.unended[e.Function] {
		return margin, depth
	}
	same := 0
	for _, o := range th.open {
		if o.function == e.Function {
			same++
		}
	}
	if _, seen := ts.unended[e.Function]; same >= maxUnended && !seen {
		ts.dismiss(th, e.Function)
		return margin, min(len(th.open), maxIndent)
	}
	th.open = append(th.open, openCall{e.ID, e.Function})
	if len(th.open) > 1000 { // deeper levels can't be told apart anyway
		th.open = th.open[1:]
	}
	return margin, depth
}

// dismiss takes function for one whose end is never seen.
func (ts *threads) dismiss(th *thread, function string) {
	ts.unended[function] = true
	kept := th.open[:0]
	for _, o := range th.open {
		if o.function != function {
			kept = append(kept, o)
		}
	}
	th.open = kept
}

// leave closes the level of call id, and those that were opened in it.
func (ts *threads) leave(t event.Thread, id uint64) (margin string, depth int) {
	th, margin := ts.at(t)
	for i := len(th.open) - 1; i >= 0; i-- {
		if th.open[i].id != id {
			continue
		}
		ts.unended[th.open[i].function] = false
		for _, inner := range th.open[i+1:] {
			if _, seen := ts.unended[inner.function]; !seen {
				ts.unended[inner.function] = true
			}
		}
		th.open = th.open[:i]
		break
	}
	return margin, min(len(th.open), maxIndent)
}

// within is the margin and the depth of what happens in the latest call of a thread.
func (ts *threads) within(t event.Thread) (margin string, depth int) {
	th, margin := ts.at(t)
	return margin, min(len(th.open), maxIndent)
}
