package path

import (
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          MatchKind
	}{
		{"args::hello", "args::hello", Exact},
		{"args::hello", "x::args::hello", Suffix},
		{"args::hello", "x::bargs::hello", NoMatch},
		{"args::hello", "args::hello::{closure#0}", NoMatch},
		{"hello", "args::hello", Suffix},
		{"hello", "hello", Exact},
		{"hello", "args::shello", NoMatch},
		{"hello", "args::hello::<u32>", Suffix},

		// Generics.
		{"shop::parse", "shop::parse::<u32>", Exact},
		{"shop::parse::<u32>", "shop::parse::<u32>", Exact},
		{"shop::parse<u32>", "shop::parse::<u32>", Exact},
		{"shop::parse::<u32>", "shop::parse::<u64>", NoMatch},
		{"shop::parse::<u32>", "shop::parse::<u32, u64>", NoMatch},
		{"shop::parse::<u32>", "shop::parse", NoMatch}, // a legacy symbol does not say
		{"shop::parse::<String>", "shop::parse::<alloc::string::String>", Exact},
		{"shop::parse::<string::String>", "shop::parse::<alloc::string::String>", Exact},
		{"shop::parse::<ring::String>", "shop::parse::<alloc::string::String>", NoMatch},
		{"shop::parse::<std::string::String>", "shop::parse::<alloc::string::String>", Exact},
		{"shop::parse::<Vec<String>>", "shop::parse::<alloc::vec::Vec<alloc::string::String, alloc::alloc::Global>>", Exact},
		{"shop::parse::<Vec>", "shop::parse::<alloc::vec::Vec<u8>>", Exact},
		{"shop::parse::<Vec<String, Global>>", "shop::parse::<alloc::vec::Vec<alloc::string::String>>", Exact},
		{"shop::parse::<&str>", "shop::parse::<&'a str>", Exact},
		{"shop::parse::<&str>", "shop::parse::<&mut str>", NoMatch},
		{"shop::parse::<_>", "shop::parse::<[u8; 3]>", Exact},
		{"shop::parse::<[u8; 3]>", "shop::parse::<[u8; 4]>", NoMatch},
		{"f::<(A, B)>", "f::<(x::A, y::B)>", Exact},
		{"f::<(A, B)>", "f::<(x::A, y::B, C)>", NoMatch},
		{"f::<dyn Send + Fn(u32) -> bool>", "f::<dyn core::ops::function::Fn<(u32,), Output = bool> + core::marker::Send>", Exact},
		{"f::<fn(String) -> u8>", "f::<fn(alloc::string::String) -> u8>", Exact},
		{"f::<*const u8>", "f::<*mut u8>", NoMatch},
		{"f::<'a'>", "f::<'b'>", NoMatch},
		{"Vec::push", "alloc::vec::Vec<u32>::push", Suffix},
		{"Vec<u32>::push", "<alloc::vec::Vec<u32>>::push", Suffix},
		{"Vec::<u32>::push", "<alloc::vec::Vec<u32, alloc::alloc::Global>>::push", Suffix},
		{"Vec<u32>::push", "<alloc::vec::Vec<u64>>::push", NoMatch},
		{"std::vec::Vec::push", "alloc::vec::Vec<u32>::push", Exact},
		{"HashMap<String, u8>::insert", "std::collections::hash::map::HashMap<alloc::string::String, u8, std::hash::random::RandomState>::insert", Suffix},

		// Parts of functions.
		{"shop::add", "shop::add.cold", NoMatch},
		{"**", "shop::add.cold", NoMatch},
		{"shop::add.cold", "shop::add.cold", Exact},
		{"add.*", "shop::add::<u8>.llvm.1.cold", Suffix},

		// Wildcards.
		{"shop::*", "shop::add", Exact},
		{"shop::*", "shop::cart::add", NoMatch},
		{"shop::*", "shop::parse::<u8>", Exact},
		{"shop::**", "shop::cart::add", Exact},
		{"shop::**", "shop::add", Exact},
		{"shop::**", "shop", NoMatch},
		{"shop::**", "x::shop::add", Suffix},
		{"shop::**::add", "shop::add", Exact},
		{"shop::**::add", "shop::a::b::add", Exact},
		{"**::add", "shop::a::add", Exact},
		{"**", "shop::a::add", Exact},
		{"*", "shop::a::add", Suffix},
		{"shop::parse_*", "shop::parse_int", Exact},
		{"shop::parse_*", "shop::parse_", Exact},
		{"shop::parse_*", "shop::parse::x", NoMatch},
		{"shop::*_*t::x", "shop::parse_int::x", Exact},
		{"a*b*c", "x::aXbYbc", Suffix},
		{"a*b*c", "x::aXbYb", NoMatch},

		// Closures and shims are segments.
		{"main", "args::main::{closure#0}", NoMatch},
		{"main::*", "args::main::{closure#0}", Suffix},
		{"args::main::**", "args::main::{closure#0}::{closure#1}", Exact},
		{"args::main::{closure#0}", "args::main::{closure#0}", Exact},
		{"args::main::{closure#0}", "args::main::{closure#1}", NoMatch},
		{"args::main::{{closure}}", "args::main::{closure#1}", Exact},
		{"args::main::{closure#1}", "args::main::{{closure}}", Exact},
		{"args::main::{{closure}}", "args::main::{{closure}}", Exact},
		{"{{closure}}", "args::main::{shim:vtable#0}", NoMatch},
		{"call_once::{shim:vtable#0}", "core::ops::function::FnOnce::call_once{{vtable.shim}}", Suffix},
		{"shop::{impl#3}::add", "shop::{impl#3}::add", Exact},
		{"shop::{impl#3}::add", "shop::{impl#4}::add", NoMatch},

		// Inherent methods.
		{"shop::Cart::add", "<shop::Cart>::add", Exact},
		{"<shop::Cart>::add", "shop::Cart::add", Exact},
		{"Cart::add", "<shop::Cart>::add", Suffix},
		{"<[T]>::len", "core::slice::<impl [T]>::len", Exact},
		{"<[u8]>::len", "<[u8]>::len", Exact},
		{"core::slice::**", "core::slice::<impl [T]>::len", Exact},
		{"str::trim", "core::str::<impl str>::trim", Exact},

		// Methods of traits.
		{"<shop::Cart as core::fmt::Debug>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Exact},
		{"<Cart as Debug>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"<Cart as Display>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", NoMatch},
		{"<Basket as Debug>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", NoMatch},
		{"<Cart as Debug>::fmt", "<shop::Cart<u8> as core::fmt::Debug>::fmt", Suffix},
		{"<Cart<u16> as Debug>::fmt", "<shop::Cart<u8> as core::fmt::Debug>::fmt", NoMatch},
		{"<Cart as From>::from", "<shop::Cart as core::convert::From<u8>>::from", Suffix},
		{"<Cart as From<u16>>::from", "<shop::Cart as core::convert::From<u8>>::from", NoMatch},
		{"<_ as Debug>::fmt", "<[u8] as core::fmt::Debug>::fmt", Suffix},
		{"<_ as Debug>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"<* as core::fmt::Debug>::fmt", "<(A, B) as core::fmt::Debug>::fmt", Exact},
		{"shop::Cart::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Exact},
		{"Cart::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"Debug::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"core::fmt::Debug::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Exact},
		{"std::fmt::Debug::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Exact},
		{"<Cart as std::fmt::Debug>::fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"shop::**", "<shop::Cart as core::fmt::Debug>::fmt", Exact},
		{"fmt", "<shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"fmt::*", "<shop::Cart as core::fmt::Debug>::fmt::{closure#0}", Suffix},
		{"<Cart as Debug>::fmt::{closure#0}", "<shop::Cart as core::fmt::Debug>::fmt::{closure#0}", Suffix},
		{"<Cart as Debug>::fmt", "shop::imp::<impl core::fmt::Debug for shop::Cart>::fmt", Suffix},
		{"<shop::Cart as core::fmt::Debug>::fmt", "shop::imp::<impl core::fmt::Debug for shop::Cart>::fmt", Exact},
		{"shop::Cart::fmt", "shop::imp::<impl core::fmt::Debug for shop::Cart>::fmt", Exact},
		{"<&Cart as Debug>::fmt", "<&shop::Cart as core::fmt::Debug>::fmt", Suffix},
		{"<A as B>::C::e", "<<A as B>::C as D>::e", Exact},
		{"<[T] as Debug>::fmt", "<[T] as core::fmt::Debug>::fmt", Suffix},
		{"<[T]>::fmt", "<[T] as core::fmt::Debug>::fmt", Exact},

		// Regular expressions.
		{"/^shop::.*add$/", "<shop::Cart>::add", Exact},
		{"/^shop::.*add$/", "shop::Cart::add::{closure#0}", NoMatch},
		{"/parse::<u(8|32)>/", "shop::parse<u32>", Exact},
	} {
		pat, err := ParsePattern(c.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		path, err := Parse(c.path)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := pat.Match(path); got != c.want {
			t.Errorf("%s on %s: %v, want %v", c.pattern, c.path, got, c.want)
		}
		if got := pat.MatchName(c.path); got != c.want {
			t.Errorf("%s on the name %s (hint %q): %v, want %v", c.pattern, c.path, pat.Hint(), got, c.want)
		}
	}
}

func TestParsePattern(t *testing.T) {
	for _, c := range []struct {
		text string
		want Pattern
	}{
		{"src/cart.rs:42", Pattern{Kind: KindLine, File: "src/cart.rs", Line: 42}},
		{"/abs/src/cart.rs:42", Pattern{Kind: KindLine, File: "/abs/src/cart.rs", Line: 42}},
		{"cart.rs:1", Pattern{Kind: KindLine, File: "cart.rs", Line: 1}},
		{"shop::add(id: u64, name: &str) -> bool", Pattern{Kind: KindSignature}},
		{"shop::parse::<u32>(s: &str)", Pattern{Kind: KindSignature}},
		{"add()", Pattern{Kind: KindSignature}},
		{"/fo+/", Pattern{Kind: KindRegexp}},
		{"  shop::add ", Pattern{Kind: KindPath}},
		{"f::<fn(u8) -> u8>", Pattern{Kind: KindPath}},
	} {
		got, err := ParsePattern(c.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if got.Kind != c.want.Kind || got.File != c.want.File || got.Line != c.want.Line {
			t.Errorf("%s: %+v", c.text, got)
		}
	}
	for text, want := range map[string]string{
		"":                `"", character 1: nothing there`,
		"//":              `"//", character 2: the regular expression is empty`,
		"/a(/":            "\"/a(/\", character 2: error parsing regexp: missing closing ): `a(`",
		"/a":              `"/a", character 3: a regular expression ends in '/', a place in a file in ':' and a line`,
		"src/cart.rs":     `"src/cart.rs", character 4: unexpected '/': a place in a file is FILE:LINE, a regular expression stands between two '/'`,
		"src/cart.rs:0":   `"src/cart.rs:0", character 13: no such line: they count from 1`,
		"add(id: u64":     `"add(id: u64", character 4: '(' without ')'`,
		"shop::add, main": `"shop::add, main", character 10: unexpected ',' in the pattern`,
		"shop add":        `"shop add", character 6: unexpected 'a' in the pattern`,
		"shop::":          `"shop::", character 7: a name is missing at the end`,
		"f::<u8":          `"f::<u8", character 7: the text ends within generic arguments`,
	} {
		if _, err := ParsePattern(text); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	for text, want := range map[string]bool{"hello": true, "parse_*": true, "a::b": false, "**": false, "/x/": false, "f::<u8>": true} {
		if p, err := ParsePattern(text); err != nil || p.Single() != want {
			t.Errorf("%s: single is %v, %v", text, p.Single(), err)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("shop::*::parse_*::<u32>", "shop::cart::parse_x::<u32>")
	f.Add("<_ as Debug>::**", "a::<impl core::fmt::Debug for x::Y>::fmt::{{closure}}")
	f.Add("/x+/", "xx")
	f.Add("std::**::{closure#0}", "core::f::{{closure}}")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		pat, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		path, err := Parse(name)
		if err != nil {
			return
		}
		if m, n := pat.Match(path), pat.MatchName(name); m != n {
			t.Errorf("%q with hint %q: %v on the path, %v on the name %q", pattern, pat.Hint(), m, n, name)
		}
	})
}
