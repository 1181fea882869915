package codegen

import (
	"ferrotrace/internal/program/ir"

	"github.com/cilium/ebpf/asm"
)

// Aggregating maps have a value on each CPU. A program can be preempted by another on
// the same CPU, or interrupted by a signal's handler in process, so what is added is
// added atomically, and extremes are exchanged against what they were compared with.

func (g *handler) aggregate(s *ir.Aggregate) {
	f := g.f
	t := g.s.Maps[s.Map].Value
	x := g.temp(8)
	if s.X != nil {
		g.scalar(s.X)
		f.store(r7, x, r0, u64)
	}
	n := -1
	if s.N != nil {
		n = g.temp(8)
		g.scalar(s.N)
		f.store(r7, n, r0, u64)
	}
	done := g.label("done")
	if g.c.Single[s.Map] {
		g.singleHere(s.Map, done)
	} else {
		g.element(s.Map, g.key(s.Map, s.Key), done)
	}
	times := func() {
		if n >= 0 {
			f.load(r1, r7, n, u64)
		} else {
			f.imm(r1, 1)
		}
	}
	switch t.Kind {
	case ir.Count:
		times()
		f.atomic(asm.AddAtomic, r9, 0, r1)
	case ir.Sum:
		f.load(r1, r7, x, u64)
		f.atomic(asm.AddAtomic, r9, 0, r1)
	case ir.Avg, ir.Stats:
		f.load(r1, r7, x, u64)
		f.atomic(asm.AddAtomic, r9, 0, r1)
		f.addImm(r9, ir.AggCount)
		times()
		f.atomic(asm.AddAtomic, r9, 0, r1)
	case ir.Min, ir.Max:
		f.load(r2, r7, x, u64)
		g.rank(t)
		g.greatest(r9, ir.AggRank)
		f.storeImm(r9, ir.AggSet, 1, u64)
	case ir.Hist, ir.LHist:
		f.load(r1, r7, x, u64)
		if t.Kind == ir.Hist {
			g.bucket(t)
		} else {
			g.linear(t)
		}
		f.emit(asm.JGE.Imm(r0, int32(t.Buckets()), done))
		f.emit(asm.LSh.Imm(r0, 3), asm.Add.Reg(r9, r0))
		times()
		f.atomic(asm.AddAtomic, r9, 0, r1)
	case ir.Series:
		g.series(t, x)
	default:
		g.fail("aggregate of kind %d", t.Kind)
	}
	f.place(done)
}

// rank makes of the number in r2 what ir.Type.Rank does.
func (g *handler) rank(t *ir.Type) {
	f := g.f
	if t.Signed {
		f.emit(asm.LoadImm(r1, -1<<63, asm.DWord), asm.Xor.Reg(r2, r1))
	}
	if t.Kind == ir.Min || t.Agg == ir.Min {
		f.emit(asm.Xor.Imm(r2, -1))
	}
}

// tries is how often an exchange is tried that others come before.
const tries = 4

// greatest keeps the larger of r2 and the word at base + off.
func (g *handler) greatest(base asm.Register, off int) {
	f := g.f
	kept := g.label("kept")
	for range tries {
		f.load(r0, base, off, u64)
		f.emit(asm.JGE.Reg(r0, r2, kept))
		f.mov(r3, r0)
		f.atomic(asm.CmpXchg, base, off, r2)
		f.emit(asm.JEq.Reg(r0, r3, kept))
	}
	f.place(kept)
}

// bucket makes r0 the index of a Hist's bucket for the number in r1.
func (g *handler) bucket(t *ir.Type) {
	f := g.f
	done, small := g.label("bucket"), g.label("small")
	if t.Signed {
		f.imm(r0, 0)
		f.emit(asm.JSLT.Imm(r1, 0, done))
	}
	f.mov(r0, r1)
	f.emit(asm.JLT.Imm(r1, 2<<t.Bits, small))
	// r2 becomes the number's power of two.
	f.imm(r2, 0)
	f.mov(r3, r1)
	for shift := int32(32); shift > 0; shift /= 2 {
		less := g.label("less")
		f.mov(r4, r3)
		f.emit(asm.RSh.Imm(r4, shift), asm.JEq.Imm(r4, 0, less))
		f.mov(r3, r4)
		f.addImm(r2, shift)
		f.place(less)
	}
	f.addImm(r2, int32(-t.Bits))
	f.emit(asm.RSh.Reg(r0, r2))
	f.emit(asm.LSh.Imm(r2, int32(t.Bits)), asm.Add.Reg(r0, r2))
	f.place(small)
	f.addImm(r0, 1)
	f.place(done)
}

