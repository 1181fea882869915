package index

import (
	"fmt"
	"slices"

	"ferrotrace/internal/dwarf"
)

// grouping makes functions of subprograms and symbols. Their names, which cost the most,
// are left to be made when they are asked for.
type grouping struct {
	ix    *Index
	byKey map[string]*Function // by symbol, or by path and line
}

// merging says that a function's code is also that of g or, if that is nil, of the
// function that a symbol names.
type merging struct {
	g      *Function
	symbol string
}

// group makes the functions. Units repeat the abstract entries of functions that were
// inlined across them: those of one symbol are one function.
func (ix *Index) group() {
	g := grouping{ix: ix, byKey: make(map[string]*Function, len(ix.subs.all)/4)}
	at := g.described()
	ix.functions = slices.DeleteFunc(ix.functions, func(f *Function) bool { return len(f.concrete)+len(f.inlines) == 0 })
	g.bare(at)
}

// described makes the functions that the debug info has, and returns those with code
// out of line by its address.
func (g *grouping) described() map[uint64]*Function {
	at := map[uint64]*Function{}
	instances := 0
	for _, s := range g.ix.subs.all {
		instances += len(s.inlines)
	}
	inlinedAs := make([]*Function, 0, instances)
	for _, s := range g.ix.subs.all {
		if s.low == 0 {
			continue
		}
		f := g.function(s)
		switch of := at[s.low]; {
		case of == nil:
			at[s.low] = f
			f.concrete = append(f.concrete, s)
		case of != f:
			of.merged = append(of.merged, merging{g: f})
		}
		for i := range s.inlines {
			var f *Function
			if o := g.ix.subs.at(s.inlines[i].origin); o != nil {
				f = g.function(o)
				f.instances++
			}
			inlinedAs = append(inlinedAs, f)
		}
	}
	refs := make([]inlineRef, instances)
	for _, s := range g.ix.subs.all {
		if s.low == 0 {
			continue
		}
		for i := range s.inlines {
			f := inlinedAs[0]
			inlinedAs = inlinedAs[1:]
			if f == nil {
				continue
			}
			if f.inlines == nil {
				f.inlines, refs = refs[:0:f.instances], refs[f.instances:]
			}
			f.inlines = append(f.inlines, inlineRef{s, i})
		}
	}
	return at
}

// function is that of a subprogram.
func (g *grouping) function(s *subprogram) *Function {
	if s.fn != nil {
		return s.fn
	}
	d := g.ix.describe(s)
	key := d.linkage
	if key == "" {
		key = fmt.Sprintf("%s\x00%d", d.pathText(), declLine(d.decl))
	}
	s.fn = g.byKey[key]
	if s.fn == nil {
		s.fn = &Function{ix: g.ix, linkage: d.linkage, abstract: s, Rust: s.unit.Lang() == dwarf.LangRust}
		g.byKey[key] = s.fn
		g.ix.functions = append(g.ix.functions, s.fn)
	}
	return s.fn
}

// bare makes the functions of which only the symbol is known.
func (g *grouping) bare(at map[uint64]*Function) {
	symbols := g.ix.symbols
	bySymbol := map[string]*Function{}
	for i, s := range symbols {
		if f := at[s.Addr]; f != nil {
			if thinLTO(s.Name) != f.linkage {
				f.merged = append(f.merged, merging{symbol: s.Name})
			}
			continue
		}
		if base, part := partOf(s.Name); part && (g.byKey[base] != nil || bySymbol[base] != nil) {
			continue
		}
		if i > 0 && symbols[i-1].Addr == s.Addr {
			if f := bySymbol[symbols[i-1].Name]; f != nil {
				f.merged = append(f.merged, merging{symbol: s.Name})
				bySymbol[s.Name] = f
				continue
			}
		}
		f := &Function{ix: g.ix, linkage: s.Name, symbol: s}
		bySymbol[s.Name] = f
		g.ix.functions = append(g.ix.functions, f)
	}
}

func declLine(s *subprogram) uint64 {
	if s == nil {
		return 0
	}
	return s.declLine
}
