package index

import (
	"fmt"
	"slices"
	"sort"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/x86"
)

// Instance is one piece of code that runs a function: the function out of line, or
// where it was inlined.
type Instance struct {
	Fn      *Function
	Inlined bool
	// Ranges are all parts of its code. That of an out-of-line function with the
	// entry comes first.
	Ranges []x86.Range
	// Symbol is the out-of-line function's mangled name.
	Symbol string
	// Outer is the out-of-line instance whose code an inlined instance is part of; an
	// out-of-line instance is its own.
	Outer *Instance
	// Caller is the function that an inlined instance was written into, and File and
	// Line are those of the call.
	Caller string
	File   string
	Line   int

	entry  dwarf.Offset // its entry in the debug info, 0 for a bare symbol
	origin dwarf.Offset // of an inlined instance: the abstract entry
	sub    *subprogram
}

// Low is the first instruction of an out-of-line function, or the lowest address of
// an inlined instance, which is not always where it is entered.
func (in *Instance) Low() uint64 { return in.Ranges[0].Low }

// Instances lists the function's instances: out of line first, then by address.
func (f *Function) Instances() ([]*Instance, error) {
	var all []*Instance
	if f.abstract == nil {
		in, err := f.ix.bare(f)
		if err != nil {
			return nil, err
		}
		return []*Instance{in}, nil
	}
	for _, s := range of(f.ix.concrete, f.is.concrete) {
		in, err := f.ix.outOfLine(f, &f.ix.subs.all[s])
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	for _, ref := range of(f.ix.places, f.is.inlines) {
		in, err := f.ix.inlined(f, ref)
		if err != nil {
			return nil, err
		}
		if in != nil {
			all = append(all, in)
		}
	}
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].Inlined != all[j].Inlined {
			return !all[i].Inlined
		}
		return all[i].Low() < all[j].Low()
	})
	return all, nil
}

// Counts are the numbers of instances with code.
func (f *Function) Counts() (outOfLine, inlined int) {
	if f.abstract == nil {
		return 1, 0
	}
	return int(f.is.concrete.n), int(f.is.inlines.n)
}

// bare is the instance of a function of which only the symbol is known.
func (ix *Index) bare(f *Function) (*Instance, error) {
	r, ok := ix.codeOf(f.symbol)
	if !ok {
		return nil, fmt.Errorf("%s: its end is not known", f.Name)
	}
	in := &Instance{Fn: f, Symbol: f.symbol.Name, Ranges: append([]x86.Range{r}, ix.splitParts(f.symbol.Name)...)}
	in.Outer = in
	return in, nil
}

// codeOf is the code that a symbol names; not ok if its size can't be true.
func (ix *Index) codeOf(s objfile.Symbol) (x86.Range, bool) {
	end := ix.codeEnd(s.Addr)
	if s.Size > 0 {
		return x86.Range{Low: s.Addr, High: s.Addr + s.Size}, s.Size <= end-s.Addr
	}
	// Assembly often states no size: up to the next function then.
	i := sort.Search(len(ix.symbols), func(i int) bool { return ix.symbols[i].Addr > s.Addr })
	if i < len(ix.symbols) {
		end = min(end, ix.symbols[i].Addr)
	}
	return x86.Range{Low: s.Addr, High: end}, end > s.Addr
}

// codeEnd is the end of the section that code at an address is in, or of the segment if
// the file has no sections; addr itself if it is in none.
func (ix *Index) codeEnd(addr uint64) uint64 {
	for _, s := range ix.codeSections() {
		if s.Low <= addr && addr < s.High {
			return s.High
		}
	}
	return addr + uint64(len(ix.File.Bytes(addr)))
}

// splitParts are the parts of a function that were split from it under names of their
// own.
func (ix *Index) splitParts(symbol string) []x86.Range {
	if symbol == "" {
		return nil
	}
	ix.partsOnce.Do(func() {
		ix.parts = map[string][]x86.Range{}
		for _, s := range ix.symbols {
			if base, part := partOf(s.Name); part && s.Size > 0 {
				ix.parts[base] = append(ix.parts[base], x86.Range{Low: s.Addr, High: s.Addr + s.Size})
			}
		}
	})
	return ix.parts[symbol]
}

// isUnique says whether at most one function has the symbol.
func (ix *Index) isUnique(symbol string) bool {
	n := 0
	for _, s := range ix.symbols {
		if s.Name == symbol {
			n++
		}
	}
	return n <= 1
}

