package codegen

import (
	"fmt"

	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// The walk over pointers. A value's own pointers are followed by straight code:
// where nothing hangs on the target it is copied at once, and else pushed to the
// list of pending pointers. Each step of one bounded loop then either copies the
// target of the next pending pointer, or scans one of its elements for pointers
// by a function of its class and pushes what is found. So nothing is nested and
// nothing is unrolled, and the verifier sees each function a few times at most.
// The list is a queue: a target is first met at its least depth.

// errTooLong says that a function's jumps would not reach.
var errTooLong = fmt.Errorf("more than %d instructions", maxJump)

// push adds a pointer to the list unless it is in it already.
func push(s sizes) *fn {
	f := newFn(fnPush, ptr("slot"), num("addr"), num("count"), num("class"), num("extent"))
	fresh, full, out := f.newLabel("fresh"), f.newLabel("full"), f.newLabel("out")

	// An empty collection's address dangles.
	f.emit(asm.JEq.Imm(r3, 0, out))
	// The depth in r9 is that of the target but for what its own pointers add.
	hop, deep := f.newLabel("hop"), f.newLabel("deep")
	f.load(r9, r1, slotDepth, u32)
	f.mov(r0, r5)
	f.emit(asm.And.Imm(r0, extentHop), asm.JNE.Imm(r0, 0, hop))
	f.emit(asm.And.Imm(r9, depthHop-1))
	f.emit(asm.JGT.Imm(r9, int32(min(s.limits.Depth, maxPending)), out))
	f.jump(deep)
	f.place(hop)
	f.addImm(r9, depthHop-1)
	f.emit(asm.JGE.Imm(r9, int32(min(s.limits.MaxItems+1, maxPending))*depthHop, out))
	f.place(deep)
	f.store(r1, slotPushed, r9, u32)

	// seen[hash] is an index that may be stale: only what it points to counts.
	f.mov(r6, r2)
	f.emit(asm.RSh.Imm(r6, 3), asm.Add.Reg(r6, r4))
	f.mov(r7, r2)
	f.emit(asm.RSh.Imm(r7, 12), asm.Xor.Reg(r6, r7))
	f.emit(asm.And.Imm(r6, maxPending-1), asm.LSh.Imm(r6, 1), asm.Add.Reg(r6, r1))
	f.load(r7, r6, slotSeen, u16)
	f.load(r8, r1, slotTail, u32)
	f.emit(asm.JGE.Reg(r7, r8, fresh))
	f.emit(asm.JGT.Imm(r7, maxPending-1, fresh))
	f.pending(s, r9, r1, r7)
	f.load(r0, r9, pendAddr, u64)
	f.emit(asm.JNE.Reg(r0, r2, fresh))
	f.load(r0, r9, pendCount, u64)
	f.emit(asm.JNE.Reg(r0, r3, fresh))
	f.load(r0, r9, pendClass, u32)
	f.emit(asm.JEq.Reg(r0, r4, out))

	f.place(fresh)
	f.emit(asm.JGT.Imm(r8, maxPending-1, full))
	f.store(r6, slotSeen, r8, u16)
	f.mov(r7, r8)
	f.pending(s, r9, r1, r7)
	f.store(r9, pendAddr, r2, u64)
	f.store(r9, pendCount, r3, u64)
	f.store(r9, pendClass, r4, u32)
	f.load(r0, r1, slotPushed, u32)
	f.store(r9, pendDepth, r0, u32)
	f.store(r9, pendExt, r5, u64)
	f.addImm(r8, 1)
	f.store(r1, slotTail, r8, u32)
	f.place(out)
	f.exitWith(0)

	f.place(full)
	f.flag(r1, r0, record.FlagExhausted)
	f.exitWith(0)
	return f
}

// pending leaves in dst the address of the pending pointer with the bounded
// index i, which it destroys.
func (f *fn) pending(s sizes, dst, slot, i asm.Register) {
	f.emit(asm.LSh.Imm(i, pendShift))
	f.mov(dst, slot)
	f.addImm(dst, int32(s.pending))
	f.emit(asm.Add.Reg(dst, i))
}

// flag sets a flag of the record; tmp is destroyed.
func (f *fn) flag(slot, tmp asm.Register, flag int32) {
	f.load(tmp, slot, slotRecord+record.OffFlags, u16)
	f.emit(asm.Or.Imm(tmp, flag))
	f.store(slot, slotRecord+record.OffFlags, tmp, u16)
}

// scan pushes the pointers of one element of a class, which is at off in the
// record.
func scan(name string, edges []types.Edge, cs *classes, s sizes) *fn {
	f := newFn(name, ptr("slot"), num("off"))
	out := f.newLabel("out")
	f.emit(asm.JGT.Imm(r2, int32(s.record), out))
	f.mov(r6, r1)
	f.mov(r7, r1)
	f.emit(asm.Add.Reg(r7, r2))
	f.addImm(r7, slotRecord)
	for _, e := range edges {
		f.follow(e, r6, r7, 0, fnPush, cs, s)
	}
	f.place(out)
	f.exitWith(0)
	return f
}

// follow passes the pointer of an edge, if it is alive, to fnPush or fnCopy. The
// value is at base + off.
func (f *fn) follow(e types.Edge, slot, base asm.Register, off int, to string, cs *classes, s sizes) {
	skip := f.newLabel("skip")
	for _, g := range e.Guards {
		f.guard(g, base, off, skip)
	}
	f.load(r2, base, off+int(e.Ptr), u64)
	if e.Len >= 0 {
		f.load(r3, base, off+int(e.Len), u64)
	} else {
		f.imm(r3, 1)
	}
	f.ring(e, base, off, skip)
	if e.Add != 0 {
		f.addImm(r2, int32(e.Add))
	}
	if cs.byType[e.Elem].table {
		f.addImm(r3, 1)
	}
	f.mov(r1, slot)
	if c := cs.byType[e.Elem]; c.object {
		f.imm(r4, int64(c.id))
		f.call(fnObject)
		f.place(skip)
		return
	}
	id, extent := cs.target(e, s)
	f.imm(r4, id)
	f.imm(r5, extent)
	f.call(to)
	f.place(skip)
}

// ring makes of the address and count of a ring in r2 and r3 those of one of its
// parts, or jumps to skip if that is empty.
func (f *fn) ring(e types.Edge, base asm.Register, off int, skip string) {
	if e.Part == types.NoRing {
		return
	}
	// r5 becomes the room behind the first element.
	f.load(r4, base, off+int(e.Head), u64)
	f.load(r5, base, off+int(e.Cap), u64)
	f.emit(asm.JGE.Reg(r4, r5, skip), asm.Sub.Reg(r5, r4))
	if e.Ends {
		// The elements up to the end, or first those up to the buffer's.
		ahead, counted := f.newLabel("ahead"), f.newLabel("counted")
		f.emit(asm.JGE.Reg(r3, r4, ahead))
		if e.Part == types.RingFirst {
			f.mov(r3, r5)
		}
		f.jump(counted)
		f.place(ahead)
		if e.Part == types.RingRest {
			f.jump(skip)
		}
		f.emit(asm.Sub.Reg(r3, r4))
		f.place(counted)
	} else if e.Part == types.RingRest {
		f.emit(asm.JLE.Reg(r3, r5, skip), asm.Sub.Reg(r3, r5))
	}
	if e.Part == types.RingRest {
		return
	}
	fits := f.newLabel("fits")
	f.emit(asm.JLE.Reg(r3, r5, fits))
	f.mov(r3, r5)
	f.place(fits)
	f.emit(asm.Mul.Imm(r4, int32(e.Elem.Size)), asm.Add.Reg(r2, r4))
}

// guard jumps to skip unless the guard holds for the value at base + off.
func (f *fn) guard(g types.Guard, base asm.Register, off int, skip string) {
	off += int(g.Off)
	hit := f.newLabel("hit")
	yes, no := hit, skip
	if g.Not {
		yes, no = skip, hit
	}
	for i, iv := range g.Want {
		next := f.newLabel("next")
		last := i == len(g.Want)-1
		miss := next
		if last {
			miss = no
		}
		if g.Size == 16 {
			f.between128(base, off, iv, miss)
		} else {
			f.load(r1, base, off, asmSize(g.Size))
			if g.Mask != 0 {
				f.emit(asm.And.Imm(r1, int32(g.Mask)))
			}
			f.between(iv, g.Size, miss)
		}
		if !last {
			f.jump(yes)
			f.place(next)
		} else if g.Not {
			f.jump(yes)
		}
	}
	if len(g.Want) == 0 {
		f.jump(no)
	}
	f.place(hit)
}

// between jumps to miss unless r1, which has size bytes, is in the interval.
func (f *fn) between(iv types.Interval, size int, miss string) {
	top := ^uint64(0) >> (64 - 8*size)
	switch {
	case iv.Lo.Hi != 0 || iv.Lo.Lo > top:
		f.jump(miss)
		return
	case iv.Lo == iv.Hi:
		f.cmp(asm.JNE, r1, iv.Lo.Lo, miss)
		return
	}
	if iv.Lo.Lo > 0 {
		f.cmp(asm.JLT, r1, iv.Lo.Lo, miss)
	}
	if iv.Hi.Hi == 0 && iv.Hi.Lo < top {
		f.cmp(asm.JGT, r1, iv.Hi.Lo, miss)
	}
}

// between128 is between for the 16 bytes at base + off.
func (f *fn) between128(base asm.Register, off int, iv types.Interval, miss string) {
	f.load(r1, base, off, u64)
	f.load(r3, base, off+8, u64)
	above, below := f.newLabel("above"), f.newLabel("below")
	f.cmp(asm.JGT, r3, iv.Lo.Hi, above)
	f.cmp(asm.JLT, r3, iv.Lo.Hi, miss)
	f.cmp(asm.JLT, r1, iv.Lo.Lo, miss)
	f.place(above)
	f.cmp(asm.JLT, r3, iv.Hi.Hi, below)
	f.cmp(asm.JGT, r3, iv.Hi.Hi, miss)
	f.cmp(asm.JGT, r1, iv.Hi.Lo, miss)
	f.place(below)
}

// cmp jumps if r op v; an immediate is sign-extended, so larger values go through
// r2.
func (f *fn) cmp(op asm.JumpOp, r asm.Register, v uint64, label string) {
	if v <= 1<<31-1 {
		f.emit(op.Imm(r, int32(v), label))
		return
	}
	f.imm(r2, int64(v))
	f.emit(op.Reg(r, r2, label))
}

func asmSize(n int) asm.Size {
	switch n {
	case 1:
		return u8
	case 2:
		return u16
	case 4:
		return u32
	}
	return u64
}

// copyRegion appends what is at addr to the record as a region, and makes its
// elements the next to be scanned if they hold pointers. It returns 1 if the
// record is full.
func copyRegion(s sizes, o Options) *fn {
	f := newFn(fnCopy, ptr("slot"), num("addr"), num("count"), num("class"), num("extent"))
	full, out, readIt := f.newLabel("full"), f.newLabel("out"), f.newLabel("read")
	most, fits, failed := f.newLabel("most"), f.newLabel("fits"), f.newLabel("failed")

	f.emit(asm.JEq.Imm(r3, 0, out))
	f.mov(r6, r1)
	f.mov(r8, r5)
	f.load(r9, r6, slotEnd, u32)
	f.emit(asm.JGT.Imm(r9, int32(s.record-record.RegionSize), full))
	f.mov(r7, r6)
	f.emit(asm.Add.Reg(r7, r9))
	f.addImm(r7, slotRecord)
	f.store(r7, record.RegionClass, r4, u32)
	f.storeImm(r7, record.RegionLength, 0, u32)
	f.store(r7, record.RegionAddress, r2, u64)
	f.store(r7, record.RegionCount, r3, u64)
	f.storeImm(r7, record.RegionStatus, record.StatusOK, u64)
	f.store(r6, slotClass, r4, u32)
	f.load(r1, r6, slotRecord+record.OffRegions, u32)
	f.addImm(r1, 1)
	f.store(r6, slotRecord+record.OffRegions, r1, u32)
	f.mov(r1, r9)
	f.addImm(r1, record.RegionSize)
	f.store(r6, slotEnd, r1, u32)

	f.load(r1, r6, slotLow, u64)
	f.emit(asm.JLT.Reg(r2, r1, readIt))
	f.load(r1, r6, slotHigh, u64)
	f.emit(asm.JGE.Reg(r2, r1, readIt))
	f.storeImm(r7, record.RegionStatus, record.StatusOwnFrame, u32)
	f.exitWith(0)

	// r3 becomes the number of bytes to read, in whole elements of r1 bytes, a bucket
	// of a hash table being one byte more.
	plain, whole, placed := f.newLabel("plain"), f.newLabel("whole"), f.newLabel("placed")
	f.place(readIt)
	f.mov(r1, r8)
	f.emit(asm.RSh.Imm(r1, extentMaxShift))
	f.emit(asm.JLE.Reg(r3, r1, most))
	f.mov(r3, r1)
	f.place(most)
	f.mov(r1, r8)
	f.emit(asm.And.Imm(r1, extentSize))
	f.mov(r4, r8)
	f.emit(asm.And.Imm(r4, extentTable), asm.JEq.Imm(r4, 0, plain))
	f.addImm(r1, 1)
	f.place(plain)
	f.emit(asm.Mul.Reg(r3, r1))
	f.imm(r4, int64(s.record-record.RegionSize))
	f.emit(asm.Sub.Reg(r4, r9))
	f.emit(asm.JLE.Reg(r3, r4, fits))
	f.emit(asm.Div.Reg(r4, r1), asm.Mul.Reg(r4, r1))
	f.mov(r3, r4)
	f.flag(r6, r1, record.FlagExhausted)
	f.place(fits)
	f.emit(asm.JGT.Imm(r3, int32(s.region), full))
	f.mov(r9, r3)
	// A table's buckets end where the address is.
	f.mov(r4, r8)
	f.emit(asm.And.Imm(r4, extentTable), asm.JEq.Imm(r4, 0, whole))
	f.emit(asm.Div.Reg(r3, r1))
	f.addImm(r1, -1)
	f.emit(asm.Mul.Reg(r3, r1), asm.Sub.Reg(r2, r3))
	f.place(whole)
	// The bytes that pad it are zero.
	f.mov(r1, r9)
	f.emit(asm.And.Imm(r1, -8), asm.Add.Reg(r1, r7))
	f.storeImm(r1, record.RegionSize, 0, u64)
	f.mov(r3, r2)
	f.mov(r2, r9)
	f.mov(r1, r7)
	f.addImm(r1, record.RegionSize)
	f.helper(o.read())
	f.emit(asm.JNE.Imm(r0, 0, failed))
	f.store(r7, record.RegionLength, r9, u32)
	f.load(r2, r6, slotEnd, u32)
	f.mov(r1, r9)
	f.addImm(r1, 7)
	f.emit(asm.And.Imm(r1, -8), asm.Add.Reg(r1, r2))
	f.store(r6, slotEnd, r1, u32)
	f.mov(r1, r8)
	f.emit(asm.LSh.Imm(r1, 32), asm.RSh.Imm(r1, 63)) // extentScan
	f.emit(asm.JEq.Imm(r1, 0, out))
	f.store(r6, slotNext, r2, u32)
	f.mov(r1, r8)
	f.emit(asm.And.Imm(r1, extentSize))
	f.store(r6, slotElem, r1, u32)
	f.storeImm(r6, slotCtrl, 0, u64)
	f.emit(asm.And.Imm(r8, extentTable), asm.JEq.Imm(r8, 0, placed))
	// The first bucket in memory is the last of the table: its byte ends the region.
	f.emit(asm.Add.Reg(r2, r9))
	f.addImm(r2, -1)
	f.store(r6, slotCtrl, r2, u64)
	f.addImm(r1, 1)
	f.place(placed)
	f.emit(asm.Div.Reg(r9, r1))
	f.store(r6, slotLeft, r9, u32)
	f.place(out)
	f.exitWith(0)

	f.place(failed)
	f.storeImm(r7, record.RegionStatus, record.StatusUnreadable, u32)
	f.exitWith(0)

	f.place(full)
	f.flag(r6, r1, record.FlagExhausted)
	f.exitWith(1)
	return f
}

// walk follows the pending pointers of the slot with the given key until nothing
// is left. It is a global function, which the verifier looks at once and not for
// each call, and so it may not be passed a slot.
func walk(s sizes) *fn {
	f := newFn(fnWalk, num("key"))
	f.linkage = btf.GlobalFunc
	out := f.newLabel("out")
	f.lookup(runtime.MapScratch)
	f.emit(asm.JEq.Imm(r0, 0, out))
	f.store(r10, -16, r0, u64)
	// Enough for every pointer and for every element, which holds a pointer.
	f.imm(r1, int64(maxPending+s.record/8))
	f.loadFunc(r2, fnStep)
	f.mov(r3, r10)
	f.addImm(r3, -16)
	f.imm(r4, 0)
	f.helper(asm.FnLoop)
	f.place(out)
	f.exitWith(0)
	return f
}

// step is the loop's body: it returns 1 when there is nothing left to do. ctx is
// where the slot's address is.
func step(s sizes, scans []scanFn) *fn {
	f := newFn(fnStep, num("index"), ptr("ctx"))
	element, done := f.newLabel("element"), f.newLabel("done")

	f.load(r6, r2, 0, u64)
	f.load(r1, r6, slotLeft, u32)
	f.emit(asm.JNE.Imm(r1, 0, element))

	f.load(r7, r6, slotHead, u32)
	f.load(r1, r6, slotTail, u32)
	f.emit(asm.JGE.Reg(r7, r1, done))
	f.emit(asm.JGT.Imm(r7, maxPending-1, done))
	f.mov(r1, r7)
	f.addImm(r1, 1)
	f.store(r6, slotHead, r1, u32)
	f.pending(s, r8, r6, r7)
	f.load(r1, r8, pendDepth, u32)
	f.addImm(r1, 1)
	f.store(r6, slotDepth, r1, u32)
	f.mov(r1, r6)
	f.load(r2, r8, pendAddr, u64)
	f.load(r3, r8, pendCount, u64)
	f.load(r4, r8, pendClass, u32)
	f.load(r5, r8, pendExt, u64)
	f.call(fnCopy)
	f.emit(asm.JNE.Imm(r0, 0, done))
	f.exitWith(0)

	f.place(done)
	f.exitWith(1)

	f.place(element)
	f.addImm(r1, -1)
	f.store(r6, slotLeft, r1, u32)
	f.load(r2, r6, slotNext, u32)
	f.load(r1, r6, slotElem, u32)
	f.emit(asm.Add.Reg(r1, r2))
	f.store(r6, slotNext, r1, u32)
	end, alive := f.newLabel("end"), f.newLabel("alive")
	f.load(r4, r6, slotCtrl, u64)
	f.emit(asm.JEq.Imm(r4, 0, alive), asm.JGT.Imm(r4, int32(s.record), end))
	f.mov(r1, r6)
	f.emit(asm.Add.Reg(r1, r4))
	f.addImm(r4, -1)
	f.store(r6, slotCtrl, r4, u64)
	// The top bit marks a bucket that is empty (hashbrown, src/control/tag.rs).
	f.load(r1, r1, slotRecord, u8)
	f.emit(asm.JGT.Imm(r1, 0x7f, end))
	f.place(alive)
	f.load(r3, r6, slotClass, u32)
	f.mov(r1, r6)
	f.dispatch(scans, end)
	f.place(end)
	f.exitWith(0)
	return f
}

// scanFn is the scan function of a class; they are sorted by class.
type scanFn struct {
	class uint32
	name  string
}

// dispatch calls the scan function of the class in r3, by halving.
func (f *fn) dispatch(scans []scanFn, end string) {
	switch len(scans) {
	case 0:
		f.jump(end)
		return
	case 1:
		f.emit(asm.JNE.Imm(r3, int32(scans[0].class), end))
		f.call(scans[0].name)
		f.jump(end)
		return
	}
	half := len(scans) / 2
	upper := f.newLabel("upper")
	f.emit(asm.JGE.Imm(r3, int32(scans[half].class), upper))
	f.dispatch(scans[:half], end)
	f.place(upper)
	f.dispatch(scans[half:], end)
}
