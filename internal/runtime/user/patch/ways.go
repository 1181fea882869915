package patch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/x86"
)

const (
	// maxBack is how many instructions before a site a jump may begin.
	maxBack = 12
	// maxPadding bounds the runs of padding that are looked at, in bytes.
	maxPadding = 256
)

// jump is the way Jump5.
func (pl *Planner) jump(p *pending) (*Patch, error) {
	return pl.window(p.f, p.at, p.at, 5, Jump5, p.sites)
}

// around is the way Around: it begins as late as it can. If a patch ends where it
// would have to begin, that is made to cover the site too, and there is no new one.
func (pl *Planner) around(p *pending) (*Patch, error) {
	var err error
	for first := p.at - 1; first >= 0 && p.at-first <= maxBack; first-- {
		addr := p.f.code.Insts[first].Addr
		if before := pl.owner[addr]; before != nil {
			return nil, pl.extend(p, before)
		}
		var patch *Patch
		if patch, err = pl.window(p.f, first, p.at, 5, Around, p.sites); err == nil {
			return patch, nil
		}
	}
	if err == nil {
		err = ErrNoRoom
	}
	return nil, err
}

// extend makes a patch cover the instructions up to p as well.
func (pl *Planner) extend(p *pending, before *Patch) error {
	first, ok := p.f.code.Index(before.Addr)
	if !ok || before.Code.Bytes != nil || before.How == ShortToPadding || p.at-first > 2*maxBack {
		return ErrTaken
	}
	pl.disown(before)
	wider, err := pl.window(p.f, first, p.at, 5, before.How, nil)
	if err != nil {
		pl.own(before)
		return err
	}
	before.Displaced, before.raw, before.pads, before.ResumeAt = wider.Displaced, wider.raw, wider.pads, wider.ResumeAt
	before.Sites = append(before.Sites, p.sites...)
	pl.own(before)
	return nil
}

// short is the way ShortToPadding: it too may begin before the site.
func (pl *Planner) short(p *pending) (*Patch, error) {
	return pl.shortTo(p, ShortToPadding, pl.room)
}

// evict is the way ShortToRoom.
func (pl *Planner) evict(p *pending) (*Patch, error) {
	return pl.shortTo(p, ShortToRoom, func(f *function, short *Patch) (uint64, bool) {
		// Bytes behind what is jumped over: 5 for the host's own jump, 5 for ours.
		const size = 10
		from := short.Addr + 2
		low, high := from-min(from, 128), from+127
		insts := f.code.Insts
		for i := sort.Search(len(insts), func(i int) bool { return insts[i].Addr+5 >= low }); i < len(insts) && insts[i].Addr+5 <= high; i++ {
			host, err := pl.window(f, i, i, size, Jump5, nil)
			if err != nil {
				continue
			}
			// Sites want those bytes for themselves.
			if slices.ContainsFunc(host.Displaced, func(in x86.Inst) bool { return f.sites[in.Addr] }) {
				pl.disown(host)
				continue
			}
			short.host = host
			return host.Addr + 5, true
		}
		return 0, false
	})
}

// shortTo makes a patch whose short jump leads to room that find finds for it, the
// bytes of the patch being taken.
func (pl *Planner) shortTo(p *pending, how How, find func(*function, *Patch) (uint64, bool)) (*Patch, error) {
	var err error
	for first := p.at; first >= 0 && p.at-first <= maxBack; first-- {
		if pl.owner[p.f.code.Insts[first].Addr] != nil {
			break
		}
		patch, werr := pl.window(p.f, first, p.at, 2, how, p.sites)
		if werr != nil {
			err = cmp.Or(err, werr)
			continue
		}
		room, ok := find(p.f, patch)
		if !ok {
			pl.disown(patch)
			err = cmp.Or(err, fmt.Errorf("%w, nor any within 127 bytes", ErrNoRoom))
			continue
		}
		patch.room = room
		pl.own(patch)
		return patch, nil
	}
	return nil, cmp.Or(err, ErrTaken)
}

