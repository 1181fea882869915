package codegen

import (
	"testing"

	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/types"
)

// TestVTables: the map has each vtable's class and extent, and what leads to objects is
// known.
func TestVTables(t *testing.T) {
	word := &types.Type{Name: "u64", Kind: types.Uint, Size: 8, Align: 8}
	dyn := &types.Type{Name: "dyn T", Kind: types.Dyn}
	object := &class{id: 0, object: true, edges: []types.Edge{{Ptr: 0x1000, Len: -1, Elem: word}, {Ptr: 0x2000, Len: -1, Elem: word}}}
	plain := &class{id: 1, size: 8}
	holder := &class{id: 2, size: 16, edges: []types.Edge{{Ptr: 0, Len: 8, Elem: dyn}}}
	cs := &classes{list: []*class{object, plain, holder}, byType: map[*types.Type]*class{word: plain, dyn: object}}
	cs.lead()
	if !object.leads || plain.leads || !holder.leads {
		t.Errorf("leads: %t, %t, %t", object.leads, plain.leads, holder.leads)
	}
	if object.scanned() || !cs.deep(holder.edges) {
		t.Error("an object is scanned, or copied at once")
	}
	if below := cs.below(holder.edges); len(below) != 0 {
		t.Errorf("%d classes are scanned", len(below))
	}
	kvs := cs.vtables(newSizes(program.Limits{MaxStr: 64, MaxItems: 4, Depth: 4}, 0))
	if len(kvs) != 2 {
		t.Fatalf("%d vtables", len(kvs))
	}
	for i, kv := range kvs {
		want := vtableKey{VTable: 0x1000 * uint64(i+1), Class: 0}
		if kv.Key != want || kv.Value != (vtableValue{Extent: 8 | 1<<extentMaxShift, Class: 1}) {
			t.Errorf("%+v → %+v", kv.Key, kv.Value)
		}
	}
}
