package dwarf

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// seeds are the debug sections of small programs, if there is a compiler to make them.
func seeds(f *testing.F) (all []Sections) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return nil
	}
	dir := f.TempDir()
	src := filepath.Join(dir, "a.c")
	text := "struct s { int a; long b[3]; }; static inline int f(struct s *p, int n) { int t = 0; for (int i = 0; i < n; i++) t += p->b[i & 1] * p->a; return t; }\n" +
		"int g(int n) { struct s x = { n, { 1, 2, n } }; return f(&x, n) + f(&x, 3); }\nint main(int c, char **v) { return g(c); }\n"
	if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, flags := range [][]string{{"-gdwarf-2"}, {"-gdwarf-4", "-O2"}, {"-gdwarf-5", "-O2"}, {"-gdwarf-5", "-gdwarf64"}} {
		out := filepath.Join(dir, "a.out")
		args := append([]string{"-nostdlib", "-static", "-Wl,-e,main", "-fexceptions", "-o", out, src}, flags...)
		if err := exec.Command(gcc, args...).Run(); err != nil {
			continue
		}
		e, err := elf.Open(out)
		if err != nil {
			f.Fatal(err)
		}
		get := func(name string) []byte {
			if s := e.Section(name); s != nil {
				b, _ := s.Data()
				return b
			}
			return nil
		}
		s := Sections{
			Info: get(".debug_info"), Abbrev: get(".debug_abbrev"), Str: get(".debug_str"), LineStr: get(".debug_line_str"),
			Ranges: get(".debug_ranges"), RngLists: get(".debug_rnglists"), Loc: get(".debug_loc"), LocLists: get(".debug_loclists"),
			Line: get(".debug_line"), EhFrame: get(".eh_frame"),
		}
		if h := e.Section(".eh_frame"); h != nil {
			s.EhFrameAddr = h.Addr
		}
		e.Close()
		all = append(all, s)
	}
	return all
}

// wrong fails the test if err is one that the package does not announce.
func wrong(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrDWARF) && !errors.Is(err, ErrNoFrame) {
		t.Fatalf("error of another kind: %v", err)
	}
}

// FuzzUnits walks entries in all ways and asks for all that they say. rest serves as
// every other section.
func FuzzUnits(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.Info, s.Abbrev, s.Str)
		f.Add(s.Info, s.Abbrev, s.Line)
	}
	f.Fuzz(func(t *testing.T, info, abbrev, rest []byte) {
		d, err := New(Sections{
			Info: info, Abbrev: abbrev, Str: rest, LineStr: rest, StrOffsets: rest, Addr: rest,
			Ranges: rest, RngLists: rest, Loc: rest, LocLists: rest, Line: rest,
		})
		wrong(t, err)
		if err != nil {
			return
		}
		tags, attrs := Tags(TagSubprogram, TagInlinedSubroutine, TagStructureType), Attrs(AttrName, AttrLinkageName, AttrMIPSLinkageName, AttrLowPC)
		budget := 2000 // of entries and line tables: one damaged file can have very many
		for _, u := range d.Units() {
			_, _, _, _, _ = u.Name(), u.CompDir(), u.Producer(), u.Lang(), u.SplitName()
			var order, skipped int
			c := u.Cursor(0)
			last := Offset(0)
			for c.Next() && budget > 0 {
				budget--
				order++
				e := c.Entry()
				if e.Offset <= last || e.Offset >= u.End {
					t.Fatalf("entry at %#x after %#x", e.Offset, last)
				}
				last = e.Offset
				for a, v := range e.Attrs() {
					w, ok := e.Val(a)
					if !ok || v.Class > ClassIndex || w.Class > ClassIndex {
						t.Fatalf("%v: %+v, %+v", a, v, w)
					}
					_, err := e.Locations(a)
					wrong(t, err)
					if off, ok := e.Ref(a); ok {
						_, err := d.Entry(off)
						wrong(t, err)
						_, _, err = u.BaseType(uint64(off - u.Offset))
						wrong(t, err)
					}
				}
				_, err := e.Ranges()
				wrong(t, err)
				e.Inherited(AttrName)
				_, _ = e.Int(AttrConstValue)
				copied, err := d.Entry(e.Offset)
				if err != nil || copied.Tag != e.Tag || copied.Name() != e.Name() {
					t.Fatalf("entry %#x alone: %v, %+v", e.Offset, err, copied)
				}
			}
			wrong(t, c.Err())
			picked := 0
			for s := u.Cursor(0); s.NextTag(&tags) && picked <= order; picked++ {
				if !tags.Has(s.Entry().Tag) || s.Low() > s.Depth() {
					t.Fatalf("%v at %d, by way of %d", s.Entry().Tag, s.Depth(), s.Low())
				}
				s.Entry().Pick(&attrs, func(_ Attr, n Num) {
					if n.Class == ClassString {
						d.Str(Str(n.U))
					}
				})
			}
			for s := u.Cursor(0); s.Next() && skipped <= order; s.Skip() {
				skipped++
			}
			if budget--; budget > 0 {
				_, err := u.Lines()
				wrong(t, err)
			}
		}
	})
}

