package x86

import "encoding/binary"

// Known is memory whose content is known: Size (1, 2, 4 or 8) bytes at Off from what rdi
// points to at the function's entry.
type Known struct {
	Off   int64
	Size  int
	Value uint64
}

// PassedOn is a call of Target with a pointer in rdi that is Off behind the one that the
// function got in rdi.
type PassedOn struct {
	Target uint64
	Off    int64
}

// CallsWith returns the calls with pointers into what rdi points to that the function makes
// on every path from its entry to its return, jumps to other functions included, if memory
// is as known says. It follows the code with what is known of registers and the frame, and
// both ways where that does not decide a branch. slot says which function's address is in
// a slot that is filled when the program is loaded. CallsWith is nil if it takes too long.
func (f *Func) CallsWith(known Known, slot func(addr uint64) (target uint64, ok bool)) []PassedOn {
	i, ok := f.index(f.entry)
	if !ok {
		return nil
	}
	w := follower{f: f, known: known, slot: slot, steps: 4000}
	m := machine{slots: map[int64]slotValue{}, memory: true}
	m.regs[RDI] = value{inArg, 0}
	m.regs[RSP] = value{inFrame, 0}
	calls, returns := w.run(i, m, 0)
	if w.steps < 0 || !returns {
		return nil
	}
	var all []PassedOn
	for c := range calls {
		all = append(all, c)
	}
	return all
}

type valueKind uint8

const (
	unknown  valueKind = iota
	constant           // n
	inArg              // n behind what rdi pointed to
	inFrame            // n behind what rsp pointed to
)

type value struct {
	kind valueKind
	n    int64
}

type slotValue struct {
	value
	size int
}

// machine is what is known at one point of the code.
type machine struct {
	regs  [16]value
	slots map[int64]slotValue
	// memory: that which is Known is still as it was.
	memory bool
	// compared are the operands of the subtraction that the flags are of.
	compared [2]uint64
	size     int // of them; 0 if the flags are not known
}

func (m machine) clone() machine {
	slots := make(map[int64]slotValue, len(m.slots))
	for k, v := range m.slots {
		slots[k] = v
	}
	m.slots = slots
	return m
}

type follower struct {
	f     *Func
	known Known
	slot  func(addr uint64) (uint64, bool)
	steps int // that are left
}

// maxForks bounds the branches on a path that nothing decides.
const maxForks = 8

// run follows the code from instruction i on. returns is false if it never does.
func (w *follower) run(i int, m machine, forks int) (calls map[PassedOn]bool, returns bool) {
	calls = map[PassedOn]bool{}
	for {
		if w.steps--; w.steps < 0 || i >= len(w.f.Insts) {
			w.steps = -1
			return nil, true
		}
		in := &w.f.Insts[i]
		next, jumps := in.End(), false
		switch in.Kind {
		case Ret:
			return calls, true
		case Trap:
			return calls, false
		case Call, CallIndirect:
			if to, rdi := w.callee(&m, in), m.regs[RDI]; to.kind == constant && rdi.kind == inArg {
				calls[PassedOn{uint64(to.n), rdi.n}] = true
			}
			for _, r := range []Reg{RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11} {
				m.regs[r] = value{}
			}
			m.size = 0
		case Jmp:
			next, jumps = in.Target, true
		case JmpIndirect:
			to := w.callee(&m, in)
			if to.kind != constant {
				w.steps = -1
				return nil, true
			}
			next, jumps = uint64(to.n), true
		case Jcc:
			taken, decided := m.taken(in.Cond)
			switch {
			case decided && taken:
				next, jumps = in.Target, true
			case decided:
			case forks == maxForks:
				w.steps = -1
				return nil, true
			default:
				return w.fork(calls, in, m, forks+1)
			}
		default:
			w.step(&m, in)
		}
		at, ok := w.f.index(next)
		if !ok {
			if rdi := m.regs[RDI]; jumps && rdi.kind == inArg {
				calls[PassedOn{next, rdi.n}] = true
			}
			return calls, jumps
		}
		i = at
	}
}

// fork follows both ways of a branch: what is called is called on both.
func (w *follower) fork(calls map[PassedOn]bool, in *Inst, m machine, forks int) (map[PassedOn]bool, bool) {
	var both []map[PassedOn]bool
	for _, to := range []uint64{in.End(), in.Target} {
		i, ok := w.f.index(to)
		if !ok {
			both = append(both, nil) // it leaves for another function
			continue
		}
		if more, returns := w.run(i, m.clone(), forks); returns {
			both = append(both, more)
		}
	}
	if len(both) == 0 {
		return calls, false
	}
	for c := range both[0] {
		if both[len(both)-1][c] {
			calls[c] = true
		}
	}
	return calls, true
}

// callee is where a call, or an indirect jump, goes to.
func (w *follower) callee(m *machine, in *Inst) value {
	if in.Kind == Call {
		return value{constant, int64(in.Target)}
	}
	if in.Mem.Has {
		return w.load(m, m.address(in), 8)
	}
	for r := RAX; r <= R15; r++ {
		if in.Reads&^RSP.Set() == r.Set() {
			return m.regs[r]
		}
	}
	return value{}
}

// address is where an instruction's memory operand is.
func (m *machine) address(in *Inst) value {
	o := &in.Mem
	switch {
	case o.RIPRel:
		return value{constant, int64(o.Target)}
	case o.Vague || o.Seg || !o.Has:
		return value{}
	}
	at := value{constant, o.Disp}
	if o.Base <= R15 {
		at = add(m.regs[o.Base], at)
	}
	if o.Index <= R15 {
		x := m.regs[o.Index]
		if x.kind != constant {
			return value{}
		}
		at = add(at, value{constant, x.n * int64(o.Scale)})
	}
	return at
}

func add(a, b value) value {
	switch {
	case a.kind == unknown || b.kind == unknown || a.kind != constant && b.kind != constant:
		return value{}
	case a.kind == constant:
		return value{b.kind, a.n + b.n}
	}
	return value{a.kind, a.n + b.n}
}

// load reads size bytes, without a sign.
func (w *follower) load(m *machine, at value, size int) value {
	switch at.kind {
	case inFrame:
		if s, ok := m.slots[at.n]; ok && s.size == size {
			return s.value
		}
	case inArg:
		if m.memory && at.n == w.known.Off && size == w.known.Size {
			return value{constant, int64(w.known.Value)}
		}
	case constant:
		if target, ok := w.slot(uint64(at.n)); ok && size == 8 {
			return value{constant, int64(target)}
		}
	}
	return value{}
}

// store forgets what was at an address, and remembers what is there now.
func (w *follower) store(m *machine, at value, size int, v value) {
	if size == 0 {
		size = 64
	}
	switch at.kind {
	case inFrame:
		for off, s := range m.slots {
			if off < at.n+int64(size) && at.n < off+int64(s.size) {
				delete(m.slots, off)
			}
		}
		m.slots[at.n] = slotValue{v, size}
	case inArg:
		if at.n < w.known.Off+int64(w.known.Size) && w.known.Off < at.n+int64(size) {
			m.memory = false
		}
	default:
		clear(m.slots)
		m.memory = false
	}
}

// truncated is v as an operand of size bytes.
func truncated(v value, size int) value {
	switch {
	case size == 8:
		return v
	case v.kind != constant || size <= 0 || size > 8:
		return value{}
	}
	return value{constant, v.n & (1<<(8*size) - 1)}
}

