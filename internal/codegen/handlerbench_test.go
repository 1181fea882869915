package codegen

import (
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"
)

// BenchmarkHandlers is what a script's handlers add to a call, as BenchmarkCount and its
// like are for verbs: the handlers of one-liners, by what a script would have.
func BenchmarkHandlers(b *testing.B) {
	// Of fn(s: &str, n: u64).
	length := &ir.Root{T: ir.U64, Off: 8}
	n := &ir.Root{T: ir.U64, Root: 1}
	name := &ir.ReadText{T: ir.TextType(program.DefaultLimits.MaxStr), Addr: &ir.Root{T: ir.U64}, Len: length, Strict: true}
	count := &ir.Type{Kind: ir.Count}
	hist := &ir.Type{Kind: ir.Hist, Signed: true}
	tid := &ir.Cast{T: ir.U64, X: &ir.Builtin{T: ir.U32, Kind: ir.Tid}}
	now := &ir.Builtin{T: ir.U64, Kind: ir.Now}
	for _, bm := range []struct {
		name string
		// build returns how many of the hits are heard of: those of the entry alone, or none.
		build func(s *scripting) (exit *ir.Handler, heard bool)
	}{
		{"@ = count()", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.Aggregate{Map: s.table(nil, count)})
			return nil, false
		}},
		{"@[args.n] = count()", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.Aggregate{Map: s.table(ir.U64, count), Key: length})
			return nil, false
		}},
		{"@[args.s] = count()", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.Aggregate{Map: s.table(name.T, count), Key: name})
			return nil, false
		}},
		{"@ = hist(args.n)", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.Aggregate{Map: s.table(nil, hist), X: cast(ir.I64, n)})
			return nil, false
		}},
		{"@ = sum(args.n)", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.Aggregate{Map: s.table(nil, &ir.Type{Kind: ir.Sum}), X: n})
			return nil, false
		}},
		{"@ = args.n", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.SetMap{Map: s.table(nil, ir.U64), X: n})
			return nil, false
		}},
		{"@t[tid] = nsecs; @us = hist((nsecs - @t[tid]) div 1000)", func(s *scripting) (*ir.Handler, bool) {
			t, us := s.table(ir.U64, ir.U64), s.table(nil, hist)
			s.add(&ir.SetMap{Map: t, Key: tid, X: now})
			took := bin(ir.Sub, now, &ir.MapGet{T: ir.U64, Map: t, Key: tid})
			return &ir.Handler{Body: []ir.Stmt{
				&ir.Aggregate{Map: us, X: cast(ir.I64, bin(ir.Div, took, word(ir.U64, 1000)))},
				&ir.Delete{Map: t, Key: tid}}}, false
		}},
		{"printf(args.n)", func(s *scripting) (*ir.Handler, bool) {
			s.add(s.say(n))
			return nil, true
		}},
		{"printf(args.s)", func(s *scripting) (*ir.Handler, bool) {
			s.add(s.say(name))
			return nil, true
		}},
		{"false predicate", func(s *scripting) (*ir.Handler, bool) {
			s.add(&ir.If{Cond: un(ir.Not, ir.BoolType, test(ir.Gt, length, word(ir.U64, 1000))), Then: []ir.Stmt{&ir.Return{}}}, s.say(name))
			return nil, false
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			s := &scripting{}
			exit, heard := bm.build(s)
			s.h.Roots = []*types.Type{tStr, tU64}
			s.Handlers = []*ir.Handler{&s.h}
			probes := []program.Probe{{Items: []program.Item{{Kind: program.Run, Cond: -1, Count: -1, Values: []program.Value{
				strArg("s", location.RDI, location.RSI), value("n", tU64, inReg(0, 8, location.RDX))}}}}}
			if exit != nil {
				s.Handlers = append(s.Handlers, exit)
				probes = append(probes, program.Probe{Addr: 1, Items: []program.Item{{Kind: program.Run, Handler: 1, Cond: -1, Count: -1}}})
			}
			p := programOf(probes...)
			p.Script = &s.Script
			o := byReserve
			o.CPUs = userCPUs
			benchmarkCalls(b, p, o, 0, func(u *inUser, hits, records uint64) {
				want := uint64(0)
				if heard {
					want = hits
				}
				if records != want {
					b.Fatalf("%d hits, %d records", hits, records)
				}
				for k := range runtime.NumFaults {
					if n := u.sum(b, runtime.MapFaults, uint32(k)); n > 0 {
						b.Fatalf("fault %d: %d times", k, n)
					}
				}
			})
		})
	}
}
