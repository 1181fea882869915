// Package macro puts the bodies of a script's macros, and the values of its C
// constants, where they are called.
//
// Macros are hygienic, as bpftrace has them: a body's own variables are apart
// from the caller's and from those of any other call, and it reaches the
// caller's variables and maps only through its parameters. An argument for a
// plain parameter is put in unevaluated wherever the parameter stands.
package macro

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// Bounds on what an expansion may come to: macros that call each other twice
// double with each step.
const (
	maxNodes = 100_000
	maxDepth = 100
)

// Expand replaces all calls of macros in a program's probes and functions, and
// takes the macros and constants out of it. builtin says whether the language
// itself has a function or value of some name: a macro of that name stands
// before it for the arguments that the macro takes, and for no others.
//
// A variable of a macro's own is called NAME#N afterwards, N being the number of
// the call. Where there are errors, the program is of no further use.
func Expand(p *ast.Program, builtin func(name string) bool) source.Errors {
	e := &expander{
		src:     p.Source,
		builtin: builtin,
		macros:  map[string][]*ast.Macro{},
		defines: map[string]*ast.Define{},
		said:    map[said]bool{},
	}
	for _, m := range p.Macros {
		e.define(m)
	}
	for _, d := range p.Defines {
		e.defines[d.Name] = d
	}
	for _, f := range p.Funcs {
		e.rewrite(f, &frame{})
	}
	for _, probe := range p.Probes {
		e.rewrite(probe, &frame{})
	}
	e.leftovers(p)
	p.Macros, p.Defines = nil, nil
	return e.errs
}

type expander struct {
	src     *source.Source
	builtin func(string) bool
	macros  map[string][]*ast.Macro // in the order of the text
	defines map[string]*ast.Define
	errs    source.Errors
	said    map[said]bool
	calls   int // so far
	nodes   int // put in so far
}

// said is what an error was about: a macro called often says things only once.
type said struct {
	at  source.Span
	msg string
}

// A frame is one call that is being expanded. One without a name is the script
// itself, one without parameters a constant.
type frame struct {
	outer *frame
	name  string
	call  int
	vars  map[string]string   // parameter → the caller's variable
	maps  map[string]string   // parameter → the caller's map
	exprs map[string]ast.Expr // parameter → the argument, expanded
}

func (e *expander) report(at source.Span, hint, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if !e.said[said{at, msg}] {
		e.said[said{at, msg}] = true
		e.errs = append(e.errs, &source.Error{Source: e.src, Span: at, Msg: msg, Hint: hint})
	}
}

// takes says whether a macro can be called with the arguments: a parameter $x
// wants a variable, @x a map, and any other takes what it gets.
func takes(m *ast.Macro, args []ast.Expr) bool {
	if len(m.Params) != len(args) {
		return false
	}
	for i, param := range m.Params {
		if wants(param, args[i]) != "" {
			return false
		}
	}
	return true
}

// wants says what else than the argument a parameter asks for, "" if nothing.
func wants(param, arg ast.Expr) string {
	switch param.(type) {
	case *ast.Var:
		if _, ok := arg.(*ast.Var); !ok {
			return "a variable"
		}
	case *ast.Map:
		if m, ok := arg.(*ast.Map); !ok || len(m.Keys) > 0 {
			return "a map"
		}
	}
	return ""
}

// define takes up a macro. Several may share a name if no call could mean two of
// them but for a plain parameter after a stricter one.
func (e *expander) define(m *ast.Macro) {
	for _, other := range e.macros[m.Name] {
		if takes(other, m.Params) {
			line, _ := e.src.Position(other.Start)
			e.report(m.Span, "where two fit, the first is taken: put the one with $ and @ before the other",
				"the macro `%s` on line %d takes these arguments already", m.Name, line)
			return
		}
	}
	seen := map[string]bool{}
	for _, param := range m.Params {
		name := ast.Text(param)
		if seen[name] {
			e.report(param.At(), "", "the macro has a parameter `%s` already", name)
			return
		}
		seen[name] = true
	}
	e.macros[m.Name] = append(e.macros[m.Name], m)
}

