package x86

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Code gives the bytes of a program: those from addr to the end of addr's
// segment, or nil where nothing is mapped. Analyses read jump tables through
// it, so it should serve read-only data as well as text.
type Code func(addr uint64) []byte

// Range is the addresses from Low up to, not including, High.
type Range struct{ Low, High uint64 }

// Contains says whether addr lies in r.
func (r Range) Contains(addr uint64) bool { return r.Low <= addr && addr < r.High }

func contains(ranges []Range, addr uint64) bool {
	for _, r := range ranges {
		if r.Contains(addr) {
			return true
		}
	}
	return false
}

// maxFunc is the largest function that is decoded, in bytes of code.
const maxFunc = 64 << 20

// Func is the decoded code of one function with its control flow. It is made
// once, by NewFunc, and then answers any number of questions; its methods must
// not be called from several goroutines at once.
type Func struct {
	// Insts holds the instructions of all parts in order of address.
	Insts []Inst

	// AtEntryDepth may be set to say, from call-frame information, whether
	// the stack pointer at addr has its value of the function's entry. It is
	// asked where following the code does not tell.
	AtEntryDepth func(addr uint64) (at, known bool)

	noReturn func(target uint64) bool
	// dead holds calls that were found not to return: by their index.
	dead map[int]bool

	code   Code
	entry  uint64
	parts  []Range // sorted, not overlapping
	tables []dispatch

	// Predecessors by jump, from direct jumps and resolved tables, in
	// compressed rows: those of instruction i are preds[predAt[i]:predAt[i+1]].
	predAt []int32
	preds  []int32
	// stray holds targets of jumps that lie in the parts but not at the start
	// of an instruction (a jump over a lock prefix).
	stray map[uint64]bool

	mark  []uint32 // visited marks, valid where equal to stamp
	stamp uint32
	// budget is what is left of tableBudget: hostile code must not cost more.
	budget int
	work   []int32

	frames []frameState // by instruction
}

// dispatch is an indirect jump that stays in the function, or may do so.
type dispatch struct {
	at      int      // index of the jump
	targets []uint64 // sorted; nil if not resolved
	bounded bool     // the number of targets was read from a bounds check
	table   bool     // it has the form of a table dispatch
}

// NewFunc decodes all parts of a function, entered at parts[0].Low. Each part
// is decoded from its start to its end; padding is tolerated, anything that is
// no instruction is an error that wraps ErrInvalid or ErrTruncated and names
// the address. noReturn may be nil; else it says of the target of a direct
// call, or of the GOT slot that a call goes through, that the callee never
// returns (names and DW_AT_noreturn know; see NoReturn for what code tells).
func NewFunc(code Code, parts []Range, noReturn func(target uint64) bool) (*Func, error) {
	if len(parts) == 0 {
		return nil, errors.New("x86: a function without ranges")
	}
	f := &Func{code: code, entry: parts[0].Low, noReturn: noReturn}
	f.parts = slices.Clone(parts)
	slices.SortFunc(f.parts, func(a, b Range) int {
		if a.Low < b.Low {
			return -1
		}
		return b2i(a.Low > b.Low)
	})
	var size uint64
	for i, p := range f.parts {
		if p.High < p.Low || i > 0 && p.Low < f.parts[i-1].High {
			return nil, fmt.Errorf("x86: ranges of the function at %#x overlap at %#x", f.entry, p.Low)
		}
		if size += p.High - p.Low; size > maxFunc {
			return nil, fmt.Errorf("x86: function at %#x is larger than %d bytes", f.entry, maxFunc)
		}
	}
	f.Insts = make([]Inst, 0, size/4+1)
	for _, p := range f.parts {
		b := code(p.Low)
		if uint64(len(b)) < p.High-p.Low {
			return nil, fmt.Errorf("x86: no code at %#x: %w", p.Low+uint64(len(b)), ErrTruncated)
		}
		b = b[:p.High-p.Low]
		for addr := p.Low; len(b) > 0; {
			in, err := Decode(b, addr)
			if err != nil {
				return nil, fmt.Errorf("%w at %#x", err, addr)
			}
			f.Insts = append(f.Insts, in)
			b = b[in.Len:]
			addr += uint64(in.Len)
		}
	}
	f.mark = make([]uint32, len(f.Insts))
	f.budget = tableBudget
	f.findDead()
	f.link()
	f.resolve()
	f.propagate()
	return f, nil
}

// index returns the index of the instruction that starts at addr.
func (f *Func) index(addr uint64) (int, bool) {
	i := sort.Search(len(f.Insts), func(i int) bool { return f.Insts[i].Addr >= addr })
	return i, i < len(f.Insts) && f.Insts[i].Addr == addr
}

// Contains says whether addr lies in one of the function's parts.
func (f *Func) Contains(addr uint64) bool { return contains(f.parts, addr) }

