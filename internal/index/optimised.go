package index

import (
	"slices"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// optimised is the place of a variable at an address of optimised code. What the debug
// info says of that address is believed, but for
//
//   - a slot of the frame that the code has not just stored and does not read again before
//     it is written: other variables may share it, and what no one reads need not be stored;
//   - what is set by code of the probed line or a later one just before the site: the
//     optimiser has moved that up;
//   - what is in a coroutine's memory, unless that is certain (saved);
//   - memory behind a pointer that the code has no more use for, that this function may
//     still write, or that it frees: it may be gone, or not written yet. A parameter that
//     only borrows, and not mutably, is valid and unchanged throughout.
func (in *LineInstance) optimised(fl *flow, v *variable, addr uint64) location.Place {
	ix := in.In.Fn.ix
	low := in.In.Outer.Low()
	place, _ := ix.locate(&v.Param, low, addr)
	if _, gone := place.Gone(); gone || len(place.Pieces) == 0 {
		return place
	}
	at, ok := fl.code.Index(addr)
	if !ok || in.movedUp(fl, v, at) {
		return v.missing(uncertain)
	}
	if fl.base != nil {
		place = place.Rebase(fl.base)
	}
	if usesFrame(place) {
		return v.missing(location.OptimizedOut)
	}
	if cfa, err := ix.cfa(addr); err == nil {
		place = place.RebaseCFA(cfa)
	}
	if in.In.Fn.resumesCoroutine() && in.mayBeSaved(place) && !in.saved(fl, v, place, at, false) {
		return v.missing(uncertain)
	}
	for _, s := range place.FrameSlots() {
		slot := frameSlot{hardware(s.Reg), s.Off, int64(s.Size)}
		if s.Base != location.OpRegister || !fl.writtenBefore(addr, slot.base, s.Off, s.Size) && !in.usedAgain(fl, v, at, slot) {
			return v.missing(uncertain)
		}
	}
	if !v.holdsPointers() {
		return place
	}
	switch {
	case v.unread:
		return v.missing(unread)
	case v.parameter && !in.In.Inlined && borrows(v.Type, map[*types.Type]bool{}):
		return place
	case fl.intoHeap(ix, &v.Param, place):
		return v.missing(freed)
	case fl.writesLater(at):
		return v.missing(uncertain)
	}
	regs := registers(place)
	if len(regs) == 0 && !constant(place) {
		return v.missing(uncertain)
	}
	for _, r := range regs {
		if r != location.RSP && !fl.code.ReadLater(at, hardware(r)) {
			return v.missing(uncertain)
		}
	}
	return place
}

// usedAgain says whether some path from an instruction reads all of a slot, or takes its
// address, before it is written. That its address is taken tells something only if the
// slot is the variable's alone, as far as addresses of it are taken in its scope only, and
// if every path has stored there: else it may be where the first value is to be written.
// The prologue must have set the frame up.
func (in *LineInstance) usedAgain(fl *flow, v *variable, at int, s frameSlot) bool {
	insts := fl.code.Insts
	if _, ok := fl.frameAt(in.In.Fn.ix, insts[at].Addr); !ok {
		return false
	}
	returned := abi.Result(v.Type)
	entry, _ := fl.code.Index(in.In.Outer.Low())
	own := returned.Kind == abi.Direct && returned.Doubt == "" && len(fl.code.Unresolved()) == 0 &&
		!slices.ContainsFunc(insts, func(x x86.Inst) bool {
			return x.Kind == x86.Lea && s.touches(&x) && !contains(v.scope, x.Addr)
		}) &&
		!fl.code.Reaches(entry, fl.edges, at, func(i int) bool { return insts[i].MemWrite && s.touches(&insts[i]) })
	found := false
	fl.code.Walk(at, nil, func(i int) bool {
		x := &insts[i]
		if found || !s.touches(x) {
			return !found
		}
		if x.Mem.Index == x86.NoReg {
			found = x.MemRead && x.Mem.Disp <= s.off && s.off+s.size <= x.Mem.Disp+int64(x.MemSize) ||
				x.Kind == x86.Lea && x.Mem.Disp == s.off && own
		}
		return false
	})
	return found
}

// writesLater says whether a path from an instruction leads to one that writes memory
// outside of the frame: what it writes may be due before.
func (fl *flow) writesLater(at int) bool {
	found := false
	fl.code.Walk(at, fl.edges, func(i int) bool {
		x := &fl.code.Insts[i]
		found = found || x.MemWrite && x.Kind != x86.Push && x.Kind != x86.Call && x.Kind != x86.CallIndirect &&
			x.Mem.Base != x86.RSP && (x.Mem.Base != x86.RBP || len(fl.base) != 1 || fl.base[0].Reg != location.RBP)
		return !found
	})
	return found
}

// movedUp says whether, in the straight code before instruction at, one sets the variable
// that is of the line or of a later one.
func (in *LineInstance) movedUp(fl *flow, v *variable, at int) bool {
	insts := fl.code.Insts
	table := in.In.Fn.ix.lineTable(in.own.unit)
	low := in.In.Outer.Low()
	here, _ := in.In.Fn.ix.locate(&v.Param, low, insts[at].Addr)
	regs := registers(here)
	u := usage{fl: fl}
	for i := at; u.straight(i); i-- {
		before := &insts[i-1]
		row, ok := table.Lookup(before.Addr)
		if !ok || int(row.Line) < in.Line.Number || !in.own.numbers[uint64(row.File)] {
			continue
		}
		sets := before.MemWrite && before.Kind != x86.Push
		for _, r := range regs {
			sets = sets || before.Writes.Has(hardware(r))
		}
		if sets {
			return true
		}
	}
	return false
}

// borrows says whether all that values of a type lead to is borrowed, and can't be changed
// through it: there are no mutable references, and no cells.
func borrows(t *types.Type, seen map[*types.Type]bool) bool {
	if t == nil || seen[t] {
		return true
	}
	seen[t] = true
	switch {
	case t.Kind == types.Opaque || t.Kind == types.Coroutine || t.Kind == types.Dyn || cell(t.Name):
		return false
	case t.Pointer != nil:
		return t.Pointer.Kind == types.Ref && frozen(t.Pointer.Target, seen)
	case t.Std != nil:
		return false
	}
	return parts(t, func(p *types.Type) bool { return borrows(p, seen) })
}

// frozen says whether nothing of values of a type, which is borrowed, can be changed.
func frozen(t *types.Type, seen map[*types.Type]bool) bool {
	if t == nil || seen[t] {
		return true
	}
	seen[t] = true
	switch {
	case t.Kind == types.Opaque || t.Kind == types.Coroutine || t.Kind == types.Dyn || cell(t.Name):
		return false
	case t.Pointer != nil:
		return t.Pointer.Kind != types.ConstPtr && t.Pointer.Kind != types.MutPtr && frozen(t.Pointer.Target, seen)
	case t.Std != nil:
		edges, complete := t.Edges()
		return complete && !slices.ContainsFunc(edges, func(e types.Edge) bool { return !frozen(e.Elem, seen) }) &&
			t.Std.Kind != types.Shared && t.Std.Kind != types.Once
	}
	return parts(t, func(p *types.Type) bool { return frozen(p, seen) })
}

// parts says whether ok holds for the types of all fields and elements of a type.
func parts(t *types.Type, ok func(*types.Type) bool) bool {
	for _, f := range t.Fields {
		if !ok(f.Type) {
			return false
		}
	}
	if t.Enum != nil {
		for _, v := range t.Enum.Variants {
			for _, f := range v.Fields {
				if !ok(f.Type) {
					return false
				}
			}
		}
	}
	return ok(t.Elem)
}

// cell says whether a type is the one that all interior mutability comes from.
func cell(name string) bool {
	return strings.HasPrefix(name, "core::cell::UnsafeCell<")
}
