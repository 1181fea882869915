package debugfmt

import (
	"strings"

	"ferrotrace/internal/rust/types"
)

// Trait objects print as what they are.

// unknownObject stands for an object whose vtable does not tell what it is.
const unknownObject = "unsupported: trait object of unknown type"

// concrete is the type of an object. If it is not known, ok is false and the text says
// why.
func (p *printer) concrete(t *types.Type, vtable uint64) (c *types.Type, ok bool) {
	if t.Object() && p.mem != nil {
		if c, ok = p.mem.Object(t, vtable); !ok {
			p.known = true
			p.ellipsis()
			return nil, false
		}
	}
	if c == nil {
		p.missing(unknownObject)
	}
	return c, c != nil
}

// object writes the object at addr.
func (p *printer) object(t *types.Type, addr, vtable uint64, nesting int) {
	if isAny(t) {
		p.known = true
		p.str("Any { .. }")
		return
	}
	if c, ok := p.concrete(t, vtable); ok {
		p.behind(c, addr, nesting)
	}
}

// isAny says whether t has a Debug impl of its own, which tells nothing (core::any).
func isAny(t *types.Type) bool {
	name := strings.TrimPrefix(t.Name, "(")
	return t.Kind == types.Dyn && (name == "dyn core::any::Any" || strings.HasPrefix(name, "dyn core::any::Any + "))
}

// sharedObject writes an object behind the counters of an Rc or Arc, at addr.
func (p *printer) sharedObject(counted *types.Type, addr, vtable uint64, nesting int) {
	last := func(t *types.Type) types.Field { return t.Fields[len(t.Fields)-1] }
	if isAny(last(counted).Type) {
		p.known = true
		p.str("Any { .. }")
		return
	}
	c, ok := p.concrete(counted, vtable)
	if !ok {
		return
	}
	value := last(c)
	if value.Type.Size == 0 {
		p.value(value.Type, view{}, nesting+1)
		return
	}
	if r, ok := p.region(c, addr); ok {
		p.depth++
		p.value(value.Type, r.at(value.Offset), nesting+1)
		p.depth--
	}
}
