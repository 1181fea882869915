package ir

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Dump writes a script for people: what is not the same in every script is there, one line
// for each map, event, timer, variable and statement.
func Dump(w io.Writer, s *Script) error {
	d := &dumper{s: s}
	for i, m := range s.Maps {
		key := "no key"
		if m.Key != nil {
			key = "key " + m.Key.String()
		}
		d.line("map %d %s: %s, value %s, %d entries%s", i, m.Name, key, m.Value, m.Entries, ifAny(" ", m.Declared))
	}
	for i, e := range s.Events {
		d.line("event %d %s%s", i, d.kind(e), d.shape(e))
	}
	for _, t := range s.Timers {
		d.line("timer %s: handler %d", t, t.Handler)
	}
	for i, h := range s.Handlers {
		d.line("handler %d %s", i, h.Name)
		d.depth++
		for n, r := range h.Roots {
			d.line("root%d: %s", n, r.Display())
		}
		for n, t := range h.Vars {
			d.line("$%d: %s", n, t)
		}
		d.stmts(h.Body)
		d.depth--
	}
	_, err := io.WriteString(w, d.b.String())
	return err
}

func ifAny(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

type dumper struct {
	s     *Script
	b     strings.Builder
	depth int
}

func (d *dumper) line(format string, a ...any) {
	d.b.WriteString(strings.Repeat("  ", d.depth))
	fmt.Fprintf(&d.b, format, a...)
	d.b.WriteByte('\n')
}

// String is when the timer's handler runs.
func (t Timer) String() string {
	switch t.Kind {
	case Interval, Profile:
		return fmt.Sprintf("%s %v", timerNames[t.Kind], t.Every)
	case Signal:
		return fmt.Sprintf("signal %d", t.Signal)
	}
	return timerNames[t.Kind]
}

var timerNames = [...]string{Begin: "begin", End: "end", Interval: "interval", Signal: "signal", Profile: "profile"}

var eventNames = [...]string{
	Printf: "printf", Errorf: "errorf", Warnf: "warnf", Print: "print", PrintMap: "print", PrintKey: "print", ClearMap: "clear",
	ZeroMap: "zero", Exit: "exit", Join: "join", Time: "time", System: "system", Cat: "cat",
}

func (d *dumper) kind(e *Event) string { return nameOf(eventNames[:], int(e.Kind), "event") }

func nameOf(names []string, i int, what string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, i)
}

