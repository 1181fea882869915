// Package objfile is one ELF file for x86-64, mapped read-only: its segments, by which
// alone addresses and file offsets are related; its sections, decompressed; its
// symbols; and which addresses its data hold.
//
// The file is foreign and may be damaged. Everything read from it is checked against
// the file's size, and what does not fit is an error or absent.
//
// Ownership: names and bytes that a File returns share the mapping and are valid until
// Close. The mapping shows the file as it is on disk: if someone truncates it in
// place, reading on faults. (Package managers and linkers replace files instead.)
package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrNotELF says that a file is no ELF file, or none that can be mapped.
	ErrNotELF = errors.New("not an ELF file")
	// ErrArch says that a file is for another machine than x86-64.
	ErrArch = errors.New("not for x86-64")
	// ErrTruncated says that a file ends before what its headers announce.
	ErrTruncated = errors.New("truncated ELF file")
	// ErrFormat says that an ELF file contradicts itself.
	ErrFormat = errors.New("malformed ELF file")
)

// File is an open ELF file. Its methods may be called concurrently.
type File struct {
	Path string
	// Size and ModTime are those of the file when it was opened.
	Size    int64
	ModTime time.Time

	mem      []byte
	typ      elf.Type
	entry    uint64
	progs    []prog
	segments []Segment
	sections []section

	mu   sync.Mutex
	data map[string]*content // of compressed sections, by name

	symbolsOnce sync.Once
	symbols     []Symbol
	symbolsErr  error

	takenOnce sync.Once
	taken     []uint64
	slots     map[uint64]Slot
}

// Segment is a PT_LOAD program header.
type Segment struct {
	Addr     uint64 // as linked
	Offset   uint64 // in the file
	FileSize uint64 // bytes that come from the file, within its real size
	MemSize  uint64
	Exec     bool
	Write    bool
}

type prog struct {
	typ                       elf.ProgType
	flags                     elf.ProgFlag
	off, vaddr, filesz, memsz uint64
}

type section struct {
	name                                string
	typ                                 elf.SectionType
	flags                               elf.SectionFlag
	addr, off, size, entsize, addralign uint64
	link                                uint32
}

// Sizes of ELF structures of 64-bit class.
const (
	ehdrSize = 64
	phdrSize = 56
	shdrSize = 64
	symSize  = 24
	relaSize = 24
)

// Open maps the file at path. The error wraps ErrNotELF, ErrArch (and names the
// machine), ErrTruncated, ErrFormat, or what the system said.
func Open(path string) (*File, error) {
	// O_NONBLOCK: opening a named pipe must not wait for a writer.
	fd, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer fd.Close()
	st, err := fd.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() < 4 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNotELF}
	}
	if st.Size() > 1<<46 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrFormat}
	}
	// Shared, not private: into private mappings of a file the kernel puts the
	// breakpoints of uprobes, of another ferrotrace perhaps (valid_vma in
	// kernel/events/uprobes.c), and they would be read as the file's code.
	mem, err := unix.Mmap(int(fd.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: path, Err: err}
	}
	f, err := parse(mem)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f.Path, f.Size, f.ModTime = path, st.Size(), st.ModTime()
	return f, nil
}

