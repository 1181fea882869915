package codegen

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf/asm"
)

// registerOffset is where the context holds a register; the instruction pointer is one.
func registerOffset(r location.Reg) int {
	if r == location.RA {
		return offIP
	}
	return regOffset[r]
}

// rootScalar makes r0 a scalar that is a part of a root.
func (g *handler) rootScalar(x *ir.Root) {
	f := g.f
	at := g.temp(8)
	unreadable := g.endAs(runtime.Unreadable)
	if p, ok := g.piece(x.Root, x.Off, x.T.Size); ok && (p.Kind == location.Register && p.Reg.IsGeneral() || p.Kind == location.Value) {
		shift := int32(8 * (int(x.Off) - p.Offset))
		if p.Kind == location.Register {
			f.load(r0, r6, regOffset[p.Reg], u64)
		} else {
			f.expr(p.Expr, g.o, true, unreadable)
			f.mov(r0, r8)
		}
		if shift > 0 {
			f.emit(asm.RSh.Imm(r0, shift))
		}
		g.narrow(x.T)
		return
	}
	g.rootInto(x.Root, x.Off, x.T.Size, at, unreadable)
	g.load(at, x.T)
}

// piece is the one piece that holds size bytes of a root from off on.
func (g *handler) piece(root int, off int64, size int) (location.Piece, bool) {
	if g.item == nil || root >= len(g.item.Values) {
		return location.Piece{}, false
	}
	for _, p := range g.item.Values[root].Place.Pieces {
		if int(off) >= p.Offset && int(off)+size <= p.Offset+p.Size {
			return p, true
		}
	}
	return location.Piece{}, false
}

// rootInto puts size bytes of a root, from off on, at a place of the frame, or jumps to
// unreadable.
func (g *handler) rootInto(root int, off int64, size, at int, unreadable string) {
	if g.item == nil || root >= len(g.item.Values) {
		g.fail("value %d is not bound", root)
		return
	}
	lo, end := int(off), int(off)+size
	have := lo
	for _, p := range g.item.Values[root].Place.Pieces {
		from, to := max(lo, p.Offset), min(end, p.Offset+p.Size)
		if from >= to || from < have {
			continue
		}
		if from > have {
			break
		}
		have = to
		g.pieceInto(p, from-p.Offset, to-from, at+from-lo, unreadable)
	}
	if have < end {
		g.fail("part of a value is %s", location.OptimizedOut)
	}
}

// pieceInto stores n bytes of a piece, from skip on.
func (g *handler) pieceInto(p location.Piece, skip, n, at int, unreadable string) {
	f := g.f
	store := func(r asm.Register, n int) {
		for n > 0 {
			k := step8(n)
			f.store(r7, at, r, asmSize(k))
			if n -= k; n > 0 {
				f.emit(asm.RSh.Imm(r, int32(8*k)))
				at += k
			}
		}
	}
	switch {
	case p.Kind == location.Register && p.Reg.IsXMM() && g.o.XMM > 0:
		base := g.o.XMM + 16*int(p.Reg-location.XMM0) + skip
		for n > 0 {
			k := step8(n)
			f.load(r1, r6, base, asmSize(k))
			f.store(r7, at, r1, asmSize(k))
			base, at, n = base+k, at+k, n-k
		}
	case p.Kind == location.Register && p.Reg.IsGeneral():
		f.load(r1, r6, regOffset[p.Reg], u64)
		if skip > 0 {
			f.emit(asm.RSh.Imm(r1, int32(8*skip)))
		}
		store(r1, n)
	case p.Kind == location.Value && exprProblem(p.Expr) == "":
		f.expr(p.Expr, g.o, true, unreadable)
		if skip > 0 {
			f.emit(asm.RSh.Imm(r8, int32(8*skip)))
		}
		store(r8, n)
	case p.Kind == location.Constant:
		for n > 0 {
			k := step8(n)
			var v uint64
			for i, b := range p.Bytes[skip : skip+k] {
				v |= uint64(b) << (8 * i)
			}
			f.imm(r1, int64(v))
			f.store(r7, at, r1, asmSize(k))
			skip, at, n = skip+k, at+k, n-k
		}
	case p.Kind == location.Memory && exprProblem(p.Expr) == "":
		f.expr(p.Expr, g.o, true, unreadable)
		g.addr(r1, at)
		f.imm(r2, int64(n))
		f.mov(r3, r8)
		f.addImm(r3, int32(skip))
		f.helper(g.o.read())
		f.emit(asm.JNE.Imm(r0, 0, unreadable))
	case p.Kind == location.Missing:
		g.fail("part of a value is %s", p.Why)
	default:
		g.fail("part of a value can't be had here")
	}
}

