package inject

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// cave is a place in the process that no one executes or reads, executable: the rest of
// the last page of some file's code. The stub is written there.
type cave struct {
	addr uint64 // 0: not found yet
	old  []byte // what is to be put back
}

const caveSize = 240 // room for the stub

// openCave finds a cave, at the first system call.
func (t *Tracee) openCave() error {
	if t.cave.addr != 0 {
		return nil
	}
	ms, err := t.proc.Maps()
	if err != nil {
		return ErrGone
	}
	// The program and its libraries first, the vDSO last.
	slices.SortStableFunc(ms, func(a, b target.Mapping) int { return btoi(a.Inode == 0) - btoi(b.Inode == 0) })
	for _, m := range ms {
		if m.Offset != 0 {
			continue
		}
		for _, end := range t.textEnds(m) {
			page := (end + 4095) &^ 4095
			text := slices.IndexFunc(ms, func(m target.Mapping) bool { return m.Exec && m.Start < page && page <= m.End })
			if text < 0 {
				continue
			}
			for at := (end + 15) &^ 15; at+caveSize <= page; at += caveSize {
				if old, ok := t.unused(ms[text], at); ok {
					t.cave = cave{at, old}
					return nil
				}
			}
		}
	}
	return fmt.Errorf("process %d: %w: for a system call", t.pid, ErrNoRoom)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// textEnds are the ends of the code of the ELF file whose beginning is mapped at m.
func (t *Tracee) textEnds(m target.Mapping) (ends []uint64) {
	var h elf.Header64
	b := make([]byte, binary.Size(h))
	if t.readAt(b, m.Start) != nil || !bytes.HasPrefix(b, []byte(elf.ELFMAG)) {
		return nil
	}
	_ = binary.Read(bytes.NewReader(b), binary.LittleEndian, &h)
	const size = 56 // of a program header
	if h.Phentsize != size || h.Phnum == 0 || h.Phnum > 128 {
		return nil
	}
	b = make([]byte, size*int(h.Phnum))
	if t.readAt(b, m.Start+h.Phoff) != nil {
		return nil
	}
	ps := make([]elf.Prog64, h.Phnum)
	_ = binary.Read(bytes.NewReader(b), binary.LittleEndian, ps)
	first := slices.IndexFunc(ps, func(p elf.Prog64) bool { return elf.ProgType(p.Type) == elf.PT_LOAD })
	if first < 0 || ps[first].Off&^4095 != 0 {
		return nil
	}
	bias := m.Start - ps[first].Vaddr&^4095
	for _, p := range ps {
		if elf.ProgType(p.Type) == elf.PT_LOAD && elf.ProgFlag(p.Flags)&elf.PF_X != 0 && elf.ProgFlag(p.Flags)&elf.PF_W == 0 && p.Filesz == p.Memsz {
			ends = append(ends, bias+p.Vaddr+p.Memsz)
		}
	}
	return ends
}

// unused reports whether a cave is as the file has it, or holds the stub of a tracer
// that was killed and that no thread needs any more; and how the file has it.
func (t *Tracee) unused(text target.Mapping, at uint64) (old []byte, ok bool) {
	now := make([]byte, caveSize)
	if t.readAt(now, at) != nil {
		return nil, false
	}
	old = make([]byte, caveSize) // beyond the file's end, and the vDSO's, there are zeros
	if text.Inode != 0 {
		f, err := os.Open(t.proc.FilePath(text))
		if err != nil {
			return nil, false
		}
		defer f.Close()
		if _, err := f.ReadAt(old, int64(text.Offset+at-text.Start)); err != nil && err != io.EOF {
			return nil, false
		}
	}
	if !bytes.Equal(now, old) && !t.stale(now, at) {
		return nil, false
	}
	return old, t.writeAt(now, at) == nil // some mappings can't be written
}

// stale recognises a stub that is not in use: the thread that it was for has ended, or
// is the one that stands here and will not come back to it from a signal handler. The
// stub itself pushes nothing.
func (t *Tracee) stale(b []byte, at uint64) bool {
	tid, ok := stubOwner(b)
	if !ok {
		return false
	}
	if tid != t.worker.tid {
		return !living(tid)
	}
	r := Range{at, at + caveSize}
	return !r.has(t.worker.regs.Rip) && !t.interruptedIn(t.worker.regs.Rsp, r)
}

// closeCave puts back what was there, unless a call went wrong: then a thread may be in
// the stub still and must go through it.
func (t *Tracee) closeCave() {
	if t.cave.addr == 0 || t.err != nil {
		return
	}
	_ = t.writeAt(t.cave.old, t.cave.addr)
	t.cave = cave{}
}

// readAt and writeAt go through /proc/PID/mem, which reads and writes what the process
// itself may not, in private mappings. Kernels can be told to allow that to nobody
// (proc_mem.force_override), but not to take it from PTRACE_POKEDATA.
func (t *Tracee) readAt(b []byte, addr uint64) error {
	n, err := unix.Pread(int(t.mem.Fd()), b, int64(addr))
	return t.transferred("reading", addr, n, len(b), err)
}

func (t *Tracee) writeAt(b []byte, addr uint64) error {
	n, err := unix.Pwrite(int(t.mem.Fd()), b, int64(addr))
	if err == unix.EIO && t.worker != nil && t.worker.stopped && len(b) <= 4096 {
		n, err = unix.PtracePokeData(t.worker.tid, uintptr(addr), b)
	}
	return t.transferred("writing", addr, n, len(b), err)
}

func (t *Tracee) transferred(what string, addr uint64, n, want int, err error) error {
	if err == nil && n == want {
		return nil
	}
	if err == nil { // the memory ends, or all of the process's has gone
		if n == 0 {
			if err := t.same(); err != nil {
				return fmt.Errorf("process %d: %w", t.pid, err)
			}
		}
		err = unix.EFAULT
	}
	return fmt.Errorf("%s %d bytes of process %d at %#x: %w", what, want, t.pid, addr, err)
}