// FuzzLines runs line number programs.
func FuzzLines(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.Line, s.LineStr)
	}
	f.Fuzz(func(t *testing.T, line, str []byte) {
		u := unitFor(t, Sections{Line: line, LineStr: str, Str: str}, 5)
		table, err := u.Lines()
		wrong(t, err)
		if err != nil {
			return
		}
		for i, r := range table.Rows {
			if i > 0 && r.Addr < table.Rows[i-1].Addr {
				t.Fatalf("row %d out of order", i)
			}
			if f, ok := table.File(r.File); ok && f.Path == "" {
				t.Fatal("a file without a name")
			}
			if got, ok := table.Lookup(r.Addr); ok && got.Addr != r.Addr {
				t.Fatalf("%#x is in the row at %#x", r.Addr, got.Addr)
			}
			if i > 100 {
				break
			}
		}
		if n := len(table.Rows); n > 0 {
			if !table.Rows[n-1].EndSequence {
				t.Fatal("no end")
			}
			low, high := table.Rows[0].Addr, table.Rows[n-1].Addr
			for _, r := range table.Range(low+1, high) {
				if r.Addr >= high {
					t.Fatal("row beyond the range")
				}
			}
		}
		_, err = u.Files()
		wrong(t, err)
	})
}

// unitFor is a unit with one entry that has lists and a line table at offset 0, for
// tests of other sections than .debug_info.
func unitFor(t testing.TB, s Sections, version int) *Unit {
	t.Helper()
	s.Abbrev = []byte{
		1, 0x11, 0, // compile unit without children
		byte(AttrStmtList), byte(FormSecOffset),
		byte(AttrLowPC), byte(FormAddr),
		byte(AttrAddrBase), byte(FormSecOffset),
		byte(AttrRanges), byte(FormSecOffset),
		byte(AttrLocation), byte(FormSecOffset),
		byte(AttrCompDir), byte(FormString),
		0, 0, 0,
	}
	body := []byte{1}
	body = binary.LittleEndian.AppendUint32(body, 0)
	body = binary.LittleEndian.AppendUint64(body, 0x1000)
	body = append(body, make([]byte, 12)...)
	body = append(body, "/src\x00"...)
	var head []byte
	head = binary.LittleEndian.AppendUint16(head, uint16(version))
	if version >= 5 {
		head = append(head, utCompile, 8, 0, 0, 0, 0)
	} else {
		head = append(head, 0, 0, 0, 0, 8)
	}
	s.Info = binary.LittleEndian.AppendUint32(nil, uint32(len(head)+len(body)))
	s.Info = append(append(s.Info, head...), body...)
	d, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return d.Units()[0]
}

// FuzzLists reads range and location lists of both forms.
func FuzzLists(f *testing.F) {
	for _, s := range seeds(f) {
		for _, b := range [][]byte{s.Ranges, s.RngLists, s.Loc, s.LocLists} {
			if len(b) > 12 {
				f.Add(b, []byte(nil))
				f.Add(b[12:], b)
			}
		}
	}
	f.Add([]byte{1, 0, 4, 1, 2, 1, 0x55, 5, 1, 0x55, 2, 0, 1, 1, 0x55, 3, 0, 9, 1, 0x55, 0}, make([]byte, 32))
	f.Fuzz(func(t *testing.T, list, addr []byte) {
		for _, version := range []int{4, 5} {
			u := unitFor(t, Sections{Ranges: list, RngLists: list, Loc: list, LocLists: list, Addr: addr}, version)
			e, err := u.Root()
			if err != nil {
				t.Fatal(err)
			}
			rs, err := e.Ranges()
			wrong(t, err)
			for _, r := range rs {
				if r.Low >= r.High || u.tombstone(r.Low) {
					t.Fatalf("range %+v", r)
				}
			}
			ls, err := e.Locations(AttrLocation)
			wrong(t, err)
			for _, l := range ls {
				if !l.Whole && l.Low >= l.High {
					t.Fatalf("location %+v", l)
				}
				if _, ok := ExprAt(ls, l.Low); !ok {
					t.Fatalf("nothing at %#x", l.Low)
				}
			}
		}
	})
}

