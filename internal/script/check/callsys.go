package check

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
)

// cgroupID is cgroupid(PATH).
func (c *checker) cgroupID(x *ast.Call) *operand {
	path, ok := c.literal(x.Args[0], "cgroupid()")
	if !ok {
		return nil
	}
	if c.o.CgroupID == nil {
		c.errorf(x, "", "cgroups are not known here")
		return nil
	}
	id, err := c.o.CgroupID(path)
	if err != nil {
		c.errorf(x.Args[0], "", "%v", err)
		return nil
	}
	return of(ir.U64, &ir.Const{T: ir.U64, V: id}, x)
}

func (c *checker) cgroupPath(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	filter, ok := "", true
	if len(x.Args) == 2 {
		filter, ok = c.literal(x.Args[1], "cgroup_path()")
	}
	if o == nil || !ok {
		return nil
	}
	t := &ir.Type{Kind: ir.CgroupPath, Size: 8, Format: filter}
	return of(t, &ir.Cast{T: t, X: convert(o, ir.U64)}, x)
}

// thisThread is pid, tid or comm, of the thread that hit the probe and as the tracer sees it.
func (c *checker) thisThread(x *ast.Call) *operand {
	if len(x.Args) == 1 {
		id, ok := x.Args[0].(*ast.Ident)
		switch {
		case x.Name == "comm":
			c.errorf(x, "comm is that of the thread that hits the probe", "the name of another process is not to be had where a probe is hit")
			return nil
		case ok && id.Name == "curr_ns":
		default:
			c.errorf(x.Args[0], x.Name+"(curr_ns)", "%s is that of the namespace that ferrotrace runs in", x.Name)
			return nil
		}
	}
	return c.ident(&ast.Ident{Span: x.Span, Name: x.Name})
}

// getopt is an option that the script is given: --NAME=VALUE behind --.
func (c *checker) getopt(x *ast.Call) *operand {
	name, ok := c.literal(x.Args[0], "getopt()")
	if !ok {
		return nil
	}
	about := ""
	if len(x.Args) == 3 {
		if about, ok = c.literal(x.Args[2], "getopt()"); !ok {
			return nil
		}
	}
	if !slices.ContainsFunc(c.out.Wanted, func(o Option) bool { return o.Name == name }) {
		c.out.Wanted = append(c.out.Wanted, Option{name, about})
	}
	given, isGiven := c.o.Named[name]
	wrong := func(kind string) *operand {
		c.errorf(x, "", "program command line option --%s invalid %s (value: %s)", name, kind, given)
		return nil
	}
	boolean := func(v bool) *operand {
		return of(ir.BoolType, &ir.Const{T: ir.BoolType, V: truth(v)}, x)
	}
	parse := func(def bool) *operand {
		if !isGiven {
			return boolean(def)
		}
		switch strings.ToLower(given) {
		case "", "1", "true":
			return boolean(true)
		case "0", "false":
			return boolean(false)
		}
		return wrong("boolean")
	}
	if len(x.Args) == 1 {
		return parse(false)
	}
	if b, ok := x.Args[1].(*ast.Bool); ok {
		return parse(b.Value)
	}
	o := c.expr(x.Args[1])
	if o == nil {
		return nil
	}
	switch k, isConst := o.x.(*ir.Const); {
	case o.str != nil:
		if isGiven {
			return c.strLit(given, x)
		}
		return c.strLit(*o.str, x)
	case isConst && k.T.Kind == ir.Bool:
		return parse(k.V != 0)
	case isConst && k.T.Kind == ir.Int:
		if !isGiven {
			return integerLit(k.V, x).as(k.T)
		}
		if n, err := strconv.ParseInt(given, 0, 64); err == nil {
			return integerLit(uint64(n), x).as(ir.I64)
		}
		n, err := strconv.ParseUint(given, 0, 64)
		if err != nil {
			return wrong("integer")
		}
		return integerLit(n, x)
	}
	c.errorf(x.Args[1], "", "getopt() wants a bool, an integer or a string that is known before the script runs")
	return nil
}

// as is a constant with the sign that a type gives it.
func (o *operand) as(t *ir.Type) *operand {
	o.t = &typ{Type: integer(8, t.Signed)}
	o.x = &ir.Const{T: o.t.Type, V: o.x.(*ir.Const).V}
	return o
}

