package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/script/verb"
	"ferrotrace/internal/target"
)

// Trace shows each call of the functions that match, and for which o.Where holds, until
// what is traced ends, a limit is reached, or ctx is done. What is wrong with o.Where is a
// source.Errors.
func Trace(ctx context.Context, o Options) (err error) {
	v := verb.Verb{Kind: verb.Trace, Where: o.Where}
	if err := v.Check(); err != nil {
		return err
	}
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	found, err := r.find()
	if err != nil {
		return err
	}
	notes := notes{inlined: map[string]*inlined{}}
	if v.Where != "" {
		if err := r.filtered(ctx, v, &notes); err != nil {
			return err
		}
		return r.trace(ctx, &notes)
	}
	for _, f := range r.files {
		exits := false
		for _, fn := range found[f].functions {
			err := r.instances(ctx, fn, func(in *index.Instance, p *index.Plan) {
				r.b.trace(f, in, p, nil)
				exits = exits || ends(in, p)
				notes.of(in, p)
			})
			if err != nil {
				r.o.Warn("not traced: %v", err)
			}
		}
		for _, l := range found[f].lines {
			r.traceLine(f, l, &notes)
		}
		if exits {
			r.b.marks(f)
		}
	}
	return r.trace(ctx, &notes)
}

// tracer turns records into events that are in the order of time.
type tracer struct {
	r      *run
	schema *record.Schema
	joiner *calls.Joiner
	stacks *stacks
	losses losses
	// lostEntries is how many had been lost when that was last looked for.
	lostEntries uint64
	records     ordered[calls.Record]

	shown, hidden uint64
	last          uint64            // id of the last call that is shown under a limit
	filled        uint64            // when the limit was reached, monotonic
	lookAt        uint64            // when losses are looked for next
	reapAt        uint64            // when threads are looked for next
	missed        map[uint32]uint64 // when threads were found to be no more, by tid
	full          chan struct{}
	closed        bool
	hits          []uint64 // by cookie
}

func (r *run) trace(ctx context.Context, notes *notes) error {
	compiled, n, err := r.attach(ctx)
	if err != nil {
		return err
	}
	if err := r.o.Emit(event.Attached{Probes: n}); err != nil {
		return err
	}
	notes.print(r.o.Note, r.o.Verbose)
	t := &tracer{r: r, schema: compiled.Schema, records: newOrdered(func(c *calls.Record) uint64 { return c.Time }), full: make(chan struct{}), hits: make([]uint64, len(r.b.prog.Probes))}
	procs := r.procs
	if r.command != nil {
		procs = []*target.Process{r.command.Process}
	}
	t.stacks = newStacks(procs)
	t.schema.Pretty = r.o.Pretty
	t.schema.Func = newNames(t.stacks, r.files).at
	t.joiner = calls.New(t.stacks, wallClock(), t.emit)
	t.losses.clock = runtime.Monotonic
	if m, ok := r.sess.Map(runtime.MapCounters); ok {
		t.losses.counters = m
	}
	t.joiner.Losses = t.losses.since
	if err := r.o.Idle(); err != nil {
		return err
	}
	if err := r.release(); err != nil {
		return err
	}

	// Ends: the target's, the time, the limit, the user's. Then the probes are taken
	// out, and what is in the ring is read.
	work, stop := r.until(ctx)
	defer stop()
	reading, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	detached := make(chan error, 1)
	go func() {
		defer stopReading()
		done := make(chan struct{})
		waiting, cancel := context.WithCancel(work)
		go func() { r.ended(waiting); close(done) }()
		select {
		case <-done:
		case <-t.full:
		}
		cancel()
		<-done
		detached <- r.sess.Detach()
	}()
	// However reading ends, on a full disk perhaps, the probes are taken out, the
	// command is ended, and the summary is given.
	err = r.sess.Read(reading, t.add, t.idle)
	if err != nil {
		stop()
		t.finish()
	}
	if e := <-detached; e != nil && err == nil {
		err = fmt.Errorf("taking the probes out: %w", e)
	}
	status := r.finish()
	t.mapped()
	if err == nil {
		err = t.flush(^uint64(0))
	}
	open, evicted := t.joiner.Close()
	stats, e := r.sess.Stats()
	if e != nil {
		return cmp.Or(err, e)
	}
	lost, lostExits, lostOthers := r.lost(stats)
	hidden, unhandled, full, e := r.unshown()
	if e != nil {
		return cmp.Or(err, e)
	}
	t.hidden += t.joiner.Hidden()
	if r.atEnd {
		lostExits += unhandled + full
	} else {
		t.hidden += hidden
		lost += unhandled
		lostExits += full
	}
	if evicted > 0 {
		r.o.Warn("%d calls were open at once for too long: their ends are not shown", evicted)
	}
	r.emit(event.Lost{Events: lost + lostExits + lostOthers})
	var cost time.Duration
	for i, n := range t.hits {
		cost += time.Duration(n) * r.cost(i)
	}
	r.emit(event.Summary{
		Calls: t.shown + t.hidden + lost, Shown: t.shown, Hidden: t.hidden, Lost: lost, LostExits: lostExits,
		Open: open, Runtime: r.rt.Name(), Duration: time.Since(r.started), Cost: cost, ExitStatus: status,
	})
	return cmp.Or(err, r.failed)
}

