package objfile

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
)

// Symbol is a name for an address of code.
type Symbol struct {
	Name    string // shares the file's mapping: valid until Close
	Addr    uint64 // as linked
	Size    uint64 // 0 if the file does not say
	Func    bool   // a function; otherwise the symbol has no type
	Global  bool   // global or weak, not local
	Hidden  bool   // global until it was linked: known to other objects, but not to other files
	Dynamic bool   // from .dynsym
}

// Symbols lists the named functions of .symtab, or of .dynsym if there is no .symtab,
// and the symbols without type that name addresses of code, in the order of addresses.
// The slice is shared and not to be modified.
func (f *File) Symbols() ([]Symbol, error) {
	f.symbolsOnce.Do(func() { f.symbols, f.symbolsErr = f.readSymbols() })
	return f.symbols, f.symbolsErr
}

func (f *File) readSymbols() ([]Symbol, error) {
	typ := elf.SHT_SYMTAB
	i := slices.IndexFunc(f.sections, func(s section) bool { return s.typ == typ })
	if i < 0 {
		typ = elf.SHT_DYNSYM
		if i = slices.IndexFunc(f.sections, func(s section) bool { return s.typ == typ }); i < 0 {
			return nil, nil
		}
	}
	tab := &f.sections[i]
	b := f.raw(tab)
	if b == nil && tab.typ != elf.SHT_NOBITS && tab.size > 0 {
		return nil, fmt.Errorf("%s: %w: symbols", f.Path, ErrTruncated)
	}
	var strs []byte
	if int(tab.link) < len(f.sections) {
		strs = f.raw(&f.sections[tab.link])
	}
	out := make([]Symbol, 0, len(b)/symSize/2)
	for ; len(b) >= symSize; b = b[symSize:] {
		s, ok := f.symbol(b, strs)
		if !ok || s.Name == "" {
			continue
		}
		s.Dynamic = typ == elf.SHT_DYNSYM
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return slices.Clip(out), nil
}

// Within is the function that addr is in: the last symbol that begins before it, unless that
// has an end before it.
func (f *File) Within(addr uint64) (Symbol, bool) {
	all, err := f.Symbols()
	if err != nil {
		return Symbol{}, false
	}
	i, _ := slices.BinarySearchFunc(all, addr+1, func(s Symbol, a uint64) int { return cmp.Compare(s.Addr, a) })
	var best Symbol
	found := false
	for i--; i >= 0 && (!found || all[i].Addr == best.Addr); i-- {
		s := all[i]
		switch {
		case s.Size > 0 && addr-s.Addr >= s.Size:
			if !found {
				return Symbol{}, false // in no symbol, or in one that others lie in
			}
		case !found || s.Func && !best.Func || s.Func == best.Func && s.Global:
			best, found = s, true
		}
	}
	return best, found
}

// Named is where the symbol of a name is, as linked, and how large: of .symtab, else of
// .dynsym; data too.
func (f *File) Named(name string) (addr, size uint64, ok bool) {
	for _, typ := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		i := slices.IndexFunc(f.sections, func(s section) bool { return s.typ == typ })
		if i < 0 || int(f.sections[i].link) >= len(f.sections) {
			continue
		}
		strs := f.raw(&f.sections[f.sections[i].link])
		for b := f.raw(&f.sections[i]); len(b) >= symSize; b = b[symSize:] {
			le := binary.LittleEndian
			if elf.SectionIndex(le.Uint16(b[6:])) == elf.SHN_UNDEF || elf.ST_TYPE(b[4]) == elf.STT_TLS || str(strs, uint64(le.Uint32(b))) != name {
				continue
			}
			return le.Uint64(b[8:]), le.Uint64(b[16:]), true
		}
	}
	return 0, 0, false
}

// symbol decodes an Elf64_Sym; not ok for what does not name code of this file.
func (f *File) symbol(b, strs []byte) (Symbol, bool) {
	le := binary.LittleEndian
	info, shndx := b[4], elf.SectionIndex(le.Uint16(b[6:]))
	typ := elf.ST_TYPE(info)
	if shndx == elf.SHN_UNDEF || typ != elf.STT_FUNC && typ != elf.STT_NOTYPE && typ != elf.STT_GNU_IFUNC {
		return Symbol{}, false
	}
	s := Symbol{
		Addr: le.Uint64(b[8:]), Size: le.Uint64(b[16:]),
		Func: typ != elf.STT_NOTYPE, Global: elf.ST_BIND(info) != elf.STB_LOCAL,
		Hidden: elf.ST_VISIBILITY(b[5]) == elf.STV_HIDDEN,
	}
	if !f.Executable(s.Addr) {
		return Symbol{}, false
	}
	s.Name = str(strs, uint64(le.Uint32(b)))
	return s, true
}