// settingsRecord is config: what the config block has set, by name.
func (c *checker) settingsRecord(x ast.Node) *operand {
	names := []string{"max_strlen", "max_map_keys", "print_maps_on_exit", "missing_probes", "stack_mode", "cpp_demangle", "unsafe"}
	boolean := func(v bool) ir.Expr { return &ir.Const{T: ir.BoolType, V: truth(v)} }
	elems := []ir.Expr{
		&ir.Const{T: ir.U64, V: uint64(c.o.MaxStr)}, &ir.Const{T: ir.U64, V: uint64(c.config.MaxMapKeys)}, boolean(c.config.PrintMapsOnExit),
		c.strLit(c.config.Missing, x).x, c.strLit(cmp.Or(c.config.StackMode, "bpftrace"), x).x, boolean(true), boolean(c.o.Unsafe),
	}
	var ts []*ir.Type
	for _, e := range elems {
		ts = append(ts, e.Type())
	}
	m := &ir.MakeTuple{T: ir.TupleOf(names, ts), Elems: elems}
	return of(m.T, m, x)
}

// childMap is hidden: it has the process that a command was started as, which is not before
// the script is compiled.
const childMap = "$child"

// child is cpid: 0, with a warning, where no command was started.
func (c *checker) child(x ast.Node) *operand {
	if !c.o.Child {
		c.warnf(x, "has_cpid says whether there is one", "no command was started (-c): cpid is 0")
		return of(ir.U32, &ir.Const{T: ir.U32}, x)
	}
	t := c.table(childMap, x)
	t.val, t.keyless = &typ{Type: ir.U64}, true
	c.out.Child = t.number
	return of(ir.U32, &ir.Cast{T: ir.U32, X: &ir.MapGet{T: ir.U64, Map: t.number}}, x)
}

// assert has the script say a message, and end with the status 1, where a condition does not hold.
func (c *checker) assert(x *ast.Call) *operand {
	cond := c.condition(x.Args[0])
	then := c.collect(func() {
		c.printf(&ast.Call{Span: x.Span, Name: "errorf", Args: []ast.Expr{&ast.Str{Span: x.Span, Value: "assert failed: %s"}, x.Args[1]}})
		c.exit(&ast.Call{Span: x.Span, Name: "exit", Args: []ast.Expr{&ast.Int{Span: x.Span, Value: 1}}})
	})
	c.emit(&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: cond}, Then: then})
	return nothing(x)
}

// fail is an error of the script's own: it stands where it must not be come to.
func (c *checker) fail(x *ast.Call) *operand {
	format, ok := c.literal(x.Args[0], "fail()")
	if !ok {
		return nil
	}
	var args []any
	for i, v := range verbsOf(format) {
		if i+1 >= len(x.Args) {
			break
		}
		o := c.expr(x.Args[i+1])
		if o == nil {
			return nil
		}
		k, isConst := o.x.(*ir.Const)
		switch {
		case o.str != nil:
			args = append(args, *o.str)
		case isConst && v == 's':
			args = append(args, strconv.FormatInt(int64(k.V), 10))
		case isConst:
			args = append(args, int64(k.V))
		default:
			c.errorf(x.Args[i+1], "", "fail() wants values that are known before the script runs")
			return nil
		}
	}
	// Go's conversions are C's without lengths.
	format = strings.NewReplacer("%ll", "%", "%l", "%", "%h", "%", "%j", "%", "%z", "%", "%u", "%d", "%i", "%d").Replace(format)
	c.errorf(x, "", "%s", fmt.Sprintf(format, args...))
	return nil
}

// classes are questions about the type of an expression, which is not evaluated.
var classes = map[string]func(c *checker, o *operand) bool{
	"is_str":     func(c *checker, o *operand) bool { return o.t.Kind == ir.Text || o.t.Kind == ir.Name },
	"is_ptr":     func(c *checker, o *operand) bool { return o.t.Kind == ir.Pointer },
	"is_array":   func(c *checker, o *operand) bool { return o.t.Kind == ir.Array },
	"is_integer": func(c *checker, o *operand) bool { return o.t.Kind == ir.Int },
	"is_unsigned_integer": func(c *checker, o *operand) bool {
		return o.t.Kind == ir.Int && !o.t.Signed
	},
}

// class answers such a question.
func (c *checker) class(x *ast.Call) *operand {
	yes := false
	if x.Name == "is_literal" {
		switch x.Args[0].(type) {
		case *ast.Int, *ast.Str, *ast.Bool, *ast.Char:
			yes = true
		}
	} else {
		var o *operand
		c.collect(func() {
			if o = c.expr(x.Args[0]); o != nil && o.place != nil && o.place.t.Kind != types.Array {
				o = c.value(o, x.Args[0])
			}
		})
		switch {
		case o == nil:
			return nil
		case o.place != nil:
			yes = x.Name == "is_array"
		case o.table == nil:
			yes = classes[x.Name](c, o)
		}
	}
	return of(ir.BoolType, &ir.Const{T: ir.BoolType, V: truth(yes)}, x)
}

