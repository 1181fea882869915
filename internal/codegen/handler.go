package codegen

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// The handlers of a script. All that a handler computes with is in its frame: its
// variables, and whatever is more than a word. A small frame is on the stack; others
// are claimed as scratch slots are (slot.go), since the stack has 512 bytes. Scalars
// are evaluated in r0, everything else to a place in the frame. Loop bodies are
// callbacks, for the verifier looks at those once; they find all they need in the
// frame.
//
// r6 is the context, r7 the frame.

// The head of a frame.
const (
	frameBusy = 0 // as slotBusy and slotKey; a frame on the stack has neither
	headCFA   = 16
	headFlags = 24
	headFail  = 32
	headBias  = 40
	headIDs   = 48 // u32 pid, u32 tid, as in a record
	headState = 56 // stateDone once the handler shall end; or statePassed
	headSize  = 64

	stateDone   = 1
	statePassed = 2 // of one that decides: it came to its end
)

var inHead = home{base: r7, thread: headIDs, cfa: headCFA, flags: headFlags, failed: headFail, bias: headBias}

// onStack is how large a frame on the stack may be: below what expressions use, and
// above what the functions take that are called.
const onStack = frameSize + frameSaved - 64

// maxFrame is how far offsets in instructions reach.
const maxFrame = 32<<10 - 8

// loopFrame is where on the stack a loop's callback finds the context and the frame.
// Nothing is being evaluated then.
const loopFrame = frameStack - 24

const fnFrame = "claim_frame"

// Fault is what a handler came upon, an index into runtime.MapFaults.
type Fault = runtime.Fault

// handler makes the program of one handler at the sites of one shape.
type handler struct {
	c     *Compiled
	p     *program.Program
	s     *ir.Script
	o     Options
	cs    *classes
	sizes sizes
	name  string
	h     *ir.Handler
	item  *program.Item // nil for a timer's
	// samples: it is a timer of the kernel's, that finds a process.
	samples bool

	// decides: it is no program, but a function that says whether it comes to its end.
	decides bool

	f      *fn // being written
	fns    []*fn
	onHeap bool
	needs  needs

	vars  []int // offsets in the frame
	at    int   // the frame's first free byte
	most  int
	lines int // numbers names

	// Where control goes from here.
	end, brk, cont string
	// faults are where it goes for what goes wrong in this function.
	faults map[Fault]string
	edges  []types.Edge // that records follow
	err    error
}

// needs are what a handler's head must hold.
type needs struct{ cfa, bias, thread bool }

// compile makes the handler's program.
func (g *handler) compile() (asm.Instructions, error) {
	if err := g.build(); err != nil {
		return nil, err
	}
	fns := append(g.fns, claim(fnFrame, runtime.MapFrames), claim(fnClaim, runtime.MapScratch), adder(fnFault, runtime.MapFaults))
	return join(append(fns, walkers(g.edges, g.cs, g.sizes, g.o)...))
}

// build makes the handler's own functions.
func (g *handler) build() error {
	g.look()
	room := onStack
	if g.decides {
		room -= decidingRoom
	}
	events := len(g.c.Events)
	for _, g.onHeap = range []bool{g.loops() || g.captures(), true} {
		g.c.Events = g.c.Events[:events]
		g.fns, g.edges, g.lines, g.most = nil, nil, 0, 0
		if err := g.main(); err != nil {
			return err
		}
		if g.onHeap || g.most <= room {
			break
		}
	}
	if g.most > maxFrame {
		return fmt.Errorf("its variables and strings take %d bytes, more than %d", g.most, maxFrame)
	}
	if g.onHeap {
		g.c.frame = max(g.c.frame, g.most)
	}
	return nil
}

// fail notes an error; code goes on being made, and is thrown away.
func (g *handler) fail(format string, a ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, a...)
	}
}

