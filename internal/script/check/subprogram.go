package check

import (
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
)

// inlining is a subprogram whose body is being put where it is called.
type inlining struct {
	outer  *inlining
	fn     *ast.Func
	result *variable // nil if it has none
	// done is set once it has returned: what is left of its body is passed over then.
	done *ir.Var
}

func (c *checker) subprogram(name string) *ast.Func {
	for _, f := range c.prog.Funcs {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// inline is a call of a subprogram. It sees its parameters, and the script's maps, but no
// variables of the caller.
func (c *checker) inline(f *ast.Func, x *ast.Call) *operand {
	if len(x.Args) != len(f.Params) {
		c.errorf(x, "", "%s() takes %d arguments, and is given %d", f.Name, len(f.Params), len(x.Args))
		return nil
	}
	for in := c.h.inline; in != nil; in = in.outer {
		if in.fn == f {
			c.errorf(x, "", "a function cannot call itself: %s()", f.Name)
			return nil
		}
	}
	args := map[string]*variable{}
	for i, p := range f.Params {
		o := c.value(c.expr(x.Args[i]), x.Args[i])
		if o == nil {
			return nil
		}
		t := o.t
		if p.Type != nil {
			if t = c.named(p.Type); t == nil {
				return nil
			}
			if _, ok := join(t, o.t); !ok {
				c.errorf(x.Args[i], "", "%s() wants %s for $%s, and this is %s", f.Name, describe(t), p.Name, describe(o.t))
				return nil
			}
		}
		if o.t.Kind == ir.Void {
			c.errorf(x.Args[i], "", "that has no value")
			return nil
		}
		v := c.temp(t.Type)
		c.emit(&ir.SetVar{Slot: v.Slot, X: convert(o, t.Type)})
		args[p.Name] = &variable{slot: v.Slot, t: t, decl: p, name: p.Name}
	}
	in := &inlining{outer: c.h.inline, fn: f, done: c.temp(ir.BoolType)}
	if f.Result != nil {
		t := c.named(f.Result)
		if t == nil {
			return nil
		}
		if t.Kind != ir.Void {
			v := c.temp(t.Type)
			in.result = &variable{slot: v.Slot, t: t, decl: f, name: f.Name}
			if t.Scalar() { // a loop around the call may have left another
				c.emit(&ir.SetVar{Slot: v.Slot, X: &ir.Const{T: t.Type}})
			}
		}
	}
	c.emit(&ir.SetVar{Slot: in.done.Slot, X: &ir.Const{T: ir.BoolType}})
	scopes, loops := c.h.scopes, c.h.loops
	c.h.scopes, c.h.loops, c.h.inline = []map[string]*variable{args}, 0, in
	c.block(f.Body)
	c.h.scopes, c.h.loops, c.h.inline = scopes, loops, in.outer
	if in.result == nil {
		return nothing(x)
	}
	return &operand{t: in.result.t, x: &ir.Var{T: in.result.t.Type, Slot: in.result.slot}, node: x}
}

// leave is return in a subprogram.
func (c *checker) leave(s *ast.Return) {
	in := c.h.inline
	switch {
	case s.X == nil && in.result != nil:
		c.errorf(s, "", "%s() returns %s", in.fn.Name, describe(in.result.t))
		return
	case s.X != nil:
		o := c.value(c.expr(s.X), s.X)
		if o == nil {
			return
		}
		if in.result == nil {
			if o.t.Kind != ir.Void {
				c.errorf(s.X, "fn "+in.fn.Name+"(…) : int64 { … }", "%s() returns nothing", in.fn.Name)
			}
			return
		}
		if _, ok := join(in.result.t, o.t); !ok {
			c.errorf(s.X, "", "%s() returns %s, and this is %s", in.fn.Name, describe(in.result.t), describe(o.t))
			return
		}
		c.emit(&ir.SetVar{Slot: in.result.slot, X: convert(o, in.result.t.Type)})
	}
	c.emit(&ir.SetVar{Slot: in.done.Slot, X: &ir.Const{T: ir.BoolType, V: 1}})
	if c.h.loops > 0 {
		c.emit(&ir.Break{})
	}
}

// unlessDone has what stands behind a statement with which a subprogram may have returned
// passed over then.
func (c *checker) unlessDone(rest func()) {
	done := c.h.inline.done
	if c.h.loops > 0 {
		c.emit(&ir.If{Cond: done, Then: []ir.Stmt{&ir.Break{}}})
		rest()
		return
	}
	body := c.collect(rest)
	if len(body) == 0 {
		return
	}
	c.emit(&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: done}, Then: body})
}

// returns says whether there is a return in a statement.
func returns(s ast.Node) (found bool) {
	ast.Inspect(s, func(n ast.Node) bool {
		_, is := n.(*ast.Return)
		found = found || is
		return !found
	})
	return found
}

// ends says whether nothing behind a statement is come to.
func ends(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.Return, *ast.Break, *ast.Continue:
		return true
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.Call)
		return ok && call.Name == "exit"
	}
	return false
}
