package x86

import (
	"encoding/binary"
	"slices"
)

const (
	maxTable    = 1 << 14 // entries of one jump table
	tableBudget = 1 << 24 // steps of all searches for one function's tables
)

// resolve finds the function's indirect jumps that are table dispatches and
// reads their tables. Code that is only reached through one table may hold the
// next dispatch, so this goes on until nothing new is found.
func (f *Func) resolve() {
	for i := range f.Insts {
		if f.Insts[i].Kind == JmpIndirect {
			f.tables = append(f.tables, dispatch{at: i})
		}
	}
	if len(f.tables) == 0 {
		return
	}
	for round := 0; round < 8; round++ {
		// All table addresses first: a table ends where the next begins.
		descs := make([]tableDesc, len(f.tables))
		var bases []uint64
		for i := range f.tables {
			if f.tables[i].targets != nil {
				continue
			}
			descs[i] = f.describe(f.tables[i].at)
			f.tables[i].table = descs[i].form != noTable
		}
		for _, d := range descs {
			if d.known {
				bases = append(bases, d.addr)
			}
		}
		slices.Sort(bases)
		progress := false
		for i := range f.tables {
			t := &f.tables[i]
			if t.targets == nil && descs[i].known {
				t.targets, t.bounded = f.readTable(&descs[i], bases)
				progress = progress || t.targets != nil
			}
		}
		if !progress {
			return
		}
		f.link()
	}
}

type tableForm uint8

const (
	noTable  tableForm = iota
	relative           // 32-bit offsets from the table's own address
	absolute           // 64-bit addresses
)

// tableDesc is a dispatch's table, as far as it can be told.
type tableDesc struct {
	form  tableForm
	known bool   // addr is
	addr  uint64 // of entry 0
	base  uint64 // what a relative entry is added to
	n     int    // entries, 0 if no bound was found
}

// describe recognises the dispatches that LLVM and GCC emit:
//
//	lea tbl(%rip),b; movslq (b,i,4),r; add b,r; jmp *r     relative
//	jmp *tbl(,i,8), or mov tbl(,i,8),r; jmp *r             absolute
//
// with the lea anywhere before, and other instructions in between.
func (f *Func) describe(at int) tableDesc {
	in := &f.Insts[at]
	if in.Mem.Has {
		return f.describeAbsolute(at, at)
	}
	def, ok := f.localDef(at, in.Src)
	if !ok {
		return tableDesc{}
	}
	switch d := &f.Insts[def]; {
	case d.Kind == MovLoad && d.OpSize == 8:
		return f.describeAbsolute(def, at)
	case d.Kind == Add && d.OpSize == 8 && d.Src != NoReg:
		// One operand is the entry, the other the base.
		for _, p := range [2][2]Reg{{d.Dst, d.Src}, {d.Src, d.Dst}} {
			e, ok := f.localDef(def, p[0])
			if !ok {
				continue
			}
			if f.Insts[e].Kind == Movsx && f.Insts[e].Src == RAX && f.Insts[e].Opcode == 0x98 {
				// mov (b,i,1),%eax; cltq, which GCC emits at -O0
				if e, ok = f.localDef(e, RAX); !ok {
					continue
				}
			}
			l := &f.Insts[e]
			if (l.Kind != Movsx && l.Kind != MovLoad) || !l.Mem.Has || l.MemSize != 4 {
				continue
			}
			base, ok := f.constant(def, p[1])
			if l.Mem.Index == NoReg && l.Kind != Movsx && !ok {
				continue
			}
			desc := tableDesc{form: relative, base: base}
			if !ok || l.Mem.Vague || l.Mem.Seg {
				return desc
			}
			// Either register of the address may be the table's; at -O0 the
			// other holds the index already multiplied.
			tbl, ok := f.constant(e, l.Mem.Base)
			if !ok && l.Mem.Index != NoReg && l.Mem.Scale == 1 {
				tbl, ok = f.constant(e, l.Mem.Index)
			}
			if !ok {
				tbl = base // spilled between: it is the same register pair
			}
			desc.known, desc.addr = true, tbl+uint64(l.Mem.Disp)
			if l.Mem.Scale == 4 {
				desc.n = f.bound(e, l.Mem.Index)
			}
			return desc
		}
	}
	return tableDesc{}
}

