// Package calls puts the records of a run together into calls: entries with
// their further arguments, returns, and the calls that ended without one. Entry
// and exit are matched by thread and canonical frame address (CFA).
package calls

import (
	"slices"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program"
)

// Site is what the records of one item of a probe stand for.
type Site struct {
	Kind program.ItemKind
	// Instance tells functions' pieces of code apart: the entry and the exits of
	// one have the same.
	Instance int
	Function string
	Aliases  []string
	Source   event.Place // of a line: the line
	Inline   *event.Inline
	// Exact says that each pass through a line is one record.
	Exact bool
	// Args are all parameters, of a line all variables in scope,
	// in source order, those that the records don't hold with the reason as Missing. ArgOf maps a record's values to them.
	Args  []event.Value
	ArgOf []int
	// Awaits: another record, of kind More, completes this entry.
	Awaits bool
	// Exits: the call's end will be reported, so it is kept open until then.
	Exits bool
	// Loops: the function's code jumps back to its first instruction, so that a loop
	// looks like an entry.
	Loops bool
	// Held: whether the call is shown is said by the record of its exit; Unsure: by the one
	// that completes its entry.
	Held, Unsure bool
	// Hidden: no record of the site says that its call is to be shown.
	Hidden bool
	// Polls: the function is the body of an async function or block.
	Polls bool
	// Result is the value of an exit whose record holds none; nil for ().
	Result *event.Value
	Tail   bool
	// Given: the types of the values are the user's word.
	Given bool
}

// Record is one record, decoded.
type Record struct {
	Site   *Site
	Time   uint64 // CLOCK_MONOTONIC, ns
	Thread event.Thread
	CFA    uint64
	Values []event.Value
	// Future and First are as in record.Record.
	Future uint64
	First  bool
	// Hidden: the record says that its call is not to be shown.
	Hidden bool
}

// Stacks finds the stack mapping that an address of a process lies in.
type Stacks interface {
	Stack(pid uint32, addr uint64) (low, high uint64, ok bool)
}

// maxHeld bounds the inlined calls between the two records of an entry.
const maxHeld = 64

// maxOpen bounds the calls that are open on one stack; the oldest are evicted.
const maxOpen = 1 << 16

// assumedStack is how far from an address its stack is taken to reach when the
// process is gone and can't be asked: the usual limit of a main thread.
const assumedStack = 8 << 20

// Joiner makes events of records that come in the order of time.
type Joiner struct {
	// Losses says whether exits may have been lost since a monotonic time: then
	// nothing is said of how calls ended that began before and were not seen to. It
	// may be nil.
	Losses func(since uint64) bool

	emit    func(event.Event)
	stacks  Stacks
	wall    func(monotonic uint64) time.Time
	threads map[uint32]*thread
	polls   polls
	nextID  uint64
	evicted uint64
	left    uint64 // calls that were open when their process ended
	hidden  uint64 // calls that are not shown
}

type thread struct {
	pid    uint32
	stacks []*stack
	// waiting is an entry whose further arguments have not come yet, held what was
	// inlined into its frame before they did.
	waiting   *open
	held      []Record
	panicking int
	landed    bool // the last record was a landing
}

type stack struct {
	low, high uint64
	open      []*open // in order of entry, so of falling CFA
}

type open struct {
	site  *Site
	id    uint64
	start uint64
	cfa   uint64
	call  event.Call
	held  bool // it is shown if its exit says so; it has no id until then
	// unsure: nothing has said that it is to be shown, though something should.
	unsure bool
}

// New returns a Joiner that passes events to emit. wall turns a monotonic time
// into the time of day.
func New(stacks Stacks, wall func(uint64) time.Time, emit func(event.Event)) *Joiner {
	return &Joiner{emit: emit, stacks: stacks, wall: wall, threads: map[uint32]*thread{},
		polls: polls{n: map[future]uint64{}}}
}

// Add takes the next record.
func (j *Joiner) Add(r Record) {
	t := j.threads[r.Thread.TID]
	if t == nil || t.pid != r.Thread.PID {
		t = &thread{pid: r.Thread.PID}
		j.threads[r.Thread.TID] = t
	}
	switch w := t.waiting; {
	case w == nil, r.Site.Kind == program.More && r.Site.Instance == w.site.Instance && r.CFA == w.cfa:
	case r.Site.within() && r.CFA == w.cfa && len(t.held) < maxHeld:
		t.held = append(t.held, r)
		return
	default:
		// The record with the other arguments was lost: they stand as they are.
		j.shown(t)
	}
	switch r.Site.Kind {
	case program.Entry:
		j.entry(t, r)
	case program.More:
		if t.waiting == nil {
			break
		}
		fill(t.waiting.call.Args, r)
		t.waiting.unsure = r.Hidden
		j.shown(t)
	case program.Exit:
		j.exit(t, r)
	case program.Line:
		j.line(t, r)
	case program.Panic:
		t.panicking++
	case program.Landing:
		j.over(t, r, true, true)
		// One landing may be seen twice, at a function and at another that it calls.
		if t.panicking > 0 && !t.landed {
			t.panicking--
		}
	}
	t.landed = r.Site.Kind == program.Landing
}

