package dwarf

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"sort"
)

// File is a source file of a unit.
type File struct {
	// Path is as the compiler wrote it, relative to the unit's CompDir unless it is
	// absolute: "src/main.rs".
	Path string
	// Full is Path within CompDir.
	Full string
}

// Row says which source a run of instructions comes from: those from Addr up to the
// Addr of the next row.
type Row struct {
	Addr        uint64
	File        uint32 // index for LineTable.File
	Line        uint32 // from 1; 0: from no line
	Col         uint32 // from 1; 0: not known
	IsStmt      bool   // a recommended breakpoint
	PrologueEnd bool   // where a breakpoint on the function's entry should be
	EndSequence bool   // the address after the last instruction of a run; no source
}

// LineTable is the line table of one unit. It is not to be modified.
type LineTable struct {
	// Rows in the order of addresses; runs of code stand one after another, each
	// ended by a row with EndSequence. Code that the linker dropped is left out, and
	// runs that overlap an earlier one.
	Rows []Row

	files []File
	first int // index of the first file: 1 before DWARF 5
}

// Bounds on what a hostile table can make grow.
const (
	maxFiles = 1 << 16
	maxPath  = 4096 // PATH_MAX
	maxRows  = 1 << 24
)

// lineHeader is the head of a line number program (DWARF 5 §6.2.4).
type lineHeader struct {
	version  int
	format64 bool
	addrSize int
	minInst  uint64
	maxOps   uint64
	isStmt   bool
	lineBase int8
	lineSpan uint8
	opBase   uint8
	lengths  []byte // operands of standard opcodes, from opcode 1
	files    []File
	first    int
	program  buf
}

// Files lists the unit's source files: entry i has the index that DW_AT_decl_file,
// DW_AT_call_file and line rows use. Before DWARF 5, entry 0 stands for no file. The
// slice is shared and not to be modified.
func (u *Unit) Files() ([]File, error) {
	u.filesOnce.Do(func() {
		h, err := u.lineHeader()
		if err != nil {
			u.filesErr = err
			return
		}
		if h != nil {
			u.files = append(make([]File, h.first, h.first+len(h.files)), h.files...)
		}
	})
	return u.files, u.filesErr
}

// File is the source file with the given index in the unit.
func (u *Unit) File(index uint64) (File, bool) {
	files, err := u.Files()
	if err != nil || index >= uint64(len(files)) || files[index].Path == "" {
		return File{}, false
	}
	return files[index], true
}

// Lines runs the unit's line number program. A unit without one has an empty table.
// The table is made anew each time; it holds 32 bytes a row.
func (u *Unit) Lines() (*LineTable, error) {
	h, err := u.lineHeader()
	if err != nil {
		return nil, err
	}
	if h == nil {
		return &LineTable{}, nil
	}
	t := &LineTable{files: h.files, first: h.first}
	if err := t.run(h, u); err != nil {
		return nil, fmt.Errorf("line table at %#x: %w", u.attrs().line, err)
	}
	return t, nil
}

func (u *Unit) lineHeader() (*lineHeader, error) {
	if u.skeleton != nil {
		// The linked file has the line table of both (DWARF 5 §3.1.3).
		return u.skeleton.lineHeader()
	}
	a := u.attrs()
	if !a.hasLine {
		return nil, nil
	}
	h, err := u.parseLineHeader(a.line)
	if err != nil {
		return nil, fmt.Errorf("line table at %#x: %w", a.line, err)
	}
	return h, nil
}

