package index

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
)

// onStack says what is at a place in the caller's frame that the debug info gives to a
// parameter: LLVM says the same of a value and of the address of one.
type onStack uint8

const (
	valueThere onStack = iota
	addressThere
	eitherThere
)

// unclearStack is why a parameter is missing of which that can't be told.
const unclearStack = "unsupported: the debug info does not tell the value from its address"

// settleStack finds out of each parameter what it is if it is on the stack. Rust
// passes what is neither a scalar nor a pair of them by its address, C by its value
// (psABI 3.2.3), and nothing states which of the two a function follows. It is Rust's
// if another such parameter has its address in a register, or if the value would
// cover the place of another parameter.
func (in *Instance) settleStack(ix *Index, fl *flow, params []Param) {
	type span struct{ low, high int64 }
	spans := make([]span, len(params))
	rust := false
	for i := range params {
		p := &params[i]
		if p.Type.Size <= 8 {
			if off, ok := fl.callersSlot(ix, p, in.Low()); ok {
				spans[i] = span{off, off + 8}
			}
			continue
		}
		switch all := ix.rules(in).Predict([]*types.Type{p.Type}, nil); {
		case len(all) > 1 || all[0].Params[0].Kind == abi.Unclear:
			p.stack = eitherThere
		case all[0].Params[0].Kind == abi.Indirect:
			p.stack = addressThere
			at, _ := ix.locate(p, in.Low(), in.Low())
			rust = rust || pointerReg(at) >= 0
		}
		if off, ok := fl.callersSlot(ix, p, in.Low()); ok {
			spans[i] = span{off, off + p.Type.Size}
		}
	}
	for i, a := range spans {
		for j, b := range spans {
			rust = rust || i != j && params[i].stack == addressThere && a.low <= b.low && b.low < a.high
		}
	}
	for i := range params {
		if params[i].stack == addressThere && !rust {
			params[i].stack = eitherThere
		}
	}
}

// callersSlot is the distance from the CFA of a parameter that the debug info has
// whole in the caller's frame at the entry.
func (fl *flow) callersSlot(ix *Index, p *Param, low uint64) (int64, bool) {
	place, _ := ix.locate(p, low, low)
	if fl.onPath != nil {
		place = place.Rebase(fl.onPath)
	}
	if len(place.Pieces) != 1 || place.Pieces[0].Kind != location.Memory || len(place.Pieces[0].Expr) != 1 {
		return 0, false
	}
	off := int64(0)
	switch o := place.Pieces[0].Expr[0]; {
	case o.Kind == location.OpCFA:
		off = o.Arg
	case o.Kind == location.OpRegister && o.Reg == location.RSP:
		off = o.Arg - atEntry[0].Arg
	default:
		return 0, false
	}
	return off, off >= 0
}
