package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator writes a Rust program that tells its own calls, as those of
// testdata/fixtures do: callers print, so that what they call stays as the compiler
// would have it. All that a program computes comes from one u64 named h.
type generator struct {
	r     *rand.Rand
	types []*rustType // structs and enums
	decls strings.Builder
	fns   strings.Builder // module f: what is traced
	calls strings.Builder // module c: who calls it
	n     int             // functions so far
	pure  map[string]bool // paths of functions without an effect of their own
	marks int
}

// rustType is a type with code that makes and uses its values. copies is set where a
// value can be copied; borrows where it refers to a temporary of its maker.
type rustType struct {
	name            string
	build, hash     func(at string) string // from the u64 at; a u64 from the place at
	copies, borrows bool
}

// generate returns the source of a program, and the functions in it of which the
// compiler may compute a call itself, or make one of several.
func generate(seed uint64, functions int) (source string, pure map[string]bool) {
	g := &generator{r: rand.New(rand.NewPCG(seed, 1)), pure: map[string]bool{}}
	for i := range 8 {
		g.declare(i)
	}
	var mains []string
	for range functions {
		mains = append(mains, g.function())
	}
	var b strings.Builder
	b.WriteString(prelude)
	fmt.Fprintf(&b, "pub mod f {\nuse super::*;\n%s%s}\npub mod c {\nuse super::*;\n%s}\nfn main() {\n    std::panic::set_hook(Box::new(|_| {}));\n", g.decls.String(), g.fns.String(), g.calls.String())
	for _, m := range mains {
		fmt.Fprintf(&b, "    c::%s();\n", m)
	}
	b.WriteString("}\n")
	return b.String(), g.pure
}

const prelude = `#![allow(warnings)]
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::panic::{catch_unwind, AssertUnwindSafe};
static TICKS: AtomicU32 = AtomicU32::new(0);
static mut SINK: u64 = 0;
#[inline(always)] pub fn opaque<T>(x: T) -> T { unsafe { let y = std::ptr::read_volatile(&x); std::mem::forget(x); y } }
#[inline(always)] pub fn tick(n: u32) { TICKS.fetch_add(n, Relaxed); }
#[inline(always)] pub fn mark(n: u64) { unsafe { std::ptr::write_volatile(std::ptr::addr_of_mut!(SINK), n) } }
#[inline(never)] pub fn touch<T: ?Sized>(x: &T) -> u8 { if std::mem::size_of_val(x) == 0 { return 0 } unsafe { std::ptr::read_volatile(x as *const T as *const u8) }; 1 }
#[inline(never)] pub fn far(a: u64, b: u64) -> u64 { mark(a); a.rotate_left(9).wrapping_mul(0x9e3779b97f4a7c15) ^ b }
#[inline(always)] pub fn near(s: &[u64]) -> u64 { s.iter().fold(7, |a, b| a.rotate_left(3) ^ b) }
`

func (g *generator) one(of int) bool { return g.r.IntN(of) == 0 }

func pick[T any](g *generator, of ...T) T { return of[g.r.IntN(len(of))] }

// mix is a u64 made of the u64 h, another each time.
func (g *generator) mix(h string) string {
	return fmt.Sprintf("(%s).wrapping_mul(0x%x).rotate_left(%d)", h, g.r.Uint64()|1, g.r.IntN(64))
}

func (g *generator) index(h string, n int) string {
	return fmt.Sprintf("((%s >> 32) %% %d)", g.mix(h), n)
}

