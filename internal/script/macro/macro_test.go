package macro

import (
	"strings"
	"testing"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/parse"
)

func builtin(name string) bool { return name == "print" || name == "comm" || name == "delete" }

func expanded(t *testing.T, text string) (*ast.Program, string) {
	t.Helper()
	p, errs := parse.File("t.bt", text)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	errs = Expand(p, builtin)
	if len(errs) > 0 {
		return p, "error: " + errs.Error()
	}
	var b strings.Builder
	if err := ast.Format(&b, p); err != nil {
		t.Fatal(err)
	}
	return p, strings.Join(strings.Fields(b.String()), " ")
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ name, in, out string }{
		{"no parameters", "macro one() { 1 } begin { print(one()); print(one); }",
			"begin { print({ 1 }); print({ 1 }); }"},
		{"an expression", "macro add(x) { x + 1 } begin { print(add(1 * 2)); }",
			"begin { print({ 1 * 2 + 1 }); }"},
		{"precedence is the tree's", "macro twice(x) { x * 2 } begin { print(twice(1 + 2)); }",
			"begin { print({ (1 + 2) * 2 }); }"},
		{"a variable as a value", "macro add(x) { x + 1 } begin { $a = 1; print(add($a)); }",
			"begin { $a = 1; print({ ({ $a }) + 1 }); }"},
		{"by reference", "macro both($a, @b) { $a += 1; @b[$a] = $a; } begin { $x = 1; both($x, @y); }",
			"begin { $x = 1; { $x += 1; @y[$x] = $x; } }"},
		{"own variables", "macro m(x) { let $v = x; $w = $v; $w } begin { $v = 2; print(m($v + 1)); print(m(3)); }",
			"begin { $v = 2; print({ let $v#1 = $v + 1; $w#1 = $v#1; $w#1 }); print({ let $v#2 = 3; $w#2 = $v#2; $w#2 }); }"},
		{"a loop's variable", "macro m(@m) { for ($kv : @m) { print($kv.0); } } begin { m(@a); }",
			"begin { { for ($kv#1 : @a) { print($kv#1.0); } } }"},
		{"the caller's variable is out of reach", "macro m() { $x } begin { $x = 1; print(m()); }",
			"begin { $x = 1; print({ $x#1 }); }"},
		{"a macro in a macro", "macro one(x) { x + 1 } macro two(x) { one(x) + 1 } begin { print(two(5)); }",
			"begin { print({ ({ 5 + 1 }) + 1 }); }"},
		{"a macro in an argument", "macro one(x) { x + 1 } begin { print(one(one(5))); }",
			"begin { print({ ({ 5 + 1 }) + 1 }); }"},
		{"a block for its effect", "macro thrice(x) { x; x; x } begin { thrice({ print(1) }); }",
			"begin { { { print(1); } { print(1); } { print(1); } } }"},
		{"the stricter one first", "macro m($x) { 1 } macro m(@x) { 2 } macro m(x) { 3 } begin { print((m($a), m(@b), m(@b[1]), m(5))); }",
			"begin { print(({ 1 }, { 2 }, { 3 }, { 3 })); }"},
		{"by number of arguments", "macro m() { 0 } macro m(x) { x } begin { print((m, m(1))); }",
			"begin { print(({ 0 }, { 1 })); }"},
		{"before the language's own", "macro comm() { 1 } macro delete(@a) { 2 } begin { print(comm); delete(@m, 1); delete(@m); }",
			"begin { print({ 1 }); delete(@m, 1); { 2; } }"},
		{"a type", "macro cast(a, b) { (a*)b } begin { print(cast(typeof(uint8), 1)); }",
			"begin { print({ (uint8*)1 }); }"},
		{"a struct's name", "macro size(s) { sizeof(struct s) } begin { print(size(Foo)); }",
			"begin { print({ sizeof(struct Foo) }); }"},
		{"the size of an argument", "macro size(x) { sizeof(x) } begin { print(size($a)); print(size(1 + 1)); }",
			"begin { print({ sizeof(typeof({ $a })) }); print({ sizeof(typeof(1 + 1)) }); }"},
		{"a field's path", "macro off(t, f) { offsetof(t, f) } begin { print(off(typeof(struct Foo), a.b)); }",
			"begin { print({ offsetof(struct Foo, a.b) }); }"},
		{"a name in a type is no macro", "macro uint64() { 1 } begin { print(sizeof(uint64)); print(sizeof(uint64())); }",
			"begin { print(sizeof(uint64)); print(sizeof(typeof({ 1 }))); }"},
		{"constants", "#define LIMIT (1 + BASE)\n#define BASE 10\nbegin /LIMIT > 2/ { print(LIMIT * 2); }",
			"begin /1 + 10 > 2/ { print((1 + 10) * 2); }"},
		{"a constant with a variable", "#define A $a\nbegin { $a = 1; print(A); }", "begin { $a = 1; print($a); }"},
		{"in a function", "macro one() { 1 } fn f($x : int64) : int64 { return $x + one; }",
			"fn f($x : int64) : int64 { return $x + ({ 1 }); }"},
		{"an unknown call stays", "begin { nothing(1); }", "begin { nothing(1); }"},

		{"a map out of reach", "macro m() { @x++ } begin { m(); }",
			"error: t.bt:1:13: a macro cannot reach the script's map `@x` (pass it to the macro as a parameter)"},
		{"a map for a variable", "macro m($x) { $x } begin { m(@a); }",
			"error: t.bt:1:30: the macro `m` takes a variable here (its parameter is `$x`)"},
		{"a value for a map", "macro m(@x) { @x } begin { m(@a[1]); }",
			"error: t.bt:1:30: the macro `m` takes a map here (its parameter is `@x`)"},
		{"too few", "macro m(x) { x } begin { m; }",
			"error: t.bt:1:26: the macro `m` is given 0 arguments and takes 1 (it is defined on line 1)"},
		{"itself", "macro a() { b() } macro b() { a } begin { a(); }",
			"error: t.bt:1:31: a macro cannot call itself: a calls b calls a"},
		{"a constant itself", "#define M M+1\nbegin { print(M); }",
			"error: t.bt:1:11: a macro cannot call itself: M calls M"},
		{"twice", "macro m(x) { 1 } macro m($x) { 1 } begin { }",
			"error: t.bt:1:18: the macro `m` on line 1 takes these arguments already (where two fit, the first is taken: put the one with $ and @ before the other)"},
		{"a parameter twice", "macro m(x, x) { 1 } begin { }",
			"error: t.bt:1:12: the macro has a parameter `x` already"},
		{"a parameter hidden", "macro m($x) { let $x; } begin { $a = 1; m($a); }",
			"error: t.bt:1:15: `$x` is a parameter of the macro (use another name)"},
		{"a type that is none", "macro m(x) { x + 1 } begin { print(m(typeof(uint8*))); }",
			"error: t.bt:1:38: a type can only be passed to a macro that uses it as one"},
		{"a type for a function", "begin { print(typeof(uint8)); }",
			"error: t.bt:1:15: a type can only be passed to a macro that uses it as one"},
		{"a struct of no name", "macro m(t) { sizeof(struct t) } begin { print(m(1)); }",
			"error: t.bt:1:49: this is no name of a struct (pass its name)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got := expanded(t, c.in); got != c.out {
				t.Errorf("%s\n got: %s\nwant: %s", c.in, got, c.out)
			}
		})
	}
}

