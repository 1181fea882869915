package location

import "fmt"

// Operations of DWARF expressions (DWARF 5 §7.7.1), and those GNU extensions that
// became part of DWARF 5.
const (
	opAddr        = 0x03
	opDeref       = 0x06
	opConst1u     = 0x08
	opConst8s     = 0x0f
	opConstu      = 0x10
	opConsts      = 0x11
	opDup         = 0x12
	opDrop        = 0x13
	opOver        = 0x14
	opPick        = 0x15
	opSwap        = 0x16
	opRot         = 0x17
	opXderef      = 0x18
	opAbs         = 0x19
	opAnd         = 0x1a
	opDiv         = 0x1b
	opMinus       = 0x1c
	opMod         = 0x1d
	opMul         = 0x1e
	opNeg         = 0x1f
	opNot         = 0x20
	opOr          = 0x21
	opPlus        = 0x22
	opPlusUconst  = 0x23
	opShl         = 0x24
	opShr         = 0x25
	opShra        = 0x26
	opXor         = 0x27
	opBra         = 0x28
	opEq          = 0x29
	opNe          = 0x2e
	opSkip        = 0x2f
	opLit0        = 0x30
	opLit31       = 0x4f
	opReg0        = 0x50
	opReg31       = 0x6f
	opBreg0       = 0x70
	opBreg31      = 0x8f
	opRegx        = 0x90
	opFbreg       = 0x91
	opBregx       = 0x92
	opPiece       = 0x93
	opDerefSize   = 0x94
	opXderefSize  = 0x95
	opNop         = 0x96
	opPushObject  = 0x97
	opCall2       = 0x98
	opCall4       = 0x99
	opCallRef     = 0x9a
	opTLS         = 0x9b
	opCFA         = 0x9c
	opBitPiece    = 0x9d
	opImplicit    = 0x9e
	opStackValue  = 0x9f
	opImplicitPtr = 0xa0
	opAddrx       = 0xa1
	opConstx      = 0xa2
	opEntryValue  = 0xa3
	opConstType   = 0xa4
	opRegvalType  = 0xa5
	opDerefType   = 0xa6
	opXderefType  = 0xa7
	opConvert     = 0xa8
	opReinterpret = 0xa9

	opGNUTLS         = 0xe0
	opGNUEntryValue  = 0xf3
	opGNUConstType   = 0xf4
	opGNURegvalType  = 0xf5
	opGNUDerefType   = 0xf6
	opGNUConvert     = 0xf7
	opGNUReinterpret = 0xf9
	opGNUAddrIndex   = 0xfb
	opGNUConstIndex  = 0xfc
)

// DW_ATE encodings of integers (DWARF 5 §7.8).
const (
	ateAddress      = 0x01
	ateBoolean      = 0x02
	ateSigned       = 0x05
	ateSignedChar   = 0x06
	ateUnsigned     = 0x07
	ateUnsignedChar = 0x08
	ateUTF          = 0x10
)

var binaryOps = map[byte]OpKind{
	opAnd: OpAnd, opDiv: OpDiv, opMinus: OpSub, opMod: OpMod, opMul: OpMul, opOr: OpOr,
	opPlus: OpAdd, opShl: OpShl, opShr: OpShr, opShra: OpSar, opXor: OpXor,
	0x29: OpEq, 0x2a: OpGe, 0x2b: OpGt, 0x2c: OpLe, 0x2d: OpLt, 0x2e: OpNe,
}

var unaryOps = map[byte]OpKind{opAbs: OpAbs, opNeg: OpNeg, opNot: OpNot}

func (m *machine) push(x Expr, t vtype) error {
	if len(m.stack) >= maxStack {
		return errUnsupported("expression too deep")
	}
	if len(x) > 4*MaxOps {
		// dup, on and on, makes an expression of any length.
		return errUnsupported("expression too long")
	}
	m.stack = append(m.stack, elem{x, t})
	return nil
}

func (m *machine) pushOp(o Op) error { return m.push(Expr{o}, vtype{}) }

