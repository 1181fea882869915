package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/x86"
)

// entries are the sites at which a call is seen to begin.
func entries(p *index.Plan) []index.Site {
	if p.More == nil {
		return p.Entries
	}
	return append(slices.Clone(p.Entries), *p.More)
}

// sites are the addresses of all probes of an instance.
func sites(p *index.Plan) (addrs []uint64) {
	for _, s := range entries(p) {
		addrs = append(addrs, s.Addr)
	}
	for _, x := range p.Exits {
		addrs = append(addrs, x.Addr)
	}
	return addrs
}

// panics are the addresses at which panics are watched, if exits are.
func panics(ix *index.Index) []uint64 {
	begin, land := ix.PanicSites()
	return append(slices.Clone(begin), land...)
}

const noEntry = "no instruction enters it"

// at names an address that is not the instance's.
func at(in *index.Instance, addr uint64) string {
	if addr == in.Low() {
		return ""
	}
	return fmt.Sprintf(" at %#x", addr)
}

// kernel is what the kernel does at an instance's sites.
func kernel(in *index.Instance, p *index.Plan, cost func(x86.Inst) time.Duration) event.Plan {
	sites := entries(p)
	if len(sites) == 0 {
		return event.Plan{Missing: noEntry}
	}
	var out event.Plan
	var hows []string
	for _, s := range sites {
		if !x86.CanProbe(s.Inst) {
			return event.Plan{Missing: fmt.Sprintf("unsupported: the kernel refuses probes on the instruction at %#x", s.Addr)}
		}
		hows = append(hows, "uprobe"+on(s.Inst)+at(in, s.Addr)+how(s.Inst))
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

// user is how an instance's sites would be planted in a process.
func user(in *index.Instance, p *index.Plan, ways map[uint64]Way, cost time.Duration) event.Plan {
	sites := entries(p)
	if len(sites) == 0 {
		return event.Plan{Missing: noEntry}
	}
	var hows, exits []string
	for _, s := range sites {
		w := ways[s.Addr]
		if w.Err != nil {
			return event.Plan{Missing: fmt.Sprintf("unsupported: at %#x: %v", s.Addr, w.Err)}
		}
		hows = append(hows, w.How+at(in, s.Addr))
	}
	for _, x := range p.Exits {
		w := ways[x.Addr]
		if w.Err != nil {
			return event.Plan{Missing: fmt.Sprintf("unsupported: at the exit %#x: %v", x.Addr, w.Err)}
		}
		if !slices.Contains(exits, w.How) {
			exits = append(exits, w.How)
		}
	}
	if len(exits) > 0 {
		hows = append(hows, fmt.Sprintf("and on each exit (%s), about %s more", strings.Join(exits, ", "), cost))
	}
	out := event.Plan{How: strings.Join(hows, "; "), CostNS: cost.Nanoseconds()}
	if p.More != nil {
		out.CostNS *= 2
	}
	return out
}

// auto is which runtime would be taken without a wish, missing being why it can't be the
// user runtime.
func auto(p *index.Plan, missing string, marks []uint64, ways map[uint64]Way) string {
	if len(p.Exits) > 0 { // then panics are watched too
		for _, a := range marks {
			if err := ways[a].Err; err != nil && missing == "" {
				missing = fmt.Sprintf("panics can't be watched in the process, at %#x: %v", a, err)
			}
		}
	}
	return taken(missing)
}

// taken is which runtime is taken if missing is why it can't be the user runtime.
func taken(missing string) string {
	if missing != "" {
		return "kernel: " + strings.TrimPrefix(missing, "unsupported: ")
	}
	return "user, in processes that may be traced by ptrace; else, and with -b alone, kernel"
}