func (g *handler) main() error {
	f := newFn(g.name, ptr("ctx"))
	if !g.decides {
		f.linkage = btf.GlobalFunc
	}
	f.at = inHead
	g.f, g.fns, g.faults = f, append(g.fns, f), map[Fault]string{}
	out, free := f.newLabel("out"), f.newLabel("free")
	f.mov(r6, r1)
	if g.item != nil && g.item.Cond >= 0 {
		f.unless(g.item.Cond, r6, out)
	}
	inner := generator{p: g.p}
	filter := g.p.Filter && (g.item != nil || g.samples) && !g.decides
	if filter || g.onHeap || g.needs.thread {
		inner.thread(f, out)
	}
	if filter {
		f.mov(r1, r7)
		f.emit(asm.RSh.Imm(r1, 32))
		f.lookup(runtime.MapTargets)
		f.emit(asm.JEq.Imm(r0, 0, out))
	}
	if g.onHeap {
		lost, got := f.newLabel("lost"), f.newLabel("got")
		f.mov(r9, r7)
		f.mov(r1, r7)
		f.call(fnFrame)
		f.emit(asm.JEq.Imm(r0, 0, lost))
		f.jump(got)
		f.place(lost)
		g.fault(runtime.NoFrame)
		f.jump(out)
		f.place(got)
		f.mov(r7, r0)
	} else {
		if g.needs.thread {
			f.mov(r9, r7)
		}
		f.mov(r7, r10)
		f.emit(asm.Add.Imm(r7, 0)) // to be set when the size is known
	}
	base := len(f.ins) - 1
	if g.needs.thread {
		f.store(r7, headIDs+4, r9, u32)
		f.emit(asm.RSh.Imm(r9, 32))
		f.store(r7, headIDs, r9, u32)
	}
	f.storeImm(r7, headState, 0, u64)
	f.storeImm(r7, headFlags, 0, u64)
	g.at, g.end = headSize, free
	g.vars = make([]int, len(g.h.Vars))
	for i, t := range g.h.Vars {
		g.vars[i] = g.temp(t.Size)
		if !g.assigned(i) {
			g.zero(g.vars[i], t.Size)
		}
	}
	if g.item != nil {
		g.head()
	}
	g.stmts(g.h.Body)
	if g.decides {
		f.storeImm(r7, headState, statePassed, u64)
	}
	f.place(free)
	if g.decides {
		f.load(r8, r7, headState, u64)
	}
	if g.onHeap {
		f.storeImm(r7, frameBusy, 0, u64)
	}
	if g.decides {
		f.mov(r0, r8)
		f.emit(asm.And.Imm(r0, statePassed))
		f.exit()
	}
	f.place(out)
	f.exitWith(0)
	g.tails()
	if !g.onHeap {
		f.ins[base].Constant = int64(frameSaved - g.most)
	}
	return g.err
}

// head evaluates what places stand on.
func (g *handler) head() {
	f := g.f
	if g.needs.bias {
		// The cookie's site says where this is as linked.
		none := f.newLabel("none")
		f.bias(r7, headBias, none)
		f.place(none)
	}
	if g.needs.cfa {
		inner := generator{p: g.p, o: g.o}
		p := plan{cfaBad: true}
		if len(g.item.CFA) > 0 && exprProblem(g.item.CFA) == "" && !g.item.CFA.Uses(location.OpCFA) {
			p.cfa, p.cfaBad = g.item.CFA, mayFail(g.item.CFA, false)
		}
		inner.cfa(f, &p)
	}
}

// look finds out what the handler needs at its head.
func (g *handler) look() {
	walkStmts(g.h.Body, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.Emit:
			g.needs.thread = true
			g.needs.bias = g.needs.bias || g.objects(g.s.Events[s.Event])
		}
	}, func(x ir.Expr) {
		switch x := x.(type) {
		case *ir.Builtin:
			g.needs.thread = g.needs.thread || x.Kind == ir.Pid || x.Kind == ir.Tid || x.Kind == ir.UserStack
			g.needs.cfa = g.needs.cfa || x.Kind == ir.CFA
			g.needs.bias = g.needs.bias || x.Kind == ir.Bias || x.Kind == ir.UserStack
		}
	})
	if g.item == nil {
		return
	}
	exprs := []location.Expr{g.item.CFA}
	for _, v := range g.item.Values {
		g.needs.cfa = g.needs.cfa || v.OwnFrame
		for _, p := range v.Place.Pieces {
			g.needs.cfa = g.needs.cfa || p.Expr.Uses(location.OpCFA) || p.Expr.Uses(location.OpSaved)
			g.needs.thread = g.needs.thread || p.Expr.Uses(location.OpSaved)
			exprs = append(exprs, p.Expr)
		}
	}
	g.needs.bias = g.needs.bias || slices.ContainsFunc(exprs, func(e location.Expr) bool { return e.Uses(location.OpStatic) })
}

