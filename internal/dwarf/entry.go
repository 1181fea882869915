package dwarf

import (
	"fmt"
	"iter"
)

// Entry is a debugging information entry. It refers to the section and decodes a value
// when asked for it; a copy of an Entry is as good as the original.
type Entry struct {
	Offset      Offset
	Tag         Tag
	HasChildren bool // it may have; the list may yet be empty
	Unit        *Unit

	ab  *abbrev
	pos uint64 // of the first value, in the section
}

// Class is the kind of a value (DWARF 5 §7.5.5).
type Class uint8

const (
	ClassUnknown   Class = iota // a reference to another file, or to a type that is not here
	ClassAddress                // U: an address as linked
	ClassConst                  // U zero-extended, S sign-extended; B for 16 bytes
	ClassBlock                  // B
	ClassExpr                   // B: a DWARF expression
	ClassFlag                   // U: 1 or 0
	ClassRef                    // U: the Offset of another entry, in .debug_info
	ClassString                 // B, without the NUL
	ClassSecOffset              // U: an offset in a section that the attribute implies
	ClassIndex                  // U: an index into location or range lists
)

// Val is an attribute's value.
type Val struct {
	Form  Form
	Class Class
	U     uint64
	S     int64
	B     []byte
}

// Text is the string that the value is, "" if it is none. It shares the section's memory.
func (v *Val) Text() string {
	if v.Class != ClassString {
		return ""
	}
	return text(v.B)
}

// Number is the constant, not negative, that the value is, in at most 8 bytes; 0 if it
// is none.
func (v *Val) Number() uint64 {
	if v.Class != ClassConst || v.B != nil {
		return 0
	}
	return v.U
}

// read reads the entry at off, and returns where the next begins. The null entry that
// ends a list of siblings leaves e.ab nil.
func (u *Unit) read(e *Entry, off Offset) (Offset, error) {
	t := u.table()
	if t.err != nil {
		return 0, t.err
	}
	if off < u.root || off >= u.End {
		return 0, fmt.Errorf("%w: entry at %#x outside its unit", ErrDWARF, off)
	}
	*e = Entry{Offset: off, Unit: u}
	ab, pos, err := t.at(u.info, uint64(off-u.shift))
	if err != nil || ab == nil {
		return u.shift + Offset(pos), err
	}
	end, err := ab.end(u.info, pos, u.key)
	if err != nil {
		return 0, fmt.Errorf("entry at %#x: %w", off, err)
	}
	e.Tag, e.HasChildren, e.ab, e.pos = ab.tag, ab.children, ab, pos
	return u.shift + Offset(end), nil
}

// at reads an abbreviation code: nil for a null entry. pos is where its values begin.
func (t *abbrevTable) at(info []byte, off uint64) (ab *abbrev, pos uint64, err error) {
	code, pos := uint64(info[off]), off+1
	if code >= 0x80 {
		v, n := uleb(info[off:])
		if n == 0 {
			return nil, 0, fmt.Errorf("%w: entry at %#x cut short", ErrDWARF, off)
		}
		code, pos = v, off+uint64(n)
	}
	if code == 0 {
		return nil, pos, nil
	}
	if ab = t.get(code); ab == nil {
		return nil, 0, fmt.Errorf("%w: entry at %#x: no abbreviation %d", ErrDWARF, off, code)
	}
	return ab, pos, nil
}

// end is the position after the values that begin at pos.
func (a *abbrev) end(info []byte, pos uint64, key abbrevKey) (uint64, error) {
	if a.bad != nil {
		return 0, a.bad
	}
	n := uint64(len(info))
	if a.fixed >= 0 {
		if uint64(a.fixed) > n-pos {
			return 0, fmt.Errorf("%w: values beyond the unit", ErrDWARF)
		}
		return pos + uint64(a.fixed), nil
	}
	for _, s := range a.skips {
		if uint64(s.bytes) > n-pos {
			return 0, fmt.Errorf("%w: values beyond the unit", ErrDWARF)
		}
		next, ok := skipForm(info, pos+uint64(s.bytes), s.form, key)
		if !ok {
			return 0, fmt.Errorf("%w: a value of %v beyond the unit", ErrDWARF, s.form)
		}
		pos = next
	}
	if uint64(a.tail) > n-pos {
		return 0, fmt.Errorf("%w: values beyond the unit", ErrDWARF)
	}
	return pos + uint64(a.tail), nil
}

