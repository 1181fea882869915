// Package patch works out how a jump is planted into code, so that control comes to
// a probe, and writes the trampolines that the jumps go to. It reads and writes no
// process: Planner.Plan takes code and sites and returns bytes.
//
// # How a site is taken
//
// A trampoline holds copies of the instructions that the jump displaces, with the
// probe before the copy of the site's. The ways, the first that fits:
//
//   - Jump5: a jump of five bytes, over whole instructions from the site on, and over
//     padding behind a return;
//   - ShortToPadding: a jump of two bytes to padding in reach, where there is room for
//     one of five;
//   - Around: a jump of five bytes that begins before the site, as for a return with
//     its epilogue;
//   - ShortToRoom: as ShortToPadding, to room that is made: a patch nearby, without a
//     site, displaces more bytes than its own jump takes;
//   - Pun: a jump whose displacement is, in part or entirely, the bytes of the
//     instructions that follow, which stay as they are; its target has to be mapped
//     wherever that leads (Duck, Gao, Roychoudhury: Binary Rewriting without Control
//     Flow Recovery, PLDI 2020).
//
// Only the first displaced instruction may be jumped to, and none but the last may
// be a call: its callee, perhaps running now, returns to what follows it.
//
// # Order
//
// A pun holds as long as the bytes behind it stay. So patches must be planted in the
// order in which they are returned, and taken out in the reverse order. As long as a
// pun is in place, a breakpoint on the instruction behind it (a debugger's, a kernel
// uprobe's) diverts it.
package patch

import (
	"errors"
	"fmt"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/x86"
)

// Kind is what is known of a site's registers and stack.
type Kind uint8

// The kinds of site.
const (
	Line         Kind = iota // anywhere: everything is in use
	Entry                    // the first instruction of a function
	InlinedEntry             // like Line
	Exit                     // a return, or a jump to another function
)

func (k Kind) String() string { return [...]string{"line", "entry", "inlined entry", "exit"}[k] }

// Site is an address at which programs are to be run.
type Site struct {
	Addr uint64
	Kind Kind
	// Rust says that rustc has compiled the function: then an entry and an exit keep
	// to its calling convention, and what that leaves undefined need not be saved.
	Rust     bool
	Programs []Program // in the order in which they are run
}

// Program is what is run at a site: a System V function of the context, a struct
// pt_regs, as package jit makes it; it must neither write the context nor need the
// stack to be aligned.
type Program struct {
	Entry uint64 // its address
	// Body, if not nil, is put in the function's place: position-independent code that
	// is left at its end. The context is in rdi.
	Body     []byte
	Cookie   uint64
	Clobbers asm.RegSet // what it does not restore; flags are lost anyway
	Context  jit.Context
	// Vectors are the xmm registers that it reads at VectorsOffset of the context, and
	// VectorClobbers those that it changes: bit n for xmm n.
	Vectors, VectorClobbers uint16
}

// Inline makes a program of some instructions that write writes in place. It may change
// what clobbers has, and flags; args are the registers whose words it reads of its
// context, at RegOffset.
func Inline(clobbers asm.RegSet, args []asm.Reg, write func(*asm.Assembler)) Program {
	var a asm.Assembler
	write(&a)
	b, _, err := a.Finish()
	if err != nil {
		panic(err) // the same instructions each time
	}
	p := Program{Body: b, Clobbers: clobbers}
	for _, r := range args {
		p.Context.Regs |= 1 << (RegOffset(r) / 8)
	}
	return p
}

// RegOffset is where a general register is, from the context's address.
func RegOffset(r asm.Reg) int32 { return ctxOffset[r] }

// VectorsOffset is where the lower 16 bytes of xmm0 are, from the context's address;
// those of xmm1 to xmm15 follow.
const VectorsOffset = jit.ContextSize

// How is the way in which a site is taken.
type How uint8

// The ways.
const (
	Jump5 How = iota
	ShortToPadding
	Around
	ShortToRoom
	Pun
)

func (h How) String() string {
	return [...]string{"5-byte jump", "short jump to padding", "5-byte jump before it", "short jump to room made nearby", "punned jump"}[h]
}

// Write is bytes to be changed.
type Write struct {
	Addr     uint64
	Old, New []byte // of one length
}

