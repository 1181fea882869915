package dwarf

import (
	"fmt"
	"slices"
)

// Range is code from Low up to but without High, as linked.
type Range struct{ Low, High uint64 }

// Contains reports whether addr is in the range.
func (r Range) Contains(addr uint64) bool { return r.Low <= addr && addr < r.High }

// maxList bounds the entries of one range or location list.
const maxList = 1 << 16

// Entry kinds of .debug_rnglists (DWARF 5 §7.25).
const (
	rleEndOfList = iota
	rleBaseAddressx
	rleStartxEndx
	rleStartxLength
	rleOffsetPair
	rleBaseAddress
	rleStartEnd
	rleStartLength
)

// Ranges is the code that the entry describes: DW_AT_ranges, or low_pc and high_pc, in
// the order of the file; none if it says nothing. Empty ranges are left out, and
// tombstones, which linkers write in place of the addresses of code that they have
// dropped: 0 (bfd, and lld before 11), and the two highest addresses (lld).
func (e *Entry) Ranges() ([]Range, error) { return e.AppendRanges(nil) }

// AppendRanges appends to dst what Ranges returns.
func (e *Entry) AppendRanges(dst []Range) ([]Range, error) {
	u := e.Unit
	if v, ok := e.Val(AttrRanges); ok {
		var err error
		n := len(dst)
		switch {
		case u.Version >= 5 && v.Class == ClassIndex:
			var off uint64
			if off, err = u.listOffset(u.s.RngLists, u.bases().rng, u.bases().rngOK, v.U); err == nil {
				dst, err = u.rnglist(dst, off)
			}
		case u.Version >= 5 && v.Class == ClassSecOffset:
			dst, err = u.rnglist(dst, v.U)
		case v.Class == ClassSecOffset, v.Class == ClassConst && v.B == nil:
			dst, err = u.rangesV4(dst, v.U)
		default:
			err = fmt.Errorf("%w: ranges as %v", ErrDWARF, v.Form)
		}
		if err != nil {
			return dst[:n], fmt.Errorf("entry at %#x: %w", e.Offset, err)
		}
		return dst, nil
	}
	low, ok := e.Addr(AttrLowPC)
	if !ok {
		return dst, nil
	}
	v, ok := e.Val(AttrHighPC)
	if !ok {
		return dst, nil
	}
	switch v.Class {
	case ClassAddress:
		return u.appendRange(dst, low, v.U), nil
	case ClassConst:
		return u.appendRange(dst, low, low+v.U), nil
	}
	return dst, fmt.Errorf("entry at %#x: %w: high_pc as %v", e.Offset, ErrDWARF, v.Form)
}

// maxAddr is the highest address: the base address selection entry of DWARF 4 lists,
// and the tombstone of lld.
func (u *Unit) maxAddr() uint64 {
	if u.AddrSize == 4 {
		return 0xffffffff
	}
	return ^uint64(0)
}

func (u *Unit) tombstone(addr uint64) bool { return addr == 0 || addr >= u.maxAddr()-1 }

func (u *Unit) appendRange(dst []Range, low, high uint64) []Range {
	if low >= high || u.tombstone(low) {
		return dst
	}
	return append(dst, Range{low, high})
}

// rangesV4 reads a list of .debug_ranges (DWARF 4 §2.17.3).
func (u *Unit) rangesV4(dst []Range, off uint64) ([]Range, error) {
	s := u.s.Ranges
	if u.skeleton != nil {
		off += u.skeleton.bases().ranges
	}
	if off >= uint64(len(s)) {
		return dst, fmt.Errorf("%w: range list at %#x of %#x", ErrDWARF, off, len(s))
	}
	b := buf{b: s, pos: int(off)}
	base := u.base()
	for range maxList {
		low, high := b.uint(u.AddrSize), b.uint(u.AddrSize)
		switch {
		case b.bad:
			return dst, b.err("range list")
		case low == 0 && high == 0:
			return dst, nil
		case low == u.maxAddr():
			base = high
		case low != high:
			dst = u.appendRange(dst, base+low, base+high)
		}
	}
	return dst, fmt.Errorf("%w: range list of more than %d entries", ErrDWARF, maxList)
}

