package jit

import (
	"fmt"
	"math/bits"
	"syscall"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"
)

// routineStack bounds the stack that a routine uses, its return address included.
const routineStack = 160

// routine is a piece of code that is emitted once an image, when something calls
// it. Arguments are where eBPF has them, in rdi, rsi, rdx, rcx and r8.
type routine struct {
	kind routineKind
	m    *shm.Map // nil for a map operation: find out which map it is
	n    int
}

type routineKind int

const (
	doLookup routineKind = iota
	doLookupCPU
	doUpdate
	doDelete
	doForEach
	doOutput
	doReserve
	doQuery
	doFind
	doReserveCore
	doRead
	doReadStr
	doCheckedRead
	doClock // n is the offset in the clock of what is to be added, or 0
	doPidTgid
	doPid
	doTid
	doNsPidTgid
	doUidGid
	doComm
	doRandom
	doLoop
	doStrncmp
	doGetStack
)

// helperCode are the helpers that are a routine, or an operation on a map.
var helperCode = map[int64]routine{
	insn.MapLookup:          {kind: doLookup},
	insn.MapLookupPerCPU:    {kind: doLookupCPU},
	insn.MapUpdate:          {kind: doUpdate},
	insn.MapDelete:          {kind: doDelete},
	insn.ForEachMapElem:     {kind: doForEach},
	insn.RingbufOutput:      {kind: doOutput},
	insn.RingbufReserve:     {kind: doReserve},
	insn.RingbufQuery:       {kind: doQuery},
	insn.ProbeRead:          {kind: doRead},
	insn.ProbeReadUser:      {kind: doRead},
	insn.ProbeReadKernel:    {kind: doRead},
	insn.CopyFromUser:       {kind: doRead},
	insn.ProbeReadStr:       {kind: doReadStr},
	insn.ProbeReadUserStr:   {kind: doReadStr},
	insn.ProbeReadKernelStr: {kind: doReadStr},
	insn.KtimeGetNs:         {kind: doClock},
	insn.KtimeGetCoarseNs:   {kind: doClock}, // finer than it promises
	insn.KtimeGetBootNs:     {kind: doClock, n: shm.ClockBoot},
	insn.KtimeGetTaiNs:      {kind: doClock, n: shm.ClockTAI},
	insn.GetCurrentPidTgid:  {kind: doPidTgid},
	insn.GetNsPidTgid:       {kind: doNsPidTgid},
	insn.GetCurrentUidGid:   {kind: doUidGid},
	insn.GetCurrentComm:     {kind: doComm},
	insn.GetPrandomU32:      {kind: doRandom},
	insn.Loop:               {kind: doLoop},
	insn.Strncmp:            {kind: doStrncmp},
	insn.GetStack:           {kind: doGetStack},
}

// onMap says whether a routine's first argument is a map.
func (r routine) onMap() bool { return r.kind <= doQuery }

// clobbered are the registers that routines change which change few.
var clobbered = map[routineKind]asm.RegSet{
	doClock:   asm.Set(asm.RAX, asm.RDX, asm.R10, asm.R11),
	doPidTgid: asm.Set(asm.RAX, asm.RCX, asm.R9, asm.R11),
	doRandom:  asm.Set(asm.RAX, asm.R10, asm.R11),
}

// Where the trampoline puts what is not a register: below the context.
const (
	// CookieOffset is where the probe's cookie is, from the context's address.
	CookieOffset = -16
	// FuncIPOffset is where the address of the probe is.
	FuncIPOffset = -8
)

// helper compiles the call of a helper.
func (g *fn) helper(id int64) error {
	a := &g.a
	switch id {
	case insn.GetSmpProcessorID:
		g.cpu(asm.RAX)
		g.clobber(asm.RAX)
		g.drop()
		return nil
	case insn.GetNumaNodeID:
		g.cpuAndNode(asm.RAX)
		const cpuBits = 12 // the kernel's arch/x86/include/asm/segment.h, VDSO_CPUNODE_BITS
		a.Shift(asm.SHR, 4, asm.RAX, cpuBits)
		g.clobber(asm.RAX)
		g.drop()
		return nil
	case insn.GetAttachCookie, insn.GetFuncIP:
		off := int16(CookieOffset)
		if id == insn.GetFuncIP {
			off = FuncIPOffset
		}
		a.Load(8, asm.RAX, g.mem(1, off))
		g.clobber(asm.RAX)
		g.drop()
		return nil
	case insn.RingbufSubmit, insn.RingbufDiscard:
		state := int32(shm.RingDone)
		if id == insn.RingbufDiscard {
			state = shm.RingDiscarded
		}
		a.StoreImm(4, g.mem(1, -4), state)
		g.drop()
		return nil
	}
	r, ok := helperCode[id]
	if !ok {
		return fmt.Errorf("helper %s is not supported", insn.HelperName(id))
	}
	if r.onMap() {
		r.m = g.known[1]
		if g.o.Layout == nil {
			return fmt.Errorf("helper %s: there are no maps", insn.HelperName(id))
		}
		if r.m != nil && !supports(r.kind, r.m) {
			return fmt.Errorf("helper %s on map %s of type %v is not supported", insn.HelperName(id), r.m.Name, r.m.Type)
		}
		if r.m != nil && r.kind == doLookup && r.m.IsArray() {
			g.lookupArray(r.m)
			return nil
		}
		if r.m != nil && r.kind != doForEach {
			g.lazy[1] = lazy{} // the routine knows its map
		}
	}
	for i := range int(argCount(id)) {
		g.settle(i + 1)
	}
	a.Call(g.routine(r))
	if set, ok := clobbered[r.kind]; ok {
		g.f.clobbers |= set
	} else {
		g.f.clobbers |= callerSaved
	}
	g.f.deepest = max(g.f.deepest, g.depthOf(r))
	g.drop()
	return nil
}

