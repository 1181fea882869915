package session

import (
	"sort"

	"ferrotrace/internal/target"
)

// stacks finds stack mappings; it implements calls.Stacks.
type stacks struct {
	known map[uint32][]target.Mapping
}

func newStacks() *stacks { return &stacks{known: map[uint32][]target.Mapping{}} }

// Stack returns the mapping that addr is in. What a process has mapped is read again
// when an address is in none that is known.
func (s *stacks) Stack(pid uint32, addr uint64) (low, high uint64, ok bool) {
	if m, ok := find(s.known[pid], addr); ok {
		return m.Start, m.End, true
	}
	p, err := target.Open(int(pid))
	if err != nil {
		return 0, 0, false
	}
	defer p.Close()
	maps, err := p.Maps()
	if err != nil {
		return 0, 0, false
	}
	s.known[pid] = maps
	m, ok := find(maps, addr)
	return m.Start, m.End, ok
}

func find(maps []target.Mapping, addr uint64) (target.Mapping, bool) {
	i := sort.Search(len(maps), func(i int) bool { return maps[i].End > addr })
	if i == len(maps) || addr < maps[i].Start {
		return target.Mapping{}, false
	}
	return maps[i], true
}
