package jit

import (
	"fmt"
	"math/bits"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"
)

// regs is where eBPF's registers live.
var regs = [11]asm.Reg{asm.RAX, asm.RDI, asm.RSI, asm.RDX, asm.RCX, asm.R8, asm.RBX, asm.R13, asm.R14, asm.R15, asm.RBP}

// Scratch registers, and r9's first part: what no eBPF register lives in.
const (
	tmp1 = asm.R11
	tmp2 = asm.R10
	tmp3 = asm.R9
)

var callerSaved = asm.Set(asm.RAX, asm.RDI, asm.RSI, asm.RDX, asm.RCX, asm.R8, asm.R9, asm.R10, asm.R11)

type compiler struct {
	a        asm.Assembler
	o        Options
	routines map[routine]asm.Label
	pending  []routine // that are not emitted yet
	fixups   []fixup
}

type fixup struct{ start, end, target asm.Label }

// function is what is known of one function of a program.
type function struct {
	label    asm.Label
	saved    []asm.Reg // callee-saved registers that it uses, in the order of pushing
	frame    int       // bytes of its eBPF frame, 0 if r10 is not used
	clobbers asm.RegSet
	rbp      bool
	stack    int // bytes below its return address, without what it calls
	calls    []int
	deepest  int // the stack of the deepest helper
}

// fn compiles one function.
type fn struct {
	*compiler
	p      *insn.Program
	f      *function
	funcs  []function
	labels []asm.Label // by slot - start, for the targets of jumps
	start  int
	slot   int
	after  []uint16 // by slot - start: the registers that are live after it
	cold   []func() // code that is emitted behind the function
	lazy   [11]lazy
	stored stored
	known  [11]*shm.Map // that is in the register
}

// lazy is the value of a register whose instruction has not been emitted, because a
// helper that is inlined may make it unnecessary.
type lazy struct {
	kind lazyKind
	mp   *shm.Map
	off  int32
}

// stored is a word of the frame whose value is still at hand: it was stored last,
// and nothing else has been written to memory since.
type stored struct {
	valid bool
	off   int32
	reg   uint8 // what was stored, if it is not imm
	isImm bool
	imm   int32
}

type lazyKind uint8

const (
	inRegister lazyKind = iota
	isMap               // the address of mp
	isFrame             // r10 + off
	isImm               // off, sign-extended
)

func (c *compiler) program(p *insn.Program) (Entry, error) {
	funcs := make([]function, len(p.Funcs))
	after := make([][]uint16, len(p.Funcs))
	for i, f := range p.Funcs {
		funcs[i].label = c.a.NewLabel()
		after[i] = liveness(p.Insns[f.Start:f.End], f.Start)
		funcs[i].survey(p.Insns[f.Start:f.End], after[i])
	}
	for i, f := range p.Funcs {
		g := &fn{compiler: c, p: p, f: &funcs[i], funcs: funcs, start: f.Start, after: after[i]}
		if err := g.compile(f); err != nil {
			return Entry{}, err
		}
	}
	e := Entry{Context: contextOf(p)}
	done := make([]bool, len(funcs))
	total(funcs, done, 0)
	e.Clobbers, e.Stack = funcs[0].clobbers, funcs[0].stack
	e.Offset = c.a.Offset(funcs[0].label)
	return e, nil
}

// total adds to what function i clobbers and needs what its callees do. insn has
// excluded recursion.
func total(funcs []function, done []bool, i int) {
	f := &funcs[i]
	deepest := f.deepest
	for _, c := range f.calls {
		if !done[c] {
			total(funcs, done, c)
		}
		f.clobbers |= funcs[c].clobbers
		// A callback stands below the helper that calls it.
		deepest = max(deepest, f.deepest+8+funcs[c].stack)
	}
	f.stack += deepest
	done[i] = true
}

// dead says whether an instruction need not be compiled.
func dead(in *insn.Insn, after uint16) bool {
	_, defs := usesDefs(in)
	return pure(in) && after&defs == 0
}