// describeAbsolute describes the table that instruction load reads through an
// index scaled by 8; the jump is at at.
func (f *Func) describeAbsolute(load, at int) tableDesc {
	m := &f.Insts[load].Mem
	if m.Index == NoReg || m.Scale != 8 || m.Vague || m.Seg {
		return tableDesc{}
	}
	d := tableDesc{form: absolute, addr: uint64(m.Disp), known: true}
	if m.Base != NoReg {
		var base uint64
		base, d.known = f.constant(load, m.Base)
		d.addr += base
	}
	d.n = f.bound(load, m.Index)
	return d
}

// localDef finds the one instruction that gave r its value at instruction i,
// on every known path. It must write all of r and nothing else.
func (f *Func) localDef(i int, r Reg) (int, bool) {
	def := -1
	f.begin()
	f.pushPreds(i)
	for steps := 0; steps < maxWalk && f.budget > 0; steps++ {
		j, ok := f.pop()
		if !ok {
			return def, def >= 0
		}
		f.budget--
		in := &f.Insts[j]
		switch {
		case !changes(in).Has(r):
			if in.Addr == f.entry {
				return 0, false
			}
			f.pushPreds(j)
		case in.Dst != r || !in.WritesFull.Has(r) || def >= 0:
			return 0, false
		default:
			def = j
		}
	}
	return 0, false
}

// onlyPred returns the one instruction from which control reaches i.
func (f *Func) onlyPred(i int) (int, bool) {
	jumps := f.jumpsTo(i)
	switch {
	case f.fallsInto(i - 1):
		return i - 1, len(jumps) == 0
	case len(jumps) == 1:
		return int(jumps[0]), true
	}
	return 0, false
}

// constant finds the address that register r holds at instruction i on every
// known path: that of a lea of a RIP-relative address, or an immediate, also
// through copies.
func (f *Func) constant(i int, r Reg) (uint64, bool) {
	type place struct {
		at  int
		reg Reg
	}
	var value uint64
	have := false
	take := func(v uint64) bool {
		same := !have || v == value
		value, have = v, true
		return same
	}
	seen := map[place]bool{}
	var work []place
	add := func(i int, r Reg) {
		if f.fallsInto(i - 1) {
			work = append(work, place{i - 1, r})
		}
		for _, p := range f.jumpsTo(i) {
			work = append(work, place{int(p), r})
		}
	}
	if r >= 16 || f.Insts[i].Addr == f.entry {
		return 0, false
	}
	add(i, r)
	for len(work) > 0 {
		p := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		if f.budget--; f.budget < 0 || len(seen) > 4*maxWalk {
			return 0, false
		}
		in, r := &f.Insts[p.at], p.reg
		if changes(in).Has(r) {
			ok := in.Dst == r
			switch {
			case !ok:
			case in.Kind == Lea && in.Mem.RIPRel:
				ok = take(in.Mem.Target)
			case in.Kind == MovRegImm:
				ok = take(uint64(in.Imm))
			case in.Kind == MovRegReg && in.OpSize == 8:
				r = in.Src
				if ok = in.Addr != f.entry; ok {
					add(p.at, r)
				}
			case in.Kind == MovLoad && in.OpSize == 8 && (in.Mem.Base == RSP || in.Mem.Base == RBP) && in.Mem.Index == NoReg:
				var v uint64
				if v, ok = f.spilled(&in.Mem); ok {
					ok = take(v)
				}
			default:
				ok = false
			}
			if !ok {
				return 0, false
			}
			continue
		}
		if in.Addr == f.entry {
			return 0, false // the value comes from the caller
		}
		add(p.at, r)
	}
	return value, have
}

