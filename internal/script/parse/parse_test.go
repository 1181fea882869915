package parse

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", file, got)
	}
}

func each(t *testing.T, glob string, f func(t *testing.T, file, text string)) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts:", glob, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f(t, file, string(text))
		})
	}
}

func rendered(errs source.Errors) string {
	var b strings.Builder
	errs.Render(&b, false)
	return b.String()
}

func dumped(p *ast.Program) string {
	var b strings.Builder
	ast.Dump(&b, p)
	return b.String()
}

func formatted(p *ast.Program) string {
	var b strings.Builder
	ast.Format(&b, p)
	return b.String()
}

// same compares two dumps and shows where they part.
func same(t *testing.T, was, is string) {
	t.Helper()
	a, b := strings.Split(was, "\n"), strings.Split(is, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			t.Fatalf("line %d of the tree was %q, is %q", i+1, a[i], b[i])
		}
	}
	if len(a) != len(b) {
		t.Fatalf("the tree had %d lines, has %d", len(a), len(b))
	}
}

// params are what the corpus takes for $1, $2, ...
var params = []string{"100", "./app"}

func TestCorpus(t *testing.T) {
	each(t, "testdata/*.bt", func(t *testing.T, file, text string) {
		p, errs := File(filepath.Base(file), text, params...)
		if len(errs) > 0 {
			t.Fatal(rendered(errs))
		}
		golden(t, strings.TrimSuffix(file, ".bt")+".ast", dumped(p))
		again := formatted(p)
		golden(t, strings.TrimSuffix(file, ".bt")+".fmt", again)
		p2, errs := File("formatted", again, params...)
		if len(errs) > 0 {
			t.Fatal(rendered(errs))
		}
		same(t, dumped(p), dumped(p2))
	})
}

func TestErrors(t *testing.T) {
	each(t, "testdata/errors/*.bt", func(t *testing.T, file, text string) {
		_, errs := File(filepath.Base(file), text)
		golden(t, strings.TrimSuffix(file, ".bt")+".err", rendered(errs))
	})
}

// Every node stands within the one above it, and its text is its own.
func TestSpans(t *testing.T) {
	each(t, "testdata/*.bt", func(t *testing.T, file, text string) {
		p, _ := File(file, text, params...)
		ast.Inspect(p, func(n ast.Node) bool {
			if at := n.At(); at.Start < 0 || at.End > len(text) || at.Start >= at.End {
				t.Errorf("%T has the span %v", n, at)
			}
			if x, ok := n.(*ast.Var); ok {
				if got := text[x.Start:x.End]; got != "$"+x.Name {
					t.Errorf("the variable %s is said to be at %q", x.Name, got)
				}
			}
			return true
		})
	})
}

func TestExpr(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"args.price > 100 && retval.Err.0 == \"x\"", "args.price > 100 && retval.Err.0 == \"x\""},
		{"(1)", "1"},
		{"- -$x", "-(-$x)"},
		{"(5).0", "(5).0"},
		{"1 +", ""},
		{"1 2", ""},
		{"", ""},
	} {
		x, errs := Expr("--where", c.in)
		if c.out == "" {
			if x != nil || len(errs) == 0 {
				t.Errorf("%q: want an error", c.in)
			}
		} else if len(errs) > 0 || ast.Text(x) != c.out {
			t.Errorf("%q: %v, want %s", c.in, errs, c.out)
		}
	}
}

func TestPoint(t *testing.T) {
	a, errs := Point("-l", "uprobe:./app:shop::*")
	if len(errs) > 0 || a.Target != "./app" || a.Func != "shop::*" {
		t.Errorf("%+v, %v", a, errs)
	}
	if a, errs := Point("-l", "uprobe:f {"); a != nil || len(errs) == 0 {
		t.Error("what follows an attach point is passed over")
	}
}

// Whatever nests or repeats without end is refused, not followed.
func TestBounds(t *testing.T) {
	many := strings.Repeat
	for name, text := range map[string]string{
		"parentheses":  "begin { " + many("(", 1e5),
		"casts":        "begin { $x = " + many("(uint8)", 1e5) + "1; }",
		"typeof":       "begin { $x = sizeof(" + many("typeof(", 1e5) + "1",
		"blocks":       "begin " + many("{", 1e5),
		"ifs":          "begin { " + many("if (1) { } else ", 1e5) + "{ } }",
		"conditions":   "begin { " + many("if (", 1e5),
		"unary":        "begin { $x = " + many("!", 1e5) + "1; }",
		"sum":          "begin { $x = 1" + many("+1", 1e5) + "; }",
		"fields":       "begin { $x = args" + many(".a", 1e5) + "; }",
		"ternaries":    "begin { $x = " + many("1 ? 2 : ", 1e5) + "3; }",
		"stars":        "begin { $x = (a" + many("*", 1e5) + ")1; }",
		"path":         "begin { " + many("a::", 1e5) + "b; }",
		"structs":      "struct A { " + many("struct { ", 1e5),
		"declarators":  "struct A { int " + many("(*", 1e5),
		"grid":         "struct A { int a" + many("[1]", 1e5) + "; }",
		"comptime":     "begin { $x = " + many("comptime ", 1e5) + "1; }",
		"length":       many(" ", maxText+1),
		"statements":   "begin { " + many("+;", 1e5),
		"probes":       many("nothing { } ", 1e4),
		"angles":       "uprobe:" + many("<", 1e5),
		"let":          "begin { " + many("let ", 1e5),
		"open strings": many("\"\n", 1e5),
	} {
		t.Run(name, func(t *testing.T) {
			if _, errs := File(name, text); len(errs) == 0 || len(errs) > maxErrors+maxNest {
				t.Errorf("%d errors", len(errs))
			}
		})
	}
}

// FuzzParse: no text makes the parser panic, and what it accepts stays the same
// when it is formatted and read again.
func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/*.bt", "testdata/errors/*.bt"} {
		files, _ := filepath.Glob(glob)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, errs := File("fuzz", text)
		rendered(errs)
		if len(errs) > 0 {
			return
		}
		again := formatted(p)
		p2, errs := File("formatted", again)
		if len(errs) > 0 {
			t.Fatalf("%s\n%s", rendered(errs), again)
		}
		same(t, dumped(p), dumped(p2))
		same(t, dumped(p), dumped(ast.Clone(p)))
	})
}

// The scripts on the language's page are scripts.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/language.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```bt\n")[1:]
	if len(blocks) < 5 {
		t.Fatal("only", len(blocks), "scripts")
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		if _, errs := File("language.md", text); len(errs) > 0 {
			t.Errorf("%s", rendered(errs))
		}
	}
}
