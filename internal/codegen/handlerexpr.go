package codegen

import (
	"encoding/binary"
	"slices"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf/asm"
)

// scalar leaves a scalar in r0, extended to 64 bits by its type.
func (g *handler) scalar(x ir.Expr) {
	f := g.f
	t := x.Type()
	switch x := x.(type) {
	case *ir.Const:
		f.imm(r0, int64(x.V))
	case *ir.Var:
		f.load(r0, r7, g.vars[x.Slot], asmSize(t.Size))
		g.extend(t)
	case *ir.Unary:
		g.scalar(x.X)
		switch x.Op {
		case ir.Neg:
			f.emit(asm.Neg.Imm(r0, 0))
		case ir.Inv:
			f.emit(asm.Xor.Imm(r0, -1))
		case ir.Not:
			g.boolean(asm.JEq.Imm(r0, 0, ""))
		}
		g.narrow(t)
	case *ir.Binary:
		g.binary(x)
	case *ir.Cond:
		no, end := g.label("no"), g.label("end")
		g.branch(x.C, false, no)
		g.scalar(x.X)
		f.jump(end)
		f.place(no)
		g.scalar(x.Y)
		f.place(end)
	case *ir.Cast:
		if !x.X.Type().Scalar() {
			g.load(g.value(x.X, x.X.Type()), t)
			return
		}
		g.scalar(x.X)
		if t.Kind == ir.Bool {
			g.boolean(asm.JNE.Imm(r0, 0, ""))
			return
		}
		g.narrow(t)
	case *ir.MapGet:
		g.mapGet(x)
	case *ir.HasKey:
		key := g.key(x.Map, x.Key)
		g.addr(r2, key)
		f.loadMap(r1, mapName(x.Map))
		f.helper(asm.FnMapLookupElem)
		g.boolean(asm.JNE.Imm(r0, 0, ""))
	case *ir.MapLen:
		g.mapLen(x.Map)
	case *ir.Part:
		g.load(g.value(x.X, x.X.Type())+x.X.Type().Fields[x.I].Off, t)
	case *ir.Index:
		g.index(x)
		g.loadAt(r1, t)
	case *ir.Root:
		g.rootScalar(x)
	case *ir.Load:
		at := g.temp(8)
		g.read(x, at)
		g.load(at, t)
	case *ir.Require:
		g.require(x.C)
		g.scalar(x.X)
	case *ir.Register:
		f.load(r0, r6, registerOffset(x.Reg), u64)
	case *ir.Builtin:
		g.builtin(x)
	case *ir.TextLen:
		g.textLen(x)
	case *ir.TextCmp:
		g.textCmp(x)
	case *ir.TextHas:
		g.textHas(x)
	case *ir.Block:
		g.stmts(x.Body)
		g.scalar(x.X)
	case *saved:
		f.load(r0, r7, x.at, u64)
	default:
		g.fail("no scalar: %T", x)
	}
}

// load makes r0 the scalar at a place of the frame.
func (g *handler) load(off int, t *ir.Type) {
	g.f.load(r0, r7, off, asmSize(t.Size))
	g.extend(t)
}

// loadAt makes r0 the scalar at the address in r.
func (g *handler) loadAt(r asm.Register, t *ir.Type) {
	g.f.load(r0, r, 0, asmSize(t.Size))
	g.extend(t)
}

// extend gives r0, which has been loaded without a sign, the sign of its type.
func (g *handler) extend(t *ir.Type) {
	if n := int32(64 - 8*t.Size); t.Signed && n > 0 {
		g.f.emit(asm.LSh.Imm(r0, n), asm.ArSh.Imm(r0, n))
	}
}

// narrow cuts r0 to its type.
func (g *handler) narrow(t *ir.Type) {
	n := int32(64 - 8*t.Size)
	if n <= 0 || n >= 64 {
		return
	}
	right := asm.RSh
	if t.Signed {
		right = asm.ArSh
	}
	g.f.emit(asm.LSh.Imm(r0, n), right.Imm(r0, n))
}

