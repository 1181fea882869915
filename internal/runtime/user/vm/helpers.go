package vm

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"

	"ferrotrace/internal/runtime/user/vm/insn"

	"golang.org/x/sys/unix"
)

type helper struct {
	call func(m *Machine, a [5]uint64) (uint64, error)
}

// helpers by their number. An error ends the program: it is what the verifier
// would have refused. What the kernel answers with an error number is a result.
var helpers map[int64]helper

func init() { // not an initialiser: callbacks lead back to the table
	helpers = map[int64]helper{
		insn.MapLookup:          {mapLookup},
		insn.MapLookupPerCPU:    {mapLookupPerCPU},
		insn.MapUpdate:          {mapUpdate},
		insn.MapDelete:          {mapDelete},
		insn.ProbeRead:          {read},
		insn.ProbeReadUser:      {read},
		insn.ProbeReadKernel:    {read},
		insn.CopyFromUser:       {read},
		insn.ProbeReadStr:       {readStr},
		insn.ProbeReadUserStr:   {readStr},
		insn.ProbeReadKernelStr: {readStr},
		insn.KtimeGetNs:         {clock(unix.CLOCK_MONOTONIC)},
		insn.KtimeGetBootNs:     {clock(unix.CLOCK_BOOTTIME)},
		insn.KtimeGetCoarseNs:   {clock(unix.CLOCK_MONOTONIC_COARSE)},
		insn.KtimeGetTaiNs:      {clock(unix.CLOCK_TAI)},
		insn.GetPrandomU32:      {prandom},
		insn.GetSmpProcessorID:  {func(*Machine, [5]uint64) (uint64, error) { return uint64(cpu()), nil }},
		insn.GetNumaNodeID:      {func(*Machine, [5]uint64) (uint64, error) { return uint64(node()), nil }},
		insn.GetCurrentCgroupID: {func(*Machine, [5]uint64) (uint64, error) { return cgroupID(), nil }},
		insn.GetCurrentPidTgid: {func(*Machine, [5]uint64) (uint64, error) {
			return uint64(os.Getpid())<<32 | uint64(unix.Gettid()), nil
		}},
		insn.GetNsPidTgid: {nsPidTgid},
		insn.GetCurrentUidGid: {func(*Machine, [5]uint64) (uint64, error) {
			return uint64(os.Getgid())<<32 | uint64(os.Getuid()), nil
		}},
		insn.GetCurrentComm:  {comm},
		insn.GetAttachCookie: {func(m *Machine, _ [5]uint64) (uint64, error) { return m.c.Cookie, nil }},
		insn.GetFuncIP:       {func(m *Machine, _ [5]uint64) (uint64, error) { return m.c.FuncIP, nil }},
		insn.RingbufOutput:   {ringOutput},
		insn.RingbufReserve:  {ringReserve},
		insn.RingbufSubmit:   {ringEnd(false)},
		insn.RingbufDiscard:  {ringEnd(true)},
		insn.RingbufQuery:    {ringQuery},
		insn.Loop:            {loop},
		insn.ForEachMapElem:  {forEach},
		insn.Strncmp:         {strncmp},
		insn.GetStack: {func(*Machine, [5]uint64) (uint64, error) {
			return errno(syscall.EFAULT), nil // the tracer is not what is traced
		}},
	}
}

func node() int {
	var n uint32
	if _, _, e := syscall.RawSyscall(unix.SYS_GETCPU, 0, address32(&n), 0); e != 0 {
		return 0
	}
	return int(n)
}

// cgroupID is the number of the process's cgroup in the unified hierarchy, which is that of
// the directory's inode; 0 if that is not to be found.
func cgroupID() uint64 {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			var fs unix.Statfs_t
			var st unix.Stat_t
			if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(root+path, &st) == nil {
				return st.Ino
			}
		}
	}
	return 0
}

func cpu() int {
	var n uint32
	if _, _, e := syscall.RawSyscall(unix.SYS_GETCPU, address32(&n), 0, 0); e != 0 {
		return 0
	}
	return int(n)
}

