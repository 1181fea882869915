package x86

import "maps"

// Coroutine is a function that is called again and again with the same memory in rdi, in
// which it keeps what it needs from one call to the next: at TagOff, the tag of the state
// that it goes on from, in TagSize bytes.
type Coroutine struct {
	Size    int64 // of the memory
	TagOff  int64
	TagSize int
	First   uint64 // the tag at the first call
	// Resumes says whether there is a next call if the tag is this at the return.
	Resumes func(tag uint64) bool
	// Edges are those to landing pads.
	Edges []Edge
	// Slot is as for CallsWith.
	Slot func(addr uint64) (target uint64, ok bool)
	// Callee says what is known of what a call goes to.
	Callee func(call *Inst) Callee
}

// Callee is what a called function does with the memory that it gets pointers to.
type Callee struct {
	// Result is the most bytes that it may write to what rdi leads to, which holds nothing
	// before; -1 if that is not known. Sure: it writes so many.
	Result int64
	Sure   bool
	// Pointers are the registers in which it takes a pointer to a value that is there.
	Pointers RegSet
	// Copies: it is memcpy or memmove.
	Copies bool
}

// States are the states of a coroutine, as its code shows them.
type States struct {
	f     *Func
	c     Coroutine
	at    map[point]*known
	work  []point
	heads map[int]bool // where blocks begin
	pads  map[uint64][]int
	steps int
	// exposed is the lowest part of the frame whose address is taken: what lies above may
	// be written through pointers.
	exposed int64
	broken  bool
	// watched is an instruction, -1 for none, and caught what is known before it.
	watched int
	caught  []Moment
}

// point is an instruction that begins a block, in a state: that which is current until
// the code sets another. Code that several states share is told apart by it, and by the
// bytes in registers that the code has set: one of them is the next tag, where an optimiser
// has joined the ways on which it is stored.
type point struct {
	at    int
	tag   uint64
	bytes [16]int16 // plus 1; 0 if none was set
}

// known is what holds at a point on every path to it.
type known struct {
	machine
	bytes [16]int16 // as in point
	given []bool    // the bytes of the coroutine's memory that have been written
}

const (
	maxCoroutine      = 1 << 16
	maxCoroutineSteps = 1 << 20
)

// States follows the code on all paths, from call to call; nil if that can't be done.
func (f *Func) States(c Coroutine) *States {
	if c.Size > maxCoroutine || c.TagSize <= 0 || c.TagOff < 0 {
		return nil
	}
	s := &States{f: f, c: c, heads: map[int]bool{}, pads: map[uint64][]int{}, exposed: 1 << 62, watched: -1, steps: maxCoroutineSteps}
	for _, e := range c.Edges {
		if i, ok := f.index(e.To); ok {
			s.pads[e.From] = append(s.pads[e.From], i)
			s.heads[i] = true
		}
	}
	for i := range f.Insts {
		if in := &f.Insts[i]; in.Branches() || in.Kind == JmpIndirect {
			f.eachSucc(i, func(j int) { s.heads[j] = true })
		}
	}
	entry, ok := f.index(f.entry)
	if !ok {
		return nil
	}
	s.heads[entry] = true
	for {
		// What is in the frame is believed as far as it is not exposed, which is not known
		// before all code has been seen.
		exposed := s.exposed
		s.at = map[point]*known{}
		s.reach(point{at: entry, tag: c.First}, s.call(make([]bool, c.Size)))
		for len(s.work) > 0 && !s.broken {
			p := s.work[len(s.work)-1]
			s.work = s.work[:len(s.work)-1]
			s.block(p, s.at[p], nil, s.reach)
		}
		if s.broken {
			return nil
		}
		if s.exposed == exposed {
			return s
		}
	}
}

// call is what holds at a call.
func (s *States) call(given []bool) *known {
	k := &known{machine: machine{slots: map[int64]slotValue{}, memory: true}, given: given}
	k.regs[RDI] = value{inArg, 0}
	k.regs[RSP] = value{inFrame, 0}
	return k
}

func (k *known) clone() *known {
	return &known{k.machine.clone(), k.bytes, append([]bool(nil), k.given...)}
}

// reach notes that control comes to a point with what is known.
func (s *States) reach(p point, k *known) {
	old := s.at[p]
	if old == nil {
		s.at[p] = k.clone()
		s.work = append(s.work, p)
		return
	}
	changed := false
	for r := range old.regs {
		if old.regs[r] != k.regs[r] && old.regs[r] != (value{}) {
			old.regs[r], changed = value{}, true
		}
	}
	maps.DeleteFunc(old.slots, func(off int64, v slotValue) bool {
		gone := k.slots[off] != v
		changed = changed || gone
		return gone
	})
	if old.size != 0 && (old.size != k.size || old.compared != k.compared) {
		old.size, changed = 0, true
	}
	for i := range old.given {
		if old.given[i] && !k.given[i] {
			old.given[i], changed = false, true
		}
	}
	if changed {
		s.work = append(s.work, p)
	}
}

// access is one of the coroutine's memory. An unknown one has no size.
type access struct {
	off, size int64
	write     bool
	maybe     bool // a write that need not take place
	borrow    bool // a pointer to off is passed to a function that takes one
}

// block follows the code from a point, at which something is known, to the end of its
// block, and says where it goes on. see, if not nil, is told of accesses, in their order,
// and says no where not to go on.
func (s *States) block(p point, k *known, see func(access) bool, next func(point, *known)) {
	k = k.clone()
	w := follower{f: s.f, known: Known{s.c.TagOff, s.c.TagSize, p.tag}, slot: s.c.Slot}
	for i := p.at; ; {
		if s.steps--; s.steps < 0 {
			s.broken = true
			return
		}
		if i == s.watched {
			s.caught = append(s.caught, Moment{point{i, w.known.Value, k.bytes}, k.clone()})
		}
		in := &s.f.Insts[i]
		tag, on := s.inst(&w, k, in, see)
		if !on || s.broken {
			return
		}
		w.known.Value = tag
		for _, pad := range s.pads[in.Addr] {
			landed := k.clone()
			landed.regs = [16]value{RSP: k.regs[RSP], RBP: k.regs[RBP]}
			landed.size, landed.bytes = 0, [16]int16{}
			next(point{at: pad, tag: tag}, landed)
		}
		only, decided := s.goesTo(&w, k, in)
		var succ []int
		switch {
		case in.Kind == JmpIndirect && decided:
			if j, ok := s.f.index(only); ok {
				succ = []int{j}
			}
		case in.Kind == JmpIndirect && s.f.tableAt(i) == nil:
			s.broken = true
			return
		default:
			s.f.eachSucc(i, func(j int) {
				if !decided || s.f.Insts[j].Addr == only {
					succ = append(succ, j)
				}
			})
		}
		if len(succ) == 0 && (in.Kind == Ret || in.Kind == Jmp || in.Kind == JmpIndirect) || in.Kind == Jcc && !s.f.Contains(in.Target) {
			if entry, ok := s.f.index(s.f.entry); ok && s.c.Resumes(tag) {
				next(point{at: entry, tag: tag}, s.call(k.given))
			}
		}
		if len(succ) != 1 || s.heads[succ[0]] || in.Kind == JmpIndirect {
			for _, j := range succ {
				next(point{j, tag, k.bytes}, k)
			}
			return
		}
		i = succ[0]
	}
}

// goesTo is where control goes on, if what is known decides it.
func (s *States) goesTo(w *follower, k *known, in *Inst) (addr uint64, decided bool) {
	switch in.Kind {
	case Jcc:
		taken, decided := k.taken(in.Cond)
		if taken {
			return in.Target, decided
		}
		return in.End(), decided
	case JmpIndirect:
		to := w.callee(&k.machine, in)
		return uint64(to.n), to.kind == constant
	}
	return 0, false
}

