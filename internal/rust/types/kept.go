package types

import (
	"slices"
	"strings"
)

// Coroutines are the states of one type of coroutine.
type Coroutines struct {
	Type string
	Size int64
	Tag  Discr
	// First is the tag of the state before the first poll, Suspended are those of the
	// states that are resumed.
	First     uint64
	Suspended []uint64
}

// Kept is what the code of a coroutine shows of the memory that its states keep.
type Kept interface {
	// Given says whether each of the size bytes at off has been written on every way to
	// where the coroutine is suspended in the state of a tag, since it was first polled.
	Given(tag uint64, off, size int64) bool
	// Used are those of the size bytes at off that code, resumed in the state of a tag, reads
	// on some way before anything is written there.
	Used(tag uint64, off, size int64) []bool
}

// keeping tells which of the variables that own nothing have a value.
type keeping struct {
	r     *Reader
	t     *Type
	asked bool
	kept  Kept
}

// keeps says whether a variable of variant i certainly has a value there: it is still to
// be used, or has been given one and can't be moved from.
func (k *keeping) keeps(i int, f Field, capture bool) bool {
	v := &k.t.Enum.Variants[i]
	copied := f.Type.Copied()
	switch {
	case f.Type.Size == 0 || capture && copied:
		return true
	case len(v.Values) != 1 || k.code() == nil:
		return false
	}
	tag := v.Values[0].Lo.Lo
	return copied && k.t.alone(f) && k.kept.Given(tag, f.Offset, f.Type.Size) ||
		f.Type.UsedIn(k.kept.Used(tag, f.Offset, f.Type.Size))
}

func (k *keeping) code() Kept {
	if k.asked || k.r.image.Kept == nil {
		return k.kept
	}
	k.asked = true
	if c, ok := k.t.States(); ok {
		k.kept = k.r.image.Kept(c)
	}
	return k.kept
}

// States are those of a Coroutine; ok is false if they can't be told apart by a tag.
func (t *Type) States() (c Coroutines, ok bool) {
	if t.Enum == nil || t.Enum.Tag == nil || t.Enum.Tag.Size > 8 {
		return c, false
	}
	c = Coroutines{Type: t.Name, Size: t.Size, Tag: *t.Enum.Tag}
	for i := range t.Enum.Variants {
		v := &t.Enum.Variants[i]
		switch {
		case len(v.Values) != 1:
			return c, false
		case v.Name == Unresumed:
			c.First = v.Values[0].Lo.Lo
		case v.Name != "Returned" && v.Name != "Panicked":
			c.Suspended = append(c.Suspended, v.Values[0].Lo.Lo)
		}
	}
	return c, true
}

// At are the variables that have ever been in some bytes of a Coroutine: rustc lets those
// share memory that are kept in one state each, and not in the same. If some are hidden,
// others may have been there, whose places the debug info has lost.
func (t *Type) At(off, size int64) (variables []Field, hidden bool) {
	for _, listed := range t.listed {
		for n, g := range listed {
			switch {
			case g.Type == nil || named(listed[:n], g.Name) > 0:
				hidden = true
			case g.Offset < off+size && off < g.Offset+g.Type.Size && !slices.Contains(variables, g):
				variables = append(variables, g)
			}
		}
	}
	return variables, hidden
}

// alone says whether no other variable has been where f is, so that what has been written
// there is a value of f.
func (t *Type) alone(f Field) bool {
	all, hidden := t.At(f.Offset, f.Type.Size)
	return !hidden && len(all) == 1 && all[0] == f
}

func copies(t *Type, nesting int) bool {
	all := func(fs []Field) bool {
		return !slices.ContainsFunc(fs, func(f Field) bool { return !copies(f.Type, nesting+1) })
	}
	if t == nil || nesting > 16 {
		return false
	}
	switch t.Kind {
	case Unit, Bool, Char, Int, Uint, Float:
		return true
	case Array:
		return copies(t.Elem, nesting+1)
	case Tuple:
		return all(t.Fields)
	case Struct, Enum:
		// Whether a type is Copy is not in the debug info.
		path, _, _ := strings.Cut(t.Name, "<")
		if !copied[path] && !strings.HasPrefix(path, "core::num::nonzero::NonZero") || !all(t.Fields) {
			return false
		}
		return t.Enum == nil || !slices.ContainsFunc(t.Enum.Variants, func(v Variant) bool { return !all(v.Fields) })
	}
	// What a NonZero is made of is known to be a number's.
	return strings.HasPrefix(t.Name, "core::num::niche_types::")
}

// copied are types of std that are Copy if what they hold is.
var copied = map[string]bool{
	"core::option::Option": true, "core::result::Result": true, "core::task::poll::Poll": true, "core::cmp::Ordering": true,
	"core::ops::control_flow::ControlFlow": true, "core::ops::range::Bound": true, "core::num::wrapping::Wrapping": true,
	"core::cmp::Reverse": true, "core::marker::PhantomData": true, "core::time::Duration": true,
	"std::time::Instant": true, "std::time::SystemTime": true,
	"core::net::ip_addr::IpAddr": true, "core::net::ip_addr::Ipv4Addr": true, "core::net::ip_addr::Ipv6Addr": true,
}

// Copied says whether values of t are copied when they are moved, for certain, and so
// remain: t is Copy.
func (t *Type) Copied() bool { return copies(t, 0) }

// UsedIn says whether the bytes that are used of a value of t, which owns and refers to
// nothing, show that all of it is there: what is Copy has all its parts if it has one, and
// so has what can't be moved from in part; of others, each part has to be used.
func (t *Type) UsedIn(bytes []bool) bool {
	some := slices.Contains(bytes, true)
	if !some || t.Copied() {
		return some
	}
	whole := func(fs []Field) bool {
		return !slices.ContainsFunc(fs, func(f Field) bool { return !copies(f.Type, 0) })
	}
	switch {
	case t.Enum != nil:
		return !slices.ContainsFunc(t.Enum.Variants, func(v Variant) bool { return !whole(v.Fields) })
	case t.Kind != Struct && t.Kind != Tuple:
		return false
	case whole(t.Fields):
		return true
	}
	for _, f := range t.Fields {
		end := f.Offset + f.Type.Size
		if f.Offset < 0 || end < f.Offset || end > int64(len(bytes)) || f.Type.Size > 0 && !f.Type.UsedIn(bytes[f.Offset:end]) {
			return false
		}
	}
	return true
}
