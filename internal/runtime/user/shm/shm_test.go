package shm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func newMemory(t testing.TB, cpus int, maps map[string]*ebpf.MapSpec) *Memory {
	t.Helper()
	l, err := NewLayout(maps, cpus)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(-1, 0, int(l.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	m, err := Open(l, mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(); err != nil {
		t.Fatal(err)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return m
}

func key(i int) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(i)) }

func TestHash(t *testing.T) {
	const entries = 1000
	m := newMemory(t, 2, map[string]*ebpf.MapSpec{"h": {Type: ebpf.Hash, KeySize: 8, ValueSize: 5, MaxEntries: entries}})
	v, _ := m.View("h")
	value := func(i int) []byte { return []byte(fmt.Sprintf("%05d", i)) }
	for i := range entries {
		if err := v.Update(key(i), value(i), noExist, 0); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := v.Update(key(-1), value(0), 0, 0); err != syscall.E2BIG {
		t.Error("beyond its size:", err)
	}
	if err := v.Update(key(5), value(0), noExist, 0); err != syscall.EEXIST {
		t.Error("there already:", err)
	}
	if err := v.Update(key(-5), value(0), exist, 0); err != syscall.ENOENT {
		t.Error("not there:", err)
	}
	if v.Len() != entries || v.Full() != 1 {
		t.Error(v.Len(), v.Full())
	}
	for i := range entries {
		if got := v.Lookup(key(i), 0); !bytes.Equal(got, value(i)) {
			t.Fatal(i, got)
		}
		if err := v.Delete(key(i)); err != nil {
			t.Fatal(i, err)
		}
		if v.Lookup(key(i), 0) != nil || v.Delete(key(i)) != syscall.ENOENT {
			t.Fatal(i, "still there")
		}
	}
	// What was deleted leaves room, however often.
	for i := range 20 * entries {
		if err := v.Update(key(i), value(i%1e5), 0, 0); err != nil {
			t.Fatal(i, err)
		}
		if err := v.Delete(key(i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if v.Len() != 0 {
		t.Error(v.Len())
	}
}

func TestHashOfDeadThread(t *testing.T) {
	m := newMemory(t, 1, map[string]*ebpf.MapSpec{"h": {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 10}})
	v, _ := m.View("h")
	h := hash(key(1))
	*v.tag(h & v.mp.Mask * BucketSlots) = h&^0xff | TagBusy
	if err := v.Update(key(1), key(1), 0, 0); err != syscall.EBUSY || v.Failed() != 1 {
		t.Error(err, v.Failed())
	}
	if err := v.Update(key(2), key(2), 0, 0); err != nil {
		t.Error(err)
	}
}

// TestHashConcurrent has many goroutines insert and delete the same keys: no key is
// there twice.
func TestHashConcurrent(t *testing.T) {
	m := newMemory(t, 1, map[string]*ebpf.MapSpec{"h": {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 64}})
	v, _ := m.View("h")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 3000 {
				k := key((i*7 + g) % 32)
				if (i+g)%3 == 0 {
					v.Delete(k)
				} else if err := v.Update(k, k, 0, 0); err != nil && !errors.Is(err, syscall.EBUSY) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	v.Each(0, func(k, value []byte) bool {
		if seen[string(k)] || !bytes.Equal(k, value) {
			t.Errorf("key % x is there twice, or has the wrong value % x", k, value)
		}
		seen[string(k)] = true
		return true
	})
	if n := *m.u64(v.mp.Desc + DescCount); int(n) != v.Len() {
		t.Errorf("counted %d elements, there are %d", n, v.Len())
	}
}

func TestPerCPU(t *testing.T) {
	m := newMemory(t, 3, map[string]*ebpf.MapSpec{
		"a": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 5, Contents: []ebpf.MapKV{{Key: uint32(1), Value: uint64(7)}}},
		"h": {Type: ebpf.PerCPUHash, KeySize: 3, ValueSize: 8, MaxEntries: 5},
	})
	a, _ := m.View("a")
	if sum, err := a.Sum(1); err != nil || sum != 4*7 { // four is the power of two
		t.Error(sum, err)
	}
	if a.Lookup([]byte{5, 0, 0, 0}, 0) != nil || a.Lookup([]byte{4, 0, 0, 0}, 3) == nil || a.Lookup([]byte{4, 0, 0, 0}, 4) != nil {
		t.Error("bounds")
	}
	h, _ := m.View("h")
	if err := h.Update([]byte("abc"), key(9), 0, 2); err != nil {
		t.Fatal(err)
	}
	for c, want := range []int{0, 0, 9, 0} {
		if got := h.Lookup([]byte("abc"), c); !bytes.Equal(got, key(want)) {
			t.Errorf("CPU %d: % x", c, got)
		}
	}
}

func TestRing(t *testing.T) {
	m := newMemory(t, 2, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 4096}})
	r, _ := m.Ring("r")
	var want, got []string
	for i := range 20_000 { // several times around
		s := bytes.Repeat([]byte{byte(i)}, i%1000)
		b := r.Reserve(len(s), i)
		if b == nil {
			t.Fatal("no room")
		}
		copy(b, s)
		r.Commit(b, i%10 == 0)
		if i%10 != 0 {
			want = append(want, string(s))
		}
		if i%64 == 63 {
			if _, err := r.Read(func(b []byte) error { got = append(got, string(b)); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.Read(func(b []byte) error { got = append(got, string(b)); return nil })
	if len(got) != len(want) || r.Lost() != 0 {
		t.Fatal(len(got), len(want), r.Lost())
	}
	count := make(map[string]int)
	for i := range got {
		count[got[i]]++
		count[want[i]]--
	}
	for s, n := range count {
		if n != 0 {
			t.Fatalf("%d records of %d bytes too many", n, len(s))
		}
	}
	// Until it is full, exactly.
	n := 0
	for r.Reserve(1000, 0) != nil {
		n++
	}
	if r.Lost() != 1 || n < 250 {
		t.Error(n, r.Lost())
	}
}

func TestRingOfDeadThread(t *testing.T) {
	for name, die := range map[string]func(r *Ring, b []byte){
		"before commit": func(*Ring, []byte) {},
		"before the length": func(r *Ring, b []byte) {
			*r.m.u64(r.data(0)) = 0
		},
	} {
		m := newMemory(t, 1, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 4096}})
		r, _ := m.Ring("r")
		die(r, r.Reserve(100, 0))
		b := r.Reserve(3, 0)
		copy(b, "abc")
		r.Commit(b, false)
		var got []string
		read := func(b []byte) error { got = append(got, string(b)); return nil }
		r.Read(read)
		if len(got) != 0 || r.Stuck()[0] != 0 {
			t.Errorf("%s: read %q, stuck at %d", name, got, r.Stuck())
		}
		if !r.Skip(0) || r.Skip(0) {
			t.Errorf("%s: skipped nothing, or twice", name)
		}
		r.Read(read)
		if len(got) != 1 || got[0] != "abc" || r.Lost() != 1 || r.Stuck()[0] != -1 {
			t.Errorf("%s: read %q, lost %d", name, got, r.Lost())
		}
	}
}

func FuzzRing(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint64(8), uint64(0))
	f.Fuzz(func(t *testing.T, garbage []byte, head, tail uint64) {
		m := newMemory(t, 1, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 4096}})
		r, _ := m.Ring("r")
		*m.u64(r.header(0) + RingHead), *m.u64(r.header(0) + RingTail) = head, tail
		copy(m.mem[r.data(0):r.data(0)+r.mp.RingSize], garbage)
		for range 3 {
			r.Stuck()
			r.Read(func([]byte) error { return nil })
			r.Skip(0)
			r.Reserve(10, 0)
		}
	})
}

func TestRefusesMaps(t *testing.T) {
	for name, s := range map[string]*ebpf.MapSpec{
		"type":  {Type: ebpf.LRUHash, KeySize: 4, ValueSize: 4, MaxEntries: 1},
		"flags": {Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: 1 << 20},
		"key":   {Type: ebpf.Array, KeySize: 8, ValueSize: 4, MaxEntries: 1},
		"value": {Type: ebpf.Hash, KeySize: 8, ValueSize: 1 << 30, MaxEntries: 1},
		"many":  {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1 << 31},
		"large": {Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 20, MaxEntries: 1 << 31},
	} {
		if _, err := NewLayout(map[string]*ebpf.MapSpec{"m": s}, 2); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClock(t *testing.T) {
	m := newMemory(t, 1, nil)
	c := NewCalibrator()
	if !c.usable {
		t.Skip("no invariant time-stamp counter")
	}
	last := uint64(0)
	for range 20 {
		c.Publish(m)
		for range 5 {
			s := takeSample()
			got := c.clock.At(s.tsc)
			if d := int64(got - s.ns); d > 50_000 || d < -50_000 {
				t.Errorf("%d ns off", d)
			}
			if got < last {
				t.Errorf("time goes back by %d", last-got)
			}
			last = got
			time.Sleep(time.Millisecond)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	m := newMemory(b, 1, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 1 << 20}})
	r, _ := m.Ring("r")
	n := 0
	for b.Loop() {
		b.StopTimer()
		for {
			s := r.Reserve(72, 0)
			if s == nil {
				break
			}
			r.Commit(s, false)
			n++
		}
		b.StartTimer()
		r.Read(func([]byte) error { return nil })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
}
