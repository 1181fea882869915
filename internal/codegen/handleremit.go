package codegen

import (
	"fmt"
	"slices"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/debugfmt"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf/asm"
)

// Emitted is an event as the handler of one shape emits it. Its records have the index
// of it as their cookie, and record.ScriptItem as their item.
type Emitted struct {
	Event int // in ir.Script.Events
	// Offs are where the arguments are in the fixed part; -1 for Rust values, which the
	// schema has.
	Offs []int
}

// emitEvent builds a record in the frame. One that has pointers to follow is completed
// in a scratch slot.
func (g *handler) emitEvent(s *ir.Emit) {
	f := g.f
	ev := g.s.Events[s.Event]
	out := Emitted{Event: s.Event}
	item := record.Item{Kind: program.Run, Bias: -1}
	fixed := 0
	room := func(n int) int {
		off := fixed
		fixed += align8(n)
		return off
	}
	for i, t := range ev.Args {
		if t.Kind == ir.Value {
			rt := ev.Rust[i]
			room(int(min(max(rt.Size, 0), maxPiece)))
		} else {
			room(max(t.Size, 8))
		}
	}
	if g.objects(ev) {
		item.Bias = room(8)
	}
	size := record.HeaderSize + fixed
	image := g.temp(size)
	for _, off := range []int{record.OffCFA, record.OffComm, record.OffComm + 8, record.OffFailed} {
		f.storeImm(r7, image+off, 0, u64)
	}
	p := plan{kind: program.Run, fixed: fixed, cfaBad: true}
	bits := 0
	fixed = 0
	for i, x := range s.Args {
		t := ev.Args[i]
		mark := g.at
		if t.Kind != ir.Value {
			off := room(max(t.Size, 8))
			at := image + record.HeaderSize + off
			g.whole(x, t, at)
			out.Offs = append(out.Offs, off)
			g.release(mark)
			continue
		}
		rt := ev.Rust[i]
		off := room(int(min(max(rt.Size, 0), maxPiece)))
		out.Offs = append(out.Offs, -1)
		for {
			r, ok := x.(*ir.Require)
			if !ok {
				break
			}
			g.require(r.C)
			x = r.X
		}
		item.Values = append(item.Values, g.capture(x.(*ir.Capture), rt, off, image, &p, &bits))
		g.release(mark)
	}
	if item.Bias >= 0 {
		room(8)
		f.load(r1, r7, headBias, u64)
		f.store(r7, image+record.HeaderSize+item.Bias, r1, u64)
	}
	item.Size = fixed
	number := len(g.c.Events)
	g.c.Events = append(g.c.Events, out)
	g.c.Schema.Events = append(g.c.Schema.Events[:number:number], item)

	f.storeImm(r7, image+record.OffVersion, record.Version, u32)
	f.storeImm(r7, image+record.OffLength, int64(size), u32)
	f.storeImm(r7, image+record.OffCookie, int64(number), u64)
	f.storeImm(r7, image+record.OffItem, record.ScriptItem, u64) // and flags, regions
	f.load(r1, r7, headIDs, u64)
	f.store(r7, image+record.OffPID, r1, u64)
	if g.needs.cfa {
		f.load(r1, r7, headCFA, u64)
		f.store(r7, image+record.OffCFA, r1, u64)
	}
	f.helper(asm.FnKtimeGetNs)
	f.store(r7, image+record.OffTime, r0, u64)
	if len(p.roots) > 0 {
		g.deep(&p, image, size, item.Bias)
		return
	}
	g.addr(r2, image)
	f.loadMap(r1, runtime.MapEvents)
	f.imm(r3, int64(size))
	f.imm(r4, 0)
	f.helper(asm.FnRingbufOutput)
	ok := g.label("sent")
	f.emit(asm.JEq.Imm(r0, 0, ok))
	g.fault(runtime.EventNoRoom)
	f.place(ok)
}

// objects says whether trait objects hang on an event's values, which takes the load bias
// of the site's file to tell what they are.
func (g *handler) objects(ev *ir.Event) bool {
	return g.item != nil && slices.ContainsFunc(ev.Rust, func(t *types.Type) bool {
		return t != nil && g.cs.byType[t] != nil && g.cs.byType[t].leads
	})
}

