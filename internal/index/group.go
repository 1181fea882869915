package index

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/rust/path"
)

// grouping makes functions of subprograms and symbols. To which function each of them
// belongs is found first, one after the other; the names, which cost the most, are made
// after that by all processors.
type grouping struct {
	ix     *Index
	byKey  map[string]*Function // by symbol, or by path and line
	named  []naming
	merges []merging
}

// naming is a function whose name has yet to be made.
type naming struct {
	f    *Function
	d    described // of a function of the debug info
	text string    // its path, if that is known already
}

// merging says that the code of f is also that of g or, if that is nil, of the function
// that a symbol names.
type merging struct {
	f, g   *Function
	symbol string
}

// group makes the functions. Units repeat the abstract entries of functions that were
// inlined across them: those of one symbol are one function.
func (ix *Index) group() {
	g := grouping{ix: ix, byKey: map[string]*Function{}}
	g.bare(g.described())
	g.name()
	for _, m := range g.merges {
		if m.g != nil {
			m.f.merge(m.g.Name)
		} else {
			m.f.alias(m.symbol)
		}
	}
	for i := range g.named {
		if f := g.named[i].f; f.abstract == nil || len(f.concrete)+len(f.inlines) > 0 {
			ix.functions = append(ix.functions, f)
		}
	}
	slices.SortFunc(ix.functions, func(a, b *Function) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.abstract == nil || b.abstract == nil {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.symbol.Addr, b.symbol.Addr))
		}
		return cmp.Compare(a.abstract.off, b.abstract.off)
	})
}

// rank puts functions of which only the symbol is known before others of their name.
func rank(f *Function) int {
	if f.abstract == nil {
		return 0
	}
	return 1
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
			g.merges = append(g.merges, merging{f: of, g: f})
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
	n := naming{d: g.ix.describe(s)}
	key := n.d.linkage
	if key == "" {
		n.text = n.d.pathText()
		key = fmt.Sprintf("%s\x00%d", n.text, declLine(n.d.decl))
	}
	s.fn = g.byKey[key]
	if s.fn == nil {
		s.fn = &Function{ix: g.ix, linkage: n.d.linkage, abstract: s, Rust: s.unit.Lang() == dwarf.LangRust}
		g.byKey[key] = s.fn
		n.f = s.fn
		g.named = append(g.named, n)
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
				g.merges = append(g.merges, merging{f: f, symbol: s.Name})
			}
			continue
		}
		if base, part := partOf(s.Name); part && (g.byKey[base] != nil || bySymbol[base] != nil) {
			continue
		}
		if i > 0 && symbols[i-1].Addr == s.Addr {
			if f := bySymbol[symbols[i-1].Name]; f != nil {
				g.merges = append(g.merges, merging{f: f, symbol: s.Name})
				bySymbol[s.Name] = f
				continue
			}
		}
		f := &Function{ix: g.ix, linkage: s.Name, symbol: s}
		bySymbol[s.Name] = f
		g.named = append(g.named, naming{f: f})
	}
}

// name makes the names.
func (g *grouping) name() {
	const batch = 256
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(g.named)/batch+1) {
		wg.Go(func() {
			for {
				from := int(next.Add(batch)) - batch
				if from >= len(g.named) {
					return
				}
				for i := from; i < min(from+batch, len(g.named)); i++ {
					g.named[i].make()
				}
			}
		})
	}
	wg.Wait()
}

func (n *naming) make() {
	f := n.f
	switch {
	case f.abstract == nil:
		text, rust := demangle.Demangle(f.linkage)
		if !rust {
			text = f.linkage
		}
		f.Name, f.Rust = canonical(text), rust
		return
	case n.text == "":
		n.text = n.d.pathText()
	}
	f.Name = canonical(n.text)
	f.File, f.Line = source(n.d.decl)
}

func declLine(s *subprogram) uint64 {
	if s == nil {
		return 0
	}
	return s.declLine
}

// canonical writes a path in the one way in which paths are printed. What is no Rust
// path, such as the name of a C++ function, stays as it is.
func canonical(text string) string {
	if isPlain(text) {
		return text
	}
	if p, err := path.Parse(text); err == nil {
		text = p.String()
	}
	// Nobody writes the arguments that std's types have by default, and patterns may
	// leave them out.
	if strings.Contains(text, ">") {
		text = unwritten.Replace(text)
	}
	return text
}

// isPlain says whether a path is nothing but names, which are written in one way only.
func isPlain(text string) bool {
	for segment := range strings.SplitSeq(text, "::") {
		if n := len(segment); n > 2 && segment[0] == '{' && segment[n-1] == '}' {
			segment = segment[1 : n-1]
			if i := strings.IndexByte(segment, '#'); i > 0 && i < len(segment)-1 {
				segment = segment[:i] + segment[i+1:]
			}
		}
		if segment == "" || !allName(segment) {
			return false
		}
	}
	return true
}

func allName(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

var unwritten = strings.NewReplacer(
	", alloc::alloc::Global>", ">",
	", std::hash::random::RandomState>", ">",
	", std::collections::hash::map::RandomState>", ">",
)

func (f *Function) alias(symbol string) {
	name, ok := demangle.Demangle(symbol)
	if !ok {
		if strings.HasSuffix(f.Name, "::"+symbol) {
			return // #[no_mangle]
		}
		name = symbol
	}
	f.merge(canonical(name))
}

// merge notes that f's code is that of another function too. Instances of one generic
// function that share code differ in their types, so that no value is known for what
// it is.
func (f *Function) merge(name string) {
	if path.Stem(name) == path.Stem(f.Name) {
		f.Ambiguous = true
		return
	}
	if !slices.Contains(f.Aliases, name) {
		f.Aliases = append(f.Aliases, name)
	}
}
