package user

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/x86"
)

// place is what is run at one address.
type place struct {
	addr     uint64 // as linked
	programs []patch.Program
	watched  string // the function of the C library that is watched there, if it is no probe
}

// text is a file's code where a process has it: bias is what its addresses there are
// ahead of those it was linked with.
type text struct {
	Text
	bias    uint64
	planner *patch.Planner
}

func newText(t Text, bias uint64, alloc patch.Allocator) *text {
	ranges := t.FunctionRanges()
	moved := make([]x86.Range, len(ranges))
	for i, r := range ranges {
		moved[i] = x86.Range{Low: r.Low + bias, High: r.High + bias}
	}
	tx := &text{Text: t, bias: bias}
	tx.planner = &patch.Planner{Code: tx.code, Functions: moved, Alloc: alloc}
	return tx
}

func (t *text) code(addr uint64) []byte { return t.Bytes(addr - t.bias) }

func (t *text) noReturn(addr uint64) bool { return t.NoReturn(addr - t.bias) }

// errNoFunction: where a jump may be placed is known by the function around it.
var errNoFunction = errors.New("it is not known which function is there")

// unplaced is a place that can't be taken.
type unplaced struct {
	place place
	err   error
}

// plan plans patches for places, all at once.
func (t *text) plan(places []place) (patches []*patch.Patch, failed []unplaced) {
	places = slices.Clone(places)
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.addr, b.addr) })
	var (
		funcs   []patch.Function
		exits   []map[uint64]bool
		byEntry = map[uint64]int{}
		at      = map[uint64]place{}
		bad     = map[uint64]error{}
	)
	for _, pl := range places {
		refuse := func(err error) { failed = append(failed, unplaced{pl, err}) }
		parts, targets, rust, ok := t.FunctionAt(pl.addr)
		if !ok || len(parts) == 0 {
			refuse(errNoFunction)
			continue
		}
		entry := parts[0].Low
		if bad[entry] != nil {
			refuse(bad[entry])
			continue
		}
		n, ok := byEntry[entry]
		if !ok {
			f, out, err := t.function(parts, targets)
			if err != nil {
				bad[entry] = err
				refuse(err)
				continue
			}
			n = len(funcs)
			byEntry[entry] = n
			funcs, exits = append(funcs, f), append(exits, out)
		}
		f := &funcs[n]
		site := patch.Site{Addr: pl.addr + t.bias, Kind: patch.Line, Rust: rust, Programs: pl.programs}
		switch {
		case pl.addr == entry && !f.Code.JumpedTo(site.Addr):
			site.Kind = patch.Entry
		case exits[n][site.Addr]:
			site.Kind = patch.Exit
		}
		f.Sites = append(f.Sites, site)
		at[site.Addr] = pl
	}
	patches, problems := t.planner.Plan(funcs)
	for _, p := range problems {
		pl, ok := at[p.Site.Addr]
		if !ok { // moved behind an endbr64
			pl = at[p.Site.Addr-endbr64]
		}
		failed = append(failed, unplaced{pl, p.Err})
	}
	return patches, failed
}

// function decodes a function where it is, and finds its exits.
func (t *text) function(parts []x86.Range, targets []uint64) (f patch.Function, exits map[uint64]bool, err error) {
	moved := make([]x86.Range, len(parts))
	for i, r := range parts {
		moved[i] = x86.Range{Low: r.Low + t.bias, High: r.High + t.bias}
	}
	if f.Code, err = x86.NewFunc(t.code, moved, t.noReturn); err != nil {
		return f, nil, fmt.Errorf("decoding the function: %w", err)
	}
	for _, a := range targets {
		f.Targets = append(f.Targets, a+t.bias)
	}
	// A function whose jumps lead somewhere unknown has no exits to speak of, nor has one
	// that may keep rsi and rdi for its caller (extern "win64"): their sites are lines,
	// where everything is saved.
	exits = map[uint64]bool{}
	if all, err := f.Code.Exits(); err == nil && !savesArguments(f.Code) {
		for _, e := range all {
			exits[e.Addr] = true
		}
	}
	return f, exits, nil
}

// Planned is how a site would be planted, or why it can't be.
type Planned struct {
	How string
	Err error
}

func savesArguments(f *x86.Func) bool {
	const arguments = 1<<x86.RSI | 1<<x86.RDI
	return slices.ContainsFunc(f.Insts, func(in x86.Inst) bool {
		return in.Kind == x86.Push && in.Reads&arguments != 0
	})
}

// Explain works out, without a process, how sites of a file would be planted all at
// once. addrs are as linked.
func Explain(t Text, addrs []uint64) []Planned {
	// Where a position-independent program usually is, and all addresses free that it
	// does not take itself (ELF_ET_DYN_BASE in the kernel's arch/x86/include/asm/elf.h).
	const usual, top = 0x555555554000, 1<<47 - 4096
	ranges := t.FunctionRanges()
	if len(ranges) == 0 {
		out := make([]Planned, len(addrs))
		for i := range out {
			out[i].Err = errNoFunction
		}
		return out
	}
	var bias uint64
	if low, ok := t.Addr(0); ok && low == 0 {
		bias = usual
	}
	const margin = 16 << 20 // its data, and the heap behind it
	low, high := ranges[0].Low+bias, ranges[len(ranges)-1].High+bias
	low -= min(low-1<<16, margin)
	high = min(high+margin, top)
	space := patch.NewSpace([]x86.Range{{Low: 1 << 16, High: low &^ 4095}, {Low: (high + 4095) &^ 4095, High: top}})
	tx := newText(t, bias, space)

	out := make([]Planned, len(addrs))
	index := map[uint64][]int{}
	var places []place
	for i, a := range addrs {
		if index[a] == nil {
			// A nop stands for the program; the cookie tells which site it is.
			places = append(places, place{addr: a, programs: []patch.Program{{Body: []byte{0x90}, Cookie: a}}})
		}
		index[a] = append(index[a], i)
	}
	patches, failed := tx.plan(places)
	set := func(addr uint64, p Planned) {
		for _, i := range index[addr] {
			out[i] = p
		}
	}
	for _, p := range patches {
		for _, s := range p.Sites {
			for _, prog := range s.Programs {
				set(prog.Cookie, Planned{How: p.How.String()})
			}
		}
	}
	for _, f := range failed {
		set(f.place.addr, Planned{Err: f.err})
	}
	return out
}
