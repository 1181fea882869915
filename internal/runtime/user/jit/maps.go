package jit

import (
	"syscall"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/shm"

	"github.com/cilium/ebpf"
)

// lookup(map, key) and lookupCPU(map, key, cpu).
func (c *compiler) lookup(r routine) {
	a, m := &c.a, r.m
	null := a.NewLabel()
	cpu := asm.None
	if r.kind == doLookupCPU {
		cpu = asm.R8
		a.Mov(4, asm.R8, asm.RDX)
		c.cmpImm(asm.R8, uint32(c.o.Layout.CPUs))
		a.Jcc(asm.AE, null)
	}
	if m.IsArray() {
		a.Load(4, asm.RAX, asm.At(asm.RSI, 0))
		c.cmpImm(asm.RAX, m.MaxEntries)
		a.Jcc(asm.AE, null)
	} else {
		if cpu != asm.None {
			a.Push(asm.R8)
		}
		a.Call(c.routine(routine{kind: doFind, m: m}))
		if cpu != asm.None {
			a.Pop(asm.R8)
		}
		a.Test(8, asm.RDI, asm.RDI)
		a.Jcc(asm.E, null)
	}
	c.valueAt(m, cpu)
	a.Ret()
	a.Bind(null)
	a.Zero(asm.RAX)
	a.Ret()
}

// hashKey leaves the hash of the key at rsi in r11; it uses rax, rcx, rdx, r8, r9 and r10.
func (c *compiler) hashKey(m *shm.Map) {
	a, n := &c.a, int(m.KeySize)
	var seed uint64 = shm.HashSeed + uint64(n)
	var mult uint64 = shm.HashMult
	lanes := [shm.HashLanes]asm.Reg{tmp1, asm.RCX, asm.R8, asm.R9}
	a.MovImm(tmp2, int64(mult))
	a.MovImm(tmp1, int64(seed))
	// mix takes rax into a lane.
	mix := func(lane asm.Reg) {
		a.ALU(asm.XOR, 8, asm.RAX, lane)
		a.Mul(8, tmp2)
		a.ALU(asm.XOR, 8, asm.RAX, asm.RDX)
		a.Mov(8, lane, asm.RAX)
	}
	off := 0
	word := func(lane asm.Reg) {
		a.Load(8, asm.RAX, asm.At(asm.RSI, int32(off)))
		mix(lane)
		off += 8
	}
	if n >= shm.HashLong {
		for _, lane := range lanes[1:] {
			a.Mov(8, lane, tmp1)
		}
		for off+8*len(lanes) <= n {
			for _, lane := range lanes {
				word(lane)
			}
		}
		for _, lane := range lanes[1:] {
			a.Mov(8, asm.RAX, lane)
			mix(tmp1)
		}
	}
	for off+8 <= n {
		word(tmp1)
	}
	if rest := n % 8; rest != 0 {
		first := true
		each(rest, func(off, size int) {
			at := asm.At(asm.RSI, int32(n&^7+off))
			if first {
				a.Load(size, asm.RAX, at)
			} else {
				a.Load(size, asm.RDX, at)
				a.Shift(asm.SHL, 8, asm.RDX, uint8(8*off))
				a.ALU(asm.OR, 8, asm.RAX, asm.RDX)
			}
			first = false
		})
		mix(tmp1)
	}
}

// chain begins a walk over the buckets of the hash in r11: the bucket in rcx, how
// many are left in r8.
func (c *compiler) chain(m *shm.Map) {
	c.a.Mov(4, asm.RCX, tmp1)
	c.a.ALUImm(asm.AND, 4, asm.RCX, int32(m.Mask))
	c.a.MovImm(asm.R8, int64(m.Mask+1))
}

// bucket leaves the address of bucket rcx in rdx; it uses rax.
func (c *compiler) bucket(m *shm.Map) {
	c.a.Mov(4, asm.RDX, asm.RCX)
	c.a.Shift(asm.SHL, 8, asm.RDX, 6)
	c.a.MovAddr(asm.RAX, Shared, int64(m.Buckets))
	c.a.ALU(asm.ADD, 8, asm.RDX, asm.RAX)
	c.a.MovImm(tmp2, 1)
}

