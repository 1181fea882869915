package jit

import (
	"ferrotrace/internal/runtime/user/vm/insn"
)

// Offsets in struct pt_regs (the kernel's arch/x86/include/uapi/asm/ptrace.h).
const (
	regBP = 32
	regIP = 128
	// ContextSize is the size of struct pt_regs in bytes.
	ContextSize = 168
	// vectorSize is that of one xmm register; the 16 of them follow struct pt_regs.
	vectorSize  = 16
	vectorsSize = 16 * vectorSize
)

// Context says what a program reads of its context: a struct pt_regs, and after it
// xmm0 … xmm15, of 16 bytes each.
type Context struct {
	// Regs has bit i set if the 8 bytes at offset 8*i of the context are read.
	Regs uint32
	// Vectors has bit n set if something of xmm n is read.
	Vectors uint16
	// Full: the context goes somewhere it cannot be followed, so all of struct pt_regs
	// may be read. What follows it only programs know of that read it plainly: the
	// kernel's context ends there.
	Full bool
	// Cookie and FuncIP say whether the words below the context are read.
	Cookie, FuncIP bool
}

// contextOf follows the context through the registers of a program.
func contextOf(p *insn.Program) Context {
	w := ctxWalk{p: p, held: make([]uint16, len(p.Insns)), seen: make([]bool, len(p.Insns))}
	w.reach(0, 1<<1)
	for len(w.todo) > 0 {
		slot := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		w.step(slot)
	}
	if w.ctx.Full {
		w.ctx.Regs = 1<<(ContextSize/8) - 1
	}
	return w.ctx
}

type ctxWalk struct {
	p    *insn.Program
	ctx  Context
	held []uint16 // by slot: the registers that may hold the context there
	seen []bool
	todo []int
}

// reach joins what is held at a slot.
func (w *ctxWalk) reach(slot int, held uint16) {
	if w.seen[slot] && w.held[slot]|held == w.held[slot] {
		return
	}
	w.seen[slot] = true
	w.held[slot] |= held
	w.todo = append(w.todo, slot)
}

func (w *ctxWalk) step(slot int) {
	in := w.p.Insns[slot]
	held := w.held[slot]
	has := func(r uint8) bool { return held>>r&1 != 0 }
	set := func(r uint8, v bool) {
		held &^= 1 << r
		if v {
			held |= 1 << r
		}
	}
	escape := func(rs ...uint8) {
		for _, r := range rs {
			w.ctx.Full = w.ctx.Full || has(r)
		}
	}
	next := slot + 1
	switch {
	case in.Op == insn.Mov && in.Reg && in.Wide:
		set(in.Dst, has(in.Src))
	case in.Op == insn.Mov, in.Op == insn.MovSX:
		if in.Reg {
			escape(in.Src)
		}
		set(in.Dst, false)
	case in.Op.IsALU():
		escape(in.Dst)
		if in.Reg {
			escape(in.Src)
		}
		set(in.Dst, false)
	case in.Op == insn.Load, in.Op == insn.LoadSX:
		if has(in.Src) {
			w.read(int(in.Off), int(in.Bytes))
		}
		set(in.Dst, false)
	case in.Op == insn.Store:
		escape(in.Dst)
		if in.Reg {
			escape(in.Src)
		}
	case in.Op.IsAtomic():
		escape(in.Dst, in.Src)
		if in.Op == insn.CmpXchg {
			escape(0)
			set(0, false)
		} else if in.Fetch {
			set(in.Src, false)
		}
	case in.Op.IsCond():
		w.reach(in.Target, held)
	case in.Op == insn.Ja:
		w.reach(in.Target, held)
		return
	case in.Op == insn.Exit:
		escape(0)
		return
	case in.Op == insn.Call:
		first := uint8(1)
		switch in.Imm { // those whose first argument is the context
		case insn.GetAttachCookie:
			w.ctx.Cookie, first = true, 2
		case insn.GetFuncIP:
			w.ctx.FuncIP, first = true, 2
		case insn.GetStack:
			w.read(regBP, 8)
			w.read(regIP, 8)
			first = 2
		}
		for r := first; r <= argCount(in.Imm); r++ {
			escape(r)
		}
		held &^= 0x3f
	case in.Op == insn.CallLocal:
		w.reach(in.Target, held&0x3e)
		held &^= 0x3f
	case in.Op == insn.LoadFunc:
		w.reach(in.Target, 0)
		set(in.Dst, false)
		next++
	default: // other 64-bit immediates
		set(in.Dst, false)
		next++
	}
	if next < len(w.p.Insns) {
		w.reach(next, held)
	}
}

// read notes an access to the context.
func (w *ctxWalk) read(off, size int) {
	if off < 0 || off+size > ContextSize+vectorsSize {
		w.ctx.Full = true
		return
	}
	for i := off; i < off+size; i++ {
		if i < ContextSize {
			w.ctx.Regs |= 1 << (i / 8)
		} else {
			w.ctx.Vectors |= 1 << ((i - ContextSize) / vectorSize)
		}
	}
}

// argCount is how many arguments a helper takes: what else is in r1 … r5 is not an
// argument.
func argCount(helper int64) uint8 {
	switch helper {
	case insn.GetCurrentPidTgid, insn.GetCurrentUidGid, insn.GetSmpProcessorID, insn.GetNumaNodeID, insn.GetPrandomU32,
		insn.KtimeGetNs, insn.KtimeGetBootNs, insn.KtimeGetCoarseNs, insn.KtimeGetTaiNs:
		return 0
	case insn.GetAttachCookie, insn.GetFuncIP:
		return 1
	case insn.RingbufSubmit, insn.RingbufDiscard, insn.MapLookup, insn.MapDelete, insn.RingbufQuery, insn.GetCurrentComm:
		return 2
	case insn.ProbeRead, insn.ProbeReadKernel, insn.ProbeReadKernelStr, insn.ProbeReadStr, insn.ProbeReadUser,
		insn.ProbeReadUserStr, insn.CopyFromUser, insn.RingbufReserve, insn.Strncmp, insn.MapLookupPerCPU:
		return 3
	case insn.MapUpdate, insn.GetNsPidTgid, insn.GetStack, insn.RingbufOutput, insn.Loop, insn.ForEachMapElem:
		return 4
	}
	return 5
}
