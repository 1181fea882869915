package codegen

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/record"

	"github.com/cilium/ebpf/asm"
)

// regOffset is where struct pt_regs of x86-64 holds a register (kernel,
// arch/x86/include/asm/ptrace.h), by DWARF number.
var regOffset = [16]int{
	location.R15: 0,
	location.R14: 8,
	location.R13: 16,
	location.R12: 24,
	location.RBP: 32,
	location.RBX: 40,
	location.R11: 48,
	location.R10: 56,
	location.R9:  64,
	location.R8:  72,
	location.RAX: 80,
	location.RCX: 88,
	location.RDX: 96,
	location.RSI: 104,
	location.RDI: 112,
	location.RSP: 152,
}

const (
	offIP    = 128
	offFlags = 144
)

// In an item's function r6 is the context, r7 the slot if there is one, and r8 the top
// of an expression's stack. Below it in the frame are 4 bytes for lookup, then 8 for
// what Deref reads, then the rest of the expression's stack, and a key and value of
// the map of saved words.
const (
	frameDeref = -16
	frameStack = -24
	frameKey   = frameStack - 8*location.MaxDepth - 16
	frameSaved = frameKey - 8
)

// exprProblem says why an expression cannot be evaluated; "" if it can.
func exprProblem(e location.Expr) string {
	depth := 0
	for _, o := range e {
		switch {
		case o.Kind == location.OpInvalid || o.Kind > location.OpZeroExtend || depth < o.Kind.Pops():
			return "unsupported: malformed expression"
		case o.Kind == location.OpFrame:
			return "unsupported: unknown frame base"
		case o.Kind == location.OpRegister && !o.Reg.IsGeneral():
			return "unsupported: address from " + o.Reg.String()
		case o.Kind == location.OpDeref && (o.Size < 1 || o.Size > 8):
			return "unsupported: malformed expression"
		}
		if depth += 1 - o.Kind.Pops(); depth > location.MaxDepth {
			return "unsupported: expression too deep"
		}
	}
	if depth != 1 {
		return "unsupported: malformed expression"
	}
	return ""
}

// mayFail says whether evaluating e can fail when a program runs.
func mayFail(e location.Expr, cfaMayFail bool) bool {
	return e.Uses(location.OpDeref) || e.Uses(location.OpSaved) || e.Uses(location.OpDiv) || e.Uses(location.OpMod) ||
		cfaMayFail && e.Uses(location.OpCFA)
}

// expr leaves e's word in r8, or jumps to fail.
func (f *fn) expr(e location.Expr, o Options, cfaMayFail bool, fail string) {
	depth := 0
	for _, op := range e {
		if op.Kind.Pops() == 0 && depth > 0 {
			f.store(r10, frameStack-8*(depth-1), r8, u64)
		}
		if op.Kind.Pops() == 2 {
			f.load(r1, r10, frameStack-8*(depth-2), u64)
		}
		depth += 1 - op.Kind.Pops()
		f.op(op, o, cfaMayFail, fail)
	}
}

// op does one operation: on nothing, on r8, or on r1 and r8, into r8.
func (f *fn) op(op location.Op, o Options, cfaMayFail bool, fail string) {
	switch op.Kind {
	case location.OpConst:
		f.imm(r8, op.Arg)
	case location.OpRegister:
		f.load(r8, r6, regOffset[op.Reg], u64)
		f.addConst(r8, op.Arg)
	case location.OpCFA:
		if cfaMayFail {
			f.load(r8, f.at.base, f.at.flags, u16)
			f.emit(asm.JSet.Imm(r8, record.FlagNoCFA, fail))
		}
		f.load(r8, f.at.base, f.at.cfa, u64)
		f.addConst(r8, op.Arg)
	case location.OpStatic:
		f.load(r8, f.at.base, f.at.bias, u64)
		f.addConst(r8, op.Arg)
	case location.OpSaved:
		f.savedKey()
		f.mov(r2, r10)
		f.addImm(r2, frameKey)
		f.loadMap(r1, mapSaved)
		f.helper(asm.FnMapLookupElem)
		f.emit(asm.JEq.Imm(r0, 0, fail))
		f.load(r8, r0, 0, u64)
		f.mov(r2, r10)
		f.addImm(r2, frameKey)
		f.loadMap(r1, mapSaved)
		f.helper(asm.FnMapDeleteElem)
		f.addConst(r8, op.Arg)
	case location.OpDeref:
		f.storeImm(r10, frameDeref, 0, u64)
		f.mov(r1, r10)
		f.addImm(r1, frameDeref)
		f.imm(r2, int64(op.Size))
		f.mov(r3, r8)
		f.helper(o.read())
		f.emit(asm.JNE.Imm(r0, 0, fail))
		f.load(r8, r10, frameDeref, u64)
	case location.OpAdd, location.OpMul, location.OpAnd, location.OpOr, location.OpXor, location.OpSub:
		alu := map[location.OpKind]asm.ALUOp{
			location.OpAdd: asm.Add, location.OpSub: asm.Sub, location.OpMul: asm.Mul,
			location.OpAnd: asm.And, location.OpOr: asm.Or, location.OpXor: asm.Xor,
		}[op.Kind]
		f.emit(alu.Reg(r1, r8))
		f.mov(r8, r1)
	case location.OpDiv:
		f.div(fail)
	case location.OpMod:
		f.emit(asm.JEq.Imm(r8, 0, fail), asm.Mod.Reg(r1, r8))
		f.mov(r8, r1)
	case location.OpShl, location.OpShr, location.OpSar:
		f.shift(op.Kind)
	case location.OpEq, location.OpNe, location.OpLt, location.OpLe, location.OpGt, location.OpGe:
		jump := map[location.OpKind]asm.JumpOp{
			location.OpEq: asm.JEq, location.OpNe: asm.JNE, location.OpLt: asm.JSLT,
			location.OpLe: asm.JSLE, location.OpGt: asm.JSGT, location.OpGe: asm.JSGE,
		}[op.Kind]
		yes := f.newLabel("yes")
		f.imm(r2, 1)
		f.emit(jump.Reg(r1, r8, yes))
		f.imm(r2, 0)
		f.place(yes)
		f.mov(r8, r2)
	case location.OpNeg:
		f.emit(asm.Neg.Imm(r8, 0))
	case location.OpNot:
		f.emit(asm.Xor.Imm(r8, -1))
	case location.OpAbs:
		f.abs(r8)
	case location.OpSignExtend, location.OpZeroExtend:
		n := 64 - 8*int32(op.Size)
		right := asm.RSh
		if op.Kind == location.OpSignExtend {
			right = asm.ArSh
		}
		if n > 0 && n < 64 {
			f.emit(asm.LSh.Imm(r8, n), right.Imm(r8, n))
		}
	}
}

