package session

import (
	"sort"

	"ferrotrace/internal/target"
)

// stacks knows what processes have mapped; it implements calls.Stacks.
type stacks struct {
	known map[uint32][]target.Mapping
}

// newStacks begins with what processes have mapped now: one that ends soon can't be asked
// by the time that its records are read.
func newStacks(procs []*target.Process) *stacks {
	s := &stacks{known: map[uint32][]target.Mapping{}}
	for _, p := range procs {
		if maps, err := p.Maps(); err == nil {
			s.known[uint32(p.PID)] = maps
		}
	}
	return s
}

// Stack returns the bounds of the mapping that addr is in.
func (s *stacks) Stack(pid uint32, addr uint64) (low, high uint64, ok bool) {
	m, ok := s.mapping(pid, addr)
	return m.Start, m.End, ok
}

// mapping finds the mapping that addr is in. What a process has mapped is read again
// when an address is in none that is known.
func (s *stacks) mapping(pid uint32, addr uint64) (target.Mapping, bool) {
	if m, ok := find(s.known[pid], addr); ok {
		return m, true
	}
	p, err := target.Open(int(pid))
	if err != nil {
		return target.Mapping{}, false
	}
	defer p.Close()
	maps, err := p.Maps()
	if err != nil {
		return target.Mapping{}, false
	}
	s.known[pid] = maps
	return find(maps, addr)
}

func find(maps []target.Mapping, addr uint64) (target.Mapping, bool) {
	i := sort.Search(len(maps), func(i int) bool { return maps[i].End > addr })
	if i == len(maps) || addr < maps[i].Start {
		return target.Mapping{}, false
	}
	return maps[i], true
}
