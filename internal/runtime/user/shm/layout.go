// Package shm is the memory that the tracer shares with the processes it traces:
// maps, rings and what programs need to know of the world. The JIT compiles
// accesses to it, this package is the tracer's side, and both follow the layout
// below, so that either may read and write at any time.
//
// No lock is taken anywhere: a thread may die, or be interrupted by a signal whose
// handler hits a probe, between any two instructions. What such a thread leaves
// behind costs one record or one slot of a map; what cannot be done is counted. The
// tracer trusts nothing that it reads: another process may write anything there, at
// any time, so what has been checked must not be read a second time. Whoever maps
// the memory from a file must seal its size, or a process that shrinks it ends the
// tracer by SIGBUS.
//
// All numbers are little endian and aligned to their size; the order of accesses is
// that of x86-64 (stores in order, locked instructions are barriers).
//
// # Header
//
// At 0: Magic, the layout's Size and CPUs as u64. Then, at the offsets Off…, the
// clock, the epoch and cache of thread names, what is told of loaded libraries, and the
// seeds of random numbers.
//
// # Map descriptors
//
// At Map.Desc, DescSize bytes each: the address that a program knows as the map.
//
//	 0 u32 type    4 u32 key size    8 u32 value size    12 u32 max entries
//	16 u64 count of elements (hash)
//	24 u64 failed: operations given up because a slot stayed busy (hash)
//	32 u64 full: elements that had no room (hash)
//
// # Arrays
//
// The value of index i is at Values + i*Stride, and on CPU c, if the array is per
// CPU, c*CPUStride further.
//
// # Hashes
//
// Buckets of 64 bytes, a power of two of them, each of 8 words: [0] is not zero once
// an element had to go to a following bucket, [1…7] are the tags of its slots. A tag
// is 0 (free) or a hash of 56 bits with, in the lowest byte, tagBusy (claimed, being
// written) or tagLive. Slot s = bucket*7 + i-1 has its key at Keys + s*KeyStride and
// its value at Values + s*Stride, per CPU as above.
//
// A lookup begins at the bucket of the hash and follows buckets as long as [0] says
// so. An insertion claims a free slot by exchanging its tag for a busy one, then
// looks again for the same tag elsewhere in the chain: of two that insert the same
// key at once at least one sees the other, and lets its slot go. A deletion
// exchanges the live tag for 0. Values are updated in place; so a thread that is
// held up between finding an element and writing its value may, if the element is
// deleted meanwhile and its slot taken, write into another's. The kernel's
// preallocated hashes are like that towards programs that write through a looked-up
// pointer.
//
// # Rings
//
// One a CPU, so that producers seldom meet, though any number may. A ring has a
// RingHeader: at 0 the head, at 8 the count of lost records, at 64 the tail, as
// u64; and RingSize bytes at Data + c*RingSize. Head and tail only grow; the place
// of a position is its remainder by RingSize. A producer that finds no room
// counts and leaves, before any other work. Else it moves the head by a
// compare-and-exchange, and owns what lies between. A record is a word, and its
// bytes padded to a multiple of 8; it does not wrap, but is preceded by a record of
// padding. The word's lower half is the length, its upper half the state: ringBusy,
// then, last of all, ringDone or ringDiscarded. The consumer zeroes what it has
// read before it moves the tail: the word of a record that was reserved but not
// begun is 0.
package shm

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf"
)

// Magic is the first word.
const Magic = 0x31_6d68_732d_7466 // "ft-shm1"

// Offsets in the header.
const (
	OffMagic = 0
	OffSize  = 8
	OffCPUs  = 16
	// OffClock: a u64 that is 0 or ClockSize, the offset of the valid one of two
	// clocks at OffClocks.
	OffClock  = 64
	OffClocks = 128
	// OffEpoch: a u32 that the tracer changes to make cached thread names stale. It
	// is never 0.
	OffEpoch = 256
	// OffComms: CommSlots slots of CommSize bytes: u64 epoch<<32 | tid, written last,
	// and the name.
	OffComms = 320
	// OffLoads: what the process tells of libraries that it loads and unloads; see Loads.
	OffLoads = OffComms + CommSlots*CommSize
	// OffSeeds: for each CPU a u64, 64 bytes apart.
	OffSeeds = OffLoads + 64

	CommSlots = 256
	CommSize  = 32
)

// A clock turns the time-stamp counter into CLOCK_MONOTONIC: the upper 64 bits of
// tsc*mult, plus offset.
const (
	ClockMult   = 0  // u64; 0: there is no usable counter, ask the kernel
	ClockOffset = 8  // u64
	ClockBoot   = 16 // u64: what CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
	ClockTAI    = 24 // u64: what CLOCK_TAI is ahead of it
	ClockSize   = 32
)

