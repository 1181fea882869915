package dwarf

import (
	"fmt"
	"slices"
)

// abbrevKey names a table of abbreviations and all that the sizes of its forms hang on.
type abbrevKey struct {
	off      uint64
	addrSize uint8
	format64 bool
	v2       bool  // DW_FORM_ref_addr has the size of an address
	file     int32 // which Sections the table is in: 0 are the linked file's
}

// abbrevTable holds the abbreviations of one or more units. Compilers number them from
// 1 on, so most are found by index.
type abbrevTable struct {
	dense  []*abbrev // by code; nil for gaps
	sparse map[uint64]*abbrev
	err    error
}

// abbrev is the shape of an entry (DWARF 5 §7.5.3).
type abbrev struct {
	tag      Tag
	children bool
	bad      error // a form that is not known: entries of this shape have no known end
	fixed    int32 // bytes of all values together, -1 if that varies
	specs    []attrSpec
	skips    []skipStep // how to pass over the values if fixed is -1
	tail     int32      // bytes after the last step
	sibling  bool
}

type attrSpec struct {
	attr     Attr
	form     Form
	size     int8  // of the value, -1 if that varies
	off      int32 // of the value from the first, -1 if that varies
	implicit int64 // DW_FORM_implicit_const
}

// skipStep passes over some bytes and then one value of varying length.
type skipStep struct {
	bytes int32
	form  Form
}

func (t *abbrevTable) get(code uint64) *abbrev {
	if code < uint64(len(t.dense)) {
		return t.dense[code]
	}
	return t.sparse[code]
}

// abbrevTable reads the table at key.off for all units that share it: once, or by each of
// those that ask at the same time, for most units have their own and need not wait for others.
func (d *Data) abbrevTable(key abbrevKey, section []byte) *abbrevTable {
	d.mu.Lock()
	t, read := d.abbrevs[key], d.read
	d.mu.Unlock()
	if t != nil {
		return t
	}
	t, n := d.parseAbbrevs(key, section, read)
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.abbrevs[key]; other != nil {
		return other
	}
	d.read += n
	d.abbrevs[key] = t
	return t
}

// parseAbbrevs also returns how many bytes the table has; read are those of all before.
func (d *Data) parseAbbrevs(key abbrevKey, section []byte, read int) (t *abbrevTable, n int) {
	t = &abbrevTable{dense: make([]*abbrev, 1, 64)}
	if key.off >= uint64(len(section)) {
		t.err = fmt.Errorf("%w: abbreviations at %#x of %#x", ErrDWARF, key.off, len(section))
		return t, 0
	}
	// Tables do not overlap, and units of several kinds that share one are few; a
	// file in which each unit has its own beginning of one long table is refused.
	if read > 16*d.abbrev {
		t.err = fmt.Errorf("%w: abbreviations overlap", ErrDWARF)
		return t, 0
	}
	b := buf{b: section, pos: int(key.off)}
	for {
		code := b.uleb()
		if b.bad {
			t.err = b.err("abbreviations")
			return t, b.pos - int(key.off)
		}
		if code == 0 {
			return t, b.pos - int(key.off)
		}
		a := parseAbbrev(&b, key)
		if b.bad {
			t.err = b.err("abbreviations")
			return t, b.pos - int(key.off)
		}
		switch {
		case t.get(code) != nil:
			t.err = fmt.Errorf("%w: abbreviation %d twice", ErrDWARF, code)
			return t, b.pos - int(key.off)
		case code == uint64(len(t.dense)):
			t.dense = append(t.dense, a)
		default:
			if t.sparse == nil {
				t.sparse = map[uint64]*abbrev{}
			}
			t.sparse[code] = a
		}
	}
}