func (g *handler) loops() (found bool) {
	walkStmts(g.h.Body, func(s ir.Stmt) {
		switch s.(type) {
		case *ir.While, *ir.ForRange, *ir.ForMap:
			found = true
		}
	}, func(x ir.Expr) {
		switch x.(type) {
		case *ir.TextHas, *ir.MapLen:
			// What a callback counts on the stack the verifier would follow number by number.
			found = true
		}
	})
	return found
}

func (g *handler) captures() (found bool) {
	walkStmts(g.h.Body, nil, func(x ir.Expr) {
		_, is := x.(*ir.Capture)
		found = found || is
	})
	return found
}

// temp takes room in the frame until release.
func (g *handler) temp(size int) int {
	off := g.at
	g.at += align8(max(size, 8))
	g.most = max(g.most, g.at)
	return off
}

// release gives back what has been taken since the mark that is the value of g.at then.
func (g *handler) release(mark int) { g.at = mark }

func (g *handler) label(hint string) string { return g.f.newLabel(hint) }

// fault counts something that went wrong.
func (g *handler) fault(k Fault) {
	g.f.imm(r1, int64(k))
	g.f.call(fnFault)
}

const fnFault = "fault"

// placesKey is all about an item's places that decides a handler's code.
func placesKey(it *program.Item) string {
	var b strings.Builder
	fmt.Fprintf(&b, "handler %d cond %d cfa %s", it.Handler, it.Cond, exprKey(it.CFA))
	for _, v := range it.Values {
		fmt.Fprintf(&b, "\n%d own %t", v.Type.Size, v.OwnFrame)
		for _, p := range v.Place.Pieces {
			fmt.Fprintf(&b, "\n%s %d+%d %s %x %s %s", p.Kind, p.Offset, p.Size, p.Reg, p.Bytes, exprKey(p.Expr), p.Why)
		}
	}
	return b.String()
}

// handlers compiles what items of kind Run and timers do.
func (c *Compiled) handlers(p *program.Program, o Options, cs *classes, sz sizes) error {
	s := p.Script
	if s == nil {
		return nil
	}
	byKey := map[string]string{}
	add := func(name string, h *ir.Handler, it *program.Item, samples bool) error {
		g := handler{c: c, p: p, s: s, o: o, cs: cs, sizes: sz, name: name, h: h, item: it, samples: samples}
		ins, err := g.compile()
		if err != nil {
			return fmt.Errorf("codegen: %s: %w", h.Name, err)
		}
		spec := &ebpf.ProgramSpec{Name: name, Type: ebpf.Kprobe, SectionName: "uprobe", Instructions: ins, License: "Dual MIT/GPL"}
		switch {
		case samples:
			spec.Type, spec.SectionName = ebpf.PerfEvent, "perf_event"
		case it == nil:
			spec.Type, spec.SectionName = ebpf.RawTracepoint, "raw_tracepoint"
		case o.Sleepable:
			spec.SectionName, spec.Flags = "uprobe.s", flagSleepable
		}
		c.Spec.Programs[name] = spec
		c.names = append(c.names, name)
		return nil
	}
	for i := range p.Probes {
		probe := &p.Probes[i]
		for j := range probe.Items {
			it := &probe.Items[j]
			if it.Kind != program.Run {
				continue
			}
			key := placesKey(it)
			name, ok := byKey[key]
			if !ok {
				name = fmt.Sprintf("run_%d", len(byKey))
				byKey[key] = name
				if err := add(name, s.Handlers[it.Handler], it, false); err != nil {
					return err
				}
			}
			c.Probes = append(c.Probes, runtime.Probe{Path: probe.Path, Offset: probe.Offset, Cookie: uint64(i), Program: name})
		}
	}
	timer := o
	timer.Sleepable = false
	for i, t := range s.Timers {
		name := fmt.Sprintf("timer_%d", i)
		o = timer
		if err := add(name, s.Handlers[t.Handler], nil, t.Kind == ir.Profile); err != nil {
			return err
		}
		c.Timers = append(c.Timers, name)
	}
	return nil
}

// scriptRoots are the types of Rust values that a script's events show.
func scriptRoots(s *ir.Script) (roots []*types.Type) {
	if s == nil {
		return nil
	}
	for _, e := range s.Events {
		for _, t := range e.Rust {
			if t != nil {
				roots = append(roots, t)
			}
		}
	}
	return roots
}

