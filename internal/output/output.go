// Package output writes what a traced run yields, as text for people or as JSON
// lines for programs. It knows events and nothing of where they come from.
package output

import (
	"io"

	"ferrotrace/internal/event"
)

// Format is a way to write events.
type Format string

const (
	Text Format = "text"
	JSON Format = "json"
)

// Output writes events. It buffers: call Flush whenever no further event is at
// hand, so that a reader is never kept waiting for what has happened already.
// It is not safe for concurrent use, and does not close what it writes to.
type Output interface {
	// Event writes one event. Text leaves attached_probes, lost_events and
	// summary to Attached and Summary, whose place is standard error.
	Event(event.Event) error
	// Flush writes what is pending, tables included.
	Flush() error
}

// Table writes rows as text, without colours.
func Table(w io.Writer, rows []event.Event) error {
	o := newText(w, false)
	for _, row := range rows {
		if err := o.Event(row); err != nil {
			return err
		}
	}
	return o.Flush()
}

// New makes an output that writes to w; every format but JSON is Text. Text is
// coloured if w is a terminal and the environment does not forbid it.
func New(w io.Writer, format Format) Output {
	if format == JSON {
		return newJSON(w)
	}
	return newText(w, Colored(w))
}
