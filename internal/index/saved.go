package index

import (
	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// resuming is what is known of an out-of-line function that resumes a coroutine.
type resuming struct {
	coroutine *types.Type
	states    *x86.States // nil if nothing is
	// variables are the places in the coroutine's memory that the debug info of the code
	// states, if all of them are known.
	variables []types.Field
	complete  bool
}

// resumesCoroutine says whether the function resumes a coroutine: it is the body of an
// async function, block or closure.
func (f *Function) resumesCoroutine() bool {
	return f.abstract != nil && f.ix.describe(f.abstract).resumed() != ""
}

// resumed works out what is known of in, which resumes a coroutine.
func (fl *flow) resumed(in *Instance) *resuming {
	if fl.resuming != nil {
		return fl.resuming
	}
	fl.resuming = &resuming{}
	params, err := in.Fn.ix.params(in)
	if err == nil && len(params) > 0 && params[0].Poll && !in.Fn.Ambiguous {
		t := params[0].Type.Polled()
		if c, ok := t.States(); ok {
			fl.resuming = &resuming{coroutine: t, states: in.Fn.ix.states(fl, c)}
			fl.resuming.variables, fl.resuming.complete = in.Fn.ix.savedVariables(in)
		}
	}
	return fl.resuming
}

// savedVariables are those of a coroutine's body that the debug info places behind a
// pointer that is kept in the frame, as it does in code that is not optimised. The pointer
// is that to the coroutine: closures' captures are parameters' parts.
func (ix *Index) savedVariables(in *Instance) (all []types.Field, complete bool) {
	u := ix.debug.UnitAt(in.entry)
	if u == nil {
		return nil, false
	}
	c := u.Cursor(in.entry)
	if !c.Next() {
		return nil, false
	}
	for base := c.Depth(); c.Next() && c.Depth() > base; {
		switch tag := c.Entry().Tag; {
		case tag == dwarf.TagSubprogram, tag == dwarf.TagStructureType, tag == dwarf.TagInlinedSubroutine:
			c.Skip()
			continue
		case tag != dwarf.TagVariable && tag != dwarf.TagFormalParameter:
			continue
		}
		e, err := ix.debug.Entry(c.Entry().Offset)
		if err != nil {
			return nil, false
		}
		f := types.Field{Name: inheritedName(e), Type: ix.declaredType(e)}
		if f.Type.Size == 0 {
			continue
		}
		list, err := e.Locations(dwarf.AttrLocation)
		if err != nil || len(list) != 1 {
			return nil, false
		}
		place, err := location.Compile(list[0].Expr, location.Context{Size: int(f.Type.Size), Unit: e.Unit})
		if err != nil || len(place.Pieces) != 1 || place.Pieces[0].Kind != location.Memory {
			return nil, false
		}
		x := place.Pieces[0].Expr
		if len(x) == 1 && usesFrame(place) {
			continue // in the frame
		}
		off, ok := behind(x)
		if !ok {
			return nil, false
		}
		f.Offset = off
		all = append(all, f)
	}
	return all, c.Err() == nil
}

// alone says whether no other variable has ever been where v is in the coroutine's memory,
// so that what is written and read there is its value.
func (r *resuming) alone(v *variable, off int64) bool {
	all, hidden := r.coroutine.At(off, v.Type.Size)
	if hidden && !r.complete {
		return false
	}
	for _, f := range r.variables {
		if f.Offset < off+v.Type.Size && off < f.Offset+f.Type.Size {
			all = append(all, f)
		}
	}
	for _, f := range all {
		if f.Offset != off || f.Name != v.Name || f.Type != v.Type {
			return false
		}
	}
	return true
}

// mayBeSaved says whether a place may be in a coroutine's memory: it is not a register, nor
// the function's own frame, which has the coroutine if the body was inlined.
func (in *LineInstance) mayBeSaved(p location.Place) bool {
	for _, q := range p.Pieces {
		switch {
		case !in.In.Inlined && q.Kind == location.Memory && len(q.Expr) == 1 && q.Expr[0].Kind == location.OpRegister && q.Expr[0].Reg == location.RSP:
		case q.Kind == location.Memory, q.Kind == location.Value && q.Expr.Uses(location.OpDeref):
			return true
		}
	}
	return false
}

// saved says whether a variable of a coroutine's body, which the debug info places in the
// coroutine's memory, certainly has a value before instruction at. Whether the memory is
// the variable's at all is not in the debug info: others may have it at other times. So
// no other may ever have it, and the code has to go on to use it, or to have set it if that
// is all there is to know.
func (in *LineInstance) saved(fl *flow, v *variable, place location.Place, at int, plain bool) bool {
	if in.In.Inlined || len(place.Pieces) != 1 || owns(v.Type, 0) {
		return false
	}
	r := fl.resumed(in.In)
	if r.states == nil {
		return false
	}
	size := v.Type.Size
	moments := r.states.Before(at)
	var used [][]bool
	given := plain
	for _, m := range moments {
		off, ok := leadsTo(m, place.Pieces[0].Expr, plain)
		if !ok || !r.alone(v, off) {
			return false
		}
		given = given && r.states.Given(m, off, size)
		used = append(used, r.states.Used(m, off, size))
	}
	bytes := everywhere(used)
	if !v.holdsPointers() {
		return len(moments) > 0 && given && v.Type.Copied() || v.Type.UsedIn(bytes)
	}
	edges, complete := v.Type.Edges()
	for _, e := range edges {
		for b := e.Ptr; b < e.Ptr+8; b++ {
			if b < 0 || b >= int64(len(bytes)) || !bytes[b] {
				return false
			}
		}
	}
	return complete
}

// leadsTo is how far into the coroutine's memory an address is: pointers to it are in
// registers. What is in a slot of the frame of its own, in code that is not optimised, is
// the pointer that the function was given.
func leadsTo(m x86.Moment, e location.Expr, plain bool) (int64, bool) {
	switch {
	case plain:
		return behind(e)
	case len(e) == 1 && e[0].Kind == location.OpRegister && e[0].Reg <= location.R15:
		return m.Register(hardware(e[0].Reg), e[0].Arg)
	}
	return 0, false
}

// behind is how far an address is from where a pointer in the frame leads to.
func behind(e location.Expr) (int64, bool) {
	switch {
	case len(e) < 2 || e[1].Kind != location.OpDeref || e[1].Size != 8 || e[0].Kind.Pops() != 0:
	case len(e) == 2:
		return 0, true
	case len(e) == 4 && e[2].Kind == location.OpConst && e[3].Kind == location.OpAdd:
		return e[2].Arg, true
	}
	return 0, false
}