// The process block is memory of the traced process alone, two pages. The first is
// to be wiped on fork (MADV_WIPEONFORK), the second is not.
const (
	ProcPID = 0 // u32: the process, 0 if not known yet
	// ProcTraced: u32, 1 in the process whose tracer looks after ProcDirect, which a fork's
	// does not.
	ProcTraced = 4
	// ProcConfig is where the second page begins.
	ProcConfig = 4096
	// ProcDirect: u32, 1 if foreign memory may be read by plain instructions, since
	// their faults are handled. 0: by process_vm_readv.
	ProcDirect = ProcConfig
	// ProcTID: i64, where the thread's id (u32) is, relative to the FS base. 0: ask
	// the kernel.
	ProcTID = ProcConfig + 8
	// ProcSaved: u32, set when the program asked the C library what SIGSEGV or SIGBUS does,
	// so that it may have kept the address of a handler that was put there.
	ProcSaved = ProcConfig + 20
	// ProcQuiet: u32, 1 if programs may make no system call, since a filter might kill
	// the process for it. What they would have to ask for is 0 then, or unreadable.
	ProcQuiet = ProcConfig + 24
	// ProcDirected: u32, 1 as soon as ProcDirect is, and until it is known that all reads
	// which were begun as direct ones have ended; 2 if a thread waits for that.
	ProcDirected = ProcConfig + 28
	ProcSize     = 2 * 4096
)

// Offsets in a map's descriptor.
const (
	DescType   = 0
	DescKey    = 4
	DescValue  = 8
	DescMax    = 12
	DescCount  = 16
	DescFailed = 24
	DescFull   = 32
	DescSize   = 64
)

// Tags of a hash's slots.
const (
	TagBusy = 1
	TagLive = 2
	// BucketSlots is how many slots a bucket has.
	BucketSlots = 7
	// BucketSize is its size in bytes.
	BucketSize = 64
)

// States of a ring's record, and offsets in a ring's header.
const (
	RingBusy      = 1
	RingDone      = 2
	RingDiscarded = 3
	RingPadding   = 4

	RingHead   = 0
	RingLost   = 8
	RingTail   = 64
	RingHeader = 128
	// RingWord is the size of a record's first word.
	RingWord = 8
)

// Map is where one map of the layout is. All places are offsets in the memory.
type Map struct {
	Name                             string
	Type                             ebpf.MapType
	KeySize, ValueSize, MaxEntries   uint32
	Desc                             uint64
	Values, Stride, CPUStride        uint64
	Keys, KeyStride, Buckets, Mask   uint64 // of hashes; Mask is that of buckets
	Rings, Data, RingSize, MaxRecord uint64 // of rings; MaxRecord bytes fit into one
	Contents                         []ebpf.MapKV
}

// PerCPU says whether each CPU has its own values.
func (m *Map) PerCPU() bool {
	return m.Type == ebpf.PerCPUArray || m.Type == ebpf.PerCPUHash
}

// IsArray and IsHash include those per CPU.
func (m *Map) IsArray() bool { return m.Type == ebpf.Array || m.Type == ebpf.PerCPUArray }
func (m *Map) IsHash() bool  { return m.Type == ebpf.Hash || m.Type == ebpf.PerCPUHash }

// IsRing says whether it is a ring buffer.
func (m *Map) IsRing() bool { return m.Type == ebpf.RingBuf }

// Direct says whether programs may address its only value directly.
func (m *Map) Direct() bool { return m.Type == ebpf.Array && m.MaxEntries == 1 }

// slots is the number of slots of a hash.
func (m *Map) slots() uint64 { return (m.Mask + 1) * BucketSlots }

// Layout is where everything is.
type Layout struct {
	Size   uint64 // of the memory in bytes, a multiple of the page size
	CPUs   int    // a power of two, more than any CPU's number
	Maps   []*Map
	byName map[string]*Map
}

// ErrUnsupported is wrapped when a map cannot be had.
var ErrUnsupported = errors.New("not supported by the user runtime")

// Bounds, so that a foreign object cannot ask for the moon.
const (
	maxKey   = 512
	maxValue = 1 << 20
	maxSize  = 16 << 30
	// minRing is the least size of one CPU's ring.
	minRing = 256 << 10
)

