package codegen

import (
	"ferrotrace/internal/program/ir"

	"github.com/cilium/ebpf/asm"
)

// Maps of one value need no looking up: they are the one element of an array, on each CPU
// if they aggregate. An array's element is always there, so behind the value there is a
// word that is 1 once there is a value.
//
// What is no word, and what a handler asks for, goes through or removes, is the element of
// a hash: there, an element is replaced or removed as a whole.

// SingleSet is the size of that word.
const SingleSet = 8

// singles says which of a script's maps are such.
func singles(s *ir.Script) []bool {
	is := make([]bool, len(s.Maps))
	for i, m := range s.Maps {
		is[i] = m.Key == nil && m.Declared == "" && (m.Value.Kind.Aggregate() || m.Value.Scalar())
	}
	for _, h := range s.Handlers {
		walkStmts(h.Body, func(s ir.Stmt) {
			switch s := s.(type) {
			case *ir.Delete:
				is[s.Map] = false
			case *ir.ForMap:
				is[s.Map] = false
			}
		}, func(x ir.Expr) {
			switch x := x.(type) {
			case *ir.HasKey:
				is[x.Map] = false
			case *ir.MapLen:
				is[x.Map] = false
			}
		})
	}
	return is
}

// single makes r the address of a map's one value, which is there from now on. It is no
// aggregate's.
func (g *handler) single(m int, r asm.Register) {
	g.f.emit(asm.LoadMapValue(r, 0, 0).WithReference(mapName(m)))
}

// singleHere makes r9 the address of this CPU's value of an aggregating map, which is there
// from now on.
func (g *handler) singleHere(m int, done string) {
	f := g.f
	f.imm(r1, 0)
	f.lookup(mapName(m))
	f.emit(asm.JEq.Imm(r0, 0, done)) // never: for the verifier
	f.mov(r9, r0)
	f.storeImm(r9, valueSize(g.s.Maps[m].Value), 1, u64)
}