// shape is what an event has beside its kind.
func (d *dumper) shape(e *Event) string {
	var parts []string
	switch e.Kind {
	case PrintMap, PrintKey, ClearMap, ZeroMap:
		parts = append(parts, d.mapName(e.Map))
	}
	if e.Format != "" {
		parts = append(parts, strconv.Quote(e.Format))
	}
	for i, t := range e.Args {
		name := ""
		if i < len(e.Names) {
			name = e.Names[i] + ": "
		}
		if t.Kind == Value && i < len(e.Rust) && e.Rust[i] != nil {
			parts = append(parts, name+e.Rust[i].Display())
			continue
		}
		parts = append(parts, name+t.String())
	}
	if e.Top != 0 || e.Div != 0 {
		parts = append(parts, fmt.Sprintf("top %d, div %d", e.Top, e.Div))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func (d *dumper) mapName(i int) string {
	if i >= 0 && i < len(d.s.Maps) {
		return d.s.Maps[i].Name
	}
	return fmt.Sprintf("@?%d", i)
}

func (d *dumper) elem(m int, key Expr) string {
	if key == nil {
		return d.mapName(m)
	}
	return d.mapName(m) + "[" + d.expr(key) + "]"
}

func (d *dumper) stmts(all []Stmt) {
	for _, s := range all {
		d.stmt(s)
	}
}

// block writes a statement's head, and its body indented.
func (d *dumper) block(body []Stmt, format string, a ...any) {
	d.line(format, a...)
	d.depth++
	d.stmts(body)
	d.depth--
}

func (d *dumper) stmt(s Stmt) {
	switch s := s.(type) {
	case *SetVar:
		d.line("$%d = %s", s.Slot, d.expr(s.X))
	case *SetMap:
		d.line("%s = %s", d.elem(s.Map, s.Key), d.expr(s.X))
	case *AddMap:
		d.line("%s += %s", d.elem(s.Map, s.Key), d.expr(s.X))
	case *Aggregate:
		x := ""
		if s.X != nil {
			x = " " + d.expr(s.X)
		}
		if s.N != nil {
			x += " × " + d.expr(s.N)
		}
		d.line("%s ←%s", d.elem(s.Map, s.Key), x)
	case *Delete:
		d.line("delete %s", d.elem(s.Map, s.Key))
	case *If:
		d.block(s.Then, "if %s", d.expr(s.Cond))
		if len(s.Else) > 0 {
			d.block(s.Else, "else")
		}
	case *While:
		cond := "true"
		if s.Cond != nil {
			cond = d.expr(s.Cond)
		}
		d.block(s.Body, "while %s", cond)
	case *ForRange:
		d.block(s.Body, "for $%d in %s..%s", s.Slot, d.expr(s.From), d.expr(s.To))
	case *ForMap:
		d.block(s.Body, "for $%d in %s", s.Slot, d.mapName(s.Map))
	case *Break:
		d.line("break")
	case *Continue:
		d.line("continue")
	case *Return:
		d.line("return")
	case *Emit:
		d.line("emit %d(%s)", s.Event, d.list(s.Args))
	case *Eval:
		d.line("%s", d.expr(s.X))
	case *Kill:
		d.line("kill %s", d.expr(s.Signal))
	default:
		d.line("%T", s)
	}
}

func (d *dumper) list(all []Expr) string {
	parts := make([]string, len(all))
	for i, x := range all {
		parts[i] = d.expr(x)
	}
	return strings.Join(parts, ", ")
}

var builtinNames = [...]string{
	Pid: "pid", Tid: "tid", UID: "uid", GID: "gid", Comm: "comm", Now: "nsecs", CPU: "cpu", Rand: "rand", FuncName: "func",
	ProbeName: "probe", IP: "ip", CFA: "cfa", UserStack: "ustack", Cgroup: "cgroup",
}

var (
	unaryNames  = [...]string{Neg: "-", Not: "!", Inv: "~"}
	binaryNames = [...]string{
		Add: "+", Sub: "-", Mul: "*", Div: "/", Mod: "%", And: "&", Or: "|", Xor: "^", Shl: "<<", Shr: ">>", Eq: "==", Ne: "!=",
		Lt: "<", Le: "<=", Gt: ">", Ge: ">=", LAnd: "&&", LOr: "||",
	}
)

// expr is an expression in one line; types stand where they decide what is done.
func (d *dumper) expr(x Expr) string {
	switch x := x.(type) {
	case nil:
		return "nothing"
	case *Const:
		switch {
		case x.T.Kind == Name && x.V < uint64(len(d.s.Names)):
			return strconv.Quote(d.s.Names[x.V])
		case x.T.Kind == Bool:
			return strconv.FormatBool(x.V != 0)
		case x.T.Signed:
			return strconv.FormatInt(int64(x.V), 10)
		}
		return strconv.FormatUint(x.V, 10)
	case *String:
		return strconv.Quote(x.S)
	case *Var:
		return fmt.Sprintf("$%d", x.Slot)
	case *Unary:
		return nameOf(unaryNames[:], int(x.Op), "unary") + d.expr(x.X)
	case *Binary:
		return fmt.Sprintf("(%s %s %s)", d.expr(x.X), nameOf(binaryNames[:], int(x.Op), "binary"), d.expr(x.Y))
	case *Cond:
		return fmt.Sprintf("(%s ? %s : %s)", d.expr(x.C), d.expr(x.X), d.expr(x.Y))
	case *Cast:
		return fmt.Sprintf("(%s)%s", x.T, d.expr(x.X))
	case *MapGet:
		return d.elem(x.Map, x.Key)
	case *HasKey:
		return "has_key(" + d.elem(x.Map, x.Key) + ")"
	case *MapLen:
		return "len(" + d.mapName(x.Map) + ")"
	case *MakeTuple:
		if x.T.Kind == Array {
			return "[" + d.list(x.Elems) + "]"
		}
		return "(" + d.list(x.Elems) + ")"
	case *Part:
		return fmt.Sprintf("%s.%d", d.expr(x.X), x.I)
	case *Index:
		return fmt.Sprintf("%s[%s]", d.expr(x.X), d.expr(x.I))
	case *Root:
		return fmt.Sprintf("root%d+%d:%s", x.Root, x.Off, x.T)
	case *Load:
		return fmt.Sprintf("%s(%s):%s", d.read("load", x.Strict), d.expr(x.Addr), x.T)
	case *ReadText:
		if x.Len == nil {
			return fmt.Sprintf("%s(%s):%s", d.read("text", x.Strict), d.expr(x.Addr), x.T)
		}
		return fmt.Sprintf("%s(%s, %s):%s", d.read("text", x.Strict), d.expr(x.Addr), d.expr(x.Len), x.T)
	case *ReadBytes:
		return fmt.Sprintf("%s(%s, %s):%s", d.read("bytes", x.Strict), d.expr(x.Addr), d.expr(x.Len), x.T)
	case *BytesOf:
		return fmt.Sprintf("bytes_of(%s, %s):%s", d.expr(x.X), d.expr(x.Len), x.T)
	case *Require:
		return fmt.Sprintf("require(%s, %s)", d.expr(x.C), d.expr(x.X))
	case *Capture:
		if x.Addr != nil {
			return fmt.Sprintf("capture(%s):%s", d.expr(x.Addr), x.Rust.Display())
		}
		return fmt.Sprintf("capture(root%d+%d):%s", x.Root, x.Off, x.Rust.Display())
	case *Register:
		return "reg(" + x.Reg.String() + ")"
	case *Builtin:
		name := nameOf(builtinNames[:], int(x.Kind), "builtin")
		if x.N != 0 {
			name += fmt.Sprintf("(%d)", x.N)
		}
		return name
	case *TextLen:
		return "strlen(" + d.expr(x.X) + ")"
	case *TextCmp:
		return fmt.Sprintf("strncmp(%s, %s, %d)", d.expr(x.X), d.expr(x.Y), x.N)
	case *TextHas:
		return fmt.Sprintf("strcontains(%s, %s)", d.expr(x.X), d.expr(x.Y))
	case *Block:
		inner := &dumper{s: d.s}
		inner.stmts(x.Body)
		body := strings.Join(strings.Split(strings.TrimSpace(inner.b.String()), "\n"), "; ")
		return fmt.Sprintf("{ %s; %s }", body, d.expr(x.X))
	}
	return fmt.Sprintf("%T", x)
}

// read is a way of reading memory; one that ends the handler if it can't has a mark.
func (d *dumper) read(name string, strict bool) string {
	if strict {
		return name + "!"
	}
	return name
}
