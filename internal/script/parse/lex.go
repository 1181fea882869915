package parse

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"ferrotrace/internal/script/source"
)

type kind int

const (
	endOfText kind = iota
	identifier
	integer
	float
	str
	char
	variable   // $x, text "x"
	parameter  // $1, value 1
	parameters // $#
	mapName    // @x, text "x"
	punctuation
	invalid // text says why, hint what to do
)

// A token is read when it is asked for, not before: an attach point, a C
// definition's line and a field's number follow rules of their own.
type token struct {
	source.Span
	kind  kind
	text  string // as written, or a name without its sigil, or a string's value
	hint  string
	value uint64
}

func (t token) is(text string) bool {
	return t.text == text && (t.kind == punctuation || t.kind == identifier)
}

// signs are the operators of more than one character, longer ones first.
var signs = []string{
	"<<=", ">>=",
	"==", "!=", "<=", ">=", "&&", "||", "<<", ">>", "++", "--", "->", "::", "..",
	"+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=",
}

func identStart(r rune) bool { return r == '_' || unicode.IsLetter(r) }
func identPart(r rune) bool  { return identStart(r) || unicode.IsDigit(r) }
func digit(c byte) bool      { return '0' <= c && c <= '9' }

func hexDigit(c byte) bool {
	return digit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// byteAt is the byte at an offset, 0 past the end.
func (p *parser) byteAt(i int) byte {
	if i < len(p.text) {
		return p.text[i]
	}
	return 0
}

// identEnd is the offset where the identifier ends that begins at i; i itself if
// none does.
func (p *parser) identEnd(i int) int {
	start := i
	for i < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[i:])
		if i == start && !identStart(r) || !identPart(r) {
			break
		}
		i += n
	}
	return i
}

// skip is the offset of what follows white space and comments. A comment that
// never ends is reported as where it starts, with ok false.
func (p *parser) skip(i int) (after int, ok bool) {
	for i < len(p.text) {
		switch {
		case strings.IndexByte(" \t\r\n\v\f", p.text[i]) >= 0:
			i++
		case strings.HasPrefix(p.text[i:], "\\\n"): // a C directive's line goes on
			i += 2
		case strings.HasPrefix(p.text[i:], "//"):
			n := strings.IndexByte(p.text[i:], '\n')
			if n < 0 {
				return len(p.text), true
			}
			i += n
		case strings.HasPrefix(p.text[i:], "/*"):
			n := strings.Index(p.text[i+2:], "*/")
			if n < 0 {
				return i, false
			}
			i += 2 + n + 2
		default:
			return i, true
		}
	}
	return i, true
}

// lex reads the token that follows the offset i.
func (p *parser) lex(i int) token {
	i, ok := p.skip(i)
	if !ok {
		return token{source.Span{Start: i, End: len(p.text)}, invalid, "this comment never ends", "close it with */", 0}
	}
	at := func(end int, k kind, text string) token {
		return token{Span: source.Span{Start: i, End: end}, kind: k, text: text}
	}
	if i >= len(p.text) {
		return at(i, endOfText, "")
	}
	switch c := p.text[i]; {
	case digit(c):
		return p.lexNumber(i)
	case c == '"':
		return p.lexString(i)
	case c == '\'':
		return p.lexChar(i)
	case c == '@':
		end := p.identEnd(i + 1)
		return at(end, mapName, p.text[i+1:end])
	case c == '$':
		return p.lexDollar(i)
	}
	if end := p.identEnd(i); end > i {
		return at(end, identifier, p.text[i:end])
	}
	for _, sign := range signs {
		if strings.HasPrefix(p.text[i:], sign) {
			return at(i+len(sign), punctuation, sign)
		}
	}
	_, n := utf8.DecodeRuneInString(p.text[i:])
	text := p.text[i : i+n]
	if strings.Contains("{}()[];:,.?=<>!~+-*/%&|^#", text) {
		return at(i+n, punctuation, text)
	}
	t := at(i+n, invalid, fmt.Sprintf("the character %q has no meaning here", text))
	return t
}

