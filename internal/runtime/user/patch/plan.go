package patch

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/x86"
)

// Function is a function with the sites in it.
type Function struct {
	// Code is made of all parts of the function: jumps from a cold part that is not
	// there would be missed.
	Code  *x86.Func
	Sites []Site
	// Targets are addresses that control comes to though no jump of the function shows
	// it: landing pads, and symbols within it.
	Targets []uint64
}

// Planner plans the patches of one program's text. It remembers what it has planned,
// so that sites can be added later.
type Planner struct {
	// Code gives the bytes of the program as they are without patches.
	Code x86.Code
	// Functions are the ranges of all functions around, in order of Low: what lies
	// between two of them, and is nothing but int3 and nops, may be overwritten.
	Functions []x86.Range
	Alloc     Allocator

	owner   map[uint64]*Patch // by byte: displaced or overwritten
	current map[uint64]byte   // bytes that patches have changed
	frozen  map[uint64]int    // how many puns rely on a byte
}

// pending is an address that has no patch yet.
type pending struct {
	f     *function
	at    int // the instruction
	sites []Site
	err   error // why the last way tried did not fit
}

func (p *pending) addr() uint64 { return p.f.code.Insts[p.at].Addr }

// function is what planning needs to know of a Function.
type function struct {
	code       *x86.Func
	targets    map[uint64]bool
	sites      map[uint64]bool
	unresolved bool
}

// target says whether control comes to addr by other ways than from the instruction
// before.
func (f *function) target(addr uint64) bool { return f.targets[addr] || f.code.JumpedTo(addr) }

// Plan plans patches for the sites of some functions: the patches in the order of
// planting, and the sites that cannot be taken. A site at an endbr64 is moved behind
// it, for an indirect jump must land on it.
func (pl *Planner) Plan(funcs []Function) ([]*Patch, []Problem) {
	if pl.owner == nil {
		pl.owner, pl.current, pl.frozen = map[uint64]*Patch{}, map[uint64]byte{}, map[uint64]int{}
	}
	var problems []Problem
	var todo []*pending
	for i := range funcs {
		t, bad := pl.survey(&funcs[i])
		todo = append(todo, t...)
		problems = append(problems, bad...)
	}
	var patches []*Patch
	for _, way := range []func(*pending) (*Patch, error){pl.jump, pl.around, pl.short, pl.evict} {
		todo = slices.DeleteFunc(todo, func(p *pending) bool {
			if in := pl.owner[p.addr()]; in != nil {
				return pl.join(p, in)
			}
			patch, err := way(p)
			if err != nil {
				if p.err == nil {
					p.err = err
				}
				return false
			}
			if patch != nil {
				if patch.host != nil && patch.host.Code.Bytes == nil && !slices.Contains(patches, patch.host) {
					patches = append(patches, patch.host)
				}
				patches = append(patches, patch)
			}
			return true
		})
	}
	var planned []*Patch
	for _, patch := range patches {
		err := ErrNoRoom
		if patch.host == nil || patch.host.Code.Bytes != nil {
			err = pl.finish(patch)
		}
		if err != nil {
			pl.disown(patch)
			todo = append(todo, pl.split(patch, funcs, err)...)
			continue
		}
		planned = append(planned, patch)
	}
	// A pun relies on what is behind it, so the last goes first.
	slices.SortFunc(todo, func(a, b *pending) int { return cmp.Compare(b.addr(), a.addr()) })
	for _, p := range todo {
		patch, err := pl.pun(p)
		if err != nil {
			if p.err != nil {
				err = fmt.Errorf("%w; %w", p.err, err)
			}
			for _, s := range p.sites {
				problems = append(problems, Problem{s, err})
			}
			continue
		}
		planned = append(planned, patch)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Site.Addr, b.Site.Addr) })
	return planned, problems
}

// Release forgets patches that have been taken out, in the order of planting. Their
// trampolines stay taken: a thread may be in them.
func (pl *Planner) Release(patches []*Patch) {
	for _, p := range slices.Backward(patches) {
		pl.disown(p)
		for _, w := range slices.Backward(p.Writes) {
			for i, b := range w.Old {
				if pl.Code(w.Addr + uint64(i))[0] == b {
					delete(pl.current, w.Addr+uint64(i))
				} else {
					pl.current[w.Addr+uint64(i)] = b
				}
			}
		}
		if p.How == Pun {
			pl.freeze(p, -1)
		}
	}
}