func fill(args []event.Value, r Record) {
	for i, v := range r.Values {
		if i < len(r.Site.ArgOf) {
			v.Given = r.Site.Given
			args[r.Site.ArgOf[i]] = v
		}
	}
}

func (j *Joiner) entry(t *thread, r Record) {
	inlined := r.Site.Inline != nil
	if r.Site.Loops && r.Site.Exits && j.isOpen(t, r) {
		return
	}
	// An inlined instance runs in its caller's frame, which is not over.
	s := j.over(t, r, !inlined, t.panicking > 0)
	o := &open{site: r.Site, start: r.Time, cfa: r.CFA, held: r.Site.Held, unsure: r.Site.Unsure, call: event.Call{
		Time: j.wall(r.Time), Thread: r.Thread, Function: r.Site.Function,
		Aliases: r.Site.Aliases, Source: r.Site.Source, Inline: r.Site.Inline,
		Args: append(make([]event.Value, 0, len(r.Site.Args)), r.Site.Args...),
	}}
	fill(o.call.Args, r)
	if r.Site.Polls && (!inlined || r.Site.Inline.Exact) {
		o.call.Poll = j.polls.next(&r)
	}
	if r.Site.Exits {
		if len(s.open) >= maxOpen {
			oldest := len(s.open) / 4
			j.hidden += held(s.open[:oldest])
			s.open = append(s.open[:0], s.open[oldest:]...)
			j.evicted += uint64(oldest)
		}
		s.open = append(s.open, o)
	}
	t.waiting = o
	if !r.Site.Awaits {
		j.shown(t)
	}
}

// within says whether what happens at a site happens within the call of its frame: an
// inlined call, and a line.
func (s *Site) within() bool {
	return s.Kind == program.Entry && s.Inline != nil || s.Kind == program.Line
}

// line emits that control came to a line.
func (j *Joiner) line(t *thread, r Record) {
	j.over(t, r, false, t.panicking > 0)
	j.nextID++
	l := event.Line{
		ID: j.nextID, Time: j.wall(r.Time), Thread: r.Thread, Function: r.Site.Function, Aliases: r.Site.Aliases,
		Source: r.Site.Source, Inline: r.Site.Inline, Exact: r.Site.Exact,
		Locals: append(make([]event.Value, 0, len(r.Site.Args)), r.Site.Args...),
	}
	fill(l.Locals, r)
	j.emit(l)
}

// isOpen says whether the latest call is of r's instance and in r's frame.
func (j *Joiner) isOpen(t *thread, r Record) bool {
	s := j.stack(t, r)
	for i := len(s.open) - 1; i >= 0 && s.open[i].cfa <= r.CFA; i-- {
		if s.open[i].cfa == r.CFA && s.open[i].site.Instance == r.Site.Instance {
			return true
		}
	}
	return false
}

// shown emits the waiting call, unless it is hidden or held, and what has waited behind it.
func (j *Joiner) shown(t *thread) {
	switch w := t.waiting; {
	case w.unsure:
		j.hidden++
		for _, s := range t.stacks {
			s.open = slices.DeleteFunc(s.open, func(o *open) bool { return o == w })
		}
	case !w.held:
		j.show(w)
	}
	t.waiting = nil
	held := t.held
	t.held = nil
	for _, r := range held {
		j.Add(r)
	}
}

// show emits a call. Ids are in the order in which calls are shown.
func (j *Joiner) show(o *open) {
	j.nextID++
	o.id, o.call.ID, o.held = j.nextID, j.nextID, false
	j.emit(o.call)
}

func (j *Joiner) exit(t *thread, r Record) {
	s := j.over(t, r, false, t.panicking > 0)
	for i := len(s.open) - 1; i >= 0; i-- {
		o := s.open[i]
		if o.cfa != r.CFA {
			break
		}
		if o.site.Instance != r.Site.Instance {
			continue
		}
		// What was entered later in this very frame was a tail call whose own end
		// went unseen; it ends with the frame.
		for _, later := range s.open[i+1:] {
			j.end(later, r, false)
		}
		s.open = s.open[:i]
		if r.Hidden || r.Site.Hidden {
			if o.held { // else the entry's record was shown, for want of the one that says this
				j.hidden++
			}
			return
		}
		if o.held {
			j.show(o)
		}
		ret := event.Return{
			ID: o.id, Time: j.wall(r.Time), Thread: r.Thread, Function: o.site.Function,
			Duration: time.Duration(r.Time - o.start), Value: r.Site.Result, Tail: r.Site.Tail,
		}
		if len(r.Values) == 1 {
			ret.Value = &r.Values[0]
			ret.Value.Given = r.Site.Given
		}
		j.emit(ret)
		return
	}
}