func (p *parser) lexDollar(i int) token {
	t := token{Span: source.Span{Start: i, End: i + 1}}
	switch c := p.byteAt(i + 1); {
	case c == '#':
		t.kind, t.End = parameters, i+2
	case digit(c):
		for t.End < len(p.text) && digit(p.text[t.End]) {
			t.End++
		}
		n, err := strconv.ParseUint(p.text[i+1:t.End], 10, 63)
		if err != nil || n == 0 {
			t.kind, t.text, t.hint = invalid, "there is no such positional parameter", "they are counted from $1"
			return t
		}
		t.kind, t.value = parameter, n
	default:
		t.End = p.identEnd(i + 1)
		if t.End == i+1 {
			t.kind, t.text, t.hint = invalid, "a name is missing after `$`", "a variable is written $x, a positional parameter $1"
			return t
		}
		t.kind, t.text = variable, p.text[i+1:t.End]
	}
	return t
}

// units are the suffixes of an integer: C's, which do no more than bound it, and
// durations, which make nanoseconds of it.
var units = map[string]struct{ limit, scale uint64 }{
	"":   {math.MaxUint64, 1},
	"u":  {math.MaxUint32, 1},
	"l":  {math.MaxInt64, 1},
	"ll": {math.MaxInt64, 1},
	"ul": {math.MaxUint64, 1}, "ull": {math.MaxUint64, 1}, "lu": {math.MaxUint64, 1}, "llu": {math.MaxUint64, 1},
	"ns": {math.MaxUint64, 1},
	"us": {math.MaxUint64, 1e3},
	"ms": {math.MaxUint64, 1e6},
	"s":  {math.MaxUint64, 1e9},
	"m":  {math.MaxUint64, 60e9},
	"h":  {math.MaxUint64, 3600e9},
	"d":  {math.MaxUint64, 86400e9},
}

func (p *parser) lexNumber(i int) token {
	end := i
	run := func(in func(byte) bool) string {
		start := end
		for end < len(p.text) && (in(p.text[end]) || p.text[end] == '_') {
			end++
		}
		return p.text[start:end]
	}
	bad := func(msg, hint string) token {
		end = max(p.identEnd(end), end)
		return token{source.Span{Start: i, End: end}, invalid, msg, hint, 0}
	}
	base, digits := 10, ""
	switch {
	case p.text[i] == '0' && (p.byteAt(i+1)|0x20) == 'x':
		end, base = i+2, 16
		digits = run(hexDigit)
	case p.text[i] == '0' && (p.byteAt(i+1)|0x20) == 'b':
		end, base = i+2, 2
		digits = run(digit)
	default:
		digits = run(digit)
		if len(digits) > 1 && digits[0] == '0' {
			base = 8
		}
	}
	if base == 10 && p.byteAt(end) == '.' && digit(p.byteAt(end+1)) {
		end++
		run(digit)
		if p.identEnd(end) > end {
			return bad("this is no number", "")
		}
		return token{Span: source.Span{Start: i, End: end}, kind: float, text: p.text[i:end]}
	}
	if strings.HasSuffix(digits, "_") {
		return bad("a number cannot end in `_`", "")
	}
	value, err := strconv.ParseUint(strings.ReplaceAll(digits, "_", ""), base, 64)
	if err != nil {
		if numErr := err.(*strconv.NumError); numErr.Err == strconv.ErrRange {
			return bad("this number is too large", "the largest is 18446744073709551615")
		}
		return bad(fmt.Sprintf("this is no number in base %d", base), "")
	}
	if c := p.byteAt(end); base == 10 && (c|0x20) == 'e' && (digit(p.byteAt(end+1)) || p.byteAt(end+1) == '-') {
		end++
		if p.byteAt(end) == '-' {
			return bad("this is no whole number", "the exponent cannot be negative")
		}
		digits := run(digit)
		if strings.HasSuffix(digits, "_") {
			return bad("a number cannot end in `_`", "")
		}
		exponent, err := strconv.ParseUint(strings.ReplaceAll(digits, "_", ""), 10, 8)
		if value < 1 || value > 9 {
			return bad("what stands before the exponent must be one digit from 1 to 9", "")
		}
		for ; err == nil && exponent > 0; exponent-- {
			hi, lo := bits.Mul64(value, 10)
			if value = lo; hi != 0 {
				err = strconv.ErrRange
			}
		}
		if err != nil {
			return bad("this number is too large", "the largest is 18446744073709551615")
		}
	}
	suffix := p.text[end:max(p.identEnd(end), end)]
	unit, ok := units[suffix]
	if !ok {
		unit, ok = units[strings.ToLower(suffix)]
		ok = ok && strings.Trim(suffix, "ulUL") == ""
	}
	if !ok {
		return bad(fmt.Sprintf("`%s` is no unit of a number", suffix), "durations end in ns, us, ms, s, m, h or d; C's u, l and ll are understood")
	}
	end += len(suffix)
	hi, scaled := bits.Mul64(value, unit.scale)
	if hi != 0 || scaled > unit.limit {
		return bad("this number is too large for its suffix", "")
	}
	return token{Span: source.Span{Start: i, End: end}, kind: integer, text: p.text[i:end], value: scaled}
}

