package index

import (
	"path"
	"slices"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// variable is a variable or parameter in scope.
type variable struct {
	Param
	line      int // where it is declared, in file
	file      string
	parameter bool
	scope     []x86.Range // where it is in scope
}

// maxBlocks bounds lexical blocks, one in the other.
const maxBlocks = 256

// uncertain is why a variable is missing that has a place.
const uncertain = "unsupported: it may have no value here: not yet, or not any more"

// running is why a future is missing in the code that it is resumed by.
const running = "unsupported: it is being polled, and its state is the one that it was in before"

// locals are the variables in scope at an address in the line's code, with the places of
// those that are certain to have a value there.
//
// A variable is in scope in the lexical block that rustc makes for what follows its
// declaration: in code that is not optimised, where statements keep their order, that
// begins behind the initialisation. Of optimised code only what is declared on an
// earlier line is believed to be in scope.
func (in *LineInstance) locals(fl *flow, addr uint64) []Local {
	ix := in.In.Fn.ix
	if in.In.entry == 0 {
		return nil
	}
	plain := ix.unoptimised(in.In.Outer, fl)
	vars := in.inScope(fl, addr, plain)
	var out []Local
	for i := range vars {
		v := &vars[i]
		if slices.ContainsFunc(vars[i+1:], v.isShadowedBy) || slices.ContainsFunc(vars, v.isGuardOf) {
			continue
		}
		l := Local{Name: v.Name, Type: v.Type, OwnFrame: !plain}
		if v.Type.Polled() != nil && in.In.Fn.resumesCoroutine() {
			l.Place = v.missing(running)
		} else if plain {
			l.Place = in.inSlot(fl, v, addr)
		} else {
			l.Place = in.optimised(fl, v, addr)
		}
		out = append(out, l)
	}
	return out
}

func (v *variable) isShadowedBy(o variable) bool {
	return o.Name == v.Name && v.Name != desugared && !o.isGuardOf(*v)
}

// isGuardOf says whether v is what rustc makes of the variable o of a match arm for the
// arm's guard: a reference to it, of the same name.
func (v *variable) isGuardOf(o variable) bool {
	p := v.Type.Pointer
	return p != nil && p.Kind == types.Ref && p.Target == o.Type && o.Name == v.Name && o.line == v.line && v.line > 0
}

// desugared is how rustc names the variable that it makes for the iterator of a for
// loop. It is not to be seen from the source, and hides none of its name.
const desugared = "iter"

// inScope lists what is in scope, parameters first, then from the outermost block to the
// innermost.
func (in *LineInstance) inScope(fl *flow, addr uint64, plain bool) []variable {
	ix := in.In.Fn.ix
	params, err := ix.params(in.In)
	if err != nil {
		return nil
	}
	if !in.In.Inlined {
		in.In.settleStack(ix, fl, params)
		if !plain {
			in.In.settlePointees(ix, fl, params)
		}
	}
	var vars []variable
	known := map[dwarf.Offset]bool{}
	for _, p := range params {
		vars = append(vars, variable{Param: p, parameter: true, scope: in.In.Ranges})
		if p.entry != nil {
			known[p.entry.Offset] = true
		}
	}
	block, scope := in.In.entry, in.In.Ranges
	for range maxBlocks {
		children, err := ix.children(block, dwarf.TagVariable, dwarf.TagFormalParameter, dwarf.TagLexicalBlock)
		if err != nil {
			return vars
		}
		inner := scope
		block = 0
		for _, e := range children {
			if e.Tag == dwarf.TagLexicalBlock {
				if ranges, _ := ix.ranges(e.Offset); block == 0 && contains(ranges, addr) {
					block, inner = e.Offset, ranges
				}
				continue
			}
			if known[e.Offset] {
				continue
			}
			v := variable{scope: scope, Param: Param{
				Name: inheritedName(e), Type: ix.declaredType(e), entry: e, ambiguous: in.In.Fn.Ambiguous && !in.In.Inlined,
			}}
			if n, owner, ok := e.Inherited(dwarf.AttrDeclLine); ok {
				v.line = int(n.Number())
				if f, _, ok := e.Inherited(dwarf.AttrDeclFile); ok {
					file, _ := owner.Unit.File(f.Number())
					v.file = file.Full
				}
			}
			if v.Name == "" || !plain && v.line >= in.Line.Number && path.Clean(v.file) == in.Line.full {
				continue
			}
			vars = append(vars, v)
		}
		if block == 0 {
			return vars
		}
		scope = inner
	}
	return vars
}

func inheritedName(e *dwarf.Entry) string {
	v, _, _ := e.Inherited(dwarf.AttrName)
	return v.Text()
}

// missing is the place of a variable that can't be had.
func (v *variable) missing(why string) location.Place {
	return location.MissingPlace(max(int(v.Type.Size), 1), why)
}

// holdsPointers says whether there is memory behind the value that has to be valid.
func (v *variable) holdsPointers() bool {
	edges, complete := v.Type.Edges()
	return len(edges) > 0 || !complete
}

// inSlot is the place of a variable in code that is not optimised: its slot of the frame,
// if every path to the address has touched that. The first to touch it is what
// initialises the variable. What the variable leads to is believed as far as Rust's rules
// say that it is still there (valid).
func (in *LineInstance) inSlot(fl *flow, v *variable, addr uint64) location.Place {
	ix := in.In.Fn.ix
	place, _ := ix.locate(&v.Param, in.In.Outer.Low(), addr)
	if _, gone := place.Gone(); gone || len(place.Pieces) == 0 || constant(place) {
		return place
	}
	if usesFrame(place) {
		base, ok := fl.frameAt(ix, addr)
		if !ok {
			return v.missing("unsupported: where its frame is is not known here")
		}
		place = place.Rebase(base)
	}
	slots := place.FrameSlots()
	if len(slots) == 0 {
		return v.missing(uncertain)
	}
	at, found := fl.code.Index(addr)
	entry, known := fl.code.Index(in.In.Outer.Low())
	if !found || !known {
		return v.missing(uncertain)
	}
	for _, s := range slots {
		if !fl.touchedBefore(entry, at, frameSlot{hardware(s.Reg), s.Off, int64(s.Size)}) {
			return v.missing(uncertain)
		}
	}
	if in.In.Fn.resumesCoroutine() && in.mayBeSaved(place) {
		if !in.saved(fl, v, place, at, true) {
			return v.missing(uncertain)
		}
		return place
	}
	if v.holdsPointers() && !in.valid(fl, v, place, slots, at) {
		return v.missing(uncertain)
	}
	return place
}

// frameAt is the frame base at an address, which the prologue has not set up everywhere.
func (fl *flow) frameAt(ix *Index, addr uint64) (location.Expr, bool) {
	cfa, err := ix.cfa(addr)
	if err != nil || len(cfa) != 1 || cfa[0].Kind != location.OpRegister || len(fl.base) != 1 || fl.base[0].Kind != location.OpRegister {
		return nil, false
	}
	switch base := fl.base[0].Reg; {
	case base != cfa[0].Reg:
		return nil, false
	case base == location.RBP:
		return fl.base, true
	case base != location.RSP:
		return nil, false
	}
	return fl.base, cfa[0].Arg == fl.deepest(ix)
}

// deepest is rsp's distance from the CFA where that is greatest, -1 if it is not known
// everywhere.
func (fl *flow) deepest(ix *Index) int64 {
	if fl.frame == 0 {
		for i := range fl.code.Insts {
			c, err := ix.cfa(fl.code.Insts[i].Addr)
			if err != nil || len(c) != 1 || c[0].Reg != location.RSP {
				fl.frame = -1
				break
			}
			fl.frame = max(fl.frame, c[0].Arg)
		}
	}
	return fl.frame
}

// frameSlot is memory of the frame, by its distance from rsp or rbp.
type frameSlot struct {
	base x86.Reg
	off  int64
	size int64
}

// touches says whether an instruction reads or writes a slot, or takes its address.
func (s frameSlot) touches(in *x86.Inst) bool {
	m := &in.Mem
	if !m.Has || m.Base != s.base || m.Seg || m.Vague {
		return false
	}
	size := int64(max(in.MemSize, 1))
	return m.Disp < s.off+s.size && s.off < m.Disp+size
}

// touchedBefore says whether every path from instruction entry to instruction at touches
// a slot.
func (fl *flow) touchedBefore(entry, at int, s frameSlot) bool {
	if len(fl.code.Unresolved()) > 0 {
		return false
	}
	return !fl.code.Reaches(entry, fl.edges, at, func(i int) bool { return s.touches(&fl.code.Insts[i]) })
}
