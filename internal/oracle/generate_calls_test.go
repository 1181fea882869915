package oracle

import (
	"fmt"
	"strings"
)

type rustParam struct {
	name    string
	typ     *rustType
	mutable bool
}

// rustFn is a function to trace, and how its callers spell it.
type rustFn struct {
	path, call string
	params     []rustParam
	result     *rustType // nil for ()
	panics     bool
	effect     bool   // it has a visible effect, so that no call of it is computed at compile time
	closure    string // its let statement, in the caller
}

// function adds a function and a caller of it, and returns the caller's name.
func (g *generator) function() string {
	g.n++
	fn := rustFn{path: fmt.Sprintf("random::f::f%d", g.n), call: fmt.Sprintf("f::f%d", g.n)}
	for i := range g.r.IntN(5) + g.r.IntN(2)*g.r.IntN(8) {
		p := rustParam{fmt.Sprintf("p%d", i), g.argument(), false}
		p.mutable = !p.typ.borrows && g.one(4)
		fn.params = append(fn.params, p)
	}
	if !g.one(6) {
		fn.result = g.owned(2)
		if g.one(6) && len(fn.params) > 0 && !fn.params[0].typ.borrows {
			fn.result = fn.params[0].typ
		}
	}
	fn.panics = g.one(8)
	inline := pick(g, "", "", "#[inline]", "#[inline(always)]", "#[inline(never)]", "#[inline(never)]")
	caller := fmt.Sprintf("c%d", g.n)
	switch k := g.r.IntN(8); {
	case k == 0: // a closure
		fn.path = fmt.Sprintf("random::c::%s::{closure#0}", caller)
		fn.call = "k"
		fn.panics = false
		var ps []string
		for i, p := range fn.params {
			// The type of a closure's reference must be free to live as long as a call.
			ps = append(ps, fmt.Sprintf("%sp%d: %s", mutWord(p), i, p.typ.name))
		}
		fn.closure = fmt.Sprintf("let k = |%s| -> %s { %s };", strings.Join(ps, ", "), resultName(fn), g.body(&fn))
	case k == 1 && len(g.types) > 0: // a method
		t := pick(g, g.types...)
		how := pick(g, "self", "&self", "&mut self", "mut self")
		self := rustParam{"self", t, how == "mut self"}
		if strings.HasPrefix(how, "&") {
			ref := strings.TrimSuffix(how, "self")
			self.typ = &rustType{name: ref + t.name, borrows: true, build: func(h string) string { return ref + t.build(h) }, hash: func(p string) string { return t.hash("(*" + p + ")") }}
		}
		if fn.result != nil && len(fn.params) > 0 && fn.result == fn.params[0].typ {
			fn.result = t
		}
		fn.params = append([]rustParam{self}, fn.params...)
		short := strings.TrimPrefix(t.name, "f::")
		trait, of := fmt.Sprintf("impl %s {", t.name), fmt.Sprintf("random::f::%s", short)
		vis := "pub "
		fn.call = fmt.Sprintf("%s::f%d", t.name, g.n)
		if g.one(2) {
			fmt.Fprintf(&g.fns, "pub trait R%d { fn f%d(%s%s) -> %s; }\n", g.n, g.n, strings.TrimPrefix(how, "mut "), list(fn.params[1:], false), resultName(fn))
			trait, of, vis = fmt.Sprintf("impl R%d for %s {", g.n, t.name), fmt.Sprintf("<random::f::%s as random::f::R%d>", short, g.n), ""
			fn.call = fmt.Sprintf("<%s as f::R%d>::f%d", t.name, g.n, g.n)
		}
		fn.path = fmt.Sprintf("%s::f%d", of, g.n)
		fmt.Fprintf(&g.fns, "%s %s %sfn f%d(%s%s) -> %s { %s } }\n", trait, inline, vis, g.n, how, list(fn.params[1:], true), resultName(fn), g.body(&fn))
	case k == 2: // a generic
		fmt.Fprintf(&g.fns, "%s pub fn f%d<G: Copy + Into<u64>>(g: G%s) -> %s { let g0: u64 = g.into(); %s }\n", inline, g.n, list(fn.params, true), resultName(fn), g.body(&fn))
		name := pick(g, "u8", "u16", "u32", "u64")
		fn.params = append([]rustParam{{"g", &rustType{name: name, build: func(h string) string { return fmt.Sprintf("(%s as %s)", g.mix(h), name) }}, false}}, fn.params...)
	case k == 3 && !fn.panics && all(typesOf(fn), isOwned): // recursion that tells of itself
		fmt.Fprintf(&g.fns, "%s pub fn f%d(n: u8%s) -> %s { if n > 0 { let h = n as u64 * 77; %s } %s }\n", inline, g.n, list(fn.params, true), resultName(fn),
			g.told(rustFn{path: fn.path, call: fmt.Sprintf("f%d", g.n), result: fn.result,
				params: append([]rustParam{{"n", &rustType{build: func(string) string { return "(n - 1)" }}, false}}, fn.params...)}, "h"), g.body(&fn))
		fn.params = append([]rustParam{{"n", &rustType{name: "u8", build: func(h string) string { return fmt.Sprintf("(%s as u8)", g.index(h, 4)) }}, false}}, fn.params...)
	default:
		fmt.Fprintf(&g.fns, "%s pub fn f%d(%s) -> %s { %s }\n", inline, g.n, strings.TrimPrefix(list(fn.params, true), ", "), resultName(fn), g.body(&fn))
	}
	g.pure[fn.path] = !fn.effect
	g.caller(caller, fn)
	return caller
}

