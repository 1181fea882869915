package output

import (
	"fmt"
	"io"
	"strings"

	"ferrotrace/internal/event"
)

// Attached writes, for people, that everything is armed. Its place is standard
// error.
func Attached(w io.Writer, a event.Attached) error {
	_, err := fmt.Fprintf(w, "%s armed; Ctrl-C ends the trace\n", number(uint64(a.Probes), "probe"))
	return err
}

// Summary writes, for people, what closes a run. Its place is standard error.
// Losses are always named, also when there are none.
func Summary(w io.Writer, s event.Summary) error {
	parts := []string{number(s.Calls, "call"), fmt.Sprintf("%d shown", s.Shown)}
	if s.Hidden > 0 {
		parts = append(parts, fmt.Sprintf("%d hidden", s.Hidden))
	}
	parts = append(parts, fmt.Sprintf("%d lost", s.Lost))
	if s.LostExits > 0 {
		parts = append(parts, number(s.LostExits, "exit")+" lost")
	}
	if s.Open > 0 {
		parts = append(parts, fmt.Sprintf("%d still open", s.Open))
	}
	line := strings.Join(parts, ", ") + " · " + duration(s.Duration)
	if s.Runtime != "" {
		line += " on the " + Escape(s.Runtime) + " runtime"
	}
	line += " · probes cost about " + duration(s.Cost)
	if s.ExitStatus != "" {
		line += " · the command: " + Escape(s.ExitStatus)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

func number(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
