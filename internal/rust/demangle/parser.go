package demangle

import "math/bits"

// maxDepth is how deep a v0 symbol may nest, as in rustc-demangle.
const maxDepth = 500

// failure is why a v0 symbol cannot be decoded further.
type failure uint8

const (
	none     failure = iota
	invalid          // not in the grammar of RFC 2603
	tooDeep          // nested deeper than maxDepth
	tooLarge         // the output has reached maxSize
)

func (f failure) message() string {
	if f == tooDeep {
		return "{recursion limit reached}"
	}
	return "{invalid syntax}"
}

// parser reads the lexical parts of a v0 symbol. It is a value: a
// back-reference is followed with a copy that stands elsewhere in sym.
type parser struct {
	sym   string // without prefix, ASCII
	next  int    // ≤ len(sym)
	depth int
}

func (p *parser) push() failure {
	p.depth++
	if p.depth > maxDepth {
		return tooDeep
	}
	return none
}

func (p *parser) eat(b byte) bool {
	if p.next < len(p.sym) && p.sym[p.next] == b {
		p.next++
		return true
	}
	return false
}

func (p *parser) byte() (byte, failure) {
	if p.next == len(p.sym) {
		return 0, invalid
	}
	b := p.sym[p.next]
	p.next++
	return b, none
}

// hex reads nibbles up to an underscore.
func (p *parser) hex() (string, failure) {
	for i := p.next; i < len(p.sym); i++ {
		switch c := p.sym[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
		case c == '_':
			s := p.sym[p.next:i]
			p.next = i + 1
			return s, none
		default:
			return "", invalid
		}
	}
	return "", invalid
}

// integer62 reads a <base-62-number>: "_" is 0, "0_" is 1.
func (p *parser) integer62() (uint64, failure) {
	if p.eat('_') {
		return 0, none
	}
	var x uint64
	for {
		c, f := p.byte()
		if f != none {
			return 0, f
		}
		var d uint64
		switch {
		case '0' <= c && c <= '9':
			d = uint64(c - '0')
		case 'a' <= c && c <= 'z':
			d = uint64(c-'a') + 10
		case 'A' <= c && c <= 'Z':
			d = uint64(c-'A') + 36
		case c == '_':
			if x+1 == 0 {
				return 0, invalid
			}
			return x + 1, none
		default:
			return 0, invalid
		}
		hi, lo := bits.Mul64(x, 62)
		sum, carry := bits.Add64(lo, d, 0)
		if hi != 0 || carry != 0 {
			return 0, invalid
		}
		x = sum
	}
}

// optional62 reads a number that stands after tag, one higher than it is
// written; without the tag it is 0.
func (p *parser) optional62(tag byte) (uint64, failure) {
	if !p.eat(tag) {
		return 0, none
	}
	x, f := p.integer62()
	if f == none && x+1 == 0 {
		return 0, invalid
	}
	return x + 1, f
}

func (p *parser) disambiguator() (uint64, failure) { return p.optional62('s') }

// namespace returns a special namespace (closures, shims) as its letter, and
// any other as 0.
func (p *parser) namespace() (byte, failure) {
	c, f := p.byte()
	switch {
	case f != none:
		return 0, f
	case 'A' <= c && c <= 'Z':
		return c, none
	case 'a' <= c && c <= 'z':
		return 0, none
	}
	return 0, invalid
}

// backref returns a parser at the place that a back-reference names, which
// lies before the reference. The 'B' has been read.
func (p *parser) backref() (parser, failure) {
	start := p.next - 1
	i, f := p.integer62()
	if f != none {
		return parser{}, f
	}
	if i >= uint64(start) {
		return parser{}, invalid
	}
	target := parser{sym: p.sym, next: int(i), depth: p.depth}
	return target, target.push()
}

// ident is an identifier: ASCII, and if it has other characters, where they
// go, in Punycode.
type ident struct {
	ascii, punycode string
}

func (id ident) empty() bool { return id.ascii == "" && id.punycode == "" }

func (p *parser) ident() (ident, failure) {
	isPunycode := p.eat('u')
	c, f := p.byte()
	if f != none || c < '0' || c > '9' {
		return ident{}, invalid
	}
	n := int(c - '0')
	if n != 0 { // no leading zeros: a zero is the whole length
		for p.next < len(p.sym) && '0' <= p.sym[p.next] && p.sym[p.next] <= '9' {
			n = n*10 + int(p.sym[p.next]-'0')
			if n > len(p.sym) {
				return ident{}, invalid
			}
			p.next++
		}
	}
	p.eat('_') // separates the length from a name that begins with a digit or '_'
	if n > len(p.sym)-p.next {
		return ident{}, invalid
	}
	s := p.sym[p.next : p.next+n]
	p.next += n
	if !isPunycode {
		return ident{ascii: s}, none
	}
	id := ident{punycode: s}
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '_' {
			id = ident{ascii: s[:i], punycode: s[i+1:]}
			break
		}
	}
	if id.punycode == "" {
		return ident{}, invalid
	}
	return id, none
}
