package codegen

import (
	"fmt"

	"ferrotrace/internal/record"

	"github.com/cilium/ebpf/asm"
)

// A predicate is a handler that is a function of the program that makes the record. It is
// called before anything is done for a record that it may forbid.

// decidingRoom is what the calling function takes of the stack that a handler has else.
const decidingRoom = 96

func whereName(p *plan) string { return fmt.Sprintf("where_%d", p.item) }

// decider makes the function that decides about an item.
func (g *generator) decider(p *plan) *handler {
	return &handler{
		c: g.c, p: g.p, s: g.p.Script, o: g.o, cs: g.cs, sizes: g.sizes, name: whereName(p),
		h: g.p.Script.Handlers[p.where.Handler], item: p.where, decides: true,
	}
}

// decide goes to skip if an item's predicate forbids its record, or marks that in the
// record's flags, which are at base.
func (g *generator) decide(f *fn, p *plan, skip string, base asm.Register, flags int) {
	if p.where == nil {
		return
	}
	f.mov(r1, r6)
	f.call(whereName(p))
	if !p.mark {
		f.emit(asm.JEq.Imm(r0, 0, skip))
		return
	}
	shown := f.newLabel("shown")
	f.emit(asm.JNE.Imm(r0, 0, shown))
	f.load(r1, base, flags, u32)
	f.emit(asm.Or.Imm(r1, record.FlagHidden))
	f.store(base, flags, r1, u32)
	f.place(shown)
}
