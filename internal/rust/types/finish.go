package types

import (
	"fmt"
	"slices"
	"strings"
)

// finish completes the types that have been filled since: what depends on other
// types, which may be in a circle.
func (r *Reader) finish() {
	for _, t := range r.fresh {
		wideTarget(t)
	}
	for _, t := range r.fresh {
		r.layout(t, 0)
	}
	for _, t := range r.fresh {
		functionItems(t)
	}
	for _, t := range r.fresh {
		r.name(t, 0)
		if t.Enum != nil {
			variantFields(t)
		}
	}
	for _, t := range r.fresh {
		r.object(t)
	}
	for _, t := range r.fresh {
		r.uninhabited(t, 0)
		r.std(t)
		if t.Kind == Coroutine {
			r.coroutine(t)
		}
	}
	for _, t := range r.fresh {
		if !sound(t) {
			*t = Type{Name: t.Name, Kind: Opaque, Size: t.Size, Align: t.Align}
		}
	}
	r.fresh = nil
}

// wideTarget turns the type of a wide pointer's address into that of its target:
// *T is the address of a &[T], *u8 of a &str, *S of a struct with an unsized tail.
func wideTarget(t *Type) {
	if t.Kind != Pointer || t.Pointer.Meta == Thin {
		return
	}
	target := &t.Pointer.Target
	switch (*target).Kind {
	case Str:
		return
	case Slice:
		target = &(*target).Elem
	}
	if p := *target; p.Kind == Pointer && p.Pointer.Meta == Thin {
		*target = p.Pointer.Target
	} else {
		t.Kind, t.Pointer = Opaque, nil
	}
}

// layout sets the sizes and alignments that debug info leaves out: those of
// arrays, and the alignment of what older compilers wrote without.
func (r *Reader) layout(t *Type, depth int) {
	if depth > maxNesting {
		return
	}
	if t.Kind == Pointer && t.Pointer.Target.Kind == Slice {
		s := t.Pointer.Target
		r.layout(s.Elem, depth+1)
		setLayout(s, s.Elem.Size, s.Elem.Align)
	}
	if t.Kind != Array {
		return
	}
	r.layout(t.Elem, depth+1)
	if t.Elem.Size > 0 && t.Count > maxSize/t.Elem.Size {
		t.Kind, t.Count = Opaque, 0
	}
	setLayout(t, t.Count*t.Elem.Size, t.Elem.Align)
}

// setLayout leaves types alone that have been handed out, and so are complete.
func setLayout(t *Type, size, align int64) {
	if t.Size != size || t.Align != align {
		t.Size, t.Align = size, align
	}
}

// functionItems finds the fields of t that are function items, which have no bytes:
// their entries are those of function pointers, without a size. What overlaps
// another field, is not aligned or does not fit can't be a pointer.
func functionItems(t *Type) {
	if t.Kind != Struct && t.Kind != Tuple {
		return
	}
	overlap := func(f, g Field) bool {
		return f.Offset < g.Offset+g.Type.Size && g.Offset < f.Offset+f.Type.Size
	}
	function := func(f Field) bool { return f.Type.Kind == Pointer && f.Type.Pointer.Kind == FnPtr }
	for i, f := range t.Fields {
		if function(f) && (f.Offset%8 != 0 || f.Offset+8 > t.Size || slices.ContainsFunc(t.Fields, func(g Field) bool {
			return !function(g) && overlap(f, g)
		})) {
			t.Fields[i].Type = &Type{Name: f.Type.Name, Kind: Fn, Align: 1, Sig: f.Type.Pointer.Target.Sig}
		}
	}
	for i, f := range t.Fields {
		if function(f) && slices.ContainsFunc(t.Fields[:i], func(g Field) bool { return function(g) && overlap(f, g) }) {
			// One is an item, and nothing tells which.
			*t = Type{Name: t.Name, Kind: Opaque, Size: t.Size, Align: t.Align}
			return
		}
	}
}

// maxName bounds the names that are made here, in bytes.
const maxName = 4096

// name makes the names that debug info leaves out: of arrays, of function types,
// and of the addresses in wide pointers.
func (r *Reader) name(t *Type, depth int) string {
	if t.Name != "" || depth > maxNesting {
		return t.Name
	}
	var b strings.Builder
	switch t.Kind {
	case Array:
		fmt.Fprintf(&b, "[%s; %d]", r.name(t.Elem, depth+1), t.Count)
	case Pointer:
		b.WriteString("*const " + r.name(t.Pointer.Target, depth+1))
	case Fn:
		b.WriteString("fn(")
		for i, p := range t.Sig.Params {
			if i > 0 {
				b.WriteString(", ")
			}
			if b.Len() > maxName {
				break
			}
			b.WriteString(r.name(p, depth+1))
		}
		b.WriteString(")")
		if t.Sig.Result.Kind != Unit {
			b.WriteString(" -> " + r.name(t.Sig.Result, depth+1))
		}
	}
	if b.Len() > maxName {
		return "?"
	}
	t.Name = b.String()
	return t.Name
}

// variantFields gives the variants the fields of their types.
func variantFields(t *Type) {
	for i := range t.Enum.Variants {
		v := &t.Enum.Variants[i]
		if v.Type == nil {
			continue // C-like
		}
		base := v.Fields[0].Offset
		v.Fields = nil
		for _, f := range v.Type.Fields {
			f.Offset += base
			v.Fields = append(v.Fields, f)
		}
	}
}

// uninhabited says whether no value of t can exist.
func (r *Reader) uninhabited(t *Type, depth int) bool {
	if depth > maxNesting {
		return false
	}
	if known, ok := r.empty[t]; ok {
		return known
	}
	empty := false
	switch t.Kind {
	case Never:
		empty = true
	case Array:
		empty = t.Count > 0 && r.uninhabited(t.Elem, depth+1)
	case Struct, Tuple:
		empty = slices.ContainsFunc(t.Fields, func(f Field) bool { return r.uninhabited(f.Type, depth+1) })
	case Enum:
		r.empty[t] = false // should it contain itself
		empty = true
		for i := range t.Enum.Variants {
			v := &t.Enum.Variants[i]
			v.Uninhabited = slices.ContainsFunc(v.Fields, func(f Field) bool { return r.uninhabited(f.Type, depth+1) })
			empty = empty && v.Uninhabited
		}
	}
	r.empty[t] = empty
	return empty
}

// sound says whether the parts of t lie within it and have sizes that their kinds
// can have, so that readers of values need not check.
func sound(t *Type) bool {
	within := func(off, size int64) bool { return off >= 0 && size >= 0 && off+size <= t.Size }
	fields := func(fs []Field) bool {
		return !slices.ContainsFunc(fs, func(f Field) bool { return f.Type == nil || !within(f.Offset, f.Type.Size) })
	}
	switch t.Kind {
	case Bool:
		return t.Size == 1
	case Char:
		return t.Size == 4
	case Int, Uint:
		return t.Size == 1 || t.Size == 2 || t.Size == 4 || t.Size == 8 || t.Size == 16
	case Unit, Never:
		return t.Size == 0
	case Pointer:
		return within(t.Pointer.PtrOff, 8) && within(t.Pointer.MetaOff, 8)
	case Struct, Tuple, Union:
		if !fields(t.Fields) || t.Std != nil && !t.Std.within(t.Size) {
			return false
		}
	case Enum, Coroutine:
		if tag := t.Enum.Tag; tag != nil && !within(tag.Offset, int64(tag.Size)) {
			return false
		}
		for _, v := range t.Enum.Variants {
			if !fields(v.Fields) {
				return false
			}
		}
		return fields(t.Fields)
	}
	return true
}
