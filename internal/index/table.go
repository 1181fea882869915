package index

import (
	"sort"

	"ferrotrace/internal/dwarf"
)

// table is what a file has of functions. It is made by a scan of the debug info, or comes
// from the cache. It refers to itself by index and to strings by where they stand in the
// debug info: so there are no pointers in it for the garbage collector to follow, and it
// is the same in memory and on disk.
type table struct {
	subs      subprograms
	inlines   []inlined // those of one subprogram together
	scopes    []scope   // parents before what is in them
	functions []function
	concrete  []int32 // subprograms, those of one function together
	places    []inlineRef
	merged    []merging
}

// scope is a namespace, or a type that functions are declared in.
type scope struct {
	name   dwarf.Str
	parent int32 // -1 for none
	_      int32
}

// subprogram is one DW_TAG_subprogram: a definition with code, an abstract one that
// is only inlined, or a declaration that a definition refers to.
type subprogram struct {
	off       dwarf.Offset
	ref       dwarf.Offset // abstract origin or specification, 0 for none
	low       uint64       // the lowest address of live code, 0 for none
	high      uint64       // behind the range that begins at low
	name      dwarf.Str
	linkage   dwarf.Str
	declFile  uint32
	declLine  uint32
	unit      int32 // index in Data.Units
	scope     int32 // -1 for none
	inlines   int32 // the first of them
	instances int32 // how many they are
	fn        int32 // whose subprogram it is, -1 if it has no code
	flags     subFlags
}

type subFlags uint32

const (
	subOrigin   subFlags = 1 << iota // ref is an abstract origin: the parameters stand there
	subSplit                         // there are more live ranges
	subNoreturn                      // it is marked as one that does not return
)

// inlined is one DW_TAG_inlined_subroutine in a subprogram with live code.
type inlined struct {
	off, origin dwarf.Offset
	parent      int32 // number of the instance that this one was inlined into, -1 for none
	of          int32 // the function, -1 if its entry is not there
}

// function is what there is of a Function.
type function struct {
	abstract                  int32 // the subprogram that states its parameters; -1 for a bare symbol
	symbol                    int32 // of a bare symbol: which
	concrete, inlines, merged part
}

// hidden says whether f has no code that is not another's: it only names that one.
func (f *function) hidden() bool { return f.abstract >= 0 && f.concrete.n+f.inlines.n == 0 }

// inlineRef is an inlined instance: number n in a subprogram.
type inlineRef struct{ in, n int32 }

// merging says that a function's code is also that of another or, if that is -1, of the
// function that a symbol names.
type merging struct{ fn, symbol int32 }

// part is one of a slice.
type part struct{ first, n int32 }

func of[T any](all []T, p part) []T { return all[p.first : p.first+p.n : p.first+p.n] }

// instances are what was inlined into s, by number.
func (t *table) instances(s *subprogram) []inlined {
	return of(t.inlines, part{s.inlines, s.instances})
}

// subprograms are found by their offset.
type subprograms struct {
	all []subprogram // in order of offset
	// buckets say where in all those begin that are at 1<<bucketBits bytes or multiples of
	// it: while functions are made there are too many questions for a search. Nil if not.
	buckets []int32
}

const bucketBits = 7

func newSubprograms(all []subprogram) subprograms {
	s := subprograms{all: all}
	if n := len(all); n > 0 {
		s.buckets = make([]int32, 0, all[n-1].off>>bucketBits+1)
	}
	for i := range all {
		for len(s.buckets) <= int(all[i].off>>bucketBits) {
			s.buckets = append(s.buckets, int32(i))
		}
	}
	return s
}

// index is that of the subprogram whose entry is at off, -1 if none is.
func (s *subprograms) index(off dwarf.Offset) int32 {
	i := 0
	if s.buckets == nil {
		i = sort.Search(len(s.all), func(i int) bool { return s.all[i].off >= off })
	} else if b := off >> bucketBits; b < dwarf.Offset(len(s.buckets)) {
		i = int(s.buckets[b])
	} else {
		return -1
	}
	for ; i < len(s.all) && s.all[i].off <= off; i++ {
		if s.all[i].off == off {
			return int32(i)
		}
	}
	return -1
}

// at is the subprogram whose entry is at off, nil if none is.
func (s *subprograms) at(off dwarf.Offset) *subprogram {
	if i := s.index(off); i >= 0 {
		return &s.all[i]
	}
	return nil
}
