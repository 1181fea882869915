package check

import (
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
)

func (c *checker) block(b *ast.Block) {
	c.push()
	defer c.pop()
	c.stmts(b.Stmts)
	if b.Value != nil {
		c.effect(b.Value)
	}
}

func (c *checker) stmts(list []ast.Stmt) {
	for i, s := range list {
		c.stmt(s)
		rest := list[i+1:]
		switch {
		case ends(s):
			if len(rest) > 0 {
				c.warnf(rest[0], "", "unreachable statement")
			}
			return
		case c.h.inline != nil && returns(s):
			c.unlessDone(func() { c.stmts(rest) })
			return
		}
	}
}

// inner are the statements of a block of its own.
func (c *checker) inner(b *ast.Block) []ir.Stmt { return c.collect(func() { c.block(b) }) }

func (c *checker) stmt(s ast.Stmt) {
	switch s := s.(type) {
	case *ast.Let:
		c.let(s)
	case *ast.Assign:
		c.assign(s)
	case *ast.ExprStmt:
		c.effect(s.X)
	case *ast.Discard:
		c.effect(s.X)
	case *ast.For:
		c.forLoop(s)
	case *ast.While:
		var cond ir.Expr
		c.h.loops++
		body := c.collect(func() {
			x := c.condition(s.Cond)
			c.emit(&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: x}, Then: []ir.Stmt{&ir.Break{}}})
			c.block(s.Body)
		})
		c.h.loops--
		c.emit(&ir.While{Cond: cond, Body: body})
	case *ast.Unroll:
		n, ok := c.constant(s.N)
		if !ok {
			c.errorf(s.N, "", "how often to unroll is not known before the script runs")
			return
		}
		if n == 0 || n > maxUnroll {
			c.errorf(s.N, "", "unroll takes 1 to %d rounds, and this is %d", maxUnroll, n)
			return
		}
		c.unroll(s.Body, n)
	case *ast.Break:
		if c.h.loops == 0 {
			c.errorf(s, "", "break stands in a loop only")
		}
		c.emit(&ir.Break{})
	case *ast.Continue:
		if c.h.loops == 0 {
			c.errorf(s, "", "continue stands in a loop only")
		}
		c.emit(&ir.Continue{})
	case *ast.Return:
		if c.h.inline != nil {
			c.leave(s)
			return
		}
		if s.X != nil {
			c.expr(s.X)
		}
		c.emit(&ir.Return{})
	default:
		c.errorf(s, "", "this is no statement")
	}
}

func (c *checker) unroll(body *ast.Block, n uint64) {
	for ; n > 0; n-- {
		c.block(body)
		if c.h.inline != nil && returns(body) {
			c.unlessDone(func() { c.unroll(body, n-1) })
			return
		}
	}
}

// maxUnroll is bpftrace's.
const maxUnroll = 100

// effect checks an expression that is evaluated for what it does.
func (c *checker) effect(x ast.Expr) {
	switch x := x.(type) {
	case *ast.If:
		if v, ok := c.comptime(x.Cond); ok {
			switch {
			case v:
				c.emit(c.inner(x.Then)...)
			case x.Else != nil:
				c.effect(x.Else)
			}
			return
		}
		cond := c.condition(x.Cond)
		then := c.inner(x.Then)
		var els []ir.Stmt
		if x.Else != nil {
			els = c.collect(func() { c.effect(x.Else) })
		}
		c.emit(&ir.If{Cond: cond, Then: then, Else: els})
		return
	case *ast.Block:
		c.emit(c.inner(x)...)
		return
	case *ast.Cond:
		if x.Then != nil {
			cond := c.condition(x.If)
			then := c.collect(func() { c.effect(x.Then) })
			els := c.collect(func() { c.effect(x.Else) })
			c.emit(&ir.If{Cond: cond, Then: then, Else: els})
			return
		}
	case *ast.IncDec:
		c.step(x)
		return
	}
	o := c.expr(x)
	if call, ok := x.(*ast.Call); ok && call.Name == "delete" && o != nil && c.o.Warnings {
		c.missed(o.x, "delete", "map_delete_elem", -2, x)
		return
	}
	if o == nil || o.x == nil || o.t.Kind == ir.Void || o.table != nil {
		return
	}
	if _, ok := o.x.(*ir.Const); ok {
		return
	}
	if o.t.Kind != ir.Value {
		c.emit(&ir.Eval{X: o.x})
	}
}