// window makes the patch that displaces the instructions from first on, until need
// bytes are there and instruction at is among them.
func (pl *Planner) window(f *function, first, at int, need uint64, how How, sites []Site) (*Patch, error) {
	insts := f.code.Insts
	start := insts[first].Addr
	p := &Patch{How: how, Addr: start, Sites: slices.Clone(sites)}
	var scratch asm.Assembler
	end := start
	for i := first; i <= at || end-start < need; i++ {
		if i == len(insts) || insts[i].Addr != end {
			return nil, ErrNoRoom
		}
		in := &insts[i]
		if i > first && f.unresolved {
			return nil, ErrUnresolved
		}
		for a := max(end, start+1); a < in.End(); a++ {
			if f.target(a) {
				return nil, fmt.Errorf("%w: at %#x", ErrJumpedInto, a)
			}
		}
		for a := end; a < in.End(); a++ {
			if pl.owner[a] != nil {
				return nil, ErrTaken
			}
		}
		raw := pl.Code(in.Addr)[:in.Len]
		if err := scratch.Relocate(in.Addr, in, raw); err != nil {
			return nil, err
		}
		p.raw = append(p.raw, raw...)
		end = in.End()
		if i >= at && end-start >= need {
			break
		}
		if in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			return nil, ErrReturnedInto
		}
		if !in.FallsThrough() {
			if i < at {
				return nil, ErrNoRoom
			}
			p.pads = need - (end - start)
			if pl.padding(f, end) < p.pads {
				return nil, ErrNoRoom
			}
			for a := end; a < end+p.pads; a++ {
				if pl.owner[a] != nil {
					return nil, ErrTaken
				}
			}
			break
		}
	}
	for a := start; a < start+need; a++ {
		if pl.frozen[a] > 0 {
			return nil, ErrTaken
		}
	}
	last, _ := f.code.Index(start)
	for insts[last].End() != end {
		last++
	}
	p.Displaced = slices.Clone(insts[first : last+1])
	if insts[last].FallsThrough() && insts[last].Kind != x86.Call && insts[last].Kind != x86.CallIndirect {
		p.ResumeAt = end
	}
	pl.own(p)
	return p, nil
}

// padding is how many bytes from addr on, to which control does not run, are int3 or
// nops that control does not come to otherwise either.
func (pl *Planner) padding(f *function, addr uint64) uint64 {
	end := addr
	for end-addr < maxPadding {
		i, ok := f.code.Index(end)
		if !ok {
			if !f.code.Contains(end) {
				end = max(end, pl.gap(end))
			}
			break
		}
		in := &f.code.Insts[i]
		if f.unresolved || !isPadding(in) || f.target(in.Addr) {
			break
		}
		end = in.End()
	}
	return end - addr
}

func isPadding(in *x86.Inst) bool {
	return in.Kind == x86.Nop || in.Kind == x86.Trap && in.Opcode == 0xcc && in.Map == 0
}

// gap returns the end of the padding between functions that addr lies in, or 0.
func (pl *Planner) gap(addr uint64) uint64 {
	i := sort.Search(len(pl.Functions), func(i int) bool { return pl.Functions[i].Low > addr })
	if i == 0 || i == len(pl.Functions) {
		return 0
	}
	start, end := uint64(0), pl.Functions[i].Low
	for j := i - 1; j >= 0 && j >= i-8; j-- { // ranges may lie in one another
		start = max(start, pl.Functions[j].High)
	}
	if start > addr || end-start > maxPadding {
		return 0
	}
	b := pl.Code(start)
	if uint64(len(b)) < end-start {
		return 0
	}
	// All of it: nops at the start of code without a symbol are not padding.
	for a := start; a < end; {
		in, err := x86.Decode(b[a-start:end-start], a)
		if err != nil || !isPadding(&in) {
			return 0
		}
		a = in.End()
	}
	return end
}

