package debugfmt

import (
	"strconv"
	"strings"

	"ferrotrace/internal/rust/types"
)

// special writes types of std whose Debug impl is not a derived one. It is false
// for all others.
func (p *printer) special(t *types.Type, v view, nesting int) bool {
	path, args, _ := strings.Cut(t.Name, "<")
	crate, _, ok := strings.Cut(path, "::")
	if !ok || t.Kind == types.Pointer || t.Kind == types.Opaque || crate != "core" && crate != "alloc" && crate != "std" && crate != "hashbrown" {
		return false
	}
	if write := handWritten(path); write != nil {
		if !write(p, t, v, nesting) {
			p.missing("unsupported: " + printable(Ident(t.Name)))
		}
		return true
	}
	switch {
	case (strings.HasPrefix(path, "alloc::boxed::") || strings.HasPrefix(path, "std::error::")) && strings.HasSuffix(path, "::from::StringError") && len(t.Fields) == 1:
		// What From<&str> makes of a text for Box<dyn Error> prints as the text.
		p.part(t, v, 0, nesting)
	case forwards[path],
		strings.HasPrefix(path, "core::num::nonzero::NonZero"),
		strings.HasPrefix(path, "core::num::niche_types::"),
		strings.HasPrefix(path, "core::sync::atomic::Atomic"):
		inner, at := innermost(t, v)
		if inner == t {
			return false
		}
		if s, why := at.state(1); strings.HasSuffix(t.Name, "AtomicBool") || args == "bool>" && strings.HasSuffix(path, "::Atomic") {
			if s != whole {
				p.missing(why)
			} else {
				p.scalar(&types.Type{Kind: types.Bool}, at.bytes[:1])
			}
			return true
		}
		p.value(inner, at, nesting+1)
	case path == "core::pin::Pin":
		p.part(t, v, 0, nesting)
	case path == "alloc::borrow::Cow":
		if i := p.variant(t, v); i >= 0 {
			for _, f := range t.Enum.Variants[i].Fields { // there is one
				p.value(f.Type, v.at(f.Offset), nesting+1)
			}
		}
	case path == "core::marker::PhantomData":
		// The type is written by versions between those that are known only.
		switch t.Era {
		case types.New:
			p.str("PhantomData<" + printable(args))
		case types.Old:
			p.str("PhantomData")
		default:
			p.missing("unsupported: PhantomData")
		}
	case path == "core::time::Duration" && len(t.Fields) == 2:
		p.duration(t, v)
	case ranges[path] != nil:
		p.rangeOf(t, v, ranges[path], nesting)
	case path == "core::cell::Cell" && len(t.Fields) == 1:
		inner, at := t.Fields[0].Type, v.at(t.Fields[0].Offset)
		l := p.open("Cell", " {", " }")
		p.field(l, "value")
		p.part(inner, at, 0, nesting)
		p.end(l)
	case path == "core::cell::UnsafeCell":
		p.str("UnsafeCell { .. }")
	case opaque[path], unlikeFields(t, path):
		p.missing("unsupported: " + printable(Ident(t.Name)))
	default:
		return false
	}
	return true
}

// forwards are types that print as the one thing that they wrap.
var forwards = map[string]bool{
	"core::num::wrapping::Wrapping":     true,
	"core::num::saturating::Saturating": true,
	// What futures of async functions and blocks were in until 1.68.
	"core::future::from_generator::GenFuture": true,
	"core::ptr::non_null::NonNull":            true,
	"core::ptr::unique::Unique":               true,
}

// opaque are types whose parts have not been found, or a Box with an allocator of its own.
var opaque = map[string]bool{
	"alloc::boxed::Box": true, "core::cell::Ref": true, "core::cell::RefMut": true, "core::mem::maybe_uninit::MaybeUninit": true,
}

// ranges are the fields of range types, with what stands between them.
var ranges = map[string][]string{
	"core::ops::range::RangeFull":        {".."},
	"core::ops::range::Range":            {"start", "..", "end"},
	"core::ops::range::RangeFrom":        {"start", ".."},
	"core::ops::range::RangeTo":          {"..", "end"},
	"core::ops::range::RangeInclusive":   {"start", "..=", "end"},
	"core::ops::range::RangeToInclusive": {"..=", "end"},
}

// innermost is the value in a wrapper, or in wrappers of wrappers.
func innermost(t *types.Type, v view) (*types.Type, view) {
	for range maxNesting {
		var only *types.Field
		for i := range t.Fields {
			if f := &t.Fields[i]; f.Type != nil && f.Type.Size > 0 {
				if only != nil {
					return t, v
				}
				only = f
			}
		}
		if t.Kind != types.Struct || t.Std != nil || only == nil {
			break
		}
		t, v = only.Type, v.at(only.Offset)
	}
	return t, v
}

// part writes field i of t.
func (p *printer) part(t *types.Type, v view, i, nesting int) {
	if i >= len(t.Fields) {
		p.missing("unsupported: " + printable(Ident(t.Name)))
		return
	}
	p.value(t.Fields[i].Type, v.at(t.Fields[i].Offset), nesting+1)
}

func (p *printer) rangeOf(t *types.Type, v view, parts []string, nesting int) {
	exhausted := false // an inclusive range that has been iterated to its end
	for _, f := range t.Fields {
		if f.Name != "exhausted" {
			continue
		}
		at := v.at(f.Offset)
		if s, why := at.state(1); s != whole {
			p.missing(why)
			return
		}
		exhausted = at.bytes[0] != 0
	}
	for _, part := range parts {
		if strings.HasPrefix(part, ".") {
			p.str(part)
			continue
		}
		for i, f := range t.Fields {
			if f.Name == part {
				p.part(t, v, i, nesting)
			}
		}
	}
	if exhausted {
		p.str(" (exhausted)")
	}
}

// duration writes a Duration as its Debug impl does: in the largest unit of which
// there is at least one, with all digits that matter.
func (p *printer) duration(t *types.Type, v view) {
	var parts [2]uint64
	for i, f := range t.Fields {
		inner, at := innermost(f.Type, v.at(f.Offset))
		if inner.Kind != types.Uint || inner.Size != int64(8-4*i) {
			p.missing("unsupported: Duration")
			return
		}
		if s, why := at.state(inner.Size); s != whole {
			p.missing(why)
			return
		}
		parts[i] = uintOf(at.bytes[:inner.Size])
	}
	secs, nanos := parts[0], parts[1]
	if nanos >= 1e9 {
		p.invalid(v.bytes[:t.Size])
		return
	}
	n, rest, digits, unit := secs, nanos, 9, "s"
	switch {
	case secs > 0:
	case nanos >= 1e6:
		n, rest, digits, unit = nanos/1e6, nanos%1e6, 6, "ms"
	case nanos >= 1e3:
		n, rest, digits, unit = nanos/1e3, nanos%1e3, 3, "µs"
	default:
		n, rest, digits, unit = nanos, 0, 0, "ns"
	}
	p.out = strconv.AppendUint(p.out, n, 10)
	if rest > 0 {
		s := strconv.FormatUint(rest, 10)
		p.str("." + strings.TrimRight(strings.Repeat("0", digits-len(s))+s, "0"))
	}
	p.str(unit)
	p.known = true
}
