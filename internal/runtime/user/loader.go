package user

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"slices"
	"time"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// The dynamic linker calls a function that does nothing, for debuggers, before and after
// it maps or unmaps libraries, and before anything of a new one runs (struct r_debug in
// glibc's and musl's link.h). It gets a probe that has the thread wait there until the
// tracer has looked what is mapped.

const (
	// loadWait is how long a thread waits for the tracer if that gives no sign of life
	// meanwhile, and loadWaits how often if it does, on a busy machine. Once one has waited
	// in vain, none does until the tracer is seen again.
	loadWait  = 500 * time.Millisecond
	loadWaits = 10
	// beatEvery is how often the tracer gives a sign.
	beatEvery = 50 * time.Millisecond
)

// rendezvous is where the dynamic linker tells of libraries.
type rendezvous struct {
	brk   uint64 // the function
	state uint64 // address of an int: 0 when nothing is being mapped or unmapped
}

// rendezvous finds it by DT_DEBUG, which the dynamic linker sets in the program's dynamic
// section. There is none in static programs.
func (p *process) rendezvous(ctx context.Context, proc *target.Process, ms []target.Mapping) (r rendezvous, ok bool) {
	f, err := elf.Open(proc.Path)
	if err != nil {
		return r, false
	}
	defer f.Close()
	first := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_LOAD })
	dynamic := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_DYNAMIC })
	if first < 0 || dynamic < 0 || !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return r, false
	}
	load, dyn := f.Progs[first], f.Progs[dynamic]
	begin := slices.IndexFunc(ms, func(m target.Mapping) bool {
		return m.Path == proc.Exe && m.Offset == load.Off&^4095
	})
	const maxDynamic = 1 << 16
	if begin < 0 || dyn.Memsz > maxDynamic {
		return r, false
	}
	b := make([]byte, dyn.Memsz)
	if p.t.ReadMem(ctx, b, ms[begin].Start-load.Vaddr&^4095+dyn.Vaddr) != nil {
		return r, false
	}
	for ; len(b) >= 16; b = b[16:] {
		if elf.DynTag(le64(b)) != elf.DT_DEBUG || le64(b[8:]) == 0 {
			continue
		}
		// int r_version; struct link_map *r_map; ElfW(Addr) r_brk; enum r_state.
		const brk, state, size = 16, 24, 40
		at := le64(b[8:])
		d := make([]byte, size)
		if p.t.ReadMem(ctx, d, at) != nil || binary.LittleEndian.Uint32(d) == 0 {
			return r, false
		}
		return rendezvous{brk: le64(d[brk:]), state: at + state}, true
	}
	return r, false
}

// loader is the name of that probe.
const loader = "the dynamic linker"

// watchLoader adds the probe of the dynamic linker to aims. Without one, libraries are
// noticed when it is looked.
func (p *process) watchLoader(ctx context.Context, proc *target.Process, ms []target.Mapping, aims []aim) []aim {
	r, ok := p.rendezvous(ctx, proc, ms)
	if !ok {
		return aims
	}
	m, ok := mappingAt(ms, r.brk)
	if !ok || !m.Exec || m.Inode == 0 {
		return aims
	}
	path := proc.FilePath(m)
	pl := place{watched: loader, programs: []patch.Program{loadProgram(p.block, p.regions[0].Addr+shm.OffLoads, r.state)}}
	if at := slices.IndexFunc(aims, func(a aim) bool { return target.SameFile(a.path, path) }); at >= 0 { // musl's is its C library
		pl.addr = r.brk - aims[at].bias
		aims[at].places = append(aims[at].places, pl)
		p.loader = true
		return aims
	}
	lib, err := openLibrary(path)
	if err != nil {
		return aims
	}
	linked, ok := lib.Addr(m.Offset + r.brk - m.Start)
	if !ok {
		return aims
	}
	pl.addr = linked
	p.loader = true
	return append(aims, aim{path: path, text: lib, bias: r.brk - linked, places: []place{pl}})
}

func mappingAt(ms []target.Mapping, addr uint64) (target.Mapping, bool) {
	i := slices.IndexFunc(ms, func(m target.Mapping) bool { return m.Start <= addr && addr < m.End })
	if i < 0 {
		return target.Mapping{}, false
	}
	return ms[i], true
}

