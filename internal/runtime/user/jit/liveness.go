package jit

import "ferrotrace/internal/runtime/user/vm/insn"

// liveness computes, for each instruction of a function, the registers that are
// read after it before they are written (bit r for register r).
func liveness(insns []insn.Insn, start int) []uint16 {
	var (
		after  = make([]uint16, len(insns))
		before = make([]uint16, len(insns))
	)
	for changed := true; changed; {
		changed = false
		for i := len(insns) - 1; i >= 0; i-- {
			in := &insns[i]
			if in.Op == insn.Second {
				continue
			}
			var out uint16
			if in.Op.IsJump() {
				out = before[in.Target-start]
			}
			if next := i + width(in); in.Op != insn.Ja && in.Op != insn.Exit && next < len(insns) {
				out |= before[next]
			}
			uses, defs := usesDefs(in)
			if pure(in) && out&defs == 0 {
				uses = 0 // it is not going to be compiled
			}
			live := out&^defs | uses
			if out != after[i] || live != before[i] {
				after[i], before[i] = out, live
				changed = true
			}
		}
	}
	return after
}

func width(in *insn.Insn) int {
	if in.Op >= insn.LoadImm {
		return 2
	}
	return 1
}

// usesDefs are the registers that an instruction reads and writes.
func usesDefs(in *insn.Insn) (uses, defs uint16) {
	dst, src := uint16(1)<<in.Dst, uint16(0)
	if in.Reg {
		src = 1 << in.Src
	}
	switch {
	case in.Op == insn.Mov, in.Op == insn.MovSX:
		return src, dst
	case in.Op.IsALU():
		return dst | src, dst
	case in.Op == insn.Load, in.Op == insn.LoadSX:
		return 1 << in.Src, dst
	case in.Op == insn.Store, in.Op.IsCond():
		return dst | src, 0
	case in.Op == insn.CmpXchg:
		return dst | 1<<in.Src | 1, 1
	case in.Op.IsAtomic():
		if in.Fetch {
			defs = 1 << in.Src
		}
		return dst | 1<<in.Src, defs
	case in.Op == insn.Call:
		return 1<<(argCount(in.Imm)+1) - 2, 0x3f
	case in.Op == insn.CallLocal:
		return 0x3e, 0x3f
	case in.Op == insn.Exit:
		return 1, 0
	case in.Op >= insn.LoadImm:
		return 0, dst
	}
	return 0, 0
}

// pure says whether an instruction does nothing but write its register.
func pure(in *insn.Insn) bool { return in.Op.IsALU() || in.Op >= insn.LoadImm }
