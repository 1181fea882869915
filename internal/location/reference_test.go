package location

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// world is the state of a program, made up: what registers and memory hold follows
// from their numbers.
type world struct{}

func mix(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x9e3779b97f4a7c15
	return x ^ x>>29
}

func (world) reg(r Reg) uint64 { return mix(uint64(r) + 1) }
func (world) cfa() uint64      { return 0x7ffc_0000_1000 }
func (world) frame() uint64    { return 0x7ffc_0000_0800 }
func (world) bias() uint64     { return 0x5555_5555_4000 }
func (world) load(a uint64, n int) uint64 {
	v := uint64(0)
	for i := range n {
		v |= (mix(a+uint64(i)) & 0xff) << (8 * i)
	}
	return v
}

var errNoResult = errors.New("no result")

// eval computes what a compiled expression gives in the world.
func (e Expr) eval(w world) (uint64, error) {
	var s []uint64
	for _, o := range e {
		n := len(s)
		switch o.Kind {
		case OpConst:
			s = append(s, uint64(o.Arg))
		case OpRegister:
			s = append(s, w.reg(o.Reg)+uint64(o.Arg))
		case OpCFA:
			s = append(s, w.cfa()+uint64(o.Arg))
		case OpFrame:
			s = append(s, w.frame()+uint64(o.Arg))
		case OpStatic:
			s = append(s, w.bias()+uint64(o.Arg))
		case OpDeref:
			s[n-1] = w.load(s[n-1], int(o.Size))
		case OpNeg, OpNot, OpAbs, OpSignExtend, OpZeroExtend:
			s[n-1] = uint64(unary(o, int64(s[n-1])))
		default:
			v, ok := fold(o.Kind, int64(s[n-2]), int64(s[n-1]))
			if !ok {
				return 0, errNoResult
			}
			s = append(s[:n-2], uint64(v))
		}
	}
	return s[0], nil
}

