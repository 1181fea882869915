package user

import (
	"context"
	"encoding/binary"
	"slices"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/shm"
)

// controlBlock is how much of a thread control block is looked through, in bytes: that
// of glibc's struct pthread, of which the thread's number is part, as of musl's.
const controlBlock = 2304

// findThreadID finds where threads keep their number, relative to the FS base, and has
// programs read it there: asking the kernel costs as much as all the rest of a record.
// The place must hold the number of each of threads, and be the only such.
func (p *process) findThreadID(ctx context.Context, threads []inject.ThreadState) {
	if p.hasTID {
		return
	}
	var places []int
	b := make([]byte, controlBlock)
	for i, th := range threads {
		if th.TID == p.pid {
			p.leader = th
		}
		if th.PID != p.pid || th.Regs.Fs_base == 0 || p.t.ReadMem(ctx, b, th.Regs.Fs_base) != nil {
			return
		}
		holds := func(off int) bool { return binary.LittleEndian.Uint32(b[off:]) == uint32(th.TID) }
		if i == 0 {
			for off := 0; off < len(b); off += 4 {
				if holds(off) {
					places = append(places, off)
				}
			}
			continue
		}
		places = slices.DeleteFunc(places, func(off int) bool { return !holds(off) })
	}
	if len(places) != 1 {
		return
	}
	p.tid = uint64(places[0])
	p.hasTID = p.t.WriteMem(ctx, binary.LittleEndian.AppendUint64(nil, p.tid), p.block+shm.ProcTID) == nil
}