// capture puts a Rust value into a record's image, and says what it is.
func (g *handler) capture(x *ir.Capture, t *types.Type, off, image int, p *plan, bits *int) record.Value {
	f := g.f
	out := record.Value{Type: t, Rust: t.Name}
	missing := func(why string) record.Value { return record.Value{Type: t, Rust: t.Name, Missing: why} }
	switch {
	case t.Zero():
		return out
	case t.Size <= 0:
		return missing("unsupported: type without a size")
	}
	size := int(min(t.Size, maxPiece))
	out.Off, out.Size = off, size
	at := image + record.HeaderSize + off
	for i := 0; i < align8(size); i += 8 {
		f.storeImm(r7, at+i, 0, u64)
	}
	c := g.cs.byType[t]
	edges := c.edges
	if g.p.Limits.Depth < 1 {
		edges = nil
	}
	if len(edges) > 0 && !g.o.HaveLoop && g.cs.deep(edges) {
		return missing("unsupported: needs bpf_loop (Linux 5.17)")
	}
	var reads uint64
	// failing has code set the bit of a read, at off in the value, if it can't be done.
	failing := func(off, n int, read func(failed string)) {
		bit := min(*bits, 63)
		*bits++
		reads |= 1 << bit
		out.Reads = append(out.Reads, record.Read{Off: off, Size: n, Bit: bit})
		failed, done := g.label("failed"), g.label("done")
		read(failed)
		f.jump(done)
		f.place(failed)
		f.load(r1, r7, image+record.OffFailed, u64)
		f.imm(r2, 1<<bit)
		f.emit(asm.Or.Reg(r1, r2))
		f.store(r7, image+record.OffFailed, r1, u64)
		f.place(done)
	}
	if x.Addr != nil {
		failing(0, size, func(failed string) {
			g.scalar(x.Addr)
			f.mov(r3, r0)
			g.addr(r1, at)
			f.imm(r2, int64(size))
			f.helper(g.o.read())
			f.emit(asm.JNE.Imm(r0, 0, failed))
		})
	} else {
		if g.item == nil || x.Root >= len(g.item.Values) {
			g.fail("value %d is not bound", x.Root)
			return out
		}
		v := &g.item.Values[x.Root]
		p.own = p.own || v.OwnFrame && len(edges) > 0
		lo, end, have := int(x.Off), int(x.Off)+size, int(x.Off)
		hole := func(to int, why string) {
			if to > have {
				out.Holes = append(out.Holes, debugfmt.Hole{Off: have - lo, Size: to - have, Why: why})
			}
			have = max(have, to)
		}
		pl := planner{opts: g.o}
		got := false
		for _, q := range v.Place.Pieces {
			from, to := max(lo, q.Offset), min(end, q.Offset+q.Size)
			if from >= to || from < have {
				continue
			}
			hole(from, location.OptimizedOut)
			if why := pl.problem(q); why != "" {
				hole(to, why)
				continue
			}
			have, got = to, true
			if q.Kind == location.Memory || mayFail(q.Expr, true) {
				failing(from-lo, to-from, func(failed string) { g.pieceInto(q, from-q.Offset, to-from, at+from-lo, failed) })
			} else {
				g.pieceInto(q, from-q.Offset, to-from, at+from-lo, g.end)
			}
		}
		hole(end, location.OptimizedOut)
		if !got {
			return missing(out.Holes[0].Why)
		}
	}
	pl := planner{limits: g.p.Limits, cs: g.cs, plan: *p}
	pl.root(root{off: off, class: c, reads: reads}, edges, size, out.Holes)
	*p = pl.plan
	return out
}

// deep completes a record in a slot: it is copied there, and its pointers are followed.
func (g *handler) deep(p *plan, image, size, bias int) {
	f := g.f
	g.lines++
	name := fmt.Sprintf("%s_emit%d", g.name, g.lines)
	f.mov(r1, r6)
	g.addr(r2, image)
	f.load(r3, r7, headIDs, u64)
	f.call(name)

	e := newFn(name, ptr("ctx"), ptr("image"), num("thread"))
	g.fns = append(g.fns, e)
	e.at = inSlot
	lost, full, out := e.newLabel("lost"), e.newLabel("full"), e.newLabel("out")
	e.mov(r6, r1)
	e.mov(r8, r2)
	e.mov(r1, r3)
	e.addImm(r1, 1) // never 0
	e.call(fnClaim)
	e.emit(asm.JEq.Imm(r0, 0, lost))
	e.mov(r7, r0)
	e.mov(r1, r7)
	e.addImm(r1, slotRecord)
	e.imm(r2, int64(size))
	e.mov(r3, r8)
	e.helper(asm.FnProbeReadKernel)
	if bias >= 0 {
		e.load(r1, r7, slotRecord+record.HeaderSize+bias, u64)
		e.store(r7, slotBias, r1, u64)
	} else {
		e.storeImm(r7, slotBias, 0, u64)
	}
	inner := generator{p: g.p, o: g.o, cs: g.cs, sizes: g.sizes}
	inner.roots(e, p, size)
	e.load(r3, r7, slotEnd, u32)
	e.emit(asm.JGT.Imm(r3, int32(g.sizes.record), full)) // never: for the verifier
	e.output()
	sent := e.newLabel("sent")
	e.emit(asm.JEq.Imm(r0, 0, sent))
	e.place(full)
	e.imm(r1, int64(runtime.EventNoRoom))
	e.call(fnFault)
	e.place(sent)
	e.storeImm(r7, slotBusy, 0, u64)
	e.jump(out)
	e.place(lost)
	e.imm(r1, int64(runtime.NoFrame))
	e.call(fnFault)
	e.place(out)
	e.exitWith(0)
	for _, r := range p.roots {
		g.edges = append(g.edges, r.edges...)
	}
}
