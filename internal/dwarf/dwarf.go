// Package dwarf reads DWARF debug information, versions 2 to 5 in both formats, as
// compilers write it into linked files for x86-64: the entries of .debug_info, line
// tables, location and range lists, and the call frames of .eh_frame.
//
// It is made for one pass over tens of millions of bytes: nothing is decoded that
// nobody asks for, entries are walked without allocation, and units can be read in
// parallel. Everything that is read is foreign and may be damaged: lengths, offsets
// and references are checked, and what is broken is an error of that unit or entry.
//
// Names of constants are those of the standard without the prefix: DW_TAG_subprogram
// is TagSubprogram, DW_AT_low_pc is AttrLowPC.
//
// Ownership: strings and byte slices that this package returns share the memory of
// the Sections given to New, and are valid as long as that is (a mapped file: until it
// is unmapped). Use strings.Clone on what has to live longer. All methods of Data,
// Unit, Frames and LineTable may be called concurrently; a Cursor belongs to one
// goroutine.
package dwarf

import (
	"errors"
	"fmt"
	"sort"
	"sync"
)

// Offset is a position in .debug_info. Those of entries in split files are counted on from
// its end, file after file: they are unique within one Data.
type Offset uint64

// Sections are the sections' bytes, decompressed; absent ones are nil.
type Sections struct {
	Info, Abbrev, Str, LineStr, StrOffsets, Addr []byte
	Ranges, RngLists, Loc, LocLists, Line        []byte

	EhFrame     []byte
	EhFrameAddr uint64 // the address of .eh_frame, as linked
	DebugFrame  []byte

	// CUIndex says of a package of split units which parts of the sections each has.
	CUIndex []byte

	// Mem gives the file's memory from an address, as linked, to the end of what is
	// mapped there; nil if nothing is. Exception tables are found through it.
	Mem func(addr uint64) []byte
}

// ErrDWARF is wrapped by every error that says that the debug information is damaged
// or of a kind that this package does not read.
var ErrDWARF = errors.New("bad DWARF")

// maxProblems bounds the errors kept of broken units.
const maxProblems = 64

// Data is the debug information of one file.
type Data struct {
	s        Sections
	all      []*Unit // by offset, type units too
	units    []*Unit // compile, partial and skeleton units
	types    map[uint64]Offset
	end      Offset      // where the entries of the next split file come to stand
	sections []*Sections // by number: the linked file's is 0
	problems []error

	mu      sync.Mutex
	abbrevs map[abbrevKey]*abbrevTable
	read    int // bytes of .debug_abbrev read so far
	abbrev  int // bytes of .debug_abbrev of all files

	framesOnce sync.Once
	frames     *Frames
	framesErr  error
}

// New reads the headers of all units. It fails only if there is .debug_info and not
// one unit of it can be read; see Problems for units that were passed over.
func New(s Sections) (*Data, error) {
	d := &Data{s: s, abbrevs: map[abbrevKey]*abbrevTable{}, types: map[uint64]Offset{},
		end: Offset(len(s.Info)), abbrev: len(s.Abbrev)}
	d.sections = append(d.sections, &d.s)
	for off := uint64(0); off < uint64(len(s.Info)); {
		u, next, err := d.parseHeader(&d.s, 0, 0, off)
		if err != nil {
			d.problem(fmt.Errorf("unit at %#x: %w", off, err))
		}
		if u != nil {
			d.all = append(d.all, u)
			switch u.kind {
			case utType, utSplitType:
				d.types[u.signature] = u.typeEntry
			default:
				d.units = append(d.units, u)
				d.noteSkeleton(u)
			}
		}
		if next <= off {
			break
		}
		off = next
	}
	if len(d.all) == 0 && len(d.problems) > 0 {
		return nil, d.problems[0]
	}
	return d, nil
}

func (d *Data) problem(err error) {
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, err)
	}
}

// Units lists the compile units, partial ones too, in the order of their offsets. A
// skeleton is among them as long as its split unit has not been joined. The slice is not
// to be modified.
func (d *Data) Units() []*Unit { return d.units }

// Problems lists what made New pass over units, at most 64 of them.
func (d *Data) Problems() []error { return d.problems }

// UnitAt finds the unit whose entries include off, nil if none does.
func (d *Data) UnitAt(off Offset) *Unit {
	i := sort.Search(len(d.all), func(i int) bool { return d.all[i].End > off })
	if i == len(d.all) || off < d.all[i].root {
		return nil
	}
	return d.all[i]
}

// Entry reads the entry at off, which must be the beginning of one: debug information
// has no marks by which to tell.
func (d *Data) Entry(off Offset) (*Entry, error) {
	u := d.UnitAt(off)
	if u == nil {
		return nil, fmt.Errorf("%w: no unit at %#x", ErrDWARF, off)
	}
	return u.entry(off)
}

func (u *Unit) entry(off Offset) (*Entry, error) {
	e := &Entry{}
	if _, err := u.read(e, off); err != nil {
		return nil, err
	}
	if e.ab == nil {
		return nil, fmt.Errorf("%w: no entry at %#x", ErrDWARF, off)
	}
	return e, nil
}
