package fault

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

// The handler's pages, little-endian. Only the tracer writes there.
//
//	 0  8 bytes  magic
//	 8  u64      the process block, 0 once the handler only forwards
//	16  u64      the image's address
//	24  u32      its size
//	28  u32      number of fixups
//	32  u32      number of slots used
//	36  u32      1: the program may know the handler's address
//	64           slots
//	             the default action, 32 zero bytes
//	             code: for each slot its entry, then what they share
//	             fixups, by start: u32 start, end, target, as offsets in the image
//
// A slot is what a signal did before: the kernel's struct sigaction (32 bytes), u32 the
// signal. Its entry is the handler that stands for it.
//
// A slot is never changed, nor used for another action: the program may have read an
// entry as the "old action" of a handler of its own, which calls it for what it does not
// handle itself. If that entry led on to the new handler, the two would call each other
// for ever; as it is, entries are what they stand for.
const (
	magic = "ftfault1"

	offBlock  = 8
	offImage  = 16
	offSize   = 24
	offCount  = 28
	offUsed   = 32
	offKnown  = 36
	offSlots  = 64
	slots     = 16
	slotSize  = 48
	offSignal = 32 // in a slot
	offNone   = offSlots + slots*slotSize
	offCode   = offNone + 32
	entrySize = 12
	// offRestorer is what a handler returns to if the program has none.
	offRestorer = offCode + slots*entrySize
	fixupSize   = 12
)

// Offsets in siginfo_t (include/uapi/asm-generic/siginfo.h) and ucontext_t (of which
// struct sigcontext begins at 40; arch/x86/include/uapi/asm/sigcontext.h).
const (
	infoCode   = 8
	contextRIP = 40 + 16*8
)

// busMCEERR_AO is the si_code of a memory error that no instruction has met yet.
const busMCEERR_AO = 5

const pageSize = 4096

var code = assemble()

// Size is what the handler takes for so many fixups, in bytes, a multiple of the page
// size.
func Size(fixups int) uint64 {
	n := offCode + uint64(len(code)) + uint64(fixups)*fixupSize
	return (n + pageSize - 1) &^ (pageSize - 1)
}