// inst is the effect of one instruction, and what the tag is then.
func (s *States) inst(w *follower, k *known, in *Inst, see func(access) bool) (tag uint64, on bool) {
	tag, on = w.known.Value, true
	tell := func(a access) {
		if a.write && !a.maybe && a.size > 0 {
			for b := max(a.off, 0); b < min(a.off+a.size, s.c.Size); b++ {
				k.given[b] = true
			}
		}
		on = on && (see == nil || see(a))
	}
	m := &k.machine
	if in.Kind == Call || in.Kind == CallIndirect {
		s.calls(k, in, tell)
		for _, r := range []Reg{RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11} {
			m.regs[r], k.bytes[r] = value{}, 0
		}
		m.size = 0
		s.forgetExposed(k)
		return tag, on
	}
	if in.Kind == Ret || in.Kind == Jmp || in.Kind == JmpIndirect || in.Kind == Jcc {
		return tag, on
	}
	at := m.address(in)
	size := int64(in.MemSize)
	if in.Mem.Has && in.MemRead && at.kind == inArg && size > 0 {
		tell(access{off: at.n, size: size})
	}
	stores := in.Mem.Has && in.MemWrite || in.MemWrite && in.Kind != Push
	switch {
	case !stores:
		w.step(m, in)
	case in.Mem.Has && at.kind == inFrame:
		w.step(m, in)
		if in.Kind != MovStore {
			w.store(m, at, in.MemSize, value{})
		}
	case in.Mem.Has && at.kind == inArg:
		v := operandOf(m, in, int(in.OpSize))
		if size == 1 && in.Src <= R15 && !in.High && k.bytes[in.Src] > 0 {
			v = value{constant, int64(k.bytes[in.Src] - 1)}
		}
		m.forget(in.Writes)
		tell(access{off: at.n, size: size, write: true})
		if size == 0 || at.n < s.c.TagOff+int64(s.c.TagSize) && s.c.TagOff < at.n+size {
			if in.Kind != MovStore || at.n != s.c.TagOff || size != int64(s.c.TagSize) || v.kind != constant {
				s.broken = true
			}
			tag = uint64(v.n)
		}
	default:
		m.forget(in.Writes)
		if !in.Mem.Has || at.kind != constant {
			s.forgetExposed(k)
			tell(access{write: true})
		}
	}
	if in.Writes.Has(Flags) && stores {
		m.size = 0
	}
	for r := RAX; r <= R15; r++ {
		if in.Writes.Has(r) {
			k.bytes[r] = 0
		}
	}
	// mov r8, imm8
	if in.Map == 0 && in.Opcode&^7 == 0xb0 && in.HasImm && !in.High && in.Dst <= R15 {
		k.bytes[in.Dst] = int16(uint8(in.Imm)) + 1
	}
	if v := m.regs[in.Dst&15]; in.Dst <= R15 && in.Dst != RSP && in.Writes.Has(in.Dst) && v.kind == inFrame && (in.Kind == Lea || in.Kind == MovRegReg || in.Kind == Add || in.Kind == Sub) {
		s.exposed = min(s.exposed, v.n)
	}
	return tag, on
}

// calls tells of what a call does with the coroutine's memory.
func (s *States) calls(k *known, in *Inst, tell func(access)) {
	c := s.c.Callee(in)
	rdi := k.regs[RDI]
	if c.Copies {
		n := k.regs[RDX]
		known := n.kind == constant && n.n > 0
		if from := k.regs[RSI]; from.kind == inArg && known {
			tell(access{off: from.n, size: n.n})
		}
		c = Callee{Result: -1}
		if known {
			c = Callee{Result: n.n, Sure: true}
		}
	}
	for r := RAX; r <= R15; r++ {
		if v := k.regs[r]; c.Pointers.Has(r) && v.kind == inArg && v.n != 0 {
			tell(access{off: v.n, borrow: true})
		}
	}
	switch {
	case c.Result == 0:
	case rdi.kind == unknown:
		tell(access{write: true})
	case rdi.kind == inArg && c.Result < 0:
		tell(access{off: rdi.n, size: s.c.Size - rdi.n, write: true, maybe: true})
	case rdi.kind == inArg:
		tell(access{off: rdi.n, size: c.Result, write: true, maybe: !c.Sure})
	}
}

func (s *States) forgetExposed(k *known) {
	maps.DeleteFunc(k.slots, func(off int64, v slotValue) bool { return off+int64(v.size) > s.exposed })
}

