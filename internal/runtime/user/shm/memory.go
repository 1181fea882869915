package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"ferrotrace/internal/runtime/user/vm"

	"github.com/cilium/ebpf"
)

// ErrCorrupt says that the shared memory does not hold what it should.
var ErrCorrupt = errors.New("shared memory is corrupt")

// Memory is the tracer's view of the shared memory.
type Memory struct {
	*Layout
	mem []byte
}

// Open gives access to mem, which must be as long as the layout says, begin at an
// address that is a multiple of 64, and outlive the Memory.
func Open(l *Layout, mem []byte) (*Memory, error) {
	if uint64(len(mem)) != l.Size {
		return nil, fmt.Errorf("%d bytes of shared memory, want %d", len(mem), l.Size)
	}
	if uintptr(unsafe.Pointer(&mem[0]))%64 != 0 {
		return nil, errors.New("shared memory is not aligned")
	}
	return &Memory{l, mem}, nil
}

// Init writes the header, the descriptors and the maps' first contents into memory
// that is all zero.
func (m *Memory) Init() error {
	binary.LittleEndian.PutUint64(m.mem[OffSize:], m.Size)
	binary.LittleEndian.PutUint64(m.mem[OffCPUs:], uint64(m.CPUs))
	binary.LittleEndian.PutUint32(m.mem[OffEpoch:], 1)
	for c := range m.CPUs {
		binary.LittleEndian.PutUint64(m.mem[OffSeeds+64*c:], uint64(c+1)*0xd1342543de82ef95)
	}
	for _, mp := range m.Maps {
		d := m.mem[mp.Desc:]
		binary.LittleEndian.PutUint32(d[DescType:], uint32(mp.Type))
		binary.LittleEndian.PutUint32(d[DescKey:], mp.KeySize)
		binary.LittleEndian.PutUint32(d[DescValue:], mp.ValueSize)
		binary.LittleEndian.PutUint32(d[DescMax:], mp.MaxEntries)
		if err := m.contents(mp); err != nil {
			return fmt.Errorf("map %s: %w", mp.Name, err)
		}
	}
	binary.LittleEndian.PutUint64(m.mem[OffMagic:], Magic)
	return nil
}

