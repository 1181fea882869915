package path

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep types may nest. Symbols nest up to 500 deep.
const maxDepth = 1000

// SyntaxError says what is wrong with a path or a pattern, and where.
type SyntaxError struct {
	Text   string // what was parsed
	Offset int    // in bytes from the beginning of Text
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%q, character %d: %s", e.Text, utf8.RuneCountInString(e.Text[:e.Offset])+1, e.Msg)
}

// Parse reads a path as demanglers, debug info and people write it. The error
// is a *SyntaxError.
func Parse(s string) (Path, error) {
	p := parser{s: s}
	path, err := p.whole()
	if err == nil && p.i < len(s) {
		err = p.unexpected("the path")
	}
	if err != nil {
		return Path{}, err
	}
	return path, nil
}

// parser is a recursive descent over s. Lifetimes and binders are skipped.
type parser struct {
	s       string
	i       int
	depth   int
	pattern bool // names may hold `*`
}

func (p *parser) error(format string, args ...any) error {
	return &SyntaxError{Text: p.s, Offset: min(p.i, len(p.s)), Msg: fmt.Sprintf(format, args...)}
}

// enter goes one level deeper.
func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.error("nested too deep")
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// unexpected is the error for what stands where something should end or begin.
func (p *parser) unexpected(what string) error {
	if p.i >= len(p.s) {
		return p.error("the text ends within %s", what)
	}
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return p.error("unexpected %q in %s", r, what)
}

func (p *parser) spaces() {
	for p.i < len(p.s) && p.s[p.i] == ' ' {
		p.i++
	}
}

func (p *parser) peek() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) has(prefix string) bool { return strings.HasPrefix(p.s[p.i:], prefix) }

func (p *parser) eat(prefix string) bool {
	if p.has(prefix) {
		p.i += len(prefix)
		return true
	}
	return false
}

// word reads a keyword that stands alone, and the spaces after it.
func (p *parser) word(w string) bool {
	if !p.has(w) {
		return false
	}
	if end := p.i + len(w); end < len(p.s) && (isNameByte(p.s[end]) || strings.IndexByte(":{*", p.s[end]) >= 0) {
		return false
	}
	p.i += len(w)
	p.spaces()
	return true
}

func (p *parser) arrow() bool {
	at := p.i
	p.spaces()
	// The legacy scheme writes '-' as '.'.
	if p.eat("->") || p.eat(".>") {
		return true
	}
	p.i = at
	return false
}

func isNameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= 0x80:
		return true
	}
	return strings.IndexByte("_.-#$@?%~^`", c) >= 0
}

// whole reads all of s up to something that no path at the top can hold.
func (p *parser) whole() (Path, error) {
	p.spaces()
	if p.i == len(p.s) {
		return Path{}, p.error("nothing there")
	}
	p.eat("::") // a path from the root, as source may have it
	segs, err := p.path(true)
	if err != nil {
		return Path{}, err
	}
	path := Path{segs: segs}
	if p.peek() == '.' { // behind generic arguments
		if path.suffix, err = p.name(); err != nil {
			return Path{}, err
		}
	}
	if last := &segs[len(segs)-1]; last.self == nil && last.args == nil {
		from := max(1, strings.LastIndexByte(last.name, '}'))
		if i := strings.IndexByte(last.name[from:], '.'); i >= 0 {
			path.suffix = last.name[from+i:] + path.suffix
			last.name = last.name[:from+i]
		}
	}
	p.spaces()
	return path, nil
}

