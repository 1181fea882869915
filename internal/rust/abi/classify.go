// Package abi knows where rustc's own calling convention, extern "Rust", puts
// arguments and results on x86-64. It is unspecified and may change with any
// rustc: the tests hold these rules against the compilers at hand.
//
// rustc reduces each type to what LLVM sees of it (rustc_abi, BackendRepr): one
// scalar, a pair of scalars, or memory. The rules for that are in
// rustc_abi::layout, those for what becomes of each in
// rustc_ty_utils::abi::fn_abi_adjust_for_abi and rustc_target::callconv.
package abi

import (
	"strings"

	"ferrotrace/internal/rust/types"
)

// Kind is what a type is to the calling convention.
type Kind uint8

const (
	Unknown Kind = iota
	ZST          // takes no place
	Scalar       // an integer or pointer of at most 8 bytes
	Float        // f32 or f64
	Int128       // i128 or u128
	Pair         // two scalars
	Memory       // anything else: bytes
)

func (k Kind) String() string {
	return [...]string{"unknown", "zst", "scalar", "float", "int128", "pair", "memory"}[k]
}

// Class is a type as the calling convention sees it.
type Class struct {
	Kind Kind
	Size int64 // bytes
	// A and B are a Pair's scalars, each of Kind Scalar, Float or Int128.
	A, B Part
	// Why says why the Kind is Unknown.
	Why string

	align int64
	prim  prim
}

// Part is one scalar of a pair.
type Part struct {
	Kind Kind
	Off  int64 // in the value
	Size int64

	align int64
	prim  prim
}

// prim is what rustc calls a primitive: unions and tagged enums are pairs or
// scalars only if their parts agree in it.
type prim uint8

const (
	noPrim prim = iota
	intPrim
	uintPrim
	pointerPrim
	floatPrim
)

// Rules are those of a rustc.
type Rules uint8

const (
	Current Rules = iota // of 1.95 to 1.97
	// Rust163 are 1.63's: variants of an enum have a primitive in common only if that is
	// the very same, 128-bit integers are aligned to 8 bytes, and pairs with one are
	// returned in up to three registers.
	Rust163
	Any // of any of them: a compiler's that has not been tested
)

// Classify says what t is to the calling convention, for a type that is not
// #[repr(C)].
func Classify(t *types.Type) Class { return Current.classify(t, false) }

// classify is as Classify, for a compiler's rules. With reprC it is as if every wrapper of
// one scalar, outside of std, were #[repr(C)]: such a wrapper is memory rather than the
// scalar. Debug info does not tell. Nothing else about repr(C) matters here but unions.
func (r Rules) classify(t *types.Type, reprC bool) Class {
	return (&classifier{rules: r, reprC: reprC, steps: maxSteps}).class(t, 0)
}

type classifier struct {
	rules Rules
	reprC bool
	steps int // that are left
}

// Broken debug info can have types that contain themselves, or one another in so
// many ways that a walk would not end.
const (
	maxNesting = 64
	maxSteps   = 20000
)

func unknown(why string) Class { return Class{Why: why} }

