// Package x86 reads x86-64 machine code: it decodes one instruction at a time
// (Decode), and answers the questions that a tracer asks of one function's
// code: where it is left (Func.Exits), where an inlined instance is entered
// (Func.Entries), what its straight path from the entry has stored
// (Straight), whether a result register is really a result (ResultWritten,
// CallerReads), who refers to it (FindRefs), and what a kernel uprobe does
// with an instruction (Emulated, CanProbe).
//
// The package is pure. It knows bytes and addresses, no object files, no debug
// information and no operating system, and keeps no state between calls. Every
// analysis prefers "unknown" to a guess: what cannot be proven from the bytes
// is an error, an inexact answer that says so, or Evidence Unknown.
//
// Only 64-bit mode is decoded. Opcodes are those of the Intel SDM (volume 2,
// appendix A) up to AVX-512, AVX512-FP16 and AMX; XOP, 3DNow! and APX are
// refused with ErrInvalid.
package x86