// survey finds the registers and the frame that a function uses.
func (f *function) survey(insns []insn.Insn, after []uint16) {
	var used [11]bool
	low, escapes := 0, false
	for i, in := range insns {
		if in.Op == insn.Second || dead(&in, after[i]) {
			continue
		}
		used[in.Dst] = true
		if in.Reg || in.Op == insn.Load || in.Op == insn.LoadSX || in.Op.IsAtomic() {
			used[in.Src] = true
		}
		base := in.Dst
		if in.Op == insn.Load || in.Op == insn.LoadSX {
			base = in.Src
		}
		switch {
		case in.Op == insn.Load, in.Op == insn.LoadSX, in.Op == insn.Store, in.Op.IsAtomic():
			if base == 10 {
				low = min(low, int(in.Off))
			}
			if in.Op == insn.Store && in.Reg && in.Src == 10 || in.Op.IsAtomic() && in.Src == 10 {
				escapes = true
			}
		case in.Reg && in.Src == 10:
			escapes = true
		}
	}
	for r := 6; r <= 9; r++ {
		if used[r] {
			f.saved = append(f.saved, regs[r])
		}
	}
	if f.rbp = used[10]; f.rbp {
		f.frame = insn.StackSize
		if !escapes && low > -insn.StackSize {
			f.frame = (-low + 15) &^ 15
		}
		f.stack = f.frame + 8
	}
	f.stack += 8 * (len(f.saved) + 1) // one word more: what atomics push
}

func (g *fn) compile(f insn.Func) error {
	a := &g.a
	insns := g.p.Insns
	g.labels = make([]asm.Label, f.End-f.Start)
	for i := range g.labels {
		g.labels[i] = -1
	}
	for _, in := range insns[f.Start:f.End] {
		if in.Op.IsJump() && g.labels[in.Target-f.Start] < 0 {
			g.labels[in.Target-f.Start] = a.NewLabel()
		}
	}
	a.Align(16)
	a.Bind(g.f.label)
	if g.f.rbp {
		a.Push(asm.RBP)
		a.Mov(8, asm.RBP, asm.RSP)
		if g.f.frame != 0 {
			a.ALUImm(asm.SUB, 8, asm.RSP, int32(g.f.frame))
		}
	}
	for _, r := range g.f.saved {
		a.Push(r)
	}
	for g.slot = f.Start; g.slot < f.End; g.slot++ {
		if l := g.labels[g.slot-f.Start]; l >= 0 {
			g.flush()
			g.known, g.stored = [11]*shm.Map{}, stored{}
			a.Bind(l)
		}
		in := insns[g.slot]
		if in.Op == insn.Second {
			continue
		}
		if err := g.check(&in); err != nil {
			return fmt.Errorf("%w: instruction %d: %w", insn.ErrRefused, g.slot, err)
		}
		if dead(&in, g.after[g.slot-f.Start]) {
			continue
		}
		if err := g.insn(&in); err != nil {
			return fmt.Errorf("%w: instruction %d: %w", insn.ErrRefused, g.slot, err)
		}
	}
	for _, emit := range g.cold {
		emit()
	}
	return nil
}

// use returns the machine register of an eBPF register that is read.
func (g *fn) use(r uint8) asm.Reg {
	g.settle(int(r))
	return regs[r]
}

// mem is the operand of an access through a register.
func (g *fn) mem(base uint8, off int16) asm.Mem {
	if l := g.lazy[base]; l.kind == isFrame {
		return asm.At(asm.RBP, l.off+int32(off))
	}
	return asm.At(g.use(base), int32(off))
}

// def returns the machine register of an eBPF register that is written without
// having been read.
func (g *fn) def(r uint8) asm.Reg {
	g.lazy[r] = lazy{}
	g.changed(r)
	return regs[r]
}

// postpone has a register hold what need not be computed yet.
func (g *fn) postpone(r uint8, l lazy) {
	g.lazy[r], g.known[r] = l, l.mp
}

