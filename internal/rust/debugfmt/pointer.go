package debugfmt

import (
	"fmt"
	"math"

	"ferrotrace/internal/rust/types"
)

// word reads the 8 bytes at off; ok is false, and the text says why, if they are
// not known.
func (p *printer) word(v view, off int64) (word uint64, ok bool) {
	at := v.at(off)
	if s, why := at.state(8); s != whole {
		p.missing(why)
		return 0, false
	}
	return uintOf(at.bytes[:8]), true
}

func (p *printer) pointer(t *types.Type, v view, nesting int) {
	ptr := t.Pointer
	if ptr == nil || ptr.Target == nil {
		p.missing("unsupported: pointer")
		return
	}
	addr, ok := p.word(v, ptr.PtrOff)
	if !ok {
		return
	}
	switch ptr.Kind {
	case types.FnPtr:
		p.function(addr)
		return
	case types.ConstPtr, types.MutPtr:
		p.rawPointer(ptr, addr, v)
		return
	}
	target := ptr.Target
	switch {
	case ptr.Meta == types.VTable:
		if vtable, ok := p.word(v, ptr.MetaOff); ok {
			p.object(target, addr, vtable, nesting)
		}
	case ptr.Meta == types.Length:
		n, ok := p.word(v, ptr.MetaOff)
		if !ok {
			return
		}
		switch target.Kind {
		case types.Str:
			p.text(target, addr, n)
		case types.Slice:
			p.sequence(target.Elem, addr, n, nesting)
		default:
			p.missing("unsupported: unsized type")
		}
	case target.Size == 0:
		p.value(target, view{}, nesting+1)
	default:
		r, ok := p.region(target, addr)
		if !ok {
			return
		}
		p.depth++
		p.value(target, r, nesting+1)
		p.depth--
	}
}

func (p *printer) function(addr uint64) {
	p.known = true
	if p.opt.Func != nil {
		if name := p.opt.Func(addr); name != "" {
			p.str("fn " + printable(name))
			return
		}
	}
	p.address(addr)
}

// address writes an address as fmt::Pointer does: under # with all digits.
func (p *printer) address(addr uint64) {
	format := "0x%x"
	if p.opt.Pretty {
		format = "0x%016x"
	}
	p.out = fmt.Appendf(p.out, format, addr)
}

// rawPointer writes a raw pointer; a wide one as core's Debug impl for *const T
// does since 1.87: with its metadata.
func (p *printer) rawPointer(ptr *types.PointerInfo, addr uint64, v view) {
	p.known = true
	if ptr.Meta == types.Thin {
		p.address(addr)
		return
	}
	l := p.open("Pointer", " {", " }")
	p.field(l, "addr")
	p.address(addr)
	p.field(l, "metadata")
	if meta, ok := p.word(v, ptr.MetaOff); ok {
		if ptr.Meta == types.VTable {
			d := p.open("DynMetadata", "(", ")")
			p.item(d)
			p.address(meta)
			p.end(d)
		} else {
			p.out = fmt.Append(p.out, meta)
		}
	}
	p.end(l)
}

// region is the memory at addr as values of type t. If there is nothing of it, ok
// is false and the text says why.
func (p *printer) region(t *types.Type, addr uint64) (v view, ok bool) {
	if p.depth >= p.opt.Depth {
		p.known = true
		p.ellipsis()
		return view{}, false
	}
	v, ok = p.lookup(t, addr)
	if !ok {
		p.known = true
		p.ellipsis()
		return view{}, false
	}
	if len(v.bytes) == 0 {
		p.missing(v.after)
		return view{}, false
	}
	return v, true
}

// lookup is the memory at addr as values of type t; false if it was not followed.
func (p *printer) lookup(t *types.Type, addr uint64) (v view, ok bool) {
	if p.mem == nil {
		return view{}, false
	}
	r, ok := p.mem.Region(t, addr)
	v = view{bytes: r.Bytes}
	if r.Status == Unreadable {
		v.after = "unreadable"
	}
	return v, ok
}

// text writes the n bytes at addr as a string, those of a CStr without the last.
func (p *printer) text(t *types.Type, addr, n uint64) {
	if t.Text == types.CText {
		if n == 0 {
			p.invalidLength(n)
			return
		}
		n--
	}
	if n == 0 {
		p.known = true
		p.str(`""`)
		return
	}
	if n > math.MaxInt64 {
		p.invalidLength(n)
		return
	}
	v, ok := p.region(t, addr)
	if !ok {
		return
	}
	p.known = true
	b := v.bytes[:min(n, uint64(len(v.bytes)))]
	limited := len(b) > p.opt.MaxStr
	if limited {
		b = b[:p.opt.MaxStr]
	}
	more := uint64(len(b)) < n
	if t.Text != types.StrText && t.Era == types.Untested && !sameEver(t.Text, b) {
		p.missing("unsupported: how this compiler's " + printable(Ident(t.Name)) + " is escaped")
		return
	}
	p.str(`"`)
	p.out = appendText(p.out, t, b, more)
	switch {
	case limited:
		p.ellipsis()
	case more:
		p.missing(v.after)
	}
	p.str(`"`)
}

// sequence writes the n elements at addr.
func (p *printer) sequence(elem *types.Type, addr, n uint64, nesting int) {
	if elem == nil {
		p.missing("unsupported: unknown type")
		return
	}
	if n == 0 {
		p.known = true
		p.str("[]")
		return
	}
	v := view{}
	if elem.Size <= 0 {
		p.known = true
	} else {
		if n > math.MaxInt64/uint64(elem.Size) {
			p.invalidLength(n)
			return
		}
		var ok bool
		if v, ok = p.region(elem, addr); !ok {
			return
		}
		p.depth++
		defer func() { p.depth-- }()
	}
	l := p.open("", "[", "]")
	p.items(l, elem, v, int64(min(n, math.MaxInt64)), nesting)
	p.end(l)
}

// invalidLength stands for what has more elements than memory can hold.
func (p *printer) invalidLength(n uint64) {
	p.out = fmt.Appendf(p.out, "<invalid length 0x%x>", n)
	p.partial, p.known = true, true
}
