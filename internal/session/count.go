package session

import (
	"context"
	"errors"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/runtime"
)

// Count counts the calls of the functions that match and emits one Count for each
// that was called, until what is traced ends or ctx is done.
func Count(ctx context.Context, o Options) (err error) {
	r, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	found, err := r.find()
	if err != nil {
		return err
	}
	var rows []event.Count
	row := map[string]int{} // by name: copies that it does not tell apart are one row
	for _, f := range r.files {
		for _, fn := range found[f].functions {
			err := r.instances(ctx, fn, func(in *index.Instance, p *index.Plan) {
				n, ok := row[fn.Name]
				if !ok {
					n = len(rows)
					row[fn.Name] = n
					rows = append(rows, event.Count{Function: fn.Name, Exact: true})
				}
				rows[n].Exact = rows[n].Exact && p.Exact
				r.b.count(f, fn.Name, p, n)
			})
			if err != nil {
				r.o.Warn("not counted: %v", err)
			}
		}
	}
	for _, f := range r.files {
		for _, l := range found[f].lines {
			n, ok := row[l.String()]
			if !ok {
				n = len(rows)
				row[l.String()] = n
				rows = append(rows, event.Count{Function: l.String(), Exact: true})
			}
			exact := r.countLine(f, l, n)
			rows[n].Exact = rows[n].Exact && exact
		}
	}
	r.b.prog.Counts = len(rows)

	_, n, err := r.attach(ctx)
	if err != nil {
		return err
	}
	costs := make([]time.Duration, len(rows)) // of a call, at most
	for i, probe := range r.b.prog.Probes {
		for _, item := range probe.Items {
			costs[item.Count] = max(costs[item.Count], r.cost(i))
		}
	}
	counts, _ := r.sess.Map(runtime.MapCounts)
	status, err := r.table(ctx, n, func() ([]event.Event, uint64, error) { return counted(rows, counts) })
	if err != nil {
		return err
	}
	for _, probe := range r.unplanted {
		for _, item := range r.b.prog.Probes[probe].Items {
			rows[item.Count].Exact = false
		}
	}

	called, calls, err := counted(rows, counts)
	if err != nil {
		return err
	}
	var cost time.Duration
	for i := range rows {
		cost += time.Duration(rows[i].Count) * costs[i]
	}
	for _, row := range called {
		r.emit(row)
	}
	stats, err := r.sess.Stats()
	if err != nil {
		return err
	}
	lost, _, _ := r.lost(stats)
	r.emit(event.Lost{Events: lost})
	r.emit(event.Summary{
		Calls: calls + lost, Shown: calls, Lost: lost, Runtime: r.rt.Name(),
		Duration: time.Since(r.started), Cost: cost, ExitStatus: status,
	})
	return r.failed
}

// counted fills in the figures; those rows are events that are not 0.
func counted(rows []event.Count, counts runtime.Map) (called []event.Event, calls uint64, err error) {
	for i := range rows {
		if rows[i].Count, err = counts.Sum(uint32(i)); err != nil {
			return nil, 0, err
		}
		calls += rows[i].Count
		if rows[i].Count > 0 {
			called = append(called, rows[i])
		}
	}
	return called, calls, nil
}
