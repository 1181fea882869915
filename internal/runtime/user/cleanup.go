package user

import (
	"context"
	"errors"
	"fmt"

	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"

	"golang.org/x/sys/unix"
)

// OwnedError: another ferrotrace traces the process by this runtime.
type OwnedError struct{ PID, Tracer int }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("process %d is traced by another ferrotrace, process %d", e.PID, e.Tracer)
}

// cleanUp takes out what a tracer that was killed has left in a process. A handler of
// bad pointers that has to stay is returned, to be used again.
func cleanUp(ctx context.Context, t *inject.Tracee) (handler inject.Region, err error) {
	js, err := t.FindJournals(ctx)
	if err != nil {
		return handler, err
	}
	for _, j := range js {
		if j.Owned() {
			return handler, &OwnedError{t.PID, j.TracerPID}
		}
		h, err := sweep(ctx, t, j)
		if err != nil {
			return handler, fmt.Errorf("taking out what a killed ferrotrace has left in process %d: %w", t.PID, err)
		}
		if h.Size > 0 {
			handler = h
		}
	}
	// Some are gone now, those in which threads are have stayed.
	if js, err = t.FindJournals(ctx); err != nil {
		return handler, err
	}
	return handler, orphans(ctx, t, js)
}

// sweep restores what a journal tells of. What was put in beside the patches goes once
// no thread is inside: nothing is known of what a thread does there, but that it leaves.
func sweep(ctx context.Context, t *inject.Tracee, j *inject.Journal) (handler inject.Region, err error) {
	if err := j.Claim(ctx); err != nil {
		return handler, err
	}
	p := &process{pid: t.PID, t: t, journal: j}
	regions, err := there(t.PID, j)
	if err != nil {
		return handler, err
	}
	for _, r := range regions {
		switch _, err := fault.Open(ctx, t, r); {
		case err == nil:
			p.handler = r
		case errors.Is(err, unix.EIO), errors.Is(err, unix.EFAULT):
			// It has been unmapped since.
		case errors.Is(err, fault.ErrNoHandler):
			p.regions = append(p.regions, mapping{r, true})
		default:
			return handler, err
		}
	}
	err = p.restore(ctx)
	if err == nil {
		err = p.unguard(ctx)
	}
	var remains *remainsError
	if errors.As(err, &remains) {
		return handler, j.Disown(ctx) // it stays, and tells the next one
	}
	if err == nil {
		err = p.unmap(ctx)
	}
	if err != nil || p.handler.Size == 0 {
		return handler, err
	}
	if err := j.DropRegion(ctx, p.handler); err != nil {
		return handler, err
	}
	return p.handler, j.Close(ctx)
}
