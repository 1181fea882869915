package codegen

import (
	"math/bits"

	"ferrotrace/internal/location"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf/asm"
)

// Records built in the ring. A scratch slot costs an atomic exchange and a copy of
// the record, 11 ns of 39 for an entry with a &str. What is not deep can do without.
// What decides the record's size (the values that pointers are followed from) is
// evaluated in the frame, its size is computed, room reserved, and all the rest is
// written where it stays. A read that fails leaves room unused at the end: a record
// may be shorter than its room.
//
// A record that finds no room has cost neither clock nor reads of what pointers lead
// to. The clock is read last.

// home is where an item keeps what it evaluates, as offsets from a base.
type home struct {
	base                             asm.Register
	thread, cfa, flags, failed, bias int
	values                           int // the fixed part
}

var inSlot = home{
	base: r7, thread: slotRecord + record.OffPID, cfa: slotRecord + record.OffCFA, flags: slotRecord + record.OffFlags,
	failed: slotRecord + record.OffFailed, bias: slotBias, values: slotRecord + record.HeaderSize,
}

// inRing is a record that is being written in place.
var inRing = home{
	base: r9, thread: record.OffPID, cfa: record.OffCFA, flags: record.OffFlags, failed: record.OffFailed,
	values: record.HeaderSize,
}

// Frame of an item that builds its record in the ring, below what expressions use.
const (
	frameThread    = frameSaved - 8 // u32 pid, u32 tid, as in the record
	frameCFA       = frameSaved - 16
	frameRecFlags  = frameSaved - 24
	frameFailed    = frameSaved - 32
	frameBiasKept  = frameSaved - 40
	frameEvaluated = frameBiasKept // below it the values, then what their regions take

	frameSize = 512 // MAX_BPF_STACK (kernel, include/linux/filter.h)
)

// inFrame has values at their offsets in the fixed part, from its end down.
func inFrame(fixed int) home {
	return home{
		base: r10, thread: frameThread, cfa: frameCFA, flags: frameRecFlags, failed: frameFailed, bias: frameBiasKept,
		values: frameEvaluated - fixed,
	}
}

// early is what of an item must be evaluated before there is room.
type early struct {
	spans       []bool // by plan.spans
	thread, cfa bool
	flags       bool // the record's flags may be other than 0 by then
	fails       bool // some of the values may
	bytes       int  // of the frame, for values
}

// early says what decides the record's size, and what is to be done though there be
// no room: an exit's saved word is taken in any case, lest a later call find it.
func (p *plan) early() early {
	e := early{spans: make([]bool, len(p.spans)), thread: p.save != nil, cfa: p.save != nil || p.own || p.cfa.Uses(location.OpStatic)}
	for i, s := range p.spans {
		for _, r := range p.roots {
			e.spans[i] = e.spans[i] || r.off == s.off
		}
		ops := p.ops[s.first:s.end]
		for _, o := range ops {
			e.spans[i] = e.spans[i] || o.Expr.Uses(location.OpSaved) || o.Expr.Uses(location.OpStatic)
		}
		if !e.spans[i] {
			continue
		}
		e.bytes = p.fixed
		for _, o := range ops {
			saved := o.Expr.Uses(location.OpSaved)
			e.thread = e.thread || saved
			e.cfa = e.cfa || saved || o.Expr.Uses(location.OpCFA)
			e.fails = e.fails || o.bit >= 0
		}
	}
	return e
}

// flat says whether an item's record can be built in the ring: nothing hangs on what
// its pointers lead to, what has to be evaluated early fits into the frame, and all
// that its pointers may lead to into a record.
func (g *generator) flat(p *plan) bool {
	n, code, most := 0, 0, record.HeaderSize+p.fixed
	for _, r := range p.roots {
		if g.cs.deep(r.edges) {
			return false
		}
		for _, e := range r.edges {
			_, size, count := g.extent(e)
			if count == 0 || !e.Plain() {
				return false
			}
			n++
			code += cost(e)
			most += record.RegionSize + align8(int(size*count))
		}
	}
	// Half of what a slot's item may be long, since main may hold it.
	return p.early().bytes+8*n <= frameSize+frameEvaluated && code <= maxRootCost/2 && most <= g.sizes.record
}

