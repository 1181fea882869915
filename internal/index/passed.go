package index

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/rust/abi"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// Why a parameter of a given signature is missing. LLVM changes the signature of a
// function all of whose callers it sees: it takes dead arguments out, so that others move
// up (DeadArgumentElimination), and passes what a pointer leads to in its stead
// (ArgumentPromotion).
const (
	mayHaveMoved = "unsupported: the compiler may have taken an argument out, and nothing tells which"
	mayBePassed  = "unsupported: the compiler may pass what a pointer leads to in its place, and the code does not show that it does not"
	setToAddress = "unsupported: a caller passes an address where the signature has none"
	setToCaller  = "unsupported: a caller passes its own place there, as to a #[track_caller] function"
)

// passedPlaces are the places of the parameters of a given signature, as far as the
// function's code shows that they are what the ABI has there. kept says whether the
// signature is, in code, the given one.
func (ix *Index) passedPlaces(in *Instance, fl *flow, g *given) (places []location.Place, kept bool) {
	ts := make([]*types.Type, len(g.params))
	for i, p := range g.params {
		ts[i] = p.Type
	}
	abiPlaces := abi.Params(ts, g.result)
	read := fl.code.ArgumentsRead(ix.takes())
	why := in.changed(ix, fl, g, abiPlaces, read)
	for i, a := range abiPlaces {
		size := int(ts[i].Size)
		switch {
		case size == 0:
			places = append(places, location.Place{})
		case a.Kind == abi.Unclear:
			places = append(places, location.MissingPlace(size, "unsupported: "+a.Why))
		case why != "":
			places = append(places, location.MissingPlace(size, why))
		case !uses(fl, a, read):
			places = append(places, location.MissingPlace(size, location.OptimizedOut))
		default:
			places = append(places, a.Location)
		}
	}
	return places, why == ""
}

// uses says whether the function reads all of the registers and stack slots in which
// something is passed.
func uses(fl *flow, p abi.Place, read x86.RegSet) bool {
	for _, r := range registers(p.Location) {
		if !read.Has(hardware(r)) {
			return false
		}
	}
	for _, s := range p.Location.FrameSlots() {
		if !fl.code.ReadsSlot(s.Off) {
			return false
		}
	}
	return true
}

// changed says why the function's signature in code may not be the given one, "" if it
// is.
func (in *Instance) changed(ix *Index, fl *flow, g *given, places []abi.Place, read x86.RegSet) string {
	var expected x86.RegSet
	result := abi.Result(g.result)
	if result.Kind == abi.Indirect {
		expected |= x86.RDI.Set()
	}
	full := true // all that is passed is used
	for _, p := range places {
		for _, r := range registers(p.Location) {
			expected |= hardware(r).Set()
		}
		full = full && uses(fl, p, read)
	}
	if more := read &^ expected; more != 0 {
		return "unsupported: the code reads " + more.String() + " too, in which the signature has nothing"
	}
	if ix.keepsSignature(in) {
		return ""
	}
	if expected&^read != 0 || !full {
		if len(g.params) == 1 && result.Kind != abi.Indirect {
			return location.OptimizedOut
		}
		return mayHaveMoved
	}
	frames, statics, callers := ix.argumentsOf(in.Low())
	points := func(reg x86.Reg, to *types.Type) bool {
		switch {
		case !hasPointer(to):
			return (frames | statics).Has(reg) || fl.code.Dereferences(reg, reach(to))
		case to.Std != nil:
			return frames.Has(reg) // where no String or Vec has its contents
		}
		return false
	}
	for i, p := range places {
		if p.Kind == abi.Indirect {
			if reg := pointerReg(p.Location); reg < 0 || !points(hardware(location.Reg(reg)), g.params[i].Type) {
				return mayBePassed
			}
			continue
		}
		regs := registers(p.Location)
		pair := len(regs) == 2 && fl.code.StoresPair(hardware(regs[0]), hardware(regs[1]))
		for _, q := range p.Location.Pieces {
			if q.Kind != location.Register || q.Reg.IsXMM() {
				continue
			}
			reg := hardware(q.Reg)
			target, isPointer := pointerAt(g.params[i].Type, int64(q.Offset))
			switch {
			case !isPointer && (statics | frames).Has(reg):
				return setToAddress
			case isPointer && target.Size > 0 && callers.Has(reg):
				return setToCaller
			case isPointer && !pair && !points(reg, target):
				return mayBePassed
			}
		}
	}
	return ""
}

// reach is how far behind a pointer code may access what it leads to.
func reach(target *types.Type) int64 {
	if target.Kind == types.Str || target.Kind == types.Slice {
		return 1 << 12
	}
	return target.Size
}

