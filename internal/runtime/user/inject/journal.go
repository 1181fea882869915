package inject

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// A Journal says, in the process's own memory, what was changed there, so that whoever
// comes after a tracer that was killed can put it back. It is written ahead: an entry is
// there before its patch is.
//
// It is a mapping that /proc/PID/maps names, of a file in memory that nobody has open.
// The mapping is private and can't be written by the program: a fork's copy tells of the
// fork's own memory, and goes on alone. Layout, little-endian:
//
//	 0  8 bytes  "ftjournl"
//	 8  u32      version, 1
//	12  u32      number of entries there is room for
//	16  u32      number of entries used
//	20  u32      0
//	24  u64      the tracer's pid
//	32  u64      the tracer's start, in clock ticks since boot
//	40  24 bytes 0
//	64           the entries, 64 bytes each:
//	 0  u64      address
//	 8  u8       state: 0 free or put back, 1 in place or about to be
//	 9  u8       kind: 1 patch, 2 region, 3 region that may not be there yet, 4 file, 5 semaphore
//	10  u8       length of a patch, at most 24
//	11  5 bytes  0
//	16  24 bytes a patch's old bytes; a region's or a file's size, as u64
//	24           a file's or semaphore's inode, as u64
//	32           where in the file, as u64
//	40  24 bytes a patch's new bytes
//
// An entry never crosses a page, so it is written as a whole or not at all: the kernel
// ends a killed writer between pages only.
type Journal struct {
	t        *Tracee
	addr     uint64
	size     uint64
	capacity int
	entries  []entry

	// TracerPID and TracerStart are who wrote it last.
	TracerPID   int
	TracerStart uint64
}

// JournalName is how the memory of a journal is named, behind "/memfd:".
const JournalName = "ferrotrace-journal"

const (
	journalMagic   = "ftjournl"
	journalVersion = 1
	entrySize      = 64
	maxEntries     = 1 << 20
	// MaxPatch is the longest patch, in bytes.
	MaxPatch = 24

	kindPatch  = 1
	kindRegion = 2
	kindAhead  = 3
	kindFile   = 4
	kindSema   = 5
)

// ErrJournal: what was found is no journal, or damaged.
var ErrJournal = errors.New("the patch journal in the process is damaged")

// Patch is a change of code.
type Patch struct {
	Addr     uint64
	Old, New []byte // of one length, at most MaxPatch
	File     []byte // what the file has there, or nil: see WriteCode
}

// Region is memory that was mapped into the process.
type Region struct{ Addr, Size uint64 }

// Range is where it is.
func (r Region) Range() Range { return Range{r.Addr, r.Addr + r.Size} }

type entry struct {
	addr     uint64
	live     bool
	kind     byte
	old, new []byte // of a patch
	size     uint64 // of a region or a file
	inode    uint64 // of a file, and
	offset   uint64 // where in it
}

func (e entry) encode() []byte {
	b := make([]byte, entrySize)
	binary.LittleEndian.PutUint64(b, e.addr)
	b[8], b[9] = byte(btoi(e.live)), e.kind
	if e.kind != kindPatch {
		binary.LittleEndian.PutUint64(b[16:], e.size)
		binary.LittleEndian.PutUint64(b[24:], e.inode)
		binary.LittleEndian.PutUint64(b[32:], e.offset)
		return b
	}
	b[10] = byte(len(e.old))
	copy(b[16:40], e.old)
	copy(b[40:64], e.new)
	return b
}

func decodeEntry(b []byte) (entry, error) {
	e := entry{addr: binary.LittleEndian.Uint64(b), live: b[8] == 1, kind: b[9]}
	switch {
	case b[8] > 1:
		return e, fmt.Errorf("%w: state %d", ErrJournal, b[8])
	case e.kind == kindRegion || e.kind == kindAhead:
		e.size = binary.LittleEndian.Uint64(b[16:])
	case e.kind == kindFile || e.kind == kindSema:
		e.size = binary.LittleEndian.Uint64(b[16:])
		e.inode, e.offset = binary.LittleEndian.Uint64(b[24:]), binary.LittleEndian.Uint64(b[32:])
	case e.kind == kindPatch && b[10] > 0 && b[10] <= MaxPatch:
		e.old, e.new = slices.Clone(b[16:16+b[10]]), slices.Clone(b[40:40+b[10]])
	default:
		return e, fmt.Errorf("%w: kind %d, length %d", ErrJournal, e.kind, b[10])
	}
	return e, nil
}

