package check

import (
	"fmt"
	"strings"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
)

// describe names a type as the language does.
func describe(t *typ) string {
	if t == nil {
		return "nothing"
	}
	if t.held {
		return t.to.Display()
	}
	return name(t.Type, t.to)
}

func name(t *ir.Type, to *types.Type) string {
	switch t.Kind {
	case ir.Void:
		return "void"
	case ir.Int:
		if t.Enum != nil && t.Enum.Enum != "" {
			return "enum " + t.Enum.Enum
		}
		if t.Signed {
			return fmt.Sprintf("int%d", 8*t.Size)
		}
		return fmt.Sprintf("uint%d", 8*t.Size)
	case ir.Bool:
		return "bool"
	case ir.Text:
		return fmt.Sprintf("string[%d]", t.Size)
	case ir.Bytes:
		if t.Format != "" {
			return t.String()
		}
		return fmt.Sprintf("buffer[%d]", t.Size-4)
	case ir.Tuple:
		var parts []string
		for _, f := range t.Fields {
			p := name(f.Type, nil)
			if f.Name != "" {
				p = f.Name + "=" + p
			}
			parts = append(parts, p)
		}
		return "(" + strings.Join(parts, ",") + ")"
	case ir.Array:
		return fmt.Sprintf("%s[%d]", name(t.Elem, nil), t.Count)
	case ir.Pointer:
		if to != nil {
			return to.Name + " *"
		}
		return "void *"
	case ir.Name:
		return "string"
	case ir.Symbol:
		return "usym"
	case ir.Stack:
		return "ustack"
	case ir.Stamp:
		return "timestamp"
	case ir.Value:
		return "a Rust value"
	}
	for k, n := range aggregates {
		if n == t.Kind {
			return k
		}
	}
	return t.String()
}

var aggregates = map[string]ir.TypeKind{
	"count": ir.Count, "sum": ir.Sum, "avg": ir.Avg, "stats": ir.Stats, "min": ir.Min, "max": ir.Max,
	"hist": ir.Hist, "lhist": ir.LHist, "tseries": ir.Series,
}

// same says whether two types are one.
func same(a, b *typ) bool { return a.to == b.to && a.held == b.held && equal(a.Type, b.Type) }

func equal(a, b *ir.Type) bool {
	if a == b {
		return true
	}
	if a.Kind != b.Kind || a.Size != b.Size || a.Signed != b.Signed || a.Count != b.Count || a.Enum != b.Enum || a.Bits != b.Bits ||
		a.From != b.From || a.To != b.To || a.Step != b.Step || a.Every != b.Every || a.Agg != b.Agg || a.Format != b.Format || a.Clock != b.Clock ||
		len(a.Fields) != len(b.Fields) || (a.Elem == nil) != (b.Elem == nil) {
		return false
	}
	if a.Elem != nil && !equal(a.Elem, b.Elem) {
		return false
	}
	for i := range a.Fields {
		if a.Fields[i].Name != b.Fields[i].Name || !equal(a.Fields[i].Type, b.Fields[i].Type) {
			return false
		}
	}
	return true
}

// join is the type that holds values of both; a may be nil.
func join(a, b *typ) (*typ, bool) {
	if a == nil {
		return b, true
	}
	if b == nil || same(a, b) {
		return a, true
	}
	t, ok := joined(a.Type, b.Type)
	if !ok {
		return nil, false
	}
	if a.held != b.held {
		return nil, false
	}
	out := &typ{Type: t, to: a.to, held: a.held}
	if a.Kind == ir.Pointer && b.Kind == ir.Pointer && a.to != b.to {
		if a.to != nil && b.to != nil {
			return nil, false
		}
		if out.to = a.to; out.to == nil {
			out.to = b.to
		}
	}
	return out, true
}

