package index

import (
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// What a variable leads to is there as long as the variable can still be used: the borrow
// checker has seen to that. So memory behind one is believed if the code, from the site
// on, has a use for the variable before it is given another value:
//
//   - one that owns nothing (references): its pointer is read, from its slot, from a copy
//     that is kept elsewhere in the frame, or from a register;
//   - one that owns memory (String, Box, …): each of its pointers is moved out, or dropped,
//     and not only if a drop flag says so. That its discriminants are read, or that it is
//     borrowed, tells nothing of its other parts, which may have been moved away.
//
// What owns memory is believed too if nothing on the way to the site can have moved it:
// code that is not optimised moves by loading from the slot.
//
// Parameters that own nothing are valid throughout: what they borrow outlives the call.

// valid says whether the memory that a variable in a slot of an unoptimised function
// leads to is sure to be there at instruction at.
func (in *LineInstance) valid(fl *flow, v *variable, place location.Place, slots []location.Slot, at int) bool {
	owned := owns(v.Type, 0)
	if len(place.Pieces) != 1 || len(slots) != 1 {
		return false
	}
	derefs := 0
	for _, o := range place.Pieces[0].Expr {
		if o.Kind == location.OpDeref {
			derefs++
		}
	}
	// What a closure has captured by reference outlives it, as all that it borrows does.
	if !owned && (v.parameter || derefs > 0) || derefs > 1 {
		return true
	}
	edges, complete := v.Type.Edges()
	if !complete {
		return false
	}
	s := slots[0]
	u := usage{
		ix: in.In.Fn.ix, fl: fl, t: v.Type, owned: owned, indirect: derefs > 0,
		slot: frameSlot{hardware(s.Reg), s.Off, int64(s.Size)},
		seen: map[int64]bool{},
	}
	for _, e := range edges {
		niche := false
		for _, g := range e.Guards {
			niche = niche || g.Off < e.Ptr+8 && e.Ptr < g.Off+int64(g.Size)
		}
		u.words = append(u.words, word{e.Ptr, niche})
	}
	if owned && derefs == 0 && !u.movedBefore(at) {
		return true
	}
	u.findCopies(at)
	fl.code.Walk(at, fl.edges, u.visit)
	for _, w := range u.words {
		if !u.seen[w.off] {
			return false
		}
	}
	return true
}

// owns says whether values of a type own memory.
func owns(t *types.Type, nesting int) bool {
	switch {
	case t == nil:
		return false
	case t.Std != nil || nesting > 16:
		return true
	case t.Kind == types.Pointer:
		return t.Pointer == nil || t.Pointer.Kind == types.Box
	case t.Kind == types.Coroutine || t.Kind == types.Opaque:
		return true
	case t.Kind == types.Array:
		return owns(t.Elem, nesting+1)
	}
	for _, f := range t.Fields {
		if owns(f.Type, nesting+1) {
			return true
		}
	}
	if t.Enum != nil {
		for _, variant := range t.Enum.Variants {
			for _, f := range variant.Fields {
				if owns(f.Type, nesting+1) {
					return true
				}
			}
		}
	}
	return false
}

// word is a pointer in a value; niche says that it also tells variants apart.
type word struct {
	off   int64
	niche bool
}

// usage finds what use code has for a variable.
type usage struct {
	ix       *Index
	fl       *flow
	t        *types.Type
	slot     frameSlot // of the variable or, if indirect, of its address
	owned    bool
	indirect bool
	words    []word
	// copies are slots that hold what the first word of slot does.
	copies []frameSlot
	seen   map[int64]bool // words that have a use
}

// visit takes note of the uses of one instruction. It says no where the variable is given
// another value.
func (u *usage) visit(i int) bool {
	in := &u.fl.code.Insts[i]
	switch {
	case in.Kind == x86.Call || in.Kind == x86.CallIndirect:
		return u.call(i)
	case in.Kind == x86.Lea && u.slot.touches(in):
		// Borrowed. As the first argument it may be where a result is to be written.
		if !u.owned && in.Dst != x86.RDI {
			u.all()
		}
	case in.MemRead && u.slot.touches(in):
		switch {
		case !u.indirect:
			u.read(in.Mem.Disp-u.slot.off, int64(max(in.MemSize, 1)))
		case in.Kind == x86.MovLoad:
			u.through(i)
		}
	case in.MemWrite && u.slot.touches(in):
		return false
	}
	for _, c := range u.copies {
		switch {
		case !c.touches(in):
		case in.MemWrite:
			return false
		case in.MemRead && u.indirect && in.Kind == x86.MovLoad:
			u.through(i)
		case in.MemRead && !u.indirect:
			u.read(u.first(), 8)
		}
	}
	return true
}

// first is the offset of the word that is copied.
func (u *usage) first() int64 {
	if u.indirect {
		return 0
	}
	return u.words[0].off
}

func (u *usage) all() {
	for _, w := range u.words {
		u.seen[w.off] = true
	}
}

// read notes that some bytes of the value are read.
func (u *usage) read(off, size int64) {
	for _, w := range u.words {
		if off < w.off+8 && w.off < off+size && !(u.owned && w.niche) {
			u.seen[w.off] = true
		}
	}
}

// through notes what is read of the value by the address that instruction i loads.
func (u *usage) through(i int) {
	insts := u.fl.code.Insts
	reg := insts[i].Dst
	for i++; u.straight(i); i++ {
		in := &insts[i]
		if in.MemRead && in.Mem.Base == reg && in.Mem.Index == x86.NoReg && !in.Mem.Seg {
			u.read(in.Mem.Disp, int64(max(in.MemSize, 1)))
		}
		if in.Writes.Has(reg) || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			return
		}
	}
}