// FuzzFrames runs call frame instructions of .eh_frame and .debug_frame.
func FuzzFrames(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.EhFrame, s.EhFrameAddr)
	}
	f.Fuzz(func(t *testing.T, section []byte, addr uint64) {
		mem := func(a uint64) []byte {
			if a-addr < uint64(len(section)) {
				return section[a-addr:]
			}
			return nil
		}
		for _, s := range []Sections{{EhFrame: section, EhFrameAddr: addr, Mem: mem}, {DebugFrame: section, Mem: mem}} {
			fr, err := NewFrames(s)
			wrong(t, err)
			if err != nil {
				continue
			}
			last := uint64(0)
			for i, r := range fr.Ranges() {
				if r.Low >= r.High || r.Low < last {
					t.Fatalf("range %+v", r)
				}
				last = r.High
				if got, ok := fr.Range(r.Low); !ok || got != r {
					t.Fatalf("%+v is found as %+v", r, got)
				}
				for _, pc := range []uint64{r.Low, r.Low + (r.High-r.Low)/2, r.High - 1} {
					rule, err := fr.CFA(pc)
					wrong(t, err)
					if err == nil && rule.Expr != nil && len(rule.Expr) == 0 {
						t.Fatal("an empty rule")
					}
				}
				_, err := fr.LandingPads(r.Low)
				wrong(t, err)
				if i > 50 {
					break
				}
			}
		}
	})
}

// FuzzLSDA reads language-specific data areas.
func FuzzLSDA(f *testing.F) {
	// No LPStart, types at 0x19 (pcrel, sdata4), call sites in uleb128: one cleans up,
	// one has no pad, one catches.
	f.Add([]byte{0xff, 0x9b, 0x19, 0x01, 0x0c, 5, 4, 0x20, 0, 9, 6, 0, 0, 0x10, 4, 0x30, 1, 1, 0}, uint64(0x2000), uint64(0x1000), uint64(0x1040))
	f.Fuzz(func(t *testing.T, mem []byte, addr, low, high uint64) {
		sites, ok := parseLSDA(mem, addr, Range{low, high})
		if !ok && sites != nil {
			t.Fatal("sites of a table that is not one")
		}
		for _, s := range sites {
			if s.Low < low || s.High > high || s.Low > s.High {
				t.Fatalf("%+v outside its function", s)
			}
		}
	})
}

// TestLineHeader: numbers that a line number program divides by are not 0.
func TestLineHeader(t *testing.T) {
	header := func(span, opBase byte) []byte {
		b := []byte{0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1, 1, 1, 0, span, opBase}
		b = append(b, make([]byte, int(opBase)-1)...)
		b = append(b, 0, 0) // no directories, no files
		binary.LittleEndian.PutUint32(b[6:], uint32(len(b)-10))
		b = append(b, 0, 9, lneSetAddress, 0, 0x10, 0, 0, 0, 0, 0, 0, opBase, lnsConstAddPC, lnsAdvancePC, 4, 0, 1, lneEndSequence)
		binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
		return b
	}
	for _, opBase := range []byte{13, 255} {
		if _, err := unitFor(t, Sections{Line: header(0, opBase)}, 4).Lines(); !errors.Is(err, ErrDWARF) {
			t.Errorf("line range 0, opcode base %d: %v", opBase, err)
		}
		table, err := unitFor(t, Sections{Line: header(14, opBase)}, 4).Lines()
		if err != nil || len(table.Rows) != 2 || table.Rows[0].Addr != 0x1000 {
			t.Errorf("opcode base %d: %+v, %v", opBase, table, err)
		}
	}
}

func TestLSDA(t *testing.T) {
	mem := []byte{0xff, 0x9b, 0x19, 0x01, 0x0c, 5, 4, 0x20, 0, 9, 6, 0, 0, 0x10, 4, 0x30, 1, 1, 0}
	sites, ok := parseLSDA(mem, 0x2000, Range{0x1000, 0x1040})
	if !ok || len(sites) != 2 || sites[0] != (CallSite{0x1005, 0x1009, 0x1020, false}) || sites[1] != (CallSite{0x1010, 0x1014, 0x1030, true}) {
		t.Errorf("%+v, %v", sites, ok)
	}
	if sites, ok := parseLSDA(mem, 0x2000, Range{0x1000, 0x1008}); ok {
		t.Errorf("call sites beyond the function: %+v", sites)
	}
}

