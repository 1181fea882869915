package user

import (
	"context"
	"errors"
	"fmt"

	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"

	"golang.org/x/sys/unix"
)

// placeHandler finds a place for the handler of bad pointers: that of one which a
// tracer before has had to leave, or a new one.
func (p *process) placeHandler(ctx context.Context, near uint64) error {
	size := fault.Size(len(p.image.Fixups))
	if p.handler.Size >= size {
		return p.journal.PlanRegion(ctx, p.handler)
	}
	r, err := p.mapNear(ctx, near, size)
	if err != nil {
		return err
	}
	// It is not one of the others, for it may have to stay.
	p.regions = p.regions[:len(p.regions)-1]
	p.handler = r
	return nil
}

// endbr64 is the length of that instruction: a site at one is moved behind it.
const endbr64 = 4

// guardReads has reads of bad pointers handled, once the probes are in.
func (p *process) guardReads(ctx context.Context) error {
	calls := append([]inject.Range(nil), p.calls...)
	for _, pt := range p.patches {
		for _, s := range pt.Sites {
			if p.entries[s.Addr] || p.entries[s.Addr-endbr64] {
				calls = append(calls, inject.Range{Start: pt.Trampoline, End: pt.Trampoline + uint64(len(pt.Code.Bytes))})
				break
			}
		}
	}
	var err error
	p.guard, err = fault.New(ctx, p.t, fault.Config{
		Block: p.block, Handler: p.handler, Image: p.code, Fixups: p.image.Fixups, Calls: calls, Unwatched: p.unwatched,
	})
	return err
}

// unguard takes the handler of bad pointers out, no thread being inside of the programs
// any more. What has to stay of it is left mapped.
func (p *process) unguard(ctx context.Context) error {
	if p.handler.Size == 0 {
		return nil
	}
	g := p.guard
	if g == nil { // a fork's, or a killed tracer's
		var err error
		g, err = fault.Open(ctx, p.t, p.handler)
		switch {
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EFAULT):
			// A fork that began before it was mapped, or that is ending.
			p.handler = inject.Region{}
			return nil
		case errors.Is(err, fault.ErrNoHandler):
			p.regions = append(p.regions, mapping{p.handler, true})
			p.handler = inject.Region{}
			return nil
		case err != nil:
			return err
		}
	}
	keep, err := g.Remove(ctx)
	if err != nil {
		return fmt.Errorf("taking the handler of bad pointers out: %w", err)
	}
	p.guard = nil
	// A fault of the program's own may be on its way through.
	for tries := 0; !keep; tries++ {
		inside := map[int]bool{}
		if err := p.addInside(ctx, []inject.Range{p.handler.Range()}, inside); err != nil {
			return err
		}
		if len(inside) == 0 {
			p.regions = append(p.regions, mapping{p.handler, true})
			p.handler = inject.Region{}
			return nil
		}
		if keep = tries == stopTries; !keep {
			if err := sleep(ctx, stopWait); err != nil {
				return err
			}
		}
	}
	return nil
}
