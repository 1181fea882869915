package check

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
)

// ident is a bare name: a builtin value or a constant.
func (c *checker) ident(x *ast.Ident) *operand {
	if k, ok := c.consts[x.Name]; ok {
		o := integerLit(k.value, x)
		if k.enum.Enum != "" {
			t := *o.t.Type
			t.Enum = k.enum
			o.t = &typ{Type: &t}
			o.x = &ir.Const{T: &t, V: k.value}
			o.known = false
		}
		return o
	}
	b := func(t *ir.Type, k ir.BuiltinKind) *operand { return of(t, &ir.Builtin{T: t, Kind: k}, x) }
	inProcess := func() bool {
		if c.h.site == nil {
			c.errorf(x, "", "%s is that of a process that hits a probe: there is none here", x.Name)
			return false
		}
		return true
	}
	switch x.Name {
	case "pid":
		return b(ir.U32, ir.Pid)
	case "tid":
		return b(ir.U32, ir.Tid)
	case "uid":
		return b(ir.U32, ir.UID)
	case "gid":
		return b(ir.U32, ir.GID)
	case "cpu":
		return b(ir.U32, ir.CPU)
	case "rand":
		return b(ir.U32, ir.Rand)
	case "cgroup":
		return b(ir.U64, ir.Cgroup)
	case "ncpus":
		return integerLit(uint64(max(c.o.CPUs, 1)), x)
	case "comm":
		return b(ir.TextType(16), ir.Comm)
	case "nsecs":
		return b(ir.U64, ir.Now)
	case "elapsed":
		return of(ir.U64, &ir.Binary{T: ir.U64, Op: ir.Sub, X: now, Y: &ir.Const{T: ir.U64, V: c.o.Start}}, x)
	case "cpid":
		if c.o.PID == 0 {
			c.errorf(x, "", "cpid is the process that -c started")
			return nil
		}
		return integerLit(uint64(c.o.PID), x)
	case "usermode":
		return integerLit(1, x)
	case "func":
		if c.h.site == nil {
			c.errorf(x, "", "func is that of a uprobe")
			return nil
		}
		return b(ir.NameType, ir.FuncName)
	case "probe":
		if c.h.site == nil {
			return of(ir.NameType, &ir.Const{T: ir.NameType, V: c.name(pointName(c.h.point))}, x)
		}
		return b(ir.NameType, ir.ProbeName)
	case "probetype":
		return c.strLit(string(c.h.point.Provider), x)
	case "args":
		if c.h.site == nil || c.h.ret {
			c.errorf(x, "", "args are those of a uprobe")
			return nil
		}
		c.errorf(x, "args.NAME is one; print(args) shows them all", "all arguments together are no value")
		return nil
	case "retval":
		if c.h.site == nil || !c.h.ret {
			c.errorf(x, "", "retval is that of a uretprobe")
			return nil
		}
		if c.h.site.Result == nil {
			c.errorf(x, "", "%s returns nothing that is known", c.h.site.Func)
			return nil
		}
		return c.siteValue(Result, c.h.site.Result, "retval", x)
	case "duration":
		if c.h.site == nil || !c.h.ret {
			c.errorf(x, "", "duration is that of a uretprobe")
			return nil
		}
		if c.h.duration == nil {
			c.h.duration = c.temp(ir.U64)
		}
		known := &ir.Binary{T: ir.BoolType, Op: ir.Ne, X: c.h.duration, Y: &ir.Const{T: ir.U64}}
		return of(ir.U64, &ir.Require{C: known, X: c.h.duration}, x)
	case "ustack":
		if !inProcess() {
			return nil
		}
		return c.stack(maxFrames)
	}
	if n, ok := argNumber(x.Name, "arg"); ok {
		if !inProcess() {
			return nil
		}
		if n >= len(argRegisters) {
			c.errorf(x, "sargN are those on the stack", "only %d arguments are in registers", len(argRegisters))
			return nil
		}
		return of(ir.U64, &ir.Register{Reg: argRegisters[n]}, x)
	}
	if n, ok := argNumber(x.Name, "sarg"); ok && inProcess() {
		sp := &ir.Register{Reg: location.RSP}
		return of(ir.U64, &ir.Load{T: ir.U64, Addr: plus(sp, int64(8*(n+1)))}, x)
	}
	switch x.Name {
	case "kstack", "curtask", "jiffies", "numaid", "ppid", "username", "ctx":
		c.errorf(x, "", "%s is not there: ferrotrace looks at user space", x.Name)
	default:
		c.errorf(x, nearest(x.Name, builtinNames), "unknown identifier: %s", x.Name)
	}
	return nil
}

