package check

import (
	"strconv"
	"strings"
	"sync"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// operand is what an expression stands for: a value of the language, a place in the
// traced process, or a whole map.
type operand struct {
	node  ast.Node
	t     *typ
	x     ir.Expr
	place *place
	table *table
	// known: x is a Const that the script says, whose sign can still be either.
	known bool
	// str is the text of a literal.
	str *string
}

type spanned struct{ source.Span }

type cache[K comparable, V any] struct {
	sync.Mutex
	m map[K]V
}

func newCache[K comparable, V any]() *cache[K, V] { return &cache[K, V]{m: map[K]V{}} }

func (c *cache[K, V]) get(k K, make func() V) V {
	c.Lock()
	v, ok := c.m[k]
	c.Unlock()
	if !ok {
		v = make() // which may want others of its kind
		c.Lock()
		defer c.Unlock()
		if old, ok := c.m[k]; ok {
			return old
		}
		c.m[k] = v
	}
	return v
}

func of(t *ir.Type, x ir.Expr, n ast.Node) *operand { return &operand{t: &typ{Type: t}, x: x, node: n} }

func (c *checker) strLit(s string, n ast.Node) *operand {
	o := of(ir.TextType(len(s)+1), &ir.String{T: ir.TextType(len(s) + 1), S: s}, n)
	o.str = &s
	return o
}

// scalar checks an expression that must be a number, a truth or an address.
func (c *checker) scalar(x ast.Expr) *operand {
	o := c.value(c.expr(x), x)
	if o == nil {
		return nil
	}
	if !o.t.Scalar() {
		c.errorf(x, "", "a number is wanted here, and this is %s", describe(o.t))
		return nil
	}
	return o
}

// condition checks what decides a branch.
func (c *checker) condition(x ast.Expr) ir.Expr {
	o := c.value(c.expr(x), x)
	switch {
	case o == nil:
		return &ir.Const{T: ir.BoolType}
	case o.t.Kind == ir.Text:
		c.errorf(x, "compare it: == \"\"", "a string is neither true nor false")
		return &ir.Const{T: ir.BoolType}
	case !o.t.Scalar():
		c.errorf(x, "", "%s is neither true nor false", describe(o.t))
		return &ir.Const{T: ir.BoolType}
	}
	return o.x
}

// convert makes a value one of another type, which it can be made.
func convert(o *operand, to *ir.Type) ir.Expr {
	t := o.t.Type
	if equal(t, to) {
		return o.x
	}
	if k, ok := o.x.(*ir.Const); ok && to.Scalar() && to.Kind != ir.Bool {
		return &ir.Const{T: to, V: k.V}
	}
	switch {
	case t.Scalar() && to.Scalar():
		return &ir.Cast{T: to, X: o.x}
	case t.Kind == ir.Tuple && to.Kind == ir.Tuple:
		if m, ok := o.x.(*ir.MakeTuple); ok {
			out := &ir.MakeTuple{T: to}
			for i, e := range m.Elems {
				out.Elems = append(out.Elems, convert(&operand{t: &typ{Type: e.Type()}, x: e}, to.Fields[i].Type))
			}
			return out
		}
		out := &ir.MakeTuple{T: to}
		for i, f := range t.Fields {
			out.Elems = append(out.Elems, convert(&operand{t: &typ{Type: f.Type}, x: &ir.Part{T: f.Type, X: o.x, I: i}}, to.Fields[i].Type))
		}
		return out
	}
	return o.x // text and buffers are cut or filled up where they are stored
}

// expr checks an expression; nil if it is wrong, which has been said then.
func (c *checker) expr(x ast.Expr) *operand {
	if c.ofArgs(x) {
		return c.keptExpr(x)
	}
	switch x := x.(type) {
	case *ast.Int:
		return integerLit(x.Value, x)
	case *ast.Char:
		return integerLit(uint64(x.Value), x)
	case *ast.Float:
		c.errorf(x, "scale it to an integer", "there are no fractions in the language: %s", x.Text)
	case *ast.Bool:
		return of(ir.BoolType, &ir.Const{T: ir.BoolType, V: truth(x.Value)}, x)
	case *ast.Str:
		return c.strLit(x.Value, x)
	case *ast.Ident:
		return c.ident(x)
	case *ast.ParamRef:
		return c.parameter(x)
	case *ast.ParamCount:
		return integerLit(uint64(len(c.o.Params)), x)
	case *ast.Var:
		v := c.lookup(x.Name)
		if v == nil {
			c.errorf(x, "assign to it first", "undefined or undeclared variable: %s", shown(x.Name))
			return nil
		}
		return held(v.t, &ir.Var{T: v.t.Type, Slot: v.slot}, shown(x.Name), x)
	case *ast.Map:
		return c.mapValue(x)
	case *ast.Call:
		return c.call(x)
	case *ast.Unary:
		return c.unary(x)
	case *ast.IncDec:
		return c.incDec(x)
	case *ast.Binary:
		return c.binary(x)
	case *ast.Cond:
		return c.cond(x)
	case *ast.If:
		return c.ifValue(x)
	case *ast.Block:
		return c.blockValue(x)
	case *ast.Cast:
		return c.cast(x)
	case *ast.Tuple:
		return c.tuple(x.Elems, nil, x)
	case *ast.Record:
		var names []string
		var elems []ast.Expr
		for _, f := range x.Fields {
			names, elems = append(names, f.Name), append(elems, f.Value)
		}
		return c.tuple(elems, names, x)
	case *ast.Array:
		return c.array(x)
	case *ast.Field:
		return c.fieldOf(x)
	case *ast.Index:
		return c.index(x)
	case *ast.Sizeof:
		if t := c.named(x.Type); t != nil {
			return integerLit(uint64(t.Size), x)
		}
	case *ast.Offsetof:
		return c.offsetOf(x)
	case *ast.Comptime:
		v, ok := c.constant(x.X)
		if !ok {
			return c.expr(x.X)
		}
		return integerLit(v, x)
	case *ast.Range:
		c.errorf(x, "", "a range stands in a for loop only")
	default:
		c.errorf(x, "", "this can't be used as a value")
	}
	return nil
}

func (c *checker) parameter(x *ast.ParamRef) *operand {
	s := c.param(x.N)
	if s == "" {
		return integerLit(0, x)
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 0, 64)
	if err == nil {
		return integerLit(uint64(n), x)
	}
	u, err := strconv.ParseUint(s, 0, 64)
	if err == nil {
		return integerLit(u, x)
	}
	return c.strLit(s, x)
}

func (c *checker) unary(x *ast.Unary) *operand {
	switch x.Op {
	case "*":
		return c.follow(x)
	case "&":
		o := c.expr(x.X)
		if o != nil && o.place != nil {
			if a := c.address(o.place); a != nil {
				return &operand{t: &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, to: o.place.t}, x: o.place.when(a), node: x}
			}
		}
		if o != nil {
			c.errorf(x, "*&$x is $x", "that has no address in the process")
		}
		return nil
	}
	o := c.scalar(x.X)
	if o == nil {
		return nil
	}
	if v, ok := c.constant(x); ok && o.known && x.Op != "!" {
		out := integerLit(v, x)
		out.t = &typ{Type: ir.I64}
		out.x = &ir.Const{T: ir.I64, V: v}
		return out
	}
	switch x.Op {
	case "!":
		return of(ir.BoolType, &ir.Unary{T: ir.BoolType, Op: ir.Not, X: o.x}, x)
	case "~":
		t := integer(8, o.t.Signed)
		return of(t, &ir.Unary{T: t, Op: ir.Inv, X: convert(o, t)}, x)
	case "-":
		return of(ir.I64, &ir.Unary{T: ir.I64, Op: ir.Neg, X: convert(o, ir.I64)}, x)
	}
	c.errorf(x, "", "unknown operator %s", x.Op)
	return nil
}

