// Package location says where the bytes of a value are when a program stands at one
// address. It compiles DWARF expressions (DWARF 5 §2.5, §2.6) into a small normalised
// form without a stack machine's freedom: no stack shuffling, no branches, constants
// folded. Code generators turn that form into instructions, and explain prints it.
//
// What cannot be said with certainty is a Missing piece with the reason; nothing is
// guessed.
package location

import (
	"bytes"
	"slices"
)

// OpKind is what one operation of an Expr does. Operations work on a stack of 64-bit
// words, as those of DWARF do, and wrap.
type OpKind uint8

const (
	OpInvalid    OpKind = iota
	OpConst             // push Arg
	OpRegister          // push Reg + Arg
	OpCFA               // push the canonical frame address + Arg
	OpFrame             // push the frame base (DW_AT_frame_base) + Arg
	OpStatic            // push the load bias + Arg, where Arg is an address as linked
	OpSaved             // push what the call's entry saved + Arg; no debug info has this
	OpDeref             // pop an address, push the Size bytes there, zero-extended
	OpAdd               // pop b, pop a, push a + b; likewise those that follow
	OpSub               // a - b
	OpMul               // a * b
	OpDiv               // a / b, signed, towards zero
	OpMod               // a % b, unsigned
	OpAnd               // a & b
	OpOr                // a | b
	OpXor               // a ^ b
	OpShl               // a << b, 0 if b > 63
	OpShr               // a >> b, unsigned, 0 if b > 63
	OpSar               // a >> b, signed, all sign bits if b > 63
	OpEq                // a == b, as 1 or 0; the order is that of signed numbers
	OpNe                // a != b
	OpLt                // a < b
	OpLe                // a <= b
	OpGt                // a > b
	OpGe                // a >= b
	OpNeg               // pop a, push -a
	OpNot               // ^a
	OpAbs               // a or -a, whichever is not negative
	OpSignExtend        // the low Size bytes of a, sign-extended
	OpZeroExtend        // the low Size bytes of a, zero-extended
	opEnd
)

// Pops is the number of words that the operation takes from the stack; each pushes one.
func (k OpKind) Pops() int {
	switch {
	case k <= OpSaved:
		return 0
	case k >= OpAdd && k <= OpGe:
		return 2
	}
	return 1
}

// Op is one operation.
type Op struct {
	Kind OpKind
	Reg  Reg   // OpRegister: a general register or RA, never xmm
	Size uint8 // OpDeref, OpSignExtend, OpZeroExtend: 1, 2, 4 or 8 bytes
	Arg  int64 // OpConst, OpRegister, OpCFA, OpFrame, OpStatic, OpSaved
}

// Expr is a computation in postfix order that leaves one word. An Expr made by this
// package is well formed: no operation finds the stack too low, the depth stays
// within MaxDepth, and its length within MaxOps. It is not to be modified.
type Expr []Op

const (
	// MaxDepth bounds the stack that an Expr needs.
	MaxDepth = 16
	// MaxOps bounds the operations of an Expr.
	MaxOps = 64
)

// Equal reports whether e and o are the same computation, written the same way.
func (e Expr) Equal(o Expr) bool { return slices.Equal(e, o) }

// Replace returns e with each operation of the kind, which must be one that pushes an
// address (OpCFA, OpFrame), replaced by the expression with plus the operation's Arg.
func (e Expr) Replace(kind OpKind, with Expr) Expr {
	if !slices.ContainsFunc(e, func(o Op) bool { return o.Kind == kind }) {
		return e
	}
	out := make(Expr, 0, len(e)+len(with))
	for i, o := range e {
		if o.Kind != kind {
			out = append(out, o)
			continue
		}
		sub := addConst(slices.Clone(with), o.Arg)
		if i == 0 {
			out = sub
		} else {
			out = append(out, sub...)
		}
	}
	return out
}

// Uses reports whether e has an operation of the kind.
func (e Expr) Uses(kind OpKind) bool {
	return slices.ContainsFunc(e, func(o Op) bool { return o.Kind == kind })
}

// PieceKind says how one part of a value is to be had.
type PieceKind uint8

const (
	Missing  PieceKind = iota // not at all: Why
	Register                  // the low Size bytes of Reg
	Memory                    // Size bytes at the address that Expr gives
	Value                     // the low Size bytes of the word that Expr gives
	Constant                  // Bytes
)

func (k PieceKind) String() string {
	return [...]string{"missing", "register", "memory", "value", "constant"}[k]
}

// Piece is a run of a value's bytes that are all to be had in the same way.
type Piece struct {
	Offset int // of the first byte, within the value
	Size   int // in bytes; at most 8 for a Value, 8 (xmm: 16) for a Register
	Kind   PieceKind
	Reg    Reg    // Register
	Expr   Expr   // Memory, Value
	Bytes  []byte // Constant: Size bytes; may share the memory of the debug info
	Why    string // Missing: "optimized out" or "unsupported: REASON"
}

// Place is where a value is: pieces in order of Offset that cover the value without a
// gap. A value without bytes has no pieces.
type Place struct {
	Pieces []Piece
}

// OptimizedOut is the Why of what the debug info does not locate.
const OptimizedOut = "optimized out"

