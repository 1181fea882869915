package vm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"ferrotrace/internal/runtime/user/vm/insn"
)

// address is where the bytes are. Go's collector does not move what it allocated on
// the heap, and mapped memory stays where it is.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// memory is what a program may access: regions by address. It holds references to
// them, so that none is freed under the program.
type memory struct {
	regions []region // by base; they may overlap only if one contains the other
	last    int      // the region found last
}

type region struct {
	base  uint64
	bytes []byte
}

func (m *memory) reset() {
	clear(m.regions)
	m.regions, m.last = m.regions[:0], 0
}

// add makes bytes accessible and returns their address.
func (m *memory) add(b []byte) uint64 {
	base := address(b)
	if len(b) == 0 {
		return base
	}
	i, found := slices.BinarySearchFunc(m.regions, base, func(r region, a uint64) int {
		switch {
		case r.base < a:
			return -1
		case r.base > a:
			return 1
		}
		return 0
	})
	if found {
		if len(b) > len(m.regions[i].bytes) {
			m.regions[i].bytes = b
		}
		return base
	}
	m.regions = slices.Insert(m.regions, i, region{base, b})
	return base
}

// remove makes what add(b) made accessible inaccessible.
func (m *memory) remove(b []byte) {
	base := address(b)
	m.regions = slices.DeleteFunc(m.regions, func(r region) bool { return r.base == base })
	m.last = 0
}

// at returns the n bytes at addr.
func (m *memory) at(addr uint64, n uint64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if m.last < len(m.regions) {
		if b := m.regions[m.last].slice(addr, n); b != nil {
			return b, nil
		}
	}
	lo, hi := 0, len(m.regions)
	for lo < hi {
		if mid := (lo + hi) / 2; m.regions[mid].base <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo > 0 {
		if b := m.regions[lo-1].slice(addr, n); b != nil {
			m.last = lo - 1
			return b, nil
		}
	}
	return nil, fmt.Errorf("%w: %d bytes at %#x", ErrMemory, n, addr)
}

func (r *region) slice(addr, n uint64) []byte {
	off := addr - r.base
	if size := uint64(len(r.bytes)); off >= size || n > size-off {
		return nil
	}
	return r.bytes[off : off+n : off+n]
}

func (m *memory) load(addr uint64, size uint8) (uint64, error) {
	b, err := m.at(addr, uint64(size))
	if err != nil {
		return 0, err
	}
	switch size {
	case 1:
		return uint64(b[0]), nil
	case 2:
		return uint64(binary.LittleEndian.Uint16(b)), nil
	case 4:
		return uint64(binary.LittleEndian.Uint32(b)), nil
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (m *memory) store(addr uint64, size uint8, v uint64) error {
	b, err := m.at(addr, uint64(size))
	if err != nil {
		return err
	}
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
	return nil
}

// atomic runs an atomic instruction, which other processes may do to the same
// memory at the same time. It must be aligned, as the verifier demands.
func (m *Machine) atomic(in *insn.Insn, r *[11]uint64) error {
	addr := r[in.Dst] + uint64(in.Off)
	b, err := m.mem.at(addr, uint64(in.Bytes))
	if err != nil {
		return err
	}
	if addr%uint64(in.Bytes) != 0 {
		return fmt.Errorf("%w: atomic operation on misaligned %#x", ErrMemory, addr)
	}
	var old uint64
	if in.Bytes == 8 {
		old = atomically((*uint64)(unsafe.Pointer(&b[0])), in.Op, r[0], r[in.Src], atomic.CompareAndSwapUint64, atomic.LoadUint64)
	} else {
		old = uint64(atomically((*uint32)(unsafe.Pointer(&b[0])), in.Op, uint32(r[0]), uint32(r[in.Src]), atomic.CompareAndSwapUint32, atomic.LoadUint32))
	}
	switch {
	case in.Op == insn.CmpXchg:
		r[0] = old
	case in.Fetch:
		r[in.Src] = old
	}
	return nil
}

func atomically[T uint32 | uint64](p *T, op insn.Op, expect, src T, cas func(*T, T, T) bool, load func(*T) T) T {
	for {
		old := load(p)
		next := src // Xchg
		switch op {
		case insn.AtomicAdd:
			next = old + src
		case insn.AtomicOr:
			next = old | src
		case insn.AtomicAnd:
			next = old & src
		case insn.AtomicXor:
			next = old ^ src
		case insn.CmpXchg:
			if old != expect {
				return old
			}
		}
		if cas(p, old, next) {
			return old
		}
	}
}

func address32(p *uint32) uintptr { return uintptr(unsafe.Pointer(p)) }
