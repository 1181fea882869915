package abi

import (
	"slices"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

// intRegs and the eight registers from XMM0 on take arguments, in this order
// (psABI 3.2.3).
var intRegs = []location.Reg{location.RDI, location.RSI, location.RDX, location.RCX, location.R8, location.R9}

var floatRegs = []location.Reg{location.XMM0, location.XMM1, location.XMM2, location.XMM3,
	location.XMM4, location.XMM5, location.XMM6, location.XMM7}

// PlaceKind says how a value is passed.
type PlaceKind uint8

const (
	Unclear  PlaceKind = iota // Why says why
	Nowhere                   // it has no bytes
	Direct                    // in registers, on the stack
	Indirect                  // by its address
)

// Place is where a value is.
type Place struct {
	Kind PlaceKind
	// Location is where the bytes are, padding as zeros; of an Indirect value, in
	// memory at the address that a register or stack slot holds.
	Location location.Place
	Why      string // Unclear: the reason
	// Doubt is set if the value may also be elsewhere: debug info does not tell
	// whether a wrapper of one scalar is #[repr(C)], and here it matters.
	Doubt string
}

// Float says whether a part of the value is in an xmm register.
func (p Place) Float() bool {
	return slices.ContainsFunc(p.Location.Pieces, func(q location.Piece) bool {
		return q.Kind == location.Register && q.Reg.IsXMM()
	})
}

func (p Place) equal(q Place) bool { return p.Kind == q.Kind && p.Location.Equal(q.Location) }

const reprC = "elsewhere if a wrapper of one scalar in the signature is #[repr(C)]"

// Result says where a function's result is at its ret.
func Result(t *types.Type) Place {
	p := Current.result(Classify(t))
	if p.Kind != Unclear && !p.equal(Current.result(Current.classify(t, true))) {
		p.Doubt = reprC
	}
	return oneBits(t, p)
}

func (r Rules) result(c Class) Place {
	ints := []location.Reg{location.RAX, location.RDX}
	large := c.Size > 16
	if r == Rust163 && c.Kind == Pair {
		ints = append(ints, location.RCX)
		large = c.A.Kind == Int128 && c.B.Kind == Int128
	}
	if large || c.Kind == Memory && c.Size > 8 {
		return indirect(location.Expr{{Kind: location.OpRegister, Reg: location.RAX}}, c.Size)
	}
	return (&allocator{
		ints:   ints,
		floats: []location.Reg{location.XMM0, location.XMM1},
		lost:   "more registers than a result has",
		result: true,
	}).place(c)
}

// Params predicts where the parameters of types ts are at the entry of a function
// whose result is of type result (nil for none). What LLVM has made of a function
// can differ: a place in debug info that disagrees says that it did.
func Params(ts []*types.Type, result *types.Type) []Place {
	all := Current.Predict(ts, result)
	places := all[0].Params
	for _, other := range all[1:] {
		for i, p := range other.Params {
			if places[i].Kind != Unclear && !places[i].equal(p) {
				places[i].Doubt = reprC
			}
		}
	}
	return places
}

// params are the places of parameters of a function whose result is at res.
func params(ts []*types.Type, res Place, classify func(*types.Type) Class) []Place {
	a := allocator{ints: intRegs, floats: floatRegs}
	switch res.Kind {
	case Indirect:
		a.ints = a.ints[1:]
	case Unclear:
		a.full, a.lost = true, "result: "+res.Why
	}
	places := make([]Place, len(ts))
	for i, t := range ts {
		places[i] = a.place(classify(t))
	}
	return places
}

// allocator deals out registers and stack slots.
type allocator struct {
	ints, floats []location.Reg // that are left
	stack        int64
	result       bool   // there is no stack
	full         bool   // nothing more can be said, because of lost
	lost         string //
}

func (a *allocator) place(c Class) Place {
	switch {
	case c.Kind == ZST:
		return Place{Kind: Nowhere}
	case c.Kind == Unknown && !a.full:
		a.full, a.lost = true, c.Why
	}
	if a.full {
		return Place{Why: a.lost}
	}
	if c.Kind == Memory && c.Size > 8 {
		slot := a.word(Part{Kind: Scalar, Size: 8})
		if slot.Kind == location.Register {
			return indirect(location.Expr{{Kind: location.OpRegister, Reg: slot.Reg}}, c.Size)
		}
		return indirect(append(slot.Expr, location.Op{Kind: location.OpDeref, Size: 8}), c.Size)
	}
	var pieces []location.Piece
	for _, part := range c.parts() {
		if part.Kind != Int128 {
			pieces = append(pieces, a.word(part))
			continue
		}
		if len(a.ints) < 2 && !a.result {
			// It goes to the stack whole; what becomes of a register that is left
			// over depends on LLVM's version.
			a.full, a.lost = true, "128-bit integer on the stack"
			break
		}
		pieces = append(pieces,
			a.word(Part{Kind: Scalar, Off: part.Off, Size: 8}),
			a.word(Part{Kind: Scalar, Off: part.Off + 8, Size: 8}))
	}
	if a.full {
		return Place{Why: a.lost}
	}
	return Place{Kind: Direct, Location: location.Place{Pieces: pad(pieces, c.Size)}}
}

// word takes the next place for a scalar of at most 8 bytes.
func (a *allocator) word(p Part) location.Piece {
	piece := location.Piece{Offset: int(p.Off), Size: int(p.Size), Kind: location.Register}
	regs := &a.ints
	if p.Kind == Float {
		regs = &a.floats
	}
	switch {
	case len(*regs) > 0:
		piece.Reg = (*regs)[0]
		*regs = (*regs)[1:]
	case a.result:
		a.full = true
	default:
		piece.Kind, piece.Expr = location.Memory, location.Expr{{Kind: location.OpCFA, Arg: a.stack}}
		a.stack += 8
	}
	return piece
}

func indirect(addr location.Expr, size int64) Place {
	return Place{Kind: Indirect, Location: location.Place{
		Pieces: []location.Piece{{Size: int(size), Kind: location.Memory, Expr: addr}}}}
}

// parts are the scalars of c. Memory of at most 8 bytes is one integer.
func (c Class) parts() []Part {
	switch c.Kind {
	case Pair:
		return []Part{c.A, c.B}
	case Memory:
		return []Part{{Kind: Scalar, Size: c.Size}}
	}
	return []Part{{Kind: c.Kind, Size: c.Size}}
}

// pad fills the gaps between pieces up to size: padding is no part of the value.
func pad(pieces []location.Piece, size int64) []location.Piece {
	var out []location.Piece
	end := 0
	fill := func(to int) {
		if n := to - end; n > 0 {
			out = append(out, location.Piece{Offset: end, Size: n, Kind: location.Constant, Bytes: make([]byte, n)})
		}
	}
	for _, p := range pieces {
		fill(p.Offset)
		out = append(out, p)
		end = p.Offset + p.Size
	}
	fill(int(size))
	return out
}

// Prediction is where a function's parameters and its result are.
type Prediction struct {
	Params []Place
	Result Place
}

// Predict lists all that Params and Result say without their doubts: first if no
// wrapper is #[repr(C)], then, if that makes a difference, if those in the result
// are, in the parameters, in both. Debug info that locates a parameter elsewhere
// than a prediction rules it out; what is left has to agree before it is believed.
func (rules Rules) Predict(ts []*types.Type, res *types.Type) []Prediction {
	var out []Prediction
	if rules == Any {
		for _, p := range append(Current.Predict(ts, res), Rust163.Predict(ts, res)...) {
			if !slices.ContainsFunc(out, p.equal) {
				out = append(out, p)
			}
		}
		return out
	}
	for _, inResult := range []bool{false, true} {
		r := Place{Kind: Nowhere}
		if res != nil {
			r = oneBits(res, rules.result(rules.classify(res, inResult)))
		}
		for _, inParams := range []bool{false, true} {
			p := Prediction{params(ts, r, func(t *types.Type) Class { return rules.classify(t, inParams) }), r}
			if !slices.ContainsFunc(out, p.equal) {
				out = append(out, p)
			}
		}
	}
	return out
}

func (p Prediction) equal(q Prediction) bool {
	return p.Result.equal(q.Result) && slices.EqualFunc(p.Params, q.Params, Place.equal)
}
