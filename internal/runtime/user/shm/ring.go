package shm

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"ferrotrace/internal/runtime/user/vm"
)

// Ring is a ring buffer: a ring for each CPU. Any number of producers, in any
// process, and one reader may use it at once.
type Ring struct {
	m  *Memory
	mp *Map
}

var _ vm.Ring = (*Ring)(nil)

// Ring returns a ring buffer by its name.
func (m *Memory) Ring(name string) (*Ring, bool) {
	mp, ok := m.Map(name)
	if !ok || !mp.IsRing() {
		return nil, false
	}
	return &Ring{m, mp}, true
}

// CPUs is how many rings there are.
func (r *Ring) CPUs() int { return r.m.CPUs }

func (r *Ring) header(cpu int) uint64 { return r.mp.Rings + uint64(cpu)*RingHeader }
func (r *Ring) data(cpu int) uint64   { return r.mp.Data + uint64(cpu)*r.mp.RingSize }

// Reserve makes room for n bytes in the ring of a CPU and returns them, or nil,
// which counts as one lost record.
func (r *Ring) Reserve(n, cpu int) []byte {
	cpu &= r.m.CPUs - 1
	head, tail := r.m.u64(r.header(cpu)+RingHead), r.m.u64(r.header(cpu)+RingTail)
	if n < 0 || uint64(n) > r.mp.MaxRecord {
		atomic.AddUint64(r.m.u64(r.header(cpu)+RingLost), 1)
		return nil
	}
	need := align(RingWord+uint64(n), 8)
	for {
		h := atomic.LoadUint64(head)
		at := h & (r.mp.RingSize - 1)
		pad := uint64(0)
		if at+need > r.mp.RingSize {
			pad = r.mp.RingSize - at
		}
		if h+pad+need-atomic.LoadUint64(tail) > r.mp.RingSize {
			atomic.AddUint64(r.m.u64(r.header(cpu)+RingLost), 1)
			return nil
		}
		if !atomic.CompareAndSwapUint64(head, h, h+pad+need) {
			continue
		}
		if pad != 0 {
			atomic.StoreUint64(r.m.u64(r.data(cpu)+at), RingPadding<<32|(pad-RingWord))
			at = 0
		}
		word := r.data(cpu) + at
		atomic.StoreUint64(r.m.u64(word), RingBusy<<32|uint64(n))
		word += RingWord
		// Of no capacity it would have no address either.
		return r.m.mem[word : word+uint64(n) : word+max(uint64(n), 1)]
	}
}

// Commit ends a reservation.
func (r *Ring) Commit(sample []byte, discard bool) {
	state := uint32(RingDone)
	if discard {
		state = RingDiscarded
	}
	p := unsafe.Pointer(unsafe.SliceData(sample))
	atomic.StoreUint32((*uint32)(unsafe.Add(p, -4)), state)
}

// Query answers bpf_ringbuf_query with the figures of the first CPU's ring, and
// the bytes that are available in all.
func (r *Ring) Query(what uint64) uint64 {
	const available, size, consumer, producer = 0, 1, 2, 3
	switch what {
	case available:
		var sum uint64
		for c := range r.m.CPUs {
			sum += atomic.LoadUint64(r.m.u64(r.header(c)+RingHead)) - atomic.LoadUint64(r.m.u64(r.header(c)+RingTail))
		}
		return sum
	case size:
		return r.mp.RingSize
	case consumer:
		return atomic.LoadUint64(r.m.u64(r.header(0) + RingTail))
	case producer:
		return atomic.LoadUint64(r.m.u64(r.header(0) + RingHead))
	}
	return 0
}

// Lost is the number of records that found no room.
func (r *Ring) Lost() uint64 {
	var sum uint64
	for c := range r.m.CPUs {
		sum += atomic.LoadUint64(r.m.u64(r.header(c) + RingLost))
	}
	return sum
}