// boolean makes r0 1 where the jump would be taken, else 0.
func (g *handler) boolean(jump asm.Instruction) {
	f := g.f
	yes, end := g.label("yes"), g.label("end")
	f.emit(jump.WithReference(yes))
	f.imm(r0, 0)
	f.jump(end)
	f.place(yes)
	f.imm(r0, 1)
	f.place(end)
}

// operands leaves X in r0 and Y in r2, unless Y is a short constant: then it returns that.
func (g *handler) operands(x, y ir.Expr) (int32, bool) {
	f := g.f
	if c, ok := y.(*ir.Const); ok && int64(c.V) == int64(int32(c.V)) {
		g.scalar(x)
		return int32(c.V), true
	}
	mark := g.at
	at := g.temp(8)
	g.scalar(x)
	f.store(r7, at, r0, u64)
	g.scalar(y)
	f.mov(r2, r0)
	f.load(r0, r7, at, u64)
	g.release(mark)
	return 0, false
}

func (g *handler) binary(x *ir.Binary) {
	f := g.f
	switch x.Op {
	case ir.LAnd, ir.LOr:
		end := g.label("end")
		g.scalar(x.X)
		g.boolean(asm.JNE.Imm(r0, 0, ""))
		if x.Op == ir.LAnd {
			f.emit(asm.JEq.Imm(r0, 0, end))
		} else {
			f.emit(asm.JNE.Imm(r0, 0, end))
		}
		g.scalar(x.Y)
		g.boolean(asm.JNE.Imm(r0, 0, ""))
		f.place(end)
		return
	}
	if t := x.X.Type(); !t.Scalar() {
		g.equal(x)
		return
	}
	imm, short := g.operands(x.X, x.Y)
	signed := x.X.Type().Signed
	if jump, ok := comparisons[x.Op]; ok {
		op := jump[0]
		if signed {
			op = jump[1]
		}
		if short {
			g.boolean(op.Imm(r0, imm, ""))
		} else {
			g.boolean(op.Reg(r0, r2, ""))
		}
		return
	}
	switch x.Op {
	case ir.Div, ir.Mod:
		if short && imm != 0 && !signed {
			op := asm.Div
			if x.Op == ir.Mod {
				op = asm.Mod
			}
			f.emit(op.Imm(r0, imm))
			break
		}
		if short {
			f.imm(r2, int64(imm))
		}
		g.divide(signed, x.Op == ir.Mod)
	case ir.Shl, ir.Shr:
		op := asm.LSh
		if x.Op == ir.Shr {
			if op = asm.RSh; signed {
				op = asm.ArSh
			}
		}
		if short {
			f.emit(op.Imm(r0, imm&63))
		} else {
			f.emit(asm.And.Imm(r2, 63), op.Reg(r0, r2))
		}
	default:
		op, ok := arithmetic[x.Op]
		if !ok {
			g.fail("operator %d", x.Op)
			return
		}
		if short {
			f.emit(op.Imm(r0, imm))
		} else {
			f.emit(op.Reg(r0, r2))
		}
	}
	g.narrow(x.T)
}

var comparisons = map[ir.BinaryOp][2]asm.JumpOp{
	ir.Eq: {asm.JEq, asm.JEq}, ir.Ne: {asm.JNE, asm.JNE},
	ir.Lt: {asm.JLT, asm.JSLT}, ir.Le: {asm.JLE, asm.JSLE},
	ir.Gt: {asm.JGT, asm.JSGT}, ir.Ge: {asm.JGE, asm.JSGE},
}

var arithmetic = map[ir.BinaryOp]asm.ALUOp{
	ir.Add: asm.Add, ir.Sub: asm.Sub, ir.Mul: asm.Mul, ir.And: asm.And, ir.Or: asm.Or, ir.Xor: asm.Xor,
}

