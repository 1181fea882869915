package user

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/target"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

// process is one traced process, with what was put into it.
type process struct {
	pid     int
	t       *inject.Tracee
	journal *inject.Journal
	hold    bool // it is a command that has not been released
	// executed: it executes another program, so that there is nothing left in it; nil for
	// a process that the session did not attach to.
	executed *atomic.Bool

	image   *jit.Image
	mem     []byte // this process's mapping of the memory that is shared
	memory  *shm.Memory
	ring    *shm.Ring      // nil without runtime.MapEvents
	inode   uint64         // of the file behind it
	began   uint64         // no fork began before, in clock ticks since boot
	regions []mapping      // in the traced process, in the order in which they were mapped
	code    inject.Range   // the image's place in it
	block   uint64         // the process block's
	patches []*patch.Patch // in place, in the order of planting
	stopped time.Duration  // the longest time for which threads of it were

	stacks []target.Mapping   // as they were before the threads were stopped last
	leader inject.ThreadState // as it was when probes were planted
	hasTID bool               // programs read the thread's number from its control block,
	tid    uint64             // at this offset from the FS base
	asks   time.Time          // since when they ask the kernel instead, zero if they don't

	// stops is held by who stops the process more than once for one purpose, of those who
	// may do so while its probes are in.
	stops *sync.Mutex
	guard *fault.Guard // nil before its probes are in
	// handler is where bad pointers are handled, size 0 if nowhere.
	handler inject.Region
	watches

	modules   []*module // libraries
	loader    bool      // the dynamic linker's probe is in
	late      uint32    // shm.Loads.Late, as last seen
	stale     []mapping // trampolines of modules that are gone
	childTold bool      // that a child has mapped one of modules
}

// mapping is memory that was put into the process.
type mapping struct {
	inject.Region
	code bool // a thread may be inside
}

// memoryName is what /proc/PID/maps calls the shared memory.
const memoryName = "ferrotrace"

// enter begins to trace a process. One that was held is stopped from here on.
func enter(ctx context.Context, pid int, held *target.Command) (p *process, err error) {
	p = &process{pid: pid, stops: new(sync.Mutex), hold: held != nil, executed: new(atomic.Bool)}
	if held != nil {
		p.t, err = inject.AttachHeld(ctx, held)
	} else {
		p.t, err = inject.Attach(ctx, pid)
	}
	if err != nil {
		return nil, err
	}
	// Of a command some of it is known only now that its loader is done.
	if err = Check(pid); err == nil {
		p.handler, err = cleanUp(ctx, p.t)
	}
	if err != nil {
		return nil, errors.Join(err, p.t.Detach())
	}
	return p, nil
}

// furnish puts the memory and the programs of a session into the process, for so many
// probes of code near an address.
func (p *process) furnish(ctx context.Context, l *shm.Layout, image *jit.Image, probes int, near uint64) (err error) {
	p.image = image
	if err := p.t.Stop(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.resume()) }()
	// A patch has two writes at most, a semaphore perhaps, and hardly ever pages of its own.
	if p.journal, err = p.t.CreateJournal(ctx, 4*probes+256); err != nil {
		return err
	}
	if err := p.share(ctx, l); err != nil {
		return err
	}
	if err := p.place(ctx, near); err != nil {
		return err
	}
	return p.placeHandler(ctx, near)
}

