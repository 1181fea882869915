// Package user is the runtime in which the traced process itself runs the programs:
// compiled to machine code, put into it by ptrace, reached by jumps that take the
// place of instructions. No agent, no preload, no root: the right to ptrace is enough.
//
// What the process gets is described in docs/user-runtime.md. Each process that is
// traced has maps and rings of its own, in memory that it shares with the tracer;
// the session adds them up.
package user

import (
	"context"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/tracer"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/x86"

	"github.com/cilium/ebpf"
)

// XMM is where programs find xmm0 … xmm15 in their context, 16 bytes each.
const XMM = patch.VectorsOffset

// Text is what this runtime has to know of a file's code. Addresses are as linked.
type Text interface {
	// Bytes are the code from addr on, to the end of what is mapped there; nil if
	// nothing is.
	Bytes(addr uint64) []byte
	// Addr is where an offset of the file is mapped.
	Addr(offset uint64) (addr uint64, ok bool)
	// FunctionRanges are those of all functions, in order of Low. What lies between
	// two of them may be overwritten if it is nothing but padding.
	FunctionRanges() []x86.Range
	// FunctionAt returns all parts of the function around addr, the addresses to which
	// control comes though no jump of its shows it (landing pads, inner symbols), and
	// whether it keeps to Rust's calling convention.
	FunctionAt(addr uint64) (parts []x86.Range, targets []uint64, rust, ok bool)
	// NoReturn says whether a call of addr never comes back.
	NoReturn(addr uint64) bool
}

// Options of the runtime.
type Options struct {
	// Text finds what is known of the code of a file, by the path of its probes.
	Text func(path string) (Text, error)
	// RingSize is the size in bytes of runtime.MapEvents on each CPU, a power of two. 0:
	// what the collection says. Memory is taken as it is written to.
	RingSize int
	// Mapped is told of files with probes that a process has mapped after it was attached
	// to; nil if nobody wants to know. It is called by Attach and by a goroutine of the
	// session's, and must not call the session.
	Mapped func(Mapped)
}

// Runtime is the traced process as a runtime.
type Runtime struct {
	options Options
	clock   *shm.Calibrator
}

// New returns the runtime.
func New(o Options) (*Runtime, error) {
	return &Runtime{options: o, clock: shm.NewCalibrator()}, nil
}

// Name is "user".
func (r *Runtime) Name() string { return "user" }

// Load implements runtime.Runtime. What this runtime does not have is an error that
// wraps shm.ErrUnsupported or insn.ErrRefused and names it.
func (r *Runtime) Load(ctx context.Context, spec *ebpf.CollectionSpec) (runtime.Session, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("user runtime: %w", err)
	}
	runtime.SizeSlots(spec, 1<<bits.Len(uint(cpus-1)))
	if m := spec.Maps[runtime.MapEvents]; m != nil && r.options.RingSize > 0 {
		m.MaxEntries = uint32(r.options.RingSize)
	}
	s := &session{options: r.options, clock: r.clock, processes: map[int]*process{}}
	if s.programs, err = tracer.Take(spec); err != nil {
		return nil, fmt.Errorf("user runtime: %w", err)
	}
	if s.layout, err = shm.NewLayout(spec.Maps, cpus); err != nil {
		return nil, fmt.Errorf("user runtime: %w", err)
	}
	var progs []*insn.Program
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := insn.FromSpec(spec.Programs[name])
		if err != nil {
			return nil, fmt.Errorf("user runtime: %w", err)
		}
		p.Name = name
		progs = append(progs, p)
	}
	if s.image, err = jit.Compile(progs, jit.Options{Layout: s.layout, RDPID: native.HasRDPID()}); err != nil {
		return nil, fmt.Errorf("user runtime: %w", err)
	}
	return s, nil
}

// Cost is about what a hit costs the target: of a program that counts, or of one that
// writes a record.
func Cost(records bool) time.Duration {
	if records {
		return 25 * time.Nanosecond
	}
	return 5 * time.Nanosecond
}
