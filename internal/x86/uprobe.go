package x86

// What the kernel does with an instruction under a uprobe is decided in
// arch/x86/kernel/uprobes.c, arch_uprobe_analyze_insn: read here as of 6.1,
// 6.12, 6.18 and the tree of 2026. An instruction is refused, emulated, or
// single-stepped in a copy; emulating costs a fifteenth of stepping.

// Emulated says whether every kernel from 6.1 on emulates in under a uprobe
// instead of single-stepping it: push of a register, jmp and jcc with a
// displacement, call with a displacement, and the one-byte nop with any
// prefix but REX. Longer nops are emulated by newer kernels only: see
// EmulatedNop.
func Emulated(in Inst) bool {
	if !CanProbe(in) || in.Map > 1 {
		return false
	}
	op := in.Opcode
	if in.Map == 1 {
		return op >= 0x80 && op <= 0x8f
	}
	switch {
	case op == 0xe8, op == 0xe9, op == 0xeb, op >= 0x70 && op <= 0x7f:
		return true
	case op == 0x90:
		return true // rex.B, which makes it an xchg, is refused by CanProbe
	case op >= 0x50 && op <= 0x57:
		return in.Len == 1 || in.Len == 2 && in.REX == 0x41
	}
	return false
}

// EmulatedNop says whether in is a nop of several bytes (0F 1F /0) that newer
// kernels emulate: 6.18 in the forms that the kernel uses itself (x86_nops),
// 6.19 in any form (insn_is_nop); 6.1 and 6.12 single-step it. endbr64, which
// is Kind Nop too, is single-stepped by all.
func EmulatedNop(in Inst) bool {
	return in.Kind == Nop && in.Map == 1 && in.Opcode == 0x1f && in.nopl && CanProbe(in)
}

// nop5 is the five-byte nop that the kernel uses (x86_nops[5], nopl 0(%rax,%rax,1)).
var nop5 = [5]byte{0x0f, 0x1f, 0x44, 0x00, 0x00}

// IsNop5 says whether in is a five-byte nop that 6.18 turns into a call when a
// uprobe is placed on it (can_optimize). 6.18 wants exactly 0F 1F 44 00 00, and
// not across a page's end. Later kernels do so with a ten-byte nop instead
// (66 2E 0F 1F 84 followed by SIB and displacement), and emulate this one.
func IsNop5(in Inst) bool {
	return in.Len == len(nop5) && in.Kind == Nop && in.Map == 1 && in.Opcode == 0x1f && in.nopl &&
		in.Prefixes == 0 && in.REX == 0 && in.Mem.Base == RAX && in.Mem.Index == RAX && in.Mem.Scale == 1 && in.Mem.Disp == 0 &&
		in.Addr&0xfff <= 0x1000-uint64(len(nop5))
}

// goodOpcodes64 has a bit for each first opcode byte that the kernel lets
// uprobes be placed on (good_insns_64; the same in all versions read). The two-byte opcodes
// pass by their 0F.
var goodOpcodes64 = [16]uint16{
	0x0: 0xbf3f, 0x1: 0x3f3f, 0x2: 0x7f7f, 0x3: 0x7f7f,
	0x4: 0xffff, 0x5: 0xffff, 0x6: 0x0ff8, 0x7: 0xffff,
	0x8: 0xfffb, 0x9: 0xfbff, 0xa: 0xffff, 0xb: 0xffff,
	0xc: 0x0fff, 0xd: 0xff8f, 0xe: 0x0b0f, 0xf: 0xf3ed,
}

// CanProbe says whether a uprobe may be placed on in: whether the kernel takes
// it, and whether what the kernel then does with it is right.
//
// Refused by the kernel: segment prefixes other than fs and gs (so also
// notrack), lock, mov to ss, and opcodes that make no sense in user space.
//
// Refused here beyond that: traps and system calls, which end differently in a
// copy; the branches with a 66 prefix; rex.B nop, an xchg that kernels before
// 6.19 take for a nop and leave out; and VEX and EVEX instructions whose opcode
// byte is that of a branch, return, call, nop or popf: the kernel looks at the
// byte without regard to the prefix (OPCODE1). It leaves out a vpor (EB) as if
// it were a jmp (seen on 6.18: the result of vpor was missing), and does not
// correct the instruction pointer after a vcmpps (C2).
func CanProbe(in Inst) bool {
	const refused = PrefixES | PrefixCS | PrefixSS | PrefixDS | PrefixLock
	if in.Len == 0 || in.Prefixes&refused != 0 {
		return false
	}
	switch in.Kind {
	case Trap, Syscall:
		return false
	}
	op := in.Opcode
	if in.Vex {
		switch op {
		case 0x90, 0x9a, 0x9d, 0xc2, 0xc3, 0xca, 0xcb, 0xe8, 0xe9, 0xea, 0xeb, 0xff, 0x8e:
			return false
		}
		if op >= 0x70 && op <= 0x7f || op == 0x1f {
			return false
		}
		return goodOpcodes64[op>>4]>>(op&15)&1 != 0
	}
	if in.Map != 0 {
		return in.Map != 1 || op < 0x80 || op > 0x8f || in.Prefixes&Prefix66 == 0
	}
	switch {
	case op == 0x8e && in.toSS, op == 0x90 && in.REX&1 != 0, in.Cond == CondXbegin:
		return false
	case in.Prefixes&Prefix66 != 0 && (in.Branches() || in.Kind == Call):
		return false
	}
	return goodOpcodes64[op>>4]>>(op&15)&1 != 0
}