// read puts memory of the process at a place of the frame.
func (g *handler) read(x *ir.Load, at int) {
	f := g.f
	mark := g.at
	g.scalar(x.Addr)
	g.release(mark)
	f.mov(r3, r0)
	g.addr(r1, at)
	f.imm(r2, int64(x.T.Size))
	f.helper(g.o.read())
	if x.Strict {
		f.emit(asm.JNE.Imm(r0, 0, g.endAs(runtime.Unreadable)))
		return
	}
	g.softly()
}

// softly counts a read that did not succeed and left zeros.
func (g *handler) softly() {
	ok := g.label("read")
	g.f.emit(asm.JEq.Imm(r0, 0, ok))
	g.fault(runtime.ReadZeros)
	g.f.place(ok)
}

// addressAndLength leaves an address in r3, and the number of bytes, most at most, in r2.
// Where they come from is evaluated before the frame's place is written to.
func (g *handler) addressAndLength(addr, n ir.Expr, most int) {
	f := g.f
	mark := g.at
	p := g.temp(8)
	g.scalar(addr)
	f.store(r7, p, r0, u64)
	g.scalar(n)
	f.mov(r2, r0)
	few := g.label("few")
	f.emit(asm.JLE.Imm(r2, int32(most), few))
	f.imm(r2, int64(most))
	f.place(few)
	f.load(r3, r7, p, u64)
	g.release(mark)
}

// ellipsis ends a text that is cut.
const ellipsis = "…"

// readText reads text. One that is cut ends in an ellipsis if its length is known: how it
// goes on is not forgotten silently.
func (g *handler) readText(x *ir.ReadText, at int) {
	f := g.f
	size := x.T.Size
	if x.Len == nil || !x.Strict {
		// bpftrace's str(p, n): text that a zero ends, n what is asked for with that.
		p, n := g.temp(8), g.temp(8)
		g.scalar(x.Addr)
		f.store(r7, p, r0, u64)
		g.zero(at, size)
		f.imm(r0, int64(size))
		if x.Len != nil {
			g.scalar(x.Len)
		}
		f.store(r7, n, r0, u64)
		if g.o.Sleepable {
			// The helper for strings takes no page in that is not there yet.
			touched := g.temp(8)
			g.addr(r1, touched)
			f.imm(r2, 1)
			f.load(r3, r7, p, u64)
			f.helper(g.o.read())
		}
		f.load(r2, r7, n, u64)
		few := g.label("few")
		f.emit(asm.JLE.Imm(r2, int32(size), few))
		f.imm(r2, int64(size))
		f.place(few)
		g.addr(r1, at)
		f.load(r3, r7, p, u64)
		f.helper(asm.FnProbeReadUserStr)
		bad, done := g.label("bad"), g.label("done")
		f.emit(asm.JSLT.Imm(r0, 0, bad))
		f.jump(done)
		f.place(bad)
		if x.Strict {
			g.fault(runtime.Unreadable)
			f.jump(g.end)
		} else {
			g.fault(runtime.ReadZeros)
		}
		f.place(done)
		return
	}
	length := g.temp(8)
	g.zero(at, size)
	g.scalar(x.Len)
	f.store(r7, length, r0, u64)
	g.addressAndLength(x.Addr, &saved{length}, size)
	g.addr(r1, at)
	f.helper(g.o.read())
	f.emit(asm.JNE.Imm(r0, 0, g.endAs(runtime.Unreadable)))
	whole := g.label("whole")
	f.load(r1, r7, length, u64)
	f.emit(asm.JLE.Imm(r1, int32(size), whole))
	for i := range len(ellipsis) {
		f.storeImm(r7, at+size-len(ellipsis)+i, int64(int8(ellipsis[i])), u8)
	}
	f.place(whole)
}

// saved is a word of the frame as an expression.
type saved struct{ at int }

func (*saved) Type() *ir.Type { return ir.U64 }

func (g *handler) readBytes(x *ir.ReadBytes, at int) {
	f := g.f
	length := g.temp(8)
	most := x.T.Size - 4
	g.zero(at, x.T.Size)
	g.scalar(x.Len)
	f.store(r7, length, r0, u64)
	g.addressAndLength(x.Addr, &saved{length}, most)
	f.store(r7, at, r2, u32)
	g.addr(r1, at+4)
	f.helper(g.o.read())
	if x.Strict {
		f.emit(asm.JNE.Imm(r0, 0, g.endAs(runtime.Unreadable)))
	} else {
		g.softly()
	}
}