// divide is r0 = r0 / r2, or the remainder; 1 where r2 is 0, as in bpftrace. Signed division is an
// instruction only since Linux 6.6.
func (g *handler) divide(signed, remainder bool) {
	f := g.f
	zero, end := g.label("zero"), g.label("end")
	f.emit(asm.JEq.Imm(r2, 0, zero))
	op := asm.Div
	if remainder {
		op = asm.Mod
	}
	if !signed {
		f.emit(op.Reg(r0, r2))
		f.jump(end)
	} else {
		// r3 has the sign of what comes out.
		f.mov(r3, r0)
		if !remainder {
			f.emit(asm.Xor.Reg(r3, r2))
		}
		f.abs(r0)
		f.abs(r2)
		f.emit(op.Reg(r0, r2))
		f.emit(asm.JSGE.Imm(r3, 0, end), asm.Neg.Imm(r0, 0))
		f.jump(end)
	}
	f.place(zero)
	g.fault(runtime.DivideByZero)
	f.imm(r0, 1)
	f.place(end)
}

// value puts a value into the frame, as one of type t, and returns where.
func (g *handler) value(x ir.Expr, t *ir.Type) int {
	switch x := x.(type) {
	case *ir.Var:
		if g.h.Vars[x.Slot].Size == t.Size {
			return g.vars[x.Slot]
		}
	case *ir.Part:
		if x.T.Size == t.Size {
			return g.value(x.X, x.X.Type()) + x.X.Type().Fields[x.I].Off
		}
	}
	at := g.temp(t.Size)
	g.into(x, t, at)
	return at
}

// into stores a value at a place of the frame, as one of type t: shorter text is filled
// up with zeros, longer cut.
func (g *handler) into(x ir.Expr, t *ir.Type, at int) {
	f := g.f
	if t.Scalar() {
		g.scalar(x)
		f.store(r7, at, r0, asmSize(t.Size))
		return
	}
	own := x.Type()
	mark := g.at
	defer g.release(mark)
	switch x := x.(type) {
	case *ir.String:
		b := make([]byte, align8(t.Size))
		n := copy(b[:t.Size], x.S)
		if n == t.Size && t.Kind == ir.Text { // room for the zero that ends it
			b[n-1] = 0
		}
		g.literal(b, at)
	case *ir.Cond:
		no, end := g.label("no"), g.label("end")
		g.branch(x.C, false, no)
		g.into(x.X, t, at)
		f.jump(end)
		f.place(no)
		g.into(x.Y, t, at)
		f.place(end)
	case *ir.MakeTuple:
		g.gaps(t, at)
		for i, e := range x.Elems {
			et, off := t.Elem, 0
			if t.Kind == ir.Tuple {
				et, off = t.Fields[i].Type, t.Fields[i].Off
			} else {
				off = i * t.Elem.Size
			}
			// The elements may look at what stands at the place that is written.
			g.into(e, et, at+off)
		}
	case *ir.Require:
		g.require(x.C)
		g.into(x.X, t, at)
	case *ir.Block:
		g.stmts(x.Body)
		g.into(x.X, t, at)
	case *ir.Cast:
		if own.Kind == ir.Array && x.X.Type().Scalar() {
			g.scalar(x.X)
			f.store(r7, at, r0, asmSize(own.Size))
			return
		}
		xt := x.X.Type()
		if xt.Kind == own.Kind && own.Kind != ir.Array {
			g.into(x.X, t, at)
			return
		}
		g.fill(own, t, at, func(to int) {
			if own.Size > xt.Size {
				g.zero(to, own.Size)
			}
			g.copy(to, g.value(x.X, xt), min(own.Size, xt.Size))
		})
	case *ir.MapGet:
		g.mapGetInto(x, t, at)
	case *ir.Root:
		g.fill(own, t, at, func(to int) { g.rootInto(x.Root, x.Off, own.Size, to, g.endAs(runtime.Unreadable)) })
	case *ir.Load:
		g.fill(own, t, at, func(to int) { g.read(x, to) })
	case *ir.ReadText:
		g.fill(own, t, at, func(to int) { g.readText(x, to) })
	case *ir.ReadBytes:
		g.fill(own, t, at, func(to int) { g.readBytes(x, to) })
	case *ir.NameText:
		g.fill(own, t, at, func(to int) { g.nameText(x, to) })
	case *ir.BytesOf:
		g.fill(own, t, at, func(to int) {
			xt := x.X.Type()
			most := min(own.Size-4, xt.Size)
			g.zero(to, own.Size)
			from := g.value(x.X, xt)
			g.scalar(x.Len)
			few := g.label("few")
			f.emit(asm.JLE.Imm(r0, int32(most), few))
			f.imm(r0, int64(most))
			f.place(few)
			f.store(r7, to, r0, u32)
			g.copy(to+4, from, most)
		})
	case *ir.Builtin:
		g.fill(own, t, at, func(to int) { g.builtinInto(x, to) })
	case *ir.Index:
		g.index(x)
		f.mov(r9, r1)
		g.fill(own, t, at, func(to int) { g.copyFrom(r9, to, own.Size) })
	case *ir.Var, *ir.Part:
		from := g.value(x, own)
		g.fill(own, t, at, func(to int) { g.copy(to, from, min(own.Size, t.Size)) })
	default:
		g.fail("no value: %T", x)
	}
}

