package debugfmt

import (
	"fmt"
	"math"
	"strings"

	"ferrotrace/internal/rust/types"
)

// printer walks a value. Everything that is between braces goes through open,
// item, field, rest and end, which know the two layouts.
type printer struct {
	mem   Memory
	opt   Options
	out   []byte
	depth int // pointers followed on the way here
	lists int // those that are open and have items: the indentation under Pretty

	truncated, partial bool
	known              bool   // some byte of the value has been told
	why                string // of the first part that is missing
}

// list is an open struct, tuple or collection.
type list struct {
	close string
	n     int
	brace bool // fields are set off by blanks
	bare  bool // under Pretty, no comma follows the last item
}

func (p *printer) str(s string) { p.out = append(p.out, s...) }

// open starts a list: "Name {", "Name(", "(", "[".
func (p *printer) open(name, open, close string) *list {
	p.str(name)
	p.str(open)
	return &list{close: close, brace: close == " }"}
}

// item starts the next item of l.
func (p *printer) item(l *list) {
	switch {
	case p.opt.Pretty:
		if l.n > 0 {
			p.str(",")
		} else {
			p.lists++
		}
		p.newline()
	case l.n > 0:
		p.str(", ")
	case l.brace:
		p.str(" ")
	}
	l.n++
}

func (p *printer) newline() {
	p.str("\n")
	for range p.lists {
		p.str("    ")
	}
}

// rest ends a list of which not all is shown, as finish_non_exhaustive does.
func (p *printer) rest(l *list) {
	p.item(l)
	p.str("..")
	l.bare = true
}

func (p *printer) field(l *list, name string) {
	p.item(l)
	p.str(printable(name))
	p.str(": ")
}

func (p *printer) end(l *list) {
	if !p.opt.Pretty || l.n == 0 {
		p.str(l.close)
		return
	}
	if !l.bare {
		p.str(",")
	}
	p.lists--
	p.newline()
	p.str(strings.TrimPrefix(l.close, " "))
}

// ellipsis stands for what a limit left out.
func (p *printer) ellipsis() {
	p.str("…")
	p.truncated = true
}

// missing stands for what is not known; "" is a limit's doing. In the midst of a value
// only that it is not there can be said: the reason is given where nothing of it is.
func (p *printer) missing(why string) {
	if why == "" {
		p.ellipsis()
		return
	}
	p.str("<unreadable>")
	p.partial = true
	if p.why == "" {
		p.why = why
	}
}

// invalid stands for bytes that no value of the type has.
func (p *printer) invalid(b []byte) {
	p.str("<invalid 0x")
	for i := len(b) - 1; i >= 0; i-- {
		p.out = fmt.Appendf(p.out, "%02x", b[i])
	}
	p.str(">")
	p.partial, p.known = true, true
}

// value writes the value of type t that v begins with. nesting counts the values
// that it lies in.
func (p *printer) value(t *types.Type, v view, nesting int) {
	if nesting > maxNesting || len(p.out) > maxText {
		p.ellipsis()
		return
	}
	if t == nil {
		p.missing("unsupported: unknown type")
		return
	}
	s, why := v.state(t.Size)
	if s == none {
		p.missing(why)
		return
	}
	if t.Std != nil {
		p.std(t, v, nesting)
		return
	}
	if p.special(t, v, nesting) {
		return
	}
	switch t.Kind {
	case types.Unit:
		p.str("()")
	case types.Bool, types.Char, types.Int, types.Uint, types.Float:
		if s != whole {
			p.missing(why)
			return
		}
		p.scalar(t, v.bytes[:t.Size])
	case types.Struct:
		p.structure(t, v, nesting)
	case types.Tuple:
		l := p.open("", "(", ")")
		p.tuple(l, t.Fields, v, nesting)
		if l.n == 1 && !p.opt.Pretty {
			p.str(",")
		}
		p.end(l)
	case types.Enum:
		if i := p.variant(t, v); i >= 0 {
			p.fields(t.Enum.Variants[i].Name, t.Enum.Variants[i].Fields, v, nesting)
		}
	case types.Coroutine:
		p.coroutine(t, v, nesting)
	case types.Array:
		p.array(t, v, nesting)
	case types.Pointer:
		p.pointer(t, v, nesting)
	case types.Union:
		p.missing("unsupported: union")
	case types.Never:
		p.missing("unsupported: uninhabited type")
	case types.Fn:
		p.missing("unsupported: function item")
	default:
		p.missing("unsupported: " + t.Kind.String() + " type")
	}
}

