package check

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/spell"
)

// place is a value of the traced process that has not been read yet: fields and pointers
// are followed as types, and only what is wanted in the end is read.
type place struct {
	t    *types.Type
	root int // where addr is nil
	off  int64
	addr ir.Expr
	// strict: what can't be read ends the handler. In C it is zero, as bpftrace has it.
	strict bool
	// conds must hold, or there is no such value: another variant, too short a slice.
	conds []ir.Expr
	named string // as the script wrote it, for messages
}

// within is the part of a place that begins at an offset.
func (p *place) within(off int64, t *types.Type, named string) *place {
	q := *p
	q.off, q.t, q.named = p.off+off, t, named
	q.conds = slices.Clip(p.conds)
	return &q
}

// at is what an address, which is made of the place, leads to.
func (p *place) at(addr ir.Expr, t *types.Type, named string) *place {
	return &place{t: t, addr: addr, strict: p.strict, conds: slices.Clip(p.conds), named: named}
}

// word reads a scalar of the place at an offset in it.
func (p *place) word(off int64, t *ir.Type) ir.Expr {
	if p.addr == nil {
		return &ir.Root{T: t, Root: p.root, Off: p.off + off}
	}
	return &ir.Load{T: t, Addr: plus(p.addr, p.off+off), Strict: p.strict}
}

func plus(x ir.Expr, n int64) ir.Expr {
	if n == 0 {
		return x
	}
	return &ir.Binary{T: ir.U64, Op: ir.Add, X: x, Y: &ir.Const{T: ir.U64, V: uint64(n)}}
}

// when is x if the place's conditions hold.
func (p *place) when(x ir.Expr) ir.Expr {
	for i := len(p.conds) - 1; i >= 0; i-- {
		x = &ir.Require{C: p.conds[i], X: x}
	}
	return x
}

// scalarOf is the type in the language of what is one there, or nil.
func scalarOf(t *types.Type) *typ {
	switch t.Kind {
	case types.Bool:
		return &typ{Type: ir.BoolType}
	case types.Char:
		return &typ{Type: ir.U32}
	case types.Int, types.Uint:
		if t.Size >= 1 && t.Size <= 8 {
			return &typ{Type: integer(int(t.Size), t.Kind == types.Int)}
		}
	case types.Enum:
		if e := t.Enum; e != nil && e.CLike && e.Tag != nil && e.Tag.Size <= 8 {
			names := &ir.EnumNames{Enum: t.Name, Names: map[uint64]string{}}
			for _, v := range e.Variants {
				if len(v.Values) == 1 {
					// Maps hold numbers of eight bytes, with their sign.
					n := v.Values[0].Lo.Lo
					names.Names[n] = v.Name
					names.Names[cut(n, integer(e.Tag.Size, e.Tag.Signed))] = v.Name
				}
			}
			return &typ{Type: enumType(t, e.Tag, names)}
		}
	case types.Pointer:
		if t.Pointer != nil && t.Pointer.Meta == types.Thin && t.Size == 8 {
			return &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, to: t.Pointer.Target}
		}
	}
	return nil
}

// enumTypes keeps one type for each enum, so that they compare as one.
var enumTypes = newCache[*types.Type, *ir.Type]()

func enumType(t *types.Type, tag *types.Discr, names *ir.EnumNames) *ir.Type {
	return enumTypes.get(t, func() *ir.Type {
		return &ir.Type{Kind: ir.Int, Size: tag.Size, Signed: tag.Signed, Enum: names}
	})
}

var memoryTypes = newCache[*types.Type, *ir.Type]()

// memoryType is the type in the language of a C value as it lies in memory: structs are
// records, arrays of char strings. It is nil for what has none, or is too large.
func memoryType(t *types.Type) *ir.Type {
	if t.Size <= 0 || t.Size > maxText {
		return nil
	}
	if s := scalarOf(t); s != nil {
		return s.Type
	}
	return memoryTypes.get(t, func() *ir.Type {
		switch t.Kind {
		case types.Array:
			if t.Elem == nil {
				return nil
			}
			if t.Elem.Name == "char" {
				return &ir.Type{Kind: ir.Text, Size: int(t.Size)}
			}
			if e := memoryType(t.Elem); e != nil {
				return &ir.Type{Kind: ir.Array, Elem: e, Count: int(t.Count), Size: int(t.Size)}
			}
		case types.Struct, types.Union:
			out := &ir.Type{Kind: ir.Tuple, Size: int(t.Size)}
			for _, f := range t.Fields {
				ft := memoryType(f.Type)
				if ft == nil {
					return nil
				}
				out.Fields = append(out.Fields, ir.TypeField{Name: f.Name, Off: int(f.Offset), Type: ft})
			}
			if len(out.Fields) > 0 {
				return out
			}
		}
		return nil
	})
}

