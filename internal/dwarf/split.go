package dwarf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// Split debug info (DWARF 5 §7.3.2; before it, GNU's extension of DWARF 4): the linked
// file has of each unit a skeleton, with what the linker had to fill in. All else is in a
// split unit, in a .dwo file that the skeleton names, or in a package (.dwp) of all of
// them. A number that both have tells what belongs together.

// noteSkeleton finds whether a unit of the linked file is a skeleton. Before DWARF 5 only
// its attributes tell; units without .debug_addr are none, and spared the look.
func (d *Data) noteSkeleton(u *Unit) {
	if u.Version >= 5 || len(d.s.Addr) == 0 {
		return
	}
	if e, err := u.Root(); err == nil && e.Has(AttrGNUDwoName) {
		u.id, u.split = e.Uint(AttrGNUDwoId)
	}
}

// Skeletons lists the units whose split unit has not been joined, in the order of the
// file.
func (d *Data) Skeletons() []*Unit {
	var all []*Unit
	for _, u := range d.units {
		if u.split && !u.joined {
			all = append(all, u)
		}
	}
	return all
}

// Join adds the units of split files and packages, each given by its sections with names
// in .dwo, to those of the linked file, in place of their skeletons. It is to be called
// before any other use of Units. What belongs to no skeleton is left out. The errors are
// one for each file, nil where all could be read.
func (d *Data) Join(files []Sections) []error {
	skeletons := map[uint64]*Unit{}
	for _, u := range d.Skeletons() {
		skeletons[u.id] = u
	}
	errs := make([]error, len(files))
	for i := range files {
		s := &files[i]
		if uint64(len(s.Info)) > 1<<62-uint64(d.end) {
			errs[i] = fmt.Errorf("%w: too long", ErrDWARF)
			continue
		}
		d.abbrev += len(s.Abbrev)
		var units []*Unit
		if s.CUIndex != nil {
			units, errs[i] = d.packaged(s, skeletons)
		} else {
			units, errs[i] = d.alone(s, skeletons)
		}
		d.end += Offset(len(s.Info))
		d.all = append(d.all, units...)
		d.units = append(d.units, units...)
	}
	d.units = slices.DeleteFunc(d.units, func(u *Unit) bool { return u.joined })
	return errs
}

// join makes u the split unit of its skeleton; not ok if there is none, or another unit
// has been joined to it.
func (u *Unit) join(skeletons map[uint64]*Unit) (ok bool, err error) {
	if u.Version < 5 {
		e, err := u.Root()
		if err != nil {
			return false, err
		}
		if u.id, ok = e.Uint(AttrGNUDwoId); !ok {
			return false, nil
		}
	} else if u.kind != utSplitCompile {
		return false, nil
	}
	k := skeletons[u.id]
	if k == nil || k.joined {
		return false, nil
	}
	if k.Version != u.Version || k.AddrSize != u.AddrSize {
		return false, fmt.Errorf("%w: a split unit of version %d for a skeleton of version %d", ErrDWARF, u.Version, k.Version)
	}
	u.skeleton, k.joined = k, true
	return true, nil
}

// linked completes the sections of a split file by those of the linked one that split
// units refer to: addresses, and before DWARF 5 ranges.
func (d *Data) linked(s Sections) *Sections {
	s.Addr, s.Ranges, s.Line, s.LineStr = d.s.Addr, d.s.Ranges, nil, nil
	s.CUIndex = nil
	return &s
}

// alone reads a .dwo file.
func (d *Data) alone(s *Sections, skeletons map[uint64]*Unit) (units []*Unit, err error) {
	own := d.linked(*s)
	d.sections = append(d.sections, own)
	file := int32(len(d.sections) - 1)
	for off := uint64(0); off < uint64(len(s.Info)); {
		u, next, e := d.parseHeader(own, file, d.end, off)
		if e == nil {
			var ok bool
			if ok, e = u.join(skeletons); ok {
				units = append(units, u)
			}
		}
		if e != nil && err == nil {
			err = fmt.Errorf("unit at %#x: %w", off, e)
		}
		if next <= off {
			break
		}
		off = next
	}
	if len(units) == 0 && err == nil {
		err = fmt.Errorf("%w: of another build", ErrDWARF)
	}
	return units, err
}

// Columns of the index of a package, by what they were before DWARF 5 and by what they are
// since (DWARF 5 §7.3.5.3).
const (
	columnInfo = iota
	columnAbbrev
	columnLoc
	columnStrOffsets
	columnLocLists
	columnRngLists
	columns
)

var (
	columnsV2 = map[uint32]int{1: columnInfo, 3: columnAbbrev, 5: columnLoc, 6: columnStrOffsets}
	columnsV5 = map[uint32]int{1: columnInfo, 3: columnAbbrev, 5: columnLocLists, 6: columnStrOffsets, 8: columnRngLists}
)

// contribution is the part of each section that one unit of a package has.
type contribution struct {
	id   uint64
	part [columns]struct{ off, size uint32 }
}

