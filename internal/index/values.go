package index

import (
	"encoding/binary"
	"slices"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// Param is a parameter of a function, in the order of the source.
type Param struct {
	Name string
	Type *types.Type
	// entry is where the instance at hand says where it is; nil if it does not.
	entry *dwarf.Entry
	// ambiguous: the code is that of instances for other types too.
	ambiguous bool
	// stack is what is at that place if it is in the caller's frame.
	stack onStack
	// unread: the function does not read what it leads to.
	unread bool
	// place is where a parameter that the user has given is.
	place *location.Place
	// Poll: the function is the body of an async function or block, and the parameter what
	// it polls. Args are the async function's arguments, which are in it; nil of a block.
	Poll bool
	Args []types.Argument
	// passed is where it may have been passed; ordered says that all parameters are
	// found where they were passed in their order, wherever that is.
	passed  []abi.Place
	ordered bool
}

// notOwn is why a parameter is missing of which debug info states a place that is not where
// it was passed.
const notOwn = "unsupported: the place that is stated holds what the parameter is overwritten with"

const ambiguous = "unsupported: the compiler has merged this instance with one for other types"

// children reads the entries directly below off that have one of the tags.
func (ix *Index) children(off dwarf.Offset, tags ...dwarf.Tag) ([]*dwarf.Entry, error) {
	u := ix.debug.UnitAt(off)
	if u == nil {
		return nil, nil
	}
	c := u.Cursor(off)
	if !c.Next() {
		return nil, c.Err()
	}
	base := c.Depth()
	var found []dwarf.Offset
	for c.Next() && c.Depth() > base {
		e := c.Entry()
		for _, t := range tags {
			if e.Tag == t {
				found = append(found, e.Offset)
			}
		}
		if e.HasChildren {
			c.Skip()
		}
	}
	if c.Err() != nil {
		return nil, c.Err()
	}
	entries := make([]*dwarf.Entry, len(found))
	for i, off := range found {
		e, err := ix.debug.Entry(off)
		if err != nil {
			return nil, err
		}
		entries[i] = e
	}
	return entries, nil
}

// params lists the parameters of an instance.
func (ix *Index) params(in *Instance) ([]Param, error) {
	if in.entry == 0 {
		return nil, nil
	}
	// An optimiser can make a variable of a parameter.
	own, err := ix.children(in.entry, dwarf.TagFormalParameter, dwarf.TagVariable)
	if err != nil {
		return nil, err
	}
	stated := in.entry
	if in.Inlined {
		// What stands for the function may be its code, whose entries only refer.
		if stated = in.Fn.abstract.off; in.Fn.abstract.flags&subOrigin != 0 {
			stated = in.Fn.abstract.ref
		}
	} else if in.sub.flags&subOrigin != 0 {
		stated = in.sub.ref
	}
	list, err := ix.children(stated, dwarf.TagFormalParameter)
	if err != nil {
		return nil, err
	}
	byOrigin := map[dwarf.Offset]*dwarf.Entry{}
	for _, e := range own {
		if o, ok := e.Ref(dwarf.AttrAbstractOrigin); ok {
			byOrigin[o] = e
		}
	}
	params := make([]Param, len(list))
	for i, e := range list {
		params[i] = Param{Name: e.String(dwarf.AttrName), Type: ix.typeOf(e), entry: e, ambiguous: in.Fn.Ambiguous && !in.Inlined}
		if stated != in.entry {
			params[i].entry = byOrigin[e.Offset]
		}
	}
	// The units' copies of one inlined function have entries of their own: the
	// instance may refer to another copy than the one that stands for the function.
	if in.Inlined {
		if o := ix.subs.at(in.origin); o != nil && o.off != stated {
			list, err := ix.children(o.off, dwarf.TagFormalParameter)
			if err != nil {
				return nil, err
			}
			for i, e := range list {
				if i < len(params) {
					params[i].entry = byOrigin[e.Offset]
				}
			}
		}
	}
	return ix.poll(in, params), nil
}

// unknownType stands for a type that the debug info does not state or that can't be
// read.
var unknownType = &types.Type{Name: "?", Kind: types.Opaque}

func (ix *Index) typeOf(e *dwarf.Entry) *types.Type {
	off, ok := e.Ref(dwarf.AttrType)
	if !ok {
		return types.UnitType
	}
	t, err := ix.types.Type(off)
	if err != nil {
		return unknownType
	}
	return t
}

// locate finds the place of a parameter at an address. same says whether the debug
// info has the value at one place from the address low up to there.
func (ix *Index) locate(p *Param, low, addr uint64) (place location.Place, same bool) {
	size := int(p.Type.Size)
	switch {
	case p.ambiguous:
		return location.MissingPlace(max(size, 1), ambiguous), true
	case p.Type == unknownType:
		return location.Place{Pieces: []location.Piece{{Size: 1, Kind: location.Missing, Why: "unsupported: its type can't be read"}}}, true
	case size == 0:
		return location.Place{}, true
	case p.place != nil:
		return *p.place, true
	case p.entry == nil:
		return location.MissingPlace(size, location.OptimizedOut), true
	}
	if v, ok := p.entry.Val(dwarf.AttrConstValue); ok {
		if v.B != nil {
			return location.ConstantPlace(v.B, p.Type.Kind == types.Int, size), true
		}
		b := binary.LittleEndian.AppendUint64(nil, v.U)
		if v.Form == dwarf.FormSdata || v.Form == dwarf.FormImplicitConst {
			b = binary.LittleEndian.AppendUint64(nil, uint64(v.S))
		}
		return location.ConstantPlace(b, p.Type.Kind == types.Int, size), true
	}
	list, err := p.entry.Locations(dwarf.AttrLocation)
	if err != nil {
		return location.MissingPlace(size, "unsupported: damaged debug info"), true
	}
	for _, l := range list {
		if !l.Whole && (addr < l.Low || addr >= l.High) {
			continue
		}
		place, err := location.Compile(l.Expr, location.Context{Size: size, Unit: p.entry.Unit, EntryPC: addr == low})
		if err != nil {
			return location.MissingPlace(size, "unsupported: damaged debug info"), true
		}
		if p.Type.Kind == types.Bool {
			place = lowBit(place)
		}
		return place, l.Whole || l.Low <= low && low < l.High
	}
	return location.MissingPlace(size, location.OptimizedOut), true
}

// lowBit makes a bool of the inverse of one. LLVM's bool is one bit, and it writes that
// as it would for a whole byte: all bits are inverted, of which the lowest counts.
func lowBit(p location.Place) location.Place {
	if len(p.Pieces) != 1 || p.Pieces[0].Kind != location.Value {
		return p
	}
	e := p.Pieces[0].Expr
	n := len(e)
	inverts := n > 0 && e[n-1].Kind == location.OpNot ||
		n > 1 && e[n-1].Kind == location.OpXor && e[n-2].Kind == location.OpConst && e[n-2].Arg == -1
	if !inverts || n+2 > location.MaxOps {
		return p
	}
	q := p.Pieces[0]
	q.Expr = append(slices.Clone(e), location.Op{Kind: location.OpConst, Arg: 1}, location.Op{Kind: location.OpAnd})
	return location.Place{Pieces: []location.Piece{q}}
}

// onStraightPath finds the place of a parameter at step k of the straight path from
// the entry, if it is known to hold the argument there.
func (ix *Index) onStraightPath(fl *flow, p *Param, low uint64, k int) (location.Place, bool) {
	addr := low
	if k > 0 {
		addr = fl.steps[k].Addr
	}
	place, same := ix.locate(p, low, addr)
	if _, gone := place.Gone(); gone {
		place, same = ix.statedLater(fl, p, low, k, place)
	}
	if _, gone := place.Gone(); !gone && p.unread {
		return location.MissingPlace(int(p.Type.Size), unread), false
	}
	if constant(place) {
		// What it is is a constant, or what it is made at once, before any code.
		return location.MissingPlace(int(p.Type.Size), location.OptimizedOut), false
	}
	if !same && !fl.passed(place, k) {
		return place, false
	}
	if fl.onPath != nil {
		place = place.Rebase(fl.onPath)
	}
	if len(fl.steps) == 0 {
		// Without a straight path only the entry itself is known, and no slot is written.
		there := atCall().copies()
		return place, k == 0 && len(place.FrameSlots()) == 0 && !usesFrame(place) && p.ownRegisters(place, &there)
	}
	if k >= len(fl.path) {
		return place, false
	}
	st := &fl.path[k]
	if usesFrame(place) {
		return place, false
	}
	for _, r := range registers(place) {
		if !same {
			break // passed has seen to them
		}
		if r != location.RSP && r != location.RBP && st.changed.Has(hardware(r)) {
			return place, false
		}
		if r == location.RBP && len(place.FrameSlots()) == 0 && st.changed.Has(x86.RBP) {
			return place, false
		}
	}
	if st.wrote {
		// What it leads to may have been changed by now.
		if edges, _ := p.Type.Edges(); len(edges) > 0 || pointerReg(place) >= 0 || p.stack == addressThere {
			return place, false
		}
	}
	if !p.ownRegisters(place, &st.copies) {
		return location.MissingPlace(int(p.Type.Size), notOwn), false
	}
	data := dataBytes(p.Type)
	for _, slot := range place.FrameSlots() {
		off, known := fl.fromCFA(slot, k)
		if !known {
			return place, false
		}
		if off >= 0 {
			if slot.Size > 8 && p.stack != valueThere {
				if p.stack == eitherThere || len(place.Pieces) != 1 {
					return location.MissingPlace(int(p.Type.Size), unclearStack), false
				}
				q := &place.Pieces[0]
				q.Expr = append(slices.Clone(q.Expr), location.Op{Kind: location.OpDeref, Size: 8})
				slot.Size = 8
			}
			if !none(st.overwritten, off, slot.Size) || slot.Size > maxData || !p.own(words(off, slot.Size), slot.Size) {
				return place, false
			}
		} else if runs := st.at.runs(off, slotData(slot, data)); runs == nil || !p.own(runs, slot.Size) {
			return place, false
		}
	}
	return place.RebaseCFA(fl.cfaAt(k)), true
}

// maxData bounds the types whose padding is told from their data.
const maxData = 1 << 12

// dataBytes says which bytes of a type's values hold data: no one writes padding.
func dataBytes(t *types.Type) []bool {
	if t.Size <= 0 || t.Size > maxData {
		return nil
	}
	data := make([]bool, t.Size)
	markData(data, t, 0, 0)
	return data
}

func markData(data []bool, t *types.Type, off int64, nesting int) {
	mark := func(off, size int64) {
		for i := max(off, 0); i < off+size && i < int64(len(data)); i++ {
			data[i] = true
		}
	}
	fields := func(fs []types.Field) {
		for _, f := range fs {
			if f.Type != nil {
				markData(data, f.Type, off+f.Offset, nesting+1)
			}
		}
	}
	switch {
	case nesting > 16:
		mark(off, t.Size)
	case t.Kind == types.Struct || t.Kind == types.Tuple:
		fields(t.Fields)
	case t.Kind == types.Enum && t.Enum != nil:
		if t.Enum.Tag != nil {
			mark(off+t.Enum.Tag.Offset, int64(t.Enum.Tag.Size))
		}
		for _, v := range t.Enum.Variants {
			fields(v.Fields)
		}
	case t.Kind == types.Array && t.Elem != nil && t.Elem.Size > 0 && t.Count*t.Elem.Size <= maxData:
		for i := range t.Count {
			markData(data, t.Elem, off+i*t.Elem.Size, nesting+1)
		}
	default:
		mark(off, t.Size)
	}
}

// statedLater finds the place of a parameter that the debug info has only from a later
// step on, in a register that holds there what it held at the entry: then it holds it
// at step k too.
func (ix *Index) statedLater(fl *flow, p *Param, low uint64, k int, none location.Place) (place location.Place, found bool) {
	for j := k + 1; j < min(len(fl.path), maxSearch); j++ {
		place, _ := ix.locate(p, low, fl.steps[j].Addr)
		if _, gone := place.Gone(); !gone {
			for _, r := range registers(place) {
				if !argumentRegs.Has(hardware(r)) || fl.path[j].changed.Has(hardware(r)) {
					return none, true // a copy, which is not there yet at k
				}
			}
			if fl.passed(place, j) {
				return place, true
			}
			break
		}
	}
	return none, true
}

// passed says whether a place that the debug info states only from somewhere behind
// the entry on is, at step k, just what an argument register held at the entry, or
// memory that one led to.
func (fl *flow) passed(p location.Place, k int) bool {
	if k >= len(fl.path) || fl.path[k].wrote {
		return false
	}
	regs := registers(p)
	for _, r := range regs {
		if !fl.path[k].holds.Has(hardware(r)) {
			return false
		}
	}
	return len(regs) > 0 && p.Complete()
}

// constant says whether all that a place states of its value is constant.
func constant(p location.Place) bool {
	found := false
	for _, q := range p.Pieces {
		if q.Kind != location.Constant && q.Kind != location.Missing {
			return false
		}
		found = found || q.Kind == location.Constant
	}
	return found
}

// usesFrame says whether a place still hangs on a frame base that is not known.
func usesFrame(p location.Place) bool {
	for _, q := range p.Pieces {
		if q.Expr.Uses(location.OpFrame) {
			return true
		}
	}
	return false
}

// registers lists the registers that a place reads.
func registers(p location.Place) []location.Reg {
	var regs []location.Reg
	for _, q := range p.Pieces {
		if q.Kind == location.Register {
			regs = append(regs, q.Reg)
		}
		for _, o := range q.Expr {
			if o.Kind == location.OpRegister {
				regs = append(regs, o.Reg)
			}
		}
	}
	return regs
}

// hardware turns DWARF's number of a register into the processor's.
func hardware(r location.Reg) x86.Reg {
	switch {
	case r == location.RDX:
		return x86.RDX
	case r == location.RCX:
		return x86.RCX
	case r == location.RBX:
		return x86.RBX
	case r == location.RSI:
		return x86.RSI
	case r == location.RDI:
		return x86.RDI
	case r == location.RBP:
		return x86.RBP
	case r == location.RSP:
		return x86.RSP
	case r.IsXMM():
		return x86.X0 + x86.Reg(r-location.XMM0)
	}
	return x86.Reg(r) // rax and r8 to r15 have the same number
}

// inInlined finds the place of a parameter at an entry of an inlined instance; low is the
// first instruction of the function that it was inlined into.
func (ix *Index) inInlined(fl *flow, p *Param, low, addr uint64) location.Place {
	place, _ := ix.locate(p, low, addr)
	if fl.base != nil {
		place = place.Rebase(fl.base)
	}
	if usesFrame(place) {
		return location.MissingPlace(int(p.Type.Size), location.OptimizedOut)
	}
	if fl.intoHeap(ix, p, place) {
		return location.MissingPlace(int(p.Type.Size), freed)
	}
	cfa, err := ix.cfa(addr)
	if err == nil {
		place = place.RebaseCFA(cfa)
	}
	for _, slot := range place.FrameSlots() {
		if slot.Base != location.OpRegister || !fl.writtenBefore(addr, hardware(slot.Reg), slot.Off, slot.Size) {
			return location.MissingPlace(int(p.Type.Size), location.OptimizedOut)
		}
	}
	return place
}

// maxBack bounds the instructions that writtenBefore looks at.
const maxBack = 64

// writtenBefore says whether the memory at off from the register base is stored in the
// straight code that leads to addr, all of it, and not again in the straight code
// after it. Slots are shared by variables whose lives don't meet: what was stored
// earlier, elsewhere, may be another variable's, and what is stored later may be a
// later value of this one.
func (fl *flow) writtenBefore(addr uint64, base x86.Reg, off int64, size int) bool {
	insts := fl.code.Insts
	at, ok := fl.code.Index(addr)
	if !ok {
		return false
	}
	overlaps := func(in *x86.Inst) (lo, hi int64, hit bool) {
		m := &in.Mem
		if !in.MemWrite || m.Base != base || m.Index != x86.NoReg || m.Seg || m.Vague {
			return 0, 0, false
		}
		lo, hi = max(m.Disp, off), min(m.Disp+int64(in.MemSize), off+int64(size))
		return lo, hi, lo < hi || in.MemSize == 0
	}
	for i := at; i < len(insts) && i < at+maxBack; i++ {
		in := &insts[i]
		if _, _, hit := overlaps(in); hit {
			return false
		}
		if in.Branches() || !in.FallsThrough() || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			break
		}
	}
	written := map[int64]bool{}
	for i := at; i > 0 && i > at-maxBack; i-- {
		if fl.code.JumpedTo(insts[i].Addr) || fl.pads[insts[i].Addr] {
			return false
		}
		in := &insts[i-1]
		if in.End() != insts[i].Addr || !in.FallsThrough() || in.Branches() || in.Kind == x86.Call || in.Kind == x86.CallIndirect || in.Writes.Has(base) {
			return false
		}
		lo, hi, hit := overlaps(in)
		if hit && (in.MemRead || in.MemSize == 0) {
			return false
		}
		if hit {
			for b := lo; b < hi; b++ {
				written[b] = true
			}
			if all(written, off, size) {
				return true
			}
		}
	}
	return false
}