// savedKey makes the key of a call's saved word: its thread and its frame.
func (f *fn) savedKey() {
	f.load(r1, f.at.base, f.at.thread, u64)
	f.store(r10, frameKey, r1, u64)
	f.load(r1, f.at.base, f.at.cfa, u64)
	f.store(r10, frameKey+8, r1, u64)
}

// addConst adds a constant, by way of r1 if it is long.
func (f *fn) addConst(dst asm.Register, v int64) {
	switch {
	case v == 0:
	case v == int64(int32(v)):
		f.addImm(dst, int32(v))
	default:
		f.imm(r1, v)
		f.emit(asm.Add.Reg(dst, r1))
	}
}

func (f *fn) abs(r asm.Register) {
	positive := f.newLabel("positive")
	f.emit(asm.JSGE.Imm(r, 0, positive), asm.Neg.Imm(r, 0))
	f.place(positive)
}

// div is r8 = r1 / r8, signed. Signed division is an instruction only since
// Linux 6.6.
func (f *fn) div(fail string) {
	f.emit(asm.JEq.Imm(r8, 0, fail))
	f.mov(r2, r1)
	f.emit(asm.Xor.Reg(r2, r8)) // its sign is the quotient's
	f.abs(r1)
	f.abs(r8)
	f.emit(asm.Div.Reg(r1, r8))
	positive := f.newLabel("positive")
	f.emit(asm.JSGE.Imm(r2, 0, positive), asm.Neg.Imm(r1, 0))
	f.place(positive)
	f.mov(r8, r1)
}

// shift is r8 = r1 shifted by r8; counts above 63, for which DWARF and eBPF
// differ, shift everything out.
func (f *fn) shift(k location.OpKind) {
	far, done := f.newLabel("far"), f.newLabel("done")
	f.emit(asm.JGT.Imm(r8, 63, far))
	f.emit(map[location.OpKind]asm.ALUOp{
		location.OpShl: asm.LSh, location.OpShr: asm.RSh, location.OpSar: asm.ArSh,
	}[k].Reg(r1, r8))
	f.jump(done)
	f.place(far)
	if k == location.OpSar {
		f.emit(asm.ArSh.Imm(r1, 63))
	} else {
		f.imm(r1, 0)
	}
	f.place(done)
	f.mov(r8, r1)
}

// x86 flags (Intel SDM vol. 1, 3.4.3).
const (
	flagCF = 1 << 0
	flagPF = 1 << 2
	flagZF = 1 << 6
	flagSF = 1 << 7
	flagOF = 1 << 11
)

// unless jumps to skip unless the x86 condition code cc holds (Intel SDM vol. 2,
// appendix B.1.4.7). Odd codes negate the even ones before them.
func (f *fn) unless(cc int, ctx asm.Register, skip string) {
	f.load(r1, ctx, offFlags, u64)
	hit := f.newLabel("hit")
	yes, no := hit, skip
	if cc&1 != 0 {
		yes, no = skip, hit
	}
	set := func(mask int32, label string) { f.emit(asm.JSet.Imm(r1, mask, label)) }
	// signed jumps to yes if SF != OF.
	signed := func() {
		f.mov(r2, r1)
		f.emit(asm.RSh.Imm(r2, 4)) // OF to the place of SF
		f.emit(asm.Xor.Reg(r2, r1))
		f.emit(asm.JSet.Imm(r2, flagSF, yes))
	}
	switch cc &^ 1 {
	case 0x0: // o
		set(flagOF, yes)
	case 0x2: // b
		set(flagCF, yes)
	case 0x4: // e
		set(flagZF, yes)
	case 0x6: // be
		set(flagCF|flagZF, yes)
	case 0x8: // s
		set(flagSF, yes)
	case 0xa: // p
		set(flagPF, yes)
	case 0xc: // l
		signed()
	case 0xe: // le
		set(flagZF, yes)
		signed()
	}
	f.jump(no)
	f.place(hit)
}