// NewLayout places the maps of a collection for CPUs with numbers below cpus. Maps
// of a kind that there is not are refused by name.
func NewLayout(maps map[string]*ebpf.MapSpec, cpus int) (*Layout, error) {
	if cpus < 1 || cpus > 4096 {
		return nil, fmt.Errorf("%d CPUs: %w", cpus, ErrUnsupported)
	}
	l := &Layout{CPUs: 1 << bits.Len(uint(cpus-1)), byName: make(map[string]*Map)}
	at := uint64(OffSeeds + 64*l.CPUs)
	take := func(n, alignment uint64) uint64 {
		at = align(at, alignment)
		start := at
		at += n
		return start
	}
	for _, name := range slices.Sorted(stdmaps.Keys(maps)) {
		m, err := newMap(name, maps[name])
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
		m.Desc = take(DescSize, 64)
		l.Maps = append(l.Maps, m)
		l.byName[name] = m
	}
	for _, m := range l.Maps {
		m.place(take, uint64(l.CPUs))
		if at > maxSize {
			return nil, fmt.Errorf("map %s: %d bytes of shared memory: %w", m.Name, at, ErrUnsupported)
		}
	}
	l.Size = align(at, 4096)
	return l, nil
}

// Map finds a map by its name.
func (l *Layout) Map(name string) (*Map, bool) {
	m, ok := l.byName[name]
	return m, ok
}

func newMap(name string, s *ebpf.MapSpec) (*Map, error) {
	m := &Map{
		Name: name, Type: s.Type, KeySize: s.KeySize, ValueSize: s.ValueSize, MaxEntries: s.MaxEntries,
		Contents: s.Contents,
	}
	const noPrealloc, readOnly, writeOnly, mmapable = 1 << 0, 1<<3 | 1<<7, 1<<4 | 1<<8, 1 << 10
	if flags := s.Flags &^ (noPrealloc | readOnly | writeOnly | mmapable); flags != 0 {
		return nil, fmt.Errorf("flags %#x: %w", flags, ErrUnsupported)
	}
	switch {
	case m.IsRing():
		if s.MaxEntries == 0 {
			return nil, fmt.Errorf("no size: %w", ErrUnsupported)
		}
		return m, nil
	case m.IsArray() && s.KeySize != 4:
		return nil, fmt.Errorf("an array with keys of %d bytes: %w", s.KeySize, ErrUnsupported)
	case !m.IsArray() && !m.IsHash():
		return nil, fmt.Errorf("type %v: %w", s.Type, ErrUnsupported)
	case s.KeySize == 0 || s.KeySize > maxKey || s.ValueSize == 0 || s.ValueSize > maxValue || s.MaxEntries == 0:
		return nil, fmt.Errorf("key of %d bytes, value of %d, %d entries: %w", s.KeySize, s.ValueSize, s.MaxEntries, ErrUnsupported)
	case m.IsHash() && s.MaxEntries > 1<<26:
		return nil, fmt.Errorf("%d entries: %w", s.MaxEntries, ErrUnsupported)
	}
	return m, nil
}

// place takes the memory that a map needs.
func (m *Map) place(take func(n, alignment uint64) uint64, cpus uint64) {
	if m.IsRing() {
		m.placeRings(take, cpus)
		return
	}
	if !m.PerCPU() {
		cpus = 1
	}
	value := align(uint64(m.ValueSize), 8)
	switch {
	case m.IsArray():
		m.Stride = value
		n := align(m.Stride*uint64(m.MaxEntries), 64)
		if m.PerCPU() {
			m.CPUStride = n
		}
		// A whole page, so that the value of an array that programs address directly
		// shares it with nothing.
		m.Values = take(n*cpus, 4096)
	case m.IsHash():
		// Half full at most, so that few buckets overflow.
		m.Mask = uint64(1)<<bits.Len64((2*uint64(m.MaxEntries)-1)/BucketSlots) - 1
		m.Buckets = take((m.Mask+1)*BucketSize, 64)
		m.KeyStride = align(uint64(m.KeySize), 8)
		if m.PerCPU() {
			m.Stride = value
			m.CPUStride = align(m.Stride*m.slots(), 64)
			m.Keys = take(m.KeyStride*m.slots(), 64)
			m.Values = take(m.CPUStride*cpus, 64)
			break
		}
		m.KeyStride += value
		m.Stride = m.KeyStride
		m.Keys = take(m.KeyStride*m.slots(), 64)
		m.Values = m.Keys + align(uint64(m.KeySize), 8)
	}
}

func (m *Map) placeRings(take func(n, alignment uint64) uint64, cpus uint64) {
	m.RingSize = max(uint64(1)<<bits.Len64((uint64(m.MaxEntries)-1)/cpus), minRing)
	m.MaxRecord = m.RingSize/2 - RingWord
	m.Rings = take(RingHeader*cpus, 128)
	m.Data = take(m.RingSize*cpus+1, 4096) // an empty record at the end has an address too
}

func align(n, to uint64) uint64 { return (n + to - 1) &^ (to - 1) }