func (u *Unit) parseLineHeader(off uint64) (*lineHeader, error) {
	s := u.s.Line
	if off >= uint64(len(s)) {
		return nil, fmt.Errorf("%w: beyond the section", ErrDWARF)
	}
	b := buf{b: s, pos: int(off)}
	h := &lineHeader{addrSize: u.AddrSize, maxOps: 1, first: 1}
	n, format64 := b.initialLength()
	if b.bad || n > uint64(b.left()) {
		return nil, fmt.Errorf("%w: length beyond the section", ErrDWARF)
	}
	h.format64 = format64
	b.b = b.b[:b.pos+int(n)]
	h.version = int(b.u16())
	if h.version < 2 || h.version > 5 {
		return nil, fmt.Errorf("%w: line table version %d", ErrDWARF, h.version)
	}
	if h.version >= 5 {
		h.addrSize = int(b.u8())
		if seg := b.u8(); seg != 0 || h.addrSize != 4 && h.addrSize != 8 {
			return nil, fmt.Errorf("%w: addresses of %d bytes in segments", ErrDWARF, h.addrSize)
		}
	}
	length := b.offset(format64)
	if length > uint64(b.left()) {
		return nil, fmt.Errorf("%w: header beyond the table", ErrDWARF)
	}
	program := b
	program.pos += int(length)
	b.b = b.b[:program.pos]

	h.minInst = uint64(b.u8())
	if h.version >= 4 {
		h.maxOps = uint64(b.u8())
	}
	h.isStmt = b.u8() != 0
	h.lineBase = int8(b.u8())
	h.lineSpan = b.u8()
	h.opBase = b.u8()
	if b.bad || h.opBase == 0 || h.maxOps == 0 || h.lineSpan == 0 {
		return nil, fmt.Errorf("%w: line table header", ErrDWARF)
	}
	h.lengths = b.bytes(uint64(h.opBase - 1))
	var err error
	if h.version >= 5 {
		err = h.filesV5(&b, u)
	} else {
		err = h.filesV4(&b, u)
	}
	if err != nil {
		return nil, err
	}
	if b.bad {
		return nil, b.err("line table header")
	}
	h.program = program
	return h, nil
}

func (h *lineHeader) addFile(u *Unit, dir, name string) {
	f := File{Path: name}
	if len(dir)+len(name) > maxPath || len(u.CompDir()) > maxPath {
		f.Path = "" // no file has such a name
	} else if name != "" && !path.IsAbs(name) && dir != "" {
		f.Path = path.Join(dir, name)
	}
	f.Full = f.Path
	if f.Path != "" && !path.IsAbs(f.Path) {
		f.Full = path.Join(u.CompDir(), f.Path)
	}
	h.files = append(h.files, f)
}

func (h *lineHeader) filesV4(b *buf, u *Unit) error {
	dirs := []string{""} // 0 is the directory of the compilation
	for !b.bad {
		d := b.cstring()
		if len(d) == 0 {
			break
		}
		dirs = append(dirs, text(d))
	}
	for !b.bad {
		name := b.cstring()
		if len(name) == 0 {
			break
		}
		if len(h.files) >= maxFiles {
			return fmt.Errorf("%w: more than %d files", ErrDWARF, maxFiles)
		}
		if err := h.fileV4(b, u, name, dirs); err != nil {
			return err
		}
	}
	return nil
}

func (h *lineHeader) fileV4(b *buf, u *Unit, name []byte, dirs []string) error {
	dir := b.uleb()
	b.uleb() // time of modification
	b.uleb() // bytes
	d := ""
	if dir < uint64(len(dirs)) {
		d = dirs[dir]
	} else if !b.bad {
		return fmt.Errorf("%w: directory %d of %d", ErrDWARF, dir, len(dirs))
	}
	if !b.bad {
		h.addFile(u, d, text(name))
	}
	return nil
}

// Content types of DWARF 5 file tables (§7.22).
const (
	lnctPath      = 1
	lnctDirectory = 2
)

// filesV5 reads the tables of directories and files (DWARF 5 §6.2.4.1).
func (h *lineHeader) filesV5(b *buf, u *Unit) error {
	h.first = 0
	var dirs []string
	comp := u.CompDir()
	err := h.tableV5(b, u, func(name string, _ uint64) error {
		// The directory of the compilation is entry 0, and not part of the path as
		// written; that which others are relative to.
		switch {
		case len(dirs) == 0:
			if comp == "" {
				comp = name
			}
			if name == comp {
				name = ""
			}
		case name == comp:
			name = ""
		}
		dirs = append(dirs, name)
		return nil
	})
	if err != nil {
		return err
	}
	return h.tableV5(b, u, func(name string, dir uint64) error {
		if dir >= uint64(len(dirs)) {
			return fmt.Errorf("%w: directory %d of %d", ErrDWARF, dir, len(dirs))
		}
		h.addFile(u, dirs[dir], name)
		return nil
	})
}