// rnglist reads a list of .debug_rnglists (DWARF 5 §2.17.3).
func (u *Unit) rnglist(dst []Range, off uint64) ([]Range, error) {
	s := u.s.RngLists
	if off >= uint64(len(s)) {
		return dst, fmt.Errorf("%w: range list at %#x of %#x", ErrDWARF, off, len(s))
	}
	b := buf{b: s, pos: int(off)}
	base := u.base()
	for range maxList {
		var low, high uint64
		var err error
		kind := b.u8()
		if b.bad {
			return dst, b.err("range list")
		}
		switch kind {
		case rleEndOfList:
			return dst, nil
		case rleBaseAddressx:
			base, err = u.addrIndex(&b)
		case rleStartxEndx:
			if low, err = u.addrIndex(&b); err == nil {
				high, err = u.addrIndex(&b)
			}
		case rleStartxLength:
			low, err = u.addrIndex(&b)
			high = low + b.uleb()
		case rleOffsetPair:
			low, high = b.uleb(), b.uleb()
			if u.tombstone(base) && base != 0 {
				low, high = 0, 0
			} else {
				low, high = base+low, base+high
			}
		case rleBaseAddress:
			base = b.uint(u.AddrSize)
		case rleStartEnd:
			low, high = b.uint(u.AddrSize), b.uint(u.AddrSize)
		case rleStartLength:
			low = b.uint(u.AddrSize)
			high = low + b.uleb()
		default:
			err = fmt.Errorf("%w: range list entry of kind %d", ErrDWARF, kind)
		}
		if err != nil {
			return dst, err
		}
		if b.bad {
			return dst, b.err("range list")
		}
		dst = u.appendRange(dst, low, high)
	}
	return dst, fmt.Errorf("%w: range list of more than %d entries", ErrDWARF, maxList)
}

func (u *Unit) addrIndex(b *buf) (uint64, error) {
	i := b.uleb()
	if b.bad {
		return 0, nil // the caller looks
	}
	return u.AddrX(i)
}

// listOffset finds list number i of a unit's part of .debug_rnglists or
// .debug_loclists, whose table of offsets begins at base (DWARF 5 §7.28, §7.29).
func (u *Unit) listOffset(section []byte, base uint64, ok bool, i uint64) (uint64, error) {
	size := 4
	if u.Format64 {
		size = 8
	}
	if !ok {
		if u.kind != utSplitCompile {
			return 0, fmt.Errorf("%w: an index into lists without their base", ErrDWARF)
		}
		base = 12
		if u.Format64 {
			base = 20
		}
	}
	s := element(section, base, i, size)
	if s == nil {
		return 0, fmt.Errorf("%w: list %d beyond its section", ErrDWARF, i)
	}
	return base + word(s), nil
}

// LocEntry says where a value is while the program is in [Low, High). An empty Expr
// means that it is nowhere.
type LocEntry struct {
	Low, High uint64
	Whole     bool // wherever else the program is, in the entry's scope
	Expr      []byte
}

// Entry kinds of .debug_loclists (DWARF 5 §7.7.3), and one of GNU's.
const (
	lleEndOfList = iota
	lleBaseAddressx
	lleStartxEndx
	lleStartxLength
	lleOffsetPair
	lleDefaultLocation
	lleBaseAddress
	lleStartEnd
	lleStartLength
	lleGNUViewPair
)

// Locations is what an attribute such as DW_AT_location or DW_AT_frame_base says: one
// Whole expression, or a list in the order of the file; nothing if there is no such
// attribute. Entries for no address are left out.
func (e *Entry) Locations(a Attr) ([]LocEntry, error) {
	v, ok := e.Val(a)
	if !ok {
		return nil, nil
	}
	u := e.Unit
	var list []LocEntry
	var err error
	switch {
	case v.Class == ClassExpr, v.Class == ClassBlock:
		return []LocEntry{{Whole: true, Expr: v.B}}, nil
	case u.Version >= 5 && v.Class == ClassIndex:
		var off uint64
		if off, err = u.listOffset(u.s.LocLists, u.bases().loc, u.bases().locOK, v.U); err == nil {
			list, err = u.loclist(off)
		}
	case u.Version >= 5 && v.Class == ClassSecOffset:
		list, err = u.loclist(v.U)
	case v.Class == ClassSecOffset, u.Version < 4 && (v.Form == FormData4 || v.Form == FormData8):
		list, err = u.loclistV4(v.U)
	default:
		err = fmt.Errorf("%w: a location as %v", ErrDWARF, v.Form)
	}
	if err != nil {
		return nil, fmt.Errorf("entry at %#x: %w", e.Offset, err)
	}
	return list, nil
}

// ExprAt is the expression of the list that holds at addr: that of the first entry
// whose range includes it, else that of a Whole one (DWARF 5 §2.6.2).
func ExprAt(list []LocEntry, addr uint64) (expr []byte, ok bool) {
	for _, l := range list {
		if !l.Whole && l.Low <= addr && addr < l.High {
			return l.Expr, true
		}
	}
	if i := slices.IndexFunc(list, func(l LocEntry) bool { return l.Whole }); i >= 0 {
		return list[i].Expr, true
	}
	return nil, false
}

func (u *Unit) appendLoc(dst []LocEntry, low, high uint64, expr []byte) []LocEntry {
	if low >= high || u.tombstone(low) {
		return dst
	}
	return append(dst, LocEntry{Low: low, High: high, Expr: expr})
}