// straight says whether control comes to instruction i by running into it only.
func (u *usage) straight(i int) bool {
	if i <= 0 || i >= len(u.fl.code.Insts) || u.fl.pads[u.fl.code.Insts[i].Addr] {
		return false
	}
	before := u.fl.code.Before(i)
	return len(before) == 1 && before[0] == i-1 && !u.fl.code.Insts[i-1].Branches()
}

// set is the instruction, in the straight code before instruction i, that sets a
// register; -1 if none does.
func (u *usage) set(i int, reg x86.Reg) int {
	for ; u.straight(i); i-- {
		before := &u.fl.code.Insts[i-1]
		if before.Kind == x86.Call || before.Kind == x86.CallIndirect {
			return -1
		}
		if before.Writes.Has(reg) {
			return i - 1
		}
	}
	return -1
}

// at is the offset in the value of what a register leads to before instruction i.
func (u *usage) at(i int, reg x86.Reg) (int64, bool) {
	n := u.set(i, reg)
	if n < 0 {
		return 0, false
	}
	in := &u.fl.code.Insts[n]
	if !u.indirect {
		return in.Mem.Disp - u.slot.off, in.Kind == x86.Lea && u.slot.touches(in)
	}
	if in.Kind != x86.MovLoad {
		return 0, false
	}
	for _, c := range append(u.copies, u.slot) {
		if c.touches(in) {
			return 0, true
		}
	}
	return 0, false
}

// call notes what use a call has for the variable: it drops it, or copies it. It says no
// if it may write it.
func (u *usage) call(i int) bool {
	name := u.ix.calleeName(u.fl, i)
	if off, ok := u.at(i, x86.RDI); ok {
		switch {
		case drops(name):
			if _, t, ok := strings.Cut(name, "::<"); ok && !u.flagged(i, 4) {
				u.dropped(strings.TrimSuffix(t, ">"), off)
			}
			return true
		case !u.owned && u.t.Kind == types.Pointer:
			u.all() // a pointer is never returned in memory
		case u.indirect:
		case u.owned && u.takesValue(&u.fl.code.Insts[i]):
			u.all()
		case !u.takesFirst(&u.fl.code.Insts[i]):
			return false
		}
	}
	if strings.HasPrefix(name, "mem") {
		if off, ok := u.at(i, x86.RSI); ok {
			if n := u.set(i, x86.RDX); n >= 0 && u.fl.code.Insts[n].Kind == x86.MovRegImm {
				u.read(off, u.fl.code.Insts[n].Imm)
			}
		}
	}
	return true
}

// movedBefore says whether a path leads to instruction at from one that may have moved
// or dropped some of what the variable owns, without its being given a value again.
func (u *usage) movedBefore(at int) bool {
	insts := u.fl.code.Insts
	given := func(i int) bool { return insts[i].MemWrite && !insts[i].MemRead && u.slot.touches(&insts[i]) }
	for i := range insts {
		if u.mayMove(i) && u.fl.code.Reaches(i, u.fl.edges, at, given) {
			return true
		}
	}
	return false
}

// mayMove says whether instruction i may move or drop some of what the variable owns.
func (u *usage) mayMove(i int) bool {
	in := &u.fl.code.Insts[i]
	if in.Kind == x86.Call || in.Kind == x86.CallIndirect {
		name := u.ix.calleeName(u.fl, i)
		_, first := u.at(i, x86.RDI)
		_, second := u.at(i, x86.RSI)
		return first && (name == "" || drops(name)) || second && strings.HasPrefix(name, "mem")
	}
	if !in.MemRead || !u.slot.touches(in) {
		return false
	}
	off := in.Mem.Disp - u.slot.off
	for _, w := range u.words {
		if in.Mem.Index != x86.NoReg || off < w.off+8 && w.off < off+int64(max(in.MemSize, 1)) {
			return true
		}
	}
	return false
}

