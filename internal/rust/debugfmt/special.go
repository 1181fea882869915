package debugfmt

import (
	"strings"

	"ferrotrace/internal/rust/types"
)

// special writes types of std whose Debug impl is written by hand. It is false
// for all others.
func (p *printer) special(t *types.Type, v view, nesting int) bool {
	path, _, _ := strings.Cut(t.Name, "<")
	if !strings.HasPrefix(path, "core::") && !strings.HasPrefix(path, "alloc::") && !strings.HasPrefix(path, "std::") {
		return false
	}
	switch path {
	case "core::num::nonzero::NonZero", "core::num::wrapping::Wrapping", "core::num::saturating::Saturating", "core::pin::Pin":
		// Debug forwards to the one field. NonZero's is a wrapper of its own.
		inner, off := t, int64(0)
		for inner != nil && inner.Kind == types.Struct && len(inner.Fields) == 1 && inner.Std == nil {
			off += inner.Fields[0].Offset
			inner = inner.Fields[0].Type
			if path == "core::pin::Pin" {
				break
			}
		}
		p.value(inner, v.at(off), nesting+1)
	case "alloc::borrow::Cow":
		if i := p.variant(t, v); i >= 0 {
			for _, f := range t.Enum.Variants[i].Fields { // there is one
				p.value(f.Type, v.at(f.Offset), nesting+1)
			}
		}
	case "core::marker::PhantomData":
		p.str("PhantomData" + printable(strings.TrimPrefix(t.Name, path)))
	case "core::ptr::non_null::NonNull", "core::ptr::unique::Unique":
		return false
	default:
		if !opaque[path] {
			return false
		}
		p.missing("unsupported: " + printable(Ident(t.Name)))
	}
	return true
}

// opaque are types whose Debug impl shows something else than their fields.
var opaque = map[string]bool{}
