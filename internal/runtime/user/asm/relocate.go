package asm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"ferrotrace/internal/x86"
)

// ErrRelocate is wrapped by the errors of Relocate: the instruction would not do at
// another address what it does at its own.
var ErrRelocate = errors.New("cannot be moved")

// Relocate appends what does at base, the address of the next instruction, what in
// does at in.Addr, whose bytes are raw. No register and no flag is touched that in
// does not touch, and nothing below the stack pointer that in does not write.
//
// A call pushes the return address that in itself would push, and jumps: callees,
// unwinders and stack walkers never meet the copy, and the callee returns to the
// instruction after in, not to what follows the copy. Under a user shadow stack that
// return faults.
//
// The assembler has to be used for this alone, for jumps leave it by absolute
// address: base must be right when the code is placed. An error leaves the
// assembler as it was.
func (a *Assembler) Relocate(base uint64, in *x86.Inst, raw []byte) error {
	if len(raw) != in.Len {
		return refuse(in, "%d bytes for an instruction of %d", len(raw), in.Len)
	}
	switch in.Kind {
	case x86.Syscall:
		// A thread may be blocked in it, and a restarted one is set back by two bytes.
		return refuse(in, "a system call may have to be restarted at its own address")
	case x86.Trap:
		// int3 may be a debugger's or a kernel uprobe's; the others end the program
		// with their address in its last message.
		return refuse(in, "a trap is known by its address")
	case x86.Jmp:
		a.JmpTo(base, in.Target)
		return nil
	case x86.Jcc:
		return a.relocateJcc(base, in, raw)
	case x86.Call:
		if in.Opcode != 0xe8 {
			return refuse(in, "a call of unknown form")
		}
		n := a.Len()
		a.pushImm(in.End())
		a.JmpTo(base+uint64(a.Len()-n), in.Target)
		return nil
	case x86.CallIndirect:
		return a.relocateCall(base, in, raw)
	}
	if !in.Mem.RIPRel {
		a.Bytes(raw...)
		return nil
	}
	if moved, ok := retarget(base, in, raw); ok {
		a.Bytes(moved...)
		return nil
	}
	return a.relocateFar(in)
}

func refuse(in *x86.Inst, format string, args ...any) error {
	return fmt.Errorf("the instruction at %#x %w: %s", in.Addr, ErrRelocate, fmt.Sprintf(format, args...))
}

// retarget returns raw with the displacement of its RIP-relative operand changed so
// that at base it means what it means at in.Addr.
//
// The displacement lies before the immediate (SDM, figure 2-1), whose size the
// decoder does not tell: each is tried, and the decoder asked whether that changed
// the operand and nothing else.
func retarget(base uint64, in *x86.Inst, raw []byte) ([]byte, bool) {
	if in.Prefixes&x86.Prefix67 != 0 {
		return nil, false // the sum is cut to 32 bits
	}
	disp := int64(in.Mem.Target - (base + uint64(in.Len)))
	if !fits32(disp) {
		return nil, false
	}
	for _, imm := range [...]int{0, 1, 4, 2, 8} {
		at := in.Len - imm - 4
		if at < 2 || raw[at-1]&0xc7 != 0x05 { // mod 0, r/m 5 (SDM, table 2-7)
			continue
		}
		moved := append([]byte(nil), raw...)
		binary.LittleEndian.PutUint32(moved[at:], uint32(disp))
		got, err := x86.Decode(moved, base)
		if err != nil || got.Len != in.Len || got.Mem.Target != in.Mem.Target {
			continue
		}
		want := *in
		want.Addr, want.Mem.Disp = base, disp
		if got == want {
			return moved, true
		}
	}
	return nil, false
}

// relocateFar replaces an instruction whose operand is out of reach, where that
// needs no register but the one it writes.
func (a *Assembler) relocateFar(in *x86.Inst) error {
	plain := in.Prefixes == 0 && in.Dst < 16 && in.OpSize >= 4
	switch {
	case in.Kind == x86.Lea && plain && in.OpSize == 8:
		a.movabs(Reg(in.Dst), in.Mem.Target)
	case in.Kind == x86.MovLoad && plain && in.Dst != x86.RSP:
		a.movabs(Reg(in.Dst), in.Mem.Target)
		a.Load(int(in.OpSize), Reg(in.Dst), At(Reg(in.Dst), 0))
	default:
		return refuse(in, "its operand at %#x is out of reach", in.Mem.Target)
	}
	return nil
}

func (a *Assembler) relocateJcc(base uint64, in *x86.Inst, raw []byte) error {
	switch {
	case in.Cond < 16:
		if disp := int64(in.Target - (base + 6)); fits32(disp) {
			a.Bytes(0x0f, 0x80|in.Cond)
			a.imm32(int32(disp))
			return nil
		}
		a.Bytes(0x70|in.Cond^1, farJmp)
		a.JmpTo(base+2, in.Target)
	case in.Cond == x86.CondXbegin:
		return refuse(in, "a transaction is aborted by what a probe does")
	default: // loop, jrcxz: they have no long form
		n := a.Len()
		a.Bytes(raw[:len(raw)-1]...)
		a.Bytes(2, 0xeb, 0)
		start := a.Len()
		a.JmpTo(base+uint64(start-n), in.Target)
		a.buf[start-1] = byte(a.Len() - start)
	}
	return nil
}