func (g *generator) allFlat() bool {
	for i := range g.items {
		if !g.flat(&g.items[i]) {
			return false
		}
	}
	return true
}

// extent is the class of what an edge leads to, the size of one element and how many
// of them are read at most.
func (g *generator) extent(e types.Edge) (class, size, count int64) {
	class, extent := g.cs.target(e, g.sizes)
	return class, extent & extentSize, extent >> extentMaxShift
}

// reserveRecords makes the records of a hit.
func (g *generator) reserveRecords(f *fn) {
	if len(g.items) == 1 {
		g.reserveBody(f, &g.items[0])
		return
	}
	for i := range g.items {
		f.mov(r1, r6)
		f.call(itemName(&g.items[i]))
	}
}

// reserveItem makes one of several records.
func (g *generator) reserveItem(p *plan) *fn {
	f := newFn(itemName(p), ptr("ctx"))
	f.mov(r6, r1)
	g.reserveBody(f, p)
	f.exitWith(0)
	return f
}

// edgeAt is an edge, where its value is in the frame, and where the size of its region is
// kept: 0 if it has none, else that of the header and the bytes, without padding.
type edgeAt struct {
	types.Edge
	value, size int
}

// reserveBody makes the record of p; r6 is the context. At first r9 is the record's
// size. Once there is room it is the record, r7 the place of the next region.
func (g *generator) reserveBody(f *fn, p *plan) {
	done, lost := f.newLabel("done"), f.newLabel("lost")
	if p.cond >= 0 {
		f.unless(p.cond, r6, done)
	}
	e := p.early()
	e.thread = e.thread || g.p.PIDNamespace != nil
	e.flags = e.cfa && p.cfaBad || g.p.PIDNamespace != nil || p.mark
	if !p.mark {
		g.decide(f, p, done, r10, 0)
	}
	g.evaluate(f, p, e, done)
	if p.mark {
		g.decide(f, p, done, r10, frameRecFlags)
	}
	var edges []edgeAt
	f.imm(r9, int64(record.HeaderSize+p.fixed))
	for _, r := range p.roots {
		first := len(edges)
		for _, edge := range r.edges {
			edges = append(edges, edgeAt{edge, f.at.values + r.off, f.at.values - 8*(len(edges)+1)})
		}
		g.measure(f, p, r, edges[first:])
	}

	f.loadMap(r1, runtime.MapEvents)
	f.mov(r2, r9)
	f.imm(r3, 0)
	f.helper(asm.FnRingbufReserve)
	f.emit(asm.JEq.Imm(r0, 0, lost))
	f.store(r0, record.OffLength, r9, u32)
	f.mov(r9, r0)
	g.fill(f, p, e)
	if len(edges) > 0 {
		f.mov(r7, r9)
		f.addImm(r7, int32(record.HeaderSize+p.fixed))
		for _, edge := range edges {
			g.region(f, p, edge)
		}
	}
	// Reading the counter right behind an exchange takes 6 ns more than here.
	f.helper(asm.FnKtimeGetNs)
	f.store(r9, record.OffTime, r0, u64)
	f.mov(r1, r9)
	f.imm(r2, 0)
	f.helper(asm.FnRingbufSubmit)
	f.jump(done)

	f.place(lost)
	f.imm(r1, int64(counter(p.kind, true)))
	f.call(fnLose)
	f.place(done)
}

// evaluate puts what is early into the frame.
func (g *generator) evaluate(f *fn, p *plan, e early, out string) {
	f.at = inFrame(p.fixed)
	if e.thread {
		g.thread(f, out)
		f.mov(r1, r7)
		f.emit(asm.LSh.Imm(r1, 32), asm.RSh.Imm(r7, 32), asm.Or.Reg(r7, r1))
		f.store(r10, frameThread, r7, u64)
	}
	switch {
	case g.p.PIDNamespace != nil:
		f.load(r1, r10, frameFlags, u64)
		f.store(r10, frameRecFlags, r1, u64)
	case e.flags:
		f.storeImm(r10, frameRecFlags, 0, u64)
	}
	if e.fails {
		f.storeImm(r10, frameFailed, 0, u64)
	}
	if p.static {
		f.bias(r10, frameBiasKept, out)
	}
	if e.cfa {
		g.cfa(f, p)
	}
	g.save(f, p)
	for i, s := range p.spans {
		if e.spans[i] {
			g.pieces(f, p, s)
		}
	}
}

