package x86

import "slices"

// ArgumentsRead returns the registers that take arguments whose value at the entry
// the function uses on some path before it writes them: what is in the others may be
// anything. Pushing one is no use, for that is also how the stack is aligned. Of a
// call or tail call that a register is passed on to as it is, callee says whether it
// uses it.
func (f *Func) ArgumentsRead(callee func(in *Inst, reg Reg) bool) RegSet {
	start, found := f.index(f.entry)
	if !found {
		return 0
	}
	args := RegSet(0xff) << X0
	for _, r := range argumentRegs {
		args |= r.Set()
	}
	held := f.spread(start, args) // registers that hold what they did at the entry
	read := RegSet(0)
	for i, set, ok := held.next(); ok; i, set, ok = held.next() {
		in := &f.Insts[i]
		if in.Kind != Push && in.Kind != Syscall && !in.Loose {
			read |= in.Reads & set
		}
		if f.callsOut(i) {
			for _, r := range argumentRegs {
				if set.Has(r) && !read.Has(r) && callee(in, r) {
					read |= r.Set()
				}
			}
		}
		next := set &^ changes(in)
		f.eachSucc(i, func(j int) { held.reach(j, next) })
	}
	return read
}

// argumentRegs take integers and pointers, in this order (psABI 3.2.3).
var argumentRegs = [...]Reg{RDI, RSI, RDX, RCX, R8, R9}

// callsOut says whether instruction i is a call, or may be a jump to another function.
func (f *Func) callsOut(i int) bool {
	switch in := &f.Insts[i]; {
	case in.Kind == Call, in.Kind == CallIndirect:
		return true
	case in.Kind == JmpIndirect:
		return f.tableAt(i) == nil
	case in.Branches():
		return !f.Contains(in.Target)
	}
	return false
}

// Dereferences says whether the function accesses memory just by the pointer that reg
// holds at its entry, fewer than size bytes behind it: code does not do that with what
// is no pointer.
func (f *Func) Dereferences(reg Reg, size int64) bool {
	held := f.holders(reg)
	for i := range held {
		in := &f.Insts[i]
		m := &in.Mem
		if m.Has && (in.MemRead || in.MemWrite) && !m.Seg && !m.Vague && m.Base < 16 && held[i].Has(m.Base) &&
			m.Disp >= 0 && m.Disp < size && (m.Index == NoReg || m.Scale > 1) {
			return true
		}
	}
	return false
}

// StoresPair says whether the function stores what two registers hold at its entry
// beside each other, as a pointer and its length are.
func (f *Func) StoresPair(first, second Reg) bool {
	stores := func(reg Reg) (at []Mem) {
		held := f.holders(reg)
		for i := range held {
			if in := &f.Insts[i]; in.Kind == MovStore && in.OpSize == 8 && in.Mem.Index == NoReg && !in.Mem.Seg && !in.Mem.Vague && held[i].Has(in.Src) {
				at = append(at, in.Mem)
			}
		}
		return at
	}
	seconds := stores(second)
	for _, a := range stores(first) {
		for _, b := range seconds {
			if a.Base == b.Base && a.Disp+8 == b.Disp {
				return true
			}
		}
	}
	return false
}

// holders are, by instruction, the registers that hold before it what reg holds at the
// function's entry. It is followed through moves and the function's own frame, as far
// as it is the same on all paths.
func (f *Func) holders(reg Reg) []RegSet {
	out := make([]RegSet, len(f.Insts))
	start, found := f.index(f.entry)
	if !found {
		return out
	}
	type state struct {
		regs  RegSet
		slots uint64 // of slots, those that hold it
	}
	var slots []int64 // distances from the CFA
	slot := func(off int64) uint64 {
		if i := slices.Index(slots, off); i >= 0 {
			return 1 << i
		}
		return 0
	}
	held := make([]state, len(f.Insts))
	seen := make([]bool, len(f.Insts))
	var work []int
	reach := func(i int, s state) {
		if seen[i] {
			s.regs &= held[i].regs
			s.slots &= held[i].slots
			if s == held[i] {
				return
			}
		}
		seen[i], held[i] = true, s
		work = append(work, i)
	}
	reach(start, state{regs: reg.Set()})
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		in, s := &f.Insts[i], held[i]
		next := state{s.regs &^ changes(in), s.slots}
		off, inFrame := f.frameSlot(i)
		switch {
		case in.MemWrite && inFrame:
			for k, at := range slots {
				if at < off+int64(max(in.MemSize, 8)) && off < at+8 {
					next.slots &^= 1 << k
				}
			}
			if in.Kind == MovStore && in.OpSize == 8 && s.regs.Has(in.Src) {
				if slot(off) == 0 && len(slots) < 64 {
					slots = append(slots, off)
				}
				next.slots |= slot(off)
			}
		case in.Kind == MovLoad && in.OpSize == 8 && inFrame && s.slots&slot(off) != 0:
			next.regs |= in.Dst.Set()
		case in.Kind == MovRegReg && in.OpSize == 8 && s.regs.Has(in.Src):
			next.regs |= in.Dst.Set()
		}
		f.eachSucc(i, func(j int) { reach(j, next) })
	}
	for i := range held {
		out[i] = held[i].regs
	}
	return out
}

// frameSlot is the distance from the CFA of the memory that instruction i accesses by
// rsp or rbp.
func (f *Func) frameSlot(i int) (int64, bool) {
	s := &f.frames[i]
	fr := frame{known: s.known}
	fr.off[RSP], fr.off[RBP] = s.sp, s.fp
	return fr.slot(&f.Insts[i])
}

// ReadsSlot says whether the function reads, by rsp or rbp, from the 8 bytes at off from
// the CFA, in its caller's frame, or takes their address.
func (f *Func) ReadsSlot(off int64) bool {
	for i := range f.Insts {
		if in := &f.Insts[i]; in.MemRead || in.Kind == Lea {
			if f.atSlot(i, off) {
				return true
			}
		}
	}
	return false
}