// drops says whether a function's path is that of drop glue.
func drops(name string) bool { return strings.HasPrefix(name, "core::ptr::drop_") }

// calleeName is the path of the function that the call at instruction i goes to, "" if it
// is not known.
func (ix *Index) calleeName(fl *flow, i int) string {
	in := &fl.code.Insts[i]
	target := in.Target
	if in.Kind == x86.CallIndirect {
		word := in.Mem
		if !word.Has && i > 0 {
			// mov reg, [rip+…]; …; call reg
			u := usage{ix: ix, fl: fl}
			for r := x86.RAX; r <= x86.R15; r++ {
				if n := -1; r != x86.RSP && in.Reads.Has(r) {
					if n = u.set(i, r); n >= 0 && fl.code.Insts[n].Kind == x86.MovLoad {
						word = fl.code.Insts[n].Mem
					}
				}
			}
		}
		if !word.RIPRel {
			return ""
		}
		s, ok := ix.File.SlotAt(word.Target)
		if !ok || s.Target == 0 {
			return s.Import
		}
		target = s.Target
	}
	symbol := ix.symbolAt(target)
	if text, ok := demangle.Demangle(symbol); ok {
		return canonical(text)
	}
	return symbol
}

// dropped notes that what is at an offset of the value is dropped, if its type is t.
func (u *usage) dropped(t string, off int64) {
	if size := sizeAt(u.t, off, t, 0); size > 0 {
		for _, w := range u.words {
			if off <= w.off && w.off < off+size {
				u.seen[w.off] = true
			}
		}
	}
}

// sizeAt is the size of what is at an offset of values of a type and has itself the type
// of the name; 0 if nothing is.
func sizeAt(t *types.Type, off int64, name string, nesting int) int64 {
	if t == nil || nesting > 16 || off < 0 || off >= t.Size {
		return 0
	}
	if off == 0 && canonical(t.Name) == name {
		return t.Size
	}
	fields := t.Fields
	if t.Enum != nil {
		for _, v := range t.Enum.Variants {
			fields = append(fields[:len(fields):len(fields)], v.Fields...)
		}
	}
	for _, f := range fields {
		if size := sizeAt(f.Type, off-f.Offset, name, nesting+1); size > 0 {
			return size
		}
	}
	if t.Kind == types.Array && t.Elem != nil && t.Elem.Size > 0 {
		return sizeAt(t.Elem, off%t.Elem.Size, name, nesting+1)
	}
	return 0
}

// flagged says whether instruction i is executed only if a drop flag is set: a byte of the
// frame that rustc tests where a value may have been moved on some paths.
func (u *usage) flagged(i, nesting int) bool {
	insts := u.fl.code.Insts
	for u.straight(i) {
		i--
	}
	if u.fl.pads[insts[i].Addr] || nesting == 0 {
		return false
	}
	tests := func(j int) bool {
		before := j - 1
		if insts[j].Kind != x86.Jcc || before < 0 {
			return false
		}
		t := &insts[before]
		// test r/m8, imm8 (F6 /0): bool true is 1.
		return t.Map == 0 && t.Opcode == 0xf6 && t.MemRead && !t.MemWrite && t.HasImm && t.Imm == 1
	}
	before := u.fl.code.Before(i)
	for _, j := range before {
		if insts[j].Kind == x86.Call {
			continue // _Unwind_Resume, or one that nothing follows: no way to be sure of
		}
		if !tests(j) && !(insts[j].Kind == x86.Jmp && u.flagged(j, nesting-1)) {
			return false
		}
	}
	return len(before) > 0
}

// findCopies finds where else in the frame, and in registers at instruction at, the
// variable's pointer is kept: what is never borrowed lives in registers, is spilled from
// them, and has its slot for debuggers alone.
func (u *usage) findCopies(at int) {
	insts := u.fl.code.Insts
	if len(u.words) != 1 && !u.indirect {
		return
	}
	word := frameSlot{u.slot.base, u.slot.off, 8}
	if !u.indirect {
		word.off += u.words[0].off
	}
	def := u.onlyStore(word)
	if def < 0 {
		return
	}
	reg := insts[def].Src
	if insts[def].Kind != x86.MovStore || reg >= 16 {
		return
	}
	addCopy := func(in *x86.Inst) {
		c := frameSlot{u.slot.base, in.Mem.Disp, 8}
		if c == word || in.Mem.Base != u.slot.base || in.Mem.Index != x86.NoReg || in.MemSize != 8 {
			return
		}
		if n := u.onlyStore(c); n >= 0 {
			u.copies = append(u.copies, c)
		}
	}
	live := u.keeps(def, at, reg)
	for i := def + 1; u.straight(i); i++ {
		if insts[i].Kind == x86.MovStore && insts[i].Src == reg {
			addCopy(&insts[i])
		}
		if insts[i].Writes.Has(reg) || insts[i].Kind == x86.Call || insts[i].Kind == x86.CallIndirect {
			break
		}
	}
	for i := def - 1; u.straight(i + 1); i-- {
		in := &insts[i]
		if in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			break
		}
		if in.Kind == x86.MovStore && in.Src == reg {
			addCopy(in)
		}
		if in.Writes.Has(reg) {
			if in.Kind == x86.MovLoad {
				addCopy(in)
			}
			break
		}
	}
	if live {
		u.register(at, reg)
	}
	// What was loaded from a copy just before the site is for a use behind it.
	for i := at; u.straight(i); i-- {
		in := &insts[i-1]
		if in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			break
		}
		if in.Kind != x86.MovLoad {
			continue
		}
		for _, c := range append(u.copies, word) {
			switch {
			case !c.touches(in) || !u.keeps(i-1, at, in.Dst) || u.readsBetween(i, at, in.Dst):
			case u.indirect:
				u.register(at, in.Dst)
			default:
				u.read(u.first(), 8)
			}
		}
	}
}

