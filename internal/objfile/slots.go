package objfile

import "slices"

// SlotsOf lists the words, in the order of their addresses, that relocations make
// pointers to target.
func (f *File) SlotsOf(target uint64) []uint64 {
	f.takenOnce.Do(f.findTaken)
	var at []uint64
	for slot, s := range f.slots {
		if s.Target == target && s.Import == "" {
			at = append(at, slot)
		}
	}
	slices.Sort(at)
	return at
}
