package index

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/x86"
)

// flow is what is known of the code of one out-of-line function.
type flow struct {
	once sync.Once
	err  error

	mu       sync.Mutex // code's methods are not for several goroutines
	code     *x86.Func
	steps    []x86.Step // the straight path from the entry, up to the first call
	path     []state    // what holds before each step
	edges    []x86.Edge // from calls to the landing pads of their panics
	pads     map[uint64]bool
	frees    *bool          // whether the code frees memory, once that has been asked
	calls    map[string]int // inlined instances by the call that they stand for, once asked
	frame    int64          // what deepest says, 0 if that has not been asked
	resuming *resuming      // of one that resumes a coroutine, once that has been asked
	plain    *bool          // whether the code is not optimised, once that has been asked

	// base is the frame base as the debug info states it, nil if it does not. onPath
	// is the same on the straight path, from the CFA: there rsp still moves.
	base, onPath location.Expr
}

func (fl *flow) decode(ix *Index, outer *Instance) {
	code, err := x86.NewFunc(ix.File.Bytes, outer.Ranges, ix.noReturn)
	if err != nil {
		fl.err = fmt.Errorf("%s: %w", outer.Fn.Name, err)
		return
	}
	fl.code = code
	code.AtEntryDepth = func(addr uint64) (bool, bool) {
		cfa, err := ix.cfa(addr)
		if err != nil || len(cfa) != 1 || cfa[0].Kind != location.OpRegister || cfa[0].Reg != location.RSP {
			return false, false
		}
		return cfa[0].Arg == 8, true
	}
	for _, s := range code.Straight(outer.Low()) {
		if s.AfterCall {
			break
		}
		fl.steps = append(fl.steps, s)
	}
	fl.path = follow(fl.steps)
	fl.landingPads(ix, outer)
	if outer.entry != 0 {
		fl.frameBase(ix, outer)
	}
}

func (fl *flow) landingPads(ix *Index, outer *Instance) {
	fl.pads = map[uint64]bool{}
	sites, _ := ix.callSites(outer.Ranges)
	for _, s := range sites {
		fl.pads[s.Pad] = true
		for i := range fl.code.Insts {
			in := &fl.code.Insts[i]
			if (in.Kind == x86.Call || in.Kind == x86.CallIndirect) && s.Low <= in.Addr && in.Addr < s.High {
				fl.edges = append(fl.edges, x86.Edge{From: in.Addr, To: s.Pad})
			}
		}
	}
}

// callSites are those of a function with a landing pad. The error says that it may have
// more.
func (ix *Index) callSites(parts []x86.Range) (sites []dwarf.CallSite, err error) {
	frames, err := ix.debug.Frames()
	if err != nil {
		return nil, err
	}
	for _, r := range parts {
		for _, frame := range frames.Within(dwarf.Range(r)) {
			more, bad := frames.LandingPads(frame.Low)
			err = errors.Join(err, bad)
			sites = append(sites, more...)
		}
	}
	return sites, err
}

func (fl *flow) frameBase(ix *Index, outer *Instance) {
	e, err := ix.debug.Entry(outer.entry)
	if err != nil {
		return
	}
	v, ok := e.Val(dwarf.AttrFrameBase)
	if !ok {
		return
	}
	base, err := location.FrameBase(v.B, location.Context{Unit: e.Unit})
	if err != nil {
		return
	}
	fl.base = base
	if len(base) != 1 {
		return
	}
	switch o := base[0]; {
	case o.Kind == location.OpCFA:
		fl.onPath = base
	case o.Kind == location.OpRegister && o.Reg == location.RSP:
		// The frame base is rsp once the frame is set up. On the straight path that is
		// so at its last step, unless the frame is set up later than that.
		if depth, ok := fl.depth(ix); ok {
			fl.onPath = location.Expr{{Kind: location.OpCFA, Arg: depth + o.Arg}}
		}
	case o.Kind == location.OpRegister && o.Reg == location.RBP:
		if n := len(fl.steps); n > 0 && fl.steps[n-1].RBPKnown {
			fl.onPath = location.Expr{{Kind: location.OpCFA, Arg: fl.steps[n-1].RBP + o.Arg}}
		}
	}
}

// depth is rsp's distance from the CFA in the function's body, which must be reached
// on the straight path.
func (fl *flow) depth(ix *Index) (int64, bool) {
	n := len(fl.steps)
	if n == 0 || !fl.steps[n-1].RSPKnown {
		return 0, false
	}
	depth := fl.steps[n-1].RSP
	for i := range fl.code.Insts {
		cfa, err := ix.cfa(fl.code.Insts[i].Addr)
		if err != nil || len(cfa) != 1 || cfa[0].Kind != location.OpRegister || cfa[0].Reg != location.RSP || -cfa[0].Arg < depth {
			return 0, false
		}
	}
	return depth, true
}

// cfa is how the canonical frame address is computed at an address.
func (ix *Index) cfa(addr uint64) (location.Expr, error) {
	frames, err := ix.debug.Frames()
	if err != nil {
		return nil, err
	}
	rule, err := frames.CFA(addr)
	if err != nil {
		return nil, err
	}
	return location.CFA(rule.Reg, rule.Off, rule.Expr)
}

// atEntry is the canonical frame address at a function's first instruction.
var atEntry = location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 8}}