// depthOf bounds the stack of a routine with those it calls.
func (c *compiler) depthOf(r routine) int { return 2 * routineStack }

// supports says whether there is such an operation on a map.
func supports(k routineKind, m *shm.Map) bool {
	switch k {
	case doOutput, doReserve, doQuery:
		return m.IsRing()
	case doLookup, doUpdate, doForEach:
		return m.IsArray() || m.IsHash()
	case doLookupCPU:
		return m.PerCPU()
	case doDelete:
		return m.IsArray() || m.IsHash()
	}
	return false
}

// routine returns the label of a routine, which it asks to be emitted.
func (c *compiler) routine(r routine) asm.Label {
	l, ok := c.routines[r]
	if !ok {
		l = c.a.NewLabel()
		c.routines[r] = l
		c.pending = append(c.pending, r)
	}
	return l
}

func (c *compiler) emitRoutines() {
	emit := map[routineKind]func(*compiler, routine){
		doLookup: (*compiler).lookup, doLookupCPU: (*compiler).lookup, doUpdate: (*compiler).update, doDelete: (*compiler).delete,
		doForEach: (*compiler).forEach, doFind: (*compiler).find,
		doOutput: (*compiler).output, doReserve: (*compiler).reserve, doReserveCore: (*compiler).reserveCore, doQuery: (*compiler).query,
		doRead: (*compiler).read, doReadStr: (*compiler).readStr, doCheckedRead: (*compiler).checkedRead,
		doClock: (*compiler).clock, doPidTgid: (*compiler).pidTgid, doPid: (*compiler).pid, doTid: (*compiler).tid,
		doNsPidTgid: (*compiler).nsPidTgid, doUidGid: (*compiler).uidGid, doComm: (*compiler).comm, doRandom: (*compiler).random,
		doLoop: (*compiler).loop, doStrncmp: (*compiler).strncmp, doGetStack: (*compiler).getStack,
	}
	for len(c.pending) > 0 {
		r := c.pending[0]
		c.pending = c.pending[1:]
		c.a.Align(16)
		c.a.Bind(c.routines[r])
		if r.onMap() && r.m == nil {
			c.dispatch(r)
			continue
		}
		emit[r.kind](c, r)
	}
}

// dispatch finds out which map rdi is: a program got it from elsewhere.
func (c *compiler) dispatch(r routine) {
	a := &c.a
	for _, m := range c.o.Layout.Maps {
		if !supports(r.kind, m) {
			continue
		}
		next := a.NewLabel()
		a.MovAddr(tmp1, Shared, int64(m.Desc))
		a.ALU(asm.CMP, 8, asm.RDI, tmp1)
		a.JccNear(asm.NE, next)
		a.Jmp(c.routine(routine{kind: r.kind, m: m}))
		a.Bind(next)
	}
	if r.kind == doLookup || r.kind == doLookupCPU || r.kind == doReserve {
		a.Zero(asm.RAX)
		a.Ret()
		return
	}
	c.fail(syscall.EINVAL)
}

// fail returns an error number.
func (c *compiler) fail(e syscall.Errno) {
	c.a.MovImm(asm.RAX, -int64(e))
	c.a.Ret()
}

// cpu is dst = the number of the CPU, which is kept below the number there are of
// everything that is per CPU. It is the lower 12 bits of IA32_TSC_AUX and of the
// limit of a segment that the kernel has for this purpose (vdso/processor.h).
func (c *compiler) cpu(dst asm.Reg) {
	cpus := 4096
	if c.o.Layout != nil {
		cpus = c.o.Layout.CPUs
	}
	c.cpuAndNode(dst)
	c.a.ALUImm(asm.AND, 4, dst, int32(cpus-1))
}

