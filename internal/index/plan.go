package index

import (
	"fmt"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// Plan is where to probe an instance, and what is to be had there.
type Plan struct {
	Params []Param
	// Entries are the sites at which the instance is entered: one for a function out
	// of line. More is a later site at which arguments are in place that are not at the
	// entry, nil if there is no need of one.
	Entries []Site
	More    *Site
	// Exact says that each entry is one call of the source.
	Exact bool
	// Inexact says why it is not.
	Inexact string
	// Exits are empty for inlined instances. NoExits says why a function's can't be
	// found.
	Exits   []Exit
	NoExits string
	// Save is a word, at the first of Entries, that the place of Result stands on; nil if
	// it does on none.
	Save location.Expr
	// Result is nil for () and where there is none.
	Result *Result
}

// Site is an address at which an instance is entered.
type Site struct {
	Addr uint64
	Inst x86.Inst
	CFA  location.Expr // nil if it is not known there
	// Places are those of Params, in order. At a later site those that were to be had
	// at the entry are left out: their place has one Missing piece, Earlier.
	Places []location.Place
}

// Exit is an instruction that leaves a function.
type Exit struct {
	x86.Exit
	Inst x86.Inst
	// To is the function that a tail call goes to, "" if it is not known.
	To string
}

// Result is a function's result.
type Result struct {
	Type *types.Type
	// Place is that at each ret; Missing says why it can't be known.
	Place   location.Place
	Missing string
}

// Earlier is why a place is missing at a later site.
const Earlier = "earlier"

// maxSearch bounds how many steps of the straight path are tried as sites.
const maxSearch = 96

// Plan works out where to probe the instance.
func (in *Instance) Plan() (*Plan, error) {
	ix := in.Fn.ix
	params, err := ix.params(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Fn.Name, err)
	}
	fl, err := ix.decoded(in.Outer)
	if err != nil {
		return nil, err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	p := &Plan{Params: params}
	if in.Fn.given != nil {
		p.Params = in.givenParams(ix, fl)
	}
	if in.Inlined {
		in.planInlined(ix, fl, p)
		return p, nil
	}
	in.settleStack(ix, fl, p.Params)
	in.settleSources(ix, fl, p.Params)
	in.settlePointees(ix, fl, p.Params)
	in.planEntry(ix, fl, p)
	in.planExits(ix, fl, p)
	return p, nil
}

func (in *Instance) planEntry(ix *Index, fl *flow, p *Plan) {
	low := in.Low()
	p.Exact = true
	if len(fl.steps) == 0 {
		p.Exact, p.Inexact = false, "the code jumps back to the function's first instruction"
	}
	steps := max(1, min(len(fl.steps), maxSearch))
	// at[i] is the first step at which parameter i is in place, -1 if there is none.
	at := make([]int, len(p.Params))
	for i := range p.Params {
		at[i] = -1
		for k := range steps {
			if place, ok := ix.onStraightPath(fl, &p.Params[i], low, k); ok {
				if _, gone := place.Gone(); !gone {
					at[i] = k
					break
				}
			}
		}
	}
	first := 0
	for k := range steps {
		if in.allInPlace(ix, fl, p, at, k) {
			first = in.cheaper(ix, fl, p, at, k, steps)
			p.Entries = []Site{in.site(ix, fl, p, first, func(int) bool { return true })}
			return
		}
	}
	for first < len(fl.steps)-1 && !x86.CanProbe(fl.steps[first].Inst) {
		first++
	}
	early := func(i int) bool { return at[i] >= 0 && at[i] <= first }
	p.Entries = []Site{in.site(ix, fl, p, first, early)}
	later := first
	for _, k := range at {
		later = max(later, k)
	}
	for ; later < steps && later < len(fl.steps); later++ {
		if later > first && x86.CanProbe(fl.steps[later].Inst) {
			more := in.site(ix, fl, p, later, func(i int) bool { return !early(i) })
			p.More = &more
			return
		}
	}
}

// allInPlace says whether at step k everything is to be had that is anywhere.
func (in *Instance) allInPlace(ix *Index, fl *flow, p *Plan, at []int, k int) bool {
	if k < len(fl.steps) && !x86.CanProbe(fl.steps[k].Inst) {
		return false
	}
	for i := range p.Params {
		if at[i] < 0 {
			continue
		}
		if at[i] > k {
			return false
		}
		place, ok := ix.onStraightPath(fl, &p.Params[i], in.Low(), k)
		if _, gone := place.Gone(); !ok || gone {
			return false
		}
	}
	return true
}

// cheaper looks, a few steps on, for an instruction that the kernel emulates: a probe
// on one costs a fifteenth of one that it must single-step. Nothing may happen on the
// way that a caller's memory could show.
func (in *Instance) cheaper(ix *Index, fl *flow, p *Plan, at []int, k, steps int) int {
	for i := k; i < min(k+16, steps) && i < len(fl.steps); i++ {
		s := &fl.steps[i]
		if x86.Emulated(s.Inst) && in.allInPlace(ix, fl, p, at, i) {
			return i
		}
		if s.MemWrite && !s.Stores {
			break
		}
	}
	return k
}

// site makes a site of step k; wanted says of which parameters the places are.
func (in *Instance) site(ix *Index, fl *flow, p *Plan, k int, wanted func(int) bool) Site {
	s := Site{Addr: in.Low(), CFA: atEntry, Places: make([]location.Place, len(p.Params))}
	if len(fl.steps) > 0 {
		s.Addr, s.Inst, s.CFA = fl.steps[k].Addr, fl.steps[k].Inst, fl.cfaAt(k)
	} else if i, ok := fl.code.Index(s.Addr); ok {
		s.Inst = fl.code.Insts[i]
	}
	for i := range p.Params {
		size := int(p.Params[i].Type.Size)
		if !wanted(i) {
			s.Places[i] = location.MissingPlace(size, Earlier)
			continue
		}
		place, ok := ix.onStraightPath(fl, &p.Params[i], in.Low(), k)
		if !ok {
			why, gone := place.Gone()
			if !gone || why == "" {
				why = location.OptimizedOut
			}
			place = location.MissingPlace(size, why)
		}
		s.Places[i] = place
	}
	return s
}

func (in *Instance) planInlined(ix *Index, fl *flow, p *Plan) {
	entered := fl.code.Entries(in.Ranges, fl.edges)
	refused := false
	for i := range entered.Entries {
		e := &entered.Entries[i]
		addr := e.Addr
		if e.Looped && e.First != e.Addr {
			// The padding before a loop is run through once, its head each time round.
			addr, e.Addr, e.Looped = e.First, e.First, false
		}
		inst, moved, ok := fl.probeable(addr)
		refused = refused || !ok
		s := Site{Addr: inst.Addr, Inst: inst}
		if cfa, err := ix.cfa(s.Addr); err == nil {
			s.CFA = cfa
		}
		for i := range p.Params {
			place := ix.inInlined(fl, &p.Params[i], in.Outer.Low(), addr)
			if moved && !fl.keeps(place, addr, s.Addr) {
				place = location.MissingPlace(int(p.Params[i].Type.Size), "unsupported: the kernel refuses a probe where it is")
			}
			s.Places = append(s.Places, place)
		}
		p.Entries = append(p.Entries, s)
	}
	if p.Exact, p.Inexact = in.exact(fl, entered); p.Exact && refused {
		p.Exact, p.Inexact = false, "the kernel refuses a probe on the instruction at which it is entered"
	}
}

// probeable is the first instruction in the straight code from addr on that the kernel
// lets be probed (it refuses locked ones, for one); moved says that it is not the one
// at addr, and ok whether there is one.
func (fl *flow) probeable(addr uint64) (inst x86.Inst, moved, ok bool) {
	i, found := fl.code.Index(addr)
	if !found {
		return x86.Inst{Addr: addr}, false, false
	}
	for n := range 8 {
		if i+n >= len(fl.code.Insts) || n > 0 && (fl.code.JumpedTo(fl.code.Insts[i+n].Addr) || fl.pads[fl.code.Insts[i+n].Addr]) {
			break
		}
		in := fl.code.Insts[i+n]
		if x86.CanProbe(in) {
			return in, n > 0, true
		}
		if in.Branches() || !in.FallsThrough() || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			break
		}
	}
	return fl.code.Insts[i], false, false
}

