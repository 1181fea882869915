package user

import (
	"context"
	"errors"
	"fmt"

	"ferrotrace/internal/runtime/user/inject"
)

// OwnedError: another ferrotrace traces the process by this runtime.
type OwnedError struct{ PID, Tracer int }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("process %d is traced by another ferrotrace, process %d", e.PID, e.Tracer)
}

// cleanUp takes out what a tracer that was killed has left in a process.
func cleanUp(ctx context.Context, t *inject.Tracee) error {
	js, err := t.FindJournals(ctx)
	if err != nil {
		return err
	}
	for _, j := range js {
		if j.Owned() {
			return &OwnedError{t.PID, j.TracerPID}
		}
		if err := sweep(ctx, t, j); err != nil {
			return fmt.Errorf("taking out what a killed ferrotrace has left in process %d: %w", t.PID, err)
		}
	}
	// Some are gone now, those in which threads are have stayed.
	if js, err = t.FindJournals(ctx); err != nil {
		return err
	}
	return orphans(ctx, t, js)
}

// sweep restores what a journal tells of. What was put in beside the patches goes once
// no thread is inside: nothing is known of what a thread does there, but that it leaves.
func sweep(ctx context.Context, t *inject.Tracee, j *inject.Journal) error {
	if err := j.Claim(ctx); err != nil {
		return err
	}
	p := &process{pid: t.PID, t: t, journal: j}
	regions, err := there(t.PID, j)
	if err != nil {
		return err
	}
	for _, r := range regions {
		p.regions = append(p.regions, mapping{r, true})
	}
	err = p.restore(ctx)
	var remains *remainsError
	if errors.As(err, &remains) {
		return j.Disown(ctx) // it stays, and tells the next one
	}
	if err != nil {
		return err
	}
	return p.unmap(ctx)
}
