package user

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/target"
)

// remainsError says that memory had to be left in a process.
type remainsError struct {
	pid, threads int
	size         uint64
}

func (e *remainsError) Error() string {
	return fmt.Sprintf("process %d runs its own code again, but %d of its threads have not left that of the probes: %d KiB stay mapped, until it is traced again or ends", e.pid, e.threads, e.size>>10)
}

const (
	// leaveWait bounds how long it is waited for another thread to leave the probes.
	leaveWait = time.Second
	// longestWait is how long they are given to go on, between two looks, at most.
	longestWait = 100 * time.Millisecond
	// alonePause is how long they are given first, with all others stopped, as long as that
	// helps and is not for more than aloneWait.
	alonePause, aloneWait = 20 * time.Microsecond, 2 * time.Millisecond
)

// remove takes everything out of the process, which need not live any more. A command
// that was never released shall not run: it is ended.
func (p *process) remove(ctx context.Context) error {
	if p.hold {
		p.hold = false
		return errors.Join(p.t.Kill(), p.t.Detach())
	}
	p.lookForExec(ctx)
	err := p.restore(ctx)
	if err == nil {
		err = p.unguard(ctx)
	}
	if err == nil {
		err = p.unmap(ctx)
	}
	switch remains := (*remainsError)(nil); {
	case err == nil:
	case over(err):
		err = nil
	default:
		// The next one, which may be this process, has to try again.
		derr := p.journal.Disown(ctx)
		if over(derr) { // so it did not stop because it ends
			err = nil
			break
		}
		err = errors.Join(err, derr)
		if !errors.As(err, &remains) {
			err = fmt.Errorf("taking the probes out: %w", err)
		}
	}
	return errors.Join(err, p.t.Detach())
}

// over says that the process has ended, or executes another program: what was put
// into it is gone. One that ends runs no file any more, while it can be seen still.
func over(err error) bool {
	return errors.Is(err, inject.ErrGone) || errors.Is(err, inject.ErrExec) || errors.Is(err, target.ErrGone) || errors.Is(err, target.ErrNoExecutable)
}

// restore puts the program's own code back and sees every thread out of that of the
// probes.
func (p *process) restore(ctx context.Context) error {
	if p.journal == nil {
		return nil
	}
	var inside []inject.Range
	for _, j := range p.journal.Patches() {
		inside = append(inside, interior(j.Addr, j.Old))
	}
	code := p.codeRegions()
	sorted := slices.Clone(p.patches)
	slices.SortFunc(sorted, func(a, b *patch.Patch) int { return cmp.Compare(a.Trampoline, b.Trampoline) })
	restored := len(inside) == 0
	pause, fewest := stopWait, math.MaxInt
	for begin := time.Now(); ; {
		left, err := 0, error(nil)
		if !restored {
			restored, err = p.putBack(ctx, inside)
		}
		if restored {
			left, err = p.leave(ctx, sorted, code)
		}
		rerr := p.resume()
		if errors.Is(err, inject.ErrBusy) {
			err, left = nil, 1
		}
		if err := errors.Join(err, rerr); err != nil || left == 0 {
			return err
		}
		if left < fewest {
			begin, fewest = time.Now(), left
		}
		if time.Since(begin) > leaveWait {
			if !restored {
				return fmt.Errorf("process %d: %w", p.pid, inject.ErrBusy)
			}
			e := &remainsError{pid: p.pid, threads: left}
			for _, m := range p.regions {
				e.size += m.Size
			}
			return e
		}
		// A thread leaves when it gets to run, which among many takes a while.
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, longestWait)
	}
}

// putBack stops all threads and puts the program's own bytes back, which are in inside
// but for the first of each patch.
func (p *process) putBack(ctx context.Context, inside []inject.Range) (done bool, err error) {
	if _, err := p.stopAll(ctx, inside...); err != nil {
		return false, err
	}
	if err := p.leavePadding(ctx); err != nil {
		return false, err
	}
	_, conflicts, err := p.journal.Restore(ctx)
	if err == nil && len(conflicts) > 0 {
		// Another tracer's probes lie over ours. What they lead to has to stay.
		err = conflicts[0]
	}
	return err == nil, err
}

