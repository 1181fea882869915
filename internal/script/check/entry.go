package check

import (
	"fmt"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
)

// What a uretprobe wants of a call's entry (its arguments, and when it was) is kept there,
// by a handler of its own, in a hidden map: by thread and frame, which tell the calls apart
// that are under way. The exit takes it out; where there is nothing the entry was not seen,
// or what was wanted could not be had, and the handler does not run.

// entry is what a uretprobe's handler wants of the entry.
type entry struct {
	body  *body
	kept  []ir.Expr
	types []*ir.Type
	at    map[string]int // by the text of the expression
	ops   []*operand
	tuple *ir.Type // of all that is kept; complete in the end
	all   *ir.Var  // it, at the exit
	// start is the part that is when the call was entered; -1 if that is not asked for.
	start int
	// address is the part that is the result's address; -1 if nothing is asked for of it.
	address int
}

var entryKey = ir.TupleOf(nil, []*ir.Type{ir.U64, ir.U64})

var now = &ir.Builtin{T: ir.U64, Kind: ir.Now}

// ofEntry makes the entry of the uretprobe at hand.
func (c *checker) ofEntry() *entry {
	h := c.h
	if h.entry == nil {
		t := &ir.Type{Kind: ir.Tuple}
		h.entry = &entry{
			body: &body{key: h.key + " entry", probe: h.probe, point: h.point, site: h.site, h: &ir.Handler{Name: "entry of " + h.point.Raw}},
			at:   map[string]int{}, tuple: t, all: c.temp(t), start: -1, address: -1,
		}
	}
	return h.entry
}

// keep has the entry keep a value, and is that value at the exit.
func (e *entry) keep(x ir.Expr) (part int) {
	e.kept = append(e.kept, x)
	e.types = append(e.types, x.Type())
	return len(e.kept) - 1
}

func (e *entry) part(i int) ir.Expr { return &ir.Part{T: e.types[i], X: e.all, I: i} }

// duration is the time since the call at hand was entered.
func (c *checker) duration() ir.Expr {
	e := c.ofEntry()
	if e.start < 0 {
		e.start = e.keep(now)
		c.h.duration = c.temp(ir.U64)
	}
	return c.h.duration
}

// resultAddress is where the caller wants the result: what a register was at the entry.
func (c *checker) resultAddress(r location.Reg) ir.Expr {
	e := c.ofEntry()
	if e.address < 0 {
		e.address = e.keep(&ir.Register{Reg: r})
		e.body.result = true
	}
	return e.part(e.address)
}

// ofArgs says whether an expression is of a uretprobe, and stands on arguments and on
// nothing that may be another value by then.
func (c *checker) ofArgs(x ast.Expr) bool {
	if c.h == nil || c.h.site == nil || !c.h.ret {
		return false
	}
	args, only := false, true
	ast.Inspect(x, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field, *ast.Index, *ast.Binary, *ast.Cond, *ast.Cast, *ast.Type, *ast.Int, *ast.Str, *ast.Char, *ast.Bool:
		case *ast.Unary:
			only = only && n.Op != "&"
		case *ast.Ident:
			_, constant := c.consts[n.Name]
			args = args || n.Name == "args"
			only = only && (n.Name == "args" || constant)
		case *ast.Call:
			switch n.Name {
			case "is": // its second argument is a variant's name
				of := len(n.Args) > 0 && c.ofArgs(n.Args[0])
				args, only = args || of, only && of
				return false
			case "str", "buf", "len", "strlen", "strncmp", "strcontains":
			default:
				only = false
			}
		default:
			only = false
		}
		return only
	})
	return args && only
}

// keptExpr is an expression that stands on arguments, evaluated at the entry.
func (c *checker) keptExpr(x ast.Expr) *operand {
	exit, e := c.h, c.ofEntry()
	text := ast.Text(x)
	i, ok := e.at[text]
	if !ok {
		c.h = e.body
		c.push()
		whole := c.expr(x)
		o := c.value(whole, x)
		c.pop()
		c.h = exit
		if o == nil && whole != nil && whole.place != nil {
			c.errs[len(c.errs)-1].Hint = "it is gone when the function returns: name a part of it, or print it in a uprobe"
		}
		if o == nil {
			return nil
		}
		i = e.keep(o.x)
		e.at[text] = i
		for len(e.ops) <= i {
			e.ops = append(e.ops, nil)
		}
		e.ops[i] = o
	}
	return &operand{t: e.ops[i].t, x: e.part(i), node: x}
}

// entries adds the handler that keeps what b wants, and has b take it out first.
func (c *checker) entries(b *body, ap *ast.AttachPoint) {
	e := b.entry
	if e == nil {
		return
	}
	*e.tuple = *ir.TupleOf(nil, e.types)
	// One map for each attach point: another's may be of the same calls.
	t := c.table(fmt.Sprintf("$entry %d %s", ap.Span.Start, e.tuple), ap)
	t.key, t.val = &typ{Type: entryKey}, &typ{Type: e.tuple}
	tid := &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.Tid}}
	key := &ir.MakeTuple{T: entryKey, Elems: []ir.Expr{tid, &ir.Builtin{T: ir.U64, Kind: ir.CFA}}}

	keep := []ir.Stmt{&ir.SetMap{Map: t.number, Key: key, X: &ir.MakeTuple{T: e.tuple, Elems: e.kept}}}
	if len(e.at) > 0 {
		// If an argument can't be had, what an earlier call left that never returned is not
		// this one's.
		keep = append([]ir.Stmt{&ir.Delete{Map: t.number, Key: key}}, keep...)
	}
	e.body.h.Body = append(e.body.h.Body, keep...)
	e.body.number = len(c.out.Script.Handlers)
	c.out.Script.Handlers = append(c.out.Script.Handlers, e.body.h)

	take := []ir.Stmt{
		&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: &ir.HasKey{Map: t.number, Key: key}}, Then: []ir.Stmt{&ir.Return{}}},
		&ir.SetVar{Slot: e.all.Slot, X: &ir.MapGet{T: e.tuple, Map: t.number, Key: key}},
		&ir.Delete{Map: t.number, Key: key},
	}
	if e.start >= 0 {
		take = append(take, &ir.SetVar{Slot: b.duration.Slot, X: &ir.Binary{T: ir.U64, Op: ir.Sub, X: now, Y: e.part(e.start)}})
	}
	b.h.Body = append(take, b.h.Body...)
}