// add takes a record as it comes.
func (t *tracer) add(raw []byte) error {
	rec, err := t.schema.Decode(raw)
	if err != nil {
		return err
	}
	site := t.r.b.sites[rec.Cookie][rec.Item]
	if rec.Item == 0 {
		t.hits[rec.Cookie]++
	}
	before, due := t.records.add(calls.Record{
		Site: site, Time: rec.Time, CFA: rec.CFA, Values: rec.Values, Future: rec.Future, First: rec.First,
		Hidden: rec.Flags&record.FlagHidden != 0,
		Thread: event.Thread{PID: rec.PID, TID: rec.TID, Comm: comm(&rec.Comm)},
	})
	if due {
		err := t.flush(before)
		t.losses.look()
		return err
	}
	return t.r.failed
}

func comm(b *[16]byte) string {
	s, _, _ := strings.Cut(string(b[:]), "\x00")
	return s
}

// slack is how long a program may take from reading the clock to handing in its
// record: it can be put to sleep by a page fault in between.
const slack = 5 * time.Millisecond

// idle is called when the ring is empty, with a time before that.
func (t *tracer) idle(now uint64) error {
	if err := t.flush(now - min(now, uint64(slack))); err != nil {
		return err
	}
	t.mapped()
	t.limited(now)
	if now > t.lookAt {
		t.lookAt = now + uint64(lookEvery)
		t.losses.look()
	}
	if now > t.reapAt {
		start := time.Now()
		t.reap(now)
		t.reapAt = now + uint64(max(reapEvery, 20*time.Since(start)))
	}
	if t.r.failed != nil {
		return t.r.failed
	}
	return t.r.o.Idle()
}

// mapped takes notice of files that have been mapped: what was known of the processes'
// mappings is old then.
func (t *tracer) mapped() {
	for _, pid := range t.r.mapped() {
		delete(t.stacks.known, uint32(pid))
	}
}

// flush passes on what happened before a time, in order.
func (t *tracer) flush(before uint64) error {
	if n := sum(t.losses.counters, runtime.EntryNoRoom, runtime.EntryNoSlot); n != t.lostEntries {
		t.lostEntries = n
		t.joiner.ForgetPolls()
	}
	if err := t.records.take(before, func(c *calls.Record) error {
		t.joiner.Add(*c)
		t.limited(c.Time)
		return nil
	}); err != nil {
		return err
	}
	return t.r.failed
}

// lookEvery is how often losses are looked for.
const lookEvery = 10 * time.Millisecond

// reapEvery is how often threads that are no more are looked for, unless that takes
// too long.
const reapEvery = 200 * time.Millisecond

// reap ends the calls of threads that are no more, and forgets them: at the second
// time that one is missed, when its last records have come out of the ring.
func (t *tracer) reap(now uint64) {
	pending := map[uint32]bool{}
	for i := range t.records.pending {
		pending[t.records.pending[i].Thread.TID] = true
	}
	missed := map[uint32]uint64{}
	gone := map[uint32]bool{} // by pid
	t.joiner.Threads(func(pid, tid uint32) {
		if pending[tid] || exists("/proc/%d/task/%d", pid, tid) {
			return
		}
		since, again := t.missed[tid]
		if !again {
			missed[tid] = now
			return
		}
		if _, asked := gone[pid]; !asked {
			gone[pid] = !exists("/proc/%d", pid)
		}
		switch {
		case !gone[pid]:
			t.joiner.Gone(tid, since)
		case t.r.b.prog.PIDNamespace == nil: // else it may be one whose pid is another here
			t.joiner.Exited(tid)
			delete(t.stacks.known, pid)
		}
	})
	t.missed = missed
}

func exists(format string, a ...any) bool {
	_, err := os.Stat(fmt.Sprintf(format, a...))
	return !errors.Is(err, os.ErrNotExist)
}

// emit passes events on until a limit is reached.
func (t *tracer) emit(e event.Event) {
	limit := t.r.o.Limit
	switch e := e.(type) {
	case event.Call:
		if limit > 0 && t.shown == limit {
			t.hidden++
			return
		}
		t.shown++
		t.last = e.ID
	case event.Line:
		if limit > 0 && t.shown == limit {
			t.hidden++
			return
		}
		t.shown++
		t.last = e.ID
	case event.Return:
		if limit > 0 && e.ID > t.last {
			return
		}
	case event.Unwind:
		if limit > 0 && e.ID > t.last {
			return
		}
	case event.Ended:
		if limit > 0 && e.ID > t.last {
			return
		}
	}
	t.r.emit(e)
}

// grace is how long the calls that fill a limit are given to end.
const grace = 300 * time.Millisecond

// limited ends the run once the calls that are wanted have been shown and have ended,
// or have not for some time.
func (t *tracer) limited(now uint64) {
	if t.closed || t.r.o.Limit == 0 || t.shown < t.r.o.Limit {
		return
	}
	if t.filled == 0 {
		t.filled = now
	}
	if !t.joiner.Open(t.last) || now > t.filled+uint64(grace) {
		t.finish()
	}
}

func (t *tracer) finish() {
	if !t.closed {
		t.closed = true
		close(t.full)
	}
}

// wallClock turns CLOCK_MONOTONIC into the time of day.
func wallClock() func(uint64) time.Time {
	now, base := time.Now(), runtime.Monotonic()
	return func(m uint64) time.Time { return now.Add(time.Duration(m - base)) }
}
