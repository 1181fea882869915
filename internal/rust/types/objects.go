package types

import (
	"encoding/binary"
	"runtime"
	"strings"
	"sync"

	"ferrotrace/internal/dwarf"
)

// Image is what a file says beside its debug info.
type Image struct {
	// Bytes is the file's memory from an address, as linked, to the end of what is
	// mapped there; nil if nothing is.
	Bytes func(addr uint64) []byte
	// GNU says whether the program's C library is glibc.
	GNU func() bool
	// Drops says which parts of a value of a type are dropped with it, for certain, if the
	// size bytes at off in it are tag: a suspended coroutine's variables are alive if they
	// are among them. It may be nil, and does not use the Reader.
	Drops func(t string, off int64, size int, tag uint64) []Dropped
	// Resumes is the symbol of the function that resumes coroutines of a type, "" if there is
	// none. It may be nil, and does not use the Reader.
	Resumes func(t string) string
	// Kept says what the code of a coroutine shows of what its states keep, nil if there is
	// no such code. It may be nil, and does not use the Reader.
	Kept func(c Coroutines) Kept
	// StringErrors lists the vtables of alloc's StringError, an Error made of a String, that
	// debug info does not have. It may be nil.
	StringErrors func() []uint64
}

// Impl is a type that an object may be of.
type Impl struct {
	VTable uint64 // the address, as linked
	// Type is that of the whole object: of a RefCell<dyn Trait> it is the RefCell. It is
	// nil if several types share the vtable.
	Type *Type
}

// Object says whether values of t have a vtable that says what they are: a dyn Trait,
// or a struct whose last field is one.
func (t *Type) Object() bool { return t.impls != nil }

// Impls lists the types that an Object may be of as far as debug info tells, each
// vtable once. It is made when it is first asked for, which takes a walk over all units
// the first time.
//
// A vtable that another file has, one of code without types and one of a trait that
// this one's object was upcast from are not among them.
func (t *Type) Impls() []Impl {
	if t.impls == nil {
		return nil
	}
	return t.impls()
}

// object makes objects of what are such.
func (r *Reader) object(t *Type) {
	if t.impls != nil {
		return
	}
	if t.Kind == Dyn {
		trait := principal(t.Name)
		t.impls = sync.OnceValue(func() []Impl { return r.implementors(trait) })
		return
	}
	tail := t
	for range maxNesting {
		if tail.Kind != Struct || tail.Enum != nil || len(tail.Fields) == 0 {
			return
		}
		tail = tail.Fields[len(tail.Fields)-1].Type
		if tail.Kind == Dyn {
			break
		}
	}
	if tail.Kind != Dyn {
		return
	}
	t.impls = sync.OnceValue(func() []Impl {
		var impls []Impl
		for _, impl := range tail.Impls() {
			if impl.Type != nil {
				impl.Type = sized(t, impl.Type)
			}
			impls = append(impls, impl)
		}
		return impls
	})
}

// sized is the type of an object of type t whose last part is of type last: the fields
// before that are where they are in t (Rust reference, "Dynamically Sized Types";
// rustc keeps the last field of such a struct last). nil if its alignment is not known.
func sized(t, last *Type) *Type {
	if t.Kind == Dyn {
		return last
	}
	n := *t
	n.impls = nil
	n.Fields = append([]Field(nil), t.Fields...)
	f := &n.Fields[len(n.Fields)-1]
	if f.Type = sized(f.Type, last); f.Type == nil || f.Type.Align <= 0 || t.Align <= 0 {
		return nil
	}
	n.Align = max(t.Align, f.Type.Align)
	f.Offset = (f.Offset + f.Type.Align - 1) &^ (f.Type.Align - 1)
	n.Size = (f.Offset + f.Type.Size + n.Align - 1) &^ (n.Align - 1)
	return &n
}

// principal is the path of the trait that "dyn Trait<Args> + Send" names first, whose
// methods its vtable has; "_" if there is none, as vtables have it. Auto traits, which
// have no methods, come last.
func principal(name string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "("), "dyn ")
	path := name[:strings.IndexAny(name+" ", "<+ )")]
	switch path {
	case "core::marker::Send", "core::marker::Sync", "core::marker::Unpin",
		"core::panic::unwind_safe::UnwindSafe", "core::panic::unwind_safe::RefUnwindSafe":
		return "_"
	}
	return path
}

