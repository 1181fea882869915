package debugfmt

import (
	_ "embed"
	"fmt"
	"sort"
	"strings"
	"sync"
	"unicode/utf8"

	"ferrotrace/internal/rust/types"
)

//go:generate sh -c "rustc -O testdata/escapes.rs -o /tmp/escapes && /tmp/escapes > escapes.txt"

// escapesText is what testdata/escapes.rs prints with rustc 1.95 (Unicode 17).
//
//go:embed escapes.txt
var escapesText string

// escapes are the ranges from U+80 on that {:?} writes as \u{…}, ascending.
var escapes = sync.OnceValue(func() [][2]rune {
	var ranges [][2]rune
	for line := range strings.Lines(escapesText) {
		var r [2]rune
		if _, err := fmt.Sscanf(line, "%x %x", &r[0], &r[1]); err != nil {
			panic("escapes.txt: " + err.Error()) // embedded, and read by every test
		}
		ranges = append(ranges, r)
	}
	return ranges
})

// appendChar appends c as {:?} writes it between quote and quote.
// See core::char::methods::escape_debug_ext and the Debug impls of str and char.
func appendChar(b []byte, c rune, quote byte) []byte {
	switch c {
	case 0:
		return append(b, `\0`...)
	case '\t':
		return append(b, `\t`...)
	case '\r':
		return append(b, `\r`...)
	case '\n':
		return append(b, `\n`...)
	case '\\', rune(quote):
		return append(b, '\\', byte(c))
	}
	if escaped(c) {
		return fmt.Appendf(b, `\u{%x}`, c)
	}
	return utf8.AppendRune(b, c)
}

func escaped(c rune) bool {
	if c < 0x80 {
		return c < 0x20 || c == 0x7f
	}
	ranges := escapes()
	i := sort.Search(len(ranges), func(i int) bool { return c <= ranges[i][1] })
	return i < len(ranges) && c >= ranges[i][0]
}

// appendStr appends the bytes of a string as {:?} writes them, without quotes.
// Bytes that are not UTF-8 are written as \xNN, as Debug of a Path does. If more follows, a char that the
// end of s cuts in half is left out.
func appendStr(b, s []byte, more bool) []byte {
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		if c == utf8.RuneError && n <= 1 {
			if more && !utf8.FullRune(s) {
				return b
			}
			b = fmt.Appendf(b, `\x%02X`, s[0])
			s = s[1:]
			continue
		}
		b = appendChar(b, c, '"')
		s = s[n:]
	}
	return b
}

// appendText appends the bytes of a Str of type t as {:?} writes them, without quotes.
func appendText(b []byte, t *types.Type, s []byte, more bool) []byte {
	if t.Text == types.StrText || t.Text == types.OsText && t.Era != types.Old {
		return appendStr(b, s, more)
	}
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		bad := c == utf8.RuneError && n <= 1
		if bad && more && !utf8.FullRune(s) {
			return b
		}
		switch {
		case t.Text == types.OsText && bad:
			b = fmt.Appendf(b, `\x%02X`, s[0])
		case c == '\'': // char::escape_debug and u8::escape_ascii escape it
			b = append(b, `\'`...)
		case t.Text == types.OsText:
			b = appendChar(b, c, '"')
		case bad, c >= 0x80 && t.Era == types.Old, c < 0x80 && escaped(c) && c != '\t' && c != '\n' && c != '\r':
			// u8::escape_ascii
			b = fmt.Appendf(b, `\x%02x`, s[0])
			n = 1
		default: // core::bstr::ByteStr
			b = appendChar(b, c, '"')
		}
		s = s[n:]
	}
	return b
}

// sameEver says whether the Old and the New write s alike.
func sameEver(t types.Text, s []byte) bool {
	for _, c := range s {
		if t == types.OsText && c == '\'' || t == types.CText && c >= 0x80 {
			return false
		}
	}
	return true
}

// printable returns a name from debug info without what would do something to
// a terminal.
func printable(name string) string {
	clean := true
	for _, c := range name {
		clean = clean && c != utf8.RuneError && !escaped(c)
	}
	if clean {
		return name
	}
	return string(appendStr(nil, []byte(name), false))
}

// Quote returns s as {:?} writes a string, in its quotes.
func Quote(s string) string {
	return string(append(appendStr([]byte{'"'}, []byte(s), false), '"'))
}
