package x86

// Index returns the index in Insts of the instruction that starts at addr.
func (f *Func) Index(addr uint64) (int, bool) { return f.index(addr) }

// JumpedTo says whether a jump in the function, or a jump table, goes to addr.
// Exception tables are not looked at.
func (f *Func) JumpedTo(addr uint64) bool {
	i, ok := f.index(addr)
	return ok && len(f.jumpsTo(i)) > 0 || f.stray[addr]
}

// Packed says whether in computes with several values of a vector at once: SSE,
// AVX and AVX-512 arithmetic, comparisons, shuffles and conversions. Moves of
// whole vectors are not meant, nor the idioms that clear a register.
func Packed(in Inst) bool {
	scalar := in.Prefixes&(PrefixF2|PrefixF3) != 0
	switch {
	case in.Evex && in.Map >= 1:
		return in.Kind == Other && in.Writes>>X0 != 0 && !moveOpcode(in.Opcode) && !in.zeroes()
	case in.Map == 2: // 0F38: all of it but crc32, movbe, the BMI group and the like
		return in.Writes>>X0 != 0
	case in.Map != 1:
		return false
	}
	switch op := in.Opcode; {
	case in.zeroes():
		return false
	case op >= 0x51 && op <= 0x5f: // sqrt … max; 54 to 57 are the logical ones
		return !scalar
	case op == 0x14 || op == 0x15: // unpcklps
		return true
	case op >= 0x60 && op <= 0x6d: // punpck, pack, pcmpgt
		return true
	case op >= 0x70 && op <= 0x76: // shuffles, shifts, pcmpeq
		return true
	case op == 0xc2 || op == 0xc6: // cmpps, shufps
		return !scalar
	case op >= 0xd1 && op <= 0xfe: // MMX and SSE2 integers
		return op != 0xd6 && op != 0xd7 && op != 0xe7 && op != 0xf0 && op != 0xf7
	}
	return false
}

func (in *Inst) zeroes() bool {
	// An idiom whose result does not hang on its operand reads no vector register.
	return in.Reads>>X0 == 0 && !in.MemRead
}

func moveOpcode(op uint8) bool {
	switch op {
	case 0x10, 0x11, 0x28, 0x29, 0x6e, 0x6f, 0x7e, 0x7f, 0xd6, 0xe7:
		return true
	}
	return false
}