// keeps says whether the instructions from one address to another leave a place as it
// is: none writes a register that it reads, and it reads no memory.
func (fl *flow) keeps(p location.Place, from, to uint64) bool {
	var reads x86.RegSet
	for _, q := range p.Pieces {
		if q.Kind == location.Memory {
			return false
		}
		for _, o := range q.Expr {
			if o.Kind == location.OpDeref {
				return false
			}
		}
	}
	for _, r := range registers(p) {
		reads |= hardware(r).Set()
	}
	i, _ := fl.code.Index(from)
	for ; i < len(fl.code.Insts) && fl.code.Insts[i].Addr < to; i++ {
		if fl.code.Insts[i].Writes&reads != 0 {
			return false
		}
	}
	return true
}

// exact says whether each entry of an inlined instance is one call, and if not, why.
func (in *Instance) exact(fl *flow, entered x86.EntrySet) (bool, string) {
	switch {
	case !entered.Exact:
		return false, entered.Reason
	case len(entered.Entries) == 0:
		return false, "no path of the code enters it"
	case len(entered.Entries) > 1:
		return false, fmt.Sprintf("its code is entered at %d places", len(entered.Entries))
	case entered.Entries[0].Looped:
		return false, "a loop in it goes back to where it is entered"
	case fl.vectorised(in.Ranges):
		return false, "its code is vectorised: one pass may be several calls"
	case in.duplicated(fl):
		return false, "its call stands there more than once: the compiler has unrolled or duplicated it"
	case in.repeated(entered.Entries[0].Addr):
		return false, "its code stands there more than once: the compiler has unrolled or duplicated it"
	}
	return true, ""
}