func (c *checker) let(s *ast.Let) {
	var t *typ
	if s.Type != nil {
		if t = c.named(s.Type); t == nil {
			return
		}
	}
	if v := c.h.scopes[len(c.h.scopes)-1][s.Var.Name]; v != nil {
		c.errorf(s, "", "variable %s was already declared in this scope", shown(s.Var.Name))
		return
	}
	if s.Value == nil {
		if t == nil { // what is assigned first says what it is
			t = c.vars[varKey{c.h.key, s}]
			if t == nil {
				t = &typ{Type: ir.I64}
				v := &variable{slot: len(c.h.h.Vars), t: t, decl: s, name: s.Var.Name}
				c.h.h.Vars = append(c.h.h.Vars, ir.I64)
				c.h.scopes[len(c.h.scopes)-1][s.Var.Name] = v
				c.clear(v)
				return
			}
		}
		v := c.declareVar(s.Var.Name, s, t)
		c.clear(v)
		return
	}
	o := c.kept(c.expr(s.Value), s.Value)
	if o == nil {
		return
	}
	if t == nil {
		t = valueType(o)
	} else if _, ok := join(t, o.t); !ok || !fits(t, o) {
		c.errorf(s, "", "type mismatch for %s: trying to assign %s to a variable declared as %s", shown(s.Var.Name), describe(o.t), describe(t))
		return
	}
	v := c.declareVar(s.Var.Name, s, t)
	c.emit(&ir.SetVar{Slot: v.slot, X: convert(o, v.t.Type)})
}

// clear makes a variable zero: its slot may hold what a round of a loop before left.
func (c *checker) clear(v *variable) {
	if v.t.Scalar() {
		c.emit(&ir.SetVar{Slot: v.slot, X: &ir.Const{T: v.t.Type}})
	}
}

// valueType is the type of a variable that is made of a value.
func valueType(o *operand) *typ {
	if o.known && o.t.Kind == ir.Int {
		return &typ{Type: o.t.Type}
	}
	return o.t
}

// fits says whether a declared type holds the value.
func fits(t *typ, o *operand) bool {
	if t.Kind == ir.Int && o.t.Kind == ir.Int {
		if k, ok := o.x.(*ir.Const); ok {
			return cut(k.V, t.Type) == k.V || t.Size == 8
		}
		return o.t.Size <= t.Size
	}
	return true
}

func (c *checker) assign(s *ast.Assign) {
	if op, ok := binaryOps[s.Op[:len(s.Op)-1]]; ok && s.Op != "=" {
		c.compound(s, op)
		return
	}
	switch x := s.Target.(type) {
	case *ast.Var:
		o := c.kept(c.expr(s.Value), s.Value)
		if o == nil {
			return
		}
		if o.t.Kind == ir.Void || o.t.Kind.Aggregate() {
			c.errorf(s.Value, "", "that can't be assigned to a variable")
			return
		}
		v := c.lookup(x.Name)
		if v == nil {
			v = c.declareVar(x.Name, s, valueType(o))
		} else {
			if o.t.Kind == ir.Int && v.t.Kind == ir.Int && !fits(v.t, o) {
				if l, ok := v.decl.(*ast.Let); ok && l.Type != nil {
					c.errorf(s, "", "type mismatch for %s: trying to assign %s to a variable declared as %s", shown(x.Name), describe(o.t), describe(v.t))
					return
				}
			}
			t := c.learn(varKey{c.h.key, v.decl}, valueType(o), s, shown(x.Name))
			if t == nil {
				return
			}
			v.t = t
			c.h.h.Vars[v.slot] = t.Type
		}
		if !c.mixes(v.t, o) {
			return
		}
		c.emit(&ir.SetVar{Slot: v.slot, X: convert(o, v.t.Type)})
	case *ast.Map:
		c.assignMap(x, s.Value)
	default:
		c.errorf(s, "", "nothing can be assigned to that")
	}
}

