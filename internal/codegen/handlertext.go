package codegen

import (
	"ferrotrace/internal/program/ir"

	"github.com/cilium/ebpf/asm"
)

// textLimit bounds the bytes that are searched.
const textLimit = 4096

// textLen makes r0 the number of bytes before the first zero.
func (g *handler) textLen(x *ir.TextLen) {
	f := g.f
	t := x.X.Type()
	at := g.value(x.X, t)
	n := g.temp(8)
	f.storeImm(r7, n, int64(t.Size), u64)
	f.imm(r1, int64(min(t.Size, textLimit)))
	g.loop(asm.FnLoop, "strlen", func() {
		f := g.f
		end := g.cont
		f.emit(asm.JGE.Imm(r8, int32(t.Size), g.brk))
		f.mov(r1, r7)
		f.emit(asm.Add.Reg(r1, r8))
		f.load(r2, r1, at, u8)
		f.emit(asm.JNE.Imm(r2, 0, end))
		f.store(r7, n, r8, u64)
		f.jump(g.brk)
	}, num("index"), ptr("loop"))
	f.load(r0, r7, n, u64)
}

// textCmp makes r0 whether the first N bytes of two texts are equal.
func (g *handler) textCmp(x *ir.TextCmp) {
	f := g.f
	differ, same, end := g.label("differ"), g.label("same"), g.label("end")
	t, u := x.X.Type(), x.Y.Type()
	a := g.value(x.X, t)
	b := g.value(x.Y, u)
	for i := range min(x.N, max(t.Size, u.Size)) {
		f.imm(r1, 0)
		f.imm(r2, 0)
		if i < t.Size {
			f.load(r1, r7, a+i, u8)
		}
		if i < u.Size {
			f.load(r2, r7, b+i, u8)
		}
		f.emit(asm.JNE.Reg(r1, r2, differ), asm.JEq.Imm(r1, 0, same))
	}
	f.place(same)
	f.imm(r0, 1)
	f.jump(end)
	f.place(differ)
	f.imm(r0, 0)
	f.place(end)
}

// textHas looks for Y in X, at one place after the other.
func (g *handler) textHas(x *ir.TextHas) {
	f := g.f
	t, u := x.X.Type(), x.Y.Type()
	a := g.value(x.X, t)
	b := g.value(x.Y, u)
	found := g.temp(8)
	f.storeImm(r7, found, -1, u64)
	f.imm(r1, int64(min(t.Size, textLimit)))
	g.loop(asm.FnLoop, "find", func() {
		f := g.f
		start, same := g.temp(8), g.temp(8)
		f.emit(asm.JGE.Imm(r8, int32(t.Size), g.brk))
		f.store(r7, start, r8, u64)
		f.storeImm(r7, same, 1, u64)
		f.imm(r1, int64(min(u.Size, textLimit)))
		g.loop(asm.FnLoop, "match", func() {
			f := g.f
			differ := g.label("differ")
			f.emit(asm.JGE.Imm(r8, int32(u.Size), g.brk))
			f.mov(r1, r7)
			f.emit(asm.Add.Reg(r1, r8))
			f.load(r2, r1, b, u8)
			f.emit(asm.JEq.Imm(r2, 0, g.brk))
			f.load(r3, r7, start, u64)
			f.emit(asm.Add.Reg(r3, r8))
			f.emit(asm.JGE.Imm(r3, int32(t.Size), differ))
			f.mov(r1, r7)
			f.emit(asm.Add.Reg(r1, r3))
			f.load(r3, r1, a, u8)
			f.emit(asm.JEq.Reg(r2, r3, g.cont))
			f.place(differ)
			f.storeImm(r7, same, 0, u64)
			f.jump(g.brk)
		}, num("index"), ptr("loop"))
		miss := g.label("miss")
		f.load(r1, r7, same, u64)
		f.emit(asm.JEq.Imm(r1, 0, miss))
		f.load(r1, r7, start, u64)
		f.store(r7, found, r1, u64)
		f.jump(g.brk)
		f.place(miss)
		// Behind the text's end there is nothing to look for.
		f.load(r1, r7, start, u64)
		f.emit(asm.JGE.Imm(r1, int32(t.Size), g.brk))
		f.mov(r2, r7)
		f.emit(asm.Add.Reg(r2, r1))
		f.load(r1, r2, a, u8)
		f.emit(asm.JEq.Imm(r1, 0, g.brk))
	}, num("index"), ptr("loop"))
	f.load(r0, r7, found, u64)
	if x.T.Kind == ir.Bool {
		f.emit(asm.Xor.Imm(r0, -1))
		g.boolean(asm.JNE.Imm(r0, 0, ""))
	}
}

// nameText puts the text of a name at a place of the frame.
func (g *handler) nameText(x *ir.NameText, at int) {
	f := g.f
	g.c.named = true
	none := g.label("none")
	g.zero(at, x.T.Size)
	g.scalar(x.X)
	f.mov(r1, r0)
	f.lookup(mapNames)
	f.emit(asm.JEq.Imm(r0, 0, none))
	f.mov(r9, r0)
	n := nameSize(g.s)
	g.copyFrom(r9, at, min(x.T.Size, n))
	if x.T.Size < n {
		f.storeImm(r7, at+x.T.Size-1, 0, u8)
	}
	f.place(none)
}
