package signature

import (
	"strings"
	"testing"

	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/rust/types"
)

func parse(t *testing.T, text string) (Signature, error) {
	t.Helper()
	p, err := path.ParsePattern(text)
	if err != nil || p.Kind != path.KindSignature {
		t.Fatalf("%s: %v, kind %d", text, err, p.Kind)
	}
	return Parse(p)
}

func TestTypes(t *testing.T) {
	for text, want := range map[string]struct {
		name string
		size int64
	}{
		"u8": {"u8", 1}, "i128": {"i128", 16}, "bool": {"bool", 1}, "char": {"char", 4}, "f64": {"f64", 8}, "usize": {"usize", 8},
		"c_int": {"i32", 4}, "std::ffi::c_char": {"i8", 1}, "libc::c_ulong": {"u64", 8},
		"()": {"()", 0}, "!": {"!", 0},
		"&u32": {"&u32", 8}, "&'a mut u32": {"&mut u32", 8}, "&'static str": {"&str", 16}, "& str": {"&str", 16},
		"*const u8": {"*const u8", 8}, "*mut ()": {"*mut ()", 8}, "*const c_void": {"*const core::ffi::c_void", 8},
		"*const [u8]": {"*const [u8]", 16}, "&mut [u16]": {"&mut [u16]", 16}, "&[&str]": {"&[&str]", 16},
		"[u8; 3]": {"[u8; 3]", 3}, "[[u16; 2]; 1_0]": {"[[u16; 2]; 10]", 40}, "&[u8; 4]": {"&[u8; 4]", 8},
		"Box<u32>": {"alloc::boxed::Box<u32>", 8}, "std::boxed::Box<str>": {"alloc::boxed::Box<str>", 16},
		"Option<&u32>": {"core::option::Option<&u32>", 8}, "Option<&str>": {"core::option::Option<&str>", 16},
		"Option<Box<[u8]>>":               {"core::option::Option<alloc::boxed::Box<[u8]>>", 16},
		"NonZeroU32":                      {"core::num::nonzero::NonZero<u32>", 4},
		"Option<NonZeroU64>":              {"core::option::Option<core::num::nonzero::NonZero<u64>>", 8},
		"Option<std::num::NonZero<i128>>": {"core::option::Option<core::num::nonzero::NonZero<i128>>", 16},
		"String":                          {"alloc::string::String", 24}, "&Vec<String>": {"&alloc::vec::Vec<alloc::string::String>", 8},
	} {
		sig, err := parse(t, "f(a: "+text+") -> "+text)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, got := range []Type{sig.Params[0].Type, sig.Result} {
			if got.Layout == nil || got.Layout.Name != want.name || got.Layout.Size != want.size {
				t.Errorf("%s: %+v, want %v", text, got, want)
			}
			if got.Std != (strings.Contains(text, "Vec") || strings.Contains(text, "String")) {
				t.Errorf("%s: Std is %v", text, got.Std)
			}
		}
	}
}

