// Package path reads the paths that name Rust functions, and the patterns that
// choose among them.
//
// Paths come from demangled symbols of either scheme, from debug info and from
// people, who all write them differently: `<shop::Cart>::add` and
// `shop::Cart::add`, `Vec<u32,A>` and `Vec<u32, A>`, `parse<u32>` and
// `parse::<u32>`, `{{closure}}` and `{closure#0}`. Here they become one
// structure with one text. Lifetimes are left out of it: no two functions
// differ in them alone.
package path

import "strings"

// Path is a parsed path. The zero value is the empty path. It is immutable.
type Path struct {
	segs   []segment
	suffix string // what LLVM and linkers append: `.cold`, `.llvm.123.warm`
}

// A segment is a name with its generic arguments, or, if self is set, a
// qualified segment: `<Self>`, `<Self as Trait>`.
type segment struct {
	name  string // `add`, `{closure#0}`, `{impl#3}`
	args  []node // nil if none are given
	self  *node
	trait []segment // nil for an inherent impl
	// impl marks the legacy scheme's `<impl Self>` and `<impl Trait for Self>`
	// behind the module that has the impl.
	impl bool
}

// isBraced reports whether a segment names something that the source does not:
// a closure, an impl, a shim.
func (s *segment) isBraced() bool { return s.self == nil && s.name[0] == '{' }

type op uint8

const (
	opPath    op = iota // path
	opPrefix            // text (`&`, `&mut `, `*const `, `*mut `) before kids[0]
	opSlice             // kids[0]
	opArray             // kids[0], and its length
	opTuple             // kids
	opFn                // a function pointer: text before `fn`; kids are the parameters and the result
	opBounds            // text (`dyn`, `impl` or none) before kids, which are traits
	opBinding           // text = kids[0], an associated type
	opLiteral           // text: a const argument, `!` or `...`
	opPattern           // kids[0] is text: a pattern type
)

// A node is a type, or another generic argument.
type node struct {
	op   op
	text string
	path []segment
	kids []node
}

func (n *node) isUnit() bool { return n.op == opTuple && len(n.kids) == 0 }

// String returns the canonical text. An inherent impl is its type
// (`shop::Cart::add`), the arguments of functions have a turbofish
// (`shop::parse::<u32>`), those of types have none, and the sugar of `Fn(A) -> B`
// is taken off as symbols do (`Fn<(A,), Output = B>`). Parse of it gives an
// equal path.
func (p Path) String() string {
	return string(append(appendPath(nil, p.segs, true), p.suffix...))
}

// Suffix returns what follows the path in the symbol of a part of a function
// (`.cold`), or of a copy of it (`.llvm.123`); "" for a function.
func (p Path) Suffix() string { return p.suffix }

// Equal reports whether the paths are the same, lifetimes aside.
func (p Path) Equal(q Path) bool { return p.String() == q.String() }

// appendPath appends a path; value says that it may end in a function.
func appendPath(b []byte, segs []segment, value bool) []byte {
	for i := range segs {
		s := &segs[i]
		if i > 0 {
			b = append(b, "::"...)
		}
		if s.self != nil {
			b = appendQualified(b, s)
			continue
		}
		b = append(b, s.name...)
		if s.args == nil {
			continue
		}
		// `::<impl T>::f` is a segment of its own in legacy symbols.
		if value && endsInFunction(segs[i:]) && !(s.args[0].op == opBounds && s.args[0].text == "impl") {
			b = append(b, "::"...)
		}
		b = append(b, '<')
		b = appendList(b, s.args, ", ")
		b = append(b, '>')
	}
	return b
}

// endsInFunction reports whether the first of segs is the function that the
// rest are closures and shims of.
func endsInFunction(segs []segment) bool {
	for i := range segs[1:] {
		if !segs[1+i].isBraced() {
			return false
		}
	}
	return true
}

func appendQualified(b []byte, s *segment) []byte {
	b = append(b, '<')
	switch {
	case s.impl && s.trait != nil:
		b = append(b, "impl "...)
		b = appendPath(b, s.trait, false)
		b = append(b, " for "...)
		b = appendNode(b, s.self)
	case s.impl:
		b = append(b, "impl "...)
		b = appendNode(b, s.self)
	case s.trait != nil:
		b = appendNode(b, s.self)
		b = append(b, " as "...)
		b = appendPath(b, s.trait, false)
	default:
		b = appendNode(b, s.self)
	}
	return append(b, '>')
}

func appendNode(b []byte, n *node) []byte {
	switch n.op {
	case opPath:
		return appendPath(b, n.path, false)
	case opPrefix:
		return appendOperand(append(b, n.text...), &n.kids[0])
	case opSlice:
		b = appendNode(append(b, '['), &n.kids[0])
		return append(b, ']')
	case opArray:
		b = appendList(append(b, '['), n.kids, "; ")
		return append(b, ']')
	case opTuple:
		b = appendList(append(b, '('), n.kids, ", ")
		if len(n.kids) == 1 {
			b = append(b, ',')
		}
		return append(b, ')')
	case opFn:
		last := len(n.kids) - 1
		b = append(append(b, n.text...), "fn("...)
		b = appendList(b, n.kids[:last], ", ")
		b = append(b, ')')
		if !n.kids[last].isUnit() {
			b = appendOperand(append(b, " -> "...), &n.kids[last])
		}
		return b
	case opBounds:
		b = append(b, n.text...)
		if n.text != "" && len(n.kids) > 0 {
			b = append(b, ' ')
		}
		return appendList(b, n.kids, " + ")
	case opBinding:
		return appendNode(append(append(b, n.text...), " = "...), &n.kids[0])
	case opPattern:
		b = append(appendOperand(b, &n.kids[0]), " is "...)
		return append(b, n.text...)
	}
	return append(b, n.text...)
}

// appendOperand appends a type where a sum without `dyn` needs parentheses.
func appendOperand(b []byte, n *node) []byte {
	if n.op == opBounds && n.text == "" {
		return append(appendNode(append(b, '('), n), ')')
	}
	return appendNode(b, n)
}

func appendList(b []byte, list []node, sep string) []byte {
	for i := range list {
		if i > 0 {
			b = append(b, sep...)
		}
		b = appendNode(b, &list[i])
	}
	return b
}

// stripArgs returns the text of a path without the generic arguments of its
// segments; those inside a qualified segment stay. It is quick, and takes any
// text.
func stripArgs(s string) string {
	var b strings.Builder
	start := 0
	for i := 0; i < len(s); i++ {
		if s[i] != '<' {
			continue
		}
		end := skipAngles(s, i)
		if i > 0 && !(strings.HasPrefix(s[i:], "<impl ") && end < len(s)) {
			b.WriteString(strings.TrimSuffix(s[start:i], "::"))
			start = end
		}
		i = end - 1
	}
	if start == 0 {
		return s
	}
	b.WriteString(s[start:])
	return b.String()
}

// skipAngles returns where the bracket that opens at s[i] is closed, or len(s).
func skipAngles(s string, i int) int {
	depth := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '<':
			depth++
		case '>':
			if i > 0 && (s[i-1] == '-' || s[i-1] == '.') { // an arrow
				continue
			}
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// Stem is a path's text without its generic arguments: that of all instances of a
// function alike. What is no Rust path is its own stem.
func Stem(text string) string {
	p, err := Parse(text)
	if err != nil {
		return text
	}
	bare := make([]segment, len(p.segs))
	for i, s := range p.segs {
		s.args = nil
		bare[i] = s
	}
	return Path{segs: bare}.String()
}