func (c *classifier) class(t *types.Type, nesting int) Class {
	if t == nil {
		return unknown("unknown type")
	}
	if c.steps--; nesting > maxNesting || c.steps < 0 {
		return unknown("too many types in one another")
	}
	switch t.Kind {
	case types.Unit, types.Never, types.Fn:
		return Class{Kind: ZST, align: 1}
	case types.Bool, types.Char:
		return scalar(Scalar, t, uintPrim)
	case types.Int, types.Uint:
		p := uintPrim
		if t.Kind == types.Int {
			p = intPrim
		}
		switch t.Size {
		case 1, 2, 4, 8:
			return scalar(Scalar, t, p)
		case 16:
			wide := scalar(Int128, t, p)
			if c.rules == Rust163 {
				wide.align = 8
			}
			return wide
		}
		return unknown("integer of an odd size")
	case types.Float:
		if t.Size == 4 || t.Size == 8 {
			return scalar(Float, t, floatPrim)
		}
		return unknown(t.Name)
	case types.Pointer:
		return c.pointer(t)
	case types.Array:
		if t.Size == 0 {
			return Class{Kind: ZST, align: t.Align}
		}
		return memory(t)
	case types.Struct, types.Tuple:
		if strings.Contains(t.Name, "::core_arch::") || strings.Contains(t.Name, "core_simd::") {
			return unknown("SIMD type")
		}
		return c.fields(t, t.Fields, c.reprC && !inStd(t.Name), nesting)
	case types.Enum:
		return c.enum(t, nesting)
	case types.Union:
		return c.union(t, nesting)
	case types.Coroutine:
		return memory(t)
	}
	return unknown(t.Kind.String() + " type")
}

func scalar(k Kind, t *types.Type, p prim) Class {
	return Class{Kind: k, Size: t.Size, align: t.Size, prim: p}
}

func memory(t *types.Type) Class {
	if t.Size == 0 {
		return Class{Kind: ZST, align: t.Align}
	}
	return Class{Kind: Memory, Size: t.Size, align: t.Align}
}

func (c *classifier) pointer(t *types.Type) Class {
	if t.Pointer == nil {
		return unknown("pointer")
	}
	if t.Pointer.Meta == types.Thin {
		return Class{Kind: Scalar, Size: 8, align: 8, prim: pointerPrim}
	}
	meta := Part{Kind: Scalar, Off: 8, Size: 8, align: 8, prim: uintPrim}
	if t.Pointer.Meta == types.VTable {
		meta.prim = pointerPrim
	}
	return Class{Kind: Pair, Size: 16, align: 8,
		A: Part{Kind: Scalar, Size: 8, align: 8, prim: pointerPrim}, B: meta}
}

// isScalar says whether LLVM sees one scalar.
func (c Class) isScalar() bool { return c.Kind == Scalar || c.Kind == Float || c.Kind == Int128 }

func (c Class) part(off int64) Part {
	return Part{Kind: c.Kind, Off: off, Size: c.Size, align: c.align, prim: c.prim}
}

// pair is what rustc's scalar_pair makes of a and b if their offsets in t are the
// natural ones and they fill t; else t is memory.
func pair(t *types.Type, a, b Part) Class {
	if a.Off > b.Off {
		a, b = b, a
	}
	align := max(a.align, b.align)
	if a.Off != 0 || b.Off != roundUp(a.Size, b.align) || t.Size != roundUp(b.Off+b.Size, align) || !sameAlign(t, align) {
		return memory(t)
	}
	return Class{Kind: Pair, Size: t.Size, align: align, A: a, B: b}
}

func roundUp(n, align int64) int64 { return (n + align - 1) / align * align }

// sameAlign says whether t is aligned to align, as far as is known.
func sameAlign(t *types.Type, align int64) bool { return t.Align == 0 || t.Align == align }

// fields is a struct, a tuple, a closure, or an enum as its one variant with data.
func (c *classifier) fields(t *types.Type, fields []types.Field, reprC bool, nesting int) Class {
	if t.Size == 0 {
		return Class{Kind: ZST, align: t.Align}
	}
	var at []types.Field
	var cs []Class
	for _, f := range fields {
		k := c.class(f.Type, nesting+1)
		if k.Kind == Unknown {
			return k
		}
		if k.Kind == ZST {
			continue
		}
		at, cs = append(at, f), append(cs, k)
	}
	switch {
	case len(cs) == 1 && at[0].Offset == 0 && cs[0].Size == t.Size && sameAlign(t, cs[0].align):
		if cs[0].isScalar() && reprC {
			return memory(t)
		}
		return cs[0]
	case len(cs) == 2 && cs[0].isScalar() && cs[1].isScalar():
		return pair(t, cs[0].part(at[0].Offset), cs[1].part(at[1].Offset))
	}
	return memory(t)
}

