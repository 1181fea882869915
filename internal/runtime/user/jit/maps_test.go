package jit_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm"
	"ferrotrace/internal/runtime/user/vm/insn"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

func newShared(t testing.TB, cpus int, maps map[string]*ebpf.MapSpec) (*shm.Memory, []byte) {
	t.Helper()
	l, err := shm.NewLayout(maps, cpus)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(-1, 0, int(l.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	m, err := shm.Open(l, mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(); err != nil {
		t.Fatal(err)
	}
	return m, mem
}

func program(t testing.TB, name string, insns asm.Instructions) *insn.Program {
	t.Helper()
	p, err := insn.FromInstructions(insns)
	if err != nil {
		t.Fatal(err)
	}
	p.Name = name
	return p
}

const possibleCPUs = 64 // more than this machine has

const keyRoom = 264

// mapPrograms act on a map with the context {key [264]byte, flags u64, value …}.
// Lookup copies what it finds to the value and returns 1, or 0.
func mapPrograms(t testing.TB, m *ebpf.MapSpec, indirect bool) []*insn.Program {
	const flags, value = keyRoom, keyRoom + 8
	loadMap := asm.Instructions{asm.LoadMapPtr(asm.R1, 0).WithReference("m")}
	if indirect { // so that the compiler does not see which map it is
		loadMap = asm.Instructions{
			asm.LoadMapPtr(asm.R1, 0).WithReference("m"),
			asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
			asm.LoadMem(asm.R1, asm.RFP, -8, asm.DWord),
		}
	}
	build := func(name string, parts ...asm.Instructions) *insn.Program {
		all := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
		for _, p := range parts {
			all = append(all, p...)
		}
		return program(t, name, append(all, asm.Return()))
	}
	key := asm.Instructions{asm.Mov.Reg(asm.R2, asm.R6)}
	found := asm.Instructions{
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R3, asm.R0),
		asm.Mov.Imm(asm.R2, int32(m.ValueSize)),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Add.Imm(asm.R1, value),
		asm.FnProbeReadKernel.Call(),
		asm.Mov.Imm(asm.R0, 1),
		asm.Mov.Reg(asm.R0, asm.R0).WithSymbol("out"),
	}
	return []*insn.Program{
		build("lookup", loadMap, key, asm.Instructions{asm.FnMapLookupElem.Call()}, found),
		build("update", loadMap, key, asm.Instructions{
			asm.Mov.Reg(asm.R3, asm.R6),
			asm.Add.Imm(asm.R3, value),
			asm.LoadMem(asm.R4, asm.R6, flags, asm.DWord),
			asm.FnMapUpdateElem.Call(),
		}),
		build("delete", loadMap, key, asm.Instructions{asm.FnMapDeleteElem.Call()}),
		// Adds up what the callback sees, order aside.
		build("each", loadMap, asm.Instructions{
			asm.StoreImm(asm.RFP, -16, 0, asm.Word),
			asm.StoreImm(asm.RFP, -12, 0, asm.Word),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("see"),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -16),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnForEachMapElem.Call(),
			asm.LoadMem(asm.R1, asm.RFP, -16, asm.DWord),
			asm.LSh.Imm(asm.R0, 48),
			asm.Add.Reg(asm.R0, asm.R1),
			asm.Return(),
			asm.LoadMem(asm.R2, asm.R2, 0, asm.Byte).WithSymbol("see"),
			asm.LoadMem(asm.R3, asm.R3, 0, asm.Byte),
			asm.Mul.Reg(asm.R3, asm.R3),
			asm.LoadMem(asm.R1, asm.R4, 0, asm.DWord),
			asm.Add.Reg(asm.R1, asm.R2),
			asm.Add.Reg(asm.R1, asm.R3),
			asm.StoreMem(asm.R4, 0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
		}),
	}
}

// TestMapsAgainstInterpreter does the same random operations by the JIT on one
// memory and by the interpreter on another.
func TestMapsAgainstInterpreter(t *testing.T) {
	specs := map[string]*ebpf.MapSpec{
		"array":         {Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 11},
		"large array":   {Type: ebpf.Array, KeySize: 4, ValueSize: 5003, MaxEntries: 3},
		"one":           {Type: ebpf.Array, KeySize: 4, ValueSize: 3, MaxEntries: 1},
		"per-CPU array": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 16},
		"hash 8":        {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 20},
		"hash 4":        {Type: ebpf.Hash, KeySize: 4, ValueSize: 1, MaxEntries: 60},
		"hash 13":       {Type: ebpf.Hash, KeySize: 13, ValueSize: 40, MaxEntries: 7},
		"hash 64":       {Type: ebpf.Hash, KeySize: 64, ValueSize: 333, MaxEntries: 30},
		"hash 107":      {Type: ebpf.Hash, KeySize: 107, ValueSize: 8, MaxEntries: 30},
		"hash 264":      {Type: ebpf.PerCPUHash, KeySize: 264, ValueSize: 8, MaxEntries: 30},
		"hash 7":        {Type: ebpf.Hash, KeySize: 7, ValueSize: 16, MaxEntries: 1},
		"per-CPU hash":  {Type: ebpf.PerCPUHash, KeySize: 16, ValueSize: 20, MaxEntries: 20},
	}
	for name, spec := range specs {
		for _, indirect := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", name, indirect), func(t *testing.T) {
				maps := map[string]*ebpf.MapSpec{"m": spec, "other": {Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 4}}
				ours, mem := newShared(t, possibleCPUs, maps)
				theirs, _ := newShared(t, possibleCPUs, maps)
				progs := mapPrograms(t, spec, indirect)
				m := load(t, options(ours.Layout), mem, progs...)
				binary.LittleEndian.PutUint32(m.process[shm.ProcDirect:], 1)
				vmMaps, vmRings := theirs.VM()
				machines := make(map[string]*vm.Machine)
				for _, p := range progs {
					var err error
					if machines[p.Name], err = vm.New(p, vm.Config{Maps: vmMaps, Rings: vmRings}); err != nil {
						t.Fatal(err)
					}
				}
				r := rand.New(rand.NewPCG(1, 2))
				for i := range 4000 {
					ctx := make([]byte, keyRoom+8+spec.ValueSize)
					k := r.IntN(int(spec.MaxEntries)*3/2 + 1)
					if spec.KeySize == 4 {
						binary.LittleEndian.PutUint32(ctx, uint32(k))
					} else {
						for j := range spec.KeySize {
							ctx[j] = byte(k * int(j+1))
						}
					}
					if r.IntN(3) == 0 {
						ctx[keyRoom] = byte(r.IntN(5))
					}
					for j := range spec.ValueSize {
						ctx[keyRoom+8+j] = byte(r.Uint32())
					}
					op := progs[r.IntN(len(progs))].Name
					if op == "each" && spec.Type == ebpf.PerCPUArray {
						op = "lookup"
					}
					other := bytes.Clone(ctx)
					// Both on one CPU, or values per CPU would differ.
					got, want := onCPU(t, func() uint64 { return m.run(op, ctx) }, func() uint64 {
						want, err := machines[op].Run(other)
						if err != nil {
							t.Fatal(err)
						}
						return want
					})
					if got != want || !bytes.Equal(ctx, other) {
						t.Fatalf("%d: %s of %d: %d, the interpreter says %d", i, op, k, int64(got), int64(want))
					}
				}
			})
		}
	}
}