// fill has a value of one type written where one of another is wanted.
func (g *handler) fill(own, t *ir.Type, at int, write func(at int)) {
	switch {
	case own.Size == t.Size:
		write(at)
	case own.Size < t.Size:
		g.zero(at, t.Size)
		write(at)
	default:
		tmp := g.temp(own.Size)
		write(tmp)
		g.copy(at, tmp, t.Size)
		if t.Kind == ir.Text {
			g.f.storeImm(r7, at+t.Size-1, 0, u8)
		}
	}
}

// gaps clears the words of a tuple or an array in which there are bytes that belong to no
// part of it.
func (g *handler) gaps(t *ir.Type, at int) {
	size := align8(t.Size)
	part := make([]bool, size)
	mark := func(off, n int) {
		for i := off; i < off+n; i++ {
			part[i] = true
		}
	}
	if t.Kind == ir.Array {
		mark(0, t.Size)
	}
	for _, f := range t.Fields {
		mark(f.Off, f.Type.Size)
	}
	for i := 0; i < size; i += 8 {
		if slices.Contains(part[i:i+8], false) {
			g.f.storeImm(r7, at+i, 0, u64)
		}
	}
}

// literal stores bytes, a multiple of 8.
func (g *handler) literal(b []byte, at int) {
	for i := 0; i < len(b); i += 8 {
		v := int64(binary.LittleEndian.Uint64(b[i:]))
		if v == int64(int32(v)) {
			g.f.storeImm(r7, at+i, v, u64)
			continue
		}
		g.f.imm(r1, v)
		g.f.store(r7, at+i, r1, u64)
	}
}

// require ends the handler unless c holds.
func (g *handler) require(c ir.Expr) {
	g.branch(c, false, g.endAs(runtime.OtherVariant))
}

// endAs is a label at which the handler ends for a fault that is counted.
func (g *handler) endAs(k Fault) string {
	label, ok := g.faults[k]
	if !ok {
		label = g.label("fault")
		g.faults[k] = label
	}
	return label
}

// tails writes what endAs leads to, behind the end of the function.
func (g *handler) tails() {
	for k := range runtime.NumFaults {
		if label, ok := g.faults[k]; ok {
			g.f.place(label)
			g.fault(k)
			g.f.jump(g.end)
		}
	}
}

// index makes r1 the address of an element, or ends the handler.
func (g *handler) index(x *ir.Index) {
	f := g.f
	at := x.X.Type()
	i := g.temp(8)
	g.scalar(x.I)
	f.store(r7, i, r0, u64)
	from := g.value(x.X, at)
	out := g.endAs(runtime.OutOfBounds)
	f.load(r0, r7, i, u64)
	f.emit(asm.JGE.Imm(r0, int32(at.Count), out))
	f.emit(asm.Mul.Imm(r0, int32(at.Elem.Size)))
	g.addr(r1, from)
	f.emit(asm.Add.Reg(r1, r0))
}

