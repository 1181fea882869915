package session

import (
	"fmt"
	"slices"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/codegen"
	"ferrotrace/internal/index"
	"ferrotrace/internal/location"
	"ferrotrace/internal/objfile/usdt"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/x86"
)

// scriptPlace is where a site of a script is: an instance of a function with its plan, a
// line, or an address.
type scriptPlace struct {
	f    *file
	in   *index.Instance
	plan *index.Plan
	ret  bool
	// exact: each call, or each pass through the line, runs the handler once.
	exact bool

	line *index.LineSite
	of   *index.LineInstance // that the line's site is of, and its plan
	as   *index.LinePlan
	usdt *usdt.Probe

	addr uint64
	inst x86.Inst
}

// Sites implements check.Symbols.
func (s *scripted) Sites(p *ast.AttachPoint) (sites []*check.Site, err error) {
	files, err := s.named(p.Target)
	if p.Provider == ast.Usdt {
		files, err = s.usdtFiles(p)
	}
	if err != nil {
		return nil, err
	}
	add := func(site *check.Site, place *scriptPlace) {
		s.places[site] = place
		sites = append(sites, site)
	}
	switch {
	case p.Provider == ast.Usdt:
		return sites, s.usdtSites(p, files, add)
	case p.HasAddr:
		for _, f := range files {
			if err := s.address(f, p.Addr, fmt.Sprintf("%s%#x", s.prefix(p, f), p.Addr), add); err != nil {
				return nil, err
			}
		}
		return sites, nil
	case p.Line > 0:
		return sites, s.lineSites(p, files, add)
	}
	pattern, err := index.ParsePattern(p.Func)
	if err != nil {
		return nil, err
	}
	var missed, why error
	for _, f := range files {
		prefix := s.prefix(p, f)
		found := f.ix.Find(pattern)
		if len(found) == 0 && missed == nil {
			missed = f.ix.NoMatch(p.Func)
		}
		note, err := f.ix.Give(pattern, found)
		if err != nil {
			return nil, err
		}
		if note != "" {
			s.r.o.Warn("%s", note)
		}
		for _, fn := range found {
			name := called(fn, p.Func)
			all, err := fn.Instances()
			if err != nil {
				why = err
				continue
			}
			for _, in := range all {
				if in.Inlined && (!s.r.o.Inlined || p.Offset > 0) {
					continue
				}
				if p.Offset > 0 {
					if err := s.address(f, in.Low()+p.Offset, fmt.Sprintf("%s%s+%d", prefix, name, p.Offset), add); err != nil {
						return nil, err
					}
					continue
				}
				if err := s.instance(f, in, p.Provider == ast.Uretprobe, prefix, name, add); err != nil {
					why = err
				}
			}
		}
	}
	if len(sites) == 0 {
		if why != nil {
			return nil, why
		}
		if missed == nil {
			missed = fmt.Errorf("%s has no code of its own to probe", p.Func)
		}
		s.missed = missed
		return nil, missed
	}
	return sites, nil
}

// called is the name by which a function was found: C gives several to one.
func called(fn *index.Function, by string) string {
	if !fn.Rust && slices.Contains(fn.Aliases, by) {
		return by
	}
	return fn.Name
}

// Symbol implements check.Symbols.
func (s *scripted) Symbol(site *check.Site, name string) (addr, size uint64, ok bool) {
	return s.places[site].f.ix.File.Named(name)
}

// instance adds the site that an instance is.
func (s *scripted) instance(f *file, in *index.Instance, ret bool, prefix, name string, add func(*check.Site, *scriptPlace)) error {
	plan, err := in.Plan()
	if err != nil {
		return err
	}
	if ret && (in.Inlined || len(plan.Exits) == 0) {
		why := plan.NoExits
		if in.Inlined {
			why = "it was inlined, and its end can't be told apart"
		}
		return fmt.Errorf("the end of %s can't be seen: %s", in.Fn.Name, why)
	}
	site := &check.Site{Probe: prefix + name, Func: name, C: !in.Fn.Rust}
	if in.Untyped() {
		site.NoArgs = "there is no debug info of them: build with debug = 2, or give the signature: '" + in.Fn.Name + "(x: u64)'"
	}
	for i := range plan.Params {
		site.Args = append(site.Args, check.Arg{Name: plan.Params[i].Name, Type: plan.Params[i].Type, Missing: missingAt(plan, i)})
	}
	if r := plan.Result; ret && r != nil {
		site.Result = &check.Arg{Name: "retval", Type: r.Type, Missing: r.Missing}
		if len(plan.Save) == 1 && plan.Save[0].Kind == location.OpRegister && plan.Save[0].Arg == 0 {
			site.Result.Led = &plan.Save[0].Reg
		}
		if r.Missing == "" && !slices.ContainsFunc(plan.Exits, func(e index.Exit) bool { return e.Kind != x86.ExitTail }) {
			site.Result.Missing = tailCall(plan.Exits[0].To)
		}
	}
	add(site, &scriptPlace{f: f, in: in, plan: plan, ret: ret, exact: plan.Exact})
	return nil
}

