package dwarf_test

import (
	"bufio"
	"bytes"
	godwarf "debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/objfile"
)

// builds of testdata/shop.rs, and of testdata/shop.c where the name begins with "c".
var builds = map[string][]string{
	"debug4":   {"--edition=2021", "-g", "-Cdwarf-version=4"},
	"debug5":   {"--edition=2021", "-g", "-Cdwarf-version=5"},
	"release4": {"--edition=2021", "-O", "-g", "-Cdwarf-version=4"},
	"release5": {"--edition=2021", "-O", "-g", "-Cdwarf-version=5"},
	"frames":   {"--edition=2021", "-O", "-g", "-Cforce-frame-pointers=yes", "-Crelocation-model=static"},
	"c2":       {"-O2", "-gdwarf-2", "-gstrict-dwarf"},
	"c3":       {"-O2", "-gdwarf-3"},
	"c4":       {"-O2", "-gdwarf-4", "-fdebug-types-section", "-Wl,-z,lazy"},
	"c5":       {"-O2", "-gdwarf-5", "-fdebug-types-section"},
	"c64":      {"-O2", "-gdwarf-5", "-gdwarf64"},
}

// rust reports whether the name is that of a build of testdata/shop.rs.
func rust(name string) bool { return name[0] != 'c' }

var built struct {
	sync.Mutex
	dir   string
	files map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// build compiles testdata/shop.rs, once in a run of the tests.
func build(t testing.TB, name string) string {
	t.Helper()
	compiler, source := "rustc", "testdata/shop.rs"
	if !rust(name) {
		compiler, source = "gcc", "testdata/shop.c"
	}
	cc, err := exec.LookPath(compiler)
	if err != nil {
		t.Skip("needs " + compiler)
	}
	built.Lock()
	defer built.Unlock()
	if path := built.files[name]; path != "" {
		return path
	}
	if built.dir == "" {
		if built.dir, err = os.MkdirTemp("", "ferrotrace-dwarf"); err != nil {
			t.Fatal(err)
		}
		built.files = map[string]string{}
	}
	out := filepath.Join(built.dir, name)
	args := append([]string{source, "-o", out}, builds[name]...)
	if msg, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", compiler, err, msg)
	}
	built.files[name] = out
	return out
}

