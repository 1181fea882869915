package index

import (
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/x86"
)

// unread is why a parameter is missing that leads to memory which a caller need not
// have filled.
const unread = "unsupported: what it points to is not read, so it may never have been stored"

// maxCallees bounds the calls, one in the other, that a pointer is followed through.
const maxCallees = 4

// settlePointees finds the parameters that lead to memory which the function does not
// read. Where LLVM sees both sides, it does not store what is not read: the pointer is
// right, what it leads to is not.
func (in *Instance) settlePointees(ix *Index, fl *flow, params []Param) {
	for i := range params {
		p := &params[i]
		for _, to := range fl.pointers(ix, p, in.Low()) {
			used := fl.code.ReadsThrough(to.addr, ix.callee(maxCallees)) || to.object && fl.code.CallsThrough(to.vtable)
			p.unread = p.unread || !used
		}
	}
}

// lead is where the address of something is, and that of its vtable if it is an object:
// whatever its methods are, they are given its address.
type lead struct {
	addr   x86.Source
	object bool
	vtable x86.Source
}

// pointers is where the addresses are that a parameter leads to memory by, as far as
// they are not in the function's own frame: what is there was stored for its address
// to be used, or in code that is not optimised.
func (fl *flow) pointers(ix *Index, p *Param, low uint64) (leads []lead) {
	edges, _ := p.Type.Edges()
	if len(edges) == 0 && p.Type.Size <= 8 {
		return nil
	}
	place, _ := ix.locate(p, low, low)
	if r := pointerReg(place); r >= 0 {
		return []lead{{addr: x86.Source{Reg: hardware(location.Reg(r))}}}
	}
	if off, ok := fl.callersSlot(ix, p, low); ok {
		if p.stack == addressThere {
			return []lead{{addr: x86.Source{Reg: x86.NoReg, Slot: off}}}
		}
		for _, e := range edges {
			to := lead{addr: x86.Source{Reg: x86.NoReg, Slot: off + e.Ptr}, object: e.Elem.Object()}
			to.vtable = x86.Source{Reg: x86.NoReg, Slot: off + e.Len}
			leads = append(leads, to)
		}
		return leads
	}
	at := func(off int64) (src x86.Source, ok bool) {
		for _, q := range place.Pieces {
			if q.Kind == location.Register && int64(q.Offset) == off && q.Size == 8 {
				return x86.Source{Reg: hardware(q.Reg)}, true
			}
		}
		return src, false
	}
	for _, e := range edges {
		addr, ok := at(e.Ptr)
		if !ok {
			continue
		}
		to := lead{addr: addr}
		if e.Elem.Object() {
			to.vtable, to.object = at(e.Len)
		}
		leads = append(leads, to)
	}
	return leads
}

// callee answers for Func.ReadsThrough.
func (ix *Index) callee(depth int) func(in *x86.Inst, reg x86.Reg) (reads, ok bool) {
	return func(in *x86.Inst, reg x86.Reg) (reads, ok bool) {
		if depth == 0 {
			return false, false
		}
		f, ok := ix.calledFunc(ix.callTarget(in))
		return ok && f.ReadsThrough(x86.Source{Reg: reg}, ix.callee(depth-1)), ok
	}
}

// callTarget is the function that a call or jump goes to, 0 if it is not known.
func (ix *Index) callTarget(in *x86.Inst) uint64 {
	if in.Target == 0 && in.Mem.RIPRel {
		if s, ok := ix.File.SlotAt(in.Mem.Target); ok {
			return s.Target
		}
	}
	return in.Target
}

// calledFunc is the code of a function that is not too large to be looked into.
func (ix *Index) calledFunc(addr uint64) (*x86.Func, bool) {
	if addr == 0 || !ix.File.Executable(addr) {
		return nil, false
	}
	low, high, ok := ix.extent(addr)
	if !ok || low != addr || high-low > maxCallee {
		return nil, false
	}
	f, err := x86.NewFunc(ix.File.Bytes, []x86.Range{{Low: low, High: high}}, nil)
	return f, err == nil
}

// maxCallee bounds the functions that are looked into, in bytes.
const maxCallee = 1 << 14

// frees says whether the function gives memory back itself. Then LLVM knows when that
// memory ends, and does not store in it what is not read until then.
func (fl *flow) freesMemory(ix *Index) bool {
	if fl.frees == nil {
		frees := false
		for i := range fl.code.Insts {
			in := &fl.code.Insts[i]
			target := in.Target
			if in.Mem.RIPRel {
				s, ok := ix.File.SlotAt(in.Mem.Target)
				if frees = frees || ok && freesName(s.Import); !ok {
					continue
				}
				target = s.Target
			} else if in.Kind != x86.Call && in.Kind != x86.Jmp {
				continue
			}
			if frees = frees || freesName(ix.symbolAt(target)); frees {
				break
			}
		}
		fl.frees = &frees
	}
	return *fl.frees
}

func freesName(symbol string) bool {
	return symbol == "free" || symbol == "realloc" || strings.Contains(symbol, "_dealloc") || strings.Contains(symbol, "_realloc")
}

// freed is why a parameter of an inlined instance is missing.
const freed = "unsupported: it leads to memory that this code frees, so it may never have been stored"

// intoHeap says whether a parameter of an inlined instance leads to memory that need
// not be filled. Constants are in the program's image.
func (fl *flow) intoHeap(ix *Index, p *Param, place location.Place) bool {
	edges, _ := p.Type.Edges()
	if len(edges) == 0 || !fl.freesMemory(ix) {
		return false
	}
	for _, e := range edges {
		for _, q := range place.Pieces {
			if int64(q.Offset) <= e.Ptr && e.Ptr < int64(q.Offset+q.Size) && q.Kind != location.Constant {
				return true
			}
		}
	}
	return false
}
