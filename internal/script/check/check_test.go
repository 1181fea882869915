package check

import (
	"errors"
	"strings"
	"testing"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
	"ferrotrace/internal/script/show"
	"ferrotrace/internal/script/source"
)

// symbols is a program with one function, app::f(n: u64).
type symbols struct{}

func (symbols) Sites(p *ast.AttachPoint) ([]*Site, error) {
	if p.Func != "app::f" {
		return nil, errors.New("nothing is called " + p.Func)
	}
	n := &types.Type{Name: "u64", Kind: types.Uint, Size: 8, Align: 8}
	return []*Site{{Probe: p.Raw, Func: "app::f", Args: []Arg{{Name: "n", Type: n}}, Result: &Arg{Name: "retval", Type: n}}}, nil
}

func (symbols) Type(string) *types.Type { return nil }

func (symbols) Symbol(_ *Site, name string) (addr, size uint64, ok bool) {
	return 0x4000, 2, name == "LIMIT"
}

// checked goes through a script as a run of it does.
func checked(t *testing.T, text string, o Options) (*Output, source.Errors) {
	t.Helper()
	tree, errs := parse.File("script", text, o.Params...)
	if errs.Failed() {
		t.Fatalf("%s: %v", text, errs)
	}
	if errs := macro.Expand(tree, Builtin); errs.Failed() {
		return nil, errs
	}
	return Check(tree, symbols{}, o)
}

const functionsOf = `
fn twice($x : int64) : int64 { return 2 * $x; }
fn again($x : int64) : int64 { return again($x); }
fn mixed($x : int64) : string[64] { return $x; }
fn sees($x : int64) : int64 { return $y; }
`

// In each script one thing is wrong, or doubtful.
func TestMessages(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`print(strerorr(1));`, `did you mean strerror?`},
		{`print(strerror("x"));`, `a number is wanted here, and this is string`},
		{`print(macaddr(1));`, `macaddr() wants 6 bytes, or their address`},
		{`print(ntop(7, 1));`, `ntop() wants a family of addresses first`},
		{`print(ntop(10, 1));`, `ntop() wants an integer, or an array of 4 or 16 bytes`},
		{`print(pton("1.2.3"));`, `no address of IPv4 or IPv6: "1.2.3"`},
		{`print(pton(comm));`, `pton() wants a string literal here`},
		{`$a = ntop(1); $a = buf("ab", 2);`, `type mismatch for $a: it is inet, and can't become buffer`},
		{`printf("%r", ntop(1));`, `unsupported format specifier for type 'inet': r`},
		{`print(cgroupid("/nowhere"));`, `no such cgroup`},
		{`print(comm(1));`, `the name of another process is not to be had`},
		{`print(pid(init));`, `pid is that of the namespace that ferrotrace runs in`},
		{`print(cpid);`, `warning: no command was started (-c): cpid is 0`},
		{`print(getopt("n", 1));`, `program command line option --n invalid integer (value: x)`},
		{`print(getopt("n"));`, `program command line option --n invalid boolean (value: x)`},
		{`print(getopt("m", pid));`, `getopt() wants a bool, an integer or a string`},
		{`fail("no %s of %d", "more", 3);`, `no more of 3`},
		{`if comptime (pid == 1) { print(1); }`, `that is not known before the script runs`},
		{`static_assert(1 == 2, "odd");`, `odd`},
		{`find(@m, 1, 2); @m[1] = 1;`, `find() wants a variable for the value`},
		{`@m = 1; print(len(@m));`, `call to len() expects a map with explicit keys (non-scalar map)`},
		{`print(uaddr("NONE"));`, `could not resolve symbol: NONE`},
		{`signal_thread(9);`, `signal_thread() changes what is traced, which is not safe`},
		{`write_user(arg0, 1, 1);`, `ferrotrace does not write into what it traces`},
		{`print(ksym(1));`, `ksym() is about the kernel`},
		{`print(jiffies);`, `jiffies is not there: ferrotrace looks at user space`},
		{`print(dw_ustack());`, `stacks are not unwound by debug info`},
		{`exit(); print(1);`, `warning: unreachable statement`},
		{`print(twice(1, 2));`, `twice() takes 1 arguments, and is given 2`},
		{`print(twice("x"));`, `twice() wants int64 for $x, and this is string`},
		{`print(again(1));`, `a function cannot call itself: again()`},
		{`print(mixed(1));`, `mixed() returns string[64], and this is int64`},
		{`print(sees(1));`, `undefined or undeclared variable: $y`},
		{`print(ustack(dwarf));`, `invalid stack mode: 'dwarf'`},
		{`print(ustack(3, perf));`, `the mode of a stack stands first`},
		{`print(container_of(arg0, 1, n));`, `container_of() wants a type here`},
	} {
		o := Options{Format: show.CheckFormat, Named: map[string]string{"n": "x"}, CgroupID: func(string) (uint64, error) { return 0, errors.New("no such cgroup") }}
		_, errs := checked(t, functionsOf+"uprobe:app::f { $y = 1; "+c.body+" }", o)
		var b strings.Builder
		for _, e := range errs {
			kind := "error: "
			if e.Warning {
				kind = "warning: "
			}
			b.WriteString(kind + e.Msg + " " + e.Hint + "\n")
		}
		if !strings.Contains(b.String(), c.want) {
			t.Errorf("%s\nsays: %swant: %s", c.body, b.String(), c.want)
		}
	}
}

