package index

import (
	"cmp"
	"errors"

	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"ferrotrace/internal/dwarf"
)

// errTooMany says that there is more than the table's indices can count.
var errTooMany = errors.New("more functions than can be counted")

// found is what one unit has; its indices are those of the unit alone.
type found struct {
	subs    []subprogram
	inlines []inlined
	scopes  []scope
	err     error
}

// parallel calls f with the numbers up to n, each once, on all processors. Each of these has
// a function of its own, that start makes.
func parallel(n int, start func() func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			f := start()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// scan walks all units, in parallel, and returns their subprograms in the order of
// the file. Of what is broken it returns the first error beside what could be read.
func scan(d *dwarf.Data, executable func(uint64) bool) (*table, error) {
	units := d.Units()
	// The largest first, so that none of them is begun when the others are done.
	order := make([]int, len(units))
	for i := range order {
		order[i] = i
	}
	size := func(i int) dwarf.Offset { return units[i].End - units[i].Offset }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size(b), size(a)) })
	all := make([]found, len(units))
	parallel(len(units), func() func(int) {
		w := walk{executable: executable}
		return func(i int) { all[order[i]] = w.unit(units[order[i]], int32(order[i])) }
	})
	return join(all)
}

// join puts together what the units have.
func join(all []found) (*table, error) {
	// base is where the parts of each unit come to stand.
	base := make([]struct{ subs, inlines, scopes int }, len(all)+1)
	var err error
	for i := range all {
		f := &all[i]
		if err == nil {
			err = f.err
		}
		b := base[i]
		b.subs, b.inlines, b.scopes = b.subs+len(f.subs), b.inlines+len(f.inlines), b.scopes+len(f.scopes)
		if max(b.subs, b.inlines, b.scopes) > math.MaxInt32 {
			return &table{}, errTooMany
		}
		base[i+1] = b
	}
	n := base[len(all)]
	subs := make([]subprogram, n.subs)
	t := &table{inlines: make([]inlined, n.inlines), scopes: make([]scope, n.scopes)}
	parallel(len(all), func() func(int) {
		return func(i int) {
			f, b := &all[i], base[i]
			for j := range f.subs {
				s := &f.subs[j]
				s.inlines += int32(b.inlines)
				if s.scope >= 0 {
					s.scope += int32(b.scopes)
				}
			}
			for j := range f.scopes {
				if s := &f.scopes[j]; s.parent >= 0 {
					s.parent += int32(b.scopes)
				}
			}
			copy(subs[b.subs:], f.subs)
			copy(t.inlines[b.inlines:], f.inlines)
			copy(t.scopes[b.scopes:], f.scopes)
			*f = found{}
		}
	})
	t.subs = newSubprograms(subs)
	return t, err
}

// level is what an entry on the way from the root to the current one means for the
// entries below it.
type level struct {
	depth  int
	named  dwarf.Entry // what makes a scope, if none has been made of it
	scope  int32       // -1 for none, aroundIt for that of the level above
	sub    int32       // -1 for none
	inline int32       // -1 for none
}

// aroundIt is the scope of the level above.
const aroundIt = -2

// walk goes through one unit after the other, with memory that it uses again.
type walk struct {
	executable func(uint64) bool
	levels     []level
	subs       []subprogram
	scopes     []scope
	inlines    []inlinedIn
	next       []int32
	ranges     []dwarf.Range
}

// inlinedIn is an inlined instance in a subprogram.
type inlinedIn struct {
	sub int32
	inlined
}

var (
	// scanned are the tags of entries that are looked at; what is below others counts as
	// below these.
	scanned = dwarf.Tags(dwarf.TagNamespace, dwarf.TagModule, dwarf.TagStructureType, dwarf.TagUnionType,
		dwarf.TagEnumerationType, dwarf.TagSubprogram, dwarf.TagInlinedSubroutine)
	subAttrs = dwarf.Attrs(dwarf.AttrName, dwarf.AttrLinkageName, dwarf.AttrMIPSLinkageName, dwarf.AttrDeclFile, dwarf.AttrDeclLine,
		dwarf.AttrAbstractOrigin, dwarf.AttrSpecification, dwarf.AttrNoreturn, dwarf.AttrLowPC, dwarf.AttrRanges)
	originAttr = dwarf.Attrs(dwarf.AttrAbstractOrigin)
	nameAttr   = dwarf.Attrs(dwarf.AttrName)
)