// MissingPlace is the place of a value of the given size that cannot be had.
func MissingPlace(size int, why string) Place {
	if size <= 0 {
		return Place{}
	}
	return Place{Pieces: []Piece{{Size: size, Kind: Missing, Why: why}}}
}

// ConstantPlace is the place of a value of the given size whose bytes are known, least
// significant first (DW_AT_const_value). Too many bytes are cut; what lacks is filled
// with the sign if signed, with zeros otherwise.
func ConstantPlace(b []byte, signed bool, size int) Place {
	if size <= 0 {
		return Place{}
	}
	if len(b) < size {
		fill := byte(0)
		if signed && len(b) > 0 && b[len(b)-1]&0x80 != 0 {
			fill = 0xff
		}
		full := make([]byte, size)
		n := copy(full, b)
		for i := n; i < size; i++ {
			full[i] = fill
		}
		b = full
	}
	return Place{Pieces: []Piece{{Size: size, Kind: Constant, Bytes: b[:size:size]}}}
}

// Size is the number of bytes of the value.
func (p Place) Size() int {
	if len(p.Pieces) == 0 {
		return 0
	}
	last := p.Pieces[len(p.Pieces)-1]
	return last.Offset + last.Size
}

// Complete reports whether no piece is Missing.
func (p Place) Complete() bool {
	return !slices.ContainsFunc(p.Pieces, func(q Piece) bool { return q.Kind == Missing })
}

// Gone reports whether nothing of the value can be had, and why. A value without
// bytes is not gone.
func (p Place) Gone() (why string, gone bool) {
	for _, q := range p.Pieces {
		if q.Kind != Missing {
			return "", false
		}
		if why == "" || why == OptimizedOut {
			why = q.Why
		}
	}
	return why, len(p.Pieces) > 0
}

// Rebase returns p with the frame base given as an expression. p is not changed.
func (p Place) Rebase(frame Expr) Place { return p.replace(OpFrame, frame) }

// RebaseCFA returns p with the canonical frame address given as an expression. p is
// not changed.
func (p Place) RebaseCFA(cfa Expr) Place { return p.replace(OpCFA, cfa) }

func (p Place) replace(kind OpKind, with Expr) Place {
	if !slices.ContainsFunc(p.Pieces, func(q Piece) bool { return q.Expr.Uses(kind) }) {
		return p
	}
	out := Place{Pieces: slices.Clone(p.Pieces)}
	for i := range out.Pieces {
		q := &out.Pieces[i]
		if !q.Expr.Uses(kind) {
			continue
		}
		q.Expr = q.Expr.Replace(kind, with)
		if !q.Expr.valid() {
			*q = Piece{Offset: q.Offset, Size: q.Size, Kind: Missing, Why: unsupported("expression too long")}
		}
	}
	return out
}

// Slot is memory of the frame, by its distance from a base.
type Slot struct {
	Base OpKind // OpFrame, OpCFA or OpRegister
	Reg  Reg    // OpRegister: RSP or RBP
	Off  int64
	Size int // in bytes
}

// FrameSlots lists the memory that p reads at constant distances from the frame base,
// the canonical frame address, rsp or rbp: where the value itself is, and where the
// pointers to it are. Such memory holds what p promises only once the function has
// written it.
func (p Place) FrameSlots() []Slot {
	var slots []Slot
	add := func(o Op, size int) {
		switch {
		case o.Kind == OpFrame, o.Kind == OpCFA:
			slots = append(slots, Slot{Base: o.Kind, Off: o.Arg, Size: size})
		case o.Kind == OpRegister && (o.Reg == RSP || o.Reg == RBP):
			slots = append(slots, Slot{Base: o.Kind, Reg: o.Reg, Off: o.Arg, Size: size})
		}
	}
	for _, q := range p.Pieces {
		if q.Kind == Memory && len(q.Expr) == 1 {
			add(q.Expr[0], q.Size)
		}
		for i, o := range q.Expr {
			// In postfix order the operand of Deref is just the op before it if that
			// op takes nothing itself.
			if o.Kind == OpDeref && i > 0 && q.Expr[i-1].Kind.Pops() == 0 {
				add(q.Expr[i-1], int(o.Size))
			}
		}
	}
	return slots
}

// Equal reports whether p and o are the same place, described the same way.
func (p Place) Equal(o Place) bool {
	return slices.EqualFunc(p.Pieces, o.Pieces, func(a, b Piece) bool {
		return a.Offset == b.Offset && a.Size == b.Size && a.Kind == b.Kind && a.Reg == b.Reg &&
			a.Why == b.Why && a.Expr.Equal(b.Expr) && bytes.Equal(a.Bytes, b.Bytes)
	})
}

// valid reports whether e keeps the promises of Expr.
func (e Expr) valid() bool {
	if len(e) > MaxOps {
		return false
	}
	depth := 0
	for _, o := range e {
		if o.Kind == OpInvalid || o.Kind >= opEnd || depth < o.Kind.Pops() {
			return false
		}
		depth += 1 - o.Kind.Pops()
		if depth > MaxDepth {
			return false
		}
	}
	return depth == 1
}
