package types

import (
	"fmt"
	"strings"
	"sync"

	"ferrotrace/internal/dwarf"
)

// Reader reads types from the debug information of one file. A type is read when
// it is first asked for, with all that it refers to. A Reader may be used
// concurrently.
type Reader struct {
	d       *dwarf.Data
	image   Image
	vtables func() vtables

	mu     sync.Mutex
	types  map[dwarf.Offset]*Type
	errs   map[*Type]error
	queue  []raw // read, but not filled
	fresh  []*Type
	scopes map[*dwarf.Unit]*scopes
	empty  map[*Type]bool // whether no value of a type can exist
	notes  map[*Type]note // by types of std
	nodes  map[*Type][]*Type
}

// Dropped is a part of a value that is dropped with it.
type Dropped struct {
	Off  int64
	Type string // as Type.Name has it
}

// raw is a type that has been referred to.
type raw struct {
	t   *Type
	off dwarf.Offset
}

// NewReader returns a Reader of the types in d, which are those of a file with the
// given image; without one nothing is known of trait objects.
func NewReader(d *dwarf.Data, image Image) *Reader {
	r := &Reader{
		d:      d,
		image:  image,
		types:  map[dwarf.Offset]*Type{},
		errs:   map[*Type]error{},
		scopes: map[*dwarf.Unit]*scopes{},
		empty:  map[*Type]bool{},
		notes:  map[*Type]note{},
		nodes:  map[*Type][]*Type{},
	}
	r.vtables = sync.OnceValue(r.findVTables)
	return r
}

// Type returns the type whose entry is at off: UnitType for 0, as what has no
// DW_AT_type is of type (). Types that this one refers to and that can't be read
// are Opaque; an error concerns the one at off itself.
func (r *Reader) Type(off dwarf.Offset) (*Type, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.get(off)
	// Types are filled one after the other rather than one inside the other, so
	// that a long chain of them does not become a deep recursion.
	for len(r.queue) > 0 {
		next := r.queue[len(r.queue)-1]
		r.queue = r.queue[:len(r.queue)-1]
		if err := r.fill(next.t, next.off); err != nil {
			*next.t = Type{Name: "?", Kind: Opaque, Align: 1}
			r.errs[next.t] = err
		}
		r.fresh = append(r.fresh, next.t)
	}
	r.finish()
	if err := r.errs[t]; err != nil {
		return nil, fmt.Errorf("type at %#x: %w", off, err)
	}
	return t, nil
}

// get is the type at off, perhaps not filled yet.
func (r *Reader) get(off dwarf.Offset) *Type {
	if off == 0 {
		return UnitType
	}
	if t := r.types[off]; t != nil {
		return t
	}
	t := &Type{}
	r.types[off] = t
	r.queue = append(r.queue, raw{t, off})
	return t
}

// ref is the type that e's DW_AT_type names.
func (r *Reader) ref(e *dwarf.Entry) *Type {
	off, _ := e.Ref(dwarf.AttrType)
	return r.get(off)
}

func (r *Reader) fill(t *Type, off dwarf.Offset) error {
	e, err := r.d.Entry(off)
	if err != nil {
		return err
	}
	t.Name = Written(e.String(dwarf.AttrName))
	if t.Size, err = size(e); err != nil {
		return err
	}
	if a, ok := e.Uint(dwarf.AttrAlignment); ok && a > 0 && a <= 1<<29 && a&(a-1) == 0 {
		t.Align = int64(a)
	}
	switch e.Tag {
	case dwarf.TagBaseType:
		return r.base(t, e)
	case dwarf.TagStructureType, dwarf.TagClassType:
		return r.structure(t, e)
	case dwarf.TagUnionType:
		t.Kind = Union
		t.Name = r.qualify(e, t.Name)
		t.Fields, err = r.members(e)
		r.note(t, e)
		return err
	case dwarf.TagEnumerationType:
		t.Name = r.qualify(e, t.Name)
		return r.enumeration(t, e)
	case dwarf.TagArrayType:
		return r.array(t, e)
	case dwarf.TagPointerType, dwarf.TagReferenceType:
		r.pointer(t, e)
		return nil
	case dwarf.TagSubroutineType:
		return r.function(t, e)
	case dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType, dwarf.TagRestrictType, dwarf.TagAtomicType:
		// Not Rust's: C and C++ have these.
		t.Kind = Opaque
		return nil
	}
	if t.Name == "" {
		return fmt.Errorf("%w: %v is no type", dwarf.ErrDWARF, e.Tag)
	}
	t.Kind = Opaque
	return nil
}

