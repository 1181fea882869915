#include "textflag.h"

// func call(fn, top uintptr, a1, a2 uint64) uint64
//
// All callee-saved registers of the System V ABI are kept by fn; Go's ABI0 has none
// but the stack pointer, which waits in the memory that fn does not touch.
TEXT ·call(SB), NOSPLIT, $0-40
	MOVQ fn+0(FP), AX
	MOVQ top+8(FP), CX
	MOVQ a1+16(FP), DI
	MOVQ a2+24(FP), SI
	MOVQ SP, R12
	MOVQ CX, SP
	CALL AX
	MOVQ R12, SP
	MOVQ AX, ret+32(FP)
	RET

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET
