package x86

import (
	"fmt"
	"slices"
)

// Edge is control flow that the code does not show: from the call at From to
// the landing pad at To, as the exception tables (LSDA) have it.
type Edge struct{ From, To uint64 }

// Entry is an instruction at which an inlined instance is entered.
type Entry struct {
	// Addr is the first instruction that is no nop.
	Addr uint64
	// First is where control arrives on every way in: Addr, or padding that
	// runs into it.
	First uint64
	// Looped says that control inside the instance comes to Addr too, as to
	// the head of a loop of its own: Addr is then reached more often than the
	// instance is entered.
	Looped bool
}

// EntrySet is the answer of Func.Entries.
type EntrySet struct {
	Entries []Entry // in order of address, no two at one Addr
	// Resumed holds further addresses at which control comes back into the
	// instance, but only after it has been in it: where the compiler has
	// scheduled instructions of the code around among those of the instance.
	// Unless the body is repeated (unrolled), no call begins there.
	Resumed []uint64
	// Exact says that all ways into the instance are known; Reason says why
	// they are not.
	Exact  bool
	Reason string
}

// Entries returns the addresses at which the inlined instance with the ranges
// inst is entered, in the function with the ranges function: NewFunc and
// Func.Entries in one. If not all ways in are known, the addresses come with an
// error that says why.
func Entries(code Code, function []Range, inst []Range, edges []Edge) ([]uint64, error) {
	f, err := NewFunc(code, function, nil)
	if err != nil {
		return nil, err
	}
	set := f.Entries(inst, edges)
	var addrs []uint64
	for _, e := range set.Entries {
		addrs = append(addrs, e.Addr)
	}
	if !set.Exact {
		return addrs, fmt.Errorf("x86: entries at %#x are not exact: %s", f.entry, set.Reason)
	}
	return addrs, nil
}

// Entries returns the instructions of inst, a part of the function, that
// control reaches from the function's code outside of inst: by running into
// them, by a direct jump, through a jump table, by one of edges, or because
// the function begins there. Nops on the way are skipped; a way that leaves
// inst on nops alone is none.
func (f *Func) Entries(inst []Range, edges []Edge) EntrySet {
	w := entryWalk{f: f, inst: inst}
	w.set.Exact = true
	for _, r := range inst {
		i, ok := f.index(r.Low)
		if !ok && f.Contains(r.Low) && i > 0 && f.Insts[i-1].Addr < r.Low {
			w.inexact("the instance begins inside an instruction, at %#x", r.Low)
		}
		for ; i < len(f.Insts) && f.Insts[i].Addr < r.High; i++ {
			w.look(i, edges)
		}
	}
	w.set.Entries = slices.DeleteFunc(w.set.Entries, func(e Entry) bool {
		if !w.resumed(e.Addr, edges) {
			return false
		}
		w.set.Resumed = append(w.set.Resumed, e.Addr)
		return true
	})
	slices.Sort(w.set.Resumed)
	slices.SortFunc(w.set.Entries, func(a, b Entry) int {
		if a.Addr < b.Addr {
			return -1
		}
		return b2i(a.Addr > b.Addr)
	})
	for i := range w.set.Entries {
		e := &w.set.Entries[i]
		e.Looped = w.looped(e)
	}
	return w.set
}

// entryWalk collects the entries of one instance.
type entryWalk struct {
	f    *Func
	inst []Range
	set  EntrySet
}

func (w *entryWalk) inexact(format string, args ...any) {
	if w.set.Exact {
		w.set.Exact, w.set.Reason = false, fmt.Sprintf(format, args...)
	}
}

func (w *entryWalk) outside(i int) bool { return !contains(w.inst, w.f.Insts[i].Addr) }

// look decides whether control reaches instruction i of inst from outside.
func (w *entryWalk) look(i int, edges []Edge) {
	f := w.f
	in := &f.Insts[i]
	entered, known := in.Addr == f.entry, in.Addr == f.entry
	if f.fallsInto(i - 1) {
		known = true
		entered = entered || w.outside(i-1)
	}
	doubtful := -1
	for _, p := range f.jumpsTo(i) {
		if w.outside(int(p)) {
			if t := f.tableAt(int(p)); t != nil && !t.bounded && (known || len(f.jumpsTo(i)) > 1) {
				// This target may be what follows the table in memory: it
				// is not needed to explain how control comes here.
				doubtful = int(p)
			}
			entered = true
		}
		known = true
	}
	for _, e := range edges {
		if e.To == in.Addr {
			known = true
			entered = entered || !contains(w.inst, e.From)
		}
	}
	switch {
	case entered:
		w.enter(i)
		if doubtful >= 0 {
			w.inexact("the jump table used at %#x has no visible bound", f.Insts[doubtful].Addr)
		}
	case !known && in.Kind != Nop && in.Kind != Trap:
		if u := f.Unresolved(); len(u) > 0 {
			w.inexact("the jump at %#x may come to %#x", u[0], in.Addr)
		} else {
			w.inexact("nothing is known to lead to %#x", in.Addr)
		}
	}
}

// enter adds the entry for control that arrives at instruction i of inst.
func (w *entryWalk) enter(i int) {
	f := w.f
	first := f.Insts[i].Addr
	for f.Insts[i].Kind == Nop {
		if !f.fallsInto(i) || w.outside(i+1) {
			return
		}
		i++
	}
	addr := f.Insts[i].Addr
	for k := range w.set.Entries {
		if e := &w.set.Entries[k]; e.Addr == addr {
			// Two ways in: only the landing is common to both.
			e.First = addr
			return
		}
	}
	w.set.Entries = append(w.set.Entries, Entry{Addr: addr, First: first})
}

// resumed says whether the one path that leads to addr has been in the instance
// before. A path is followed back while it is the only one, so it holds no
// loop.
func (w *entryWalk) resumed(addr uint64, edges []Edge) bool {
	f := w.f
	i, _ := f.index(addr)
	for steps := 0; steps < maxWalk; steps++ {
		if f.Insts[i].Addr == f.entry || slices.ContainsFunc(edges, func(e Edge) bool { return e.To == f.Insts[i].Addr }) {
			return false
		}
		p, ok := f.onlyPred(i)
		if !ok {
			return false
		}
		i = p
		if !w.outside(i) && f.Insts[i].Kind != Nop {
			return true
		}
	}
	return false
}

// looped says whether control inside the instance comes to the entry's landing
// from elsewhere than the way in.
func (w *entryWalk) looped(e *Entry) bool {
	f := w.f
	i, _ := f.index(e.Addr)
	for {
		for _, p := range f.jumpsTo(i) {
			if !w.outside(int(p)) {
				return true
			}
		}
		if i == 0 || !f.fallsInto(i-1) || w.outside(i-1) {
			return false
		}
		if f.Insts[i-1].Kind != Nop {
			return true
		}
		i--
	}
}