func joined(a, b *ir.Type) (*ir.Type, bool) {
	number := func(t *ir.Type) bool { return t.Kind == ir.Int || t.Kind == ir.Bool }
	if number(a) && number(b) {
		if equal(a, b) {
			return a, true
		}
		return integer(max(a.Size, b.Size), a.Signed || b.Signed), true
	}
	if a.Kind != b.Kind {
		return nil, false
	}
	switch a.Kind {
	case ir.Text, ir.Bytes:
		if a.Format != b.Format {
			return nil, false
		}
		if a.Size >= b.Size {
			return a, true
		}
		return b, true
	case ir.Stack:
		if a.Format != b.Format {
			return nil, false
		}
		if a.Count >= b.Count {
			return a, true
		}
		return b, true
	case ir.Tuple:
		if len(a.Fields) != len(b.Fields) {
			return nil, false
		}
		var names []string
		var ts []*ir.Type
		for i := range a.Fields {
			if a.Fields[i].Name != b.Fields[i].Name {
				return nil, false
			}
			t, ok := joined(a.Fields[i].Type, b.Fields[i].Type)
			if !ok {
				return nil, false
			}
			names, ts = append(names, a.Fields[i].Name), append(ts, t)
		}
		return ir.TupleOf(names, ts), true
	case ir.Array:
		return a, a.Count == b.Count && equal(a.Elem, b.Elem)
	case ir.Pointer, ir.Name, ir.Symbol:
		return a, true
	case ir.Count, ir.Hist, ir.LHist, ir.Series, ir.Stamp, ir.User, ir.CgroupPath:
		return a, equal(a, b)
	case ir.Sum, ir.Avg, ir.Stats, ir.Min, ir.Max:
		if a.Signed {
			return a, true
		}
		return b, true
	}
	return nil, false
}

// integer is the type of that size and sign.
func integer(size int, signed bool) *ir.Type {
	for _, t := range []*ir.Type{ir.I8, ir.I16, ir.I32, ir.I64, ir.U8, ir.U16, ir.U32, ir.U64} {
		if t.Size == size && t.Signed == signed {
			return t
		}
	}
	return ir.I64
}

// wide is a type as maps hold it: integers take 8 bytes.
func wide(t *typ) *typ {
	w := widened(t.Type)
	if w == t.Type {
		return t
	}
	return &typ{Type: w, to: t.to}
}

func widened(t *ir.Type) *ir.Type {
	switch {
	case t.Kind == ir.Int && t.Enum != nil:
		u := *t
		u.Size = 8
		return &u
	case t.Kind == ir.Int:
		return integer(8, t.Signed)
	case t.Kind == ir.Tuple:
		var names []string
		var ts []*ir.Type
		changed := false
		for _, f := range t.Fields {
			w := widened(f.Type)
			changed = changed || w != f.Type
			names, ts = append(names, f.Name), append(ts, w)
		}
		if changed {
			return ir.TupleOf(names, ts)
		}
	}
	return t
}

// named is what a type means that is written in the script.
func (c *checker) named(t *ast.Type) *typ {
	switch t.Kind {
	case ast.PointerType:
		out := &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}}
		out.to = c.pointee(t.Elem)
		return out
	case ast.ArrayType:
		if t.Elem.Kind == ast.NamedType && t.Elem.Name == "string" {
			return &typ{Type: ir.TextType(int(min(t.Len, maxText)))}
		}
		if t.Elem.Kind == ast.NamedType && t.Elem.Name == "buffer" {
			return &typ{Type: ir.BytesType(int(min(t.Len, maxText)))}
		}
		e := c.named(t.Elem)
		if e == nil {
			return nil
		}
		if n := e.Size * int(min(t.Len, maxText)); n > maxText {
			c.errorf(t, "", "an array of %d bytes", n)
			return nil
		}
		return &typ{Type: &ir.Type{Kind: ir.Array, Elem: e.Type, Count: int(t.Len), Size: int(t.Len) * e.Size}}
	case ast.NamedType:
		if n, ok := cNames[t.Name]; ok {
			return &typ{Type: n}
		}
		switch t.Name {
		case "string":
			return &typ{Type: ir.TextType(c.o.MaxStr)}
		case "void":
			return &typ{Type: ir.VoidType}
		}
	case ast.TypeofType:
		if _, isType := t.X.(*ast.Ident); !isType && c.h != nil {
			var o *operand
			c.collect(func() { o = c.expr(t.X) })
			if o == nil {
				return nil
			}
			if o.place != nil {
				return c.placeType(o.place.t)
			}
			return &typ{Type: o.t.Type, to: o.t.to}
		}
	}
	if st := c.structure(t); st != nil {
		return c.placeType(st)
	}
	c.errorf(t, "", "unknown type: %s", t)
	return nil
}

