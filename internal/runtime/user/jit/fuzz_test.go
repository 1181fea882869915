package jit_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/runtime/user/vm/vmtest"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const memSize = 96

// generator makes programs that are valid and end: r6 points to the memory, r10 to
// a frame of which the uppermost frameUse bytes have been written, all other
// registers hold numbers.
type generator struct {
	r     *rand.Rand
	code  []byte
	funcs int // to be generated after this one
	calls [][2]int
	loops int // depth
	count int // of loops in this function
}

const frameUse = 64

func (g *generator) emit(op byte, dst, src int, off int, imm int64) {
	g.code = append(g.code, op, byte(dst|src<<4))
	g.code = binary.LittleEndian.AppendUint16(g.code, uint16(off))
	g.code = binary.LittleEndian.AppendUint32(g.code, uint32(imm))
}

func (g *generator) at() int { return len(g.code) / insn.Size }

var edges = []int64{0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 1 << 15, 1<<16 - 1, 1<<31 - 1, -1 << 31, 1 << 32, -1 << 63, 1<<63 - 1}

func (g *generator) number() int64 {
	switch g.r.IntN(3) {
	case 0:
		return edges[g.r.IntN(len(edges))]
	case 1:
		return int64(g.r.IntN(512)) - 256
	}
	return int64(g.r.Uint64())
}

func (g *generator) lddw(dst int, v int64) {
	g.emit(0x18, dst, 0, 0, v)
	g.emit(0, 0, 0, 0, v>>32)
}

// data is a register that holds a number.
func (g *generator) data() int { return []int{0, 1, 2, 3, 4, 5, 7, 8, 9}[g.r.IntN(9)] }

func (g *generator) fresh(regs ...int) {
	for _, r := range regs {
		if g.r.IntN(2) == 0 {
			g.emit(0xb7, r, 0, 0, g.number())
		} else {
			g.lddw(r, g.number())
		}
	}
}

// place is a base register and an offset for an access of n bytes. pointer is a
// register that was made a pointer for it, -1 if none.
func (g *generator) place(n int, aligned bool) (base, off, pointer int) {
	base, limit, low := 6, memSize, 0
	if g.r.IntN(2) == 0 {
		base, limit, low = 10, frameUse, -frameUse
	}
	o := g.r.IntN(limit - n + 1)
	if aligned {
		o &^= n - 1
	}
	off = low + o
	if g.r.IntN(2) == 0 {
		return base, off, -1
	}
	p := g.data()
	g.emit(0xbf, p, base, 0, 0)
	shift := g.r.IntN(64) - 32
	g.emit(0x07, p, 0, 0, int64(shift))
	if g.r.IntN(4) == 0 {
		g.emit(0x17, p, 0, 0, int64(-3))
		shift += 3
	}
	return p, off - shift, p
}

var sizeBits = map[int]byte{1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}

func (g *generator) alu() {
	ops := []byte{0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xa0, 0xb0, 0xc0}
	op := ops[g.r.IntN(len(ops))] | []byte{0x04, 0x07}[g.r.IntN(2)]
	off := 0
	if (op&0xf0 == 0x30 || op&0xf0 == 0x90) && g.r.IntN(2) == 0 {
		off = 1
	}
	switch g.r.IntN(10) {
	case 0:
		g.emit(op&7|0x80, g.data(), 0, 0, 0)
	case 1:
		g.emit([]byte{0xd4, 0xdc, 0xd7}[g.r.IntN(3)], g.data(), 0, 0, []int64{16, 32, 64}[g.r.IntN(3)])
	case 2:
		if g.r.IntN(2) == 0 {
			g.emit(0xbf, g.data(), g.data(), []int{8, 16, 32}[g.r.IntN(3)], 0)
		} else {
			g.emit(0xbc, g.data(), g.data(), []int{8, 16}[g.r.IntN(2)], 0)
		}
	case 3, 4, 5:
		g.emit(op, g.data(), 0, off, int64(int32(g.number())))
	default:
		g.emit(op|8, g.data(), g.data(), off, 0)
	}
}