// val decodes value number i.
func (e *Entry) val(i int) Val {
	specs := e.ab.specs
	s := &specs[i]
	if s.off >= 0 {
		return e.Unit.decode(s.form, s.implicit, s.size, e.pos+uint64(s.off))
	}
	// From the last value that has a known offset.
	j := i
	for specs[j].off < 0 {
		j--
	}
	pos := e.pos + uint64(specs[j].off)
	for ; j < i; j++ {
		if size := specs[j].size; size >= 0 {
			pos += uint64(size)
			continue
		}
		next, ok := skipForm(e.Unit.info, pos, specs[j].form, e.Unit.key)
		if !ok { // read has been over it
			return Val{Form: s.form}
		}
		pos = next
	}
	return e.Unit.decode(s.form, s.implicit, s.size, pos)
}

// decode reads a value at pos, which read has found to be within the unit. What it
// refers to may yet be out of bounds: then the class is ClassUnknown.
func (u *Unit) decode(f Form, implicit int64, size int8, pos uint64) Val {
	if f == FormIndirect {
		if real, size, at, ok := u.indirect(pos); ok {
			return u.decode(real, 0, size, at)
		}
		return Val{Form: f}
	}
	n := u.number(f, implicit, size, pos)
	v := Val{Form: f, Class: n.Class, U: n.U}
	switch n.Class {
	case ClassConst:
		v.S = int64(n.U)
		switch f {
		case FormData1:
			v.S = int64(int8(n.U))
		case FormData2:
			v.S = int64(int16(n.U))
		case FormData4:
			v.S = int64(int32(n.U))
		case FormData16:
			v.B = u.info[pos : pos+16 : pos+16]
		}
	case ClassString:
		v.U, v.B = 0, u.data.str(Str(n.U))
		if v.B == nil {
			v.Class = ClassUnknown
		}
	case ClassBlock, ClassExpr:
		b := buf{b: u.info, pos: int(pos)}
		var n uint64
		switch f {
		case FormBlock1:
			n = uint64(b.u8())
		case FormBlock2:
			n = uint64(b.u16())
		case FormBlock4:
			n = uint64(b.u32())
		default:
			n = b.uleb()
		}
		v.B = b.bytes(n)
		if b.bad {
			return Val{Form: f}
		}
	}
	return v
}

// Val is the value of an attribute of this very entry, not of one it refers to; not ok
// if there is none.
func (e *Entry) Val(a Attr) (Val, bool) {
	for i := range e.ab.specs {
		if e.ab.specs[i].attr == a {
			return e.val(i), true
		}
	}
	return Val{}, false
}

// Has reports whether the entry has the attribute.
func (e *Entry) Has(a Attr) bool {
	for i := range e.ab.specs {
		if e.ab.specs[i].attr == a {
			return true
		}
	}
	return false
}

// Attrs yields all attributes in the order of the file.
func (e *Entry) Attrs() iter.Seq2[Attr, Val] {
	return func(yield func(Attr, Val) bool) {
		for i := range e.ab.specs {
			if !yield(e.ab.specs[i].attr, e.val(i)) {
				return
			}
		}
	}
}

// String is the attribute's string, "" if there is none.
func (e *Entry) String(a Attr) string {
	v, _ := e.Val(a)
	return v.Text()
}

// Name is the string of DW_AT_name.
func (e *Entry) Name() string { return e.String(AttrName) }

// Uint is the attribute's constant, not negative, in at most 8 bytes. Forms of a fixed
// size are zero-extended.
func (e *Entry) Uint(a Attr) (uint64, bool) {
	v, ok := e.Val(a)
	return v.U, ok && v.Class == ClassConst && v.B == nil
}