// table is the fixups as the handler looks them up, and the size of what they are in.
func table(fixups []jit.Fixup) (b []byte, size uint32, err error) {
	fixups = slices.Clone(fixups)
	slices.SortFunc(fixups, func(a, b jit.Fixup) int { return cmp.Compare(a.Start, b.Start) })
	end := 0
	for _, f := range fixups {
		if f.Start < end || f.End <= f.Start || f.Target < 0 || max(f.End, f.Target) > math.MaxInt32 {
			return nil, 0, fmt.Errorf("the fixup %+v is none, or overlaps another", f)
		}
		end = f.End
		for _, v := range []int{f.Start, f.End, f.Target} {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
	}
	return b, uint32(end), nil
}

// assemble writes the code as it is at offCode. It is entered as sa_sigaction(sig in
// edi, siginfo_t in rsi, ucontext_t in rdx), by the kernel or by a handler of the
// program's that calls what was there before.
func assemble() []byte {
	var a asm.Assembler
	// What lies before the code stands for itself, so that labels are right.
	header := a.Here()
	a.Bytes(make([]byte, offSlots)...)
	var slot [slots]asm.Label
	for i := range slot {
		slot[i] = a.Here()
		a.Bytes(make([]byte, slotSize)...)
	}
	none := a.Here()
	a.Bytes(make([]byte, offCode-offNone)...)

	common, table := a.NewLabel(), a.NewLabel()
	for i := range slot {
		a.LeaLabel(asm.RAX, slot[i])
		a.Jmp(common)
	}

	// rt_sigreturn(), in the bytes that unwinders know a signal frame by.
	a.Check(a.Len() == offRestorer, "the entries have another size")
	a.Bytes(0x48, 0xc7, 0xc0, unix.SYS_RT_SIGRETURN, 0, 0, 0, 0x0f, 0x05)

	// The kernel passes the interrupted registers on, but for the arguments and rax, which
	// it clears: so does this to the handler that was there before.
	a.Bind(common)
	saved := []asm.Reg{asm.RCX, asm.RBX, asm.R8, asm.R9, asm.R10, asm.R11}
	restore := func() {
		for i := len(saved) - 1; i >= 0; i-- {
			a.Pop(saved[i])
		}
	}
	for _, r := range saved {
		a.Push(r)
	}
	forward, search, lower, found := a.NewLabel(), a.NewLabel(), a.NewLabel(), a.NewLabel()
	ofInstruction := func(otherwise asm.Label) {
		// si_code is positive for what the kernel found, and BUS_MCEERR_AO is found by no
		// instruction.
		memory := a.NewLabel()
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RSI, infoCode), 0)
		a.Jcc(asm.LE, otherwise)
		a.ALUImm(asm.CMP, 4, asm.RDI, int32(unix.SIGBUS))
		a.JccNear(asm.NE, memory)
		a.ALUMemImm(asm.CMP, 4, asm.At(asm.RSI, infoCode), busMCEERR_AO)
		a.Jcc(asm.E, otherwise)
		a.Bind(memory)
	}
	ofInstruction(forward)
	a.LeaLabel(asm.RCX, header)
	a.Load(8, asm.R8, asm.At(asm.RDX, contextRIP))
	a.ALULoad(asm.SUB, 8, asm.R8, asm.At(asm.RCX, offImage))
	a.Load(4, asm.R9, asm.At(asm.RCX, offSize))
	a.ALU(asm.CMP, 8, asm.R8, asm.R9)
	a.Jcc(asm.AE, forward)
	// The fixup, if any, is one of those from r9 up to r10.
	a.Load(4, asm.R10, asm.At(asm.RCX, offCount))
	a.Zero(asm.R9)
	a.LeaLabel(asm.RCX, table)
	a.Bind(search)
	a.ALU(asm.CMP, 4, asm.R9, asm.R10)
	a.Jcc(asm.AE, forward)
	a.Lea(asm.RBX, asm.Idx(asm.R9, asm.R10, 1, 0))
	a.Shift(asm.SHR, 4, asm.RBX, 1)
	a.ImulImm(8, asm.R11, asm.RBX, fixupSize)
	a.ALULoad(asm.CMP, 4, asm.R8, asm.Idx(asm.RCX, asm.R11, 1, 0))
	a.JccNear(asm.B, lower)
	a.ALULoad(asm.CMP, 4, asm.R8, asm.Idx(asm.RCX, asm.R11, 1, 4))
	a.JccNear(asm.B, found)
	a.Lea(asm.R9, asm.At(asm.RBX, 1))
	a.Jmp(search)
	a.Bind(lower)
	a.Mov(4, asm.R10, asm.RBX)
	a.Jmp(search)
	a.Bind(found)
	a.Load(4, asm.R8, asm.Idx(asm.RCX, asm.R11, 1, 8))
	a.LeaLabel(asm.RCX, header)
	a.ALULoad(asm.ADD, 8, asm.R8, asm.At(asm.RCX, offImage))
	a.Store(8, asm.At(asm.RDX, contextRIP), asm.R8)
	restore()
	a.Ret()

	// Not ours. The program's handler runs with the signal blocked, so that a fault there
	// would be the end: reads are checked from here on.
	a.Bind(forward)
	fatal, stuck, retired := a.NewLabel(), a.NewLabel(), a.NewLabel()
	a.LeaLabel(asm.RCX, header)
	a.Load(8, asm.RCX, asm.At(asm.RCX, offBlock))
	a.Test(8, asm.RCX, asm.RCX)
	a.JccNear(asm.E, retired)
	a.StoreImm(4, asm.At(asm.RCX, shm.ProcDirect), 0)
	a.Bind(retired)
	a.ALUMemImm(asm.CMP, 8, asm.At(asm.RAX, 0), 0) // SIG_DFL
	a.JccNear(asm.E, fatal)
	restore()
	a.Bytes(0xff, 0x30) // push (%rax)
	a.Zero(asm.RAX)
	a.Ret()

	// The signal ends the process: with the default action back, by the same instruction
	// once more, or by the same signal once more, which is blocked until this returns.
	a.Bind(fatal)
	permitted, resend := a.NewLabel(), a.NewLabel()
	a.Test(8, asm.RCX, asm.RCX)
	a.JccNear(asm.E, permitted)
	a.ALUMemImm(asm.CMP, 4, asm.At(asm.RCX, shm.ProcQuiet), 0)
	a.Jcc(asm.NE, stuck)
	a.Bind(permitted)
	restore()
	a.Push(asm.RBX)
	a.Push(asm.RDI)
	a.Push(asm.RSI)
	a.LeaLabel(asm.RSI, none) // rt_sigaction(sig, none, NULL, 8)
	a.Zero(asm.RDX)
	a.MovImm(asm.R10, 8)
	a.MovImm(asm.RAX, unix.SYS_RT_SIGACTION)
	a.Syscall()
	a.Pop(asm.RSI)
	a.Pop(asm.RDI)
	a.Test(4, asm.RAX, asm.RAX)
	a.Jcc(asm.NE, stuck)
	ofInstruction(resend)
	a.Pop(asm.RBX)
	a.Ret()
	a.Bind(resend)
	a.MovImm(asm.RAX, unix.SYS_GETPID)
	a.Syscall()
	a.Mov(4, asm.RBX, asm.RAX)
	a.MovImm(asm.RAX, unix.SYS_GETTID)
	a.Syscall()
	a.Mov(8, asm.R10, asm.RSI) // rt_tgsigqueueinfo(pid, tid, sig, info)
	a.Mov(4, asm.RDX, asm.RDI)
	a.Mov(4, asm.RSI, asm.RAX)
	a.Mov(4, asm.RDI, asm.RBX)
	a.MovImm(asm.RAX, unix.SYS_RT_TGSIGQUEUEINFO)
	a.Syscall()
	a.Test(4, asm.RAX, asm.RAX)
	a.JccNear(asm.NE, stuck)
	a.Pop(asm.RBX)
	a.Ret()
	// A filter of system calls stands in the way. A fault with SIGSEGV blocked is the end
	// too: hlt is not for programs.
	a.Bind(stuck)
	a.Bytes(0xf4)

	a.Align(8)
	a.Bind(table)
	b, _, err := a.Finish()
	if err != nil {
		panic(err) // the same instructions each time
	}
	return b[offCode:]
}
