package types

// MaxEdges bounds what Edges returns for one type, and with it the code that is
// generated to capture a value.
const MaxEdges = 128

// Edge is a place in a value of a type that holds an address which leads to more
// bytes that {:?} prints.
type Edge struct {
	// Guards must all hold, or there is no such address: they say which variants
	// are alive.
	Guards []Guard
	// Ptr is the offset of the address.
	Ptr int64
	// Len is the offset of the count of elements (8 bytes), or of the address of the
	// vtable if Elem is an Object; -1 for one element.
	Len int64
	// Elem is the type of one element, never of size 0 but for an Object. It is StrBytes if Str.
	// Elements that are Buckets are those of a Table: their count is one more than is
	// at Len, they end at the address, and behind it is a control byte for each.
	Elem *Type
	// Str: the elements are the bytes of a string, bounded by MaxStr in place of
	// MaxItems.
	Str bool
	// Add is what the elements are behind the address.
	Add int64
	// Part is which part of a Ring's elements: those from Head up to Cap, or those
	// that did not fit there, at the address itself.
	Part      RingPart
	Head, Cap int64
	Ends      bool // as in StdInfo
	// Hop: the address leads from one part of a container to another. It is no
	// pointer to whoever reads the text, but an item.
	Hop bool
}

// RingPart is a part of a Ring's elements.
type RingPart uint8

const (
	NoRing RingPart = iota
	RingFirst
	RingRest
)

// Plain says whether an edge is an address and a count as they stand.
func (e Edge) Plain() bool {
	return e.Add == 0 && e.Part == NoRing && !e.Hop && !e.Elem.Object() && (e.Elem.Std == nil || e.Elem.Std.Kind != Bucket)
}

// Guard is an unsigned comparison of the Size (1, 2, 4, 8 or 16) little-endian
// bytes at Off: the value must be in one of Want, or in none if Not. Of at most 8
// bytes only the bits of Mask count, unless it is 0.
type Guard struct {
	Off  int64
	Size int
	Want []Interval
	Not  bool
	Mask uint32
}

// Edges lists the addresses in a value of type t that have to be followed to
// print it: those in its fields, elements and variants too, but not those that
// are in what these lead to. Raw pointers and function pointers are not followed. With a count of 0 there is nothing at the address, which may
// dangle. complete is false if there are more than MaxEdges.
func (t *Type) Edges() (edges []Edge, complete bool) {
	w := edgeWalk{steps: 16 * MaxEdges, complete: true}
	w.walk(t, 0, nil, 0)
	return w.edges, w.complete
}

type edgeWalk struct {
	edges    []Edge
	steps    int // bounds the walk of arrays and broken graphs
	complete bool
}

func (w *edgeWalk) walk(t *Type, off int64, guards []Guard, depth int) {
	if !t.mayPoint(depth) {
		return
	}
	if w.steps--; w.steps < 0 || depth > maxNesting {
		w.complete = false
		return
	}
	switch {
	case t.Std != nil:
		w.std(t.Std, off, guards, depth)
	case t.Kind == Pointer:
		p := t.Pointer
		if p.Kind != Ref && p.Kind != RefMut && p.Kind != Box {
			return
		}
		e := Edge{Guards: guards, Ptr: off + p.PtrOff, Len: -1, Elem: p.Target}
		switch {
		case p.Meta == VTable && p.Target.Object():
			e.Len = off + p.MetaOff
		case p.Meta == VTable:
			return
		case p.Meta == Length && p.Target.Kind == Slice:
			e.Len, e.Elem = off+p.MetaOff, p.Target.Elem
		case p.Meta == Length && p.Target.Kind == Str:
			e.Len, e.Str = off+p.MetaOff, true
		case p.Meta == Length:
			return // a struct with an unsized tail
		}
		w.add(e)
	case t.Kind == Array:
		for i := range t.Count {
			if w.steps < 0 {
				return
			}
			w.walk(t.Elem, off+i*t.Elem.Size, guards, depth+1)
		}
	case t.Enum != nil:
		w.fields(t.Fields, off, guards, depth)
		w.variants(t, off, guards, depth)
	case t.Kind == Struct, t.Kind == Tuple:
		w.fields(t.Fields, off, guards, depth)
	}
}

// nonzero is the guard that the word at off is not 0.
func nonzero(off int64) Guard {
	return Guard{Off: off, Size: 8, Want: []Interval{{}}, Not: true}
}

