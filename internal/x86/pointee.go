package x86

// Source is where a function finds a pointer at its entry: in Reg, or, if that is
// NoReg, in the 8 bytes at Slot from the CFA, in its caller's frame.
type Source struct {
	Reg  Reg
	Slot int64
}

// ReadsThrough says whether the function may read what the pointer at src leads to,
// before it has written there. Who knows that a function does not (LLVM finds out:
// readnone, writeonly, initializes) need not have stored anything where the pointer
// leads to. A pointer that is stored to memory counts as read through. For one that
// a call may take as its argument callee answers, for the call's or the tail call's
// target, or, if ok is false there, the pointer counts if it was put into its register
// for the call.
func (f *Func) ReadsThrough(src Source, callee func(in *Inst, reg Reg) (reads, ok bool)) bool {
	start, found := f.index(f.entry)
	if !found {
		return false
	}
	held := f.spread(start, src.Reg.Set()) // registers that may hold the pointer
	reads := false
	for i, set, ok := held.next(); ok; i, set, ok = held.next() {
		in := &f.Insts[i]
		address := RegSet(0)
		if in.Mem.Has {
			address = in.Mem.Base.Set() | in.Mem.Index.Set()
		}
		atSlot := src.Reg == NoReg && in.Mem.Has && f.atSlot(i, src.Slot)
		next := set &^ in.Writes
		switch {
		case address&set != 0 && in.MemRead:
			reads = true
			continue // whatever this path does later
		case address&set != 0 && in.MemWrite:
			return false
		case in.Kind == Call || in.Kind == CallIndirect || in.Kind == Jmp && !f.Contains(in.Target) || f.tailCalls(i):
			if f.passes(in, set, src.Reg, callee) {
				reads = true
				continue
			}
			next &^= callClobbered
		case in.Kind == Push || in.Kind == Pop:
		case in.MemWrite && (in.Reads&^address)&set != 0:
			reads = true // it escapes
			continue
		case in.Kind == Cmp || in.Dst > 63:
		case atSlot && (in.MemRead || in.Kind == Lea) || in.Reads&set != 0 && in.Writes.Has(in.Dst) && in.WritesFull&^Flags.Set() != 0:
			next |= in.Dst.Set() // a copy, or an address computed from it
		}
		f.eachSucc(i, func(j int) { held.reach(j, next) })
	}
	return reads
}

// atSlot says whether instruction i accesses what is at off from the CFA.
func (f *Func) atSlot(i int, off int64) bool {
	at, ok := f.frameSlot(i)
	return ok && at == off
}

// passes says whether a call reads through the pointer in one of the registers.
func (f *Func) passes(in *Inst, set RegSet, original Reg, callee func(*Inst, Reg) (reads, ok bool)) bool {
	for _, r := range argumentRegs {
		if !set.Has(r) {
			continue
		}
		if reads, ok := callee(in, r); reads || !ok && r != original {
			return true
		}
	}
	return false
}