// changed notes that a register has a new value.
func (g *fn) changed(r uint8) {
	g.known[r] = nil
	if g.stored.reg == r && !g.stored.isImm {
		g.stored = stored{}
	}
	g.clobber(regs[r])
}

// usedef is for one that is read and written.
func (g *fn) usedef(r uint8) asm.Reg {
	g.settle(int(r))
	g.changed(r)
	return regs[r]
}

func (g *fn) clobber(rs ...asm.Reg) { g.f.clobbers |= asm.Set(rs...) & callerSaved }

// settle emits what is lazy in a register.
func (g *fn) settle(r int) {
	l := g.lazy[r]
	g.lazy[r] = lazy{}
	if l.kind == inRegister {
		return
	}
	m := g.known[r]
	g.changed(uint8(r))
	g.known[r] = m
	switch l.kind {
	case isMap:
		g.a.MovAddr(regs[r], Shared, int64(l.mp.Desc))
	case isFrame:
		if l.off == 0 {
			g.a.Mov(8, regs[r], asm.RBP)
		} else {
			g.a.Lea(regs[r], asm.At(asm.RBP, l.off))
		}
	case isImm:
		g.movImm(regs[r], int64(l.off))
	}
}

// flush settles all that is still needed: control may come from or go elsewhere.
func (g *fn) flush() {
	in := &g.p.Insns[g.slot]
	uses, defs := usesDefs(in)
	live := g.after[g.slot-g.start]&^defs | uses
	for r := range g.lazy {
		if live>>r&1 != 0 {
			g.settle(r)
		} else {
			g.lazy[r] = lazy{}
		}
	}
}

// drop forgets what is lazy in r0 … r5: a call destroys them.
func (g *fn) drop() {
	for r := 0; r <= 5; r++ {
		g.lazy[r], g.known[r] = lazy{}, nil
	}
	g.stored = stored{}
}

func (g *fn) movImm(r asm.Reg, v int64) {
	if v == 0 {
		g.a.Zero(r)
		return
	}
	g.a.MovImm(r, v)
}

func size(in *insn.Insn) int {
	if in.Wide {
		return 8
	}
	return 4
}

func (g *fn) insn(in *insn.Insn) error {
	a := &g.a
	switch {
	case in.Op.IsALU():
		g.alu(in)
	case in.Op == insn.Load:
		m := g.mem(in.Src, in.Off)
		a.Load(int(in.Bytes), g.def(in.Dst), m)
	case in.Op == insn.LoadSX:
		m := g.mem(in.Src, in.Off)
		a.LoadSX(int(in.Bytes), g.def(in.Dst), m)
	case in.Op == insn.Store:
		g.store(in)
	case in.Op.IsAtomic():
		g.atomic(in)
	case in.Op == insn.Ja:
		g.flush()
		if in.Target != g.slot+1 {
			a.Jmp(g.labels[in.Target-g.start])
		}
	case in.Op.IsCond():
		g.cond(in)
	case in.Op == insn.Call:
		return g.helper(in.Imm)
	case in.Op == insn.CallLocal:
		g.flush()
		callee := g.p.FuncAt(in.Target)
		a.Call(g.funcs[callee].label)
		g.f.calls = append(g.f.calls, callee)
		g.drop()
		g.clobber(asm.RAX)
	case in.Op == insn.Exit:
		g.settle(0)
		g.stored = stored{}
		for i := len(g.f.saved) - 1; i >= 0; i-- {
			a.Pop(g.f.saved[i])
		}
		if g.f.rbp {
			a.Leave()
		}
		a.Ret()
		g.lazy = [11]lazy{}
	case in.Op == insn.LoadImm:
		g.movImm(g.def(in.Dst), in.Imm)
	case in.Op == insn.LoadMap:
		m, _ := g.mapOf(in)
		g.postpone(in.Dst, lazy{kind: isMap, mp: m})
	case in.Op == insn.LoadValue:
		m, _ := g.mapOf(in)
		a.MovAddr(g.def(in.Dst), Shared, int64(m.Values)+in.Imm)
	case in.Op == insn.LoadFunc:
		callee := g.p.FuncAt(in.Target)
		a.LeaLabel(g.def(in.Dst), g.funcs[callee].label)
		g.f.calls = append(g.f.calls, callee)
	}
	return nil
}

