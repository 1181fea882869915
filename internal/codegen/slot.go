package codegen

import (
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf/asm"
)

// A scratch slot is one element of runtime.MapScratch: who has claimed it, the
// state of the walk over pointers (walk.go), the record that is being built, and
// the pending pointers.
const (
	slotBusy   = 0  // u64: the pid_tgid that has claimed the slot, 0 if none
	slotKey    = 8  // u32: its index in the map
	slotFlags  = 12 // u32: the record's flags to begin with
	slotHead   = 16 // u32: first pointer of pending that has not been followed
	slotTail   = 20 // u32: how many are in pending
	slotEnd    = 24 // u32: bytes of the record in use
	slotLeft   = 28 // u32: elements of the last region that have not been scanned
	slotNext   = 32 // u32: where in the record the next of them is
	slotElem   = 36 // u32: its size
	slotClass  = 40 // u32: its class
	slotDepth  = 44 // u32: the depth of what it points to
	slotLow    = 48 // u64: the frame whose inside is not followed: Low ≤ p < High
	slotHigh   = 56 // u64
	slotBias   = 64 // u64: the load bias of the probe's file
	slotCtrl   = 72 // u64: where in the record the element's control byte is, 0 if it has none
	slotPushed = 80 // u32: the depth of what push is given
	slotSeen   = 88 // [maxPending]u16: by a hash of the address, an index into pending
	slotRecord = slotSeen + 2*maxPending
)

// maxPending is how many pointers one record follows. A region takes at least 32
// bytes, so this many headers alone fill the smallest budget.
const maxPending = 512

// One pending pointer.
const (
	pendAddr  = 0  // u64
	pendCount = 8  // u64: elements there
	pendClass = 16 // u32
	pendDepth = 20 // u32: its depth
	pendExt   = 24 // u64: its extent
	pendShift = 5  // log2 of its size
)

// An extent is the size of an element, flags that say whether elements hold pointers,
// whether they are a hash table's, and whether what leads to them is a part of their
// container (types.Edge.Hop); and above them how many elements are read at most.
const (
	extentScan     = 1 << 31
	extentTable    = 1 << 30
	extentHop      = 1 << 29
	extentSize     = extentHop - 1 // mask
	extentMaxShift = 32
)

// A depth counts the pointers that lead to something, and from depthHop on the hops
// within its container that the last of them took.
const depthHop = 1 << 16

// minRegion is how many bytes a region may always hold. Larger limits make it
// larger, up to maxRegion.
const (
	minRegion = 8 << 10
	maxRegion = 64 << 10
)

// maxFixed bounds the fixed part of one item, and maxPiece one value in it: the
// rest is not read. Offsets in instructions are signed 16-bit numbers, and the
// fixed part must be within their reach.
const (
	maxFixed = 16 << 10
	maxPiece = 4 << 10
)

// sizes are the sizes that a collection's programs agree on.
type sizes struct {
	limits  program.Limits
	region  int // bytes that a region holds at most
	record  int // bytes of a record at most
	pending int // offset of pending in a slot
	slot    int // bytes of a slot
}

func newSizes(l program.Limits, fixed int) sizes {
	s := sizes{limits: l, region: min(max(minRegion, align8(l.MaxStr), 16*l.MaxItems), maxRegion)}
	s.record = record.HeaderSize + fixed + 2*s.region
	// Beyond the record there is room for one region more: the verifier does not
	// see that the place of a region and its length are bounded together.
	s.pending = slotRecord + s.record + s.region + 8
	s.slot = s.pending + maxPending<<pendShift
	return s
}

func align8(n int) int { return (n + 7) &^ 7 }

// Names of the functions that all programs of a kind share.
const (
	fnClaim  = "claim"
	fnLose   = "lose"
	fnPush   = "push"
	fnObject = "object"
	fnCopy   = "copy"
	fnStep   = "step"
	fnWalk   = "walk"
)

// claim finds a free slot of this CPU in a map and marks it with the caller, which is not
// 0. Programs stay on their CPU, but may be preempted and, when sleepable, sleep:
// the exchange is atomic, and more than one may be in use.
func claim(name, from string) *fn {
	f := newFn(name, num("caller"))
	f.ret = btfPtr
	got, none := f.newLabel("got"), f.newLabel("none")
	f.mov(r6, r1)
	f.helper(asm.FnGetSmpProcessorId)
	f.mov(r7, r0)
	f.emit(asm.Mul.Imm(r7, runtime.SlotsPerCPU))
	for range runtime.SlotsPerCPU {
		f.mov(r1, r7)
		f.lookup(from)
		f.emit(asm.JEq.Imm(r0, 0, none))
		f.mov(r8, r0)
		f.imm(r0, 0)
		f.atomic(asm.CmpXchg, r8, 0, r6) // slotBusy is 0
		f.emit(asm.JEq.Imm(r0, 0, got))
		f.addImm(r7, 1)
	}
	f.place(none)
	f.exitWith(0)
	f.place(got)
	f.store(r8, slotKey, r7, u32)
	f.mov(r0, r8)
	f.exit()
	return f
}

// adder is a function that adds 1 to the element of a map that it is given.
func adder(name, m string) *fn {
	f := newFn(name, num("counter"))
	out := f.newLabel("out")
	f.lookup(m)
	f.emit(asm.JEq.Imm(r0, 0, out))
	f.add1(r0)
	f.place(out)
	f.exitWith(0)
	return f
}

// counter is where a lost record of kind k is counted.
func counter(k program.ItemKind, room bool) runtime.Counter {
	var c runtime.Counter
	switch k {
	case program.Entry, program.Line:
		c = runtime.EntryNoRoom
	case program.More:
		c = runtime.MoreNoRoom
	case program.Exit:
		c = runtime.ExitNoRoom
	default:
		c = runtime.MarkNoRoom
	}
	if !room {
		c++ // …NoSlot stands behind …NoRoom
	}
	return c
}
