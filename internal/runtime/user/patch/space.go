package patch

import (
	"sort"

	"ferrotrace/internal/x86"
)

// Allocator gives memory for trampolines.
type Allocator interface {
	// Alloc takes size bytes at an address in [low, high], as near to the middle as
	// is reasonable.
	Alloc(size int, low, high uint64) (addr uint64, ok bool)
}

// Space is an Allocator of the free addresses of a process. It maps nothing: Pages
// says what has to be.
type Space struct {
	free    []x86.Range // sorted, with gaps between them
	touched map[uint64]struct{}
}

const (
	pageSize = 4096
	// narrow is the size of a window in which memory is taken from pages that are in
	// use already, rather than as near as can be: that of a pun with one fixed byte.
	narrow = 1 << 24
	// smallest is a fragment that is worth keeping, in bytes.
	smallest = 16
)

// NewSpace returns the allocator of some unmapped addresses, whose ends are multiples
// of the page size, in order and not overlapping.
func NewSpace(free []x86.Range) *Space {
	return &Space{free: append([]x86.Range(nil), free...), touched: map[uint64]struct{}{}}
}

// Alloc implements Allocator.
func (s *Space) Alloc(size int, low, high uint64) (uint64, bool) {
	n := uint64(size)
	mid := low + (high-low)/2
	i, ok := 0, false
	if high-low <= narrow {
		i, ok = s.findUsed(n, low, high)
	}
	if !ok {
		i, ok = s.findNear(n, low, high, mid)
	}
	if !ok {
		return 0, false
	}
	r := s.free[i]
	first, last, _ := fit(r, n, low, high)
	var addr uint64
	switch {
	case mid <= first || r.Low%pageSize != 0:
		if addr = first; (first+15)&^15 <= last {
			addr = (first + 15) &^ 15
		}
	case mid >= last || r.High%pageSize != 0:
		if addr = last; last&^15 >= first {
			addr = last &^ 15
		}
	default:
		if addr = mid; mid&^15 >= first {
			addr = mid &^ 15
		}
	}
	s.take(i, x86.Range{Low: addr, High: addr + n})
	return addr, true
}

// fit returns the addresses of [low, high] at which n bytes lie in r.
func fit(r x86.Range, n, low, high uint64) (first, last uint64, ok bool) {
	if r.High-r.Low < n {
		return 0, 0, false
	}
	first, last = max(r.Low, low), min(r.High-n, high)
	return first, last, first <= last
}

// findUsed finds a range that begins or ends inside a page.
func (s *Space) findUsed(n, low, high uint64) (int, bool) {
	i := sort.Search(len(s.free), func(i int) bool { return s.free[i].High > low })
	for ; i < len(s.free) && s.free[i].Low <= high; i++ {
		r := s.free[i]
		first, last, ok := fit(r, n, low, high)
		if ok && (r.Low%pageSize != 0 && first-r.Low < pageSize || r.High%pageSize != 0 && r.High-last-n < pageSize) {
			return i, true
		}
	}
	return 0, false
}

// findNear finds the range with the address next to mid.
func (s *Space) findNear(n, low, high, mid uint64) (int, bool) {
	above := sort.Search(len(s.free), func(i int) bool { return s.free[i].High > mid })
	below := above - 1
	for above < len(s.free) && s.free[above].Low <= high {
		if _, _, ok := fit(s.free[above], n, low, high); ok {
			break
		}
		above++
	}
	for below >= 0 && s.free[below].High > low {
		if _, _, ok := fit(s.free[below], n, low, high); ok {
			break
		}
		below--
	}
	up := above < len(s.free) && s.free[above].Low <= high
	down := below >= 0 && s.free[below].High > low
	if up && down {
		first, _, _ := fit(s.free[above], n, low, high)
		_, last, _ := fit(s.free[below], n, low, high)
		if first > mid && first-mid > mid-last {
			up = false
		}
	}
	if up {
		return above, true
	}
	return below, down
}

// take removes r, a part of free range i.
func (s *Space) take(i int, r x86.Range) {
	for a := r.Low &^ (pageSize - 1); a < r.High; a += pageSize {
		s.touched[a] = struct{}{}
	}
	old := s.free[i]
	var left []x86.Range
	if r.Low-old.Low >= smallest {
		left = append(left, x86.Range{Low: old.Low, High: r.Low})
	}
	if old.High-r.High >= smallest {
		left = append(left, x86.Range{Low: r.High, High: old.High})
	}
	switch len(left) {
	case 0:
		s.free = append(s.free[:i], s.free[i+1:]...)
	case 1:
		s.free[i] = left[0]
	case 2:
		s.free = append(s.free, x86.Range{})
		copy(s.free[i+2:], s.free[i+1:])
		s.free[i], s.free[i+1] = left[0], left[1]
	}
}

// Pages returns the pages in which memory has been taken, in order, neighbours
// joined.
func (s *Space) Pages() []x86.Range {
	addrs := make([]uint64, 0, len(s.touched))
	for a := range s.touched {
		addrs = append(addrs, a)
	}
	sort.Slice(addrs, func(i, j int) bool { return addrs[i] < addrs[j] })
	var pages []x86.Range
	for _, a := range addrs {
		if n := len(pages); n > 0 && pages[n-1].High == a {
			pages[n-1].High += pageSize
		} else {
			pages = append(pages, x86.Range{Low: a, High: a + pageSize})
		}
	}
	return pages
}
