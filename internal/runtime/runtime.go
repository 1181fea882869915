// Package runtime is what both runtimes offer: a collection of eBPF programs and
// maps is loaded, its programs are attached to sites, and its records are read.
// It knows neither the language that the programs came from nor the debug info.
package runtime

import (
	"context"
	"time"

	"ferrotrace/internal/target"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of the maps that a runtime itself touches. A collection need not have
// any of them.
const (
	// MapEvents is the ring buffer that programs write records to.
	MapEvents = "events"
	// MapTargets is a hash of the thread group ids that may be recorded
	// (u32 → u8). A collection that has it drops every other process's hits.
	MapTargets = "targets"
	// MapScratch holds the slots in which records are built; the runtime sizes it
	// to SlotsPerCPU slots a possible CPU.
	MapScratch = "scratch"
	// MapFrames holds what handlers of scripts compute with; it is sized likewise.
	MapFrames = "frames"
	// MapFaults is a per-CPU array of u64, indexed by Fault.
	MapFaults = "faults"
	// MapCounters is a per-CPU array of u64, indexed by Counter.
	MapCounters = "counters"
	// MapCounts is a per-CPU array of u64: the figures of count.
	MapCounts = "counts"
)

// SlotsPerCPU is the number of scratch slots for each CPU: a sleepable program
// can be put to sleep with its slot by a page fault while others run.
const SlotsPerCPU = 4

// Counter is an index into MapCounters.
type Counter uint32

// A record is lost for want of room in the ring, or for want of a scratch slot.
// Entries, further records of one entry, exits and marks are counted apart.
const (
	EntryNoRoom Counter = iota
	EntryNoSlot
	MoreNoRoom
	MoreNoSlot
	ExitNoRoom
	ExitNoSlot
	MarkNoRoom
	MarkNoSlot
	NumCounters
)

// Fault is an index into MapFaults: what handlers of a script came upon. But for
// DivideByZero, ReadZeros and those that concern a map or an event the handler ended there.
type Fault uint32

const (
	NoFrame      Fault = iota // no memory to work in: too many run at once on one CPU
	EventNoRoom               // no room in the ring for an event
	MapFull                   // no room in a map
	Unreadable                // a value that the handler stands on
	OtherVariant              // a field was asked for of a variant that the value is not
	OutOfBounds               // an index beyond an array
	DivideByZero              // a division by zero, whose result counts as 1
	ReadZeros                 // memory that could not be read counts as zeros
	Hidden                    // a predicate did not hold, where that is counted
	NumFaults
)

// Probe attaches one program to one address of a file.
type Probe struct {
	Path    string // of the executable or library
	Offset  uint64 // in the file
	Cookie  uint64 // what the program gets from bpf_get_attach_cookie
	Program string // the name of a program of the collection
	// Semaphore is the counter that a static probe has to be counted in as long as it is
	// planted; zero if there is none.
	Semaphore Semaphore
}

// Semaphore is a counter of two bytes among a program's data, that tells it that somebody looks
// at a static probe.
type Semaphore struct {
	Offset uint64 // in the file
	Ahead  int64  // what its address is ahead of that of the probe
}

// Who is traced.
type Who struct {
	// PIDs are thread group ids. Empty: every process that maps the file, now and
	// later.
	PIDs []int
	// Forks says that children that PIDs start from now on are traced too.
	Forks bool
	// Command, if not nil, is one of PIDs that is held before its first instruction:
	// Release lets it run.
	Command *target.Command
}

// ProbeError is the trouble of one probe; the others are attached.
type ProbeError struct {
	Probe Probe
	Err   error
}

func (e *ProbeError) Error() string { return e.Err.Error() }
func (e *ProbeError) Unwrap() error { return e.Err }

// Runtime runs collections.
type Runtime interface {
	// Name is "kernel" or "user".
	Name() string
	// Load makes the programs and maps of spec, which it may modify, ready to be
	// attached. The session must be closed.
	Load(ctx context.Context, spec *ebpf.CollectionSpec) (Session, error)
}

// Session is one loaded collection.
type Session interface {
	// Attach plants the probes. Those that cannot be planted are returned, each
	// with its reason; err is for what concerns them all, and then none is left.
	Attach(ctx context.Context, probes []Probe, who Who) ([]*ProbeError, error)
	// Release lets the command run that was attached to. One that is not released until
	// Detach or Close never runs: it may be ended by them.
	Release() error
	// Run runs once a program that belongs to no site: one of type RawTracepoint. It sees
	// the maps that the attached programs see, and nothing of a traced process. Events
	// of it come out of Read as others do.
	Run(program string) error
	// Sample runs a program of type PerfEvent on each CPU, every so often, until Detach. A
	// runtime that is not the kernel can't: errors.ErrUnsupported.
	Sample(program string, every time.Duration) error
	// Detach takes all probes out. Records that are in the ring stay readable.
	Detach() error
	// Read passes each record to f until ctx is done, then what is left in the
	// ring, and returns nil; or f's error at once, or idle's. The bytes are valid
	// only during the call. idle is called whenever the ring has been emptied, with
	// the CLOCK_MONOTONIC nanoseconds read before it was, again ten times a second
	// while no records come, and last before Read returns nil: records that were in
	// the ring by that time have been passed. A record's own time may be earlier than
	// that of one before it: a program that has read the clock can be preempted, or
	// wait for a page, before it hands its record over.
	Read(ctx context.Context, f func(record []byte) error, idle func(monotonic uint64) error) error
	// Map returns a map of the collection by its name.
	Map(name string) (Map, bool)
	// Stats are exact once the probes are detached.
	Stats() (Stats, error)
	// Close detaches and frees everything.
	Close() error
}

// Map is the tracer's view of a map.
type Map interface {
	// PerCPU sums, over CPUs, the u64 at index i of a per-CPU array.
	Sum(i uint32) (uint64, error)
	// Lookup is the value of a key, on each CPU if the map is per CPU; nil if it is not
	// there. The bytes may be the map's own, and change.
	Lookup(key []byte) ([][]byte, error)
	// Each passes every element until f returns false. Those that come and go meanwhile
	// may be passed or not. f must not change the map.
	Each(f func(key []byte, values [][]byte) bool) error
	// Update sets the value of a key, on each CPU if the map is per CPU.
	Update(key []byte, values [][]byte) error
	// Delete removes a key.
	Delete(key []byte) error
}

// Monotonic is CLOCK_MONOTONIC in ns, the time of records.
func Monotonic() uint64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // a clock that every Linux has
	}
	return uint64(t.Nano())
}

// CPUs is how many CPUs there may ever be: a per-CPU map has a value for each.
func CPUs() (int, error) { return ebpf.PossibleCPU() }

// SizeSlots gives the maps of slots the size that so many CPUs need.
func SizeSlots(spec *ebpf.CollectionSpec, cpus int) {
	for _, name := range []string{MapScratch, MapFrames} {
		if m := spec.Maps[name]; m != nil {
			m.MaxEntries = uint32(SlotsPerCPU * cpus)
		}
	}
}

// Stats are the losses of a session.
type Stats struct {
	Counters [NumCounters]uint64
	// Missed are the hits on which a program did not run because one of its kind
	// was running on that CPU already, by program name.
	Missed map[string]uint64
	// Unfollowed are children that are not traced for want of room in MapTargets.
	Unfollowed uint64
	// Executed are processes that have executed another program, in which a runtime that
	// lives in them is not any more.
	Executed uint64
}