type header struct {
	Magic              [8]byte
	Version            uint32
	Capacity, Used, _  uint32
	TracerPID, Started uint64
	_                  [24]byte
}

// parseJournal reads a whole journal; size is that of its mapping.
func parseJournal(b []byte) (h header, es []entry, err error) {
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return h, nil, fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if string(h.Magic[:]) != journalMagic {
		return h, nil, fmt.Errorf("%w: magic %q", ErrJournal, h.Magic[:])
	}
	if h.Version != journalVersion {
		return h, nil, fmt.Errorf("%w: version %d", ErrJournal, h.Version)
	}
	if h.Capacity > maxEntries || h.Used > h.Capacity || uint64(len(b)) < entrySize*(1+uint64(h.Capacity)) {
		return h, nil, fmt.Errorf("%w: %d of %d entries in %d bytes", ErrJournal, h.Used, h.Capacity, len(b))
	}
	for i := range int(h.Used) {
		e, err := decodeEntry(b[entrySize*(1+i):][:entrySize])
		if err != nil {
			return h, nil, fmt.Errorf("entry %d: %w", i, err)
		}
		es = append(es, e)
	}
	return h, es, nil
}

// CreateJournal puts an empty journal into the process.
func (t *Tracee) CreateJournal(ctx context.Context, capacity int) (*Journal, error) {
	if capacity <= 0 || capacity > maxEntries {
		return nil, fmt.Errorf("a journal of %d entries", capacity)
	}
	pid, start, err := self()
	if err != nil {
		return nil, err
	}
	j := &Journal{t: t, capacity: capacity, TracerPID: pid, TracerStart: start}
	j.size = (entrySize*(1+uint64(capacity)) + 4095) &^ 4095
	err = t.with(ctx, func(ctx context.Context, deadline time.Time) error {
		fd, err := t.memfd(ctx, deadline, JournalName)
		if err != nil {
			return err
		}
		defer func() { // also when time is up
			_, _ = t.remote(context.WithoutCancel(ctx), time.Now().Add(maxWait), unix.SYS_CLOSE, uint64(fd))
		}()
		if _, err := t.remote(ctx, deadline, unix.SYS_FTRUNCATE, uint64(fd), j.size); err != nil {
			return named("ftruncate", err)
		}
		if j.addr, err = t.remote(ctx, deadline, unix.SYS_MMAP, 0, j.size, unix.PROT_READ, unix.MAP_PRIVATE, uint64(fd), 0); err != nil {
			return named("mmap", err)
		}
		return j.writeHeader()
	})
	if err != nil {
		return nil, err
	}
	return j, nil
}