func (m *Machine) mapAt(handle uint64) (Map, error) {
	i := handle - mapHandle
	if i >= uint64(len(m.maps)) || m.maps[i] == nil {
		return nil, fmt.Errorf("%w: %#x is not such a map", ErrArgument, handle)
	}
	return m.maps[i], nil
}

func (m *Machine) ringAt(handle uint64) (Ring, error) {
	i := handle - mapHandle
	if i >= uint64(len(m.rings)) || m.rings[i] == nil {
		return nil, fmt.Errorf("%w: %#x is not a ring buffer", ErrArgument, handle)
	}
	return m.rings[i], nil
}

func (m *Machine) mapKey(a [5]uint64) (Map, []byte, error) {
	mp, err := m.mapAt(a[0])
	if err != nil {
		return nil, nil, err
	}
	key, err := m.mem.at(a[1], uint64(mp.KeySize()))
	return mp, key, err
}

func mapLookup(m *Machine, a [5]uint64) (uint64, error) {
	mp, key, err := m.mapKey(a)
	if err != nil {
		return 0, err
	}
	return m.value(mp, key, cpu()), nil
}

func mapLookupPerCPU(m *Machine, a [5]uint64) (uint64, error) {
	mp, key, err := m.mapKey(a)
	if err != nil {
		return 0, err
	}
	if a[2] > 1<<16 {
		return 0, nil
	}
	return m.value(mp, key, int(a[2])), nil
}

func (m *Machine) value(mp Map, key []byte, cpu int) uint64 {
	v := mp.Lookup(key, cpu)
	if v == nil {
		return 0
	}
	return m.mem.add(v)
}

func mapUpdate(m *Machine, a [5]uint64) (uint64, error) {
	mp, key, err := m.mapKey(a)
	if err != nil {
		return 0, err
	}
	v, err := m.mem.at(a[2], uint64(mp.ValueSize()))
	if err != nil {
		return 0, err
	}
	return errno(mp.Update(key, v, a[3], cpu())), nil
}

func mapDelete(m *Machine, a [5]uint64) (uint64, error) {
	mp, key, err := m.mapKey(a)
	if err != nil {
		return 0, err
	}
	return errno(mp.Delete(key)), nil
}

// read is bpf_probe_read and its like: what cannot be read leaves zeros.
func read(m *Machine, a [5]uint64) (uint64, error) {
	dst, err := m.mem.at(a[0], uint64(uint32(a[1])))
	if err != nil {
		return 0, err
	}
	src, err := m.mem.at(a[2], uint64(len(dst)))
	if err != nil {
		clear(dst)
		return errno(syscall.EFAULT), nil
	}
	copy(dst, src)
	return 0, nil
}

// readStr returns the length with the final zero byte, which it always writes.
func readStr(m *Machine, a [5]uint64) (uint64, error) {
	dst, err := m.mem.at(a[0], uint64(uint32(a[1])))
	if err != nil || len(dst) == 0 {
		return 0, err
	}
	for i := range dst {
		b, err := m.mem.at(a[2]+uint64(i), 1)
		if err != nil {
			clear(dst)
			return errno(syscall.EFAULT), nil
		}
		dst[i] = b[0]
		if b[0] == 0 {
			return uint64(i + 1), nil
		}
	}
	dst[len(dst)-1] = 0
	return uint64(len(dst)), nil
}

func clock(id int32) func(*Machine, [5]uint64) (uint64, error) {
	return func(*Machine, [5]uint64) (uint64, error) {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			return 0, err
		}
		return uint64(ts.Nano()), nil
	}
}

func prandom(m *Machine, _ [5]uint64) (uint64, error) {
	m.random ^= m.random << 13
	m.random ^= m.random >> 7
	m.random ^= m.random << 17
	return m.random >> 32, nil
}

// nsPidTgid fills struct bpf_pidns_info {pid, tgid}; the tracer is in its own
// namespace.
func nsPidTgid(m *Machine, a [5]uint64) (uint64, error) {
	b, err := m.mem.at(a[2], uint64(uint32(a[3])))
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		clear(b)
		return errno(syscall.EINVAL), nil
	}
	return 0, m.mem.store(a[2], 8, uint64(os.Getpid())<<32|uint64(unix.Gettid()))
}

