package user

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// aim is the places of one file.
type aim struct {
	path   string
	text   Text
	bias   uint64
	places []place
}

// missed is a place of an aim that has no probe.
type missed struct {
	path string
	unplaced
}

// arm plants the probes of all aims. still, if not nil, says with all threads stopped
// whether the files are where they were.
func (p *process) arm(ctx context.Context, aims []aim, still func() error) (failed []missed, err error) {
	for tries := 0; ; tries++ {
		free, err := p.t.FreeRanges(ctx)
		if err != nil {
			return nil, err
		}
		ranges := make([]x86.Range, len(free))
		for i, r := range free {
			ranges[i] = x86.Range{Low: r.Start, High: r.End}
		}
		space := patch.NewSpace(ranges)
		var patches []*patch.Patch
		texts := map[*patch.Patch]*text{}
		failed = nil
		for _, a := range aims {
			t := newText(a.text, a.bias, space)
			ps, bad := t.plan(a.places)
			for _, f := range bad {
				failed = append(failed, missed{a.path, f})
			}
			for _, pt := range ps {
				texts[pt] = t
			}
			patches = append(patches, ps...)
		}
		err = p.write(ctx, space.Pages(), patches)
		if errors.Is(err, unix.EEXIST) && tries < maxTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		bad, err := p.plant(ctx, patches, texts, still)
		if err != nil {
			return nil, err
		}
		for _, a := range aims {
			for _, pl := range a.places {
				if err := bad[pl.addr+a.bias]; err != nil {
					failed = append(failed, missed{a.path, unplaced{pl, err}})
				}
			}
		}
		return failed, nil
	}
}

