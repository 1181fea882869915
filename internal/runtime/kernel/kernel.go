// Package kernel is the runtime in which the kernel runs the programs: uprobes,
// through cilium/ebpf. Links of uprobe_multi where the kernel has them, else one
// perf event for each probe.
//
// Everything that is attached hangs on file descriptors, so nothing stays in any
// process when the tracer is killed.
package kernel

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/target"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Options of the runtime.
type Options struct {
	// RingSize is the size in bytes of runtime.MapEvents, rounded up to a power of
	// two of at least a page. 0: what the collection says.
	RingSize int
}

// Runtime is the kernel as a runtime.
type Runtime struct {
	features Features
	options  Options
	single   bool // probes are attached one by one, whatever the kernel has
}

// New returns the runtime, a *PermissionError if this process may not use it, or
// another error if the kernel lacks what can't be done without.
func New(o Options) (*Runtime, error) {
	if err := Permission(); err != nil {
		return nil, err
	}
	f := ProbeFeatures()
	if f.Err != nil {
		return nil, fmt.Errorf("kernel runtime: %w", f.Err)
	}
	for _, need := range []struct {
		ok   bool
		what string
	}{
		{f.Uprobes, "uprobes (CONFIG_UPROBE_EVENTS, and /sys mounted)"},
		{f.Cookie, "attach cookies (Linux 5.15)"},
		{f.RingBuf, "ring buffers (Linux 5.8)"},
	} {
		if !need.ok {
			return nil, fmt.Errorf("kernel runtime: this kernel has no %s: %w", need.what, errors.ErrUnsupported)
		}
	}
	// Before Linux 5.11 maps counted as locked memory.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("kernel runtime: %w", permission(err))
	}
	return &Runtime{features: f, options: o}, nil
}

// Name is "kernel".
func (r *Runtime) Name() string { return "kernel" }

// Features are those of the running kernel.
func (r *Runtime) Features() Features { return r.features }

// Load implements runtime.Runtime. A program that the verifier refuses is an
// *ebpf.VerifierError.
func (r *Runtime) Load(ctx context.Context, spec *ebpf.CollectionSpec) (runtime.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &session{features: r.features}

	// Without a map of targets the kernel's own filter is all that tells processes
	// apart, so it has to be right.
	s.multi = r.features.UprobeMulti && !r.single &&
		(r.features.MultiPIDFilter || spec.Maps[runtime.MapTargets] != nil)
	for _, p := range spec.Programs {
		if p.Type != ebpf.Kprobe {
			continue
		}
		// The kernel ties a program to one way of attaching when it is loaded
		// (bpf_prog_attach_check_attach_type in kernel/bpf/syscall.c).
		p.AttachType = ebpf.AttachNone
		if s.multi {
			p.AttachType = ebpf.AttachTraceUprobeMulti
		}
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("kernel runtime: %w", err)
	}
	runtime.SizeSlots(spec, cpus)
	if m := spec.Maps[runtime.MapEvents]; m != nil && r.options.RingSize > 0 {
		size := max(r.options.RingSize, os.Getpagesize())
		m.MaxEntries = 1 << bits.Len(uint(size-1))
	}

	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fmt.Errorf("kernel runtime: loading: %w", permission(err))
	}
	s.coll = coll
	if m := coll.Maps[runtime.MapEvents]; m != nil {
		if s.ring, err = ringbuf.NewReader(m); err != nil {
			coll.Close()
			return nil, fmt.Errorf("kernel runtime: %w", err)
		}
	}
	return s, nil
}

// session implements runtime.Session.
type session struct {
	features Features
	multi    bool // programs are loaded for uprobe_multi
	coll     *ebpf.Collection
	ring     *ringbuf.Reader // nil without MapEvents

	mu     sync.Mutex // of what follows
	closed bool
	links  []link.Link
	forks  *forks // nil unless children are followed
	held   *target.Command
	// raised are the semaphores that the kernel has not counted in.
	raised []counter
	// samples are the descriptors of perf events.
	samples []int
}

var errClosed = errors.New("kernel runtime: the session is closed")

// Release implements runtime.Session.
func (s *session) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		s.held.Release()
	}
	return nil
}

// Detach implements runtime.Session.
//
// When it returns no program is running any more: unregistering a uprobe waits
// for its handlers (uprobe_unregister, and uprobe_unregister_sync since Linux
// 6.12, in kernel/events/uprobes.c).
func (s *session) Detach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detach()
}

func (s *session) detach() error {
	for _, fd := range s.samples {
		_ = unix.Close(fd)
	}
	s.samples = nil
	err := closeAll(s.links)
	s.links = nil
	lower(s.raised)
	s.raised = nil
	if s.forks != nil {
		err = errors.Join(err, s.forks.detach())
	}
	return err
}

// Close implements runtime.Session. Read must have returned.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.detach()
	if s.ring != nil {
		err = errors.Join(err, s.ring.Close())
	}
	if s.forks != nil {
		s.forks.coll.Close()
	}
	s.coll.Close()
	return err
}

// closeAll closes links, several at a time: for each the kernel waits until no
// CPU can be in its program.
func closeAll(links []link.Link) error {
	var (
		mu   sync.Mutex
		errs []error
	)
	each(len(links), func(i int) {
		if err := links[i].Close(); err != nil {
			mu.Lock()
			errs = append(errs, fmt.Errorf("kernel runtime: taking a probe out: %w", err))
			mu.Unlock()
		}
	})
	return errors.Join(errs...)
}

// each calls f for 0 … n-1, some at the same time, and returns when all are done.
func each(n int, f func(i int)) {
	const workers = 16
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, workers) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