// maxText bounds the bytes of one string, buffer or array.
const maxText = 4096

// placeType is what values of a type of the debug info, or of a C struct, are in the language.
func (c *checker) placeType(t *types.Type) *typ {
	if s := scalarOf(t); s != nil {
		return s
	}
	return &typ{Type: &ir.Type{Kind: ir.Value, Size: int(t.Size)}, to: t}
}

// pointee is what a pointer leads to that is written in the script: the same type for the
// same words.
func (c *checker) pointee(t *ast.Type) *types.Type {
	key := t.String()
	if p, ok := c.pointees[key]; ok {
		return p
	}
	p := c.pointedType(t)
	if p != nil && t.Def == nil {
		c.pointees[key] = p
	}
	return p
}

func (c *checker) pointedType(t *ast.Type) *types.Type {
	if st := c.structure(t); st != nil {
		return st
	}
	switch t.Kind {
	case ast.NamedType:
		if t.Name == "void" {
			return nil
		}
		if n, ok := cNames[t.Name]; ok {
			return basic(t.Name, n)
		}
	case ast.PointerType:
		return &types.Type{Name: t.String(), Kind: types.Pointer, Size: 8, Align: 8, Pointer: &types.PointerInfo{Kind: types.MutPtr, Target: c.pointee(t.Elem)}}
	case ast.ArrayType:
		if e := c.pointee(t.Elem); e != nil {
			return &types.Type{Name: t.String(), Kind: types.Array, Elem: e, Count: int64(t.Len), Size: int64(t.Len) * e.Size, Align: e.Align}
		}
	}
	c.errorf(t, "", "unknown type: %s", t)
	return nil
}

// structure is a struct, union or enum, or a Rust type, by its name.
func (c *checker) structure(t *ast.Type) *types.Type {
	if t.Def != nil {
		return c.layOut(t.Def)
	}
	if t.Name == "" {
		return nil
	}
	if st := c.structs[t.Name]; st != nil {
		return st
	}
	if _, ok := cNames[t.Name]; ok || t.Name == "void" || t.Name == "string" {
		return nil
	}
	return c.syms.Type(t.Name)
}

// basic is a C integer as a type of memory.
func basic(name string, t *ir.Type) *types.Type {
	if b := basics[t]; b != nil && b.Name == name {
		return b
	}
	k := types.Uint
	switch {
	case t.Kind == ir.Bool:
		k = types.Bool
	case t.Signed:
		k = types.Int
	}
	return &types.Type{Name: name, Kind: k, Size: int64(t.Size), Align: int64(t.Size)}
}

var basics = map[*ir.Type]*types.Type{}

func init() {
	for n, t := range map[string]*ir.Type{"int8": ir.I8, "int16": ir.I16, "int32": ir.I32, "int64": ir.I64, "uint8": ir.U8, "uint16": ir.U16, "uint32": ir.U32, "uint64": ir.U64, "bool": ir.BoolType} {
		basics[t] = basic(n, t)
	}
}