// path reads a path: of a function and its closures if value is set, of a type
// or a trait if not.
func (p *parser) path(value bool) ([]segment, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	var segs []segment
	if p.peek() == '<' {
		seg, err := p.qualified()
		if err != nil {
			return nil, err
		}
		if seg.impl = false; seg.trait == nil && seg.self.op == opPath {
			segs = append(segs, seg.self.path...)
		} else {
			segs = append(segs, seg)
		}
		if !p.eat("::") {
			return segs, nil
		}
	}
	for {
		if p.peek() == '<' && len(segs) > 0 { // `::<`
			seg, ok := p.implSegment()
			if ok {
				segs = append(segs, seg)
			} else {
				last := &segs[len(segs)-1]
				if last.self != nil {
					return nil, p.error("generic arguments belong behind a name")
				}
				if last.args != nil {
					return nil, p.error("second list of generic arguments")
				}
				args, err := p.args()
				if err != nil {
					return nil, err
				}
				last.args = args
			}
		} else {
			seg, err := p.named(value)
			if err != nil {
				return nil, err
			}
			segs = append(segs, seg)
		}
		// A legacy shim (`call_once{{vtable.shim}}`) has no separator.
		if !p.eat("::") && p.peek() != '{' {
			return segs, nil
		}
	}
}

// named reads a name with the arguments that follow it.
func (p *parser) named(value bool) (segment, error) {
	name, err := p.name()
	if err != nil {
		return segment{}, err
	}
	seg := segment{name: name}
	switch {
	case p.peek() == '<':
		seg.args, err = p.args()
	case p.peek() == '(' && !value && name[0] != '{':
		seg.args, err = p.sugar()
	}
	return seg, err
}

func (p *parser) name() (string, error) {
	start := p.i
	if p.peek() == '{' {
		if err := p.braces(); err != nil {
			return "", err
		}
	}
	for p.i < len(p.s) {
		c := p.s[p.i]
		if !isNameByte(c) && !(c == '*' && p.pattern) {
			break
		}
		if (c == '-' || c == '.') && p.i+1 < len(p.s) && p.s[p.i+1] == '>' {
			break
		}
		p.i++
	}
	if p.i == start {
		if p.i == len(p.s) {
			return "", p.error("a name is missing at the end")
		}
		r, _ := utf8.DecodeRuneInString(p.s[p.i:])
		return "", p.error("a name is missing before %q", r)
	}
	if last := p.s[p.i-1]; last == '-' || last == '.' { // with a '>' behind it, it would be an arrow
		return "", p.error("a name ends in %q", last)
	}
	p.disambiguator()
	name := p.s[start:p.i]
	for len(name) > 2 && name[:2] == "r#" && isNameByte(name[2]) { // symbols leave it out
		name = name[2:]
	}
	return name, nil
}

// disambiguator reads the `[1a2b]` of a crate, shown with hashes, which is
// taken as part of its name.
func (p *parser) disambiguator() {
	if p.peek() != '[' {
		return
	}
	end := strings.IndexByte(p.s[p.i:], ']')
	if end < 2 || strings.Trim(p.s[p.i+1:p.i+end], "0123456789abcdef") != "" {
		return
	}
	p.i += end + 1
}

// braces skips a text in braces, which may hold others and literals.
func (p *parser) braces() error {
	start, depth := p.i, 0
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				p.i++
				return nil
			}
		case '"', '\'':
			if p.literal() {
				continue
			}
		}
		p.i++
	}
	p.i = start
	return p.error("'{' without '}'")
}