// eventSize is the fixed part of the largest event.
func eventSize(s *ir.Script) (most int) {
	if s == nil {
		return 0
	}
	for _, e := range s.Events {
		n := 0
		for i, t := range e.Args {
			if t.Kind == ir.Value {
				n += align8(int(min(max(e.Rust[i].Size, 0), maxPiece)))
			} else {
				n += align8(max(t.Size, 8))
			}
		}
		most = max(most, n)
	}
	return most
}

// mapName is the name of a script's map in the collection.
func mapName(i int) string { return fmt.Sprintf("map_%d", i) }

// scriptMaps adds the maps of a script, and those that its handlers use.
func (c *Compiled) scriptMaps(p *program.Program) {
	s := p.Script
	if s == nil {
		return
	}
	largest := max(c.zeros, 8)
	for i, m := range s.Maps {
		spec := &ebpf.MapSpec{Name: mapName(i), Type: ebpf.Hash, KeySize: uint32(keySize(m)), ValueSize: uint32(valueSize(m.Value)), MaxEntries: uint32(max(m.Entries, 1))}
		aggregate := m.Value.Kind.Aggregate()
		switch {
		case c.Single[i]:
			spec.KeySize, spec.ValueSize = 4, spec.ValueSize+SingleSet
			if spec.Type = ebpf.Array; aggregate {
				spec.Type = ebpf.PerCPUArray
			}
		case m.Declared == "lruhash" && !aggregate:
			spec.Type = ebpf.LRUHash
		case m.Declared == "lruhash" || m.Declared == "percpulruhash":
			spec.Type = ebpf.LRUCPUHash
		case aggregate || m.Declared == "percpuhash":
			spec.Type = ebpf.PerCPUHash
		}
		if m.Key == nil {
			spec.MaxEntries = 1
		}
		// Room for large values is taken when there are any.
		if spec.Type != ebpf.LRUHash && spec.Type != ebpf.LRUCPUHash && int(spec.ValueSize)*int(spec.MaxEntries) > 1<<20 {
			spec.Flags |= flagNoPrealloc
		}
		c.Spec.Maps[spec.Name] = spec
		c.Maps = append(c.Maps, spec.Name)
		largest = max(largest, int(spec.ValueSize))
	}
	words := make([]ebpf.MapKV, len(s.Words))
	for i, w := range s.Words {
		words[i] = ebpf.MapKV{Key: uint32(i), Value: w}
	}
	names := make([]ebpf.MapKV, 0, len(s.Names))
	for i, n := range s.Names {
		if !c.named {
			break
		}
		v := make([]byte, nameSize(s))
		copy(v[:len(v)-1], n)
		names = append(names, ebpf.MapKV{Key: uint32(i), Value: v})
	}
	c.optional(
		&ebpf.MapSpec{Name: mapWords, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: uint32(len(words)), Flags: flagReadOnly, Contents: words},
		&ebpf.MapSpec{Name: mapNames, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(nameSize(s)), MaxEntries: uint32(len(s.Names)), Flags: flagReadOnly, Contents: names},
		&ebpf.MapSpec{Name: mapZeros, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(largest), MaxEntries: 1},
		&ebpf.MapSpec{Name: runtime.MapFrames, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(max(c.frame, headSize)), MaxEntries: runtime.SlotsPerCPU},
		&ebpf.MapSpec{Name: runtime.MapFaults, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(runtime.NumFaults)},
	)
}

const (
	// mapWords is an array, by cookie, of ir.Words.
	mapWords = "words"
	// mapNames is an array, by index, of ir.Script.Names, cut to maxName bytes with the zero
	// that ends them.
	mapNames = "names"
	// mapZeros holds one value of zeros, as large as any of a script's maps.
	mapZeros = "zeros"

	flagNoPrealloc = 1 // BPF_F_NO_PREALLOC
)

// nameSize is how many bytes a name takes in mapNames.
func nameSize(s *ir.Script) int {
	const maxName = 256
	most := 0
	for _, n := range s.Names {
		most = max(most, len(n)+1)
	}
	return align8(min(most, maxName))
}

func keySize(m *ir.Map) int {
	if m.Key == nil {
		return 8
	}
	return align8(m.Key.Size)
}

func valueSize(t *ir.Type) int {
	switch t.Kind {
	case ir.Count, ir.Sum:
		return 8
	case ir.Avg, ir.Stats, ir.Min, ir.Max:
		return 16
	case ir.Hist, ir.LHist:
		return 8 * t.Buckets()
	case ir.Series:
		return ir.SeriesSize * t.Count
	}
	return align8(t.Size)
}