func typesOf(fn rustFn) (ts []*rustType) {
	for _, p := range fn.params {
		ts = append(ts, p.typ)
	}
	return ts
}

func mutWord(p rustParam) string {
	if p.mutable {
		return "mut "
	}
	return ""
}

func resultName(fn rustFn) string {
	if fn.result == nil {
		return "()"
	}
	return fn.result.name
}

func list(ps []rustParam, patterns bool) string {
	var b strings.Builder
	for _, p := range ps {
		b.WriteString(", ")
		if patterns {
			b.WriteString(mutWord(p))
		}
		fmt.Fprintf(&b, "%s: %s", p.name, p.typ.name)
	}
	return b.String()
}

// effect is a statement that keeps calls from being removed or merged.
func (g *generator) effect() string {
	g.marks++
	return fmt.Sprintf("%s(%d);", pick(g, "tick", "mark", "mark"), 1000+g.marks)
}

func (g *generator) body(fn *rustFn) string {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	effects := g.r.IntN(4) // which of the places below has the effect; 3 has none if there is a result
	fn.effect = fn.panics || effects == 0 || effects == 3 && fn.result == nil
	add("let mut h = %du64;", g.r.IntN(1000))
	if effects == 0 || effects == 3 && fn.result == nil {
		add("%s", g.effect())
	}
	if fn.panics {
		add("%s", g.effect())
	}
	finish := func() string {
		if fn.result == nil {
			return "()"
		}
		return fn.result.build("h")
	}
	for range g.r.IntN(6) {
		if len(fn.params) == 0 {
			break
		}
		p := pick(g, fn.params...)
		switch k := g.r.IntN(13); {
		case k < 5:
			add("h = h.rotate_left(%d) ^ %s;", g.r.IntN(64), p.typ.hash(p.name))
		case k == 5:
			add("if %s == 0 { return %s; }", g.index("h", 3), finish())
		case k == 6:
			add("for i in 0..(%s & 7) { h = h.wrapping_mul(i ^ 0x%x).wrapping_add(i); }", p.typ.hash(p.name), g.r.Uint64())
		case k == 7 && p.mutable:
			// Debug info has nothing of a value that is overwritten by a constant at once.
			add("h = far(h, 1); %s = %s;", p.name, p.typ.build("h"))
		case k == 7 && strings.HasPrefix(p.typ.name, "&mut ") && p.name != "self":
			add("h ^= touch(&*%s) as u64;", p.name)
		case k <= 8:
			add("h ^= touch(&%s) as u64;", p.name)
		case k == 9:
			t := g.owned(2)
			add("{ let b: %s = %s; h ^= touch(&b) as u64; }", t.name, t.build("h"))
		case k == 10:
			add("h = far(h, %s);", p.typ.hash(p.name))
		case k == 11:
			add("{ let mut b = [h, 1, h >> 3, %s]; h ^= near(&b[..(h %% 4) as usize]); b[1] = h; h ^= touch(&b) as u64; }", p.typ.hash(p.name))
		case k == 12:
			add("let mut v = Vec::new(); for i in 0..(%s & 3) { v.push(i ^ h); } h ^= near(&v);", p.typ.hash(p.name))
		}
		if effects == 1 && g.one(3) {
			add("%s", g.effect())
			effects = 4
		}
	}
	if effects == 1 {
		add("%s", g.effect())
	}
	if fn.panics {
		add("if %s == 0 { panic!(); }", g.index("h", 3))
	}
	if effects == 2 {
		add("%s", g.effect())
	}
	switch {
	case fn.result == nil:
	case len(fn.params) > 0 && fn.result == fn.params[0].typ && g.one(2):
		return strings.Join(append(s, fn.params[0].name), " ")
	case fn.result.name == "u64" && g.one(2):
		return strings.Join(append(s, "far(h, 3)"), " ") // a tail call
	default:
		return strings.Join(append(s, fn.result.build("h")), " ")
	}
	return strings.Join(s, " ")
}