// TestHashConcurrent has threads of compiled code and of Go insert and delete the
// same keys.
func TestHashConcurrent(t *testing.T) {
	spec := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 64}
	memory, mem := newShared(t, possibleCPUs, map[string]*ebpf.MapSpec{"m": spec})
	view, _ := memory.View("m")
	progs := mapPrograms(t, spec, false)
	var wg sync.WaitGroup
	var failed atomic.Uint64
	for g := range 4 {
		m := load(t, options(memory.Layout), mem, progs...)
		wg.Go(func() {
			ctx := make([]byte, keyRoom+16)
			for i := range 20_000 {
				k := uint64((i*7 + g) % 32)
				binary.LittleEndian.PutUint64(ctx, k)
				binary.LittleEndian.PutUint64(ctx[keyRoom+8:], k)
				if (i+g)%3 == 0 {
					m.run("delete", ctx)
				} else if r := m.run("update", ctx); r != 0 {
					if int64(r) != -int64(unix.EBUSY) {
						t.Errorf("update: %d", int64(r))
					}
					failed.Add(1)
				}
			}
		})
	}
	for g := range 2 {
		wg.Go(func() {
			for i := range 20_000 {
				k := binary.LittleEndian.AppendUint64(nil, uint64((i*5+g)%32))
				if (i+g)%3 == 0 {
					view.Delete(k)
				} else if view.Update(k, k, 0, 0) != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if view.Failed() != failed.Load() {
		t.Errorf("%d operations failed, %d are counted", failed.Load(), view.Failed())
	}
	seen := make(map[string]bool)
	view.Each(0, func(k, v []byte) bool {
		if seen[string(k)] || !bytes.Equal(k, v) {
			t.Errorf("key % x twice, or its value % x is wrong", k, v)
		}
		seen[string(k)] = true
		return true
	})
	if len(seen) == 0 {
		t.Error("nothing left")
	}
}

// ringPrograms write records of r2 bytes from r1, by both ways.
func ringPrograms(t testing.TB) []*insn.Program {
	return []*insn.Program{
		program(t, "output", asm.Instructions{
			asm.Mov.Reg(asm.R3, asm.R2),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.LoadMapPtr(asm.R1, 0).WithReference("r"),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnRingbufOutput.Call(),
			asm.Return(),
		}),
		program(t, "reserve", asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
			asm.LoadMapPtr(asm.R1, 0).WithReference("r"),
			asm.Mov.Imm(asm.R2, 8),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnRingbufReserve.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.StoreMem(asm.R0, 0, asm.R6, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R0),
			asm.Mov.Imm(asm.R2, 0),
			asm.JSet.Imm(asm.R6, 1, "odd"),
			asm.FnRingbufSubmit.Call(),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return().WithSymbol("out"),
			asm.FnRingbufDiscard.Call().WithSymbol("odd"),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		}),
	}
}

// TestRing has several threads write while another reads: what was written and not
// counted as lost arrives whole, once, and in its thread's order.
func TestRing(t *testing.T) {
	memory, mem := newShared(t, possibleCPUs, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 4096}})
	ring, _ := memory.Ring("r")
	const producers, records = 4, 50_000
	var (
		wg      sync.WaitGroup
		written [producers]uint64
		done    = make(chan struct{})
	)
	for g := range producers {
		m := load(t, options(memory.Layout), mem, ringPrograms(t)...)
		wg.Go(func() {
			rec := make([]byte, 16+700)
			for i := range records {
				binary.LittleEndian.PutUint64(rec, uint64(g))
				binary.LittleEndian.PutUint64(rec[8:], uint64(i))
				n := 16 + i%700
				for j := 16; j < n; j++ {
					rec[j] = byte(i + j)
				}
				if m.run("output", rec[:n]) == 0 {
					written[g]++
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	var read [producers]uint64
	last := [producers]int64{-1, -1, -1, -1}
	check := func(b []byte) error {
		if len(b) < 16 {
			return fmt.Errorf("a record of %d bytes", len(b))
		}
		g, i := binary.LittleEndian.Uint64(b), int64(binary.LittleEndian.Uint64(b[8:]))
		if g >= producers || len(b) != 16+int(i)%700 {
			return fmt.Errorf("record %d of %d has %d bytes", i, g, len(b))
		}
		for j := 16; j < len(b); j++ {
			if b[j] != byte(int(i)+j) {
				return fmt.Errorf("record %d of %d is wrong at %d", i, g, j)
			}
		}
		read[g]++
		last[g] = max(last[g], i)
		return nil
	}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if _, err := ring.Read(check); err != nil {
			t.Fatal(err)
		}
	}
	total := uint64(0)
	for g := range producers {
		if read[g] != written[g] {
			t.Errorf("producer %d wrote %d records, %d were read", g, written[g], read[g])
		}
		total += written[g]
	}
	if lost := ring.Lost(); total+lost != producers*records || total == 0 {
		t.Errorf("%d written, %d lost, of %d", total, lost, producers*records)
	}
	t.Logf("%d records, %d lost", total, ring.Lost())
}

func TestReserve(t *testing.T) {
	memory, mem := newShared(t, possibleCPUs, map[string]*ebpf.MapSpec{"r": {Type: ebpf.RingBuf, MaxEntries: 4096}})
	ring, _ := memory.Ring("r")
	m := load(t, options(memory.Layout), mem, ringPrograms(t)...)
	var want, got []uint64
	for i := range uint64(100) {
		if m.run("reserve", binary.LittleEndian.AppendUint64(nil, i)) != 1 {
			t.Fatal("no room")
		}
		if i%2 == 0 {
			want = append(want, i)
		}
	}
	sum := func(v []uint64) (s uint64) {
		for _, x := range v {
			s += x
		}
		return s
	}
	ring.Read(func(b []byte) error { got = append(got, binary.LittleEndian.Uint64(b)); return nil })
	if len(got) != len(want) || sum(got) != sum(want) {
		t.Error(got)
	}
	// A record that is too large, and a ring that is full, are lost records.
	if r := m.run("output", make([]byte, 1<<20)); int64(r) != -int64(unix.EAGAIN) || ring.Lost() != 1 {
		t.Error(int64(r), ring.Lost())
	}
	for m.run("output", make([]byte, 1000)) == 0 {
	}
	if ring.Lost() != 2 {
		t.Error(ring.Lost())
	}
}

func TestRefusesByName(t *testing.T) {
	memory, _ := newShared(t, 1, map[string]*ebpf.MapSpec{"a": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 4}})
	for want, insns := range map[string]asm.Instructions{
		"bpf_tail_call": {asm.FnTailCall.Call(), asm.Return()},
		"no map lost":   {asm.LoadMapPtr(asm.R1, 0).WithReference("lost"), asm.Mov.Imm(asm.R0, 0), asm.Return()},
		"on map a of type Array": {
			asm.LoadMapPtr(asm.R1, 0).WithReference("a"),
			asm.FnRingbufOutput.Call(), asm.Return(),
		},
		"no direct value": {asm.LoadMapValue(asm.R1, 0, 4).WithReference("a"), asm.Mov.Imm(asm.R0, 0), asm.Return()},
	} {
		_, err := jit.Compile([]*insn.Program{program(t, "p", insns)}, options(memory.Layout))
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
