package codegen

import "ferrotrace/internal/program/ir"

// walkStmts calls onStmt for each statement and onExpr for each expression; both may be nil.
func walkStmts(body []ir.Stmt, onStmt func(ir.Stmt), onExpr func(ir.Expr)) {
	ex := func(xs ...ir.Expr) {
		for _, x := range xs {
			walkExpr(x, onStmt, onExpr)
		}
	}
	for _, s := range body {
		if onStmt != nil {
			onStmt(s)
		}
		switch s := s.(type) {
		case *ir.SetVar:
			ex(s.X)
		case *ir.SetMap:
			ex(s.Key, s.X)
		case *ir.AddMap:
			ex(s.Key, s.X)
		case *ir.Aggregate:
			ex(s.Key, s.X, s.N)
		case *ir.Delete:
			ex(s.Key)
		case *ir.If:
			ex(s.Cond)
			walkStmts(s.Then, onStmt, onExpr)
			walkStmts(s.Else, onStmt, onExpr)
		case *ir.While:
			ex(s.Cond)
			walkStmts(s.Body, onStmt, onExpr)
		case *ir.ForRange:
			ex(s.From, s.To)
			walkStmts(s.Body, onStmt, onExpr)
		case *ir.ForMap:
			walkStmts(s.Body, onStmt, onExpr)
		case *ir.Emit:
			ex(s.Args...)
		case *ir.Eval:
			ex(s.X)
		case *ir.Kill:
			ex(s.Signal)
		}
	}
}

func walkExpr(x ir.Expr, onStmt func(ir.Stmt), onExpr func(ir.Expr)) {
	if x == nil {
		return
	}
	if onExpr != nil {
		onExpr(x)
	}
	ex := func(xs ...ir.Expr) {
		for _, x := range xs {
			walkExpr(x, onStmt, onExpr)
		}
	}
	switch x := x.(type) {
	case *ir.Unary:
		ex(x.X)
	case *ir.Binary:
		ex(x.X, x.Y)
	case *ir.Cond:
		ex(x.C, x.X, x.Y)
	case *ir.Cast:
		ex(x.X)
	case *ir.MapGet:
		ex(x.Key)
	case *ir.HasKey:
		ex(x.Key)
	case *ir.MakeTuple:
		ex(x.Elems...)
	case *ir.Part:
		ex(x.X)
	case *ir.Index:
		ex(x.X, x.I)
	case *ir.Load:
		ex(x.Addr)
	case *ir.ReadText:
		ex(x.Addr, x.Len)
	case *ir.ReadBytes:
		ex(x.Addr, x.Len)
	case *ir.BytesOf:
		ex(x.X, x.Len)
	case *ir.Require:
		ex(x.C, x.X)
	case *ir.Capture:
		ex(x.Addr)
	case *ir.TextLen:
		ex(x.X)
	case *ir.TextCmp:
		ex(x.X, x.Y)
	case *ir.TextHas:
		ex(x.X, x.Y)
	case *ir.NameText:
		ex(x.X)
	case *ir.Block:
		walkStmts(x.Body, onStmt, onExpr)
		ex(x.X)
	}
}