// find is whether a map has a key; the variable becomes its value then.
func (c *checker) find(x *ast.Call) *operand {
	v, ok := x.Args[2].(*ast.Var)
	if !ok {
		c.errorf(x.Args[2], "find(@m, key, $value)", "find() wants a variable for the value")
		return nil
	}
	t, key, ok := c.elementOf(&ast.Call{Span: x.Span, Name: x.Name, Args: x.Args[:2]})
	if !ok || t.val == nil {
		return nil
	}
	k := c.temp(t.key.Type)
	had := c.temp(ir.BoolType)
	c.emit(&ir.SetVar{Slot: k.Slot, X: key}, &ir.SetVar{Slot: had.Slot, X: &ir.HasKey{Map: t.number, Key: k}})
	val := t.val
	if val.Kind.Aggregate() {
		n := c.number(val.Type)
		if n == nil {
			c.errorf(x.Args[0], "print it", "%s() stands for no value", describe(val))
			return nil
		}
		val = &typ{Type: n}
	}
	target := c.lookup(v.Name)
	if target == nil {
		target = c.declareVar(v.Name, x, val)
	} else {
		learnt := c.learn(varKey{c.h.key, target.decl}, val, x, shown(v.Name))
		if learnt == nil {
			return nil
		}
		target.t = learnt
		c.h.h.Vars[target.slot] = learnt.Type
	}
	got := &operand{t: val, x: &ir.MapGet{T: val.Type, Map: t.number, Key: k}}
	if !c.mixes(target.t, got) {
		return nil
	}
	c.emit(&ir.If{Cond: had, Then: []ir.Stmt{&ir.SetVar{Slot: target.slot, X: convert(got, target.t.Type)}}})
	return of(ir.BoolType, had, x)
}

// containerOf is the address of a struct, of which the address of a member is known.
func (c *checker) containerOf(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	ta, ok := x.Args[1].(*ast.TypeArg)
	if !ok {
		c.errorf(x.Args[1], "container_of($p, typeof(struct foo), member)", "container_of() wants a type here")
		return nil
	}
	member, ok := x.Args[2].(*ast.Ident)
	if !ok {
		c.errorf(x.Args[2], "", "container_of() wants the name of a member here")
		return nil
	}
	off := c.offsetOf(&ast.Offsetof{Span: x.Span, Type: ta.Type, Fields: []string{member.Name}})
	to := c.pointee(ta.Type)
	if o == nil || off == nil || to == nil {
		return nil
	}
	t := &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, to: to}
	at := &ir.Binary{T: ir.U64, Op: ir.Sub, X: convert(o, ir.U64), Y: off.x}
	return &operand{t: t, x: &ir.Cast{T: t.Type, X: at}, node: x}
}

// isErr says whether an address is one of the kernel's error numbers.
func (c *checker) isErr(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	const maxErrno = 4095
	least := -int64(maxErrno)
	return of(ir.BoolType, &ir.Binary{T: ir.BoolType, Op: ir.Ge, X: convert(o, ir.U64), Y: &ir.Const{T: ir.U64, V: uint64(least)}}, x)
}

// capacity is how many bytes a string can have.
func (c *checker) capacity(x *ast.Call) *operand {
	o := c.value(c.expr(x.Args[0]), x.Args[0])
	switch {
	case o == nil:
		return nil
	case o.t.Kind == ir.Text:
		return integerLit(uint64(o.t.Size), x)
	case o.t.Kind == ir.Array:
		return integerLit(uint64(o.t.Count), x)
	}
	c.errorf(x.Args[0], "", "strcap() wants a string, and this is %s", describe(o.t))
	return nil
}

// address is uaddr(SYMBOL): where a symbol of the probe's file is.
func (c *checker) symbolAddress(x *ast.Call) *operand {
	name, ok := c.literal(x.Args[0], "uaddr()")
	if !ok {
		return nil
	}
	if c.h.site == nil {
		c.errorf(x, "", "uaddr() is about the file that a probe is in: there is none here")
		return nil
	}
	addr, size, ok := c.syms.Symbol(c.h.site, name)
	if !ok {
		c.errorf(x.Args[0], "", "could not resolve symbol: %s", name)
		return nil
	}
	elem := ir.U64
	switch size {
	case 1, 2, 4:
		elem = integer(int(size), false)
	}
	t := &typ{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, to: basic(name8(elem), elem)}
	at := plus(&ir.Builtin{T: ir.U64, Kind: ir.Bias}, int64(addr))
	return &operand{t: t, x: &ir.Cast{T: t.Type, X: at}, node: x}
}

func name8(t *ir.Type) string { return fmt.Sprintf("uint%d", 8*t.Size) }