// advance goes on to the next bucket, if there is one.
func (c *compiler) advance(m *shm.Map, top asm.Label) {
	c.a.ALUImm(asm.ADD, 4, asm.RCX, 1)
	c.a.ALUImm(asm.AND, 4, asm.RCX, int32(m.Mask))
	c.a.ALUImm(asm.SUB, 4, asm.R8, 1)
	c.a.Jcc(asm.NE, top)
}

// nextTag goes on to the next tag of a bucket, if there is one.
func (c *compiler) nextTag(top asm.Label) {
	c.a.ALUImm(asm.ADD, 4, tmp2, 1)
	c.a.ALUImm(asm.CMP, 4, tmp2, 1+shm.BucketSlots)
	c.a.Jcc(asm.NE, top)
}

// find looks for the key at rsi, which it keeps. It leaves in rdi the address of
// the tag, 0 if there is none, in rax the slot, in r9 the live tag, in r11 the
// hash; it uses rcx, rdx, r8 and r10.
func (c *compiler) find(r routine) {
	a, m := &c.a, r.m
	c.hashKey(m)
	a.Mov(8, asm.R9, tmp1)
	a.ALUImm(asm.AND, 8, asm.R9, -256)
	a.ALUImm(asm.OR, 8, asm.R9, shm.TagLive)
	c.chain(m)
	next, same := a.NewLabel(), a.NewLabel()
	bucket := a.Here()
	c.bucket(m)
	tag := a.Here()
	a.ALULoad(asm.CMP, 8, asm.R9, asm.Idx(asm.RDX, tmp2, 8, 0))
	a.Jcc(asm.E, same)
	a.Bind(next)
	c.nextTag(tag)
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDX, 0), 0)
	none := a.NewLabel()
	a.Jcc(asm.E, none)
	c.advance(m, bucket)
	a.Bind(none)
	a.Zero(asm.RDI)
	a.Ret()

	a.Bind(same)
	c.slotOf(asm.RDI)
	c.scale2(asm.RDI, m.KeyStride, asm.RAX)
	a.MovAddr(asm.RAX, Shared, int64(m.Keys))
	a.ALU(asm.ADD, 8, asm.RDI, asm.RAX)
	each(int(m.KeySize), func(off, size int) {
		a.Load(size, asm.RAX, asm.At(asm.RSI, int32(off)))
		a.ALULoad(asm.CMP, size, asm.RAX, asm.At(asm.RDI, int32(off)))
		a.Jcc(asm.NE, next)
	})
	c.slotOf(asm.RAX)
	a.Lea(asm.RDI, asm.Idx(asm.RDX, tmp2, 8, 0))
	a.Ret()
}

// slotOf is dst = the slot of tag r10 in bucket rcx.
func (c *compiler) slotOf(dst asm.Reg) {
	c.a.Lea(dst, asm.Idx(tmp2, asm.RCX, 8, -1))
	c.a.ALU(asm.SUB, 8, dst, asm.RCX)
}

// scale2 is dst = dst * n; it may use tmp.
func (c *compiler) scale2(dst asm.Reg, n uint64, tmp asm.Reg) {
	if n < 1<<31 {
		c.a.ImulImm(8, dst, dst, int32(n))
		return
	}
	c.a.MovImm(tmp, int64(n))
	c.a.Imul(8, dst, tmp)
}

// delete(map, key).
func (c *compiler) delete(r routine) {
	a, m := &c.a, r.m
	if m.IsArray() {
		c.fail(syscall.EINVAL)
		return
	}
	none := a.NewLabel()
	again := a.Here()
	a.Call(c.routine(routine{kind: doFind, m: m}))
	a.Test(8, asm.RDI, asm.RDI)
	a.Jcc(asm.E, none)
	a.Mov(8, asm.RAX, asm.R9)
	a.Zero(asm.RDX)
	a.LockCmpxchg(8, asm.At(asm.RDI, 0), asm.RDX)
	a.Jcc(asm.NE, again)
	a.MovAddr(tmp1, Shared, int64(m.Desc))
	a.LockDec(8, asm.At(tmp1, shm.DescCount))
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(none)
	c.fail(syscall.ENOENT)
}

const (
	noExist = 1
	exist   = 2
)

// update(map, key, value, flags).
func (c *compiler) update(r routine) {
	a, m := &c.a, r.m
	bad := a.NewLabel()
	a.ALUImm(asm.CMP, 8, asm.RCX, exist)
	a.Jcc(asm.A, bad)
	if m.IsArray() {
		c.updateArray(m)
	} else {
		c.updateHash(m)
	}
	a.Bind(bad)
	c.fail(syscall.EINVAL)
}