// Close unmaps the file. Nothing that the File returned may be used afterwards.
func (f *File) Close() error {
	mem := f.mem
	f.mem = nil
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

func parse(mem []byte) (*File, error) {
	f := &File{mem: mem, data: map[string]*content{}}
	if !bytes.HasPrefix(mem, []byte(elf.ELFMAG)) {
		return nil, ErrNotELF
	}
	if len(mem) < 20 {
		return nil, ErrTruncated
	}
	class, order := elf.Class(mem[elf.EI_CLASS]), elf.Data(mem[elf.EI_DATA])
	machine := elf.Machine(binary.LittleEndian.Uint16(mem[18:]))
	if order == elf.ELFDATA2MSB {
		machine = elf.Machine(binary.BigEndian.Uint16(mem[18:]))
	}
	if machine != elf.EM_X86_64 || class != elf.ELFCLASS64 || order != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%w but for %s", ErrArch, machineName(machine, class, order))
	}
	if len(mem) < ehdrSize {
		return nil, ErrTruncated
	}
	le := binary.LittleEndian
	f.typ = elf.Type(le.Uint16(mem[16:]))
	f.entry = le.Uint64(mem[24:])
	phoff, shoff := le.Uint64(mem[32:]), le.Uint64(mem[40:])
	phentsize, phnum := le.Uint16(mem[54:]), uint64(le.Uint16(mem[56:]))
	shentsize, shnum, shstrndx := le.Uint16(mem[58:]), uint64(le.Uint16(mem[60:])), uint64(le.Uint16(mem[62:]))

	if shoff != 0 {
		if shentsize != shdrSize {
			return nil, fmt.Errorf("%w: section headers of %d bytes", ErrFormat, shentsize)
		}
		first := f.at(shoff, shdrSize)
		if first == nil {
			return nil, fmt.Errorf("%w: no section headers", ErrTruncated)
		}
		// What is too large for the header stands in section 0 (gABI, "ELF Header").
		if shnum == 0 {
			shnum = le.Uint64(first[32:])
		}
		if shstrndx == uint64(elf.SHN_XINDEX) {
			shstrndx = uint64(le.Uint32(first[40:]))
		}
		if phnum == 0xffff {
			phnum = uint64(le.Uint32(first[44:]))
		}
		if err := f.parseSections(shoff, shnum, shstrndx); err != nil {
			return nil, err
		}
	}
	if phnum > 0 {
		if phentsize != phdrSize {
			return nil, fmt.Errorf("%w: program headers of %d bytes", ErrFormat, phentsize)
		}
		if err := f.parseProgs(phoff, phnum); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func machineName(m elf.Machine, c elf.Class, d elf.Data) string {
	names := map[elf.Machine]string{
		elf.EM_AARCH64: "aarch64", elf.EM_386: "i386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv",
		elf.EM_PPC64: "powerpc64", elf.EM_PPC: "powerpc", elf.EM_S390: "s390x", elf.EM_MIPS: "mips",
		elf.EM_LOONGARCH: "loongarch", elf.EM_SPARCV9: "sparc64", elf.EM_BPF: "bpf", elf.EM_X86_64: "x32",
	}
	s, ok := names[m]
	if !ok {
		s = m.String()
	}
	if m == elf.EM_X86_64 && d == elf.ELFDATA2MSB {
		s = "x86-64, big-endian"
	}
	if m == elf.EM_RISCV && c == elf.ELFCLASS64 {
		s = "riscv64"
	}
	return s
}

// at is n bytes at an offset of the file, nil if they are not all there.
func (f *File) at(off, n uint64) []byte {
	size := uint64(len(f.mem))
	if off > size || n > size-off {
		return nil
	}
	return f.mem[off : off+n : off+n]
}

// table is n entries of the given size at an offset of the file.
func (f *File) table(off, n, size uint64) []byte {
	if n > uint64(len(f.mem))/size {
		return nil
	}
	return f.at(off, n*size)
}

func (f *File) parseProgs(off, n uint64) error {
	b := f.table(off, n, phdrSize)
	if b == nil {
		return fmt.Errorf("%w: no program headers", ErrTruncated)
	}
	le := binary.LittleEndian
	for ; len(b) > 0; b = b[phdrSize:] {
		p := prog{
			typ: elf.ProgType(le.Uint32(b)), flags: elf.ProgFlag(le.Uint32(b[4:])),
			off: le.Uint64(b[8:]), vaddr: le.Uint64(b[16:]), filesz: le.Uint64(b[32:]), memsz: le.Uint64(b[40:]),
		}
		f.progs = append(f.progs, p)
		if p.typ != elf.PT_LOAD {
			continue
		}
		if p.filesz > p.memsz || p.vaddr+p.memsz < p.vaddr || p.off+p.filesz < p.off {
			return fmt.Errorf("%w: segment at %#x", ErrFormat, p.vaddr)
		}
		if size := uint64(len(f.mem)); p.off+p.filesz > size {
			// A file of debug info alone keeps the program headers without what they
			// are about; of any other the rest has been lost.
			if len(f.sections) == 0 {
				return fmt.Errorf("%w: segment at %#x", ErrTruncated, p.vaddr)
			}
			p.filesz = size - min(p.off, size)
		}
		// Loaded segments stand in the order of addresses (gABI, "Program Header"): at
		// one address there is one byte.
		if n := len(f.segments); n > 0 && p.vaddr < f.segments[n-1].Addr+f.segments[n-1].MemSize {
			return fmt.Errorf("%w: segment at %#x overlaps", ErrFormat, p.vaddr)
		}
		f.segments = append(f.segments, Segment{
			Addr: p.vaddr, Offset: p.off, FileSize: p.filesz, MemSize: p.memsz,
			Exec: p.flags&elf.PF_X != 0, Write: p.flags&elf.PF_W != 0,
		})
	}
	return nil
}

func (f *File) parseSections(off, n, shstrndx uint64) error {
	b := f.table(off, n, shdrSize)
	if b == nil {
		return fmt.Errorf("%w: %d section headers at %#x", ErrTruncated, n, off)
	}
	le := binary.LittleEndian
	names := make([]uint32, 0, n)
	for ; len(b) > 0; b = b[shdrSize:] {
		names = append(names, le.Uint32(b))
		f.sections = append(f.sections, section{
			typ: elf.SectionType(le.Uint32(b[4:])), flags: elf.SectionFlag(le.Uint64(b[8:])),
			addr: le.Uint64(b[16:]), off: le.Uint64(b[24:]), size: le.Uint64(b[32:]),
			link: le.Uint32(b[40:]), addralign: le.Uint64(b[48:]), entsize: le.Uint64(b[56:]),
		})
	}
	if shstrndx >= uint64(len(f.sections)) {
		return nil
	}
	strs := f.raw(&f.sections[shstrndx])
	for i := range f.sections {
		f.sections[i].name = str(strs, uint64(names[i]))
	}
	return nil
}

// raw is the section's bytes as they are in the file; nil if it has none there or they
// are not all there.
func (f *File) raw(s *section) []byte {
	if s.typ == elf.SHT_NOBITS || s.typ == elf.SHT_NULL {
		return nil
	}
	return f.at(s.off, s.size)
}

// Entry is the address of the first instruction of the program, as linked.
func (f *File) Entry() uint64 { return f.entry }

// PIE reports whether the file can be loaded at any address: a position-independent
// executable or a shared library.
func (f *File) PIE() bool { return f.typ == elf.ET_DYN }

// Interp is the path of the dynamic linker that the file asks for, "" if it asks for
// none.
func (f *File) Interp() string {
	for _, p := range f.progs {
		if p.typ == elf.PT_INTERP {
			return str(f.at(p.off, p.filesz), 0)
		}
	}
	return ""
}

// Static reports whether the file is an executable that runs without a dynamic linker,
// static PIE included. (A shared library has no interpreter either, but needs one: it
// says what it is called or what it needs.)
func (f *File) Static() bool {
	if f.Interp() != "" {
		return false
	}
	if f.typ == elf.ET_EXEC {
		return true
	}
	if f.typ != elf.ET_DYN {
		return false
	}
	d := f.dynamic()
	if d[elf.DT_FLAGS_1]&uint64(elf.DF_1_PIE) != 0 {
		return true
	}
	_, soname := d[elf.DT_SONAME]
	_, needed := d[elf.DT_NEEDED]
	return !soname && !needed && f.entry != 0
}

// BuildID is the file's build identifier, nil if it has none.
func (f *File) BuildID() []byte {
	for _, p := range f.progs {
		if p.typ == elf.PT_NOTE {
			if id := buildID(f.at(p.off, p.filesz)); id != nil {
				return id
			}
		}
	}
	for i := range f.sections {
		if f.sections[i].typ == elf.SHT_NOTE {
			if id := buildID(f.raw(&f.sections[i])); id != nil {
				return id
			}
		}
	}
	return nil
}

// buildID looks for NT_GNU_BUILD_ID among notes.
func buildID(b []byte) []byte {
	const ntGNUBuildID = 3
	le := binary.LittleEndian
	for len(b) >= 12 {
		nameSize, descSize, typ := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		desc := 12 + (nameSize+3)&^3
		next := desc + (descSize+3)&^3
		if desc+descSize > uint64(len(b)) {
			return nil
		}
		if typ == ntGNUBuildID && nameSize == 4 && string(b[12:16]) == "GNU\x00" && descSize > 0 {
			return b[desc : desc+descSize : desc+descSize]
		}
		b = b[min(next, uint64(len(b))):]
	}
	return nil
}

// Segments lists the parts of the file that are loaded, in the order of addresses and
// without overlap. The slice is not to be modified.
func (f *File) Segments() []Segment { return f.segments }

func (f *File) segment(addr uint64) *Segment {
	i := slices.IndexFunc(f.segments, func(s Segment) bool { return s.Addr <= addr && addr-s.Addr < s.MemSize })
	if i < 0 {
		return nil
	}
	return &f.segments[i]
}

// FileOffset is the offset in the file of what is loaded at addr; not ok if nothing
// from the file is.
func (f *File) FileOffset(addr uint64) (uint64, bool) {
	s := f.segment(addr)
	if s == nil || addr-s.Addr >= s.FileSize {
		return 0, false
	}
	return s.Offset + (addr - s.Addr), true
}

// Addr is the address, as linked, at which the byte at an offset of the file is
// loaded. Where linkers let segments share a page, the executable one is meant.
func (f *File) Addr(off uint64) (uint64, bool) {
	addr, ok := uint64(0), false
	for _, s := range f.segments {
		if s.Offset <= off && off-s.Offset < s.FileSize {
			if s.Exec {
				return s.Addr + (off - s.Offset), true
			}
			if !ok {
				addr, ok = s.Addr+(off-s.Offset), true
			}
		}
	}
	return addr, ok
}

// Bytes is what the file loads from addr to the end of that segment; nil if nothing.
func (f *File) Bytes(addr uint64) []byte {
	s := f.segment(addr)
	if s == nil || addr-s.Addr >= s.FileSize {
		return nil
	}
	return f.at(s.Offset+(addr-s.Addr), s.FileSize-(addr-s.Addr))
}

// Executable reports whether addr is in a segment that can be executed.
func (f *File) Executable(addr uint64) bool {
	s := f.segment(addr)
	return s != nil && s.Exec
}