// text says where in a type the address and the length of its text are.
func text(t *types.Type) (ptr, length int64, ok bool) {
	if t.Std != nil && t.Std.Kind == types.String {
		return t.Std.Ptr, t.Std.Len, true
	}
	if p := t.Pointer; t.Kind == types.Pointer && p != nil && p.Meta == types.Length && p.Target != nil && p.Target.Kind == types.Str {
		return p.PtrOff, p.MetaOff, true
	}
	return 0, 0, false
}

// value makes a value of the language of an operand; nil, with an error, if it is none.
func (c *checker) value(o *operand, n ast.Node) *operand {
	if o == nil || o.place == nil {
		if o != nil && o.table != nil {
			c.errorf(n, "name a key, or print it", "@%s is a whole map here", o.table.name)
			return nil
		}
		return o
	}
	p := c.referred(o.place, n)
	if v := c.read(p, n); v != nil {
		return v
	}
	hint := "print it whole with %? or print()"
	if fs := fieldNames(p.t); len(fs) > 0 {
		hint = "it has " + list(fs) + "; %? and print() show it whole"
	}
	c.errorf(n, hint, "%s is of type %s, which can't be computed with", p.named, p.t.Display())
	return nil
}

// kept is a value that a variable or a map can hold: what is none of the language is held
// as where it is, and read when it is looked at.
func (c *checker) kept(o *operand, n ast.Node) *operand {
	if o == nil || o.place == nil {
		return c.value(o, n)
	}
	p := c.referred(o.place, n)
	if v := c.read(p, n); v != nil {
		return v
	}
	addr := c.address(p)
	if addr == nil {
		c.errorf(n, "keep its parts", "%s is of type %s, and is not known to be in memory", p.named, p.t.Display())
		return nil
	}
	return &operand{t: &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, to: p.t, held: true}, x: p.when(addr), node: n}
}

// held is what a variable or a map holds, as an operand.
func held(t *typ, x ir.Expr, named string, n ast.Node) *operand {
	if t.held {
		return &operand{place: &place{t: t.to, addr: x, strict: true, named: named}, node: n}
	}
	return &operand{t: t, x: x, node: n}
}

// referred looks through references: the value is what they refer to.
func (c *checker) referred(p *place, n ast.Node) *place {
	for p.strict && reference(p.t) {
		p = c.deref(p, n)
	}
	return p
}

// read makes a value of the language of a place, nil if there is none.
func (c *checker) read(p *place, n ast.Node) *operand {
	if s := scalarOf(p.t); s != nil {
		off := int64(0)
		if p.t.Enum != nil && p.t.Enum.Tag != nil {
			off = p.t.Enum.Tag.Offset
		}
		return &operand{t: s, x: p.when(p.word(off, s.Type)), node: n}
	}
	if ptr, length, ok := text(p.t); ok {
		t := ir.TextType(c.o.MaxStr)
		return &operand{t: &typ{Type: t}, x: p.when(&ir.ReadText{T: t, Addr: p.word(ptr, ir.U64), Len: p.word(length, ir.U64), Strict: true}), node: n}
	}
	if t := memoryType(p.t); !p.strict && t != nil {
		return of(t, p.when(p.word(0, t)), n)
	}
	if p.t.Kind != types.Array || p.t.Elem == nil {
		return nil
	}
	if p.t.Elem.Name == "char" { // C's text
		t := ir.TextType(int(min(p.t.Count, maxText)))
		addr := c.address(p)
		if addr != nil {
			return &operand{t: &typ{Type: t}, x: p.when(&ir.ReadText{T: t, Addr: addr, Strict: p.strict}), node: n}
		}
	}
	if e := scalarOf(p.t.Elem); e != nil && p.t.Size > 0 && p.t.Size <= maxText {
		t := &ir.Type{Kind: ir.Array, Elem: e.Type, Count: int(p.t.Count), Size: int(p.t.Size)}
		return &operand{t: &typ{Type: t}, x: p.when(p.word(0, t)), node: n}
	}
	return nil
}

// reference says whether a pointer is one that Rust looks through.
func reference(t *types.Type) bool {
	if t.Kind != types.Pointer || t.Pointer == nil || t.Pointer.Meta != types.Thin || t.Pointer.Target == nil {
		return false
	}
	switch t.Pointer.Kind {
	case types.Ref, types.RefMut, types.Box:
		return true
	}
	return false
}

// address is where a place is in memory; nil if it is only in registers.
func (c *checker) address(p *place) ir.Expr {
	if p.addr == nil {
		return nil
	}
	return plus(p.addr, p.off)
}

