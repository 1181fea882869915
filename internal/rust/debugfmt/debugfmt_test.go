package debugfmt

import (
	"encoding/binary"
	"strings"
	"testing"

	"ferrotrace/internal/rust/types"
)

var (
	tU8    = &types.Type{Name: "u8", Kind: types.Uint, Size: 1, Align: 1}
	tU32   = &types.Type{Name: "u32", Kind: types.Uint, Size: 4, Align: 4}
	tBool  = &types.Type{Name: "bool", Kind: types.Bool, Size: 1, Align: 1}
	tChar  = &types.Type{Name: "char", Kind: types.Char, Size: 4, Align: 4}
	tStr   = wide("&str", types.StrBytes)
	tUnion = &types.Type{Name: "t::U", Kind: types.Union, Size: 4, Align: 4}
	tItem  = &types.Type{Name: "t::Item<u8>", Kind: types.Struct, Size: 24, Align: 8,
		Fields: []types.Field{{Name: "id", Offset: 16, Type: tU32}, {Name: "name", Offset: 0, Type: tStr}}}
)

func wide(name string, target *types.Type) *types.Type {
	return &types.Type{Name: name, Kind: types.Pointer, Size: 16, Align: 8,
		Pointer: &types.PointerInfo{Target: target, Meta: types.Length, MetaOff: 8}}
}

func thin(target *types.Type) *types.Type {
	return &types.Type{Name: "&" + target.Name, Kind: types.Pointer, Size: 8, Align: 8,
		Pointer: &types.PointerInfo{Target: target}}
}

func slice(elem *types.Type) *types.Type {
	return wide("&["+elem.Name+"]", &types.Type{Name: "[" + elem.Name + "]", Kind: types.Slice, Size: elem.Size, Elem: elem})
}

func tuple(fields ...*types.Type) *types.Type {
	t := &types.Type{Name: "(…)", Kind: types.Tuple, Align: 1}
	for _, f := range fields {
		t.Fields = append(t.Fields, types.Field{Name: "__0", Offset: t.Size, Type: f})
		t.Size += f.Size
	}
	return t
}