func (p *parser) lexString(i int) token {
	var b strings.Builder
	j := i + 1
	for {
		if j >= len(p.text) || p.text[j] == '\n' {
			return token{source.Span{Start: i, End: j}, invalid, "this string never ends", "close it with \" on the same line; a line break inside is written \\n", 0}
		}
		switch c := p.text[j]; c {
		case '"':
			return token{Span: source.Span{Start: i, End: j + 1}, kind: str, text: b.String()}
		case '\\':
			r, wide, end, problem := p.escape(j)
			if problem != "" {
				return token{source.Span{Start: j, End: end}, invalid, problem, "", 0}
			}
			if wide {
				b.WriteRune(r)
			} else {
				b.WriteByte(byte(r))
			}
			j = end
		default:
			b.WriteByte(c)
			j++
		}
	}
}

func (p *parser) lexChar(i int) token {
	r, n := utf8.DecodeRuneInString(p.text[i+1:])
	end, problem := i+1+n, ""
	switch r {
	case '\'', '\n', utf8.RuneError:
		problem = "a character is missing here"
	case '\\':
		r, _, end, problem = p.escape(i + 1)
	}
	if problem == "" && p.byteAt(end) != '\'' {
		problem = "one character is expected between '...'"
	}
	if problem != "" {
		return token{source.Span{Start: i, End: max(end, i+1)}, invalid, problem, "a string stands in \"...\"", 0}
	}
	return token{Span: source.Span{Start: i, End: end + 1}, kind: char, text: p.text[i : end+1], value: uint64(r)}
}

// escape reads the escape sequence whose backslash is at i. It gives one byte, or
// (wide) a character.
func (p *parser) escape(i int) (r rune, wide bool, end int, problem string) {
	c := p.byteAt(i + 1)
	end = min(i+2, len(p.text))
	switch c {
	case 'n':
		return '\n', false, end, ""
	case 't':
		return '\t', false, end, ""
	case 'r':
		return '\r', false, end, ""
	case '"', '\\', '\'':
		return rune(c), false, end, ""
	case 'x', 'X':
		for end < len(p.text) && end < i+4 && hexDigit(p.text[end]) {
			end++
		}
		n, err := strconv.ParseUint(p.text[i+2:end], 16, 8)
		if err != nil {
			return 0, false, end, "hexadecimal digits are missing after `\\x`"
		}
		return rune(n), false, end, ""
	case 'u':
		n := strings.IndexByte(p.text[end:min(end+9, len(p.text))], '}')
		if p.byteAt(end) != '{' || n < 0 {
			return 0, false, end, "a character by its number is written \\u{1f980}"
		}
		v, err := strconv.ParseUint(p.text[end+1:end+n], 16, 32)
		if end += n + 1; err != nil || !utf8.ValidRune(rune(v)) {
			return 0, false, end, "there is no such character"
		}
		return rune(v), true, end, ""
	}
	if '0' <= c && c <= '7' {
		for end < len(p.text) && end < i+4 && '0' <= p.text[end] && p.text[end] <= '7' {
			end++
		}
		n, err := strconv.ParseUint(p.text[i+1:end], 8, 8)
		if err != nil {
			return 0, false, end, "the largest byte is \\377"
		}
		return rune(n), false, end, ""
	}
	return 0, false, end, "there is no such escape sequence"
}
