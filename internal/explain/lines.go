package explain

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/x86"
)

// Lines explains the code of lines, which are of one file.
func Lines(lines []*index.Line, rt Runtimes) []event.Instance {
	var out []event.Instance
	for _, l := range lines {
		for _, in := range l.Instances {
			out = append(out, line(in, rt))
		}
	}
	return out
}

func line(in *index.LineInstance, rt Runtimes) event.Instance {
	e := instance(in.In)
	e.Source = event.Place{File: in.Line.File, Line: in.Line.Number}
	p, err := in.Plan(true)
	if err != nil {
		e.NoExits = err.Error()
		const why = "its code can't be decoded"
		e.Runtimes = map[string]event.Plan{"kernel": {Missing: why}, "user": {Missing: why}}
		return e
	}
	e.Exact = p.Exact
	if e.Inline != nil {
		e.Inline.Exact = p.Exact
	}
	if p.Inexact != "" {
		e.Notes = append(e.Notes, "passes can't be counted one by one: "+p.Inexact)
	}
	for i, s := range p.Sites {
		if i == 0 {
			e.Address = s.Addr
		}
		e.Entries = append(e.Entries, s.Addr)
	}
	e.Args = variables(p)
	e.Runtimes, e.Auto = ways(p, rt)
	return e
}

// variables says where the variables are that are in scope at any of a line's sites.
func variables(p *index.LinePlan) []event.Located {
	var all []event.Located
	for _, s := range p.Sites {
		for _, v := range s.Locals {
			l := event.Located{Name: v.Name, Rust: v.Type.Name}
			if why, gone := v.Place.Gone(); gone {
				l.Missing = why
			} else {
				l.Where = v.Place.String() + unseen(v.Place)
			}
			i := slices.IndexFunc(all, func(o event.Located) bool { return o.Name == l.Name && o.Rust == l.Rust })
			switch {
			case i < 0:
				all = append(all, l)
			case l.Missing != "" || all[i].Where == l.Where:
			case all[i].Missing != "":
				all[i] = l
			default:
				all[i].Where += ", " + l.Where
			}
		}
	}
	return all
}

// ways is what the runtimes would do at a line's sites, and which would be taken.
func ways(p *index.LinePlan, rt Runtimes) (plans map[string]event.Plan, auto string) {
	if len(p.Sites) == 0 {
		return map[string]event.Plan{"kernel": {Missing: noEntry}, "user": {Missing: noEntry}}, ""
	}
	var addrs []uint64
	for _, s := range p.Sites {
		addrs = append(addrs, s.Addr)
	}
	kernel := event.Plan{CostNS: rt.Kernel(p.Sites[0].Inst).Nanoseconds()}
	user := event.Plan{CostNS: rt.UserCost.Nanoseconds()}
	var kernelHow, userHow []string
	for i, w := range rt.User(addrs) {
		s := &p.Sites[i]
		at := ""
		if i > 0 {
			at = fmt.Sprintf(" at %#x", s.Addr)
		}
		if !x86.CanProbe(s.Inst) {
			kernel = event.Plan{Missing: fmt.Sprintf("unsupported: the kernel refuses probes on the instruction at %#x", s.Addr)}
		} else if kernel.Missing == "" {
			kernelHow = append(kernelHow, "uprobe"+on(s.Inst)+at+how(s.Inst))
			kernel.CostNS = max(kernel.CostNS, rt.Kernel(s.Inst).Nanoseconds())
		}
		if w.Err != nil {
			user = event.Plan{Missing: fmt.Sprintf("unsupported: at %#x: %v", s.Addr, w.Err)}
		} else if user.Missing == "" {
			userHow = append(userHow, w.How+at)
		}
	}
	if kernel.Missing == "" {
		kernel.How = strings.Join(kernelHow, "; ")
	}
	if user.Missing == "" {
		user.How = strings.Join(userHow, "; ")
	}
	return map[string]event.Plan{"kernel": kernel, "user": user}, taken(user.Missing)
}