// fallsInto says whether control can run from instruction i into i+1.
func (f *Func) fallsInto(i int) bool {
	if i < 0 || i+1 >= len(f.Insts) {
		return false
	}
	in := &f.Insts[i]
	return in.End() == f.Insts[i+1].Addr && in.FallsThrough() && !f.dead[i]
}

// findDead finds the calls that never return: those that noReturn knows, and
// those after which the code uses what a call leaves undefined (psABI, 3.2.1:
// the flags, and registers that hold neither results nor saved values), so that
// it must be reached from elsewhere.
func (f *Func) findDead() {
	const undefined = 1<<Flags | 1<<RSI | 1<<RDI | 1<<R8 | 1<<R9 | 1<<R10 | 1<<R11
	for i := range f.Insts {
		in := &f.Insts[i]
		target := in.Target
		if in.Kind == CallIndirect && in.Mem.RIPRel {
			target = in.Mem.Target
		} else if in.Kind != Call {
			continue
		}
		if f.noReturn != nil && f.noReturn(target) || i+1 < len(f.Insts) && f.Insts[i+1].Reads&undefined != 0 {
			f.markDead(i)
		}
	}
}

func (f *Func) markDead(i int) {
	if f.dead == nil {
		f.dead = map[int]bool{}
	}
	f.dead[i] = true
}

// link builds the predecessor rows from direct jumps and resolved tables.
func (f *Func) link() {
	n := len(f.Insts)
	type edge struct{ from, to int32 }
	var edges []edge
	f.stray = nil
	add := func(from int, target uint64) {
		if to, ok := f.index(target); ok {
			edges = append(edges, edge{int32(from), int32(to)})
		} else if f.Contains(target) {
			if f.stray == nil {
				f.stray = map[uint64]bool{}
			}
			f.stray[target] = true
			// Control joins at the next boundary (or, for a jump over a
			// prefix, as good as at the instruction itself).
			if to > 0 && f.Insts[to-1].End() > target {
				edges = append(edges, edge{int32(from), int32(to - 1)})
			}
		}
	}
	for i := range f.Insts {
		if f.Insts[i].Branches() {
			add(i, f.Insts[i].Target)
		}
	}
	for _, t := range f.tables {
		for _, target := range t.targets {
			add(t.at, target)
		}
	}
	f.predAt = make([]int32, n+1)
	for _, e := range edges {
		f.predAt[e.to+1]++
	}
	for i := 0; i < n; i++ {
		f.predAt[i+1] += f.predAt[i]
	}
	f.preds = make([]int32, len(edges))
	at := slices.Clone(f.predAt)
	for _, e := range edges {
		f.preds[at[e.to]] = e.from
		at[e.to]++
	}
}

// jumpsTo returns the instructions that jump to instruction i. The result is
// the function's own and must not be changed.
func (f *Func) jumpsTo(i int) []int32 { return f.preds[f.predAt[i]:f.predAt[i+1]] }

// eachSucc calls visit with each known successor of instruction i.
func (f *Func) eachSucc(i int, visit func(int)) {
	if f.fallsInto(i) {
		visit(i + 1)
	}
	in := &f.Insts[i]
	switch {
	case in.Branches():
		if to, ok := f.index(in.Target); ok {
			visit(to)
		}
	case in.Kind == JmpIndirect:
		if t := f.tableAt(i); t != nil {
			for _, target := range t.targets {
				if to, ok := f.index(target); ok {
					visit(to)
				}
			}
		}
	}
}

func (f *Func) tableAt(i int) *dispatch {
	j := sort.Search(len(f.tables), func(j int) bool { return f.tables[j].at >= i })
	if j < len(f.tables) && f.tables[j].at == i {
		return &f.tables[j]
	}
	return nil
}

// begin starts a new walk: no instruction is visited.
func (f *Func) begin() {
	f.stamp++
	if f.stamp == 0 {
		clear(f.mark)
		f.stamp = 1
	}
	f.work = f.work[:0]
}

// push adds instruction i to the walk unless it has been there.
func (f *Func) push(i int) {
	if f.mark[i] != f.stamp {
		f.mark[i] = f.stamp
		f.work = append(f.work, int32(i))
	}
}

func (f *Func) pop() (int, bool) {
	if len(f.work) == 0 {
		return 0, false
	}
	i := f.work[len(f.work)-1]
	f.work = f.work[:len(f.work)-1]
	return int(i), true
}

// callClobbered is what a call may change (psABI, 3.2.1).
const callClobbered = 1<<RAX | 1<<RCX | 1<<RDX | 1<<RSI | 1<<RDI | 1<<R8 | 1<<R9 | 1<<R10 | 1<<R11 | 1<<Flags | RegSet(0xffffffff)<<X0

// changes returns the registers that do not keep their value across in.
func changes(in *Inst) RegSet {
	if in.Kind == Call || in.Kind == CallIndirect {
		return in.Writes&^RSP.Set() | callClobbered
	}
	return in.Writes
}
