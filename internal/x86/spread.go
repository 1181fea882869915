package x86

// spread follows sets of registers along all paths of a function: at an instruction it has
// those of every path that leads there.
type spread struct {
	held []RegSet
	seen []bool
	work []int // what has been reached by more than when it was looked at
}

func (f *Func) spread(start int, set RegSet) *spread {
	s := &spread{held: make([]RegSet, len(f.Insts)), seen: make([]bool, len(f.Insts))}
	s.reach(start, set)
	return s
}

// reach says that a path comes to instruction i with the set.
func (s *spread) reach(i int, set RegSet) {
	if s.seen[i] && set&^s.held[i] == 0 {
		return
	}
	s.seen[i], s.held[i] = true, s.held[i]|set
	s.work = append(s.work, i)
}

// next is an instruction to look at, with the set that is known by now.
func (s *spread) next() (i int, set RegSet, ok bool) {
	n := len(s.work)
	if n == 0 {
		return 0, 0, false
	}
	i, s.work = s.work[n-1], s.work[:n-1]
	return i, s.held[i], true
}