func (g *generator) memory() {
	n := 1 << g.r.IntN(4)
	switch g.r.IntN(6) {
	case 0, 1:
		base, off, p := g.place(n, false)
		dst := g.data()
		if n < 8 && g.r.IntN(2) == 0 {
			g.emit(0x81|sizeBits[n], dst, base, off, 0)
		} else {
			g.emit(0x61|sizeBits[n], dst, base, off, 0)
		}
		if p >= 0 && p != dst {
			g.fresh(p)
		}
	case 2:
		base, off, p := g.place(n, false)
		g.emit(0x62|sizeBits[n], base, 0, off, int64(int32(g.number())))
		if p >= 0 {
			g.fresh(p)
		}
	case 3:
		base, off, p := g.place(n, false)
		src := g.data()
		for src == p { // it would store a pointer
			src = g.data()
		}
		g.emit(0x63|sizeBits[n], base, src, off, 0)
		if p >= 0 {
			g.fresh(p)
		}
	default:
		n = 4 << g.r.IntN(2)
		base, off, p := g.place(n, true)
		ops := []int64{0, 0x40, 0x50, 0xa0, 1, 0x41, 0x51, 0xa1, 0xe1, 0xf1}
		op := ops[g.r.IntN(len(ops))]
		src := g.data()
		for src == p || p == 0 && op == 0xf1 {
			if src = g.data(); p == 0 {
				op = 0x41
			}
		}
		if op == 0xf1 && p != 0 && base != 0 && g.r.IntN(2) == 0 { // so that it succeeds
			g.lddw(0, g.number())
			g.emit(0x7b&^0x18|sizeBits[n], base, 0, off, 0)
		}
		g.emit(0xc3|sizeBits[n], base, src, off, op)
		if p >= 0 {
			g.fresh(p)
		}
	}
}

func (g *generator) branch(n int) {
	op := []byte{0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0, 0xb0, 0xc0, 0xd0}[g.r.IntN(11)] | []byte{5, 6}[g.r.IntN(2)]
	from := g.at()
	if g.r.IntN(2) == 0 {
		g.emit(op, g.data(), 0, 0, int64(int32(g.number())))
	} else {
		g.emit(op|8, g.data(), g.data(), 0, 0)
	}
	g.block(n)
	if g.r.IntN(2) == 0 { // with an else
		over := g.at()
		long := g.r.IntN(2) == 0
		if long {
			g.emit(0x06, 0, 0, 0, 0)
		} else {
			g.emit(0x05, 0, 0, 0, 0)
		}
		g.patch(from)
		g.block(n)
		if long {
			binary.LittleEndian.PutUint32(g.code[over*8+4:], uint32(g.at()-over-1))
		} else {
			g.patch(over)
		}
		return
	}
	g.patch(from)
}

func (g *generator) patch(slot int) {
	binary.LittleEndian.PutUint16(g.code[slot*8+2:], uint16(g.at()-slot-1))
}

// loop counts down in the frame, below what else uses it.
func (g *generator) loop(n int) {
	if g.loops == 2 || g.count == 8 {
		return
	}
	g.loops++
	g.count++
	slot := -frameUse - 8*g.count
	g.emit(0x7a, 10, 0, slot, int64(1+g.r.IntN(4)))
	top := g.at()
	g.block(n)
	r := g.data()
	g.emit(0x79, r, 10, slot, 0)
	g.emit(0x07, r, 0, 0, -1)
	g.emit(0x7b, 10, r, slot, 0)
	g.emit(0x55, r, 0, top-g.at()-1, 0)
	g.loops--
}

func (g *generator) call() {
	if g.funcs == 0 || g.loops > 1 {
		return
	}
	switch g.r.IntN(3) {
	case 0: // bpf_loop(n, function, memory, 0)
		g.emit(0xb7, 1, 0, 0, int64(g.r.IntN(4)))
		g.calls = append(g.calls, [2]int{g.at(), 1})
		g.emit(0x18, 2, 4, 0, 0)
		g.emit(0, 0, 0, 0, 0)
		g.emit(0xbf, 3, 6, 0, 0)
		g.emit(0xb7, 4, 0, 0, 0)
		g.emit(0x85, 0, 0, 0, insn.Loop)
	case 1:
		g.emit(0xbf, 2, 6, 0, 0)
		g.calls = append(g.calls, [2]int{g.at(), 1})
		g.emit(0x85, 0, 1, 0, 0)
	default: // a helper on memory
		g.emit(0xbf, 1, 10, 0, 0)
		g.emit(0x07, 1, 0, 0, -frameUse)
		g.emit(0xb7, 2, 0, 0, int64(g.r.IntN(frameUse)+1))
		g.emit(0xbf, 3, 6, 0, 0)
		g.emit(0x07, 3, 0, 0, int64(g.r.IntN(memSize-frameUse)))
		g.emit(0x85, 0, 0, 0, []int64{insn.ProbeReadUser, insn.ProbeReadUserStr, insn.Strncmp, insn.CopyFromUser}[g.r.IntN(4)])
	}
	g.fresh(1, 2, 3, 4, 5)
}

