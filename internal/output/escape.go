package output

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hostile reports whether a terminal would act on r rather than show it: control
// characters (C0, DEL, C1), line separators, and the marks that turn the writing
// direction, with which text can be made to read as something else.
func hostile(r rune) bool {
	if r < 0x7f { // most are
		return r < 0x20
	}
	switch {
	case unicode.IsControl(r):
		return true
	case r == 0x2028 || r == 0x2029:
		return true
	}
	return unicode.Is(unicode.Bidi_Control, r)
}

// Escape makes s, which may come from the target, safe to show: what a terminal
// would act on is written as Rust's {:?} writes it, and a byte that is not UTF-8
// as \xNN.
func Escape(s string) string {
	clean := true
	for i, r := range s {
		if hostile(r) || r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == 0:
			b.WriteString(`\0`)
		case hostile(r):
			fmt.Fprintf(&b, `\u{%x}`, r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// EscapeJSON does for a line of JSON what encoding/json leaves undone: it lets
// DEL, C1 and direction marks pass. All that is not ASCII stands in strings, so
// the escape can be put in anywhere.
func EscapeJSON(line []byte) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(line); {
		if line[i] < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(line[i:])
		if hostile(r) { // all such are in the basic plane: four digits suffice
			out = append(out, line[done:i]...)
			out = fmt.Appendf(out, `\u%04x`, r)
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return line
	}
	return append(out, line[done:]...)
}
