package x86

import (
	"slices"
)

// PassSet is the answer of Func.Passes.
type PassSet struct {
	// Addrs are instructions of which each pass executes one.
	Addrs []uint64
	// Resumed are those at which control comes back into the code and that only one path
	// leads to, which has been in it before: the same pass, unless the code is repeated.
	Resumed []uint64
	// Exact says that each pass executes just one of Addrs, once; Reason says why it may
	// not be so.
	Exact  bool
	Reason string
}

// Passes returns instructions by which one can tell how often control passes through
// code, a part of the function. What neutral says yes of is part of what leads to it, if
// all that does is part of the code, and does not end a pass in any case. Where control comes to only by edges,
// with a panic, is left out if there are other ways in.
//
// Where one way in always leads to another, as from before a loop to the test at its
// head, the other stands for both.
func (f *Func) Passes(code []Range, neutral func(addr uint64) bool, edges []Edge) PassSet {
	in := f.absorb(code, neutral, edges)
	entered := f.Entries(f.ranges(in), edges)
	// What is neutral, and not the code's alone, does not end a pass.
	for i := range in {
		in[i] = in[i] || neutral(f.Insts[i].Addr)
	}
	set := PassSet{Exact: entered.Exact, Reason: entered.Reason}
	var at []int
	for _, addr := range entered.Resumed {
		if i, _ := f.index(addr); f.loops(i, in) {
			at = append(at, i)
		} else {
			set.Resumed = append(set.Resumed, addr)
		}
	}
	for _, e := range entered.Entries {
		addr := e.Addr
		if e.Looped && e.First != e.Addr {
			addr = e.First // the padding before a loop is run through once
		}
		i, _ := f.index(addr)
		at = append(at, i)
	}
	slices.Sort(at)
	at = f.withoutPanics(at)
	for k := 0; k < len(at); {
		others := slices.Delete(slices.Clone(at), k, k+1)
		if slices.ContainsFunc(others, func(o int) bool { return f.meets(at[k], in, func(i int) bool { return i == o }) }) {
			at = others
		} else {
			k++
		}
	}
	for _, i := range at {
		set.Addrs = append(set.Addrs, f.Insts[i].Addr)
		if set.Exact && f.comesTo(i, in, at) {
			set.Exact, set.Reason = false, "control comes to where it begins more than once in one pass"
		}
	}
	return set
}

// loops says whether instruction i of a set, to which only one path leads that has been
// in the set before, is on a way round a loop: it leads, within the set, to where that
// path left it.
func (f *Func) loops(i int, in []bool) bool {
	left, ok := i, true
	for steps := 0; ok && steps < maxWalk; steps++ {
		if left, ok = f.onlyPred(left); ok && in[left] {
			return left == i || f.comesTo(i, in, []int{left})
		}
	}
	return false
}

// Meets says whether every path from an instruction through code comes to one that what
// says yes of before it leaves the code. What ends in a trap or does not return leaves
// nothing.
func (f *Func) Meets(from uint64, code []Range, what func(*Inst) bool) bool {
	i, ok := f.index(from)
	return ok && f.meets(i, f.set(code), func(i int) bool { return what(&f.Insts[i]) })
}

// set is the instructions of ranges.
func (f *Func) set(code []Range) []bool {
	in := make([]bool, len(f.Insts))
	for _, r := range code {
		i, _ := f.index(r.Low)
		for ; i < len(in) && f.Insts[i].Addr < r.High; i++ {
			in[i] = true
		}
	}
	return in
}

// ranges are those of a set of instructions.
func (f *Func) ranges(in []bool) []Range {
	var all []Range
	for i, yes := range in {
		switch n := len(all); {
		case !yes:
		case n > 0 && all[n-1].High == f.Insts[i].Addr:
			all[n-1].High = f.Insts[i].End()
		default:
			all = append(all, Range{f.Insts[i].Addr, f.Insts[i].End()})
		}
	}
	return all
}

// absorb adds to code the neutral instructions that it alone leads to.
func (f *Func) absorb(code []Range, neutral func(addr uint64) bool, edges []Edge) []bool {
	in := f.set(code)
	landed := map[uint64]bool{}
	for _, e := range edges {
		landed[e.To] = true
	}
	all := func(i int) bool {
		led := f.fallsInto(i - 1)
		if led && !in[i-1] {
			return false
		}
		for _, p := range f.jumpsTo(i) {
			if !in[p] {
				return false
			}
			led = true
		}
		return led
	}
	for again := true; again; {
		again = false
		for i := range in {
			addr := f.Insts[i].Addr
			if !in[i] && addr != f.entry && !landed[addr] && neutral(addr) && all(i) {
				in[i], again = true, true
			}
		}
	}
	return in
}

// withoutPanics leaves out the instructions to which no path leads from the entry but
// by exception tables, unless all are such.
func (f *Func) withoutPanics(at []int) []int {
	if len(f.Unresolved()) > 0 {
		return at
	}
	f.begin()
	if i, ok := f.index(f.entry); ok {
		f.push(i)
	}
	for {
		i, ok := f.pop()
		if !ok {
			break
		}
		f.eachSucc(i, f.push)
	}
	var left []int
	for _, i := range at {
		if f.mark[i] == f.stamp {
			left = append(left, i)
		}
	}
	if len(left) == 0 {
		return at
	}
	return left
}

// leaves says whether control may leave the function at instruction i.
func (f *Func) exitsAt(i int) bool {
	in := &f.Insts[i]
	switch {
	case in.Kind == Ret:
		return true
	case in.Kind == JmpIndirect:
		return f.tableAt(i) == nil
	case in.Branches():
		_, within := f.index(in.Target)
		return !within
	}
	return false
}

// meets says whether every path from instruction i within a set comes to one of what.
func (f *Func) meets(i int, in []bool, what func(i int) bool) bool {
	f.begin()
	f.push(i)
	left := false
	for !left {
		i, ok := f.pop()
		if !ok {
			return true
		}
		switch {
		case what(i):
		case f.exitsAt(i):
			left = true
		default:
			f.eachSucc(i, func(s int) {
				left = left || !in[s]
				f.push(s)
			})
		}
	}
	return false
}

// comesTo says whether a path from behind instruction i within a set leads to one of at.
func (f *Func) comesTo(i int, in []bool, at []int) bool {
	f.begin()
	visit := func(s int) {
		if in[s] {
			f.push(s)
		}
	}
	f.eachSucc(i, visit)
	for {
		i, ok := f.pop()
		if !ok {
			return false
		}
		if slices.Contains(at, i) {
			return true
		}
		f.eachSucc(i, visit)
	}
}
