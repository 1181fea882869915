package index

import (
	"cmp"
	"slices"
	"sort"
	"sync"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/x86"
)

// Text is what the file tells of its code to those who change it while it runs: which
// bytes belong to functions, and by which ways control comes to them. Where that is not
// known for sure it says so, or tells of more ways than there are. Its methods may be
// called concurrently; what they have to work out is worked out once.
type Text struct {
	ix *Index

	symbolsOnce sync.Once
	symbols     []objfile.Symbol // functions and labels, in order of address

	subsOnce sync.Once
	subs     []subRange // by low

	spansOnce sync.Once
	spans     []span // by low
	ranges    []x86.Range

	straysOnce sync.Once
	strays     []uint64
}

// subRange is code of a subprogram.
type subRange struct {
	x86.Range
	sub *subprogram
}

// span is code that something of the file takes for one piece.
type span struct {
	x86.Range
	compiled bool // by a compiler: no other code jumps into it but to its start
}

// Text is what the file tells of its code.
func (ix *Index) Text() *Text { return &ix.text }

// Bytes are what the file loads from addr to the end of that segment; nil if nothing.
func (t *Text) Bytes(addr uint64) []byte { return t.ix.File.Bytes(addr) }

// Addr is the address, as linked, at which an offset of the file is loaded.
func (t *Text) Addr(offset uint64) (uint64, bool) { return t.ix.File.Addr(offset) }

// NoReturn says whether the function at an address, or the one that a call through the
// word there goes to, never returns.
func (t *Text) NoReturn(addr uint64) bool { return t.ix.noReturn(addr) }

// FunctionRanges are all the code that belongs to functions, in order and without
// overlap: what lies between two of them is padding, if it looks like it. The slice is
// not to be modified.
func (t *Text) FunctionRanges() []x86.Range {
	t.findSpans()
	return t.ranges
}

// FunctionAt is the function out of line whose code is at addr: all its parts, without
// overlap, that with the entry first; and the addresses in them to which control comes
// though no jump of theirs shows it: landing pads, symbols, and those that code outside
// of the function jumps to. rust says that rustc compiled it and that it keeps, as it
// is entered and left, to the calling convention of Rust, which is that of C in which
// registers are free there. It is false if in doubt; ok is false if the function, or a
// way into it, is not known.
func (t *Text) FunctionAt(addr uint64) (parts []x86.Range, targets []uint64, rust, ok bool) {
	var compiled bool
	if s := t.subprogramAt(addr); s != nil {
		in, err := t.ix.outOfLine(t.ix.function(s.fn), s)
		if err != nil {
			return nil, nil, false, false
		}
		parts, rust, compiled = slices.Clone(in.Ranges), t.ix.unit(s).Lang() == dwarf.LangRust, t.isCompiled(s)
	} else if parts, rust, ok = t.namedAt(addr); ok {
		// Naked functions have Rust's names too, but no frame description of rustc's.
		rust = rust && t.framed(parts[0].Low)
		compiled = rust
	} else if frames, err := t.ix.debug.Frames(); err == nil {
		r, ok := frames.Range(addr)
		if !ok {
			return nil, nil, false, false
		}
		parts = []x86.Range{x86.Range(r)}
	}
	if len(parts) == 0 {
		return nil, nil, false, false
	}
	if targets, ok = t.targets(parts, compiled); !ok {
		return nil, nil, false, false
	}
	return parts, targets, rust && t.conforms(parts[0].Low), true
}

// subprogramAt is the subprogram whose code is at addr, nil if the debug info has none.
func (t *Text) subprogramAt(addr uint64) *subprogram {
	t.findSubs()
	i := sort.Search(len(t.subs), func(i int) bool { return t.subs[i].Low > addr })
	// Those that were merged have one address: the first is the one that gave the name.
	for i--; i > 0 && t.subs[i-1].Low == t.subs[i].Low; i-- {
	}
	if i < 0 || !t.subs[i].Contains(addr) {
		return nil
	}
	return t.subs[i].sub
}

func (t *Text) findSubs() {
	t.subsOnce.Do(func() {
		for i := range t.ix.subs.all {
			s := &t.ix.subs.all[i]
			switch {
			case s.low == 0:
			case s.flags&subSplit == 0:
				t.subs = append(t.subs, subRange{x86.Range{Low: s.low, High: s.high}, s})
			default:
				ranges, _ := t.ix.ranges(s.off)
				for _, r := range ranges {
					t.subs = append(t.subs, subRange{r, s})
				}
			}
		}
		slices.SortStableFunc(t.subs, func(a, b subRange) int { return cmp.Compare(a.Low, b.Low) })
	})
}