// write puts the trampolines in place. Pages that can't be had, since the process has
// mapped something there meanwhile, leave nothing behind.
func (p *process) write(ctx context.Context, pages []x86.Range, patches []*patch.Patch) error {
	if err := p.t.Stop(ctx); err != nil {
		return err
	}
	before := len(p.regions)
	err := func() error {
		for _, r := range pages {
			if err := p.mapCode(ctx, r); err != nil {
				return err
			}
			b := bytes.Repeat([]byte{0xcc}, int(r.High-r.Low))
			for _, pt := range patches {
				if pt.Trampoline+uint64(len(pt.Code.Bytes)) > r.Low && pt.Trampoline < r.High {
					copy(b[pt.Trampoline-r.Low:], pt.Code.Bytes)
				}
			}
			if err := p.t.WriteMem(ctx, b, r.Low); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		// Also when time is up. What can't be unmapped now is when all else is.
		rest := p.regions[before:]
		p.regions = p.regions[:before:before]
		for _, m := range rest {
			if p.t.Munmap(context.WithoutCancel(ctx), m.Addr, m.Size) != nil {
				p.regions = append(p.regions, m)
				continue
			}
			_ = p.journal.DropRegion(context.WithoutCancel(ctx), m.Region)
		}
	}
	return errors.Join(err, p.resume())
}

// interiors are the bytes of patches in which no thread may stand: all but the first.
func interiors(patches []*patch.Patch) (rs []inject.Range) {
	for _, p := range patches {
		for _, w := range p.Writes {
			rs = append(rs, interior(w.Addr, w.Old))
		}
	}
	return rs
}

func interior(addr uint64, old []byte) inject.Range {
	return inject.Range{Start: addr + 1, End: addr + uint64(len(old))}
}

// bounds is a range around all of some.
func bounds(rs []inject.Range) (all inject.Range) {
	for i, r := range rs {
		if i == 0 {
			all = r
		}
		all.Start, all.End = min(all.Start, r.Start), max(all.End, r.End)
	}
	return all
}

// plant makes the patches, which have their trampolines, while all threads stand
// elsewhere. bad are the addresses of sites that have none, for their code is not what
// it should be.
func (p *process) plant(ctx context.Context, patches []*patch.Patch, texts map[*patch.Patch]*text, still func() error) (bad map[uint64]error, err error) {
	patches, changed, err := p.unchanged(ctx, patches, texts)
	if err != nil || len(patches) == 0 {
		return changed, err
	}
	// Where a thread that is about to execute a displaced instruction has to go.
	moves := map[uint64]*patch.Patch{}
	for _, pt := range patches {
		for _, in := range pt.Displaced {
			if in.Addr != pt.Addr {
				moves[in.Addr] = pt
			}
		}
	}
	var writes []inject.Patch
	var owner []*patch.Patch
	for _, pt := range patches {
		for _, w := range pt.Writes {
			file := texts[pt].code(w.Addr)[:len(w.Old)]
			writes = append(writes, inject.Patch{Addr: w.Addr, Old: w.Old, New: w.New, File: file})
			owner = append(owner, pt)
		}
	}
	inside := interiors(patches)
	// Whatever comes, who takes them out has to know them from here on.
	p.patches = append(p.patches, patches...)
	for tries := 0; ; tries++ {
		if _, err := p.stopAll(ctx, inside...); err != nil {
			return nil, err
		}
		var ways []way
		var frames []frame
		busy := false
		threads, err := p.t.Threads(ctx)
		if err == nil {
			p.findThreadID(ctx, threads)
			ways, frames, busy = p.standing(ctx, threads, bounds(inside), func(ip uint64) (uint64, bool) {
				pt := moves[ip]
				if pt == nil {
					return 0, false
				}
				return pt.Planted(ip), true
			})
			if !busy && still != nil {
				err = still()
			}
			if !busy && err == nil {
				bad, err = p.apply(ctx, writes, owner, ways, frames)
			}
		}
		if rerr := p.resume(); rerr != nil || err != nil {
			return bad, errors.Join(err, rerr)
		}
		if !busy {
			break
		}
		if tries == stopTries {
			return nil, fmt.Errorf("process %d: %w", p.pid, inject.ErrBusy)
		}
		if err := sleep(ctx, stopWait); err != nil {
			return nil, err
		}
	}
	p.patches = slices.DeleteFunc(p.patches, func(pt *patch.Patch) bool { return bad[pt.Addr] != nil })
	maps.Copy(bad, changed)
	return bad, nil
}

// unchanged leaves out the patches that would displace an instruction, behind the bytes
// that they write, at which the process has another's breakpoint: threads would not run
// into it any more. bad are the addresses of their sites.
func (p *process) unchanged(ctx context.Context, patches []*patch.Patch, texts map[*patch.Patch]*text) (sound []*patch.Patch, bad map[uint64]error, err error) {
	bad = map[uint64]error{}
	for _, pt := range patches {
		last := pt.Displaced[len(pt.Displaced)-1]
		n := last.Addr + uint64(last.Len) - pt.Addr
		err := error(nil)
		if jump := pt.Writes[len(pt.Writes)-1]; n > uint64(len(jump.Old)) {
			err = p.t.CheckCode(ctx, pt.Addr, texts[pt].code(pt.Addr)[:n])
		}
		switch {
		case err == nil:
			sound = append(sound, pt)
		case !errors.Is(err, inject.ErrConflict):
			return nil, nil, err
		}
		for _, s := range pt.Sites {
			if err != nil {
				bad[s.Addr] = err
			}
		}
	}
	return sound, bad, nil
}

// way is where a stopped thread has to go on.
type way struct {
	tid int
	ip  uint64
}

// standing looks which of the stopped threads stand where they have to go on elsewhere,
// as to says, or will come back there from a signal handler; those places lie in within.
// busy: one can't be moved, for it is to begin a system call anew that lies before.
func (p *process) standing(ctx context.Context, threads []inject.ThreadState, within inject.Range, to func(ip uint64) (uint64, bool)) (ways []way, frames []frame, busy bool) {
	in := func(ip uint64) bool { _, ok := to(ip); return ok }
	for _, th := range threads {
		if ip, ok := to(th.Regs.Rip); ok {
			if th.InSyscall() {
				return nil, nil, true
			}
			ways = append(ways, way{th.TID, ip})
		}
		for _, f := range p.interrupted(ctx, th.Regs.Rsp, within, in) {
			ip, _ := to(f.ip)
			frames = append(frames, frame{f.addr, ip})
		}
	}
	return ways, frames, false
}

// move has stopped threads go on elsewhere, now and when they come back from signal
// handlers.
func (p *process) move(ctx context.Context, ways []way, frames []frame) error {
	for _, w := range ways {
		if err := p.t.SetRIP(ctx, w.tid, w.ip); err != nil {
			return err
		}
	}
	for _, f := range frames {
		if err := p.t.WriteMem(ctx, binary.LittleEndian.AppendUint64(nil, f.ip), f.addr); err != nil {
			return err
		}
	}
	return nil
}

// apply makes writes, all threads being stopped, and moves threads. A patch of which
// one write fails is taken back.
func (p *process) apply(ctx context.Context, writes []inject.Patch, owner []*patch.Patch, ways []way, frames []frame) (map[uint64]error, error) {
	errs, err := p.journal.Apply(ctx, writes...)
	if err != nil {
		_, _, rerr := p.journal.Restore(ctx)
		return nil, errors.Join(err, rerr)
	}
	bad := map[uint64]error{}
	for i, err := range errs {
		if err == nil {
			continue
		}
		// Its first write, a jump in padding that nothing leads to, may stay.
		pt := owner[i]
		bad[pt.Addr] = err
		for _, s := range pt.Sites {
			bad[s.Addr] = err
		}
	}
	if len(bad) > 0 {
		gone := func(ip uint64) bool {
			return slices.ContainsFunc(owner, func(pt *patch.Patch) bool {
				return bad[pt.Addr] != nil && ip-pt.Trampoline < uint64(len(pt.Code.Bytes))
			})
		}
		ways = slices.DeleteFunc(ways, func(w way) bool { return gone(w.ip) })
		frames = slices.DeleteFunc(frames, func(f frame) bool { return gone(f.ip) })
	}
	if err := p.move(ctx, ways, frames); err != nil {
		return bad, err
	}
	// Threads that the stop did not reach see the new code no later than this.
	if err := p.t.Membarrier(ctx); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return bad, err
	}
	return bad, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
