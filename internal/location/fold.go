package location

// appendOp returns x followed by a unary operation, computed now if x is constant. x
// is not changed.
func appendOp(x Expr, o Op) Expr {
	if v, ok := constOf(x); ok && o.Kind != OpDeref {
		return Expr{{Kind: OpConst, Arg: unary(o, v)}}
	}
	return append(x[:len(x):len(x)], o)
}

// binaryExpr is a op b, computed now where both are constants or where an operation
// has room for the constant.
func binaryExpr(kind OpKind, a, b Expr) Expr {
	v, okb := constOf(b)
	u, oka := constOf(a)
	switch {
	case oka && okb:
		if r, ok := fold(kind, u, v); ok {
			return Expr{{Kind: OpConst, Arg: r}}
		}
	case okb && kind == OpAdd:
		return addConst(a, v)
	case okb && kind == OpSub:
		return addConst(a, -v)
	case oka && kind == OpAdd:
		return addConst(b, u)
	}
	out := make(Expr, 0, len(a)+len(b)+1)
	return append(append(append(out, a...), b...), Op{Kind: kind})
}

// addConst is x + v. x is not changed.
func addConst(x Expr, v int64) Expr {
	if v == 0 || len(x) == 0 {
		return x
	}
	last := x[len(x)-1]
	if len(x) == 1 && last.Kind.Pops() == 0 {
		last.Arg += v
		return Expr{last}
	}
	if n := len(x); last.Kind == OpAdd && x[n-2].Kind == OpConst {
		// (… + c) + v
		out := append(Expr(nil), x...)
		if out[n-2].Arg += v; out[n-2].Arg == 0 {
			out = out[:n-2]
		}
		return out
	}
	return append(x[:len(x):len(x)], Op{Kind: OpConst, Arg: v}, Op{Kind: OpAdd})
}

func constOf(x Expr) (int64, bool) {
	if len(x) == 1 && x[0].Kind == OpConst {
		return x[0].Arg, true
	}
	return 0, false
}

func unary(o Op, v int64) int64 {
	switch o.Kind {
	case OpNeg:
		return -v
	case OpNot:
		return ^v
	case OpAbs:
		return max(v, -v)
	case OpSignExtend:
		return int64(signExtend(uint64(v), int(o.Size)))
	case OpZeroExtend:
		s := 64 - 8*o.Size
		return int64(uint64(v) << s >> s)
	}
	return v
}

// fold computes a op b; not ok for what has no result (division by zero).
func fold(kind OpKind, a, b int64) (int64, bool) {
	truth := func(t bool) (int64, bool) {
		if t {
			return 1, true
		}
		return 0, true
	}
	big := uint64(b) > 63
	switch kind {
	case OpAdd:
		return a + b, true
	case OpSub:
		return a - b, true
	case OpMul:
		return a * b, true
	case OpDiv:
		if b == 0 {
			return 0, false
		}
		return a / b, true
	case OpMod:
		if b == 0 {
			return 0, false
		}
		return int64(uint64(a) % uint64(b)), true
	case OpAnd:
		return a & b, true
	case OpOr:
		return a | b, true
	case OpXor:
		return a ^ b, true
	case OpShl:
		if big {
			return 0, true
		}
		return a << b, true
	case OpShr:
		if big {
			return 0, true
		}
		return int64(uint64(a) >> b), true
	case OpSar:
		if big {
			b = 63
		}
		return a >> b, true
	case OpEq:
		return truth(a == b)
	case OpNe:
		return truth(a != b)
	case OpLt:
		return truth(a < b)
	case OpLe:
		return truth(a <= b)
	case OpGt:
		return truth(a > b)
	case OpGe:
		return truth(a >= b)
	}
	return 0, false
}

func signExtend(v uint64, size int) uint64 {
	s := 64 - 8*size
	return uint64(int64(v<<s) >> s)
}
