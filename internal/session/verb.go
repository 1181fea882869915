package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
	"ferrotrace/internal/script/source"
	"ferrotrace/internal/script/verb"
)

// Measure runs the script of a verb until what is traced ends, a limit is reached or ctx
// is done, and emits the rows of its table. What is wrong with an expression is a
// source.Errors.
func Measure(ctx context.Context, o Options, v verb.Verb) (err error) {
	if err := v.Check(); err != nil {
		return err
	}
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.oneProcess(); err != nil {
		return err
	}
	found, err := r.find()
	if err != nil {
		return err
	}
	v.Patterns = r.found
	if v.AtEnd() {
		if err := r.endings(ctx, &v, found); err != nil {
			return err
		}
	}
	m := &measured{verb: v}
	m.scripted, err = r.scripted(ctx, string(v.Kind), v.Script())
	if err != nil {
		return err
	}
	if err := m.bind(); err != nil {
		return err
	}
	return m.run()
}

// scripted checks a script that a verb makes. What is wrong with it is a source.Errors.
func (r *run) scripted(ctx context.Context, name, text string) (*scripted, error) {
	s := &scripted{
		r: r, ctx: ctx, places: map[*check.Site]*scriptPlace{},
		sc: Script{Name: name, Text: text, Hidden: true, Warned: func(errs source.Errors) {
			for _, e := range errs {
				r.o.Warn("%s", e.Msg)
			}
		}},
	}
	tree, errs := parse.File(name, text)
	if !errs.Failed() {
		errs = macro.Expand(tree, check.Builtin)
	}
	if errs.Failed() {
		return nil, errs
	}
	return s, s.check(tree)
}

// endings warns of the instances whose ends can't be seen, and refuses to go on if there
// are no others.
func (r *run) endings(ctx context.Context, v *verb.Verb, found map[*file]*matches) error {
	inlined := notes{inlined: map[string]*inlined{}}
	var why error
	seen := 0
	for _, f := range r.files {
		for _, l := range found[f].lines {
			return refuse(usage, fmt.Errorf("%s is a line, which has no end: %s is of a function's calls", l, v.Kind), "")
		}
		for _, fn := range found[f].functions {
			err := r.instances(ctx, fn, func(in *index.Instance, p *index.Plan) {
				switch {
				case in.Inlined:
					inlined.of(in, p)
				case len(p.Exits) > 0:
					seen++
				case why == nil:
					why = fmt.Errorf("the ends of %s can't be seen: %s", fn.Name, p.NoExits)
					if p.NoExits == "" {
						why = fmt.Errorf("%s never returns", fn.Name)
					}
				}
			})
			if err != nil {
				why = err
			}
		}
	}
	if seen > 0 {
		inlined.print(r.o.Warn, r.o.Verbose)
		return nil
	}
	if why == nil && len(inlined.order) > 0 {
		name := inlined.order[0]
		i := inlined.inlined[name]
		why = fmt.Errorf("%s has no code of its own: it is inlined into %s, and the end of such a call can't be seen", name, i.first.Caller)
	}
	if why == nil {
		why = errors.New("nothing that matches has an end that could be seen")
	}
	return refuse(nothing, why, "ferrotrace trace or count show the calls; #[inline(never)] gives a function code of its own")
}

// measured is the run of a verb that is a script.
type measured struct {
	*scripted
	verb verb.Verb
}

func (m *measured) run() error {
	r := m.r
	c, n, err := r.attach(m.ctx)
	if err != nil {
		return err
	}
	m.compiled = c
	m.surroundings()
	status, err := r.table(m.ctx, n, m.rows)
	if err != nil {
		return err
	}
	return m.close(status)
}

// table runs what fills a table, which rows reads, until what is traced ends or ctx is done;
// then its probes are out. The status is the command's.
func (r *run) table(ctx context.Context, probes int, rows func() ([]event.Event, uint64, error)) (status string, err error) {
	if err := r.o.Emit(event.Attached{Probes: probes}); err != nil {
		return "", err
	}
	if err := r.release(); err != nil {
		return "", err
	}
	work, stop := r.until(ctx)
	defer stop()
	done := r.look(work, stop, rows)
	r.ended(work)
	stop()
	<-done
	r.o.Doing("taking the probes out")
	if err := r.sess.Detach(); err != nil {
		return "", fmt.Errorf("taking the probes out: %w", err)
	}
	r.o.Doing("")
	status = r.finish()
	r.mapped()
	return status, nil
}

