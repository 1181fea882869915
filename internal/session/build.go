package session

import (
	"fmt"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// builder makes a program, and with it what each item of it stands for.
type builder struct {
	prog      program.Program
	sites     [][]*calls.Site // by cookie and item
	insts     []x86.Inst      // by cookie
	at        map[siteKey]int
	instances int
	// semaphores are those of static probes, by cookie.
	semaphores map[uint64]runtime.Semaphore
}

type siteKey struct {
	path string
	addr uint64
}

func newBuilder(limits program.Limits) *builder {
	return &builder{prog: program.Program{Limits: limits}, at: map[siteKey]int{}, semaphores: map[uint64]runtime.Semaphore{}}
}

// add puts one item at an address. What happens at one address is one probe.
func (b *builder) add(f *file, addr uint64, inst x86.Inst, item program.Item, site *calls.Site) {
	key := siteKey{f.path, addr}
	n, ok := b.at[key]
	if !ok {
		off, mapped := f.ix.File.FileOffset(addr)
		if !mapped {
			return
		}
		n = len(b.prog.Probes)
		b.at[key] = n
		b.prog.Probes = append(b.prog.Probes, program.Probe{Path: f.path, Addr: addr, Offset: off})
		b.sites = append(b.sites, nil)
		b.insts = append(b.insts, inst)
	}
	p := &b.prog.Probes[n]
	p.Items = append(p.Items, item)
	b.sites[n] = append(b.sites[n], site)
}

// count adds the entries of an instance to a counter.
func (b *builder) count(f *file, function string, p *index.Plan, counter int) {
	for _, s := range p.Entries {
		b.add(f, s.Addr, s.Inst, program.Item{Kind: program.Entry, Cond: -1, Count: counter}, &calls.Site{Kind: program.Entry, Function: function})
	}
}

// trace records the calls of an instance, those of a predicate's if it is not nil.
func (b *builder) trace(f *file, in *index.Instance, p *index.Plan, w *where) {
	b.instances++
	fn := in.Fn
	base := calls.Site{
		Kind: program.Entry, Instance: b.instances, Function: fn.Name, Aliases: fn.Aliases,
		Source: event.Place{File: fn.File, Line: fn.Line}, Given: fn.Given(),
	}
	if in.Inlined {
		base.Inline = &event.Inline{Caller: in.Caller, Call: event.Place{File: in.File, Line: in.Line}, Exact: p.Exact}
	}
	for i := range p.Entries {
		s := &p.Entries[i]
		site := base
		site.Args, site.ArgOf = arguments(p, s, base.Given)
		site.Polls = len(p.Params) > 0 && p.Params[0].Poll
		site.Awaits, site.Exits = p.More != nil, ends(in, p)
		site.Loops = !in.Inlined && !p.Exact
		item := b.item(p, s, program.Entry, site.ArgOf, in.Inlined)
		item.Save = p.Save
		if site.Polls && p.Params[0].Args != nil {
			site.Args, site.ArgOf = polled(p.Params[0].Args, site.Args[0].Missing)
		}
		if !w.entry(in, p, s, &item, &site) {
			continue
		}
		b.add(f, s.Addr, s.Inst, item, &site)
	}
	if p.More != nil {
		site := base
		site.Kind = program.More
		_, site.ArgOf = arguments(p, p.More, base.Given)
		item := b.item(p, p.More, program.More, site.ArgOf, false)
		w.second(p, &item)
		b.add(f, p.More.Addr, p.More.Inst, item, &site)
	}
	for _, e := range p.Exits {
		site := base
		site.Kind = program.Exit
		item := program.Item{Kind: program.Exit, CFA: afterFrame, Cond: e.Cond, Count: -1}
		switch r := p.Result; {
		case r == nil:
		case e.Kind == x86.ExitTail:
			site.Tail = true
			site.Result = &event.Value{Rust: r.Type.Name, Missing: tailCall(e.To), Given: base.Given}
		case r.Missing != "":
			site.Result = &event.Value{Rust: r.Type.Name, Missing: r.Missing, Given: base.Given}
		default:
			item.Values = []program.Value{{Type: r.Type, Place: r.Place}}
		}
		site.Tail = e.Kind == x86.ExitTail
		w.exit(p, &e, &item, &site)
		b.add(f, e.Addr, e.Inst, item, &site)
	}
}

// ends says whether a call's end can be seen. A function without an exit is one that
// never returns; it may be unwound.
func ends(in *index.Instance, p *index.Plan) bool { return !in.Inlined && p.NoExits == "" }

func tailCall(to string) string {
	if to == "" {
		return "unsupported: tail call to another function"
	}
	return "unsupported: tail call to " + to
}

// afterFrame is the canonical frame address where a function is left: its frame is
// gone, and the return address is on top of the stack.
var afterFrame = location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 8}}