func (p *printer) scalar(t *types.Type, b []byte) {
	switch {
	case t.Kind == types.Bool && len(b) == 1 && b[0] < 2:
		p.str([]string{"false", "true"}[b[0]])
	case t.Kind == types.Char && len(b) == 4 && validChar(uintOf(b)):
		p.str("'")
		p.out = appendChar(p.out, rune(uintOf(b)), '\'')
		p.str("'")
	case (t.Kind == types.Int || t.Kind == types.Uint) && intSize(len(b)):
		p.out = appendInt(p.out, b, t.Kind == types.Int)
	case t.Kind == types.Float && len(b) == 4:
		p.out = appendFloat(p.out, float64(math.Float32frombits(uint32(uintOf(b)))), 32)
	case t.Kind == types.Float && len(b) == 8:
		p.out = appendFloat(p.out, math.Float64frombits(uintOf(b)), 64)
	case t.Kind == types.Bool && len(b) == 1, t.Kind == types.Char && len(b) == 4:
		p.invalid(b)
	default:
		p.missing("unsupported: " + printable(t.Name))
		return
	}
	p.known = true
}

func validChar(v uint64) bool { return v <= 0x10ffff && (v < 0xd800 || v > 0xdfff) }

func intSize(n int) bool { return n == 1 || n == 2 || n == 4 || n == 8 || n == 16 }

func (p *printer) structure(t *types.Type, v view, nesting int) {
	last := Ident(t.Name)
	if !strings.HasPrefix(last, "{closure_env#") {
		p.fields(last, t.Fields, v, nesting)
		return
	}
	p.str("{closure ")
	if t.File != "" {
		p.out = fmt.Appendf(p.out, "%s:%d", printable(t.File), t.Line)
	} else {
		p.str(printable(strings.TrimSuffix(t.Name[:strings.LastIndex(t.Name, last)], "::")))
	}
	p.str("}")
	if len(t.Fields) == 0 {
		return
	}
	l := p.open("", " {", " }")
	for i := range t.Fields {
		p.capture(l, &t.Fields[i], v, nesting)
	}
	p.end(l)
}

// capture writes a captured variable by its own name: _ref__x is a pointer to the
// variable x.
func (p *printer) capture(l *list, f *types.Field, v view, nesting int) {
	p.field(l, strings.TrimPrefix(f.Name, "_ref__"))
	p.value(f.Type, v.at(f.Offset), nesting+1)
}

// coroutines are the kinds of coroutines, by what the names of their types begin with.
var coroutines = [...]struct{ prefix, what string }{
	{"{async_fn_env#", "async fn"},
	{"{async_block_env#", "async block"},
	{"{async_closure_env#", "async closure"},
	{"{gen_fn_env#", "gen fn"},
	{"{gen_block_env#", "gen block"},
	{"{async_gen_fn_env#", "async gen fn"},
	{"{async_gen_block_env#", "async gen block"},
}

// coroutine writes what a coroutine is the state of, that state, and the variables that
// it keeps in it. What it awaits comes last.
func (p *printer) coroutine(t *types.Type, v view, nesting int) {
	what, last := "coroutine", Ident(t.Name)
	for _, c := range coroutines {
		if strings.HasPrefix(last, c.prefix) {
			what = c.what
		}
	}
	of := t.Func
	if of == "" {
		of = strings.TrimSuffix(t.Name[:strings.LastIndex(t.Name, last)], "::")
	}
	if t.Enum != nil && len(t.Enum.Variants) > 0 && !strings.HasSuffix(what, " fn") {
		// A function may have several.
		if first := &t.Enum.Variants[0]; first.File != "" {
			of = fmt.Sprintf("%s:%d", first.File, first.Line)
		}
	}
	p.str("{" + what + " " + printable(of) + "}")
	l := p.open("", " {", " }")
	p.item(l)
	if i := p.variant(t, v); i >= 0 {
		p.state(l, &t.Enum.Variants[i], v, nesting)
	}
	p.end(l)
}