// isCompiled says whether a compiler has made the code of a subprogram, and not a
// programmer.
func (t *Text) isCompiled(s *subprogram) bool {
	lang := t.ix.unit(s).Lang()
	return lang != 0 && lang != dwarf.LangMipsAssembler && lang != dwarf.LangAssembly
}

func (t *Text) findSymbols() {
	t.symbolsOnce.Do(func() {
		ix := t.ix
		t.symbols, _ = ix.debugFile.Symbols()
		if ix.debugFile == ix.File {
			return
		}
		own, _ := ix.File.Symbols()
		t.symbols = append(slices.Clone(t.symbols), own...)
		slices.SortStableFunc(t.symbols, func(a, b objfile.Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	})
}

// maxNested bounds how many symbols are looked at for one whose code others lie in.
const maxNested = 64

// namedAt is the function whose symbols cover addr; rust says that its name is Rust's.
func (t *Text) namedAt(addr uint64) (parts []x86.Range, rust, ok bool) {
	t.findSymbols()
	var symbol objfile.Symbol
	var whole x86.Range
	end := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].Addr > addr })
	for i := end - 1; i >= max(0, end-maxNested); i-- {
		s := t.symbols[i]
		if !s.Func {
			continue
		}
		// The outermost: what begins within it is an alias, or a way into it.
		if r, known := t.ix.codeOf(s); known && (r.Contains(addr) || ok && r.High > whole.Low) {
			if ok {
				r.High = max(r.High, whole.High)
			}
			symbol, whole, ok = s, r, true
		}
	}
	if !ok {
		return nil, false, false
	}
	if frames, err := t.ix.debug.Frames(); err == nil {
		if r, known := frames.Range(whole.Low); known && r.Low == whole.Low {
			whole.High = max(whole.High, r.High)
		}
	}
	_, rust = demangle.Demangle(symbol.Name)
	base, part := partOf(symbol.Name)
	if part {
		i := slices.IndexFunc(t.symbols, func(s objfile.Symbol) bool { return s.Func && s.Name == base })
		if i < 0 {
			return nil, false, false
		}
		again := slices.IndexFunc(t.symbols[i+1:], func(s objfile.Symbol) bool {
			return s.Func && s.Name == base && s.Addr != t.symbols[i].Addr
		})
		r, known := t.ix.codeOf(t.symbols[i])
		if again >= 0 || !known {
			return nil, false, false // static functions of C may share a name: whose part is it?
		}
		parts = append(parts, r)
	}
	if !part || !parts[0].Contains(whole.Low) {
		parts = append(parts, whole)
	}
	for _, r := range t.ix.splitParts(base) {
		if !slices.ContainsFunc(parts, func(p x86.Range) bool { return p.Low < r.High && r.Low < p.High }) {
			parts = append(parts, r)
		}
	}
	return parts, rust, true
}

// framed says whether a frame description begins at addr.
func (t *Text) framed(addr uint64) bool {
	frames, err := t.ix.debug.Frames()
	if err != nil {
		return false
	}
	r, ok := frames.Range(addr)
	return ok && r.Low == addr
}