// onlyStore is the one instruction that writes a slot, -1 if there is not just one or if
// its address is taken.
func (u *usage) onlyStore(s frameSlot) int {
	only := -1
	for i := range u.fl.code.Insts {
		in := &u.fl.code.Insts[i]
		if !s.touches(in) || in.MemRead && !in.MemWrite {
			continue
		}
		if only >= 0 || in.Kind == x86.Lea {
			return -1
		}
		only = i
	}
	return only
}

// keeps says whether straight code leads from behind instruction from to instruction to
// and leaves a register as it is.
func (u *usage) keeps(from, to int, reg x86.Reg) bool {
	if from >= to {
		return false
	}
	for i := from + 1; i <= to; i++ {
		if !u.straight(i) {
			return false
		}
		if i < to {
			if in := &u.fl.code.Insts[i]; in.Writes.Has(reg) || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
				return false
			}
		}
	}
	return true
}

func (u *usage) readsBetween(from, to int, reg x86.Reg) bool {
	for i := from; i < to; i++ {
		if u.fl.code.Insts[i].Reads.Has(reg) {
			return true
		}
	}
	return false
}

// register notes the uses that code from instruction i on has for the variable's pointer
// in a register.
func (u *usage) register(i int, reg x86.Reg) {
	insts := u.fl.code.Insts
	for ; ; i++ {
		in := &insts[i]
		if in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			if !u.indirect && u.takes(in, reg) {
				u.read(u.first(), 8)
			}
			return
		}
		if in.Reads.Has(reg) {
			switch {
			case u.indirect && in.MemRead && in.Mem.Base == reg && in.Mem.Index == x86.NoReg:
				u.read(in.Mem.Disp, int64(max(in.MemSize, 1)))
			case !u.indirect && !(in.Kind == x86.MovStore && in.Src == reg && in.Mem.Base == u.slot.base):
				u.read(u.first(), 8)
			}
		}
		if in.Writes.Has(reg) || !u.straight(i+1) {
			return
		}
	}
}

// signature is that of the function that a call goes to, if the debug info has it.
func (u *usage) signature(call *x86.Inst) (params []Param, result *types.Type, ok bool) {
	s := u.ix.text.subprogramAt(call.Target)
	if s == nil || s.low != call.Target || s.fn < 0 {
		return nil, nil, false
	}
	params, result, ok = u.ix.function(s.fn).named().Signature()
	for i := len(params) - 1; i >= 0; i-- {
		if params[i].Type.Size == 0 {
			params = append(params[:i:i], params[i+1:]...)
		}
	}
	return params, result, ok
}

// takesFirst says whether the first register of a call holds an argument, and not the
// address to which the result is to be written.
func (u *usage) takesFirst(call *x86.Inst) bool {
	params, result, ok := u.signature(call)
	if !ok || len(params) == 0 {
		return false
	}
	place := abi.Place{Kind: abi.Nowhere}
	if result != nil {
		place = abi.Result(result)
	}
	return place.Kind == abi.Direct && place.Doubt == "" || place.Kind == abi.Nowhere
}

// takesValue says whether a call takes the variable's value by the address in its first
// register: it is moved there.
func (u *usage) takesValue(call *x86.Inst) bool {
	params, _, ok := u.signature(call)
	return ok && u.takesFirst(call) && params[0].Type == u.t
}

// takes says whether a call takes an argument in a register, by the parameters that its
// callee has in the debug info: each takes one register at least.
func (u *usage) takes(call *x86.Inst, reg x86.Reg) bool {
	params, _, ok := u.signature(call)
	for i, r := range []x86.Reg{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9} {
		if r == reg {
			return ok && i < len(params)
		}
	}
	return false
}
