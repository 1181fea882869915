package index

import (
	"slices"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// changedSignature is why neither a result nor an inferred place can be believed.
const changedSignature = "unsupported: the compiler has changed the function's signature"

// ccNocall marks a function whose calling convention is its own (DWARF 5 §3.3.1.1).
const ccNocall = 3

// result plans how the result of an out-of-line function is read. DWARF does not say
// where it is: the ABI does, but only of a result that is still returned.
func (in *Instance) result(ix *Index, fl *flow, p *Plan) *Result {
	t, changed := ix.resultType(in)
	if t == nil || t.Kind == types.Unit || t.Kind == types.Never {
		return nil
	}
	r := &Result{Type: t}
	if t == unknownType {
		r.Missing = "unsupported: its type can't be read"
		return r
	}
	if in.Fn.Ambiguous {
		r.Missing = ambiguous
		return r
	}
	candidates := in.predictions(ix, fl, p, t)
	if changed || len(candidates) == 0 {
		r.Missing = changedSignature
		return r
	}
	place := candidates[0]
	if len(candidates) > 1 {
		// Debug info does not tell a #[repr(C)] wrapper, which is returned in memory, from
		// one that is a scalar. Who returns an address has no use for the second register.
		place = in.pair(fl, p, candidates)
	}
	switch {
	case place.Kind == abi.Nowhere:
	case place.Kind == abi.Unclear:
		r.Missing = "unsupported: " + place.Why
	case place.Kind == abi.Indirect && in.takesResultPointer(ix, fl, p, t) && in.inMemory(fl, p, r, place):
	case !in.returned(ix, fl, p, place):
		r.Missing = "unsupported: result may have been removed"
	default:
		r.Place = place.Location
	}
	return r
}

// inMemory gives a result that is in memory its place, where the caller wanted it, and
// says whether it could.
func (in *Instance) inMemory(fl *flow, p *Plan, r *Result, place abi.Place) bool {
	switch {
	case in.returnsIt(fl, p):
		r.Place = place.Location
	case in.keepsRDI(fl, p):
		// Where LLVM knows all callers it does not return the pointer: what the function
		// was given is kept until it returns.
		p.Save = location.Expr{{Kind: location.OpRegister, Reg: location.RDI}}
		r.Place = location.Place{Pieces: []location.Piece{{Size: int(r.Type.Size), Kind: location.Memory, Expr: location.Expr{{Kind: location.OpSaved}}}}}
	default:
		return false
	}
	return true
}

// predictions are the places of the result that the ABI has where it has the
// parameters that are located in registers. Without one the signature is no longer the
// source's.
func (in *Instance) predictions(ix *Index, fl *flow, p *Plan, result *types.Type) []abi.Place {
	ts := make([]*types.Type, len(p.Params))
	at := make([]location.Place, len(p.Params))
	for i := range p.Params {
		ts[i] = p.Params[i].Type
		at[i], _ = ix.locate(&p.Params[i], in.Low(), in.Low())
	}
	var places []abi.Place
next:
	for _, c := range ix.rules(in).Predict(ts, result) {
		for i, want := range c.Params {
			if want.Kind != abi.Unclear && (elsewhere(at[i], want) || fl.storedElsewhere(&p.Params[i], at[i], want)) {
				continue next
			}
		}
		if !slices.ContainsFunc(places, func(o abi.Place) bool { return o.Kind == c.Result.Kind && o.Location.Equal(c.Result.Location) }) {
			places = append(places, c.Result)
		}
	}
	return places
}

// rules are the ABI's of the function's compiler.
func (ix *Index) rules(in *Instance) abi.Rules {
	if e, err := ix.debug.Entry(in.entry); err == nil {
		switch types.EraOf(e.Unit) {
		case types.Old:
			return abi.Rust163
		case types.Untested:
			return abi.Any
		}
	}
	return abi.Current
}

// takesResultPointer says whether a parameter stands where it does only because the
// pointer to the result comes before it.
func (in *Instance) takesResultPointer(ix *Index, fl *flow, p *Plan, result *types.Type) bool {
	ts := make([]*types.Type, len(p.Params))
	for i := range p.Params {
		ts[i] = p.Params[i].Type
	}
	without := ix.rules(in).Predict(ts, nil)
	for i := range p.Params {
		at, _ := ix.locate(&p.Params[i], in.Low(), in.Low())
		if !slices.ContainsFunc(without, func(c abi.Prediction) bool {
			return c.Params[i].Kind == abi.Unclear || !elsewhere(at, c.Params[i]) && !fl.storedElsewhere(&p.Params[i], at, c.Params[i])
		}) {
			return true
		}
	}
	return false
}

// keepsRDI says whether rdi is still what the caller put there where the entry is
// probed.
func (in *Instance) keepsRDI(fl *flow, p *Plan) bool {
	for k := range fl.path {
		if fl.steps[k].Addr == p.Entries[0].Addr {
			return !fl.path[k].changed.Has(x86.RDI)
		}
	}
	return p.Entries[0].Addr == in.Low()
}

// returnsIt says whether the pointer to the result is in rax at every ret. The psABI
// wants it there (3.2.3), but LLVM spares it in functions whose callers it all knows.
func (in *Instance) returnsIt(fl *flow, p *Plan) bool {
	for _, e := range p.Exits {
		if e.Kind == x86.ExitRet && !fl.code.HoldsAtExit(e.Exit, x86.RDI, x86.RAX, fl.pads) {
			return false
		}
	}
	return len(p.Exits) > 0
}

// pair is the candidate that is in two registers if the function is seen to write
// both; else it is unclear which holds.
func (in *Instance) pair(fl *flow, p *Plan, candidates []abi.Place) abi.Place {
	for _, c := range candidates {
		if regs := registers(c.Location); c.Kind == abi.Direct && len(regs) == 2 &&
			in.writes(fl, p, hardware(regs[0])) && in.writes(fl, p, hardware(regs[1])) {
			return c
		}
	}
	return abi.Place{Why: "where it is hangs on whether a type in the signature is #[repr(C)], or on the version of the compiler, which the debug info does not say"}
}

// resultType is the type of a function's result, nil for none, and whether the debug
// info says that its calling convention is not the usual one.
func (ix *Index) resultType(in *Instance) (t *types.Type, changed bool) {
	off := in.entry
	for range maxRefs {
		e, err := ix.debug.Entry(off)
		if err != nil {
			return unknownType, changed
		}
		if cc, ok := e.Uint(dwarf.AttrCallingConvention); ok && cc == ccNocall {
			changed = true
		}
		if e.Flag(dwarf.AttrNoreturn) {
			return nil, changed
		}
		if _, ok := e.Val(dwarf.AttrType); ok && t == nil {
			t = ix.typeOf(e)
		}
		next, ok := e.Ref(dwarf.AttrAbstractOrigin)
		if !ok {
			next, ok = e.Ref(dwarf.AttrSpecification)
		}
		if !ok {
			break
		}
		off = next
	}
	return t, changed
}

// elsewhere says whether a parameter stands in another register than the ABI has it in.
func elsewhere(got location.Place, want abi.Place) bool {
	if want.Kind == abi.Indirect {
		a, b := pointerReg(got), pointerReg(want.Location)
		return a != b && a >= 0 && b >= 0
	}
	for _, g := range got.Pieces {
		if g.Kind != location.Register {
			continue
		}
		for _, w := range want.Location.Pieces {
			if w.Offset == g.Offset && w.Kind == location.Register && w.Reg != g.Reg {
				return true
			}
		}
	}
	return false
}

// storedElsewhere is as elsewhere for a parameter in a slot of the frame, as one is whose
// address is taken (an argument of format!): what counts is where it is stored from.
func (fl *flow) storedElsewhere(p *Param, got location.Place, want abi.Place) bool {
	if len(got.Pieces) != 1 || got.Pieces[0].Kind != location.Memory || got.Pieces[0].Expr.Uses(location.OpDeref) || want.Kind != abi.Direct {
		return false
	}
	sources, _ := fl.sources(p, got)
	return slices.ContainsFunc(sources, func(r run) bool {
		return r.bytes[1] > 0 && slices.ContainsFunc(want.Location.Pieces, func(w location.Piece) bool {
			return w.Kind == location.Register && int64(w.Offset) == r.bytes[0] && hardware(w.Reg) != r.from
		})
	})
}

// pointerReg is the register that holds the address of a value in memory, -1 if no
// register alone does.
func pointerReg(p location.Place) int {
	if len(p.Pieces) != 1 || p.Pieces[0].Kind != location.Memory {
		return -1
	}
	if e := p.Pieces[0].Expr; len(e) == 1 && e[0].Kind == location.OpRegister && e[0].Arg == 0 &&
		e[0].Reg != location.RSP && e[0].Reg != location.RBP {
		return int(e[0].Reg)
	}
	return -1
}

// returned looks for evidence that a result is still returned: where no caller uses
// it, the optimiser drops it, and the register holds whatever was there.
func (in *Instance) returned(ix *Index, fl *flow, p *Plan, place abi.Place) bool {
	var need []x86.Reg
	for _, r := range registers(place.Location) {
		need = append(need, hardware(r))
	}
	if len(need) == 0 {
		return false
	}
	// Parts of a result are dropped one by one: each needs its own evidence.
	for _, reg := range need {
		if !(in.writes(fl, p, reg) && (place.Kind != abi.Indirect || in.movesPointer(fl, p))) && !ix.addressTaken(in.Low()) && !ix.callersRead(in.Low(), reg) {
			return false
		}
	}
	return true
}

// movesPointer says whether what is written to rax last, before each ret, is moved there
// whole: a result's address is, and what other code leaves there mostly is not.
func (in *Instance) movesPointer(fl *flow, p *Plan) bool {
	for _, e := range p.Exits {
		if e.Kind != x86.ExitRet {
			continue
		}
		i, ok := fl.code.Index(e.Addr)
		for ok = ok && i > 0; ok; {
			i--
			w := &fl.code.Insts[i]
			if w.Writes.Has(x86.RAX) {
				frame := w.Kind == x86.MovLoad && (w.Mem.Base == x86.RSP || w.Mem.Base == x86.RBP)
				if w.OpSize != 8 || !frame && w.Kind != x86.MovRegReg {
					return false
				}
				break
			}
			if i == 0 || !w.FallsThrough() || w.Branches() {
				return false
			}
		}
	}
	return true
}

func (in *Instance) writes(fl *flow, p *Plan, reg x86.Reg) bool {
	for _, e := range p.Exits {
		if e.Kind == x86.ExitRet && fl.code.ResultWritten(e.Exit, reg) == x86.Yes {
			return true
		}
	}
	return false
}

// addressTaken says whether a function can be called other than by its direct callers.
// Then the compiler has not changed its signature.
func (ix *Index) addressTaken(addr uint64) bool {
	if ix.File.AddressTaken(addr) {
		return true
	}
	for _, r := range ix.refsTo(addr) {
		if r.Kind == x86.RefLea && ix.isInstruction(r) {
			return true
		}
	}
	return false
}

// callersRead says whether a direct caller uses reg after its call.
func (ix *Index) callersRead(addr uint64, reg x86.Reg) bool {
	for _, r := range ix.refsTo(addr) {
		if r.Kind != x86.RefCall || !ix.isInstruction(r) {
			continue
		}
		in, err := x86.Decode(ix.File.Bytes(r.Addr), r.Addr)
		if err == nil && x86.CallerReads(ix.File.Bytes, in.End(), reg, maxReads) == x86.Yes {
			return true
		}
	}
	return false
}

// maxReads bounds the instructions after a call that are looked at.
const maxReads = 64

// refsTo finds what refers to an address in the file's code. All addresses that are
// asked for in one run are few: each is searched for when it is.
func (ix *Index) refsTo(addr uint64) []x86.Ref {
	ix.mu.Lock()
	refs, ok := ix.refs[addr]
	ix.mu.Unlock()
	if ok {
		return refs
	}
	for _, s := range ix.File.Segments() {
		if s.Exec {
			code := ix.File.Bytes(s.Addr)
			refs = append(refs, x86.FindRefs(code, s.Addr, map[uint64]struct{}{addr: {}})...)
		}
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.refs[addr] = refs
	return refs
}

// isInstruction says whether a reference stands where its function, decoded from the
// start, has an instruction: bytes may look like one and be none.
func (ix *Index) isInstruction(r x86.Ref) bool {
	low, high, ok := ix.extent(r.Addr)
	if !ok {
		return false
	}
	for addr := low; addr < high; {
		in, err := x86.Decode(ix.File.Bytes(addr), addr)
		if err != nil {
			return false
		}
		if in.End() > r.Addr {
			return in.Kind == x86.Call && in.Target == r.Target || in.Mem.RIPRel && in.Mem.Target == r.Target
		}
		addr = in.End()
	}
	return false
}

// extent is the range of the function that an address is in, by its frame
// description, which every function that can be unwound has.
func (ix *Index) extent(addr uint64) (low, high uint64, ok bool) {
	frames, err := ix.debug.Frames()
	if err != nil {
		return 0, 0, false
	}
	r, ok := frames.Range(addr)
	return r.Low, r.High, ok
}
