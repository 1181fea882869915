package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
)

// function is one of the language.
type function struct {
	min, max int
	do       func(c *checker, x *ast.Call) *operand
}

var functions map[string]function

func init() {
	functions = map[string]function{
		"printf":             {1, 64, (*checker).printf},
		"errorf":             {1, 64, (*checker).printf},
		"warnf":              {1, 64, (*checker).printf},
		"debugf":             {1, 64, (*checker).printf},
		"system":             {1, 64, (*checker).printf},
		"cat":                {1, 64, (*checker).printf},
		"print":              {1, 3, (*checker).print},
		"clear":              {1, 1, (*checker).whole},
		"zero":               {1, 1, (*checker).whole},
		"delete":             {1, 2, (*checker).delete},
		"has_key":            {2, 2, (*checker).hasKey},
		"len":                {1, 1, (*checker).lenOf},
		"exit":               {0, 1, (*checker).exit},
		"time":               {0, 1, (*checker).time},
		"strftime":           {2, 2, (*checker).strftime},
		"join":               {1, 2, (*checker).join},
		"str":                {1, 2, (*checker).str},
		"buf":                {1, 2, (*checker).buf},
		"strlen":             {1, 1, (*checker).strlen},
		"strncmp":            {3, 3, (*checker).strncmp},
		"strcontains":        {2, 2, (*checker).strcontains},
		"strstr":             {2, 2, (*checker).strcontains},
		"reg":                {1, 1, (*checker).reg},
		"nsecs":              {0, 1, (*checker).nsecs},
		"ustack":             {0, 2, (*checker).ustack},
		"usym":               {1, 1, (*checker).usym},
		"uaddr":              {1, 1, (*checker).symbolAddress},
		"signal":             {1, 1, (*checker).signal},
		"signal_thread":      {1, 1, (*checker).signal},
		"macaddr":            {1, 1, (*checker).macaddr},
		"ntop":               {1, 2, (*checker).ntop},
		"pton":               {1, 1, (*checker).pton},
		"strerror":           {1, 1, (*checker).numberName},
		"signal_name":        {1, 1, (*checker).numberName},
		"syscall_name":       {1, 1, (*checker).numberName},
		"cgroupid":           {1, 1, (*checker).cgroupID},
		"cgroup_path":        {1, 2, (*checker).cgroupPath},
		"getopt":             {1, 3, (*checker).getopt},
		"assert":             {2, 2, (*checker).assert},
		"fail":               {1, 64, (*checker).fail},
		"find":               {3, 3, (*checker).find},
		"container_of":       {3, 3, (*checker).containerOf},
		"is_err":             {1, 1, (*checker).isErr},
		"strcap":             {1, 1, (*checker).capacity},
		"uptr":               {1, 1, func(c *checker, x *ast.Call) *operand { return c.expr(x.Args[0]) }},
		"default_str_length": {0, 0, func(c *checker, x *ast.Call) *operand { return integerLit(uint64(c.o.MaxStr), x) }},
		"is":                 {2, 2, (*checker).is},
		"static_assert": {2, 2, func(c *checker, x *ast.Call) *operand {
			if v, ok := c.constant(x.Args[0]); !ok || v == 0 {
				msg := ""
				if s, ok := x.Args[1].(*ast.Str); ok {
					msg = s.Value
				}
				c.errorf(x, "", "%s", msg)
			}
			return nothing(x)
		}},
		"bswap": {1, 1, (*checker).bswap},
		"pid":   {0, 1, (*checker).thisThread}, "tid": {0, 1, (*checker).thisThread},
		"comm": {0, 1, (*checker).thisThread},
	}
	functions["is_literal"] = function{1, 1, (*checker).class}
	for name := range classes {
		functions[name] = function{1, 1, (*checker).class}
	}
}

// Builtin says whether the language itself has a value or function of a name.
func Builtin(name string) bool {
	if _, ok := functions[name]; ok {
		return true
	}
	if _, ok := aggregates[name]; ok {
		return true
	}
	return slices.Contains(builtinNames, name)
}

