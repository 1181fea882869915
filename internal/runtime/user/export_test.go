package user

import (
	"time"

	"ferrotrace/internal/runtime"
)

// LongestStop is the longest time for which threads of the traced processes were
// stopped.
func LongestStop(s runtime.Session) (d time.Duration) {
	for _, p := range s.(*session).order {
		d = max(d, p.stopped)
	}
	return d
}

// Over is whether an error says that the process has ended or executed another program.
func Over(err error) bool { return over(err) }
