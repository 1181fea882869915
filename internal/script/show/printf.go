package show

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ferrotrace/internal/program/ir"
)

// maxWidth bounds the width and the precision of a conversion.
const maxWidth = 4096

// conv is one conversion.
type conv struct {
	left, plus, space, alt, zero bool
	width, prec                  int // prec is -1 if there is none
	length, verb                 string
}

// verbs are the letters of conversions; those of C that mean nothing here are refused.
var verbs = []string{"rh", "rx", "gr", "r", "d", "i", "o", "u", "x", "X", "e", "E", "f", "F", "g", "G", "a", "A", "c", "s", "p", "n", "%", "?"}

// parseFormat parts a format into text, conversion, text, and so on. A % that begins no
// conversion is text.
func parseFormat(format string) (texts []string, convs []conv, err error) {
	text := make([]byte, 0, len(format))
	for {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			break
		}
		text = append(text, format[:i]...)
		c, n, err := parseConv(format[i:])
		switch {
		case err != nil:
			return nil, nil, err
		case n == 0 || c.verb == "%":
			text = append(text, '%')
			n = max(n, 1)
		default:
			texts, convs = append(texts, string(text)), append(convs, c)
			text = text[:0]
		}
		format = format[i+n:]
	}
	return append(texts, string(text)+format), convs, nil
}

// parseConv parses what begins with a %. n is how long it is, 0 if it is no conversion.
func parseConv(s string) (c conv, n int, err error) {
	span := func(set string) string {
		start := n
		for n < len(s) && strings.IndexByte(set, s[n]) >= 0 {
			n++
		}
		return s[start:n]
	}
	n = 1
	for _, f := range span("-+ #0") {
		switch f {
		case '-':
			c.left = true
		case '+':
			c.plus = true
		case ' ':
			c.space = true
		case '#':
			c.alt = true
		case '0':
			c.zero = true
		}
	}
	width, precision, dot := span("*"), "", false
	if width == "" {
		width = span("0123456789")
	}
	if dot = span(".") == "."; dot {
		if precision = span("*"); precision == "" {
			precision = span("0123456789")
		}
	}
	c.length = span("hlLjzt")
	for _, v := range verbs {
		if strings.HasPrefix(s[n:], v) {
			c.verb = v
			break
		}
	}
	if c.verb == "" {
		return c, 0, nil
	}
	n += len(c.verb)
	if strings.ContainsRune(width+precision, '*') {
		return c, n, fmt.Errorf("unsupported format specifier: %s: a width cannot be an argument", s[:n])
	}
	if c.width, err = bounded(width); err != nil {
		return c, n, err
	}
	if c.prec = -1; dot {
		c.prec, err = bounded(precision)
	}
	return c, n, err
}

func bounded(digits string) (int, error) {
	if digits == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n > maxWidth {
		return 0, fmt.Errorf("a width of %s in a format is more than %d", digits, maxWidth)
	}
	return n, nil
}

