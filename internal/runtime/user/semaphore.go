package user

import (
	"context"
	"fmt"
	"slices"

	"ferrotrace/internal/runtime"
)

// raise counts in the semaphores of an aim's probes that have been planted: the others'
// arguments would be made for nobody. A probe whose semaphore can't be counted in is as good
// as none.
func (p *process) raise(ctx context.Context, a *aim, probes []runtime.Probe, failed []*runtime.ProbeError) (blind []*runtime.ProbeError, err error) {
	raised := map[uint64]error{}
	for _, pr := range probes {
		linked, ok := a.text.Addr(pr.Offset)
		if pr.Semaphore.Offset == 0 || !ok || slices.ContainsFunc(failed, func(e *runtime.ProbeError) bool { return e.Probe == pr }) {
			continue
		}
		addr := linked + a.bias + uint64(pr.Semaphore.Ahead)
		why, done := raised[addr]
		if !done {
			why = p.journal.Raise(ctx, addr)
			if over(why) {
				return nil, why
			}
			raised[addr] = why
		}
		if why != nil {
			blind = append(blind, &runtime.ProbeError{Probe: pr, Err: fmt.Errorf("its semaphore can't be counted in: %w", why)})
		}
	}
	return blind, nil
}