// addressed is $x of &$x, in parentheses or not; else nil.
func addressed(x ast.Expr) ast.Expr {
	for {
		b, ok := x.(*ast.Block)
		if !ok || len(b.Stmts) > 0 || b.Value == nil {
			break
		}
		x = b.Value
	}
	if u, ok := x.(*ast.Unary); ok && u.Op == "&" {
		switch u.X.(type) {
		case *ast.Var, *ast.Map:
			return u.X
		}
	}
	return nil
}

// follow is *x.
func (c *checker) follow(x *ast.Unary) *operand {
	if v := addressed(x.X); v != nil {
		return c.expr(v) // *&$x
	}
	o := c.expr(x.X)
	if o == nil {
		return nil
	}
	if o.place != nil {
		p := c.deref(o.place, x)
		if p == nil {
			return nil
		}
		return &operand{place: p, node: x}
	}
	return c.pointed(o, x)
}

// pointed is what a value that is an address leads to.
func (c *checker) pointed(o *operand, n ast.Node) *operand {
	o = c.value(o, n)
	if o == nil {
		return nil
	}
	if o.t.Kind != ir.Pointer && o.t.Kind != ir.Int {
		c.errorf(n, "", "%s is no address", describe(o.t))
		return nil
	}
	if o.t.to == nil {
		c.errorf(n, "cast it: *(uint32 *)…, or ((struct foo *)…)->field", "what is at that address is not known")
		return nil
	}
	return &operand{place: &place{t: o.t.to, addr: convert(o, ir.U64), named: o.t.to.Name}, node: n}
}

