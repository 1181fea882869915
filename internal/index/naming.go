package index

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/rust/path"
)

// named is the function with its name and what else it is called: it has to be called
// for each function that leaves the package.
func (f *Function) named() *Function {
	if f.ix.names != nil {
		f.nameOnce.Do(f.takeName)
		return f
	}
	f.nameOnce.Do(f.makeName)
	f.mergeOnce.Do(func() {
		for _, m := range of(f.ix.merged, f.is.merged) {
			if m.fn >= 0 {
				g := f.ix.function(m.fn)
				g.nameOnce.Do(g.makeName)
				f.merge(g.Name)
			} else {
				f.alias(f.ix.symbols[m.symbol].Name)
			}
		}
	})
	return f
}

// makeName makes a name that outlives the file's mapping, for results of a run are
// printed when all files are closed.
func (f *Function) makeName() {
	if f.abstract == nil {
		text, rust := demangle.Demangle(f.linkage)
		if !rust {
			text = f.linkage
		}
		f.Name, f.Rust = strings.Clone(canonical(text)), rust
		return
	}
	d := f.ix.describe(f.abstract)
	f.Name = strings.Clone(canonical(f.ix.nameOf(&d)))
	f.File, f.Line = f.ix.source(d.decl)
}

// Functions are all functions with code, in order of name.
func (ix *Index) Functions() []*Function {
	ix.sortOnce.Do(func() {
		if ix.names != nil {
			for _, i := range ix.names.sorted {
				ix.sorted = append(ix.sorted, ix.function(i).named())
			}
			return
		}
		ix.sorted = ix.namedIf(func(*function) bool { return true })
		slices.SortFunc(ix.sorted, byName)
	})
	ix.save()
	return ix.sorted
}

// namedIf are the functions with code that wanted says yes to, named, in no order.
func (ix *Index) namedIf(wanted func(*function) bool) []*Function {
	const batch = 256
	var mu sync.Mutex
	var all []*Function
	parallel((len(ix.functions)+batch-1)/batch, func() func(int) {
		return func(b int) {
			var some []*Function
			for i := b * batch; i < min((b+1)*batch, len(ix.functions)); i++ {
				if f := &ix.functions[i]; !f.hidden() && wanted(f) {
					some = append(some, ix.function(int32(i)).named())
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, some...)
		}
	})
	return all
}

// byName orders functions by name: of one name, those first of which only the symbol is
// known, and then as the file has them.
func byName(a, b *Function) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return a.ix.compare(a.is, b.is)
}

// compare orders functions of one name.
func (ix *Index) compare(a, b *function) int {
	switch {
	case a.abstract < 0 && b.abstract < 0:
		return cmp.Compare(ix.symbols[a.symbol].Addr, ix.symbols[b.symbol].Addr)
	case a.abstract < 0:
		return -1
	case b.abstract < 0:
		return 1
	}
	return cmp.Compare(a.abstract, b.abstract) // which is the order of offsets
}

// candidates are the functions that a pattern with the hint may match. Only those are
// named: the hint is looked for in what names are made of.
func (ix *Index) candidates(hint string) []*Function {
	if ix.names != nil && hint != "" {
		return ix.cachedWith(hint)
	}
	if !isVerbatim(hint) {
		return ix.Functions()
	}
	return ix.namedIf(func(f *function) bool { return ix.mentions(f, hint) })
}

// isVerbatim says whether a name in a path stands as it is in debug info and symbols. All
// that consist of letters, digits and underscores do (in Punycode too, which keeps
// what is of ASCII in its order), but for those of primitive types, which v0 symbols
// have a letter for (RFC 2603).
func isVerbatim(name string) bool {
	switch name {
	case "", "bool", "char", "str", "f16", "f32", "f64", "f128", "i8", "i16", "i32", "i64", "i128", "isize",
		"u8", "u16", "u32", "u64", "u128", "usize":
		return false
	}
	return allName(name)
}

// mentions says whether word is in what the function's names are made of.
func (ix *Index) mentions(f *function, word string) bool {
	if ix.mentionsItself(f, word) {
		return true
	}
	for _, m := range of(ix.merged, f.merged) {
		if m.fn >= 0 && ix.mentionsItself(&ix.functions[m.fn], word) || m.symbol >= 0 && strings.Contains(ix.symbols[m.symbol].Name, word) {
			return true
		}
	}
	return false
}

func (ix *Index) mentionsItself(f *function, word string) bool {
	if f.abstract < 0 {
		return strings.Contains(ix.symbols[f.symbol].Name, word)
	}
	d := ix.describe(&ix.subs.all[f.abstract])
	if strings.Contains(d.linkage, word) || strings.Contains(d.name, word) {
		return true
	}
	for sc := d.scope; sc >= 0; sc = ix.scopes[sc].parent {
		if strings.Contains(ix.debug.Str(ix.scopes[sc].name), word) {
			return true
		}
	}
	return false
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
		if f.Name == symbol || strings.HasSuffix(f.Name, "::"+symbol) {
			return // C's, and #[no_mangle]
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
		f.Aliases = append(f.Aliases, strings.Clone(name))
	}
}
