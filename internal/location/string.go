package location

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// String tells a reader where the value is: "edi", "rdi:rsi", "[rsp+0x14]",
// "stack CFA-0x18", "constant 1", "address in rdi", "optimized out". Pieces are
// joined by colons, in order; of a value that is there in part, what is missing
// shows as "_".
func (p Place) String() string {
	if len(p.Pieces) == 0 {
		return "no bytes"
	}
	if why, gone := p.Gone(); gone {
		return why
	}
	if len(p.Pieces) == 1 {
		return p.Pieces[0].String()
	}
	var parts []string
	for _, q := range p.Pieces {
		if q.Kind == Missing {
			parts = append(parts, "_")
			continue
		}
		parts = append(parts, q.String())
	}
	return strings.Join(parts, ":")
}

// String describes the piece as Place.String does.
func (q Piece) String() string {
	switch q.Kind {
	case Register:
		return q.Reg.Name(q.Size)
	case Value:
		return "value " + q.Expr.String()
	case Constant:
		return "constant " + constant(q.Bytes)
	case Memory:
		if len(q.Expr) == 1 {
			switch o := q.Expr[0]; o.Kind {
			case OpRegister:
				if o.Arg == 0 && o.Reg != RSP && o.Reg != RBP {
					return "address in " + o.Reg.String()
				}
			case OpCFA, OpFrame:
				return "stack " + o.String()
			case OpStatic:
				return o.String()
			}
		}
		return "[" + q.Expr.String() + "]"
	}
	return q.Why
}

// constant writes bytes, least significant first, as a number if they are few.
func constant(b []byte) string {
	if len(b) > 16 {
		return fmt.Sprintf("%x", b)
	}
	be := make([]byte, len(b))
	for i, c := range b {
		be[len(b)-1-i] = c
	}
	n := new(big.Int).SetBytes(be)
	if n.BitLen() <= 16 {
		return n.String()
	}
	return "0x" + n.Text(16)
}

var opNames = map[OpKind]string{
	OpAdd: "+", OpSub: "-", OpMul: "*", OpDiv: "/", OpMod: "%", OpAnd: "&", OpOr: "|", OpXor: "^",
	OpShl: "<<", OpShr: ">>", OpSar: ">>>", OpEq: "==", OpNe: "!=", OpLt: "<", OpLe: "<=", OpGt: ">", OpGe: ">=",
	OpNeg: "-", OpNot: "~", OpAbs: "abs",
}

// String is the operation alone, as it stands in an Expr's text.
func (o Op) String() string {
	off := func(base string) string {
		switch {
		case o.Arg == 0:
			return base
		case o.Arg < 0:
			return base + "-0x" + strconv.FormatUint(-uint64(o.Arg), 16)
		}
		return base + "+0x" + strconv.FormatUint(uint64(o.Arg), 16)
	}
	switch o.Kind {
	case OpConst:
		if o.Arg > -0x10000 && o.Arg < 0x10000 {
			return strconv.FormatInt(o.Arg, 10)
		}
		return "0x" + strconv.FormatUint(uint64(o.Arg), 16)
	case OpRegister:
		return off(o.Reg.String())
	case OpCFA:
		return off("CFA")
	case OpFrame:
		return off("frame")
	case OpSaved:
		return off("saved at the entry")
	case OpStatic:
		return "static 0x" + strconv.FormatUint(uint64(o.Arg), 16)
	case OpDeref:
		return fmt.Sprintf("load%d", int(o.Size)*8)
	case OpSignExtend:
		return fmt.Sprintf("i%d", int(o.Size)*8)
	case OpZeroExtend:
		return fmt.Sprintf("u%d", int(o.Size)*8)
	}
	if s, ok := opNames[o.Kind]; ok {
		return s
	}
	return fmt.Sprintf("op%d", o.Kind)
}

// String writes e as a formula: "rdi+0x8", "[rsp+0x8]", "(i32(rsi) * 4) + 0x10". An
// 8-byte load is written in brackets alone, others with their width.
func (e Expr) String() string {
	if !e.valid() {
		return "invalid"
	}
	var stack []string
	for i, o := range e {
		n := len(stack)
		switch {
		case o.Kind.Pops() == 0:
			stack = append(stack, o.String())
		case o.Kind.Pops() == 1:
			a := stack[n-1]
			if e[i-1].Kind.Pops() == 2 {
				a = a[1 : len(a)-1] // brackets replace those of the operation within
			}
			switch o.Kind {
			case OpDeref:
				if a = "[" + a + "]"; o.Size != 8 {
					a = fmt.Sprintf("u%d%s", int(o.Size)*8, a)
				}
			default:
				a = o.String() + "(" + a + ")"
			}
			stack[n-1] = a
		default:
			s := stack[n-2] + " " + o.String() + " " + stack[n-1]
			if i != len(e)-1 {
				s = "(" + s + ")"
			}
			stack = append(stack[:n-2], s)
		}
		if len(stack[len(stack)-1]) > 4096 {
			return "a long computation"
		}
	}
	return stack[0]
}