func (m *machine) pop() (elem, error) {
	if len(m.stack) == 0 {
		return elem{}, m.malformed("nothing on the stack")
	}
	e := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return e, nil
}

// peek is the entry n below the top.
func (m *machine) peek(n int) (elem, error) {
	if n >= len(m.stack) {
		return elem{}, m.malformed("nothing on the stack at %d", n)
	}
	return m.stack[len(m.stack)-1-n], nil
}

// step does one operation other than those that end a piece.
func (m *machine) step(op byte) error {
	if kind, ok := binaryOps[op]; ok {
		b, err := m.pop()
		if err != nil {
			return err
		}
		a, err := m.pop()
		if err != nil {
			return err
		}
		return m.binary(kind, a, b)
	}
	if kind, ok := unaryOps[op]; ok {
		a, err := m.pop()
		if err != nil {
			return err
		}
		if a.t.size != 0 && a.t.size < 8 && kind == OpNot {
			return m.push(m.extend(appendOp(a.x, Op{Kind: kind}), a.t), a.t)
		}
		if a.t.size != 0 && (kind == OpNeg || kind == OpAbs) && !a.t.signed {
			return errUnsupported("negation of an unsigned value")
		}
		return m.push(m.extend(appendOp(a.x, Op{Kind: kind}), a.t), a.t)
	}
	switch {
	case op >= opLit0 && op <= opLit31:
		return m.pushOp(Op{Kind: OpConst, Arg: int64(op - opLit0)})
	case op >= opReg0 && op <= opReg31:
		return m.inRegister(uint64(op - opReg0))
	case op >= opBreg0 && op <= opBreg31:
		off, err := m.sleb()
		if err != nil {
			return err
		}
		return m.pushRegister(uint64(op-opBreg0), off)
	case op >= opConst1u && op <= opConst8s:
		n := 1 << ((op - opConst1u) / 2)
		v, err := m.fixed(n)
		if err != nil {
			return err
		}
		if op&1 != 0 {
			v = signExtend(v, n)
		}
		return m.pushOp(Op{Kind: OpConst, Arg: int64(v)})
	}
	switch op {
	case opAddr:
		v, err := m.fixed(8)
		if err != nil {
			return err
		}
		return m.pushOp(Op{Kind: OpStatic, Arg: int64(v)})
	case opAddrx, opConstx, opGNUAddrIndex, opGNUConstIndex:
		i, err := m.uleb()
		if err != nil {
			return err
		}
		if m.ctx.Unit == nil {
			return errUnsupported("an address from .debug_addr")
		}
		v, err := m.ctx.Unit.AddrX(i)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if op == opConstx || op == opGNUConstIndex {
			// Used for offsets into thread-local storage: not relocated.
			return m.pushOp(Op{Kind: OpConst, Arg: int64(v)})
		}
		return m.pushOp(Op{Kind: OpStatic, Arg: int64(v)})
	case opConstu:
		v, err := m.uleb()
		if err != nil {
			return err
		}
		return m.pushOp(Op{Kind: OpConst, Arg: int64(v)})
	case opConsts:
		v, err := m.sleb()
		if err != nil {
			return err
		}
		return m.pushOp(Op{Kind: OpConst, Arg: v})
	case opRegx:
		r, err := m.uleb()
		if err != nil {
			return err
		}
		return m.inRegister(r)
	case opBregx:
		r, err := m.uleb()
		if err != nil {
			return err
		}
		off, err := m.sleb()
		if err != nil {
			return err
		}
		return m.pushRegister(r, off)
	case opFbreg:
		off, err := m.sleb()
		if err != nil {
			return err
		}
		return m.pushOp(Op{Kind: OpFrame, Arg: off})
	case opCFA:
		return m.pushOp(Op{Kind: OpCFA})
	case opPlusUconst:
		v, err := m.uleb()
		if err != nil {
			return err
		}
		a, err := m.pop()
		if err != nil {
			return err
		}
		return m.push(m.extend(addConst(a.x, int64(v)), a.t), a.t)
	case opDup:
		return m.copy(0)
	case opOver:
		return m.copy(1)
	case opPick:
		n, err := m.fixed(1)
		if err != nil {
			return err
		}
		return m.copy(int(n))
	case opDrop:
		_, err := m.pop()
		return err
	case opSwap, opRot:
		return m.rotate(map[byte]int{opSwap: 2, opRot: 3}[op])
	case opDeref:
		return m.deref(8, vtype{})
	case opDerefSize:
		n, err := m.fixed(1)
		if err != nil {
			return err
		}
		return m.deref(int(n), vtype{})
	case opNop:
		return nil
	case opStackValue:
		if len(m.stack) == 0 {
			return m.malformed("no value on the stack")
		}
		m.kind = Value
		return nil
	case opImplicit:
		n, err := m.uleb()
		if err != nil {
			return err
		}
		if n > uint64(len(m.in)) {
			return m.malformed("a constant of %d bytes", n)
		}
		b, err := m.need(int(n))
		if err != nil {
			return err
		}
		if len(m.stack) > 0 {
			return m.malformed("a constant after an address")
		}
		m.kind, m.bytes = Constant, b
		return nil
	case opEntryValue, opGNUEntryValue:
		return m.entryValue()
	case opConstType, opGNUConstType, opRegvalType, opGNURegvalType, opDerefType, opGNUDerefType,
		opConvert, opGNUConvert, opReinterpret, opGNUReinterpret:
		return m.typed(op)
	}
	name, known := refused[op]
	if !known || !m.skipOperands(op) {
		// Where the next operation begins is not known.
		m.pos = len(m.in)
		if !known {
			name = fmt.Sprintf("DWARF operation %#x", op)
		}
	}
	return errUnsupported(name)
}