// What is fine is said to be.
func TestAccepted(t *testing.T) {
	for _, body := range []string{
		`if comptime is_str("a") { print(1) } else { nonsense() }`,
		`if ($1 > 1) { print(1) } else { fail("never") }`,
		`print((is_literal(1), is_ptr(arg0), is_integer(pid), is_unsigned_integer(pid), is_array(pton("::1"))));`,
		`print((cpu(), __builtin_cpu, __builtin_elapsed(), retval));`,
		`@ = { let $a = 100; avg($a) };`,
		`@[strerror(args.n)] = count(); if (strerror(args.n) == "Bad address") { exit() }`,
		`print(*uaddr("LIMIT"));`,
		`$p = (int32 *)arg0; print(container_of($p, typeof(struct s), b));`,
		`assert(args.n > 1, "small");`,
		`print(config().max_strlen);`,
		`$a = (1, "x"); print(*(&$a)); print(str($1 + 1));`,
		`signal_name(SIGINT); print(strerror(EPERM)); ntop(AF_INET, arg0);`,
	} {
		point := "uprobe:app::f"
		if strings.Contains(body, "retval") {
			point = "uretprobe:app::f"
		}
		out, errs := checked(t, "struct s { int a; int b; } "+point+" { "+body+" }", Options{Params: []string{"7"}, Child: true})
		if out == nil || len(errs) > 0 {
			t.Errorf("%s: %v", body, errs)
		}
	}
}

// Names that numbers stand for are consecutive, and one that a script compares with is that
// of the table.
func TestNumberNames(t *testing.T) {
	out, errs := checked(t, `uprobe:app::f { if (strerror(args.n) == "Bad address") { print(signal_name(args.n)); } }`, Options{})
	if out == nil {
		t.Fatal(errs)
	}
	names := out.Script.Names
	for _, c := range []struct {
		of   string
		at   int
		want string
	}{
		{"strerror", 0, "Success"}, {"strerror", 14, "Bad address"}, {"strerror", 41, "Unknown error"}, {"strerror", 133, "Memory page has hardware error"},
		{"signal_name", 0, "Unknown signal 0"}, {"signal_name", 11, "Segmentation fault"}, {"signal_name", 34, "Real-time signal 0"}, {"signal_name", 65, "N/A"},
	} {
		base := 0
		if c.of == "signal_name" {
			base = len(errorTexts()) + 1
		}
		if got := names[base+c.at]; got != c.want {
			t.Errorf("%s(%d): %q, want %q", c.of, c.at, got, c.want)
		}
	}
	found := false
	for _, s := range out.Script.Handlers[0].Body {
		if x, ok := s.(*ir.If); ok {
			if b, ok := x.Cond.(*ir.Binary); ok && b.Op == ir.Eq {
				found = b.Y.(*ir.Const).V == 14
			}
		}
	}
	if !found {
		t.Error("the comparison is not with the table's entry")
	}
}

// Settings of the environment give way to those of the script.
func TestSettings(t *testing.T) {
	env := map[string]string{"BPFTRACE_MAX_STRLEN": "32", "BPFTRACE_MAX_MAP_KEYS": "7", "BPFTRACE_STACK_MODE": "raw", "BPFTRACE_OTHER": "?"}
	out, errs := checked(t, `config = { max_map_keys = 9; max_cat_bytes = 3; license = "GPL" } begin { print(config.max_strlen) }`, Options{Settings: env})
	if out == nil {
		t.Fatal(errs)
	}
	if c := out.Config; c.MaxMapKeys != 9 || c.MaxStr != 32 || c.StackMode != "raw" || c.MaxCat != 3 {
		t.Errorf("config %+v", c)
	}
	if out, errs = checked(t, `begin { print(comm) }`, Options{Settings: map[string]string{"BPFTRACE_MAX_STRLEN": "9999"}}); out == nil || out.Config.MaxStr != maxText {
		t.Errorf("a string that is too long: %v", errs)
	}
	for text, want := range map[string]string{
		`config = { license = "Potato" } begin { }`: "Invalid value for license. Found: Potato. Valid values: GPL,",
		`config = { stack_mode = odd } begin { }`:   "bpftrace, perf, raw or build_id is wanted",
		`config = { no_such = 1 } begin { }`:        "unrecognized config variable: no_such",
	} {
		if _, errs := checked(t, text, Options{}); !strings.Contains(errs.Error(), want) {
			t.Errorf("%s: %v", text, errs)
		}
	}
}

// What is like a name that nothing has stands in the hint, on one line.
func TestAdvised(t *testing.T) {
	msg, hint := advised(errors.New("no function matches f\nnearest: app::f\n         app::g"))
	if msg != "no function matches f" || hint != "nearest: app::f, app::g" {
		t.Errorf("%q, %q", msg, hint)
	}
}
