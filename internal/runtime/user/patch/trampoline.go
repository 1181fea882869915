package patch

import (
	"math/bits"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/x86"
)

// The frame of a probe, from rsp up: the flags, the cookie and the address of the
// probe (what package jit wants below the context), the context, the vectors. What
// is saved is saved in the context.
const (
	flagsSlot   = 0
	contextAt   = 8 - jit.CookieOffset
	frameSize   = contextAt + jit.ContextSize
	vectorsSize = 16 * 16
	redZoneSize = 128
)

// Offsets in struct pt_regs (arch/x86/include/uapi/asm/ptrace.h), by registers'
// numbers in encodings.
var ctxOffset = [16]int32{
	asm.RAX: 80, asm.RCX: 88, asm.RDX: 96, asm.RBX: 40, asm.RSP: 152, asm.RBP: 32, asm.RSI: 104, asm.RDI: 112,
	asm.R8: 72, asm.R9: 64, asm.R10: 56, asm.R11: 48, asm.R12: 24, asm.R13: 16, asm.R14: 8, asm.R15: 0,
}

const (
	ctxOrigAX = 120
	ctxIP     = 128
	ctxCS     = 136
	ctxFlags  = 144
	ctxSS     = 160
)

// Trampoline writes the trampoline of p as it is to be placed at base: for each
// displaced instruction the probes of the sites there, then its copy; last a jump
// back. Probes move no register that frames are walked by, and their programs have
// frames of the usual form, so that walking from within one leads to the function.
func Trampoline(p *Patch, base uint64) (Code, error) {
	var a asm.Assembler
	var c Code
	sites := p.Sites
	raw := p.raw
	for i := range p.Displaced {
		in := &p.Displaced[i]
		cp := Copy{Addr: in.Addr, Begin: a.Len()}
		n := 0
		for n < len(sites) && sites[n].Addr == in.Addr {
			n++
		}
		if n > 0 {
			probe(&a, base, in, sites[:n])
			sites = sites[n:]
		}
		cp.Copy = a.Len()
		if err := a.Relocate(base+uint64(a.Len()), in, raw[:in.Len]); err != nil {
			return Code{}, err
		}
		raw = raw[in.Len:]
		c.Copies = append(c.Copies, cp)
	}
	if p.ResumeAt != 0 {
		c.Copies = append(c.Copies, Copy{p.ResumeAt, a.Len(), a.Len()})
		a.JmpTo(base+uint64(a.Len()), p.ResumeAt)
	}
	var err error
	c.Bytes, _, err = a.Finish()
	return c, err
}