// spilled returns the address that was stored to a stack slot. Every store to
// the slot by this name must be of one lea's register in the instructions just
// before. A wrong answer is found out by reading the table.
func (f *Func) spilled(m *Mem) (uint64, bool) {
	var value uint64
	have := false
	f.budget -= len(f.Insts) / 16
	for i := range f.Insts {
		in := &f.Insts[i]
		if !in.MemWrite || in.Mem.Base != m.Base || in.Mem.Disp != m.Disp || in.Mem.Index != NoReg {
			continue
		}
		if in.Kind != MovStore || in.Src == NoReg {
			return 0, false
		}
		def, ok := f.localDef(i, in.Src)
		if !ok || f.Insts[def].Kind != Lea || !f.Insts[def].Mem.RIPRel {
			return 0, false
		}
		if v := f.Insts[def].Mem.Target; have && v != value {
			return 0, false
		} else {
			value, have = v, true
		}
	}
	return value, have
}

// bound returns how many values the index register idx can have at instruction
// i, from a comparison on the one path to it; 0 if none is found.
func (f *Func) bound(i int, idx Reg) int {
	cond, taken := -1, false
	for steps := 0; steps < 64; steps++ {
		jumps := f.jumpsTo(i)
		var p int
		switch {
		case f.fallsInto(i-1) && len(jumps) == 0:
			p = i - 1
			if f.Insts[p].Kind == Jcc {
				cond, taken = int(f.Insts[p].Cond), false
			}
		case !f.fallsInto(i-1) && len(jumps) == 1:
			p = int(jumps[0])
			if f.Insts[p].Kind == Jcc {
				cond, taken = int(f.Insts[p].Cond), true
			}
		default:
			return 0
		}
		i = p
		in := &f.Insts[i]
		if in.Kind == Cmp && in.Src == idx && in.Imm >= 0 && in.Imm < maxTable && in.HasImm {
			n := 0
			switch {
			case cond == 7 && !taken, cond == 6 && taken: // not above
				n = int(in.Imm) + 1
			case cond == 3 && !taken, cond == 2 && taken: // below
				n = int(in.Imm)
			}
			if n > 0 {
				return n
			}
		}
		if in.Writes.Has(Flags) {
			cond = -1
		}
		if !changes(in).Has(idx) {
			continue
		}
		switch {
		case in.Dst != idx:
			return 0
		case in.Kind == MovRegReg && in.Src != NoReg:
			idx = in.Src
		case in.Kind == Movzx && in.Src != NoReg:
			idx = in.Src
		default:
			return 0
		}
	}
	return 0
}

// readTable reads the targets of a table. With a bound, all entries must be
// instructions of the function; without one, the table ends at the first entry
// that is not, or where another table of the function begins. The result is
// nil if the table cannot be that of this dispatch.
func (f *Func) readTable(d *tableDesc, bases []uint64) (targets []uint64, bounded bool) {
	b := f.code(d.addr)
	size := 4
	if d.form == absolute {
		size = 8
	}
	n := d.n
	if n == 0 {
		n = maxTable
		if i, _ := slices.BinarySearch(bases, d.addr+1); i < len(bases) {
			n = min(n, int((bases[i]-d.addr)/uint64(size)))
		}
	}
	for i := 0; i < n; i++ {
		if len(b) < size {
			break
		}
		var target uint64
		if size == 4 {
			target = d.base + uint64(int64(int32(binary.LittleEndian.Uint32(b))))
		} else {
			target = binary.LittleEndian.Uint64(b)
		}
		b = b[size:]
		if _, ok := f.index(target); !ok {
			if d.n != 0 {
				return nil, false
			}
			break
		}
		targets = append(targets, target)
	}
	if d.n != 0 && len(targets) < d.n {
		return nil, false
	}
	slices.Sort(targets)
	return slices.Compact(targets), d.n != 0
}