// rewrite expands all below a node, which is the frame's own.
func (e *expander) rewrite(n ast.Node, f *frame) {
	ast.Rewrite(n, func(n ast.Node) (ast.Node, bool) {
		switch n := n.(type) {
		case *ast.Var:
			e.variable(n, f)
		case *ast.Map:
			e.mapRef(n, f)
		case *ast.Let:
			if _, ok := f.vars[n.Var.Name]; ok {
				e.report(n.Span, "use another name", "`$%s` is a parameter of the macro", n.Var.Name)
			}
		case *ast.ExprStmt:
			e.rewrite(n, f)
			ast.DropValue(n.X)
			return n, false
		case *ast.Ident:
			if x, ok := f.exprs[n.Name]; ok {
				return e.copy(x, n.Span), false
			}
			return e.expand(n, n.Name, nil, f), false
		case *ast.Call:
			e.rewrite(n, f)
			return e.expand(n, n.Name, n.Args, f), false
		case *ast.Type:
			return e.typ(n, f), n.Kind == ast.TypeofType || n.Elem != nil
		case *ast.Offsetof:
			e.offsetof(n, f)
		}
		return n, true
	})
}

func (e *expander) variable(v *ast.Var, f *frame) {
	if f.vars == nil {
		return
	}
	if name, ok := f.vars[v.Name]; ok {
		v.Name = name
	} else {
		v.Name = fmt.Sprintf("%s#%d", v.Name, f.call)
	}
}

func (e *expander) mapRef(m *ast.Map, f *frame) {
	if f.maps == nil {
		return
	}
	if name, ok := f.maps[m.Name]; ok {
		m.Name = name
	} else {
		e.report(m.Span, "pass it to the macro as a parameter", "a macro cannot reach the script's map `@%s`", m.Name)
	}
}

// copy is another tree like x, for a place in the script.
func (e *expander) copy(x ast.Expr, at source.Span) ast.Expr {
	if !e.room(x, at) {
		return x
	}
	return ast.Clone(x)
}

// room counts the nodes that are put in, and says whether there may be more.
func (e *expander) room(n ast.Node, at source.Span) bool {
	if e.nodes <= maxNodes {
		ast.Inspect(n, func(ast.Node) bool { e.nodes++; return e.nodes <= maxNodes })
	}
	if e.nodes > maxNodes {
		if len(e.errs) == 0 {
			e.report(at, "macros that call others more than once grow fast", "the script's macros come to too much")
		}
		return false
	}
	return true
}

// expand is what a name, with arguments or without, stands for: the body of a
// macro, a constant, or itself.
func (e *expander) expand(n ast.Expr, name string, args []ast.Expr, f *frame) ast.Expr {
	_, bare := n.(*ast.Ident)
	for _, m := range e.macros[name] {
		if takes(m, args) {
			if !e.enter(n.At(), name, f) || !e.room(m.Body, n.At()) {
				return n
			}
			return e.body(m, n.At(), args, f)
		}
	}
	if d := e.defines[name]; d != nil && bare {
		if !e.enter(n.At(), name, f) || !e.room(d.Value, n.At()) {
			return n
		}
		// A statement holds the value, so that it can be replaced as a whole.
		holder := &ast.ExprStmt{Span: n.At(), X: ast.Clone(d.Value)}
		e.rewrite(holder, &frame{outer: f, name: name})
		return holder.X
	}
	if candidates := e.macros[name]; len(candidates) > 0 && !e.builtin(name) {
		e.mismatch(n, candidates, args)
	}
	return n
}

// enter refuses to expand what is being expanded.
func (e *expander) enter(at source.Span, name string, f *frame) bool {
	chain := []string{name}
	for ; f != nil; f = f.outer {
		if f.name == "" {
			continue
		}
		chain = append(chain, f.name)
		if f.name == name {
			slices.Reverse(chain)
			e.report(at, "", "a macro cannot call itself: %s", strings.Join(chain, " calls "))
			return false
		}
		if len(chain) > maxDepth {
			e.report(at, "", "macros call each other more than %d deep", maxDepth)
			return false
		}
	}
	return true
}