// implementors are the types with a vtable of a trait.
func (r *Reader) implementors(trait string) []Impl {
	var impls []Impl
	at := map[uint64]int{}
	for _, v := range r.vtables().by[trait] {
		t, err := r.Type(v.of)
		if err != nil || !r.describes(v, t) {
			continue
		}
		i, ok := at[v.addr]
		if !ok {
			at[v.addr] = len(impls)
			impls = append(impls, Impl{v.addr, t})
			continue
		}
		// LLVM merges vtables that are alike.
		if impls[i].Type != nil && !(&comparison{}).same(impls[i].Type, t) {
			impls[i].Type = nil
		}
	}
	if trait == "core::error::Error" || trait == "std::error::Error" {
		impls = r.stringErrors(impls, at)
	}
	return impls
}

// stringErrors adds what the image says to the types of Error, which are found at their
// indices.
func (r *Reader) stringErrors(impls []Impl, at map[uint64]int) []Impl {
	if r.image.StringErrors == nil || r.vtables().text == 0 {
		return impls
	}
	text, err := r.Type(r.vtables().text)
	if err != nil || text.Name != "alloc::string::String" || text.Std == nil || text.Std.Kind != String {
		return impls
	}
	t := &Type{Name: "alloc::boxed::convert::from::StringError", Kind: Struct, Size: text.Size, Align: text.Align, Fields: []Field{{"__0", 0, text}}}
	for _, addr := range r.image.StringErrors() {
		if _, ok := at[addr]; !ok && r.describes(vtable{addr: addr}, t) {
			impls = append(impls, Impl{addr, t})
		}
	}
	return impls
}

// vtables are what a walk over all units finds.
type vtables struct {
	by   map[string][]vtable // trait
	text dwarf.Offset        // the type String, 0 if there is none
}

// describes says whether the vtable is in the file and one of a type of t's layout: its
// first words are a function, the size and the alignment. Linkers leave the entries of
// what they drop, with an address of nothing.
func (r *Reader) describes(v vtable, t *Type) bool {
	b := r.image.Bytes(v.addr)
	if v.addr == 0 || len(b) < 24 {
		return false
	}
	size, align := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	return size == uint64(t.Size) && (t.Align == 0 || align == uint64(t.Align))
}

// vtable is what debug info says of one.
type vtable struct {
	addr uint64
	of   dwarf.Offset // the type
}

// maxVTables bounds those of one trait.
const maxVTables = 1 << 14

var vtableTags = dwarf.Tags(dwarf.TagVariable, dwarf.TagStructureType)

// findVTables lists the file's vtables by the paths of their traits. rustc describes each
// by a variable of the unit that is called <Type as Trait<Args>>::{vtable}, whose type
// names the one that it is of as DW_AT_containing_type.
func (r *Reader) findVTables() (v vtables) {
	if r.image.Bytes == nil {
		return v
	}
	type found struct {
		trait string
		vtable
	}
	units := r.d.Units()
	all := make([][]found, len(units))
	texts := make([]dwarf.Offset, len(units))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(units)) {
		wg.Go(func() {
			for i := range next {
				c := units[i].Cursor(0)
				for c.NextTag(&vtableTags) {
					e := c.Entry()
					if e.Tag == dwarf.TagStructureType {
						// alloc::string::String
						if c.Depth() == 3 && texts[i] == 0 && e.Name() == "String" {
							texts[i] = e.Offset
						}
						continue
					}
					if c.Depth() != 1 {
						continue
					}
					if trait, ok := traitOf(e.Name()); ok {
						if v, ok := r.vtable(e); ok {
							all[i] = append(all[i], found{strings.Clone(trait), v})
						}
					}
				}
			}
		})
	}
	for i := range units {
		next <- i
	}
	close(next)
	wg.Wait()
	v.by = map[string][]vtable{}
	for i, unit := range all {
		for _, f := range unit {
			if len(v.by[f.trait]) < maxVTables {
				v.by[f.trait] = append(v.by[f.trait], f.vtable)
			}
		}
		if v.text == 0 {
			v.text = texts[i]
		}
	}
	return v
}