var binaryOps = map[ast.Op]ir.BinaryOp{
	"+": ir.Add, "-": ir.Sub, "*": ir.Mul, "/": ir.Div, "%": ir.Mod, "&": ir.And, "|": ir.Or, "^": ir.Xor, "<<": ir.Shl, ">>": ir.Shr,
	"==": ir.Eq, "!=": ir.Ne, "<": ir.Lt, "<=": ir.Le, ">": ir.Gt, ">=": ir.Ge, "&&": ir.LAnd, "||": ir.LOr,
}

func (c *checker) binary(x *ast.Binary) *operand {
	op, ok := binaryOps[x.Op]
	if !ok {
		c.errorf(x, "", "unknown operator %s", x.Op)
		return nil
	}
	if op == ir.LAnd || op == ir.LOr {
		a := c.condition(x.X)
		var b ir.Expr
		body := c.collect(func() { b = c.condition(x.Y) })
		return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: op, X: a, Y: after(body, b)}, x)
	}
	a := c.value(c.expr(x.X), x.X)
	mark := c.mark()
	b := c.value(c.expr(x.Y), x.Y)
	if a == nil || b == nil {
		return nil
	}
	if !a.known {
		a.x = c.since(mark, a.x)
	}
	return c.operate(op, a, b, x)
}

// operate does a binary operation on two values.
func (c *checker) operate(op ir.BinaryOp, a, b *operand, x ast.Node) *operand {
	compare := op >= ir.Eq && op <= ir.Ge
	if a.t.Kind == ir.Name || b.t.Kind == ir.Name {
		if a.t.Kind != ir.Name {
			a, b = b, a
		}
		if b.str != nil {
			b = of(ir.NameType, &ir.Const{T: ir.NameType, V: c.name(*b.str)}, b.node)
		}
		if b.t.Kind != ir.Name || op != ir.Eq && op != ir.Ne {
			c.errorf(x, "", "a function's name can be compared with a string only")
			return nil
		}
		return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: op, X: a.x, Y: b.x}, x)
	}
	if !a.t.Scalar() || !b.t.Scalar() {
		if op != ir.Eq && op != ir.Ne {
			c.errorf(x, "", "the operator can't be used on expressions of types %s and %s", describe(a.t), describe(b.t))
			return nil
		}
		j, ok := join(a.t, b.t)
		if !ok || a.t.Kind != b.t.Kind {
			c.errorf(x, "", "type mismatch: comparing %s with %s", describe(a.t), describe(b.t))
			return nil
		}
		if j.Kind == ir.Tuple {
			return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: op, X: convert(a, j.Type), Y: convert(b, j.Type)}, x)
		}
		if a.str != nil && b.str == nil {
			a, b = b, a
		}
		return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: op, X: a.x, Y: b.x}, x)
	}
	// Pointers count in what they lead to.
	if !compare && (a.t.Kind == ir.Pointer) != (b.t.Kind == ir.Pointer) && (op == ir.Add || op == ir.Sub) {
		if b.t.Kind == ir.Pointer {
			a, b = b, a
		}
		n := convert(b, ir.U64)
		if a.t.to != nil && a.t.to.Size > 1 {
			n = &ir.Binary{T: ir.U64, Op: ir.Mul, X: n, Y: &ir.Const{T: ir.U64, V: uint64(a.t.to.Size)}}
		}
		return &operand{t: a.t, x: &ir.Binary{T: a.t.Type, Op: op, X: &ir.Cast{T: a.t.Type, X: a.x}, Y: n}, node: x}
	}
	signed := a.t.Signed || b.t.Signed
	switch {
	case a.known && !b.known:
		signed = b.t.Signed || negative(a)
	case b.known && !a.known:
		signed = a.t.Signed || negative(b)
	}
	if op == ir.Shl || op == ir.Shr {
		signed = a.t.Signed
	}
	t := integer(8, signed)
	ax, bx := convert(a, t), convert(b, t)
	if compare {
		return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: op, X: ax, Y: bx}, x)
	}
	if k, ok := bx.(*ir.Const); ok && k.V == 0 && (op == ir.Div || op == ir.Mod) && b.known {
		c.errorf(x, "", "division by zero")
		return nil
	}
	out := of(t, &ir.Binary{T: t, Op: op, X: ax, Y: bx}, x)
	if e, ok := x.(ast.Expr); ok && a.known && b.known {
		if v, ok := c.constant(e); ok {
			return integerLit(v, x)
		}
	}
	return out
}

