package codegen

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"

	"github.com/cilium/ebpf"
)

// The verifier follows every path of a handler that it can't tell from one it has seen, up
// to a million instructions. What it looks at has to grow with the script's length, not
// with its paths: strings of a kilobyte, tuples of them, branches one after the other, and
// loops in loops.
func TestComplexity(t *testing.T) {
	const size = 1024
	text := ir.TextType(size)
	pair := ir.TupleOf(nil, []*ir.Type{ir.U64, text, text})
	read := func(n int64) ir.Expr { return &ir.ReadText{T: text, Addr: num64(4096 + n), Len: num64(n)} }
	for _, tt := range []struct {
		name  string
		build func(s *scripting, n int)
	}{
		{"comparisons of strings", func(s *scripting, n int) {
			v, hits := s.local(text), s.local(ir.I64)
			s.add(set(v, read(100)))
			for i := range n {
				s.add(&ir.If{Cond: test(ir.Eq, v, str(fmt.Sprintf("%0200d", i))), Then: []ir.Stmt{set(hits, bin(ir.Add, hits, num64(1)))}})
			}
			s.add(s.say(hits))
		}},
		{"strings compared with strings", func(s *scripting, n int) {
			v, w, hits := s.local(text), s.local(text), s.local(ir.I64)
			s.add(set(v, read(100)), set(w, read(200)))
			for range n {
				s.add(&ir.If{Cond: test(ir.LOr, test(ir.Eq, v, w), &ir.TextCmp{X: v, Y: w, N: 16}), Then: []ir.Stmt{set(hits, &ir.TextLen{X: v})}})
			}
			s.add(s.say(hits))
		}},
		{"tuples of strings", func(s *scripting, n int) {
			v := s.local(pair)
			for i := range n {
				s.add(set(v, &ir.MakeTuple{T: pair, Elems: []ir.Expr{num64(int64(i)), read(10), read(20)}}), s.say(&ir.Part{T: text, X: v, I: 1}))
			}
		}},
		{"loops in loops", func(s *scripting, n int) {
			i, j, k, sum, v := s.local(ir.I64), s.local(ir.I64), s.local(ir.I64), s.local(ir.I64), s.local(text)
			s.add(set(v, read(50)))
			for range n {
				s.add(&ir.ForRange{Slot: i.Slot, From: num64(0), To: num64(100), Body: []ir.Stmt{
					&ir.ForRange{Slot: j.Slot, From: num64(0), To: i, Body: []ir.Stmt{
						&ir.ForRange{Slot: k.Slot, From: j, To: num64(50), Body: []ir.Stmt{
							&ir.If{Cond: &ir.TextHas{T: ir.BoolType, X: v, Y: str("pear")}, Then: []ir.Stmt{set(sum, bin(ir.Add, sum, num64(1)))}, Else: []ir.Stmt{&ir.Break{}}}}}}}}})
			}
			s.add(s.say(sum))
		}},
		{"maps of tuples", func(s *scripting, n int) {
			key := ir.TupleOf(nil, []*ir.Type{ir.U64, ir.TextType(200)})
			m := s.table(key, &ir.Type{Kind: ir.Hist, Bits: 3, Signed: true})
			last := s.table(key, text)
			for i := range n {
				k := &ir.MakeTuple{T: key, Elems: []ir.Expr{num64(int64(i)), &ir.ReadText{T: ir.TextType(200), Addr: num64(4096), Len: num64(9)}}}
				s.add(&ir.If{Cond: &ir.HasKey{Map: last, Key: k}, Then: []ir.Stmt{&ir.Aggregate{Map: m, Key: k, X: num64(3)}}}, &ir.SetMap{Map: last, Key: k, X: read(30)})
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			looked := func(n int) int {
				s := &scripting{}
				tt.build(s, n)
				s.Handlers = []*ir.Handler{&s.h}
				s.Timers = []ir.Timer{{Kind: ir.Begin}}
				o := kernelOptions(t)
				o.CPUs = ebpf.MustPossibleCPU()
				c, err := Compile(&program.Program{Script: &s.Script, Limits: program.DefaultLimits}, o)
				if err != nil {
					t.Fatal(err)
				}
				sizeFrames(c.Spec, o.CPUs)
				coll, err := ebpf.NewCollectionWithOptions(c.Spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
				if err != nil {
					var ve *ebpf.VerifierError
					if errors.As(err, &ve) {
						t.Fatalf("%d times: %v", n, ve.Log[max(0, len(ve.Log)-5):])
					}
					t.Fatal(err)
				}
				defer coll.Close()
				all := 0
				var logs []string
				for _, p := range coll.Programs {
					all += instructions(p.VerifierLog)
					logs = append(logs, p.VerifierLog)
				}
				if all == 0 {
					t.Fatalf("the verifier does not say: %s", strings.Join(logs, "\n"))
				}
				return all
			}
			few, many := looked(4), looked(16)
			t.Logf("%d instructions, and %d for four times as much", few, many)
			if many > 6*few+1000 || many > 100_000 {
				t.Errorf("the verifier looks at %d instructions, and at %d for four times as much", few, many)
			}
		})
	}
}