// relocateCall turns an indirect call into a push and an indirect jump.
func (a *Assembler) relocateCall(base uint64, in *x86.Inst, raw []byte) error {
	at := opcodeAt(raw)
	if at+1 >= len(raw) || raw[at] != 0xff || raw[at+1]>>3&7 != 2 || in.Prefixes&x86.Prefix66 != 0 {
		return refuse(in, "a far or a 16-bit call")
	}
	n := a.Len()
	if in.Mem.Has && in.Mem.Base == x86.RSP {
		// The push moves what the operand is counted from.
		disp := in.Mem.Disp + 8
		if in.Prefixes&^x86.PrefixDS != 0 || in.Mem.Vague || !fits32(disp) {
			return refuse(in, "an operand on the stack with prefixes")
		}
		m := Mem{Base: RSP, Index: None, Scale: 1, Disp: int32(disp)}
		if in.Mem.Index < 16 {
			m.Index, m.Scale = Reg(in.Mem.Index), in.Mem.Scale
		}
		a.pushImm(in.End())
		a.rm(4, 4, m, 0xff)
		return nil
	}
	if !in.Mem.Has && raw[at+1]&7 == byte(RSP) && in.REX&1 == 0 {
		return refuse(in, "a call to the stack pointer")
	}
	moved := append([]byte(nil), raw...)
	if in.Mem.RIPRel {
		push := uint64(pushLen(in.End()))
		var ok bool
		if moved, ok = retarget(base+push, in, raw); !ok {
			return refuse(in, "its operand at %#x is out of reach", in.Mem.Target)
		}
	}
	moved[at+1] ^= (2 ^ 4) << 3 // FF /2 is call, FF /4 is jmp
	a.pushImm(in.End())
	a.Bytes(moved...)
	a.Check(a.Len()-n == pushLen(in.End())+len(raw), "call relocated to another length")
	return nil
}

// opcodeAt is the offset of the opcode behind legacy prefixes and REX.
func opcodeAt(raw []byte) int {
	for i, b := range raw {
		switch b {
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3:
		default:
			if b&0xf0 != 0x40 {
				return i
			}
		}
	}
	return len(raw)
}

// pushImm pushes v, with no register and no flag.
func (a *Assembler) pushImm(v uint64) {
	a.Bytes(0x68) // push imm32, sign-extended
	a.imm32(int32(v))
	if pushLen(v) > 5 {
		a.Bytes(0xc7, 0x44, 0x24, 4) // mov dword [rsp+4], imm32
		a.imm32(int32(v >> 32))
	}
}

func pushLen(v uint64) int {
	if v == uint64(int64(int32(v))) {
		return 5
	}
	return 13
}

// farJmp is the length of a jump to an address out of reach.
const farJmp = 14

// JmpTo jumps to an absolute address from base, the address of the next instruction,
// with no register: by displacement, or through a word after the jump.
func (a *Assembler) JmpTo(base, target uint64) {
	if rel := int64(target - (base + 5)); fits32(rel) {
		a.Bytes(0xe9)
		a.imm32(int32(rel))
		return
	}
	a.Bytes(0xff, 0x25, 0, 0, 0, 0)
	a.buf = binary.LittleEndian.AppendUint64(a.buf, target)
}

// CallTo calls an absolute address from base, the address of the next instruction.
func (a *Assembler) CallTo(base, target uint64) {
	if rel := int64(target - (base + 5)); fits32(rel) {
		a.Bytes(0xe8)
		a.imm32(int32(rel))
		return
	}
	a.Bytes(0xff, 0x15, 2, 0, 0, 0, 0xeb, 8) // call [rip+2]; jmp over the word
	a.buf = binary.LittleEndian.AppendUint64(a.buf, target)
}

// SaveFlags puts the status flags into ax, RestoreFlags takes them from there. The
// direction flag is not among them. They are a tenth of the price of pushf and popf,
// and a debugger that steps over them leaves no trap flag behind.
func (a *Assembler) SaveFlags() {
	a.Bytes(0x9f, 0x0f, 0x90, 0xc0) // lahf; seto al
}

// RestoreFlags destroys al.
func (a *Assembler) RestoreFlags() {
	a.Bytes(0x04, 0x7f, 0x9e) // add al, 127 (overflows if al is 1); sahf
}

// Movups loads (store: stores) xmm number x, 16 bytes, without regard to alignment.
func (a *Assembler) Movups(x int, m Mem, store bool) {
	op := byte(0x10)
	if store {
		op = 0x11
	}
	a.rm(4, Reg(x), m, 0x0f, op)
}