// cfaAt is the canonical frame address at step k of the straight path.
func (fl *flow) cfaAt(k int) location.Expr {
	if k == 0 {
		return atEntry
	}
	return location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: -fl.steps[k].RSP}}
}

// state is what the code between the entry and a step of the straight path leaves of
// the arguments: which registers still hold what they held at the entry, and which
// bytes of the frame hold an argument.
type state struct {
	changed x86.RegSet
	// holds are the registers that hold what an argument register did at the entry.
	holds x86.RegSet
	// at is where the bytes in the frame come from; copies are the argument registers
	// that each register's lowest byte comes from, NoReg if it comes from none.
	at     *contents
	copies [x86.X0 + 8]x86.Reg
	// overwritten are bytes of the caller's frame that no longer hold what they held.
	overwritten map[int64]bool
	// wrote: memory outside of the function's own frame has been written.
	wrote bool
}

// argumentRegs are those that take arguments (psABI 3.2.3).
var argumentRegs = x86.RDI.Set() | x86.RSI.Set() | x86.RDX.Set() | x86.RCX.Set() | x86.R8.Set() | x86.R9.Set() |
	x86.RegSet(0xff)<<x86.X0

// follow runs along the straight path. A frame slot is believed only once it has been
// stored from an argument register, or from a copy of one: what else is stored there
// may be a later value of the variable.
func follow(steps []x86.Step) []state {
	states := make([]state, 0, len(steps))
	cur := state{at: atCall(), overwritten: map[int64]bool{}}
	holds := argumentRegs // registers that hold an argument
	for i := range steps {
		s := &steps[i]
		states = append(states, state{cur.changed, holds, &contents{frame: maps.Clone(cur.at.frame)}, cur.at.copies(), maps.Clone(cur.overwritten), cur.wrote})
		from := holds&taken(s) != 0 && taken(s)&^holds == 0
		if s.MemWrite || s.Stores {
			to, known := stored(s)
			cur.wrote = cur.wrote || !known || to.Offset >= 0
			if !known {
				if s.Mem.Base == x86.RSP || s.Mem.Base == x86.RBP {
					return states // somewhere in the frame
				}
			} else {
				for b := to.Offset; b < to.Offset+int64(to.Size); b++ {
					if b >= 0 {
						cur.overwritten[b] = true
					}
				}
			}
		}
		keeps := x86.RegSet(0)
		switch {
		case copies(s) && from:
			keeps = s.Dst.Set()
		case loads(s):
			if off, ok := loaded(s); ok && cur.at.argument(off, s.MemSize) {
				keeps = s.Dst.Set()
			}
		case s.Kind == x86.And && s.OpSize == 1 && s.Imm == 1 && s.HasImm && holds.Has(s.Dst):
			keeps = s.Dst.Set() // a bool, made sure of
		}
		cur.at.step(s)
		cur.changed |= s.Writes
		holds = holds&^s.Writes | keeps
	}
	return states
}

// taken is the registers whose value a move or store takes, without those of the
// memory operand's address.
func taken(s *x86.Step) x86.RegSet {
	r := s.Reads &^ (x86.RSP.Set() | x86.Flags.Set())
	if s.Src < 64 && (s.Kind == x86.MovStore || s.Kind == x86.MovRegReg || s.Kind == x86.Movzx || s.Kind == x86.Movsx) {
		return s.Src.Set()
	}
	if s.Mem.Has {
		r &^= s.Mem.Base.Set() | s.Mem.Index.Set()
	}
	return r
}

// copies says whether s is a move between registers, of any width.
func copies(s *x86.Step) bool {
	switch {
	case s.Mem.Has || s.Dst >= 16:
		return false
	case s.Kind == x86.MovRegReg, s.Kind == x86.Movzx, s.Kind == x86.Movsx:
		return true
	}
	return s.Map == 0 && s.Opcode >= 0x88 && s.Opcode <= 0x8b // mov of 1 or 2 bytes
}

// loads says whether s is a move from memory to a register, of any width.
func loads(s *x86.Step) bool {
	return s.Mem.Has && s.MemRead && !s.MemWrite && s.Dst < 16 &&
		(s.Kind == x86.MovLoad || s.Map == 0 && (s.Opcode == 0x8a || s.Opcode == 0x8b))
}

func stored(s *x86.Step) (x86.Store, bool) {
	if s.Stores {
		return s.To, true
	}
	off, ok := loaded(s)
	return x86.Store{Offset: off, Size: s.MemSize}, ok && s.MemSize > 0
}

// loaded is the distance from the CFA of a memory operand that is addressed by rsp or
// rbp alone.
func loaded(s *x86.Step) (int64, bool) {
	switch m := &s.Mem; {
	case !m.Has || m.Seg || m.Vague || m.Index != x86.NoReg:
	case m.Base == x86.RSP && s.RSPKnown:
		return s.RSP + m.Disp, true
	case m.Base == x86.RBP && s.RBPKnown:
		return s.RBP + m.Disp, true
	}
	return 0, false
}

func all(m map[int64]bool, off int64, size int) bool {
	for b := off; b < off+int64(size); b++ {
		if !m[b] {
			return false
		}
	}
	return size > 0
}

func none(m map[int64]bool, off int64, size int) bool {
	for b := off; b < off+int64(size); b++ {
		if m[b] {
			return false
		}
	}
	return true
}