func (c *compiler) updateArray(m *shm.Map) {
	a := &c.a
	big, there := a.NewLabel(), a.NewLabel()
	a.Load(4, asm.RAX, asm.At(asm.RSI, 0))
	c.cmpImm(asm.RAX, m.MaxEntries)
	a.Jcc(asm.AE, big)
	a.ALUImm(asm.CMP, 4, asm.RCX, noExist)
	a.Jcc(asm.E, there)
	c.valueAt(m, asm.None)
	a.Mov(8, asm.RDI, asm.RAX)
	c.copy(asm.RDI, asm.RDX, int(m.ValueSize))
	a.Zero(asm.RAX)
	a.Ret()
	a.Bind(big)
	c.fail(syscall.E2BIG)
	a.Bind(there)
	c.fail(syscall.EEXIST)
}

// updateHash is shm's insert: rbx is the value, r12 the flags, r13 the patience,
// r14 the address of the claimed tag.
func (c *compiler) updateHash(m *shm.Map) {
	a := &c.a
	saved := []asm.Reg{asm.RBX, asm.R12, asm.R13, asm.R14}
	for _, s := range saved {
		a.Push(s)
	}
	leave := func() {
		for i := len(saved) - 1; i >= 0; i-- {
			a.Pop(saved[i])
		}
		a.Ret()
	}
	out, ok := a.NewLabel(), a.NewLabel()
	fail := func(e syscall.Errno) {
		a.MovImm(asm.RAX, -int64(e))
		a.Jmp(out)
	}
	desc := func(off int32) asm.Mem {
		a.MovAddr(tmp1, Shared, int64(m.Desc))
		return asm.At(tmp1, off)
	}
	a.Mov(8, asm.RBX, asm.RDX)
	a.Mov(4, asm.R12, asm.RCX)
	a.MovImm(asm.R13, shm.Spins)

	retry, absent, patient, spin := a.Here(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.ALUImm(asm.SUB, 4, asm.R13, 1)
	a.Jcc(asm.NS, patient)
	a.LockInc(8, desc(shm.DescFailed))
	fail(syscall.EBUSY)
	a.Bind(spin)
	a.Pause()
	a.Jmp(retry)
	a.Bind(patient)
	a.Call(c.routine(routine{kind: doFind, m: m}))
	a.Test(8, asm.RDI, asm.RDI)
	a.Jcc(asm.E, absent)
	there := a.NewLabel()
	a.ALUImm(asm.CMP, 4, asm.R12, noExist)
	a.Jcc(asm.E, there)
	c.valueAt(m, asm.None)
	a.Mov(8, asm.RDI, asm.RAX)
	c.copy(asm.RDI, asm.RBX, int(m.ValueSize))
	a.Bind(ok)
	a.Zero(asm.RAX)
	a.Bind(out)
	leave()
	a.Bind(there)
	fail(syscall.EEXIST)

	// Find a free slot.
	a.Bind(absent)
	missing := a.NewLabel()
	a.ALUImm(asm.CMP, 4, asm.R12, exist)
	a.Jcc(asm.E, missing)
	a.ALUImm(asm.SUB, 8, asm.R9, shm.TagLive-shm.TagBusy)
	a.Zero(asm.R14)
	c.chain(m)
	bucket := a.Here()
	c.bucket(m)
	next, more, goOn, claim, full := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	tag := a.Here()
	a.Load(8, asm.RAX, asm.Idx(asm.RDX, tmp2, 8, 0))
	a.ALU(asm.CMP, 8, asm.RAX, asm.R9)
	a.Jcc(asm.E, spin)
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.NE, next)
	a.Test(8, asm.R14, asm.R14)
	a.Jcc(asm.NE, next)
	a.Lea(asm.R14, asm.Idx(asm.RDX, tmp2, 8, 0))
	a.Bind(next)
	c.nextTag(tag)
	a.Test(8, asm.R14, asm.R14)
	a.Jcc(asm.E, more)
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDX, 0), 0)
	a.Jcc(asm.E, claim)
	a.Jmp(goOn)
	a.Bind(more)
	a.StoreImm(8, asm.At(asm.RDX, 0), 1)
	a.Bind(goOn)
	c.advance(m, bucket)
	a.Test(8, asm.R14, asm.R14)
	a.Jcc(asm.E, full)

	// Claim it, and see that nobody else claims one for the same key.
	a.Bind(claim)
	a.Zero(asm.RAX)
	a.LockCmpxchg(8, asm.At(asm.R14, 0), asm.R9)
	a.Jcc(asm.NE, retry)
	c.chain(m)
	bucket = a.Here()
	c.bucket(m)
	next, alone := a.NewLabel(), a.NewLabel()
	tag = a.Here()
	a.Load(8, asm.RAX, asm.Idx(asm.RDX, tmp2, 8, 0))
	a.Test(8, asm.RAX, asm.RAX)
	a.Jcc(asm.E, next)
	a.ALU(asm.XOR, 8, asm.RAX, asm.R9)
	a.Shift(asm.SHR, 8, asm.RAX, 8)
	a.Jcc(asm.NE, next)
	a.Lea(asm.RAX, asm.Idx(asm.RDX, tmp2, 8, 0))
	twice := a.NewLabel()
	a.ALU(asm.CMP, 8, asm.RAX, asm.R14)
	a.Jcc(asm.NE, twice)
	a.Bind(next)
	c.nextTag(tag)
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.RDX, 0), 0)
	a.Jcc(asm.E, alone)
	c.advance(m, bucket)
	a.Bind(alone)

	// Count it, write it, and show it.
	a.MovImm(asm.RAX, 1)
	undo := a.NewLabel()
	a.LockXadd(8, desc(shm.DescCount), asm.RAX)
	a.MovImm(tmp2, int64(m.MaxEntries))
	a.ALU(asm.CMP, 8, asm.RAX, tmp2)
	a.Jcc(asm.AE, undo)
	a.MovAddr(asm.RAX, Shared, int64(m.Buckets))
	a.Mov(8, asm.RCX, asm.R14)
	a.ALU(asm.SUB, 8, asm.RCX, asm.RAX)
	a.Mov(4, tmp2, asm.RCX)
	a.Shift(asm.SHR, 8, asm.RCX, 6)
	a.Shift(asm.SHR, 4, tmp2, 3)
	a.ALUImm(asm.AND, 4, tmp2, 7)
	c.slotOf(asm.R8)
	a.Mov(8, asm.RDI, asm.R8)
	c.scale2(asm.RDI, m.KeyStride, asm.RAX)
	a.MovAddr(asm.RAX, Shared, int64(m.Keys))
	a.ALU(asm.ADD, 8, asm.RDI, asm.RAX)
	c.copy(asm.RDI, asm.RSI, int(m.KeySize))
	if m.Type == ebpf.PerCPUHash {
		a.Mov(8, asm.RAX, asm.R8)
		a.Zero(asm.RCX)
		c.valueAt(m, asm.RCX)
		a.Mov(8, asm.RDI, asm.RAX)
		a.MovImm(asm.RAX, int64(m.CPUStride))
		a.MovImm(asm.RCX, int64(c.o.Layout.CPUs))
		top := a.Here()
		c.zero(asm.RDI, int(m.ValueSize))
		a.ALU(asm.ADD, 8, asm.RDI, asm.RAX)
		a.ALUImm(asm.SUB, 4, asm.RCX, 1)
		a.Jcc(asm.NE, top)
	}
	a.Mov(8, asm.RAX, asm.R8)
	c.valueAt(m, asm.None)
	a.Mov(8, asm.RDI, asm.RAX)
	c.copy(asm.RDI, asm.RBX, int(m.ValueSize))
	a.ALUImm(asm.ADD, 8, asm.R9, shm.TagLive-shm.TagBusy)
	a.Store(8, asm.At(asm.R14, 0), asm.R9)
	a.Jmp(ok)

	a.Bind(missing)
	fail(syscall.ENOENT)
	a.Bind(undo)
	a.LockDec(8, desc(shm.DescCount))
	a.StoreImm(8, asm.At(asm.R14, 0), 0)
	a.Bind(full)
	a.LockInc(8, desc(shm.DescFull))
	fail(syscall.E2BIG)
	// Two that met wait for times that differ, as their slots do.
	a.Bind(twice)
	a.StoreImm(8, asm.At(asm.R14, 0), 0)
	a.Mov(4, asm.RAX, asm.R14)
	a.Shift(asm.SHR, 4, asm.RAX, 3)
	a.ALUImm(asm.AND, 4, asm.RAX, 7)
	wait := a.Here()
	a.Pause()
	a.ALUImm(asm.SUB, 4, asm.RAX, 1)
	a.Jcc(asm.NS, wait)
	a.Jmp(retry)
}