// either joins the types of two alternatives.
func (c *checker) either(a, b *operand, n ast.Node) (*typ, bool) {
	if a == nil || b == nil {
		return nil, false
	}
	t, ok := join(a.t, b.t)
	if !ok {
		c.errorf(n, "", "the alternatives must have one type: these are %s and %s", describe(a.t), describe(b.t))
		return nil, false
	}
	if t.Kind == ir.Int {
		t = wide(t)
	}
	return t, true
}

func (c *checker) cond(x *ast.Cond) *operand {
	if x.Then == nil {
		v := c.value(c.expr(x.If), x.If)
		if v == nil {
			return nil
		}
		tmp := c.temp(v.t.Type)
		c.emit(&ir.SetVar{Slot: tmp.Slot, X: v.x})
		b := c.value(c.expr(x.Else), x.Else)
		t, ok := c.either(v, b, x)
		if !ok {
			return nil
		}
		kept := &operand{t: v.t, x: tmp}
		return &operand{t: t, x: &ir.Cond{T: t.Type, C: tmp, X: convert(kept, t.Type), Y: convert(b, t.Type)}, node: x}
	}
	if v, ok := c.comptime(x.If); ok {
		if v {
			return c.expr(x.Then)
		}
		return c.expr(x.Else)
	}
	cond := c.condition(x.If)
	a, as := c.branch(x.Then)
	b, bs := c.branch(x.Else)
	if a != nil && b != nil && a.t.Kind == ir.Void && b.t.Kind == ir.Void {
		c.emit(&ir.If{Cond: cond, Then: as, Else: bs})
		return of(ir.VoidType, &ir.Const{T: ir.VoidType}, x)
	}
	t, ok := c.either(a, b, x)
	if !ok {
		return nil
	}
	return &operand{t: t, x: &ir.Cond{T: t.Type, C: cond, X: after(as, convert(a, t.Type)), Y: after(bs, convert(b, t.Type))}, node: x}
}

// branch checks an expression of which the statements that it takes are done only where it
// is evaluated.
func (c *checker) branch(x ast.Expr) (o *operand, before []ir.Stmt) {
	before = c.collect(func() { o = c.value(c.expr(x), x) })
	return o, before
}

func after(body []ir.Stmt, x ir.Expr) ir.Expr {
	if len(body) == 0 {
		return x
	}
	return &ir.Block{Body: body, X: x}
}

func (c *checker) ifValue(x *ast.If) *operand {
	if x.Else == nil {
		c.errorf(x, "", "an if without an else has no value")
		return nil
	}
	return c.cond(&ast.Cond{Span: x.Span, If: x.Cond, Then: x.Then, Else: x.Else})
}

func (c *checker) blockValue(x *ast.Block) *operand {
	c.push()
	defer c.pop()
	c.stmts(x.Stmts)
	if x.Value == nil {
		return of(ir.VoidType, &ir.Const{T: ir.VoidType}, x)
	}
	return c.expr(x.Value)
}