// step is the effect of an instruction that does not branch.
func (w *follower) step(m *machine, in *Inst) {
	if in.Writes.Has(Flags) {
		m.size = 0
	}
	size := int(in.OpSize)
	operand := func() value {
		switch {
		case in.Mem.Has:
			return w.load(m, m.address(in), size)
		case in.Src <= R15:
			return truncated(m.regs[in.Src], size)
		case in.HasImm:
			return truncated(value{constant, in.Imm}, size)
		}
		return value{}
	}
	var result value
	switch in.Kind {
	case MovRegReg, MovRegImm, MovLoad:
		if size >= 4 && !in.High {
			result = operand()
		}
	case Movzx:
		if in.Mem.Has {
			result = w.load(m, m.address(in), in.MemSize)
		}
	case Movsx:
		// An entry in a table of jumps, which is read-only.
		if at := m.address(in); at.kind == constant && in.MemSize == 4 && size == 8 {
			if b := w.f.code(uint64(at.n)); len(b) >= 4 {
				result = value{constant, int64(int32(binary.LittleEndian.Uint32(b)))}
			}
		}
	case Lea:
		if size == 8 {
			result = m.address(in)
		}
	case Add, Sub:
		if in.MemWrite {
			w.store(m, m.address(in), in.MemSize, value{})
			break
		}
		if in.Dst > R15 || size < 4 {
			break
		}
		a, b := truncated(m.regs[in.Dst], size), operand()
		if in.Kind == Add {
			result = truncated(add(a, b), size)
			break
		}
		if b.kind == constant {
			result = truncated(add(a, value{constant, -b.n}), size)
		}
		m.compare(a, b, size)
	case Cmp:
		if in.Src <= R15 && in.HasImm && !in.High {
			m.compare(truncated(m.regs[in.Src], size), truncated(value{constant, in.Imm}, size), size)
		}
	case Xor:
		if in.MemWrite {
			w.store(m, m.address(in), in.MemSize, value{})
		}
		if in.Dst == in.Src && in.Dst <= R15 && size >= 4 {
			result = value{constant, 0}
		}
	case Push:
		m.regs[RSP] = add(m.regs[RSP], value{constant, -8})
		w.store(m, m.regs[RSP], 8, value{})
		return
	case Pop:
		rsp := m.regs[RSP]
		m.forget(in.Writes)
		m.regs[RSP] = add(rsp, value{constant, 8})
		return
	case MovStore:
		w.store(m, m.address(in), in.MemSize, operandOf(m, in, size))
		return
	default:
		// test r, r
		if in.Map == 0 && in.Opcode == 0x85 && !in.Mem.Has && size >= 4 {
			for r := RAX; r <= R15; r++ {
				if in.Reads == r.Set() {
					m.compare(truncated(m.regs[r], size), value{constant, 0}, size)
				}
			}
		}
		if in.MemWrite {
			w.store(m, m.address(in), in.MemSize, value{})
		}
	}
	m.forget(in.Writes)
	if in.Dst <= R15 && in.Writes.Has(in.Dst) && in.WritesFull.Has(in.Dst) {
		m.regs[in.Dst] = result
	}
}

// operandOf is what a MovStore stores.
func operandOf(m *machine, in *Inst, size int) value {
	switch {
	case in.High:
	case in.Src <= R15:
		return truncated(m.regs[in.Src], size)
	case in.Src == NoReg && in.HasImm:
		return truncated(value{constant, in.Imm}, size)
	}
	return value{}
}

func (m *machine) forget(regs RegSet) {
	for r := RAX; r <= R15; r++ {
		if regs.Has(r) {
			m.regs[r] = value{}
		}
	}
}

func (m *machine) compare(a, b value, size int) {
	if a.kind != constant || b.kind != constant {
		return
	}
	m.compared, m.size = [2]uint64{uint64(a.n), uint64(b.n)}, size
}

// taken says whether a jump under a condition is, as far as the flags are known (SDM
// vol. 1, B.1).
func (m *machine) taken(cond uint8) (taken, decided bool) {
	if m.size == 0 || cond > 15 {
		return false, false
	}
	shift := 64 - 8*m.size
	a, b := m.compared[0]<<shift, m.compared[1]<<shift
	switch cond &^ 1 {
	case 0x2: // below
		taken = a < b
	case 0x4: // equal
		taken = a == b
	case 0x6: // below or equal
		taken = a <= b
	case 0x8: // sign
		taken = int64(a-b) < 0
	case 0xc: // less
		taken = int64(a) < int64(b)
	case 0xe: // less or equal
		taken = int64(a) <= int64(b)
	default:
		return false, false
	}
	return taken != (cond&1 == 1), true
}
