package signature

import (
	"fmt"
	"strings"

	"ferrotrace/internal/rust/types"
)

// noLayout is why a type is not read.
const noLayout = "its layout only debug info tells"

var never = &types.Type{Name: "!", Kind: types.Never, Align: 1}

// primitives are the types that stand for themselves, and C's for a Linux on x86-64
// (psABI 3.1.2).
var primitives = func() map[string]*types.Type {
	m := map[string]*types.Type{}
	add := func(kind types.Kind, size int64, names ...string) {
		t := &types.Type{Name: names[0], Kind: kind, Size: size, Align: size}
		for _, n := range names {
			m[n] = t
		}
	}
	add(types.Bool, 1, "bool")
	add(types.Char, 4, "char")
	add(types.Float, 4, "f32", "c_float")
	add(types.Float, 8, "f64", "c_double")
	add(types.Int, 1, "i8", "c_char", "c_schar")
	add(types.Uint, 1, "u8", "c_uchar")
	add(types.Int, 2, "i16", "c_short")
	add(types.Uint, 2, "u16", "c_ushort")
	add(types.Int, 4, "i32", "c_int")
	add(types.Uint, 4, "u32", "c_uint")
	add(types.Int, 8, "i64", "c_long", "c_longlong")
	add(types.Uint, 8, "u64", "c_ulong", "c_ulonglong")
	add(types.Int, 8, "isize")
	add(types.Uint, 8, "usize")
	add(types.Int, 16, "i128")
	add(types.Uint, 16, "u128")
	return m
}()

var generic = map[string]bool{"Box": true, "Option": true, "NonZero": true, "Vec": true}

// homes are where the types that are read here are at home, by their last segment, and
// how the paths to them begin.
var homes = map[string][]string{
	"Box":     {"std::boxed::", "alloc::boxed::"},
	"Option":  {"std::option::", "core::option::"},
	"NonZero": {"std::num::", "core::num::", "core::num::nonzero::"},
	"Vec":     {"std::vec::", "alloc::vec::"},
	"String":  {"std::string::", "alloc::string::"},
	"c_":      {"libc::", "std::ffi::", "core::ffi::", "std::os::raw::"},
}

// isStd says whether a path is that of a type that is read here, as programs write it. A
// bare name is what the prelude has by that name.
func isStd(name, last string) bool {
	key := last
	switch {
	case last == "str":
		return name == last
	case strings.HasPrefix(last, "c_") && (primitives[last] != nil || behindPointers[last] != nil):
		key = "c_"
	case primitives[last] != nil:
		return name == last || name == "std::primitive::"+last || name == "core::primitive::"+last
	case strings.HasPrefix(last, "NonZero"):
		if n := strings.ToLower(last[len("NonZero"):]); n != "" {
			if t := primitives[n]; t == nil || t.Kind != types.Int && t.Kind != types.Uint || strings.HasPrefix(n, "c_") {
				return false
			}
		}
		key = "NonZero"
	}
	if name == last {
		return homes[key] != nil
	}
	for _, home := range homes[key] {
		if name == home+last {
			return true
		}
	}
	return false
}

// without is a type that is not read because a part of it is not.
func without(text string, part Type) Type {
	why := part.Why
	if part.Text != "" && why == noLayout {
		why = "the layout of " + part.Text + " only debug info tells"
	}
	return Type{Text: text, Why: why}
}

// pointerTo is a reference, raw pointer or Box. That of a sized type is one word; a type
// whose layout is not known may be an unsized one.
func pointerTo(kind types.PointerKind, prefix string, target Type, suffix string) Type {
	text := strings.TrimPrefix(prefix, "alloc::boxed::") + target.Text + suffix
	t := target.Layout
	if t == nil {
		return without(text, target)
	}
	p := &types.Type{Name: prefix + t.Name + suffix, Kind: types.Pointer, Size: 8, Align: 8,
		Pointer: &types.PointerInfo{Kind: kind, Target: t}}
	if t.Kind == types.Str || t.Kind == types.Slice {
		p.Size, p.Pointer.Meta, p.Pointer.MetaOff = 16, types.Length, 8
	}
	return Type{Text: text, Layout: p, Std: target.Std}
}