func (g *generator) scalar() *rustType {
	name := pick(g, "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "usize", "isize", "u32", "u64", "u128", "i128", "bool", "bool", "char", "f32", "f64", "f64", "Ordering", "NonZero")
	t := &rustType{name: name, copies: true}
	t.build = func(h string) string { return fmt.Sprintf("(%s as %s)", g.mix(h), name) }
	t.hash = func(p string) string { return fmt.Sprintf("(%s as u64)", p) }
	switch name {
	case "u128", "i128":
		t.build = func(h string) string {
			return fmt.Sprintf("((%s as %s) << 64 | (%s as %s))", g.mix(h), name, g.mix(h), name)
		}
		if !g.one(3) {
			t.hash = func(p string) string { return fmt.Sprintf("(%s as u64 ^ (%s >> 64) as u64)", p, p) }
		}
	case "bool":
		t.build = func(h string) string { return fmt.Sprintf("(%s >> 63 == 1)", g.mix(h)) }
	case "char":
		t.build = func(h string) string {
			return fmt.Sprintf("['a', 'Z', '\\n', 'é', '🦀', '\\u{7f}'][%s as usize]", g.index(h, 6))
		}
	case "f32", "f64":
		t.build = func(h string) string { return fmt.Sprintf("((%s >> 50) as %s / 8.0)", g.mix(h), name) }
		t.hash = func(p string) string { return fmt.Sprintf("(%s.to_bits() as u64)", p) }
	case "Ordering":
		t.name = "std::cmp::Ordering"
		t.build = func(h string) string {
			return fmt.Sprintf("[std::cmp::Ordering::Less, std::cmp::Ordering::Equal, std::cmp::Ordering::Greater][%s as usize]", g.index(h, 3))
		}
	case "NonZero":
		t.name = "std::num::NonZeroU" + pick(g, "8", "32", "64")
		t.build = func(h string) string {
			return fmt.Sprintf("%s::new((%s as u%s) | 1).unwrap()", t.name, g.mix(h), strings.TrimPrefix(t.name, "std::num::NonZeroU"))
		}
		t.hash = func(p string) string { return fmt.Sprintf("(%s.get() as u64)", p) }
	}
	return t
}

func combine(parts []string) string {
	if len(parts) == 0 {
		return "0x5au64"
	}
	return "(" + strings.Join(parts, " ^ ") + ")"
}

// some drops some: not all parts of a value are used.
func (g *generator) some(parts []string) []string {
	var kept []string
	for _, p := range parts {
		if !g.one(3) {
			kept = append(kept, p)
		}
	}
	return kept
}

func all(ts []*rustType, is func(*rustType) bool) bool {
	for _, t := range ts {
		if !is(t) {
			return false
		}
	}
	return true
}

func isCopy(t *rustType) bool  { return t.copies }
func isOwned(t *rustType) bool { return !t.borrows }

// owned is a type without borrows.
func (g *generator) owned(depth int) *rustType {
	if depth <= 0 || g.one(3) {
		return g.scalar()
	}
	switch k := g.r.IntN(14); {
	case k < 3:
		return g.tuple(depth)
	case k < 5:
		return g.array(depth)
	case k < 7:
		return g.option(depth)
	case k == 7:
		return g.result(depth)
	case k == 8:
		return g.holder("Box", depth)
	case k == 9:
		return g.holder("Vec", depth)
	case k == 10:
		return g.text(pick(g, "String", "&'static str"))
	case k == 11 && g.one(2):
		return &rustType{name: "()", copies: true, build: func(string) string { return "()" }, hash: func(string) string { return "1u64" }}
	}
	if len(g.types) == 0 {
		return g.scalar()
	}
	return pick(g, g.types...)
}

func (g *generator) tuple(depth int) *rustType {
	var ts []*rustType
	var names []string
	for range 1 + g.r.IntN(4) {
		t := g.owned(depth - 1)
		ts, names = append(ts, t), append(names, t.name)
	}
	return &rustType{name: "(" + strings.Join(names, ", ") + ",)", copies: all(ts, isCopy),
		build: func(h string) string {
			var parts []string
			for _, t := range ts {
				parts = append(parts, t.build(h))
			}
			return "(" + strings.Join(parts, ", ") + ",)"
		},
		hash: func(p string) string {
			var parts []string
			for i, t := range ts {
				parts = append(parts, t.hash(fmt.Sprintf("%s.%d", p, i)))
			}
			return combine(g.some(parts))
		}}
}

func (g *generator) array(depth int) *rustType {
	t, n := g.owned(min(depth-1, 1)), pick(g, 1, 2, 3, 3, 5, 6, 7, 9, 17)
	return &rustType{name: fmt.Sprintf("[%s; %d]", t.name, n), copies: t.copies,
		build: func(h string) string {
			var parts []string
			for range n {
				parts = append(parts, t.build(h))
			}
			return "[" + strings.Join(parts, ", ") + "]"
		},
		hash: func(p string) string {
			if g.one(2) {
				return fmt.Sprintf("{ let mut s = 3u64; for x in %s.iter() { s = s.rotate_left(5) ^ %s; } s }", p, t.hash("(*x)"))
			}
			return t.hash(fmt.Sprintf("%s[%d]", p, g.r.IntN(n)))
		}}
}

func (g *generator) option(depth int) *rustType {
	t := g.owned(depth - 1)
	return &rustType{name: "Option<" + t.name + ">", copies: t.copies,
		build: func(h string) string {
			return fmt.Sprintf("(if %s == 0 { None::<%s> } else { Some(%s) })", g.index(h, 3), t.name, t.build(h))
		},
		hash: func(p string) string {
			return fmt.Sprintf("(match &%s { Some(x) => %s, None => 5u64 })", p, t.hash("(*x)"))
		}}
}

func (g *generator) result(depth int) *rustType {
	t, e := g.owned(depth-1), g.owned(depth-1)
	return &rustType{name: "Result<" + t.name + ", " + e.name + ">", copies: t.copies && e.copies,
		build: func(h string) string {
			return fmt.Sprintf("(if %s == 0 { Err::<%s, %s>(%s) } else { Ok(%s) })", g.index(h, 2), t.name, e.name, e.build(h), t.build(h))
		},
		hash: func(p string) string {
			return fmt.Sprintf("(match &%s { Ok(x) => %s, Err(y) => %s })", p, t.hash("(*x)"), e.hash("(*y)"))
		}}
}

func (g *generator) holder(kind string, depth int) *rustType {
	t := g.owned(depth - 1)
	u := &rustType{name: kind + "<" + t.name + ">"}
	if kind == "Box" {
		u.build = func(h string) string { return "Box::new(" + t.build(h) + ")" }
		u.hash = func(p string) string { return t.hash("(*" + p + ")") }
		return u
	}
	n := g.r.IntN(4)
	u.build = func(h string) string {
		var parts []string
		for range n {
			parts = append(parts, t.build(h))
		}
		return "Vec::<" + t.name + ">::from([" + strings.Join(parts, ", ") + "])"
	}
	u.hash = func(p string) string { return g.items(p, t) }
	return u
}

// items is a u64 from the elements of what is at p.
func (g *generator) items(p string, t *rustType) string {
	if g.one(2) {
		return fmt.Sprintf("(%s.len() as u64)", p)
	}
	return fmt.Sprintf("{ let mut s = 3u64; for x in %s.iter() { s = s.rotate_left(5) ^ %s; } s }", p, t.hash("(*x)"))
}

func (g *generator) text(name string) *rustType {
	return &rustType{name: name, copies: name != "String",
		build: func(h string) string {
			s := fmt.Sprintf(`["", "a", "hello", "wörld", "some more of it"][%s as usize]`, g.index(h, 5))
			if name == "String" {
				s = "String::from(" + s + ")"
			}
			return s
		},
		hash: func(p string) string {
			return pick(g, fmt.Sprintf("(%s.len() as u64)", p), fmt.Sprintf("(%s.bytes().next().unwrap_or(3) as u64)", p))
		}}
}

// argument is a type of an argument: an owned one, or one that borrows.
func (g *generator) argument() *rustType {
	if !g.one(4) {
		return g.owned(2)
	}
	t := g.owned(1)
	if g.one(2) {
		u := &rustType{name: "&" + t.name, borrows: true, copies: true, build: func(h string) string { return "&" + t.build(h) }}
		u.hash = func(p string) string { return t.hash("(*" + p + ")") }
		if g.one(3) {
			u.name, u.copies = "&mut "+t.name, false
			u.build = func(h string) string { return "&mut " + t.build(h) }
		}
		return u
	}
	n := 1 + g.r.IntN(4)
	return &rustType{name: "&[" + t.name + "]", borrows: true, copies: true,
		build: func(h string) string {
			var parts []string
			for range n {
				parts = append(parts, t.build(h))
			}
			return fmt.Sprintf("&[%s][..%s as usize]", strings.Join(parts, ", "), g.index(h, n+1))
		},
		hash: func(p string) string { return g.items(p, t) }}
}

// declare adds a struct or an enum.
func (g *generator) declare(i int) {
	name := fmt.Sprintf("T%d", i)
	var ts []*rustType
	for range 1 + g.r.IntN(4) {
		ts = append(ts, g.owned(2))
	}
	t := &rustType{name: "f::" + name, copies: all(ts, isCopy)}
	derive := "#[derive(Debug)]"
	if t.copies {
		derive = "#[derive(Debug, Clone, Copy)]"
	}
	if g.one(2) {
		g.structOf(t, name, derive, ts)
	} else {
		g.enumOf(t, name, derive, ts)
	}
	g.types = append(g.types, t)
}

func (g *generator) structOf(t *rustType, name, derive string, ts []*rustType) {
	fmt.Fprintf(&g.decls, "%s %s pub struct %s {", derive, pick(g, "", "", "#[repr(C)]"), name)
	for i, u := range ts {
		fmt.Fprintf(&g.decls, " pub x%d: %s,", i, u.name)
	}
	g.decls.WriteString(" }\n")
	t.build = func(h string) string {
		var parts []string
		for i, u := range ts {
			parts = append(parts, fmt.Sprintf("x%d: %s", i, u.build(h)))
		}
		return "(" + t.name + " { " + strings.Join(parts, ", ") + " })"
	}
	t.hash = func(p string) string {
		var parts []string
		for i, u := range ts {
			parts = append(parts, u.hash(fmt.Sprintf("%s.x%d", p, i)))
		}
		return combine(g.some(parts))
	}
}

// enumOf has a variant with each of ts, and some without.
func (g *generator) enumOf(t *rustType, name, derive string, ts []*rustType) {
	bare := g.r.IntN(3)
	if g.one(5) {
		ts, bare, t.copies = nil, bare+1, true
		derive = "#[derive(Debug, Clone, Copy)]"
	}
	fmt.Fprintf(&g.decls, "%s %s pub enum %s {", derive, pick(g, "", "", "#[repr(u8)]", "#[repr(i16)]"), name)
	for i, u := range ts {
		fmt.Fprintf(&g.decls, " V%d(%s),", i, u.name)
	}
	for i := range bare {
		fmt.Fprintf(&g.decls, " B%d,", i)
	}
	g.decls.WriteString(" }\n")
	t.build = func(h string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "(match %s {", g.index(h, len(ts)+bare))
		for i, u := range ts {
			fmt.Fprintf(&b, " %d => %s::V%d(%s),", i, t.name, i, u.build(h))
		}
		for i := range bare {
			fmt.Fprintf(&b, " %d => %s::B%d,", len(ts)+i, t.name, i)
		}
		b.WriteString(" _ => unreachable!() })")
		return b.String()
	}
	t.hash = func(p string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "(match &%s {", p)
		for i, u := range ts {
			fmt.Fprintf(&b, " %s::V%d(x) => %s,", t.name, i, u.hash("(*x)"))
		}
		for i := range bare {
			fmt.Fprintf(&b, " %s::B%d => %du64,", t.name, i, g.r.IntN(100))
		}
		b.WriteString(" })")
		return b.String()
	}
}
