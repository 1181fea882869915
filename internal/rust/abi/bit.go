package abi

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

// oneBits takes the low bit of those registers of a pair that hold what LLVM knows as
// i1: a bool, or a tag of 0 and 1 (rustc_abi's Scalar::is_bool). An i1 in a pair that
// is returned is not extended, so that the other bits are anything; one that is
// returned alone, or passed, has the attribute zeroext.
func oneBits(t *types.Type, p Place) Place {
	if p.Kind != Direct || len(p.Location.Pieces) < 2 {
		return p
	}
	for i := range p.Location.Pieces {
		q := &p.Location.Pieces[i]
		if q.Kind == location.Register && q.Size == 1 && oneBit(t, int64(q.Offset), 0) {
			*q = location.Piece{Offset: q.Offset, Size: 1, Kind: location.Value, Expr: location.Expr{
				{Kind: location.OpRegister, Reg: q.Reg}, {Kind: location.OpConst, Arg: 1}, {Kind: location.OpAnd}}}
		}
	}
	return p
}

// oneBit says whether the scalar at off in t is 0 or 1. The payload of an enum with a
// tag of its own does not count: its variants' scalars are merged to a plain integer.
func oneBit(t *types.Type, off int64, nesting int) bool {
	if nesting > maxNesting {
		return false
	}
	switch t.Kind {
	case types.Bool:
		return off == 0
	case types.Struct, types.Tuple:
		for _, f := range t.Fields {
			if f.Type != nil && f.Type.Size > 0 && f.Offset <= off && off < f.Offset+f.Type.Size {
				return oneBit(f.Type, off-f.Offset, nesting+1)
			}
		}
	case types.Enum:
		e := t.Enum
		if e == nil || e.Tag == nil {
			if e != nil && e.Only() >= 0 {
				return oneBit(&types.Type{Kind: types.Struct, Fields: e.Variants[e.Only()].Fields}, off, nesting+1)
			}
			return false
		}
		if e.Tag.Offset != off || e.Tag.Size != 1 {
			return nicheData(e, off, nesting)
		}
		for _, v := range e.Variants {
			if len(v.Values) == 0 && !v.Uninhabited {
				return false // a niche: more values than two
			}
			for _, r := range v.Values {
				if r.Hi.Cmp(types.U128{Lo: 1}) > 0 {
					return false
				}
			}
		}
		return true
	}
	return false
}

// nicheData looks into the variant with data of an enum whose tag is a niche of it.
func nicheData(e *types.EnumInfo, off int64, nesting int) bool {
	for _, v := range e.Variants {
		if len(v.Values) == 0 && !v.Uninhabited {
			return oneBit(&types.Type{Kind: types.Struct, Fields: v.Fields}, off, nesting+1)
		}
	}
	return false
}
