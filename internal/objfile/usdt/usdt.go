// Package usdt reads the static probes that programs carry for tracers: notes of
// SystemTap's sys/sdt.h, third version, as the crates usdt and probe write them too. A
// probe is a nop in the code, and a note that says where it is, what it is called, where its
// arguments are at that moment and, perhaps, which counter in the program's data tells it
// that somebody looks.
//
// The file is foreign: what does not read as such a note is left out, and an argument that
// does not read is known by its text alone.
package usdt

import (
	"bytes"
	"encoding/binary"

	"ferrotrace/internal/location"
	"ferrotrace/internal/objfile"
)

// Probe is one place of a static probe; several may have one name.
type Probe struct {
	Provider, Name string
	Addr           uint64 // of the nop, as linked
	// Semaphore is the address, as linked, of a counter of two bytes, 0 if there is none: the
	// program makes what a probe shows only while it is not zero.
	Semaphore uint64
	Args      []Arg
}

// Arg is one argument of a probe.
type Arg struct {
	Text   string // as the note has it: -4@%edi
	Size   int    // in bytes: 1, 2, 4 or 8; 0 if Place is missing for want of sense
	Signed bool
	Float  bool
	Place  location.Place
}

const (
	section = ".note.stapsdt"
	base    = ".stapsdt.base"
	owner   = "stapsdt\x00"
	version = 3 // NT_STAPSDT

	// maxProbes and maxArgs are more than any program has: node has some 50, and sys/sdt.h
	// knows up to twelve arguments.
	maxProbes = 1 << 20
	maxArgs   = 64
)

// Read lists the probes of a file, in the order of their notes; none if it has none.
func Read(f *objfile.File) ([]Probe, error) {
	notes, err := f.Section(section)
	if err != nil || notes == nil {
		return nil, err
	}
	at, _, moved := f.SectionAddr(base)
	return Parse(notes, at, moved, func(name string) (uint64, bool) {
		addr, _, ok := f.Named(name)
		return addr, ok
	}), nil
}

// Parse reads the contents of a section of notes. at is where the file has its section
// .stapsdt.base, if it has one: prelink moves that with the code, and not what notes say
// (SystemTap, UserSpaceProbeImplementation). symbol knows where symbols are.
func Parse(notes []byte, at uint64, moved bool, symbol func(name string) (addr uint64, ok bool)) (probes []Probe) {
	le := binary.LittleEndian
	for len(notes) >= 12 && len(probes) < maxProbes {
		nameSize, descSize, typ := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		desc := 12 + (nameSize+3)&^3
		next := desc + (descSize+3)&^3
		if desc+descSize > uint64(len(notes)) {
			return probes
		}
		if typ == version && string(notes[12:12+nameSize]) == owner {
			if p, ok := probe(notes[desc:desc+descSize], at, moved, symbol); ok {
				probes = append(probes, p)
			}
		}
		notes = notes[min(next, uint64(len(notes))):]
	}
	return probes
}

// probe reads one note: three addresses, then three strings.
func probe(b []byte, at uint64, moved bool, symbol func(string) (uint64, bool)) (p Probe, ok bool) {
	if len(b) < 24 {
		return p, false
	}
	le := binary.LittleEndian
	p.Addr, p.Semaphore = le.Uint64(b), le.Uint64(b[16:])
	if linked := le.Uint64(b[8:]); moved && linked != 0 {
		p.Addr += at - linked
		if p.Semaphore != 0 {
			p.Semaphore += at - linked
		}
	}
	var texts [3]string
	b = b[24:]
	for i := range texts {
		n := bytes.IndexByte(b, 0)
		if n < 0 {
			if i < 2 {
				return p, false
			}
			n = len(b)
		}
		texts[i] = string(b[:n])
		b = b[min(n+1, len(b)):]
	}
	p.Provider, p.Name = texts[0], texts[1]
	if p.Name == "" {
		return p, false
	}
	p.Args = arguments(texts[2], symbol)
	return p, true
}