// TestRefused: what has no certain layout keeps its text and says why it is not read.
func TestRefused(t *testing.T) {
	for text, why := range map[string]string{
		"shop::Cart":               noLayout,
		"Cart<u8, (A, B)>":         noLayout,
		"&Cart":                    "the layout of Cart only debug info tells",
		"*const Cart":              "the layout of Cart only debug info tells",
		"Option<&Cart>":            "the layout of Cart only debug info tells",
		"other::String":            noLayout,
		"(u8, u16)":                "the layout of a tuple is the compiler's own affair",
		"&(u8, u16)":               "the layout of a tuple is the compiler's own affair",
		"Option<u32>":              "its layout is the compiler's own affair: only of references, Box and NonZero it is fixed",
		"Option<*const u8>":        "its layout is the compiler's own affair: only of references, Box and NonZero it is fixed",
		"&dyn Fn(u8) -> u8":        "which type it is only debug info tells",
		"impl Iterator<Item = u8>": "which type it is only debug info tells",
		"fn(u8, &str) -> u8":       "the types of functions are not read here",
		"extern \"C\" fn(u8)":      "the types of functions are not read here",
		"str":                      unsizedAlone,
		"[u8]":                     unsizedAlone,
		"HashMap<String, Vec<u8>>": noLayout,
		"Box<u8, Bump>":            "its allocator is not the usual one",
		"NonZero<bool>":            "NonZero is of integers",
		"crate::a::NonZeroU32":     noLayout,
		"<A as B>::C":              "",
	} {
		sig, err := parse(t, "f(x: u8, a: "+text+", y: u16)")
		if text[0] == '<' {
			if err == nil {
				t.Errorf("%s is accepted", text)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := sig.Params[1].Type; got.Layout != nil || got.Why != why || got.Text != text || len(sig.Params) != 3 {
			t.Errorf("%s: %+v, want %q", text, got, why)
		}
	}
	for _, self := range []string{"&self", "self", "&mut self", "&'a mut self", "mut self"} {
		sig, err := parse(t, "A::f("+self+", n: u8)")
		if err != nil || len(sig.Params) != 2 || sig.Params[0].Name != "self" || sig.Params[0].Type.Layout != nil || sig.Params[0].Type.Text != self {
			t.Errorf("%s: %+v, %v", self, sig, err)
		}
	}
}

func TestParams(t *testing.T) {
	sig, err := parse(t, `pub unsafe extern "C" fn shop::add(id: u64, mut n: u8, _: &str, u16, self: *const (),) -> bool`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range sig.Params {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, ","); got != "id,n,,,self" || !sig.C || sig.Result.Layout.Kind != types.Bool {
		t.Errorf("%q, %+v", got, sig)
	}
	if sig, err := parse(t, "f()"); err != nil || len(sig.Params) != 0 || sig.Result.Layout.Kind != types.Unit {
		t.Errorf("%+v, %v", sig, err)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"f(a: )":                               `"f(a: )", character 6: unexpected ')' in a type`,
		"f(a: u8":                              "",
		"f(a: u8) bool":                        `"f(a: u8) bool", character 10: unexpected 'b' in the signature`,
		"f(a: u8 b: u8)":                       `"f(a: u8 b: u8)", character 9: unexpected 'b' in a type`,
		"f(a: [u8; N])":                        `"f(a: [u8; N])", character 11: the length of an array is a number here`,
		"f(a: [u64; 999999])":                  `"f(a: [u64; 999999])", character 12: an array of more than 1048576 bytes`,
		"f(a: *u8)":                            `"f(a: *u8)", character 7: unexpected 'u' in a pointer: it is *const or *mut`,
		`extern "fastcall" fn f(a: u8)`:        `"extern \"fastcall\" fn f(a: u8)", character 8: no such calling convention is known here: "C" is`,
		"f(a: u8, ...)":                        `"f(a: u8, ...)", character 10: unexpected '.' in a type`,
		"f(" + strings.Repeat("&", 99) + "u8)": "nested too deep",
	} {
		p, err := path.ParsePattern(text)
		if err == nil {
			_, err = Parse(p)
		}
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v\nwant %s", text, err, want)
		}
	}
}

// FuzzSignature: no text makes the parser fail otherwise than by an error, and what has
// a layout has one that fits.
func FuzzSignature(f *testing.F) {
	for _, s := range []string{
		"f(id: u64, name: &str) -> bool", `extern "C" fn a::b(p: *const c_void, [u8; 3])`, "f(&mut self, x: Option<Box<[NonZeroU8]>>) -> !",
		"f(a: HashMap<String, Vec<(u8, fn(u8) -> u8)>>, b: &dyn X + 'a) -> impl Y", "f(a: [[u8; 3]; 70000])",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := path.ParsePattern(text)
		if err != nil || p.Kind != path.KindSignature {
			return
		}
		sig, err := Parse(p)
		if err != nil {
			_ = err.Error()
			return
		}
		for _, param := range append(sig.Params, Param{Type: sig.Result}) {
			l := param.Type.Layout
			if l == nil {
				if param.Type.Why == "" || param.Type.Text == "" {
					t.Errorf("%q: %+v is not read, without a reason", text, param)
				}
				continue
			}
			if l.Size < 0 || l.Size > maxArray || l.Name == "" {
				t.Errorf("%q: %+v", text, l)
			}
			l.Edges()
		}
	})
}
