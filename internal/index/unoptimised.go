package index

import (
	"slices"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// unoptimised says whether a function's code was made without optimisation: statement
// by statement, with each variable in a slot of the frame that is its own for the whole
// call. Nothing in the debug info says so, and one program has both. It is taken from
// this:
//
//   - the debug info has a place for each variable, and it is one slot of the frame
//     throughout, or for a parameter one that holds its address: LLVM's optimisers make
//     other lists of places of most and lose some;
//   - no two slots overlap in part: the optimiser's stack colouring lets variables whose
//     lives don't meet share;
//   - no register is saved that a callee must keep: LLVM's fast register allocator keeps
//     nothing in registers across blocks and calls.
//
// A function without variables is not known to be so.
func (ix *Index) unoptimised(outer *Instance, fl *flow) bool {
	if fl.plain == nil {
		plain := outer.entry != 0 && fl.base != nil && !savesRegisters(fl.code) && ix.inSlots(outer)
		fl.plain = &plain
	}
	return *fl.plain
}

// savesRegisters says whether a function pushes a register that a callee must keep
// (psABI 3.2.1), but for rbp, which may be a frame pointer.
func savesRegisters(code *x86.Func) bool {
	const kept = 1<<x86.RBX | 1<<x86.R12 | 1<<x86.R13 | 1<<x86.R14 | 1<<x86.R15
	return slices.ContainsFunc(code.Insts, func(in x86.Inst) bool { return in.Kind == x86.Push && !in.Mem.Has && in.Reads&kept != 0 })
}

// inSlots says whether all variables of a function are in slots of the frame, and there
// are some.
func (ix *Index) inSlots(outer *Instance) bool {
	u := ix.debug.UnitAt(outer.entry)
	if u == nil {
		return false
	}
	c := u.Cursor(outer.entry)
	if !c.Next() {
		return false
	}
	var slots []location.Slot
	for base := c.Depth(); c.Next() && c.Depth() > base; {
		tag := c.Entry().Tag
		if tag == dwarf.TagSubprogram || tag == dwarf.TagStructureType {
			c.Skip()
			continue
		}
		if tag != dwarf.TagFormalParameter && tag != dwarf.TagVariable {
			continue
		}
		e, err := ix.debug.Entry(c.Entry().Offset)
		if err != nil {
			return false
		}
		size := int(ix.declaredType(e).Size)
		if size == 0 {
			continue
		}
		list, err := e.Locations(dwarf.AttrLocation)
		if err != nil || len(list) == 0 {
			return false
		}
		for _, l := range list {
			place, err := location.Compile(l.Expr, location.Context{Size: size, Unit: e.Unit})
			switch {
			case err != nil:
				return false
			case l.Whole && usesFrame(place):
				slots = append(slots, place.FrameSlots()...)
			case tag != dwarf.TagFormalParameter || !byAddress(place):
				return false
			}
		}
	}
	slices.SortFunc(slots, func(a, b location.Slot) int { return int(a.Off - b.Off) })
	for i := 1; i < len(slots); i++ {
		a, b := slots[i-1], slots[i]
		if a != b && a.Off+int64(a.Size) > b.Off {
			return false
		}
	}
	return c.Err() == nil && len(slots) > 0
}

// byAddress says whether a place is that of a parameter that is passed by its address, in
// a register at first and then where that has been spilled to.
func byAddress(p location.Place) bool {
	if len(p.Pieces) != 1 || p.Pieces[0].Kind != location.Memory {
		return false
	}
	e := p.Pieces[0].Expr
	return e[0].Kind == location.OpRegister && (len(e) == 1 && e[0].Arg == 0 && e[0].Reg != location.RSP ||
		len(e) == 2 && e[0].Reg == location.RSP && e[1].Kind == location.OpDeref)
}

// declaredType is the type of a variable, which may stand at its abstract origin.
func (ix *Index) declaredType(e *dwarf.Entry) *types.Type {
	if _, owner, ok := e.Inherited(dwarf.AttrType); ok {
		return ix.typeOf(owner)
	}
	return types.UnitType
}