// deref is what a pointer leads to.
func (c *checker) deref(p *place, n ast.Node) *place {
	if s := p.t.Std; s != nil && s.Kind == types.Shared && s.Elem != nil && s.Len < 0 {
		return p.at(plus(p.word(s.Ptr, ir.U64), s.Add), s.Elem, p.named)
	}
	if p.t.Kind != types.Pointer || p.t.Pointer == nil {
		c.errorf(n, "", "%s is of type %s, which is no pointer", p.named, p.t.Display())
		return nil
	}
	if p.t.Pointer.Target == nil || p.t.Pointer.Meta != types.Thin {
		c.errorf(n, "", "what %s leads to is not known: it is of type %s", p.named, p.t.Display())
		return nil
	}
	return p.at(p.word(p.t.Pointer.PtrOff, ir.U64), p.t.Pointer.Target, "*"+p.named)
}

// through looks through references and shared pointers, to what has fields.
func (c *checker) through(p *place) *place {
	for range 16 {
		s := p.t.Std
		switch {
		case s != nil && s.Kind == types.Shared && s.Len < 0 && s.Elem != nil:
		case p.t.Kind == types.Pointer && p.t.Pointer != nil && p.t.Pointer.Meta == types.Thin && p.t.Pointer.Target != nil && p.t.Pointer.Kind != types.FnPtr:
		default:
			return p
		}
		p = c.deref(p, nil)
	}
	return p
}

// field is a field, variant, length or tuple element of a place.
func (c *checker) field(p *place, x *ast.Field) *place {
	named := p.named + "." + x.Name
	// What the container itself offers stands before what it holds.
	if x.Name == "len" {
		if q := c.length(p, named); q != nil {
			return q
		}
	}
	p = c.through(p)
	if x.Name == "len" {
		if q := c.length(p, named); q != nil {
			return q
		}
	}
	if p.t.Enum != nil {
		for i, v := range p.t.Enum.Variants {
			if v.Name == x.Name {
				return c.variant(p, i, named)
			}
		}
		// Some and Ok are what is meant where a field is asked for that only one variant has.
		c.errorf(fieldNode(x), "", "%s has no variant %q: %s is %s", p.t.Display(), x.Name, p.named, list(fieldNames(p.t)))
		return nil
	}
	for _, f := range p.t.Fields {
		if f.Name == x.Name || f.Name == "__"+x.Name {
			return p.within(f.Offset, f.Type, named)
		}
	}
	c.errorf(fieldNode(x), nearest(x.Name, fieldNames(p.t)), "%s has no field %q: %s has %s", p.t.Display(), x.Name, p.named, list(fieldNames(p.t)))
	return nil
}

// fieldNode is the place in the script of a field's name.
func fieldNode(x *ast.Field) ast.Node { return spanned{x.NameSpan} }

// length is the number of elements of what has one.
func (c *checker) length(p *place, named string) *place {
	off := int64(-1)
	size := 8
	switch s := p.t.Std; {
	case s != nil:
		switch s.Kind {
		case types.String, types.Vec, types.Table, types.Tree, types.Chain:
			off = s.Len
		case types.Ring:
			if !s.Ends {
				off = s.Len
			}
		}
	case p.t.Kind == types.Pointer && p.t.Pointer != nil && p.t.Pointer.Meta == types.Length:
		off = p.t.Pointer.MetaOff
	}
	if off < 0 {
		return nil
	}
	return p.within(off, basic("usize", integer(size, false)), named)
}

// variant is the data of a variant, which the value has to be.
func (c *checker) variant(p *place, i int, named string) *place {
	v := p.t.Enum.Variants[i]
	q := p.within(0, v.Type, named)
	if v.Type == nil {
		q.t = &types.Type{Name: v.Name, Kind: types.Struct, Fields: v.Fields}
	}
	if cond := c.isVariant(p, i); cond != nil {
		q.conds = append(q.conds, cond)
	}
	return q
}

