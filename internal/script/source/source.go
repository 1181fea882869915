// Package source is a script's text and what is said about places in it: spans,
// lines, and the errors and warnings that the parser and the checker report,
// shown with the line they are about.
package source

import (
	"sort"
	"strings"
	"unicode/utf8"
)

// A Source is the text of one script. It is read only after New, so it may be
// shared between goroutines.
type Source struct {
	Name  string // what errors call it: a file's name, or "-e" for a one-liner
	Text  string
	lines []int // the offset of each line's first byte
}

// New makes a Source of a text; name is what errors will call it.
func New(name, text string) *Source {
	s := &Source{Name: name, Text: text, lines: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			s.lines = append(s.lines, i+1)
		}
	}
	return s
}

// Position is the line and column of a byte offset, both counted from 1, the
// column in characters. An offset out of range counts as the nearest one in it.
func (s *Source) Position(offset int) (line, col int) {
	offset = min(max(offset, 0), len(s.Text))
	i := sort.SearchInts(s.lines, offset+1) - 1
	return i + 1, utf8.RuneCountInString(s.Text[s.lines[i]:offset]) + 1
}

// Line is the text of a line, counted from 1, without its end; "" if there is
// no such line.
func (s *Source) Line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	text := s.Text[s.lines[n-1]:]
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSuffix(text, "\r")
}

// A Span is the bytes [Start, End) of a source's text.
type Span struct {
	Start, End int
}

// At is the span itself: what embeds a Span can say where it is.
func (s Span) At() Span { return s }

// To is the span from the start of s to the end of t.
func (s Span) To(t Span) Span { return Span{s.Start, max(s.Start, t.End)} }