// A Moment is what holds before an instruction in one of the states in which the code
// comes to it.
type Moment struct {
	p point
	k *known
}

// Resumed is the moment at which the function is called in the state of a tag; nil if it
// never is.
func (s *States) Resumed(tag uint64) []Moment {
	entry, ok := s.f.index(s.f.entry)
	p := point{at: entry, tag: tag}
	if k := s.at[p]; ok && k != nil && tag != s.c.First {
		return []Moment{{p, k}}
	}
	return nil
}

// Before are the moments before instruction i, an index in Insts.
func (s *States) Before(i int) []Moment {
	s.watched, s.caught, s.steps = i, nil, maxCoroutineSteps
	for p, k := range s.at {
		s.block(p, k, nil, func(point, *known) {})
	}
	s.watched = -1
	if s.broken {
		s.broken, s.caught = false, nil
	}
	return s.caught
}

// Register is how far into the coroutine's memory an address leads that is disp behind
// what is in a register.
func (m Moment) Register(reg Reg, disp int64) (off int64, ok bool) {
	if reg > R15 {
		return 0, false
	}
	v := m.k.regs[reg]
	return v.n + disp, v.kind == inArg
}

// Given says whether, on every path to a moment from the first call on, each of size
// bytes at off has been written.
func (s *States) Given(m Moment, off, size int64) bool {
	if size <= 0 || off < 0 || off > s.c.Size-size {
		return false
	}
	for b := off; b < off+size; b++ {
		if !m.k.given[b] {
			return false
		}
	}
	return true
}

// Used are those of the size bytes at off that the function reads on some path from a
// moment on, in this call or a later one, before anything is written there. It is nil if
// none is.
func (s *States) Used(m Moment, off, size int64) []bool {
	if size <= 0 || off < 0 || off > s.c.Size-size {
		return nil
	}
	s.steps = maxCoroutineSteps
	var used []bool
	see := func(a access) bool {
		switch {
		case a.write:
			return a.size > 0 && (a.off+a.size <= off || off+size <= a.off)
		case a.borrow && off <= a.off && a.off < off+size:
			a.size = 1
		case a.borrow || a.off < off || off+size < a.off+a.size:
			return true
		}
		if used == nil {
			used = make([]bool, size)
		}
		for b := a.off; b < a.off+a.size; b++ {
			used[b-off] = true
		}
		return true
	}
	seen := map[point]bool{}
	var work []point
	next := func(q point, _ *known) {
		if !seen[q] && s.at[q] != nil {
			seen[q] = true
			work = append(work, q)
		}
	}
	for s.block(m.p, m.k, see, next); len(work) > 0 && !s.broken; {
		p := work[len(work)-1]
		work = work[:len(work)-1]
		s.block(p, s.at[p], see, next)
	}
	if s.broken {
		s.broken = false
		return nil
	}
	return used
}

// KeepsInFrame says whether no register but rsp and rbp carries a value from one block of
// the code to another, as in code that LLVM's fast register allocator has made: such code
// is not optimised. A landing pad begins with what the unwinder leaves in rax and rdx.
func (f *Func) KeepsInFrame(pads map[uint64]bool) bool {
	const free = 1<<RSP | 1<<RBP | 1<<Flags
	begins := make([]bool, len(f.Insts))
	for i := range f.Insts {
		if in := &f.Insts[i]; in.Branches() || in.Kind == JmpIndirect {
			f.eachSucc(i, func(j int) { begins[j] = true })
		}
	}
	for i := range f.Insts {
		if !begins[i] && !pads[f.Insts[i].Addr] {
			continue
		}
		set := RegSet(free)
		if pads[f.Insts[i].Addr] {
			set |= RAX.Set() | RDX.Set()
		}
		for j := i; ; j++ {
			in := &f.Insts[j]
			if in.Kind == Call || in.Kind == CallIndirect {
				break
			}
			const general = 1<<16 - 1
			if in.Reads&general&^set != 0 && in.Kind != Ret {
				return false
			}
			set |= in.Writes
			if !f.fallsInto(j) || begins[j+1] {
				break
			}
		}
	}
	return true
}