// Int is the attribute's constant with its sign, in at most 8 bytes. Forms of a fixed
// size do not say whether they have a sign: here they are sign-extended, and whoever
// knows that the number has none (from the type of a discriminant, say) asks Uint.
func (e *Entry) Int(a Attr) (int64, bool) {
	v, ok := e.Val(a)
	return v.S, ok && v.Class == ClassConst && v.B == nil
}

// Ref is the entry that the attribute refers to.
func (e *Entry) Ref(a Attr) (Offset, bool) {
	v, ok := e.Val(a)
	return Offset(v.U), ok && v.Class == ClassRef
}

// Flag reports whether the attribute is there and true.
func (e *Entry) Flag(a Attr) bool {
	v, ok := e.Val(a)
	return ok && v.Class == ClassFlag && v.U != 0
}

// Addr is the attribute's address, as linked.
func (e *Entry) Addr(a Attr) (uint64, bool) {
	v, ok := e.Val(a)
	return v.U, ok && v.Class == ClassAddress
}

// maxOrigins bounds chains of entries that complete one another.
const maxOrigins = 16

// Origin is the entry that this one completes, by DW_AT_abstract_origin or
// DW_AT_specification; nil if it is whole.
func (e *Entry) Origin() (*Entry, error) {
	off, ok := e.Ref(AttrAbstractOrigin)
	if !ok {
		if off, ok = e.Ref(AttrSpecification); !ok {
			return nil, nil
		}
	}
	return e.Unit.data.Entry(off)
}

// Inherited is the value of the attribute from this entry or from those it completes
// (DWARF 5 §2.13, §3.3.8.1), and the entry that holds it.
func (e *Entry) Inherited(a Attr) (Val, *Entry, bool) {
	for range maxOrigins {
		if v, ok := e.Val(a); ok {
			return v, e, true
		}
		o, err := e.Origin()
		if o == nil || err != nil {
			break
		}
		e = o
	}
	return Val{}, nil, false
}

// TagSet is a set of tags of the standard.
type TagSet [2]uint64

// Tags makes a set of tags, all of them below 0x80.
func Tags(tags ...Tag) (s TagSet) {
	for _, t := range tags {
		s[t>>6] |= 1 << (t & 63)
	}
	return s
}

// Has reports whether t is in the set.
func (s *TagSet) Has(t Tag) bool { return t < 0x80 && s[t>>6]>>(t&63)&1 != 0 }

// Cursor walks an entry and all below it, each before its children. It allocates
// nothing.
type Cursor struct {
	unit  *Unit
	table *abbrevTable
	e     Entry
	pos   uint64 // of what comes next, in the section
	depth int    // of what comes next
	at    int    // depth of e
	low   int    // the lowest depth since NextTag was called
	below bool   // what comes next are the children of e
	done  bool
	err   error
}

// Cursor walks the entry at, and all below it; at 0 means the unit's root, and thereby
// the whole unit.
func (u *Unit) Cursor(at Offset) Cursor {
	if at == 0 {
		at = u.root
	}
	c := Cursor{unit: u, table: u.table(), pos: uint64(at - u.shift)}
	if c.err = c.table.err; c.err == nil && (at < u.root || at >= u.End) {
		c.err = fmt.Errorf("%w: entry at %#x outside its unit", ErrDWARF, at)
	}
	return c
}

// Next goes to the next entry. It returns false at the end, and after an error.
func (c *Cursor) Next() bool {
	if c.done || c.err != nil {
		return false
	}
	info := c.unit.info
	for {
		if c.pos >= uint64(len(info)) {
			// The null entries at the end of a unit may be left out (DWARF 5 §7.5.3).
			c.done = true
			return false
		}
		ab, pos, err := c.table.at(info, c.pos)
		if err != nil {
			c.err = err
			return false
		}
		if ab == nil {
			c.pos = pos
			c.depth--
			c.low = min(c.low, c.depth)
			if c.depth <= 0 {
				c.done = true
				return false
			}
			continue
		}
		var end uint64
		if n := uint64(ab.fixed); ab.fixed >= 0 && ab.bad == nil && n <= uint64(len(info))-pos {
			end = pos + n
		} else if end, err = ab.end(info, pos, c.unit.key); err != nil {
			c.err = fmt.Errorf("entry at %#x: %w", c.pos, err)
			return false
		}
		c.e = Entry{Offset: c.unit.shift + Offset(c.pos), Tag: ab.tag, HasChildren: ab.children, Unit: c.unit, ab: ab, pos: pos}
		c.pos, c.at, c.below = end, c.depth, ab.children
		if ab.children {
			c.depth++
		} else if c.depth == 0 {
			c.done = true
		}
		return true
	}
}

