package dwarf

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Unit is one unit of .debug_info.
type Unit struct {
	Offset   Offset // of the header
	End      Offset // after the last entry
	Version  int
	AddrSize int  // bytes of an address
	Format64 bool // the 64-bit format

	data      *Data
	s         *Sections // what its values refer to
	shift     Offset    // of the first byte of the section that it stands in
	kind      uint8     // a DW_UT constant; utCompile before DWARF 5
	root      Offset
	info      []byte // the section up to End
	skeleton  *Unit  // of a split unit that was joined: what the linked file has of it
	packaged  bool   // it stands in a package
	split     bool   // it is a skeleton
	joined    bool   // it is a skeleton, and its split unit is there
	id        uint64 // that a skeleton and its split unit have in common
	key       abbrevKey
	signature uint64 // type units
	typeEntry Offset

	tableOnce sync.Once
	table_    *abbrevTable

	basesOnce sync.Once
	bases_    bases

	rootOnce sync.Once
	root_    rootAttrs

	filesOnce sync.Once
	files     []File
	filesErr  error
}

// bases are where a unit's parts of other sections begin; ok bits tell which are known.
type bases struct {
	str, addr, rng, loc         uint64
	ranges                      uint64 // of a skeleton before DWARF 5: where its split unit's begin in .debug_ranges
	strOK, addrOK, rngOK, locOK bool
}

type rootAttrs struct {
	name, compDir, producer string
	lang                    uint64
	low                     uint64
	line                    uint64
	hasLine                 bool
	split                   string
}

// parseHeader reads the unit header at off of s.Info (DWARF 5 §7.5.1). next is the offset
// of the next unit, 0 if it cannot be told.
func (d *Data) parseHeader(s *Sections, file int32, shift Offset, off uint64) (u *Unit, next uint64, err error) {
	b := buf{b: s.Info, pos: int(off)}
	n, format64 := b.initialLength()
	if b.bad {
		return nil, 0, b.err("unit header")
	}
	start := uint64(b.pos)
	if n > uint64(len(s.Info))-start {
		return nil, 0, fmt.Errorf("%w: length %#x exceeds the section", ErrDWARF, n)
	}
	next = start + n
	b.b = b.b[:next]
	version := b.u16()
	u = &Unit{Offset: shift + Offset(off), End: shift + Offset(next), Version: int(version), Format64: format64,
		data: d, s: s, shift: shift, kind: utCompile}
	var abbrevs uint64
	switch {
	case b.bad:
	case version == 5:
		u.kind = b.u8()
		u.AddrSize = int(b.u8())
		abbrevs = b.offset(format64)
		switch u.kind {
		case utCompile, utPartial:
		case utSkeleton, utSplitCompile:
			u.id, u.split = b.u64(), u.kind == utSkeleton
		case utType, utSplitType:
			u.signature = b.u64()
			u.typeEntry = u.Offset + Offset(b.offset(format64))
		default:
			return nil, next, fmt.Errorf("%w: unit type %#x", ErrDWARF, u.kind)
		}
	case version >= 2 && version <= 4:
		abbrevs = b.offset(format64)
		u.AddrSize = int(b.u8())
	default:
		return nil, next, fmt.Errorf("%w: version %d", ErrDWARF, version)
	}
	if b.bad {
		return nil, next, b.err("unit header")
	}
	if u.AddrSize != 4 && u.AddrSize != 8 {
		return nil, next, fmt.Errorf("%w: addresses of %d bytes", ErrDWARF, u.AddrSize)
	}
	u.root = shift + Offset(b.pos)
	u.info = s.Info[:next:next]
	u.key = abbrevKey{off: abbrevs, addrSize: uint8(u.AddrSize), format64: format64, v2: version == 2, file: file}
	return u, next, nil
}

func (u *Unit) table() *abbrevTable {
	u.tableOnce.Do(func() { u.table_ = u.data.abbrevTable(u.key, u.s.Abbrev) })
	return u.table_
}

// Root reads the unit's first entry, which describes the unit.
func (u *Unit) Root() (*Entry, error) { return u.entry(u.root) }