// CheckFormat says what is wrong with a format that is to be used with values of the
// types.
func CheckFormat(format string, types []*ir.Type) error {
	_, convs, err := parseFormat(format)
	if err != nil {
		return err
	}
	if len(types) != len(convs) {
		few := "not enough"
		if len(types) > len(convs) {
			few = "too many"
		}
		return fmt.Errorf("%s arguments for format string (%d supplied, %d expected)", few, len(types), len(convs))
	}
	for i, c := range convs {
		if err := c.check(types[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c conv) check(t *ir.Type) error {
	if t.Kind == ir.Void {
		return fmt.Errorf("unable to print none type for specifier: %s", c.verb)
	}
	var kinds []ir.TypeKind
	switch c.verb {
	case "s", "?":
		return nil
	case "d", "i", "u", "o", "x", "X", "c", "p":
		kinds = []ir.TypeKind{ir.Int, ir.Bool, ir.Pointer}
	case "r", "rx", "rh":
		kinds = []ir.TypeKind{ir.Bytes}
	default:
		return fmt.Errorf("unsupported format specifier: %s", c.verb)
	}
	if !slices.Contains(kinds, t.Kind) || t.Kind == ir.Bytes && t.Format != "" {
		return fmt.Errorf("unsupported format specifier for type '%s': %s", t, c.verb)
	}
	return nil
}

// Printf is the values by a format. Without Raw, what comes of the values is escaped, and the
// format's own text is as it is. The error is one that CheckFormat finds.
func (e *Env) Printf(format string, args []Arg) (string, error) {
	texts, convs, err := parseFormat(format)
	if err != nil {
		return "", err
	}
	if len(args) != len(convs) {
		return "", fmt.Errorf("format %q has %d arguments", format, len(args))
	}
	var b strings.Builder
	for i, c := range convs {
		if err := c.check(args[i].Type); err != nil {
			return "", err
		}
		b.WriteString(texts[i])
		c.write(&b, e, args[i])
	}
	b.WriteString(texts[len(convs)])
	return b.String(), nil
}

func (c conv) write(b *strings.Builder, e *Env, a Arg) {
	switch c.verb {
	case "s":
		c.padText(b, e.Text(a))
	case "?":
		c.padText(b, e.Debug(a))
	case "r":
		c.padText(b, hexBytes(bytesOf(a.Type, a.Bytes), true, true))
	case "rx":
		c.padText(b, hexBytes(bytesOf(a.Type, a.Bytes), false, true))
	case "rh":
		c.padText(b, hexBytes(bytesOf(a.Type, a.Bytes), false, false))
	case "c":
		c.padText(b, e.escape(char(a.number())))
	default:
		c.padNumber(b, a.number())
	}
}

// number is a scalar, extended to 64 bits.
func (a Arg) number() uint64 {
	switch a.Type.Kind {
	case ir.Int:
		return intOf(a.Type, a.Bytes)
	case ir.Bool:
		if word(a.Bytes, 1) != 0 {
			return 1
		}
		return 0
	}
	return word(a.Bytes, 8)
}

// char is the byte or, beyond that, the Unicode character of a number.
func char(n uint64) string {
	if n <= math.MaxUint32 && n > 0xff && utf8.ValidRune(rune(n)) {
		return string(rune(n))
	}
	return string([]byte{byte(n)})
}

func (c conv) padText(b *strings.Builder, s string) {
	if c.prec >= 0 {
		s = cut(s, c.prec)
	}
	pad := max(c.width-utf8.RuneCountInString(s), 0)
	if c.left {
		b.WriteString(s)
	}
	b.WriteString(strings.Repeat(" ", pad))
	if !c.left {
		b.WriteString(s)
	}
}

// cut is the first n characters.
func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func (c conv) padNumber(b *strings.Builder, n uint64) {
	prefix, digits := "", ""
	switch c.verb {
	case "d", "i":
		v := int64(n)
		switch c.bits() {
		case 8:
			v = int64(int8(v))
		case 16:
			v = int64(int16(v))
		case 32:
			v = int64(int32(v))
		}
		digits = strconv.FormatInt(v, 10)
		switch {
		case v < 0:
			prefix, digits = "-", digits[1:]
		case c.plus:
			prefix = "+"
		case c.space:
			prefix = " "
		}
	case "p":
		prefix, digits = "0x", strconv.FormatUint(n, 16)
	default:
		if bits := c.bits(); bits < 64 {
			n &= 1<<bits - 1
		}
		base, mark := 10, ""
		switch c.verb {
		case "o":
			base, mark = 8, "0"
		case "x", "X":
			base, mark = 16, "0"+c.verb
		}
		digits = strconv.FormatUint(n, base)
		if c.alt && n != 0 {
			prefix = mark
		}
		if c.verb == "X" {
			digits = strings.ToUpper(digits)
		}
	}
	zeros := max(c.prec-len(digits), 0)
	if c.zero && !c.left && c.prec < 0 {
		zeros = max(c.width-len(prefix)-len(digits), 0)
	}
	c.prec = -1
	c.padText(b, prefix+strings.Repeat("0", zeros)+digits)
}

// bits are how many of a number are printed: as in C, 32 unless a length says more or less.
func (c conv) bits() int {
	switch c.length {
	case "hh":
		return 8
	case "h":
		return 16
	case "l", "ll", "j", "z", "t":
		return 64
	}
	return 32
}