// leavePadding has threads that are on their way over a jump in padding, where there is
// none of the program's code, go on where it leads.
func (p *process) leavePadding(ctx context.Context) error {
	patches := p.journal.Patches()
	short := map[uint64]bool{}
	for _, j := range patches {
		if len(j.New) == 2 && j.New[0] == 0xeb {
			short[j.Addr+2+uint64(int64(int8(j.New[1])))] = true
		}
	}
	to := map[uint64]uint64{}
	var within []inject.Range
	for _, j := range patches {
		if len(j.New) == 5 && j.New[0] == 0xe9 && short[j.Addr] {
			to[j.Addr] = j.Addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(j.New[1:]))))
			within = append(within, inject.Range{Start: j.Addr, End: j.Addr + 1})
		}
	}
	if len(to) == 0 {
		return nil
	}
	threads, err := p.t.Threads(ctx)
	if err != nil {
		return err
	}
	ways, frames, busy := p.standing(ctx, threads, bounds(within), func(ip uint64) (uint64, bool) {
		at, ok := to[ip]
		return at, ok
	})
	if busy {
		return inject.ErrBusy
	}
	return p.move(ctx, ways, frames)
}

// codeRegions are the places that a thread can be inside, in order.
func (p *process) codeRegions() (rs []inject.Range) {
	for _, m := range p.regions {
		if m.code {
			rs = append(rs, m.Range())
		}
	}
	if p.handler.Size > 0 {
		rs = append(rs, p.handler.Range())
	}
	slices.SortFunc(rs, func(a, b inject.Range) int { return cmp.Compare(a.Start, b.Start) })
	return rs
}

// leave sees threads out of code of ours, and returns how many are there still. Those that
// only have to get to run are let, while the others are stopped: they take no time, but
// among many they might have to wait for it.
func (p *process) leave(ctx context.Context, sorted []*patch.Patch, code []inject.Range) (left int, err error) {
	left, running, err := p.moveOut(ctx, sorted, code)
	for begin := time.Now(); err == nil && len(running) > 0 && time.Since(begin) < aloneWait; {
		before := left
		if err = p.t.ResumeThreads(ctx, running...); err != nil {
			break
		}
		time.Sleep(alonePause)
		if left, running, err = p.moveOut(ctx, sorted, code); left >= before {
			break
		}
	}
	return left, err
}

// moveOut stops all threads, moves those that stand at a copy of one of the program's
// instructions to the instruction itself, and counts those that are elsewhere in code
// of ours, or will come back there from a signal handler. Those that run there are in
// running.
func (p *process) moveOut(ctx context.Context, sorted []*patch.Patch, code []inject.Range) (left int, running []int, err error) {
	st, err := p.stopAll(ctx)
	if err != nil {
		return 0, nil, err
	}
	for _, tid := range st.LeftAlone {
		if elsewhere, err := p.t.Elsewhere(ctx, tid, code...); err != nil {
			return 0, nil, err
		} else if !elsewhere {
			left++
		}
	}
	threads, err := p.t.Threads(ctx)
	if err != nil {
		return 0, nil, err
	}
	// own is where a thread has to go on; ok is false if it has to be waited for.
	own := func(ip uint64) (uint64, bool) {
		if !inject.InAny(code, ip) {
			return ip, true
		}
		i := sort.Search(len(sorted), func(i int) bool { return sorted[i].Trampoline+uint64(len(sorted[i].Code.Bytes)) > ip })
		if i < len(sorted) && sorted[i].Trampoline <= ip {
			return sorted[i].Removed(ip)
		}
		return ip, false
	}
	in := func(ip uint64) bool { return inject.InAny(code, ip) }
	for _, th := range threads {
		if to, ok := own(th.Regs.Rip); !ok {
			left++
			running = append(running, th.TID)
		} else if to != th.Regs.Rip {
			if th.InSyscall() {
				left++
			} else if err := p.t.SetRIP(ctx, th.TID, to); err != nil {
				return 0, nil, err
			}
		}
		left += len(p.interrupted(ctx, th.Regs.Rsp, bounds(code), in))
	}
	_ = p.t.Membarrier(ctx) // where there is none, stops have to do
	return left, running, nil
}