// body is a macro's body with the arguments, which are expanded already, in it.
func (e *expander) body(m *ast.Macro, at source.Span, args []ast.Expr, outer *frame) ast.Expr {
	e.calls++
	f := &frame{
		outer: outer, name: m.Name, call: e.calls,
		vars: map[string]string{}, maps: map[string]string{}, exprs: map[string]ast.Expr{},
	}
	for i, param := range m.Params {
		switch param := param.(type) {
		case *ast.Var:
			f.vars[param.Name] = args[i].(*ast.Var).Name
		case *ast.Map:
			f.maps[param.Name] = args[i].(*ast.Map).Name
		case *ast.Ident:
			f.exprs[param.Name] = args[i]
			switch args[i].(type) {
			case *ast.Var, *ast.Map:
				// As a value: what is passed so is not to be changed.
				f.exprs[param.Name] = &ast.Block{Span: args[i].At(), Value: args[i]}
			}
		}
	}
	b := ast.Clone(m.Body)
	e.rewrite(b, f)
	b.Span = at
	return b
}

func (e *expander) mismatch(n ast.Expr, candidates []*ast.Macro, args []ast.Expr) {
	closest, distance := candidates[0], 1<<30
	for _, m := range candidates {
		d := 1000 * max(len(m.Params)-len(args), len(args)-len(m.Params))
		for i := range min(len(args), len(m.Params)) {
			if wants(m.Params[i], args[i]) != "" {
				d++
			}
		}
		if d < distance {
			closest, distance = m, d
		}
	}
	if want := len(closest.Params); want != len(args) {
		line, _ := e.src.Position(closest.Start)
		e.report(n.At(), fmt.Sprintf("it is defined on line %d", line),
			"the macro `%s` is given %d arguments and takes %d", closest.Name, len(args), want)
		return
	}
	for i, param := range closest.Params {
		if want := wants(param, args[i]); want != "" {
			e.report(args[i].At(), fmt.Sprintf("its parameter is `%s`", ast.Text(param)),
				"the macro `%s` takes %s here", closest.Name, want)
		}
	}
}

// typ is a type with a macro's parameters in it: one for a type, by which name it
// goes, or in sizeof and its like one for an expression.
func (e *expander) typ(t *ast.Type, f *frame) *ast.Type {
	switch t.Kind {
	case ast.NamedType, ast.StructType, ast.UnionType, ast.EnumType:
	default:
		return t
	}
	arg, ok := f.exprs[t.Name]
	if !ok {
		return t
	}
	if t.Kind != ast.NamedType {
		switch x := arg.(type) {
		case *ast.Ident:
			t.Name = x.Name
			return t
		case *ast.TypeArg:
			if x.Type.Kind == ast.NamedType {
				t.Name = x.Type.Name
				return t
			}
		}
		e.report(arg.At(), "pass its name", "this is no name of a %s", t.Kind)
		return t
	}
	switch x := arg.(type) {
	case *ast.TypeArg:
		if !e.room(x.Type, t.Span) {
			return t
		}
		return ast.Clone(x.Type)
	case *ast.Ident:
		t.Name = x.Name
		return t
	}
	return &ast.Type{Span: t.Span, Kind: ast.TypeofType, X: e.copy(arg, t.Span)}
}

// offsetof puts in a parameter that stands for the field, or for the path to one.
func (e *expander) offsetof(x *ast.Offsetof, f *frame) {
	if len(x.Fields) != 1 {
		return
	}
	arg, ok := f.exprs[x.Fields[0]]
	if !ok {
		return
	}
	var names []string
	for {
		switch a := arg.(type) {
		case *ast.Field:
			names = append(names, a.Name)
			arg = a.X
			continue
		case *ast.Ident:
			names = append(names, a.Name)
			slices.Reverse(names)
			x.Fields = names
		default:
			e.report(arg.At(), "write a or a.b", "this is no name of a field")
		}
		return
	}
}

// leftovers reports types that were passed where no macro took them.
func (e *expander) leftovers(p *ast.Program) {
	check := func(n ast.Node) bool {
		if call, ok := n.(*ast.Call); ok && call.Name == "container_of" {
			return false // which takes one
		}
		if t, ok := n.(*ast.TypeArg); ok {
			e.report(t.Span, "", "a type can only be passed to a macro that uses it as one")
		}
		return true
	}
	for _, f := range p.Funcs {
		ast.Inspect(f, check)
	}
	for _, probe := range p.Probes {
		ast.Inspect(probe, check)
	}
}
