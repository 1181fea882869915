package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "ferrotrace/"

// A rule forbids packages to import others. A pattern is a path below the module,
// or any other import path; "x/..." means x and all below it.
type rule struct {
	from   []string
	but    []string // packages of from that the rule spares
	to     []string
	except []string // imports of to that the rule allows
	tests  bool     // the rule holds for tests too
	why    string
}

var rules = []rule{
	{
		from: []string{"internal/script/...", "internal/program"},
		to:   []string{"internal/index/...", "internal/dwarf/...", "internal/objfile/..."},
		why:  "a program means the same whatever the debug info's format: check declares the interface that the index implements",
	},
	{
		from: []string{"internal/runtime/..."},
		to:   []string{"internal/script/...", "internal/program", "internal/index/...", "internal/dwarf/...", "internal/rust/..."},
		why:  "a runtime runs any eBPF collection, a stranger's too: it knows bytes and addresses, no language",
	},
	{
		from:   []string{"internal/output"},
		to:     []string{"internal/..."},
		except: []string{"internal/event"},
		why:    "output formats events and cares not where they come from",
	},
	{
		from: []string{"internal/event"},
		to:   []string{"internal/..."},
		why:  "events are what all rooms agree on, so they lean on none",
	},
	{
		from: []string{"..."},
		but:  []string{"internal/codegen", "internal/runtime/..."},
		to:   []string{"github.com/cilium/ebpf/..."},
		why:  "one room makes eBPF and the runtimes run it; a change of that library must not reach further",
	},
	{
		from: []string{"internal/objfile/...", "internal/dwarf/...", "internal/rust/...", "internal/x86/...", "internal/location", "internal/index/..."},
		to:   []string{"internal/codegen", "internal/runtime/...", "internal/session", "internal/output", "internal/cli"},
		why:  "data flows one way: what reads files knows nothing of what runs probes",
	},
	{
		from: []string{"internal/codegen", "internal/record", "internal/runtime/...", "internal/calls"},
		to:   []string{"internal/index/...", "internal/dwarf/...", "internal/objfile/...", "internal/session", "internal/output", "internal/cli"},
		why:  "data flows one way: below codegen nothing knows debug info, and nothing before decode formats text",
	},
	{
		from: []string{"..."},
		but:  []string{"cmd/...", "internal/cli"},
		to:   []string{"internal/cli", "internal/session"},
		why:  "only the command line starts sessions, and only a session joins the two halves",
	},
	{
		from:  []string{"..."},
		to:    []string{"C"},
		tests: true,
		why:   "no cgo anywhere, for one static binary that any machine can build",
	},
}

// joined: a package that imports of both halves joins them.
var (
	upper = []string{"internal/objfile/...", "internal/dwarf/...", "internal/index/..."}
	lower = []string{"internal/runtime/..."}
	joins = []string{"internal/session", "internal/cli"}
)

const (
	maxLines = 800 // of a file; beyond it there are two things in it
)

type file struct {
	name    string // slash-separated, from the module's root
	dir     string
	test    bool
	lines   int
	imports []string // the module's own without its name
	pkg     string
	doc     bool // it has a package comment
}

func matches(pattern, p string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return p == base || strings.HasPrefix(p, base+"/")
	}
	return p == pattern
}

func matchesAny(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, p) })
}

// allows reports whether a package in dir may import p.
func (r rule) allows(dir, p string, test bool) bool {
	switch {
	case test && !r.tests:
		return true
	case !matchesAny(r.from, dir) || matchesAny(r.but, dir):
		return true
	case !matchesAny(r.to, p) || matchesAny(r.except, p):
		return true
	}
	// A room's own corners are its own affair.
	for _, from := range r.from {
		if from != "..." && matches(from, dir) && matches(from, p) {
			return true
		}
	}
	return false
}

func readTree(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) { // a build's scratch file that is gone
				return nil
			}
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || p == filepath.Join(root, "examples")) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parseFile(filepath.ToSlash(rel), src)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files below %s: the walk is broken", len(files), root)
	}
	return files
}