// What one call puts in is nobody else's: the checker keeps facts by node.
func TestNoSharing(t *testing.T) {
	p, _ := expanded(t, "macro m(x) { x + x } macro n(t) { (t*)1 + sizeof(t) } begin { print(m(m($a + 1))); print(n(typeof(uint8))); }")
	seen := map[ast.Node]bool{}
	ast.Inspect(p, func(n ast.Node) bool {
		if seen[n] {
			t.Errorf("a %T stands in two places", n)
		}
		seen[n] = true
		return true
	})
}

// Macros that double are cut short, and so is a long chain of them.
func TestBounds(t *testing.T) {
	var double, chain strings.Builder
	for i := range 26 {
		a, b := string(rune('a'+i)), string(rune('a'+i+1))
		if i == 25 {
			b = "1"
		}
		double.WriteString("macro m" + a + "() { m" + b + " + m" + b + " } ")
	}
	double.WriteString("begin { print(ma); }")
	if _, got := expanded(t, double.String()); !strings.Contains(got, "too much") {
		t.Error(got)
	}
	name := func(i int) string { return "m" + strings.Repeat("x", i) }
	for i := range 300 {
		chain.WriteString("macro " + name(i) + "() { " + name(i+1) + " } ")
	}
	chain.WriteString("begin { print(m); }")
	if _, got := expanded(t, chain.String()); !strings.Contains(got, "deep") {
		t.Error(got)
	}
	nested := "macro m(x) { x + x } begin { print(" + strings.Repeat("m(", 40) + "1" + strings.Repeat(")", 40) + "); }"
	if _, got := expanded(t, nested); !strings.Contains(got, "too much") {
		t.Error(got)
	}
}

// FuzzExpand: whatever can be parsed can be expanded or is refused.
func FuzzExpand(f *testing.F) {
	f.Add("#define D 1\nmacro m($a, b, @c) { let $x = b; @c[$a] = sizeof(b); (b*)$x } begin /D/ { m($q, typeof(uint8), @z); m($q, D, @z) }")
	f.Add("#define A B + 1\n#define B 2\nmacro o(t, p) { offsetof(t, p) } fn f($x : int64) : int64 { return o(struct, a.b) + A; }")
	f.Add("macro e(x) { x; if (x) { x } else { { x } } } begin { e({ e(1) }); for ($i : 0..e(2)) { e($i); } }")
	f.Fuzz(func(t *testing.T, text string) {
		p, errs := parse.File("fuzz", text)
		if len(errs) > 0 {
			return
		}
		Expand(p, func(string) bool { return false })
		var b strings.Builder
		if err := ast.Dump(&b, p); err != nil {
			t.Fatal(err)
		}
		if err := ast.Format(&b, p); err != nil {
			t.Fatal(err)
		}
	})
}
