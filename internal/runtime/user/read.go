package user

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

const (
	// Nobody wakes the reader, for that would cost the traced process a system call. It
	// looks again after longer and longer pauses.
	minPause, maxPause = 50 * time.Microsecond, 4 * time.Millisecond
	// stuckAfter is how long a record may take from its reservation to its end before its
	// thread is looked for.
	stuckAfter = 300 * time.Millisecond
)

// Read implements runtime.Session. Only one may be under way.
func (s *session) Read(ctx context.Context, f func([]byte) error, idle func(uint64) error) error {
	var (
		pause   = minPause
		told    time.Time
		before  = monotonic() // when the pass before began
		waiting = map[*shm.Ring]*stuck{}
	)
	for {
		done := ctx.Err() != nil // before the rings are read for the last time
		now := monotonic()
		n, err := 0, error(nil)
		safe := now // what was in the rings by then has been passed
		for _, r := range s.rings() {
			k, rerr := r.ring.Read(f)
			n += k
			if rerr != nil && !errors.Is(rerr, shm.ErrCorrupt) {
				return rerr
			}
			err = errors.Join(err, rerr)
			w := waiting[r.ring]
			if w == nil {
				w = &stuck{since: make([]uint64, r.ring.CPUs())}
				waiting[r.ring] = w
			}
			safe = min(safe, w.look(r.ring, before))
			if w.long(now) || done && w.any() {
				s.skip(r, w)
			}
		}
		before = now
		if err != nil {
			return fmt.Errorf("user runtime: the traced process wrote into what is shared with it: %w", err)
		}
		if n == 0 || done || time.Since(told) >= maxPause {
			told = time.Now()
			if err := idle(safe); err != nil {
				return err
			}
		}
		switch {
		case done:
			return nil
		case n >= manyRecords:
			continue // the rings fill faster than they are read
		case n > 0:
			// A reader at the heels of the writers costs them as much as writing does.
			pause = minPause
		default:
			pause = min(2*pause, maxPause)
		}
		_ = sleep(ctx, pause)
	}
}

// manyRecords in one pass leave no time for a pause.
const manyRecords = 4096

// ringOf is one process's ring.
type ringOf struct {
	p    *process
	ring *shm.Ring
}

func (s *session) rings() (rs []ringOf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.order {
		if p.ring != nil {
			rs = append(rs, ringOf{p, p.ring})
		}
	}
	return rs
}

// stuck watches a ring for records that are begun and not ended.
type stuck struct {
	at    []int64  // by CPU, as shm.Ring.Stuck
	since []uint64 // when it was first seen there, monotonic
}

// look returns a time by which all that was written has been passed. What is found
// stuck was begun after the pass before, and others may have been ended behind it since.
func (w *stuck) look(r *shm.Ring, before uint64) uint64 {
	at := r.Stuck()
	safe := ^uint64(0)
	for cpu, pos := range at {
		if pos >= 0 {
			if w.at == nil || w.at[cpu] != pos {
				w.since[cpu] = before
			}
			safe = min(safe, w.since[cpu])
		}
	}
	w.at = at
	return safe
}

func (w *stuck) any() bool {
	for _, pos := range w.at {
		if pos >= 0 {
			return true
		}
	}
	return false
}

func (w *stuck) long(now uint64) bool {
	for cpu, pos := range w.at {
		if pos >= 0 && now-w.since[cpu] > uint64(stuckAfter) {
			return true
		}
	}
	return false
}

// skip gives up records at which rings have been stuck, if no thread is inside of a
// program that could still write them.
func (s *session) skip(r ringOf, w *stuck) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.p.quiet(context.Background()) {
		now := monotonic()
		for cpu := range w.since { // look again later
			w.since[cpu] = now
		}
		return
	}
	for cpu, pos := range w.at {
		if pos >= 0 && r.ring.Skip(cpu) {
			s.skipped++
		}
	}
}

// quiet reports whether no thread of the process, or of one forked from it, is inside
// the code of the probes.
func (p *process) quiet(ctx context.Context) bool {
	p.stops.Lock()
	defer p.stops.Unlock()
	for _, pid := range p.forks(map[int]bool{}) {
		t, err := inject.Attach(ctx, pid)
		if err != nil {
			if over(err) {
				continue
			}
			return false
		}
		child := &process{pid: pid, t: t, code: p.code, regions: p.regions, patches: p.patches}
		quiet := child.noneInside(ctx)
		_ = t.Detach()
		if !quiet {
			return false
		}
	}
	return p.t == nil || p.noneInside(ctx)
}

func (p *process) noneInside(ctx context.Context) bool {
	if _, err := p.t.StopAll(ctx); err != nil {
		return over(err)
	}
	code := p.codeRegions()
	threads, err := p.t.Threads(ctx)
	inside := err != nil
	for _, th := range threads {
		inside = inside || contains(code, th.Regs.Rip) ||
			len(p.interrupted(ctx, th.Regs.Rsp, bounds(code), func(ip uint64) bool { return contains(code, ip) })) > 0
	}
	_, err = p.t.Resume()
	return !inside && err == nil
}

// monotonic is CLOCK_MONOTONIC in ns.
func monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // a clock that every Linux has
	}
	return uint64(t.Nano())
}