// Patch is one jump with its trampoline.
type Patch struct {
	How How
	// Sites are those whose probes the trampoline holds, in order of address.
	Sites []Site
	// Addr is where the jump is.
	Addr uint64
	// Writes are to be made in this order, and undone in the reverse one: the last is
	// that of the jump at Addr.
	Writes []Write
	// Displaced are the instructions that are executed in the trampoline instead.
	Displaced []x86.Inst
	// Trampoline is where Code is to be placed.
	Trampoline uint64
	Code       Code
	// ResumeAt is where control comes back, 0 if the last displaced instruction leaves.
	ResumeAt uint64

	raw  []byte // of Displaced
	pads uint64 // bytes of padding behind Displaced that are overwritten
	room uint64 // where a short jump leads; 0: it is none
	host *Patch // that has made the room, nil if it is padding
}

// Code is the code of a trampoline.
type Code struct {
	Bytes []byte
	// Copies says where each displaced instruction is, and the jump back to ResumeAt.
	Copies []Copy
}

// Copy is the place of a displaced instruction in a trampoline, as offsets: Begin is
// where a thread that is about to execute the instruction at Addr may be moved to,
// its probes first, when the patch is planted. A thread that is at Copy may be moved
// to Addr when the patch is taken out; anywhere else in the trampoline it has to be
// waited for.
type Copy struct {
	Addr        uint64
	Begin, Copy int
}

// Planted returns where a thread that is stopped at pc has to go on once the patch is
// planted: in the trampoline, if its instruction is displaced, else at pc.
func (p *Patch) Planted(pc uint64) uint64 {
	for i := range p.Displaced {
		if c := p.Code.Copies[i]; c.Addr == pc && pc != p.Addr {
			return p.Trampoline + uint64(c.Begin)
		}
	}
	return pc
}

// Removed returns where a thread that is stopped at pc has to go on once the patch is
// taken out: at the original instruction, if it is in front of that one's copy. It
// says no for a thread inside a probe or inside what a copy is made of, which has to
// be waited for. Return addresses never point into a trampoline, but for those of a
// probe's own calls.
func (p *Patch) Removed(pc uint64) (uint64, bool) {
	if p.room != 0 && pc == p.room {
		return p.Addr, true
	}
	at := int(pc - p.Trampoline)
	if at < 0 || at >= len(p.Code.Bytes) {
		return pc, true
	}
	for _, c := range p.Code.Copies {
		if c.Begin == at || c.Copy == at {
			return c.Addr, true
		}
	}
	return 0, false
}

// Problem is a site that cannot be taken.
type Problem struct {
	Site Site
	Err  error
}

func (p Problem) Error() string { return fmt.Sprintf("%s at %#x: %v", p.Site.Kind, p.Site.Addr, p.Err) }

// Unwrap returns the reason.
func (p Problem) Unwrap() error { return p.Err }

// Reasons.
var (
	ErrNoInstruction = errors.New("no instruction of the function begins there")
	ErrJumpedInto    = errors.New("a jump leads into the bytes that would be displaced")
	ErrUnresolved    = errors.New("a jump of the function with unknown targets may lead into the bytes that would be displaced")
	ErrReturnedInto  = errors.New("a call returns into the bytes that would be displaced")
	ErrNoRoom        = errors.New("there is no room for a jump")
	ErrTaken         = errors.New("the bytes are displaced by another patch")
	ErrNoMemory      = errors.New("no free memory where the jump can lead")
	ErrDirection     = errors.New("the function changes the direction flag")
)

// live returns what has to be kept at a site, by in, the instruction there: general
// registers, flags, and the 128 bytes below the stack pointer (psABI, 3.2.2).
//
// At the entry of a Rust function rax, r10 and r11 hold nothing: there are no variable
// arguments and no static chain. A return leaves rax, rdx and rcx (LLVM's RetCC_X86)
// and what the callee saves. A tail call has the callee's arguments in place; rax is
// kept, for the callee may be a C function with variable arguments. A conditional
// tail call may go on in the function.
func (s *Site) live(in *x86.Inst) (regs asm.RegSet, flags, redZone bool) {
	const all = asm.RegSet(1<<16 - 1)
	if !s.Rust {
		return all, true, true
	}
	switch s.Kind {
	case Entry:
		return all &^ asm.Set(asm.RAX, asm.R10, asm.R11), false, false
	case Exit:
		switch in.Kind {
		case x86.Ret:
			return all &^ asm.Set(asm.RSI, asm.RDI, asm.R8, asm.R9, asm.R10, asm.R11), false, false
		case x86.Jmp, x86.JmpIndirect:
			return all&^asm.Set(asm.R10, asm.R11) | asm.RegSet(in.Reads&0xffff), false, false
		}
	}
	return all, true, true
}
