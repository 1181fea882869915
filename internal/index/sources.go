package index

import (
	"slices"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// settleSources finds out where parameters may have been passed, which the places that
// debug info states are held against. A parameter that is assigned before anything
// happens, another one at worst, is stated to be from the first instruction on where
// that is; and of its frame slot, only what is assigned to it is stored.
//
// What is stated is believed if it is where the ABI has the parameter, in a function
// whose signature LLVM has not changed, or if all parameters lie in the order in which
// any convention passes them.
func (in *Instance) settleSources(ix *Index, fl *flow, params []Param) {
	ts := make([]*types.Type, len(params))
	at := make([]location.Place, len(params))
	for i := range params {
		p := &params[i]
		ts[i] = p.Type
		at[i], _ = ix.locate(p, in.Low(), in.Low())
		if _, gone := at[i].Gone(); gone {
			at[i], _ = ix.statedLater(fl, p, in.Low(), 0, at[i])
		}
	}
	result, changed := ix.resultType(in)
	for _, c := range ix.rules(in).Predict(ts, result) {
		if changed || disagree(at, c.Params) {
			continue
		}
		for i := range params {
			params[i].passed = append(params[i].passed, c.Params[i])
		}
	}
	// The places of a signature that the user has given are the ABI's.
	ordered := in.Fn.given != nil || fl.inOrder(params, at)
	for i := range params {
		params[i].ordered = ordered
	}
}

// disagree says whether one of the places is elsewhere than the ABI has it.
func disagree(at []location.Place, want []abi.Place) bool {
	for i := range at {
		if want[i].Kind != abi.Unclear && elsewhere(at[i], want[i]) {
			return true
		}
	}
	return false
}

// own says whether bytes of the parameter's, size in a row, may come from where they do.
func (p *Param) own(runs []run, size int) bool {
	return p.ordered || slices.ContainsFunc(p.passed, func(place abi.Place) bool {
		return place.Kind == abi.Unclear || !slices.ContainsFunc(runs, func(r run) bool {
			return !slices.ContainsFunc(place.Location.Pieces, func(q location.Piece) bool {
				if place.Kind == abi.Direct && size == int(p.Type.Size) && int64(q.Offset) != r.bytes[0] {
					return false
				}
				switch {
				case q.Kind == location.Register:
					return hardware(q.Reg) == r.from
				case q.Kind != location.Memory:
					return false
				case q.Expr[0].Kind == location.OpCFA:
					return r.from == x86.RSP && q.Expr[0].Arg == r.word
				}
				return q.Expr[0].Kind == location.OpRegister && hardware(q.Expr[0].Reg) == r.from
			})
		})
	})
}

// ownRegisters is as own for what a place reads of registers that hold what argument
// registers held at the entry, as copies says.
func (p *Param) ownRegisters(place location.Place, copies *[x86.X0 + 8]x86.Reg) bool {
	for _, q := range place.Pieces {
		part := location.Place{Pieces: []location.Piece{q}}
		size := 0 // of what is computed
		if q.Kind == location.Register {
			size = int(p.Type.Size)
		}
		for _, r := range registers(part) {
			h := hardware(r)
			if h == x86.RSP || h == x86.RBP || int(h) >= len(copies) {
				continue
			}
			from := copies[h]
			if from == x86.NoReg || !p.own([]run{{from: from, bytes: [2]int64{int64(q.Offset), int64(q.Offset + q.Size)}}}, size) {
				return false
			}
		}
	}
	return true
}

// inOrder says whether the parameters with bytes are found in registers at the entry, in
// words of the caller's frame, or in frame slots that are stored from these, each after
// those of the parameters before it. All of them must be found; or, because LLVM takes
// out what is not used, those that are have to be passed in the first registers, with
// none left over between them.
func (fl *flow) inOrder(params []Param, at []location.Place) bool {
	var next, count [3]int64 // of integers, floats, words
	all, first := true, [3]int64{-1, -1, -1}
	for i := range params {
		if params[i].Type.Size == 0 {
			continue
		}
		sources, ok := fl.sources(&params[i], at[i])
		if !ok {
			return false
		}
		all = all && len(sources) > 0
		for _, s := range sources {
			kind, n := rank(s)
			if n < next[kind] {
				return false
			}
			if first[kind] < 0 {
				first[kind] = n
			}
			next[kind] = n + 1
			count[kind]++
		}
	}
	if all {
		return true
	}
	for kind, n := range count {
		// The first integer may be the result's address.
		if n > 0 && (next[kind] != first[kind]+n || first[kind] > 0 && !(kind == 0 && first[kind] == 1)) {
			return false
		}
	}
	return true
}

// rank is the place of a source among those of its kind (0 for integers, 1 for floats, 2
// for the caller's frame): that in which they are given to parameters (psABI 3.2.3).
func rank(r run) (kind int, n int64) {
	switch {
	case r.from == x86.RSP:
		return 2, r.word / 8
	case r.from >= x86.X0:
		return 1, int64(r.from - x86.X0)
	}
	return 0, int64(slices.Index([]x86.Reg{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9}, r.from))
}

// sources are the registers and words that a parameter is in at the entry, or that its
// frame slot is stored from; none if debug info does not locate it. It is not ok if it
// is located, but where it comes from is not known.
func (fl *flow) sources(p *Param, at location.Place) (found []run, ok bool) {
	if _, gone := at.Gone(); gone || constant(at) {
		return nil, true
	}
	if fl.onPath != nil {
		at = at.Rebase(fl.onPath)
	}
	var seen x86.RegSet
	for _, r := range registers(at) {
		switch h := hardware(r); {
		case argumentRegs.Has(h) && !seen.Has(h):
			seen |= h.Set()
			found = append(found, run{from: h})
		case h != x86.RSP && h != x86.RBP && !seen.Has(h):
			return nil, false
		}
	}
	data := dataBytes(p.Type)
	for _, slot := range at.FrameSlots() {
		var runs []run
		for k := 0; k < min(len(fl.path), maxSearch) && runs == nil; k++ {
			if off, ok := fl.fromCFA(slot, k); ok && off >= 0 {
				runs = words(off, slot.Size)
			} else if ok {
				runs = fl.path[k].at.runs(off, slotData(slot, data))
			}
		}
		if runs == nil {
			return nil, false
		}
		found = append(found, runs...)
	}
	return found, len(found) > 0
}

// words are those of the caller's frame that size bytes at off are in.
func words(off int64, size int) (runs []run) {
	for at := off &^ 7; at < off+int64(size); at += 8 {
		runs = append(runs, run{from: x86.RSP, word: at, bytes: [2]int64{at - off, at - off + 8}})
	}
	return runs
}

// slotData says which bytes of a slot are data, where data says so of the whole value:
// all, if it holds something else than that.
func slotData(slot location.Slot, data []bool) []bool {
	if slot.Size == len(data) {
		return data
	}
	return slices.Repeat([]bool{true}, min(slot.Size, maxData))
}

// fromCFA is a slot's distance from the CFA at step k of the straight path.
func (fl *flow) fromCFA(slot location.Slot, k int) (off int64, ok bool) {
	switch s := &fl.steps[k]; {
	case slot.Base != location.OpRegister:
		return slot.Off, true
	case slot.Reg == location.RSP && s.RSPKnown:
		return slot.Off + s.RSP, true
	case slot.Reg == location.RBP && s.RBPKnown:
		return slot.Off + s.RBP, true
	}
	return 0, false
}