func nothing(n ast.Node) *operand { return of(ir.VoidType, &ir.Const{T: ir.VoidType}, n) }

func (c *checker) call(x *ast.Call) *operand {
	if _, ok := aggregates[x.Name]; ok {
		c.errorf(x, fmt.Sprintf("@x = %s(…)", x.Name), "%s() is assigned to a map, and nothing else", x.Name)
		return nil
	}
	if f := c.subprogram(x.Name); f != nil {
		return c.inline(f, x)
	}
	f, ok := functions[x.Name]
	if name := strings.TrimPrefix(x.Name, builtinPrefix); !ok && len(x.Args) == 0 && slices.Contains(builtinNames, name) {
		return c.ident(&ast.Ident{Span: x.Span, Name: name})
	}
	if !ok {
		var names []string
		for n := range functions {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, u := range []string{"kstack", "ksym", "kaddr", "kptr", "skboutput", "override", "path", "percpu_kaddr", "socket_cookie", "kfunc_allowed", "kfunc_exist", "unwatch", "pcomm", "leader_comm", "ppid", "curtask", "jiffies"} {
			if x.Name == u {
				c.errorf(x, "", "%s() is about the kernel: ferrotrace looks at user space", x.Name)
				return nil
			}
		}
		switch x.Name {
		case "dw_ustack":
			c.errorf(x, "ustack() goes by frame pointers", "stacks are not unwound by debug info")
			return nil
		case "write_user":
			c.errorf(x, "", "ferrotrace does not write into what it traces")
			return nil
		}
		c.errorf(x, nearest(x.Name, names), "unknown function: %s", x.Name)
		return nil
	}
	if n := len(x.Args); n < f.min || n > f.max {
		want := strconv.Itoa(f.min)
		if f.max != f.min {
			want = fmt.Sprintf("%d to %d", f.min, f.max)
		}
		arguments := "arguments"
		if want == "1" {
			arguments = "argument"
		}
		c.errorf(x, "", "%s() takes %s %s, and is given %d", x.Name, want, arguments, n)
		return nil
	}
	return f.do(c, x)
}

// event adds an event.
func (c *checker) event(e *ir.Event, n ast.Node) int {
	e.Line, e.Col = c.prog.Source.Position(n.At().Start)
	_, e.End = c.prog.Source.Position(n.At().End)
	c.out.Script.Events = append(c.out.Script.Events, e)
	return len(c.out.Script.Events) - 1
}

// shownArg is an expression as an argument of an event: a value of the process as it is
// there, whole, where the verb of the format shows any value.
func (c *checker) shownArg(e *ir.Event, x ast.Expr, verb byte) ir.Expr {
	o := c.expr(x)
	if o == nil {
		return nil
	}
	whole := false
	if o.place != nil {
		switch t := o.place.t; verb {
		case '?':
			whole = o.place.strict || memoryType(t) == nil
		case 's':
			whole = o.place.strict && !simple(t)
		default:
			whole = o.place.strict && !numeric(t)
		}
	}
	if whole {
		e.Args, e.Rust = append(e.Args, &ir.Type{Kind: ir.Value}), append(e.Rust, o.place.t)
		return c.capture(o.place)
	}
	if o = c.value(o, x); o == nil {
		return nil
	}
	if o.t.Kind == ir.Void {
		c.errorf(x, "", "that has no value")
		return nil
	}
	e.Args, e.Rust = append(e.Args, o.t.Type), append(e.Rust, nil)
	return o.x
}

// simple says whether a value of the process is one of the language too.
func simple(t *types.Type) bool {
	t = referred(t)
	if _, _, ok := text(t); ok {
		return true
	}
	return scalarOf(t) != nil && t.Kind != types.Char && t.Kind != types.Enum
}

// numeric says whether a value of the process is a number, or refers to one.
func numeric(t *types.Type) bool { return scalarOf(referred(t)) != nil }

// referred is what references, one to another, lead to.
func referred(t *types.Type) *types.Type {
	for range 8 {
		if t.Kind != types.Pointer || !reference(t) {
			break
		}
		t = t.Pointer.Target
	}
	return t
}

var printfKinds = map[string]ir.EventKind{"printf": ir.Printf, "errorf": ir.Errorf, "warnf": ir.Warnf, "system": ir.System, "cat": ir.Cat, "debugf": ir.Debugf}

func (c *checker) printf(x *ast.Call) *operand {
	if x.Name == "system" && !c.o.Unsafe {
		c.errorf(x, "run it with --unsafe", "system() runs commands, which is not safe")
		return nil
	}
	f := c.expr(x.Args[0])
	if f == nil || f.str == nil {
		c.errorf(x.Args[0], "", "%s() wants a literal format first", x.Name)
		return nil
	}
	e := &ir.Event{Kind: printfKinds[x.Name], Format: *f.str}
	verbs := verbsOf(*f.str)
	var args []ir.Expr
	var marks []int
	for i, a := range x.Args[1:] {
		verb := byte('s')
		if i < len(verbs) {
			verb = verbs[i]
		}
		v := c.shownArg(e, a, verb)
		if v == nil {
			return nil
		}
		args, marks = append(args, v), append(marks, c.mark())
	}
	c.inOrder(args, marks)
	if c.o.Format != nil {
		if err := c.o.Format(e.Format, e.Args); err != nil {
			c.errorf(x, "", "%s: %v", x.Name, err)
			return nil
		}
	}
	c.emit(&ir.Emit{Event: c.event(e, x), Args: args})
	return nothing(x)
}

// verbsOf are the conversions of a format, in order.
func verbsOf(format string) (verbs []byte) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		i++
		for i < len(format) && strings.IndexByte("0123456789-+ #.hlqjzt*'", format[i]) >= 0 {
			i++
		}
		if i < len(format) && format[i] != '%' {
			verbs = append(verbs, format[i])
		}
	}
	return verbs
}