// parseCUIndex reads an index, its units in the order in which they stand in the section.
// Not its hash table, which finds one of them: all are wanted.
func parseCUIndex(b []byte) ([]contribution, error) {
	if len(b) < 16 {
		return nil, fmt.Errorf("%w: package index cut short", ErrDWARF)
	}
	le := binary.LittleEndian
	version := le.Uint32(b)
	known := columnsV2
	// 16 bits and 16 of padding since DWARF 5, 32 bits before.
	if version&0xffff == 5 {
		known = columnsV5
	} else if version != 2 {
		return nil, fmt.Errorf("%w: package index of version %d", ErrDWARF, version)
	}
	width, n, slots := uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:]))
	b = b[16:]
	// The product of 32-bit numbers below these bounds does not overflow.
	if size := uint64(len(b)); width == 0 || width > 16 || slots > size/12 || n > slots || 12*slots+4*width+8*n*width > size {
		return nil, fmt.Errorf("%w: package index of %d columns, %d units, %d slots", ErrDWARF, width, n, slots)
	}
	ids, rows := b[:8*slots], b[8*slots:12*slots]
	heads, offs := b[12*slots:12*slots+4*width], b[12*slots+4*width:]
	sizes := offs[4*n*width:]
	var column [16]int
	for i := range width {
		c, ok := known[le.Uint32(heads[4*i:])]
		if column[i] = c; !ok {
			column[i] = -1
		}
	}
	all := make([]contribution, 0, n)
	seen := make([]bool, n)
	for slot := range slots {
		row := uint64(le.Uint32(rows[4*slot:]))
		if row == 0 {
			continue
		}
		if row > n || seen[row-1] {
			return nil, fmt.Errorf("%w: package index: row %d", ErrDWARF, row)
		}
		seen[row-1] = true
		c := contribution{id: le.Uint64(ids[8*slot:])}
		for i := range width {
			if column[i] < 0 {
				continue
			}
			at := 4 * ((row-1)*width + i)
			c.part[column[i]].off, c.part[column[i]].size = le.Uint32(offs[at:]), le.Uint32(sizes[at:])
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b contribution) int { return cmp.Compare(a.part[columnInfo].off, b.part[columnInfo].off) })
	return all, nil
}

// packaged reads a .dwp file.
func (d *Data) packaged(s *Sections, skeletons map[uint64]*Unit) (units []*Unit, err error) {
	rows, err := parseCUIndex(s.CUIndex)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		u, ok, e := d.packagedUnit(s, &rows[i], skeletons, units)
		if ok {
			units = append(units, u)
		}
		if e != nil && err == nil {
			err = fmt.Errorf("unit %#x: %w", rows[i].id, e)
		}
	}
	if len(units) == 0 && err == nil {
		err = fmt.Errorf("%w: of another build", ErrDWARF)
	}
	return units, err
}

func (d *Data) packagedUnit(s *Sections, c *contribution, skeletons map[uint64]*Unit, before []*Unit) (u *Unit, ok bool, err error) {
	k := skeletons[c.id]
	if k == nil || k.joined {
		return nil, false, nil
	}
	own := d.linked(*s)
	// .debug_info stays whole, for offsets count from its beginning.
	for i, b := range map[int]*[]byte{columnAbbrev: &own.Abbrev, columnLoc: &own.Loc, columnStrOffsets: &own.StrOffsets,
		columnLocLists: &own.LocLists, columnRngLists: &own.RngLists} {
		off, size := uint64(c.part[i].off), uint64(c.part[i].size)
		if off+size > uint64(len(*b)) {
			return nil, false, fmt.Errorf("%w: %#x bytes at %#x of a section of %#x", ErrDWARF, size, off, len(*b))
		}
		*b = (*b)[off : off+size : off+size]
	}
	info := c.part[columnInfo]
	if uint64(info.off)+uint64(info.size) > uint64(len(s.Info)) {
		return nil, false, fmt.Errorf("%w: %#x bytes at %#x of .debug_info.dwo", ErrDWARF, info.size, info.off)
	}
	d.sections = append(d.sections, own)
	u, next, err := d.parseHeader(own, int32(len(d.sections)-1), d.end, uint64(info.off))
	if err != nil {
		return nil, false, err
	}
	if next > uint64(info.off)+uint64(info.size) {
		return nil, false, fmt.Errorf("%w: longer than the index says", ErrDWARF)
	}
	if n := len(before); n > 0 && u.Offset < before[n-1].End {
		return nil, false, fmt.Errorf("%w: overlaps another", ErrDWARF)
	}
	u.packaged = true
	ok, err = u.join(skeletons)
	if ok && u.id != c.id {
		// Both are skeletons' numbers, but not the same one's.
		u.skeleton.joined, u.skeleton = false, nil
		return nil, false, fmt.Errorf("%w: the index has it under another number", ErrDWARF)
	}
	return u, ok, err
}
