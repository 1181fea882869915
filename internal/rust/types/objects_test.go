package types

import (
	"encoding/binary"
	"testing"

	"ferrotrace/internal/dwarf"
)

// image has words at addresses.
func image(words map[uint64]uint64) Image {
	return Image{Bytes: func(addr uint64) []byte {
		var b []byte
		for v, ok := words[addr]; ok; v, ok = words[addr] {
			b = binary.LittleEndian.AppendUint64(b, v)
			addr += 8
		}
		return b
	}}
}

// vtableOf is the entry of a vtable at addr, and that of its type.
func vtableOf(name string, addr uint64, of *die) []*die {
	t := d(dwarf.TagStructureType, name+"_type}", size_(24), attr{dwarf.AttrContainingType, dwarf.FormRef4, of})
	expr := binary.LittleEndian.AppendUint64([]byte{0x03}, addr)
	return []*die{t, d(dwarf.TagVariable, name+"}", typ(t), attr{dwarf.AttrLocation, dwarf.FormExprloc, expr})}
}

func TestObjects(t *testing.T) {
	align := func(n int) attr { return num(dwarf.AttrAlignment, n) }
	shape := structure("dyn a::Shape<u8> + core::marker::Send", 0)
	ptr := d(dwarf.TagPointerType, "", typ(shape))
	ref := structure("&dyn a::Shape<u8>", 16, member("pointer", 0, ptr), member("vtable", 8, dU64))
	square := d(dwarf.TagStructureType, "Square", size_(8), align(8), []*die{member("n", 0, dU64)})
	cell := d(dwarf.TagStructureType, "Cell<dyn a::Shape<u8>>", size_(2), align(2), []*die{member("flag", 0, dI16), member("value", 2, shape)})
	dead, other, twin := structure("Dead", 8, member("n", 0, dU64)), structure("Other", 8, member("n", 0, dU64)), structure("Twin", 8, member("n", 0, dU64))
	entries := []*die{dU64, dI16, shape, ptr, ref, square, cell, dead, other, twin}
	for _, v := range [][]*die{
		vtableOf("<Square as a::Shape<u8>>::{vtable", 0x1000, square),
		vtableOf("<Square as a::Shape<u16>>::{vtable", 0x1100, square), // the same trait with other arguments, seen first in another place
		vtableOf("<Square as a::Shaper>::{vtable", 0x1200, square),     // another trait
		vtableOf("<Dead as a::Shape<u8>>::{vtable", 0, dead),           // dropped by the linker
		vtableOf("<Dead as a::Shape<u8>>::{vtable", 0x5000, dead),      // not in the file
		vtableOf("<Other as a::Shape<u8>>::{vtable", 0x1300, other),    // of another size
		vtableOf("<Other as a::Shape<u8>>::{vtable", 0x1400, other),    // merged
		vtableOf("<Twin as a::Shape<u8>>::{vtable", 0x1400, twin),      // with this one's
		vtableOf("<fn(<u8 as b::B>::C) -> u8 as a::Shape<u8>>::{vtable", 0x1500, square),
	} {
		entries = append(entries, v...)
	}
	data, err := dwarf.New(build(entries...))
	if err != nil {
		t.Fatal(err)
	}
	words := map[uint64]uint64{}
	for _, addr := range []uint64{0x1000, 0x1100, 0x1200, 0x1300, 0x1400, 0x1500} {
		words[addr], words[addr+8], words[addr+16] = 0x9000, 8, 8
	}
	words[0x1308] = 16
	r := NewReader(data, image(words))
	read := func(e *die) *Type {
		t.Helper()
		ty, err := r.Type(dwarf.Offset(e.off))
		if err != nil {
			t.Fatal(err)
		}
		return ty
	}
	ty := read(ref)
	edges, complete := ty.Edges()
	if len(edges) != 1 || !complete || !edges[0].Elem.Object() || edges[0].Len != 8 {
		t.Fatalf("edges %+v", edges)
	}
	want := map[uint64]string{0x1000: "Square", 0x1100: "Square", 0x1400: "", 0x1500: "Square"}
	impls := ty.Pointer.Target.Impls()
	if len(impls) != len(want) {
		t.Errorf("%d types, want %d", len(impls), len(want))
	}
	for _, impl := range impls {
		name := ""
		if impl.Type != nil {
			name = impl.Type.Name
		}
		if w, ok := want[impl.VTable]; !ok || w != name {
			t.Errorf("vtable %#x is of %q, want %q", impl.VTable, name, w)
		}
	}
	// What ends in an object has the object where its alignment puts it.
	c := read(cell)
	if !c.Object() {
		t.Fatal("a Cell<dyn Shape> is no object")
	}
	for _, impl := range c.Impls() {
		if impl.VTable == 0x1000 && (impl.Type.Size != 16 || impl.Type.Align != 8 || impl.Type.Fields[1].Offset != 8 || impl.Type.Fields[1].Type.Name != "Square") {
			t.Errorf("a Cell<Square> is %+v", impl.Type)
		}
	}
	if c.Fields[1].Offset != 2 || read(square).Object() {
		t.Error("a type was changed")
	}
}

func TestTraitNames(t *testing.T) {
	for name, want := range map[string]string{
		"<u8 as core::fmt::Debug>::{vtable}":                                 "core::fmt::Debug",
		"<&dyn a::B as a::B>::{vtable}":                                      "a::B",
		"<a::f::{closure_env#0} as core::ops::function::Fn<(u8)>>::{vtable}": "core::ops::function::Fn",
		"<fn(<u8 as b::B>::C) -> u8 as a::Shape<u8>>::{vtable}":              "a::Shape",
		"<u8 as _>::{vtable}":                                                "_",
		"<u8 as core::fmt::Debug>::{vtable_type}":                            "",
		"<u8>::{vtable}":                                                     "",
		"u8 as core::fmt::Debug>::{vtable}":                                  "",
		">::{vtable}":                                                        "",
		"<>::{vtable}":                                                       "",
		"":                                                                   "",
	} {
		if got, _ := traitOf(name); got != want {
			t.Errorf("%s: trait %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"dyn core::fmt::Debug": "core::fmt::Debug",
		"(dyn core::error::Error + core::marker::Send + core::marker::Sync)": "core::error::Error",
		"dyn core::ops::function::Fn<(u32), Output=u32>":                     "core::ops::function::Fn",
		"dyn core::marker::Send":                                             "_",
		"(dyn core::marker::Send + core::marker::Sync)":                      "_",
		"dyn ": "",
		"":     "",
	} {
		if got := principal(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
