package tracer

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/record"
)

// A script without sites counts in a map of the tracer's own, and is heard.
func TestRuntime(t *testing.T) {
	one := &ir.Const{T: ir.I64, V: 1}
	s := &ir.Script{
		Maps:     []*ir.Map{{Name: "n", Key: ir.I64, Value: ir.I64, Entries: 16}, {Name: "c", Value: &ir.Type{Kind: ir.Count}, Entries: 1}},
		Handlers: []*ir.Handler{{Name: "begin", Body: []ir.Stmt{&ir.AddMap{Map: 0, Key: one, X: one}, &ir.Aggregate{Map: 1}, &ir.Emit{Event: 0, Args: []ir.Expr{&ir.MapGet{T: ir.I64, Map: 0, Key: one}}}}}},
		Events:   []*ir.Event{{Args: []*ir.Type{ir.I64}}},
		Timers:   []ir.Timer{{Kind: ir.Begin}},
	}
	c, err := codegen.Compile(&program.Program{Script: s, Limits: program.DefaultLimits}, codegen.Options{HaveLoop: true, CPUs: 1})
	if err != nil {
		t.Fatal(err)
	}
	sess, err := Runtime{}.Load(t.Context(), c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	for range 3 {
		if err := sess.Run(c.Timers[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := sess.Run("none"); err == nil {
		t.Error("a program that is not there ran")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var said []uint64
	err = sess.Read(ctx, func(b []byte) error {
		said = append(said, binary.LittleEndian.Uint64(b[record.HeaderSize:]))
		return nil
	}, func(uint64) error { cancel(); return nil })
	if err != nil || len(said) != 3 || said[2] != 3 {
		t.Errorf("heard %v, %v", said, err)
	}
	key := binary.LittleEndian.AppendUint64(nil, 1)
	for name, want := range map[string]uint64{"map_0": 3, "map_1": 3} {
		m, ok := sess.Map(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		n, sum := 0, uint64(0)
		err := m.Each(func(k []byte, values [][]byte) bool {
			n++
			for _, v := range values {
				sum += binary.LittleEndian.Uint64(v)
			}
			return true
		})
		if err != nil || n != 1 || sum != want {
			t.Errorf("%s: %d elements, %d, %v", name, n, sum, err)
		}
	}
	m, _ := sess.Map("map_0")
	if err := m.Update(key, [][]byte{binary.LittleEndian.AppendUint64(nil, 9)}); err != nil {
		t.Error(err)
	}
	if v, err := m.Lookup(key); err != nil || binary.LittleEndian.Uint64(v[0]) != 9 {
		t.Error(v, err)
	}
	if err := m.Delete(key); err != nil {
		t.Error(err)
	}
	if v, err := m.Lookup(key); err != nil || v != nil {
		t.Error(v, err)
	}
}

// A full map of a script's kind lruhash drops what has not been used for longest; one of the
// kind percpulruhash too.
func TestLRU(t *testing.T) {
	num := func(n uint64) ir.Expr { return &ir.Const{T: ir.I64, V: n} }
	for _, kind := range []string{"lruhash", "percpulruhash"} {
		s := &ir.Script{
			Maps:   []*ir.Map{{Name: "m", Key: ir.I64, Value: ir.I64, Entries: 3, Declared: kind}},
			Timers: []ir.Timer{{Kind: ir.Begin}},
		}
		h := &ir.Handler{Name: "begin"}
		for n := range uint64(3) {
			h.Body = append(h.Body, &ir.SetMap{Map: 0, Key: num(n), X: num(10 * n)})
		}
		h.Body = append(h.Body, &ir.Eval{X: &ir.MapGet{T: ir.I64, Map: 0, Key: num(0)}},
			&ir.Delete{Map: 0, Key: num(2)}, &ir.SetMap{Map: 0, Key: num(2), X: num(20)}, &ir.SetMap{Map: 0, Key: num(3), X: num(30)}, &ir.SetMap{Map: 0, Key: num(4), X: num(40)})
		s.Handlers = []*ir.Handler{h}
		c, err := codegen.Compile(&program.Program{Script: s, Limits: program.DefaultLimits}, codegen.Options{HaveLoop: true, CPUs: 1})
		if err != nil {
			t.Fatal(err)
		}
		sess, err := Runtime{}.Load(t.Context(), c.Spec)
		if err != nil {
			t.Fatal(err)
		}
		defer sess.Close()
		if err := sess.Run(c.Timers[0]); err != nil {
			t.Fatal(err)
		}
		m, _ := sess.Map("map_0")
		var keys []uint64
		if err := m.Each(func(k []byte, _ [][]byte) bool {
			keys = append(keys, binary.LittleEndian.Uint64(k))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(keys)
		// 1 went for 3, and 0 for 4: it was looked at before 2 was made anew.
		if want := []uint64{2, 3, 4}; !slices.Equal(keys, want) {
			t.Errorf("%s: keys %v, want %v", kind, keys, want)
		}
	}
}
