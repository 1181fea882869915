package source

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error is something to say about a place in a script.
type Error struct {
	Source  *Source
	Span    Span
	Msg     string // one sentence, without a full stop
	Hint    string // what to do about it; "" if there is nothing to say
	Warning bool   // the script runs all the same
}

// Error is the message on one line, with the place in front.
func (e *Error) Error() string {
	line, col := e.Source.Position(e.Span.Start)
	msg := fmt.Sprintf("%s:%d:%d: %s", e.Source.Name, line, col, e.Msg)
	if e.Hint != "" {
		msg += " (" + e.Hint + ")"
	}
	return msg
}

const (
	tabWidth = 4
	// maxShown is how much of a line is shown, in columns: a one-liner may be
	// long, but what is said about it should stay readable.
	maxShown = 200
)

// Render writes the error with the line that it is about, the span underlined
// and the hint below. Control characters in the script's text are not passed on:
// a script may come from someone else, and the terminal is the user's.
func (e *Error) Render(w io.Writer, color bool) error {
	paint := func(code, text string) string {
		if !color || text == "" {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	kind, code := "error", "1;31"
	if e.Warning {
		kind, code = "warning", "1;33"
	}
	line, col := e.Source.Position(e.Span.Start)
	text := e.Source.Line(line)
	before, marked, after := cut(text, col-1, e.Span.End-e.Span.Start)
	lead, mark, rest := visible(before), visible(marked), visible(after)
	if n := len(lead) - maxShown/2; n > 0 {
		lead = append([]rune{'…'}, lead[n:]...)
	}
	if n := maxShown - len(lead); len(mark) > n {
		mark, rest = append(mark[:max(n, 1)-1], '…'), nil
	}
	if n := maxShown - len(lead) - len(mark); len(rest) > n {
		rest = append(rest[:max(n, 0)], '…')
	}
	number := fmt.Sprint(line)
	margin := strings.Repeat(" ", len(number))
	bar := paint("1;34", "|")
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", paint(code, kind+":"), paint("1", string(visible(e.Msg))))
	fmt.Fprintf(&b, "%s%s %s:%d:%d\n", margin, paint("1;34", "-->"), string(visible(e.Source.Name)), line, col)
	fmt.Fprintf(&b, "%s %s\n", margin, bar)
	fmt.Fprintf(&b, "%s %s %s%s%s\n", paint("1;34", number), bar, string(lead), string(mark), string(rest))
	fmt.Fprintf(&b, "%s %s %s%s\n", margin, bar, strings.Repeat(" ", len(lead)), paint(code, strings.Repeat("^", max(1, len(mark)))))
	if e.Hint != "" {
		fmt.Fprintf(&b, "%s %s %s\n", margin, paint("1;34", "="), paint("1", "hint:")+" "+string(visible(e.Hint)))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cut divides a line at a span that begins after some characters and goes on for
// some bytes; what of the span lies on later lines is left out.
func cut(line string, chars, bytes int) (before, marked, after string) {
	start := 0
	for ; chars > 0 && start < len(line); chars-- {
		_, n := utf8.DecodeRuneInString(line[start:])
		start += n
	}
	end := min(start+max(bytes, 0), len(line))
	return line[:start], line[start:end], line[end:]
}

// visible is a text as it is shown, one rune a column: tabs as spaces, control
// and other unprintable characters as a mark.
func visible(text string) []rune {
	var out []rune
	for _, r := range text {
		switch {
		case r == '\t':
			for range tabWidth {
				out = append(out, ' ')
			}
		case unicode.IsPrint(r):
			out = append(out, r)
		default:
			out = append(out, '\uFFFD')
		}
	}
	return out
}

// Errors are what was found in one script, in the order of its text. A nil
// Errors means that nothing was.
type Errors []*Error

// Error is the first error on one line, and how many more there are.
func (l Errors) Error() string {
	switch len(l) {
	case 0:
		return "no errors"
	case 1:
		return l[0].Error()
	}
	return fmt.Sprintf("%s (and %d more)", l[0].Error(), len(l)-1)
}

// Failed says whether there is an error among them that is no mere warning.
func (l Errors) Failed() bool {
	for _, e := range l {
		if !e.Warning {
			return true
		}
	}
	return false
}

// Render writes all of them, an empty line between two.
func (l Errors) Render(w io.Writer, color bool) error {
	for i, e := range l {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := e.Render(w, color); err != nil {
			return err
		}
	}
	return nil
}