// loadProgram rings, and waits for an answer: shm.Loads. It makes system calls, whose
// arguments lie in the red zone, for the probe keeps nothing there.
func loadProgram(block, loads, state uint64) patch.Program {
	const (
		until   = -16 // struct timespec
		rounds  = -24
		beat    = -32
		second  = 1000_000_000
		pid     = asm.R14
		slot    = asm.R13
		words   = asm.R12
		clobber = 1<<asm.RAX | 1<<asm.RCX | 1<<asm.RDX | 1<<asm.RSI | 1<<asm.RDI | 1<<asm.R8 | 1<<asm.R9 | 1<<asm.R10 | 1<<asm.R11 | 1<<words | 1<<slot | 1<<pid
	)
	word := func(off int32) asm.Mem { return asm.At(words, off) }
	return patch.Inline(clobber, nil, func(a *asm.Assembler) {
		end, late, claimed := a.NewLabel(), a.NewLabel(), a.NewLabel()
		call := func(n int64) {
			a.MovImm(asm.RAX, n)
			a.Syscall()
		}
		a.MovImm(words, int64(state))
		a.ALUMemImm(asm.CMP, 4, word(0), 0)
		a.Jcc(asm.NE, end) // it is about to: what counts is when it has
		a.MovImm(words, int64(block))
		a.ALUMemImm(asm.CMP, 4, word(shm.ProcQuiet), 0)
		a.MovImm(words, int64(loads))
		a.Jcc(asm.NE, late)
		a.ALUMemImm(asm.CMP, 4, word(shm.LoadAbsent), 0)
		a.Jcc(asm.NE, late)

		call(unix.SYS_GETPID)
		a.Mov(4, pid, asm.RAX)
		for i := range int32(shm.NumLoadSlots) {
			a.Lea(slot, word(shm.LoadSlots+4*i))
			a.Zero(asm.RAX)
			a.LockCmpxchg(4, asm.At(slot, 0), pid)
			a.Jcc(asm.E, claimed)
		}
		a.Jmp(late)

		a.Bind(claimed)
		a.LockInc(4, word(shm.LoadRung))
		a.Lea(asm.RDI, word(shm.LoadRung))
		a.MovImm(asm.RSI, shm.FutexWake)
		a.MovImm(asm.RDX, 1)
		call(unix.SYS_FUTEX)
		a.StoreImm(4, asm.At(asm.RSP, rounds), loadWaits)
		again := a.Here()
		a.Load(4, asm.RAX, word(shm.LoadBeat))
		a.Store(4, asm.At(asm.RSP, beat), asm.RAX)
		a.MovImm(asm.RDI, unix.CLOCK_MONOTONIC)
		a.Lea(asm.RSI, asm.At(asm.RSP, until))
		call(unix.SYS_CLOCK_GETTIME)
		wait := a.NewLabel()
		a.ALUMemImm(asm.ADD, 8, asm.At(asm.RSP, until+8), int32(loadWait))
		a.ALUMemImm(asm.CMP, 8, asm.At(asm.RSP, until+8), second)
		a.Jcc(asm.B, wait)
		a.ALUMemImm(asm.SUB, 8, asm.At(asm.RSP, until+8), second)
		a.ALUMemImm(asm.ADD, 8, asm.At(asm.RSP, until), 1)

		a.Bind(wait)
		a.ALULoad(asm.CMP, 4, pid, asm.At(slot, 0))
		a.Jcc(asm.NE, end)
		a.Mov(8, asm.RDI, slot)
		a.MovImm(asm.RSI, shm.FutexWaitBitset) // until a time, not for one
		a.Mov(4, asm.RDX, pid)
		a.Lea(asm.R10, asm.At(asm.RSP, until))
		a.Zero(asm.R8)
		a.MovImm(asm.R9, -1)
		call(unix.SYS_FUTEX)
		a.Test(4, asm.RAX, asm.RAX)
		a.Jcc(asm.E, wait)
		a.ALUImm(asm.CMP, 4, asm.RAX, -int32(unix.EINTR))
		a.Jcc(asm.E, wait)
		a.ALUImm(asm.CMP, 4, asm.RAX, -int32(unix.EAGAIN))
		a.Jcc(asm.E, wait)

		enough := a.NewLabel()
		a.Load(4, asm.RAX, asm.At(asm.RSP, beat))
		a.ALULoad(asm.CMP, 4, asm.RAX, word(shm.LoadBeat))
		a.Jcc(asm.E, enough)
		a.ALUMemImm(asm.SUB, 4, asm.At(asm.RSP, rounds), 1)
		a.Jcc(asm.NE, again)

		a.Bind(enough)
		a.Mov(4, asm.RAX, pid)
		a.Zero(asm.RCX)
		a.LockCmpxchg(4, asm.At(slot, 0), asm.RCX)
		a.Jcc(asm.NE, end) // it came after all
		a.StoreImm(4, word(shm.LoadAbsent), 1)
		a.Bind(late)
		a.LockInc(4, word(shm.LoadLate))
		a.LockInc(4, word(shm.LoadRung))
		a.Bind(end)
	})
}
