package demangle

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendV0 appends the path of a v0 symbol (RFC 2603), given without its
// prefix. It returns what follows the symbol proper.
//
// A symbol counts as one if a shallow pass over it, which does not follow
// back-references, finds it in the grammar. What is wrong deeper shows in the
// text. A printing pass that meets no error proves as much as the shallow one,
// which is therefore made only after an error.
func appendV0(dst []byte, inner string, keepHash bool) (out []byte, suffix string, ok bool) {
	if inner == "" || !isUpper(inner[0]) || !isASCII(inner) {
		return dst, "", false
	}
	p := printer{in: parser{sym: inner}, out: dst, base: len(dst), keepHash: keepHash}
	p.path(true)
	end := p.in
	if p.err != none {
		shallow := printer{in: parser{sym: inner}, silent: true}
		shallow.path(false)
		if shallow.err != none {
			return dst, "", false
		}
		end = shallow.in
	}
	if end.next < len(inner) && isUpper(inner[end.next]) {
		// The crate that this instance was made for.
		crate := printer{in: end, silent: true}
		crate.path(false)
		if crate.err != none {
			return dst, "", false
		}
		end = crate.in
	}
	if p.err == tooLarge {
		p.out = append(p.out, sizeLimitReached...)
	}
	return p.out, inner[end.next:], true
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// printer decodes a v0 symbol by recursive descent and prints it on the way.
type printer struct {
	in  parser
	err failure // once set, what still has to be decoded prints as `?`

	silent    bool // decode only, without following back-references
	keepHash  bool
	lifetimes uint64 // bound by the `for<…>` around the current place
	out       []byte
	base      int // len(out) at the beginning
}

func (p *printer) print(s string) {
	if p.silent || p.err == tooLarge {
		return
	}
	if len(p.out)-p.base+len(s) > maxSize {
		p.err = tooLarge
		return
	}
	p.out = append(p.out, s...)
}

func (p *printer) printRune(r rune) {
	var b [utf8.UTFMax]byte
	p.print(string(b[:utf8.EncodeRune(b[:], r)]))
}

func (p *printer) printUint(x uint64, base int) {
	var b [20]byte
	p.print(string(strconv.AppendUint(b[:0], x, base)))
}

func (p *printer) printIdent(id ident) {
	if id.punycode == "" {
		p.print(id.ascii)
		return
	}
	if p.silent {
		return
	}
	var buf [maxPunycode]rune
	if chars, ok := id.decode(&buf); ok {
		for _, r := range chars {
			p.printRune(r)
		}
		return
	}
	p.print("punycode{")
	if id.ascii != "" {
		p.print(id.ascii)
		p.print("-")
	}
	p.print(id.punycode)
	p.print("}")
}

// check takes the outcome of reading something from p.in. It reports whether
// there is a value to go on with, and prints why not.
func (p *printer) check(f failure) bool {
	if p.err != none {
		p.print("?")
		return false
	}
	if f != none {
		p.fail(f)
		return false
	}
	return true
}

func (p *printer) fail(f failure) {
	p.print(f.message())
	if p.err != tooLarge {
		p.err = f
	}
}

func (p *printer) eat(b byte) bool { return p.err == none && p.in.eat(b) }

// A production is a rule of the grammar that back-references and lists are
// made of. (Method values would do, but they would move the printer to the heap.)
type production uint8

const (
	aPath production = iota
	aPathInValue
	aType
	aGenericArg
	aConst
	aConstInValue
	aDynTrait
	aField
)

func (p *printer) production(what production) {
	switch what {
	case aPath:
		p.path(false)
	case aPathInValue:
		p.path(true)
	case aType:
		p.typ()
	case aGenericArg:
		p.genericArg()
	case aConst:
		p.constant(false)
	case aConstInValue:
		p.constant(true)
	case aDynTrait:
		p.dynTrait()
	case aField:
		p.field()
	}
}

// list prints items up to an 'E', and returns how many there were.
func (p *printer) list(item production, sep string) int {
	n := 0
	for ; p.err == none && !p.in.eat('E'); n++ {
		if n > 0 {
			p.print(sep)
		}
		p.production(item)
	}
	return n
}

// enterBackref goes to the target of a back-reference whose 'B' has been read.
// If it reports true, leaveBackref must follow, with the parser returned.
func (p *printer) enterBackref() (back parser, entered bool) {
	target, f := p.in.backref()
	if !p.check(f) || p.silent {
		return parser{}, false
	}
	back, p.in = p.in, target
	return back, true
}

func (p *printer) leaveBackref(back parser) {
	p.in = back
	if p.err != tooLarge {
		p.err = none // an error there says nothing about what follows here
	}
}

func (p *printer) backref(what production) {
	if back, ok := p.enterBackref(); ok {
		p.production(what)
		p.leaveBackref(back)
	}
}

// path prints a <path>. In a value, generic arguments are written with a
// turbofish.
func (p *printer) path(inValue bool) {
	if !p.check(p.in.push()) {
		return
	}
	tag, f := p.in.byte()
	if !p.check(f) {
		return
	}
	switch tag {
	case 'C': // crate root
		dis, f := p.in.disambiguator()
		if !p.check(f) {
			return
		}
		name, f := p.in.ident()
		if !p.check(f) {
			return
		}
		p.printIdent(name)
		if p.keepHash && dis != 0 {
			p.print("[")
			p.printUint(dis, 16)
			p.print("]")
		}
	case 'N': // nested path
		ns, f := p.in.namespace()
		if !p.check(f) {
			return
		}
		p.path(inValue)
		if p.err != none { // the "?" that follows needs its separator
			p.print("::")
		}
		dis, f := p.in.disambiguator()
		if !p.check(f) {
			return
		}
		name, f := p.in.ident()
		if !p.check(f) {
			return
		}
		if ns == 0 {
			if !name.empty() {
				p.print("::")
				p.printIdent(name)
			}
			break
		}
		p.print("::{")
		switch ns {
		case 'C':
			p.print("closure")
		case 'S':
			p.print("shim")
		default:
			p.printRune(rune(ns))
		}
		if !name.empty() {
			p.print(":")
			p.printIdent(name)
		}
		p.print("#")
		p.printUint(dis, 10)
		p.print("}")
	case 'M', 'X', 'Y': // inherent impl, trait impl, trait definition
		if tag != 'Y' {
			// The path of the impl itself is not shown.
			_, f := p.in.disambiguator()
			if !p.check(f) {
				return
			}
			silent := p.silent
			p.silent = true
			p.path(false)
			p.silent = silent
		}
		p.print("<")
		p.typ()
		if tag != 'M' {
			p.print(" as ")
			p.path(false)
		}
		p.print(">")
	case 'I': // generic arguments
		p.path(inValue)
		if inValue {
			p.print("::")
		}
		p.print("<")
		p.list(aGenericArg, ", ")
		p.print(">")
	case 'B':
		if inValue {
			p.backref(aPathInValue)
		} else {
			p.backref(aPath)
		}
	default:
		p.fail(invalid)
		return
	}
	p.in.depth--
}

func (p *printer) genericArg() {
	switch {
	case p.eat('L'):
		if lt, f := p.in.integer62(); p.check(f) {
			p.lifetime(lt)
		}
	case p.eat('K'):
		p.constant(false)
	default:
		p.typ()
	}
}

// lifetime prints a lifetime by its De Bruijn index; 0 is erased.
func (p *printer) lifetime(index uint64) {
	if p.silent { // binders are not tracked then
		return
	}
	p.print("'")
	switch depth := p.lifetimes - index; {
	case index == 0:
		p.print("_")
	case index > p.lifetimes:
		p.fail(invalid)
	case depth < 26:
		p.printRune('a' + rune(depth))
	default:
		p.print("_")
		p.printUint(depth, 10)
	}
}

// binder prints a `for<'a, 'b> ` if there is one, and reports whether what it
// stands before can be read. The caller restores p.lifetimes.
func (p *printer) binder() bool {
	n, f := p.in.optional62('G')
	if !p.check(f) {
		return false
	}
	if n == 0 || p.silent {
		return true
	}
	p.print("for<")
	for i := uint64(0); i < n && p.err != tooLarge; i++ {
		if i > 0 {
			p.print(", ")
		}
		p.lifetimes++
		p.lifetime(1)
	}
	p.print("> ")
	return true
}

var basicTypes = [256]string{
	'b': "bool", 'c': "char", 'e': "str", 'u': "()",
	'a': "i8", 's': "i16", 'l': "i32", 'x': "i64", 'n': "i128", 'i': "isize",
	'h': "u8", 't': "u16", 'm': "u32", 'y': "u64", 'o': "u128", 'j': "usize",
	'f': "f32", 'd': "f64", 'z': "!", 'p': "_", 'v': "...",
}

func (p *printer) typ() {
	tag, f := p.in.byte()
	if !p.check(f) {
		return
	}
	if name := basicTypes[tag]; name != "" {
		p.print(name)
		return
	}
	if !p.check(p.in.push()) {
		return
	}
	switch tag {
	case 'R', 'Q':
		p.print("&")
		if p.eat('L') {
			lt, f := p.in.integer62()
			if !p.check(f) {
				return
			}
			if lt != 0 {
				p.lifetime(lt)
				p.print(" ")
			}
		}
		if tag == 'Q' {
			p.print("mut ")
		}
		p.typ()
	case 'P':
		p.print("*const ")
		p.typ()
	case 'O':
		p.print("*mut ")
		p.typ()
	case 'A', 'S':
		p.print("[")
		p.typ()
		if tag == 'A' {
			p.print("; ")
			p.constant(true)
		}
		p.print("]")
	case 'T':
		p.tuple(aType)
	case 'F':
		bound := p.lifetimes
		if p.binder() {
			p.fnSig()
		}
		p.lifetimes = bound
	case 'D':
		p.print("dyn ")
		bound := p.lifetimes
		if p.binder() {
			p.list(aDynTrait, " + ")
		}
		p.lifetimes = bound
		if !p.eat('L') {
			p.fail(invalid)
			return
		}
		lt, f := p.in.integer62()
		if !p.check(f) {
			return
		}
		if lt != 0 {
			p.print(" + ")
			p.lifetime(lt)
		}
	case 'B':
		p.backref(aType)
	case 'W':
		p.typ()
		p.print(" is ")
		p.pattern()
	default:
		p.in.next-- // path reads the tag too
		p.path(false)
	}
	p.in.depth--
}

func (p *printer) tuple(item production) {
	p.print("(")
	if p.list(item, ", ") == 1 {
		p.print(",")
	}
	p.print(")")
}

func (p *printer) fnSig() {
	isUnsafe := p.eat('U')
	abi := ""
	if p.eat('K') {
		if p.eat('C') {
			abi = "C"
		} else {
			id, f := p.in.ident()
			if !p.check(f) {
				return
			}
			if id.ascii == "" || id.punycode != "" {
				p.fail(invalid)
				return
			}
			abi = id.ascii
		}
	}
	if isUnsafe {
		p.print("unsafe ")
	}
	if abi != "" {
		p.print(`extern "`)
		for i, part := range strings.Split(abi, "_") { // a '-' is mangled as '_'
			if i > 0 {
				p.print("-")
			}
			p.print(part)
		}
		p.print(`" `)
	}
	p.print("fn(")
	p.list(aType, ", ")
	p.print(")")
	if !p.eat('u') { // `-> ()` is left out
		p.print(" -> ")
		p.typ()
	}
}

// dynTrait prints one bound of a `dyn`, its associated types inside the
// brackets of the trait's own arguments: `Trait<T, Assoc = X>`.
func (p *printer) dynTrait() {
	open := p.pathMaybeOpen()
	for p.eat('p') {
		if open {
			p.print(", ")
		} else {
			p.print("<")
			open = true
		}
		name, f := p.in.ident()
		if !p.check(f) {
			return
		}
		p.printIdent(name)
		p.print(" = ")
		if p.eat('K') {
			p.constant(false)
		} else {
			p.typ()
		}
	}
	if open {
		p.print(">")
	}
}

// pathMaybeOpen prints a path, and reports whether it ends in a generic
// argument list that has not been closed.
func (p *printer) pathMaybeOpen() (open bool) {
	switch {
	case p.eat('B'):
		if back, ok := p.enterBackref(); ok {
			open = p.pathMaybeOpen()
			p.leaveBackref(back)
		}
		return open
	case p.eat('I'):
		p.path(false)
		p.print("<")
		p.list(aGenericArg, ", ")
		return true
	}
	p.path(false)
	return false
}

// pattern prints the pattern of a pattern type (`u32 is 1..=9`).
func (p *printer) pattern() {
	tag, f := p.in.byte()
	if !p.check(f) {
		return
	}
	switch tag {
	case 'R':
		p.constant(false)
		p.print("..=")
		p.constant(false)
	case 'O':
		if !p.check(p.in.push()) {
			return
		}
		p.pattern()
		for !p.eat('E') {
			if p.err != none {
				p.fail(invalid)
				return
			}
			p.print(" | ")
			p.pattern()
		}
		p.in.depth--
	case 'N':
		p.print("!null")
	default:
		p.fail(invalid)
	}
}