func comm(m *Machine, a [5]uint64) (uint64, error) {
	dst, err := m.mem.at(a[0], uint64(uint32(a[1])))
	if err != nil || len(dst) == 0 {
		return errno(syscall.EINVAL), err
	}
	var name [16]byte
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(address(name[:])), 0, 0, 0); err != nil {
		clear(dst)
		return errno(err), nil
	}
	clear(dst)
	copy(dst[:len(dst)-1], bytes.TrimRight(name[:], "\x00"))
	return 0, nil
}

func ringOutput(m *Machine, a [5]uint64) (uint64, error) {
	ring, err := m.ringAt(a[0])
	if err != nil {
		return 0, err
	}
	data, err := m.mem.at(a[1], a[2])
	if err != nil {
		return 0, err
	}
	if a[3]&^3 != 0 {
		return errno(syscall.EINVAL), nil
	}
	dst := ring.Reserve(len(data), cpu())
	if dst == nil {
		return errno(syscall.EAGAIN), nil
	}
	copy(dst, data)
	ring.Commit(dst, false)
	return 0, nil
}

func ringReserve(m *Machine, a [5]uint64) (uint64, error) {
	ring, err := m.ringAt(a[0])
	if err != nil || a[2] != 0 || a[1] > 1<<30 {
		return 0, err
	}
	dst := ring.Reserve(int(a[1]), cpu())
	if dst == nil {
		return 0, nil
	}
	addr := m.mem.add(dst)
	m.samples[addr] = sample{ring, dst}
	return addr, nil
}

func ringEnd(discard bool) func(*Machine, [5]uint64) (uint64, error) {
	return func(m *Machine, a [5]uint64) (uint64, error) {
		s, ok := m.samples[a[0]]
		if !ok {
			return 0, fmt.Errorf("%w: %#x is not a reserved sample", ErrArgument, a[0])
		}
		delete(m.samples, a[0])
		m.mem.remove(s.bytes)
		s.ring.Commit(s.bytes, discard)
		return 0, nil
	}
}

func ringQuery(m *Machine, a [5]uint64) (uint64, error) {
	ring, err := m.ringAt(a[0])
	if err != nil {
		return 0, err
	}
	return ring.Query(a[1]), nil
}

// maxLoops is the kernel's BPF_MAX_LOOPS.
const maxLoops = 8 << 20

func (m *Machine) callback(handle uint64, args [5]uint64) (uint64, error) {
	for _, f := range m.p.Funcs {
		if uint64(f.Start) == handle-funcHandle {
			return m.call(f.Start, args)
		}
	}
	return 0, fmt.Errorf("%w: %#x is not a function", ErrArgument, handle)
}

func loop(m *Machine, a [5]uint64) (uint64, error) {
	if a[3] != 0 {
		return errno(syscall.EINVAL), nil
	}
	n := uint64(uint32(a[0]))
	if n > maxLoops {
		return errno(syscall.E2BIG), nil
	}
	for i := range n {
		r, err := m.callback(a[1], [5]uint64{i, a[2]})
		if err != nil {
			return 0, err
		}
		if r != 0 {
			return i + 1, nil
		}
	}
	return n, nil
}

func forEach(m *Machine, a [5]uint64) (uint64, error) {
	mp, err := m.mapAt(a[0])
	if err != nil {
		return 0, err
	}
	if a[3] != 0 {
		return errno(syscall.EINVAL), nil
	}
	var n uint64
	mp.Each(cpu(), func(key, value []byte) bool {
		var r uint64
		n++
		r, err = m.callback(a[1], [5]uint64{a[0], m.mem.add(key), m.mem.add(value), a[2]})
		return err == nil && r == 0
	})
	return n, err
}

func strncmp(m *Machine, a [5]uint64) (uint64, error) {
	for i := range uint64(uint32(a[1])) {
		x, err := m.mem.at(a[0]+i, 1)
		if err != nil {
			return 0, err
		}
		y, err := m.mem.at(a[2]+i, 1)
		if err != nil {
			return 0, err
		}
		if x[0] != y[0] || x[0] == 0 {
			if x[0] < y[0] {
				return ^uint64(0), nil
			}
			if x[0] > y[0] {
				return 1, nil
			}
			return 0, nil
		}
	}
	return 0, nil
}
