package codegen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/rust/types"
)

// class is a set of types whose bytes are captured alike: of one size, with the
// same edges to targets of the same classes. Records name classes, not types, so
// that functions over like types share their programs.
type class struct {
	id    uint32
	size  int64
	str   bool
	table bool         // of a hash table's buckets
	edges []types.Edge // of one of the types; their Elems stand for their classes
	// object: what there is says its vtable. The edges, to each of the types that it may
	// be of, are then from the addresses of the vtables.
	object bool
	// leads says whether pointers lead from it to objects, or it is one.
	leads bool
}

// classes are those of all types that a program's values lead to.
type classes struct {
	byType map[*types.Type]*class
	list   []*class // by id
	// objects are the types that objects may be of, by vtable; nil where it does not tell.
	objects map[*types.Type]map[uint64]*types.Type
}

// maxScan bounds the size of elements that are scanned for pointers: offsets in
// instructions are signed 16-bit numbers.
const maxScan = 16 << 10

// classify sorts types, and what they lead to, into classes. It starts from what
// a type says of itself and splits classes whose members lead to different ones,
// until none does (partition refinement). The order of roots decides the ids.
func classify(roots []*types.Type) *classes {
	cs := &classes{byType: make(map[*types.Type]*class), objects: make(map[*types.Type]map[uint64]*types.Type)}
	var order []*types.Type
	for queue := slices.Clone(roots); len(queue) > 0; queue = queue[1:] {
		t := queue[0]
		if cs.byType[t] != nil {
			continue
		}
		c := &class{size: t.Size, str: t.Kind == types.Str, table: t.Std != nil && t.Std.Kind == types.Bucket}
		if c.object = t.Object(); c.object {
			cs.objects[t], c.edges = objectEdges(t)
		} else {
			c.edges = edgesOf(t)
		}
		cs.byType[t] = c
		order = append(order, t)
		for _, e := range c.edges {
			queue = append(queue, e.Elem)
		}
	}

	color := make(map[*types.Type]int, len(order))
	key := make([]string, len(order))
	for i, t := range order {
		key[i] = cs.byType[t].key()
	}
	for n := 0; ; {
		numbers := make(map[string]int)
		for i, t := range order {
			if _, ok := numbers[key[i]]; !ok {
				numbers[key[i]] = len(numbers)
			}
			color[t] = numbers[key[i]]
		}
		if len(numbers) == n {
			break
		}
		n = len(numbers)
		for i, t := range order {
			var b strings.Builder
			fmt.Fprint(&b, color[t])
			for _, e := range cs.byType[t].edges {
				fmt.Fprint(&b, " ", color[e.Elem])
			}
			key[i] = b.String()
		}
	}

	for _, t := range order {
		if color[t] == len(cs.list) {
			c := cs.byType[t]
			c.id = uint32(len(cs.list))
			cs.list = append(cs.list, c)
		}
		cs.byType[t] = cs.list[color[t]]
	}
	cs.lead()
	return cs
}

// lead finds what leads to objects.
func (cs *classes) lead() {
	for changed := true; changed; {
		changed = false
		for _, c := range cs.list {
			if !c.leads && (c.object || cs.leads(c.edges)) {
				c.leads, changed = true, true
			}
		}
	}
}

// leads says whether edges lead to objects.
func (cs *classes) leads(edges []types.Edge) bool {
	return slices.ContainsFunc(edges, func(e types.Edge) bool { return cs.byType[e.Elem].leads })
}

// maxIntervals bounds what is compared to tell whether an edge is alive.
const maxIntervals = 64

// edgesOf are t's edges, as far as code can be made for them. What the others
// lead to is not in a record, and prints as cut.
func edgesOf(t *types.Type) []types.Edge {
	if t.Size <= 0 {
		return nil
	}
	all, _ := t.Edges()
	var edges []types.Edge
	for _, e := range all {
		if covered(e, 0, min(t.Size, maxScan)) && intervals(e) <= maxIntervals {
			edges = append(edges, e)
		}
	}
	return edges
}

// covered says whether all that an edge looks at is at lo or above, and below hi.
func covered(e types.Edge, lo, hi int64) bool {
	in := func(off, n int64) bool { return off >= lo && off <= hi-n }
	for _, g := range e.Guards {
		if !in(g.Off, int64(g.Size)) {
			return false
		}
	}
	for _, w := range words(e) {
		if !in(w, 8) {
			return false
		}
	}
	return true
}

// words are the offsets of the words that an edge takes its address and count from.
func words(e types.Edge) []int64 {
	w := []int64{e.Ptr}
	if e.Len >= 0 {
		w = append(w, e.Len)
	}
	if e.Part != types.NoRing {
		w = append(w, e.Head, e.Cap)
	}
	return w
}

func intervals(e types.Edge) int {
	n := 0
	for _, g := range e.Guards {
		n += len(g.Want)
	}
	return n
}

// key is what decides, apart from the classes of its edges' targets, whether
// types are captured alike.
func (c *class) key() string {
	var b strings.Builder
	fmt.Fprint(&b, c.size, c.str, c.table, c.object)
	for _, e := range c.edges {
		fmt.Fprint(&b, ";", e.Ptr, e.Len, e.Str, e.Add, e.Part, e.Head, e.Cap, e.Ends, e.Hop, e.Guards)
	}
	return b.String()
}

// scanned says whether an element has pointers to look for.
func (c *class) scanned() bool { return len(c.edges) > 0 && !c.object }

// bucketsFor is how many buckets of a hash table are read for each item to be shown.
const bucketsFor = 8

// target is the class and the extent of what an edge leads to.
func (cs *classes) target(e types.Edge, s sizes) (id, extent int64) {
	c := cs.byType[e.Elem]
	count := s.limits.MaxItems
	switch {
	case e.Str:
		count = s.limits.MaxStr
	case e.Len < 0:
		count = 1
	}
	size := c.size
	if c.table {
		// Its buckets are an eighth full at least, unless many entries were removed.
		count, extent = bucketsFor*count, extentTable
	}
	switch {
	case c.table && size >= int64(s.region):
		size, count = 1, 0
	case size > int64(s.region):
		// Its head is all that there is room for.
		size, count = int64(s.region), min(count, 1)
	case c.scanned():
		extent |= extentScan
	}
	if c.table {
		count = min(count, s.region/int(size+1))
	} else {
		count = min(count, s.region/int(size))
	}
	if e.Hop {
		extent |= extentHop
	}
	return int64(c.id), extent | size | int64(count)<<extentMaxShift
}

// maxEdges bounds the edges of the classes that one program scans, and with them
// the verifier's work.
const maxEdges = 2560

// maxClasses bounds their number: a program has at most 256 functions
// (BPF_MAX_SUBPROGS).
const maxClasses = 160

// below are the classes that have to be scanned to follow the edges, by id. If
// there are too many, the nearest are kept.
func (cs *classes) below(edges []types.Edge) []*class {
	seen := make(map[*class]bool)
	var queue, found []*class
	follow := func(edges []types.Edge) {
		for _, e := range edges {
			if t := cs.byType[e.Elem]; !seen[t] && len(t.edges) > 0 {
				seen[t] = true
				queue = append(queue, t)
			}
		}
	}
	follow(edges)
	for n := 0; len(queue) > 0; queue = queue[1:] {
		c := queue[0]
		if c.scanned() {
			if n += len(c.edges); n > maxEdges || len(found) == maxClasses {
				break
			}
			found = append(found, c)
		}
		follow(c.edges)
	}
	slices.SortFunc(found, func(a, b *class) int { return cmp.Compare(a.id, b.id) })
	return found
}
