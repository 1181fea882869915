package check

import (
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"math"
)

// literal is an argument that must be a string which is known before the script runs.
func (c *checker) literal(x ast.Expr, what string) (string, bool) {
	o := c.expr(x)
	if o == nil {
		return "", false
	}
	if o.str == nil {
		c.errorf(x, "", "%s wants a string literal here", what)
		return "", false
	}
	return *o.str, true
}

func (c *checker) time(x *ast.Call) *operand {
	format := "%H:%M:%S\n"
	if len(x.Args) == 1 {
		s, ok := c.literal(x.Args[0], "time()")
		if !ok {
			return nil
		}
		format = s
	}
	c.emit(&ir.Emit{Event: c.event(&ir.Event{Kind: ir.Time, Format: format}, x)})
	return nothing(x)
}

func (c *checker) strftime(x *ast.Call) *operand {
	format, ok := c.literal(x.Args[0], "strftime()")
	o := c.scalar(x.Args[1])
	if !ok || o == nil {
		return nil
	}
	t := &ir.Type{Kind: ir.Stamp, Size: 8, Format: format}
	if b, ok := o.x.(*ir.Builtin); ok && b.Kind == ir.Now {
		t.Clock = ir.Clock(b.N)
	}
	return of(t, &ir.Cast{T: t, X: convert(o, ir.U64)}, x)
}

func (c *checker) join(x *ast.Call) *operand {
	sep := " "
	if len(x.Args) == 2 {
		s, ok := c.literal(x.Args[1], "join()")
		if !ok {
			return nil
		}
		sep = s
	}
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	// A list of addresses of strings, ended by 0.
	e := &ir.Event{Kind: ir.Join, Format: sep}
	var args []ir.Expr
	at := c.temp(ir.U64)
	c.emit(&ir.SetVar{Slot: at.Slot, X: convert(o, ir.U64)})
	for i := range maxJoin {
		t := ir.TextType(joinText)
		addr := &ir.Load{T: ir.U64, Addr: plus(at, int64(8*i))}
		e.Args, e.Rust = append(e.Args, ir.U64, t), append(e.Rust, nil, nil)
		args = append(args, addr, &ir.ReadText{T: t, Addr: addr})
	}
	c.emit(&ir.Emit{Event: c.event(e, x), Args: args})
	return nothing(x)
}

func (c *checker) str(x *ast.Call) *operand {
	if b, ok := x.Args[0].(*ast.Binary); ok && b.Op == "+" { // str($1 + 2) is without the first two bytes
		p, isParam := b.X.(*ast.ParamRef)
		if skip, ok := c.constant(b.Y); ok && isParam {
			text := c.param(p.N)
			return c.strLit(text[min(skip, uint64(len(text))):], x)
		}
	}
	size := c.o.MaxStr
	o := c.expr(x.Args[0])
	var n *operand
	if len(x.Args) == 2 {
		if n = c.scalar(x.Args[1]); n == nil {
			return nil
		}
		if k, ok := n.x.(*ir.Const); ok && k.V < uint64(size) {
			size = max(int(k.V), 1)
		}
	}
	if o == nil {
		return nil
	}
	if p, ok := x.Args[0].(*ast.ParamRef); ok { // str($1) is its text, whatever it looks like
		o = c.strLit(c.param(p.N), x)
	}
	if o = c.value(o, x.Args[0]); o == nil {
		return nil
	}
	if o.t.Kind == ir.Name {
		t := ir.TextType(size)
		return of(t, &ir.NameText{T: t, X: o.x}, x)
	}
	if o.t.Kind == ir.Text {
		if n == nil {
			return o
		}
		t := ir.TextType(size)
		if o.str != nil {
			return c.strLit((*o.str)[:min(size, len(*o.str))], x)
		}
		return of(t, &ir.Cast{T: t, X: o.x}, x)
	}
	if !o.t.Scalar() {
		c.errorf(x, "", "str() wants the address of a string, and this is %s", describe(o.t))
		return nil
	}
	t := ir.TextType(size)
	r := &ir.ReadText{T: t, Addr: convert(o, ir.U64)}
	if n != nil { // n-1 bytes at most
		r.Len = convert(n, ir.U64)
	}
	return of(t, r, x)
}