// words is little-endian 8-byte words.
func words(ws ...uint64) []byte {
	var b []byte
	for _, w := range ws {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

type memory map[uint64]Region

func (m memory) Region(_ *types.Type, addr uint64) (Region, bool) {
	r, ok := m[addr]
	return r, ok
}

func (m memory) Object(*types.Type, uint64) (*types.Type, bool) { return nil, false }

var opts = Options{MaxStr: 8, MaxItems: 3, Depth: 2}

func check(t *testing.T, what string, got, want Result) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestLimits(t *testing.T) {
	mem := memory{
		1: {Bytes: []byte("pear")},
		2: {Bytes: []byte("0123456789")},
		3: {Bytes: []byte("0123456é")},            // limit within the é
		4: {Bytes: []byte("01\xc3"), Status: Cut}, // budget within the é
		5: {Bytes: []byte("01"), Status: Unreadable},
		6: {Status: Unreadable},
		7: {Bytes: []byte("a\xff\xc3z\"\n")},
		8: {Bytes: []byte{1, 2, 3, 4}},
		9: {Bytes: []byte{1, 2}, Status: Cut},
	}
	for _, c := range []struct {
		what string
		t    *types.Type
		addr uint64
		n    uint64
		want Result
	}{
		{"string", tStr, 1, 4, Result{Text: `"pear"`}},
		{"empty", tStr, 99, 0, Result{Text: `""`}},
		{"long", tStr, 2, 10, Result{Text: `"01234567…"`, Truncated: true}},
		{"char at the limit", tStr, 3, 9, Result{Text: `"0123456…"`, Truncated: true}},
		{"char at the budget", tStr, 4, 4, Result{Text: `"01…"`, Truncated: true}},
		{"half readable", tStr, 5, 4, Result{Text: `"01<unreadable>"`, Partial: true}},
		{"unreadable", tStr, 6, 4, Result{Missing: "unreadable"}},
		{"not followed", tStr, 99, 4, Result{Text: `…`, Truncated: true}},
		{"not UTF-8", tStr, 7, 6, Result{Text: `"a\xFF\xC3z\"\n"`}},
		{"absurd length", tStr, 1, 1 << 63, Result{Text: `<invalid length 0x8000000000000000>`, Partial: true}},
		{"slice", slice(tU8), 8, 3, Result{Text: `[1, 2, 3]`}},
		{"long slice", slice(tU8), 8, 4, Result{Text: `[1, 2, 3, …]`, Truncated: true}},
		{"cut slice", slice(tU8), 9, 3, Result{Text: `[1, 2, …]`, Truncated: true}},
		{"half readable slice", slice(tU8), 5, 3, Result{Text: `[48, 49, <unreadable>]`, Partial: true}},
		{"units", slice(types.UnitType), 0, 2, Result{Text: `[(), ()]`}},
		{"many units", slice(types.UnitType), 0, 1 << 62, Result{Text: `[(), (), (), …]`, Truncated: true}},
	} {
		check(t, c.what, Format(Value{Type: c.t, Bytes: words(c.addr, c.n)}, mem, opts), c.want)
	}
	deep := thin(thin(thin(tU8)))
	mem = memory{1: {Bytes: words(2)}, 2: {Bytes: words(3)}, 3: {Bytes: []byte{7}}}
	check(t, "depth", Format(Value{Type: deep, Bytes: words(1)}, mem, opts), Result{Text: "…", Truncated: true})
	check(t, "depth", Format(Value{Type: deep, Bytes: words(1)}, mem, Options{Depth: 3}), Result{Text: "7"})
}

func TestHoles(t *testing.T) {
	item := append(words(1, 4), 7, 0, 0, 0, 0, 0, 0, 0)
	mem := memory{1: {Bytes: []byte("pear")}}
	out := "optimized out"
	for _, c := range []struct {
		what  string
		holes []Hole
		want  Result
	}{
		{"none", nil, Result{Text: `Item { id: 7, name: "pear" }`}},
		{"padding", []Hole{{20, 4, out}}, Result{Text: `Item { id: 7, name: "pear" }`}},
		{"all", []Hole{{0, 24, out}}, Result{Missing: out}},
		{"all, by parts", []Hole{{0, 16, out}, {16, 8, out}}, Result{Missing: out}},
		{"field", []Hole{{16, 4, out}}, Result{Text: `Item { id: <unreadable>, name: "pear" }`, Partial: true}},
		{"length", []Hole{{8, 8, "unreadable"}}, Result{Text: `Item { id: 7, name: <unreadable> }`, Partial: true}},
		{"each field for a reason of its own", []Hole{{0, 16, out}, {16, 8, "unreadable"}}, Result{Missing: "unreadable"}},
	} {
		check(t, c.what, Format(Value{Type: tItem, Bytes: item, Holes: c.holes}, mem, opts), c.want)
	}
	check(t, "short", Format(Value{Type: tItem, Bytes: item[:16]}, mem, opts),
		Result{Text: `Item { id: <unreadable>, name: "pear" }`, Partial: true})
	check(t, "no bytes", Format(Value{Type: tItem}, mem, opts), Result{Missing: "unreadable"})
}

func TestInvalid(t *testing.T) {
	e := &types.Type{Name: "t::E", Kind: types.Enum, Size: 1, Enum: &types.EnumInfo{CLike: true, Tag: &types.Discr{Size: 1},
		Variants: []types.Variant{{Name: "A", Values: []types.Interval{{Lo: types.U128{Lo: 3}, Hi: types.U128{Lo: 3}}}}}}}
	for _, c := range []struct {
		t    *types.Type
		b    []byte
		want Result
	}{
		{tBool, []byte{1}, Result{Text: "true"}},
		{tBool, []byte{0x2a}, Result{Text: "<invalid 0x2a>", Partial: true}},
		{tChar, []byte{0, 0xd8, 0, 0}, Result{Text: "<invalid 0x0000d800>", Partial: true}},
		{tChar, []byte{0x2a, 0, 0, 0}, Result{Text: "'*'"}},
		{e, []byte{3}, Result{Text: "A"}},
		{e, []byte{4}, Result{Text: "<invalid 0x04>", Partial: true}},
		{tUnion, make([]byte, 4), Result{Missing: "unsupported: union"}},
		{tuple(tU8, tUnion), make([]byte, 5), Result{Text: "(0, <unreadable>)", Partial: true}},
		{tuple(tU8), []byte{9}, Result{Text: "(9,)"}},
		{types.UnitType, nil, Result{Text: "()"}},
		{&types.Type{Name: "a\x1b[31m::\x1b]0;", Kind: types.Struct}, nil, Result{Text: `\u{1b}]0;`}},
	} {
		check(t, c.t.Name, Format(Value{Type: c.t, Bytes: c.b}, nil, opts), c.want)
	}
}

// Broken graphs and huge values end, and soon.
func TestBounded(t *testing.T) {
	self := &types.Type{Name: "Self", Kind: types.Struct, Size: 1}
	self.Fields = []types.Field{{Name: "a", Type: self}, {Name: "b", Type: self}}
	wideSelf := thin(self)
	list := tuple(wideSelf, wideSelf)
	loop := &types.Type{Name: "Loop", Kind: types.Tuple, Size: 16}
	loop.Fields = []types.Field{{Name: "__0", Type: thin(loop)}, {Name: "__1", Offset: 8, Type: thin(loop)}}
	for _, ty := range []*types.Type{self, list, loop} {
		r := Format(Value{Type: ty, Bytes: words(1, 1)}, memory{1: {Bytes: words(1, 1)}}, Options{Depth: 64})
		if !r.Truncated || len(r.Text) > maxText+maxText/8 {
			t.Errorf("%s: %d bytes, truncated %v", ty.Name, len(r.Text), r.Truncated)
		}
	}
}

func TestIdent(t *testing.T) {
	for name, want := range map[string]string{
		"a::b::Item<c::D<e::F>>":                "Item",
		"Item":                                  "Item",
		"a::{impl#0}::f::Item":                  "Item",
		"a::f<b::C>::Item<u8>":                  "Item",
		"a::{closure_env#0}<fn(u8) -> x::Y>":    "{closure_env#0}",
		"a::G<fn(u8) -> x::Y>::Item<fn() -> u>": "Item",
		"a<":                                    "a",
		"":                                      "",
	} {
		if got := Ident(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestFunctionPointer(t *testing.T) {
	f := &types.Type{Name: "fn()", Kind: types.Pointer, Size: 8, Pointer: &types.PointerInfo{Kind: types.FnPtr, Target: &types.Type{Kind: types.Fn}}}
	o := Options{Func: func(a uint64) string { return map[uint64]string{16: "shop::add"}[a] }}
	check(t, "known", Format(Value{Type: f, Bytes: words(16)}, nil, o), Result{Text: "fn shop::add"})
	check(t, "unknown", Format(Value{Type: f, Bytes: words(17)}, nil, o), Result{Text: "0x11"})
}

// A type of std whose fields are not what they should be is not guessed at.
func TestStdUnknown(t *testing.T) {
	for name, want := range map[string]Result{
		"core::num::nonzero::NonZero<u8>":      {Text: "NonZero"},
		"alloc::vec::Vec<u8>":                  {Missing: "unsupported: Vec"},
		"alloc::rc::Rc<u8>":                    {Missing: "unsupported: Rc"},
		"core::time::Duration":                 {Text: "Duration"},
		"std::collections::hash::map::HashMap": {Missing: "unsupported: HashMap"},
	} {
		check(t, name, Format(Value{Type: &types.Type{Name: name, Kind: types.Struct, Size: 8}, Bytes: words(1)}, nil, opts), want)
	}
}

// std makes a container; its words are where a test puts them.
func std(name string, size int64, s types.StdInfo) *types.Type {
	return &types.Type{Name: name, Kind: types.Struct, Size: size, Align: 8, Std: &s}
}

func setElem(link *types.Type) *types.Type {
	link.Std.Elem = link
	return link
}

var (
	tPair = &types.Type{Name: "(u32, u8)", Kind: types.Tuple, Size: 8, Align: 4,
		Fields: []types.Field{{Name: "__0", Type: tU32}, {Name: "__1", Offset: 4, Type: tU8}}}
	tBucket = std("(u32, u8)", 8, types.StdInfo{Kind: types.Bucket, Item: types.Field{Type: tPair}})
	tTable  = std("HashMap", 24, types.StdInfo{Kind: types.Table, Ptr: 0, Cap: 8, Len: 16, Elem: tBucket})
	tRing   = std("VecDeque", 32, types.StdInfo{Kind: types.Ring, Ptr: 0, Cap: 8, Head: 16, Len: 24, Elem: tU32})
	tLeaf   = std("LeafNode", 16, types.StdInfo{Kind: types.TreeNode, Len: 0, Keys: types.Field{Offset: 2, Type: tU8}, Vals: types.Field{Offset: 2, Type: types.UnitType}})
	tInner  = std("InternalNode", 112, types.StdInfo{Kind: types.TreeNode, Len: 0, Keys: types.Field{Offset: 2, Type: tU8}, Vals: types.Field{Offset: 2, Type: types.UnitType},
		Children: 16, Child: tLeaf, Follow: 12})
	tTree  = std("BTreeSet", 24, types.StdInfo{Kind: types.Tree, Set: true, Ptr: 0, Height: 8, Len: 16, Nodes: []*types.Type{tLeaf, tInner}})
	tLink  = setElem(std("Node", 16, types.StdInfo{Kind: types.Link, Ptr: 0, Item: types.Field{Offset: 8, Type: tU32}}))
	tChain = std("LinkedList", 16, types.StdInfo{Kind: types.Chain, Ptr: 0, Len: 8, Elem: tLink})
)

// TestContainers are containers as they are, cut, changed while they were read, and of
// bytes that are none.
func TestContainers(t *testing.T) {
	node := func(n byte, keys ...byte) []byte {
		b := make([]byte, 16)
		b[0] = n
		copy(b[2:], keys)
		return b
	}
	inner := append(node(1, 5), words(30, 40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)...)
	leaves := memory{10: {Bytes: inner}, 30: {Bytes: node(2, 1, 2)}, 40: {Bytes: node(1, 9)}}
	// Of four buckets the second is in use: its byte, and its word from the end.
	table := append(words(0, 0, 4<<32|3, 0), 0xff, 7, 0xff, 0x80)
	for _, c := range []struct {
		name string
		t    *types.Type
		b    []byte
		m    memory
		want Result
	}{
		{"table", tTable, words(64, 3, 1), memory{64: {Bytes: table}}, Result{Text: "{3: 4}"}},
		{"empty table", tTable, words(64, 0, 0), nil, Result{Text: "{}"}},
		{"table, cut", tTable, words(64, 7, 2), memory{64: {Bytes: table}}, Result{Text: "{3: 4, …}", Truncated: true}},
		{"table, changed", tTable, words(64, 3, 2), memory{64: {Bytes: table}}, Result{Text: "{3: 4, <unreadable>}", Partial: true}},
		{"table, unreadable", tTable, words(64, 3, 2), memory{64: {Status: Unreadable}}, Result{Missing: "unreadable"}},
		{"table, not followed", tTable, words(64, 3, 2), nil, Result{Text: "…", Truncated: true}},
		{"ring", tRing, words(64, 4, 1, 2), memory{68: {Bytes: words(2<<32 | 1)}}, Result{Text: "[1, 2]"}},
		{"ring, wrapped", tRing, words(64, 4, 3, 2), memory{76: {Bytes: words(1)[:4]}, 64: {Bytes: words(2)[:4]}}, Result{Text: "[1, 2]"}},
		{"ring, rest not followed", tRing, words(64, 4, 3, 2), memory{76: {Bytes: words(1)[:4]}}, Result{Text: "[1, …]", Truncated: true}},
		{"ring, rest unreadable", tRing, words(64, 4, 3, 2), memory{76: {Bytes: words(1)[:4]}, 64: {Status: Unreadable}}, Result{Text: "[1, <unreadable>]", Partial: true}},
		{"no ring", tRing, words(64, 4, 4, 2), nil, Result{Text: "<invalid length 0x2>", Partial: true}},
		{"ring too long", tRing, words(64, 4, 0, 5), nil, Result{Text: "<invalid length 0x5>", Partial: true}},
		{"tree", tTree, words(10, 1, 4), leaves, Result{Text: "{1, 2, 5, 9}"}},
		{"leaf", tTree, words(30, 0, 2), leaves, Result{Text: "{1, 2}"}},
		{"empty tree", tTree, words(0, 0, 0), nil, Result{Text: "{}"}},
		{"tree, changed", tTree, words(10, 1, 5), leaves, Result{Text: "{1, 2, 5, 9, <unreadable>}", Partial: true}},
		{"tree, child not followed", tTree, words(10, 1, 4), memory{10: leaves[10], 30: leaves[30]}, Result{Text: "{1, 2, 5, …}", Truncated: true}},
		{"tree, child unreadable", tTree, words(10, 1, 4), memory{10: leaves[10], 30: {Status: Unreadable}}, Result{Text: "{<unreadable>}", Partial: true}},
		{"tree too high", tTree, words(10, 2, 4), leaves, Result{Text: "…", Truncated: true}},
		{"no node", tTree, words(10, 0, 4), memory{10: {Bytes: node(12)}}, Result{Text: "{<unreadable>}", Partial: true}},
		{"chain", tChain, words(8, 2), memory{8: {Bytes: words(9, 1)}, 9: {Bytes: words(0, 2)}}, Result{Text: "[1, 2]"}},
		{"empty chain", tChain, words(0, 0), nil, Result{Text: "[]"}},
		{"chain, cut", tChain, words(8, 2), memory{8: {Bytes: words(9, 1)}}, Result{Text: "[1, …]", Truncated: true}},
		{"chain in a circle", tChain, words(8, 100), memory{8: {Bytes: words(8, 1)}}, Result{Text: "[1, 1, 1, …]", Truncated: true}},
	} {
		o := opts
		o.MaxItems = 8
		if strings.HasSuffix(c.name, "circle") {
			o.MaxItems = 3
		}
		check(t, c.name, Format(Value{Type: c.t, Bytes: c.b}, c.m, o), c.want)
	}
}

func FuzzFormat(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00\x00\x00\x00\x00"), []byte("\xe2\x82"), 3)
	f.Add(words(64, 3, 1, 64, 4, 3, 2, 10, 1, 4, 8, 100), words(2, 3, 4, 5, 6, 7, 8), 300)
	all := tuple(tTable, tRing, tTree, tChain, tItem, tBool, tChar, slice(tStr), thin(tItem), slice(tItem))
	f.Fuzz(func(t *testing.T, value, mem []byte, hole int) {
		r := Format(Value{Type: all, Bytes: value, Holes: []Hole{{Off: hole, Size: 4, Why: "optimized out"}}},
			anywhere(mem), opts)
		if (r.Text == "") == (r.Missing == "") {
			t.Errorf("%+v", r)
		}
		if strings.ContainsFunc(r.Text, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			t.Errorf("control character in %q", r.Text)
		}
	})
}

// anywhere is memory with the same bytes at every address.
type anywhere []byte

func (m anywhere) Object(t *types.Type, vtable uint64) (*types.Type, bool) {
	impls := t.Impls()
	if len(impls) == 0 {
		return nil, vtable%2 == 0
	}
	return impls[vtable%uint64(len(impls))].Type, true
}

func (m anywhere) Region(*types.Type, uint64) (Region, bool) {
	return Region{Bytes: m, Status: Status(len(m) % 3)}, true
}
