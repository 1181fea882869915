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
		Function: f.Name, Signature: f.Type(), Source: event.Place{File: f.File, Line: f.Line},
		OutOfLine: out, Inlined: in, Aliases: f.Aliases,
	}
}

// Runtimes are what there is to say of the two runtimes.
type Runtimes struct {
	// Kernel is about what a hit of a kernel probe on an instruction costs.
	Kernel func(x86.Inst) time.Duration
	// User is how sites would be planted in a process, all at once, and UserCost about
	// what a hit costs there.
	User     func(addrs []uint64) []Way
	UserCost time.Duration
}

// Way is how a site would be planted, or why it can't be.
type Way struct {
	How string
	Err error
}

// Instances explains instances, which are of one file.
func Instances(ix *index.Index, all []*index.Instance, rt Runtimes) []event.Instance {
	out := make([]event.Instance, len(all))
	plans := make([]*index.Plan, len(all))
	var addrs []uint64
	for i, in := range all {
		var err error
		out[i] = instance(in)
		if plans[i], err = in.Plan(); err != nil {
			// Its code can't be read: that much is known, and it is this instance's trouble.
			out[i].Exact, out[i].NoExits = false, err.Error()
			const why = "its code can't be decoded"
			out[i].Runtimes = map[string]event.Plan{"kernel": {Missing: why}, "user": {Missing: why}}
			continue
		}
		describe(&out[i], in, plans[i])
		addrs = append(addrs, sites(plans[i])...)
	}
	marks := panics(ix)
	ways := map[uint64]Way{}
	addrs = append(addrs, marks...)
	for i, w := range rt.User(addrs) {
		ways[addrs[i]] = w
	}
	for i, in := range all {
		if p := plans[i]; p != nil {
			u := user(in, p, ways, rt.UserCost)
			out[i].Runtimes = map[string]event.Plan{"kernel": kernel(in, p, rt.Kernel), "user": u}
			out[i].Auto = auto(p, u.Missing, marks, ways)
		}
	}
	return out
}

// instance is what is known of an instance without a look at its code.
func instance(in *index.Instance) event.Instance {
	e := event.Instance{Function: in.Fn.Name, Aliases: in.Fn.Aliases, Address: in.Low(), Symbol: in.Symbol}
	if in.Inlined {
		e.Inline = &event.Inline{Caller: in.Caller, Call: event.Place{File: in.File, Line: in.Line}}
	}
	return e
}

// describe says where an instance is entered and left, and its values are.
func describe(e *event.Instance, in *index.Instance, p *index.Plan) {
	e.Exact = p.Exact
	if e.Inline != nil {
		e.Inline.Exact = p.Exact
	}
	for _, s := range p.Entries {
		e.Entries = append(e.Entries, s.Addr)
	}
	for i, param := range p.Params {
		l := located(p, i, param, in)
		if param.Args == nil {
			e.Args = append(e.Args, l)
			continue
		}
		for j := range param.Args {
			e.Args = append(e.Args, inFuture(l, &param.Args[j]))
		}
	}
	if r := p.Result; r != nil {
		e.Result = &event.Located{Rust: r.Type.Name, Missing: r.Missing, Given: in.Fn.Given()}
		if r.Missing == "" {
			e.Result.Where = r.Place.String() + unseen(r.Place)
			if p.Save != nil {
				e.Result.Where = "memory that " + p.Save.String() + " leads to at the entry"
			}
		}
	}
	for _, x := range p.Exits {
		e.Exits = append(e.Exits, event.Exit{Address: x.Addr, Kind: x.Kind.String(), Target: x.To})
	}
	e.NoExits = p.NoExits
	e.Notes = notes(in, p)
}

// located says where parameter i is at the site that has it.
func located(p *index.Plan, i int, param index.Param, in *index.Instance) event.Located {
	l := event.Located{Name: param.Name, Rust: param.Type.Name, Given: in.Fn.Given()}
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
		wheres = append(wheres, where+unseen(place))
	}
	if len(wheres) > 0 {
		l.Where, l.Missing = strings.Join(slices.Compact(wheres), ", "), ""
	}
	return l
}

// inFuture says where an argument of an async function is, whose body gets the future.
func inFuture(future event.Located, arg *types.Argument) event.Located {
	l := event.Located{Name: arg.Label(), Rust: arg.Type.Name, Missing: future.Missing}
	if future.Missing == "" {
		l.Where = "in the future that " + future.Where + " leads to"
	}
	return l
}

// unseen says which runtime can't read a place, "" if both can.
func unseen(p location.Place) string {
	for _, q := range p.Pieces {
		if q.Kind == location.Register && q.Reg.IsXMM() {
			return " (the kernel runtime cannot see it)"
		}
	}
	return ""
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
	if in.Fn.Given() {
		n = append(n, "the types are those of the signature that you gave, the places those that Rust's calling convention has for them")
	} else if gone > 0 {
		n = append(n, "optimized out: the debug info gives the argument no place here; whatever is in the register that the ABI would use is not the argument")
	}
	if in.Untyped() {
		n = append(n, "no debug info: neither arguments nor result are known. Add debug = true under [profile.release] in Cargo.toml (and no strip) and build again, or give the signature in the pattern: '"+in.Fn.Name+"(id: u64, name: &str) -> bool'")
	}
	return n
}
