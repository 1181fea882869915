package kernel

import (
	"bytes"
	"errors"
	"fmt"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
)

// Map implements runtime.Session.
func (s *session) Map(name string) (runtime.Map, bool) {
	m := s.coll.Maps[name]
	if m == nil {
		return nil, false
	}
	return perCPU{m}, true
}

// perCPU implements runtime.Map.
type perCPU struct{ *ebpf.Map }

func (m perCPU) Sum(i uint32) (sum uint64, err error) {
	var values []uint64
	if err := m.Map.Lookup(i, &values); err != nil {
		return 0, fmt.Errorf("kernel runtime: element %d of %s: %w", i, m.Map, err)
	}
	for _, v := range values {
		sum += v
	}
	return sum, nil
}

// Lookup implements runtime.Map.
func (m perCPU) Lookup(key []byte) ([][]byte, error) {
	values, err := m.values(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	return values, err
}

func (m perCPU) values(key []byte) ([][]byte, error) {
	if !m.many() {
		b, err := m.Map.LookupBytes(key)
		if err == nil && b == nil {
			err = ebpf.ErrKeyNotExist
		}
		return [][]byte{b}, err
	}
	var raw []rawValue
	if err := m.Map.Lookup(key, &raw); err != nil {
		return nil, err
	}
	values := make([][]byte, len(raw))
	for i := range raw {
		values[i] = raw[i]
	}
	return values, nil
}

// rawValue is one CPU's bytes.
type rawValue []byte

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (v *rawValue) UnmarshalBinary(b []byte) error {
	*v = bytes.Clone(b)
	return nil
}

// MarshalBinary implements encoding.BinaryMarshaler.
func (v rawValue) MarshalBinary() ([]byte, error) { return v, nil }

func (m perCPU) many() bool {
	switch m.Type() {
	case ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash:
		return true
	}
	return false
}

// Each implements runtime.Map.
func (m perCPU) Each(f func(key []byte, values [][]byte) bool) error {
	// The keys first: going on from one that has been deleted starts anew.
	var keys [][]byte
	var key any
	for range m.MaxEntries() {
		next, err := m.NextKeyBytes(key)
		if err != nil {
			return fmt.Errorf("kernel runtime: going through %s: %w", m.Map, err)
		}
		if next == nil {
			break
		}
		keys = append(keys, next)
		key = next
	}
	for _, key := range keys {
		values, err := m.values(key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("kernel runtime: reading %s: %w", m.Map, err)
		}
		if !f(key, values) {
			break
		}
	}
	return nil
}

// Update implements runtime.Map.
func (m perCPU) Update(key []byte, values [][]byte) error {
	if !m.many() {
		return m.Map.Update(key, values[0], ebpf.UpdateAny)
	}
	raw := make([]rawValue, len(values))
	for i := range raw {
		raw[i] = values[i]
	}
	return m.Map.Update(key, raw, ebpf.UpdateAny)
}

// Delete implements runtime.Map.
func (m perCPU) Delete(key []byte) error { return m.Map.Delete(key) }

// Run implements runtime.Session, by BPF_PROG_RUN.
func (s *session) Run(program string) error {
	p := s.coll.Programs[program]
	if p == nil {
		return fmt.Errorf("kernel runtime: there is no program %q", program)
	}
	if _, err := p.Run(&ebpf.RunOptions{Context: make([]byte, tracepointContext)}); err != nil {
		return fmt.Errorf("kernel runtime: running %s: %w", program, err)
	}
	return nil
}

// tracepointContext is the size of a raw tracepoint's context: twelve words.
const tracepointContext = 12 * 8

// Stats implements runtime.Session.
//
// Missed is what the kernel counts (recursion_misses of bpf_prog_info). Since
// Linux 6.0 it runs uprobe programs without a guard against recursion
// (bpf_prog_run_array_sleepable in include/linux/bpf.h, uprobe_prog_run in
// kernel/trace/bpf_trace.c), so none is missed there and the figure is 0; before
// Linux 5.12 misses were not counted. What no kernel counts: hits in a process
// into which a breakpoint could not be put, for want of memory, when it mapped the
// file; and hits of code that is not mapped from the file (a copy, a memfd).
func (s *session) Stats() (runtime.Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := runtime.Stats{Missed: make(map[string]uint64)}
	if s.closed {
		return stats, errClosed
	}
	if m := s.coll.Maps[runtime.MapCounters]; m != nil {
		for i := range min(uint32(runtime.NumCounters), m.MaxEntries()) {
			n, err := perCPU{m}.Sum(i)
			if err != nil {
				return stats, err
			}
			stats.Counters[i] = n
		}
	}
	for name, p := range s.coll.Programs {
		info, err := p.Stats()
		if err != nil {
			return stats, fmt.Errorf("kernel runtime: program %s: %w", name, err)
		}
		if info.RecursionMisses > 0 {
			stats.Missed[name] = info.RecursionMisses
		}
	}
	if s.forks != nil {
		n, err := s.forks.lost()
		if err != nil {
			return stats, err
		}
		stats.Unfollowed = n
	}
	return stats, nil
}