func (c *checker) buf(x *ast.Call) *operand {
	o := c.expr(x.Args[0])
	if o == nil {
		return nil
	}
	size := c.o.MaxStr
	var n ir.Expr
	if len(x.Args) == 2 {
		v := c.scalar(x.Args[1])
		if v == nil {
			return nil
		}
		if k, ok := v.x.(*ir.Const); ok {
			size = int(min(k.V, uint64(size)))
		}
		n = convert(v, ir.U64)
	}
	var addr ir.Expr
	strict := false
	if p := o.place; p != nil {
		strict = p.strict
		switch std := p.t.Std; {
		case std != nil && (std.Kind == types.Vec || std.Kind == types.String) && std.Elem != nil && std.Elem.Size == 1:
			addr = p.when(p.word(std.Ptr, ir.U64))
			if n == nil {
				n = p.word(std.Len, ir.U64)
			}
		case p.t.Kind == types.Pointer && p.t.Pointer.Meta == types.Length && p.t.Pointer.Target != nil && p.t.Pointer.Target.Size == 1:
			addr = p.when(p.word(p.t.Pointer.PtrOff, ir.U64))
			if n == nil {
				n = p.word(p.t.Pointer.MetaOff, ir.U64)
			}
		case p.t.Kind == types.Array && c.address(p) != nil:
			addr = p.when(c.address(p))
			if n == nil {
				size = int(min(p.t.Size, int64(size)))
				n = &ir.Const{T: ir.U64, V: uint64(p.t.Size)}
			}
		}
	}
	if addr == nil {
		v := c.value(o, x.Args[0])
		if v == nil {
			return nil
		}
		if v.t.Kind == ir.Text || v.t.Kind == ir.Array {
			if n == nil {
				n = &ir.TextLen{X: v.x}
				if v.t.Kind == ir.Array {
					n = &ir.Const{T: ir.U64, V: uint64(v.t.Size)}
				}
			}
			t := ir.BytesType(min(size, v.t.Size))
			return of(t, &ir.BytesOf{T: t, X: v.x, Len: n}, x)
		}
		if !v.t.Scalar() {
			c.errorf(x, "", "buf() wants an address, and this is %s", describe(v.t))
			return nil
		}
		addr = convert(v, ir.U64)
	}
	if n == nil {
		c.errorf(x, "buf(p, 16)", "how many bytes is not known")
		return nil
	}
	t := ir.BytesType(max(size, 1))
	return of(t, &ir.ReadBytes{T: t, Addr: addr, Len: n, Strict: strict}, x)
}

func (c *checker) textArg(x ast.Expr, f string) *operand {
	o := c.value(c.expr(x), x)
	if o == nil {
		return nil
	}
	if o.t.Kind == ir.Name {
		t := ir.TextType(c.o.MaxStr)
		o = of(t, &ir.NameText{T: t, X: o.x}, x)
	}
	if o.t.Kind != ir.Text {
		c.errorf(x, "", "%s() wants strings, and this is %s", f, describe(o.t))
		return nil
	}
	return o
}

func (c *checker) strlen(x *ast.Call) *operand {
	o := c.textArg(x.Args[0], x.Name)
	if o == nil {
		return nil
	}
	if o.str != nil {
		return integerLit(uint64(len(*o.str)), x)
	}
	return of(ir.U64, &ir.TextLen{X: o.x}, x)
}

func (c *checker) strncmp(x *ast.Call) *operand {
	a, b := c.textArg(x.Args[0], x.Name), c.textArg(x.Args[1], x.Name)
	n, ok := c.constant(x.Args[2])
	if !ok || n == 0 || n > math.MaxInt32 {
		c.errorf(x.Args[2], "", "strncmp() wants how many bytes to compare, a number that is known before the script runs")
		return nil
	}
	if a == nil || b == nil {
		return nil
	}
	differ := &ir.Unary{T: ir.BoolType, Op: ir.Not, X: &ir.TextCmp{X: a.x, Y: b.x, N: int(n)}}
	return of(ir.U64, &ir.Cast{T: ir.U64, X: differ}, x)
}

func (c *checker) strcontains(x *ast.Call) *operand {
	a, b := c.textArg(x.Args[0], x.Name), c.textArg(x.Args[1], x.Name)
	if a == nil || b == nil {
		return nil
	}
	t := ir.BoolType
	if x.Name == "strstr" {
		t = ir.I64
	}
	return of(t, &ir.TextHas{T: t, X: a.x, Y: b.x}, x)
}

func (c *checker) bswap(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	n := o.t.Size
	t := integer(n, false)
	v := c.temp(ir.U64)
	c.emit(&ir.SetVar{Slot: v.Slot, X: convert(o, ir.U64)})
	var sum ir.Expr
	for i := range n {
		b := ir.Expr(&ir.Binary{T: ir.U64, Op: ir.Shr, X: v, Y: &ir.Const{T: ir.U64, V: uint64(8 * i)}})
		b = &ir.Binary{T: ir.U64, Op: ir.And, X: b, Y: &ir.Const{T: ir.U64, V: 0xff}}
		b = &ir.Binary{T: ir.U64, Op: ir.Shl, X: b, Y: &ir.Const{T: ir.U64, V: uint64(8 * (n - 1 - i))}}
		if sum == nil {
			sum = b
		} else {
			sum = &ir.Binary{T: ir.U64, Op: ir.Or, X: sum, Y: b}
		}
	}
	return of(t, &ir.Cast{T: t, X: sum}, x)
}
