package dwarf_test

import (
	"testing"

	"ferrotrace/internal/dwarf"
)

// TestNextTag: what NextTag goes to, what that is below of, and what is picked of it are as
// Next and Val have it.
func TestNextTag(t *testing.T) {
	tags := dwarf.Tags(dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagStructureType, dwarf.TagNamespace)
	attrs := dwarf.Attrs(dwarf.AttrName, dwarf.AttrLinkageName, dwarf.AttrDeclLine, dwarf.AttrAbstractOrigin, dwarf.AttrLowPC, dwarf.AttrHighPC)
	each(t, func(t *testing.T, path string, rust bool) {
		_, d := open(t, path)
		n := 0
		for _, u := range d.Units() {
			all, some := u.Cursor(0), u.Cursor(0)
			var above, left []dwarf.Offset // by depth; and of those, what NextTag went to
			for all.Next() {
				e := *all.Entry()
				above = above[:all.Depth()]
				if wanted := tags.Has(e.Tag); wanted {
					if !some.NextTag(&tags) || some.Entry().Offset != e.Offset || some.Depth() != all.Depth() {
						t.Fatalf("NextTag goes to %#x at %d, Next to %#x at %d", some.Entry().Offset, some.Depth(), e.Offset, all.Depth())
					}
					for depth := some.Low(); depth < len(left); depth++ {
						left[depth] = 0
					}
					for len(left) <= all.Depth() {
						left = append(left, 0)
					}
					for depth, off := range above {
						if off != left[depth] {
							t.Fatalf("entry at %#x is below %#x at depth %d; by Low, below %#x", e.Offset, off, depth, left[depth])
						}
					}
					left[all.Depth()] = e.Offset
					above = append(above, e.Offset)
					picked(t, d, &e, &attrs)
					n++
				} else {
					above = append(above, 0)
				}
			}
			if some.NextTag(&tags) || some.Err() != nil {
				t.Errorf("NextTag goes on, to %#x, or fails: %v", some.Entry().Offset, some.Err())
			}
		}
		if n == 0 {
			t.Error("no entries")
		}
	})
}

func picked(t *testing.T, d *dwarf.Data, e *dwarf.Entry, set *dwarf.AttrSet) {
	got := map[dwarf.Attr]dwarf.Num{}
	e.Pick(set, func(a dwarf.Attr, n dwarf.Num) { got[a] = n })
	for a, v := range e.Attrs() {
		n, ok := got[a]
		delete(got, a)
		switch {
		case ok != set.Has(a):
			t.Errorf("entry at %#x: %v picked: %v", e.Offset, a, ok)
		case !ok:
		case n.Class != v.Class:
			t.Errorf("entry at %#x: %v is of class %d, picked %d", e.Offset, a, v.Class, n.Class)
		case v.Class == dwarf.ClassString && d.Str(dwarf.Str(n.U)) != v.Text():
			t.Errorf("entry at %#x: %v is %q, picked %q", e.Offset, a, v.Text(), d.Str(dwarf.Str(n.U)))
		case v.Class != dwarf.ClassString && n.U != v.U:
			t.Errorf("entry at %#x: %v is %d, picked %d", e.Offset, a, v.U, n.U)
		}
	}
	if len(got) > 0 {
		t.Errorf("entry at %#x: picked what it has not: %v", e.Offset, got)
	}
}