func parseAbbrev(b *buf, key abbrevKey) *abbrev {
	a := &abbrev{}
	tag := b.uleb()
	if tag > 0xffff {
		a.bad = fmt.Errorf("%w: tag %#x", ErrDWARF, tag)
	}
	a.tag = Tag(tag)
	a.children = b.u8() != 0
	off, step := int32(0), int32(0)
	var room [24]attrSpec
	specs := room[:0]
	known := true // whether off is the offset of the next value
	for {
		attr, form := b.uleb(), b.uleb()
		if b.bad || attr == 0 && form == 0 {
			break
		}
		s := attrSpec{attr: Attr(attr), form: Form(form), off: -1}
		if attr > 0xffff || form > 0xffff {
			a.bad = fmt.Errorf("%w: attribute %#x of form %#x", ErrDWARF, attr, form)
		}
		if s.form == FormImplicitConst {
			s.implicit = b.sleb()
		}
		size, ok := formSize(s.form, key)
		if !ok && a.bad == nil {
			a.bad = fmt.Errorf("%w: %v of %v", ErrDWARF, s.form, s.attr)
		}
		s.size = size
		if known {
			s.off = off
		}
		if size >= 0 {
			off += int32(size)
			step += int32(size)
		} else {
			known = false
			a.skips = append(a.skips, skipStep{step, s.form})
			step = 0
		}
		if s.attr == AttrSibling {
			a.sibling = true
		}
		specs = append(specs, s)
	}
	a.specs = slices.Clone(specs)
	a.fixed, a.tail = -1, step
	if known {
		a.fixed = off
	}
	return a
}

// formSize is the number of bytes of a value, -1 where the value itself says it; not
// ok for forms that are not known.
func formSize(f Form, key abbrevKey) (size int8, ok bool) {
	offset := int8(4)
	if key.format64 {
		offset = 8
	}
	switch f {
	case FormFlagPresent, FormImplicitConst:
		return 0, true
	case FormData1, FormRef1, FormFlag, FormStrx1, FormAddrx1:
		return 1, true
	case FormData2, FormRef2, FormStrx2, FormAddrx2:
		return 2, true
	case FormStrx3, FormAddrx3:
		return 3, true
	case FormData4, FormRef4, FormStrx4, FormAddrx4, FormRefSup4:
		return 4, true
	case FormData8, FormRef8, FormRefSig8, FormRefSup8:
		return 8, true
	case FormData16:
		return 16, true
	case FormAddr:
		return int8(key.addrSize), true
	case FormRefAddr:
		if key.v2 {
			return int8(key.addrSize), true
		}
		return offset, true
	case FormSecOffset, FormStrp, FormLineStrp, FormStrpSup, FormGNURefAlt, FormGNUStrpAlt:
		return offset, true
	case FormBlock, FormBlock1, FormBlock2, FormBlock4, FormExprloc, FormString, FormSdata, FormUdata,
		FormRefUdata, FormStrx, FormAddrx, FormLoclistx, FormRnglistx, FormIndirect,
		FormGNUAddrIndex, FormGNUStrIndex:
		return -1, true
	}
	return -1, false
}

// skipForm returns the position after a value of varying length, not ok if that is
// beyond the end of info.
func skipForm(info []byte, pos uint64, f Form, key abbrevKey) (uint64, bool) {
	left := uint64(len(info)) - pos
	var n uint64
	switch f {
	case FormUdata, FormSdata, FormRefUdata, FormStrx, FormAddrx, FormLoclistx, FormRnglistx,
		FormGNUAddrIndex, FormGNUStrIndex:
		if left > 0 && info[pos] < 0x80 {
			return pos + 1, true
		}
		n := lebLen(info[pos:])
		return pos + uint64(n), n > 0
	case FormExprloc, FormBlock:
		size, k := uleb(info[pos:])
		if k == 0 || size > left {
			return 0, false
		}
		n = uint64(k) + size
	case FormBlock1:
		if left < 1 {
			return 0, false
		}
		n = 1 + uint64(info[pos])
	case FormBlock2:
		if left < 2 {
			return 0, false
		}
		n = 2 + word(info[pos:pos+2])
	case FormBlock4:
		if left < 4 {
			return 0, false
		}
		n = 4 + word(info[pos:pos+4])
	case FormString:
		s := cstring(info, pos)
		if s == nil {
			return 0, false
		}
		n = uint64(len(s)) + 1
	case FormIndirect:
		real, k := uleb(info[pos:])
		if k == 0 || real > 0xffff || Form(real) == FormIndirect || Form(real) == FormImplicitConst {
			return 0, false
		}
		pos += uint64(k)
		size, ok := formSize(Form(real), key)
		if !ok {
			return 0, false
		}
		if size < 0 {
			return skipForm(info, pos, Form(real), key)
		}
		left = uint64(len(info)) - pos
		n = uint64(size)
	default:
		return 0, false
	}
	if n > left {
		return 0, false
	}
	return pos + n, true
}