// rows are those of the table, as they are by now.
func (m *measured) rows() ([]event.Event, uint64, error) {
	rows, calls, err := m.verb.Rows(m.env, m.out.Script, m.elements)
	m.exact(rows)
	return rows, calls, err
}

// refresh is how often a table is shown that is not complete.
const refresh = 500 * time.Millisecond

// look shows a table from time to time, and ends the run once as many calls have been
// counted as were asked for. The channel is closed when it has ended, after ctx.
func (r *run) look(ctx context.Context, stop func(), rows func() ([]event.Event, uint64, error)) <-chan struct{} {
	done := make(chan struct{})
	every := 50 * time.Millisecond
	switch {
	case r.o.Limit == 0 && r.o.Live == nil:
		close(done)
		return done
	case r.o.Limit == 0:
		every = refresh
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		shown := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			all, calls, err := rows()
			if err != nil {
				return
			}
			if r.o.Limit > 0 && calls >= r.o.Limit {
				stop()
				return
			}
			if r.o.Live != nil && time.Since(shown) >= refresh-every/2 {
				r.o.Live(all)
				shown = time.Now()
			}
		}
	}()
	return done
}

// close emits the table and the summary.
func (m *measured) close(status string) error {
	r := m.r
	rows, calls, err := m.rows()
	if err != nil {
		return err
	}
	for _, row := range rows {
		r.emit(row)
	}
	hidden, lost, err := m.others()
	if err != nil {
		return err
	}
	r.emit(event.Lost{Events: lost})
	r.emit(event.Summary{
		Calls: calls + hidden + lost, Shown: calls, Hidden: hidden, Lost: lost, Runtime: r.rt.Name(),
		Duration: time.Since(r.started), Cost: m.cost(calls + hidden), ExitStatus: status,
	})
	return r.failed
}

// exact marks the rows of functions whose calls can't all be counted one by one.
func (m *measured) exact(rows []event.Event) {
	inexact := map[string]bool{}
	used := map[*check.Site]bool{}
	for _, u := range m.out.Uses {
		used[u.Site] = true
	}
	for site, p := range m.places {
		if !p.exact || !used[site] {
			inexact[site.Func] = true
			if p.line != nil {
				inexact[site.Probe] = true
			}
		}
	}
	for _, cookie := range m.r.unplanted {
		inexact[m.r.b.sites[cookie][0].Function] = true
	}
	for i, row := range rows {
		if c, ok := row.(event.Count); ok {
			c.Exact = !inexact[c.Function] && !inexact["uprobe:"+c.Function]
			rows[i] = c
		}
	}
}

// others are the calls in no row: those that were hidden, and those that were lost.
func (m *measured) others() (hidden, lost uint64, err error) {
	r := m.r
	stats, err := r.sess.Stats()
	if err != nil {
		return 0, 0, err
	}
	for _, n := range stats.Missed {
		lost += n
	}
	stats.Missed = nil
	r.lost(stats) // warns of what concerns processes
	hidden, unhandled, full, err := r.unshown()
	if err != nil {
		return 0, 0, err
	}
	// A call that finds no room finds it in none of the maps.
	lost += unhandled + full/uint64(max(1, m.shownMaps()))
	return hidden, lost, m.account()
}

// unshown are the hits that handlers did not come to the end of: hidden for a predicate, or
// because what it asks for was not there; unhandled for want of memory; and those that found
// no room in a map.
func (r *run) unshown() (hidden, unhandled, full uint64, err error) {
	faults, ok := r.sess.Map(runtime.MapFaults)
	if !ok {
		return 0, 0, 0, nil
	}
	for k := range runtime.NumFaults {
		n, err := faults.Sum(uint32(k))
		if err != nil {
			return 0, 0, 0, err
		}
		switch k {
		case runtime.MapFull:
			full += n
		case runtime.NoFrame:
			unhandled += n
		case runtime.Hidden, runtime.Unreadable, runtime.OtherVariant, runtime.OutOfBounds:
			hidden += n
		}
	}
	return hidden, unhandled, full, nil
}

// shownMaps is how many maps of the script are not hidden.
func (m *measured) shownMaps() (n int) {
	for _, mp := range m.out.Script.Maps {
		if !mp.Hidden {
			n++
		}
	}
	return n
}

// cost is what the probes cost that many calls, at most.
func (m *measured) cost(calls uint64) time.Duration {
	var entry, exit time.Duration
	for i, p := range m.r.b.prog.Probes {
		d := m.r.cost(i)
		if p.Items[0].Handler == m.out.Uses[0].Handler {
			exit = max(exit, d)
		} else {
			entry = max(entry, d)
		}
	}
	return time.Duration(calls) * (entry + exit)
}