// forEach(map, callback, ctx, flags): rbx counts, r12 is the value or the bucket,
// r13 the callback, r14 its context, r15 the map.
func (c *compiler) forEach(r routine) {
	a, m := &c.a, r.m
	bad := a.NewLabel()
	a.Test(8, asm.RCX, asm.RCX)
	a.Jcc(asm.NE, bad)
	saved := []asm.Reg{asm.RBX, asm.R12, asm.R13, asm.R14, asm.R15}
	for _, s := range saved {
		a.Push(s)
	}
	a.ALUImm(asm.SUB, 8, asm.RSP, 16)
	a.Zero(asm.RBX)
	a.Mov(8, asm.R13, asm.RSI)
	a.Mov(8, asm.R14, asm.RDX)
	a.Mov(8, asm.R15, asm.RDI)
	call := func() {
		a.Mov(8, asm.RDI, asm.R15)
		a.Mov(8, asm.RCX, asm.R14)
		a.CallReg(asm.R13)
		a.ALUImm(asm.ADD, 4, asm.RBX, 1)
		a.Test(8, asm.RAX, asm.RAX)
	}
	out := a.NewLabel()
	if m.IsArray() {
		a.Zero(asm.RAX)
		c.valueAt(m, asm.None)
		a.Mov(8, asm.R12, asm.RAX)
		top := a.Here()
		a.Store(4, asm.At(asm.RSP, 0), asm.RBX) // the key
		a.Lea(asm.RSI, asm.At(asm.RSP, 0))
		a.Mov(8, asm.RDX, asm.R12)
		call()
		a.Jcc(asm.NE, out)
		a.ALUImm(asm.ADD, 8, asm.R12, int32(m.Stride))
		c.cmpImm(asm.RBX, m.MaxEntries)
		a.Jcc(asm.NE, top)
	} else {
		// The slot is on the stack.
		a.StoreImm(8, asm.At(asm.RSP, 0), 0)
		a.MovAddr(asm.R12, Shared, int64(m.Buckets))
		next, bucket := a.NewLabel(), a.Here()
		a.StoreImm(4, asm.At(asm.RSP, 8), 1) // which tag of the bucket
		tag := a.Here()
		a.Load(4, asm.RAX, asm.At(asm.RSP, 8))
		a.Load(1, asm.RCX, asm.Idx(asm.R12, asm.RAX, 8, 0))
		a.ALUImm(asm.CMP, 4, asm.RCX, shm.TagLive)
		a.Jcc(asm.NE, next)
		a.Load(8, asm.RAX, asm.At(asm.RSP, 0))
		a.Mov(8, asm.RSI, asm.RAX)
		c.scale2(asm.RSI, m.KeyStride, tmp1)
		a.MovAddr(tmp1, Shared, int64(m.Keys))
		a.ALU(asm.ADD, 8, asm.RSI, tmp1)
		c.valueAt(m, asm.None)
		a.Mov(8, asm.RDX, asm.RAX)
		call()
		a.Jcc(asm.NE, out)
		a.Bind(next)
		a.ALUMemImm(asm.ADD, 8, asm.At(asm.RSP, 0), 1)
		a.ALUMemImm(asm.ADD, 4, asm.At(asm.RSP, 8), 1)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RSP, 8), 1+shm.BucketSlots)
		a.Jcc(asm.NE, tag)
		a.ALUImm(asm.ADD, 8, asm.R12, shm.BucketSize)
		a.MovImm(asm.RAX, int64((m.Mask+1)*shm.BucketSlots))
		a.ALULoad(asm.CMP, 8, asm.RAX, asm.At(asm.RSP, 0))
		a.Jcc(asm.NE, bucket)
	}
	a.Bind(out)
	a.Mov(4, asm.RAX, asm.RBX)
	a.ALUImm(asm.ADD, 8, asm.RSP, 16)
	for i := len(saved) - 1; i >= 0; i-- {
		a.Pop(saved[i])
	}
	a.Ret()
	a.Bind(bad)
	c.fail(syscall.EINVAL)
}