// splitSeeds are a linked file's sections and those of its split file.
func splitSeeds(f *testing.F) (all [][2]Sections) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return nil
	}
	dir := f.TempDir()
	src := filepath.Join(dir, "a.c")
	if err := os.WriteFile(src, []byte("int f(int *p, int n) { int t = 0; for (int i = 0; i < n; i++) t += p[i]; return t; }\nint main(int c, char **v) { int a[2] = { c, 1 }; return f(a, 2); }\n"), 0o644); err != nil {
		f.Fatal(err)
	}
	for _, version := range []string{"-gdwarf-4", "-gdwarf-5"} {
		cmd := exec.Command(gcc, "-g", "-gsplit-dwarf", version, "-O1", "-nostdlib", "-static", "-Wl,-e,main", "-o", "a", "-dumpdir", "x-", src)
		if cmd.Dir = dir; cmd.Run() != nil {
			continue
		}
		get := func(file, name string) []byte {
			e, err := elf.Open(filepath.Join(dir, file))
			if err != nil {
				f.Fatal(err)
			}
			defer e.Close()
			if s := e.Section(name); s != nil {
				b, _ := s.Data()
				return b
			}
			return nil
		}
		dwo, err := filepath.Glob(filepath.Join(dir, "*.dwo"))
		if err != nil || len(dwo) == 0 {
			continue
		}
		name := filepath.Base(dwo[0])
		all = append(all, [2]Sections{
			{Info: get("a", ".debug_info"), Abbrev: get("a", ".debug_abbrev"), Addr: get("a", ".debug_addr")},
			{Info: get(name, ".debug_info.dwo"), Abbrev: get(name, ".debug_abbrev.dwo"), Str: get(name, ".debug_str.dwo")},
		})
		os.Remove(dwo[0])
	}
	return all
}

// packageIndex is a package's index of one unit that is the whole of info and abbrev.
func packageIndex(id uint64, version uint32, info, abbrev int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, version)
	for _, n := range []uint32{2, 1, 2} { // columns, units, slots
		b = le.AppendUint32(b, n)
	}
	b = le.AppendUint64(le.AppendUint64(b, 0), id)
	for _, n := range []uint32{0, 1, 1, 3, 0, 0, uint32(info), uint32(abbrev)} {
		b = le.AppendUint32(b, n)
	}
	return b
}

// FuzzSplit joins split files and packages. rest serves as every other section.
func FuzzSplit(f *testing.F) {
	for _, s := range splitSeeds(f) {
		d, err := New(s[0])
		if err != nil || len(d.Skeletons()) != 1 {
			f.Fatalf("%d skeletons, %v", len(d.Skeletons()), err)
		}
		u := d.Skeletons()[0]
		version := uint32(2)
		if u.Version == 5 {
			version = 5
		}
		index := packageIndex(u.id, version, len(s[1].Info), len(s[1].Abbrev))
		packaged := s[1]
		packaged.CUIndex = index
		if errs := d.Join([]Sections{packaged}); errs[0] != nil || len(d.Skeletons()) != 0 {
			f.Fatal(errs[0])
		}
		f.Add(s[0].Info, s[0].Abbrev, s[1].Info, s[1].Abbrev, index, s[0].Addr)
		f.Add(s[0].Info, s[0].Abbrev, s[1].Info, s[1].Abbrev, []byte(nil), s[1].Str)
	}
	f.Fuzz(func(t *testing.T, info, abbrev, splitInfo, splitAbbrev, index, rest []byte) {
		d, err := New(Sections{Info: info, Abbrev: abbrev, Str: rest, Addr: rest, Ranges: rest, RngLists: rest, Line: rest})
		wrong(t, err)
		if err != nil {
			return
		}
		split := Sections{Info: splitInfo, Abbrev: splitAbbrev, Str: rest, StrOffsets: rest, Loc: rest, LocLists: rest, RngLists: rest}
		files := []Sections{split, split}
		files[0].CUIndex = index
		for _, err := range d.Join(files) {
			wrong(t, err)
		}
		last := Offset(0)
		budget := 2000
		for _, u := range d.Units() {
			if u.Offset < last {
				t.Fatalf("unit at %#x before %#x", u.Offset, last)
			}
			last = u.End
			_, _, _, _ = u.Name(), u.CompDir(), u.Producer(), u.SplitName()
			c := u.Cursor(0)
			for c.Next() && budget > 0 {
				budget--
				e := c.Entry()
				copied, err := d.Entry(e.Offset)
				if err != nil || copied.Tag != e.Tag || copied.Unit != u {
					t.Fatalf("entry %#x alone: %v, %+v", e.Offset, err, copied)
				}
				for a := range e.Attrs() {
					_, err := e.Locations(a)
					wrong(t, err)
					if off, ok := e.Ref(a); ok {
						_, err := d.Entry(off)
						wrong(t, err)
					}
				}
				_, err = e.Ranges()
				wrong(t, err)
			}
			wrong(t, c.Err())
			if budget--; budget > 0 {
				_, err := u.Lines()
				wrong(t, err)
			}
		}
	})
}