// Signature is the function's parameters and result, nil for (); ok says whether the
// debug info has them.
func (f *Function) Signature() (params []Param, result *types.Type, ok bool) {
	if f.abstract == nil {
		return nil, nil, false
	}
	s := f.abstract
	in := &Instance{Fn: f, entry: s.off, sub: s}
	params, err := f.ix.params(in)
	if err != nil {
		return nil, nil, false
	}
	if len(params) > 0 && params[0].Args != nil {
		var args []Param
		for i := range params[0].Args {
			args = append(args, Param{Name: params[0].Args[i].Label(), Type: params[0].Args[i].Type})
		}
		params = args
	}
	result, _ = f.ix.resultType(in)
	if result == nil && len(params) == 0 && !f.ix.typed(s) {
		return nil, nil, false
	}
	return params, result, true
}

// typed says whether the unit of a subprogram has types: with line tables alone, a
// function without parameters and one whose parameters are not stated look the same.
func (ix *Index) typed(s *subprogram) bool {
	u := ix.unit(s)
	if known, ok := ix.typedUnits.Load(u); ok {
		return known.(bool)
	}
	found := false
	c := u.Cursor(0)
	tags := dwarf.Tags(dwarf.TagBaseType, dwarf.TagStructureType, dwarf.TagPointerType)
	for !found && c.NextTag(&tags) {
		found = true
	}
	ix.typedUnits.Store(u, found)
	return found
}

// Untyped says whether nothing is known of the instance's arguments and result for
// want of debug info.
func (in *Instance) Untyped() bool {
	return in.entry == 0 && in.Fn.given == nil
}