// cpuAndNode is dst = the CPU's number, and above it the node's.
func (c *compiler) cpuAndNode(dst asm.Reg) {
	if c.o.RDPID {
		c.a.Rdpid(dst)
		return
	}
	const cpuNodeSegment = 15<<3 | 3
	c.a.MovImm(dst, cpuNodeSegment)
	c.a.Lsl(dst, dst)
}

// scale is dst = dst * n.
func (c *compiler) scale(dst asm.Reg, n uint64) {
	switch {
	case n == 1:
	case n&(n-1) == 0:
		c.a.Shift(asm.SHL, 8, dst, uint8(bits.TrailingZeros64(n)))
	case n < 1<<31:
		c.a.ImulImm(8, dst, dst, int32(n))
	default:
		c.a.MovImm(tmp2, int64(n))
		c.a.Imul(8, dst, tmp2)
	}
}

// valueAt turns the index or slot in rax into the address of its value. It uses r10
// and r11; cpu says which CPU's it is, None this one's.
func (c *compiler) valueAt(m *shm.Map, cpu asm.Reg) {
	a := &c.a
	c.scale(asm.RAX, m.Stride)
	if m.PerCPU() {
		if cpu == asm.None {
			c.cpu(tmp1)
		} else {
			a.Mov(4, tmp1, cpu)
		}
		c.scale(tmp1, m.CPUStride)
		a.ALU(asm.ADD, 8, asm.RAX, tmp1)
	}
	a.MovAddr(tmp2, Shared, int64(m.Values))
	a.ALU(asm.ADD, 8, asm.RAX, tmp2)
}

// lookupArray compiles the lookup of an array in place.
func (g *fn) lookupArray(m *shm.Map) {
	a, key := &g.a, g.mem(2, 0)
	forward := g.stored.valid && key == asm.At(asm.RBP, g.stored.off)
	s := g.stored
	defer g.drop()
	defer g.clobber(asm.RAX, tmp1, tmp2)
	if forward && s.isImm {
		i := uint32(s.imm)
		if i >= m.MaxEntries {
			a.Zero(asm.RAX)
			return
		}
		a.MovAddr(asm.RAX, Shared, int64(m.Values+uint64(i)*m.Stride))
		if m.PerCPU() {
			g.cpu(tmp1)
			g.scale(tmp1, m.CPUStride)
			a.ALU(asm.ADD, 8, asm.RAX, tmp1)
		}
		return
	}
	if forward {
		a.Mov(4, asm.RAX, regs[s.reg])
	} else {
		a.Load(4, asm.RAX, key)
	}
	null, done := a.NewLabel(), a.NewLabel()
	g.cmpImm(asm.RAX, m.MaxEntries)
	a.Jcc(asm.AE, null)
	g.valueAt(m, asm.None)
	a.Bind(done)
	g.cold = append(g.cold, func() {
		a.Bind(null)
		a.Zero(asm.RAX)
		a.Jmp(done)
	})
}

// cmpImm compares 32 bits.
func (c *compiler) cmpImm(r asm.Reg, v uint32) { c.a.ALUImm(asm.CMP, 4, r, int32(v)) }

// copy copies n bytes with rax; beyond a few, with a loop that uses r11.
func (c *compiler) copy(dst, src asm.Reg, n int) {
	a := &c.a
	if n > 128 {
		a.Zero(tmp1)
		top := a.Here()
		a.Load(8, asm.RAX, asm.Idx(src, tmp1, 1, 0))
		a.Store(8, asm.Idx(dst, tmp1, 1, 0), asm.RAX)
		a.ALUImm(asm.ADD, 4, tmp1, 8)
		a.ALUImm(asm.CMP, 4, tmp1, int32(n&^7))
		a.Jcc(asm.NE, top)
	}
	each(n, func(off, size int) {
		if n > 128 && size == 8 {
			return
		}
		a.Load(size, asm.RAX, asm.At(src, int32(off)))
		a.Store(size, asm.At(dst, int32(off)), asm.RAX)
	})
}

// zero clears n bytes; it uses r11.
func (c *compiler) zero(dst asm.Reg, n int) {
	a := &c.a
	if n > 128 {
		a.Zero(tmp1)
		top := a.Here()
		a.StoreImm(8, asm.Idx(dst, tmp1, 1, 0), 0)
		a.ALUImm(asm.ADD, 4, tmp1, 8)
		a.ALUImm(asm.CMP, 4, tmp1, int32(n&^7))
		a.Jcc(asm.NE, top)
	}
	each(n, func(off, size int) {
		if n > 128 && size == 8 {
			return
		}
		a.StoreImm(size, asm.At(dst, int32(off)), 0)
	})
}

// each cuts n bytes into accesses of 8, 4, 2 and 1.
func each(n int, f func(off, size int)) {
	off := 0
	for size := 8; size > 0; size /= 2 {
		for ; n-off >= size; off += size {
			f(off, size)
		}
	}
}