// survey finds the instructions of a function's sites.
func (pl *Planner) survey(fn *Function) (todo []*pending, problems []Problem) {
	f := &function{code: fn.Code, sites: map[uint64]bool{}, unresolved: len(fn.Code.Unresolved()) > 0}
	f.targets = make(map[uint64]bool, len(fn.Targets))
	for _, t := range fn.Targets {
		f.targets[t] = true
	}
	sites := slices.Clone(fn.Sites)
	slices.SortStableFunc(sites, func(a, b Site) int { return cmp.Compare(a.Addr, b.Addr) })
	direction := slices.ContainsFunc(fn.Code.Insts, func(in x86.Inst) bool {
		return in.Map == 0 && !in.Vex && in.Opcode == 0xfd
	})
	for _, s := range sites {
		at, ok := fn.Code.Index(s.Addr)
		var err error
		switch {
		case !ok:
			err = ErrNoInstruction
		case direction && s.Kind != Entry:
			err = ErrDirection // programs rely on its being clear (psABI, 3.2.1)
		case pl.isEndbr(&fn.Code.Insts[at]):
			next := fn.Code.Insts[at].End()
			if at++; at == len(fn.Code.Insts) || fn.Code.Insts[at].Addr != next {
				err = ErrNoInstruction
			} else if f.target(next) {
				err = fmt.Errorf("behind the endbr64: %w", ErrJumpedInto)
			}
			s.Addr = next
		}
		if err != nil {
			problems = append(problems, Problem{s, err})
			continue
		}
		if n := len(todo); n > 0 && todo[n-1].at == at {
			todo[n-1].sites = append(todo[n-1].sites, s)
		} else {
			todo = append(todo, &pending{f: f, at: at, sites: []Site{s}})
			f.sites[s.Addr] = true
		}
	}
	return todo, problems
}

func (pl *Planner) isEndbr(in *x86.Inst) bool {
	return in.Len == 4 && string(pl.Code(in.Addr)[:4]) == "\xf3\x0f\x1e\xfa"
}

// join adds sites to a patch that displaces their instruction already. It says
// whether that was possible.
func (pl *Planner) join(p *pending, patch *Patch) bool {
	displaced := slices.ContainsFunc(patch.Displaced, func(in x86.Inst) bool { return in.Addr == p.addr() })
	if !displaced || patch.Code.Bytes != nil {
		p.err = ErrTaken
		return false
	}
	patch.Sites = append(patch.Sites, p.sites...)
	slices.SortStableFunc(patch.Sites, func(a, b Site) int { return cmp.Compare(a.Addr, b.Addr) })
	return true
}

// split makes the sites of a patch that could not be finished pending again.
func (pl *Planner) split(patch *Patch, funcs []Function, err error) []*pending {
	var todo []*pending
	for i := range funcs {
		if len(patch.Sites) == 0 || !funcs[i].Code.Contains(patch.Displaced[0].Addr) {
			continue
		}
		fn := Function{Code: funcs[i].Code, Targets: funcs[i].Targets, Sites: patch.Sites}
		t, _ := pl.survey(&fn)
		for _, p := range t {
			p.err = err
		}
		return append(todo, t...)
	}
	return todo
}

// own marks the bytes of a patch as displaced.
func (pl *Planner) own(p *Patch) {
	last := p.Displaced[len(p.Displaced)-1]
	for a := p.Addr; a < last.End()+p.pads; a++ {
		pl.owner[a] = p
	}
	if p.room != 0 {
		for a := p.room; a < p.room+5; a++ {
			pl.owner[a] = p
		}
	}
}

func (pl *Planner) disown(p *Patch) {
	last := p.Displaced[len(p.Displaced)-1]
	for a := p.Addr; a < last.End()+p.pads; a++ {
		delete(pl.owner, a)
	}
	if p.room != 0 {
		for a := p.room; a < p.room+5; a++ {
			delete(pl.owner, a)
		}
	}
}

// bytes returns n bytes at addr as they are with the patches so far.
func (pl *Planner) bytes(addr uint64, n int) []byte {
	code := pl.Code(addr)
	if len(code) < n {
		return nil
	}
	b := slices.Clone(code[:n])
	for i := range b {
		if v, ok := pl.current[addr+uint64(i)]; ok {
			b[i] = v
		}
	}
	return b
}

// write adds a write to a patch.
func (pl *Planner) write(p *Patch, addr uint64, b []byte) {
	p.Writes = append(p.Writes, Write{addr, pl.bytes(addr, len(b)), b})
	for i, v := range b {
		pl.current[addr+uint64(i)] = v
	}
}

// reach is how far from a jump's end its target may be.
const reach = math.MaxInt32

// finish gives a patch, which is no pun, its trampoline and its bytes.
func (pl *Planner) finish(p *Patch) error {
	from := p.Addr
	if p.room != 0 {
		from = p.room
	}
	low := from + 5 - min(from+5, reach)
	if err := pl.place(p, low, from+5+reach); err != nil {
		return err
	}
	pl.write(p, from, jump(from, p.Trampoline))
	if p.room != 0 {
		pl.write(p, p.Addr, []byte{0xeb, byte(p.room - (p.Addr + 2))})
	}
	return nil
}

func jump(from, to uint64) []byte {
	var a asm.Assembler
	a.JmpTo(from, to)
	b, _, _ := a.Finish()
	return b
}

// place writes the trampoline of p and puts it at an address in [low, high].
func (pl *Planner) place(p *Patch, low, high uint64) error {
	// The length depends on the place, through what is in reach of it.
	code, err := Trampoline(p, low+(high-low)/2)
	if err != nil {
		return err
	}
	for size := len(code.Bytes); ; size = len(code.Bytes) {
		addr, ok := pl.Alloc.Alloc(size, low, high)
		if !ok {
			return fmt.Errorf("%w: %d bytes in %#x–%#x", ErrNoMemory, size, low, high)
		}
		if code, err = Trampoline(p, addr); err != nil {
			return err
		}
		if len(code.Bytes) <= size {
			p.Trampoline, p.Code = addr, code
			return nil
		}
	}
}