// repeated says whether the line table has the line at which the instance is entered
// again further on in it, with other lines in between.
func (in *Instance) repeated(entry uint64) bool {
	lines := in.Fn.ix.lineTable(in.Fn.ix.unit(in.sub))
	if lines == nil {
		return true
	}
	type at struct {
		file      uint64
		line, col int
	}
	var first at
	runs, inRun := 0, false
	for _, r := range in.Ranges {
		inRun = false
		for _, row := range lines.Range(r.Low, r.High) {
			if !row.IsStmt || row.Line == 0 {
				continue
			}
			here := at{uint64(row.File), int(row.Line), int(row.Col)}
			if row.Addr == entry || first == (at{}) && row.Addr > entry {
				first = here
			}
			if here != first {
				inRun = false
				continue
			}
			if !inRun {
				runs++
			}
			inRun = true
		}
	}
	return runs > 1
}

// vectorised says whether the code computes with several values at once.
func (fl *flow) vectorised(ranges []x86.Range) bool {
	for _, r := range ranges {
		i, _ := fl.code.Index(r.Low)
		for ; i < len(fl.code.Insts) && fl.code.Insts[i].Addr < r.High; i++ {
			if x86.Packed(fl.code.Insts[i]) {
				return true
			}
		}
	}
	return false
}

func (in *Instance) planExits(ix *Index, fl *flow, p *Plan) {
	exits, err := fl.code.Exits()
	if err != nil {
		p.NoExits = err.Error()
		return
	}
	for _, e := range exits {
		x := Exit{Exit: e}
		if i, ok := fl.code.Index(e.Addr); ok {
			x.Inst = fl.code.Insts[i]
		}
		if e.Kind == x86.ExitTail && e.Target != 0 {
			x.To = ix.NameAt(e.Target)
		}
		// One exit that is not seen would make of its calls such as never returned.
		if !x86.CanProbe(x.Inst) || e.Cond > 15 {
			p.Exits, p.NoExits = nil, fmt.Sprintf("the exit at %#x can't be probed", e.Addr)
			return
		}
		p.Exits = append(p.Exits, x)
	}
	switch {
	case in.Fn.given != nil:
		p.Result = in.givenResult(ix, fl, p)
	case in.entry != 0:
		p.Result = in.result(ix, fl, p)
	}
}
