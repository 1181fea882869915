package x86

// Store is memory of the frame that an instruction fills: Size bytes at Offset
// from the CFA.
type Store struct {
	Offset int64
	Size   int
}

// Step is an instruction of a straight path.
type Step struct {
	Inst
	// RSP and RBP are the registers' distances from the CFA before the
	// instruction (rsp is at -8 at a function's first one); they mean
	// something only if RSPKnown, RBPKnown.
	RSP, RBP           int64
	RSPKnown, RBPKnown bool
	AfterCall          bool // a call precedes it on the path
	// Stores says that the instruction fills To.
	Stores bool
	To     Store
}

// Straight returns the straight path from entry in the function whose ranges
// are parts: NewFunc and Func.Straight in one; nil if the function cannot be
// decoded.
func Straight(code Code, entry uint64, parts []Range) []Step {
	f, err := NewFunc(code, parts, nil)
	if err != nil {
		return nil
	}
	return f.Straight(entry)
}

// Straight returns the instructions that are executed exactly once each time
// control comes to entry (unless a call among them does not return): from
// entry on, without branching, up to and including the first branch or return,
// and not including any instruction that a jump inside the function goes to,
// nor what follows when rsp is no longer known. It is empty if entry itself is
// jumped to. entry is taken as the function's entry: rsp is 8 below the CFA.
func (f *Func) Straight(entry uint64) []Step {
	i, ok := f.index(entry)
	if !ok {
		return nil
	}
	var steps []Step
	fr := entryFrame()
	call := false
	for ; i < len(f.Insts); i++ {
		if len(f.jumpsTo(i)) > 0 {
			break
		}
		in := &f.Insts[i]
		s := Step{Inst: *in, AfterCall: call,
			RSP: fr.off[RSP], RSPKnown: fr.has(RSP),
			RBP: fr.off[RBP], RBPKnown: fr.has(RBP)}
		switch {
		case in.Kind == Push:
			s.Stores, s.To = true, Store{fr.off[RSP] - int64(in.OpSize), int(in.OpSize)}
		case in.MemWrite && !in.MemRead && in.MemSize > 0:
			if off, ok := fr.slot(in); ok {
				s.Stores, s.To = true, Store{off, in.MemSize}
			}
		}
		steps = append(steps, s)
		if in.Kind == Jcc || in.Kind == Syscall || !f.fallsInto(i) {
			break
		}
		fr.step(in)
		call = call || in.Kind == Call || in.Kind == CallIndirect
		if !fr.has(RSP) {
			if i+1 < len(f.Insts) && len(f.jumpsTo(i+1)) == 0 {
				in := &f.Insts[i+1]
				steps = append(steps, Step{Inst: *in, AfterCall: call, RBP: fr.off[RBP], RBPKnown: fr.has(RBP)})
			}
			break
		}
	}
	return steps
}

// maxSlot bounds the slots that WrittenAt looks at, in bytes.
const maxSlot = 1 << 16

// WrittenAt returns the first address on the path at which all size bytes at
// off from the CFA have been stored.
func WrittenAt(steps []Step, off int64, size int) (addr uint64, ok bool) {
	if size <= 0 || size > maxSlot {
		return 0, false
	}
	left := size
	done := make([]bool, size)
	for i, s := range steps {
		if !s.Stores {
			continue
		}
		for b := s.To.Offset; b < s.To.Offset+int64(s.To.Size); b++ {
			if b >= off && b < off+int64(size) && !done[b-off] {
				done[b-off] = true
				left--
			}
		}
		if left == 0 {
			if i+1 == len(steps) {
				return 0, false // what follows is not executed once
			}
			return steps[i+1].Addr, true
		}
	}
	return 0, false
}

// PathCrosses returns the addresses among steps whose instruction every
// supported kernel emulates: the cheap places for a uprobe on the path.
func PathCrosses(steps []Step) []uint64 {
	var addrs []uint64
	for i := range steps {
		if Emulated(steps[i].Inst) {
			addrs = append(addrs, steps[i].Addr)
		}
	}
	return addrs
}