func (g *handler) builtin(x *ir.Builtin) {
	f := g.f
	switch x.Kind {
	case ir.Pid:
		f.load(r0, r7, headIDs, u32)
	case ir.Tid:
		f.load(r0, r7, headIDs+4, u32)
	case ir.UID, ir.GID:
		f.helper(asm.FnGetCurrentUidGid)
		if x.Kind == ir.GID {
			f.emit(asm.RSh.Imm(r0, 32))
		} else {
			f.emit(asm.LSh.Imm(r0, 32), asm.RSh.Imm(r0, 32))
		}
	case ir.Now:
		f.helper(clocks[ir.Clock(x.N)])
	case ir.CPU:
		f.helper(asm.FnGetSmpProcessorId)
	case ir.Rand:
		f.helper(asm.FnGetPrandomU32)
	case ir.Cgroup:
		f.helper(asm.FnGetCurrentCgroupId)
	case ir.NUMANode:
		f.helper(asm.FnGetNumaNodeId)
	case ir.Bias:
		f.load(r0, r7, headBias, u64)
	case ir.FuncName, ir.ProbeName:
		none := g.label("none")
		f.mov(r1, r6)
		f.helper(asm.FnGetAttachCookie)
		f.mov(r1, r0)
		f.lookup(mapWords)
		f.emit(asm.JEq.Imm(r0, 0, none))
		off := 0
		if x.Kind == ir.ProbeName {
			off = 4
		}
		f.load(r0, r0, off, u32)
		f.place(none)
	case ir.IP:
		f.load(r0, r6, offIP, u64)
	case ir.CFA:
		known := g.label("known")
		f.load(r0, r7, headCFA, u64)
		f.emit(asm.JNE.Imm(r0, 0, known))
		g.fault(runtime.Unreadable)
		f.jump(g.end)
		f.place(known)
	default:
		g.fail("builtin %d", x.Kind)
	}
	if s := x.T.Size; s < 8 {
		g.narrow(x.T)
	}
}

var clocks = map[ir.Clock]asm.BuiltinFunc{
	ir.Monotonic: asm.FnKtimeGetNs, ir.Boot: asm.FnKtimeGetBootNs, ir.TAI: asm.FnKtimeGetTaiNs,
	ir.Wall: asm.FnKtimeGetTaiNs, ir.Coarse: asm.FnKtimeGetCoarseNs,
}

func (g *handler) builtinInto(x *ir.Builtin, at int) {
	f := g.f
	switch x.Kind {
	case ir.Comm:
		g.addr(r1, at)
		f.imm(r2, 16)
		f.helper(asm.FnGetCurrentComm)
	case ir.UserStack:
		g.zero(at, x.T.Size)
		if g.item == nil && !g.samples {
			return // there is no process
		}
		f.load(r1, r7, headIDs, u32)
		f.store(r7, at, r1, u32)
		f.load(r1, r7, headBias, u64)
		f.store(r7, at+8, r1, u64)
		// Where the frame is not there yet, or not any more, the frame pointer is the
		// caller's, and the call's own return address is on top of the stack. Kernels since 6.11
		// see that at a function's first push (perf_callchain_user in
		// arch/x86/events/core.c).
		frames, skip := at+ir.StackHead, 0
		if g.o.XMM > 0 && g.item != nil && g.item.CFA.Equal(frameless) && x.N > 1 {
			skip = 8
		}
		f.mov(r1, r6)
		g.addr(r2, frames+skip)
		f.imm(r3, int64(8*x.N-skip))
		f.imm(r4, flagUserStack)
		f.helper(asm.FnGetStack)
		none := g.label("none")
		f.emit(asm.JSLT.Imm(r0, 8, none), asm.RSh.Imm(r0, 3))
		if skip > 0 {
			f.addImm(r0, 1)
		}
		f.store(r7, at+4, r0, u32)
		if skip > 0 {
			f.load(r1, r7, frames+skip, u64)
			f.store(r7, frames, r1, u64)
			g.addr(r1, frames+skip)
			f.imm(r2, 8)
			f.load(r3, r6, regOffset[location.RSP], u64)
			f.helper(g.o.read())
		}
		f.place(none)
	default:
		g.fail("builtin %d is no value", x.Kind)
	}
}

// frameless is the CFA of a function that has pushed nothing.
var frameless = location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 8}}

const flagUserStack = 1 << 8 // BPF_F_USER_STACK