func (m *Memory) contents(mp *Map) error {
	view := m.view(mp)
	for _, kv := range mp.Contents {
		key, err := marshal(kv.Key, int(mp.KeySize))
		if err != nil {
			return err
		}
		value, err := marshal(kv.Value, int(mp.ValueSize))
		if err != nil {
			return err
		}
		cpus := 1
		if mp.PerCPU() {
			cpus = m.CPUs
		}
		for c := range cpus {
			if err := view.Update(key, value, 0, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// marshal encodes a key or value of a collection's spec.
func marshal(v any, size int) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		var err error
		if b, err = binary.Append(nil, binary.LittleEndian, v); err != nil {
			return nil, fmt.Errorf("initial contents: %w", err)
		}
	}
	if len(b) != size {
		return nil, fmt.Errorf("initial contents of %d bytes, want %d", len(b), size)
	}
	return b, nil
}

// Check verifies that memory which another tracer made is of this layout.
func (m *Memory) Check() error {
	if binary.LittleEndian.Uint64(m.mem[OffMagic:]) != Magic ||
		binary.LittleEndian.Uint64(m.mem[OffSize:]) != m.Size ||
		binary.LittleEndian.Uint64(m.mem[OffCPUs:]) != uint64(m.CPUs) {
		return ErrCorrupt
	}
	return nil
}

func (m *Memory) u64(off uint64) *uint64 { return (*uint64)(unsafe.Pointer(&m.mem[off])) }
func (m *Memory) u32(off uint64) *uint32 { return (*uint32)(unsafe.Pointer(&m.mem[off])) }

// ExpireComms makes programs ask the kernel again for the names of their threads.
func (m *Memory) ExpireComms() {
	for {
		old := atomic.LoadUint32(m.u32(OffEpoch))
		next := old + 1
		if next == 0 {
			next = 1
		}
		if atomic.CompareAndSwapUint32(m.u32(OffEpoch), old, next) {
			return
		}
	}
}

// View is a map as the tracer and the interpreter see it: vm.Map.
type View struct {
	m  *Memory
	mp *Map
}

var _ vm.Map = (*View)(nil)

func (m *Memory) view(mp *Map) *View { return &View{m, mp} }

// View returns an array or a hash by its name.
func (m *Memory) View(name string) (*View, bool) {
	mp, ok := m.Map(name)
	if !ok || mp.IsRing() {
		return nil, false
	}
	return m.view(mp), true
}

// VM returns the maps and rings for the interpreter.
func (m *Memory) VM() (map[string]vm.Map, map[string]vm.Ring) {
	maps, rings := make(map[string]vm.Map), make(map[string]vm.Ring)
	for _, mp := range m.Maps {
		if mp.IsRing() {
			rings[mp.Name] = &Ring{m: m, mp: mp}
		} else {
			maps[mp.Name] = m.view(mp)
		}
	}
	return maps, rings
}

// KeySize is the size of a key in bytes.
func (v *View) KeySize() int { return int(v.mp.KeySize) }

// ValueSize is the size of one CPU's value in bytes.
func (v *View) ValueSize() int { return int(v.mp.ValueSize) }

// CPUs is how many values a key has: 1 if the map is not per CPU.
func (v *View) CPUs() int {
	if v.mp.PerCPU() {
		return v.m.CPUs
	}
	return 1
}

// Failed is how many operations of programs were given up because another thread
// had not finished with the slot, Full how many found no room.
func (v *View) Failed() uint64 { return atomic.LoadUint64(v.m.u64(v.mp.Desc + DescFailed)) }
func (v *View) Full() uint64   { return atomic.LoadUint64(v.m.u64(v.mp.Desc + DescFull)) }

// value is the memory of the value of an index or slot.
func (v *View) value(i uint64, cpu int) []byte {
	at := v.mp.Values + i*v.mp.Stride
	if v.mp.PerCPU() {
		if cpu < 0 || cpu >= v.m.CPUs {
			return nil
		}
		at += uint64(cpu) * v.mp.CPUStride
	}
	return v.m.mem[at : at+uint64(v.mp.ValueSize) : at+uint64(v.mp.ValueSize)]
}

// Flags of Update.
const (
	anyElement = 0
	noExist    = 1
	exist      = 2
)

// Lookup returns the memory of a value, which programs may change at any time, or
// nil.
func (v *View) Lookup(key []byte, cpu int) []byte {
	if len(key) != int(v.mp.KeySize) {
		return nil
	}
	if v.mp.IsArray() {
		i := binary.LittleEndian.Uint32(key)
		if i >= v.mp.MaxEntries {
			return nil
		}
		return v.value(uint64(i), cpu)
	}
	slot, ok := v.find(key)
	if !ok {
		return nil
	}
	return v.value(slot, cpu)
}

// Update copies a value. Errors are syscall.Errno as the kernel's.
func (v *View) Update(key, value []byte, flags uint64, cpu int) error {
	if len(key) != int(v.mp.KeySize) || len(value) != int(v.mp.ValueSize) || flags > exist {
		return syscall.EINVAL
	}
	if v.mp.IsHash() {
		return v.insert(key, value, flags, cpu)
	}
	dst := v.Lookup(key, cpu)
	switch {
	case dst == nil:
		return syscall.E2BIG
	case flags == noExist:
		return syscall.EEXIST
	}
	copy(dst, value)
	return nil
}

// Delete removes an element.
func (v *View) Delete(key []byte) error {
	if v.mp.IsArray() || len(key) != int(v.mp.KeySize) {
		return syscall.EINVAL
	}
	return v.remove(key)
}

// Each passes every element until f returns false.
func (v *View) Each(cpu int, f func(key, value []byte) bool) {
	if v.mp.IsArray() {
		key := make([]byte, 4)
		for i := range v.mp.MaxEntries {
			binary.LittleEndian.PutUint32(key, i)
			if !f(key, v.value(uint64(i), cpu)) {
				return
			}
		}
		return
	}
	v.each(func(slot uint64) bool { return f(v.key(slot), v.value(slot, cpu)) })
}

// Sum adds up the u64 at index i of an array over the CPUs.
func (v *View) Sum(i uint32) (uint64, error) {
	if !v.mp.IsArray() || v.mp.ValueSize != 8 || i >= v.mp.MaxEntries {
		return 0, fmt.Errorf("map %s has no u64 at index %d", v.mp.Name, i)
	}
	var sum uint64
	for c := range v.CPUs() {
		at := v.mp.Values + uint64(i)*v.mp.Stride + uint64(c)*v.mp.CPUStride
		sum += atomic.LoadUint64(v.m.u64(at))
	}
	return sum, nil
}

// Type is the map's type.
func (v *View) Type() ebpf.MapType { return v.mp.Type }
