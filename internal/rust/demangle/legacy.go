package demangle

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// appendLegacy appends the path of a legacy symbol, given without its prefix:
// length-prefixed elements up to an 'E'. It returns what follows that 'E'.
func appendLegacy(dst []byte, inner string, keepHash bool) (out []byte, suffix string, ok bool) {
	if !isASCII(inner) {
		return dst, "", false
	}
	base, full := len(dst), false
	rest := inner
	for first := true; ; first = false {
		if rest == "" {
			return dst, "", false
		}
		if rest[0] == 'E' {
			if full {
				dst = append(dst, sizeLimitReached...)
			}
			return dst, rest[1:], true
		}
		if rest[0] < '0' || rest[0] > '9' {
			return dst, "", false
		}
		n := 0
		for rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			n = n*10 + int(rest[0]-'0')
			if n > len(inner) {
				return dst, "", false
			}
			rest = rest[1:]
		}
		if n >= len(rest) { // after the element there is at least the 'E'
			return dst, "", false
		}
		element := rest[:n]
		rest = rest[n:]
		if full || !keepHash && rest[0] == 'E' && isHash(element) {
			continue
		}
		if !first {
			dst = append(dst, "::"...)
		}
		dst = appendElement(dst, element)
		if len(dst)-base > maxSize {
			dst, full = dst[:base+maxSize], true
		}
	}
}

// isHash reports whether an element is a legacy hash: any number of
// hexadecimal digits after an 'h'.
func isHash(s string) bool {
	if s == "" || s[0] != 'h' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// appendElement appends one element with its escapes undone: `..` for `::`,
// `$LT$` and the like for punctuation, `$u7b$` for any character. From the
// first escape on that is not one, the text stays as it is.
func appendElement(dst []byte, s string) []byte {
	if strings.HasPrefix(s, "_$") { // an identifier may not begin with '$'
		s = s[1:]
	}
	for {
		i := strings.IndexAny(s, "$.")
		if i < 0 {
			return append(dst, s...)
		}
		dst, s = append(dst, s[:i]...), s[i:]
		switch {
		case strings.HasPrefix(s, ".."):
			dst, s = append(dst, "::"...), s[2:]
		case s[0] == '.':
			dst, s = append(dst, '.'), s[1:]
		default:
			end := strings.IndexByte(s[1:], '$')
			if end < 0 {
				return append(dst, s...)
			}
			r := unescape(s[1 : 1+end])
			if r < 0 {
				return append(dst, s...)
			}
			dst, s = utf8.AppendRune(dst, r), s[end+2:]
		}
	}
}

// unescape returns the character that a legacy escape stands for, or -1.
func unescape(s string) rune {
	switch s {
	case "SP":
		return '@'
	case "BP":
		return '*'
	case "RF":
		return '&'
	case "LT":
		return '<'
	case "GT":
		return '>'
	case "LP":
		return '('
	case "RP":
		return ')'
	case "C":
		return ','
	}
	if len(s) < 2 || s[0] != 'u' {
		return -1
	}
	var r rune
	for _, c := range []byte(s[1:]) {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		default:
			return -1
		}
		if r > utf8.MaxRune {
			return -1
		}
	}
	if !utf8.ValidRune(r) || unicode.IsControl(r) {
		return -1
	}
	return r
}
