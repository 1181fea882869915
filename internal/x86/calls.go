package x86

// CallsThrough says whether the function may call what a table of functions, whose
// address is at src at its entry, holds.
func (f *Func) CallsThrough(src Source) bool {
	start, found := f.index(f.entry)
	if !found {
		return false
	}
	// Registers that may hold the table's address, and those with something from it.
	type state struct{ table, entry RegSet }
	held := make([]state, len(f.Insts))
	seen := make([]bool, len(f.Insts))
	var work []int
	reach := func(i int, s state) {
		h := &held[i]
		if seen[i] && s.table&^h.table == 0 && s.entry&^h.entry == 0 {
			return
		}
		seen[i] = true
		h.table |= s.table
		h.entry |= s.entry
		work = append(work, i)
	}
	reach(start, state{table: src.Reg.Set()})
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		in, s := &f.Insts[i], held[i]
		address := RegSet(0)
		if in.Mem.Has {
			address = in.Mem.Base.Set() | in.Mem.Index.Set()
		}
		through := address&s.table != 0 && in.MemRead
		next := state{s.table &^ in.Writes, s.entry &^ in.Writes}
		// A copy or a whole load.
		copies := in.Kind != Cmp && in.Dst <= 63 && in.Writes.Has(in.Dst) && in.WritesFull&^Flags.Set() != 0
		switch {
		case in.Kind == CallIndirect || f.tailCalls(i):
			if through || !in.Mem.Has && in.Reads&s.entry != 0 {
				return true
			}
			next.table &^= callClobbered
			next.entry &^= callClobbered
		case in.Kind == Call:
			next.table &^= callClobbered
			next.entry &^= callClobbered
		case in.Kind == Push || in.Kind == Pop || !copies:
		case through:
			next.entry |= in.Dst.Set()
		case src.Reg == NoReg && in.Mem.Has && in.MemRead && f.atSlot(i, src.Slot):
			next.table |= in.Dst.Set()
		case in.Mem.Has:
		case in.Reads&s.table != 0:
			next.table |= in.Dst.Set()
		case in.Reads&s.entry != 0:
			next.entry |= in.Dst.Set()
		}
		f.eachSucc(i, func(j int) { reach(j, next) })
	}
	return false
}

// tailCalls says whether indirect jump i, if it is one, leaves the function.
func (f *Func) tailCalls(i int) bool {
	if f.Insts[i].Kind != JmpIndirect {
		return false
	}
	leaves, err := f.leaves(i)
	return leaves && err == nil
}