func (c *checker) cast(x *ast.Cast) *operand {
	t := c.named(x.Type)
	o := c.expr(x.X)
	if t == nil || o == nil {
		return nil
	}
	if t.Kind == ir.Value {
		// A value of the process as one of another type: at an address it is read.
		v := c.value(o, x.X)
		if v == nil {
			return nil
		}
		c.errorf(x, "cast to a pointer and follow it: *("+x.Type.String()+" *)…", "nothing can be cast to %s", x.Type)
		return nil
	}
	v := c.value(o, x.X)
	if v == nil {
		return nil
	}
	switch {
	case t.Scalar() && v.t.Scalar():
		if v.t.Kind == ir.Pointer && t.Kind == ir.Pointer {
			return &operand{t: t, x: v.x, node: x}
		}
		out := &operand{t: t, x: &ir.Cast{T: t.Type, X: v.x}, node: x}
		if k, ok := v.x.(*ir.Const); ok && t.Kind == ir.Int {
			out.x = &ir.Const{T: t.Type, V: cut(k.V, t.Type)}
		}
		return out
	case t.Kind == ir.Text && v.t.Kind == ir.Text, t.Kind == ir.Bytes && v.t.Kind == ir.Bytes:
		return &operand{t: t, x: &ir.Cast{T: t.Type, X: v.x}, node: x}
	case t.Kind == ir.Array && v.t.Kind == ir.Int:
		if t.Count == 0 {
			n := v.t.Size / max(t.Elem.Size, 1)
			t = &typ{Type: &ir.Type{Kind: ir.Array, Elem: t.Elem, Count: n, Size: n * t.Elem.Size}}
		}
		if t.Size != v.t.Size {
			c.errorf(x, "", "%s has %d bytes, and %s has %d", describe(t), t.Size, describe(v.t), v.t.Size)
			return nil
		}
		return &operand{t: t, x: &ir.Cast{T: t.Type, X: v.x}, node: x}
	case t.Scalar() && v.t.Kind == ir.Array && t.Size == v.t.Size:
		return &operand{t: t, x: &ir.Cast{T: t.Type, X: v.x}, node: x}
	case t.Kind == ir.Array && (v.t.Kind == ir.Array || v.t.Kind == ir.Text) && t.Elem.Size == 1:
		return &operand{t: t, x: &ir.Cast{T: t.Type, X: v.x}, node: x}
	}
	c.errorf(x, "", "cannot cast from %s to %s", describe(v.t), describe(t))
	return nil
}

func (c *checker) tuple(elems []ast.Expr, names []string, n ast.Node) *operand {
	var ts []*ir.Type
	m := &ir.MakeTuple{}
	var marks []int
	for _, e := range elems {
		o := c.value(c.expr(e), e)
		if o == nil {
			return nil
		}
		if o.t.Kind == ir.Void {
			c.errorf(e, "", "this has no value")
			return nil
		}
		ts = append(ts, o.t.Type)
		m.Elems, marks = append(m.Elems, o.x), append(marks, c.mark())
	}
	c.inOrder(m.Elems, marks)
	m.T = ir.TupleOf(names, ts)
	return of(m.T, m, n)
}

func (c *checker) array(x *ast.Array) *operand {
	var t *typ
	var all []*operand
	for _, e := range x.Elems {
		o := c.scalar(e)
		if o == nil {
			return nil
		}
		j, ok := join(t, o.t)
		if !ok {
			c.errorf(e, "", "the elements must have one type: this is %s", describe(o.t))
			return nil
		}
		t = j
		all = append(all, o)
	}
	if t == nil {
		c.errorf(x, "", "an array of nothing")
		return nil
	}
	m := &ir.MakeTuple{T: &ir.Type{Kind: ir.Array, Elem: t.Type, Count: len(all), Size: len(all) * t.Size}}
	for _, o := range all {
		m.Elems = append(m.Elems, convert(o, t.Type))
	}
	return of(m.T, m, x)
}

// fieldOf is x.NAME.
func (c *checker) fieldOf(x *ast.Field) *operand {
	if id, ok := x.X.(*ast.Ident); ok && id.Name == "args" {
		return c.argument(x)
	}
	o := c.expr(x.X)
	if o == nil {
		return nil
	}
	if o.place == nil && o.t != nil && o.t.Kind == ir.Pointer {
		if o = c.pointed(o, x); o == nil {
			return nil
		}
	}
	if o.place != nil {
		p := c.field(o.place, x)
		if p == nil {
			return nil
		}
		return &operand{place: p, node: x}
	}
	o = c.value(o, x.X)
	if o == nil {
		return nil
	}
	if o.t.Kind == ir.Tuple {
		var names []string
		for i, f := range o.t.Fields {
			name := f.Name
			if name == "" {
				name = strconv.Itoa(i)
			}
			if name == x.Name {
				return of(f.Type, &ir.Part{T: f.Type, X: o.x, I: i}, x)
			}
			names = append(names, name)
		}
		c.errorf(fieldNode(x), nearest(x.Name, names), "the tuple has no field %q: it has %s", x.Name, list(names))
		return nil
	}
	c.errorf(x, "", "can't access field %q of %s", x.Name, describe(o.t))
	return nil
}

