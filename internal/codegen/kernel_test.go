package codegen

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

func TestNotSleepable(t *testing.T) {
	o := kernelOptions(t)
	o.Sleepable = false
	strArg := value("s", tStr, inReg(0, 8, location.RDI), inReg(8, 8, location.RSI))
	for _, tt := range []struct{ what, want string }{
		{"str", "s: \"hello\"\n"},
		// Nobody has touched the page: a plain read does not fault it in.
		{"untouched", "s: (unreadable)\n"},
	} {
		l := load(t, programOf(targetAt(t, "hit", entry(strArg))), o)
		l.run(t, tt.what)
		if r := l.records(t); len(r) != 1 || texts(r[0]) != tt.want {
			t.Errorf("%s: %d records, %s, want %s", tt.what, len(r), texts(r[0]), tt.want)
		}
	}
}

// TestNoLoop has nothing but straight code: what needs the loop says so.
func TestNoLoop(t *testing.T) {
	o := kernelOptions(t)
	o.HaveLoop = false
	l := load(t, programOf(targetAt(t, "hit", entry(
		value("p", refTo(tPoint), inReg(0, 8, location.RDI)),
		by("v", vecOf(tString), location.RDI),
	))), o)
	for _, p := range l.Spec.Programs {
		for _, ins := range p.Instructions {
			if ins.IsBuiltinCall() && ins.Constant == int64(asm.FnLoop) {
				t.Error("bpf_loop is called")
			}
		}
	}
	l.run(t, "point")
	want := "p: Point { x: 3, y: -4 }\nv: (unsupported: needs bpf_loop (Linux 5.17))\n"
	if r := l.records(t); len(r) != 1 || texts(r[0]) != want {
		t.Errorf("%d records, %s", len(r), texts(r[0]))
	}
}

func TestTwoItems(t *testing.T) {
	o := kernelOptions(t)
	first := entry(value("a", tI64, inReg(0, 8, location.RDI)))
	second := program.Item{Kind: program.Exit, CFA: cfaAtEntry, Cond: -1, Count: -1}
	p := programOf(targetAt(t, "hit", first, counting(1), second, counting(0), counting(1)))
	l := load(t, p, o)
	l.run(t, "many", "3")
	recs := l.records(t)
	if len(recs) != 6 {
		t.Fatalf("%d records", len(recs))
	}
	for i, r := range recs {
		wantItem, wantKind := uint16(0), program.Entry
		if i%2 == 1 {
			wantItem, wantKind = 2, program.Exit
		}
		if r.Item != wantItem || r.Kind != wantKind {
			t.Errorf("record %d: item %d, kind %s", i, r.Item, r.Kind)
		}
	}
	if recs[4].Values[0].Text != "2" || recs[4].CFA != recs[5].CFA {
		t.Errorf("records %+v, %+v", recs[4], recs[5])
	}
	if a, b := l.sum(t, runtime.MapCounts, 0), l.sum(t, runtime.MapCounts, 1); a != 3 || b != 6 {
		t.Errorf("counts %d, %d", a, b)
	}
	l.noLoss(t)
}

// TestCond compares the condition codes with what the comparison says in Go.
func TestCond(t *testing.T) {
	o := kernelOptions(t)
	var items []program.Item
	for cc := range 16 {
		it := entry()
		it.Cond = cc
		count := counting(cc)
		count.Cond = cc
		items = append(items, it, count)
	}
	probe := targetAt(t, "cond_at", items...)
	l := load(t, programOf(probe), o)
	l.run(t, "cond")
	values := []int64{0, 1, -1, 2, -2, 1<<63 - 1, -1 << 63, 255}
	var want [16]uint64
	for _, a := range values {
		for _, b := range values {
			d := a - b
			overflow := (a < 0) != (b < 0) && (d < 0) != (a < 0)
			parity := true
			for i := range 8 {
				parity = parity != (d>>i&1 != 0)
			}
			for cc, holds := range [8]bool{overflow, uint64(a) < uint64(b), a == b, uint64(a) <= uint64(b), d < 0, parity, a < b, a <= b} {
				if holds {
					want[2*cc]++
				} else {
					want[2*cc+1]++
				}
			}
		}
	}
	var got [16]uint64
	for _, r := range l.records(t) {
		got[r.Item/2]++
	}
	if got != want {
		t.Errorf("records %v, want %v", got, want)
	}
	for cc, n := range want {
		if c := l.sum(t, runtime.MapCounts, uint32(cc)); c != n {
			t.Errorf("condition %d: counted %d, want %d", cc, c, n)
		}
	}
	l.noLoss(t)
}

func TestFullRing(t *testing.T) {
	o := kernelOptions(t)
	more := entry()
	more.Kind = program.More
	l := load(t, programOf(targetAt(t, "hit", entry(), more)), o, func(s *ebpf.CollectionSpec) {
		s.Maps[runtime.MapEvents].MaxEntries = uint32(os.Getpagesize())
	})
	const hits = 500
	l.run(t, "many", fmt.Sprint(hits))
	read := uint64(len(l.records(t)))
	entries, mores := l.sum(t, runtime.MapCounters, uint32(runtime.EntryNoRoom)), l.sum(t, runtime.MapCounters, uint32(runtime.MoreNoRoom))
	if read+entries+mores != 2*hits || entries == 0 || mores == 0 {
		t.Errorf("read %d, lost %d and %d of %d", read, entries, mores, 2*hits)
	}
}

func TestNoSlot(t *testing.T) {
	o := kernelOptions(t)
	mark := program.Item{Kind: program.Landing, Cond: -1, Count: -1}
	exit := entry()
	exit.Kind = program.Exit
	never := exit
	never.Cond = 0 // OF: clear at a call here
	l := load(t, programOf(targetAt(t, "hit", entry(), mark, exit, never)), o)
	scratch := l.coll.Maps[runtime.MapScratch]
	busy := make([]byte, scratch.ValueSize())
	busy[0] = 1
	for i := range scratch.MaxEntries() {
		if err := scratch.Put(i, busy); err != nil {
			t.Fatal(err)
		}
	}
	l.run(t, "many", "7")
	if n := len(l.records(t)); n != 0 {
		t.Errorf("%d records", n)
	}
	for c := range runtime.NumCounters {
		want := uint64(0)
		if c == runtime.EntryNoSlot || c == runtime.MarkNoSlot || c == runtime.ExitNoSlot {
			want = 7
		}
		if n := l.sum(t, runtime.MapCounters, uint32(c)); n != want {
			t.Errorf("counter %d: %d, want %d", c, n, want)
		}
	}
}

// TestSlotsReleased: what is claimed is free again afterwards.
func TestSlotsReleased(t *testing.T) {
	o := kernelOptions(t)
	l := load(t, programOf(targetAt(t, "hit", entry())), o)
	l.run(t, "many", "20")
	scratch := l.coll.Maps[runtime.MapScratch]
	for i := range scratch.MaxEntries() {
		b, err := scratch.LookupBytes(i)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b[slotBusy:slotBusy+8], make([]byte, 8)) {
			t.Errorf("slot %d is busy: %x", i, b[:8])
		}
	}
	if n := len(l.records(t)); n != 20 {
		t.Errorf("%d records", n)
	}
}

func TestFilter(t *testing.T) {
	o := kernelOptions(t)
	p := programOf(targetAt(t, "hit", entry(), counting(0)))
	p.Filter = true
	st, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	for _, ns := range []*program.PIDNamespace{nil, {Dev: sys.Dev, Ino: sys.Ino}} {
		p.PIDNamespace = ns
		l := load(t, p, o)
		pid := l.run(t, "many", "2")
		r := l.records(t)
		if n := l.sum(t, runtime.MapCounts, 0); len(r) != 2 || n != 2 || int(r[0].PID) != pid || int(r[0].TID) != pid || r[0].Flags != 0 {
			t.Errorf("namespace %v: %d records, %d counted", ns, len(r), n)
		}
		// Another process is none of its business.
		delete(l.coll.Maps, runtime.MapTargets)
		l.run(t, "many", "2")
		if n := l.sum(t, runtime.MapCounts, 0); len(l.records(t)) != 0 || n != 2 {
			t.Errorf("namespace %v: a stranger was counted", ns)
		}
	}
	// A namespace that the target is not in.
	p.Filter, p.PIDNamespace = false, &program.PIDNamespace{Dev: sys.Dev, Ino: 1}
	l := load(t, p, o)
	l.run(t, "many", "1")
	if r := l.records(t); len(r) != 1 || r[0].Flags != record.FlagForeign || r[0].PID == 0 {
		t.Errorf("%d records, %+v", len(r), r)
	}
}

