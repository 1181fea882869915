package location

import "fmt"

// vtype is the type of a stack entry (DWARF 5 §2.5.1): the generic type, which is a
// 64-bit word, or an integer type. A typed value is kept sign- or zero-extended to the
// word as its type says, so that most operations need no care.
type vtype struct {
	size   uint8 // in bytes; 0: generic
	signed bool
	bool   bool // one bit, kept in a byte
}

// typed does the operations of DWARF 5 §2.5.1.2–6 that name a base type.
func (m *machine) typed(op byte) error {
	var reg, size uint64
	var err error
	switch op {
	case opRegvalType, opGNURegvalType:
		reg, err = m.uleb()
	case opDerefType, opGNUDerefType:
		size, err = m.fixed(1)
	}
	if err != nil {
		return err
	}
	off, err := m.uleb()
	if err != nil {
		return err
	}
	var c uint64
	if op == opConstType || op == opGNUConstType {
		n, err := m.fixed(1)
		if err != nil {
			return err
		}
		b, err := m.need(int(n))
		if err != nil {
			return err
		}
		if n > 8 {
			return errUnsupported("a constant of more than 8 bytes")
		}
		c = littleEndian(b)
	}
	t, err := m.baseType(off)
	if err != nil {
		return err
	}
	switch op {
	case opConstType, opGNUConstType:
		return m.push(m.extend(Expr{{Kind: OpConst, Arg: int64(c)}}, t), t)
	case opRegvalType, opGNURegvalType:
		if err := m.pushRegister(reg, 0); err != nil {
			return err
		}
	case opDerefType, opGNUDerefType:
		if t.size != 0 && uint64(t.size) != size {
			return errUnsupported("a load of another size than its type")
		}
		return m.deref(int(size), t)
	}
	// Conversion keeps the number where the new type can hold it, reinterpretation
	// keeps the bits: for integers both are to cut and to extend.
	a, err := m.pop()
	if err != nil {
		return err
	}
	if op == opReinterpret || op == opGNUReinterpret {
		if a.t.width() != t.width() || a.t.bool != t.bool {
			return errUnsupported("a reinterpretation as another size")
		}
	}
	return m.push(m.extend(a.x, t), t)
}

// width is the number of bytes of a value of the type.
func (t vtype) width() uint8 {
	if t.size == 0 {
		return 8
	}
	return t.size
}

func (m *machine) baseType(off uint64) (vtype, error) {
	if off == 0 {
		return vtype{}, nil
	}
	if m.ctx.Unit == nil {
		return vtype{}, errUnsupported("a typed expression")
	}
	bits, enc, err := m.ctx.Unit.BaseType(off)
	if err != nil {
		return vtype{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	signed := false
	switch enc {
	case ateSigned, ateSignedChar:
		signed = true
	case ateUnsigned, ateUnsignedChar, ateBoolean, ateAddress, ateUTF:
	default:
		return vtype{}, errUnsupported("a computation of floating-point numbers")
	}
	switch {
	case bits == 8, bits == 16, bits == 32, bits == 64:
		return vtype{size: uint8(bits / 8), signed: signed}, nil
	case bits == 1 && !signed:
		return vtype{size: 1, bool: true}, nil
	}
	return vtype{}, errUnsupported(fmt.Sprintf("a computation of %d bits", bits))
}

// extend keeps the word of an expression within its type.
func (m *machine) extend(x Expr, t vtype) Expr {
	if t.size == 0 || t.size == 8 {
		return x
	}
	last := x[len(x)-1]
	switch k := last.Kind; {
	case k >= OpEq && k <= OpGe:
		return x // 0 or 1
	case t.bool:
		return binaryExpr(OpAnd, x, Expr{{Kind: OpConst, Arg: 1}})
	case k == OpZeroExtend || k == OpDeref:
		if last.Size < t.size || last.Size == t.size && !t.signed {
			return x
		}
	case k == OpSignExtend:
		if last.Size <= t.size && t.signed {
			return x
		}
	}
	if (last.Kind == OpZeroExtend || last.Kind == OpSignExtend) && last.Size >= t.size {
		x = x[:len(x)-1] // what it did is undone
	}
	kind := OpZeroExtend
	if t.signed {
		kind = OpSignExtend
	}
	return appendOp(x, Op{Kind: kind, Size: t.size})
}
