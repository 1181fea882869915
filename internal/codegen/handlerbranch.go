package codegen

import (
	"ferrotrace/internal/program/ir"

	"github.com/cilium/ebpf/asm"
)

// branch jumps to a label if the truth of x is want; else control goes on. Conditions that
// only decide where control goes never become numbers.
func (g *handler) branch(x ir.Expr, want bool, to string) {
	f := g.f
	switch x := x.(type) {
	case *ir.Unary:
		if x.Op == ir.Not {
			g.branch(x.X, !want, to)
			return
		}
	case *ir.Binary:
		switch x.Op {
		case ir.LAnd, ir.LOr:
			// What X decides by itself.
			short := x.Op == ir.LOr
			if want == short {
				g.branch(x.X, short, to)
				g.branch(x.Y, want, to)
				return
			}
			skip := g.label("skip")
			g.branch(x.X, short, skip)
			g.branch(x.Y, want, to)
			f.place(skip)
			return
		}
		op := x.Op
		if !want {
			op = opposite[op]
		}
		if jump, ok := comparisons[op]; ok && x.X.Type().Scalar() {
			imm, short := g.operands(x.X, x.Y)
			how := jump[0]
			if x.X.Type().Signed {
				how = jump[1]
			}
			if short {
				f.emit(how.Imm(r0, imm, to))
			} else {
				f.emit(how.Reg(r0, r2, to))
			}
			return
		}
	}
	g.scalar(x)
	if want {
		f.emit(asm.JNE.Imm(r0, 0, to))
	} else {
		f.emit(asm.JEq.Imm(r0, 0, to))
	}
}

// opposite are the comparisons that hold where others do not.
var opposite = map[ir.BinaryOp]ir.BinaryOp{
	ir.Eq: ir.Ne, ir.Ne: ir.Eq, ir.Lt: ir.Ge, ir.Ge: ir.Lt, ir.Gt: ir.Le, ir.Le: ir.Gt,
}

// mentions says whether an expression has to do with a variable.
func mentions(x ir.Expr, slot int) (found bool) {
	return stmtMentions(&ir.Eval{X: x}, slot)
}

func stmtMentions(s ir.Stmt, slot int) (found bool) {
	walkStmts([]ir.Stmt{s}, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.SetVar:
			found = found || s.Slot == slot
		case *ir.ForMap:
			found = found || s.Slot == slot
		case *ir.ForRange:
			found = found || s.Slot == slot
		}
	}, func(x ir.Expr) {
		v, ok := x.(*ir.Var)
		found = found || ok && v.Slot == slot
	})
	return found
}

// assigned says whether a handler assigns to a variable, whatever happens, before it looks
// at it, so that it need not be zeros before.
func (h *handler) assigned(slot int) bool {
	for _, s := range h.h.Body {
		if set, ok := s.(*ir.SetVar); ok && set.Slot == slot {
			return !mentions(set.X, slot)
		}
		if stmtMentions(s, slot) {
			return false
		}
	}
	return true
}