// check refuses maps that there are not.
func (g *fn) check(in *insn.Insn) error {
	if in.Op != insn.LoadMap && in.Op != insn.LoadValue {
		return nil
	}
	m, err := g.mapOf(in)
	if err == nil && in.Op == insn.LoadValue && (!m.Direct() || in.Imm >= int64(m.ValueSize)) {
		err = fmt.Errorf("map %s has no direct value at %d", m.Name, in.Imm)
	}
	return err
}

func (g *fn) mapOf(in *insn.Insn) (*shm.Map, error) {
	name := g.p.Maps[in.Map]
	if g.o.Layout != nil {
		if m, ok := g.o.Layout.Map(name); ok {
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no map %s", name)
}

func (g *fn) store(in *insn.Insn) {
	n, dst := int(in.Bytes), g.mem(in.Dst, in.Off)
	s := stored{valid: n == 4 && dst.Base == asm.RBP, off: dst.Disp, reg: in.Src, isImm: !in.Reg, imm: int32(in.Imm)}
	if l := g.lazy[in.Src]; in.Reg && l.kind == isImm {
		s.isImm, s.imm = true, l.off
	}
	if s.isImm {
		g.a.StoreImm(n, dst, s.imm)
	} else {
		g.a.Store(n, dst, g.use(in.Src))
	}
	g.stored = s
}

var conds = map[insn.Op]asm.Cond{
	insn.JEq: asm.E, insn.JNe: asm.NE, insn.JGt: asm.A, insn.JGe: asm.AE, insn.JLt: asm.B, insn.JLe: asm.BE,
	insn.JSet: asm.NE, insn.JSGt: asm.G, insn.JSGe: asm.GE, insn.JSLt: asm.L, insn.JSLe: asm.LE,
}

func (g *fn) cond(in *insn.Insn) {
	g.flush()
	a, n, dst := &g.a, size(in), regs[in.Dst]
	switch {
	case in.Op == insn.JSet && in.Reg:
		a.Test(n, dst, regs[in.Src])
	case in.Op == insn.JSet:
		a.TestImm(n, dst, int32(in.Imm))
	case in.Reg:
		a.ALU(asm.CMP, n, dst, regs[in.Src])
	case in.Imm == 0:
		a.Test(n, dst, dst)
	default:
		a.ALUImm(asm.CMP, n, dst, int32(in.Imm))
	}
	a.Jcc(conds[in.Op], g.labels[in.Target-g.start])
}

var aluOps = map[insn.Op]asm.ALUOp{insn.Add: asm.ADD, insn.Sub: asm.SUB, insn.Or: asm.OR, insn.And: asm.AND, insn.Xor: asm.XOR}

var shiftOps = map[insn.Op]asm.ShiftOp{insn.Lsh: asm.SHL, insn.Rsh: asm.SHR, insn.Arsh: asm.SAR}

func (g *fn) alu(in *insn.Insn) {
	a, n := &g.a, size(in)
	switch in.Op {
	case insn.Mov:
		switch {
		case in.Reg && in.Wide && in.Src == 10:
			g.postpone(in.Dst, lazy{kind: isFrame})
		case in.Reg:
			src, m := g.use(in.Src), g.known[in.Src]
			a.Mov(n, g.def(in.Dst), src)
			if in.Wide {
				g.known[in.Dst] = m
			}
		case in.Wide || in.Imm >= 0:
			g.postpone(in.Dst, lazy{kind: isImm, off: int32(in.Imm)})
		default:
			a.MovImm(g.def(in.Dst), int64(uint32(in.Imm)))
		}
	case insn.Add:
		if l := &g.lazy[in.Dst]; l.kind == isFrame && in.Wide && !in.Reg && in.Imm == int64(int16(in.Imm)) && l.off == int32(int16(l.off)) {
			l.off += int32(in.Imm)
			return
		}
		fallthrough
	case insn.Sub, insn.Or, insn.And, insn.Xor:
		if in.Reg {
			src := g.use(in.Src)
			a.ALU(aluOps[in.Op], n, g.usedef(in.Dst), src)
		} else {
			a.ALUImm(aluOps[in.Op], n, g.usedef(in.Dst), int32(in.Imm))
		}
	case insn.Mul:
		if in.Reg {
			src := g.use(in.Src)
			a.Imul(n, g.usedef(in.Dst), src)
		} else {
			dst := g.usedef(in.Dst)
			a.ImulImm(n, dst, dst, int32(in.Imm))
		}
	case insn.Lsh, insn.Rsh, insn.Arsh:
		g.shift(in, n)
	case insn.Neg:
		a.Neg(n, g.usedef(in.Dst))
	case insn.Div, insn.Mod, insn.SDiv, insn.SMod:
		g.divide(in, n)
	case insn.MovSX:
		src := g.use(in.Src)
		a.MovSX(n, int(in.Bytes), g.def(in.Dst), src)
	case insn.ToLE, insn.ToBE, insn.Swap:
		g.swap(in)
	}
}

func (g *fn) swap(in *insn.Insn) {
	a, dst := &g.a, g.usedef(in.Dst)
	swap := in.Op != insn.ToLE
	switch in.Bytes {
	case 2:
		if swap {
			a.Shift(asm.ROL, 2, dst, 8)
		}
		a.MovZX16(dst, dst)
	case 4:
		if swap {
			a.Bswap(4, dst)
		} else {
			a.Mov(4, dst, dst)
		}
	case 8:
		if swap {
			a.Bswap(8, dst)
		}
	}
}

func (g *fn) shift(in *insn.Insn, n int) {
	a, op := &g.a, shiftOps[in.Op]
	if !in.Reg {
		dst := g.usedef(in.Dst)
		count := uint8(in.Imm) & uint8(8*n-1)
		if count == 0 && n == 4 {
			a.Mov(4, dst, dst)
		} else if count != 0 {
			a.Shift(op, n, dst, count)
		}
		return
	}
	// The count goes into cl, modulo the width as eBPF's does.
	src := g.use(in.Src)
	dst := g.usedef(in.Dst)
	if src == asm.RCX && dst != asm.RCX {
		a.ShiftCL(op, n, dst)
		return
	}
	g.settle(4) // rcx is moved about
	g.clobber(tmp1)
	a.Mov(8, tmp1, asm.RCX)
	if src != asm.RCX {
		a.Mov(4, asm.RCX, src)
	}
	if dst == asm.RCX {
		a.ShiftCL(op, n, tmp1)
	} else {
		a.ShiftCL(op, n, dst)
	}
	a.Mov(8, asm.RCX, tmp1)
}

// divide follows RFC 9669, 4.1: the quotient by zero is zero, the remainder the
// dividend, and the smallest number by -1 is itself, remainder zero.
func (g *fn) divide(in *insn.Insn, n int) {
	a := &g.a
	signed := in.Op == insn.SDiv || in.Op == insn.SMod
	quotient := in.Op == insn.Div || in.Op == insn.SDiv
	g.settle(0) // rax and rdx are moved about
	g.settle(3)
	src := asm.None
	if in.Reg {
		src = g.use(in.Src)
	}
	dst := g.usedef(in.Dst)
	byZero := func() {
		if quotient {
			a.Zero(dst)
		} else if n == 4 {
			a.Mov(4, dst, dst)
		}
	}
	byMinusOne := func() {
		if quotient {
			a.Neg(n, dst)
		} else {
			a.Zero(dst)
		}
	}
	if !in.Reg {
		v := in.Imm
		switch {
		case v == 0:
			byZero()
			return
		case v == -1 && signed:
			byMinusOne()
			return
		case v > 0 && v&(v-1) == 0 && !signed:
			if quotient && v == 1 {
				a.Mov(n, dst, dst)
			} else if quotient {
				a.Shift(asm.SHR, n, dst, uint8(bits.TrailingZeros64(uint64(v))))
			} else {
				a.ALUImm(asm.AND, n, dst, int32(v-1))
			}
			return
		}
	}
	g.clobber(tmp1, tmp2, tmp3)
	zero, minus, done := a.NewLabel(), a.NewLabel(), a.NewLabel()
	if in.Reg {
		a.Mov(n, tmp1, src)
		a.Test(n, tmp1, tmp1)
		a.JccNear(asm.E, zero)
		if signed {
			a.ALUImm(asm.CMP, n, tmp1, -1)
			a.JccNear(asm.E, minus)
		}
	} else if n == 4 {
		a.MovImm(tmp1, int64(uint32(in.Imm)))
	} else {
		a.MovImm(tmp1, in.Imm)
	}
	if dst != asm.RAX {
		a.Mov(8, tmp2, asm.RAX)
		a.Mov(8, asm.RAX, dst)
	}
	if dst != asm.RDX {
		a.Mov(8, tmp3, asm.RDX)
	}
	if signed {
		a.SignExtendA(n)
		a.IDiv(n, tmp1)
	} else {
		a.Zero(asm.RDX)
		a.Div(n, tmp1)
	}
	if quotient {
		a.Mov(n, tmp1, asm.RAX)
	} else {
		a.Mov(n, tmp1, asm.RDX)
	}
	if dst != asm.RAX {
		a.Mov(8, asm.RAX, tmp2)
	}
	if dst != asm.RDX {
		a.Mov(8, asm.RDX, tmp3)
	}
	a.Mov(8, dst, tmp1)
	if in.Reg {
		a.JmpNear(done)
		a.Bind(zero)
		byZero()
		if signed {
			a.JmpNear(done)
			a.Bind(minus)
			byMinusOne()
		}
	}
	a.Bind(done)
}

var lockOps = map[insn.Op]asm.ALUOp{insn.AtomicAdd: asm.ADD, insn.AtomicOr: asm.OR, insn.AtomicAnd: asm.AND, insn.AtomicXor: asm.XOR}

func (g *fn) atomic(in *insn.Insn) {
	a, n := &g.a, int(in.Bytes)
	mem := g.mem(in.Dst, in.Off)
	src := g.use(in.Src)
	g.stored = stored{}
	if in.Fetch && in.Op != insn.CmpXchg {
		g.changed(in.Src)
	}
	switch {
	case in.Op == insn.Xchg:
		a.XchgMem(n, mem, src)
	case in.Op == insn.CmpXchg:
		g.usedef(0)
		a.LockCmpxchg(n, mem, src)
		if n == 4 { // it does not write eax if the exchange is made
			a.Mov(4, asm.RAX, asm.RAX)
		}
	case !in.Fetch:
		a.LockALU(lockOps[in.Op], n, mem, src)
	case in.Op == insn.AtomicAdd:
		a.LockXadd(n, mem, src)
	default:
		// There is no instruction that does it: exchange until nobody came between.
		g.settle(0)
		g.clobber(tmp1, tmp2, tmp3)
		a.Lea(tmp2, mem)
		a.Mov(8, tmp1, src)
		a.Push(asm.RAX)
		a.Load(n, asm.RAX, asm.At(tmp2, 0))
		again := a.Here()
		a.Mov(8, tmp3, asm.RAX)
		a.ALU(lockOps[in.Op], n, tmp3, tmp1)
		a.LockCmpxchg(n, asm.At(tmp2, 0), tmp3)
		a.Jcc(asm.NE, again)
		a.Mov(n, tmp1, asm.RAX)
		a.Pop(asm.RAX)
		a.Mov(8, src, tmp1)
	}
}
