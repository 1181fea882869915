package index

import (
	"runtime"
	"sync"

	"ferrotrace/internal/dwarf"
)

// scope is a namespace, or a type that functions are declared in.
type scope struct {
	parent *scope
	name   string
}

// subprogram is one DW_TAG_subprogram: a definition with code, an abstract one that
// is only inlined, or a declaration that a definition refers to.
type subprogram struct {
	unit     *dwarf.Unit
	off      dwarf.Offset
	ref      dwarf.Offset // abstract origin or specification, 0 for none
	origin   bool         // ref is an abstract origin: the parameters stand there
	scope    *scope
	name     string
	linkage  string
	declFile uint64
	declLine uint64
	low      uint64 // the lowest address of live code, 0 for none
	high     uint64 // behind the range that begins at low
	split    bool   // there are more live ranges
	noreturn bool
	inlines  []inlined
	// instances is how many of them there are, before they have been collected.
	instances int32
	fn        *Function // whose subprogram it is, nil if it has no code
}

// inlined is one DW_TAG_inlined_subroutine in a subprogram with live code.
type inlined struct {
	off, origin dwarf.Offset
	parent      int32 // index of the instance that this one was inlined into, -1 for none
}

// scan walks all units, in parallel, and returns their subprograms in the order of
// the file. Of what is broken it returns the first error beside what could be read.
func scan(d *dwarf.Data, executable func(uint64) bool) ([]*subprogram, error) {
	units := d.Units()
	found := make([][]*subprogram, len(units))
	errs := make([]error, len(units))
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), len(units)) {
		wg.Go(func() {
			var w walk
			for i := range next {
				found[i], errs[i] = w.unit(units[i], executable)
			}
		})
	}
	for i := range units {
		next <- i
	}
	close(next)
	wg.Wait()
	n := 0
	for _, f := range found {
		n += len(f)
	}
	all := make([]*subprogram, 0, n)
	for _, f := range found {
		all = append(all, f...)
	}
	for _, err := range errs {
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// level is what an entry on the way from the root to the current one means for the
// entries below it.
type level struct {
	scope  *scope
	sub    *subprogram
	inline int32
}

// walk goes through one unit after the other, with memory that it uses again.
type walk struct {
	levels  []level
	inlines []inlinedIn
}

// inlinedIn is an inlined instance in a subprogram.
type inlinedIn struct {
	sub *subprogram
	inlined
}

func (w *walk) unit(u *dwarf.Unit, executable func(uint64) bool) ([]*subprogram, error) {
	var subs []*subprogram
	var made slab[subprogram]
	var scopes slab[scope]
	levels := append(w.levels[:0], level{inline: -1})
	w.inlines = w.inlines[:0]
	c := u.Cursor(0)
	for c.Next() {
		e := c.Entry()
		depth := c.Depth()
		if depth >= len(levels) {
			levels = append(levels, levels[len(levels)-1])
		}
		levels = levels[:depth+1]
		here := level{inline: -1}
		if depth > 0 {
			here = levels[depth-1]
		}
		switch e.Tag {
		case dwarf.TagNamespace, dwarf.TagModule, dwarf.TagStructureType, dwarf.TagUnionType, dwarf.TagEnumerationType:
			sc := scopes.new()
			sc.parent, sc.name = here.scope, e.String(dwarf.AttrName)
			here.scope = sc
		case dwarf.TagSubprogram:
			s := made.new()
			s.unit, s.off, s.scope = u, e.Offset, here.scope
			readSubprogram(s, e, executable)
			subs = append(subs, s)
			here.sub, here.inline = s, -1
		case dwarf.TagInlinedSubroutine:
			if here.sub != nil && here.sub.low != 0 {
				origin, _ := e.Ref(dwarf.AttrAbstractOrigin)
				w.inlines = append(w.inlines, inlinedIn{here.sub, inlined{off: e.Offset, origin: origin, parent: here.inline}})
				here.inline = here.sub.instances
				here.sub.instances++
			}
		case dwarf.TagMember, dwarf.TagFormalParameter, dwarf.TagVariable, dwarf.TagTemplateTypeParameter, dwarf.TagVariantPart, dwarf.TagEnumerator:
			if e.HasChildren {
				c.Skip()
			}
			continue
		}
		levels[depth] = here
	}
	w.levels = levels
	all := make([]inlined, len(w.inlines))
	for _, in := range w.inlines {
		if s := in.sub; s.inlines == nil {
			s.inlines, all = all[:0:s.instances], all[s.instances:]
		}
		in.sub.inlines = append(in.sub.inlines, in.inlined)
	}
	return subs, c.Err()
}

// readSubprogram reads an entry into s. It goes through the attributes once: there are
// some hundred thousand entries with a dozen of them each.
func readSubprogram(s *subprogram, e *dwarf.Entry, executable func(uint64) bool) {
	hasCode := false
	for attr, v := range e.Attrs() {
		switch attr {
		case dwarf.AttrName:
			s.name = v.Text()
		case dwarf.AttrLinkageName:
			s.linkage = v.Text()
		case dwarf.AttrMIPSLinkageName:
			if s.linkage == "" {
				s.linkage = v.Text()
			}
		case dwarf.AttrDeclFile:
			s.declFile = v.Number()
		case dwarf.AttrDeclLine:
			s.declLine = v.Number()
		case dwarf.AttrAbstractOrigin, dwarf.AttrSpecification:
			origin := attr == dwarf.AttrAbstractOrigin
			if v.Class == dwarf.ClassRef && (origin || !s.origin) {
				s.ref, s.origin = dwarf.Offset(v.U), origin
			}
		case dwarf.AttrNoreturn:
			s.noreturn = v.Class == dwarf.ClassFlag && v.U != 0
		case dwarf.AttrLowPC, dwarf.AttrRanges:
			hasCode = true
		}
	}
	if !hasCode {
		return
	}
	// Half of all subprograms in a linked file are dead: their code was dropped and
	// their addresses are 0 or tombstones.
	ranges, err := e.Ranges()
	if err != nil {
		return
	}
	for _, r := range ranges {
		if !executable(r.Low) {
			continue
		}
		s.split = s.split || s.low != 0
		if s.low == 0 || r.Low < s.low {
			s.low, s.high = r.Low, r.High
		}
	}
}

// slab makes values of one type, many with each allocation.
type slab[T any] []T

func (s *slab[T]) new() *T {
	if len(*s) == cap(*s) {
		*s = make([]T, 0, min(256, max(8, 2*cap(*s))))
	}
	*s = (*s)[:len(*s)+1]
	return &(*s)[len(*s)-1]
}

// subprograms are found by their offset. buckets say where in all, which is in order of
// offset, those begin that are at 1<<bucketBits bytes or multiples of it: there are too
// many for a map, and too many questions for a search.
type subprograms struct {
	all     []*subprogram
	offsets []dwarf.Offset
	buckets []int32
}

const bucketBits = 7

func newSubprograms(all []*subprogram) subprograms {
	s := subprograms{all: all, offsets: make([]dwarf.Offset, len(all))}
	if n := len(all); n > 0 {
		s.buckets = make([]int32, 0, all[n-1].off>>bucketBits+1)
	}
	for i, sub := range all {
		s.offsets[i] = sub.off
		for len(s.buckets) <= int(sub.off>>bucketBits) {
			s.buckets = append(s.buckets, int32(i))
		}
	}
	return s
}

// at is the subprogram whose entry is at off, nil if none is.

func (s *subprograms) at(off dwarf.Offset) *subprogram {
	if off>>bucketBits >= dwarf.Offset(len(s.buckets)) {
		return nil
	}
	for i := int(s.buckets[off>>bucketBits]); i < len(s.offsets) && s.offsets[i] <= off; i++ {
		if s.offsets[i] == off {
			return s.all[i]
		}
	}
	return nil
}
