package check_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestErrors: what is said of scripts that are wrong, with the place underlined.
func TestErrors(t *testing.T) {
	var b bytes.Buffer
	for _, text := range []string{
		// Rust's values.
		`uprobe:app::f { print(args.itme); }`,
		`uprobe:app::f { print(args.item.prize); }`,
		`uprobe:app::f { print(args.item.dims.2); }`,
		`uprobe:app::f { print(args.item + 1); }`,
		`uprobe:app::f /args.item.name/ { }`,
		`uprobe:app::f { if (args.name == 3) { } }`,
		`uprobe:app::f { print(args.gone); }`,
		`uprobe:app::f { print(args.real + 1); }`,
		`uprobe:app::f { print(args.opt.Sum.0); }`,
		`uprobe:app::f { print(args.opt.Some.1); }`,
		`uprobe:app::f { print(is(args.opt, Same)); }`,
		`uprobe:app::f { print(is(args.n, Some)); }`,
		`uprobe:app::f { print(is(args.opt, 1)); }`,
		`uprobe:app::f { print(args.list[4]); }`,
		`uprobe:app::f { print(args.item[0]); }`,
		`uprobe:app::f { print(*args.n); }`,
		`uprobe:app::f { @[args.item] = 1; }`,
		`uprobe:app::f { $x = args.whole; }`,
		`uprobe:app::f { $x = args.item; $x = args.opt.Some.0; }`,
		`uprobe:app::f { printf("%d\n", args.name); }`,
		`uprobe:app::f { print(retval); }`,
		`uretprobe:app::g { print(retval); }`,
		`uretprobe:app::f { print(retval.Some); }`,
		`uprobe:app::plain { print(args.n); }`,
		`uprobe:app::* { print(args.item.id); }`,
		`uprobe:app::* { print(args.nothing); }`,
		`uprobe:app::h { }`,
		`uprobe:app::f { print((app::Item *)arg0); print(((app::Thing *)arg0).x); }`,
		// The language.
		`kprobe:vfs_read { } tracepoint:a:b { }`,
		`begin { print(args.n); print(func); print(arg0); }`,
		`begin { $a = 1; $a = "text"; }`,
		`begin { let $a : uint8 = 300; }`,
		`begin { let $a : nothing; }`,
		`begin { print($a); $a = 1; }`,
		`begin { $a++; }`,
		`begin { print(@none); }`,
		`begin { @a = 1; @a = "x"; }`,
		`begin { @a = 1; @a[1] = 2; }`,
		`begin { @a[1] = 1; @a["x"] = 2; }`,
		`begin { @a[1] = 1; @a[1, 2] = 2; }`,
		`begin { @a = count(); @a = 5; }`,
		`begin { @a = count(); @a = sum(5); }`,
		`begin { @a = hist(1); print(@a + 1); }`,
		`begin { $a = count(); }`,
		`begin { @a[1] = 1; print(@a + 1); }`,
		`begin { print(1 / 0); }`,
		`begin { print("a" + 1); }`,
		`begin { print((1, 2).2); }`,
		`begin { print((a=1).b); }`,
		`begin { printf("%d %d\n", 1); }`,
		`begin { printf("%d\n", "x"); }`,
		`begin { $f = "x"; printf($f); }`,
		`begin { prinft("x"); }`,
		`begin { strlen(); }`,
		`begin { system("ls"); signal(9); }`,
		`begin { unroll (1000) { } }`,
		`begin { break; }`,
		`begin { for ($i : @m) { } @m = 1; }`,
		`begin { for ($i : 5) { } }`,
		`begin { @l = lhist(1, 10, 0, 1); @m = lhist(1, 0, 100000, 1); }`,
		`begin { print(strncmp("a", "b", pid)); }`,
		`begin { print((struct x *)0); }`,
		`begin { print(1.5); }`,
		`interval:s:0 { }`,
		`self:signal:SIGNONE { }`,
		`let @a = nomap(5); begin { }`,
		`config = { max_strlen = 0; nonsense = 1 } begin { }`,
	} {
		fmt.Fprintf(&b, "=== %s\n", text)
		out, errs, err := through(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if (out == nil) != errs.Failed() {
			t.Errorf("%s: errors, but a program", text)
		}
		if err := errs.Render(&b, false); err != nil {
			t.Fatal(err)
		}
		if len(errs) == 0 {
			fmt.Fprintln(&b, "nothing")
		}
	}
	golden := filepath.Join("testdata", "errors.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), b.String()); d != "" {
		t.Error(d)
	}
}

// The examples of the language's page that are of random.Symbols' app::f mean something.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/language.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Rust's values\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```bt\n")[1:]
	if len(blocks) < 2 {
		t.Fatal("no examples in the section of Rust's values")
	}
	for _, b := range blocks {
		text, _, _ := strings.Cut(b, "```")
		if out, errs, err := through(text); out == nil || err != nil || len(errs) > 0 {
			t.Errorf("%v %v\n%s", err, errs, text)
		}
	}
}