// NextTag goes to the next entry whose tag is in the set. What comes before is only passed
// over: most of a unit are entries that nobody looks for.
func (c *Cursor) NextTag(s *TagSet) bool {
	if c.done || c.err != nil {
		return false
	}
	info, table := c.unit.info, c.table
	pos, depth, low := c.pos, c.depth, c.depth
	for pos < uint64(len(info)) {
		code := info[pos]
		if code == 0 {
			pos++
			depth--
			low = min(low, depth)
			if depth <= 0 {
				break
			}
			continue
		}
		// Next has what is rare, and all errors.
		if code >= 0x80 || int(code) >= len(table.dense) || table.dense[code] == nil || depth == 0 {
			if c.pos, c.depth, c.low = pos, depth, low; !c.Next() {
				return false
			}
			if s.Has(c.e.Tag) {
				return true
			}
			pos, depth, low = c.pos, c.depth, c.low
			continue
		}
		ab := table.dense[code]
		end := pos + 1
		if n := uint64(ab.fixed); ab.fixed >= 0 && ab.bad == nil && n <= uint64(len(info))-end {
			end += n
		} else if next, err := ab.end(info, end, c.unit.key); err == nil {
			end = next
		} else {
			c.err = fmt.Errorf("entry at %#x: %w", pos, err)
			return false
		}
		if s.Has(ab.tag) {
			c.e = Entry{Offset: c.unit.shift + Offset(pos), Tag: ab.tag, HasChildren: ab.children, Unit: c.unit, ab: ab, pos: pos + 1}
			c.pos, c.at, c.below, c.depth, c.low = end, depth, ab.children, depth, low
			if ab.children {
				c.depth++
			}
			return true
		}
		if ab.children {
			depth++
		}
		pos = end
	}
	// The null entries at the end of a unit may be left out (DWARF 5 §7.5.3).
	c.pos, c.depth, c.done = pos, depth, true
	return false
}

// Entry is the entry that Next went to. The Cursor's own is returned, which Next
// changes: copy it to keep it.
func (c *Cursor) Entry() *Entry { return &c.e }

// Depth is the entry's depth below the first, which is at 0.
func (c *Cursor) Depth() int { return c.at }

// Low is the lowest depth at which anything was passed on the way from the entry before to
// the one that NextTag went to: what was entered at it or below has been left.
func (c *Cursor) Low() int { return c.low }

// Err is what ended the walk before its time.
func (c *Cursor) Err() error { return c.err }

// Skip passes over what is below the entry that Next went to.
func (c *Cursor) Skip() {
	if !c.below || c.err != nil || c.done {
		return
	}
	c.below = false
	if c.at == 0 {
		c.done = true
		return
	}
	if c.e.ab.sibling {
		if off, ok := c.e.Ref(AttrSibling); ok && off <= c.unit.End && off >= c.unit.shift+Offset(c.pos) {
			c.pos, c.depth = uint64(off-c.unit.shift), c.at
			return
		}
	}
	info, pos := c.unit.info, c.pos
	for depth := 1; depth > 0 && pos < uint64(len(info)); {
		ab, next, err := c.table.at(info, pos)
		if err == nil && ab != nil {
			next, err = ab.end(info, next, c.unit.key)
			if ab.children {
				depth++
			}
		}
		if err != nil {
			c.err = fmt.Errorf("entry at %#x: %w", pos, err)
			return
		}
		if ab == nil {
			depth--
		}
		pos = next
	}
	c.pos, c.depth = pos, c.at
}
