package kernel

import (
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
	if err := m.Lookup(i, &values); err != nil {
		return 0, fmt.Errorf("kernel runtime: element %d of %s: %w", i, m.Map, err)
	}
	for _, v := range values {
		sum += v
	}
	return sum, nil
}

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