// probe writes the code that runs the programs of sites, which are at one address,
// that of in.
func probe(a *asm.Assembler, base uint64, in *x86.Inst, sites []Site) {
	// What one site knows to be dead is dead.
	live, flags, redZone := asm.RegSet(1<<16-1), true, true
	var programs []Program
	for i := range sites {
		r, f, z := sites[i].live(in)
		live, flags, redZone = live&r, flags && f, redZone && z
		programs = append(programs, sites[i].Programs...)
	}
	if len(programs) == 0 {
		return
	}
	var clobbers asm.RegSet
	var fields uint32
	var vectors, vectorClobbers uint16
	ctx := false
	for i := range programs {
		p := &programs[i]
		clobbers |= p.Clobbers
		fields |= fieldsOf(p)
		vectors |= p.Vectors
		vectorClobbers |= p.VectorClobbers
		ctx = ctx || p.wantsContext()
	}
	scratch := ctx || flags
	if ctx {
		clobbers |= asm.Set(asm.RDI)
	}
	if flags {
		clobbers |= asm.Set(asm.RAX) // the flags go through it
	}
	const constants = 1<<(ctxIP/8) | 1<<(ctxOrigAX/8) | 1<<(ctxCS/8) | 1<<(ctxSS/8)
	if fields&(1<<(ctxIP/8)|1<<(ctxFlags/8)|1<<(ctxOffset[asm.RSP]/8)) != 0 || wantCookies(programs) {
		clobbers |= asm.Set(asm.R11) // what is no register goes through it
	}
	saved := clobbers & live &^ asm.Set(asm.RSP)
	saveVectors := vectorClobbers // results and arguments may be in any
	framed := scratch || saved != 0 || vectors|saveVectors != 0 || redZone
	size := int32(frameSize)
	if vectors|saveVectors != 0 {
		size += vectorsSize
	}
	if redZone {
		size += redZoneSize
	}
	slot := func(off int32) asm.Mem { return asm.At(asm.RSP, contextAt+off) }
	if framed {
		// lea leaves the flags as they are.
		a.Lea(asm.RSP, asm.At(asm.RSP, -size))
	}
	for r := asm.RAX; r <= asm.R15; r++ {
		if r != asm.RSP && (saved.Has(r) || fields>>(ctxOffset[r]/8)&1 != 0) {
			a.Store(8, slot(ctxOffset[r]), r)
		}
	}
	for x := 0; x < 16; x++ {
		if (vectors|saveVectors)>>x&1 != 0 {
			a.Movups(x, slot(VectorsOffset+16*int32(x)), true)
		}
	}
	if fields>>(ctxFlags/8)&1 != 0 {
		a.Bytes(0x9c) // pushfq
		a.Pop(asm.R11)
		a.Store(8, slot(ctxFlags), asm.R11)
	}
	if flags {
		a.SaveFlags()
		a.Store(8, asm.At(asm.RSP, flagsSlot), asm.RAX)
	}
	if fields>>(ctxOffset[asm.RSP]/8)&1 != 0 {
		a.Lea(asm.R11, asm.At(asm.RSP, size))
		a.Store(8, slot(ctxOffset[asm.RSP]), asm.R11)
	}
	ip := fields>>(ctxIP/8)&1 != 0
	if ip {
		a.MovImm(asm.R11, int64(in.Addr))
		a.Store(8, slot(ctxIP), asm.R11)
	}
	if fields&(constants&^(1<<(ctxIP/8))) != 0 {
		a.StoreImm(8, slot(ctxOrigAX), -1)
		a.StoreImm(8, slot(ctxCS), 0x33) // __USER_CS
		a.StoreImm(8, slot(ctxSS), 0x2b) // __USER_DS
	}
	funcIP := false
	for i := range programs {
		p := &programs[i]
		if p.Context.FuncIP && !funcIP {
			a.MovImm(asm.R11, int64(in.Addr))
			a.Store(8, slot(jit.FuncIPOffset), asm.R11)
			funcIP = true
		}
		if p.Context.Cookie {
			if c := int64(p.Cookie); c == int64(int32(c)) {
				a.StoreImm(8, slot(jit.CookieOffset), int32(c))
			} else {
				a.MovImm(asm.R11, c)
				a.Store(8, slot(jit.CookieOffset), asm.R11)
			}
		}
		if p.wantsContext() {
			a.Lea(asm.RDI, asm.At(asm.RSP, contextAt))
		}
		if p.Body != nil {
			a.Bytes(p.Body...)
		} else {
			a.CallTo(base+uint64(a.Len()), p.Entry)
		}
	}
	if flags {
		a.Load(8, asm.RAX, asm.At(asm.RSP, flagsSlot))
		a.RestoreFlags()
	}
	for s := saveVectors; s != 0; s &= s - 1 {
		x := bits.TrailingZeros16(s)
		a.Movups(x, slot(VectorsOffset+16*int32(x)), false)
	}
	for r := asm.RAX; r <= asm.R15; r++ {
		if saved.Has(r) {
			a.Load(8, r, slot(ctxOffset[r]))
		}
	}
	if framed {
		a.Lea(asm.RSP, asm.At(asm.RSP, size))
	}
}

// fieldsOf is the words of the context that p reads.
func fieldsOf(p *Program) uint32 {
	if p.Context.Full {
		return 1<<(jit.ContextSize/8) - 1
	}
	return p.Context.Regs
}

func (p *Program) wantsContext() bool {
	return p.Context.Full || p.Context.Regs != 0 || p.Context.Cookie || p.Context.FuncIP || p.Vectors != 0
}

func wantCookies(programs []Program) bool {
	for i := range programs {
		if programs[i].Context.FuncIP || programs[i].Context.Cookie {
			return true
		}
	}
	return false
}
