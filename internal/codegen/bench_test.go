package codegen

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	ftruntime "ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/x86"
)

// image is memory for a planner's trampolines, with what is already in it.
type image struct {
	base uint64
	code []byte
}

func (m *image) Alloc(size int, low, high uint64) (uint64, bool) {
	at := m.base + uint64(len(m.code)+63)&^63
	if at < low || at > high {
		return 0, false
	}
	m.append(make([]byte, size))
	return at, true
}

// append adds code at a multiple of 64.
func (m *image) append(code []byte) (addr uint64) {
	m.code = append(m.code, make([]byte, -len(m.code)&63)...)
	addr = m.base + uint64(len(m.code))
	m.code = append(m.code, code...)
	return addr
}

// victim is fn(s: &str, n: u64) -> u64, as rustc begins and ends functions.
func victim() []byte {
	var a asm.Assembler
	a.Push(asm.RBX)
	a.Mov(8, asm.RBX, asm.RDI)
	a.Lea(asm.RAX, asm.Idx(asm.RSI, asm.RDX, 1, 0))
	a.Pop(asm.RBX)
	a.Ret()
	a.Bytes(0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc)
	code, _, _ := a.Finish()
	return code
}

// where the victim's first instruction and its return are.
const victimEntry, victimRet = 0, 9

// caller is fn(args: &[u64; 2], n: usize), which calls f with args and what f returned
// last, n times. In between it multiplies, each time with the last result.
func caller(base, f uint64, work int) []byte {
	var a asm.Assembler
	for _, r := range []asm.Reg{asm.RBX, asm.R12} {
		a.Push(r)
	}
	a.Mov(8, asm.R12, asm.RDI)
	a.Mov(8, asm.RBX, asm.RSI)
	top := a.Here()
	a.Load(8, asm.RDI, asm.At(asm.R12, 0))
	a.Load(8, asm.RSI, asm.At(asm.R12, 8))
	a.Mov(8, asm.RDX, asm.RAX)
	a.CallTo(base+uint64(a.Len()), f)
	for range work {
		a.Imul(8, asm.RAX, asm.RAX)
	}
	a.ALUImm(asm.SUB, 8, asm.RBX, 1)
	a.Jcc(asm.NE, top)
	a.Pop(asm.R12)
	a.Pop(asm.RBX)
	a.Ret()
	code, _, _ := a.Finish()
	return code
}

// benchmarkHits reports what probes add to a call of a function, by what really is
// planted: jump, trampoline, program. A probe is at the entry if its address is 0, else
// at the return. Nobody reads while calls are made.
//
// Back to back, a call's exchange waits for the stores of the one before it. A program
// that does something between calls hides part of that.
func benchmarkHits(b *testing.B, o Options, probes ...program.Probe) {
	p := programOf(probes...)
	check := func(u *inUser, hits, records uint64) {
		if seen := records + u.sum(b, ftruntime.MapCounts, 0); seen != hits {
			b.Fatalf("%d hits, %d recorded or counted", hits, seen)
		}
	}
	b.Run("back to back", func(b *testing.B) { benchmarkCalls(b, p, o, 0, check) })
	b.Run("with work", func(b *testing.B) { benchmarkCalls(b, p, o, 25, check) }) // of 20 ns or so
}

