package objfile

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"ferrotrace/internal/dwarf"
)

// content is a compressed section, decompressed once.
type content struct {
	once sync.Once
	b    []byte
	err  error
}

// Bounds on what decompression makes: a section whatever its form, and how many times
// as large as that form one above plainSection may be. (Debug info shrinks to a third
// or a tenth; deflate can reach 1032, Zstandard any number.)
const (
	maxSection   = 4 << 30
	plainSection = 64 << 20
	maxRatio     = 100
)

func (f *File) find(name string) *section {
	for i := range f.sections {
		if f.sections[i].name == name {
			return &f.sections[i]
		}
	}
	return nil
}

// Section is a section's contents, decompressed; nil without an error if there is none
// or it has nothing in the file. A .debug_ name also finds the old .zdebug_ form.
func (f *File) Section(name string) ([]byte, error) {
	s := f.find(name)
	old := false
	if s == nil && len(name) > 7 && name[:7] == ".debug_" {
		s = f.find(".z" + name[1:])
		old = s != nil
	}
	if s == nil || s.typ == elf.SHT_NOBITS || s.typ == elf.SHT_NULL {
		return nil, nil
	}
	raw := f.raw(s)
	if raw == nil {
		return nil, fmt.Errorf("%s: %w: section %s", f.Path, ErrTruncated, name)
	}
	if !old && s.flags&elf.SHF_COMPRESSED == 0 {
		return raw, nil
	}
	f.mu.Lock()
	c := f.data[name]
	if c == nil {
		c = &content{}
		f.data[name] = c
	}
	f.mu.Unlock()
	c.once.Do(func() {
		if old {
			c.b, c.err = inflateOld(raw)
		} else {
			c.b, c.err = inflate(raw)
		}
		if c.err != nil {
			c.err = fmt.Errorf("%s: section %s: %w", f.Path, name, c.err)
		}
	})
	return c.b, c.err
}

// inflateOld reads the form of .zdebug_ sections: "ZLIB", the size, big-endian, data.
func inflateOld(raw []byte) ([]byte, error) {
	if len(raw) < 12 || string(raw[:4]) != "ZLIB" {
		return nil, fmt.Errorf("%w: not compressed as its name says", ErrFormat)
	}
	size := binary.BigEndian.Uint64(raw[4:])
	if err := plausible(raw[12:], size); err != nil {
		return nil, err
	}
	return inflateZlib(raw[12:], size)
}

// plausible refuses sizes that only a bomb has.
func plausible(raw []byte, size uint64) error {
	if size > maxSection || size > plainSection && size/maxRatio > uint64(len(raw)) {
		return fmt.Errorf("%w: %d bytes compressed to %d", ErrFormat, size, len(raw))
	}
	return nil
}

// inflate reads a section with SHF_COMPRESSED, which begins with an Elf64_Chdr.
func inflate(raw []byte) ([]byte, error) {
	if len(raw) < 24 {
		return nil, fmt.Errorf("%w: compression header", ErrFormat)
	}
	typ, size := elf.CompressionType(binary.LittleEndian.Uint32(raw)), binary.LittleEndian.Uint64(raw[8:])
	raw = raw[24:]
	if err := plausible(raw, size); err != nil {
		return nil, err
	}
	switch typ {
	case elf.COMPRESS_ZLIB:
		return inflateZlib(raw, size)
	case elf.COMPRESS_ZSTD:
		r, err := zstd.NewReader(bytes.NewReader(raw), zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(max(size, 1<<20)), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		defer r.Close()
		return readAll(r, size)
	}
	return nil, fmt.Errorf("%w: compression %d", ErrFormat, typ)
}

func inflateZlib(raw []byte, size uint64) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return readAll(r, size)
}

// readAll reads exactly size bytes. The room for them is made as they come: the size
// is only what the file claims.
func readAll(r io.Reader, size uint64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(size, plainSection)))
	n, err := io.Copy(&b, io.LimitReader(r, int64(size)))
	if err == nil && uint64(n) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return b.Bytes(), nil
}

// SectionAddr is a loaded section's address, as linked, and its bytes; not ok if there
// is none that is loaded from the file.
func (f *File) SectionAddr(name string) (addr uint64, data []byte, ok bool) {
	s := f.find(name)
	if s == nil || s.flags&elf.SHF_ALLOC == 0 || s.flags&elf.SHF_COMPRESSED != 0 {
		return 0, nil, false
	}
	b := f.raw(s)
	return s.addr, b, b != nil
}

