package path

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// paths holds texts, and their canonical forms where they differ.
var paths = [][2]string{
	{"main", ""},
	{"shop::cart::add", ""},
	{"::shop::cart::add", "shop::cart::add"},
	{"<shop::Cart>::add", "shop::Cart::add"},
	{"<alloc::vec::Vec<u32>>::push", "alloc::vec::Vec<u32>::push"},
	{"alloc::vec::Vec::<u32>::push", "alloc::vec::Vec<u32>::push"},
	{"alloc::vec::Vec<u32,alloc::alloc::Global>::push", "alloc::vec::Vec<u32, alloc::alloc::Global>::push"},
	{"<shop::Cart as core::fmt::Debug>::fmt", ""},
	{"shop::parse::<u32>", ""},
	{"shop::parse<u32>", "shop::parse::<u32>"},
	{"shop::parse::<u32>::{closure#0}", ""},
	{"shop::parse<&str, 3>::{closure#0}::{closure#1}", "shop::parse::<&str, 3>::{closure#0}::{closure#1}"},
	{"args::main::{{closure}}", ""},
	{"shop::{impl#3}::add", ""},
	{"shop::{impl#3}::add<u32>", "shop::{impl#3}::add::<u32>"},
	{"core::ptr::drop_in_place::<alloc::string::String>", ""},
	{"core::ops::function::FnOnce::call_once{{vtable.shim}}", "core::ops::function::FnOnce::call_once::{{vtable.shim}}"},
	{"<fn(u32) -> bool as core::ops::function::FnOnce<(u32,)>>::call_once::{shim:vtable#0}", ""},
	{"<F as core::ops::function::FnOnce<A>>::call_once", ""},
	{"<&mut W as core::fmt::Write>::write_str", ""},
	{"<&'a mut W as core::fmt::Write>::write_str", "<&mut W as core::fmt::Write>::write_str"},
	{"<*const T as core::fmt::Pointer>::fmt", ""},
	{"<[T] as core::fmt::Debug>::fmt", ""},
	{"<[T; 3] as core::fmt::Debug>::fmt", ""},
	{"<[T]>::len", ""},
	{"<str>::len", "str::len"},
	{"<! as core::fmt::Debug>::fmt", ""},
	{"<() as std::process::Termination>::report", ""},
	{"<(A, B) as core::fmt::Debug>::fmt", ""},
	{"<(A,) as core::fmt::Debug>::fmt", ""},
	{"<(A,B,) as core::fmt::Debug>::fmt", "<(A, B) as core::fmt::Debug>::fmt"},
	{"<dyn core::any::Any>::is::<u32>", ""},
	{"<dyn core::any::Any + core::marker::Send + 'static>::is::<u32>", "<dyn core::any::Any + core::marker::Send>::is::<u32>"},
	{"<Test + 'static as foo::Bar<Test>>::bar", "<Test as foo::Bar<Test>>::bar"},
	{"core::slice::<impl [T]>::iter", ""},
	{"core::str::<impl str>::trim", ""},
	{"<impl core::fmt::Debug for shop::Cart>::fmt", "<shop::Cart as core::fmt::Debug>::fmt"},
	{"core::slice::<impl core::iter::traits::IntoIterator for &'a [T]>::into_iter", "core::slice::<impl core::iter::traits::IntoIterator for &[T]>::into_iter"},
	{"<core::result::Result<!, E> as std::process::Termination>::report", ""},
	{"f::<dyn core::ops::function::Fn(u32) -> bool + Send>", "f::<dyn core::ops::function::Fn<(u32,), Output = bool> + Send>"},
	{"f::<impl Fn(A) -> B>", "f<impl Fn<(A,), Output = B>>"},
	{"<alloc::boxed::Box<dyn alloc::boxed::FnBox<A, Output=R> + 'a> as core::ops::function::FnOnce<A>>::call_once",
		"<alloc::boxed::Box<dyn alloc::boxed::FnBox<A, Output = R>> as core::ops::function::FnOnce<A>>::call_once"},
	{"f::<for<'a> fn(&'a u8) -> &'a u8>", "f::<fn(&u8) -> &u8>"},
	{`f::<unsafe extern "C" fn(i32, ...)>`, ""},
	{"f<fn(A) .> B>", "f::<fn(A) -> B>"},
	{"f::<fn() -> ()>", "f::<fn()>"},
	{"f::<&dyn A + B>", ""},
	{"f<&(dyn A + B)>", "f::<&dyn A + B>"},
	{"f::<dyn for<'a> Fn(&'a u8)>", "f::<dyn Fn<(&u8,)>>"},
	{"f::<&(A + B)>", ""},
	{"f::<'a>", "f"},
	{"core::slice::Iter<'_, u8>::next", "core::slice::Iter<u8>::next"},
	{"f::<'a'>", ""},
	{`f::<'\''>`, ""},
	{`f::<"a > b", '>', {*"}"}>`, ""},
	{"f::<-11, 0xff00ff00ff00ff00ff, true, _>", ""},
	{"f::<{core::option::Option::<usize>::Some(0)}>", ""},
	{`f::<{foo::Bar { s: "abc", ch: 'x', slice: &[1, 2, 3] }}>`, ""},
	{"f<{CONST#3a2b}>", "f::<{CONST#3a2b}>"},
	{"f::<u32 is 1..=9>", ""},
	{"f::<u32 is 1..=2 | 5..=6, u8>", ""},
	{"<shop::Cart as shop::Tr>::{vtable}", ""},
	{"<<A as B>::C as D>::e", ""},
	{"_::<impl serde::de::Deserialize for shop::Cart>::deserialize", ""},
	{"<T as core::convert::Into<U>>::into", ""},
	{"shop::r#type::r#fn", "shop::type::fn"},
	{"shop::add.cold", ""},
	{"shop::parse::<u32>.llvm.123.cold", ""},
	{"shop::main::{closure#0}.cold", ""},
	{"<shop::Cart as shop::Tr>::f.warm", ""},
	{"core[846817f741e54dfd]::fmt", ""},
	{"shop::f::{async_fn_env#0}<u8>", "shop::f::{async_fn_env#0}::<u8>"},
	{"utf8_idents::საჭმელად", ""},
	{"memcpy@@GLIBC_2.14", ""},
	{"<u8>::BITS", "u8::BITS"},
	{"f::<[[u8; 2]; {N + 1}]>", ""},
	{"f::<shop::main::{closure_env#0}<u8>>", ""},
	{"f::<shop::main::{{closure}}>", ""},
}