func TestOwnFrame(t *testing.T) {
	o := kernelOptions(t)
	it := entry(
		value("local", refTo(tI32), inReg(0, 8, location.RDI)),
		value("fixed", refTo(tI32), inReg(0, 8, location.RSI)),
	)
	for i := range it.Values {
		it.Values[i].OwnFrame = true
	}
	// As if hit's caller were the function that it is inlined into.
	it.CFA = location.Expr{{Kind: location.OpRegister, Reg: location.RSP, Arg: 4096}}
	l := load(t, programOf(targetAt(t, "hit", it)), o)
	l.run(t, "frame")
	if r := l.records(t); len(r) != 1 || r[0].Values[0].Text == "5" || r[0].Values[1].Text != "6" {
		t.Errorf("%d records, %s", len(r), texts(r[0]))
	}
}

// TestOps compares expressions with what they mean in Go.
func TestOps(t *testing.T) {
	o := kernelOptions(t)
	const a, b = int64(-1000), int64(7)
	push := func(v int64) location.Op { return location.Op{Kind: location.OpConst, Arg: v} }
	bit := map[bool]int64{true: 1}
	two := map[location.OpKind]int64{
		location.OpAdd: a + b, location.OpSub: a - b, location.OpMul: a * b, location.OpDiv: a / b,
		location.OpMod: int64(uint64(1<<64-1000) % 7), location.OpAnd: a & b, location.OpOr: a | b, location.OpXor: a ^ b,
		location.OpShl: a << 7, location.OpShr: int64(uint64(1<<64-1000) >> 7), location.OpSar: a >> 7,
		location.OpEq: bit[a == b], location.OpNe: bit[a != b], location.OpLt: bit[a < b],
		location.OpLe: bit[a <= b], location.OpGt: bit[a > b], location.OpGe: bit[a >= b],
	}
	one := map[location.OpKind]int64{
		location.OpNeg: -a, location.OpNot: ^a, location.OpAbs: -a,
	}
	it := entry()
	var want []string
	add := func(want64 string, e ...location.Op) {
		it.Values = append(it.Values, value(fmt.Sprint(e), tI64, computed(0, 8, e...)))
		want = append(want, want64)
	}
	for k := location.OpAdd; k <= location.OpGe; k++ {
		add(fmt.Sprint(two[k]), push(a), push(b), location.Op{Kind: k})
	}
	for k := location.OpNeg; k <= location.OpAbs; k++ {
		add(fmt.Sprint(one[k]), push(a), location.Op{Kind: k})
	}
	for _, k := range []location.OpKind{location.OpShl, location.OpShr, location.OpSar} {
		add(map[bool]string{true: "-1", false: "0"}[k == location.OpSar], push(a), push(64), location.Op{Kind: k})
	}
	add("-24", push(0x12345678e8), location.Op{Kind: location.OpSignExtend, Size: 1})
	add("30952", push(0x12345678e8), location.Op{Kind: location.OpZeroExtend, Size: 2})
	add("", push(1), push(0), location.Op{Kind: location.OpDiv})
	add("", push(1), push(0), location.Op{Kind: location.OpMod})
	add("", push(8), location.Op{Kind: location.OpDeref, Size: 8})
	add(fmt.Sprint(^int64(3|-4<<32)), reg(location.RDI), push(0), location.Op{Kind: location.OpAdd}, location.Op{Kind: location.OpDeref, Size: 8}, location.Op{Kind: location.OpNot})
	add("3", reg(location.RDI), location.Op{Kind: location.OpDeref, Size: 3})
	// The stack at its deepest.
	var deep []location.Op
	for i := range location.MaxDepth {
		deep = append(deep, push(int64(i)))
	}
	for range location.MaxDepth - 1 {
		deep = append(deep, location.Op{Kind: location.OpAdd})
	}
	add("120", deep...)
	l := load(t, programOf(targetAt(t, "hit", it)), o)
	l.run(t, "point")
	recs := l.records(t)
	if len(recs) != 1 {
		t.Fatalf("%d records", len(recs))
	}
	for i, v := range recs[0].Values {
		if want[i] == "" {
			if v.Missing != "unreadable" {
				t.Errorf("%s = %+v", v.Name, v)
			}
		} else if v.Text != want[i] {
			t.Errorf("%s = %s %s, want %s", v.Name, v.Text, v.Missing, want[i])
		}
	}
}

