// Package signature reads the signature of a Rust function as its user states it, for
// a function of which no debug info tells one. A type has a layout here only if the
// language guarantees it, or std's layout is known for the compiler that made the file.
package signature

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/rust/types"
)

// Signature is what a function takes and gives.
type Signature struct {
	C      bool // it follows C's calling convention, not Rust's
	Params []Param
	Result Type // () if none is written
}

// Param is a parameter, in the order of the source.
type Param struct {
	Name string // "" if it has none
	Type Type
}

// Type is a type as it is written.
type Type struct {
	Text string
	// Layout is what its bytes mean, nil if that is not certain; Why says then why
	// not.
	Layout *types.Type
	Why    string
	// Std: the layout is that of std in the compilers that it was tested with, 1.95 to
	// 1.97; no version guarantees it.
	Std bool
	// Self: it is that of a self that is written without one.
	Self bool
}

// Parse reads the signature of a pattern of path.KindSignature. A type without a
// certain layout is no error here: Layout of it is nil. The error is a
// *path.SyntaxError.
func Parse(p path.Pattern) (Signature, error) {
	s := &parser{s: p.Text, i: p.Params}
	sig := Signature{Result: Type{Text: "()", Layout: types.UnitType}}
	switch p.Extern {
	case "", "Rust":
	case "C", "C-unwind", "system", "system-unwind", "sysv64", "sysv64-unwind":
		sig.C = true
	default:
		s.i = max(strings.Index(p.Text, `"`), 0)
		return sig, s.error("no such calling convention is known here: \"C\" is")
	}
	s.i++ // the parenthesis
	for !s.eat(")") {
		param, err := s.param(len(sig.Params) == 0)
		if err != nil {
			return sig, err
		}
		if sig.Params = append(sig.Params, param); len(sig.Params) > maxParams {
			return sig, s.error("more than %d parameters", maxParams)
		}
		if !s.eat(",") && !s.has(")") {
			return sig, s.unexpected("the parameters")
		}
	}
	if s.eat("->") {
		t, err := s.typ(0)
		if err != nil {
			return sig, err
		}
		sig.Result = t.value()
	}
	if s.spaces(); s.i < len(s.s) {
		return sig, s.unexpected("the signature")
	}
	return sig, nil
}

const (
	maxParams  = 255
	maxNesting = 32
	// maxArray bounds arrays, in bytes: no record holds more.
	maxArray = 1 << 20
)

// parser is a recursive descent over s.
type parser struct {
	s string
	i int
}

func (p *parser) error(format string, args ...any) error {
	return &path.SyntaxError{Text: p.s, Offset: min(p.i, len(p.s)), Msg: fmt.Sprintf(format, args...)}
}

func (p *parser) unexpected(what string) error {
	if p.spaces(); p.i >= len(p.s) {
		return p.error("the text ends within %s", what)
	}
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return p.error("unexpected %q in %s", r, what)
}

func (p *parser) spaces() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t' || p.s[p.i] == '\n') {
		p.i++
	}
}

// has says whether text comes next, spaces aside.
func (p *parser) has(text string) bool {
	p.spaces()
	return strings.HasPrefix(p.s[p.i:], text)
}

func (p *parser) eat(text string) bool {
	if !p.has(text) {
		return false
	}
	p.i += len(text)
	return true
}

// word reads a keyword that stands alone.
func (p *parser) word(w string) bool {
	if !p.has(w) || p.i+len(w) < len(p.s) && isName(p.s[p.i+len(w)]) {
		return false
	}
	p.i += len(w)
	return true
}

func isName(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

// name reads an identifier, "" if there is none.
func (p *parser) name() string {
	p.spaces()
	start := p.i
	for p.i < len(p.s) && isName(p.s[p.i]) {
		p.i++
	}
	return p.s[start:p.i]
}

func (p *parser) lifetime() {
	if p.eat("'") {
		p.name()
	}
}

// param reads `name: Type`, `Type`, or, of a method, its self.
func (p *parser) param(first bool) (Param, error) {
	p.spaces()
	at := p.i
	if first && p.self() {
		return Param{Name: "self", Type: Type{Text: strings.TrimSpace(p.s[at:p.i]), Why: "its type is not stated", Self: true}}, nil
	}
	p.i = at
	p.word("mut")
	name := p.name()
	if p.spaces(); name == "" || !p.has(":") || p.has("::") {
		p.i, name = at, ""
	} else {
		p.eat(":")
	}
	if name == "_" {
		name = ""
	}
	t, err := p.typ(0)
	return Param{Name: name, Type: t.value()}, err
}

// self reads a self without a type of its own.
func (p *parser) self() bool {
	if p.eat("&") {
		p.lifetime()
	}
	p.word("mut")
	return p.word("self") && (p.has(",") || p.has(")"))
}

// typ reads a type. Of one that it has no layout of it reads the text.
func (p *parser) typ(nesting int) (Type, error) {
	if nesting > maxNesting {
		return Type{}, p.error("nested too deep")
	}
	p.spaces()
	start := p.i
	switch {
	case p.eat("&"):
		p.lifetime()
		if p.word("mut") {
			return p.pointer(types.RefMut, "&mut ", nesting)
		}
		return p.pointer(types.Ref, "&", nesting)
	case p.has("*"):
		p.eat("*")
		if p.word("const") {
			return p.pointer(types.ConstPtr, "*const ", nesting)
		}
		if p.word("mut") {
			return p.pointer(types.MutPtr, "*mut ", nesting)
		}
		return Type{}, p.unexpected("a pointer: it is *const or *mut")
	case p.has("["):
		return p.array(nesting)
	case p.has("("):
		if p.eat("("); p.eat(")") {
			return Type{Text: "()", Layout: types.UnitType}, nil
		}
		p.i = start
		return p.skip(start, "the layout of a tuple is the compiler's own affair")
	case p.eat("!"):
		return Type{Text: "!", Layout: never}, nil
	case p.word("dyn"), p.word("impl"):
		return p.skip(start, "which type it is only debug info tells")
	case p.word("fn"), p.word("unsafe"), p.word("extern"), p.has("for<"):
		return p.skip(start, "the types of functions are not read here")
	}
	return p.named(nesting)
}

// skip reads on to the end of a type that began at start and of which no more than the
// text is wanted.
func (p *parser) skip(start int, why string) (Type, error) {
	depth := 0
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '(', '[', '<', '{':
			depth++
		case '>':
			if p.s[p.i-1] == '-' {
				continue
			}
			fallthrough
		case ')', ']', '}':
			if depth == 0 {
				return p.skipped(start, why)
			}
			depth--
		case ',', ';', '=':
			if depth == 0 {
				return p.skipped(start, why)
			}
		}
	}
	return p.skipped(start, why)
}

