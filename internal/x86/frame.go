package x86

// frame is what is known of the registers as addresses in the current frame:
// off[r] is r's distance from the CFA, where known has bit r.
type frame struct {
	off   [16]int64
	known uint16
}

// entryFrame is the state at a function's first instruction: the CFA is the
// value of rsp before the call pushed the return address.
func entryFrame() frame {
	f := frame{known: 1 << RSP}
	f.off[RSP] = -8
	return f
}

func (f *frame) has(r Reg) bool { return r < 16 && f.known&(1<<r) != 0 }

func (f *frame) set(r Reg, off int64) {
	f.off[r] = off
	f.known |= 1 << r
}

// slot returns the distance from the CFA of the memory that in accesses.
func (f *frame) slot(in *Inst) (int64, bool) {
	m := &in.Mem
	if !m.Has || m.Seg || m.Vague || m.Index != NoReg || !f.has(m.Base) {
		return 0, false
	}
	return f.off[m.Base] + m.Disp, true
}

// step changes f to the state after in, if control goes on to the next
// instruction.
func (f *frame) step(in *Inst) {
	set, off := NoReg, int64(0)
	sp, spOK := f.off[RSP], f.has(RSP)
	switch in.Kind {
	case Push:
		set, off = RSP, sp-int64(in.OpSize)
	case Pop:
		if in.Dst != RSP {
			set, off = RSP, sp+int64(in.OpSize)
		}
	case Call, CallIndirect:
		f.known &^= uint16(callClobbered & 0xffff)
		return
	case Leave:
		if f.has(RBP) {
			set, off, spOK = RSP, f.off[RBP]+8, true
		}
	case MovRegReg:
		if in.OpSize == 8 && f.has(in.Src) && in.Dst < 16 {
			set, off = in.Dst, f.off[in.Src]
		}
	case Lea:
		if v, ok := f.slot(in); ok && in.OpSize == 8 {
			set, off = in.Dst, v
		}
	case Add, Sub:
		if in.OpSize == 8 && in.HasImm && f.has(in.Dst) && !in.Mem.Has {
			set, off = in.Dst, f.off[in.Dst]+in.Imm
			if in.Kind == Sub {
				off = f.off[in.Dst] - in.Imm
			}
		}
	}
	f.known &^= uint16(in.Writes & 0xffff)
	if set < 16 && (set != RSP || spOK || in.Kind == Lea || in.Kind == MovRegReg) {
		f.set(set, off)
	}
}

// frameState is the part of a frame that is kept for each instruction of a
// function: rsp and rbp. seen is set once any path has reached it.
type frameState struct {
	sp, fp int64
	known  uint16
	seen   bool
}

// propagate follows rsp and rbp from the entry along all known edges into
// f.frames: what holds before each instruction on every known path. Where paths
// disagree a register is unknown, so each instruction is visited at most a few
// times.
//
// In compiled code rsp has one depth at each instruction, for call-frame
// information could not describe it otherwise. So where a jump and the return
// of a call would meet with different depths, the call is one that does not
// return; then all is done again without its edge.
func (f *Func) propagate() {
	for round := 0; round < 16; round++ {
		f.frames = make([]frameState, len(f.Insts))
		if !f.propagateOnce(round < 15) {
			return
		}
	}
}

// propagateOnce says whether it has found calls that do not return.
func (f *Func) propagateOnce(mark bool) (again bool) {
	start, ok := f.index(f.entry)
	if !ok {
		return false
	}
	var work []int
	merge := func(i int, s frameState) {
		old := &f.frames[i]
		s.seen = true
		if !old.seen {
			*old = s
			work = append(work, i)
			return
		}
		known := old.known & s.known
		if old.sp != s.sp {
			if known&(1<<RSP) != 0 && mark && len(f.jumpsTo(i)) > 0 && i > 0 && f.fallsInto(i-1) {
				if k := f.Insts[i-1].Kind; k == Call || k == CallIndirect {
					f.markDead(i - 1)
					again = true
					return
				}
			}
			known &^= 1 << RSP
		}
		if old.fp != s.fp {
			known &^= 1 << RBP
		}
		if known != old.known {
			old.known = known
			work = append(work, i)
		}
	}
	merge(start, frameState{sp: -8, known: 1 << RSP})
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		s := f.frames[i]
		if probed, ok := f.stackProbe(i); ok {
			merge(i+1, probed)
			continue
		}
		fr := frame{known: s.known}
		fr.off[RSP], fr.off[RBP] = s.sp, s.fp
		fr.step(&f.Insts[i])
		next := frameState{sp: fr.off[RSP], fp: fr.off[RBP], known: fr.known & (1<<RSP | 1<<RBP)}
		f.eachSucc(i, func(j int) { merge(j, next) })
	}
	return again
}

// stackProbe recognises the end of LLVM's inline stack probing loop
// (lea -N(%rsp),%r11; 1: sub $0x1000,%rsp; movq $0,(%rsp); cmp %r11,%rsp;
// jne 1b) at jump i: there rsp is what the lea has computed.
func (f *Func) stackProbe(i int) (frameState, bool) {
	in := &f.Insts[i]
	if in.Kind != Jcc || in.Cond != 5 || i == 0 || !f.fallsInto(i) {
		return frameState{}, false
	}
	c := &f.Insts[i-1]
	head, ok := f.index(in.Target)
	if !ok || head == 0 || head >= i || c.Kind != Cmp || c.Reads != RSP.Set()|R11.Set() {
		return frameState{}, false
	}
	lea := &f.Insts[head-1]
	s := f.frames[head-1]
	if lea.Kind != Lea || lea.Dst != R11 || lea.Mem.Base != RSP || lea.Mem.Index != NoReg || s.known&(1<<RSP) == 0 {
		return frameState{}, false
	}
	s.sp += lea.Mem.Disp
	return s, true
}
