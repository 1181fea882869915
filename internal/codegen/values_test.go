package codegen

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/types"
)

// Types as rustc lays them out on x86-64; the target's structs are the same.
var (
	tI8   = &types.Type{Name: "i8", Kind: types.Int, Size: 1, Align: 1}
	tU8   = &types.Type{Name: "u8", Kind: types.Uint, Size: 1, Align: 1}
	tU16  = &types.Type{Name: "u16", Kind: types.Uint, Size: 2, Align: 2}
	tI32  = &types.Type{Name: "i32", Kind: types.Int, Size: 4, Align: 4}
	tU32  = &types.Type{Name: "u32", Kind: types.Uint, Size: 4, Align: 4}
	tU64  = &types.Type{Name: "u64", Kind: types.Uint, Size: 8, Align: 8}
	tI64  = &types.Type{Name: "i64", Kind: types.Int, Size: 8, Align: 8}
	tF64  = &types.Type{Name: "f64", Kind: types.Float, Size: 8, Align: 8}
	tBool = &types.Type{Name: "bool", Kind: types.Bool, Size: 1, Align: 1}
	tUnit = types.UnitType

	tStr    = &types.Type{Name: "&str", Kind: types.Pointer, Size: 16, Align: 8, Pointer: &types.PointerInfo{Target: types.StrBytes, Meta: types.Length, MetaOff: 8}}
	tString = &types.Type{Name: "alloc::string::String", Kind: types.Struct, Size: 24, Align: 8,
		Std: &types.StdInfo{Kind: types.String, Ptr: 8, Len: 16, Elem: types.StrBytes}}
	tPoint = structOf("shop::Point", 8, types.Field{Name: "x", Type: tI32}, types.Field{Name: "y", Offset: 4, Type: tI32})
	tNode  = node("list::Node")
)

// std makes a container of std, or a part of one.
func std(name string, size int64, s types.StdInfo) *types.Type {
	return &types.Type{Name: name, Kind: types.Struct, Size: size, Align: 8, Std: &s}
}

// containers are what target.c makes by that name.
func containers() []program.Value {
	bucket := structOf("(&str, ())", 16, types.Field{Name: "__0", Type: tStr}, types.Field{Name: "__1", Type: tUnit})
	bucket.Kind = types.Tuple
	link := std("Node", 24, types.StdInfo{Kind: types.Link, Item: types.Field{Offset: 8, Type: tStr}})
	link.Std.Elem = link
	node := types.StdInfo{Kind: types.TreeNode, Len: 176, Keys: types.Field{Type: tStr}, Vals: types.Field{Type: tUnit}}
	leaf := std("LeafNode", 184, node)
	node.Children, node.Child, node.Follow = 184, leaf, types.NodeCap+1
	inner := std("InternalNode", 280, node)
	return []program.Value{
		by("table", std("HashSet", 24, types.StdInfo{Kind: types.Table, Cap: 8, Len: 16, Set: true,
			Elem: std("(&str, ())", 16, types.StdInfo{Kind: types.Bucket, Item: types.Field{Type: bucket}})}), location.RDI),
		by("ring", std("VecDeque", 32, types.StdInfo{Kind: types.Ring, Cap: 8, Head: 16, Len: 24, Elem: tStr}), location.RSI),
		by("chain", std("LinkedList", 16, types.StdInfo{Kind: types.Chain, Len: 8, Elem: link}), location.RDX),
		by("tree", std("BTreeSet", 24, types.StdInfo{Kind: types.Tree, Set: true, Height: 8, Len: 16, Nodes: []*types.Type{leaf, inner}}), location.RCX),
		by("shared", std("Rc", 8, types.StdInfo{Kind: types.Shared, Len: -1, Add: 16, Elem: tStr}), location.R8),
	}
}

func structOf(name string, size int64, fields ...types.Field) *types.Type {
	return &types.Type{Name: name, Kind: types.Struct, Size: size, Align: 8, Fields: fields}
}

func refTo(t *types.Type) *types.Type {
	return &types.Type{Name: "&" + t.Name, Kind: types.Pointer, Size: 8, Align: 8, Pointer: &types.PointerInfo{Target: t}}
}