// missingAt says why a parameter is at no site of an entry; "" if it is at one.
func missingAt(p *index.Plan, i int) string {
	why := ""
	for _, e := range p.Entries {
		w, gone := e.Places[i].Gone()
		if !gone {
			return ""
		}
		why = w
	}
	if p.More != nil && inPlace(p.More, i) {
		return ""
	}
	if why == index.Earlier || why == "" {
		why = location.OptimizedOut
	}
	return why
}

// address adds a site that is an instruction.
func (s *scripted) address(f *file, addr uint64, name string, add func(*check.Site, *scriptPlace)) error {
	code := f.ix.File.Bytes(addr)
	if len(code) == 0 {
		return fmt.Errorf("%#x is not in the code of %s", addr, f.shown)
	}
	inst, err := x86.Decode(code, addr)
	if err != nil {
		return fmt.Errorf("%#x of %s: %w", addr, f.shown, err)
	}
	if r, ok := f.ix.Boundary(addr); !ok {
		return fmt.Errorf("%#x of %s is inside of an instruction, which begins at %#x", addr, f.shown, r)
	}
	fn := f.functionAt(addr)
	add(&check.Site{Probe: name, Func: fn, NoArgs: "args are those of a function's entry; reg() and argN are the registers", C: true}, &scriptPlace{f: f, addr: addr, inst: inst})
	return nil
}

// lineSites adds the sites of a line of the source: args are the variables in scope.
func (s *scripted) lineSites(p *ast.AttachPoint, files []*file, add func(*check.Site, *scriptPlace)) error {
	text := fmt.Sprintf("%s:%d", p.File, p.Line)
	pattern, err := index.ParsePattern(text)
	if err != nil {
		return err
	}
	if pattern.Kind != path.KindLine {
		return fmt.Errorf("%s is no line of a source file", text)
	}
	var missed error
	n := 0
	for _, f := range files {
		lines, err := f.ix.FindLine(pattern)
		if err != nil {
			missed = err
			continue
		}
		for _, l := range lines {
			for _, in := range l.Instances {
				plan, err := in.Plan(true)
				if err != nil {
					missed = err
					continue
				}
				for i := range plan.Sites {
					ls := &plan.Sites[i]
					site := &check.Site{Probe: s.prefix(p, f) + l.String(), Func: in.In.Fn.Name, C: !in.In.Fn.Rust}
					for _, v := range ls.Locals {
						why, gone := v.Place.Gone()
						if !gone {
							why = ""
						}
						site.Args = append(site.Args, check.Arg{Name: v.Name, Type: v.Type, Missing: why})
					}
					n++
					add(site, &scriptPlace{f: f, in: in.In, line: ls, of: in, as: plan, exact: plan.Exact})
				}
			}
		}
	}
	if n == 0 {
		return missed
	}
	return nil
}

// Type implements check.Symbols.
func (s *scripted) Type(name string) *types.Type {
	for _, f := range s.r.files {
		if t := f.ix.TypeNamed(name); t != nil {
			return t
		}
	}
	return nil
}

// whole says why a handler can't be at a site whose values are there in part; nil if all
// that it looks at is.
func (s *scripted) whole(handler int, function string, values []program.Value) error {
	if why := codegen.Gone(s.out.Script.Handlers[handler], values); why != "" {
		return fmt.Errorf("%s: a part of a value that is looked at is %s there: those calls are left out", function, why)
	}
	return nil
}

