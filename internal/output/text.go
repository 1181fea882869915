package output

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"ferrotrace/internal/event"
)

// Colored reports whether colours may be written to w (https://no-color.org).
func Colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// paint holds the few colours in use: SGR sequences, all empty without colours.
type paint struct{ bold, dim, red, off string }

func newPaint(colours bool) paint {
	if !colours {
		return paint{}
	}
	return paint{bold: "\x1b[1m", dim: "\x1b[2m", red: "\x1b[31m", off: "\x1b[0m"}
}

type textOutput struct {
	w *bufio.Writer
	paint
	threads threads
	rows    tables
	margin  string // of further lines of the event at hand
	// instances counts the explained ones, to set a blank line between them.
	instances int
}

func newText(w io.Writer, colours bool) *textOutput {
	return &textOutput{w: bufio.NewWriterSize(w, 64<<10), paint: newPaint(colours), threads: newThreads()}
}

func (o *textOutput) Flush() error {
	o.tables()
	return o.w.Flush()
}

// Errors of the writer stick in bufio.Writer: Flush returns them.
func (o *textOutput) print(parts ...string) {
	for _, p := range parts {
		o.w.WriteString(p)
	}
}

func (o *textOutput) Event(e event.Event) error {
	switch e := e.(type) {
	case event.Call:
		o.call(e)
	case event.Line:
		o.line(e)
	case event.Return:
		o.ret(e)
	case event.Unwind:
		o.end(e.Thread, e.ID, e.Function, e.Duration, func() string { return o.red + "unwound by a panic" + o.off })
	case event.Ended:
		o.end(e.Thread, e.ID, e.Function, e.Duration, func() string { return "left without returning" })
	case event.Count:
		o.rows.counts = append(o.rows.counts, e)
	case event.Latency:
		o.rows.latencies = append(o.rows.latencies, e)
	case event.Hist:
		o.rows.hists = append(o.rows.hists, e)
	case event.Function:
		o.function(e)
	case event.Instance:
		o.instance(e)
	case event.Said:
		o.w.WriteString(e.Text)
	case event.Attached, event.Lost, event.Summary:
	default:
		return fmt.Errorf("output: unknown event %T", e)
	}
	return nil
}

func names(function string, aliases []string) string {
	for _, a := range aliases {
		function += " = " + a
	}
	return Escape(function)
}

func place(p event.Place) string {
	if p.File == "" {
		return ""
	}
	if p.Line == 0 {
		return Escape(p.File)
	}
	return fmt.Sprintf("%s:%d", Escape(p.File), p.Line)
}

func (o *textOutput) missing(why string) string { return o.dim + "<" + Escape(why) + ">" + o.off }

func (o *textOutput) value(v event.Value) string {
	if v.Missing != "" {
		return o.missing(v.Missing)
	}
	if !v.Lines {
		return Escape(v.Text)
	}
	lines := strings.Split(v.Text, "\n")
	for i := range lines {
		lines[i] = Escape(lines[i])
	}
	return strings.Join(lines, "\n"+o.margin)
}

// begin begins an event's line, below which further lines of it are set.
func (o *textOutput) begin(prefix string, depth int) {
	indent := strings.Repeat("  ", depth)
	o.margin = strings.Repeat(" ", utf8.RuneCountInString(prefix)) + indent
	o.print(o.dim, prefix, o.off, indent)
}

func (o *textOutput) call(e event.Call) {
	o.begin(o.threads.enter(e))
	if e.Inline != nil && !e.Inline.Exact {
		o.print("≈ ")
	}
	o.print(o.bold, names(e.Function, e.Aliases), o.off, "(")
	for i, a := range e.Args {
		if i > 0 {
			o.print(", ")
		}
		if a.Name != "" {
			o.print(Escape(a.Name), ": ")
		}
		o.print(o.value(a))
	}
	o.print(")")
	if slices.ContainsFunc(e.Args, func(v event.Value) bool { return v.Given }) {
		o.print(o.dim, given, o.off)
	}
	if e.Poll > 0 {
		o.print(o.dim, "  poll ", strconv.FormatUint(e.Poll, 10), o.off)
	}
	if e.Inline != nil {
		o.print(o.dim, "  ", inlinedAt(*e.Inline), o.off)
	}
	o.print("\n")
}

// given marks values whose types are the user's word.
const given = " (given)"

func (o *textOutput) line(e event.Line) {
	o.begin(o.threads.within(e.Thread))
	if !e.Exact {
		o.print("≈ ")
	}
	o.print(o.bold, place(e.Source), o.off, " in ", names(e.Function, e.Aliases))
	for i, v := range e.Locals {
		between := ", "
		if i == 0 {
			between = "  "
		}
		o.print(between, Escape(v.Name), ": ", o.value(v))
	}
	if e.Inline != nil {
		o.print(o.dim, "  ", inlinedAt(*e.Inline), o.off)
	}
	o.print("\n")
}

func inlinedAt(i event.Inline) string {
	s := "inlined"
	if i.Caller != "" {
		s += " into " + Escape(i.Caller)
	}
	if at := place(i.Call); at != "" {
		s += " at " + at
	}
	return s
}

func (o *textOutput) ret(e event.Return) {
	o.end(e.Thread, e.ID, e.Function, e.Duration, func() string {
		how := "returned"
		if e.Value != nil {
			how = "→ " + o.value(*e.Value)
			if e.Value.Given {
				how += o.dim + given + o.off
			}
		}
		if e.Tail {
			how += o.dim + " (timed to the tail call)" + o.off
		}
		return how
	})
}

func (o *textOutput) end(t event.Thread, id uint64, function string, d time.Duration, how func() string) {
	o.begin(o.threads.leave(t, id))
	o.print(o.bold, Escape(function), o.off, " ", how(), "  ", o.dim, duration(d), o.off, "\n")
}

func (o *textOutput) function(e event.Function) {
	o.print(o.bold, Escape(e.Function), o.off, Escape(strings.TrimPrefix(e.Signature, "fn")))
	for _, a := range e.Aliases {
		o.print(" = ", Escape(a))
	}
	if p := place(e.Source); p != "" {
		o.print("  ", p)
	}
	var where []string
	if e.OutOfLine > 0 {
		where = append(where, fmt.Sprintf("%d out of line", e.OutOfLine))
	}
	if e.Inlined > 0 {
		where = append(where, fmt.Sprintf("%d inlined", e.Inlined))
	}
	if len(where) == 0 {
		where = []string{"no code"}
	}
	o.print("  ", o.dim, strings.Join(where, ", "), o.off, "\n")
}

// duration writes d in three digits, with the unit that suits it.
func duration(d time.Duration) string {
	switch {
	case d < 0: // clocks of two CPUs may disagree; the sign is not hidden
		return "-" + duration(-d)
	case d < time.Microsecond:
		return fmt.Sprintf("%dns", d.Nanoseconds())
	case d < time.Millisecond:
		return digits(d, time.Microsecond, "µs")
	case d < time.Second:
		return digits(d, time.Millisecond, "ms")
	case d < time.Minute:
		return digits(d, time.Second, "s")
	}
	return d.Round(time.Second).String()
}

func digits(d, unit time.Duration, name string) string {
	f := float64(d) / float64(unit)
	switch {
	case f < 9.995:
		return fmt.Sprintf("%.2f%s", f, name)
	case f < 99.95:
		return fmt.Sprintf("%.1f%s", f, name)
	}
	return fmt.Sprintf("%.0f%s", f, name)
}