func TestParse(t *testing.T) {
	for _, c := range paths {
		want := c[1]
		if want == "" {
			want = c[0]
		}
		p, err := Parse(c[0])
		if err != nil {
			t.Error(err)
			continue
		}
		if p.String() != want {
			t.Errorf("%s\n got %s\nwant %s", c[0], p, want)
		}
		checkCanonical(t, c[0])
	}
}

// checkCanonical holds the text of a path against what it promises.
func checkCanonical(t *testing.T, text string) {
	p, err := Parse(text)
	if err != nil {
		return
	}
	s := p.String()
	q, err := Parse(s)
	if err != nil {
		t.Errorf("%q prints as %q: %v", text, s, err)
		return
	}
	if !reflect.DeepEqual(p, q) {
		t.Errorf("%q prints as %q, which is another path: %#v, %#v", text, s, p, q)
	}
	if again := q.String(); again != s {
		t.Errorf("%q prints as %q, and that as %q", text, s, again)
	}
	pat, err := ParsePattern(s)
	if err != nil {
		t.Errorf("%q prints as %q, no pattern: %v", text, s, err)
		return
	}
	if k := pat.Match(p); k != Exact {
		t.Errorf("%q prints as %q, which as a pattern matches it as %v", text, s, k)
	}
	if h := pat.Hint(); !strings.Contains(text, h) || !strings.Contains(s, h) {
		t.Errorf("%q, %q: without the hint %q", text, s, h)
	}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                             `"", character 1: nothing there`,
		"shop::":                       `"shop::", character 7: a name is missing at the end`,
		"shop:::add":                   `"shop:::add", character 7: a name is missing before ':'`,
		"shop::parse::<u32":            `"shop::parse::<u32", character 18: the text ends within generic arguments`,
		"<Cart as Debug::fmt":          `"<Cart as Debug::fmt", character 20: the text ends within <Self as Trait>`,
		"a b":                          `"a b", character 3: unexpected 'b' in the path`,
		"a::{closure#0":                `"a::{closure#0", character 4: '{' without '}'`,
		"f::<u8>::<u8>":                `"f::<u8>::<u8>", character 10: second list of generic arguments`,
		"სა:x":                         `"სა:x", character 3: unexpected ':' in the path`,
		"f(int)":                       `"f(int)", character 2: unexpected '(' in the path`,
		"std::operator<< <char>":       ``,
		"f::<&>":                       `"f::<&>", character 6: a name is missing before '>'`,
		"*":                            `"*", character 1: a name is missing before '*'`,
		strings.Repeat("<", 5000) + "": ``,
		"f::<" + strings.Repeat("&", 1<<20) + "u8>": ``,
		"f::<dyn " + strings.Repeat("(", 1<<20):     ``,
	} {
		_, err := Parse(text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("%.40q: %v", text, err)
		} else if want != "" && err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range paths {
		f.Add(c[0])
	}
	f.Fuzz(checkCanonical)
}