// mixes says whether a value can become one of a type; what can't has been reported.
func (c *checker) mixes(t *typ, o *operand) bool {
	_, ok := join(t, o.t)
	return ok
}

// assignMap is @m[k] = x, where x may be an aggregation.
func (c *checker) assignMap(m *ast.Map, value ast.Expr) {
	t := c.table(m.Name, m)
	if b, ok := value.(*ast.Block); ok && b.Value != nil {
		c.push()
		defer c.pop()
		c.stmts(b.Stmts)
		c.assignMap(m, b.Value)
		return
	}
	if call, ok := value.(*ast.Call); ok {
		if _, ok := aggregates[call.Name]; ok {
			c.aggregate(t, m, call)
			return
		}
	}
	o := c.expr(value)
	if o != nil && o.table != nil {
		c.errorf(value, "", "a map can't be assigned as a whole")
		return
	}
	o = c.kept(o, value)
	if o == nil {
		c.keyOf(t, m)
		return
	}
	if o.t.Kind == ir.Void {
		c.errorf(value, "", "that has no value")
		return
	}
	if t.val != nil && t.val.Kind.Aggregate() {
		c.errorf(m, "", "type mismatch for @%s: it is %s(), and can't be assigned %s", t.name, describe(t.val), describe(o.t))
		return
	}
	mark := c.mark()
	key := c.keyOf(t, m)
	o.x = c.since(mark, o.x)
	if !c.setVal(t, valueType(o), m) || t.val == nil {
		return
	}
	c.emit(&ir.SetMap{Map: t.number, Key: key, X: convert(o, t.val.Type)})
}

// keyOf is the key of @m[k, …], nil if it has none.
func (c *checker) keyOf(t *table, m *ast.Map) ir.Expr {
	if len(m.Keys) == 0 {
		c.setKey(t, nil, m)
		return nil
	}
	var o *operand
	if len(m.Keys) == 1 {
		o = c.value(c.expr(m.Keys[0]), m.Keys[0])
	} else {
		o = c.tuple(m.Keys, nil, m)
	}
	if o == nil {
		return nil
	}
	if o.t.Kind == ir.Void || o.t.Kind == ir.Value || o.t.Kind.Aggregate() {
		c.errorf(m, "", "%s can't be a key", describe(o.t))
		return nil
	}
	if t.key != nil {
		o = c.spelt(o, t.key.Type)
	}
	c.setKey(t, o.t, m)
	if t.key == nil {
		return nil
	}
	if _, ok := join(t.key, wide(o.t)); !ok {
		return nil
	}
	return convert(o, t.key.Type)
}

// spelt is a value whose literals are names of functions or probes where the type has such.
func (c *checker) spelt(o *operand, t *ir.Type) *operand {
	switch x := o.x.(type) {
	case *ir.String:
		if t.Kind == ir.Name {
			return of(ir.NameType, &ir.Const{T: ir.NameType, V: c.name(x.S)}, o.node)
		}
	case *ir.MakeTuple:
		if t.Kind != ir.Tuple || x.T.Kind != ir.Tuple || len(x.Elems) != len(t.Fields) {
			break
		}
		out := &ir.MakeTuple{}
		var names []string
		var ts []*ir.Type
		for i, e := range x.Elems {
			e = c.spelt(of(e.Type(), e, o.node), t.Fields[i].Type).x
			out.Elems, names, ts = append(out.Elems, e), append(names, x.T.Fields[i].Name), append(ts, e.Type())
		}
		out.T = ir.TupleOf(names, ts)
		return of(out.T, out, o.node)
	}
	return o
}