// reference runs a DWARF expression as the standard tells it, on a stack of numbers.
// kind is that of the simple location; errNoResult is for all that is not to be
// compared.
func reference(in []byte, w world, unit Unit) (kind PieceKind, v uint64, err error) {
	type item struct {
		v uint64
		t vtype
	}
	var s []item
	pos := 0
	fail := func() (PieceKind, uint64, error) { return 0, 0, errNoResult }
	take := func(n int) []byte {
		if n > len(in)-pos {
			pos = len(in) + 1
			return make([]byte, 8)
		}
		b := append(make([]byte, 0, 8), in[pos:pos+n]...)
		pos += n
		return b[:8:8]
	}
	le := func(n int) uint64 { return binary.LittleEndian.Uint64(take(n)) }
	leb := func(signed bool) uint64 {
		v, shift := uint64(0), 0
		for {
			c := take(1)[0]
			v |= uint64(c&0x7f) << shift
			shift += 7
			if c < 0x80 {
				if signed && c&0x40 != 0 && shift < 64 {
					v |= ^uint64(0) << shift
				}
				return v
			}
			if shift > 63 || pos > len(in) {
				pos = len(in) + 1
				return 0
			}
		}
	}
	wrap := func(v uint64, t vtype) uint64 {
		switch {
		case t.bool:
			return v & 1
		case t.size == 0 || t.size == 8:
			return v
		case t.signed:
			return uint64(int64(v<<(64-8*t.size)) >> (64 - 8*t.size))
		}
		return v << (64 - 8*t.size) >> (64 - 8*t.size)
	}
	typ := func(off uint64) (vtype, bool) {
		if off == 0 {
			return vtype{}, true
		}
		bits, enc, err := unit.BaseType(off)
		if err != nil {
			return vtype{}, false
		}
		if bits == 1 {
			return vtype{size: 1, bool: true}, true
		}
		return vtype{size: uint8(bits / 8), signed: enc == ateSigned}, bits%8 == 0 && enc != 4
	}
	for pos < len(in) {
		op := in[pos]
		pos++
		push := func(v uint64) { s = append(s, item{v: v}) }
		n := len(s)
		switch {
		case op >= opLit0 && op <= opLit31:
			push(uint64(op - opLit0))
			continue
		case op >= opBreg0 && op <= opBreg0+15:
			push(w.reg(Reg(op-opBreg0)) + leb(true))
			continue
		case op >= opConst1u && op <= opConst8s:
			size := 1 << ((op - opConst1u) / 2)
			v := le(size)
			if op&1 != 0 {
				v = wrap(v, vtype{size: uint8(size), signed: true})
			}
			push(v)
			continue
		case op >= opAnd && op <= opPlus && op != opNeg && op != opNot || op >= opShl && op <= opXor || op >= opEq && op <= opNe:
			if n < 2 {
				return fail()
			}
			a, b := s[n-2], s[n-1]
			s = s[:n-2]
			t := a.t
			if a.t != b.t {
				if op == opShl || op == opShr || op == opShra {
				} else if a.t.width() == 8 && b.t.width() == 8 && op != opDiv && op != opMod && (op < opEq || op == opEq || op == opNe) {
					t = vtype{}
				} else {
					return fail()
				}
			}
			r, cmp := uint64(0), false
			x, y := int64(a.v), int64(b.v)
			truth := func(ok bool) {
				cmp = true
				if ok {
					r = 1
				}
			}
			if t.size == 8 && !t.signed && (op == opDiv || op > opEq && op < opNe) {
				return fail()
			}
			if t.size != 0 && (t.signed && (op == opMod || op == opShr) || !t.signed && op == opShra) {
				return fail()
			}
			switch op {
			case opAnd:
				r = a.v & b.v
			case opDiv:
				if y == 0 {
					return fail()
				}
				r = uint64(x / y)
			case opMinus:
				r = a.v - b.v
			case opMod:
				if y == 0 {
					return fail()
				}
				r = a.v % b.v
			case opMul:
				r = a.v * b.v
			case opOr:
				r = a.v | b.v
			case opPlus:
				r = a.v + b.v
			case opShl:
				r = a.v << b.v
			case opShr:
				r = a.v >> b.v
			case opShra:
				r = uint64(x >> b.v)
			case opXor:
				r = a.v ^ b.v
			case opEq:
				truth(x == y)
			case 0x2a:
				truth(x >= y)
			case 0x2b:
				truth(x > y)
			case 0x2c:
				truth(x <= y)
			case 0x2d:
				truth(x < y)
			case opNe:
				truth(x != y)
			}
			if cmp {
				t = vtype{}
			}
			s = append(s, item{wrap(r, t), t})
			continue
		}
		need := 0
		switch op {
		case opDup, opDrop, opAbs, opNeg, opNot, opDeref, opDerefSize, opPlusUconst, opConvert, opReinterpret, opStackValue, opDerefType:
			need = 1
		case opOver, opSwap:
			need = 2
		case opRot:
			need = 3
		}
		if n < need {
			return fail()
		}
		switch op {
		case opAddr:
			push(w.bias() + le(8))
		case opAddrx:
			a, err := unit.AddrX(leb(false))
			if err != nil {
				return fail()
			}
			push(w.bias() + a)
		case opConstu:
			push(leb(false))
		case opConsts:
			push(leb(true))
		case opFbreg:
			push(w.frame() + leb(true))
		case opBregx:
			r := leb(false)
			if r > 15 {
				return fail()
			}
			push(w.reg(Reg(r)) + leb(true))
		case opCFA:
			push(w.cfa())
		case opPlusUconst:
			s[n-1].v = wrap(s[n-1].v+leb(false), s[n-1].t)
		case opDup:
			s = append(s, s[n-1])
		case opDrop:
			s = s[:n-1]
		case opOver:
			s = append(s, s[n-2])
		case opPick:
			i := int(take(1)[0])
			if i >= n {
				return fail()
			}
			s = append(s, s[n-1-i])
		case opSwap:
			s[n-1], s[n-2] = s[n-2], s[n-1]
		case opRot:
			s[n-1], s[n-2], s[n-3] = s[n-2], s[n-3], s[n-1]
		case opAbs, opNeg, opNot:
			t := s[n-1].t
			if t.size != 0 && !t.signed && op != opNot {
				return fail()
			}
			x := int64(s[n-1].v)
			switch {
			case op == opNot:
				x = ^x
			case op == opNeg || x < 0:
				x = -x
			}
			s[n-1].v = wrap(uint64(x), t)
		case opDeref:
			s[n-1] = item{v: w.load(s[n-1].v, 8)}
		case opDerefSize:
			size := int(take(1)[0])
			if size > 8 {
				return fail()
			}
			s[n-1] = item{v: w.load(s[n-1].v, size)}
		case opDerefType:
			size := int(take(1)[0])
			t, ok := typ(leb(false))
			if !ok || size > 8 {
				return fail()
			}
			s[n-1] = item{wrap(w.load(s[n-1].v, size), t), t}
		case opRegvalType:
			r := leb(false)
			t, ok := typ(leb(false))
			if !ok || r > 15 {
				return fail()
			}
			s = append(s, item{wrap(w.reg(Reg(r)), t), t})
		case opConvert, opReinterpret:
			t, ok := typ(leb(false))
			if !ok {
				return fail()
			}
			s[n-1] = item{wrap(s[n-1].v, t), t}
		case opNop:
		case opStackValue:
			if pos != len(in) {
				return fail()
			}
			return Value, s[n-1].v, nil
		default:
			return fail()
		}
		if pos > len(in) {
			return fail()
		}
	}
	if len(s) == 0 || pos > len(in) {
		return fail()
	}
	return Memory, s[len(s)-1].v, nil
}

