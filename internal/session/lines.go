package session

import (
	"slices"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/path"
)

// matches is what patterns match in one file.
type matches struct {
	functions []*index.Function
	lines     []*index.Line
}

// findLine adds the lines that a pattern names to what was found. The error is that of
// the first file, if there are none in any.
func (r *run) findLine(p path.Pattern, found map[*file]*matches) error {
	var missed error
	n := 0
	for _, f := range r.files {
		lines, err := f.ix.FindLine(p)
		if err != nil && missed == nil {
			missed = err
		}
		n += len(lines)
		m := found[f]
		for _, l := range lines {
			if !slices.ContainsFunc(m.lines, func(o *index.Line) bool { return o.String() == l.String() }) {
				m.lines = append(m.lines, l)
			}
		}
	}
	if n > 0 {
		return nil
	}
	return missed
}

// lineInstances plans the instances of a line that are wanted; what can't be planned is
// that instance's trouble.
func (r *run) lineInstances(l *index.Line, locals bool, f func(*index.LineInstance, *index.LinePlan)) {
	for _, in := range l.Instances {
		if in.In.Inlined && !r.o.Inlined {
			continue
		}
		p, err := in.Plan(locals)
		if err != nil {
			r.o.Warn("not traced: %s: %v", l, err)
			continue
		}
		f(in, p)
	}
}

// countLine adds the passes through a line to a counter. It says whether they can be
// counted one by one.
func (r *run) countLine(f *file, l *index.Line, counter int) bool {
	exact := true
	r.lineInstances(l, false, func(in *index.LineInstance, p *index.LinePlan) {
		exact = exact && p.Exact
		for _, s := range p.Sites {
			r.b.add(f, s.Addr, s.Inst, program.Item{Kind: program.Line, Cond: -1, Count: counter}, lineSite(in, p, nil))
		}
	})
	return exact
}

// traceLine records the passes through a line.
func (r *run) traceLine(f *file, l *index.Line, notes *notes) {
	r.lineInstances(l, r.o.Locals, func(in *index.LineInstance, p *index.LinePlan) {
		notes.ofLine(in, p)
		for i := range p.Sites {
			r.b.line(f, in, p, &p.Sites[i], nil)
		}
	})
}

// line records the passes of one site of a line; shown is a predicate's, or nil.
func (b *builder) line(f *file, in *index.LineInstance, p *index.LinePlan, s *index.LineSite, shown *program.Where) {
	site := lineSite(in, p, s)
	item := program.Item{Kind: program.Line, CFA: s.CFA, Cond: -1, Count: -1, Where: shown}
	item.Values = locals(s, site.ArgOf)
	b.add(f, s.Addr, s.Inst, item, site)
}

// locals are some of the variables in scope.
func locals(s *index.LineSite, which []int) (values []program.Value) {
	for _, n := range which {
		v := &s.Locals[n]
		values = append(values, program.Value{Name: v.Name, Type: v.Type, Place: v.Place, OwnFrame: v.OwnFrame})
	}
	return values
}

// lineSite is what the records of a line's site stand for; s may be nil.
func lineSite(in *index.LineInstance, p *index.LinePlan, s *index.LineSite) *calls.Site {
	fn := in.In.Fn
	site := &calls.Site{
		Kind: program.Line, Function: fn.Name, Aliases: fn.Aliases, Exact: p.Exact,
		Source: event.Place{File: in.Line.File, Line: in.Line.Number},
	}
	if in.In.Inlined {
		site.Inline = &event.Inline{Caller: in.In.Caller, Call: event.Place{File: in.In.File, Line: in.In.Line}, Exact: p.Exact}
	}
	if s == nil {
		return site
	}
	site.Args = make([]event.Value, len(s.Locals))
	for i, v := range s.Locals {
		site.Args[i] = event.Value{Name: v.Name, Rust: v.Type.Name, Missing: recordLost}
		switch why, gone := v.Place.Gone(); {
		case !gone:
			site.ArgOf = append(site.ArgOf, i)
		case why == index.Earlier:
			site.Args[i].Missing = location.OptimizedOut
		default:
			site.Args[i].Missing = why
		}
	}
	return site
}

// ofLine notes what can't be told of a line.
func (n *notes) ofLine(in *index.LineInstance, p *index.LinePlan) {
	if !p.Exact {
		n.add(in.Line.String() + " in " + in.In.Fn.Name + ": passes can't be told apart: " + p.Inexact)
	}
}
