package objfile

import (
	"debug/elf"
	"encoding/binary"
	"slices"
)

// maxDynamic bounds the entries of the dynamic section that are looked at.
const maxDynamic = 4096

// dynamic is the dynamic section, of repeated tags the first value; nil if there is
// none.
func (f *File) dynamic() map[elf.DynTag]uint64 {
	var d map[elf.DynTag]uint64
	for _, p := range f.progs {
		if p.typ != elf.PT_DYNAMIC {
			continue
		}
		b := f.at(p.off, p.filesz)
		d = map[elf.DynTag]uint64{}
		for n := 0; len(b) >= 16 && n < maxDynamic; n++ {
			tag := elf.DynTag(int64(binary.LittleEndian.Uint64(b)))
			if tag == elf.DT_NULL {
				break
			}
			if _, ok := d[tag]; !ok {
				d[tag] = binary.LittleEndian.Uint64(b[8:])
			}
			b = b[16:]
		}
		break
	}
	return d
}

// Tags of packed relative relocations (gABI, SHT_RELR), which debug/elf lacks.
const (
	dtRELRSZ = elf.DynTag(35)
	dtRELR   = elf.DynTag(36)
)

// AddressTaken reports whether the file's data hold a pointer to addr, which must be
// one of code, or offer it to other files: it is then called, perhaps, by those who
// know nothing but its type. Addresses that only instructions form are not found here.
//
// The pointers are known from the relocations that the dynamic linker, or a static
// PIE itself, applies. An executable that is loaded where it was linked needs none:
// there any aligned word of data that equals the address counts.
func (f *File) AddressTaken(addr uint64) bool {
	f.takenOnce.Do(f.findTaken)
	_, found := slices.BinarySearch(f.taken, addr)
	return found
}

// Slot is what a relocation puts into a word of data.
type Slot struct {
	Target uint64 // an address in this file
	Import string // or the name of a symbol of another file
}

// SlotAt is what the word at addr, as in the global offset table, holds once the file
// is loaded; ok is false if no relocation is known for it.
func (f *File) SlotAt(addr uint64) (s Slot, ok bool) {
	f.takenOnce.Do(f.findTaken)
	s, ok = f.slots[addr]
	return s, ok
}

func (f *File) findTaken() {
	var set []uint64
	add := func(addr uint64) {
		if f.Executable(addr) {
			set = append(set, addr)
		}
	}
	f.slots = map[uint64]Slot{}
	f.relocated(func(slot uint64, s Slot) {
		f.slots[slot] = s
		if s.Import == "" {
			add(s.Target)
		}
	})
	f.exported(add)
	if f.typ == elf.ET_EXEC {
		f.words(add)
	}
	slices.Sort(set)
	f.taken = slices.Clip(slices.Compact(set))
}

// upTo is at most n bytes of memory from addr.
func (f *File) upTo(addr, n uint64) []byte {
	b := f.Bytes(addr)
	return b[:min(n, uint64(len(b)))]
}

// relocated finds what relocations put into the data.
func (f *File) relocated(add func(slot uint64, s Slot)) {
	d := f.dynamic()
	le := binary.LittleEndian
	syms := f.Bytes(d[elf.DT_SYMTAB])
	if d[elf.DT_SYMTAB] == 0 {
		syms = nil
	}
	strs := f.upTo(d[elf.DT_STRTAB], d[elf.DT_STRSZ])
	for _, t := range []struct{ addr, size uint64 }{
		{d[elf.DT_RELA], d[elf.DT_RELASZ]},
		{d[elf.DT_JMPREL], d[elf.DT_PLTRELSZ]},
	} {
		if t.addr == 0 {
			continue
		}
		for b := f.upTo(t.addr, t.size); len(b) >= relaSize; b = b[relaSize:] {
			slot, info, addend := le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:])
			switch elf.R_X86_64(info & 0xffffffff) {
			case elf.R_X86_64_RELATIVE, elf.R_X86_64_RELATIVE64, elf.R_X86_64_IRELATIVE:
				add(slot, Slot{Target: addend})
			case elf.R_X86_64_64, elf.R_X86_64_GLOB_DAT, elf.R_X86_64_JMP_SLOT:
				at := info >> 32 * symSize
				if at+symSize > uint64(len(syms)) {
					continue
				}
				sym := syms[at:]
				if elf.SectionIndex(le.Uint16(sym[6:])) != elf.SHN_UNDEF {
					add(slot, Slot{Target: le.Uint64(sym[8:]) + addend})
				} else if name := str(strs, uint64(le.Uint32(sym))); name != "" {
					add(slot, Slot{Import: name})
				}
			}
		}
	}
	if d[dtRELR] != 0 {
		f.packed(f.upTo(d[dtRELR], d[dtRELRSZ]), add)
	}
}

// packed finds the addresses in the words that packed relocations name: an even entry
// is the place of one, an odd one a bitmap of the 63 words that follow.
func (f *File) packed(b []byte, add func(slot uint64, s Slot)) {
	le := binary.LittleEndian
	word := func(at uint64) {
		if m := f.Bytes(at); len(m) >= 8 {
			add(at, Slot{Target: le.Uint64(m)})
		}
	}
	next := uint64(0)
	for ; len(b) >= 8; b = b[8:] {
		e := le.Uint64(b)
		if e&1 == 0 {
			word(e)
			next = e + 8
			continue
		}
		for i := uint64(0); i < 63; i++ {
			if e>>(i+1)&1 != 0 {
				word(next + 8*i)
			}
		}
		next += 63 * 8
	}
}

// exported finds the functions that the file offers to others.
func (f *File) exported(add func(uint64)) {
	i := slices.IndexFunc(f.sections, func(s section) bool { return s.typ == elf.SHT_DYNSYM })
	if i < 0 {
		return
	}
	for b := f.raw(&f.sections[i]); len(b) >= symSize; b = b[symSize:] {
		if s, ok := f.symbol(b, nil); ok && s.Global {
			add(s.Addr)
		}
	}
}

// words finds all aligned words of data that are addresses of code.
func (f *File) words(add func(uint64)) {
	scan := func(addr uint64, b []byte) {
		for b = b[min(-addr&7, uint64(len(b))):]; len(b) >= 8; b = b[8:] {
			add(binary.LittleEndian.Uint64(b))
		}
	}
	if len(f.sections) == 0 {
		for _, s := range f.segments {
			if !s.Exec {
				scan(s.Addr, f.at(s.Offset, s.FileSize))
			}
		}
		return
	}
	for i := range f.sections {
		s := &f.sections[i]
		data := s.typ == elf.SHT_PROGBITS || s.typ == elf.SHT_INIT_ARRAY || s.typ == elf.SHT_FINI_ARRAY || s.typ == elf.SHT_PREINIT_ARRAY
		if data && s.flags&elf.SHF_ALLOC != 0 && s.flags&elf.SHF_EXECINSTR == 0 && s.name != ".eh_frame" && s.name != ".gcc_except_table" {
			scan(s.addr, f.raw(s))
		}
	}
}