func (p *parser) skipped(start int, why string) (Type, error) {
	text := strings.TrimSpace(p.s[start:p.i])
	if text == "" {
		return Type{}, p.unexpected("a type")
	}
	return Type{Text: text, Why: why}, nil
}

// pointer reads what a pointer leads to.
func (p *parser) pointer(kind types.PointerKind, prefix string, nesting int) (Type, error) {
	target, err := p.typ(nesting + 1)
	if err != nil {
		return Type{}, err
	}
	return pointerTo(kind, prefix, target, ""), nil
}

func (p *parser) array(nesting int) (Type, error) {
	p.eat("[")
	elem, err := p.typ(nesting + 1)
	if err != nil {
		return Type{}, err
	}
	if p.eat("]") {
		return sliceOf(elem), nil
	}
	if !p.eat(";") {
		return Type{}, p.unexpected("an array")
	}
	p.spaces()
	at := p.i
	n, ok := number(p.name())
	if !ok || !p.eat("]") {
		p.i = at
		return Type{}, p.error("the length of an array is a number here")
	}
	t, ok := arrayOf(elem, n)
	if !ok {
		p.i = at
		return Type{}, p.error("an array of more than %d bytes", maxArray)
	}
	return t, nil
}

// number reads a number as Rust writes it, in tens.
func number(s string) (int64, bool) {
	s = strings.TrimSuffix(strings.ReplaceAll(s, "_", ""), "usize")
	if s == "" || len(s) > 9 {
		return 0, false
	}
	n := int64(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// named reads a type that is a path.
func (p *parser) named(nesting int) (Type, error) {
	p.spaces()
	start := p.i
	last := ""
	p.eat("::")
	for {
		if last = p.name(); last == "" {
			p.i = max(p.i, start)
			return Type{}, p.unexpected("a type")
		}
		if !p.eat("::") {
			break
		}
		if p.has("<") {
			break
		}
	}
	if p.spaces(); p.i < len(p.s) && isName(p.s[p.i]) {
		return Type{}, p.unexpected("a type")
	}
	name := strings.TrimPrefix(strings.TrimRight(strings.ReplaceAll(p.s[start:p.i], " ", ""), ":"), "::")
	if !isStd(name, last) {
		return p.skip(start, noLayout)
	}
	if t, ok := behindPointers[last]; ok {
		return Type{Text: last, Layout: t, Why: unsizedAlone}, nil
	}
	if t, ok := primitives[last]; ok {
		return Type{Text: last, Layout: t}, nil
	}
	if wrapped, ok := strings.CutPrefix(last, "NonZero"); ok && wrapped != "" {
		return nonZero(Type{Text: last, Layout: primitives[strings.ToLower(wrapped)]}, last), nil
	}
	if last == "String" {
		return Type{Text: last, Layout: stringType, Std: true}, nil
	}
	if !generic[last] || !p.eat("<") {
		return p.skip(start, noLayout)
	}
	arg, err := p.typ(nesting + 1)
	if err != nil {
		return Type{}, err
	}
	if !p.eat(">") {
		if p.has(",") {
			return p.skipArgs(start)
		}
		return Type{}, p.unexpected("generic arguments")
	}
	switch last {
	case "Box":
		return pointerTo(types.Box, "alloc::boxed::Box<", arg, ">"), nil
	case "NonZero":
		return nonZero(arg, last+"<"+arg.Text+">"), nil
	case "Option":
		return optionOf(arg), nil
	}
	return vecOf(arg), nil
}

// skipArgs reads the further arguments of a generic type, which no type with a known
// layout has.
func (p *parser) skipArgs(start int) (Type, error) {
	for p.eat(",") {
		if _, err := p.skip(p.i, ""); err != nil {
			return Type{}, err
		}
	}
	if !p.eat(">") {
		return Type{}, p.unexpected("generic arguments")
	}
	return Type{Text: p.s[start:p.i], Why: "its allocator is not the usual one"}, nil
}