// literal skips a string or character literal, and reports whether one is
// there: a quote may also begin a lifetime.
func (p *parser) literal() bool {
	quote := p.peek()
	if quote == '\'' && !p.has(`'\`) {
		r, n := utf8.DecodeRuneInString(p.s[p.i+1:])
		if end := p.i + 1 + n; r != '\'' && end < len(p.s) && p.s[end] == '\'' {
			p.i = end + 1
			return true
		}
		return false
	}
	for i := p.i + 1; i < len(p.s); i++ {
		switch p.s[i] {
		case '\\':
			i++
		case quote:
			p.i = i + 1
			return true
		}
	}
	return false
}

// lifetime skips a lifetime and the spaces after it.
func (p *parser) lifetime() bool {
	if p.peek() != '\'' {
		return false
	}
	p.i++
	for p.i < len(p.s) && isNameByte(p.s[p.i]) {
		p.i++
	}
	p.spaces()
	return true
}

// binder skips a `for<'a>` and the spaces after it.
func (p *parser) binder() error {
	if !p.eat("for<") {
		return nil
	}
	end := strings.IndexByte(p.s[p.i:], '>')
	if end < 0 {
		return p.error("'<' without '>'")
	}
	p.i += end + 1
	p.spaces()
	return nil
}

// qualified reads `<Self>`, `<Self as Trait>`, `<impl Self>` or
// `<impl Trait for Self>`; of the latter two, it sets impl.
func (p *parser) qualified() (seg segment, err error) {
	p.i++
	p.spaces()
	seg.impl = p.word("impl")
	first, err := p.sum()
	if err != nil {
		return seg, err
	}
	seg.self = &first
	p.spaces()
	switch {
	case seg.impl && p.word("for"):
		if first.op != opPath {
			return seg, p.error("a trait is missing before \"for\"")
		}
		seg.trait = first.path
		self, err := p.sum()
		if err != nil {
			return seg, err
		}
		seg.self = &self
	case p.word("as"):
		if seg.impl { // a type `impl Trait`
			seg.impl = false
			if first.op != opBounds || first.text != "" {
				first = node{op: opBounds, kids: []node{first}}
			}
			first.text = "impl"
		}
		if err := p.binder(); err != nil {
			return seg, err
		}
		if seg.trait, err = p.path(false); err != nil {
			return seg, err
		}
	}
	p.spaces()
	if !p.eat(">") {
		return seg, p.unexpected("<Self as Trait>")
	}
	return seg, nil
}

// implSegment reads the `<impl …>` that may stand behind a module. What only
// looks like one, a generic argument of type `impl Trait`, is left unread.
func (p *parser) implSegment() (segment, bool) {
	if !p.has("<impl ") {
		return segment{}, false
	}
	at := p.i
	seg, err := p.qualified()
	followed := p.has("::") && !p.has("::{") && !p.has("::<")
	if err != nil || !seg.impl || seg.trait == nil && !followed {
		p.i = at
		return segment{}, false
	}
	return seg, true
}

// args reads generic arguments in angle brackets: nil if there are none.
func (p *parser) args() ([]node, error) {
	p.i++
	var list []node
	for {
		p.spaces()
		if p.eat(">") {
			return list, nil
		}
		at := p.i
		if p.peek() != '\'' || p.literal() {
			p.i = at
			arg, err := p.sum()
			if err != nil {
				return nil, err
			}
			p.spaces()
			if p.peek() == '=' {
				if arg.op != opPath {
					return nil, p.error("a name is missing before '='")
				}
				p.i++
				value, err := p.sum()
				if err != nil {
					return nil, err
				}
				arg = node{op: opBinding, text: string(appendNode(nil, &arg)), kids: []node{value}}
			}
			list = append(list, arg)
		} else {
			p.lifetime()
		}
		p.spaces()
		if !p.eat(",") && p.peek() != '>' {
			return nil, p.unexpected("generic arguments")
		}
	}
}

// sugar reads the `(A, B) -> C` of a `Fn` trait as `<(A, B), Output = C>`.
func (p *parser) sugar() ([]node, error) {
	params, _, err := p.list("parameters")
	if err != nil {
		return nil, err
	}
	args := []node{{op: opTuple, kids: params}}
	if p.arrow() {
		result, err := p.typ()
		if err != nil {
			return nil, err
		}
		args = append(args, node{op: opBinding, text: "Output", kids: []node{result}})
	}
	return args, nil
}

// list reads types in parentheses, and whether a comma ends them.
func (p *parser) list(what string) (list []node, comma bool, err error) {
	p.i++
	for {
		p.spaces()
		if p.eat(")") {
			return list, comma, nil
		}
		n, err := p.sum()
		if err != nil {
			return nil, false, err
		}
		list = append(list, n)
		p.spaces()
		if comma = p.eat(","); !comma && p.peek() != ')' {
			return nil, false, p.unexpected(what)
		}
	}
}
