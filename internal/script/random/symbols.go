// Package random makes what tests of the probe language are run on: scripts of all
// constructs, which mean something and always the same, and a program that they trace, of
// which no file is needed.
package random

import (
	"fmt"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/check"
)

// Symbols is a program with the functions app::f, app::g (which lacks some of f's
// arguments) and app::plain (without debug info).
type Symbols struct{}

func number(name string, kind types.Kind, size int64) *types.Type {
	return &types.Type{Name: name, Kind: kind, Size: size, Align: size}
}

var (
	u8t  = number("u8", types.Uint, 1)
	u32t = number("u32", types.Uint, 4)
	u64t = number("u64", types.Uint, 8)
	i16t = number("i16", types.Int, 2)
	i64t = number("i64", types.Int, 8)

	strType    = pointer("&str", types.Ref, types.Length, types.StrBytes)
	stringType = &types.Type{Name: "alloc::string::String", Kind: types.Struct, Size: 24, Align: 8,
		Std: &types.StdInfo{Kind: types.String, Ptr: 8, Len: 16, Elem: types.StrBytes}}
	kindType = &types.Type{Name: "app::Kind", Kind: types.Enum, Size: 1, Align: 1, Enum: &types.EnumInfo{CLike: true, Tag: &types.Discr{Size: 1},
		Variants: []types.Variant{{Name: "Fruit", Values: just(0)}, {Name: "Tool", Values: just(1)}}}}
	personType = structure("app::Person", types.Field{Name: "name", Type: stringType}, types.Field{Name: "age", Type: u8t})
	itemType   = structure("app::Item", types.Field{Name: "id", Type: u32t}, types.Field{Name: "price", Type: i64t},
		types.Field{Name: "name", Type: stringType}, types.Field{Name: "dims", Type: tuple(u8t, i16t)}, types.Field{Name: "kind", Type: kindType},
		types.Field{Name: "owner", Type: personType}, types.Field{Name: "tags", Type: vec(stringType)}, types.Field{Name: "fresh", Type: number("bool", types.Bool, 1)})
	nodeType = &types.Type{Name: "app::Node", Kind: types.Struct}
)

func init() {
	*nodeType = *structure("app::Node", types.Field{Name: "value", Type: u32t}, types.Field{Name: "next", Type: pointer("*const app::Node", types.ConstPtr, types.Thin, nodeType)})
}

func just(n uint64) []types.Interval {
	v := types.U128{Lo: n}
	return []types.Interval{{Lo: v, Hi: v}}
}

func pointer(name string, kind types.PointerKind, meta types.Meta, to *types.Type) *types.Type {
	t := &types.Type{Name: name, Kind: types.Pointer, Size: 8, Align: 8, Pointer: &types.PointerInfo{Kind: kind, Meta: meta, Target: to}}
	if meta != types.Thin {
		t.Size, t.Pointer.MetaOff = 16, 8
	}
	return t
}

func structure(name string, fields ...types.Field) *types.Type {
	t := &types.Type{Name: name, Kind: types.Struct, Align: 8}
	for _, f := range fields {
		f.Offset = (t.Size + f.Type.Align - 1) / f.Type.Align * f.Type.Align
		t.Size = f.Offset + f.Type.Size
		t.Fields = append(t.Fields, f)
	}
	t.Size = (t.Size + 7) / 8 * 8
	return t
}

func tuple(of ...*types.Type) *types.Type {
	var fields []types.Field
	var names []string
	for i, t := range of {
		fields = append(fields, types.Field{Name: fmt.Sprintf("__%d", i), Type: t})
		names = append(names, t.Name)
	}
	t := structure("("+strings.Join(names, ", ")+")", fields...)
	t.Kind = types.Tuple
	return t
}

func vec(of *types.Type) *types.Type {
	return &types.Type{Name: "alloc::vec::Vec<" + of.Name + ">", Kind: types.Struct, Size: 24, Align: 8, Std: &types.StdInfo{Kind: types.Vec, Ptr: 8, Len: 16, Elem: of}}
}

// either is an enum with a tag of 8 bytes and data behind it.
func either(name string, variants ...types.Variant) *types.Type {
	t := &types.Type{Name: name, Kind: types.Enum, Size: 32, Align: 8, Enum: &types.EnumInfo{Tag: &types.Discr{Size: 8}}}
	for i, v := range variants {
		v.Values = just(uint64(i))
		v.Type = &types.Type{Name: name + "::" + v.Name, Kind: types.Struct, Size: 32, Align: 8, Fields: v.Fields}
		t.Enum.Variants = append(t.Enum.Variants, v)
	}
	return t
}

func holding(name string, of *types.Type) types.Variant {
	return types.Variant{Name: name, Fields: []types.Field{{Name: "__0", Offset: 8, Type: of}}}
}

