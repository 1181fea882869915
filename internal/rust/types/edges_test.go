package types

import (
	"fmt"
	"strings"
	"testing"
)

var (
	tU8  = &Type{Name: "u8", Kind: Uint, Size: 1, Align: 1}
	tU64 = &Type{Name: "u64", Kind: Uint, Size: 8, Align: 8}
	tStr = &Type{Name: "&str", Kind: Pointer, Size: 16, Align: 8,
		Pointer: &PointerInfo{Kind: Ref, Target: StrBytes, Meta: Length, MetaOff: 8}}
)

func vec(elem *Type) *Type {
	return &Type{Name: "alloc::vec::Vec<" + elem.Name + ">", Kind: Struct, Size: 24, Align: 8,
		Std: &StdInfo{Kind: Vec, Ptr: 8, Len: 16, Elem: elem}}
}

func ref(to *Type) *Type {
	return &Type{Name: "&" + to.Name, Kind: Pointer, Size: 8, Align: 8, Pointer: &PointerInfo{Kind: Ref, Target: to}}
}

func one(v uint64) []Interval { return []Interval{{U128{Lo: v}, U128{Lo: v}}} }

// optionVec is Option<Vec<elem>>: None has a capacity that no vector has.
func optionVec(elem *Type) *Type {
	return &Type{Name: "core::option::Option<…>", Kind: Enum, Size: 24, Align: 8, Enum: &EnumInfo{
		Tag: &Discr{Size: 8},
		Variants: []Variant{
			{Name: "None", Values: one(1 << 63)},
			{Name: "Some", Fields: []Field{{"__0", 0, vec(elem)}}},
		}}}
}

func show(edges []Edge) string {
	var lines []string
	for _, e := range edges {
		s := fmt.Sprintf("%d/%d %s str=%v", e.Ptr, e.Len, e.Elem.Name, e.Str)
		for _, g := range e.Guards {
			s += fmt.Sprintf(" if %d:%d not=%v %x", g.Off, g.Size, g.Not, g.Want)
		}
		lines = append(lines, s)
	}
	return strings.Join(lines, "\n")
}

func TestEdges(t *testing.T) {
	pair := &Type{Name: "t::P", Kind: Struct, Size: 40, Align: 8, Fields: []Field{{"name", 24, tStr}, {"v", 0, optionVec(tU64)}}}
	void := &Type{Name: "t::Void", Kind: Enum, Enum: &EnumInfo{}}
	for _, c := range []struct {
		name string
		t    *Type
		want string
	}{
		{"plain", tU64, ""},
		{"str", tStr, "0/8 str str=true"},
		{"ref to ref", ref(ref(tU8)), "0/-1 &u8 str=false"},
		{"vec of nothing", vec(UnitType), ""},
		{"raw", &Type{Name: "*const u8", Kind: Pointer, Size: 8, Pointer: &PointerInfo{Kind: ConstPtr, Target: tU8}}, ""},
		{"guarded, in a struct", pair, "24/32 str str=true\n8/16 u64 str=false if 0:8 not=true [{{0 8000000000000000} {0 8000000000000000}}]"},
		{"array", &Type{Name: "[&str; 2]", Kind: Array, Size: 32, Elem: tStr, Count: 2}, "0/8 str str=true\n16/24 str str=true"},
		{"no tag", &Type{Name: "R", Kind: Enum, Size: 8, Enum: &EnumInfo{Variants: []Variant{
			{Name: "Ok", Fields: []Field{{"__0", 0, ref(tU8)}}},
			{Name: "Err", Fields: []Field{{"__0", 0, void}, {"__1", 0, tStr}}, Uninhabited: true}}}},
			"0/-1 u8 str=false"},
		{"selected by value", &Type{Name: "E", Kind: Enum, Size: 16, Enum: &EnumInfo{Tag: &Discr{Offset: 0, Size: 1}, Variants: []Variant{
			{Name: "A", Values: one(0xfe), Fields: []Field{{"x", 8, ref(tU8)}}}, {Name: "B", Values: one(1)}}}},
			"8/-1 u8 str=false if 0:1 not=false [{{0 fe} {0 fe}}]"},
	} {
		edges, complete := c.t.Edges()
		if got := show(edges); got != c.want || !complete {
			t.Errorf("%s: complete=%v\n%s\nwant\n%s", c.name, complete, got, c.want)
		}
	}
}

func TestEdgesBounded(t *testing.T) {
	self := &Type{Name: "t::Self", Kind: Struct, Size: 8}
	self.Fields = []Field{{"a", 0, self}, {"b", 0, self}}
	for _, big := range []*Type{
		{Name: "[&str; 1000000000]", Kind: Array, Size: 16e9, Elem: tStr, Count: 1e9},
		self,
	} {
		if edges, complete := big.Edges(); complete || len(edges) > MaxEdges {
			t.Errorf("%s: %d edges, complete=%v", big.Name, len(edges), complete)
		}
	}
	// Plain data is not searched, whatever its size.
	plain := &Type{Name: "[u8; 1000000000]", Kind: Array, Size: 1e9, Elem: tU8, Count: 1e9}
	if edges, complete := plain.Edges(); !complete || len(edges) != 0 {
		t.Errorf("[u8; N]: %d edges, complete=%v", len(edges), complete)
	}
}

func TestFind(t *testing.T) {
	e := optionVec(tU8).Enum
	if i := e.Find(U128{Lo: 1 << 63}); i != 0 {
		t.Error("niche value:", i)
	}
	if i := e.Find(U128{Lo: 5}); i != 1 {
		t.Error("data:", i)
	}
	e = &EnumInfo{Tag: &Discr{Size: 16}, Variants: []Variant{
		{Values: []Interval{{U128{Hi: 1 << 36}, U128{Hi: 1 << 36}}}},
		{Values: one(3)},
		{Uninhabited: true},
	}}
	for tag, want := range map[U128]int{{Hi: 1 << 36}: 0, {Lo: 3}: 1, {Lo: 4}: -1, {Hi: 1 << 36, Lo: 1}: -1} {
		if i := e.Find(tag); i != want {
			t.Errorf("%x: variant %d, want %d", tag, i, want)
		}
	}
}

func TestDisplay(t *testing.T) {
	for name, want := range map[string]string{
		"core::option::Option<alloc::vec::Vec<u8>>": "Option<Vec<u8>>",
		"(i32, &str)":                "(i32, &str)",
		"shop::option::Option<u8>":   "shop::option::Option<u8>",
		"&mut alloc::string::String": "&mut String",
		"fn(alloc::boxed::Box<dyn core::fmt::Debug>) -> alloc::string::String": "fn(Box<dyn core::fmt::Debug>) -> String",
	} {
		if got := (&Type{Name: name}).Display(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
