package codegen

import (
	"fmt"
	"slices"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// generator makes the program of one shape.
type generator struct {
	c      *Compiled
	p      *program.Program
	o      Options
	cs     *classes
	sizes  sizes
	number int
	shape  *shape

	counts  []plan
	items   []plan
	records bool
	static  bool
	reserve bool // records are built in the ring
}

// program emits the main function and those that it needs.
func (g *generator) program() (asm.Instructions, error) {
	var edges []types.Edge
	for _, p := range g.shape.plans {
		if p.count {
			g.counts = append(g.counts, p)
			continue
		}
		g.items = append(g.items, p)
		g.static = g.static || p.static
		for _, r := range p.roots {
			edges = append(edges, r.edges...)
		}
	}
	g.records = len(g.items) > 0

	g.reserve = g.o.Reserve && g.allFlat()

	fns := []*fn{g.main()}
	for i := range g.items {
		if g.reserve {
			fns = append(fns, g.reserveItem(&g.items[i]))
		} else {
			fns = append(fns, g.item(&g.items[i]))
		}
	}
	for i := range g.items {
		if p := &g.items[i]; p.where != nil {
			h := g.decider(p)
			if err := h.build(); err != nil {
				return nil, err
			}
			fns = append(fns, h.fns...)
		}
	}
	fns = append(fns, claim(fnClaim, runtime.MapScratch), claim(fnFrame, runtime.MapFrames), adder(fnLose, runtime.MapCounters), adder(fnFault, runtime.MapFaults))
	return join(append(fns, walkers(edges, g.cs, g.sizes, g.o)...))
}

// walkers are the functions that follow pointers, which begin with the given edges.
func walkers(edges []types.Edge, cs *classes, s sizes, o Options) []*fn {
	fns := []*fn{copyRegion(s, o), push(s), object(), walk(s)}
	var scans []scanFn
	for _, c := range cs.below(edges) {
		scans = append(scans, scanFn{c.id, fmt.Sprintf("scan_%d", c.id)})
	}
	fns = append(fns, step(s, scans))
	for _, sc := range scans {
		fns = append(fns, scan(sc.name, cs.list[sc.class].edges, cs, s))
	}
	return fns
}

// join puts the functions that the first one needs one after the other. The
// kernel takes none that is never called.
func join(fns []*fn) (asm.Instructions, error) {
	byName := make(map[string]*fn)
	for _, f := range fns {
		byName[f.name] = f
	}
	done := make(map[string]asm.Instructions)
	for todo := []*fn{fns[0]}; len(todo) > 0; todo = todo[1:] {
		f := todo[0]
		if done[f.name] != nil {
			continue
		}
		ins, err := f.finish()
		if err != nil {
			return nil, err
		}
		done[f.name] = ins
		for i := range ins {
			if ins[i].IsFunctionReference() {
				todo = append(todo, byName[ins[i].Reference()])
			}
		}
	}
	var all asm.Instructions
	for _, f := range fns {
		all = append(all, done[f.name]...)
	}
	return all, nil
}

// Frame of the main function, below lookup's key.
const (
	frameIDs   = -16 // struct bpf_pidns_info {pid, tgid u32}
	frameFlags = -24 // flags of all records
	frameBias  = -32
)

// main is what the probe runs. r6 is the context, r7 the pid_tgid, r8 the cookie,
// r9 first the site and then the slot.
func (g *generator) main() *fn {
	f := newFn(g.shape.name, ptr("ctx"))
	f.linkage = btf.GlobalFunc
	out, lost := f.newLabel("out"), f.newLabel("lost")
	f.mov(r6, r1)
	inSlots := g.records && !g.reserve
	if g.p.Filter || inSlots {
		g.thread(f, out)
	}
	if g.p.Filter {
		f.mov(r1, r7)
		f.emit(asm.RSh.Imm(r1, 32))
		f.lookup(runtime.MapTargets)
		f.emit(asm.JEq.Imm(r0, 0, out))
	}
	if len(g.counts) > 0 || inSlots {
		if g.p.Filter || inSlots {
			f.mov(r1, r6)
		}
		f.helper(asm.FnGetAttachCookie)
	}
	if inSlots {
		f.mov(r8, r0)
	}
	if len(g.counts) > 0 || inSlots && g.static {
		f.mov(r1, r0)
		f.lookup(mapSites)
		f.emit(asm.JEq.Imm(r0, 0, out))
		f.mov(r9, r0)
		g.count(f)
	}
	switch {
	case inSlots:
		g.emitRecords(f, lost)
	case g.records:
		g.reserveRecords(f)
	}
	f.place(out)
	f.exitWith(0)
	return f
}

// thread leaves the pid_tgid in r7, and at frameFlags the flags of records. A
// thread that has no pid in the tracer's namespace is no target.
func (g *generator) thread(f *fn, out string) {
	ns := g.p.PIDNamespace
	if ns == nil {
		f.helper(asm.FnGetCurrentPidTgid)
		f.mov(r7, r0)
		return
	}
	foreign, done := f.newLabel("foreign"), f.newLabel("done")
	f.storeImm(r10, frameFlags, 0, u64)
	f.storeImm(r10, frameIDs, 0, u64)
	// The kernel's dev_t is not what stat gives to programs.
	f.imm(r1, int64(unix.Major(ns.Dev))<<20|int64(unix.Minor(ns.Dev)))
	f.imm(r2, int64(ns.Ino))
	f.mov(r3, r10)
	f.addImm(r3, frameIDs)
	f.imm(r4, 8)
	f.helper(asm.FnGetNsCurrentPidTgid)
	if g.p.Filter {
		f.emit(asm.JNE.Imm(r0, 0, out))
	} else {
		f.emit(asm.JNE.Imm(r0, 0, foreign))
	}
	f.load(r7, r10, frameIDs+4, u32)
	f.emit(asm.LSh.Imm(r7, 32))
	f.load(r1, r10, frameIDs, u32)
	f.emit(asm.Or.Reg(r7, r1))
	if !g.p.Filter {
		f.jump(done)
		f.place(foreign)
		f.storeImm(r10, frameFlags, record.FlagForeign, u64)
		f.helper(asm.FnGetCurrentPidTgid)
		f.mov(r7, r0)
		f.place(done)
	}
}

// count adds to the counters of the site at r9.
func (g *generator) count(f *fn) {
	for i, p := range g.counts {
		skip := f.newLabel("skip")
		if p.cond >= 0 {
			f.unless(p.cond, r6, skip)
		}
		if i == 0 {
			f.load(r1, r9, siteCount, u32)
		} else {
			f.load(r1, r9, siteMore, u32)
			f.addImm(r1, int32(i-1))
			f.lookup(mapIndices)
			f.emit(asm.JEq.Imm(r0, 0, skip))
			f.load(r1, r0, 0, u32)
		}
		f.lookup(runtime.MapCounts)
		f.emit(asm.JEq.Imm(r0, 0, skip))
		f.add1(r0)
		f.place(skip)
	}
}

// emitRecords claims a slot, fills in what all records of the hit have in common,
// and lets each item make its own. Without a slot each record is counted as lost.
func (g *generator) emitRecords(f *fn, lost string) {
	end := f.newLabel("end")
	if g.static {
		f.load(r1, r9, siteAddr, u64)
		f.load(r2, r6, offIP, u64)
		f.emit(asm.Sub.Reg(r2, r1))
		f.store(r10, frameBias, r2, u64)
	}
	f.mov(r1, r7)
	f.call(fnClaim)
	f.emit(asm.JEq.Imm(r0, 0, lost))
	f.mov(r9, r0)
	f.storeImm(r9, slotRecord+record.OffVersion, int64(record.Version|g.number<<16), u32)
	f.store(r9, slotRecord+record.OffCookie, r8, u64)
	f.store(r9, slotRecord+record.OffTID, r7, u32)
	f.emit(asm.RSh.Imm(r7, 32))
	f.store(r9, slotRecord+record.OffPID, r7, u32)
	f.helper(asm.FnKtimeGetNs)
	f.store(r9, slotRecord+record.OffTime, r0, u64)
	f.mov(r1, r9)
	f.addImm(r1, slotRecord+record.OffComm)
	f.imm(r2, 16)
	f.helper(asm.FnGetCurrentComm)
	g.flags(f)
	if g.static {
		f.load(r1, r10, frameBias, u64)
		f.store(r9, slotBias, r1, u64)
	}
	for i := range g.items {
		p := &g.items[i]
		var skip string
		if p.where != nil {
			skip = f.newLabel("skip")
			if p.cond >= 0 {
				f.unless(p.cond, r6, skip)
			}
			g.decide(f, p, skip, r9, slotFlags)
		}
		f.mov(r1, r6)
		f.mov(r2, r9)
		f.call(itemName(p))
		if p.mark {
			g.flags(f)
		}
		if p.where != nil {
			f.place(skip)
		}
	}
	f.storeImm(r9, slotBusy, 0, u64)
	f.jump(end)

	f.place(lost)
	for _, p := range g.items {
		skip := f.newLabel("skip")
		if p.cond >= 0 {
			f.unless(p.cond, r6, skip)
		}
		f.imm(r1, int64(counter(p.kind, false)))
		f.call(fnLose)
		f.place(skip)
	}
	f.place(end)
}

// flags stores what the flags of each record are to begin with.
func (g *generator) flags(f *fn) {
	switch {
	case g.p.PIDNamespace != nil:
		f.load(r1, r10, frameFlags, u64)
		f.store(r9, slotFlags, r1, u32)
	case slices.ContainsFunc(g.items, func(p plan) bool { return p.mark }):
		f.storeImm(r9, slotFlags, 0, u32)
	}
}

func itemName(p *plan) string { return fmt.Sprintf("item_%d", p.item) }

// item makes one record.
func (g *generator) item(p *plan) *fn {
	f := newFn(itemName(p), ptr("ctx"), ptr("slot"))
	f.at = inSlot
	done, lost := f.newLabel("done"), f.newLabel("lost")
	f.mov(r6, r1)
	f.mov(r7, r2)
	if p.cond >= 0 {
		f.unless(p.cond, r6, done)
	}
	f.storeImm(r7, slotRecord+record.OffItem, int64(p.item), u64) // and flags, regions
	if g.p.PIDNamespace != nil || p.mark {
		f.load(r1, r7, slotFlags, u32)
		f.store(r7, slotRecord+record.OffFlags, r1, u16)
	}
	f.storeImm(r7, slotRecord+record.OffFailed, 0, u64)
	g.cfa(f, p)
	g.save(f, p)
	for _, o := range p.ops {
		g.piece(f, p, o)
	}
	end := record.HeaderSize + p.fixed
	f.imm(r3, int64(end))
	if len(p.roots) > 0 {
		g.roots(f, p, end)
		f.load(r3, r7, slotEnd, u32)
		f.emit(asm.JGT.Imm(r3, int32(g.sizes.record), lost)) // never: for the verifier
	}
	f.output()
	f.emit(asm.JEq.Imm(r0, 0, done))
	f.place(lost)
	f.imm(r1, int64(counter(p.kind, true)))
	f.call(fnLose)
	f.place(done)
	f.exitWith(0)
	return f
}

// output hands over the record in the slot at r7, whose length is in r3.
func (f *fn) output() {
	f.store(r7, slotRecord+record.OffLength, r3, u32)
	f.mov(r2, r7)
	f.addImm(r2, slotRecord)
	f.loadMap(r1, runtime.MapEvents)
	f.imm(r4, 0)
	f.helper(asm.FnRingbufOutput)
}

// cfa stores the canonical frame address, or 0 and a flag.
func (g *generator) cfa(f *fn, p *plan) {
	none, done := f.newLabel("none"), f.newLabel("done")
	if p.cfa != nil {
		f.expr(p.cfa, g.o, false, none)
		f.store(f.at.base, f.at.cfa, r8, u64)
		if !p.cfaBad {
			return
		}
		f.jump(done)
	}
	f.place(none)
	f.storeImm(f.at.base, f.at.cfa, 0, u64)
	f.load(r1, f.at.base, f.at.flags, u16)
	f.emit(asm.Or.Imm(r1, record.FlagNoCFA))
	f.store(f.at.base, f.at.flags, r1, u16)
	f.place(done)
}

// save keeps a word for the exits of the call. If there is no room for it, or if it
// can't be had, they will not find it and say so.
func (g *generator) save(f *fn, p *plan) {
	if p.save == nil {
		return
	}
	failed := f.newLabel("unsaved")
	f.expr(p.save, g.o, p.cfaBad, failed)
	f.store(r10, frameSaved, r8, u64)
	f.savedKey()
	f.mov(r2, r10)
	f.addImm(r2, frameKey)
	f.mov(r3, r10)
	f.addImm(r3, frameSaved)
	f.imm(r4, 0)
	f.loadMap(r1, mapSaved)
	f.helper(asm.FnMapUpdateElem)
	f.place(failed)
}

// piece puts one piece into the fixed part.
func (g *generator) piece(f *fn, p *plan, o op) {
	at := f.at.values + o.off
	failed, done := f.newLabel("failed"), f.newLabel("done")
	switch o.Kind {
	case location.Register:
		if o.Reg.IsXMM() {
			reg := g.o.XMM + 16*int(o.Reg-location.XMM0)
			for i := 0; i < o.Size; i += 8 {
				f.load(r8, r6, reg+i, u64)
				f.storeLow(at+i, min(8, o.Size-i))
			}
			return
		}
		f.load(r8, r6, regOffset[o.Reg], u64)
		f.storeLow(at, o.Size)
		return
	case location.Constant:
		for i := 0; i < o.Size; i += 8 {
			var v uint64
			n := min(8, o.Size-i)
			for j, b := range o.Bytes[i : i+n] {
				v |= uint64(b) << (8 * j)
			}
			f.imm(r8, int64(v))
			f.storeLow(at+i, n)
		}
		return
	case location.Value:
		f.expr(o.Expr, g.o, p.cfaBad, failed)
		f.storeLow(at, o.Size)
		if o.bit < 0 {
			return
		}
		f.jump(done)
	case location.Memory:
		f.expr(o.Expr, g.o, p.cfaBad, failed)
		f.mov(r1, f.at.base)
		f.addImm(r1, int32(at))
		f.imm(r2, int64(o.Size))
		f.mov(r3, r8)
		f.helper(g.o.read())
		f.emit(asm.JEq.Imm(r0, 0, done))
	}
	f.place(failed)
	f.load(r1, f.at.base, f.at.failed, u64)
	f.imm(r2, 1<<o.bit)
	f.emit(asm.Or.Reg(r1, r2))
	f.store(f.at.base, f.at.failed, r1, u64)
	f.place(done)
}

// storeLow stores the low n bytes of r8 at an offset of where values are kept; r8 is
// destroyed.
func (f *fn) storeLow(at, n int) {
	for _, size := range []asm.Size{u64, u32, u16, u8} {
		k := size.Sizeof()
		if n < k {
			continue
		}
		f.store(f.at.base, at, r8, size)
		if n -= k; n == 0 {
			return
		}
		f.emit(asm.RSh.Imm(r8, int32(8*k)))
		at += k
	}
}

// frameLow makes r1 the lower end of the function's own frame. What is below the stack
// pointer may be a leaf's red zone (psABI 3.2.2).
func (f *fn) frameLow() {
	f.load(r1, r6, regOffset[location.RSP], u64)
	f.addImm(r1, -128)
}

// frameHigh makes r1 the upper end, the CFA that h has; all addresses are below it if it
// is not known.
func (f *fn) frameHigh(p *plan, h home) {
	f.load(r1, h.base, h.cfa, u64)
	if p.cfaBad {
		known := f.newLabel("known")
		f.emit(asm.JNE.Imm(r1, 0, known))
		f.imm(r1, -1)
		f.place(known)
	}
}

// roots follows the values' pointers; end is where regions begin.
func (g *generator) roots(f *fn, p *plan, end int) {
	f.storeImm(r7, slotEnd, int64(end), u32)
	f.storeImm(r7, slotLow, 0, u64)
	f.storeImm(r7, slotHigh, 0, u64)
	if p.own {
		f.frameLow()
		f.store(r7, slotLow, r1, u64)
		f.frameHigh(p, inSlot)
		f.store(r7, slotHigh, r1, u64)
	}
	deep := false
	for _, r := range p.roots {
		deep = deep || g.cs.deep(r.edges)
	}
	if deep {
		f.storeImm(r7, slotHead, 0, u64) // and slotTail
		f.storeImm(r7, slotLeft, 0, u32)
		f.storeImm(r7, slotDepth, 1, u32)
	}
	for _, r := range p.roots {
		skip := f.newLabel("skip")
		if r.reads != 0 {
			f.load(r1, r7, slotRecord+record.OffFailed, u64)
			f.imm(r2, int64(r.reads))
			f.emit(asm.JSet.Reg(r1, r2, skip))
		}
		for _, e := range r.edges {
			to := fnCopy
			if c := g.cs.byType[e.Elem]; c.scanned() || c.object {
				to = fnPush
			}
			f.follow(e, r7, r7, slotRecord+record.HeaderSize+r.off, to, g.cs, g.sizes)
		}
		f.place(skip)
	}
	if deep {
		f.load(r1, r7, slotKey, u32)
		f.call(fnWalk)
	}
}