// params are app::f's.
var params = []check.Arg{
	{Name: "n", Type: number("i32", types.Int, 4)},
	{Name: "u", Type: u8t},
	{Name: "big", Type: u64t},
	{Name: "flag", Type: number("bool", types.Bool, 1)},
	{Name: "ch", Type: number("char", types.Char, 4)},
	{Name: "real", Type: number("f64", types.Float, 8)},
	{Name: "name", Type: strType},
	{Name: "owned", Type: stringType},
	{Name: "kind", Type: kindType},
	{Name: "item", Type: pointer("&app::Item", types.Ref, types.Thin, itemType)},
	{Name: "whole", Type: itemType},
	{Name: "opt", Type: either("core::option::Option<u32>", types.Variant{Name: "None"}, holding("Some", u32t))},
	{Name: "res", Type: either("core::result::Result<u64, &str>", holding("Ok", u64t), holding("Err", strType))},
	{Name: "words", Type: pointer("&alloc::vec::Vec<alloc::string::String>", types.Ref, types.Thin, vec(stringType))},
	{Name: "bytes", Type: pointer("&[u8]", types.Ref, types.Length, &types.Type{Name: "[u8]", Kind: types.Slice, Size: 1, Align: 1, Elem: u8t})},
	{Name: "list", Type: &types.Type{Name: "[u32; 4]", Kind: types.Array, Size: 16, Align: 4, Elem: u32t, Count: 4}},
	{Name: "node", Type: pointer("*const app::Node", types.ConstPtr, types.Thin, nodeType)},
	{Name: "gone", Type: u64t, Missing: location.OptimizedOut},
	{Name: "odd", Type: &types.Type{Name: "u128", Kind: types.Uint, Size: 16, Align: 16}},
}

// Sites implements check.Symbols.
func (Symbols) Sites(p *ast.AttachPoint) ([]*check.Site, error) {
	ret := p.Provider == ast.Uretprobe
	site := func(name string, args []check.Arg) *check.Site {
		s := &check.Site{Probe: string(p.Provider) + ":" + name, Func: name, Args: args}
		if ret {
			s.Result = &check.Arg{Name: "retval", Type: params[12].Type}
		}
		return s
	}
	f, g := site("app::f", params), site("app::g", params[:9])
	if ret {
		g.Result = &check.Arg{Name: "retval", Type: i64t, Missing: "unsupported: result may have been removed"}
	}
	plain := site("app::plain", nil)
	plain.Result, plain.NoArgs = nil, "there is no debug info of them"
	switch p.Func {
	case "app::f":
		return []*check.Site{f}, nil
	case "app::g":
		return []*check.Site{g}, nil
	case "app::plain":
		return []*check.Site{plain}, nil
	case "app::*":
		return []*check.Site{f, g}, nil
	}
	return nil, fmt.Errorf("nothing is called %s", p.Func)
}

// Type implements check.Symbols.
func (Symbols) Type(name string) *types.Type {
	for _, t := range []*types.Type{itemType, personType, nodeType, kindType} {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Symbol implements check.Symbols.
func (Symbols) Symbol(_ *check.Site, name string) (addr, size uint64, ok bool) {
	return 0x4000, 8, name == "LIMIT"
}

// Slot is how far apart the arguments are in the memory that rdi leads to at each site.
const Slot = 256

// Program is a checked script with its handlers at sites, of which every value is in
// memory: argument i at rdi + i*Slot, the result at rax.
func Program(out *check.Output) *program.Program {
	p := &program.Program{Script: out.Script, Limits: program.DefaultLimits}
	for i, u := range out.Uses {
		it := program.Item{Kind: program.Run, Handler: u.Handler, Cond: -1, Count: -1, CFA: location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 8}}}
		for _, r := range u.Roots {
			v := program.Value{}
			reg, off := location.RAX, int64(0)
			if r == check.Result {
				v.Type = u.Site.Result.Type
			} else {
				v.Name, v.Type = u.Site.Args[r].Name, u.Site.Args[r].Type
				reg, off = location.RDI, int64(r*Slot)
			}
			v.Place = location.Place{Pieces: []location.Piece{{Kind: location.Memory, Size: int(v.Type.Size), Expr: location.Expr{{Kind: location.OpRegister, Reg: reg, Arg: off}}}}}
			it.Values = append(it.Values, v)
		}
		n := uint32(len(out.Script.Names))
		out.Script.Names = append(out.Script.Names, u.Site.Func, u.Site.Probe)
		out.Script.Words = append(out.Script.Words, ir.Words{Func: n, Probe: n + 1})
		addr := uint64(0x1000 + 16*i)
		p.Probes = append(p.Probes, program.Probe{Path: "app", Addr: addr, Offset: addr, Items: []program.Item{it}})
	}
	return p
}
