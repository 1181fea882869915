package codegen

import (
	"strconv"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

func (g *handler) stmts(body []ir.Stmt) {
	for _, s := range body {
		mark := g.at
		g.stmt(s)
		g.release(mark)
	}
}

func (g *handler) stmt(s ir.Stmt) {
	f := g.f
	switch s := s.(type) {
	case *ir.SetVar:
		t := g.h.Vars[s.Slot]
		// What is computed may look at the variable.
		if t.Scalar() {
			g.scalar(s.X)
			f.store(r7, g.vars[s.Slot], r0, asmSize(t.Size))
			return
		}
		if !mentions(s.X, s.Slot) {
			g.into(s.X, t, g.vars[s.Slot])
			return
		}
		tmp := g.value(s.X, t)
		g.copy(g.vars[s.Slot], tmp, t.Size)
	case *ir.SetMap:
		g.setMap(s.Map, s.Key, s.X)
	case *ir.AddMap:
		g.addMap(s)
	case *ir.Aggregate:
		g.aggregate(s)
	case *ir.Delete:
		key := g.key(s.Map, s.Key)
		g.addr(r2, key)
		f.loadMap(r1, mapName(s.Map))
		f.helper(asm.FnMapDeleteElem)
	case *ir.If:
		no, end := g.label("else"), g.label("endif")
		g.branch(s.Cond, false, no)
		g.stmts(s.Then)
		f.jump(end)
		f.place(no)
		g.stmts(s.Else)
		f.place(end)
	case *ir.While:
		f.imm(r1, ir.MaxLoop)
		g.loop(asm.FnLoop, "while", func() {
			if s.Cond != nil {
				g.branch(s.Cond, false, g.brk)
			}
			g.stmts(s.Body)
		}, num("index"), ptr("loop"))
	case *ir.ForRange:
		g.forRange(s)
	case *ir.ForMap:
		g.forMap(s)
	case *ir.Break:
		f.jump(g.brk)
	case *ir.Continue:
		f.jump(g.cont)
	case *ir.Return:
		if s.Hidden {
			f.jump(g.endAs(runtime.Hidden))
		} else {
			f.jump(g.end)
		}
	case *ir.Emit:
		g.emitEvent(s)
	case *ir.Eval:
		if t := s.X.Type(); t.Scalar() || t.Kind == ir.Void {
			g.scalar(s.X)
		} else {
			g.value(s.X, t)
		}
	case *ir.Kill:
		g.scalar(s.Signal)
		f.mov(r1, r0)
		if s.Thread {
			f.helper(asm.FnSendSignalThread)
		} else {
			f.helper(asm.FnSendSignal)
		}
	default:
		g.fail("statement %T", s)
	}
}

// loop calls a helper with a callback that makes one round: body writes it. r1 is set.
func (g *handler) loop(helper asm.BuiltinFunc, hint string, body func(), params ...btf.FuncParam) {
	f := g.f
	g.lines++
	cb := newFn(g.name+"_"+hint+strconv.Itoa(g.lines), params...)
	cb.at = inHead
	f.store(r10, loopFrame, r6, u64)
	f.store(r10, loopFrame+8, r7, u64)
	f.loadFunc(r2, cb.name)
	f.mov(r3, r10)
	f.addImm(r3, loopFrame)
	f.imm(r4, 0)
	f.helper(helper)
	// The callback may have ended the handler.
	f.load(r1, r7, headState, u64)
	f.emit(asm.JNE.Imm(r1, 0, g.end))

	g.fns = append(g.fns, cb)
	outer := *g
	g.f, g.faults = cb, map[Fault]string{}
	g.end, g.brk, g.cont = cb.newLabel("end"), cb.newLabel("break"), cb.newLabel("continue")
	ctx := r2
	if helper == asm.FnForEachMapElem {
		ctx = r4
		cb.mov(r8, r2)
		cb.mov(r9, r3)
	} else {
		cb.mov(r8, r1)
	}
	cb.load(r6, ctx, 0, u64)
	cb.load(r7, ctx, 8, u64)
	body()
	cb.place(g.cont)
	cb.exitWith(0)
	cb.place(g.end)
	cb.storeImm(r7, headState, stateDone, u64)
	cb.place(g.brk)
	cb.exitWith(1)
	g.tails()
	outer.fns, outer.edges, outer.lines, outer.most, outer.err = g.fns, g.edges, g.lines, g.most, g.err
	*g = outer
}

func (g *handler) forRange(s *ir.ForRange) {
	f := g.f
	// The bounds are looked at once; the variable is what the body makes of it.
	from := g.temp(8)
	g.scalar(s.From)
	f.store(r7, from, r0, u64)
	g.scalar(s.To)
	f.load(r2, r7, from, u64)
	some, done := g.label("some"), g.label("none")
	f.emit(asm.JSGT.Reg(r0, r2, some))
	f.jump(done)
	f.place(some)
	f.mov(r1, r0)
	f.emit(asm.Sub.Reg(r1, r2))
	few := g.label("few")
	f.emit(asm.JLE.Imm(r1, ir.MaxLoop, few))
	f.imm(r1, ir.MaxLoop)
	f.place(few)
	g.loop(asm.FnLoop, "for", func() {
		g.f.load(r1, r7, from, u64)
		g.f.emit(asm.Add.Reg(r1, r8))
		g.f.store(r7, g.vars[s.Slot], r1, asmSize(g.h.Vars[s.Slot].Size))
		g.stmts(s.Body)
	}, num("index"), ptr("loop"))
	f.place(done)
}

func (g *handler) forMap(s *ir.ForMap) {
	m := g.s.Maps[s.Map]
	kv := g.h.Vars[s.Slot]
	key := kv.Fields[0]
	val := kv.Fields[len(kv.Fields)-1]
	at := g.vars[s.Slot]
	g.f.loadMap(r1, mapName(s.Map))
	g.loop(asm.FnForEachMapElem, "each", func() {
		if m.Key != nil {
			g.copyFrom(r8, at+key.Off, key.Type.Size)
		}
		if m.Value.Kind.Aggregate() {
			k := g.temp(keySize(m))
			g.copyFrom(r8, k, keySize(m))
			g.sumUp(s.Map, k, val.Type)
			g.f.store(r7, at+val.Off, r0, asmSize(val.Type.Size))
		} else {
			g.copyFrom(r9, at+val.Off, val.Type.Size)
		}
		g.stmts(s.Body)
	}, ptr("map"), ptr("key"), ptr("value"), ptr("loop"))
}

// copyFrom copies n bytes at the address in a register, which survives, to the frame.
func (g *handler) copyFrom(from asm.Register, off, n int) {
	f := g.f
	if n > 512 {
		g.addr(r1, off)
		f.imm(r2, int64(n))
		f.mov(r3, from)
		f.helper(asm.FnProbeReadKernel)
		return
	}
	for i := 0; i < n; {
		size := step8(n - i)
		f.load(r1, from, i, asmSize(size))
		f.store(r7, off+i, r1, asmSize(size))
		i += size
	}
}

// step8 is the largest access of at most n bytes.
func step8(n int) int {
	for _, k := range []int{8, 4, 2} {
		if n >= k {
			return k
		}
	}
	return 1
}

// addr makes r an address in the frame.
func (g *handler) addr(r asm.Register, off int) {
	g.f.mov(r, r7)
	g.f.addImm(r, int32(off))
}

// zero clears n bytes of the frame, up to the next multiple of 8.
func (g *handler) zero(off, n int) {
	f := g.f
	n = align8(n)
	if n > 1024 && g.onHeap {
		// From where there are zeros.
		g.zeros(r3)
		g.addr(r1, off)
		f.imm(r2, int64(n))
		f.helper(asm.FnProbeReadKernel)
		g.c.zeros = max(g.c.zeros, n)
		return
	}
	for i := 0; i < n; i += 8 {
		f.storeImm(r7, off+i, 0, u64)
	}
}

// zeros makes r the address of zeros.
func (g *handler) zeros(r asm.Register) {
	f := g.f
	f.imm(r1, 0)
	f.lookup(mapZeros)
	f.emit(asm.JEq.Imm(r0, 0, g.end))
	f.mov(r, r0)
}

// copy copies within the frame.
func (g *handler) copy(to, from, n int) {
	if to == from {
		return
	}
	f := g.f
	if n > 512 {
		g.addr(r1, to)
		f.imm(r2, int64(n))
		g.addr(r3, from)
		f.helper(asm.FnProbeReadKernel)
		return
	}
	for i := 0; i < n; {
		size := step8(n - i)
		f.load(r1, r7, from+i, asmSize(size))
		f.store(r7, to+i, r1, asmSize(size))
		i += size
	}
}

// key puts a map's key into the frame.
func (g *handler) key(m int, x ir.Expr) int {
	mm := g.s.Maps[m]
	at := g.temp(keySize(mm))
	if mm.Key == nil {
		g.zero(at, keySize(mm))
	} else {
		g.whole(x, mm.Key, at)
	}
	return at
}

// whole stores a value that is looked at in words: a scalar as one, and what is longer with
// zeros up to the next multiple of 8.
func (g *handler) whole(x ir.Expr, t *ir.Type, at int) {
	if t.Scalar() {
		g.scalar(x)
		g.f.store(r7, at, r0, u64)
		return
	}
	if t.Size%8 != 0 {
		g.f.storeImm(r7, at+t.Size&^7, 0, u64)
	}
	g.into(x, t, at)
}

// update makes r0 what storing the value at a place of the frame gives.
func (g *handler) update(m, key, value int, flags int64) {
	f := g.f
	g.addr(r2, key)
	g.addr(r3, value)
	f.imm(r4, flags)
	f.loadMap(r1, mapName(m))
	f.helper(asm.FnMapUpdateElem)
}

// Flags of updates.
const (
	updateAny     = 0
	updateNoExist = 1
)

// full counts an update that did not succeed, by what it gave.
func (g *handler) full() {
	ok := g.label("stored")
	g.f.emit(asm.JEq.Imm(r0, 0, ok))
	g.fault(runtime.MapFull)
	g.f.place(ok)
}

func (g *handler) setMap(m int, k, x ir.Expr) {
	vt := g.s.Maps[m].Value
	if g.c.Single[m] {
		g.scalar(x)
		g.single(m, r1)
		g.f.store(r1, 0, r0, u64)
		g.f.storeImm(r1, valueSize(vt), 1, u64)
		return
	}
	value := g.temp(valueSize(vt))
	g.whole(x, vt, value)
	key := g.key(m, k)
	g.update(m, key, value, updateAny)
	g.full()
}

func (g *handler) addMap(s *ir.AddMap) {
	f := g.f
	if g.c.Single[s.Map] {
		g.scalar(s.X)
		g.single(s.Map, r1)
		f.atomic(asm.AddAtomic, r1, 0, r0)
		f.storeImm(r1, valueSize(g.s.Maps[s.Map].Value), 1, u64)
		return
	}
	value := g.temp(8)
	g.scalar(s.X)
	f.store(r7, value, r0, u64)
	key := g.key(s.Map, s.Key)
	add, done := g.label("add"), g.label("added")
	find := func() {
		g.addr(r2, key)
		f.loadMap(r1, mapName(s.Map))
		f.helper(asm.FnMapLookupElem)
	}
	find()
	f.emit(asm.JNE.Imm(r0, 0, add))
	g.update(s.Map, key, value, updateNoExist)
	f.emit(asm.JEq.Imm(r0, 0, done))
	// It has no room, or has come into being meanwhile.
	full := g.label("full")
	find()
	f.emit(asm.JEq.Imm(r0, 0, full))
	f.place(add)
	f.load(r1, r7, value, u64)
	f.atomic(asm.AddAtomic, r0, 0, r1)
	f.jump(done)
	f.place(full)
	g.fault(runtime.MapFull)
	f.place(done)
}

// element makes r9 this CPU's value of an aggregating map, which is made of zeros if it
// is not there. Without room for it the statement is over: control goes to done.
func (g *handler) element(m, key int, done string) {
	f := g.f
	there, full := g.label("there"), g.label("full")
	find := func() {
		g.addr(r2, key)
		f.loadMap(r1, mapName(m))
		f.helper(asm.FnMapLookupElem)
	}
	find()
	f.emit(asm.JNE.Imm(r0, 0, there))
	n := valueSize(g.s.Maps[m].Value)
	if n <= 64 {
		zero := g.temp(n)
		g.zero(zero, n)
		g.addr(r3, zero)
	} else {
		g.zeros(r3)
	}
	g.addr(r2, key)
	f.imm(r4, updateNoExist)
	f.loadMap(r1, mapName(m))
	f.helper(asm.FnMapUpdateElem)
	find()
	f.emit(asm.JEq.Imm(r0, 0, full), asm.Ja.Label(there))
	f.place(full)
	g.fault(runtime.MapFull)
	f.jump(done)
	f.place(there)
	f.mov(r9, r0)
}