func self() (pid int, start uint64, err error) {
	p, err := target.Open(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	defer p.Close()
	return p.PID, p.Start, nil
}

func (j *Journal) writeHeader() error {
	h := header{Version: journalVersion, Capacity: uint32(j.capacity), Used: uint32(len(j.entries)), TracerPID: uint64(j.TracerPID), Started: j.TracerStart}
	copy(h.Magic[:], journalMagic)
	b, err := binary.Append(nil, binary.LittleEndian, h)
	if err != nil {
		return err
	}
	return j.t.writeAt(b, j.addr)
}

// FindJournals finds the journals in a process, which are no longer written if their
// tracer is gone. What is damaged is left out, and the error joins why.
func (t *Tracee) FindJournals(ctx context.Context) (js []*Journal, err error) {
	err = t.call(ctx, func(context.Context, time.Time) error {
		ms, err := t.proc.Maps()
		if err != nil {
			return err
		}
		var errs []error
		for _, m := range ms {
			if m.Path != "/memfd:"+JournalName || m.Offset != 0 {
				continue
			}
			j, err := t.readJournal(m)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if j != nil {
				js = append(js, j)
			}
		}
		return errors.Join(errs...)
	})
	return js, err
}

// readJournal returns nil for one whose tracer was killed before it had written into it:
// no patch was made yet then.
func (t *Tracee) readJournal(m target.Mapping) (*Journal, error) {
	size := m.End - m.Start
	if size > entrySize*(1+maxEntries)+4096 {
		return nil, fmt.Errorf("%w: %d bytes", ErrJournal, size)
	}
	b := make([]byte, size)
	if err := t.readAt(b, m.Start); err != nil {
		return nil, err
	}
	if bytes.Equal(b[:entrySize], make([]byte, entrySize)) {
		return nil, nil
	}
	h, es, err := parseJournal(b)
	if err != nil {
		return nil, fmt.Errorf("at %#x: %w", m.Start, err)
	}
	return &Journal{t: t, addr: m.Start, size: size, capacity: int(h.Capacity), entries: es, TracerPID: int(h.TracerPID), TracerStart: h.Started}, nil
}

// Addr is where the journal is mapped.
func (j *Journal) Addr() uint64 { return j.addr }

// Owned reports whether the tracer that wrote the journal last lives still.
func (j *Journal) Owned() bool { return target.Alive(j.TracerPID, j.TracerStart) }

// Claim makes this process the journal's tracer, to go on with what is there.
func (j *Journal) Claim(ctx context.Context) error {
	pid, start, err := self()
	if err != nil {
		return err
	}
	return j.t.call(ctx, func(context.Context, time.Time) error {
		j.TracerPID, j.TracerStart = pid, start
		return j.writeHeader()
	})
}

// Disown says that its tracer goes, and leaves something behind.
func (j *Journal) Disown(ctx context.Context) error {
	return j.t.call(ctx, func(context.Context, time.Time) error {
		j.TracerPID, j.TracerStart = 0, 0
		return j.writeHeader()
	})
}

// Patches are those that are in place.
func (j *Journal) Patches() []Patch {
	var ps []Patch
	for _, e := range j.entries {
		if e.live && e.kind == kindPatch {
			ps = append(ps, Patch{Addr: e.addr, Old: e.old, New: e.new})
		}
	}
	return ps
}

// Regions are those that the journal tells of.
func (j *Journal) Regions() []Region {
	var rs []Region
	for _, e := range j.entries {
		if e.live && (e.kind == kindRegion || e.kind == kindAhead) {
			rs = append(rs, Region{e.addr, e.size})
		}
	}
	return rs
}

// add notes entries, in order, and only then counts those that are new. It returns where
// they are. What has been retired is used again: libraries come and go.
func (j *Journal) add(es []entry) (at []int, err error) {
	for i := 0; i < len(j.entries) && len(at) < len(es); i++ {
		if !j.entries[i].live {
			at = append(at, i)
		}
	}
	again, used := len(at), len(j.entries)
	if used+len(es)-again > j.capacity {
		return nil, fmt.Errorf("the journal has no room for %d entries more than %d", len(es)-again, used)
	}
	for i, slot := range at {
		j.entries[slot] = es[i]
		if err := j.t.writeAt(es[i].encode(), j.slot(slot)); err != nil {
			return nil, err
		}
	}
	if again == len(es) {
		return at, nil
	}
	var b []byte
	for i, e := range es[again:] {
		b = append(b, e.encode()...)
		at = append(at, used+i)
	}
	if err := j.t.writeAt(b, j.slot(used)); err != nil {
		return nil, err
	}
	j.entries = append(j.entries, es[again:]...)
	return at, j.writeHeader()
}

func (j *Journal) slot(i int) uint64 { return j.addr + entrySize*uint64(1+i) }

// AddRegion notes memory that was mapped.
func (j *Journal) AddRegion(ctx context.Context, r Region) error {
	return j.addRegion(ctx, r, kindRegion)
}

// PlanRegion notes memory that is about to be mapped. Who finds it noted by a tracer that
// was killed does not know whether it is there, or the process's own: see Planned.
func (j *Journal) PlanRegion(ctx context.Context, r Region) error {
	return j.addRegion(ctx, r, kindAhead)
}

// Planned is whether memory was noted before it was mapped.
func (j *Journal) Planned(r Region) bool {
	return slices.ContainsFunc(j.entries, func(e entry) bool {
		return e.live && e.kind == kindAhead && e.addr == r.Addr && e.size == r.Size
	})
}

func (j *Journal) addRegion(ctx context.Context, r Region, kind byte) error {
	e := entry{addr: r.Addr, live: true, kind: kind, size: r.Size}
	return j.t.call(ctx, func(context.Context, time.Time) error {
		_, err := j.add([]entry{e})
		return err
	})
}

// DropRegion forgets memory that has been unmapped.
func (j *Journal) DropRegion(ctx context.Context, r Region) error {
	return j.t.call(ctx, func(context.Context, time.Time) error {
		for i, e := range j.entries {
			if e.live && (e.kind == kindRegion || e.kind == kindAhead) && e.addr == r.Addr {
				return j.retire(i)
			}
		}
		return nil
	})
}

func (j *Journal) retire(i int) error {
	j.entries[i].live = false
	return j.t.writeAt(j.entries[i].encode(), j.slot(i))
}

// Apply notes patches and makes them, in order, by WriteCode, all threads being stopped
// and outside of them. Each has its error, nil if it is in place; err is for what
// concerns them all, and then some of them may be in place: Restore.
func (j *Journal) Apply(ctx context.Context, patches ...Patch) (errs []error, err error) {
	var es []entry
	for _, p := range patches {
		if len(p.Old) != len(p.New) || len(p.Old) == 0 || len(p.Old) > MaxPatch {
			return nil, fmt.Errorf("a patch of %d bytes by %d", len(p.Old), len(p.New))
		}
		es = append(es, entry{addr: p.Addr, live: true, kind: kindPatch, old: slices.Clone(p.Old), new: slices.Clone(p.New)})
	}
	errs = make([]error, len(patches))
	err = j.t.call(ctx, func(context.Context, time.Time) error {
		at, err := j.add(es)
		if err != nil {
			return err
		}
		for i, p := range patches {
			errs[i] = j.t.writeCode(p.Addr, p.Old, p.New, p.File)
			if errs[i] == nil {
				continue
			}
			if err := j.retire(at[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return errs, err
}

// Restore puts back the bytes of all patches, the last first, under a stop of its own
// unless all threads are stopped already. It returns how many there were, and those that
// are not as they were left, which it does not touch. Regions stay, for a thread may be
// inside: they are the caller's.
func (j *Journal) Restore(ctx context.Context) (restored int, conflicts []*ConflictError, err error) {
	var ranges []Range
	for _, p := range j.Patches() {
		ranges = append(ranges, Range{p.Addr + 1, p.Addr + uint64(len(p.Old))})
	}
	ranges = sorted(ranges)
	err = j.t.call(ctx, func(ctx context.Context, deadline time.Time) error {
		ours := j.t.began.IsZero()
		if err := j.t.stopAll(ctx, deadline, nil, &Stopped{}); err != nil {
			_, _ = j.t.resume()
			return err
		}
		for _, th := range j.t.threads {
			if th.stopped && InAny(ranges, th.regs.Rip) {
				err = fmt.Errorf("%w: thread %d is inside a patch, at %#x", ErrBusy, th.tid, th.regs.Rip)
			}
		}
		if err == nil {
			restored, conflicts, err = j.restore()
		}
		if ours {
			if _, rerr := j.t.resume(); err == nil {
				err = rerr
			}
		}
		return err
	})
	return restored, conflicts, err
}

func (j *Journal) restore() (restored int, conflicts []*ConflictError, err error) {
	gone, err := j.gone()
	if err != nil {
		return 0, nil, err
	}
	if err := j.lower(); err != nil {
		return 0, nil, err
	}
	for i := len(j.entries) - 1; i >= 0; i-- {
		e := j.entries[i]
		if !e.live || e.kind != kindPatch {
			continue
		}
		if InAny(gone, e.addr) {
			if err := j.retire(i); err != nil {
				return restored, conflicts, err
			}
			continue
		}
		have := make([]byte, len(e.old))
		if err := j.t.readAt(have, e.addr); err != nil {
			if errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EIO) { // its library was unmapped
				if err := j.retire(i); err != nil {
					return restored, conflicts, err
				}
				continue
			}
			return restored, conflicts, err
		}
		switch {
		case bytes.Equal(have, e.old):
			// The tracer was killed between the entry and the patch.
		case bytes.Equal(have, e.new) || e.torn(have):
			if err := j.t.writeCode(e.addr, have, e.old, nil); err != nil {
				return restored, conflicts, err
			}
			restored++
		default:
			conflicts = append(conflicts, &ConflictError{e.addr, e.new, have, j.t.culprit(e.addr, e.new, have, nil)})
			continue
		}
		if err := j.retire(i); err != nil {
			return restored, conflicts, err
		}
	}
	return restored, conflicts, nil
}

// torn recognises a patch whose writer was killed at the end of a page.
func (e entry) torn(have []byte) bool {
	n := int(4096 - e.addr&4095)
	return n < len(have) && (bytes.Equal(have[:n], e.new[:n]) && bytes.Equal(have[n:], e.old[n:]) ||
		bytes.Equal(have[:n], e.old[:n]) && bytes.Equal(have[n:], e.new[n:]))
}

// Close takes the journal itself out of the process. Nothing that it tells of may be
// left.
func (j *Journal) Close(ctx context.Context) error { return j.t.Munmap(ctx, j.addr, j.size) }