func (c *checker) compound(s *ast.Assign, op ir.BinaryOp) {
	switch x := s.Target.(type) {
	case *ast.Var:
		v := c.lookup(x.Name)
		if v == nil {
			c.errorf(x, "assign to it first", "undefined or undeclared variable: %s", shown(x.Name))
			return
		}
		b := c.value(c.expr(s.Value), s.Value)
		if b == nil {
			return
		}
		o := c.operate(op, of2(v), b, s)
		if o == nil {
			return
		}
		c.emit(&ir.SetVar{Slot: v.slot, X: convert(o, v.t.Type)})
	case *ast.Map:
		t := c.table(x.Name, x)
		b := c.value(c.expr(s.Value), s.Value)
		if b == nil {
			return
		}
		if !b.t.Scalar() {
			c.errorf(s.Value, "", "a number is wanted here, and this is %s", describe(b.t))
			return
		}
		key := c.keyOf(t, x)
		if t.val != nil && t.val.Kind.Aggregate() {
			c.errorf(s, "", "@%s is %s(), which is not changed by operators", t.name, describe(t.val))
			return
		}
		pointer := t.val != nil && t.val.Kind == ir.Pointer
		if !pointer && !c.setVal(t, valueType(b), s) || t.val == nil {
			return
		}
		if !pointer && op == ir.Add || !pointer && op == ir.Sub {
			n := convert(b, ir.I64)
			if op == ir.Sub {
				n = &ir.Unary{T: ir.I64, Op: ir.Neg, X: n}
			}
			c.emit(&ir.AddMap{Map: t.number, Key: key, X: n})
			return
		}
		old := &operand{t: t.val, x: &ir.MapGet{T: t.val.Type, Map: t.number, Key: key}}
		o := c.operate(op, old, b, s)
		if o == nil {
			return
		}
		c.emit(&ir.SetMap{Map: t.number, Key: key, X: convert(o, t.val.Type)})
	}
}

func of2(v *variable) *operand {
	return &operand{t: v.t, x: &ir.Var{T: v.t.Type, Slot: v.slot}}
}

// step is x++ or x-- for its effect.
func (c *checker) step(x *ast.IncDec) {
	d := uint64(1)
	if x.Op == "--" {
		d = ^uint64(0)
	}
	switch m := x.X.(type) {
	case *ast.Var:
		v := c.lookup(m.Name)
		if v == nil {
			c.errorf(m, "assign to it first", "undefined or undeclared variable: %s", shown(m.Name))
			return
		}
		if v.t.Kind == ir.Pointer && v.t.to != nil && v.t.to.Size > 1 {
			d *= uint64(v.t.to.Size)
		}
		if !v.t.Scalar() {
			c.errorf(x, "", "%s is %s, which is no number", shown(m.Name), describe(v.t))
			return
		}
		c.emit(&ir.SetVar{Slot: v.slot, X: &ir.Binary{T: v.t.Type, Op: ir.Add, X: &ir.Var{T: v.t.Type, Slot: v.slot}, Y: &ir.Const{T: v.t.Type, V: d}}})
	case *ast.Map:
		t := c.table(m.Name, m)
		key := c.keyOf(t, m)
		if t.val != nil && t.val.Kind == ir.Pointer {
			if t.val.to != nil && t.val.to.Size > 1 {
				d *= uint64(t.val.to.Size)
			}
			c.emit(&ir.AddMap{Map: t.number, Key: key, X: &ir.Const{T: ir.I64, V: d}})
			return
		}
		if t.val != nil && t.val.Kind != ir.Int {
			c.errorf(x, "", "@%s is %s, which is no number", t.name, describe(t.val))
			return
		}
		if !c.setVal(t, &typ{Type: ir.I64}, x) {
			return
		}
		c.emit(&ir.AddMap{Map: t.number, Key: key, X: &ir.Const{T: ir.I64, V: d}})
	default:
		c.errorf(x, "", "only variables and maps can be counted up and down")
	}
}

// incDec is x++ as a value.
func (c *checker) incDec(x *ast.IncDec) *operand {
	var get func() *operand
	switch m := x.X.(type) {
	case *ast.Var:
		get = func() *operand { return c.expr(m) }
	case *ast.Map:
		if t := c.table(m.Name, m); t.val == nil || t.val.Kind != ir.Pointer {
			c.setVal(t, &typ{Type: ir.I64}, x)
		}
		get = func() *operand { return c.mapValue(m) }
	default:
		c.errorf(x, "", "only variables and maps can be counted up and down")
		return nil
	}
	if !x.Post {
		c.step(x)
		return get()
	}
	o := get()
	if o == nil {
		return nil
	}
	tmp := c.temp(o.t.Type)
	c.emit(&ir.SetVar{Slot: tmp.Slot, X: o.x})
	c.step(x)
	return &operand{t: o.t, x: tmp, node: x}
}