// share makes the shared memory, which belongs to the process: a limit on memory is
// its own.
func (p *process) share(ctx context.Context, l *shm.Layout) error {
	fd, f, err := p.t.MemfdCreate(ctx, memoryName)
	if err != nil {
		return err
	}
	defer f.Close()
	err = func() error {
		if err := unix.Ftruncate(int(f.Fd()), int64(l.Size)); err != nil {
			return os.NewSyscallError("ftruncate", err)
		}
		// A process that shrank it would end its tracer by SIGBUS.
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
			return os.NewSyscallError("fcntl F_ADD_SEALS", err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		p.inode = st.Ino
		if p.mem, err = unix.Mmap(int(f.Fd()), 0, int(l.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return os.NewSyscallError("mmap", err)
		}
		if p.memory, err = shm.Open(l, p.mem); err != nil {
			return err
		}
		if err := p.memory.Init(); err != nil {
			return err
		}
		p.ring, _ = p.memory.Ring(runtime.MapEvents)
		at, err := p.t.Mmap(ctx, 0, l.Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, fd, 0)
		if err != nil {
			return err
		}
		// A core dump is the program's.
		_, _ = p.t.Syscall(ctx, unix.SYS_MADVISE, at, l.Size, unix.MADV_DONTDUMP)
		p.populate(ctx, at)
		return p.mapped(ctx, at, l.Size, false)
	}()
	return errors.Join(err, p.t.CloseFD(context.WithoutCancel(ctx), fd))
}

// populate has the pages allocated that will be written first: one fault costs a program
// more than ten records do. It is for speed only.
func (p *process) populate(ctx context.Context, at uint64) {
	if p.ring == nil {
		return
	}
	const populateWrite = 23 // MADV_POPULATE_WRITE, since Linux 5.14
	offsets, size := p.ring.First()
	for _, off := range offsets {
		_ = unix.Madvise(p.mem[off:off+size], populateWrite) // the longer part, while the process runs
	}
	for _, off := range offsets {
		_, _ = p.t.Syscall(ctx, unix.SYS_MADVISE, at+off, size, populateWrite)
	}
}

// mapped notes memory.
func (p *process) mapped(ctx context.Context, at, size uint64, code bool) error {
	r := inject.Region{Addr: at, Size: size}
	p.regions = append(p.regions, mapping{r, code})
	return p.journal.AddRegion(ctx, r)
}

const private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS

// place puts the process block and the programs into the process, these in reach of
// the code that they are called from.
func (p *process) place(ctx context.Context, near uint64) (err error) {
	if p.block, err = p.t.Mmap(ctx, 0, shm.ProcSize, unix.PROT_READ|unix.PROT_WRITE, private, -1, 0); err != nil {
		return err
	}
	if err := p.mapped(ctx, p.block, shm.ProcSize, false); err != nil {
		return err
	}
	// The process's number is cached there, and a fork has another.
	if _, err := p.t.Syscall(ctx, unix.SYS_MADVISE, p.block, shm.ProcConfig, unix.MADV_WIPEONFORK); err != nil {
		return fmt.Errorf("madvise in the process: %w", err)
	}
	if err := p.t.WriteMem(ctx, binary.LittleEndian.AppendUint32(nil, uint32(p.pid)), p.block+shm.ProcPID); err != nil {
		return err
	}
	code := p.image.Link(p.regions[0].Addr, p.block)
	r, err := p.mapNear(ctx, near, pages(uint64(len(code))))
	if err != nil {
		return err
	}
	p.code = r.Range()
	return p.t.WriteMem(ctx, code, r.Addr)
}

// mapNear maps memory for code in reach of an address.
func (p *process) mapNear(ctx context.Context, near, size uint64) (inject.Region, error) {
	for tries := 0; ; tries++ {
		at, err := p.t.FreeRange(ctx, near, size)
		if err != nil {
			return inject.Region{}, err
		}
		err = p.mapCode(ctx, x86.Range{Low: at, High: at + size})
		if !errors.Is(err, unix.EEXIST) || tries == maxTries {
			return inject.Region{Addr: at, Size: size}, err
		}
	}
}

// maxTries is how often a place is sought that the process does not map itself at the
// same time.
const maxTries = 10

func pages(size uint64) uint64 { return (size + 4095) &^ 4095 }

// mapCode maps memory for code: the process itself can't write it, the tracer does so
// through /proc. It is noted before, for it has no name that it could be found by.
func (p *process) mapCode(ctx context.Context, r x86.Range) error {
	note := inject.Region{Addr: r.Low, Size: r.High - r.Low}
	if err := p.journal.PlanRegion(ctx, note); err != nil {
		return err
	}
	at, err := p.t.Mmap(ctx, r.Low, note.Size, unix.PROT_READ|unix.PROT_EXEC, private|unix.MAP_FIXED_NOREPLACE, -1, 0)
	if err == nil && at != r.Low { // a kernel before 4.17, which does not know the flag
		err = errors.Join(fmt.Errorf("mmap in the process: %w", unix.EEXIST), p.t.Munmap(ctx, at, note.Size))
	}
	if err != nil {
		return errors.Join(err, p.journal.DropRegion(ctx, note))
	}
	p.regions = append(p.regions, mapping{note, true})
	return nil
}

// resume lets the process run, if it shall.
func (p *process) resume() error {
	if p.hold {
		return nil
	}
	p.stacks = nil
	d, err := p.t.Resume()
	p.stopped = max(p.stopped, d)
	return err
}

// unmap takes out all memory that was put in, in which no thread is any more.
func (p *process) unmap(ctx context.Context) error {
	if p.journal == nil {
		return nil
	}
	if err := p.t.Stop(ctx); err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(p.regions) {
		// Data is forgotten first: who finds it noted later could not tell it from the
		// program's own memory. Code could be told.
		out := []func() error{
			func() error { return p.t.Munmap(ctx, m.Addr, m.Size) },
			func() error { return p.journal.DropRegion(ctx, m.Region) },
		}
		if !m.code {
			slices.Reverse(out)
		}
		err := out[0]()
		if err == nil {
			err = out[1]()
		}
		errs = append(errs, err)
	}
	p.regions, p.hold = nil, false
	switch {
	case errors.Join(errs...) != nil:
	case p.handler.Size > 0:
		errs = append(errs, p.journal.Disown(ctx)) // it stays, and tells the next one
	default:
		errs = append(errs, p.journal.Close(ctx))
	}
	_, err := p.t.Resume()
	return errors.Join(append(errs, err)...)
}

// unshare lets go of the shared memory here.
func (p *process) unshare() {
	if p.mem != nil {
		_ = unix.Munmap(p.mem)
		p.mem, p.memory, p.ring = nil, nil, nil
	}
}

// bias finds where the process has a file, as what its addresses are ahead of those it
// was linked with. It is by offsets of code that is of interest: the page at the start
// of a mapping may belong to the segment before, too.
func bias(ms []target.Mapping, path string, offsets []uint64, t Text) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	for _, m := range ms {
		// The device's number in maps is not that of stat on every file system.
		if m.Inode != st.Ino || !m.Exec {
			continue
		}
		for _, off := range offsets {
			if linked, ok := t.Addr(off); ok && m.Offset <= off && off-m.Offset < m.End-m.Start {
				return m.Start + off - m.Offset - linked, nil
			}
		}
	}
	return 0, ErrNotMapped
}

// ErrNotMapped: the process has not mapped the file of a probe. This runtime plants
// into what is there.
var ErrNotMapped = errors.New("the process has not mapped the file")

// frame is a signal frame on a stack: a thread was interrupted at ip, which is kept
// at addr.
type frame struct{ addr, ip uint64 }

// stackDepth bounds how much of a stack is looked through for signal frames: that of a
// whole one, by RLIMIT_STACK's usual value.
const stackDepth = 8 << 20

// stopAll stops all threads of the process. Where their stacks end is looked up before,
// so that they stand for less.
func (p *process) stopAll(ctx context.Context, ranges ...inject.Range) (*inject.Stopped, error) {
	if p.stacks == nil {
		p.lookUpStacks()
	}
	return p.t.StopAll(ctx, ranges...)
}

func (p *process) lookUpStacks() {
	p.stacks, _ = mapsOf(p.pid)
}

// stackEnd is the end of the mapping around a stack pointer, or how far is looked at most.
func (p *process) stackEnd(rsp uint64) uint64 {
	if p.stacks == nil {
		p.lookUpStacks()
	}
	i := sort.Search(len(p.stacks), func(i int) bool { return p.stacks[i].End > rsp })
	if i < len(p.stacks) && p.stacks[i].Start <= rsp {
		return min(p.stacks[i].End, rsp+stackDepth)
	}
	return rsp + stackDepth
}

// interrupted finds the signal frames on a thread's stack by whose end it will go on
// inside of one of some ranges, which lie in within. A frame is recognised by what
// stands next to the instruction pointer: struct sigcontext in the kernel's
// arch/x86/include/uapi/asm/sigcontext.h has rip, eflags, cs.
func (p *process) interrupted(ctx context.Context, rsp uint64, within inject.Range, in func(uint64) bool) (frames []frame) {
	const chunk, words = 64 << 10, 24
	b := make([]byte, chunk)
	for at, end := rsp&^7, p.stackEnd(rsp); at+words <= end; {
		n := min(end-at, chunk)
		if p.t.ReadMem(ctx, b[:n], at) != nil {
			n = min(n, 4096-at&4095) // there is less of it than there was
			if n < words || p.t.ReadMem(ctx, b[:n], at) != nil {
				return frames
			}
		}
		i := uint64(0)
		for ; i+words <= n; i += 8 {
			ip := le64(b[i:])
			if ip < within.Start || ip >= within.End || !in(ip) {
				continue
			}
			const userCS, alwaysOne = 0x33, 1 << 1
			if flags, cs := le64(b[i+8:]), le64(b[i+16:])&0xffff; cs == userCS && flags&alwaysOne != 0 && flags>>22 == 0 {
				frames = append(frames, frame{at + i, ip})
			}
		}
		at += i
	}
	return frames
}

// stopWait is how long a thread that stands in the way is given to go on, between two
// stops, and stopTries how often.
const (
	stopWait  = time.Millisecond
	stopTries = 50
)