// fill writes the header, but for the time, and the fixed part.
func (g *generator) fill(f *fn, p *plan, e early) {
	f.at = inRing
	f.storeImm(r9, record.OffVersion, int64(record.Version|g.number<<16), u32)
	f.mov(r1, r6)
	f.helper(asm.FnGetAttachCookie)
	f.store(r9, record.OffCookie, r0, u64)
	if e.thread {
		f.load(r1, r10, frameThread, u64)
		f.store(r9, record.OffPID, r1, u64)
	} else {
		f.helper(asm.FnGetCurrentPidTgid)
		f.store(r9, record.OffTID, r0, u32)
		f.emit(asm.RSh.Imm(r0, 32))
		f.store(r9, record.OffPID, r0, u32)
	}
	f.mov(r1, r9)
	f.addImm(r1, record.OffComm)
	f.imm(r2, 16)
	f.helper(asm.FnGetCurrentComm)
	f.storeImm(r9, record.OffItem, int64(p.item), u64) // and flags, regions
	if e.flags {
		f.load(r1, r10, frameRecFlags, u64)
		f.store(r9, record.OffFlags, r1, u16)
	}
	if e.fails {
		f.load(r1, r10, frameFailed, u64)
		f.store(r9, record.OffFailed, r1, u64)
	} else {
		f.storeImm(r9, record.OffFailed, 0, u64)
	}
	if e.cfa {
		f.load(r1, r10, frameCFA, u64)
		f.store(r9, record.OffCFA, r1, u64)
	} else {
		g.cfa(f, p)
	}
	for i, s := range p.spans {
		if !e.spans[i] {
			g.pieces(f, p, s)
			continue
		}
		for off := s.off; off < s.off+s.size; off += 8 {
			f.load(r1, r10, inFrame(p.fixed).values+off, u64)
			f.store(r9, record.HeaderSize+off, r1, u64)
		}
	}
}

func (g *generator) pieces(f *fn, p *plan, s span) {
	for _, o := range p.ops[s.first:s.end] {
		g.piece(f, p, o)
	}
}

// bias stores the load bias of the probe's file at base + off, or jumps to out.
func (f *fn) bias(base asm.Register, off int, out string) {
	f.mov(r1, r6)
	f.helper(asm.FnGetAttachCookie)
	f.mov(r1, r0)
	f.lookup(mapSites)
	f.emit(asm.JEq.Imm(r0, 0, out))
	f.load(r1, r0, siteAddr, u64)
	f.load(r2, r6, offIP, u64)
	f.emit(asm.Sub.Reg(r2, r1))
	f.store(base, off, r2, u64)
}

// measure adds to r9 the room for the regions of a root, and keeps their sizes.
func (g *generator) measure(f *fn, p *plan, r root, edges []edgeAt) {
	gone, done := f.newLabel("gone"), f.newLabel("done")
	if r.reads != 0 {
		f.load(r1, r10, frameFailed, u64)
		f.imm(r2, int64(r.reads))
		f.emit(asm.JSet.Reg(r1, r2, gone))
	}
	for _, e := range edges {
		none, measured := f.newLabel("none"), f.newLabel("measured")
		for _, guard := range e.Guards {
			f.guard(guard, r10, e.value, none)
		}
		_, size, count := g.extent(e.Edge)
		if e.Len >= 0 {
			fits := f.newLabel("fits")
			f.load(r3, r10, e.value+int(e.Len), u64)
			f.emit(asm.JEq.Imm(r3, 0, none)) // an empty collection's address dangles
			f.emit(asm.JLE.Imm(r3, int32(count), fits))
			f.imm(r3, count)
			f.place(fits)
			f.scale(r3, size)
			f.addImm(r3, record.RegionSize)
		} else {
			f.imm(r3, record.RegionSize+size)
		}
		if p.own {
			g.ownFrame(f, p, e)
		}
		f.store(r10, e.size, r3, u64)
		f.addImm(r3, 7)
		f.emit(asm.And.Imm(r3, -8), asm.Add.Reg(r9, r3))
		f.jump(measured)
		f.place(none)
		f.storeImm(r10, e.size, 0, u64)
		f.place(measured)
	}
	if r.reads == 0 {
		f.place(done)
		return
	}
	f.jump(done)
	f.place(gone)
	for _, e := range edges {
		f.storeImm(r10, e.size, 0, u64)
	}
	f.place(done)
}