// refused are the operations that are known and not done, by what they stand for.
var refused = map[byte]string{
	opXderef: "another address space", opXderefSize: "another address space", opXderefType: "another address space",
	opBra: "a conditional location", opSkip: "a conditional location",
	opPushObject: "a location relative to an object", opCall2: "a location in another entry",
	opCall4: "a location in another entry", opCallRef: "a location in another entry",
	opTLS: "thread-local storage", opGNUTLS: "thread-local storage",
	opImplicitPtr: "a pointer to what is not in memory", 0xf2: "a pointer to what is not in memory",
}

// skipOperands passes over the operands of op and reports whether it could.
func (m *machine) skipOperands(op byte) bool {
	uleb := func() bool { _, err := m.uleb(); return err == nil }
	need := func(n int) bool { _, err := m.need(n); return err == nil }
	block := func() bool { n, err := m.uleb(); return err == nil && n <= uint64(len(m.in)) && need(int(n)) }
	switch {
	case op >= opBreg0 && op <= opBreg31:
		return uleb()
	case op >= opLit0 && op <= opReg31:
		return true
	case op >= opConst1u && op <= opConst8s:
		return need(1 << ((op - opConst1u) / 2))
	}
	switch op {
	case opAddr:
		return need(8)
	case opConstu, opConsts, opPlusUconst, opRegx, opFbreg, opAddrx, opConstx, opConvert, opGNUConvert,
		opReinterpret, opGNUReinterpret, opGNUAddrIndex, opGNUConstIndex:
		return uleb()
	case opBregx, opRegvalType, opGNURegvalType:
		if !uleb() {
			return false
		}
		return uleb()
	case opPick, opDerefSize, opXderefSize:
		return need(1)
	case opBra, opSkip, opCall2:
		return need(2)
	case opCall4:
		return need(4)
	case opImplicit, opEntryValue, opGNUEntryValue:
		return block()
	case opDerefType, opGNUDerefType, opXderefType:
		return need(1) && uleb()
	case opConstType, opGNUConstType:
		if !uleb() {
			return false
		}
		n, err := m.fixed(1)
		return err == nil && need(int(n))
	case opImplicitPtr, 0xf2, opCallRef:
		// Their size hangs on the unit's format (32- or 64-bit).
		return false
	}
	return op == opDeref || op >= opDup && op <= opOver || op == opSwap || op == opRot || op == opXderef ||
		op >= opAbs && op <= opPlus || op >= opShl && op <= opXor || op >= opEq && op <= opNe ||
		op == opNop || op == opPushObject || op == opTLS || op == opCFA || op == opStackValue || op == opGNUTLS
}