var cNames = map[string]*ir.Type{
	"bool": ir.BoolType, "_Bool": ir.BoolType,
	"int8": ir.I8, "int16": ir.I16, "int32": ir.I32, "int64": ir.I64, "uint8": ir.U8, "uint16": ir.U16, "uint32": ir.U32, "uint64": ir.U64,
	"int8_t": ir.I8, "int16_t": ir.I16, "int32_t": ir.I32, "int64_t": ir.I64, "uint8_t": ir.U8, "uint16_t": ir.U16, "uint32_t": ir.U32, "uint64_t": ir.U64,
	"i8": ir.I8, "i16": ir.I16, "i32": ir.I32, "i64": ir.I64, "isize": ir.I64, "u8": ir.U8, "u16": ir.U16, "u32": ir.U32, "u64": ir.U64, "usize": ir.U64,
	"char": ir.I8, "signed char": ir.I8, "unsigned char": ir.U8,
	"short": ir.I16, "short int": ir.I16, "unsigned short": ir.U16, "short unsigned int": ir.U16, "unsigned short int": ir.U16,
	"int": ir.I32, "signed int": ir.I32, "signed": ir.I32, "unsigned": ir.U32, "unsigned int": ir.U32,
	"long": ir.I64, "long int": ir.I64, "signed long": ir.I64, "unsigned long": ir.U64, "long unsigned int": ir.U64, "unsigned long int": ir.U64,
	"long long": ir.I64, "long long int": ir.I64, "unsigned long long": ir.U64, "unsigned long long int": ir.U64, "long long unsigned int": ir.U64,
	"size_t": ir.U64, "ssize_t": ir.I64, "uintptr_t": ir.U64, "intptr_t": ir.I64, "pid_t": ir.I32, "uid_t": ir.U32, "gid_t": ir.U32, "off_t": ir.I64, "time_t": ir.I64,
}

// definitions lays out the script's C structs, and takes in its enums.
func (c *checker) definitions() {
	c.structs = map[string]*types.Type{}
	c.pointees = map[string]*types.Type{}
	c.consts = map[string]constant{}
	for _, e := range c.prog.Enums {
		names := &ir.EnumNames{Enum: e.Name, Names: map[uint64]string{}}
		next := uint64(0)
		t := &types.Type{Name: e.Name, Kind: types.Enum, Size: 4, Align: 4, Enum: &types.EnumInfo{CLike: true, Tag: &types.Discr{Size: 4}}}
		for _, v := range e.Values {
			if v.Value != nil {
				n, ok := c.constant(v.Value)
				if !ok {
					c.errorf(v, "", "the value of %s is not known before the script runs", v.Name)
				}
				next = n
			}
			if _, dup := names.Names[next]; !dup {
				names.Names[next] = v.Name
			}
			if next > 1<<32-1 {
				t.Size, t.Align, t.Enum.Tag.Size = 8, 8, 8
			}
			u := types.U128{Lo: next}
			t.Enum.Variants = append(t.Enum.Variants, types.Variant{Name: v.Name, Values: []types.Interval{{Lo: u, Hi: u}}})
			c.consts[v.Name] = constant{next, names}
			next++
		}
		if e.Name != "" {
			c.structs[e.Name] = t
		}
	}
	for _, s := range c.prog.Structs {
		if s.Name != "" {
			c.structs[s.Name] = &types.Type{Name: s.Name, Kind: types.Struct}
		}
	}
	for _, s := range c.prog.Structs {
		if s.Name != "" {
			*c.structs[s.Name] = *c.layOut(s)
		}
	}
}

// layOut gives a C struct its layout (System V psABI, 3.1.2). Bit fields are left out: their
// place hangs on too much.
func (c *checker) layOut(s *ast.Struct) *types.Type {
	t := &types.Type{Name: s.Name, Kind: types.Struct, Align: 1}
	if s.Union {
		t.Kind = types.Union
	}
	at := int64(0)
	for _, f := range s.Fields {
		if f.Bits != 0 {
			c.warnf(f, "", "bit fields can't be read: %s", f.Name)
			continue
		}
		ft := c.pointee(f.Type)
		if ft == nil {
			continue
		}
		al := max(ft.Align, 1)
		if s.Packed {
			al = 1
		}
		t.Align = max(t.Align, al)
		off := int64(0)
		if !s.Union {
			off = (at + al - 1) / al * al
		}
		if f.Name == "" { // its fields are ours
			for _, g := range ft.Fields {
				g.Offset += off
				t.Fields = append(t.Fields, g)
			}
		} else {
			t.Fields = append(t.Fields, types.Field{Name: f.Name, Offset: off, Type: ft})
		}
		at = max(at, off+ft.Size)
	}
	t.Align = max(t.Align, int64(s.Align))
	t.Size = (at + t.Align - 1) / t.Align * t.Align
	return t
}