// CodeSection is a section of machine code, within one executable segment.
type CodeSection struct {
	Name      string
	Low, High uint64 // addresses, as linked; High is behind the last byte
}

// CodeSections lists the sections of code that are loaded from the file, in the order
// of the file's table of sections.
func (f *File) CodeSections() []CodeSection {
	var code []CodeSection
	for i := range f.sections {
		s := &f.sections[i]
		if s.flags&elf.SHF_ALLOC == 0 || s.flags&elf.SHF_EXECINSTR == 0 || s.size == 0 || s.typ == elf.SHT_NOBITS {
			continue
		}
		if g := f.segment(s.addr); g != nil && g.Exec && s.size <= g.FileSize-min(g.FileSize, s.addr-g.Addr) {
			code = append(code, CodeSection{s.name, s.addr, s.addr + s.size})
		}
	}
	return code
}

// HasDWARF reports whether the file has debug information entries.
func (f *File) HasDWARF() bool { return f.holds(".debug_info") || f.holds(".zdebug_info") }

// HasSymtab reports whether the file has the full table of symbols.
func (f *File) HasSymtab() bool { return f.holds(".symtab") }

// Stripped reports whether neither debug information nor the full table of symbols is
// there.
func (f *File) Stripped() bool { return !f.HasDWARF() && !f.HasSymtab() }

func (f *File) holds(name string) bool {
	s := f.find(name)
	return s != nil && s.typ != elf.SHT_NOBITS && s.size > 0
}

// Debuglink is the name, and the CRC-32 of the contents, of the separate file of debug
// information that .gnu_debuglink names; "" if it names none.
func (f *File) Debuglink() (name string, crc uint32) {
	b, err := f.Section(".gnu_debuglink")
	if err != nil {
		return "", 0
	}
	n := bytes.IndexByte(b, 0)
	at := (n + 4) &^ 3
	if n <= 0 || at+4 > len(b) {
		return "", 0
	}
	return str(b, 0), binary.LittleEndian.Uint32(b[at:])
}

// CRC is the CRC-32 of the file's contents, as .gnu_debuglink has it.
func (f *File) CRC() uint32 { return crc32.ChecksumIEEE(f.mem) }

// DWARF collects the sections for dwarf.New. The error joins those of sections that
// can't be read, which are left out.
func (f *File) DWARF() (dwarf.Sections, error) {
	s := dwarf.Sections{Mem: f.Bytes}
	err := f.read(map[string]*[]byte{
		".debug_info": &s.Info, ".debug_abbrev": &s.Abbrev, ".debug_str": &s.Str, ".debug_line_str": &s.LineStr,
		".debug_str_offsets": &s.StrOffsets, ".debug_addr": &s.Addr, ".debug_ranges": &s.Ranges,
		".debug_rnglists": &s.RngLists, ".debug_loc": &s.Loc, ".debug_loclists": &s.LocLists,
		".debug_line": &s.Line, ".debug_frame": &s.DebugFrame,
	})
	if addr, b, ok := f.SectionAddr(".eh_frame"); ok {
		s.EhFrame, s.EhFrameAddr = b, addr
	}
	return s, err
}

// SplitDWARF collects the sections of a .dwo file or a package of them for
// dwarf.Data.Join. The error joins those of sections that can't be read, which are left
// out.
func (f *File) SplitDWARF() (dwarf.Sections, error) {
	var s dwarf.Sections
	err := f.read(map[string]*[]byte{
		".debug_info.dwo": &s.Info, ".debug_abbrev.dwo": &s.Abbrev, ".debug_str.dwo": &s.Str,
		".debug_str_offsets.dwo": &s.StrOffsets, ".debug_rnglists.dwo": &s.RngLists, ".debug_loc.dwo": &s.Loc,
		".debug_loclists.dwo": &s.LocLists, ".debug_cu_index": &s.CUIndex,
	})
	return s, err
}

func (f *File) read(sections map[string]*[]byte) error {
	var errs []error
	for name, dst := range sections {
		b, err := f.Section(name)
		if err != nil {
			errs = append(errs, err)
		}
		*dst = b
	}
	return errors.Join(errs...)
}

// str is the string at off of a table, "" if it does not end there. It shares the
// table's memory.
func str(table []byte, off uint64) string {
	if off >= uint64(len(table)) {
		return ""
	}
	b := table[off:]
	n := bytes.IndexByte(b, 0)
	if n <= 0 {
		return ""
	}
	return unsafe.String(&b[0], n)
}