func (c *checker) print(x *ast.Call) *operand {
	switch a := x.Args[0].(type) {
	case *ast.Map:
		t := c.table(a.Name, a)
		if len(a.Keys) == 0 {
			e := &ir.Event{Kind: ir.PrintMap, Map: t.number}
			for i, to := range []*int64{&e.Top, &e.Div} {
				if i+1 < len(x.Args) {
					v, ok := c.constant(x.Args[i+1])
					if !ok || int64(v) < 0 {
						c.errorf(x.Args[i+1], "", "a number is wanted that is known before the script runs")
						return nil
					}
					*to = int64(v)
				}
			}
			c.emit(&ir.Emit{Event: c.event(e, x)})
			return nothing(x)
		}
		if t.val != nil && t.val.Kind.Aggregate() {
			key := c.keyOf(t, a)
			if key == nil {
				return nil
			}
			e := &ir.Event{Kind: ir.PrintKey, Map: t.number, Args: []*ir.Type{key.Type()}, Rust: []*types.Type{nil}}
			for i, to := range []*int64{&e.Top, &e.Div} {
				if i+1 < len(x.Args) {
					v, _ := c.constant(x.Args[i+1])
					*to = int64(v)
				}
			}
			c.emit(&ir.Emit{Event: c.event(e, x), Args: []ir.Expr{key}})
			return nothing(x)
		}
	case *ast.Ident:
		if a.Name == "args" && c.h.site != nil && !c.h.ret {
			return c.printArgs(x)
		}
	}
	if len(x.Args) > 1 {
		c.errorf(x.Args[1], "", "only maps are printed in part")
		return nil
	}
	e := &ir.Event{Kind: ir.Print}
	v := c.shownArg(e, x.Args[0], '?')
	if v == nil {
		return nil
	}
	c.emit(&ir.Emit{Event: c.event(e, x), Args: []ir.Expr{v}})
	return nothing(x)
}