// Written is a name from debug info as programs write it, and std::any::type_name
// does: without the allocator where it is the default.
func Written(name string) string {
	return strings.Clone(strings.ReplaceAll(name, ", alloc::alloc::Global>", ">"))
}

// maxSize bounds the size of a type: user space has 47 bits of addresses.
const maxSize = 1 << 47

func size(e *dwarf.Entry) (int64, error) {
	n, _ := e.Uint(dwarf.AttrByteSize)
	if n > maxSize {
		return 0, fmt.Errorf("%w: a type of %d bytes", dwarf.ErrDWARF, n)
	}
	return int64(n), nil
}

func (r *Reader) base(t *Type, e *dwarf.Entry) error {
	enc, _ := e.Uint(dwarf.AttrEncoding)
	switch {
	case t.Name == "()":
		t.Kind = Unit
	case t.Name == "!":
		t.Kind = Never
	case enc == dwarf.EncBoolean:
		t.Kind = Bool
	case enc == dwarf.EncUTF:
		t.Kind = Char
	case enc == dwarf.EncFloat:
		t.Kind = Float
	case enc == dwarf.EncSigned, enc == dwarf.EncSignedChar:
		t.Kind = Int
	case enc == dwarf.EncUnsigned, enc == dwarf.EncUnsignedChar:
		t.Kind = Uint
	default:
		t.Kind = Opaque
	}
	t.Align = max(1, min(t.Size, 16))
	return nil
}

func (r *Reader) structure(t *Type, e *dwarf.Entry) error {
	name := t.Name
	t.Name = r.qualify(e, name)
	fields, err := r.members(e)
	if err != nil {
		return err
	}
	if widePointer(t, e, name, fields) {
		return nil
	}
	t.Fields = fields
	switch {
	case strings.HasPrefix(name, "dyn "), strings.HasPrefix(name, "(dyn "):
		t.Kind = Dyn
		return nil
	case strings.HasPrefix(name, "("):
		t.Kind = Tuple
	case strings.HasPrefix(name, "{closure_env#"):
		t.Kind = Struct
		t.File, t.Line = r.closure(e, name)
	default:
		t.Kind = Struct
	}
	if err := r.variants(t, e); err != nil {
		return err
	}
	if t.Enum != nil && isCoroutine(name) {
		t.Kind = Coroutine
		t.Func = r.asyncFn(e, name, t.Name)
	}
	r.note(t, e)
	return nil
}

// members are the fields of a struct or union.
func (r *Reader) members(e *dwarf.Entry) ([]Field, error) {
	var fields []Field
	err := r.children(e, func(m *dwarf.Entry) error {
		if m.Tag != dwarf.TagMember {
			return nil
		}
		off, err := memberOffset(m)
		if err != nil {
			return err
		}
		fields = append(fields, Field{strings.Clone(m.String(dwarf.AttrName)), off, r.ref(m)})
		return nil
	})
	return fields, err
}

func memberOffset(m *dwarf.Entry) (int64, error) {
	off, ok := m.Uint(dwarf.AttrDataMemberLocation)
	if off > maxSize {
		return 0, fmt.Errorf("%w: a member at %d", dwarf.ErrDWARF, off)
	}
	if _, bits := m.Val(dwarf.AttrDataBitOffset); bits || !ok && m.Has(dwarf.AttrDataMemberLocation) {
		return 0, fmt.Errorf("%w: a member without a constant offset", dwarf.ErrDWARF)
	}
	return int64(off), nil
}

