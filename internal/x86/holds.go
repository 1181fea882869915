package x86

// HoldsAtExit says whether reg holds at exit, on every path, what entryReg held at
// the function's entry, having been moved there from register to register. pads
// are where control may come in beside the entry (exception tables know): nothing
// is known there.
func (f *Func) HoldsAtExit(exit Exit, entryReg, reg Reg, pads map[uint64]bool) bool {
	start, ok := f.index(f.entry)
	end, found := f.index(exit.Addr)
	if !ok || !found {
		return false
	}
	// held is the registers that hold the value before each instruction, known on
	// every path seen so far; all of them where no path has come by yet.
	held := make([]RegSet, len(f.Insts))
	for i := range held {
		held[i] = ^RegSet(0)
	}
	var work []int
	reach := func(i int, set RegSet) {
		if m := held[i] & set; m != held[i] {
			held[i] = m
			work = append(work, i)
		}
	}
	reach(start, entryReg.Set())
	for pad := range pads {
		if i, ok := f.index(pad); ok {
			reach(i, 0)
		}
	}
	for _, addr := range f.Unresolved() {
		if i, ok := f.index(addr); ok && i != end {
			return false
		}
	}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		in := &f.Insts[i]
		set := held[i]
		moved := in.Kind == MovRegReg && in.OpSize == 8 && set.Has(in.Src)
		set &^= changes(in)
		if moved {
			set |= in.Dst.Set()
		}
		f.eachSucc(i, func(j int) { reach(j, set) })
	}
	// What no path reaches has been left at all registers.
	return held[end] != ^RegSet(0) && held[end].Has(reg)
}