// benchmarkCalls has check compare the hits of all probes, and the records that came of
// them, with what else there is.
func benchmarkCalls(b *testing.B, p *program.Program, o Options, work int, check func(u *inUser, hits, records uint64)) {
	probes := p.Probes
	u := loadUser(b, p, o, func(c *Compiled) { sizeFrames(c.Spec, userCPUs) })
	binary.LittleEndian.PutUint32(u.process[shm.ProcDirect:], 1)
	binary.LittleEndian.PutUint64(u.process[shm.ProcTID:], ^uint64(7)) // a word of Go's own
	shm.NewCalibrator().Publish(u.memory)

	var plain, probed uint64
	code, err := native.New(64<<10, func(base uint64) ([]byte, error) {
		m := &image{base: base}
		image := m.append(u.image.Link(at64(u.shared), at64(u.process)))
		free := m.append(victim())
		taken := m.append(victim())
		end := taken + uint64(len(victim()))
		plain = m.append(caller(base+uint64(len(m.code)+63)&^63, free, work)) - base
		probed = m.append(caller(base+uint64(len(m.code)+63)&^63, taken, work)) - base
		bytesAt := func(addr uint64) []byte {
			if addr < base || addr >= base+uint64(len(m.code)) {
				return nil
			}
			return m.code[addr-base:]
		}
		f, err := x86.NewFunc(bytesAt, []x86.Range{{Low: taken, High: taken + victimRet + 1}}, nil)
		if err != nil {
			return nil, err
		}
		var sites []patch.Site
		for _, p := range u.Probes {
			e := u.image.Entries[p.Program]
			site := patch.Site{Addr: taken + victimEntry, Kind: patch.Entry, Rust: true}
			if probes[p.Cookie].Addr == 1 {
				site.Addr, site.Kind = taken+victimRet, patch.Exit
			}
			site.Programs = []patch.Program{{Entry: image + uint64(e.Offset), Cookie: p.Cookie, Clobbers: e.Clobbers, Context: e.Context, Vectors: e.Context.Vectors}}
			sites = append(sites, site)
		}
		pl := patch.Planner{Code: bytesAt, Functions: []x86.Range{{Low: taken, High: taken + victimRet + 1}, {Low: end, High: end + 1}}, Alloc: m}
		patches, problems := pl.Plan([]patch.Function{{Code: f, Sites: sites}})
		for _, p := range problems {
			return nil, p
		}
		for _, p := range patches {
			copy(m.code[p.Trampoline-base:], p.Code.Bytes)
			for _, w := range p.Writes {
				copy(m.code[w.Addr-base:], w.New)
			}
		}
		return m.code, nil
	})
	if err != nil {
		b.Fatal(err)
	}
	defer code.Close()

	text := []byte("/usr/lib/x86_64-linux-gnu/some/path/of/a/file/that/is/not/short")
	args := make([]byte, 16)
	binary.LittleEndian.PutUint64(args, at64(text))
	binary.LittleEndian.PutUint64(args[8:], uint64(len(text)))
	const batch = 500 // records fit into the least ring
	run := func(offset uint64) float64 {
		start := time.Now()
		code.Call(int(offset), at64(args), batch)
		return float64(time.Since(start).Nanoseconds()) / batch
	}
	var without, with []float64
	hits, seen := uint64(0), uint64(0)
	for b.Loop() {
		without = append(without, run(plain))
		with = append(with, run(probed))
		hits += batch * uint64(len(probes))
		if ring, ok := u.memory.Ring(ftruntime.MapEvents); ok {
			n, err := ring.Read(func([]byte) error { return nil })
			if err != nil {
				b.Fatal(err)
			}
			seen += uint64(n)
		}
	}
	check(u, hits, seen)
	slices.Sort(without)
	slices.Sort(with)
	b.ReportMetric(with[len(with)/2]-without[len(without)/2], "ns/call")
	b.ReportMetric(with[0]-without[0], "best-ns/call")
	b.ReportMetric(0, "ns/op") // which is that of a batch
}

func countProbe() program.Probe { return program.Probe{Items: []program.Item{counting(0)}} }

func entryProbe() program.Probe {
	return program.Probe{Items: []program.Item{entry(strArg("s", location.RDI, location.RSI), value("n", tU64, inReg(0, 8, location.RDX)))}}
}

func exitProbe() program.Probe {
	return program.Probe{Addr: 1, Items: []program.Item{{Kind: program.Exit, CFA: cfaAtEntry, Cond: -1, Count: -1,
		Values: []program.Value{value("", tI64, inReg(0, 8, location.RAX))}}}}
}

func BenchmarkCount(b *testing.B)     { benchmarkHits(b, byReserve, countProbe()) }
func BenchmarkEntry(b *testing.B)     { benchmarkHits(b, byReserve, entryProbe()) }
func BenchmarkExit(b *testing.B)      { benchmarkHits(b, byReserve, exitProbe()) }
func BenchmarkEntryExit(b *testing.B) { benchmarkHits(b, byReserve, entryProbe(), exitProbe()) }

// The same by way of scratch slots.
func BenchmarkEntryBySlot(b *testing.B)     { benchmarkHits(b, bySlots, entryProbe()) }
func BenchmarkEntryExitBySlot(b *testing.B) { benchmarkHits(b, bySlots, entryProbe(), exitProbe()) }