func (c *checker) index(x *ast.Index) *operand {
	o := c.expr(x.X)
	i := c.scalar(x.I)
	if o == nil || i == nil {
		return nil
	}
	if o.place != nil {
		p := c.element(o.place, i.x, x)
		if p == nil {
			return nil
		}
		return &operand{place: p, node: x}
	}
	if o = c.value(o, x.X); o == nil {
		return nil
	}
	switch {
	case o.t.Kind == ir.Pointer && o.t.to != nil:
		n := &ir.Binary{T: ir.U64, Op: ir.Mul, X: convert(i, ir.U64), Y: &ir.Const{T: ir.U64, V: uint64(o.t.to.Size)}}
		addr := &ir.Binary{T: ir.U64, Op: ir.Add, X: convert(o, ir.U64), Y: n}
		return &operand{place: &place{t: o.t.to, addr: addr, named: o.t.to.Name}, node: x}
	case o.t.Kind == ir.Array:
		if k, ok := i.x.(*ir.Const); ok && k.V >= uint64(o.t.Count) {
			c.errorf(x, "", "the index %d is out of bounds for an array of size %d", int64(k.V), o.t.Count)
			return nil
		}
		return of(o.t.Elem, &ir.Index{T: o.t.Elem, X: o.x, I: i.x}, x)
	case o.t.Kind == ir.Tuple:
		k, ok := c.constant(x.I)
		if !ok || k >= uint64(len(o.t.Fields)) {
			c.errorf(x.I, "", "a tuple of %d is indexed by a number below that which is known before the script runs", len(o.t.Fields))
			return nil
		}
		ft := o.t.Fields[k].Type
		return of(ft, &ir.Part{T: ft, X: o.x, I: int(k)}, x)
	case o.t.Kind == ir.Text || o.t.Kind == ir.Bytes:
		bytes := &ir.Type{Kind: ir.Array, Elem: ir.U8, Count: o.t.Size, Size: o.t.Size}
		if o.t.Kind == ir.Bytes {
			at := plus(convert(i, ir.U64), 4)
			return of(ir.U8, &ir.Index{T: ir.U8, X: &ir.Cast{T: bytes, X: o.x}, I: at}, x)
		}
		// Behind its end a string is zeros.
		at := c.temp(ir.U64)
		c.emit(&ir.SetVar{Slot: at.Slot, X: convert(i, ir.U64)})
		within := &ir.Binary{T: ir.BoolType, Op: ir.Lt, X: at, Y: &ir.Const{T: ir.U64, V: uint64(o.t.Size)}}
		return of(ir.U8, &ir.Cond{T: ir.U8, C: within, X: &ir.Index{T: ir.U8, X: &ir.Cast{T: bytes, X: o.x}, I: at}, Y: &ir.Const{T: ir.U8}}, x)
	}
	c.errorf(x, "", "%s has no elements", describe(o.t))
	return nil
}

func (c *checker) offsetOf(x *ast.Offsetof) *operand {
	t := c.pointee(x.Type)
	off := int64(0)
	for _, name := range x.Fields {
		if t == nil {
			return nil
		}
		found := false
		for _, f := range t.Fields {
			if f.Name == name || f.Name == "__"+name {
				off, t, found = off+f.Offset, f.Type, true
				break
			}
		}
		if !found {
			c.errorf(x, "", "%s has no field %q", t.Name, name)
			return nil
		}
	}
	return integerLit(uint64(off), x)
}

// argument is args.NAME.
func (c *checker) argument(x *ast.Field) *operand {
	s := c.h.site
	if s == nil {
		c.errorf(x, "", "args are those of a uprobe")
		return nil
	}
	if s.Args == nil && s.NoArgs != "" {
		c.errorf(x, s.NoArgs, "the arguments of %s are not known", s.Func)
		return nil
	}
	var names []string
	for i, a := range s.Args {
		if a.Name == x.Name || strconv.Itoa(i) == x.Name {
			return c.siteValue(i, &s.Args[i], "args."+x.Name, x)
		}
		names = append(names, a.Name)
	}
	c.errorf(fieldNode(x), nearest(x.Name, names), "%s has no parameter %q: it has %s", s.Func, x.Name, list(names))
	return nil
}

// siteValue is an argument or the result.
func (c *checker) siteValue(i int, a *Arg, named string, n ast.Node) *operand {
	if a.Missing != "" {
		c.errorf(n, "ferrotrace explain says where it lives", "%s is %s in this build at %s", named, a.Missing, c.h.site.Func)
		return nil
	}
	if a.Type == nil || a.Type.Kind == types.Opaque {
		c.errorf(n, "", "the type of %s is not known", named)
		return nil
	}
	return &operand{place: &place{t: a.Type, root: c.root(i), strict: !c.h.site.C, named: named}, node: n}
}