func (h *lineHeader) tableV5(b *buf, u *Unit, add func(name string, dir uint64) error) error {
	type column struct {
		kind uint64
		form Form
	}
	var columns []column
	for range b.u8() {
		columns = append(columns, column{b.uleb(), Form(b.uleb())})
	}
	n := b.uleb()
	if b.bad {
		return b.err("file table")
	}
	if n > maxFiles || n > 0 && len(columns) == 0 {
		return fmt.Errorf("%w: %d files", ErrDWARF, n)
	}
	key := abbrevKey{addrSize: uint8(h.addrSize), format64: h.format64}
	for range n {
		var name string
		var dir uint64
		for _, c := range columns {
			v, ok := u.column(b, c.form, key)
			if !ok {
				return fmt.Errorf("%w: file table with %v", ErrDWARF, c.form)
			}
			switch c.kind {
			case lnctPath:
				name = text(v.B)
			case lnctDirectory:
				dir = v.U
			}
		}
		if err := add(name, dir); err != nil {
			return err
		}
	}
	return nil
}

// column reads one value of a file table, of the forms that DWARF 5 §6.2.4.1 allows.
func (u *Unit) column(b *buf, f Form, key abbrevKey) (v Val, ok bool) {
	switch f {
	case FormString:
		v.B = b.cstring()
	case FormLineStrp:
		v.B = cstring(u.s.LineStr, b.offset(key.format64))
	case FormStrp:
		v.B = cstring(u.s.Str, b.offset(key.format64))
	case FormStrx1, FormStrx2, FormStrx3, FormStrx4:
		n, _ := formSize(f, key)
		v.B = u.data.str(Str(u.strX(b.uint(int(n))).U))
	case FormStrx:
		v.B = u.data.str(Str(u.strX(b.uleb()).U))
	case FormUdata:
		v.U = b.uleb()
	case FormData1, FormData2, FormData4, FormData8:
		n, _ := formSize(f, key)
		v.U = b.uint(int(n))
	case FormData16:
		b.skip(16)
	case FormBlock:
		b.skip(b.uleb())
	default:
		return v, false
	}
	return v, !b.bad
}

// Opcodes of line number programs (DWARF 5 §6.2.5).
const (
	lnsExtended = iota
	lnsCopy
	lnsAdvancePC
	lnsAdvanceLine
	lnsSetFile
	lnsSetColumn
	lnsNegateStmt
	lnsSetBasicBlock
	lnsConstAddPC
	lnsFixedAdvancePC
	lnsSetPrologueEnd
	lnsSetEpilogueBegin
	lnsSetISA

	lneEndSequence      = 1
	lneSetAddress       = 2
	lneDefineFile       = 3
	lneSetDiscriminator = 4
)

