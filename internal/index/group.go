package index

import (
	"fmt"

	"ferrotrace/internal/dwarf"
)

// grouping makes functions of subprograms and symbols. Their names, which cost the most,
// are left to be made when they are asked for.
type grouping struct {
	ix *Index
	// Functions by symbol, or by path and line; and by where the symbol stands, for most
	// strings stand in a file once.
	byKey map[string]int32
	byStr map[dwarf.Str]int32
	code  map[uint64]int32 // the function whose code out of line is at an address
	of    []placed
	// merged are what the functions' lists are made of.
	merged []merged
}

// placed is a subprogram with code, and its function; -1 if another has the code.
type placed struct{ sub, fn int32 }

type merged struct {
	fn int32
	merging
}

// group makes the functions. Units repeat the abstract entries of functions that were
// inlined across them: those of one symbol are one function.
func (ix *Index) group() {
	n := len(ix.subs.all) / 4 // as many as there often are
	g := grouping{ix: ix, byKey: make(map[string]int32, n), byStr: make(map[dwarf.Str]int32, n), code: map[uint64]int32{}}
	ix.functions = make([]function, 0, n)
	ix.resolveOrigins()
	g.described()
	g.bare()
	g.list()
	ix.subs.buckets = nil
}

// resolveOrigins finds the subprograms that inlined instances are of; inlined.of is that
// of the subprogram until it is that of its function.
func (ix *Index) resolveOrigins() {
	const batch = 1 << 12
	parallel((len(ix.inlines)+batch-1)/batch, func() func(int) {
		return func(i int) {
			some := ix.inlines[i*batch : min((i+1)*batch, len(ix.inlines))]
			for j := range some {
				some[j].of = ix.subs.index(some[j].origin)
			}
		}
	})
}

// described makes the functions that the debug info has.
func (g *grouping) described() {
	subs := g.ix.subs.all
	for i := range subs {
		s := &subs[i]
		if s.low == 0 {
			continue
		}
		f := g.function(int32(i))
		p := placed{int32(i), f}
		if other, ok := g.code[s.low]; !ok {
			g.code[s.low] = f
			g.ix.functions[f].concrete.n++
		} else {
			p.fn = -1
			if other != f {
				g.merge(other, merging{fn: f, symbol: -1})
			}
		}
		g.of = append(g.of, p)
		inlines := g.ix.instances(s)
		for j := range inlines {
			if in := &inlines[j]; in.of >= 0 {
				in.of = g.function(in.of)
				g.ix.functions[in.of].inlines.n++
			}
		}
	}
}

func (g *grouping) merge(fn int32, m merging) {
	g.merged = append(g.merged, merged{fn, m})
	g.ix.functions[fn].merged.n++
}

// function is that of a subprogram.
func (g *grouping) function(sub int32) int32 {
	s := &g.ix.subs.all[sub]
	if s.fn >= 0 {
		return s.fn
	}
	link := g.ix.linkage(s)
	if f, ok := g.byStr[link]; ok && link != 0 {
		s.fn = f
		return f
	}
	d := g.ix.describe(s)
	key := d.linkage
	if key == "" {
		line := uint32(0)
		if d.decl != nil {
			line = d.decl.declLine
		}
		key = fmt.Sprintf("%s\x00%d", d.pathText(), line)
	}
	f, ok := g.byKey[key]
	if !ok {
		f = int32(len(g.ix.functions))
		g.byKey[key] = f
		g.ix.functions = append(g.ix.functions, function{abstract: sub, symbol: -1})
	}
	if d.linkage != "" && d.linkage == g.ix.debug.Str(link) {
		g.byStr[link] = f
	}
	s.fn = f
	return f
}

// linkage is the first mangled name on the way from s to what it refers to.
func (ix *Index) linkage(s *subprogram) dwarf.Str {
	for range maxRefs {
		if s == nil || s.linkage != 0 {
			break
		}
		s = ix.subs.at(s.ref)
	}
	if s == nil {
		return 0
	}
	return s.linkage
}

// bare makes the functions of which only the symbol is known.
func (g *grouping) bare() {
	symbols := g.ix.symbols
	bySymbol := map[string]int32{}
	for i := range symbols {
		s := &symbols[i]
		if f, ok := g.code[s.Addr]; ok {
			of := &g.ix.functions[f]
			if thinLTO(s.Name) != g.ix.describe(&g.ix.subs.all[of.abstract]).linkage {
				g.merge(f, merging{fn: -1, symbol: int32(i)})
			}
			continue
		}
		if base, split := partOf(s.Name); split {
			_, described := g.byKey[base]
			if _, bare := bySymbol[base]; described || bare {
				continue
			}
		}
		if i > 0 && symbols[i-1].Addr == s.Addr {
			if f, ok := bySymbol[symbols[i-1].Name]; ok {
				g.merge(f, merging{fn: -1, symbol: int32(i)})
				bySymbol[s.Name] = f
				continue
			}
		}
		bySymbol[s.Name] = int32(len(g.ix.functions))
		g.ix.functions = append(g.ix.functions, function{abstract: -1, symbol: int32(i)})
	}
}

// list gives each function its part of the lists.
func (g *grouping) list() {
	ix := g.ix
	var concrete, inlines, merged int32
	place := func(p *part, n *int32) {
		p.first = *n
		*n += p.n
		p.n = 0
	}
	for i := range ix.functions {
		f := &ix.functions[i]
		place(&f.concrete, &concrete)
		place(&f.inlines, &inlines)
		place(&f.merged, &merged)
	}
	ix.concrete, ix.places, ix.merged = make([]int32, concrete), make([]inlineRef, inlines), make([]merging, merged)
	next := func(p *part) int32 {
		p.n++
		return p.first + p.n - 1
	}
	for _, p := range g.of {
		if p.fn >= 0 {
			ix.concrete[next(&ix.functions[p.fn].concrete)] = p.sub
		}
		for n, in := range ix.instances(&ix.subs.all[p.sub]) {
			if in.of >= 0 {
				ix.places[next(&ix.functions[in.of].inlines)] = inlineRef{p.sub, int32(n)}
			}
		}
	}
	for _, m := range g.merged {
		ix.table.merged[next(&ix.functions[m.fn].merged)] = m.merging
	}
}

// function is number i; nil for a number that is none, -1.
func (ix *Index) function(i int32) *Function {
	if i < 0 {
		return nil
	}
	if f := ix.made[i].Load(); f != nil {
		return f
	}
	f := ix.makeFunction(i)
	if !ix.made[i].CompareAndSwap(nil, f) {
		f = ix.made[i].Load()
	}
	return f
}

func (ix *Index) makeFunction(i int32) *Function {
	is := &ix.functions[i]
	f := &Function{ix: ix, is: is, number: i}
	if is.abstract >= 0 {
		f.abstract = &ix.subs.all[is.abstract]
		f.linkage = ix.describe(f.abstract).linkage
		f.Rust = ix.unit(f.abstract).Lang() == dwarf.LangRust
	} else {
		f.symbol = ix.symbols[is.symbol]
		f.linkage = f.symbol.Name
	}
	return f
}