// unit has one address and a base type for each offset of baseTypes.
type testUnit struct{}

var baseTypes = map[uint64]struct {
	bits int
	enc  uint64
}{
	1: {8, ateUnsigned}, 2: {16, ateUnsigned}, 3: {32, ateUnsigned}, 4: {64, ateUnsigned},
	5: {8, ateSigned}, 6: {16, ateSigned}, 7: {32, ateSigned}, 8: {64, ateSigned},
	9: {1, ateUnsigned}, 10: {64, 4}, 11: {24, ateSigned},
}

func (testUnit) AddrX(i uint64) (uint64, error) {
	if i > 15 {
		return 0, errors.New("no such address")
	}
	return 0x6b000 + i*0x10, nil
}

func (testUnit) BaseType(off uint64) (int, uint64, error) {
	if t, ok := baseTypes[off]; ok {
		return t.bits, t.enc, nil
	}
	return 0, 0, errors.New("no such type")
}

// FuzzCompile demands of any bytes a place that covers the value, and of expressions
// that are computed that they give what the standard's stack machine gives.
func FuzzCompile(f *testing.F) {
	for _, g := range goldens(f) {
		f.Add(g.expr, uint8(g.ctx.Size), g.ctx.EntryPC)
	}
	f.Add([]byte{0x75, 0, 0xa8, 7, 0xa8, 8, 0x9f}, uint8(8), true)
	f.Add([]byte{0x75, 0, 0x12, 0x12, 0x16, 0x14, 0x17, 0x15, 1, 0x1e, 0x22, 0x9f}, uint8(8), true)
	f.Add([]byte{0xa5, 5, 5, 0xa5, 4, 5, 0x1b, 0xa8, 9, 0x9f}, uint8(1), true)
	f.Fuzz(func(t *testing.T, in []byte, size uint8, entry bool) {
		c := Context{Size: int(size), Unit: testUnit{}, EntryPC: entry}
		p, err := Compile(in, c)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("error of another kind: %v", err)
		}
		check(t, p, int(size))
		_ = p.String()
		_ = p.FrameSlots()
		frame := Expr{{Kind: OpCFA, Arg: -16}, {Kind: OpDeref, Size: 8}}
		check(t, p.Rebase(frame), int(size))
		check(t, p.RebaseCFA(Expr{{Kind: OpRegister, Reg: RSP, Arg: 8}}), int(size))
		if _, err := FrameBase(in, c); err == nil && len(in) == 0 {
			t.Error("a frame base out of nothing")
		}
		_, _ = CFA(0, 0, in)
		if len(p.Pieces) != 1 || size > 8 {
			return
		}
		q := p.Pieces[0]
		kind, want, err := reference(in, world{}, testUnit{})
		if err != nil || q.Kind == Missing || q.Kind == Register {
			return
		}
		switch {
		case q.Kind == Constant && kind == Value:
			b := binary.LittleEndian.AppendUint64(nil, want)
			if !bytes.Equal(b[:size], q.Bytes) {
				t.Fatalf("%x: constant %x, not %x", in, q.Bytes, b[:size])
			}
		case q.Kind == kind:
			got, err := q.Expr.eval(world{})
			if err == nil && got != want {
				t.Fatalf("%x: %v gives %#x, not %#x", in, q, got, want)
			}
		default:
			t.Fatalf("%x: %v, not %v", in, q.Kind, kind)
		}
	})
}

// check demands what the documentation of Place and Expr promises.
func check(t *testing.T, p Place, size int) {
	t.Helper()
	at := 0
	for _, q := range p.Pieces {
		if q.Offset != at || q.Size <= 0 {
			t.Fatalf("piece of %d bytes at %d, not %d: %+v", q.Size, q.Offset, at, p)
		}
		at += q.Size
		switch q.Kind {
		case Register:
			if q.Size > q.Reg.size() || q.Reg == RA || q.Reg >= regEnd {
				t.Fatalf("%d bytes in %v", q.Size, q.Reg)
			}
		case Memory, Value:
			if !q.Expr.valid() {
				t.Fatalf("not an expression: %v", []Op(q.Expr))
			}
			if q.Kind == Value && q.Size > 8 {
				t.Fatalf("value of %d bytes", q.Size)
			}
		case Constant:
			if len(q.Bytes) != q.Size {
				t.Fatalf("%d bytes for %d", len(q.Bytes), q.Size)
			}
		case Missing:
			if q.Why == "" {
				t.Fatal("missing without a reason")
			}
		}
	}
	if at != size {
		t.Fatalf("place of %d bytes for a value of %d: %+v", at, size, p)
	}
}
