// Package explain says of one instance of a function how it would be probed: where
// it is, where its arguments and result are to be had and why others are not, and
// what a hit of its probe would cost. It attaches nothing.
package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// Function is a row of the list of functions.
func Function(f *index.Function) event.Function {
	out, in := f.Counts()
	return event.Function{
		Function: f.Name, Signature: Signature(f), Source: event.Place{File: f.File, Line: f.Line},
		OutOfLine: out, Inlined: in, Aliases: f.Aliases,
	}
}

// Signature writes a function's type, "" if the debug info has it not.
func Signature(f *index.Function) string {
	params, result, ok := f.Signature()
	if !ok {
		return ""
	}
	var b strings.Builder
	b.WriteString("fn(")
	for i, p := range params {
		if i > 0 {
			b.WriteString(", ")
		}
		if p.Name != "" {
			b.WriteString(p.Name + ": ")
		}
		b.WriteString(p.Type.Display())
	}
	b.WriteString(")")
	if result != nil && result.Kind != types.Unit {
		b.WriteString(" -> " + result.Display())
	}
	return b.String()
}

// Cost is about what a hit of a probe on an instruction costs the target.
type Cost func(x86.Inst) time.Duration

// Instance explains one instance; kernel is what its runtime costs.
func Instance(in *index.Instance, kernel Cost) event.Instance {
	e := event.Instance{
		Function: in.Fn.Name, Aliases: in.Fn.Aliases, Address: in.Low(), Symbol: in.Symbol,
		Runtimes: map[string]event.Plan{},
	}
	if in.Inlined {
		e.Inline = &event.Inline{Caller: in.Caller, Call: event.Place{File: in.File, Line: in.Line}}
	}
	p, err := in.Plan()
	if err != nil {
		// Its code can't be read: that much is known, and it is this instance's trouble.
		e.Exact, e.NoExits = false, err.Error()
		e.Runtimes["kernel"] = event.Plan{Missing: "its code can't be decoded"}
		return e
	}
	e.Exact = p.Exact
	if e.Inline != nil {
		e.Inline.Exact = p.Exact
	}
	for _, s := range p.Entries {
		e.Entries = append(e.Entries, s.Addr)
	}
	for i, param := range p.Params {
		e.Args = append(e.Args, located(p, i, param, in))
	}
	if r := p.Result; r != nil {
		e.Result = &event.Located{Rust: r.Type.Name, Missing: r.Missing}
		if r.Missing == "" {
			e.Result.Where = r.Place.String()
			if p.Save != nil {
				e.Result.Where = "memory that " + p.Save.String() + " leads to at the entry"
			}
			e.Result.Missing = unseen(r.Place)
			if e.Result.Missing != "" {
				e.Result.Where = ""
			}
		}
	}
	for _, x := range p.Exits {
		e.Exits = append(e.Exits, event.Exit{Address: x.Addr, Kind: x.Kind.String(), Target: x.To})
	}
	e.NoExits = p.NoExits
	e.Runtimes["kernel"] = plan(in, p, kernel)
	e.Runtimes["user"] = event.Plan{Missing: "unsupported: this version has no user runtime"}
	e.Notes = notes(in, p)
	return e
}

// located says where parameter i is at the site that has it.
func located(p *index.Plan, i int, param index.Param, in *index.Instance) event.Located {
	l := event.Located{Name: param.Name, Rust: param.Type.Name}
	sites := p.Entries
	if p.More != nil {
		sites = append(slices.Clone(sites), *p.More)
	}
	var wheres []string
	for _, s := range sites {
		place := s.Places[i]
		why, gone := place.Gone()
		switch {
		case gone && why == index.Earlier:
			continue
		case gone:
			if l.Missing == "" {
				l.Missing = why
			}
			continue
		}
		where := place.String()
		if len(place.Pieces) == 0 {
			where = "no bytes: it is known by its type"
		} else if s.Addr != in.Low() && (!in.Inlined || len(sites) > 1) {
			where += fmt.Sprintf(" at %#x", s.Addr)
		}
		if why := unseen(place); why != "" {
			where += " (" + why + ")"
		}
		wheres = append(wheres, where)
	}
	if len(wheres) > 0 {
		l.Where, l.Missing = strings.Join(slices.Compact(wheres), ", "), ""
	}
	return l
}

// unseen says why a place that is known can't be read by a kernel probe, "" if it can.
func unseen(p location.Place) string {
	for _, q := range p.Pieces {
		if q.Kind == location.Register && q.Reg.IsXMM() {
			return "unsupported: in " + q.Reg.String() + ", which a kernel probe cannot see"
		}
	}
	return ""
}

// plan is what the kernel does at an instance's sites.
func plan(in *index.Instance, p *index.Plan, cost Cost) event.Plan {
	sites := p.Entries
	if p.More != nil {
		sites = append(slices.Clone(sites), *p.More)
	}
	if len(sites) == 0 {
		return event.Plan{Missing: "no instruction enters it"}
	}
	var out event.Plan
	var hows []string
	for _, s := range sites {
		if !x86.CanProbe(s.Inst) {
			return event.Plan{Missing: fmt.Sprintf("unsupported: the kernel refuses probes on the instruction at %#x", s.Addr)}
		}
		at := ""
		if s.Addr != in.Low() {
			at = fmt.Sprintf(" at %#x", s.Addr)
		}
		hows = append(hows, "uprobe"+on(s.Inst)+at+how(s.Inst))
	}
	// Of an inlined instance's ways in a call takes one; a function's second site is
	// passed by every call.
	out.CostNS = cost(sites[0].Inst).Nanoseconds()
	if p.More != nil {
		out.CostNS += cost(p.More.Inst).Nanoseconds()
	}
	if len(p.Exits) > 0 {
		hows = append(hows, fmt.Sprintf("and on each exit%s, about %s more", how(p.Exits[0].Inst), cost(p.Exits[0].Inst)))
	}
	out.How = strings.Join(hows, "; ")
	return out
}

// on names the instruction if it is one of the few whose name matters.
func on(in x86.Inst) string {
	if in.Kind == x86.Other {
		return ""
	}
	return " on " + in.Kind.String()
}

func how(in x86.Inst) string {
	if x86.Emulated(in) {
		return " (emulated)"
	}
	return " (single-stepped)"
}

func notes(in *index.Instance, p *index.Plan) []string {
	var n []string
	if p.Inexact != "" {
		n = append(n, "its calls can't be counted one by one: "+p.Inexact)
	}
	if in.Inlined {
		n = append(n, "inlined: a probe on the symbol misses these calls, and there is no call, so no register is bound to hold an argument; its end and its result can't be seen")
	}
	gone := 0
	for i := range p.Params {
		seen := false
		for _, s := range p.Entries {
			if _, g := s.Places[i].Gone(); !g {
				seen = true
			}
		}
		if p.More != nil {
			if _, g := p.More.Places[i].Gone(); !g {
				seen = true
			}
		}
		if !seen {
			gone++
		}
	}
	if gone > 0 {
		n = append(n, "optimized out: the debug info gives the argument no place here; whatever is in the register that the ABI would use is not the argument")
	}
	if in.Untyped() {
		n = append(n, "no debug info: neither arguments nor result are known. Add debug = true under [profile.release] in Cargo.toml (and no strip) and build again")
	}
	return n
}
