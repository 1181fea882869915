package codegen

import (
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Trait objects. What is behind their address says their vtable only, of which there may
// be hundreds: a map has their classes and extents, by the address as linked.

// vtableKey is a key of mapVTables.
type vtableKey struct {
	VTable uint64
	Class  uint64 // of the object
}

// vtableValue is its element.
type vtableValue struct {
	Extent uint64
	Class  uint64
}

const (
	vtableExtent = 0
	vtableClass  = 8
)

// objectEdges are the types that an object may be of, by vtable, and edges to each that
// has bytes.
func objectEdges(t *types.Type) (impls map[uint64]*types.Type, edges []types.Edge) {
	impls = make(map[uint64]*types.Type)
	for _, impl := range t.Impls() {
		impls[impl.VTable] = impl.Type
		if impl.Type != nil && impl.Type.Size > 0 {
			edges = append(edges, types.Edge{Ptr: int64(impl.VTable), Len: -1, Elem: impl.Type})
		}
	}
	return impls, edges
}

// vtables are the contents of mapVTables.
func (cs *classes) vtables(s sizes) []ebpf.MapKV {
	var all []ebpf.MapKV
	for _, c := range cs.list {
		if !c.object {
			continue
		}
		for _, e := range c.edges {
			class, extent := cs.target(e, s)
			all = append(all, ebpf.MapKV{
				Key:   vtableKey{uint64(e.Ptr), uint64(c.id)},
				Value: vtableValue{uint64(extent), uint64(class)},
			})
		}
	}
	return all
}

// object pushes the address of an object of the given class, unless its vtable is none
// that is known.
func object() *fn {
	f := newFn(fnObject, ptr("slot"), num("addr"), num("vtable"), num("class"))
	out := f.newLabel("out")
	const key = -16
	f.mov(r6, r1)
	f.mov(r7, r2)
	f.load(r1, r6, slotBias, u64)
	f.emit(asm.Sub.Reg(r3, r1))
	f.store(r10, key, r3, u64)
	f.store(r10, key+8, r4, u64)
	f.mov(r2, r10)
	f.addImm(r2, key)
	f.loadMap(r1, mapVTables)
	f.helper(asm.FnMapLookupElem)
	f.emit(asm.JEq.Imm(r0, 0, out))
	f.mov(r1, r6)
	f.mov(r2, r7)
	f.imm(r3, 1)
	f.load(r4, r0, vtableClass, u64)
	f.load(r5, r0, vtableExtent, u64)
	f.call(fnPush)
	f.place(out)
	f.exitWith(0)
	return f
}
