package abi

import (
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

// Broken types are unknown, and soon.
func TestClassifyBroken(t *testing.T) {
	self := &types.Type{Name: "t::Self", Kind: types.Struct, Size: 8}
	self.Fields = []types.Field{{Name: "a", Type: self}, {Name: "b", Type: self}}
	wide := &types.Type{Name: "u64", Kind: types.Uint, Size: 8}
	for range 60 {
		wide = &types.Type{Name: "t::W", Kind: types.Struct, Size: 8, Fields: []types.Field{{Type: wide}, {Type: wide}, {Type: wide}}}
	}
	for _, ty := range []*types.Type{nil, {}, {Kind: types.Enum, Size: 4}, {Kind: types.Pointer, Size: 8}, {Kind: types.Str, Size: 1}, self, wide,
		{Kind: types.Float, Size: 16, Name: "f128"}} {
		if p := Result(ty); p.Kind != Unclear || p.Why == "" {
			t.Errorf("%+v: %v", ty, p)
		}
		if p := Params([]*types.Type{ty}, nil)[0]; p.Kind != Unclear {
			t.Errorf("%+v: %v", ty, p)
		}
	}
}

// Whether a wrapper is #[repr(C)] matters in some places, and debug info does not
// tell.
func TestDoubt(t *testing.T) {
	u64 := &types.Type{Name: "u64", Kind: types.Uint, Size: 8, Align: 8}
	f64 := &types.Type{Name: "f64", Kind: types.Float, Size: 8, Align: 8}
	wrap := func(name string, inner *types.Type) *types.Type {
		return &types.Type{Name: name, Kind: types.Struct, Size: inner.Size, Align: inner.Align, Fields: []types.Field{{Name: "__0", Type: inner}}}
	}
	pair := func(a, b *types.Type) *types.Type {
		return &types.Type{Name: "(A, B)", Kind: types.Tuple, Size: 16, Align: 8, Fields: []types.Field{{Name: "__0", Type: a}, {Name: "__1", Offset: 8, Type: b}}}
	}
	for _, c := range []struct {
		t     *types.Type
		doubt bool
	}{
		{u64, false},
		{wrap("t::Id", u64), false}, // rax either way
		{wrap("t::Meters", f64), true},
		{wrap("core::num::wrapping::Wrapping<f64>", f64), false},
		{pair(u64, u64), false},
		{pair(wrap("t::Id", u64), u64), true},
		{wrap("t::Pair", pair(u64, u64)), false}, // pairs are unwrapped all the same
	} {
		if p := Result(c.t); p.Kind != Direct || (p.Doubt != "") != c.doubt {
			t.Errorf("%s: %+v", c.t.Name, p)
		}
	}
	// An Option of a wrapper is two registers, or in memory: then the first parameter
	// is not in rdi.
	option := pair(u64, wrap("t::Id", u64))
	all := Current.Predict([]*types.Type{u64}, option)
	if len(all) != 2 || all[0].Result.Kind != Direct || all[1].Result.Kind != Indirect ||
		all[0].Params[0].Location.Pieces[0].Reg != location.RDI || all[1].Params[0].Location.Pieces[0].Reg != location.RSI {
		t.Errorf("%+v", all)
	}
	if all := Current.Predict([]*types.Type{u64}, nil); len(all) != 1 {
		t.Errorf("%+v", all)
	}
	// What follows a doubtful parameter is doubtful too.
	if p := Params([]*types.Type{pair(wrap("t::Id", u64), u64), u64}, nil); p[1].Doubt == "" {
		t.Errorf("%+v", p)
	}
}