// isVariant is whether the value is that variant; nil if it can be no other.
func (c *checker) isVariant(p *place, i int) ir.Expr {
	e := p.t.Enum
	if e.Tag == nil {
		return nil
	}
	t := integer(min(e.Tag.Size, 8), false)
	tag := p.word(e.Tag.Offset, t)
	within := func(ivs []types.Interval) ir.Expr {
		var any ir.Expr
		for _, iv := range ivs {
			var one ir.Expr
			if iv.Lo == iv.Hi {
				one = &ir.Binary{T: ir.BoolType, Op: ir.Eq, X: tag, Y: &ir.Const{T: t, V: iv.Lo.Lo}}
			} else {
				one = &ir.Binary{T: ir.BoolType, Op: ir.LAnd,
					X: &ir.Binary{T: ir.BoolType, Op: ir.Ge, X: tag, Y: &ir.Const{T: t, V: iv.Lo.Lo}},
					Y: &ir.Binary{T: ir.BoolType, Op: ir.Le, X: tag, Y: &ir.Const{T: t, V: iv.Hi.Lo}}}
			}
			if any == nil {
				any = one
			} else {
				any = &ir.Binary{T: ir.BoolType, Op: ir.LOr, X: any, Y: one}
			}
		}
		return any
	}
	if vs := e.Variants[i].Values; len(vs) > 0 {
		return within(vs)
	}
	// The one that is meant when it is none of the others.
	var all []types.Interval
	for j, v := range e.Variants {
		if j != i {
			all = append(all, v.Values...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &ir.Unary{T: ir.BoolType, Op: ir.Not, X: within(all)}
}

// element is x[i] of an array, slice or vector.
func (c *checker) element(p *place, i ir.Expr, n ast.Node) *place {
	named := fmt.Sprintf("%s[…]", p.named)
	i = &ir.Cast{T: ir.U64, X: i}
	at := func(base ir.Expr, e *types.Type) *place {
		return p.at(&ir.Binary{T: ir.U64, Op: ir.Add, X: base, Y: &ir.Binary{T: ir.U64, Op: ir.Mul, X: i, Y: &ir.Const{T: ir.U64, V: uint64(e.Size)}}}, e, named)
	}
	below := func(q *place, length ir.Expr) *place {
		q.conds = append(q.conds, &ir.Binary{T: ir.BoolType, Op: ir.Lt, X: i, Y: length})
		return q
	}
	for range 16 {
		s, ptr := p.t.Std, p.t.Pointer
		switch {
		case s != nil && s.Kind == types.Vec && s.Elem != nil:
			return below(at(p.word(s.Ptr, ir.U64), s.Elem), p.word(s.Len, ir.U64))
		case p.t.Kind == types.Pointer && ptr != nil && ptr.Meta == types.Length && ptr.Target != nil && ptr.Target.Kind == types.Slice && ptr.Target.Elem != nil:
			return below(at(p.word(ptr.PtrOff, ir.U64), ptr.Target.Elem), p.word(ptr.MetaOff, ir.U64))
		case p.t.Kind == types.Array && p.t.Elem != nil:
			if k, ok := i.(*ir.Cast).X.(*ir.Const); ok {
				if k.V >= uint64(p.t.Count) {
					c.errorf(n, "", "the index is out of bounds: %s has %d elements", p.named, p.t.Count)
					return nil
				}
				return p.within(int64(k.V)*p.t.Elem.Size, p.t.Elem, named)
			}
			if base := c.address(p); base != nil {
				return below(at(base, p.t.Elem), &ir.Const{T: ir.U64, V: uint64(p.t.Count)})
			}
			c.errorf(n, "use a constant", "%s is in registers, where only a fixed index finds an element", p.named)
			return nil
		case p.t.Kind == types.Pointer && ptr != nil && ptr.Meta == types.Thin && ptr.Target != nil && (ptr.Kind == types.ConstPtr || ptr.Kind == types.MutPtr):
			return at(p.word(ptr.PtrOff, ir.U64), ptr.Target)
		case p.t.Kind == types.Pointer && reference(p.t), s != nil && s.Kind == types.Shared && s.Len < 0:
			p = c.deref(p, n)
		default:
			c.errorf(n, "", "%s is of type %s, which has no elements that an index finds", p.named, p.t.Display())
			return nil
		}
	}
	return nil
}

// capture is the whole value, as an event shows it.
func (c *checker) capture(p *place) ir.Expr {
	x := &ir.Capture{Rust: p.t, Root: p.root, Off: p.off}
	if p.addr != nil {
		x.Addr = plus(p.addr, p.off)
	}
	return p.when(x)
}

// fieldNames are the names by which the parts of a value are found.
func fieldNames(t *types.Type) (names []string) {
	if t.Enum != nil {
		for _, v := range t.Enum.Variants {
			names = append(names, v.Name)
		}
		return names
	}
	for _, f := range t.Fields {
		names = append(names, strings.TrimPrefix(f.Name, "__"))
	}
	return names
}

// list writes names one after the other.
func list(names []string) string {
	const most = 12
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// nearest proposes a name.
func nearest(name string, of []string) string {
	// Of names of one letter, and of numbers, each is near to all others.
	if best := spell.Nearest(name, of); best != "" && len(name) > 1 {
		return "did you mean " + best + "?"
	}
	return ""
}
