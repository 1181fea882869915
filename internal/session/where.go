package session

import (
	"context"
	"errors"
	"fmt"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/index"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/verb"
	"ferrotrace/internal/x86"
)

// A predicate of a trace is a handler that decides about records where they are made. One
// on arguments forbids the entry's record; the exit's is written if the entry's was, which
// a map says, by thread and frame. One on what is known at the end marks the exit's record,
// until which the call is held back; so it is with arguments that are in place only at the
// second site of an entry.

// where is a predicate as it is for one instance or line.
type where struct {
	handler int
	roots   []int
	atEnd   bool
	filter  *filter
}

// filter makes the handlers that a trace's predicate takes.
type filter struct {
	*scripted
	tracked map[int]int // by a predicate's handler the one that keeps what it says too
	shown   int         // the map of calls under way that are shown; -1 until it is needed
	more    int         // the handlers of second sites and of exits that ask it
	exit    int
}

// filtered plans what is traced of what matches: the instances and lines for which the
// predicate can be told.
func (r *run) filtered(ctx context.Context, v verb.Verb, notes *notes) error {
	v.Patterns, r.atEnd = r.found, v.AtEnd()
	s, err := r.scripted(ctx, string(v.Kind), v.Predicate())
	if err != nil {
		return err
	}
	fl := &filter{scripted: s, tracked: map[int]int{}, shown: -1}
	marked := map[*file]bool{}
	for _, u := range s.out.Uses {
		if u.Entry {
			if err := s.place(u); err != nil {
				r.o.Warn("%v", err)
			}
			continue
		}
		pl := s.places[u.Site]
		w := &where{handler: u.Handler, roots: u.Roots, atEnd: v.AtEnd(), filter: fl}
		if pl.line != nil {
			s := *pl.line
			if !r.o.Locals {
				s.Locals = nil
			}
			r.b.line(pl.f, pl.of, pl.as, &s, &program.Where{Handler: w.handler, Values: locals(pl.line, w.roots)})
			notes.ofLine(pl.of, pl.as)
			continue
		}
		if err := w.possible(pl.in, pl.plan); err != nil {
			r.o.Warn("not traced: %v", err)
			continue
		}
		r.b.trace(pl.f, pl.in, pl.plan, w)
		marked[pl.f] = marked[pl.f] || ends(pl.in, pl.plan)
		notes.of(pl.in, pl.plan)
	}
	for _, f := range r.files {
		if marked[f] {
			r.b.marks(f)
		}
	}
	if len(r.b.prog.Probes) == 0 {
		return refuse(nothing, errors.New("there is no call for which the predicate could be told"), "")
	}
	return nil
}

// possible says why the predicate can't be told for the calls of an instance; nil if it can.
func (w *where) possible(in *index.Instance, p *index.Plan) error {
	switch {
	case !in.Inlined && !p.Exact:
		return fmt.Errorf("%s jumps back to its first instruction: its calls can't be told from its loop before they are recorded", in.Fn.Name)
	case w.atEnd:
		return nil
	}
	for i := range p.Entries {
		if s := &p.Entries[i]; w.has(s) {
			return w.filter.whole(w.handler, in.Fn.Name, w.values(p, s, in.Inlined))
		}
	}
	if p.More != nil && w.has(p.More) {
		return w.filter.whole(w.handler, in.Fn.Name, w.values(p, p.More, false))
	}
	return fmt.Errorf("%s: the arguments that the predicate looks at are never in place together", in.Fn.Name)
}

// has says whether all that the predicate looks at is in place at a site of an entry.
func (w *where) has(s *index.Site) bool {
	for _, i := range w.roots {
		if !inPlace(s, i) {
			return false
		}
	}
	return true
}

func (w *where) values(p *index.Plan, s *index.Site, inlined bool) (values []program.Value) {
	for _, i := range w.roots {
		values = append(values, program.Value{Name: p.Params[i].Name, Type: p.Params[i].Type, Place: s.Places[i], OwnFrame: inlined})
	}
	return values
}