// told is code that makes one call with arguments from h and tells of it, once it has
// bound them to names.
func (g *generator) told(fn rustFn, h string) string {
	var values, names []string
	tell := fn.path
	for i, p := range fn.params {
		v := p.typ.build(h)
		if !p.typ.borrows && g.one(3) {
			v = "opaque(" + v + ")"
		}
		values, names = append(values, v), append(names, fmt.Sprintf("a%d", i))
		tell += "|" + p.name + "={:?}"
	}
	refs := ""
	for _, n := range names {
		refs += ", &" + n
	}
	call := fmt.Sprintf("%s(%s)", fn.call, strings.Join(names, ", "))
	if fn.panics {
		call = fmt.Sprintf("match catch_unwind(AssertUnwindSafe(|| %s)) { Ok(r) => println!(\"RET %s|{:?}\", r), Err(_) => println!(\"END %s|unwind\") }", call, esc(fn.path), esc(fn.path))
	} else {
		call = fmt.Sprintf("let r = %s; println!(\"RET %s|{:?}\", r);", call, esc(fn.path))
	}
	tuple := func(parts []string) string {
		if len(parts) == 0 {
			return "()"
		}
		return "(" + strings.Join(parts, ", ") + ",)"
	}
	return fmt.Sprintf("match %s { %s => { println!(\"CALL %s\"%s); %s } }", tuple(values), tuple(names), strings.ReplaceAll(esc(tell), "{{:?}}", "{:?}"), refs, call)
}

func esc(path string) string {
	return strings.NewReplacer("{", "{{", "}", "}}").Replace(path)
}

// untold is code that makes n calls in a loop, and tells of them only after it.
func (g *generator) untold(fn rustFn) string {
	var values, forms []string
	refs := ""
	for _, p := range fn.params {
		v := p.typ.build("h")
		values = append(values, v)
		forms = append(forms, "|"+p.name+"={:?}")
		refs += ", " + v
	}
	call := fmt.Sprintf("%s(%s)", fn.call, strings.Join(values, ", "))
	head := fmt.Sprintf("println!(\"CALL %s\"%s);", esc(fn.path)+strings.Join(forms, ""), refs)
	if g.one(3) {
		return fmt.Sprintf("for i in 0..n { let h = i ^ s; %s; } for i in 0..n { let h = i ^ s; %s println!(\"RET %s\"); }", call, head, esc(fn.path))
	}
	return fmt.Sprintf("let mut rs = Vec::new(); for i in 0..n { let h = i ^ s; rs.push(%s); } for (i, r) in rs.iter().enumerate() { let h = i as u64 ^ s; %s println!(\"RET %s|{:?}\", r); }", call, head, esc(fn.path))
}

func (g *generator) caller(name string, fn rustFn) {
	var s []string
	add := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	for range 1 + g.r.IntN(2) {
		add("let n = opaque(%du64); let s = opaque(0x%xu64);", 1+g.r.IntN(12), g.r.Uint32())
		switch k := g.r.IntN(5); {
		case k < 2:
			add("for i in 0..n { let h = i ^ s; %s }", g.told(fn, "h"))
		case k == 2 || fn.panics || strings.Contains(fn.call, "::f") && fn.params != nil && fn.params[0].name == "n":
			if fn.effect {
				add("%s", g.told(fn, fmt.Sprintf("%du64", g.r.IntN(1000))))
			}
			add("%s", g.told(fn, "s"))
		default:
			add("%s", g.untold(fn))
		}
	}
	fmt.Fprintf(&g.calls, "#[inline(never)] pub fn %s() { %s\n%s }\n", name, fn.closure, strings.Join(s, "\n"))
}