// over ends the calls that r proves to be over, those deeper in r's stack than
// r's own frame, and with inFrame those of that frame too. It returns the stack.
func (j *Joiner) over(t *thread, r Record, inFrame, unwound bool) *stack {
	s := j.stack(t, r)
	n := len(s.open)
	for n > 0 && (s.open[n-1].cfa < r.CFA || inFrame && s.open[n-1].cfa == r.CFA) {
		n--
		j.end(s.open[n], r, unwound)
	}
	s.open = s.open[:n]
	return s
}

func (j *Joiner) end(o *open, r Record, unwound bool) {
	if o.held {
		j.hidden++
		return
	}
	if j.Losses != nil && j.Losses(o.start) {
		return
	}
	d := time.Duration(r.Time - o.start)
	if unwound {
		j.emit(event.Unwind{ID: o.id, Thread: o.call.Thread, Function: o.site.Function, Duration: d})
	} else {
		j.emit(event.Ended{ID: o.id, Thread: o.call.Thread, Function: o.site.Function, Duration: d})
	}
}

// stack finds the stack that r's frame is on: fibers, segmented stacks and signal
// stacks have others than their thread, and frames of two can't be compared.
func (j *Joiner) stack(t *thread, r Record) *stack {
	for _, s := range t.stacks {
		if s.low <= r.CFA && r.CFA <= s.high {
			return s
		}
	}
	low, high, ok := j.stacks.Stack(r.Thread.PID, r.CFA)
	if !ok {
		low, high = r.CFA-min(r.CFA, assumedStack), r.CFA+assumedStack
	}
	for _, s := range t.stacks {
		if s.high == high { // it has grown
			s.low = low
			return s
		}
	}
	if ok {
		j.vanished(t, r)
	}
	s := &stack{low: low, high: high}
	t.stacks = append(t.stacks, s)
	return s
}

// vanished ends the calls on stacks that are mapped no more, after an exec or the end
// of a fiber. r, the first record on a new stack, is when to look.
func (j *Joiner) vanished(t *thread, r Record) {
	t.stacks = slices.DeleteFunc(t.stacks, func(s *stack) bool {
		if n := len(s.open); n > 0 {
			if _, _, there := j.stacks.Stack(r.Thread.PID, s.open[n-1].cfa-8); there {
				return false
			}
		}
		for _, o := range slices.Backward(s.open) {
			j.end(o, r, false)
		}
		return true
	})
}

// Gone says that a thread is no more, as of a monotonic time.
func (j *Joiner) Gone(tid uint32, at uint64) {
	t := j.threads[tid]
	if t == nil {
		return
	}
	for t.waiting != nil {
		j.shown(t)
	}
	for _, s := range t.stacks {
		for i := len(s.open) - 1; i >= 0; i-- {
			j.end(s.open[i], Record{Time: at}, false)
		}
	}
	delete(j.threads, tid)
}

// Exited forgets a thread whose process has ended, at a time that is not known: its
// calls stay open for ever.
func (j *Joiner) Exited(tid uint32) {
	t := j.threads[tid]
	if t == nil {
		return
	}
	for t.waiting != nil {
		j.shown(t)
	}
	j.left += j.close(t)
	delete(j.threads, tid)
}

// close is how many calls of a thread are open that have been shown.
func (j *Joiner) close(t *thread) (n uint64) {
	for _, s := range t.stacks {
		unseen := held(s.open)
		j.hidden += unseen
		n += uint64(len(s.open)) - unseen
	}
	return n
}

// held is how many of the calls have not been shown yet.
func held(calls []*open) (n uint64) {
	for _, o := range calls {
		if o.held {
			n++
		}
	}
	return n
}

// Hidden is how many calls have been found to be hidden; all of them after Close.
func (j *Joiner) Hidden() uint64 { return j.hidden }

// Threads calls f for each thread that is known; f may call Gone or Exited of it.
func (j *Joiner) Threads(f func(pid, tid uint32)) {
	for tid, t := range j.threads {
		f(t.pid, tid)
	}
}

// Open says whether a call with an id up to last is still open.
func (j *Joiner) Open(last uint64) bool {
	for _, t := range j.threads {
		for _, s := range t.stacks {
			for _, o := range s.open {
				if !o.held && o.id <= last {
					return true
				}
			}
		}
	}
	return false
}

// Close emits what was still waiting and returns how many calls are open, and how
// many open ones had to be forgotten for their number.
func (j *Joiner) Close() (stillOpen, evicted uint64) {
	for _, t := range j.threads {
		for t.waiting != nil {
			j.shown(t)
		}
		stillOpen += j.close(t)
	}
	return stillOpen + j.left, j.evicted
}
