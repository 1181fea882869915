package check

import (
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
	"math"
	"strconv"
)

// constant is the value of an expression that is known before the script runs.
func (c *checker) constant(x ast.Expr) (uint64, bool) {
	switch x := x.(type) {
	case *ast.Int:
		return x.Value, true
	case *ast.Char:
		return uint64(x.Value), true
	case *ast.Bool:
		if x.Value {
			return 1, true
		}
		return 0, true
	case *ast.Ident:
		if k, ok := c.consts[x.Name]; ok {
			return k.value, true
		}
		v, ok := wellKnown()[x.Name]
		return v, ok
	case *ast.ParamRef:
		n, err := strconv.ParseInt(c.param(x.N), 0, 64)
		return uint64(n), err == nil || c.param(x.N) == ""
	case *ast.ParamCount:
		return uint64(len(c.o.Params)), true
	case *ast.Comptime:
		return c.constant(x.X)
	case *ast.Block:
		if len(x.Stmts) == 0 && x.Value != nil {
			return c.constant(x.Value)
		}
	case *ast.Unary:
		v, ok := c.constant(x.X)
		switch x.Op {
		case "-":
			return -v, ok
		case "~":
			return ^v, ok
		case "!":
			return truth(v == 0), ok
		}
	case *ast.Binary:
		a, ok := c.constant(x.X)
		b, ok2 := c.constant(x.Y)
		if !ok || !ok2 {
			return 0, false
		}
		switch x.Op {
		case "+":
			return a + b, true
		case "-":
			return a - b, true
		case "*":
			return a * b, true
		case "/":
			if b != 0 {
				return uint64(int64(a) / int64(b)), true
			}
		case "%":
			if b != 0 {
				return uint64(int64(a) % int64(b)), true
			}
		case "<<":
			return a << (b & 63), true
		case ">>":
			return uint64(int64(a) >> (b & 63)), true
		case "&":
			return a & b, true
		case "|":
			return a | b, true
		case "^":
			return a ^ b, true
		case "==":
			return truth(a == b), true
		case "!=":
			return truth(a != b), true
		case "<":
			return truth(int64(a) < int64(b)), true
		case ">":
			return truth(int64(a) > int64(b)), true
		case "<=":
			return truth(int64(a) <= int64(b)), true
		case ">=":
			return truth(int64(a) >= int64(b)), true
		}
	case *ast.Call:
		if _, isClass := classes[x.Name]; isClass || x.Name == "is_literal" || x.Name == "getopt" {
			if f := functions[x.Name]; len(x.Args) < f.min || len(x.Args) > f.max {
				return 0, false
			}
			if o := functions[x.Name].do(c, x); o != nil {
				if k, ok := o.x.(*ir.Const); ok {
					return k.V, true
				}
			}
		}
	case *ast.Sizeof:
		if t := c.named(x.Type); t != nil {
			return uint64(t.Size), true
		}
	}
	return 0, false
}

// comptime is what a condition is that is known before the script runs, be it that the
// script says so: the other branch is not looked at.
func (c *checker) comptime(x ast.Expr) (value, ok bool) {
	for {
		b, isBlock := x.(*ast.Block)
		if !isBlock || len(b.Stmts) > 0 || b.Value == nil {
			break
		}
		x = b.Value
	}
	ct, said := x.(*ast.Comptime)
	if said {
		x = ct.X
	}
	v, ok := c.constant(x)
	if !ok && !said {
		return false, false
	}
	if !ok {
		c.errorf(x, "", "that is not known before the script runs")
	}
	return v != 0, true
}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (c *checker) param(n uint64) string {
	if n == 0 || n > uint64(len(c.o.Params)) {
		return ""
	}
	return c.o.Params[n-1]
}

// cut is a number as one of a type.
func cut(v uint64, t *ir.Type) uint64 {
	n := 64 - 8*t.Size
	if t.Signed {
		return uint64(int64(v<<n) >> n)
	}
	return v << n >> n
}

func integerLit(v uint64, n ast.Node) *operand {
	t := ir.I64
	if v > math.MaxInt64 {
		t = ir.U64
	}
	o := of(t, &ir.Const{T: t, V: v}, n)
	o.known = true
	return o
}

func negative(o *operand) bool {
	k, ok := o.x.(*ir.Const)
	return ok && k.T.Signed && int64(k.V) < 0
}