func (w *walk) unit(u *dwarf.Unit, number int32) found {
	w.levels = append(w.levels[:0], level{depth: -1, scope: -1, sub: -1, inline: -1})
	w.subs, w.scopes, w.inlines = w.subs[:0], w.scopes[:0], w.inlines[:0]
	c := u.Cursor(0)
	for c.NextTag(&scanned) {
		e, depth := c.Entry(), c.Depth()
		top := len(w.levels) - 1
		for w.levels[top].depth >= c.Low() {
			top--
		}
		w.levels = w.levels[:top+1]
		here := &w.levels[top]
		switch e.Tag {
		case dwarf.TagSubprogram:
			w.subs = append(w.subs, subprogram{off: e.Offset, unit: number, scope: w.scope(top), fn: -1})
			w.subprogram(&w.subs[len(w.subs)-1], e)
			if e.HasChildren {
				w.levels = append(w.levels, level{depth: depth, scope: w.levels[top].scope, sub: int32(len(w.subs) - 1), inline: -1})
			}
		case dwarf.TagInlinedSubroutine:
			if here.sub < 0 || w.subs[here.sub].low == 0 {
				continue
			}
			s := &w.subs[here.sub]
			in := inlinedIn{here.sub, inlined{off: e.Offset, parent: here.inline, of: -1}}
			e.Pick(&originAttr, func(_ dwarf.Attr, v dwarf.Num) {
				if v.Class == dwarf.ClassRef {
					in.origin = dwarf.Offset(v.U)
				}
			})
			w.inlines = append(w.inlines, in)
			if e.HasChildren {
				w.levels = append(w.levels, level{depth: depth, scope: aroundIt, sub: here.sub, inline: s.instances})
			}
			s.instances++
		default:
			if e.HasChildren {
				w.levels = append(w.levels, level{depth: depth, scope: -1, named: *e, sub: here.sub, inline: here.inline})
			}
		}
	}
	return w.found(c.Err())
}

// scope makes scopes of what levels up to top stand for: only few types have functions.
func (w *walk) scope(top int) int32 {
	l := &w.levels[top]
	if l.scope == aroundIt {
		l.scope = w.scope(top - 1)
	}
	if l.named.Unit == nil {
		return l.scope
	}
	sc := scope{parent: w.scope(top - 1)}
	l.named.Pick(&nameAttr, func(_ dwarf.Attr, v dwarf.Num) {
		if v.Class == dwarf.ClassString {
			sc.name = dwarf.Str(v.U)
		}
	})
	w.scopes = append(w.scopes, sc)
	l.scope, l.named = int32(len(w.scopes)-1), dwarf.Entry{}
	return l.scope
}

// found copies what has been found.
func (w *walk) found(err error) found {
	f := found{subs: slices.Clone(w.subs), scopes: slices.Clone(w.scopes), inlines: make([]inlined, len(w.inlines)), err: err}
	w.next = w.next[:0]
	first := int32(0)
	for i := range f.subs {
		f.subs[i].inlines = first
		w.next = append(w.next, first)
		first += f.subs[i].instances
	}
	for i := range w.inlines {
		in := &w.inlines[i]
		f.inlines[w.next[in.sub]] = in.inlined
		w.next[in.sub]++
	}
	return f
}

// subprogram reads an entry into s.
func (w *walk) subprogram(s *subprogram, e *dwarf.Entry) {
	hasCode, mips := false, dwarf.Str(0)
	e.Pick(&subAttrs, func(attr dwarf.Attr, v dwarf.Num) {
		switch attr {
		case dwarf.AttrName:
			s.name = str(v)
		case dwarf.AttrLinkageName:
			s.linkage = str(v)
		case dwarf.AttrMIPSLinkageName:
			mips = str(v)
		case dwarf.AttrDeclFile:
			s.declFile = small(v)
		case dwarf.AttrDeclLine:
			s.declLine = small(v)
		case dwarf.AttrAbstractOrigin, dwarf.AttrSpecification:
			origin := attr == dwarf.AttrAbstractOrigin
			if v.Class == dwarf.ClassRef && (origin || s.flags&subOrigin == 0) {
				s.ref = dwarf.Offset(v.U)
				if origin {
					s.flags |= subOrigin
				}
			}
		case dwarf.AttrNoreturn:
			if v.Class == dwarf.ClassFlag && v.U != 0 {
				s.flags |= subNoreturn
			}
		case dwarf.AttrLowPC, dwarf.AttrRanges:
			hasCode = true
		}
	})
	if s.linkage == 0 {
		s.linkage = mips
	}
	if !hasCode {
		return
	}
	// Half of all subprograms in a linked file are dead: their code was dropped and
	// their addresses are 0 or tombstones.
	var err error
	if w.ranges, err = e.AppendRanges(w.ranges[:0]); err != nil {
		return
	}
	for _, r := range w.ranges {
		if !w.executable(r.Low) {
			continue
		}
		if s.low != 0 {
			s.flags |= subSplit
		}
		if s.low == 0 || r.Low < s.low {
			s.low, s.high = r.Low, r.High
		}
	}
}

func str(v dwarf.Num) dwarf.Str {
	if v.Class != dwarf.ClassString {
		return 0
	}
	return dwarf.Str(v.U)
}

// small is a number of a file or a line, 0 for none and for what is none.
func small(v dwarf.Num) uint32 {
	if v.Class != dwarf.ClassConst || v.U > math.MaxUint32 {
		return 0
	}
	return uint32(v.U)
}