// place binds a handler to its site.
func (s *scripted) place(u check.Use) error {
	pl := s.places[u.Site]
	b := s.r.b
	fn := &calls.Site{Kind: program.Run, Function: u.Site.Func}
	run := func(addr uint64, inst x86.Inst, item program.Item) error {
		off, ok := pl.f.ix.File.FileOffset(addr)
		if !ok {
			return fmt.Errorf("%#x is not mapped from %s", addr, pl.f.shown)
		}
		if err := s.whole(u.Handler, u.Site.Func, item.Values); err != nil {
			pl.exact = false
			return err
		}
		item.Kind, item.Handler, item.Count = program.Run, u.Handler, -1
		// A probe of its own, that its words are its own.
		b.prog.Probes = append(b.prog.Probes, program.Probe{Path: pl.f.path, Addr: addr, Offset: off, Items: []program.Item{item}})
		b.sites = append(b.sites, []*calls.Site{fn})
		b.insts = append(b.insts, inst)
		return nil
	}
	switch {
	case u.Entry && !pl.plan.Exact && !pl.in.Inlined:
		return fmt.Errorf("%s jumps back to its first instruction: what is wanted of its calls' entries can't be told from what its loop has there: those calls are left out", u.Site.Func)
	case pl.line != nil:
		item := program.Item{CFA: pl.line.CFA, Cond: -1, Values: locals(pl.line, u.Roots)}
		return run(pl.line.Addr, pl.line.Inst, item)
	case pl.usdt != nil:
		item := program.Item{Cond: -1}
		for _, i := range u.Roots {
			item.Values = append(item.Values, program.Value{Name: u.Site.Args[i].Name, Type: u.Site.Args[i].Type, Place: pl.usdt.Args[i].Place})
		}
		if err := run(pl.addr, pl.inst, item); err != nil {
			return err
		}
		return s.semaphore(pl)
	case pl.plan == nil:
		return run(pl.addr, pl.inst, program.Item{Cond: -1})
	case pl.ret && !u.Entry:
		return s.exits(u, pl, run)
	}
	return s.entries(u, pl, run)
}

// semaphore tells of the semaphore of the static probe that was bound last.
func (s *scripted) semaphore(pl *scriptPlace) error {
	sema := pl.usdt.Semaphore
	if sema == 0 {
		return nil
	}
	off, ok := pl.f.ix.File.FileOffset(sema)
	if !ok {
		return fmt.Errorf("the semaphore at %#x is not mapped from %s", sema, pl.f.shown)
	}
	b := s.r.b
	b.semaphores[uint64(len(b.prog.Probes)-1)] = runtime.Semaphore{Offset: off, Ahead: int64(sema - pl.addr)}
	return nil
}

// exits binds a handler to the exits of a function. One that wants the result has none at
// those that are jumps to other functions.
func (s *scripted) exits(u check.Use, pl *scriptPlace, run func(uint64, x86.Inst, program.Item) error) error {
	tails := 0
	for _, e := range pl.plan.Exits {
		item := program.Item{CFA: afterFrame, Cond: e.Cond}
		for _, root := range u.Roots {
			if root == check.Result {
				item.Values = append(item.Values, program.Value{Type: pl.plan.Result.Type, Place: pl.plan.Result.Place})
			}
		}
		if e.Kind == x86.ExitTail && u.Result {
			tails++
			continue
		}
		if err := run(e.Addr, e.Inst, item); err != nil {
			return err
		}
	}
	if tails > 0 {
		pl.exact = false
		s.r.o.Warn("%s leaves by a jump to another function at %d of its %d exits, where its result is not known: those calls are not shown", u.Site.Func, tails, len(pl.plan.Exits))
	}
	return nil
}

// entries binds a handler to where a function is entered: to the first instructions if all
// that it looks at is in place there, else to the later one where it is.
func (s *scripted) entries(u check.Use, pl *scriptPlace, run func(uint64, x86.Inst, program.Item) error) error {
	p := pl.plan
	if low := pl.in.Low(); u.Registers && !pl.in.Inlined && p.Entries[0].Addr != low {
		if len(u.Roots) > 0 {
			return fmt.Errorf("%s: its arguments are in place later only than the registers of the call: look at args or at registers, not at both", u.Site.Func)
		}
		inst, err := x86.Decode(pl.f.ix.File.Bytes(low), low)
		if err != nil {
			return err
		}
		return run(low, inst, program.Item{CFA: afterFrame, Cond: -1})
	}
	at := func(site *index.Site) (program.Item, bool) {
		item := program.Item{CFA: site.CFA, Cond: -1}
		for _, i := range u.Roots {
			if !inPlace(site, i) {
				return item, false
			}
			item.Values = append(item.Values, program.Value{Name: p.Params[i].Name, Type: p.Params[i].Type, Place: site.Places[i], OwnFrame: pl.in.Inlined})
		}
		return item, true
	}
	planted := 0
	for i := range p.Entries {
		e := &p.Entries[i]
		item, ok := at(e)
		if !ok {
			continue
		}
		planted++
		if err := run(e.Addr, e.Inst, item); err != nil {
			return err
		}
	}
	if planted == len(p.Entries) {
		return nil
	}
	if planted == 0 && p.More != nil && !u.Result {
		if item, ok := at(p.More); ok {
			return run(p.More.Addr, p.More.Inst, item)
		}
		return fmt.Errorf("%s: its arguments that the script looks at are never in place together", u.Site.Func)
	}
	pl.exact = false
	s.r.o.Warn("%s is entered at %d places, and at %d of them not all is in place that the script looks at: those calls are not seen", u.Site.Func, len(p.Entries), len(p.Entries)-planted)
	return nil
}
