package codegen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// An ir program in the making: what handlers say is words and texts.
type scripting struct {
	ir.Script
	h ir.Handler
}

func (s *scripting) add(body ...ir.Stmt) { s.h.Body = append(s.h.Body, body...) }

func (s *scripting) local(t *ir.Type) *ir.Var {
	s.h.Vars = append(s.h.Vars, t)
	return &ir.Var{T: t, Slot: len(s.h.Vars) - 1}
}

func (s *scripting) table(key, value *ir.Type) int {
	s.Maps = append(s.Maps, &ir.Map{Name: "m", Key: key, Value: value, Entries: 64})
	return len(s.Maps) - 1
}

// say emits expressions.
func (s *scripting) say(xs ...ir.Expr) ir.Stmt {
	e := &ir.Event{Kind: ir.Print}
	for _, x := range xs {
		e.Args = append(e.Args, x.Type())
		var rt *types.Type
		if c, ok := x.(*ir.Capture); ok {
			rt = c.Rust
		}
		e.Rust = append(e.Rust, rt)
	}
	s.Events = append(s.Events, e)
	return &ir.Emit{Event: len(s.Events) - 1, Args: xs}
}

func set(v *ir.Var, x ir.Expr) ir.Stmt         { return &ir.SetVar{Slot: v.Slot, X: x} }
func word(t *ir.Type, v int64) ir.Expr         { return &ir.Const{T: t, V: uint64(v)} }
func num64(v int64) ir.Expr                    { return word(ir.I64, v) }
func str(s string) ir.Expr                     { return &ir.String{T: ir.TextType(len(s) + 1), S: s} }
func bin(op ir.BinaryOp, x, y ir.Expr) ir.Expr { return &ir.Binary{T: x.Type(), Op: op, X: x, Y: y} }
func test(op ir.BinaryOp, x, y ir.Expr) ir.Expr {
	return &ir.Binary{T: ir.BoolType, Op: op, X: x, Y: y}
}
func cast(t *ir.Type, x ir.Expr) ir.Expr              { return &ir.Cast{T: t, X: x} }
func un(op ir.UnaryOp, t *ir.Type, x ir.Expr) ir.Expr { return &ir.Unary{T: t, Op: op, X: x} }

