// Package tracer runs, in the tracer itself, the programs of a collection that belong to
// no site: those of begin, end, interval and self. They are interpreted over the maps and
// rings that the traced process has, or, where nothing is traced, over maps and rings of
// the tracer's own.
package tracer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm"
	"ferrotrace/internal/runtime/user/vm/insn"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// budget bounds the instructions of one run: a loop of the language makes 2^23 rounds at most.
const budget = 1 << 31

// Programs are those of a collection that are of type RawTracepoint.
type Programs map[string]*insn.Program

// Take removes the tracer's programs from a collection and decodes them.
func Take(spec *ebpf.CollectionSpec) (Programs, error) {
	ps := Programs{}
	for name, p := range spec.Programs {
		if p.Type != ebpf.RawTracepoint {
			continue
		}
		prog, err := insn.FromInstructions(p.Instructions)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		prog.Name = name
		ps[name] = prog
		delete(spec.Programs, name)
	}
	return ps, nil
}

// Run runs a program once over m.
func (ps Programs) Run(name string, m *shm.Memory) error {
	maps, rings := m.VM()
	return ps.run(name, maps, rings)
}

func (ps Programs) run(name string, maps map[string]vm.Map, rings map[string]vm.Ring) error {
	p, ok := ps[name]
	if !ok {
		return fmt.Errorf("there is no program %q", name)
	}
	machine, err := vm.New(p, vm.Config{Maps: maps, Rings: rings, Budget: budget})
	if err != nil {
		return err
	}
	_, err = machine.Run(make([]byte, contextSize))
	return err
}

// contextSize is that of a raw tracepoint's context: twelve words.
const contextSize = 12 * 8

// Map is the tracer's view of a map as runtime.Map has it.
type Map struct{ *shm.View }

// Lookup implements runtime.Map.
func (m Map) Lookup(key []byte) (values [][]byte, err error) {
	for cpu := range m.CPUs() {
		v := m.View.Lookup(key, cpu)
		if v == nil {
			return nil, nil
		}
		values = append(values, v)
	}
	return values, nil
}

// Each implements runtime.Map.
func (m Map) Each(f func(key []byte, values [][]byte) bool) error {
	m.View.Each(0, func(key, _ []byte) bool {
		values, _ := m.Lookup(key)
		return values == nil || f(key, values)
	})
	return nil
}

// Update implements runtime.Map.
func (m Map) Update(key []byte, values [][]byte) error {
	for cpu, v := range values {
		if err := m.View.Update(key, v, 0, cpu); err != nil {
			return err
		}
	}
	return nil
}

// Runtime runs collections that have nothing but the tracer's programs. It needs no
// permission.
type Runtime struct{}

// Name is "tracer".
func (Runtime) Name() string { return "tracer" }

// Load implements runtime.Runtime.
func (Runtime) Load(_ context.Context, spec *ebpf.CollectionSpec) (runtime.Session, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	runtime.SizeSlots(spec, cpus)
	programs, err := Take(spec)
	if err != nil {
		return nil, err
	}
	if len(spec.Programs) > 0 {
		return nil, errors.New("programs that belong to sites need another runtime")
	}
	bounded := withoutLRU(spec)
	layout, err := shm.NewLayout(spec.Maps, cpus)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(-1, 0, int(layout.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping %d bytes for maps: %w", layout.Size, err)
	}
	s := &session{programs: programs, mem: mem}
	if s.memory, err = shm.Open(layout, mem); err == nil {
		err = s.memory.Init()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.maps, s.rings = s.memory.VM()
	for _, name := range bounded {
		s.maps[name] = newLRU(s.maps[name])
	}
	return s, nil
}

// session implements runtime.Session.
type session struct {
	programs Programs
	memory   *shm.Memory
	maps     map[string]vm.Map // as programs see them
	rings    map[string]vm.Ring

	mu  sync.Mutex
	mem []byte
}

// Attach implements runtime.Session: there is nothing to attach to.
func (*session) Attach(context.Context, []runtime.Probe, runtime.Who) ([]*runtime.ProbeError, error) {
	return nil, nil
}

func (*session) Release() error { return nil }
func (*session) Detach() error  { return nil }

// Run implements runtime.Session.
func (s *session) Run(program string) error { return s.programs.run(program, s.maps, s.rings) }

// Sample implements runtime.Session: what runs on the CPUs only the kernel knows.
func (*session) Sample(program string, _ time.Duration) error {
	return fmt.Errorf("sampling by %s: %w", program, errors.ErrUnsupported)
}

// idleEvery is how often the ring is looked at.
const idleEvery = 2 * time.Millisecond

// Read implements runtime.Session.
func (s *session) Read(ctx context.Context, f func([]byte) error, idle func(uint64) error) error {
	ring, ok := s.memory.Ring(runtime.MapEvents)
	tick := time.NewTicker(idleEvery)
	defer tick.Stop()
	for {
		done := ctx.Err() != nil
		now := runtime.Monotonic()
		if ok {
			if _, err := ring.Read(f); err != nil {
				return err
			}
		}
		if err := idle(now); err != nil || done {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Map implements runtime.Session.
func (s *session) Map(name string) (runtime.Map, bool) {
	v, ok := s.memory.View(name)
	return Map{v}, ok
}

// Stats implements runtime.Session.
func (*session) Stats() (runtime.Stats, error) { return runtime.Stats{}, nil }

// Close implements runtime.Session.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem == nil {
		return nil
	}
	mem := s.mem
	s.mem = nil
	return unix.Munmap(mem)
}