// equal compares values that are no scalars.
func (g *handler) equal(x *ir.Binary) {
	f := g.f
	differ, end := g.label("differ"), g.label("end")
	t, u := x.X.Type(), x.Y.Type()
	if s, ok := x.Y.(*ir.String); ok && t.Kind == ir.Text {
		at := g.value(x.X, t)
		g.isLiteral(at, t.Size, s.S, differ)
	} else {
		a := g.value(x.X, t)
		b := g.value(x.Y, u)
		n := min(t.Size, u.Size)
		for i := 0; i < n; {
			size := step8(n - i)
			f.load(r1, r7, a+i, asmSize(size))
			f.load(r2, r7, b+i, asmSize(size))
			f.emit(asm.JNE.Reg(r1, r2, differ))
			i += size
		}
		// What is longer has ended by then.
		if t.Size != u.Size {
			at := a
			if u.Size > n {
				at = b
			}
			f.load(r1, r7, at+n, u8)
			f.emit(asm.JNE.Imm(r1, 0, differ))
		}
	}
	yes, no := int64(1), int64(0)
	if x.Op == ir.Ne {
		yes, no = 0, 1
	}
	f.imm(r0, yes)
	f.jump(end)
	f.place(differ)
	f.imm(r0, no)
	f.place(end)
}

// isLiteral jumps to differ unless the text at a place, of which size bytes are there, is s.
func (g *handler) isLiteral(at, size int, s string, differ string) {
	f := g.f
	b := append([]byte(s), 0)
	if len(b) > size {
		f.jump(differ)
		return
	}
	for i := 0; i < len(b); {
		n := step8(len(b) - i)
		var w [8]byte
		copy(w[:], b[i:i+n])
		v := binary.LittleEndian.Uint64(w[:])
		f.load(r1, r7, at+i, asmSize(n))
		if v <= 1<<31-1 {
			f.emit(asm.JNE.Imm(r1, int32(v), differ))
		} else {
			f.imm(r2, int64(v))
			f.emit(asm.JNE.Reg(r1, r2, differ))
		}
		i += n
	}
}

func (g *handler) mapGet(x *ir.MapGet) {
	f := g.f
	m := g.s.Maps[x.Map]
	if g.c.Single[x.Map] && !m.Value.Kind.Aggregate() {
		g.single(x.Map, r1)
		g.loadAt(r1, x.T)
		return
	}
	key := g.key(x.Map, x.Key)
	if m.Value.Kind.Aggregate() {
		g.sumUp(x.Map, key, x.T)
		return
	}
	none := g.label("none")
	g.addr(r2, key)
	f.loadMap(r1, mapName(x.Map))
	f.helper(asm.FnMapLookupElem)
	f.emit(asm.JEq.Imm(r0, 0, none))
	g.loadAt(r0, x.T)
	f.place(none)
}

func (g *handler) mapGetInto(x *ir.MapGet, t *ir.Type, at int) {
	f := g.f
	vt := g.s.Maps[x.Map].Value
	key := g.key(x.Map, x.Key)
	g.zero(at, t.Size)
	none := g.label("none")
	g.addr(r2, key)
	f.loadMap(r1, mapName(x.Map))
	f.helper(asm.FnMapLookupElem)
	f.emit(asm.JEq.Imm(r0, 0, none))
	f.mov(r9, r0)
	g.copyFrom(r9, at, min(vt.Size, t.Size))
	f.place(none)
}

// mapLen makes r0 the number of a map's elements, by going through them.
func (g *handler) mapLen(m int) {
	f := g.f
	n := g.temp(8)
	f.storeImm(r7, n, 0, u64)
	f.loadMap(r1, mapName(m))
	g.loop(asm.FnForEachMapElem, "len", func() {
		g.f.load(r1, r7, n, u64)
		g.f.addImm(r1, 1)
		g.f.store(r7, n, r1, u64)
	}, ptr("map"), ptr("key"), ptr("value"), ptr("loop"))
	f.load(r0, r7, n, u64)
}