// heard decodes records of events: numbers by their type, texts quoted.
func heard(t *testing.T, c *Compiled, s *ir.Script, raw [][]byte) string {
	t.Helper()
	var b strings.Builder
	for _, r := range raw {
		rec, err := c.Schema.Decode(r)
		if err != nil {
			t.Fatalf("%v: %x", err, r)
		}
		if rec.Item != record.ScriptItem || rec.Time == 0 || int(rec.TID) == 0 {
			t.Errorf("header %+v", rec.Header)
		}
		em := c.Events[rec.Cookie]
		ev := s.Events[em.Event]
		rust := 0
		for i, at := range ev.Args {
			if i > 0 {
				b.WriteString(" ")
			}
			if em.Offs[i] < 0 {
				v := rec.Values[rust]
				rust++
				fmt.Fprint(&b, v.Text, v.Missing)
				continue
			}
			b.WriteString(shown(at, r[record.HeaderSize+em.Offs[i]:]))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func shown(t *ir.Type, b []byte) string {
	switch {
	case t.Scalar():
		v := binary.LittleEndian.Uint64(append(bytes.Clone(b[:t.Size]), make([]byte, 8)...))
		if n := 64 - 8*t.Size; t.Signed {
			return fmt.Sprint(int64(v<<n) >> n)
		}
		return fmt.Sprint(v)
	case t.Kind == ir.Text:
		return fmt.Sprintf("%q", bytes.TrimRight(b[:t.Size], "\x00"))
	case t.Kind == ir.Bytes:
		return fmt.Sprintf("%x", b[4:4+binary.LittleEndian.Uint32(b)])
	case t.Kind == ir.Tuple:
		var parts []string
		for _, f := range t.Fields {
			parts = append(parts, shown(f.Type, b[f.Off:]))
		}
		return "(" + strings.Join(parts, " ") + ")"
	case t.Kind == ir.Array:
		var parts []string
		for i := range t.Count {
			parts = append(parts, shown(t.Elem, b[i*t.Elem.Size:]))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return "?"
}

// raw is what is in the ring.
func (l *loaded) raw(t *testing.T) (all [][]byte) {
	t.Helper()
	rd, err := ringbuf.NewReader(l.coll.Maps[runtime.MapEvents])
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rd.SetDeadline(time.Now())
	for {
		raw, err := rd.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw.RawSample)
	}
}

func sizeFrames(spec *ebpf.CollectionSpec, cpus int) {
	for _, name := range []string{runtime.MapScratch, runtime.MapFrames} {
		if m := spec.Maps[name]; m != nil {
			m.MaxEntries = uint32(runtime.SlotsPerCPU * cpus)
		}
	}
}

// everywhere runs a script's timers by the kernel, the JIT and the interpreter.
func everywhere(t *testing.T, s *ir.Script) map[string]string {
	t.Helper()
	p := &program.Program{Script: s, Limits: program.DefaultLimits}
	out := map[string]string{}
	if os.Geteuid() == 0 {
		o := kernelOptions(t)
		o.CPUs = ebpf.MustPossibleCPU()
		l := load(t, p, o, func(spec *ebpf.CollectionSpec) { sizeFrames(spec, ebpf.MustPossibleCPU()) })
		for _, name := range l.Timers {
			if _, err := l.coll.Programs[name].Run(&ebpf.RunOptions{Context: make([]byte, 96)}); err != nil {
				t.Fatal(err)
			}
		}
		out["kernel"] = heard(t, l.Compiled, s, l.raw(t))
	}
	o := byReserve
	o.CPUs = userCPUs
	u := loadUser(t, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
	r := newRegisters(0)
	for i, name := range u.Timers {
		u.Probes = append(u.Probes, runtime.Probe{Program: name, Cookie: uint64(i)})
		u.hit(r, i)
	}
	out["jit"] = heard(t, u.Compiled, s, u.raw(t))
	u = loadUser(t, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
	for i, name := range u.Timers {
		u.Probes = append(u.Probes, runtime.Probe{Program: name, Cookie: uint64(i)})
		u.interpret(t, r, i)
	}
	out["interpreter"] = heard(t, u.Compiled, s, u.raw(t))
	return out
}

func TestHandlers(t *testing.T) {
	tests := []struct {
		name  string
		build func(s *scripting)
		want  string
	}{
		{"arithmetic", func(s *scripting) {
			s.add(s.say(bin(ir.Add, num64(2), bin(ir.Mul, num64(3), num64(-4))), bin(ir.Sub, word(ir.U64, 1), word(ir.U64, 2)),
				bin(ir.Div, num64(-7), num64(2)), bin(ir.Mod, num64(-7), num64(2)), bin(ir.Div, word(ir.U64, 7), word(ir.U64, 0)),
				bin(ir.Mod, word(ir.U64, 7), word(ir.U64, 0)), bin(ir.Add, word(ir.U8, 250), word(ir.U8, 10)), bin(ir.Add, word(ir.I8, 127), word(ir.I8, 1)),
				bin(ir.Shl, word(ir.U64, 1), num64(40)), bin(ir.Shr, num64(-8), num64(1)), bin(ir.Shr, word(ir.U64, -8), num64(60)),
				bin(ir.Xor, num64(0x1234567890), num64(1)), un(ir.Neg, ir.I64, num64(5)), un(ir.Inv, ir.U64, word(ir.U64, 0)), un(ir.Not, ir.BoolType, num64(3))))
		}, "-10 18446744073709551615 -3 -1 1 1 4 -128 1099511627776 -4 15 78187493521 -5 18446744073709551615 0\n"},
		{"comparisons", func(s *scripting) {
			s.add(s.say(test(ir.Lt, num64(-1), num64(0)), test(ir.Lt, word(ir.U64, -1), word(ir.U64, 0)), test(ir.Ge, num64(3), num64(3)),
				test(ir.Eq, num64(1<<40), num64(1<<40)), test(ir.Ne, num64(1<<40), num64(1<<41)), test(ir.LAnd, num64(2), num64(0)), test(ir.LOr, num64(0), num64(7))))
		}, "1 0 1 1 1 0 1\n"},
		{"casts", func(s *scripting) {
			s.add(s.say(cast(ir.U8, num64(0x1ff)), cast(ir.I8, num64(0xff)), cast(ir.I64, cast(ir.I16, num64(0x8000))), cast(ir.BoolType, num64(77))))
		}, "255 -1 -32768 1\n"},
		{"variables", func(s *scripting) {
			a, b, c := s.local(ir.I64), s.local(ir.U8), s.local(ir.TextType(32))
			s.add(set(a, num64(41)), set(a, bin(ir.Add, a, num64(1))), set(b, cast(ir.U8, num64(511))), set(c, str("pear")), s.say(a, b, c))
			d := s.local(ir.TextType(16))
			s.add(set(d, c), set(c, str("a longer text, cut nowhere")), s.say(c, d), set(d, c), s.say(d))
		}, "42 255 \"pear\"\n\"a longer text, cut nowhere\" \"pear\"\n\"a longer text, \"\n"},
		{"branches", func(s *scripting) {
			a := s.local(ir.I64)
			s.add(&ir.If{Cond: test(ir.Gt, num64(2), num64(1)), Then: []ir.Stmt{set(a, num64(1))}, Else: []ir.Stmt{set(a, num64(2))}}, s.say(a),
				&ir.If{Cond: a, Then: nil, Else: []ir.Stmt{set(a, num64(3))}}, s.say(&ir.Cond{T: ir.I64, C: test(ir.Eq, a, num64(3)), X: num64(10), Y: num64(20)}),
				&ir.If{Cond: num64(1), Then: []ir.Stmt{&ir.Return{}}}, s.say(num64(99)))
		}, "1\n20\n"},
		{"decisions", func(s *scripting) {
			// Whatever a condition is made of: as one, and as a number.
			a, b := s.local(ir.I64), s.local(ir.U64)
			s.add(set(a, num64(-1)), set(b, word(ir.U64, 7)))
			yes, no := test(ir.Lt, a, num64(0)), test(ir.Lt, b, word(ir.U64, 7))
			not := func(x ir.Expr) ir.Expr { return un(ir.Not, ir.BoolType, x) }
			for _, c := range []ir.Expr{yes, no, not(yes), not(no), a, not(a), test(ir.Gt, a, b), test(ir.Le, b, b), test(ir.Ne, a, num64(1<<40)),
				test(ir.LAnd, yes, no), test(ir.LAnd, yes, not(no)), test(ir.LOr, no, no), test(ir.LOr, no, b), not(test(ir.LAnd, yes, no)), not(test(ir.LOr, no, yes)),
				test(ir.LAnd, test(ir.LOr, no, yes), not(test(ir.LAnd, no, yes))), test(ir.Eq, str("a"), str("a")), not(test(ir.Ne, str("a"), str("b"))), num64(1), not(num64(1))} {
				said := s.local(ir.I64)
				s.add(&ir.If{Cond: c, Then: []ir.Stmt{set(said, num64(1))}, Else: []ir.Stmt{set(said, num64(0))}},
					s.say(said, &ir.Cond{T: ir.I64, C: c, X: num64(1), Y: num64(0)}, cast(ir.I64, cast(ir.BoolType, c))))
			}
		}, "1 1 1\n0 0 0\n0 0 0\n1 1 1\n1 1 1\n0 0 0\n0 0 0\n1 1 1\n1 1 1\n" +
			"0 0 0\n1 1 1\n0 0 0\n1 1 1\n1 1 1\n0 0 0\n1 1 1\n1 1 1\n0 0 0\n1 1 1\n0 0 0\n"},
		{"nothing is left over", func(s *scripting) {
			// Variables that are assigned first are not zeros before, and keys have no bytes that
			// nobody wrote: the frame is one that others have used.
			tt := ir.TupleOf(nil, []*ir.Type{ir.U8, ir.TextType(11), ir.U32})
			m := s.table(tt, ir.I64)
			v, w, x := s.local(tt), s.local(ir.TextType(11)), s.local(ir.I64)
			mk := func(k string) ir.Expr {
				return &ir.MakeTuple{T: tt, Elems: []ir.Expr{word(ir.U8, 255), str(k), word(ir.U32, 1)}}
			}
			big := s.local(ir.TextType(700))
			s.add(set(big, str(strings.Repeat("x", 600))), s.say(big),
				&ir.SetMap{Map: m, Key: mk("longer than"), X: num64(1)}, set(v, mk("k")), &ir.SetMap{Map: m, Key: v, X: num64(2)},
				&ir.If{Cond: num64(1), Then: []ir.Stmt{set(x, bin(ir.Add, x, num64(5)))}}, set(w, str("longer")), set(w, str("k")),
				s.say(&ir.MapGet{T: ir.I64, Map: m, Key: mk("k")}, &ir.MapLen{Map: m}, test(ir.Eq, v, mk("k")), x, w))
			k := s.table(ir.I32, ir.I16)
			s.add(&ir.SetMap{Map: k, Key: word(ir.I32, -2), X: word(ir.I16, -3)}, s.say(&ir.MapGet{T: ir.I16, Map: k, Key: cast(ir.I32, word(ir.I32, -2))}, &ir.MapLen{Map: k}))
		}, fmt.Sprintf("%q\n2 2 1 5 \"k\"\n-3 1\n", strings.Repeat("x", 600))},
		{"texts", func(s *scripting) {
			a := s.local(ir.TextType(64))
			s.add(set(a, str("hello world")))
			s.add(s.say(test(ir.Eq, a, str("hello world")), test(ir.Eq, a, str("hello worl")), test(ir.Ne, a, str("hello world!")),
				test(ir.Eq, str("x"), a), &ir.TextLen{X: a}, &ir.TextCmp{X: a, Y: str("help"), N: 3}, &ir.TextCmp{X: a, Y: str("help"), N: 4},
				&ir.TextHas{T: ir.BoolType, X: a, Y: str("wor")}, &ir.TextHas{T: ir.BoolType, X: a, Y: str("xyz")}, &ir.TextHas{T: ir.I64, X: a, Y: str("world")}, &ir.TextHas{T: ir.I64, X: a, Y: str("worldly")},
				test(ir.Eq, a, a)))
			s.add(s.say(&ir.Cond{T: ir.TextType(64), C: num64(0), X: a, Y: str("no")}))
		}, "1 0 1 0 11 1 0 1 0 6 -1 1\n\"no\"\n"},
		{"maps", func(s *scripting) {
			m := s.table(ir.TupleOf(nil, []*ir.Type{ir.I64, ir.TextType(16)}), ir.I64)
			key := func(n int64, k string) ir.Expr {
				return &ir.MakeTuple{T: s.Maps[m].Key, Elems: []ir.Expr{num64(n), str(k)}}
			}
			get := func(n int64, k string) ir.Expr { return &ir.MapGet{T: ir.I64, Map: m, Key: key(n, k)} }
			s.add(&ir.SetMap{Map: m, Key: key(1, "a"), X: num64(5)}, &ir.AddMap{Map: m, Key: key(1, "a"), X: num64(2)},
				&ir.AddMap{Map: m, Key: key(2, "a"), X: num64(-3)}, s.say(get(1, "a"), get(2, "a"), get(1, "b"), &ir.HasKey{Map: m, Key: key(2, "a")}, &ir.MapLen{Map: m}),
				&ir.Delete{Map: m, Key: key(2, "a")}, s.say(&ir.HasKey{Map: m, Key: key(2, "a")}, &ir.MapLen{Map: m}))
			one := s.table(nil, ir.TextType(16))
			s.add(&ir.SetMap{Map: one, X: str("text")}, s.say(&ir.MapGet{T: ir.TextType(16), Map: one}))
		}, "7 -3 0 1 2\n0 1\n\"text\"\n"},
		{"one value", func(s *scripting) {
			// As an array's element, and as a hash's where it is asked for.
			for _, asked := range []bool{false, true} {
				v, b, n := s.table(nil, ir.I64), s.table(nil, ir.I8), s.table(nil, ir.I64)
				get := func(m int) ir.Expr { return &ir.MapGet{T: s.Maps[m].Value, Map: m} }
				s.add(s.say(get(v), get(b), get(n)))
				s.add(&ir.SetMap{Map: v, X: num64(5)}, &ir.SetMap{Map: v, X: bin(ir.Mul, get(v), num64(-7))}, &ir.SetMap{Map: b, X: word(ir.I8, -3)},
					&ir.AddMap{Map: n, X: num64(2)}, &ir.AddMap{Map: n, X: num64(-5)}, s.say(get(v), get(b), get(n)))
				if asked {
					s.add(s.say(&ir.HasKey{Map: v}, &ir.MapLen{Map: b}), &ir.Delete{Map: v}, &ir.Delete{Map: n}, s.say(&ir.HasKey{Map: v}, get(v), get(n)),
						&ir.AddMap{Map: n, X: num64(1)}, s.say(get(n)))
				}
			}
		}, "0 0 0\n-35 -3 -3\n0 0 0\n-35 -3 -3\n1 1\n0 0 0\n1\n"},
		{"loops", func(s *scripting) {
			i, sum := s.local(ir.I64), s.local(ir.I64)
			s.add(&ir.While{Cond: test(ir.Lt, i, num64(1000)), Body: []ir.Stmt{set(i, bin(ir.Add, i, num64(1))),
				&ir.If{Cond: test(ir.Eq, bin(ir.Mod, i, num64(2)), num64(0)), Then: []ir.Stmt{&ir.Continue{}}},
				&ir.If{Cond: test(ir.Gt, i, num64(10)), Then: []ir.Stmt{&ir.Break{}}},
				set(sum, bin(ir.Add, sum, i))}}, s.say(i, sum))
			j, k := s.local(ir.I64), s.local(ir.I64)
			s.add(&ir.ForRange{Slot: j.Slot, From: num64(-2), To: num64(2), Body: []ir.Stmt{
				&ir.ForRange{Slot: k.Slot, From: num64(0), To: num64(2), Body: []ir.Stmt{s.say(j, k)}}}},
				&ir.ForRange{Slot: j.Slot, From: num64(3), To: num64(3), Body: []ir.Stmt{s.say(j)}},
				&ir.ForRange{Slot: j.Slot, From: num64(0), To: num64(9), Body: []ir.Stmt{&ir.If{Cond: test(ir.Eq, j, num64(2)), Then: []ir.Stmt{&ir.Return{}}}, s.say(j)}}, s.say(num64(99)))
		}, "11 25\n-2 0\n-2 1\n-1 0\n-1 1\n0 0\n0 1\n1 0\n1 1\n0\n1\n"},
		{"over maps", func(s *scripting) {
			m := s.table(ir.I64, ir.I64)
			kv := s.local(ir.TupleOf(nil, []*ir.Type{ir.I64, ir.I64}))
			sum := s.local(ir.I64)
			s.add(&ir.SetMap{Map: m, Key: num64(7), X: num64(70)}, &ir.SetMap{Map: m, Key: num64(8), X: num64(80)},
				&ir.ForMap{Map: m, Slot: kv.Slot, Body: []ir.Stmt{set(sum, bin(ir.Add, sum, bin(ir.Mul, &ir.Part{T: ir.I64, X: kv, I: 0}, &ir.Part{T: ir.I64, X: kv, I: 1})))}}, s.say(sum))
			c := s.table(ir.I64, &ir.Type{Kind: ir.Count, Size: 8})
			for range 3 {
				s.add(&ir.Aggregate{Map: c, Key: num64(1)})
			}
			s.add(&ir.ForMap{Map: c, Slot: kv.Slot, Body: []ir.Stmt{s.say(kv)}})
		}, "1130\n(1 3)\n"},
		{"aggregates", func(s *scripting) {
			kinds := []*ir.Type{{Kind: ir.Count}, {Kind: ir.Sum, Signed: true}, {Kind: ir.Avg, Signed: true}, {Kind: ir.Min, Signed: true}, {Kind: ir.Max, Signed: true}, {Kind: ir.Max}, {Kind: ir.Min}}
			var said []ir.Expr
			for _, k := range kinds {
				m := s.table(nil, k)
				rt := ir.I64
				if !k.Signed {
					rt = ir.U64
				}
				for _, v := range []int64{5, -7, 100, 3} {
					s.add(&ir.Aggregate{Map: m, X: num64(v)})
				}
				said = append(said, &ir.MapGet{T: rt, Map: m})
			}
			s.add(s.say(said...))
		}, "4 101 25 -7 100 18446744073709551609 3\n"},
		{"tuples", func(s *scripting) {
			tt := ir.TupleOf(nil, []*ir.Type{ir.U8, ir.TextType(8), ir.I32})
			v := s.local(tt)
			at := &ir.Type{Kind: ir.Array, Elem: ir.U16, Count: 3, Size: 6}
			a := s.local(at)
			s.add(set(v, &ir.MakeTuple{T: tt, Elems: []ir.Expr{word(ir.U8, 200), str("abc"), word(ir.I32, -5)}}), s.say(v, &ir.Part{T: ir.I32, X: v, I: 2}, &ir.Part{T: ir.TextType(8), X: v, I: 1}),
				s.say(test(ir.Eq, v, v)),
				set(a, &ir.MakeTuple{T: at, Elems: []ir.Expr{word(ir.U16, 1), word(ir.U16, 2), word(ir.U16, 60000)}}), s.say(a, &ir.Index{T: ir.U16, X: a, I: num64(2)}),
				s.say(&ir.Index{T: ir.U16, X: a, I: num64(3)}), s.say(num64(99)))
		}, "(200 \"abc\" -5) -5 \"abc\"\n1\n[1 2 60000] 60000\n"},
		{"unreadable", func(s *scripting) {
			s.add(s.say(&ir.Load{T: ir.U64, Addr: num64(8)}, &ir.ReadText{T: ir.TextType(16), Addr: num64(8)}, &ir.ReadText{T: ir.TextType(16), Addr: num64(8), Len: num64(4)},
				&ir.ReadBytes{T: ir.BytesType(8), Addr: num64(8), Len: num64(3)}),
				s.say(&ir.Load{T: ir.U64, Addr: num64(8), Strict: true}), s.say(num64(99)))
		}, "0 \"\" \"\" 000000\n"},
		{"require", func(s *scripting) {
			s.add(s.say(&ir.Require{C: num64(1), X: num64(5)}), s.say(&ir.Require{C: num64(0), X: num64(5)}), s.say(num64(99)))
		}, "5\n"},
		{"block", func(s *scripting) {
			v := s.local(ir.I64)
			s.add(s.say(&ir.Block{Body: []ir.Stmt{set(v, num64(8))}, X: bin(ir.Mul, v, v)}))
		}, "64\n"},
		{"names", func(s *scripting) {
			s.Names = []string{"app::main", strings.Repeat("long", 100)}
			text := func(size int, name uint64) ir.Expr {
				return &ir.NameText{T: ir.TextType(size), X: &ir.Const{T: ir.NameType, V: name}}
			}
			s.add(s.say(text(16, 0), text(8, 0), text(8, 2), &ir.TextLen{X: text(512, 1)}, test(ir.Eq, text(32, 0), str("app::main")),
				test(ir.Lt, &ir.Builtin{T: ir.U32, Kind: ir.NUMANode}, num64(1024))))
		}, "\"app::main\" \"app::ma\" \"\" 255 1 1\n"},
		{"much", func(s *scripting) {
			v := s.local(ir.TextType(1024))
			w := s.local(ir.TextType(2048))
			s.add(set(v, str(strings.Repeat("0123456789", 100))), set(w, v), s.say(&ir.TextLen{X: w}, test(ir.Eq, v, w), &ir.TextHas{T: ir.I64, X: w, Y: str("90123456789012345678")}))
		}, "1000 1 9\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &scripting{}
			tt.build(s)
			s.Handlers = []*ir.Handler{&s.h}
			s.Timers = []ir.Timer{{Kind: ir.Begin}}
			for how, got := range everywhere(t, &s.Script) {
				if got != tt.want {
					t.Errorf("%s:\n%swant:\n%s", how, got, tt.want)
				}
			}
		})
	}
}

// What a handler is given of a function's arguments, in the process.
func TestHandlerRoots(t *testing.T) {
	s := &scripting{}
	s.h.Roots = []*types.Type{tStr, tU64}
	s.add(s.say(&ir.ReadText{T: ir.TextType(8), Addr: &ir.Root{T: ir.U64, Off: 0}, Len: &ir.Root{T: ir.U64, Off: 8}, Strict: true},
		&ir.Root{T: ir.U16, Root: 1, Off: 2}, &ir.Root{T: ir.I8, Root: 1, Off: 7}, &ir.Capture{Rust: tStr}, &ir.Capture{Rust: tU64, Root: 1}))
	s.Handlers = []*ir.Handler{&s.h}
	item := program.Item{Kind: program.Run, Cond: -1, Count: -1, Values: []program.Value{
		strArg("s", location.RDI, location.RSI), value("n", tU64, inReg(0, 8, location.RDX))}}
	p := programOf(at(0x5000, item))
	p.Script = &s.Script
	o := byReserve
	o.CPUs = userCPUs
	u := loadUser(t, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
	for text, want := range map[string]string{"pear": `"pear"`, "a pear tree": `"a pea…"`} {
		r := newRegisters(64)
		copy(r.data(), text)
		r.set(location.RDI, at64(r.data()))
		r.set(location.RSI, uint64(len(text)))
		r.set(location.RDX, 0xfedcba9856783210)
		want += fmt.Sprintf(" %d -2 %q %d\n", 0x5678, text, uint64(0xfedcba9856783210))
		u.hit(r, 0)
		if got := heard(t, u.Compiled, &s.Script, u.raw(t)); got != want {
			t.Errorf("JIT: %swant %s", got, want)
		}
		u.interpret(t, r, 0)
		if got := heard(t, u.Compiled, &s.Script, u.raw(t)); got != want {
			t.Errorf("interpreter: %swant %s", got, want)
		}
	}
}
