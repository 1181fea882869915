package dwarf_test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/objfile"
)

// splitBuild builds the shop with split debug info, into a directory of its own.
func splitBuild(t *testing.T, kind, version string, more ...string) string {
	t.Helper()
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("skipped: needs rustc")
	}
	out := filepath.Join(t.TempDir(), "shop")
	args := append([]string{"testdata/shop.rs", "-o", out, "-g", "-O", "-Cdwarf-version=" + version, "-Ccodegen-units=4", "-Clto=off"}, more...)
	if kind != "" {
		args = append(args, "-Csplit-debuginfo="+kind)
	}
	if msg, err := exec.Command(rustc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	return out
}

// splitSections are those of a split file.
func splitSections(t *testing.T, path string) dwarf.Sections {
	t.Helper()
	f, err := objfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s, err := f.SplitDWARF()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// functions describes each function of the user's own units that has code: its ranges
// and where its parameters are, and each inlined instance.
func functions(t *testing.T, d *dwarf.Data) (all []string, units int) {
	t.Helper()
	for _, u := range d.Units() {
		if !strings.Contains(u.Name(), "shop.rs") {
			continue
		}
		units++
		if u.CompDir() == "" || !strings.Contains(u.Producer(), "rustc") {
			t.Errorf("unit %s: from %q, by %q", u.Name(), u.CompDir(), u.Producer())
		}
		c := u.Cursor(0)
		for c.Next() {
			e := c.Entry()
			if found, err := d.Entry(e.Offset); err != nil || found.Tag != e.Tag || d.UnitAt(e.Offset) != u {
				t.Fatalf("entry %#x alone: %+v, %v", e.Offset, found, err)
			}
			for _, a := range []dwarf.Attr{dwarf.AttrType, dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
				if v, ok := e.Val(a); ok {
					if off, ok := e.Ref(a); !ok {
						t.Fatalf("entry %#x: %v is %+v", e.Offset, a, v)
					} else if _, err := d.Entry(off); err != nil {
						t.Fatal(err)
					}
				}
			}
			name, _, _ := e.Inherited(dwarf.AttrName)
			what := ""
			switch e.Tag {
			case dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagLexicalBlock:
				rs, err := e.Ranges()
				if err != nil {
					t.Fatal(err)
				}
				if len(rs) == 0 {
					// Its code was dropped, and lists in .debug_addr mark that in other ways.
					c.Skip()
					continue
				}
				what = fmt.Sprintf("%#x", rs)
				if n, ok := e.Uint(dwarf.AttrDeclFile); ok {
					file, ok := u.File(n)
					if !ok {
						t.Fatalf("entry %#x: no file %d", e.Offset, n)
					}
					what += " " + file.Path
				}
			case dwarf.TagFormalParameter, dwarf.TagVariable:
				ls, err := e.Locations(dwarf.AttrLocation)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range ls {
					expr := l.Expr
					if len(expr) > 0 && slices.Contains([]byte{0x03, 0xa1, 0xfb}, expr[0]) {
						expr = []byte("addr") // the same address in another form
					}
					if len(expr) > 2 {
						expr = expr[:1] // LLVM computes without typed operations in split units
					}
					what += fmt.Sprintf(" [%#x %#x %v]%x", l.Low, l.High, l.Whole, expr)
				}
			default:
				continue
			}
			all = append(all, fmt.Sprintf("%v %s %s", e.Tag, name.Text(), what))
		}
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		lines, err := u.Lines()
		if err != nil || len(lines.Rows) == 0 {
			t.Errorf("unit %s: %d lines, %v", u.Name(), len(lines.Rows), err)
		}
	}
	slices.Sort(all)
	return all, units
}

// TestSplit: joined split units say what the same units say in one file.
func TestSplit(t *testing.T) {
	for _, version := range []string{"4", "5"} {
		want, n := functions(t, opened(t, splitBuild(t, "", version)))
		if len(want) < 100 || n < 2 {
			t.Fatalf("%d entries in %d units of the plain build", len(want), n)
		}
		for _, kind := range []string{"packed", "unpacked"} {
			t.Run(version+" "+kind, func(t *testing.T) {
				path := splitBuild(t, kind, version)
				d := opened(t, path)
				skeletons := d.Skeletons()
				if len(skeletons) != n {
					t.Fatalf("%d skeletons of %d units", len(skeletons), n)
				}
				var files []dwarf.Sections
				if kind == "packed" {
					files = append(files, splitSections(t, path+".dwp"))
				} else {
					for _, u := range skeletons {
						name := u.SplitName()
						if !filepath.IsAbs(name) {
							name = filepath.Join(u.CompDir(), name)
						}
						files = append(files, splitSections(t, name))
					}
				}
				for _, err := range d.Join(files) {
					if err != nil {
						t.Error(err)
					}
				}
				if left := d.Skeletons(); len(left) > 0 {
					t.Errorf("%d skeletons are left", len(left))
				}
				last := dwarf.Offset(0)
				for _, u := range d.Units() {
					if u.Offset < last {
						t.Errorf("unit at %#x before %#x", u.Offset, last)
					}
					last = u.End
				}
				got, units := functions(t, d)
				if units != n || len(got) != len(want) {
					t.Errorf("%d entries in %d units, %d in %d in the plain build", len(got), units, len(want), n)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("the plain build and this differ:\n%s", diff)
				}
			})
		}
	}
}

func opened(t *testing.T, path string) *dwarf.Data {
	_, d := open(t, path)
	return d
}

// TestSplitOfAnotherBuild: nothing is joined to what it does not belong to.
func TestSplitOfAnotherBuild(t *testing.T) {
	d := opened(t, splitBuild(t, "packed", "4"))
	before := len(d.Units())
	other := splitBuild(t, "packed", "4", "-Coverflow-checks=yes", "-Copt-level=1")
	errs := d.Join([]dwarf.Sections{splitSections(t, other+".dwp"), {Info: []byte("nothing of the kind")}, {}})
	for i, err := range errs {
		if !errors.Is(err, dwarf.ErrDWARF) {
			t.Errorf("file %d: %v", i, err)
		}
	}
	if n := len(d.Units()); n != before || len(d.Skeletons()) == 0 {
		t.Errorf("%d units, %d before", n, before)
	}
	if _, n := functions(t, d); n != 0 {
		t.Errorf("%d units have entries", n)
	}
}

// TestSplitC reads what gcc makes.
func TestSplitC(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("skipped: needs gcc")
	}
	for _, version := range []string{"4", "5"} {
		dir := t.TempDir()
		src, err := filepath.Abs("testdata/shop.c")
		if err != nil {
			t.Fatal(err)
		}
		run := func(name string, args ...string) {
			cmd := exec.Command(name, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
		}
		run("gcc", "-g", "-O2", "-gdwarf-"+version, "-gsplit-dwarf", "-c", src, "-o", "a.o")
		run("gcc", "a.o", "-o", "a")
		files := []string{"a.dwo"}
		if _, err := exec.LookPath("dwp"); err == nil && version == "4" {
			run("dwp", "-e", "a", "-o", "a.dwp")
			files = append(files, "a.dwp")
		}
		for _, file := range files {
			d := opened(t, filepath.Join(dir, "a"))
			if errs := d.Join([]dwarf.Sections{splitSections(t, filepath.Join(dir, file))}); errs[0] != nil {
				t.Fatalf("%s %s: %v", version, file, errs[0])
			}
			if len(d.Skeletons()) > 0 || len(d.Units()) == 0 {
				t.Fatalf("%s %s: %d skeletons, %d units", version, file, len(d.Skeletons()), len(d.Units()))
			}
			code := 0
			for _, u := range d.Units() {
				c := u.Cursor(0)
				for c.Next() {
					e := c.Entry()
					rs, err := e.Ranges()
					if err != nil {
						t.Fatal(err)
					}
					if name, _, ok := e.Inherited(dwarf.AttrName); ok && e.Tag == dwarf.TagSubprogram && len(rs) > 0 && name.Text() != "" {
						code++
					}
					if _, err := e.Locations(dwarf.AttrLocation); err != nil {
						t.Fatal(err)
					}
				}
				if c.Err() != nil {
					t.Fatal(c.Err())
				}
			}
			if code == 0 {
				t.Errorf("%s %s: no function has code", version, file)
			}
		}
	}
}