func (p *printer) state(l *list, s *types.Variant, v view, nesting int) {
	n, suspended := strings.CutPrefix(s.Name, "Suspend")
	switch {
	case suspended && s.File != "":
		p.out = fmt.Appendf(p.out, "suspended at %s:%d", printable(s.File), s.Line)
	case suspended:
		p.str("suspended at await " + printable(n))
	default:
		p.str(strings.ToLower(printable(s.Name)))
	}
	for _, f := range s.Fields {
		if f.Name != types.Awaitee {
			p.capture(l, &f, v, nesting)
		}
	}
	for _, f := range s.Fields {
		if f.Name == types.Awaitee {
			p.field(l, "awaiting")
			p.value(f.Type, v.at(f.Offset), nesting+1)
		}
	}
}

// fields writes what #[derive(Debug)] writes for a struct or variant.
func (p *printer) fields(name string, fields []types.Field, v view, nesting int) {
	name = printable(name)
	switch {
	case len(fields) == 0:
		p.str(name)
	case types.IsTupleLike(fields):
		l := p.open(name, "(", ")")
		p.tuple(l, fields, v, nesting)
		p.end(l)
	default:
		l := p.open(name, " {", " }")
		for _, f := range fields {
			p.field(l, f.Name)
			p.value(f.Type, v.at(f.Offset), nesting+1)
		}
		p.end(l)
	}
}

func (p *printer) tuple(l *list, fields []types.Field, v view, nesting int) {
	for _, f := range fields {
		p.item(l)
		p.value(f.Type, v.at(f.Offset), nesting+1)
	}
}

// variant finds the index of the variant that is alive. If it can't, it says so in
// the text and returns -1.
func (p *printer) variant(t *types.Type, v view) int {
	if t.Enum == nil {
		p.missing("unsupported: enum")
		return -1
	}
	tag := t.Enum.Tag
	if tag == nil {
		i := t.Enum.Only()
		if i < 0 {
			p.missing("unsupported: uninhabited type")
		}
		return i
	}
	at := v.at(tag.Offset)
	if s, why := at.state(int64(tag.Size)); s != whole {
		p.missing(why)
		return -1
	}
	b := at.bytes[:tag.Size]
	i := t.Enum.Find(types.U128{Hi: uintOf(b[min(8, len(b)):]), Lo: uintOf(b)})
	if i < 0 {
		p.invalid(b)
		return -1
	}
	p.known = true
	return i
}

func (p *printer) array(t *types.Type, v view, nesting int) {
	if t.Elem == nil || t.Count < 0 {
		p.missing("unsupported: array")
		return
	}
	l := p.open("", "[", "]")
	p.items(l, t.Elem, v, t.Count, nesting)
	p.end(l)
}

// items writes n elements, as many of them as there is room for in l. It is false if
// some are left.
func (p *printer) items(l *list, elem *types.Type, v view, n int64, nesting int) bool {
	for i := range n {
		if p.full(l) {
			return false
		}
		p.item(l)
		at := v.at(i * elem.Size)
		if elem.Size > 0 && len(at.bytes) == 0 {
			p.missing(at.after)
			return false
		}
		p.value(elem, at, nesting+1)
	}
	return true
}

// Ident is the last segment of a type's path, without its generic arguments: the
// name that #[derive(Debug)] prints.
func Ident(name string) string {
	start, depth := 0, 0
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '<':
			if depth == 0 {
				if end := i; !strings.Contains(skipAngles(name[i:]), "::") {
					return name[start:end]
				}
			}
			depth++
		case '>':
			if i > 0 && name[i-1] != '-' {
				depth--
			}
		case ':':
			if depth == 0 && i+1 < len(name) && name[i+1] == ':' {
				start = i + 2
			}
		}
	}
	return name[start:]
}

// skipAngles is what follows the angle brackets that s begins with.
func skipAngles(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '<':
			depth++
		case '>':
			if i > 0 && s[i-1] == '-' {
				continue
			}
			if depth--; depth == 0 {
				return s[i+1:]
			}
		}
	}
	return ""
}