// printArgs shows all arguments; one that can't be had says so.
func (c *checker) printArgs(x *ast.Call) *operand {
	s := c.h.site
	if s.Args == nil && s.NoArgs != "" {
		c.errorf(x, s.NoArgs, "the arguments of %s are not known", s.Func)
		return nil
	}
	e := &ir.Event{Kind: ir.Print, Names: []string{}}
	var args []ir.Expr
	for i, a := range s.Args {
		e.Names = append(e.Names, a.Name)
		if a.Missing != "" || a.Type == nil {
			why := a.Missing
			if why == "" {
				why = "unsupported: unknown type"
			}
			o := c.strLit("<"+why+">", x)
			e.Args, e.Rust = append(e.Args, o.t.Type), append(e.Rust, nil)
			args = append(args, o.x)
			continue
		}
		e.Args, e.Rust = append(e.Args, &ir.Type{Kind: ir.Value}), append(e.Rust, a.Type)
		args = append(args, &ir.Capture{Rust: a.Type, Root: c.root(i)})
	}
	c.emit(&ir.Emit{Event: c.event(e, x), Args: args})
	return nothing(x)
}

// whole is clear(@m) and zero(@m).
func (c *checker) whole(x *ast.Call) *operand {
	m, ok := x.Args[0].(*ast.Map)
	if !ok || len(m.Keys) > 0 {
		c.errorf(x, "", "%s() takes a whole map", x.Name)
		return nil
	}
	kind := ir.ClearMap
	if x.Name == "zero" {
		kind = ir.ZeroMap
	}
	t := c.table(m.Name, m)
	c.emit(&ir.Emit{Event: c.event(&ir.Event{Kind: kind, Map: t.number}, x)})
	return nothing(x)
}

// element is the key that a call's arguments name: f(@m[k]), or f(@m, k).
func (c *checker) elementOf(x *ast.Call) (*table, ir.Expr, bool) {
	m, ok := x.Args[0].(*ast.Map)
	if !ok {
		c.errorf(x.Args[0], "", "%s() takes a map", x.Name)
		return nil, nil, false
	}
	if len(x.Args) == 2 {
		if len(m.Keys) > 0 {
			c.errorf(m, fmt.Sprintf("%s(@%s, key)", x.Name, m.Name), "the key stands behind the map")
			return nil, nil, false
		}
		full := *m
		full.Keys = []ast.Expr{x.Args[1]}
		m = &full
	}
	t := c.table(m.Name, m)
	if len(m.Keys) == 0 {
		if t.key != nil {
			c.errorf(x, fmt.Sprintf("clear(@%s) empties it", m.Name), "%s() wants a key of @%s", x.Name, m.Name)
			return nil, nil, false
		}
		c.setKey(t, nil, m)
		return t, nil, true
	}
	before := len(c.errs)
	key := c.keyOf(t, m)
	return t, key, len(c.errs) == before && key != nil
}

func (c *checker) delete(x *ast.Call) *operand {
	t, key, ok := c.elementOf(x)
	if !ok {
		return nil
	}
	had := c.temp(ir.BoolType)
	c.emit(&ir.SetVar{Slot: had.Slot, X: &ir.HasKey{Map: t.number, Key: key}}, &ir.Delete{Map: t.number, Key: key})
	return of(ir.BoolType, had, x)
}

func (c *checker) hasKey(x *ast.Call) *operand {
	t, key, ok := c.elementOf(x)
	if !ok {
		return nil
	}
	return of(ir.BoolType, &ir.HasKey{Map: t.number, Key: key}, x)
}