// run executes the program and puts its sequences in order.
func (t *LineTable) run(h *lineHeader, u *Unit) error {
	type sequence struct{ first, end int }
	var (
		rows   []Row
		seqs   []sequence
		sorted = true
		b      = &h.program
		start  = Row{File: 1, Line: 1, IsStmt: h.isStmt}
		r      = start
		opIdx  = uint64(0)
		first  = 0
	)
	advance := func(n uint64) {
		if h.maxOps == 1 {
			r.Addr += n * h.minInst
			return
		}
		n += opIdx
		r.Addr += h.minInst * (n / h.maxOps)
		opIdx = n % h.maxOps
	}
	emit := func() error {
		if len(rows) >= maxRows {
			return fmt.Errorf("%w: more than %d rows", ErrDWARF, maxRows)
		}
		if n := len(rows); n > first && rows[n-1].Addr > r.Addr {
			sorted = false
		}
		rows = append(rows, r)
		r.PrologueEnd = false
		return nil
	}
	endSequence := func() {
		seq := rows[first:]
		if !sorted {
			// The standard demands order within a sequence; without it no row has an
			// end, so none is believed.
			rows = rows[:first]
		} else if low, high := seq[0].Addr, seq[len(seq)-1].Addr; low >= high || u.tombstone(low) {
			rows = rows[:first]
		} else {
			seqs = append(seqs, sequence{first, len(rows)})
		}
		first, sorted = len(rows), true
		r, opIdx = start, 0
	}
	for b.left() > 0 {
		op := b.u8()
		if op >= h.opBase {
			n := op - h.opBase
			advance(uint64(n / h.lineSpan))
			r.Line += uint32(int32(h.lineBase) + int32(n%h.lineSpan))
			if err := emit(); err != nil {
				return err
			}
			continue
		}
		switch op {
		case lnsExtended:
			n := b.uleb()
			args := buf{b: b.bytes(n)}
			if b.bad {
				return b.err("line number program")
			}
			if n == 0 {
				continue
			}
			switch args.u8() {
			case lneEndSequence:
				r.EndSequence = true
				if err := emit(); err != nil {
					return err
				}
				endSequence()
			case lneSetAddress:
				if args.left() > 8 {
					return fmt.Errorf("%w: an address of %d bytes", ErrDWARF, args.left())
				}
				r.Addr, opIdx = word(args.b[args.pos:]), 0
			case lneDefineFile:
				name := args.cstring()
				if len(t.files) < maxFiles && !args.bad {
					hf := lineHeader{}
					if err := hf.fileV4(&args, u, name, []string{""}); err != nil {
						return err
					}
					t.files = append(t.files[:len(t.files):len(t.files)], hf.files...)
				}
			case lneSetDiscriminator:
			}
		case lnsCopy:
			if err := emit(); err != nil {
				return err
			}
		case lnsAdvancePC:
			advance(b.uleb())
		case lnsAdvanceLine:
			r.Line += uint32(b.sleb())
		case lnsSetFile:
			r.File = uint32(min(b.uleb(), 1<<32-1))
		case lnsSetColumn:
			r.Col = uint32(min(b.uleb(), 1<<32-1))
		case lnsNegateStmt:
			r.IsStmt = !r.IsStmt
		case lnsSetBasicBlock, lnsSetEpilogueBegin:
		case lnsConstAddPC:
			advance(uint64((255 - h.opBase) / h.lineSpan))
		case lnsFixedAdvancePC:
			r.Addr += uint64(b.u16())
			opIdx = 0
		case lnsSetPrologueEnd:
			r.PrologueEnd = true
		default: // lnsSetISA, and what is not known: the header says how to pass over it
			for range h.lengths[op-1] {
				b.uleb()
			}
		}
		if b.bad {
			return b.err("line number program")
		}
	}
	rows = rows[:first] // what no end closes has no extent
	slices.SortStableFunc(seqs, func(a, b sequence) int { return cmp.Compare(rows[a.first].Addr, rows[b.first].Addr) })
	t.Rows = make([]Row, 0, len(rows))
	end := uint64(0)
	for _, s := range seqs {
		// Identical functions that the linker has merged are described more than
		// once; the first description stands.
		if rows[s.first].Addr < end {
			continue
		}
		end = rows[s.end-1].Addr
		t.Rows = append(t.Rows, rows[s.first:s.end]...)
	}
	return nil
}

// File is the source file with the given index in a row.
func (t *LineTable) File(index uint32) (File, bool) {
	i := int64(index) - int64(t.first)
	if i < 0 || i >= int64(len(t.files)) || t.files[i].Path == "" {
		return File{}, false
	}
	return t.files[i], true
}

// Lookup finds the row that the instruction at addr belongs to.
func (t *LineTable) Lookup(addr uint64) (Row, bool) {
	i := sort.Search(len(t.Rows), func(i int) bool { return t.Rows[i].Addr > addr }) - 1
	// Of rows at one address all but the last are empty; one that begins a run stands
	// after the one that ends the run before.
	if i < 0 || t.Rows[i].EndSequence {
		return Row{}, false
	}
	return t.Rows[i], true
}

// Range is the rows that instructions of [low, high) belong to, the first of which may
// begin before low. It shares the memory of Rows.
func (t *LineTable) Range(low, high uint64) []Row {
	if low >= high {
		return nil
	}
	i := sort.Search(len(t.Rows), func(i int) bool { return t.Rows[i].Addr > low })
	if i > 0 && !t.Rows[i-1].EndSequence {
		// The row that low is in, with the empty ones at its address.
		for i--; i > 0 && !t.Rows[i-1].EndSequence && t.Rows[i-1].Addr == t.Rows[i].Addr; {
			i--
		}
	}
	j := sort.Search(len(t.Rows), func(j int) bool { return t.Rows[j].Addr >= high })
	if i >= j {
		return nil
	}
	return t.Rows[i:j:j]
}
