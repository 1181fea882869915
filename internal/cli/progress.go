package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"ferrotrace/internal/output"
)

// progress is standard error with one line at its end that says what is being done,
// if that takes long and a person may be looking. What is written takes its place.
type progress struct {
	w      io.Writer
	person bool

	live *live // what stands above, if anything

	mu    sync.Mutex
	what  string
	timer *time.Timer // until what is shown
	shown bool
}

// patience is how long work may take without a word.
const patience = 500 * time.Millisecond

func newProgress(w io.Writer, quiet bool) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, person: ok && !quiet && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))}
}

// doing says what is being done from now on; "" is the end of it.
func (p *progress) doing(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = what
	switch {
	case !p.person:
	case what == "" || p.shown:
		p.draw()
	case p.timer == nil:
		p.timer = time.AfterFunc(patience, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.timer = nil
			p.draw()
		})
	}
}

// draw shows what is being done. The caller holds mu.
func (p *progress) draw() {
	p.clear()
	if p.what != "" {
		fmt.Fprintf(p.w, "%s…", output.Escape(p.what))
		p.shown = true
	}
}

// clear takes the line away. The caller holds mu.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K") // to the line's beginning, and erase it
		p.shown = false
	}
}

func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.live.erase()
	return p.w.Write(b)
}