// room finds five bytes of padding in reach of a short jump.
func (pl *Planner) room(f *function, p *Patch) (uint64, bool) {
	from := p.Addr + 2
	low, high := from-min(from, 128), from+127
	mine := x86.Range{Low: p.Addr, High: p.Displaced[len(p.Displaced)-1].End() + p.pads}
	ok := func(a uint64) bool {
		for b := a; b < a+5; b++ {
			if pl.owner[b] != nil || pl.frozen[b] > 0 || mine.Contains(b) {
				return false
			}
		}
		return true
	}
	in := func(start, n uint64) (uint64, bool) {
		for a := max(start, low); a+5 <= start+n && a <= high; a++ {
			if ok(a) {
				return a, true
			}
		}
		return 0, false
	}
	insts := f.code.Insts
	for i := sort.Search(len(insts), func(i int) bool { return insts[i].End() >= low }); i < len(insts) && insts[i].End() <= high; i++ {
		if !insts[i].FallsThrough() {
			if a, ok := in(insts[i].End(), pl.padding(f, insts[i].End())); ok {
				return a, true
			}
		}
	}
	for i := sort.Search(len(pl.Functions), func(i int) bool { return pl.Functions[i].High >= low-min(low, maxPadding) }); i < len(pl.Functions) && pl.Functions[i].Low <= high; i++ {
		start := pl.Functions[i].High
		if end := pl.gap(start); end > start {
			if a, ok := in(start, end-start); ok {
				return a, true
			}
		}
	}
	return 0, false
}

// pun is the way Pun. The jump takes the bytes of one instruction; what it lacks are
// the bytes behind. With n prefixes that mean nothing, others are behind, and the
// jump leads elsewhere.
func (pl *Planner) pun(p *pending) (*Patch, error) {
	in := &p.f.code.Insts[p.at]
	for a := in.Addr; a < in.End(); a++ {
		if pl.owner[a] != nil || pl.frozen[a] > 0 {
			return nil, ErrTaken
		}
		if a > in.Addr && p.f.target(a) {
			return nil, fmt.Errorf("%w: at %#x", ErrJumpedInto, a)
		}
	}
	patch := &Patch{How: Pun, Addr: in.Addr, Sites: p.sites, Displaced: []x86.Inst{*in}}
	patch.raw = slices.Clone(pl.Code(in.Addr)[:in.Len])
	if in.FallsThrough() && in.Kind != x86.Call && in.Kind != x86.CallIndirect {
		patch.ResumeAt = in.End()
	}
	err := ErrNoMemory
	for n := 0; n < in.Len; n++ {
		b := pl.bytes(in.Addr, n+5)
		if b == nil {
			break
		}
		for i := range n {
			b[i] = 0x26 // ES, which 64-bit mode ignores (SDM vol. 2, 2.1.1)
		}
		b[n] = 0xe9
		rel := b[n+1 : n+5]
		own := min(in.Len-n-1, 4) // bytes of rel that may be chosen
		clear(rel[:own])
		end := int64(in.Addr) + int64(n) + 5
		low := end + int64(int32(binary.LittleEndian.Uint32(rel)))
		high := low + 1<<(8*own) - 1
		if own == 4 {
			low, high = end-1<<31, end+reach
		}
		if high < 0 {
			continue
		}
		if err = pl.place(patch, uint64(max(low, 0)), uint64(high)); err != nil {
			continue
		}
		binary.LittleEndian.PutUint32(rel, uint32(int32(int64(patch.Trampoline)-end)))
		pl.write(patch, in.Addr, b[:min(in.Len, n+5)])
		pl.freeze(patch, 1)
		pl.own(patch)
		return patch, nil
	}
	return nil, fmt.Errorf("no pun: %w", err)
}

// freeze notes what a pun relies on, or no longer (-1): the four bytes behind its
// instruction, at most.
func (pl *Planner) freeze(p *Patch, n int) {
	end := p.Displaced[0].End()
	for a := end; a < end+4; a++ {
		if pl.frozen[a] += n; pl.frozen[a] == 0 {
			delete(pl.frozen, a)
		}
	}
}