// targets are the addresses in parts that control comes to by ways of its own; not ok
// if there may be more.
func (t *Text) targets(parts []x86.Range, compiled bool) (targets []uint64, ok bool) {
	sites, err := t.ix.callSites(parts)
	if err != nil {
		return nil, false
	}
	for _, s := range sites {
		targets = append(targets, s.Pad)
	}
	t.findSymbols()
	if !compiled {
		t.findStrays()
	}
	for _, r := range parts {
		i := sort.Search(len(t.symbols), func(i int) bool { return t.symbols[i].Addr > r.Low })
		for ; i < len(t.symbols) && t.symbols[i].Addr < r.High; i++ {
			targets = append(targets, t.symbols[i].Addr)
		}
		if !compiled {
			i, _ := slices.BinarySearch(t.strays, r.Low+1)
			for ; i < len(t.strays) && t.strays[i] < r.High; i++ {
				targets = append(targets, t.strays[i])
			}
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets), true
}

// maxEntry is how many instructions of a function are asked for what it takes over.
const maxEntry = 24

// conforms says whether the code at a function's entry takes nothing from registers in
// which Rust's calling convention passes nothing. rax is the number of vector registers
// that a function with variable arguments gets some in (psABI 3.5.7), r10 a static
// chain; hand-written code takes any.
func (t *Text) conforms(entry uint64) bool {
	for _, r := range []x86.Reg{x86.RAX, x86.R10, x86.R11, x86.Flags} {
		if x86.CallerReads(t.ix.File.Bytes, entry, r, maxEntry) == x86.Yes {
			return false
		}
	}
	return true
}

// findSpans finds all pieces of code, by debug info, symbols, frame descriptions, and
// sections other than .text.
func (t *Text) findSpans() {
	t.findSubs()
	t.findSymbols()
	t.spansOnce.Do(func() {
		add := func(low, high uint64, compiled bool) {
			if end := t.ix.codeEnd(low); low < high && low < end {
				t.spans = append(t.spans, span{x86.Range{Low: low, High: min(high, end)}, compiled})
			}
		}
		for _, s := range t.subs {
			add(s.Low, s.High, t.isCompiled(s.sub))
		}
		for i, s := range t.symbols {
			high := s.Addr + s.Size
			if s.Size == 0 {
				// Up to the next one, of whatever kind.
				next := i + 1
				for next < len(t.symbols) && t.symbols[next].Addr == s.Addr {
					next++
				}
				high = t.ix.codeEnd(s.Addr)
				if next < len(t.symbols) {
					high = min(high, t.symbols[next].Addr)
				}
			}
			add(s.Addr, high, s.Func && mangled(s.Name) && t.framed(s.Addr))
		}
		if frames, err := t.ix.debug.Frames(); err == nil {
			for _, r := range frames.Ranges() {
				add(r.Low, r.High, false)
			}
		}
		for _, s := range t.ix.codeSections() {
			if s.Name != ".text" {
				add(s.Low, s.High, false)
			}
		}
		slices.SortFunc(t.spans, func(a, b span) int { return cmp.Compare(a.Low, b.Low) })
		for _, s := range t.spans {
			if n := len(t.ranges); n > 0 && s.Low <= t.ranges[n-1].High {
				t.ranges[n-1].High = max(t.ranges[n-1].High, s.High)
			} else {
				t.ranges = append(t.ranges, s.Range)
			}
		}
	})
}

// mangled says whether a symbol may be one of Rust's; C++ has such too, but compilers
// make those as well.
func mangled(symbol string) bool {
	return len(symbol) > 3 && (symbol[:2] == "_R" || symbol[:3] == "_ZN")
}

// findStrays finds the jumps and calls, in code that may be hand-written or was split
// without a word, that lead elsewhere than to the start of some piece of code: routines
// in assembly share their ends, and the parts of functions jump to and fro.
func (t *Text) findStrays() {
	t.findSpans()
	t.straysOnce.Do(func() {
		var compiled uint64 // what is below has been seen to be a compiler's, or looked at
		for i := 0; i < len(t.spans); {
			low, high, own := t.spans[i].Low, t.spans[i].High, t.spans[i].compiled
			for i++; i < len(t.spans) && t.spans[i].Low == low; i++ {
				high, own = max(high, t.spans[i].High), own || t.spans[i].compiled
			}
			if low = max(low, compiled); low >= high {
				continue
			}
			if !own {
				t.strayFrom(x86.Range{Low: low, High: high})
			}
			compiled = high
		}
		slices.Sort(t.strays)
		t.strays = slices.Clip(slices.Compact(t.strays))
	})
}

func (t *Text) strayFrom(r x86.Range) {
	b := t.ix.File.Bytes(r.Low)
	b = b[:min(uint64(len(b)), r.High-r.Low)]
	for at := uint64(0); at < uint64(len(b)); {
		in, err := x86.Decode(b[at:], r.Low+at)
		if err != nil {
			at++ // data among the code: what is made of it is a jump too many
			continue
		}
		at += uint64(in.Len)
		if !in.Branches() && in.Kind != x86.Call || r.Contains(in.Target) {
			continue
		}
		if _, start := slices.BinarySearchFunc(t.spans, in.Target, func(s span, a uint64) int { return cmp.Compare(s.Low, a) }); !start {
			t.strays = append(t.strays, in.Target)
		}
	}
}
