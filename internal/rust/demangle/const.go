package demangle

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// constant prints a <const>. Outside another expression, all but literals need
// braces.
func (p *printer) constant(inValue bool) {
	tag, f := p.in.byte()
	if !p.check(f) || !p.check(p.in.push()) {
		return
	}
	braced := false
	brace := func() {
		if !inValue {
			braced = true
			p.print("{")
		}
	}
	switch tag {
	case 'p':
		p.print("_")
	case 'h', 't', 'm', 'y', 'o', 'j':
		p.integer(tag)
	case 'a', 's', 'l', 'x', 'n', 'i':
		if p.eat('n') {
			p.print("-")
		}
		p.integer(tag)
	case 'b':
		hex, f := p.in.hex()
		if !p.check(f) {
			return
		}
		switch v, ok := parseUint(hex); {
		case ok && v == 0:
			p.print("false")
		case ok && v == 1:
			p.print("true")
		default:
			p.fail(invalid)
			return
		}
	case 'c':
		hex, f := p.in.hex()
		if !p.check(f) {
			return
		}
		v, ok := parseUint(hex)
		if !ok || v > utf8.MaxRune || !utf8.ValidRune(rune(v)) {
			p.fail(invalid)
			return
		}
		p.print("'")
		p.escaped(rune(v), '\'')
		p.print("'")
	case 'e': // a literal is a &str: the str itself is what it points to
		brace()
		p.print("*")
		p.stringLiteral()
	case 'R', 'Q':
		if tag == 'R' && p.eat('e') {
			p.stringLiteral()
			break
		}
		brace()
		p.print("&")
		if tag == 'Q' {
			p.print("mut ")
		}
		p.constant(true)
	case 'A':
		brace()
		p.print("[")
		p.list(aConstInValue, ", ")
		p.print("]")
	case 'T':
		brace()
		p.tuple(aConstInValue)
	case 'V':
		brace()
		p.path(true)
		kind, f := p.in.byte()
		if !p.check(f) {
			return
		}
		switch kind {
		case 'U':
		case 'T':
			p.print("(")
			p.list(aConstInValue, ", ")
			p.print(")")
		case 'S':
			p.print(" { ")
			p.list(aField, ", ")
			p.print(" }")
		default:
			p.fail(invalid)
			return
		}
	case 'B':
		if inValue {
			p.backref(aConstInValue)
		} else {
			p.backref(aConst)
		}
	default:
		p.fail(invalid)
		return
	}
	if braced {
		p.print("}")
	}
	p.in.depth--
}

// field prints one field of a struct constant.
func (p *printer) field() {
	_, f := p.in.disambiguator()
	if !p.check(f) {
		return
	}
	name, f := p.in.ident()
	if !p.check(f) {
		return
	}
	p.printIdent(name)
	p.print(": ")
	p.constant(true)
}

// integer prints an integer; one that 64 bits do not hold in hexadecimal.
func (p *printer) integer(typeTag byte) {
	hex, f := p.in.hex()
	if !p.check(f) {
		return
	}
	if v, ok := parseUint(hex); ok {
		p.printUint(v, 10)
	} else {
		p.print("0x")
		p.print(hex)
	}
	if p.keepHash {
		p.print(basicTypes[typeTag])
	}
}

func parseUint(hex string) (uint64, bool) {
	hex = strings.TrimLeft(hex, "0")
	if len(hex) > 16 {
		return 0, false
	}
	var v uint64
	for _, c := range []byte(hex) {
		v = v<<4 | uint64(nibble(c))
	}
	return v, true
}

func nibble(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}

func (p *printer) stringLiteral() {
	hex, f := p.in.hex()
	if !p.check(f) {
		return
	}
	text := make([]byte, len(hex)/2)
	for i := range text {
		text[i] = nibble(hex[2*i])<<4 | nibble(hex[2*i+1])
	}
	if len(hex)%2 != 0 || !utf8.Valid(text) {
		p.fail(invalid)
		return
	}
	p.print(`"`)
	for _, r := range string(text) {
		p.escaped(r, '"')
	}
	p.print(`"`)
}

// escaped prints a character as it stands in a literal between the quotes
// given: by Rust's char::escape_debug, but the other quote as it is.
func (p *printer) escaped(r, quote rune) {
	switch r {
	case 0:
		p.printEscape("0")
	case '\t':
		p.printEscape("t")
	case '\n':
		p.printEscape("n")
	case '\r':
		p.printEscape("r")
	case '\\':
		p.printEscape(`\`)
	case quote:
		p.printEscape(string(quote))
	default:
		if unicode.IsPrint(r) && !unicode.In(r, unicode.Mn, unicode.Me, unicode.Other_Grapheme_Extend) {
			p.printRune(r)
			return
		}
		p.printEscape("u{" + strconv.FormatInt(int64(r), 16) + "}")
	}
}

// printEscape prints an escape one character at a time, which tells where the
// size limit cuts it.
func (p *printer) printEscape(s string) {
	p.print(`\`)
	for i := range len(s) {
		p.print(s[i : i+1])
	}
}