// Read passes the committed records of all CPUs to f, each CPU's in their order,
// and returns how many there were. The bytes are valid only during the call. It
// stops before a record that is not committed: see Stuck. f's error ends it at
// once; the record counts as read.
func (r *Ring) Read(f func(record []byte) error) (int, error) {
	n := 0
	for c := range r.m.CPUs {
		k, err := r.read(c, f)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// batch is how many bytes are read before the tail is moved.
const batch = 64 << 10

func (r *Ring) read(cpu int, f func([]byte) error) (n int, err error) {
	var (
		head   = atomic.LoadUint64(r.m.u64(r.header(cpu) + RingHead))
		tail   = r.m.u64(r.header(cpu) + RingTail)
		start  = atomic.LoadUint64(tail)
		at     = start
		data   = r.data(cpu)
		record []byte
	)
	if head-at > r.mp.RingSize || at%8 != 0 || head%8 != 0 {
		return 0, r.reset(cpu, "head and tail")
	}
	for at != head && err == nil {
		pos := at & (r.mp.RingSize - 1)
		word := atomic.LoadUint64(r.m.u64(data + pos))
		state, length := uint32(word>>32), word&(1<<32-1)
		if state == 0 || state == RingBusy {
			break
		}
		need := align(RingWord+length, 8)
		if state > RingPadding || need > head-at || pos+need > r.mp.RingSize {
			return n, r.reset(cpu, "a record")
		}
		if state == RingDone {
			record = r.m.mem[data+pos+RingWord : data+pos+RingWord+length]
			n++
			err = f(record)
		}
		at += need
		if at-start >= batch {
			r.release(cpu, start, at)
			start = at
		}
	}
	r.release(cpu, start, at)
	return n, err
}

// release zeroes what has been read and gives it back to the producers.
func (r *Ring) release(cpu int, from, to uint64) {
	if from == to {
		return
	}
	data, size := r.data(cpu), r.mp.RingSize
	ring := r.m.mem[data : data+size]
	a, b := from&(size-1), to&(size-1)
	switch {
	case a < b:
		clear(ring[a:b])
	default:
		clear(ring[a:])
		clear(ring[:b])
	}
	atomic.StoreUint64(r.m.u64(r.header(cpu)+RingTail), to)
}

// First is where the rings' data begin in the memory, and how many bytes from there on
// are worth being in place before a program runs.
func (r *Ring) First() (offsets []uint64, size uint64) {
	const all, each = 8 << 20, 1 << 20
	for c := range r.m.CPUs {
		offsets = append(offsets, r.data(c))
	}
	return offsets, min(each, all/uint64(r.m.CPUs)&^4095, r.mp.RingSize)
}

// reset empties a ring that holds nonsense.
func (r *Ring) reset(cpu int, what string) error {
	head := atomic.LoadUint64(r.m.u64(r.header(cpu) + RingHead))
	data := r.data(cpu)
	clear(r.m.mem[data : data+r.mp.RingSize])
	atomic.StoreUint64(r.m.u64(r.header(cpu)+RingTail), head)
	return fmt.Errorf("%w: %s in the ring of CPU %d", ErrCorrupt, what, cpu)
}

// Stuck returns, by CPU, the positions at which Read waits for a producer to commit;
// -1 where it does not. A position that stays for long belongs to a thread that has
// died, or that does not get to run.
func (r *Ring) Stuck() []int64 {
	stuck := make([]int64, r.m.CPUs)
	for c := range stuck {
		stuck[c] = -1
		head, tail := atomic.LoadUint64(r.m.u64(r.header(c)+RingHead)), atomic.LoadUint64(r.m.u64(r.header(c)+RingTail))
		if head == tail || tail%8 != 0 {
			continue
		}
		word := atomic.LoadUint64(r.m.u64(r.data(c) + tail&(r.mp.RingSize-1)))
		if s := word >> 32; s == 0 || s == RingBusy {
			stuck[c] = int64(tail)
		}
	}
	return stuck
}

// Skip gives up the record at which the ring of a CPU is stuck, and reports whether
// there was one. The caller vouches that no thread is inside a program: a
// producer that still runs would write into memory which is no longer its own.
func (r *Ring) Skip(cpu int) bool {
	head := atomic.LoadUint64(r.m.u64(r.header(cpu) + RingHead))
	tail := atomic.LoadUint64(r.m.u64(r.header(cpu) + RingTail))
	if head == tail || head-tail > r.mp.RingSize || tail%8 != 0 {
		return false
	}
	data, size := r.data(cpu), r.mp.RingSize
	word := atomic.LoadUint64(r.m.u64(data + tail&(size-1)))
	to := tail
	switch state, length := word>>32, word&(1<<32-1); {
	case state == RingBusy:
		to += align(RingWord+length, 8)
		if to-tail > head-tail {
			to = head
		}
	case state == 0: // its length was never written: what follows it is the next word
		for to += 8; to != head && atomic.LoadUint64(r.m.u64(data+to&(size-1))) == 0; to += 8 {
		}
	default:
		return false
	}
	atomic.AddUint64(r.m.u64(r.header(cpu)+RingLost), 1)
	r.release(cpu, tail, to)
	return true
}