// bases reads only attributes that are plain section offsets: all other kinds of
// values may need the result.
func (u *Unit) bases() *bases {
	u.basesOnce.Do(func() {
		b := &u.bases_
		if u.kind == utSplitCompile || u.kind == utSplitType {
			// The parts of a split unit follow the section's header (DWARF 5 §7.26).
			b.str, b.strOK = 8, true
			if u.Format64 {
				b.str = 16
			}
		}
		if u.Version < 5 {
			b.strOK = true // GNU split units: an index from the section's beginning
		}
		e := Entry{}
		if _, err := u.read(&e, u.root); err != nil || e.ab == nil {
			return
		}
		offset := func(a Attr, v *uint64, ok *bool) {
			for i := range e.ab.specs {
				switch s := &e.ab.specs[i]; s.form {
				case FormSecOffset, FormData4, FormData8:
					if s.attr == a {
						*v, *ok = e.val(i).U, true
					}
				}
			}
		}
		offset(AttrStrOffsetsBase, &b.str, &b.strOK)
		offset(AttrAddrBase, &b.addr, &b.addrOK)
		offset(AttrGNUAddrBase, &b.addr, &b.addrOK)
		offset(AttrRnglistsBase, &b.rng, &b.rngOK)
		offset(AttrLoclistsBase, &b.loc, &b.locOK)
		var ok bool
		offset(AttrGNURangesBase, &b.ranges, &ok)
		if u.skeleton != nil {
			b.addr, b.addrOK = u.skeleton.bases().addr, u.skeleton.bases().addrOK
		}
	})
	return &u.bases_
}

func (u *Unit) attrs() *rootAttrs {
	u.rootOnce.Do(func() {
		e, err := u.Root()
		if err != nil {
			return
		}
		r := &u.root_
		r.name, r.compDir, r.producer = e.String(AttrName), e.String(AttrCompDir), e.String(AttrProducer)
		r.lang, _ = e.Uint(AttrLanguage)
		r.low, _ = e.Addr(AttrLowPC)
		if v, ok := e.Val(AttrStmtList); ok && (v.Class == ClassSecOffset || v.Class == ClassConst) {
			r.line, r.hasLine = v.U, true
		}
		r.split = e.String(AttrDwoName)
		if r.split == "" {
			r.split = e.String(AttrGNUDwoName)
		}
		if u.skeleton != nil {
			r.split = ""
			// These stand in the skeleton alone (DWARF 5 §3.1.3).
			k := u.skeleton.attrs()
			r.compDir, r.low, r.line, r.hasLine = k.compDir, k.low, k.line, k.hasLine
		}
	})
	return &u.root_
}

// Name is the unit's primary source file, as the compiler was given it.
func (u *Unit) Name() string { return u.attrs().name }

// CompDir is the directory in which the compiler ran.
func (u *Unit) CompDir() string { return u.attrs().compDir }

// Producer names the compiler.
func (u *Unit) Producer() string { return u.attrs().producer }

// Lang is the DW_LANG constant of the source language, 0 if the unit does not say.
func (u *Unit) Lang() uint64 { return u.attrs().lang }

// SplitName is the file that holds the unit's entries, from CompDir if it is relative, if
// this is a skeleton, else "".
func (u *Unit) SplitName() string { return u.attrs().split }

// base is the address that range and location lists start from.
func (u *Unit) base() uint64 { return u.attrs().low }

// AddrX is the address with the given index in .debug_addr (DW_FORM_addrx).
func (u *Unit) AddrX(index uint64) (uint64, error) {
	b := u.bases()
	if !b.addrOK {
		return 0, fmt.Errorf("%w: no DW_AT_addr_base", ErrDWARF)
	}
	if s := element(u.s.Addr, b.addr, index, u.AddrSize); s != nil {
		return word(s), nil
	}
	return 0, fmt.Errorf("%w: address %d beyond .debug_addr", ErrDWARF, index)
}

// element is entry i of a table of entries of size bytes that begins at base; nil if
// it is not within the section.
func element(section []byte, base, i uint64, size int) []byte {
	n := uint64(len(section))
	if base > n || i >= (n-base)/uint64(size) {
		return nil
	}
	at := base + i*uint64(size)
	return section[at : at+uint64(size)]
}

// BaseType describes the base type whose entry is at off from the unit's header, as
// typed expressions name it: its bits and its DW_ATE encoding.
//
// LLVM makes such types for itself and rounds their DW_AT_byte_size up to whole bytes;
// the bits are then in the name only: "DW_ATE_unsigned_1".
func (u *Unit) BaseType(off uint64) (bits int, encoding uint64, err error) {
	at := u.Offset + Offset(off)
	if off > uint64(u.End-u.Offset) || at < u.root {
		return 0, 0, fmt.Errorf("%w: base type at %#x of its unit", ErrDWARF, off)
	}
	e, err := u.data.Entry(at)
	if err != nil {
		return 0, 0, err
	}
	n, ok := e.Uint(AttrByteSize)
	if n *= 8; !ok {
		n, ok = e.Uint(AttrBitSize)
	}
	name := e.Name()
	for _, prefix := range []string{"DW_ATE_unsigned_", "DW_ATE_signed_"} {
		if digits, found := strings.CutPrefix(name, prefix); found {
			n, err = strconv.ParseUint(digits, 10, 16)
			ok = err == nil
		}
	}
	if e.Tag != TagBaseType || !ok || n == 0 || n > 512 {
		return 0, 0, fmt.Errorf("%w: no base type at %#x", ErrDWARF, at)
	}
	encoding, _ = e.Uint(AttrEncoding)
	return int(n), encoding, nil
}