func (c *checker) forLoop(s *ast.For) {
	c.push()
	defer c.pop()
	body := func() []ir.Stmt {
		c.h.loops++
		defer func() { c.h.loops-- }()
		return c.inner(s.Body)
	}
	switch over := s.Over.(type) {
	case *ast.Range:
		from, to := c.scalar(over.From), c.scalar(over.To)
		if from == nil || to == nil {
			return
		}
		v := c.declareVar(s.Var.Name, s, &typ{Type: ir.I64})
		stmts := body()
		c.emit(&ir.ForRange{Slot: v.slot, From: convert(from, ir.I64), To: convert(to, ir.I64), Body: stmts})
	case *ast.Map:
		if len(over.Keys) > 0 {
			c.errorf(over, "", "a loop goes over a whole map")
			return
		}
		t := c.table(over.Name, over)
		if t.val == nil || t.key == nil {
			if t.keyless {
				c.errorf(over, "", "@%s has no keys to go over", t.name)
			}
			if !c.guess {
				return
			}
			// The body may be what says what the map holds.
			v := c.declareVar(s.Var.Name, s, &typ{Type: ir.TupleOf(nil, []*ir.Type{ir.I64, ir.I64})})
			_ = v
			body()
			return
		}
		val := t.val.Type
		if val.Kind.Aggregate() {
			if val = c.number(t.val.Type); val == nil {
				c.errorf(over, "", "a loop can't go over @%s, which is %s()", t.name, describe(t.val))
				return
			}
		}
		v := &variable{slot: len(c.h.h.Vars), t: &typ{Type: ir.TupleOf(nil, []*ir.Type{t.key.Type, val})}, decl: s, name: s.Var.Name}
		c.h.h.Vars = append(c.h.h.Vars, v.t.Type)
		c.h.scopes[len(c.h.scopes)-1][s.Var.Name] = v
		stmts := body()
		c.emit(&ir.ForMap{Map: t.number, Slot: v.slot, Body: stmts})
	default:
		c.errorf(s.Over, "", "a loop goes over a map or a range")
	}
}

// number is the type of the number that an aggregate stands for; nil if it stands for none.
func (c *checker) number(t *ir.Type) *ir.Type {
	switch t.Kind {
	case ir.Count:
		return ir.I64
	case ir.Sum, ir.Avg, ir.Min, ir.Max, ir.Stats:
		return integer(8, t.Signed)
	}
	return nil
}

// missed has a handler warn that an element was not there.
func (c *checker) missed(there ir.Expr, what, helper string, code int, n ast.Node) {
	e := &ir.Event{Kind: ir.Helper, Format: "Can't " + what + " map element because it does not exist.", Helper: helper, Code: code}
	c.emit(&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: there}, Then: []ir.Stmt{&ir.Emit{Event: c.event(e, n)}}})
}

// mapValue is @m[k], or @m as a whole where it has keys.
func (c *checker) mapValue(m *ast.Map) *operand {
	t := c.table(m.Name, m)
	if len(m.Keys) == 0 && t.key != nil {
		return &operand{table: t, node: m}
	}
	var key ir.Expr
	if len(m.Keys) > 0 || t.keyless || t.val != nil { // else it is not known yet whether it has keys
		key = c.keyOf(t, m)
	}
	switch {
	case t.val == nil && !c.guess:
		return nil
	case t.val == nil:
		return &operand{t: &typ{Type: ir.I64}, x: &ir.Const{T: ir.I64}, node: m}
	}
	vt := t.val
	if vt.Kind.Aggregate() {
		n := c.number(vt.Type)
		if n == nil {
			c.errorf(m, "print it", "%s() stands for no number", describe(vt))
			return nil
		}
		vt = &typ{Type: n}
	}
	if c.o.Warnings && key != nil {
		k := c.temp(key.Type())
		c.emit(&ir.SetVar{Slot: k.Slot, X: key})
		key = k
		c.missed(&ir.HasKey{Map: t.number, Key: key}, "lookup", "map_lookup_elem", 0, m)
	}
	return held(vt, &ir.MapGet{T: vt.Type, Map: t.number, Key: key}, "@"+t.name, m)
}
