package codegen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	ftruntime "ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/rust/types"

	"golang.org/x/sys/unix"
)

// What the user runtime offers, with records by way of slots and straight into the
// ring.
var (
	bySlots   = Options{HaveLoop: true, XMM: jit.ContextSize}
	byReserve = Options{HaveLoop: true, XMM: jit.ContextSize, Reserve: true}
)

const (
	contextSize = jit.ContextSize + 16*16
	userCPUs    = 64 // more than this machine has
)

// registers is a context, and room for what it points to.
type registers struct{ block []byte }

func newRegisters(room int) *registers {
	r := &registers{make([]byte, 16+contextSize+room)}
	r.set(location.RSP, r.addr()+uint64(contextSize)) // what an expression may dereference
	return r
}

func at64(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func (r *registers) context() []byte { return r.block[16:] }
func (r *registers) addr() uint64    { return at64(r.context()) }
func (r *registers) set(reg location.Reg, v uint64) {
	binary.LittleEndian.PutUint64(r.context()[regOffset[reg]:], v)
}
func (r *registers) setXMM(n int, lo, hi uint64) {
	binary.LittleEndian.PutUint64(r.context()[jit.ContextSize+16*n:], lo)
	binary.LittleEndian.PutUint64(r.context()[jit.ContextSize+16*n+8:], hi)
}

// data is the memory behind the context.
func (r *registers) data() []byte { return r.context()[contextSize:] }

// inUser is a compiled program with its maps, run in this process by the user
// runtime's JIT or interpreter.
type inUser struct {
	*Compiled
	memory  *shm.Memory
	shared  []byte
	process []byte
	image   *jit.Image
	code    *native.Code
	progs   map[string]*insn.Program
}

func loadUser(t testing.TB, p *program.Program, o Options, change ...func(*Compiled)) *inUser {
	t.Helper()
	c, err := Compile(p, o)
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Spec.Maps[ftruntime.MapScratch]; m != nil {
		m.MaxEntries = ftruntime.SlotsPerCPU * userCPUs
	}
	for _, f := range change {
		f(c)
	}
	layout, err := shm.NewLayout(c.Spec.Maps, userCPUs)
	if err != nil {
		t.Fatal(err)
	}
	u := &inUser{Compiled: c, process: make([]byte, shm.ProcSize), progs: make(map[string]*insn.Program)}
	if u.shared, err = unix.Mmap(-1, 0, int(layout.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(u.shared) })
	if u.memory, err = shm.Open(layout, u.shared); err != nil {
		t.Fatal(err)
	}
	if err := u.memory.Init(); err != nil {
		t.Fatal(err)
	}
	var progs []*insn.Program
	for name, spec := range c.Spec.Programs {
		p, err := insn.FromInstructions(spec.Instructions)
		if err != nil {
			t.Fatal(err)
		}
		p.Name = name
		u.progs[name] = p
		progs = append(progs, p)
	}
	if u.image, err = jit.Compile(progs, jit.Options{Layout: layout, RDPID: native.HasRDPID()}); err != nil {
		t.Fatal(err)
	}
	u.code, err = native.New(len(u.image.Code), func(uint64) ([]byte, error) {
		return u.image.Link(at64(u.shared), at64(u.process)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.code.Close() })
	return u
}

// hit runs what the probe runs.
func (u *inUser) hit(r *registers, cookie int) {
	for _, p := range u.Probes {
		if p.Cookie == uint64(cookie) {
			binary.LittleEndian.PutUint64(r.block, p.Cookie)
			u.code.Call(u.image.Entries[p.Program].Offset, r.addr(), 0)
		}
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(u)
}

// interpret does as hit does, by the interpreter.
func (u *inUser) interpret(t testing.TB, r *registers, cookie int) {
	t.Helper()
	maps, rings := u.memory.VM()
	for _, p := range u.Probes {
		if p.Cookie != uint64(cookie) {
			continue
		}
		m, err := vm.New(u.progs[p.Program], vm.Config{Maps: maps, Rings: rings, Cookie: p.Cookie})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(r.context()); err != nil {
			t.Fatal(err)
		}
	}
}

// raw returns what is in the ring.
func (u *inUser) raw(t testing.TB) (all [][]byte) {
	t.Helper()
	ring, ok := u.memory.Ring(ftruntime.MapEvents)
	if !ok {
		return nil
	}
	if _, err := ring.Read(func(b []byte) error { all = append(all, bytes.Clone(b)); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// records decodes what is in the ring, all but time and what follows from places of
// memory.
func (u *inUser) records(t testing.TB) (all []*record.Record) {
	t.Helper()
	for _, b := range u.raw(t) {
		rec, err := u.Schema.Decode(b)
		if err != nil {
			t.Fatalf("%v: %x", err, b)
		}
		if n := int(rec.Length); n > len(b) || n%8 != 0 {
			t.Errorf("record of %d bytes in %d", n, len(b))
		}
		if rec.Time == 0 || int(rec.PID) != unix.Getpid() || rec.Command() == "" {
			t.Errorf("header %+v", rec.Header)
		}
		all = append(all, rec)
	}
	return all
}

func (u *inUser) sum(t testing.TB, name string, i uint32) uint64 {
	t.Helper()
	v, ok := u.memory.View(name)
	if !ok {
		return 0
	}
	n, err := v.Sum(i)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// said is what a record says, but for its time and length.
func said(r *record.Record) string {
	return fmt.Sprintf("%d %d %s cfa %x flags %x failed %x regions %d\n%s", r.Cookie, r.Item, r.Kind, r.CFA, r.Flags, r.Failed, r.Regions, texts(r))
}

func all(rs []*record.Record) string {
	var b strings.Builder
	for _, r := range rs {
		b.WriteString(said(r))
	}
	return b.String()
}

// ways runs one hit by slots and by reservation, by the JIT and the interpreter, and
// demands that all say the same. The result is what they say.
func ways(t *testing.T, p *program.Program, r *registers, cookie int, interpret bool) string {
	t.Helper()
	var want string
	for i, o := range []Options{bySlots, byReserve} {
		u := loadUser(t, p, o)
		u.hit(r, cookie)
		got := all(u.records(t))
		if i == 0 {
			want = got
		} else if got != want {
			t.Errorf("straight into the ring:\n%sby way of slots:\n%s", got, want)
		}
		if interpret {
			u.interpret(t, r, cookie)
			if got := all(u.records(t)); got != want {
				t.Errorf("%+v, interpreter:\n%sJIT:\n%s", o, got, want)
			}
		}
	}
	return want
}

func strArg(name string, ptr, length location.Reg) program.Value {
	return value(name, tStr, inReg(0, 8, ptr), inReg(8, 8, length))
}

func TestReserveStrings(t *testing.T) {
	p := programOf(at(0x5000, entry(strArg("s", location.RDI, location.RSI), value("n", tU64, inReg(0, 8, location.RDX)))))
	if c, err := Compile(p, byReserve); err != nil || c.Spec.Maps[ftruntime.MapScratch] != nil {
		t.Fatalf("a slot is used: %v", err)
	}
	for _, n := range []int{0, 1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1_000_000} {
		r := newRegisters(n)
		for i := range r.data() {
			r.data()[i] = byte('a' + i%26)
		}
		r.set(location.RDI, at64(r.data()))
		r.set(location.RSI, uint64(n))
		r.set(location.RDX, uint64(n)*3)
		got := ways(t, p, r, 0, true)
		text := string(r.data()[:min(n, 256)])
		if n > 256 {
			text += "…"
		}
		if !strings.Contains(got, fmt.Sprintf("s: %q", text)) || !strings.Contains(got, fmt.Sprintf("\nn: %d\n", 3*n)) {
			t.Errorf("%d bytes: %s", n, got)
		}
		// It takes no more of the ring than it is long.
		u := loadUser(t, p, byReserve)
		u.hit(r, 0)
		want := record.HeaderSize + 24
		if n > 0 {
			want += record.RegionSize + align8(min(n, 256))
		}
		if raw := u.raw(t); len(raw) != 1 || len(raw[0]) != want {
			t.Errorf("%d bytes: a record of %d, want %d", n, len(raw[0]), want)
		}
	}
}

// TestReserveUnreadable: what can't be read takes nothing from what follows it.
func TestReserveUnreadable(t *testing.T) {
	p := programOf(at(0x5000, entry(
		strArg("bad", location.RDI, location.RSI), strArg("s", location.RDX, location.RCX),
		by("gone", tString, location.R8), strArg("s", location.RDX, location.RCX))))
	r := newRegisters(64)
	copy(r.data(), "hello")
	for _, bad := range []uint64{0, 8, 1 << 63, ^uint64(0) - 2} {
		r.set(location.RDI, bad)
		r.set(location.RSI, 300)
		r.set(location.RDX, at64(r.data()))
		r.set(location.RCX, 5)
		r.set(location.R8, bad)
		got := ways(t, p, r, 0, true)
		if !strings.HasSuffix(got, "bad: (unreadable)\ns: \"hello\"\ngone: (unreadable)\ns: \"hello\"\n") {
			t.Errorf("%#x: %s", bad, got)
		}
	}
}

// TestVectors: what is in xmm registers.
func TestVectors(t *testing.T) {
	tF32 := &types.Type{Name: "f32", Kind: types.Float, Size: 4, Align: 4}
	pair := structOf("Pair", 16, types.Field{Name: "a", Type: tF64}, types.Field{Name: "b", Offset: 8, Type: tF64})
	quad := structOf("Quad", 16, types.Field{Name: "v", Type: arrayOf(tF32, 4)})
	result := program.Item{Kind: program.Exit, CFA: cfaAtEntry, Cond: -1, Count: -1, Values: []program.Value{value("", tF64, inReg(0, 8, location.XMM0))}}
	p := programOf(at(0x5000, entry(
		value("f", tF32, inReg(0, 4, location.XMM0)),
		value("d", tF64, inReg(0, 8, location.XMM15)),
		value("pair", pair, inReg(0, 8, location.XMM3), inReg(8, 8, location.XMM4)),
		value("quad", quad, inReg(0, 16, location.XMM7)),
		value("mixed", pair, inReg(0, 8, location.RDI), inReg(8, 8, location.XMM1)),
	)), at(0x6000, result))
	r := newRegisters(0)
	f32s := func(a, b float32) uint64 {
		return uint64(math.Float32bits(a)) | uint64(math.Float32bits(b))<<32
	}
	r.setXMM(0, f32s(1.5, -1), 0)
	r.setXMM(15, math.Float64bits(-2.25), 77)
	r.setXMM(3, math.Float64bits(0.1), 0)
	r.setXMM(4, math.Float64bits(1e300), 0)
	r.setXMM(7, f32s(1, 2), f32s(3, 4))
	r.setXMM(1, math.Float64bits(8), 0)
	r.set(location.RDI, math.Float64bits(7))
	got := ways(t, p, r, 0, true)
	want := `f: 1.5
d: -2.25
pair: Pair { a: 0.1, b: 1e300 }
quad: Quad { v: [1.0, 2.0, 3.0, 4.0] }
mixed: Pair { a: 7.0, b: 8.0 }
`
	if !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	r.setXMM(0, math.Float64bits(math.Pi), 0)
	if got := ways(t, p, r, 1, true); !strings.HasSuffix(got, ": 3.141592653589793\n") {
		t.Error(got)
	}
	u := loadUser(t, p, byReserve)
	for cookie, want := range []uint16{1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<7 | 1<<15, 1 << 0} {
		c := u.image.Entries[u.Probes[cookie].Program].Context
		if c.Vectors != want || c.Full {
			t.Errorf("probe %d reads %+v, want vectors %b", cookie, c, want)
		}
	}
}

// TestReserveRandom runs random programs on random registers both ways.
func TestReserveRandom(t *testing.T) {
	flat, records := 0, 0
	for seed := range uint64(400) {
		s := &shapes{Rand: rand.New(rand.NewPCG(seed, 2))}
		s.fill()
		if s.IntN(4) > 0 { // mostly what needs no slot
			s.types = []*types.Type{tU8, tU32, tI64, tStr, tString, tPoint, vecOf(tU32), vecOf(tPoint), refTo(tPoint), refTo(arrayOf(tU8, 7)), s.flatEnum()}
		}
		p := &program.Program{Counts: 10, Limits: program.Limits{MaxStr: s.IntN(300), MaxItems: s.IntN(70), Depth: s.IntN(10)}}
		if s.IntN(4) == 0 {
			p.PIDNamespace = &program.PIDNamespace{Dev: 4, Ino: 4026531836}
		}
		probe := program.Probe{Path: "app", Addr: 0x5000}
		for range 1 + s.IntN(3) {
			it := s.item()
			if s.IntN(2) == 0 {
				it.CFA = cfaAtEntry
			}
			if s.IntN(2) == 0 {
				it.Cond = -1
			}
			probe.Items = append(probe.Items, it)
		}
		p.Probes = append(p.Probes, probe)
		slots, reserve := loadUser(t, p, bySlots), loadUser(t, p, byReserve)
		if reserve.Spec.Maps[ftruntime.MapScratch] == nil {
			flat++
		}
		for range 4 {
			r := newRegisters(4096)
			for i := range r.data() {
				r.data()[i] = byte(s.Uint32())
			}
			for reg := range location.Reg(16) {
				switch s.IntN(4) {
				case 0: // near the memory, or not
					r.set(reg, at64(r.data())+uint64(s.IntN(4096)))
				case 1:
					r.set(reg, uint64(s.IntN(100)))
				default:
					r.set(reg, s.Uint64()>>s.IntN(64))
				}
			}
			if s.IntN(2) == 0 { // pointers in memory, too
				for i := 0; i < 4096; i += 8 {
					binary.LittleEndian.PutUint64(r.data()[i:], []uint64{at64(r.data()) + uint64(s.IntN(4000)), uint64(s.IntN(80)), 0}[s.IntN(3)])
				}
			}
			binary.LittleEndian.PutUint64(r.context()[offFlags:], s.Uint64())
			binary.LittleEndian.PutUint64(r.context()[offIP:], 0x7000_0000_5000)
			slots.hit(r, 0)
			reserve.hit(r, 0)
			want, got := slots.records(t), reserve.records(t)
			if records += len(want); all(got) != all(want) {
				t.Fatalf("seed %d: straight into the ring:\n%sby way of slots:\n%s", seed, all(got), all(want))
			}
		}
		for i := range uint32(ftruntime.NumCounters) {
			if a, b := slots.sum(t, ftruntime.MapCounters, i), reserve.sum(t, ftruntime.MapCounters, i); a != 0 || b != 0 {
				t.Errorf("seed %d: counter %d: %d, %d", seed, i, a, b)
			}
		}
		for i := range uint32(10) {
			if a, b := slots.sum(t, ftruntime.MapCounts, i), reserve.sum(t, ftruntime.MapCounts, i); a != b {
				t.Errorf("seed %d: count %d: %d, %d", seed, i, a, b)
			}
		}
	}
	t.Logf("%d programs without slots, %d records", flat, records)
	if flat < 100 || records < 1000 {
		t.Error("too few to say anything")
	}
}

// flatEnum is an enum whose variants hold strings and numbers.
func (s *shapes) flatEnum() *types.Type {
	old := s.types
	defer func() { s.types = old }()
	s.types = []*types.Type{tStr, tString, tU64, refTo(tPoint)}
	e := s.enum()
	e.Name = "E"
	return e
}

// TestReserveFull: what finds no room is counted by its kind, and nothing of what is
// in the ring is touched.
func TestReserveFull(t *testing.T) {
	kinds := map[program.ItemKind]ftruntime.Counter{
		program.Entry: ftruntime.EntryNoRoom, program.More: ftruntime.MoreNoRoom, program.Exit: ftruntime.ExitNoRoom,
		program.Panic: ftruntime.MarkNoRoom, program.Landing: ftruntime.MarkNoRoom,
	}
	for kind, counter := range kinds {
		it := entry(strArg("s", location.RDI, location.RSI))
		it.Kind = kind
		u := loadUser(t, programOf(at(0x5000, it)), byReserve)
		r := newRegisters(256)
		r.set(location.RDI, at64(r.data()))
		r.set(location.RSI, 256)
		const hits = 20_000
		runtime.LockOSThread()
		for range hits {
			u.hit(r, 0)
		}
		runtime.UnlockOSThread()
		n := uint64(len(u.records(t)))
		if lost := u.sum(t, ftruntime.MapCounters, uint32(counter)); n == 0 || lost == 0 || n+lost != hits {
			t.Errorf("%s: %d records, %d lost of %d", kind, n, lost, hits)
		}
		u.hit(r, 0)
		if len(u.records(t)) != 1 {
			t.Errorf("%s: nothing more once there is room", kind)
		}
	}
}

// TestReserveSaved: what an entry keeps is there for the exit, and gone then, room in
// the ring or not.
func TestReserveSaved(t *testing.T) {
	in := entry()
	in.Save = location.Expr{reg(location.RDI)}
	out := program.Item{Kind: program.Exit, CFA: cfaAtEntry, Cond: -1, Count: -1, Values: []program.Value{
		value("r", tPoint, inMemory(0, 8, location.Op{Kind: location.OpSaved})),
	}}
	for _, o := range []Options{bySlots, byReserve} {
		u := loadUser(t, programOf(at(0x5000, in), at(0x6000, out)), o)
		r := newRegisters(64)
		binary.LittleEndian.PutUint32(r.data(), 3)
		binary.LittleEndian.PutUint32(r.data()[4:], 4)
		r.set(location.RDI, at64(r.data()))
		runtime.LockOSThread()
		u.hit(r, 0)
		u.hit(r, 1)
		u.hit(r, 1)
		runtime.UnlockOSThread()
		got := u.records(t)
		if len(got) != 3 || texts(got[1]) != "r: Point { x: 3, y: 4 }\n" || texts(got[2]) != "r: (unreadable)\n" {
			t.Errorf("%+v: %s", o, all(got))
		}
	}
}

// TestReserveThreads: threads that write at once, on all CPUs, while the ring is read,
// lose nothing uncounted, and no record has anything of another.
func TestReserveThreads(t *testing.T) {
	const threads, hits = 4, 20_000
	u := loadUser(t, programOf(at(0x5000, entry(value("thread", tU64, inReg(0, 8, location.RDX)),
		value("n", tU64, inReg(0, 8, location.RCX)), strArg("s", location.RDI, location.RSI)))), byReserve, func(c *Compiled) {
		c.Spec.Maps[ftruntime.MapEvents].MaxEntries = 256 << 20
	})
	var running sync.WaitGroup
	for i := range threads {
		code, err := native.New(len(u.image.Code), func(uint64) ([]byte, error) {
			return u.image.Link(at64(u.shared), at64(u.process)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { code.Close() })
		running.Go(func() {
			r := newRegisters(64)
			for j := range r.data() {
				r.data()[j] = byte('a' + i)
			}
			r.set(location.RDI, at64(r.data()))
			r.set(location.RDX, uint64(i))
			for n := range hits {
				r.set(location.RSI, uint64(n%64))
				r.set(location.RCX, uint64(n))
				code.Call(u.image.Entries[u.Probes[0].Program].Offset, r.addr(), 0)
			}
			runtime.KeepAlive(r)
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	seen := 0
	read := func() {
		for _, rec := range u.records(t) {
			var i, n int
			var s string
			if _, err := fmt.Sscanf(texts(rec), "thread: %d\nn: %d\ns: %q\n", &i, &n, &s); err != nil {
				t.Fatalf("%v: %s", err, texts(rec))
			}
			if s != strings.Repeat(string(rune('a'+i)), n%64) {
				t.Errorf("thread %d, %d: %q", i, n, s)
			}
			seen++
		}
	}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		read()
	}
	lost := int(u.sum(t, ftruntime.MapCounters, uint32(ftruntime.EntryNoRoom)))
	t.Logf("%d records, %d lost", seen, lost)
	if seen+lost != threads*hits || seen == 0 {
		t.Errorf("%d records and %d lost of %d", seen, lost, threads*hits)
	}
}
