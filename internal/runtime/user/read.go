package user

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/shm"
)

const (
	// Nobody wakes the reader, for that would cost the traced process a system call. It
	// looks again after longer and longer pauses.
	minPause, maxPause = 50 * time.Microsecond, 4 * time.Millisecond
	// stuckAfter is how long a record may take from its reservation to its end before its
	// thread is looked for.
	stuckAfter = 300 * time.Millisecond
	// lookAgain is when it is looked for again at the earliest, and lastLooks how often
	// when reading ends.
	lookAgain = 5 * time.Millisecond
	lastLooks = 20
)

// Read implements runtime.Session. Only one may be under way.
func (s *session) Read(ctx context.Context, f func([]byte) error, idle func(uint64) error) error {
	var (
		pause   = minPause
		told    time.Time
		before  = runtime.Monotonic() // when the pass before began
		waiting = map[*shm.Ring]*stuck{}
	)
	for {
		done := ctx.Err() != nil // before the rings are read for the last time
		now := runtime.Monotonic()
		n, err := 0, error(nil)
		more := false // records lie behind those that were given up
		safe := now   // what was in the rings by then has been passed
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
			for tries := 0; w.long(now) || done && w.any(); tries++ {
				skipped := s.skip(r, w, now)
				more = more || skipped
				if skipped || !done || tries == lastLooks {
					break
				}
				time.Sleep(stopWait)
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
		case done && !more:
			return nil
		case done:
			continue
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

	// suspects are the threads that have been inside of a program whenever it was looked,
	// first at the time looked; nil before. One of them may yet end a record that was
	// stuck by then: no other can.
	suspects map[int]bool
	looked   uint64
	next     uint64 // it is not looked before
	wait     time.Duration
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
		if pos >= 0 && now >= w.next && now-w.since[cpu] > uint64(stuckAfter) {
			return true
		}
	}
	return false
}

// skip gives up records at which rings have been stuck, if every thread that could still
// write them has been seen outside of programs meanwhile. It says whether there were any.
func (s *session) skip(r ringOf, w *stuck, now uint64) (skipped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	inside, err := r.p.inside(context.Background())
	switch {
	case err != nil: // look again later
		w.next = now + uint64(stuckAfter)
		return false
	case w.suspects == nil:
		w.suspects, w.looked = inside, now
	default:
		maps.DeleteFunc(w.suspects, func(tid int, _ bool) bool { return !inside[tid] })
	}
	if len(w.suspects) > 0 {
		w.wait = min(max(2*w.wait, lookAgain), stuckAfter)
		w.next = now + uint64(w.wait)
		return false
	}
	for cpu, pos := range w.at {
		if pos >= 0 && w.since[cpu] <= w.looked && r.ring.Skip(cpu) {
			s.skipped++
			skipped = true
		}
	}
	w.suspects, w.next, w.wait = nil, 0, 0
	return skipped
}

// inside are the threads of the process, and of those forked from it, that are inside the
// code of the probes.
func (p *process) inside(ctx context.Context) (tids map[int]bool, err error) {
	p.stops.Lock()
	defer p.stops.Unlock()
	tids = map[int]bool{}
	for _, pid := range p.forks(map[int]bool{}) {
		t, err := inject.Attach(ctx, pid)
		if err == nil {
			child := &process{pid: pid, t: t, code: p.code, regions: p.regions, handler: p.handler}
			err = errors.Join(child.addInside(ctx, child.codeRegions(), tids), t.Detach())
		}
		if err != nil && !over(err) {
			return nil, err
		}
	}
	if p.t == nil {
		return tids, nil
	}
	if err := p.addInside(ctx, p.codeRegions(), tids); err != nil && !over(err) {
		return nil, err
	}
	return tids, nil
}

// addInside adds the threads that are inside of code of ours, or will come back there
// from a signal handler.
func (p *process) addInside(ctx context.Context, code []inject.Range, tids map[int]bool) error {
	st, err := p.stopAll(ctx)
	if err != nil {
		return err
	}
	in := func(ip uint64) bool { return inject.InAny(code, ip) }
	threads, err := p.t.Threads(ctx)
	for _, th := range threads {
		if in(th.Regs.Rip) || len(p.interrupted(ctx, th.Regs.Rsp, bounds(code), in)) > 0 {
			tids[th.TID] = true
		}
	}
	for _, tid := range st.LeftAlone {
		if elsewhere, eerr := p.t.Elsewhere(ctx, tid, code...); eerr != nil || !elsewhere {
			tids[tid] = true
			err = errors.Join(err, eerr)
		}
	}
	return errors.Join(err, p.resume())
}