var builtinNames = []string{"pid", "tid", "uid", "gid", "cpu", "rand", "cgroup", "ncpus", "comm", "nsecs", "elapsed", "cpid", "func", "probe", "probetype", "args", "retval", "duration", "ustack"}

// argRegisters are those of the System V psABI, 3.2.3.
var argRegisters = []location.Reg{location.RDI, location.RSI, location.RDX, location.RCX, location.R8, location.R9}

func argNumber(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok || digits == "" {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n >= 0 && n < 256
}

const maxFrames = 127

func (c *checker) stack(n int) *operand {
	t := &ir.Type{Kind: ir.Stack, Size: 8 + 8*n, Count: n}
	return of(t, &ir.Builtin{T: t, Kind: ir.UserStack, N: n}, nil)
}

// pointName is what probe is for what belongs to no site.
func pointName(p *ast.AttachPoint) string {
	if p.Name != "" {
		return p.Name
	}
	return p.Raw
}

// function is one of the language.
type function struct {
	min, max int
	do       func(c *checker, x *ast.Call) *operand
}

var functions map[string]function

func init() {
	functions = map[string]function{
		"printf":      {1, 64, (*checker).printf},
		"errorf":      {1, 64, (*checker).printf},
		"warnf":       {1, 64, (*checker).printf},
		"system":      {1, 64, (*checker).printf},
		"cat":         {1, 64, (*checker).printf},
		"print":       {1, 3, (*checker).print},
		"clear":       {1, 1, (*checker).whole},
		"zero":        {1, 1, (*checker).whole},
		"delete":      {1, 2, (*checker).delete},
		"has_key":     {2, 2, (*checker).hasKey},
		"len":         {1, 1, (*checker).lenOf},
		"exit":        {0, 1, (*checker).exit},
		"time":        {0, 1, (*checker).time},
		"strftime":    {2, 2, (*checker).strftime},
		"join":        {1, 2, (*checker).join},
		"str":         {1, 2, (*checker).str},
		"buf":         {1, 2, (*checker).buf},
		"strlen":      {1, 1, (*checker).strlen},
		"strncmp":     {3, 3, (*checker).strncmp},
		"strcontains": {2, 2, (*checker).strcontains},
		"strstr":      {2, 2, (*checker).strcontains},
		"reg":         {1, 1, (*checker).reg},
		"nsecs":       {0, 1, (*checker).nsecs},
		"ustack":      {0, 2, (*checker).ustack},
		"usym":        {1, 1, (*checker).usym},
		"uaddr":       {1, 1, (*checker).uaddr},
		"signal":      {1, 1, (*checker).signal},
		"is":          {2, 2, (*checker).is},
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
		"pid":   {0, 1, (*checker).named1}, "tid": {0, 1, (*checker).named1},
		"comm": {0, 1, (*checker).named1},
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
	f, ok := functions[x.Name]
	if !ok {
		var names []string
		for n := range functions {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, u := range []string{"kstack", "ksym", "kaddr", "kptr", "skboutput", "override", "path", "percpu_kaddr"} {
			if x.Name == u {
				c.errorf(x, "", "%s() is about the kernel: ferrotrace looks at user space", x.Name)
				return nil
			}
		}
		c.errorf(x, nearest(x.Name, names), "unknown function: %s", x.Name)
		return nil
	}
	if n := len(x.Args); n < f.min || n > f.max {
		want := strconv.Itoa(f.min)
		if f.max != f.min {
			want = fmt.Sprintf("%d to %d", f.min, f.max)
		}
		c.errorf(x, "", "%s() takes %s arguments, and is given %d", x.Name, want, n)
		return nil
	}
	return f.do(c, x)
}

func (c *checker) named1(x *ast.Call) *operand {
	return c.ident(&ast.Ident{Span: x.Span, Name: x.Name})
}

// event adds an event.
func (c *checker) event(e *ir.Event, n ast.Node) int {
	e.Line, e.Col = c.prog.Source.Position(n.At().Start)
	c.out.Script.Events = append(c.out.Script.Events, e)
	return len(c.out.Script.Events) - 1
}

// shownArg is an expression as an argument of an event: a value of the process as it is
// there, whole.
func (c *checker) shownArg(e *ir.Event, x ast.Expr, rust bool) ir.Expr {
	o := c.expr(x)
	if o == nil {
		return nil
	}
	if o.place != nil && (rust || o.place.strict && !simple(o.place.t) && c.whole1(o.place.t)) {
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
	for range 8 {
		if t.Kind != types.Pointer || !reference(t) {
			break
		}
		t = t.Pointer.Target
	}
	if _, _, ok := text(t); ok {
		return true
	}
	return scalarOf(t) != nil && t.Kind != types.Char && t.Kind != types.Enum
}

func (c *checker) whole1(t *types.Type) bool { return t.Size >= 0 }

var printfKinds = map[string]ir.EventKind{"printf": ir.Printf, "errorf": ir.Errorf, "warnf": ir.Warnf, "system": ir.System, "cat": ir.Cat}

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
	for i, a := range x.Args[1:] {
		rust := i < len(verbs) && verbs[i] == '?'
		v := c.shownArg(e, a, rust)
		if v == nil {
			return nil
		}
		args = append(args, v)
	}
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
	v := c.shownArg(e, x.Args[0], true)
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

// What join shows: bpftrace's own bounds.
const (
	maxJoin  = 16
	joinText = 64
)

func (c *checker) str(x *ast.Call) *operand {
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
	if n != nil {
		// Up to n-1 bytes, or to the zero byte: the length bounds the text that is kept.
		if _, ok := n.x.(*ir.Const); !ok {
			r.Len = convert(n, ir.U64)
		}
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

func (c *checker) reg(x *ast.Call) *operand {
	name, ok := c.literal(x.Args[0], "reg()")
	if !ok {
		return nil
	}
	if c.h.site == nil {
		c.errorf(x, "", "registers are those of a process that hits a probe: there is none here")
		return nil
	}
	r, ok := registers[strings.TrimPrefix(name, "r")]
	if !ok {
		r, ok = registers[name]
	}
	if !ok {
		c.errorf(x, "ax, bx, cx, dx, si, di, bp, sp, ip, r8 … r15", "'%s' is not a valid register on this architecture (x86-64)", name)
		return nil
	}
	return of(ir.U64, &ir.Register{Reg: r}, x)
}

var registers = map[string]location.Reg{
	"ax": location.RAX, "bx": location.RBX, "cx": location.RCX, "dx": location.RDX, "si": location.RSI, "di": location.RDI, "bp": location.RBP, "sp": location.RSP, "ip": location.RA,
	"r8": location.R8, "r9": location.R9, "r10": location.R10, "r11": location.R11, "r12": location.R12, "r13": location.R13, "r14": location.R14, "r15": location.R15,
}

func (c *checker) nsecs(x *ast.Call) *operand {
	clock := ir.Monotonic
	if len(x.Args) == 1 {
		id, ok := x.Args[0].(*ast.Ident)
		if !ok {
			c.errorf(x, "monotonic, boot, tai, sw_tai", "nsecs() wants the name of a clock")
			return nil
		}
		switch id.Name {
		case "monotonic":
		case "boot":
			clock = ir.Boot
		case "tai", "sw_tai":
			clock = ir.TAI
		default:
			c.errorf(x, "monotonic, boot, tai, sw_tai", "no clock is called %s", id.Name)
			return nil
		}
	}
	return of(ir.U64, &ir.Builtin{T: ir.U64, Kind: ir.Now, N: int(clock)}, x)
}

func (c *checker) ustack(x *ast.Call) *operand {
	if c.h.site == nil {
		c.errorf(x, "", "a stack is that of a process that hits a probe: there is none here")
		return nil
	}
	n := uint64(maxFrames)
	for _, a := range x.Args {
		if id, ok := a.(*ast.Ident); ok {
			switch id.Name {
			case "bpftrace", "perf", "raw", "build_id":
				continue
			}
		}
		v, ok := c.constant(a)
		if !ok || v == 0 || v > maxFrames {
			c.errorf(a, "", "how many frames: 1 to %d", maxFrames)
			return nil
		}
		n = v
	}
	o := c.stack(int(n))
	o.node = x
	return o
}

func (c *checker) usym(x *ast.Call) *operand {
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	pair := ir.TupleOf(nil, []*ir.Type{ir.U64, ir.U64})
	t := &ir.Type{Kind: ir.Symbol, Size: 16}
	m := &ir.MakeTuple{T: pair, Elems: []ir.Expr{convert(o, ir.U64), &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.Pid}}}}
	return of(t, &ir.Cast{T: t, X: m}, x)
}

func (c *checker) uaddr(x *ast.Call) *operand {
	c.errorf(x, "", "uaddr() is not there yet")
	return nil
}

func (c *checker) signal(x *ast.Call) *operand {
	if !c.o.Unsafe {
		c.errorf(x, "run it with --unsafe", "signal() changes what is traced, which is not safe")
		return nil
	}
	if s, ok := x.Args[0].(*ast.Str); ok {
		n, ok := killSignals[strings.TrimPrefix(strings.ToUpper(s.Value), "SIG")]
		if !ok {
			c.errorf(x, "", "no signal is called %q", s.Value)
			return nil
		}
		c.emit(&ir.Kill{Signal: &ir.Const{T: ir.U64, V: uint64(n)}})
		return nothing(x)
	}
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	c.emit(&ir.Kill{Signal: convert(o, ir.U64)})
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

// aggregate is @m[k] = count() and the like.
func (c *checker) aggregate(t *table, m *ast.Map, x *ast.Call) {
	at := &ir.Type{Kind: aggregates[x.Name]}
	args := map[string][2]int{"count": {0, 0}, "hist": {1, 2}, "lhist": {4, 4}, "tseries": {3, 4}}
	want, ok := args[x.Name]
	if !ok {
		want = [2]int{1, 1}
	}
	if n := len(x.Args); n < want[0] || n > want[1] {
		c.errorf(x, "", "%s() takes %d to %d arguments, and is given %d", x.Name, want[0], want[1], n)
		return
	}
	agg := &ir.Aggregate{Map: t.number}
	if len(x.Args) > 0 {
		o := c.scalar(x.Args[0])
		if o == nil {
			return
		}
		at.Signed = o.t.Signed
		agg.X = convert(o, integer(8, o.t.Signed))
	}
	number := func(i int, lo, hi int64) (int64, bool) {
		v, ok := c.constant(x.Args[i])
		if !ok || int64(v) < lo || int64(v) > hi {
			c.errorf(x.Args[i], "", "%s() wants a number between %d and %d here that is known before the script runs", x.Name, lo, hi)
			return 0, false
		}
		return int64(v), true
	}
	switch at.Kind {
	case ir.Hist:
		if len(x.Args) == 2 {
			b, ok := number(1, 0, 5)
			if !ok {
				return
			}
			at.Bits = int(b)
		}
		at.Signed = true
		agg.X = &ir.Cast{T: ir.I64, X: agg.X}
	case ir.LHist:
		const far = 1 << 53
		from, ok1 := number(1, -far, far)
		to, ok2 := number(2, -far, far)
		step, ok3 := number(3, 1, far)
		if !ok1 || !ok2 || !ok3 {
			return
		}
		if to <= from {
			c.errorf(x, "", "lhist() max must be greater than min (%d, %d)", from, to)
			return
		}
		at.From, at.To, at.Step = from, to, step
		if n := (to - from) / step; n > maxBuckets {
			c.errorf(x, "", "lhist() too many buckets, must be <= %d (would need %d)", maxBuckets, n)
			return
		}
		at.Signed = true
		agg.X = &ir.Cast{T: ir.I64, X: agg.X}
	case ir.Series:
		every, ok1 := number(1, 1, int64(time.Hour)*24)
		n, ok2 := number(2, 1, maxIntervals)
		if !ok1 || !ok2 {
			return
		}
		at.Every, at.Count = time.Duration(every), int(n)
		if len(x.Args) == 4 {
			s, ok := c.literal(x.Args[3], "tseries()")
			if !ok {
				return
			}
			switch k := aggregates[s]; k {
			case ir.Avg, ir.Max, ir.Min, ir.Sum:
				at.Agg = k
			default:
				c.errorf(x.Args[3], "avg, max, min, sum", "tseries() has no %q", s)
				return
			}
		}
	}
	key := c.keyOf(t, m)
	agg.Key = key
	if t.val != nil && !t.val.Kind.Aggregate() {
		c.errorf(m, "", "type mismatch for @%s: it holds %s, and %s() is assigned", t.name, describe(t.val), x.Name)
		return
	}
	if !c.setVal(t, &typ{Type: at}, m) {
		return
	}
	c.emit(agg)
}

// Bounds of histograms and time series.
const (
	maxBuckets   = 1000
	maxIntervals = 1000
)