// lookup finds an element of the array and uses it; often the key has only just
// been stored.
func (g *generator) lookup() {
	off := -4 * (1 + g.r.IntN(frameUse/4))
	if g.r.IntN(2) == 0 {
		g.emit(0x62, 10, 0, off, int64(g.r.IntN(arraySize+2)))
	} else {
		k := g.data()
		if g.r.IntN(2) == 0 {
			g.emit(0xb7, k, 0, 0, int64(g.r.IntN(arraySize+2)))
		} else {
			g.emit(0x57, k, 0, 0, 7)
		}
		g.emit(0x63, 10, k, off, 0)
	}
	for g.r.IntN(3) == 0 {
		switch g.r.IntN(3) {
		case 0:
			g.alu()
		case 1:
			g.memory()
		default:
			g.fresh(g.data())
		}
	}
	g.emit(0xbf, 2, 10, 0, 0)
	g.emit(0x07, 2, 0, 0, int64(off))
	if g.r.IntN(8) == 0 { // through a register that is not known to be the map
		g.emit(0x18, 7, 1, 0, 0)
		g.emit(0, 0, 0, 0, 0)
		g.emit(0x55, 10, 0, 0, 0)
		g.emit(0xbf, 1, 7, 0, 0)
		g.fresh(7)
	} else {
		g.emit(0x18, 1, 1, 0, 0)
		g.emit(0, 0, 0, 0, 0)
	}
	g.emit(0x85, 0, 0, 0, insn.MapLookup)
	from := g.at()
	g.emit(0x15, 0, 0, 0, 0)
	at := 8 * g.r.IntN(2)
	r := []int{7, 8, 9}[g.r.IntN(3)]
	switch g.r.IntN(3) {
	case 0:
		g.emit(0x79, r, 0, at, 0)
	case 1:
		g.emit(0x7b, 0, r, at, 0)
	default:
		g.emit(0xdb, 0, r, at, []int64{0, 1}[g.r.IntN(2)])
	}
	g.patch(from)
	g.fresh(0, 1, 2, 3, 4, 5)
}

const arraySize = 5

func (g *generator) block(n int) {
	for range n {
		switch k := g.r.IntN(22); {
		case k >= 20:
			g.lookup()
		case k < 10:
			g.alu()
		case k < 16:
			g.memory()
		case k == 16:
			g.branch(n / 3)
		case k == 17:
			g.loop(n / 3)
		case k == 18:
			g.call()
		default:
			g.fresh(g.data())
		}
	}
}

// function emits one whose argument register holds the memory.
func (g *generator) function(memory int) {
	g.loops, g.count = 0, 0
	g.emit(0xbf, 6, memory, 0, 0)
	for off := -frameUse; off < 0; off += 8 {
		g.emit(0x7a, 10, 0, off, int64(int32(g.number())))
	}
	if memory == 1 {
		g.fresh(0, 1, 2, 3, 4, 5, 7, 8, 9)
	} else { // r1 is a number already
		g.fresh(0, 2, 3, 4, 5, 7, 8, 9)
	}
	g.block(4 + g.r.IntN(24))
	// All that it knows goes into the result.
	for _, r := range []int{1, 2, 3, 4, 5, 7, 8, 9} {
		g.emit(0x27, 0, 0, 0, 31)
		g.emit(0xaf, 0, r, 0, 0)
	}
	for off := -frameUse; off < 0; off += 8 {
		g.emit(0x79, 1, 10, off, 0)
		g.emit(0x27, 0, 0, 0, 33)
		g.emit(0x0f, 0, 1, 0, 0)
	}
	g.emit(0x95, 0, 0, 0, 0)
}

func generate(seed uint64) []byte {
	g := &generator{r: rand.New(rand.NewPCG(seed, 1))}
	g.funcs = g.r.IntN(4)
	memory := 1
	for {
		pending := g.calls
		g.calls = nil
		start := g.at()
		for _, c := range pending {
			binary.LittleEndian.PutUint32(g.code[c[0]*8+4:], uint32(start-c[0]-1))
		}
		if memory == 2 && len(pending) == 0 {
			return g.code
		}
		g.function(memory)
		memory = 2
		if g.funcs > 0 {
			g.funcs--
		}
	}
}

