package index

import (
	"slices"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// LinePlan is where to probe a line's code.
type LinePlan struct {
	Sites []LineSite
	// Exact says that each pass through the line is one hit of one of Sites, Inexact why
	// it may not be.
	Exact   bool
	Inexact string
}

// LineSite is an address at which control comes to a line.
type LineSite struct {
	Addr uint64
	Inst x86.Inst
	CFA  location.Expr // nil if it is not known there
	// Locals are the variables in scope there, parameters first, then from the outermost
	// block to the innermost.
	Locals []Local
}

// Local is a variable in scope at a line.
type Local struct {
	Name string
	Type *types.Type
	// Place is where its value is, if that is certain.
	Place location.Place
	// OwnFrame: pointers into the function's own frame are not to be followed.
	OwnFrame bool
}

// Plan works out where to probe the line's code, and with locals where the variables
// are.
func (in *LineInstance) Plan(locals bool) (*LinePlan, error) {
	ix := in.In.Fn.ix
	var whole *Plan
	if !in.In.Inlined && slices.ContainsFunc(in.ranges, func(r x86.Range) bool { return r.Contains(in.In.Low()) }) {
		var err error
		if whole, err = in.In.Plan(); err != nil {
			return nil, err
		}
	}
	fl, err := ix.decoded(in.In.Outer)
	if err != nil {
		return nil, err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()

	code := append(slices.Clone(in.ranges), in.called...)
	passes := fl.code.Passes(code, in.sourceless, fl.edges)
	p := &LinePlan{}
	p.Exact, p.Inexact = in.exact(fl, code, &passes)
	for _, addr := range passes.Addrs {
		s := LineSite{Addr: addr}
		if whole != nil && addr == in.In.Low() && len(whole.Entries) == 1 && contains(code, whole.Entries[0].Addr) {
			// The line begins with the function's entry: there, the arguments are in place
			// where a call's probe is.
			e := &whole.Entries[0]
			s.Addr, s.Inst, s.CFA = e.Addr, e.Inst, e.CFA
			for i := range whole.Params {
				if locals {
					s.Locals = append(s.Locals, Local{Name: whole.Params[i].Name, Type: whole.Params[i].Type, Place: e.Places[i]})
				}
			}
			p.Sites = append(p.Sites, s)
			continue
		}
		inst, _, ok := fl.probeable(addr)
		if !ok && p.Exact {
			p.Exact, p.Inexact = false, "the kernel refuses a probe on the instruction at which it begins"
		}
		s.Addr, s.Inst = inst.Addr, inst
		if cfa, err := ix.cfa(s.Addr); err == nil {
			s.CFA = cfa
		}
		if locals {
			s.Locals = in.locals(fl, s.Addr)
		}
		p.Sites = append(p.Sites, s)
	}
	return p, nil
}

func contains(ranges []x86.Range, addr uint64) bool {
	return slices.ContainsFunc(ranges, func(r x86.Range) bool { return r.Contains(addr) })
}

// sourceless says whether the instruction at an address is of no line: the compiler's
// own, as the reload of a register.
func (in *LineInstance) sourceless(addr uint64) bool {
	row, ok := in.In.Fn.ix.lineTable(in.own.unit).Lookup(addr)
	return ok && row.Line == 0
}

// exact says whether each pass through the line is one hit, and if not, why.
func (in *LineInstance) exact(fl *flow, code []x86.Range, passes *x86.PassSet) (bool, string) {
	if !passes.Exact {
		return false, passes.Reason
	}
	if len(passes.Addrs) == 0 {
		return false, "no path of the code comes to it"
	}
	if in.In.Fn.ix.unoptimised(in.In.Outer, fl) {
		return true, ""
	}
	switch {
	case len(passes.Resumed) > 0 || in.repeated(passes.Addrs):
		return false, "its code is in several pieces: the compiler has moved, unrolled or duplicated it"
	case in.In.Inlined && in.In.duplicated(fl):
		return false, "the function stands there more than once: the compiler has unrolled or duplicated it"
	case fl.vectorised(code):
		return false, "its code is vectorised: one pass may be several"
	}
	for _, addr := range passes.Addrs {
		if !fl.code.Meets(addr, code, hasEffect) {
			return false, "it does nothing that the compiler could not do at another time"
		}
	}
	return true, ""
}

// hasEffect says whether an instruction does what an optimiser may do neither more often
// nor less often than the source does: it calls, or writes memory outside of the frame.
func hasEffect(in *x86.Inst) bool {
	switch in.Kind {
	case x86.Call, x86.CallIndirect, x86.Syscall, x86.Ret:
		return true
	}
	return in.MemWrite && in.Kind != x86.Push && in.Mem.Base != x86.RSP && in.Mem.Base != x86.RBP
}

// repeated says whether what the line begins with stands there again, with other lines
// in between.
func (in *LineInstance) repeated(begins []uint64) bool {
	type at struct{ line, col uint32 }
	runs := map[at]int{}
	var last dwarf.Row
	table := in.In.Fn.ix.lineTable(in.own.unit)
	for _, row := range in.rows() {
		here := at{row.Line, row.Col}
		if at := (at{last.Line, last.Col}); at != here || !in.joined(table, last.Addr, row.Addr) {
			runs[here]++
		}
		last = row
	}
	for _, addr := range begins {
		if row, ok := table.Lookup(addr); ok && runs[at{row.Line, row.Col}] > 1 {
			return true
		}
	}
	return false
}

// joined says whether all rows between two addresses are the line's.
func (in *LineInstance) joined(table *dwarf.LineTable, from, to uint64) bool {
	if to < from {
		return false
	}
	for _, row := range table.Range(from, to) {
		if row.EndSequence || int(row.Line) != in.Line.Number || !in.own.numbers[uint64(row.File)] {
			return false
		}
	}
	return true
}