// parameter is the type that stands for a generic parameter; nil if there is none.
func (r *Reader) parameter(e *dwarf.Entry, name string) (t *Type) {
	r.children(e, func(p *dwarf.Entry) error {
		if p.Tag == dwarf.TagTemplateTypeParameter && t == nil && p.String(dwarf.AttrName) == name {
			t = r.ref(p)
		}
		return nil
	})
	return t
}

// array is [T; N]. A name has to wait until the element's is known.
func (r *Reader) array(t *Type, e *dwarf.Entry) error {
	t.Kind = Array
	t.Elem = r.ref(e)
	dims := 0
	err := r.children(e, func(s *dwarf.Entry) error {
		if s.Tag != dwarf.TagSubrangeType {
			return nil
		}
		dims++
		n, ok := s.Uint(dwarf.AttrCount)
		if !ok {
			var last uint64
			last, ok = s.Uint(dwarf.AttrUpperBound)
			n = last + 1
		}
		if !ok || n > maxSize {
			return fmt.Errorf("%w: an array of unknown length", dwarf.ErrDWARF)
		}
		t.Count = int64(n)
		return nil
	})
	if err == nil && dims != 1 {
		err = fmt.Errorf("%w: an array of %d dimensions", dwarf.ErrDWARF, dims)
	}
	return err
}

// pointerKinds are what the names of pointers begin with. What has none is an
// address within a wide pointer.
var pointerKinds = []struct {
	prefix string
	kind   PointerKind
}{
	{"&mut ", RefMut},
	{"&", Ref},
	{"*const ", ConstPtr},
	{"*mut ", MutPtr},
	{"alloc::boxed::Box<", Box},
}

func pointerKind(name string) (kind PointerKind, rest string, ok bool) {
	for _, p := range pointerKinds {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok {
			return p.kind, rest, true
		}
	}
	return ConstPtr, "", false
}

func (r *Reader) pointer(t *Type, e *dwarf.Entry) {
	t.Kind, t.Size, t.Align = Pointer, 8, 8
	kind, _, ok := pointerKind(t.Name)
	if !ok && t.Name != "" {
		kind = FnPtr // "fn(u8)", "unsafe extern "C" fn()", "for<'a> fn(&'a u8)"
	}
	t.Pointer = &PointerInfo{Kind: kind, Target: r.ref(e)}
}

// widePointer recognises &str, &[T], &dyn Trait and their like, which are structs
// of an address and a length or vtable.
func widePointer(t *Type, e *dwarf.Entry, name string, fields []Field) bool {
	kind, rest, ok := pointerKind(name)
	if !ok || len(fields) != 2 {
		return false
	}
	p := &PointerInfo{Kind: kind, PtrOff: fields[0].Offset, MetaOff: fields[1].Offset}
	switch {
	case fields[0].Name == "data_ptr" && fields[1].Name == "length":
		p.Meta = Length
	case fields[0].Name == "pointer" && fields[1].Name == "vtable":
		p.Meta = VTable
	default:
		return false
	}
	if kind == Box {
		rest = strings.TrimSuffix(rest, ">")
	}
	p.Target = fields[0].Type // until finish
	switch {
	case p.Meta == VTable:
	case textOf(rest, e) != nil:
		p.Target = textOf(rest, e)
	case strings.HasPrefix(rest, "["):
		p.Target = &Type{Name: rest, Kind: Slice, Elem: fields[0].Type}
	}
	t.Kind, t.Size, t.Align, t.Pointer = Pointer, 16, 8, p
	t.Name = name
	return true
}

func (r *Reader) function(t *Type, e *dwarf.Entry) error {
	t.Kind, t.Size, t.Align = Fn, 0, 1
	t.Sig = &Signature{Result: r.ref(e)}
	return r.children(e, func(p *dwarf.Entry) error {
		if p.Tag == dwarf.TagFormalParameter {
			t.Sig.Params = append(t.Sig.Params, r.ref(p))
		}
		return nil
	})
}
