package check

import (
	"net/netip"
	"syscall"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
)

// bytesType are n bytes that are shown by a format: ir.MAC or ir.Inet.
func bytesType(n int, format string) *ir.Type {
	t := *ir.BytesType(n)
	t.Format = format
	return &t
}

// exactly are the n bytes that an operand is: an array of the process, one of the language,
// or what an address leads to.
func (c *checker) exactly(o *operand, n int, t *ir.Type, x ast.Expr) ir.Expr {
	length := &ir.Const{T: ir.U64, V: uint64(n)}
	if p := o.place; p != nil && p.t.Kind == types.Array && p.t.Size == int64(n) {
		if addr := c.address(p); addr != nil {
			return p.when(&ir.ReadBytes{T: t, Addr: addr, Len: length, Strict: p.strict})
		}
	}
	v := c.value(o, x)
	switch {
	case v == nil:
		return nil
	case v.t.Kind == ir.Array && v.t.Size == n, v.t.Kind == ir.Text && v.t.Size >= n && o.place != nil:
		return &ir.BytesOf{T: t, X: v.x, Len: length}
	case v.t.Kind == ir.Pointer:
		return &ir.ReadBytes{T: t, Addr: convert(v, ir.U64), Len: length}
	}
	return nil
}

func (c *checker) macaddr(x *ast.Call) *operand {
	o := c.expr(x.Args[0])
	if o == nil {
		return nil
	}
	const size = 6
	t := bytesType(size, ir.MAC)
	before := len(c.errs)
	e := c.exactly(o, size, t, x.Args[0])
	if e == nil {
		if len(c.errs) == before {
			c.errorf(x.Args[0], "", "macaddr() wants %d bytes, or their address", size)
		}
		return nil
	}
	return of(t, e, x)
}

// ntop is an address of the Internet as it lies in memory: 4 or 16 bytes.
func (c *checker) ntop(x *ast.Call) *operand {
	size := 0
	arg := x.Args[len(x.Args)-1]
	if len(x.Args) == 2 {
		switch af, ok := c.constant(x.Args[0]); {
		case ok && af == syscall.AF_INET:
			size = 4
		case ok && af == syscall.AF_INET6:
			size = 16
		default:
			c.errorf(x.Args[0], "2 is IPv4, 10 is IPv6", "ntop() wants a family of addresses first that is known before the script runs")
			return nil
		}
	}
	o := c.expr(arg)
	if o == nil {
		return nil
	}
	if size == 0 {
		size = 4
		if o.place != nil && o.place.t.Size == 16 || o.place == nil && o.t != nil && o.t.Kind == ir.Array && o.t.Size == 16 {
			size = 16
		}
	}
	t := bytesType(size, ir.Inet)
	if size == 4 {
		number := o.place == nil && o.t != nil && o.t.Kind == ir.Int || o.place != nil && (o.place.t.Kind == types.Int || o.place.t.Kind == types.Uint)
		if number {
			v := c.value(o, arg)
			if v == nil {
				return nil
			}
			bytes := &ir.Type{Kind: ir.Array, Elem: ir.U8, Count: 4, Size: 4}
			return of(t, &ir.BytesOf{T: t, X: &ir.Cast{T: bytes, X: convert(v, ir.U32)}, Len: &ir.Const{T: ir.U64, V: 4}}, x)
		}
	}
	before := len(c.errs)
	e := c.exactly(o, size, t, arg)
	if e == nil {
		if len(c.errs) == before {
			c.errorf(arg, "", "ntop() wants an integer, or an array of 4 or 16 bytes")
		}
		return nil
	}
	return of(t, e, x)
}

// pton is an address of the Internet as an array of 4 or 16 bytes.
func (c *checker) pton(x *ast.Call) *operand {
	s, ok := c.literal(x.Args[0], "pton()")
	if !ok {
		return nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		c.errorf(x.Args[0], "", "no address of IPv4 or IPv6: %q", s)
		return nil
	}
	b := a.AsSlice()
	m := &ir.MakeTuple{T: &ir.Type{Kind: ir.Array, Elem: ir.U8, Count: len(b), Size: len(b)}}
	for _, v := range b {
		m.Elems = append(m.Elems, &ir.Const{T: ir.U8, V: uint64(v)})
	}
	return of(m.T, m, x)
}