func (b *builder) item(p *index.Plan, s *index.Site, kind program.ItemKind, argOf []int, inlined bool) program.Item {
	item := program.Item{Kind: kind, CFA: s.CFA, Cond: -1, Count: -1}
	for _, i := range argOf {
		item.Values = append(item.Values, program.Value{
			Name: p.Params[i].Name, Type: p.Params[i].Type, Place: s.Places[i], OwnFrame: inlined,
			Poll: p.Params[i].Poll, Args: p.Params[i].Args,
		})
	}
	return item
}

// arguments are all arguments of a call as they stand without a record, and which of
// them the records of a site hold.
func arguments(p *index.Plan, s *index.Site, given bool) (args []event.Value, argOf []int) {
	args = make([]event.Value, len(p.Params))
	for i, param := range p.Params {
		args[i] = event.Value{Name: param.Name, Rust: param.Type.Name, Given: given}
		why, gone := s.Places[i].Gone()
		switch {
		case !gone:
			argOf = append(argOf, i)
			args[i].Missing = recordLost
		case p.More != nil && inPlace(p.More, i):
			args[i].Missing = recordLost
		case why == index.Earlier:
			// In place somewhere on the way, but at neither site.
			args[i].Missing = location.OptimizedOut
		default:
			args[i].Missing = why
		}
	}
	return args, argOf
}

// polled are the arguments of an async function, which its records hold in place of the
// one parameter of its body.
func polled(from []types.Argument, missing string) (args []event.Value, argOf []int) {
	for i := range from {
		args = append(args, event.Value{Name: from[i].Label(), Rust: from[i].Type.Name, Missing: missing})
		argOf = append(argOf, i)
	}
	return args, argOf
}

// recordLost is what is known of an argument until its record comes.
const recordLost = "unsupported: its record was lost"

func inPlace(s *index.Site, param int) bool {
	_, gone := s.Places[param].Gone()
	return !gone
}

// marks adds the places at which panics begin and land.
func (b *builder) marks(f *file) {
	mark := func(kind program.ItemKind, addrs []uint64) {
		for _, addr := range addrs {
			inst, err := x86.Decode(f.ix.File.Bytes(addr), addr)
			if err != nil {
				continue
			}
			b.add(f, addr, inst, program.Item{Kind: kind, CFA: afterFrame, Cond: -1, Count: -1}, &calls.Site{Kind: kind})
		}
	}
	begin, land := f.ix.PanicSites()
	mark(program.Panic, begin)
	mark(program.Landing, land)
}

// name says what is at a probe's address.
func (b *builder) name(cookie uint64) string {
	s := b.sites[cookie][0]
	name := s.Kind.String()
	if s.Function != "" {
		name += " of " + s.Function
	}
	name += fmt.Sprintf(" at %#x", b.prog.Probes[cookie].Addr)
	if n := len(b.sites[cookie]); n > 1 {
		name += fmt.Sprintf(" (and of %d more)", n-1)
	}
	return name
}

// noProbe is why an argument is missing that is in place where no probe could be planted.
const noProbe = "unsupported: no probe can be planted where it is in place"

// without expects nothing of probes that could not be planted. A function of which one
// exit is not seen has no ends at all: calls that leave by it would be said to have
// ended otherwise.
func (b *builder) without(cookies []uint64) {
	endless := map[int]bool{}       // by instance
	second := map[int]*calls.Site{} // sites that are not reached, by instance
	for _, c := range cookies {
		for _, s := range b.sites[c] {
			switch {
			case s.Kind == program.Exit:
				endless[s.Instance] = true
			case s.Kind == program.More:
				second[s.Instance] = s
			case s.Kind == program.Entry && s.Inline != nil:
				s.Inline.Exact = false
			case s.Kind == program.Line:
				s.Exact = false
			}
		}
	}
	for _, sites := range b.sites {
		for _, s := range sites {
			if s.Kind != program.Entry {
				continue
			}
			s.Exits = s.Exits && !endless[s.Instance]
			if more := second[s.Instance]; more != nil {
				s.Awaits = false
				for _, i := range more.ArgOf {
					s.Args[i].Missing = noProbe
				}
			}
		}
	}
}