func parseFile(name string, src []byte) (file, error) {
	f := file{name: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), lines: bytes.Count(src, []byte("\n"))}
	tree, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return f, err
	}
	f.pkg, f.doc = tree.Name.Name, says(tree)
	for _, i := range tree.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return f, err
		}
		f.imports = append(f.imports, strings.TrimPrefix(p, module))
	}
	return f, nil
}

// says reports whether a file's package comment says what the package is for, in
// the form that go doc expects.
func says(tree *ast.File) bool {
	doc := tree.Doc.Text()
	if tree.Name.Name == "main" {
		return strings.HasPrefix(doc, "Command ") && len(doc) > 30
	}
	return strings.HasPrefix(doc, "Package "+tree.Name.Name+" ") && len(doc) > 30
}

func TestImports(t *testing.T) {
	for _, f := range readTree(t) {
		half := map[string]string{}
		for _, p := range f.imports {
			for _, r := range rules {
				if !r.allows(f.dir, p, f.test) {
					t.Errorf("%s imports %s\n\t%s", f.name, p, r.why)
				}
			}
			if matchesAny(upper, p) {
				half["upper"] = p
			}
			if matchesAny(lower, p) {
				half["lower"] = p
			}
		}
		if len(half) == 2 && !f.test && !matchesAny(joins, f.dir) {
			t.Errorf("%s imports %s and %s\n\tonly session and cli join the two halves", f.name, half["upper"], half["lower"])
		}
	}
}

func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range readTree(t) {
		if f.test {
			continue
		}
		documented[f.dir] = documented[f.dir] || f.doc
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment that says what it is for (\"// Package %s ...\")", dir, path.Base(dir))
		}
	}
}

func TestFileSize(t *testing.T) {
	for _, f := range readTree(t) {
		if !f.test && f.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: there are two things in it", f.name, f.lines, maxLines)
		}
	}
}

// The rules must be able to fail.
func TestRules(t *testing.T) {
	forbidden := func(dir, p string, test bool) bool {
		return slices.ContainsFunc(rules, func(r rule) bool { return !r.allows(dir, p, test) })
	}
	for _, c := range []struct {
		dir, imports string
		test         bool
		want         bool
	}{
		{"internal/output", "internal/index", false, true},
		{"internal/output", "internal/event", false, false},
		{"internal/output", "fmt", false, false},
		{"internal/script/check", "internal/dwarf", false, true},
		{"internal/script/check", "internal/script/ast", false, false},
		{"internal/program", "internal/objfile", false, true},
		{"internal/runtime/kernel", "internal/program", false, true},
		{"internal/runtime/kernel", "internal/runtime", false, false},
		{"internal/runtime/kernel", "internal/rust/types", false, true},
		{"internal/runtime/kernel", "github.com/cilium/ebpf/link", false, false},
		{"internal/session", "github.com/cilium/ebpf", false, true},
		{"internal/codegen", "github.com/cilium/ebpf/asm", false, false},
		{"internal/index", "internal/dwarf/line", false, false},
		{"internal/index", "internal/runtime", false, true},
		{"internal/index", "internal/session", true, false},
		{"internal/dwarf", "C", true, true},
		{"cmd/ferrotrace", "internal/cli", false, false},
		{"internal/cli", "internal/session", false, false},
		{"internal/index", "internal/cli", false, true},
	} {
		if got := forbidden(c.dir, c.imports, c.test); got != c.want {
			t.Errorf("%s → %s (test: %v): forbidden is %v, want %v", c.dir, c.imports, c.test, got, c.want)
		}
	}
}

func TestSays(t *testing.T) {
	for src, want := range map[string]bool{
		"package x\n":              false,
		"// Package x.\npackage x": false,
		"// Package x reads what a linker wrote.\npackage x":             true,
		"// Package y reads what a linker wrote.\npackage x":             false,
		"// Package x reads what a linker wrote.\n\npackage x":           false,
		"// Command x shows what a linker wrote, in full.\npackage main": true,
	} {
		f, err := parseFile("x/x.go", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		if f.doc != want {
			t.Errorf("%q: documented is %v, want %v", src, f.doc, want)
		}
	}
}