func (ix *Index) outOfLine(f *Function, s *subprogram) (*Instance, error) {
	ix.mu.Lock()
	in := ix.outer[s]
	ix.mu.Unlock()
	if in != nil {
		return in, nil
	}
	f.named()
	ranges, err := ix.ranges(s.off)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("%s: no code of it is left", f.Name)
	}
	in = &Instance{Fn: f, entry: s.off, sub: s, Symbol: f.linkage}
	if in.Symbol == "" {
		in.Symbol = ix.symbolAt(ranges[0].Low)
	}
	for _, r := range ix.splitParts(in.Symbol) {
		// Static functions of C may share a name, and so do their parts.
		if ix.isUnique(in.Symbol) && !slices.ContainsFunc(ranges, func(o x86.Range) bool { return o.Contains(r.Low) }) {
			ranges = append(ranges, r)
		}
	}
	// A function that is split has the entry in the range that its symbol is at.
	for i, r := range ranges {
		if ix.symbolIs(r.Low, in.Symbol) {
			ranges[0], ranges[i] = ranges[i], ranges[0]
			break
		}
	}
	in.Ranges, in.Outer = ranges, in
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if other := ix.outer[s]; other != nil {
		return other, nil
	}
	ix.outer[s] = in
	return in, nil
}

// inlined returns nil for an instance of which no code is left.
func (ix *Index) inlined(f *Function, ref inlineRef) (*Instance, error) {
	s := &ix.subs.all[ref.in]
	inlines := ix.instances(s)
	i := inlines[ref.n]
	e, err := ix.debug.Entry(i.off)
	if err != nil {
		return nil, fmt.Errorf("%s, inlined: %w", f.Name, err)
	}
	ranges, err := ix.ranges(i.off)
	if err != nil {
		return nil, fmt.Errorf("%s, inlined: %w", f.Name, err)
	}
	if len(ranges) == 0 {
		return nil, nil
	}
	outerFn := ix.function(s.fn)
	outer, err := ix.outOfLine(outerFn, s)
	if err != nil {
		return nil, err
	}
	in := &Instance{Fn: f, Inlined: true, Ranges: ranges, Outer: outer, entry: i.off, origin: i.origin, sub: s, Caller: outerFn.Name}
	if i.parent >= 0 {
		if caller := inlines[i.parent].of; caller >= 0 {
			in.Caller = ix.function(caller).named().Name
		}
	}
	if n, ok := e.Uint(dwarf.AttrCallFile); ok {
		in.File = fileName(ix.unit(s), n)
	}
	if n, ok := e.Uint(dwarf.AttrCallLine); ok {
		in.Line = int(n)
	}
	return in, nil
}

// ranges are the live ranges of an entry.
func (ix *Index) ranges(off dwarf.Offset) ([]x86.Range, error) {
	e, err := ix.debug.Entry(off)
	if err != nil {
		return nil, err
	}
	all, err := e.Ranges()
	if err != nil {
		return nil, err
	}
	var live []x86.Range
	for _, r := range all {
		if r.Low < r.High && ix.File.Executable(r.Low) {
			live = append(live, x86.Range{Low: r.Low, High: r.High})
		}
	}
	return live, nil
}

// symbolAt is the name of a symbol at an address, "" if there is none.
func (ix *Index) symbolAt(addr uint64) string {
	i := sort.Search(len(ix.symbols), func(i int) bool { return ix.symbols[i].Addr >= addr })
	if i < len(ix.symbols) && ix.symbols[i].Addr == addr {
		return ix.symbols[i].Name
	}
	return ""
}

func (ix *Index) symbolIs(addr uint64, name string) bool {
	i := sort.Search(len(ix.symbols), func(i int) bool { return ix.symbols[i].Addr >= addr })
	for ; i < len(ix.symbols) && ix.symbols[i].Addr == addr; i++ {
		if ix.symbols[i].Name == name {
			return true
		}
	}
	return false
}

// NameAt is the path of the function whose code begins at addr, "" if none does.
func (ix *Index) NameAt(addr uint64) string {
	symbol := ix.symbolAt(addr)
	if symbol == "" {
		return ""
	}
	return SymbolName(symbol)
}

// SymbolName is the path that a symbol stands for; a symbol that is none of Rust's stands for
// itself.
func SymbolName(symbol string) string {
	text, ok := demangle.Demangle(symbol)
	if !ok {
		return symbol
	}
	return canonical(text)
}

// decoded is the control flow of an out-of-line function's code.
func (ix *Index) decoded(outer *Instance) (*flow, error) {
	ix.mu.Lock()
	fl := ix.flows[outer]
	if fl == nil {
		fl = &flow{}
		ix.flows[outer] = fl
	}
	ix.mu.Unlock()
	fl.once.Do(func() { fl.decode(ix, outer) })
	return fl, fl.err
}
