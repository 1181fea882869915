package codegen

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
)

// shapes makes random programs: types with every kind of guard, places of every
// kind, items of every kind.
type shapes struct {
	*rand.Rand
	types []*types.Type
}

func (s *shapes) u128() types.U128 {
	v := types.U128{Lo: s.Uint64() >> s.IntN(64)}
	if s.IntN(3) == 0 {
		v.Hi = s.Uint64()
	}
	return v
}

// enum has a tag of any size, and variants selected by values, ranges or neither.
func (s *shapes) enum() *types.Type {
	t := &types.Type{Kind: types.Enum, Size: 56, Align: 8, Enum: &types.EnumInfo{Tag: &types.Discr{Size: 1 << s.IntN(5)}}}
	for i := range 1 + s.IntN(4) {
		v := types.Variant{Name: fmt.Sprint("V", i), Fields: []types.Field{{Name: "__0", Offset: 16, Type: s.pick()}}}
		if v.Fields[0].Type.Size > 40 {
			v.Fields[0].Type = tStr
		}
		for range s.IntN(3) {
			a, b := s.u128(), s.u128()
			if a.Cmp(b) > 0 {
				a, b = b, a
			}
			if s.IntN(2) == 0 {
				b = a
			}
			v.Values = append(v.Values, types.Interval{Lo: a, Hi: b})
		}
		t.Enum.Variants = append(t.Enum.Variants, v)
	}
	return t
}

func (s *shapes) pick() *types.Type { return s.types[s.IntN(len(s.types))] }

func (s *shapes) add(t *types.Type) {
	t.Name = fmt.Sprint("T", len(s.types))
	s.types = append(s.types, t)
}

func (s *shapes) fill() {
	s.types = []*types.Type{tU8, tU32, tI64, tStr, tString, tPoint, tNode}
	later := structOf("", 8) // closes cycles
	s.add(later)
	for range 8 {
		switch s.IntN(5) {
		case 0:
			s.add(s.enum())
		case 1:
			s.add(vecOf(s.pick()))
		case 2:
			s.add(refTo(s.pick()))
		case 3:
			s.add(arrayOf(s.pick(), 1+s.Int64N(4)))
		case 4:
			t := structOf("", 0)
			for i := range s.IntN(5) {
				f := s.pick()
				t.Fields = append(t.Fields, types.Field{Name: fmt.Sprint("f", i), Offset: t.Size, Type: f})
				t.Size += int64(align8(int(f.Size)))
			}
			s.add(t)
		}
	}
	later.Fields = []types.Field{{Name: "f", Type: refTo(s.pick())}}
}

func (s *shapes) expr() location.Expr {
	var e location.Expr
	depth := 0
	for depth != 1 || s.IntN(3) > 0 && len(e) < location.MaxOps {
		o := location.Op{Kind: location.OpKind(1 + s.IntN(int(location.OpZeroExtend))), Reg: location.Reg(s.IntN(16)), Size: uint8(1 + s.IntN(8)), Arg: s.Int64() >> s.IntN(64)}
		if o.Kind == location.OpFrame || o.Kind.Pops() > depth || depth-o.Kind.Pops()+1 > location.MaxDepth {
			continue
		}
		depth += 1 - o.Kind.Pops()
		e = append(e, o)
	}
	return e
}

func (s *shapes) place(size int) location.Place {
	var p location.Place
	for off := 0; off < size; {
		q := location.Piece{Offset: off, Size: min(size-off, 1+s.IntN(8)), Kind: location.PieceKind(s.IntN(5)), Reg: location.Reg(s.IntN(16)), Why: location.OptimizedOut}
		switch q.Kind {
		case location.Memory:
			q.Size = size - off
			q.Expr = s.expr()
		case location.Value:
			q.Expr = s.expr()
		case location.Constant:
			q.Bytes = make([]byte, q.Size)
			for i := range q.Bytes {
				q.Bytes[i] = byte(s.Uint32())
			}
		}
		p.Pieces = append(p.Pieces, q)
		off += q.Size
	}
	return p
}

func (s *shapes) item() program.Item {
	it := program.Item{Kind: program.ItemKind(s.IntN(5)), Cond: s.IntN(17) - 1, Count: -1}
	if s.IntN(3) == 0 {
		it.Count = s.IntN(10)
		return it
	}
	for it.CFA == nil || it.CFA.Uses(location.OpCFA) {
		it.CFA = s.expr()
	}
	for i := range s.IntN(6) {
		t := s.pick()
		it.Values = append(it.Values, program.Value{Name: fmt.Sprint("v", i), Type: t, Place: s.place(int(t.Size)), OwnFrame: s.IntN(4) == 0})
	}
	return it
}

// TestRandom: whatever is asked for, the verifier takes it.
func TestRandom(t *testing.T) {
	o := kernelOptions(t)
	for seed := range uint64(60) {
		s := &shapes{Rand: rand.New(rand.NewPCG(seed, 1))}
		s.fill()
		p := &program.Program{Counts: 10, Filter: s.IntN(2) == 0, Limits: program.Limits{MaxStr: s.IntN(20000), MaxItems: s.IntN(1000), Depth: s.IntN(10)}}
		if s.IntN(3) == 0 {
			p.PIDNamespace = &program.PIDNamespace{Dev: 4, Ino: 4026531836}
		}
		for range 3 {
			probe := program.Probe{Path: "app"}
			for range 1 + s.IntN(4) {
				probe.Items = append(probe.Items, s.item())
			}
			p.Probes = append(p.Probes, probe)
		}
		o := Options{Sleepable: s.IntN(2) == 0, HaveLoop: s.IntN(8) > 0 && o.HaveLoop}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			load(t, p, o, func(c *ebpf.CollectionSpec) {
				if m := c.Maps["scratch"]; m != nil {
					m.MaxEntries = 4
				}
			})
		})
	}
}