func vecOf(t *types.Type) *types.Type {
	return &types.Type{Name: "alloc::vec::Vec<" + t.Name + ">", Kind: types.Struct, Size: 24, Align: 8,
		Std: &types.StdInfo{Kind: types.Vec, Ptr: 8, Len: 16, Elem: t}}
}

func arrayOf(t *types.Type, n int64) *types.Type {
	return &types.Type{Name: "[" + t.Name + "]", Kind: types.Array, Size: n * t.Size, Align: t.Align, Elem: t, Count: n}
}

// node is struct Node { next: Option<&Node>, value: u64 }.
func node(name string) *types.Type {
	n := structOf(name, 16)
	n.Fields = []types.Field{{Name: "next", Type: option(refTo(n))}, {Name: "value", Offset: 8, Type: tU64}}
	return n
}

// option is Option<t> of a pointer, with 0 for None.
func option(t *types.Type) *types.Type {
	return &types.Type{Name: "core::option::Option<" + t.Name + ">", Kind: types.Enum, Size: 8, Align: 8, Enum: &types.EnumInfo{
		Tag: &types.Discr{Size: 8},
		Variants: []types.Variant{
			{Name: "None", Values: []types.Interval{{}}},
			{Name: "Some", Fields: []types.Field{{Name: "__0", Type: t}}},
		},
	}}
}

// choice is enum Choice { Number(u64), Text(&str), Boxed(Box<&str>) }.
func choice() *types.Type {
	box := refTo(tStr)
	box.Pointer.Kind = types.Box
	is := func(n uint64) []types.Interval {
		return []types.Interval{{Lo: types.U128{Lo: n}, Hi: types.U128{Lo: n}}}
	}
	return &types.Type{Name: "shop::Choice", Kind: types.Enum, Size: 24, Align: 8, Enum: &types.EnumInfo{
		Tag: &types.Discr{Size: 4},
		Variants: []types.Variant{
			{Name: "Number", Values: is(0), Fields: []types.Field{{Name: "__0", Offset: 8, Type: tU64}}},
			{Name: "Text", Values: is(1), Fields: []types.Field{{Name: "__0", Offset: 8, Type: tStr}}},
			{Name: "Boxed", Values: is(2), Fields: []types.Field{{Name: "__0", Offset: 8, Type: box}}},
		},
	}}
}

var cfaAtEntry = location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 8}}

// entry is an item that records values.
func entry(values ...program.Value) program.Item {
	return program.Item{Kind: program.Entry, CFA: cfaAtEntry, Cond: -1, Count: -1, Values: values}
}

func counting(i int) program.Item {
	return program.Item{Kind: program.Entry, Cond: -1, Count: i}
}

func value(name string, t *types.Type, pieces ...location.Piece) program.Value {
	return program.Value{Name: name, Type: t, Place: location.Place{Pieces: pieces}}
}

func inReg(off, size int, r location.Reg) location.Piece {
	return location.Piece{Offset: off, Size: size, Kind: location.Register, Reg: r}
}

func inMemory(off, size int, e ...location.Op) location.Piece {
	return location.Piece{Offset: off, Size: size, Kind: location.Memory, Expr: e}
}

func computed(off, size int, e ...location.Op) location.Piece {
	return location.Piece{Offset: off, Size: size, Kind: location.Value, Expr: e}
}

func constant(off int, b ...byte) location.Piece {
	return location.Piece{Offset: off, Size: len(b), Kind: location.Constant, Bytes: b}
}

func missing(off, size int, why string) location.Piece {
	return location.Piece{Offset: off, Size: size, Kind: location.Missing, Why: why}
}

func reg(r location.Reg) location.Op { return location.Op{Kind: location.OpRegister, Reg: r} }

// by is a value of type t at the address in a register.
func by(name string, t *types.Type, r location.Reg) program.Value {
	return value(name, t, inMemory(0, int(t.Size), reg(r)))
}

// programOf is a program with the default limits.
func programOf(probes ...program.Probe) *program.Program {
	p := &program.Program{Probes: probes, Limits: program.DefaultLimits}
	for _, probe := range probes {
		for _, it := range probe.Items {
			p.Counts = max(p.Counts, it.Count+1)
		}
	}
	return p
}