// linear makes r0 the index of an LHist's bucket for the number in r1.
func (g *handler) linear(t *ir.Type) {
	f := g.f
	done := g.label("bucket")
	f.imm(r0, 0)
	f.imm(r2, t.From)
	f.emit(asm.JSLT.Reg(r1, r2, done))
	f.imm(r0, int64(t.Buckets()-1))
	f.imm(r3, t.To)
	f.emit(asm.JSGE.Reg(r1, r3, done))
	f.mov(r0, r1)
	f.emit(asm.Sub.Reg(r0, r2))
	f.imm(r3, t.Step)
	f.emit(asm.Div.Reg(r0, r3))
	f.addImm(r0, 1)
	f.place(done)
}

// series adds the number in the frame to its interval. The first of an interval takes
// the place of the one Count intervals ago; a number of another that comes between is
// added to the new one.
func (g *handler) series(t *ir.Type, x int) {
	f := g.f
	mine := g.label("mine")
	now := g.temp(8)
	f.helper(asm.FnKtimeGetTaiNs)
	f.store(r7, now, r0, u64)
	f.imm(r1, int64(t.Every))
	f.emit(asm.Div.Reg(r0, r1))
	f.mov(r2, r0)
	f.addImm(r2, 1)
	f.emit(asm.Mod.Imm(r0, int32(t.Count)))
	f.emit(asm.JGE.Imm(r0, int32(t.Count), mine)) // never: for the verifier
	f.emit(asm.Mul.Imm(r0, ir.SeriesSize), asm.Add.Reg(r9, r0))
	f.load(r0, r9, ir.SeriesInterval, u64)
	f.emit(asm.JEq.Reg(r0, r2, mine))
	f.atomic(asm.CmpXchg, r9, ir.SeriesInterval, r2)
	f.storeImm(r9, ir.SeriesValue, 0, u64)
	f.storeImm(r9, ir.SeriesCount, 0, u64)
	f.place(mine)
	f.load(r2, r7, x, u64)
	switch t.Agg {
	case ir.Min, ir.Max:
		g.rank(t)
		g.greatest(r9, ir.SeriesValue)
	case ir.Sum, ir.Avg, ir.Stats:
		f.atomic(asm.AddAtomic, r9, ir.SeriesValue, r2)
	case ir.Void:
		f.store(r9, ir.SeriesValue, r2, u64)
		f.load(r1, r7, now, u64)
		f.store(r9, ir.SeriesCount, r1, u64)
		return
	}
	f.imm(r1, 1)
	f.atomic(asm.AddAtomic, r9, ir.SeriesCount, r1)
}

// sumUp makes r0 what an element of an aggregating map stands for, over all CPUs: t is
// the type of the number. It is 0 if it is not there.
func (g *handler) sumUp(m, key int, t *ir.Type) {
	f := g.f
	vt := g.s.Maps[m].Value
	sum, count := g.temp(8), g.temp(8)
	f.storeImm(r7, sum, 0, u64)
	f.storeImm(r7, count, 0, u64)
	again, next, done := g.label("cpu"), g.label("next"), g.label("summed")
	f.imm(r9, 0)
	f.place(again)
	g.addr(r2, key)
	f.loadMap(r1, mapName(m))
	f.mov(r3, r9)
	f.helper(asm.FnMapLookupPercpuElem)
	f.emit(asm.JEq.Imm(r0, 0, done))
	f.load(r1, r0, 0, u64)
	switch vt.Kind {
	case ir.Count, ir.Sum, ir.Avg, ir.Stats:
		f.load(r2, r7, sum, u64)
		f.emit(asm.Add.Reg(r2, r1))
		f.store(r7, sum, r2, u64)
		if vt.Kind == ir.Avg || vt.Kind == ir.Stats {
			f.load(r1, r0, ir.AggCount, u64)
			f.load(r2, r7, count, u64)
			f.emit(asm.Add.Reg(r2, r1))
			f.store(r7, count, r2, u64)
		}
	case ir.Min, ir.Max:
		f.load(r2, r0, ir.AggSet, u64)
		f.emit(asm.JEq.Imm(r2, 0, next))
		f.storeImm(r7, count, 1, u64)
		f.load(r2, r7, sum, u64)
		f.emit(asm.JGE.Reg(r2, r1, next))
		f.store(r7, sum, r1, u64)
	default:
		g.fail("the value of a map of kind %d", vt.Kind)
	}
	f.place(next)
	f.addImm(r9, 1)
	f.emit(asm.JLT.Imm(r9, int32(max(g.o.CPUs, 1)), again))
	f.place(done)
	f.load(r0, r7, sum, u64)
	none := g.label("none")
	switch vt.Kind {
	case ir.Avg, ir.Stats:
		f.mov(r1, r0)
		f.load(r0, r7, count, u64)
		f.emit(asm.JEq.Imm(r0, 0, none))
		f.mov(r2, r0)
		f.mov(r0, r1)
		g.divide(t.Signed, false)
	case ir.Min, ir.Max:
		f.load(r1, r7, count, u64)
		f.emit(asm.JEq.Imm(r1, 0, none))
		f.mov(r2, r0)
		g.rank(vt)
		f.mov(r0, r2)
	}
	f.place(none)
}
