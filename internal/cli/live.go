package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"

	"ferrotrace/internal/event"
	"ferrotrace/internal/output"
)

// live is a table on a terminal that is drawn again in its own place.
type live struct {
	w    io.Writer
	size func() (width, height int)

	mu    sync.Mutex
	lines int // of it on the terminal, above the cursor
}

// newLive makes one if a person may be looking at w, else nil.
func newLive(w io.Writer) *live {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &live{w: w, size: func() (int, int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	}}
}

// draw puts the rows in place of those before. What does not fit is left out.
func (l *live) draw(rows []event.Event) {
	var table bytes.Buffer
	if output.Table(&table, rows) != nil {
		return
	}
	width, height := l.size()
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	b.WriteString(l.up())
	for line := range bytes.Lines(table.Bytes()) {
		if l.lines >= height-1 {
			break
		}
		l.lines++
		text := []rune(string(bytes.TrimSuffix(line, []byte("\n"))))
		b.WriteString(string(text[:min(len(text), width-1)]) + "\n")
	}
	_, _ = l.w.Write(b.Bytes()) // the table at the end will find what is wrong
}

// erase takes the table away. l may be nil.
func (l *live) erase() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if up := l.up(); up != "" {
		_, _ = io.WriteString(l.w, up)
	}
}

// up goes to where the table begins and erases all below. The caller holds mu.
func (l *live) up() string {
	if l.lines == 0 {
		return ""
	}
	n := l.lines
	l.lines = 0
	return fmt.Sprintf("\x1b[%dA\r\x1b[J", n)
}