// sliceOf is the unsized elements behind a pointer.
func sliceOf(elem Type) Type {
	text := "[" + elem.Text + "]"
	if unsized(elem) {
		return without(text, elem)
	}
	e := elem.Layout
	return Type{Text: text, Std: elem.Std, Why: unsizedAlone,
		Layout: &types.Type{Name: "[" + e.Name + "]", Kind: types.Slice, Size: e.Size, Align: e.Align, Elem: e}}
}

const unsizedAlone = "it has no size of its own"

// behindPointers are types that there are no values of on their own.
var behindPointers = map[string]*types.Type{
	"str":    types.StrBytes,
	"c_void": {Name: "core::ffi::c_void", Kind: types.Opaque, Size: 1, Align: 1},
}

// unsized says whether there is no value of a type, or no layout of it.
func unsized(t Type) bool {
	return t.Layout == nil || t.Layout.Kind == types.Str || t.Layout.Kind == types.Slice || t.Layout.Kind == types.Opaque
}

// value is the type if there are values of it, which a parameter or a result needs.
func (t Type) value() Type {
	if unsized(t) {
		t.Layout = nil
	}
	return t
}

func arrayOf(elem Type, n int64) (Type, bool) {
	text := fmt.Sprintf("[%s; %d]", elem.Text, n)
	if unsized(elem) {
		return without(text, elem), true
	}
	e := elem.Layout
	if e.Size > 0 && n > maxArray/e.Size {
		return Type{}, false
	}
	return Type{Text: text, Std: elem.Std, Layout: &types.Type{Name: fmt.Sprintf("[%s; %d]", e.Name, n),
		Kind: types.Array, Size: n * e.Size, Align: e.Align, Elem: e, Count: n}}, true
}

// nonZero is an integer that is not 0.
func nonZero(inner Type, text string) Type {
	t := inner.Layout
	if t == nil || t.Kind != types.Int && t.Kind != types.Uint {
		return Type{Text: text, Why: "NonZero is of integers"}
	}
	return Type{Text: text, Layout: &types.Type{Name: "core::num::nonzero::NonZero<" + t.Name + ">", Kind: types.Struct,
		Size: t.Size, Align: t.Align, Fields: []types.Field{{Name: "__0", Type: t}}}}
}

// optionOf is an Option of what is never 0, for which the language guarantees that 0 is
// None (std::option, "Representation").
func optionOf(some Type) Type {
	text := "Option<" + some.Text + ">"
	t := some.Layout
	switch {
	case t == nil:
		return without(text, some)
	case t.Kind == types.Pointer && (t.Pointer.Kind == types.Ref || t.Pointer.Kind == types.RefMut || t.Pointer.Kind == types.Box):
	case t.Kind == types.Struct && strings.HasPrefix(t.Name, "core::num::nonzero::"):
	default:
		return Type{Text: text, Why: "its layout is the compiler's own affair: only of references, Box and NonZero it is fixed"}
	}
	name := "core::option::Option<" + t.Name + ">"
	fields := []types.Field{{Name: "__0", Type: t}}
	tag := &types.Discr{Size: int(min(t.Size, 8))}
	if t.Kind == types.Struct {
		tag.Size = int(t.Size)
	}
	return Type{Text: text, Std: some.Std, Layout: &types.Type{Name: name, Kind: types.Enum, Size: t.Size, Align: t.Align,
		Enum: &types.EnumInfo{Tag: tag, Variants: []types.Variant{
			{Name: "None", Values: []types.Interval{{}}, Type: &types.Type{Name: name + "::None", Kind: types.Struct, Size: t.Size, Align: t.Align}},
			{Name: "Some", Fields: fields, Type: &types.Type{Name: name + "::Some", Kind: types.Struct, Size: t.Size, Align: t.Align, Fields: fields}},
		}}}}
}

// stringType and vecOf are as std has them from 1.95 to 1.97: capacity, address, length.
var stringType = &types.Type{Name: "alloc::string::String", Kind: types.Struct, Size: 24, Align: 8,
	Std: &types.StdInfo{Kind: types.String, Ptr: 8, Len: 16, Elem: types.StrBytes}}

func vecOf(elem Type) Type {
	text := "Vec<" + elem.Text + ">"
	if unsized(elem) {
		return without(text, elem)
	}
	return Type{Text: text, Std: true, Layout: &types.Type{Name: "alloc::vec::Vec<" + elem.Layout.Name + ">", Kind: types.Struct,
		Size: 24, Align: 8, Std: &types.StdInfo{Kind: types.Vec, Ptr: 8, Len: 16, Elem: elem.Layout}}}
}