func fuzzMaps(n int32) (string, bool) { return "a", n == 0 }

type shared struct {
	*shm.Memory
	mem []byte
}

var arraysOnce = sync.OnceValues(func() (shared, shared) {
	var s [2]shared
	for i := range s {
		l, err := shm.NewLayout(map[string]*ebpf.MapSpec{"a": {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: arraySize}}, 1)
		if err != nil {
			panic(err)
		}
		if s[i].mem, err = unix.Mmap(-1, 0, int(l.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
			panic(err)
		}
		if s[i].Memory, err = shm.Open(l, s[i].mem); err != nil {
			panic(err)
		}
	}
	return s[0], s[1]
})

// arrays returns two equal shared memories.
func arrays(t testing.TB) (ours, theirs shared) {
	ours, theirs = arraysOnce()
	for _, s := range []shared{ours, theirs} {
		clear(s.mem)
		if err := s.Init(); err != nil {
			t.Fatal(err)
		}
	}
	return ours, theirs
}

// compare runs a program by both and demands the same result and memory.
func compare(t testing.TB, code []byte) error {
	p, err := insn.Decode(code, fuzzMaps)
	if err != nil {
		return fmt.Errorf("generated an invalid program: %w", err)
	}
	ours, theirs := arrays(t)
	mem := make([]byte, memSize)
	for i := range mem {
		mem[i] = byte(i*37 + 11)
	}
	other := bytes.Clone(mem)
	maps, rings := theirs.VM()
	in, err := vm.New(p, vm.Config{Maps: maps, Rings: rings})
	if err != nil {
		return err
	}
	want, err := in.Run(mem)
	if err != nil {
		return fmt.Errorf("interpreter: %w", err)
	}
	m, err := tryLoad(options(ours.Layout), ours.mem, p)
	if err != nil {
		return err
	}
	defer m.Close()
	binary.LittleEndian.PutUint32(m.process[shm.ProcDirect:], 1)
	got := m.run("", other)
	if got != want {
		return fmt.Errorf("r0 = %#x, the interpreter says %#x", got, want)
	}
	if !bytes.Equal(mem, other) {
		return fmt.Errorf("memory is\n% x, the interpreter leaves\n% x", other, mem)
	}
	if !bytes.Equal(ours.mem, theirs.mem) {
		return errors.New("the maps differ")
	}
	return nil
}

func listing(code []byte) string {
	p, err := insn.Decode(code, fuzzMaps)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	for i, in := range p.Insns {
		if in.Op != insn.Second {
			fmt.Fprintf(&s, "%4d %v\n", i, in)
		}
	}
	return s.String()
}

// TestAgainstInterpreter runs random programs; FERROTRACE_FUZZ_TIME makes it run
// that long.
func TestAgainstInterpreter(t *testing.T) {
	length := 500 * time.Millisecond
	if s := os.Getenv("FERROTRACE_FUZZ_TIME"); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	seed, n := uint64(1), 0
	if length > time.Minute {
		seed = uint64(time.Now().UnixNano())
	}
	for end := time.Now().Add(length); time.Now().Before(end); seed++ {
		code := generate(seed)
		if err := compare(t, code); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, listing(code))
		}
		n++
	}
	t.Logf("%d programs", n)
}

func FuzzAgainstInterpreter(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		code := generate(seed)
		if err := compare(t, code); err != nil {
			t.Fatalf("%v\n%s", err, listing(code))
		}
	})
}

// FuzzCompile compiles whatever is well formed: it is refused by name, or becomes
// code whose tables lie within it.
func FuzzCompile(f *testing.F) {
	for _, v := range vmtest.Vectors(f) {
		f.Add(v.Code)
	}
	for seed := range uint64(20) {
		f.Add(generate(seed))
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		p, err := insn.Decode(code, fuzzMaps)
		if err != nil {
			return
		}
		ours, _ := arraysOnce()
		im, err := jit.Compile([]*insn.Program{p}, options(ours.Layout))
		if err != nil {
			if !errors.Is(err, insn.ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		for _, r := range im.Relocs {
			if r.Offset < 0 || r.Offset+8 > len(im.Code) {
				t.Errorf("relocation at %#x of %#x", r.Offset, len(im.Code))
			}
		}
		for _, x := range im.Fixups {
			if x.Start < 0 || x.Start >= x.End || x.End > len(im.Code) || x.Target < 0 || x.Target >= len(im.Code) {
				t.Errorf("fixup %+v of %#x", x, len(im.Code))
			}
		}
	})
}
