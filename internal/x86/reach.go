package x86

// Reaches says whether a path leads from instruction from, an index in Insts, to
// instruction to, without passing through one that stop says yes of: from itself may be
// one, to is not asked. Edges are followed too.
func (f *Func) Reaches(from int, edges []Edge, to int, stop func(i int) bool) bool {
	found := false
	f.Walk(from, edges, func(i int) bool {
		found = found || i == to
		return !found && !stop(i)
	})
	return found
}

// Walk visits the instructions to which paths lead from instruction from, an index in
// Insts, and that one first: each once, and those behind one only if visit says yes of
// it. Edges are followed too.
func (f *Func) Walk(from int, edges []Edge, visit func(i int) bool) {
	pads := make(map[uint64][]uint64, len(edges))
	for _, e := range edges {
		pads[e.From] = append(pads[e.From], e.To)
	}
	seen := make([]bool, len(f.Insts))
	work := []int{from}
	push := func(i int) {
		if !seen[i] {
			seen[i] = true
			work = append(work, i)
		}
	}
	seen[from] = true
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		if !visit(i) {
			continue
		}
		f.eachSucc(i, push)
		for _, to := range pads[f.Insts[i].Addr] {
			if p, ok := f.index(to); ok {
				push(p)
			}
		}
	}
}

// ReadLater says whether some path from instruction i on reads a register before it is
// written: what is in it is still of use. A call reads the registers that take arguments
// only as far as they were written for it, which is not looked at.
func (f *Func) ReadLater(i int, reg Reg) bool {
	found := false
	f.Walk(i, nil, func(i int) bool {
		in := &f.Insts[i]
		found = found || in.Reads.Has(reg)
		return !found && !changes(in).Has(reg)
	})
	return found
}

// Before returns the instructions, as indices in Insts, from which control comes to
// instruction i as far as the code shows it.
func (f *Func) Before(i int) []int {
	var from []int
	if f.fallsInto(i - 1) {
		from = append(from, i-1)
	}
	for _, p := range f.jumpsTo(i) {
		from = append(from, int(p))
	}
	return from
}