func (m *machine) inRegister(n uint64) error {
	if len(m.stack) > 0 {
		return m.malformed("a register after an address")
	}
	m.kind = Register
	if n >= uint64(regEnd) || Reg(n) == RA {
		return errUnsupported(fmt.Sprintf("register %d", n))
	}
	m.reg = Reg(n)
	return nil
}

func (m *machine) pushRegister(n uint64, off int64) error {
	if n > uint64(R15) {
		return errUnsupported(fmt.Sprintf("an address in register %d", n))
	}
	return m.pushOp(Op{Kind: OpRegister, Reg: Reg(n), Arg: off})
}

func (m *machine) copy(n int) error {
	e, err := m.peek(n)
	if err != nil {
		return err
	}
	return m.push(e.x, e.t)
}

// rotate moves the top of the stack below the n-1 entries under it.
func (m *machine) rotate(n int) error {
	if len(m.stack) < n {
		return m.malformed("fewer than %d on the stack", n)
	}
	s := m.stack[len(m.stack)-n:]
	top := s[n-1]
	copy(s[1:], s[:n-1])
	s[0] = top
	return nil
}

func (m *machine) deref(n int, t vtype) error {
	a, err := m.pop()
	if err != nil {
		return err
	}
	if n != 1 && n != 2 && n != 4 && n != 8 {
		return errUnsupported(fmt.Sprintf("a load of %d bytes", n))
	}
	return m.push(m.extend(appendOp(a.x, Op{Kind: OpDeref, Size: uint8(n)}), t), t)
}

// entryValue does DW_OP_entry_value (DWARF 5 §2.5.1.7): what a register held when the
// function was entered.
func (m *machine) entryValue() error {
	n, err := m.uleb()
	if err != nil {
		return err
	}
	if n > uint64(len(m.in)) {
		return m.malformed("an entry value of %d bytes", n)
	}
	b, err := m.need(int(n))
	if err != nil {
		return err
	}
	if !m.ctx.EntryPC {
		return errUnsupported("known only at the function's entry")
	}
	if len(b) == 1 && b[0] >= opReg0 && b[0] <= opReg31 {
		return m.pushRegister(uint64(b[0]-opReg0), 0)
	}
	return errUnsupported("an entry value that is not a register")
}

func (m *machine) binary(kind OpKind, a, b elem) error {
	t := a.t
	if a.t != b.t {
		switch kind {
		case OpShl, OpShr, OpSar: // the amount may be of any type
		case OpAdd, OpSub, OpMul, OpAnd, OpOr, OpXor, OpEq, OpNe:
			// LLVM mixes words with its own 64-bit types; where the sign does not
			// matter they are the same.
			if a.t.width() != 8 || b.t.width() != 8 {
				return errUnsupported("a computation of mixed types")
			}
			t = vtype{}
		default:
			return errUnsupported("a computation of mixed types")
		}
	}
	if t.size != 0 {
		switch kind {
		case OpDiv, OpLt, OpLe, OpGt, OpGe:
			if t.size == 8 && !t.signed {
				return errUnsupported("an unsigned 64-bit comparison")
			}
		case OpMod, OpShr:
			if t.signed {
				return errUnsupported("an unsigned operation on signed values")
			}
		case OpSar:
			if !t.signed {
				return errUnsupported("a signed shift of unsigned values")
			}
		}
	}
	x := binaryExpr(kind, a.x, b.x)
	if kind >= OpEq && kind <= OpGe {
		return m.push(x, vtype{})
	}
	return m.push(m.extend(x, t), t)
}