func (c *checker) lenOf(x *ast.Call) *operand {
	if m, ok := x.Args[0].(*ast.Map); ok && len(m.Keys) == 0 {
		t := c.table(m.Name, m)
		if t.keyless {
			c.errorf(x, "", "call to len() expects a map with explicit keys (non-scalar map)")
			return nil
		}
		return of(ir.I64, &ir.Cast{T: ir.I64, X: &ir.MapLen{Map: t.number}}, x)
	}
	o := c.expr(x.Args[0])
	if o == nil {
		return nil
	}
	if o.place != nil {
		if q := c.length(c.through(o.place), "len"); q != nil {
			return c.value(&operand{place: q, node: x}, x)
		}
	}
	if o = c.value(o, x.Args[0]); o == nil {
		return nil
	}
	switch o.t.Kind {
	case ir.Stack:
		bytes := &ir.Type{Kind: ir.Array, Elem: ir.U32, Count: 2, Size: o.t.Size}
		return of(ir.I64, &ir.Cast{T: ir.I64, X: &ir.Index{T: ir.U32, X: &ir.Cast{T: bytes, X: o.x}, I: &ir.Const{T: ir.U64, V: 1}}}, x)
	case ir.Array:
		return integerLit(uint64(o.t.Count), x)
	case ir.Text:
		return of(ir.U64, &ir.TextLen{X: o.x}, x)
	}
	c.errorf(x, "", "len() takes a map, a stack or what has elements, and this is %s", describe(o.t))
	return nil
}

func (c *checker) exit(x *ast.Call) *operand {
	e := &ir.Event{Kind: ir.Exit}
	var args []ir.Expr
	if len(x.Args) == 1 {
		o := c.scalar(x.Args[0])
		if o == nil {
			return nil
		}
		e.Args, e.Rust = []*ir.Type{ir.I64}, []*types.Type{nil}
		args = []ir.Expr{convert(o, ir.I64)}
	}
	c.emit(&ir.Emit{Event: c.event(e, x), Args: args}, &ir.Return{})
	return nothing(x)
}

// What join shows: bpftrace's own bounds.
const (
	maxJoin  = 16
	joinText = 64
)

func (c *checker) signal(x *ast.Call) *operand {
	if !c.o.Unsafe {
		c.errorf(x, "run it with --unsafe", "%s() changes what is traced, which is not safe", x.Name)
		return nil
	}
	if s, ok := x.Args[0].(*ast.Str); ok {
		n, ok := killSignals[strings.TrimPrefix(strings.ToUpper(s.Value), "SIG")]
		if !ok {
			c.errorf(x, "", "no signal is called %q", s.Value)
			return nil
		}
		c.emit(&ir.Kill{Signal: &ir.Const{T: ir.U64, V: uint64(n)}, Thread: x.Name == "signal_thread"})
		return nothing(x)
	}
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	c.emit(&ir.Kill{Signal: convert(o, ir.U64), Thread: x.Name == "signal_thread"})
	return nothing(x)
}

var killSignals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20}

// is says which variant a value is: is(v, Err).
func (c *checker) is(x *ast.Call) *operand {
	o := c.expr(x.Args[0])
	if o == nil {
		return nil
	}
	id, ok := x.Args[1].(*ast.Ident)
	if !ok {
		c.errorf(x.Args[1], "is(retval, Err)", "the name of a variant is wanted")
		return nil
	}
	want := id.Name
	if i := strings.LastIndex(want, "::"); i >= 0 {
		want = want[i+2:]
	}
	if o.place == nil {
		c.errorf(x, "", "is() asks which variant a Rust enum is, and this is %s", describe(o.t))
		return nil
	}
	p := c.through(o.place)
	if p.t.Enum == nil {
		c.errorf(x, "", "%s is of type %s, which has no variants", p.named, p.t.Display())
		return nil
	}
	for i, v := range p.t.Enum.Variants {
		if v.Name != want {
			continue
		}
		cond := c.isVariant(p, i)
		if cond == nil {
			cond = &ir.Const{T: ir.BoolType, V: 1}
		}
		return of(ir.BoolType, p.when(cond), x)
	}
	c.errorf(x.Args[1], nearest(want, fieldNames(p.t)), "%s has no variant %q: it has %s", p.t.Display(), want, list(fieldNames(p.t)))
	return nil
}
