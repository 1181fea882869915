package types

// MaxEdges bounds what Edges returns for one type, and with it the code that is
// generated to capture a value.
const MaxEdges = 64

// Edge is a place in a value of a type that holds an address which leads to more
// bytes that {:?} prints.
type Edge struct {
	// Guards must all hold, or there is no such address: they say which variants
	// are alive.
	Guards []Guard
	// Ptr is the offset of the address.
	Ptr int64
	// Len is the offset of the count of elements (8 bytes); -1 for one element.
	Len int64
	// Elem is the type of one element, never of size 0. It is StrBytes if Str.
	Elem *Type
	// Str: the elements are the bytes of a string, bounded by MaxStr in place of
	// MaxItems.
	Str bool
}

// Guard is an unsigned comparison of the Size (1, 2, 4, 8 or 16) little-endian
// bytes at Off: the value must be in one of Want, or in none if Not.
type Guard struct {
	Off  int64
	Size int
	Want []Interval
	Not  bool
}

// Edges lists the addresses in a value of type t that have to be followed to
// print it: those in its fields, elements and variants too, but not those that
// are in what these lead to. Raw pointers, function pointers and trait objects
// are not followed. With a count of 0 there is nothing at the address, which may
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
		w.add(Edge{guards, off + t.Std.Ptr, off + t.Std.Len, t.Std.Elem, t.Std.Kind == String})
	case t.Kind == Pointer:
		p := t.Pointer
		if p.Kind != Ref && p.Kind != RefMut && p.Kind != Box {
			return
		}
		e := Edge{Guards: guards, Ptr: off + p.PtrOff, Len: -1, Elem: p.Target}
		switch {
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
	if e.Elem == nil || e.Elem.Size <= 0 {
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