// TestExhausted: what is beyond the budget of a record is cut, and says so.
func TestExhausted(t *testing.T) {
	o := kernelOptions(t)
	p := programOf(targetAt(t, "hit", entry(by("v", vecOf(tString), location.RDI))))
	p.Limits.MaxItems = 100
	l := load(t, p, o)
	l.run(t, "strings", "200")
	recs := l.records(t)
	if len(recs) != 1 {
		t.Fatalf("%d records", len(recs))
	}
	if v := recs[0].Values[0]; !strings.HasPrefix(v.Text, `["string 0", "`) || !strings.HasSuffix(v.Text, `"string 99", …]`) || !v.Truncated {
		t.Errorf("%+v", v)
	}
	if recs[0].Flags&record.FlagExhausted != 0 {
		t.Error("exhausted")
	}

	// The same bytes as elements of other types: six regions of 3000 bytes.
	p = programOf(targetAt(t, "hit", entry()))
	for i := range 6 {
		v := value(fmt.Sprint("v", i), refTo(arrayOf(tU8, int64(3000+i))), inReg(0, 8, location.RDI))
		p.Probes[0].Items[0].Values = append(p.Probes[0].Items[0].Values, v)
	}
	p.Limits.MaxItems = 2
	l = load(t, p, o)
	l.run(t, "large")
	recs = l.records(t)
	if len(recs) != 1 {
		t.Fatalf("%d records", len(recs))
	}
	want := "v0: [7, 7, …] truncated\nv1: [7, 7, …] truncated\nv2: [7, 7, …] truncated\nv3: [7, 7, …] truncated\nv4: [7, 7, …] truncated\nv5: … truncated\n"
	if got := texts(recs[0]); got != want || recs[0].Flags&record.FlagExhausted == 0 {
		t.Errorf("flags %d, got\n%s", recs[0].Flags, got)
	}
}

// TestThreads: records that are made at the same time do not mix.
func TestThreads(t *testing.T) {
	o := kernelOptions(t)
	l := load(t, programOf(targetAt(t, "hit", entry(
		by("n", tU64, location.RDI),
		value("s", tStr, inReg(0, 8, location.RSI), inReg(8, 8, location.RDX)),
		value("l", refTo(tNode), inReg(0, 8, location.RDI)),
		value("m", tU64, inReg(0, 8, location.RCX)),
	))), o)
	const threads, hits = 8, 1000
	l.run(t, "threads", fmt.Sprint(hits))
	recs := l.records(t)
	lost := l.sum(t, runtime.MapCounters, uint32(runtime.EntryNoSlot))
	if uint64(len(recs))+lost != threads*hits {
		t.Errorf("%d records, %d lost", len(recs), lost)
	}
	t.Logf("%d records, %d lost for want of a slot", len(recs), lost)
	tids := make(map[uint64]string)
	for _, r := range recs {
		n, m := r.Values[0].Text, r.Values[3].Text
		want := fmt.Sprintf("n: %s\ns: \"thread %s\"\nl: Node { next: Some(Node { next: None, value: %s }), value: 0 }\nm: %s\n", n, m, m, m)
		// node.next stands where n is read.
		if got := texts(r); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
		if old, ok := tids[uint64(r.TID)]; ok && old != m {
			t.Fatalf("thread %d has %s and %s", r.TID, old, m)
		}
		tids[uint64(r.TID)] = m
	}
	if len(tids) != threads {
		t.Errorf("%d threads", len(tids))
	}
}

