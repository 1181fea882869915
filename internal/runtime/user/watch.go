package user

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// Some calls of the C library change what programs may do in the process. They get
// probes too, whose few instructions write into the process block; the keeper sees it
// and looks what has become of the process.

// watched is a function of the C library with what is done at its entry.
type watched struct {
	name    string
	program patch.Program
}

// watches is what is known of the watched functions of a process.
type watches struct {
	unwatched []string        // those that should be, for the sake of reads, and are not
	entries   map[uint64]bool // where they begin
	calls     []inject.Range  // all of their code
}

// watchedCalls are the functions that are watched, if the C library has them.
func watchedCalls(block uint64) []watched {
	quiet := func(call int32) patch.Program {
		return patch.Inline(asm.Set(asm.RAX, asm.R11), []asm.Reg{asm.RDI}, func(a *asm.Assembler) {
			end := a.NewLabel()
			a.Load(8, asm.RAX, asm.At(asm.RDI, patch.RegOffset(asm.RDI)))
			a.ALUImm(asm.CMP, 4, asm.RAX, call)
			a.JccNear(asm.NE, end)
			a.MovImm(asm.R11, int64(block))
			a.StoreImm(4, asm.At(asm.R11, shm.ProcQuiet), 1)
			a.Bind(end)
		})
	}
	return []watched{
		// A filter may kill for what programs ask of the kernel.
		{"prctl", quiet(unix.PR_SET_SECCOMP)},
		{"syscall", quiet(unix.SYS_SECCOMP)},
		// The child runs in its parent's memory, where the parent's numbers are at hand.
		{"vfork", patch.Inline(asm.Set(asm.R11), nil, func(a *asm.Assembler) {
			a.MovImm(asm.R11, int64(block))
			a.StoreImm(8, asm.At(asm.R11, shm.ProcTID), 0)
			a.StoreImm(4, asm.At(asm.R11, shm.ProcPID), 0)
		})},
	}
}

// watch adds what is to be watched to aims: in the C library's file, or in the program
// itself if that is static.
func (p *process) watch(proc *target.Process, ms []target.Mapping, aims []aim) []aim {
	p.entries = map[uint64]bool{}
	reads := fault.Watches(p.block)
	path, lib, base, ok := cLibrary(proc, ms)
	if !ok {
		for _, w := range reads {
			p.unwatched = append(p.unwatched, w.Name)
		}
		return aims
	}
	at := slices.IndexFunc(aims, func(a aim) bool { return target.SameFile(a.path, path) })
	if at < 0 {
		at = len(aims)
		aims = append(aims, aim{path: path, text: lib, bias: base})
	}
	places := map[uint64]*place{}
	add := func(w watched) bool {
		addr, ok := lib.entry(w.name)
		if !ok {
			return false
		}
		if places[addr] == nil { // several names may be one function's
			places[addr] = &place{addr: addr, watched: w.name}
			p.entries[addr+base] = true
		}
		places[addr].programs = append(places[addr].programs, w.program)
		return true
	}
	for _, w := range watchedCalls(p.block) {
		add(w)
	}
	for _, w := range reads {
		// What a static program does not have it does not call.
		if !add(watched{w.Name, w.Program}) && !w.Optional && !target.SameFile(path, proc.Path) {
			p.unwatched = append(p.unwatched, w.Name)
		}
		p.calls = append(p.calls, lib.ranges(w.Name, base)...)
	}
	for _, name := range fault.Inner {
		p.calls = append(p.calls, lib.ranges(name, base)...)
	}
	for _, pl := range places {
		aims[at].places = append(aims[at].places, *pl)
	}
	return aims
}

// cLibrary finds the file that has the C library's functions.
func cLibrary(proc *target.Process, ms []target.Mapping) (path string, l *library, base uint64, ok bool) {
	exe := ""
	for _, m := range ms {
		if !m.Exec || m.Inode == 0 {
			continue
		}
		name := filepath.Base(m.Path)
		switch {
		case strings.HasPrefix(name, "libc.so") || strings.HasPrefix(name, "libc-2.") || strings.HasPrefix(name, "ld-musl-"):
			path = proc.FilePath(m)
		case m.Path == proc.Exe && exe == "":
			exe = proc.Path
			continue
		default:
			continue
		}
		break
	}
	if path == "" {
		path = exe
	}
	l, err := openLibrary(path)
	if err != nil {
		return "", nil, 0, false
	}
	offs := make([]uint64, len(l.segments))
	for i, s := range l.segments {
		offs[i] = s.offset
	}
	base, err = bias(ms, path, offs, l)
	return path, l, base, err == nil
}

// forgotten is how long after a vfork was seen to begin a child may still come.
const forgotten = 2 * tick

// remember has programs know the numbers of the process and its threads again, once no
// child of a vfork is there.
func (p *process) remember(ctx context.Context) {
	var tid [8]byte
	if !p.hasTID || p.t.ReadMem(ctx, tid[:], p.block+shm.ProcTID) != nil || le64(tid[:]) == p.tid {
		p.asks = time.Time{}
		return
	}
	if p.asks.IsZero() || inject.Vforking(p.pid) {
		p.asks = time.Now()
		return
	}
	if time.Since(p.asks) < forgotten {
		return
	}
	p.asks = time.Time{}
	_ = p.t.WriteMem(ctx, binary.LittleEndian.AppendUint32(nil, uint32(p.pid)), p.block+shm.ProcPID)
	_ = p.t.WriteMem(ctx, binary.LittleEndian.AppendUint64(nil, p.tid), p.block+shm.ProcTID)
}