// pointerAt is what the pointer at off in a value of type t leads to; not ok if there is
// none.
func pointerAt(t *types.Type, off int64) (target *types.Type, ok bool) {
	switch {
	case t.Kind == types.Pointer && off == t.Pointer.PtrOff:
		return t.Pointer.Target, true
	case t.Kind == types.Enum:
		for _, v := range t.Enum.Variants {
			for _, f := range v.Fields {
				if target, ok := pointerAt(f.Type, off-f.Offset); ok {
					return target, true
				}
			}
		}
	}
	return nil, false
}

// hasPointer says whether there are pointers in values of type t, whatever to.
func hasPointer(t *types.Type) bool {
	switch t.Kind {
	case types.Pointer:
		return true
	case types.Array, types.Slice:
		return hasPointer(t.Elem)
	case types.Enum:
		_, ok := pointerAt(t, 0)
		return ok
	}
	return t.Std != nil
}

// keepsSignature says whether code that LLVM did not see when it compiled the function
// may call it, so that its signature is the source's: another object's, or who has its
// address. ThinLTO makes functions known to other objects that were not at first.
func (ix *Index) keepsSignature(in *Instance) bool {
	if in.Fn.Ambiguous || len(in.Fn.Aliases) > 0 {
		return false // which of those that share the code is known so?
	}
	seen := slices.ContainsFunc(ix.symbols, func(s objfile.Symbol) bool {
		return s.Addr == in.Low() && s.Name == in.Symbol && (s.Global || s.Hidden)
	})
	return seen && !strings.Contains(in.Symbol, ".llvm.") || ix.addressTaken(in.Low())
}

// takes returns what answers for Func.ArgumentsRead: whether a function that is called
// uses an argument register, by its code and that of those that it calls in turn.
func (ix *Index) takes() func(*x86.Inst, x86.Reg) bool {
	known := map[uint64]x86.RegSet{}
	var look func(depth int) func(*x86.Inst, x86.Reg) bool
	look = func(depth int) func(*x86.Inst, x86.Reg) bool {
		return func(call *x86.Inst, reg x86.Reg) bool {
			target := ix.callTarget(call)
			read, ok := known[target]
			if !ok {
				if depth == 0 || len(known) >= maxTaken {
					return false
				}
				known[target] = 0
				if f, ok := ix.calledFunc(target); ok {
					read = f.ArgumentsRead(look(depth - 1))
					known[target] = read
				}
			}
			return read.Has(reg)
		}
	}
	return look(maxCallees)
}

// maxTaken bounds the functions that are looked into for one's arguments.
const maxTaken = 64

// argumentsOf is what direct callers of the function at addr are seen to pass: registers
// that get an address in the caller's frame in some call, those that get one in the image,
// and of these those that get that of a core::panic::Location.
func (ix *Index) argumentsOf(addr uint64) (frames, statics, callers x86.RegSet) {
	for _, r := range ix.refsTo(addr) {
		if r.Kind != x86.RefCall {
			continue
		}
		low, high, ok := ix.extent(r.Addr)
		if !ok || high-low > maxCaller {
			continue
		}
		f, err := x86.NewFunc(ix.File.Bytes, []x86.Range{{Low: low, High: high}}, nil)
		if err != nil {
			continue
		}
		i, ok := f.Index(r.Addr)
		if !ok || f.Insts[i].Kind != x86.Call {
			continue
		}
		var done x86.RegSet
		for ; i > 0 && !f.JumpedTo(f.Insts[i].Addr); i-- {
			w := &f.Insts[i-1]
			if !w.FallsThrough() || w.Kind == x86.Call || w.Kind == x86.CallIndirect {
				break
			}
			if w.Kind == x86.Lea && w.OpSize == 8 && !done.Has(w.Dst) {
				switch {
				case w.Mem.RIPRel:
					statics |= w.Dst.Set()
					if ix.isLocation(w.Mem.Target) {
						callers |= w.Dst.Set()
					}
				case w.Mem.Base == x86.RSP && w.Mem.Index == x86.NoReg:
					frames |= w.Dst.Set()
				}
			}
			done |= w.Writes
		}
	}
	return frames, statics, callers
}

// isLocation says whether a core::panic::Location is at an address, as far as its content
// tells: the name of a source file with its length, which may count a zero behind it, and
// then a line and a column.
func (ix *Index) isLocation(addr uint64) bool {
	b := ix.File.Bytes(addr)
	name, ok := ix.File.SlotAt(addr)
	if len(b) < 24 || !ok || name.Target == 0 {
		return false
	}
	n, line, col := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	text := ix.File.Bytes(name.Target)
	if n > uint64(len(text)) || line == 0 || col == 0 {
		return false
	}
	return bytes.HasSuffix(bytes.TrimSuffix(text[:n], []byte{0}), []byte(".rs"))
}

// maxCaller bounds the callers that are decoded, in bytes.
const maxCaller = 1 << 18
