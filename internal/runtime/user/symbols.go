package user

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"slices"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/x86"
)

// library is what the symbols of an ELF file tell of its code. It is a Text for the few
// functions of the C library that are watched, of which the rest of the program need
// not be known; no one of them catches exceptions.
type library struct {
	segments  []segment
	functions []symbol // in order of address
}

type segment struct {
	addr, offset uint64
	data         []byte
}

type symbol struct {
	x86.Range
	name string
}

// maxSegment bounds what is read of a file: a C library has about 2 MB of code, a
// static program perhaps more.
const maxSegment = 1 << 30

var errNoSymbols = errors.New("no symbols")

// openLibrary reads the executable segments of a file and its functions' symbols.
func openLibrary(path string) (*library, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := &library{}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_X == 0 || p.Filesz > maxSegment {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		l.segments = append(l.segments, segment{p.Vaddr, p.Off, data})
	}
	dynamic, _ := f.DynamicSymbols()
	static, _ := f.Symbols()
	for _, s := range append(dynamic, static...) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Section != elf.SHN_UNDEF && s.Size > 0 && s.Value+s.Size > s.Value {
			l.functions = append(l.functions, symbol{x86.Range{Low: s.Value, High: s.Value + s.Size}, s.Name})
		}
	}
	if len(l.functions) == 0 {
		return nil, fmt.Errorf("%s: %w", path, errNoSymbols)
	}
	slices.SortStableFunc(l.functions, func(a, b symbol) int { return cmp.Compare(a.Low, b.Low) })
	return l, nil
}

// entry is where a function begins.
func (l *library) entry(name string) (uint64, bool) {
	for _, s := range l.functions {
		if s.name == name {
			return s.Low, true
		}
	}
	return 0, false
}

// ranges is the code of all functions of a name, where a process has them.
func (l *library) ranges(name string, base uint64) (rs []inject.Range) {
	for _, s := range l.functions {
		if s.name == name {
			rs = append(rs, inject.Range{Start: s.Low + base, End: s.High + base})
		}
	}
	return rs
}

// Bytes implements Text.
func (l *library) Bytes(addr uint64) []byte {
	for _, s := range l.segments {
		if at := addr - s.addr; at < uint64(len(s.data)) {
			return s.data[at:]
		}
	}
	return nil
}

// Addr implements Text.
func (l *library) Addr(offset uint64) (uint64, bool) {
	for _, s := range l.segments {
		if at := offset - s.offset; at < uint64(len(s.data)) {
			return s.addr + at, true
		}
	}
	return 0, false
}

// FunctionRanges implements Text.
func (l *library) FunctionRanges() []x86.Range {
	rs := make([]x86.Range, len(l.functions))
	for i, s := range l.functions {
		rs[i] = s.Range
	}
	return rs
}

// FunctionAt implements Text. All functions pass for C's.
func (l *library) FunctionAt(addr uint64) (parts []x86.Range, targets []uint64, rust, ok bool) {
	for _, s := range l.functions {
		if s.Low > addr {
			break
		}
		if s.Contains(addr) && (!ok || s.Low < parts[0].Low) {
			parts, ok = []x86.Range{s.Range}, true
		}
	}
	if !ok {
		return nil, nil, false, false
	}
	for _, s := range l.functions {
		if s.Low > parts[0].Low && parts[0].Contains(s.Low) {
			targets = append(targets, s.Low)
		}
	}
	return parts, targets, false, true
}

// NoReturn implements Text.
func (l *library) NoReturn(uint64) bool { return false }
