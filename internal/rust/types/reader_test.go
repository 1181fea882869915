package types

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"ferrotrace/internal/dwarf"
)

// die is an entry of debug info made by hand.
type die struct {
	tag   dwarf.Tag
	attrs []attr
	kids  []*die
	off   int
}

type attr struct {
	at   dwarf.Attr
	form dwarf.Form
	val  any // string, int, []byte or *die
}

// d makes an entry; what are attributes and children.
func d(tag dwarf.Tag, name string, what ...any) *die {
	e := &die{tag: tag}
	if name != "" {
		e.attrs = append(e.attrs, attr{dwarf.AttrName, dwarf.FormString, name})
	}
	for _, w := range what {
		switch w := w.(type) {
		case attr:
			e.attrs = append(e.attrs, w)
		case *die:
			e.kids = append(e.kids, w)
		case []*die:
			e.kids = append(e.kids, w...)
		}
	}
	return e
}

func num(at dwarf.Attr, v int) attr     { return attr{at, dwarf.FormUdata, v} }
func byteNum(at dwarf.Attr, v int) attr { return attr{at, dwarf.FormData1, v} }
func typ(t *die) attr                   { return attr{dwarf.AttrType, dwarf.FormRef4, t} }
func size_(n int) attr                  { return num(dwarf.AttrByteSize, n) }
func member(name string, off int, t *die) *die {
	return d(dwarf.TagMember, name, typ(t), num(dwarf.AttrDataMemberLocation, off))
}
func base(name string, enc, size int) *die {
	return d(dwarf.TagBaseType, name, num(dwarf.AttrEncoding, enc), size_(size))
}
func structure(name string, size int, kids ...*die) *die {
	return d(dwarf.TagStructureType, name, size_(size), kids)
}