// entry has the predicate decide at an entry. It says whether the entry can be recorded.
func (w *where) entry(in *index.Instance, p *index.Plan, s *index.Site, item *program.Item, site *calls.Site) bool {
	switch {
	case w == nil:
	case w.atEnd:
		site.Held = true
	case w.has(s):
		item.Where = &program.Where{Handler: w.handler, Values: w.values(p, s, in.Inlined)}
		if p.More != nil || ends(in, p) {
			item.Where.Handler = w.filter.keep(w.handler)
		}
	case p.More != nil:
		site.Unsure = true
	default:
		return false
	}
	return true
}

// second has the predicate decide at the second site of an entry, if it has not.
func (w *where) second(p *index.Plan, item *program.Item) {
	switch {
	case w == nil || w.atEnd:
	case w.has(&p.Entries[0]):
		item.Where = &program.Where{Handler: w.filter.ask(&w.filter.more, false)}
	default:
		item.Where = &program.Where{Handler: w.handler, Values: w.values(p, p.More, false), Mark: true}
	}
}

// exit has the predicate decide at an exit.
func (w *where) exit(p *index.Plan, e *index.Exit, item *program.Item, site *calls.Site) {
	switch {
	case w == nil:
	case !w.atEnd:
		if w.has(&p.Entries[0]) {
			item.Where = &program.Where{Handler: w.filter.ask(&w.filter.exit, true)}
		}
	case e.Kind == x86.ExitTail && len(w.roots) > 0: // there is no result yet
		site.Hidden = true
	default:
		item.Where = &program.Where{Handler: w.handler, Mark: true}
		for range w.roots { // the result is the only one
			item.Where.Values = append(item.Where.Values, program.Value{Type: p.Result.Type, Place: p.Result.Place})
		}
	}
}

var shownKey = ir.TupleOf(nil, []*ir.Type{ir.U64, ir.U64})

// maxShown is how many calls may be under way that are shown.
const maxShown = 64 << 10

// call is the key of the call at hand.
func (fl *filter) call() ir.Expr {
	tid := &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.Tid}}
	return &ir.MakeTuple{T: shownKey, Elems: []ir.Expr{tid, &ir.Builtin{T: ir.U64, Kind: ir.CFA}}}
}

func (fl *filter) add(name string, h ir.Handler, body ...ir.Stmt) int {
	s := fl.out.Script
	h.Name, h.Body = name, body
	s.Handlers = append(s.Handlers, &h)
	return len(s.Handlers) - 1
}

func (fl *filter) calls() int {
	s := fl.out.Script
	if fl.shown < 0 {
		fl.shown, fl.more, fl.exit = len(s.Maps), -1, -1
		s.Maps = append(s.Maps, &ir.Map{Name: "$shown", Key: shownKey, Value: ir.U64, Entries: maxShown, Hidden: true})
	}
	return fl.shown
}

// keep is a predicate that keeps the call if it holds.
func (fl *filter) keep(predicate int) int {
	n, ok := fl.tracked[predicate]
	if !ok {
		h := *fl.out.Script.Handlers[predicate]
		// An earlier call with this frame may not have come to its exit.
		body := append([]ir.Stmt{&ir.Delete{Map: fl.calls(), Key: fl.call()}}, h.Body...)
		body = append(body, &ir.SetMap{Map: fl.shown, Key: fl.call(), X: &ir.Const{T: ir.U64, V: 1}})
		n = fl.add("predicate", h, body...)
		fl.tracked[predicate] = n
	}
	return n
}

// ask is a handler that says whether the call was kept, and takes it out at its exit.
func (fl *filter) ask(handler *int, exit bool) int {
	m := fl.calls()
	if *handler < 0 {
		body := []ir.Stmt{&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: &ir.HasKey{Map: m, Key: fl.call()}}, Then: []ir.Stmt{&ir.Return{}}}}
		if exit {
			body = append(body, &ir.Delete{Map: m, Key: fl.call()})
		}
		*handler = fl.add("was its call shown", ir.Handler{}, body...)
	}
	return *handler
}
