package check

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"
)

func (c *checker) push() { c.h.scopes = append(c.h.scopes, map[string]*variable{}) }
func (c *checker) pop()  { c.h.scopes = c.h.scopes[:len(c.h.scopes)-1] }

func (c *checker) emit(s ...ir.Stmt) { c.h.h.Body = append(c.h.h.Body, s...) }

// collect gives what f emits.
func (c *checker) collect(f func()) []ir.Stmt {
	outer := c.h.h.Body
	c.h.h.Body = nil
	f()
	mine := c.h.h.Body
	c.h.h.Body = outer
	return mine
}

// mark is how much the handler does so far.
func (c *checker) mark() int { return len(c.h.h.Body) }

// since is what an expression was at a mark, if what has been emitted since may have changed
// it.
func (c *checker) since(mark int, x ir.Expr) ir.Expr {
	if mark == c.mark() {
		return x
	}
	switch x.(type) {
	case *ir.Const, *ir.String, *ir.Capture:
		return x
	}
	v := c.temp(x.Type())
	c.h.h.Body = slices.Insert(c.h.h.Body, mark, ir.Stmt(&ir.SetVar{Slot: v.Slot, X: x}))
	return v
}

// inOrder has expressions evaluated in their order, each at its mark.
func (c *checker) inOrder(xs []ir.Expr, marks []int) {
	for i := len(xs) - 1; i >= 0; i-- {
		xs[i] = c.since(marks[i], xs[i])
	}
}

func (c *checker) lookup(name string) *variable {
	for i := len(c.h.scopes) - 1; i >= 0; i-- {
		if v := c.h.scopes[i][name]; v != nil {
			return v
		}
	}
	return nil
}

// shown is a variable's name as the script has it: macros' own are numbered.
func shown(name string) string {
	name, _, _ = strings.Cut(name, "#")
	return "$" + name
}

// declareVar makes a variable in the innermost scope. Its type is what rounds before have
// found it to be.
func (c *checker) declareVar(name string, decl ast.Node, t *typ) *variable {
	known := c.learn(varKey{c.h.key, decl}, t, decl, shown(name))
	v := &variable{slot: len(c.h.h.Vars), t: known, decl: decl, name: name}
	c.h.h.Vars = append(c.h.h.Vars, known.Type)
	c.h.scopes[len(c.h.scopes)-1][name] = v
	return v
}

// learn joins what is known of a variable's type with what is assigned to it now.
func (c *checker) learn(k varKey, t *typ, at ast.Node, what string) *typ {
	old := c.vars[k]
	joined, ok := join(old, t)
	if !ok {
		c.errorf(at, "", "type mismatch for %s: it is %s, and can't become %s", what, describe(old), describe(t))
		return old
	}
	if old == nil || !same(old, joined) {
		c.vars[k] = joined
		c.changed = true
	}
	return c.vars[k]
}

// temp is a variable that the script does not name.
func (c *checker) temp(t *ir.Type) *ir.Var {
	c.h.h.Vars = append(c.h.h.Vars, t)
	return &ir.Var{T: t, Slot: len(c.h.h.Vars) - 1}
}

// table is the script's map of a name.
func (c *checker) table(name string, at ast.Node) *table {
	t := c.tables[name]
	if t == nil {
		t = &table{name: name, number: -1}
		c.tables[name] = t
	}
	if t.number < 0 {
		t.number = len(c.order)
		c.order = append(c.order, t)
	}
	if t.used == nil {
		t.used = at
	}
	return t
}

func (c *checker) declare(d *ast.MapDecl) {
	switch d.Kind {
	case "hash", "lruhash", "percpuhash", "percpulruhash", "percpuarray":
	default:
		c.errorf(d, "hash, lruhash, percpuhash, percpulruhash", "no kind of map is called %q", d.Kind)
	}
	if d.Len == 0 || d.Len > 1<<22 {
		c.errorf(d, "", "a map of %d entries", d.Len)
	}
	t := c.table(d.Name, d)
	t.declared = d
}

// setKey learns the type of a map's keys; nil for a map without.
func (c *checker) setKey(t *table, key *typ, at ast.Node) {
	if key == nil {
		if t.key != nil {
			c.errorf(at, "", "@%s is used with a key of type %s elsewhere, and here without one", t.name, describe(t.key))
		}
		t.keyless = true
		return
	}
	if t.keyless {
		c.errorf(at, "", "@%s is used without a key elsewhere, and here with one", t.name)
		return
	}
	joined, ok := join(t.key, wide(key))
	if !ok {
		c.errorf(at, "", "argument mismatch for @%s: its keys are %s, and this one is %s", t.name, describe(t.key), describe(key))
		return
	}
	if t.key == nil || !same(t.key, joined) {
		t.key = joined
		c.changed = true
	}
}

// setVal learns the type of a map's values.
func (c *checker) setVal(t *table, val *typ, at ast.Node) bool {
	if !val.Kind.Aggregate() {
		val = wide(val)
	}
	joined, ok := join(t.val, val)
	if !ok {
		c.errorf(at, "", "type mismatch for @%s: its values are %s, and this one is %s", t.name, describe(t.val), describe(val))
		return false
	}
	if t.val == nil || !same(t.val, joined) {
		t.val = joined
		c.changed = true
	}
	return true
}

// name is the number of a name.
func (c *checker) name(s string) uint64 {
	n, ok := c.names[s]
	if !ok {
		n = uint64(len(c.out.Script.Names))
		c.names[s] = n
		c.out.Script.Names = append(c.out.Script.Names, s)
	}
	return n
}

// root is the number of a site's value among those that the handler looks at.
func (c *checker) root(arg int) int {
	for i, a := range c.h.roots {
		if a == arg {
			return i
		}
	}
	c.h.roots = append(c.h.roots, arg)
	t := c.h.site.Result
	if arg != Result {
		t = &c.h.site.Args[arg]
	}
	c.h.h.Roots = append(c.h.h.Roots, t.Type)
	return len(c.h.roots) - 1
}

// siteKey is what the types of a body at a site stand on.
func siteKey(ap *ast.AttachPoint, s *Site, used map[string]bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%p %t", ap, s.C)
	if used == nil {
		return b.String()
	}
	for i, a := range s.Args {
		if used["*"] || used[a.Name] || used[fmt.Sprint(i)] {
			fmt.Fprintf(&b, " %d:%s:%p:%s", i, a.Name, a.Type, a.Missing)
		}
	}
	if used["retval"] && s.Result != nil {
		fmt.Fprintf(&b, " =%p:%s:%t", s.Result.Type, s.Result.Missing, s.Result.Led != nil)
	}
	fmt.Fprint(&b, s.NoArgs)
	return b.String()
}

// usedArgs are the names of arguments that a probe's body looks at, "retval" too; "*" if
// it takes them all; nil if none.
func usedArgs(p *ast.Probe) map[string]bool {
	var used map[string]bool
	note := func(name string) {
		if used == nil {
			used = map[string]bool{}
		}
		used[name] = true
	}
	inField := map[ast.Node]bool{}
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			if id, ok := n.X.(*ast.Ident); ok && id.Name == "args" {
				inField[id] = true
				note(n.Name)
			}
		case *ast.Ident:
			switch {
			case n.Name == "retval":
				note("retval")
			case n.Name == "args" && !inField[n]:
				note("*")
			}
			if _, ok := argNumber(n.Name, "arg"); ok { // a static probe's
				note(n.Name)
			}
		}
		return true
	}
	if p.Pred != nil {
		ast.Inspect(p.Pred, look)
	}
	ast.Inspect(p.Body, look)
	return used
}