// inStd says whether a type's layout is std's own business, whose wrappers are
// repr(Rust) or repr(transparent), or the language's.
func inStd(name string) bool {
	for _, p := range [...]string{"core::", "alloc::", "std::", "(", "{"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return strings.Contains(name, "::{closure_env#")
}

func (c *classifier) union(t *types.Type, nesting int) Class {
	var common Class
	n := 0
	for _, f := range t.Fields {
		k := c.class(f.Type, nesting+1)
		if k.Kind == Unknown {
			return k
		}
		if k.Kind == ZST {
			continue
		}
		if n++; n > 1 && k != common {
			return memory(t)
		}
		common = k
	}
	if n == 0 || common.Size != t.Size || !sameAlign(t, common.align) || c.reprC && !inStd(t.Name) {
		return memory(t)
	}
	return common
}

func (c *classifier) enum(t *types.Type, nesting int) Class {
	e := t.Enum
	switch {
	case e == nil:
		return unknown("enum")
	case t.Size == 0:
		return Class{Kind: ZST, align: t.Align}
	case e.CLike:
		return scalar(Scalar, t, tagPrim(e.Tag))
	case e.Tag == nil:
		i := e.Only()
		if i < 0 {
			return unknown("no inhabited variant")
		}
		return c.fields(t, e.Variants[i].Fields, false, nesting)
	}
	for i, v := range e.Variants {
		if len(v.Values) == 0 && !v.Uninhabited {
			return c.niche(t, i, nesting)
		}
	}
	return c.tagged(t, nesting)
}

func tagPrim(d *types.Discr) prim {
	if d != nil && d.Signed {
		return intPrim
	}
	return uintPrim
}

// niche is an enum whose variant data holds the tag in its own bytes: it is as
// that variant if no other has any.
func (c *classifier) niche(t *types.Type, data int, nesting int) Class {
	for i, v := range t.Enum.Variants {
		for _, f := range v.Fields {
			if i != data && c.class(f.Type, nesting+1).Kind != ZST {
				return memory(t)
			}
		}
	}
	return c.fields(t, t.Enum.Variants[data].Fields, false, nesting)
}

// tagged is an enum with a tag of its own: a scalar if that is all, a pair if each
// variant has at most one scalar beside it, all at one offset and of one primitive.
func (c *classifier) tagged(t *types.Type, nesting int) Class {
	tag := t.Enum.Tag
	part := Part{Kind: Scalar, Off: tag.Offset, Size: int64(tag.Size), align: int64(tag.Size), prim: tagPrim(tag)}
	if part.Size == 16 {
		part.Kind = Int128
		if c.rules == Rust163 {
			part.align = 8
		}
	}
	if part.Size == t.Size {
		return Class{Kind: part.Kind, Size: part.Size, align: part.align, prim: part.prim}
	}
	var common Part
	for _, v := range t.Enum.Variants {
		n := 0
		for _, f := range v.Fields {
			k := c.class(f.Type, nesting+1)
			if k.Kind == Unknown {
				return k
			}
			if k.Kind == ZST {
				continue
			}
			if n++; n > 1 || !k.isScalar() {
				return memory(t)
			}
			p := k.part(f.Offset)
			if common.Kind == Unknown {
				common = p
			} else if c.rules == Rust163 && common.prim != p.prim || !unify(&common, p) {
				return memory(t)
			}
		}
	}
	if common.Kind == Unknown {
		return memory(t)
	}
	return pair(t, part, common)
}

// unify makes common what it and p have in common: integers of one size are one
// whatever their sign, and a pointer counts as an integer of its size.
func unify(common *Part, p Part) bool {
	if common.Off != p.Off || common.Size != p.Size || common.Kind != p.Kind || common.align != p.align {
		return false
	}
	if common.prim != p.prim {
		common.prim = uintPrim
	}
	return true
}