// TestMulti attaches one program to two addresses through uprobe_multi.
func TestMulti(t *testing.T) {
	o := kernelOptions(t)
	if v, err := features.LinuxVersionCode(); err != nil || v < 6<<16|6<<8 {
		t.Skip("uprobe_multi came with Linux 6.6")
	}
	probe := targetAt(t, "hit", entry(value("s", tStr, inReg(0, 8, location.RDI), inReg(8, 8, location.RSI))))
	other := targetAt(t, "cond_at", entry(value("s", tStr, inReg(0, 8, location.RDI), inReg(8, 8, location.RSI))))
	l := load(t, programOf(probe, other), o, func(s *ebpf.CollectionSpec) {
		for _, p := range s.Programs {
			p.AttachType = ebpf.AttachTraceUprobeMulti
		}
	})
	if len(l.Spec.Programs) != 1 {
		t.Fatalf("%d programs", len(l.Spec.Programs))
	}
	ex, err := link.OpenExecutable(probe.Path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := ex.UprobeMulti(nil, l.coll.Programs[l.Probes[0].Program], &link.UprobeMultiOptions{
		Addresses: []uint64{probe.Offset, other.Offset}, Cookies: []uint64{0, 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Probes = nil
	l.run(t, "untouched")
	u.Close()
	if r := l.records(t); len(r) != 1 || texts(r[0]) != "s: \"far\"\n" || r[0].Cookie != 0 {
		t.Errorf("%d records, %+v", len(r), r)
	}
}

// TestVerifier loads the largest shapes that are made.
func TestVerifier(t *testing.T) {
	o := kernelOptions(t)
	for _, tt := range []struct{ types, edges, params int }{{40, 60, 20}, {200, 64, 32}, {1, 1, 1}} {
		p := stress(tt.types, tt.edges, tt.params)
		for _, sleepable := range []bool{true, false} {
			o.Sleepable = sleepable
			c, err := Compile(p, o)
			if err != nil {
				t.Fatal(err)
			}
			for name, spec := range c.Spec.Programs {
				maps := make(map[string]*ebpf.MapSpec)
				for k, v := range c.Spec.Maps {
					maps[k] = v.Copy()
				}
				start := time.Now()
				coll, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{Maps: maps, Programs: map[string]*ebpf.ProgramSpec{name: spec}},
					ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
				if err != nil {
					t.Fatalf("%v: %s: %v", tt, name, err)
				}
				took := time.Since(start)
				n := instructions(coll.Programs[name].VerifierLog)
				t.Logf("%v: %s: %d instructions, %d verified, %v", tt, name, spec.Instructions.Size()/asm.InstructionSize, n, took)
				if n > 500_000 {
					t.Errorf("%v: the verifier looked at %d instructions", tt, n)
				}
				coll.Close()
			}
		}
	}
}

// stress is a program over n types of so many edges each, all leading to others.
func stress(n, edges, params int) *program.Program {
	all := make([]*types.Type, n)
	for i := range all {
		all[i] = structOf(fmt.Sprint("T", i), int64(16*edges+8*i+8))
	}
	for i, t := range all {
		for j := range edges {
			f := types.Field{Name: fmt.Sprint("f", j), Offset: int64(16 * j), Type: option(refTo(all[(i*7+j*3+1)%n]))}
			if j%3 == 1 {
				f.Type = tStr
			}
			t.Fields = append(t.Fields, f)
		}
	}
	it := entry()
	for i := range params {
		it.Values = append(it.Values, by(fmt.Sprint("p", i), all[i%n], location.RDI))
	}
	return programOf(program.Probe{Path: "target", Items: []program.Item{it}})
}

func TestProgramHelpersExist(t *testing.T) {
	kernelOptions(t)
	for _, h := range []asm.BuiltinFunc{asm.FnGetAttachCookie, asm.FnGetNsCurrentPidTgid, asm.FnRingbufOutput} {
		if err := features.HaveProgramHelper(ebpf.Kprobe, h); err != nil {
			t.Errorf("%s: %v", h, err)
		}
	}
}