// build makes the sections of a unit with the entries, and sets their offsets.
func build(entries ...*die) dwarf.Sections {
	var info, abbrev []byte
	type patch struct {
		at int
		to *die
	}
	var patches []patch
	code := uint64(0)
	uleb := func(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
	var emit func(e *die)
	emit = func(e *die) {
		code++
		e.off = len(info)
		info = uleb(info, code)
		abbrev = uleb(uleb(abbrev, code), uint64(e.tag))
		if len(e.kids) > 0 {
			abbrev = append(abbrev, 1)
		} else {
			abbrev = append(abbrev, 0)
		}
		for _, a := range e.attrs {
			abbrev = uleb(uleb(abbrev, uint64(a.at)), uint64(a.form))
			switch a.form {
			case dwarf.FormString:
				info = append(append(info, a.val.(string)...), 0)
			case dwarf.FormUdata:
				info = uleb(info, uint64(a.val.(int)))
			case dwarf.FormData1:
				info = append(info, byte(a.val.(int)))
			case dwarf.FormData8:
				info = binary.LittleEndian.AppendUint64(info, uint64(a.val.(int)))
			case dwarf.FormBlock1, dwarf.FormExprloc:
				b := a.val.([]byte)
				info = append(append(info, byte(len(b))), b...)
			case dwarf.FormRef4:
				patches = append(patches, patch{len(info), a.val.(*die)})
				info = append(info, 0, 0, 0, 0)
			default:
				panic(a.form)
			}
		}
		abbrev = append(abbrev, 0, 0)
		if len(e.kids) > 0 {
			for _, k := range e.kids {
				emit(k)
			}
			info = append(info, 0)
		}
	}
	// DWARF 4, 32-bit format, abbreviations at 0, 8-byte addresses.
	info = append(info, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8)
	emit(d(dwarf.TagCompileUnit, "t.rs", num(dwarf.AttrLanguage, dwarf.LangRust), entries))
	binary.LittleEndian.PutUint32(info, uint32(len(info)-4))
	for _, p := range patches {
		binary.LittleEndian.PutUint32(info[p.at:], uint32(p.to.off))
	}
	return dwarf.Sections{Info: info, Abbrev: append(abbrev, 0)}
}

func reader(t testing.TB, entries ...*die) *Reader {
	t.Helper()
	data, err := dwarf.New(build(entries...))
	if err != nil {
		t.Fatal(err)
	}
	return NewReader(data, Image{})
}

var (
	dU8   = base("u8", dwarf.EncUnsigned, 1)
	dI16  = base("i16", dwarf.EncSigned, 2)
	dU32  = base("u32", dwarf.EncUnsigned, 4)
	dU64  = base("u64", dwarf.EncUnsigned, 8)
	dU128 = base("u128", dwarf.EncUnsigned, 16)
	dNev  = base("!", dwarf.EncUnsigned, 0)
	bases = slices.Clip([]*die{dU8, dI16, dU32, dU64, dU128, dNev})
)

func variantPart(tag *die, variants ...*die) *die {
	p := d(dwarf.TagVariantPart, "")
	if tag != nil {
		p.attrs = append(p.attrs, attr{dwarf.AttrDiscr, dwarf.FormRef4, tag})
		p.kids = append(p.kids, tag)
	}
	p.kids = append(p.kids, variants...)
	return p
}

func variant(value any, name string, t *die) *die {
	v := d(dwarf.TagVariant, "", member(name, 0, t))
	switch value := value.(type) {
	case attr:
		v.attrs = append(v.attrs, value)
	case int:
		v.attrs = append(v.attrs, num(dwarf.AttrDiscrValue, value))
	}
	return v
}

func TestReader(t *testing.T) {
	a, b := structure("A", 16, member("__0", 8, dU64)), structure("B", 16)
	enum := structure("E<u64>", 16, variantPart(member("", 0, dI16),
		variant(byteNum(dwarf.AttrDiscrValue, 0xfe), "A", a), variant(nil, "B", b)), a, b)
	w := structure("W", 32)
	wide := structure("Wide", 32, variantPart(member("", 0, dU128),
		variant(attr{dwarf.AttrDiscrValue, dwarf.FormBlock1, append(make([]byte, 15), 1)}, "W", w)), w)
	void := structure("Void", 0, variantPart(nil))
	ok, bad := structure("Ok", 1, member("__0", 0, dU8)), structure("Err", 1, member("__0", 0, void))
	result := structure("Result<u8, Void>", 1, variantPart(nil, variant(nil, "Ok", ok), variant(nil, "Err", bad)), ok, bad)
	clike := d(dwarf.TagEnumerationType, "C", typ(dI16), size_(2),
		d(dwarf.TagEnumerator, "X", byteNum(dwarf.AttrConstValue, 0xff)), d(dwarf.TagEnumerator, "Y", num(dwarf.AttrConstValue, 300)))
	array := d(dwarf.TagArrayType, "", typ(dU32), d(dwarf.TagSubrangeType, "", num(dwarf.AttrCount, 3)))
	nested := d(dwarf.TagArrayType, "", typ(array), d(dwarf.TagSubrangeType, "", num(dwarf.AttrCount, 2)))
	dataPtr := d(dwarf.TagPointerType, "", typ(dU32))
	slice := structure("&mut [u32]", 16, member("data_ptr", 0, dataPtr), member("length", 8, dU64))
	sub := d(dwarf.TagSubroutineType, "", typ(dU8), d(dwarf.TagFormalParameter, "", typ(dU32)))
	fn := d(dwarf.TagPointerType, "fn(u32) -> u8", typ(sub))
	items := structure("Items", 8, member("f", 0, fn), member("x", 0, dU64))
	list := structure("List", 8)
	next := d(dwarf.TagPointerType, "&a::List", typ(list))
	list.kids = []*die{member("next", 0, next)}
	ns := d(dwarf.TagNamespace, "a", d(dwarf.TagNamespace, "{impl#0}", enum), wide, list, clike, items)
	r := reader(t, append(bases, ns, void, result, array, nested, dataPtr, slice, sub, fn, next)...)

	get := func(e *die) *Type {
		t.Helper()
		ty, err := r.Type(dwarf.Offset(e.off))
		if err != nil {
			t.Fatal(err)
		}
		return ty
	}
	for _, c := range []struct {
		e    *die
		want string
	}{
		{enum, "a::{impl#0}::E<u64> enum 16: tag 0:2; A=fffe (__0@8 u64); B= ()"},
		{wide, "a::Wide enum 32: tag 0:16; W=1000000000000000000000000000000 ()"},
		{void, "Void enum 0: no tag"},
		{result, "Result<u8, Void> enum 1: no tag; Ok= (__0@0 u8); Err= (__0@0 Void) uninhabited"},
		{clike, "a::C enum 2: tag 0:2; X=ffff (); Y=12c ()"},
		{array, "[u32; 3] array 12 of u32"},
		{nested, "[[u32; 3]; 2] array 24 of [u32; 3]"},
		{slice, "&mut [u32] pointer 16 to [u32] slice 4 of u32"},
		{fn, "fn(u32) -> u8 pointer 8 to fn(u32) -> u8 fn 0"},
		{list, "a::List struct 8 (next@0 &a::List)"},
		{items, "a::Items struct 8 (f@0 fn(u32) -> u8 x@0 u64)"},
		{dNev, "! never 0"},
	} {
		if got := describe(get(c.e)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	if l := get(list); l.Fields[0].Type.Pointer.Target != l {
		t.Error("a list's next is not a list")
	}
	if f := get(items).Fields[0].Type; f.Kind != Fn || f.Size != 0 {
		t.Errorf("a function item is %v of %d bytes", f.Kind, f.Size)
	}
	if once, again := get(enum), get(enum); once != again {
		t.Error("a type is read twice")
	}
	if ty, err := r.Type(0); ty != UnitType || err != nil {
		t.Error(ty, err)
	}
}

// describe is a type in one line.
func describe(t *Type) string {
	var b strings.Builder
	fields := func(fs []Field) {
		b.WriteString(" (")
		for i, f := range fs {
			fmt.Fprintf(&b, "%s%s@%d %s", strings.Repeat(" ", min(i, 1)), f.Name, f.Offset, f.Type.Name)
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, "%s %v %d", t.Name, t.Kind, t.Size)
	switch {
	case t.Enum != nil:
		if t.Enum.Tag == nil {
			b.WriteString(": no tag")
		} else {
			fmt.Fprintf(&b, ": tag %d:%d", t.Enum.Tag.Offset, t.Enum.Tag.Size)
		}
		for _, v := range t.Enum.Variants {
			fmt.Fprintf(&b, "; %s=", v.Name)
			for _, i := range v.Values {
				if i.Lo.Hi != 0 {
					fmt.Fprintf(&b, "%x%016x", i.Lo.Hi, i.Lo.Lo)
				} else {
					fmt.Fprintf(&b, "%x", i.Lo.Lo)
				}
			}
			fields(v.Fields)
			if v.Uninhabited {
				b.WriteString(" uninhabited")
			}
		}
	case t.Pointer != nil:
		b.WriteString(" to " + describe(t.Pointer.Target))
	case t.Elem != nil:
		b.WriteString(" of " + t.Elem.Name)
	case t.Fields != nil:
		fields(t.Fields)
	}
	return b.String()
}

// Types that lie in one another in very many ways take no longer than others.
func TestReaderWide(t *testing.T) {
	var entries []*die
	prev := dU64
	for i := range 60 {
		s := structure(fmt.Sprint("alloc::vec::Vec<", i, ">"), 8, d(dwarf.TagTemplateTypeParameter, "T", typ(dU8)))
		for j := range 3 {
			s.kids = append(s.kids, member([]string{"buf", "len", "x"}[j], 0, prev))
		}
		prev = s
		entries = append(entries, s)
	}
	state := structure("Suspend0", 16, member("a", 0, prev))
	first := structure("Unresumed", 16, member("a", 0, prev))
	entries = append(entries, structure("{async_fn_env#0}", 16, variantPart(member("", 8, dU8), variant(0, "0", first), variant(3, "3", state)), first, state))
	r := reader(t, append(bases, entries...)...)
	for _, e := range entries {
		ty, err := r.Type(dwarf.Offset(e.off))
		if err != nil {
			t.Fatal(err)
		}
		ty.Edges()
	}
}

// Broken debug info is an error, or an opaque type; never a wrong layout.
func TestReaderBroken(t *testing.T) {
	self := structure("Self", 8)
	self.kids = []*die{member("a", 0, self), member("b", 0, self)}
	huge := d(dwarf.TagArrayType, "", typ(dU64), d(dwarf.TagSubrangeType, "", num(dwarf.AttrCount, 1<<46)))
	loop := d(dwarf.TagArrayType, "", d(dwarf.TagSubrangeType, "", num(dwarf.AttrCount, 2)))
	loop.attrs = append(loop.attrs, typ(loop))
	ptr := d(dwarf.TagPointerType, "")
	ptr.attrs = append(ptr.attrs, typ(ptr))
	sub := d(dwarf.TagSubroutineType, "")
	sub.kids = []*die{d(dwarf.TagFormalParameter, "", typ(sub)), d(dwarf.TagFormalParameter, "", typ(sub))}
	outside := structure("Outside", 8, member("x", 4, dU64))
	oddBool := base("bool", dwarf.EncBoolean, 4)
	tagless := structure("Tagless", 8, variantPart(member("", 16, dU8)))
	oddTag := structure("OddTag", 8, variantPart(member("", 0, self)))
	noType := d(dwarf.TagEnumerationType, "NoType", size_(1))
	wide := structure("&[u8]", 16, member("data_ptr", 0, dU64), member("length", 8, dU64))
	vec := structure("alloc::vec::Vec<u8>", 24, member("buf", 0, dU64), member("len", 16, dU64))
	sized := structure("Huge", 1<<60)
	namespace := d(dwarf.TagNamespace, "n", d(dwarf.TagVariable, "v"))
	all := []*die{self, huge, loop, ptr, sub, outside, oddBool, tagless, oddTag, noType, wide, vec, sized, namespace}
	r := reader(t, append(bases, all...)...)
	for _, e := range all {
		ty, err := r.Type(dwarf.Offset(e.off))
		if err != nil {
			continue
		}
		switch e {
		case self, loop, ptr, sub, vec: // odd, but not wrong
		default:
			if ty.Kind != Opaque {
				t.Errorf("%s is %v", describe(ty), ty.Kind)
			}
		}
		if ty.Std != nil {
			t.Errorf("%s is a std container", ty.Name)
		}
		ty.Edges()
	}
	for _, off := range []dwarf.Offset{1, 5, 1 << 40} {
		if ty, err := r.Type(off); err == nil {
			t.Errorf("%#x is %s", off, describe(ty))
		}
	}
}

func TestReaderConcurrent(t *testing.T) {
	entries := []*die{}
	prev := dU64
	for i := range 200 {
		prev = structure(fmt.Sprint("S", i), 8, member("x", 0, prev))
		entries = append(entries, prev)
	}
	r := reader(t, append(bases, entries...)...)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range entries {
				ty, err := r.Type(dwarf.Offset(entries[(i*7+g*31)%len(entries)].off))
				if err != nil || ty.Kind != Struct || len(ty.Fields) != 1 {
					t.Error(ty, err)
				}
				ty.Edges()
			}
		})
	}
	wg.Wait()
}

func FuzzReader(f *testing.F) {
	a, b := structure("A", 16, member("__0", 8, dU64)), structure("B", 16)
	enum := structure("E<u64>", 16, variantPart(member("", 0, dI16), variant(0xfe, "A", a), variant(nil, "B", b)), a, b)
	array := d(dwarf.TagArrayType, "", typ(enum), d(dwarf.TagSubrangeType, "", num(dwarf.AttrCount, 3)))
	data := d(dwarf.TagPointerType, "", typ(array))
	s := build(dU64, dI16, d(dwarf.TagNamespace, "n", enum), array, data,
		structure("&[T]", 16, member("data_ptr", 0, data), member("length", 8, dU64)),
		d(dwarf.TagPointerType, "&T", typ(data)), d(dwarf.TagUnionType, "U", size_(8), member("a", 0, dU64)))
	f.Add(s.Info, s.Abbrev)
	f.Fuzz(func(t *testing.T, info, abbrev []byte) {
		data, err := dwarf.New(dwarf.Sections{Info: info, Abbrev: abbrev})
		if err != nil {
			return
		}
		r := NewReader(data, Image{})
		for _, u := range data.Units() {
			c := u.Cursor(0)
			for n := 0; c.Next() && n < 1000; n++ {
				ty, err := r.Type(c.Entry().Offset)
				if err != nil {
					continue
				}
				ty.Display()
				edges, _ := ty.Edges()
				for _, e := range edges {
					if e.Ptr < 0 || e.Ptr+8 > ty.Size || e.Len >= 0 && e.Len+8 > ty.Size || e.Elem.Size <= 0 {
						t.Errorf("%s: edge %+v", describe(ty), e)
					}
					for _, g := range e.Guards {
						if g.Off < 0 || g.Off+int64(g.Size) > ty.Size {
							t.Errorf("%s: guard %+v", describe(ty), g)
						}
					}
				}
			}
		}
	})
}