// traitOf is the path of the trait in <Type as Trait<Args>>::{vtable}.
func traitOf(name string) (trait string, ok bool) {
	name, ok = strings.CutSuffix(name, ">::{vtable}")
	if !ok || name == "" || name[0] != '<' {
		return "", false
	}
	depth := 0
	for i := 1; i < len(name); i++ {
		switch name[i] {
		case '<', '(', '[', '{':
			depth++
		case '>':
			if name[i-1] != '-' { // fn() -> u8
				depth--
			}
		case ')', ']', '}':
			depth--
		case ' ':
			if rest, ok := strings.CutPrefix(name[i:], " as "); ok && depth == 0 {
				return rest[:strings.IndexByte(rest+"<", '<')], true
			}
		}
	}
	return "", false
}

// vtable reads the address and the type of the vtable that e describes.
func (r *Reader) vtable(e *dwarf.Entry) (v vtable, ok bool) {
	off, ok := e.Ref(dwarf.AttrType)
	if !ok {
		return v, false
	}
	list, err := e.Locations(dwarf.AttrLocation)
	if err != nil || len(list) != 1 || !list[0].Whole {
		return v, false
	}
	if v.addr, ok = address(e.Unit, list[0].Expr); !ok {
		return v, false
	}
	t, err := r.d.Entry(off)
	if err != nil {
		return v, false
	}
	v.of, ok = t.Ref(dwarf.AttrContainingType)
	return v, ok
}

// address is that which an expression of one operation is: DW_OP_addr, DW_OP_addrx,
// DW_OP_GNU_addr_index.
func address(u *dwarf.Unit, expr []byte) (uint64, bool) {
	if len(expr) < 2 {
		return 0, false
	}
	switch op, rest := expr[0], expr[1:]; op {
	case 0x03:
		if len(rest) != 8 {
			return 0, false
		}
		return binary.LittleEndian.Uint64(rest), true
	case 0xa1, 0xfb:
		index, n := binary.Uvarint(rest) // ULEB128
		if n != len(rest) {
			return 0, false
		}
		addr, err := u.AddrX(index)
		return addr, err == nil
	}
	return 0, false
}

// comparison of two types, which may be in circles and of different units.
type comparison struct {
	assumed map[[2]*Type]bool
}

// maxCompared bounds the parts that are compared.
const maxCompared = 4096

// same says whether two types are one: called alike, and alike in all their parts.
func (c *comparison) same(a, b *Type) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.Name != b.Name || a.Kind != b.Kind || a.Size != b.Size || a.Align != b.Align || a.Count != b.Count ||
		a.File != b.File || a.Line != b.Line || a.Kind == Opaque {
		return false
	}
	if c.assumed[[2]*Type{a, b}] {
		return true
	}
	if len(c.assumed) == maxCompared {
		return false
	}
	if c.assumed == nil {
		c.assumed = map[[2]*Type]bool{}
	}
	c.assumed[[2]*Type{a, b}] = true
	if !c.fields(a.Fields, b.Fields) || (a.Elem != nil || b.Elem != nil) && !c.same(a.Elem, b.Elem) || (a.Enum == nil) != (b.Enum == nil) {
		return false
	}
	if a.Kind == Pointer {
		p, q := a.Pointer, b.Pointer
		return p.Kind == q.Kind && p.Meta == q.Meta && p.PtrOff == q.PtrOff && p.MetaOff == q.MetaOff && c.same(p.Target, q.Target)
	}
	if a.Enum == nil {
		return true
	}
	if len(a.Enum.Variants) != len(b.Enum.Variants) {
		return false
	}
	for i, v := range a.Enum.Variants {
		if w := b.Enum.Variants[i]; v.Name != w.Name || !c.fields(v.Fields, w.Fields) {
			return false
		}
	}
	return true
}

func (c *comparison) fields(a, b []Field) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || a[i].Offset != b[i].Offset || !c.same(a[i].Type, b[i].Type) {
			return false
		}
	}
	return true
}
