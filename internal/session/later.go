package session

import (
	"errors"
	"slices"
	"sync"

	"ferrotrace/internal/runtime/user"
)

// later is what the user runtime tells of files that are mapped while they are traced,
// until it is looked at.
type later struct {
	mu   sync.Mutex
	told []user.Mapped
}

func (l *later) add(m user.Mapped) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, m)
}

func (l *later) take() (told []user.Mapped) {
	l.mu.Lock()
	defer l.mu.Unlock()
	told, l.told = l.told, nil
	return told
}

// mapped passes on what has been told of files that were mapped lately, and returns the
// processes. Nothing is expected any more of what could not be planted.
func (r *run) mapped() (pids []int) {
	for _, m := range r.later.take() {
		pids = append(pids, m.PID)
		shown := m.Path
		if i := slices.IndexFunc(r.files, func(f *file) bool { return f.path == m.Path }); i >= 0 {
			shown = r.files[i].shown
		}
		switch {
		case errors.Is(m.Err, user.ErrFork):
			r.o.Warn("process %d, a child of a traced one, has mapped %s itself: its calls there are not shown; --runtime kernel would show those of a command", m.PID, shown)
		case m.Err != nil:
			r.o.Warn("process %d has mapped %s, where its calls are not shown: %v", m.PID, shown, m.Err)
		case m.Missed:
			r.o.Warn("process %d has mapped %s: its first calls there may have been missed", m.PID, shown)
		case r.o.Verbose:
			r.o.Note("process %d has mapped %s", m.PID, shown)
		}
		r.leaveOut(m.Failed)
	}
	return pids
}
