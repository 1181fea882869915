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
// the record, which is most of what a record costs beside the clock. What is not deep
// can do without: all that decides a record's size (the words of the values that say
// where their pointers lead, and whether) is put into the frame first, the size is
// computed, room reserved, and the rest written where it stays. Only what pointers
// lead to is read after that, for its size is known and it may be large. A read that
// fails leaves room unused at the end, so a record may be shorter than its room.
//
// A record that finds no room has cost no clock and no read of strings. The clock is
// read when the room is reserved: a ring's records are in order of time but for
// programs that interrupt each other.

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

// Frame of an item that builds its record in the ring, below what expressions use.
const (
	frameThread   = frameSaved - 8 // u32 pid, u32 tid, as in the record
	frameCFA      = frameSaved - 16
	frameRecFlags = frameSaved - 24
	frameFailed   = frameSaved - 32
	frameRecBias  = frameSaved - 40
	frameTop      = frameRecBias // below it the fixed part, then what extents are in use

	frameSize = 512 // MAX_BPF_STACK (kernel, include/linux/filter.h)
)

// flat says whether an item's record can be built in the ring: nothing hangs on what
// its pointers lead to, what is kept of it fits into the frame, and all that its
// pointers may lead to into a record.
func (g *generator) flat(p *plan) bool {
	n, most := 0, record.HeaderSize+p.fixed
	for _, r := range p.roots {
		if g.cs.deep(r.edges) {
			return false
		}
		for _, e := range r.edges {
			_, size, count := g.extent(e)
			if count == 0 {
				return false
			}
			n++
			most += record.RegionSize + align8(int(size*count))
		}
	}
	return frameSize+frameTop >= align8(p.fixed)+8*n && most <= g.sizes.record
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
	return class, extent & (extentScan - 1), extent >> extentMaxShift
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

// reserveBody makes the record of p; r6 is the context. Once the room is there r8 is
// the record, r7 the place of the next region, and r9 that region's size.
func (g *generator) reserveBody(f *fn, p *plan) {
	done, lost := f.newLabel("done"), f.newLabel("lost")
	f.at = home{
		base: r10, thread: frameThread, cfa: frameCFA, flags: frameRecFlags, failed: frameFailed, bias: frameRecBias,
		values: frameTop - align8(p.fixed),
	}
	if p.cond >= 0 {
		f.unless(p.cond, r6, done)
	}
	g.thread(f, done)
	f.mov(r1, r7)
	f.emit(asm.LSh.Imm(r1, 32), asm.RSh.Imm(r7, 32), asm.Or.Reg(r7, r1))
	f.store(r10, frameThread, r7, u64)
	if p.static {
		g.bias(f, done)
	}
	flags, fails := p.cfaBad || g.p.PIDNamespace != nil, false
	for _, o := range p.ops {
		fails = fails || o.bit >= 0
	}
	if g.p.PIDNamespace != nil {
		f.load(r1, r10, frameFlags, u64)
		f.store(r10, frameRecFlags, r1, u64)
	} else if flags {
		f.storeImm(r10, frameRecFlags, 0, u64)
	}
	if fails {
		f.storeImm(r10, frameFailed, 0, u64)
	}
	g.cfa(f, p)
	g.save(f, p)
	for _, o := range p.ops {
		g.piece(f, p, o)
	}

	var edges []edgeAt
	f.imm(r9, int64(record.HeaderSize+p.fixed))
	for _, r := range p.roots {
		first := len(edges)
		for _, e := range r.edges {
			edges = append(edges, edgeAt{e, f.at.values + r.off, f.at.values - 8*(len(edges)+1)})
		}
		g.measure(f, p, r, edges[first:])
	}

	f.loadMap(r1, runtime.MapEvents)
	f.mov(r2, r9)
	f.imm(r3, 0)
	f.helper(asm.FnRingbufReserve)
	f.emit(asm.JEq.Imm(r0, 0, lost))
	f.mov(r8, r0)

	f.storeImm(r8, record.OffVersion, int64(record.Version|g.number<<16), u32)
	f.store(r8, record.OffLength, r9, u32)
	f.mov(r1, r6)
	f.helper(asm.FnGetAttachCookie)
	f.store(r8, record.OffCookie, r0, u64)
	f.load(r1, r10, frameThread, u64)
	f.store(r8, record.OffPID, r1, u64)
	f.helper(asm.FnKtimeGetNs)
	f.store(r8, record.OffTime, r0, u64)
	f.load(r1, r10, frameCFA, u64)
	f.store(r8, record.OffCFA, r1, u64)
	f.mov(r1, r8)
	f.addImm(r1, record.OffComm)
	f.imm(r2, 16)
	f.helper(asm.FnGetCurrentComm)
	f.storeImm(r8, record.OffItem, int64(p.item), u64) // and flags, regions
	if flags {
		f.load(r1, r10, frameRecFlags, u64)
		f.store(r8, record.OffFlags, r1, u16)
	}
	if fails {
		f.load(r1, r10, frameFailed, u64)
		f.store(r8, record.OffFailed, r1, u64)
	} else {
		f.storeImm(r8, record.OffFailed, 0, u64)
	}
	for off := 0; off < p.fixed; off += 8 {
		f.load(r1, r10, f.at.values+off, u64)
		f.store(r8, record.HeaderSize+off, r1, u64)
	}
	if len(edges) > 0 {
		f.mov(r7, r8)
		f.addImm(r7, int32(record.HeaderSize+p.fixed))
		for _, e := range edges {
			g.region(f, p, e)
		}
	}
	f.mov(r1, r8)
	f.imm(r2, 0)
	f.helper(asm.FnRingbufSubmit)
	f.jump(done)

	f.place(lost)
	f.imm(r1, int64(counter(p.kind, true)))
	f.call(fnLose)
	f.place(done)
}

// bias computes the load bias of the probe's file.
func (g *generator) bias(f *fn, out string) {
	f.mov(r1, r6)
	f.helper(asm.FnGetAttachCookie)
	f.mov(r1, r0)
	f.lookup(mapSites)
	f.emit(asm.JEq.Imm(r0, 0, out))
	f.load(r1, r0, siteAddr, u64)
	f.load(r2, r6, offIP, u64)
	f.emit(asm.Sub.Reg(r2, r1))
	f.store(r10, frameRecBias, r2, u64)
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
	// What is below the stack pointer may be a leaf's red zone (psABI 3.2.2).
	f.load(r1, r6, regOffset[location.RSP], u64)
	f.addImm(r1, -128)
	f.emit(asm.JLT.Reg(r2, r1, outside))
	f.load(r1, r10, frameCFA, u64)
	if p.cfaBad {
		known := f.newLabel("known")
		f.emit(asm.JNE.Imm(r1, 0, known))
		f.imm(r1, -1)
		f.place(known)
	}
	f.emit(asm.JGE.Reg(r2, r1, outside))
	f.imm(r3, record.RegionSize)
	f.place(outside)
}

// region writes the region of e at r7, if there is one, and moves r7 and the record's length on.
func (g *generator) region(f *fn, p *plan, e edgeAt) {
	next, read, end := f.newLabel("next"), f.newLabel("read"), f.newLabel("end")
	class, _, _ := g.extent(e.Edge)
	f.load(r9, r10, e.size, u64)
	f.emit(asm.JEq.Imm(r9, 0, next))
	f.storeImm(r7, record.RegionClass, class, u32)
	f.addImm(r9, -record.RegionSize)
	f.store(r7, record.RegionLength, r9, u32)
	f.load(r3, r10, e.value+int(e.Ptr), u64)
	f.store(r7, record.RegionAddress, r3, u64)
	if e.Len >= 0 {
		f.load(r1, r10, e.value+int(e.Len), u64)
		f.store(r7, record.RegionCount, r1, u64)
	} else {
		f.storeImm(r7, record.RegionCount, 1, u64)
	}
	f.storeImm(r7, record.RegionStatus, record.StatusOK, u64)
	f.load(r1, r8, record.OffRegions, u32)
	f.addImm(r1, 1)
	f.store(r8, record.OffRegions, r1, u32)
	if p.own {
		f.emit(asm.JNE.Imm(r9, 0, read))
		f.storeImm(r7, record.RegionStatus, record.StatusOwnFrame, u32)
		f.jump(end)
		f.place(read)
	}
	f.mov(r1, r7)
	f.addImm(r1, record.RegionSize)
	f.mov(r2, r9)
	f.helper(g.o.read())
	f.emit(asm.JEq.Imm(r0, 0, end))
	// The room stays unused behind the record's end: its length shrinks.
	f.load(r1, r8, record.OffLength, u32)
	f.addImm(r9, 7)
	f.emit(asm.And.Imm(r9, -8), asm.Sub.Reg(r1, r9))
	f.store(r8, record.OffLength, r1, u32)
	f.storeImm(r7, record.RegionLength, 0, u32)
	f.storeImm(r7, record.RegionStatus, record.StatusUnreadable, u32)
	f.imm(r9, 0)
	f.place(end)
	f.addImm(r9, record.RegionSize+7)
	f.emit(asm.And.Imm(r9, -8), asm.Add.Reg(r7, r9))
	f.place(next)
}