func open(t testing.TB, path string) (*objfile.File, *dwarf.Data) {
	t.Helper()
	f, err := objfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	d, err := dwarf.New(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range d.Problems() {
		t.Error(err)
	}
	return f, d
}

func openGo(t testing.TB, path string) *godwarf.Data {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func each(t *testing.T, f func(t *testing.T, path string, rust bool)) {
	for _, name := range slices.Sorted(maps.Keys(builds)) {
		t.Run(name, func(t *testing.T) { f(t, build(t, name), rust(name)) })
	}
}

// same reports whether Go's reader and ours gave the same value.
func same(f godwarf.Field, v dwarf.Val) bool {
	switch f.Class {
	case godwarf.ClassAddress:
		return v.Class == dwarf.ClassAddress && v.U == f.Val.(uint64)
	case godwarf.ClassConstant:
		n, ok := f.Val.(int64)
		if !ok {
			return v.Class == dwarf.ClassConst && bytes.Equal(v.B, f.Val.([]byte))
		}
		return v.Class == dwarf.ClassConst && (v.U == uint64(n) || v.S == n)
	case godwarf.ClassBlock:
		return v.Class == dwarf.ClassBlock && bytes.Equal(v.B, f.Val.([]byte))
	case godwarf.ClassExprLoc:
		return (v.Class == dwarf.ClassExpr || v.Class == dwarf.ClassBlock) && bytes.Equal(v.B, f.Val.([]byte))
	case godwarf.ClassFlag:
		return v.Class == dwarf.ClassFlag && (v.U == 1) == f.Val.(bool)
	case godwarf.ClassReference:
		return v.Class == dwarf.ClassRef && v.U == uint64(f.Val.(godwarf.Offset))
	case godwarf.ClassString:
		return v.Class == dwarf.ClassString && string(v.B) == f.Val.(string)
	case godwarf.ClassLocList:
		if n, ok := f.Val.(uint64); ok {
			return v.U == n
		}
		return v.Class == dwarf.ClassSecOffset && v.U == uint64(f.Val.(int64))
	case godwarf.ClassRngList:
		n, ok := f.Val.(uint64)
		return v.Class == dwarf.ClassIndex || ok && v.U == n
	case godwarf.ClassReferenceSig:
		// Resolved, if the type is in .debug_info.
		return v.Class == dwarf.ClassRef || v.Class == dwarf.ClassUnknown && v.U == f.Val.(uint64)
	default:
		n, ok := f.Val.(int64)
		return (v.Class == dwarf.ClassSecOffset || v.Class == dwarf.ClassConst) && ok && v.U == uint64(n)
	}
}

func TestEntriesAgreeWithGo(t *testing.T) {
	each(t, func(t *testing.T, path string, rust bool) {
		_, d := open(t, path)
		r := openGo(t, path).Reader()
		entries, values := 0, 0
		for _, u := range d.Units() {
			r.Seek(godwarf.Offset(root(t, u)))
			c := u.Cursor(0)
			depth := 0
			for c.Next() {
				e := c.Entry()
				g, err := r.Next()
				for err == nil && g != nil && g.Tag == 0 {
					depth--
					g, err = r.Next()
				}
				if err != nil || g == nil {
					t.Fatalf("Go ends before %#x: %v", e.Offset, err)
				}
				if uint64(g.Offset) != uint64(e.Offset) || uint64(g.Tag) != uint64(e.Tag) || g.Children != e.HasChildren || depth != c.Depth() {
					t.Fatalf("%v at %#x depth %d; Go: %v at %#x depth %d", e.Tag, e.Offset, c.Depth(), g.Tag, g.Offset, depth)
				}
				if g.Children {
					depth++
				}
				i := 0
				for a, v := range e.Attrs() {
					if i >= len(g.Field) || uint64(g.Field[i].Attr) != uint64(a) || !same(g.Field[i], v) {
						t.Fatalf("entry %#x: %v = %+v; Go: %+v", e.Offset, a, v, g.Field[i])
					}
					i++
					if w, ok := e.Val(a); !ok || w.U != v.U || !bytes.Equal(w.B, v.B) {
						t.Fatalf("entry %#x: %v is %+v alone and %+v in order", e.Offset, a, w, v)
					}
				}
				if i != len(g.Field) {
					t.Fatalf("entry %#x: %d attributes; Go: %d", e.Offset, i, len(g.Field))
				}
				entries++
				values += i
			}
			if c.Err() != nil {
				t.Fatal(c.Err())
			}
		}
		if entries < 10000 && rust || entries < 50 {
			t.Errorf("only %d entries", entries)
		}
		t.Logf("%d entries, %d values in %d units", entries, values, len(d.Units()))
	})
}

func root(t testing.TB, u *dwarf.Unit) dwarf.Offset {
	t.Helper()
	e, err := u.Root()
	if err != nil {
		t.Fatal(err)
	}
	return e.Offset
}

func tombstone(addr uint64) bool { return addr == 0 || addr >= ^uint64(0)-1 }

func TestRangesAgreeWithGo(t *testing.T) {
	each(t, func(t *testing.T, path string, rust bool) {
		_, d := open(t, path)
		g := openGo(t, path)
		r := g.Reader()
		n, several := 0, 0
		set := dwarf.Tags(dwarf.TagCompileUnit, dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagLexicalBlock)
		for _, u := range d.Units() {
			c := u.Cursor(0)
			for c.NextTag(&set) {
				e := c.Entry()
				got, err := e.Ranges()
				if err != nil {
					t.Fatal(err)
				}
				r.Seek(godwarf.Offset(e.Offset))
				ge, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				all, err := g.Ranges(ge)
				if err != nil {
					t.Fatal(err)
				}
				var want []dwarf.Range
				for _, w := range all {
					if w[0] < w[1] && !tombstone(w[0]) {
						want = append(want, dwarf.Range{Low: w[0], High: w[1]})
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("entry %#x: %x; Go: %x", e.Offset, got, want)
				}
				n += len(got)
				if len(got) > 1 {
					several++
				}
			}
		}
		if n == 0 || several == 0 && rust {
			t.Errorf("%d ranges, %d entries with several", n, several)
		}
	})
}

func TestLinesAgreeWithGo(t *testing.T) {
	each(t, func(t *testing.T, path string, rust bool) {
		_, d := open(t, path)
		g := openGo(t, path)
		r := g.Reader()
		total := 0
		for _, u := range d.Units() {
			table, err := u.Lines()
			if err != nil {
				t.Fatal(err)
			}
			r.Seek(godwarf.Offset(root(t, u)))
			ge, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			lr, err := g.LineReader(ge)
			if err != nil {
				t.Fatal(err)
			}
			if lr == nil {
				if len(table.Rows) != 0 {
					t.Fatalf("unit %#x: Go has no lines", u.Offset)
				}
				continue
			}
			var seqs [][]string
			var seq []string
			first := uint64(0)
			for {
				var l godwarf.LineEntry
				if err := lr.Next(&l); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if len(seq) == 0 {
					first = l.Address
				}
				name := ""
				if !l.EndSequence {
					name = l.File.Name
				}
				seq = append(seq, fmt.Sprintf("%016x %s:%d:%d %v %v %v", l.Address, name, l.Line, l.Column, l.IsStmt, l.PrologueEnd, l.EndSequence))
				if l.EndSequence {
					if first < l.Address && !tombstone(first) {
						seqs = append(seqs, seq)
					}
					seq = nil
				}
			}
			slices.SortFunc(seqs, func(a, b []string) int { return strings.Compare(a[0][:16], b[0][:16]) })
			want := slices.Concat(seqs...)
			if len(want) != len(table.Rows) {
				t.Fatalf("unit %#x: %d rows; Go: %d", u.Offset, len(table.Rows), len(want))
			}
			for i, row := range table.Rows {
				name := ""
				if f, ok := table.File(row.File); ok && !row.EndSequence {
					name = f.Full
				}
				got := fmt.Sprintf("%016x %s:%d:%d %v %v %v", row.Addr, name, row.Line, row.Col, row.IsStmt, row.PrologueEnd, row.EndSequence)
				// Go leaves names relative to the directory of the compilation in DWARF 5.
				if got != want[i] && got != strings.Replace(want[i], " ", " "+u.CompDir()+"/", 1) {
					t.Fatalf("unit %#x row %d: %s; Go: %s", u.Offset, i, got, want[i])
				}
			}
			total += len(table.Rows)
		}
		if total < 1000 && rust || total < 20 {
			t.Errorf("only %d rows", total)
		}
	})
}

func TestLineLookup(t *testing.T) {
	_, d := open(t, build(t, "debug5"))
	var u *dwarf.Unit
	var fn dwarf.Entry
	set := dwarf.Tags(dwarf.TagSubprogram)
	for _, unit := range d.Units() {
		c := unit.Cursor(0)
		for c.NextTag(&set) {
			if c.Entry().Name() == "risky" {
				u, fn = unit, *c.Entry()
			}
		}
	}
	if u == nil {
		t.Fatal("no function risky")
	}
	if u.Lang() != dwarf.LangRust || !strings.Contains(u.Producer(), "rustc") {
		t.Errorf("language %#x by %q", u.Lang(), u.Producer())
	}
	n, _ := fn.Uint(dwarf.AttrDeclFile)
	file, ok := u.File(n)
	if !ok || file.Path != "testdata/shop.rs" || file.Full != u.CompDir()+"/testdata/shop.rs" {
		t.Errorf("file %+v", file)
	}
	rs, err := fn.Ranges()
	if err != nil || len(rs) != 1 {
		t.Fatal(rs, err)
	}
	table, err := u.Lines()
	if err != nil {
		t.Fatal(err)
	}
	line, _ := fn.Uint(dwarf.AttrDeclLine)
	row, ok := table.Lookup(rs[0].Low)
	if !ok || uint64(row.Line) != line || row.Addr != rs[0].Low {
		t.Errorf("%+v at the entry, line %d", row, line)
	}
	rows := table.Range(rs[0].Low, rs[0].High)
	if len(rows) < 3 || rows[0].Addr != rs[0].Low || rows[len(rows)-1].EndSequence {
		t.Fatalf("%+v", rows)
	}
	if !slices.ContainsFunc(rows, func(r dwarf.Row) bool { return r.PrologueEnd }) {
		t.Error("no end of the prologue")
	}
	// A range that begins within a row includes it.
	within := table.Range(rows[0].Addr+1, rs[0].High)
	if len(within) == 0 || within[0].Addr > rows[0].Addr+1 {
		t.Errorf("range from within a row begins at %+v", within[0])
	}
	if _, ok := table.Lookup(table.Rows[len(table.Rows)-1].Addr); ok {
		t.Error("a row after the last")
	}
}

// TestSkip walks with Skip and without and demands the same siblings.
func TestSkip(t *testing.T) {
	t.Run("walking", func(t *testing.T) { testSkip(t, "release4") })
	t.Run("by DW_AT_sibling", func(t *testing.T) { testSkip(t, "c4") })
}

func testSkip(t *testing.T, name string) {
	_, d := open(t, build(t, name))
	for _, u := range d.Units() {
		var want, got []dwarf.Offset
		for c := u.Cursor(0); c.Next(); {
			if c.Depth() <= 2 {
				want = append(want, c.Entry().Offset)
			}
		}
		c := u.Cursor(0)
		for c.Next() {
			got = append(got, c.Entry().Offset)
			if c.Depth() == 2 {
				c.Skip()
				c.Skip()
			}
		}
		if c.Err() != nil || !slices.Equal(got, want) {
			t.Fatalf("unit %#x: %d siblings, not %d: %v", u.Offset, len(got), len(want), c.Err())
		}
		// A cursor that begins within walks one entry's children alone.
		if len(want) > 1 {
			sub := u.Cursor(want[1])
			n := 0
			for sub.Next() {
				n++
			}
			whole := u.Cursor(0)
			m := 0
			for whole.Next() {
				if o := whole.Entry().Offset; o >= want[1] && (len(want) == 2 || whole.Depth() > 1 || o == want[1]) {
					m++
				} else if o > want[1] {
					break
				}
			}
			if n != m {
				t.Fatalf("unit %#x: %d entries from %#x on, not %d", u.Offset, n, want[1], m)
			}
		}
	}
}

var cfaLine = regexp.MustCompile(`^([0-9a-f]{16}) (\S+)`)

func TestFramesAgreeWithReadelf(t *testing.T) {
	readelf, err := exec.LookPath("readelf")
	if err != nil {
		t.Skip("needs readelf")
	}
	for _, name := range []string{"debug4", "release5", "frames", "c4"} {
		t.Run(name, func(t *testing.T) {
			path := build(t, name)
			_, d := open(t, path)
			fr, err := d.Frames()
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(readelf, "--debug-dump=frames-interp", "--wide", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			n, exprs := 0, 0
			inFDE := false
			for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
				line := s.Text()
				if strings.Contains(line, " FDE ") {
					inFDE = true
				} else if strings.Contains(line, " CIE ") || strings.Contains(line, "ZERO terminator") {
					inFDE = false
				}
				m := cfaLine.FindStringSubmatch(line)
				if m == nil || !inFDE {
					continue
				}
				pc, _ := strconv.ParseUint(m[1], 16, 64)
				rule, err := fr.CFA(pc)
				if err != nil {
					t.Fatalf("%#x: %v", pc, err)
				}
				got := "exp"
				if rule.Expr == nil {
					names := []string{"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10"}
					got = fmt.Sprintf("%s%+d", names[rule.Reg], rule.Off)
				} else {
					exprs++
				}
				if got != m[2] {
					t.Fatalf("%#x: %s; readelf: %s", pc, got, m[2])
				}
				n++
			}
			if n < 1000 && rust(name) || exprs == 0 && !rust(name) {
				t.Errorf("only %d rows, %d expressions", n, exprs)
			}
			t.Logf("%d rows, %d expressions, %d functions", n, exprs, len(fr.Ranges()))
			if _, err := fr.CFA(1); !errors.Is(err, dwarf.ErrNoFrame) {
				t.Error(err)
			}
		})
	}
}

func TestLandingPads(t *testing.T) {
	f, d := open(t, build(t, "release4"))
	fr, err := d.Frames()
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	pads, catches := 0, 0
	for _, r := range fr.Ranges() {
		if got := fr.Within(r); !slices.Equal(got, []dwarf.Range{r}) {
			t.Fatalf("within %+v are %+v", r, got)
		}
		sites, err := fr.LandingPads(r.Low)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites {
			if !r.Contains(s.Low) || s.High > r.High || s.Low >= s.High || !r.Contains(s.Pad) {
				t.Fatalf("%+v of function %+v", s, r)
			}
			pads++
			if s.Catches {
				catches++
			}
		}
	}
	if pads < 100 || catches == 0 {
		t.Errorf("%d landing pads, %d of which catch", pads, catches)
	}
	// risky has a vector to drop when it panics.
	i := slices.IndexFunc(syms, func(s objfile.Symbol) bool { return strings.Contains(s.Name, "5risky17h") })
	if i < 0 {
		t.Fatal("no symbol of risky")
	}
	if r, ok := fr.Range(syms[i].Addr); !ok || r.Low != syms[i].Addr || r.High != r.Low+syms[i].Size {
		t.Errorf("frame %+v of a function at %#x with %d bytes", r, syms[i].Addr, syms[i].Size)
	}
	if sites, err := fr.LandingPads(syms[i].Addr); len(sites) == 0 || err != nil {
		t.Errorf("risky has no landing pads: %v", err)
	}
}

var (
	dumpEntry = regexp.MustCompile(`^(0x[0-9a-f]+):\s+DW_TAG_`)
	dumpLoc   = regexp.MustCompile(`\[(0x[0-9a-f]+), (0x[0-9a-f]+)\): (.*)$`)
)

func TestLocationsAgreeWithLLVM(t *testing.T) {
	dump, err := exec.LookPath("llvm-dwarfdump")
	if err != nil {
		t.Skip("needs llvm-dwarfdump")
	}
	for _, name := range []string{"release4", "release5", "c4", "c5"} {
		t.Run(name, func(t *testing.T) {
			path := build(t, name)
			_, d := open(t, path)
			out, err := exec.Command(dump, "--debug-info", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := map[dwarf.Offset][]string{}
			var at dwarf.Offset
			inLoc := false
			for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
				line := s.Text()
				if m := dumpEntry.FindStringSubmatch(line); m != nil {
					n, _ := strconv.ParseUint(m[1], 0, 64)
					at = dwarf.Offset(n)
				}
				if strings.Contains(line, "DW_AT_") {
					inLoc = strings.Contains(line, "DW_AT_location")
				}
				if m := dumpLoc.FindStringSubmatch(line); m != nil && inLoc {
					low, _ := strconv.ParseUint(m[1], 0, 64)
					high, _ := strconv.ParseUint(m[2], 0, 64)
					if low < high && !tombstone(low) {
						want[at] = append(want[at], fmt.Sprintf("%#x-%#x", low, high))
					}
				}
			}
			n := 0
			for _, u := range d.Units() {
				for c := u.Cursor(0); c.Next(); {
					e := c.Entry()
					list, err := e.Locations(dwarf.AttrLocation)
					if err != nil {
						t.Fatal(err)
					}
					var got []string
					for _, l := range list {
						if !l.Whole {
							got = append(got, fmt.Sprintf("%#x-%#x", l.Low, l.High))
						}
						if _, ok := dwarf.ExprAt(list, l.Low); !ok {
							t.Errorf("entry %#x: nothing at %#x", e.Offset, l.Low)
						}
					}
					if !slices.Equal(got, want[e.Offset]) {
						t.Fatalf("entry %#x: %v; LLVM: %v", e.Offset, got, want[e.Offset])
					}
					n += len(got)
				}
			}
			if n < 1000 && rust(name) || n == 0 {
				t.Errorf("only %d locations", n)
			}
		})
	}
}

func TestParallel(t *testing.T) {
	_, d := open(t, build(t, "debug5"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, u := range d.Units() {
				for c := u.Cursor(0); c.Next(); {
					_ = c.Entry().Name()
					_, _ = c.Entry().Ranges()
				}
				_ = u.Name()
			}
			if _, err := d.Frames(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkWalk(b *testing.B) {
	path := build(b, "release4")
	b.Run("ours", func(b *testing.B) {
		_, d := open(b, path)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for _, u := range d.Units() {
				for c := u.Cursor(0); c.Next(); {
					n++
				}
			}
			b.ReportMetric(float64(n), "entries")
		}
	})
	b.Run("ours with names", func(b *testing.B) {
		_, d := open(b, path)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for _, u := range d.Units() {
				for c := u.Cursor(0); c.Next(); {
					n += len(c.Entry().Name())
				}
			}
		}
	})
	b.Run("Go", func(b *testing.B) {
		d := openGo(b, path)
		b.ReportAllocs()
		for b.Loop() {
			r := d.Reader()
			for {
				e, err := r.Next()
				if err != nil {
					b.Fatal(err)
				}
				if e == nil {
					break
				}
			}
		}
	})
}