// scale multiplies r by n, which is not 0.
func (f *fn) scale(r asm.Register, n int64) {
	switch {
	case n == 1:
	case n&(n-1) == 0:
		f.emit(asm.LSh.Imm(r, int32(bits.TrailingZeros64(uint64(n)))))
	default:
		f.emit(asm.Mul.Imm(r, int32(n)))
	}
}

// ownFrame makes r3 the size of a region without bytes if e's pointer leads into the
// function's own frame.
func (g *generator) ownFrame(f *fn, p *plan, e edgeAt) {
	outside := f.newLabel("outside")
	f.load(r2, r10, e.value+int(e.Ptr), u64)
	f.frameLow()
	f.emit(asm.JLT.Reg(r2, r1, outside))
	f.frameHigh(p, inFrame(p.fixed))
	f.emit(asm.JGE.Reg(r2, r1, outside))
	f.imm(r3, record.RegionSize)
	f.place(outside)
}

// region writes the region of e at r7, if it has one, and moves r7 behind it.
func (g *generator) region(f *fn, p *plan, e edgeAt) {
	next, read, end := f.newLabel("next"), f.newLabel("read"), f.newLabel("end")
	class, _, _ := g.extent(e.Edge)
	f.load(r8, r10, e.size, u64)
	f.emit(asm.JEq.Imm(r8, 0, next))
	f.storeImm(r7, record.RegionClass, class, u32)
	f.addImm(r8, -record.RegionSize)
	f.store(r7, record.RegionLength, r8, u32)
	f.load(r3, r10, e.value+int(e.Ptr), u64)
	f.store(r7, record.RegionAddress, r3, u64)
	if e.Len >= 0 {
		f.load(r1, r10, e.value+int(e.Len), u64)
		f.store(r7, record.RegionCount, r1, u64)
	} else {
		f.storeImm(r7, record.RegionCount, 1, u64)
	}
	f.storeImm(r7, record.RegionStatus, record.StatusOK, u64)
	f.load(r1, r9, record.OffRegions, u32)
	f.addImm(r1, 1)
	f.store(r9, record.OffRegions, r1, u32)
	if p.own {
		f.emit(asm.JNE.Imm(r8, 0, read))
		f.storeImm(r7, record.RegionStatus, record.StatusOwnFrame, u32)
		f.jump(end)
		f.place(read)
	}
	f.mov(r1, r7)
	f.addImm(r1, record.RegionSize)
	f.mov(r2, r8)
	f.helper(g.o.read())
	f.emit(asm.JEq.Imm(r0, 0, end))
	// Its room stays unused, behind the record's end.
	f.load(r1, r9, record.OffLength, u32)
	f.addImm(r8, 7)
	f.emit(asm.And.Imm(r8, -8), asm.Sub.Reg(r1, r8))
	f.store(r9, record.OffLength, r1, u32)
	f.storeImm(r7, record.RegionLength, 0, u32)
	f.storeImm(r7, record.RegionStatus, record.StatusUnreadable, u32)
	f.imm(r8, 0)
	f.place(end)
	f.addImm(r8, record.RegionSize+7)
	f.emit(asm.And.Imm(r8, -8), asm.Add.Reg(r7, r8))
	f.place(next)
}