func (w *edgeWalk) std(s *StdInfo, off int64, guards []Guard, depth int) {
	if s.Kind == Uninit {
		return
	}
	with := func(g ...Guard) []Guard { return append(guards[:len(guards):len(guards)], g...) }
	e := Edge{Guards: guards, Ptr: off + s.Ptr, Len: -1, Elem: s.Elem}
	switch s.Kind {
	case String, Vec:
		e.Len, e.Str = off+s.Len, s.Kind == String
		w.add(e)
	case Shared:
		e.Add = s.Add
		if s.Len >= 0 {
			e.Len, e.Str = off+s.Len, s.Elem.Kind == Str
		}
		w.add(e)
	case Ring:
		e.Len, e.Head, e.Cap, e.Ends = off+s.Len, off+s.Head, off+s.Cap, s.Ends
		for _, e.Part = range []RingPart{RingFirst, RingRest} {
			w.add(e)
		}
	case Table:
		e.Guards, e.Len = with(nonzero(off+s.Len)), off+s.Cap
		w.add(e)
	case Chain:
		e.Guards = with(nonzero(off + s.Len))
		w.add(e)
	case Tree:
		for height, node := range s.Nodes {
			h := U128{Lo: uint64(height)}
			e.Guards, e.Elem = with(nonzero(off+s.Len), Guard{Off: off + s.Height, Size: 8, Want: []Interval{{h, h}}}), node
			w.add(e)
		}
	case Link:
		e.Guards, e.Hop = with(nonzero(e.Ptr)), true
		w.add(e)
		w.walk(s.Item.Type, off+s.Item.Offset, guards, depth+1)
	case Bucket:
		w.walk(s.Item.Type, off+s.Item.Offset, guards, depth+1)
	case IOError:
		tag := func(v uint64) Guard {
			return Guard{Off: e.Ptr, Size: 1, Want: []Interval{{U128{Lo: v}, U128{Lo: v}}}, Mask: 3}
		}
		e.Guards = with(tag(TagMessage))
		w.add(e)
		e.Guards, e.Add, e.Elem = with(tag(TagCustom)), -TagCustom, s.Child
		w.add(e)
	case Once:
		done := U128{Lo: s.Done}
		w.walk(s.Item.Type, off+s.Item.Offset, with(Guard{Off: off + s.State, Size: 4, Want: []Interval{{done, done}}}), depth+1)
	case TreeNode:
		atLeast := func(n int) []Guard {
			return with(Guard{Off: off + s.Len, Size: 2, Want: []Interval{{U128{Lo: uint64(n)}, U128{Lo: NodeCap}}}})
		}
		for i := range s.Follow {
			w.add(Edge{Guards: atLeast(i), Ptr: off + s.Children + int64(8*i), Len: -1, Elem: s.Child, Hop: true})
		}
		for i := range NodeCap {
			for _, f := range []Field{s.Keys, s.Vals} {
				if f.Type.mayPoint(depth + 1) {
					w.walk(f.Type, off+f.Offset+int64(i)*f.Type.Size, atLeast(i+1), depth+1)
				}
			}
		}
	}
}

func (w *edgeWalk) fields(fields []Field, off int64, guards []Guard, depth int) {
	for _, f := range fields {
		w.walk(f.Type, off+f.Offset, guards, depth+1)
	}
}

func (w *edgeWalk) variants(t *Type, off int64, guards []Guard, depth int) {
	for i, v := range t.Enum.Variants {
		if v.Uninhabited || len(v.Fields) == 0 || t.Enum.Tag == nil && i != t.Enum.Only() {
			continue
		}
		g := guards
		if guard, ok := t.guard(i); ok {
			guard.Off += off
			g = append(guards[:len(guards):len(guards)], guard)
		}
		w.fields(v.Fields, off, g, depth)
	}
}

// guard is what holds if variant i is alive; ok is false if nothing has to.
func (t *Type) guard(i int) (guard Guard, ok bool) {
	tag := t.Enum.Tag
	if tag == nil {
		return Guard{}, false
	}
	g := Guard{Off: tag.Offset, Size: tag.Size, Want: t.Enum.Variants[i].Values}
	if len(g.Want) == 0 {
		g.Not = true
		for _, v := range t.Enum.Variants {
			g.Want = append(g.Want, v.Values...)
		}
		if len(g.Want) == 0 {
			return Guard{}, false
		}
	}
	return g, true
}

func (w *edgeWalk) add(e Edge) {
	if e.Elem == nil || e.Elem.Size <= 0 && !e.Elem.Object() {
		return
	}
	if len(w.edges) == MaxEdges {
		w.complete = false
		return
	}
	w.edges = append(w.edges, e)
}

// maxNesting bounds how deep types lie in one another by value. A graph in which
// a type contains itself by value comes from broken debug info.
const maxNesting = 64

// mayPoint says whether it is worth looking for edges in t: it spares the walk of
// large arrays of plain data.
func (t *Type) mayPoint(depth int) bool {
	for t != nil && t.Kind == Array && depth < maxNesting {
		t = t.Elem
		depth++
	}
	if t == nil || t.Size <= 0 {
		return false
	}
	switch t.Kind {
	case Struct, Tuple, Enum, Coroutine, Pointer:
		return true
	}
	return false
}