// loclistV4 reads a list of .debug_loc (DWARF 4 §2.6.2).
func (u *Unit) loclistV4(off uint64) (list []LocEntry, err error) {
	s := u.s.Loc
	if off >= uint64(len(s)) {
		return nil, fmt.Errorf("%w: location list at %#x of %#x", ErrDWARF, off, len(s))
	}
	b := buf{b: s, pos: int(off)}
	if u.skeleton != nil {
		return u.loclistGNU(b)
	}
	base := u.base()
	for range maxList {
		low, high := b.uint(u.AddrSize), b.uint(u.AddrSize)
		switch {
		case b.bad:
			return nil, b.err("location list")
		case low == 0 && high == 0:
			return list, nil
		case low == u.maxAddr():
			base = high
			continue
		}
		expr := b.bytes(uint64(b.u16()))
		if b.bad {
			return nil, b.err("location list")
		}
		if low != high {
			list = u.appendLoc(list, base+low, base+high, expr)
		}
	}
	return nil, fmt.Errorf("%w: location list of more than %d entries", ErrDWARF, maxList)
}

// loclistGNU reads a list of .debug_loc.dwo, of which GNU's extension to DWARF 4 says
// what DWARF 5 then says with shorter numbers (gcc.gnu.org/wiki/DebugFission).
func (u *Unit) loclistGNU(b buf) (list []LocEntry, err error) {
	base := u.base()
	for range maxList {
		var low, high uint64
		var err error
		switch kind := b.u8(); kind {
		case lleEndOfList:
			if b.bad {
				return nil, b.err("location list")
			}
			return list, nil
		case lleBaseAddressx:
			if base, err = u.addrIndex(&b); err != nil {
				return nil, err
			}
			continue
		case lleStartxEndx:
			if low, err = u.addrIndex(&b); err == nil {
				high, err = u.addrIndex(&b)
			}
		case lleStartxLength:
			low, err = u.addrIndex(&b)
			high = low + uint64(b.u32())
		case lleOffsetPair:
			low, high = base+uint64(b.u32()), base+uint64(b.u32())
			if u.tombstone(base) && base != 0 {
				low, high = 0, 0
			}
		default:
			err = fmt.Errorf("%w: location list entry of kind %d", ErrDWARF, kind)
		}
		if err != nil {
			return nil, err
		}
		expr := b.bytes(uint64(b.u16()))
		if b.bad {
			return nil, b.err("location list")
		}
		list = u.appendLoc(list, low, high, expr)
	}
	return nil, fmt.Errorf("%w: location list of more than %d entries", ErrDWARF, maxList)
}

// loclist reads a list of .debug_loclists (DWARF 5 §2.6.2).
func (u *Unit) loclist(off uint64) (list []LocEntry, err error) {
	s := u.s.LocLists
	if off >= uint64(len(s)) {
		return nil, fmt.Errorf("%w: location list at %#x of %#x", ErrDWARF, off, len(s))
	}
	b := buf{b: s, pos: int(off)}
	base := u.base()
	for range maxList {
		var low, high uint64
		var err error
		kind := b.u8()
		if b.bad {
			return nil, b.err("location list")
		}
		switch kind {
		case lleEndOfList:
			return list, nil
		case lleBaseAddressx:
			if base, err = u.addrIndex(&b); err == nil && !b.bad {
				continue
			}
		case lleBaseAddress:
			if base = b.uint(u.AddrSize); !b.bad {
				continue
			}
		case lleGNUViewPair:
			b.uleb()
			b.uleb()
			if !b.bad {
				continue
			}
		case lleStartxEndx:
			if low, err = u.addrIndex(&b); err == nil {
				high, err = u.addrIndex(&b)
			}
		case lleStartxLength:
			low, err = u.addrIndex(&b)
			high = low + b.uleb()
		case lleOffsetPair:
			low, high = b.uleb(), b.uleb()
			if u.tombstone(base) && base != 0 {
				low, high = 0, 0
			} else {
				low, high = base+low, base+high
			}
		case lleDefaultLocation:
		case lleStartEnd:
			low, high = b.uint(u.AddrSize), b.uint(u.AddrSize)
		case lleStartLength:
			low = b.uint(u.AddrSize)
			high = low + b.uleb()
		default:
			err = fmt.Errorf("%w: location list entry of kind %d", ErrDWARF, kind)
		}
		if err != nil {
			return nil, err
		}
		expr := b.bytes(b.uleb())
		if b.bad {
			return nil, b.err("location list")
		}
		if kind == lleDefaultLocation {
			list = append(list, LocEntry{Whole: true, Expr: expr})
		} else {
			list = u.appendLoc(list, low, high, expr)
		}
	}
	return nil, fmt.Errorf("%w: location list of more than %d entries", ErrDWARF, maxList)
}
