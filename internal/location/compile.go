package location

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Context is what the meaning of an expression hangs on besides its bytes.
type Context struct {
	// Size is the number of bytes of the value.
	Size int
	// AddrSize is that of the unit; 0 means 8, and nothing else is supported.
	AddrSize int
	// Unit resolves what the expression refers to in its unit; without one such
	// operations are unsupported.
	Unit Unit
	// EntryPC is true where the program stands at the function's first instruction,
	// at which DW_OP_entry_value is the value itself.
	EntryPC bool
}

// Unit is the part of a DWARF unit that expressions refer to.
type Unit interface {
	// AddrX is the address with the given index in .debug_addr.
	AddrX(index uint64) (uint64, error)
	// BaseType is the base type whose entry is at off from the unit's header: its
	// size in bits and its DW_ATE encoding.
	BaseType(off uint64) (bits int, encoding uint64, err error)
}

// ErrMalformed says that an expression breaks the rules of DWARF: it ends within an
// operation, takes from an empty stack, or leaves something that locates nothing.
var ErrMalformed = errors.New("malformed location expression")

// errUnsupported ends the compilation of one piece; its text is the reason.
type errUnsupported string

func (e errUnsupported) Error() string { return string(e) }

func unsupported(why string) string { return "unsupported: " + why }

// Compile finds the place of a value from its location expression. An empty
// expression is a value optimised out (DWARF 5 §2.6.1.1.4). What the expression says
// but this package does not do becomes Missing with the reason; an error, which wraps
// ErrMalformed, means that the bytes are not an expression. Either way the place
// returned covers the value.
func Compile(expr []byte, c Context) (Place, error) {
	if c.Size <= 0 {
		return Place{}, nil
	}
	if c.AddrSize != 0 && c.AddrSize != 8 {
		return MissingPlace(c.Size, unsupported(fmt.Sprintf("%d-byte addresses", c.AddrSize))), nil
	}
	m := machine{ctx: c, in: expr}
	place, err := m.run()
	if err != nil {
		if why, ok := reason(err); ok {
			return MissingPlace(c.Size, why), nil
		}
		return MissingPlace(c.Size, unsupported("malformed debug info")), err
	}
	return place, nil
}

// FrameBase compiles the value of a DW_AT_frame_base, with which Rebase replaces
// frame-relative addresses: an expression that names a register means what that
// register holds (DWARF 5 §3.3.5).
func FrameBase(expr []byte, c Context) (Expr, error) {
	c.Size = 8
	p, err := Compile(expr, c)
	if err != nil {
		return nil, err
	}
	if len(p.Pieces) == 1 {
		switch q := p.Pieces[0]; q.Kind {
		case Register:
			if q.Reg.IsGeneral() {
				return Expr{{Kind: OpRegister, Reg: q.Reg}}, nil
			}
		case Memory, Value:
			if !q.Expr.Uses(OpFrame) {
				return q.Expr, nil
			}
		case Missing:
			return nil, fmt.Errorf("frame base: %s", q.Why)
		}
	}
	return nil, fmt.Errorf("frame base: %w: %s", ErrMalformed, p)
}

// CFA gives the canonical frame address as call frame information states it: the sum
// of a register, by its DWARF number, and an offset, or, where expr is not nil, the
// result of an expression (DWARF 5 §6.4.2.2).
func CFA(reg uint16, off int64, expr []byte) (Expr, error) {
	if expr == nil {
		if r := Reg(reg); reg <= uint16(R15) {
			return Expr{{Kind: OpRegister, Reg: r, Arg: off}}, nil
		}
		return nil, fmt.Errorf("canonical frame address in register %d", reg)
	}
	p, err := Compile(expr, Context{Size: 8})
	if err != nil {
		return nil, err
	}
	if len(p.Pieces) == 1 {
		switch q := p.Pieces[0]; q.Kind {
		case Memory, Value:
			if !q.Expr.Uses(OpFrame) && !q.Expr.Uses(OpCFA) {
				return q.Expr, nil
			}
		case Missing:
			return nil, fmt.Errorf("canonical frame address: %s", q.Why)
		}
	}
	return nil, fmt.Errorf("canonical frame address: %w: %s", ErrMalformed, p)
}

func reason(err error) (why string, ok bool) {
	var u errUnsupported
	if errors.As(err, &u) {
		return unsupported(string(u)), true
	}
	return "", false
}

type elem struct {
	x Expr
	t vtype
}

// limits of what is held while compiling
const (
	maxStack = 64
	maxSteps = 512
)

// machine compiles one expression. The stack holds expressions in place of numbers:
// that alone resolves dup, swap, over, pick, rot and drop.
type machine struct {
	ctx   Context
	in    []byte
	pos   int
	stack []elem

	// What the simple location at hand is, if not an address on the stack.
	kind  PieceKind // Register, Value, Constant; Missing for none yet
	reg   Reg
	bytes []byte
	fail  error // why the piece at hand can't be had: an errUnsupported

	pieces []Piece
	offset int
}

func (m *machine) malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s, at byte %d", ErrMalformed, fmt.Sprintf(format, args...), m.pos)
}

func (m *machine) run() (Place, error) {
	composite := false
	for steps := 0; m.pos < len(m.in); steps++ {
		if steps >= maxSteps {
			return Place{}, errUnsupported("expression too long")
		}
		op := m.in[m.pos]
		m.pos++
		if op == opPiece || op == opBitPiece {
			composite = true
			size, skew, err := m.pieceSize(op)
			if err != nil {
				return Place{}, err
			}
			if err := m.endPiece(size, skew); err != nil {
				return Place{}, err
			}
			continue
		}
		if m.kind != Missing {
			// DWARF 5 §2.6.1.1: register, implicit and stack-value descriptions stand
			// alone or before a piece operation.
			return Place{}, m.malformed("operation %#x after a complete location", op)
		}
		if err := m.step(op); err != nil {
			if _, ok := reason(err); !ok {
				return Place{}, err
			}
			// The piece is lost. Those that follow can be had if its end can be found.
			if m.fail = err; !m.resync() {
				return Place{}, err
			}
		}
	}
	if !composite {
		size := m.ctx.Size
		if len(m.in) == 0 {
			return MissingPlace(size, OptimizedOut), nil
		}
		if err := m.endPiece(size, 0); err != nil {
			return Place{}, err
		}
		return Place{Pieces: m.pieces}, nil
	}
	if len(m.stack) > 0 || m.kind != Missing {
		return Place{}, m.malformed("a location after the last piece")
	}
	if m.offset < m.ctx.Size {
		m.add(Piece{Size: m.ctx.Size - m.offset, Kind: Missing, Why: OptimizedOut})
	}
	return Place{Pieces: m.pieces}, nil
}

// resync goes on, after an operation that is not supported, to the next piece
// operation. It reports whether there is one; step has made sure that there is none
// after an operation whose length is not known.
func (m *machine) resync() bool {
	for m.pos < len(m.in) {
		op := m.in[m.pos]
		if op == opPiece || op == opBitPiece {
			return true
		}
		m.pos++
		if !m.skipOperands(op) {
			return false
		}
	}
	return false
}

// pieceSize reads the operands of a piece operation: the size in bytes of the piece,
// and where in its memory or register it begins.
func (m *machine) pieceSize(op byte) (size, skew int, err error) {
	n, err := m.uleb()
	if err != nil {
		return 0, 0, err
	}
	off := uint64(0)
	if op == opBitPiece {
		if off, err = m.uleb(); err != nil {
			return 0, 0, err
		}
		if n%8 != 0 || off%8 != 0 {
			return 0, 0, errUnsupported("a piece that is not whole bytes")
		}
		n, off = n/8, off/8
	}
	if n > math.MaxInt32 || off > math.MaxInt32 {
		return 0, 0, m.malformed("a piece of %d bytes at %d", n, off)
	}
	return int(n), int(off), nil
}

// endPiece makes the description at hand the next piece.
func (m *machine) endPiece(size, skew int) error {
	kind, stack, fail := m.kind, m.stack, m.fail
	m.kind, m.stack, m.fail = Missing, m.stack[:0], nil

	p := Piece{Size: size, Kind: kind}
	switch {
	case fail != nil:
		p.Why, _ = reason(fail)
		p.Kind = Missing
	case kind == Register:
		p.Reg = m.reg
		if skew+size > m.reg.size() || skew != 0 {
			p = Piece{Size: size, Kind: Missing, Why: unsupported(fmt.Sprintf("%d bytes at byte %d of %s", size, skew, m.reg))}
			if skew == 0 {
				p.Why = unsupported(fmt.Sprintf("%d bytes in %s", size, m.reg))
			}
		}
	case kind == Constant:
		b := m.bytes
		if skew > len(b) {
			return m.malformed("a piece beyond its constant")
		}
		b = b[skew:]
		if len(b) < size {
			// The rest of the value is not stated.
			m.add(Piece{Size: len(b), Kind: Constant, Bytes: b})
			size -= len(b)
			p = Piece{Size: size, Kind: Missing, Why: OptimizedOut}
			break
		}
		p.Bytes = b[:size:size]
	case len(stack) == 0:
		if kind != Missing {
			return m.malformed("a value without an expression")
		}
		p.Why = OptimizedOut
	default:
		e := stack[len(stack)-1]
		if !e.x.valid() {
			p = Piece{Size: size, Kind: Missing, Why: unsupported("expression too long")}
			break
		}
		if kind == Value {
			p.setValue(e.x, size, skew)
			break
		}
		p.Kind = Memory
		p.Expr = e.x
		if skew != 0 {
			p.Expr = addConst(e.x, int64(skew))
		}
	}
	m.add(p)
	return nil
}

// setValue makes p the value of an expression, or a constant if it is one.
func (p *Piece) setValue(x Expr, size, skew int) {
	if size+skew > 8 || skew != 0 {
		*p = Piece{Size: size, Kind: Missing, Why: unsupported(fmt.Sprintf("%d bytes computed in 8", size+skew))}
		return
	}
	if v, ok := constOf(x); ok {
		b := binary.LittleEndian.AppendUint64(nil, uint64(v))
		*p = Piece{Size: size, Kind: Constant, Bytes: b[:size:size]}
		return
	}
	p.Kind, p.Expr = Value, x
}

// add appends a piece, cut to what the value still lacks. Missing pieces that are
// missing for the same reason become one.
func (m *machine) add(p Piece) {
	p.Offset = m.offset
	if left := m.ctx.Size - m.offset; p.Size > left {
		p.Size = left
		if p.Kind == Constant {
			p.Bytes = p.Bytes[:left:left]
		}
	}
	if p.Size <= 0 {
		return
	}
	m.offset += p.Size
	if n := len(m.pieces); n > 0 && p.Kind == Missing {
		if q := &m.pieces[n-1]; q.Kind == Missing && q.Why == p.Why {
			q.Size += p.Size
			return
		}
	}
	m.pieces = append(m.pieces, p)
}

// Reading of operands.

func (m *machine) need(n int) ([]byte, error) {
	if n < 0 || n > len(m.in)-m.pos {
		return nil, m.malformed("cut short")
	}
	b := m.in[m.pos : m.pos+n : m.pos+n]
	m.pos += n
	return b, nil
}

// fixed reads an n-byte integer, zero-extended.
func (m *machine) fixed(n int) (uint64, error) {
	b, err := m.need(n)
	if err != nil {
		return 0, err
	}
	return littleEndian(b), nil
}

func littleEndian(b []byte) (v uint64) {
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}

func (m *machine) uleb() (uint64, error) {
	v := uint64(0)
	for shift := 0; ; shift += 7 {
		b, err := m.need(1)
		if err != nil {
			return 0, err
		}
		if shift >= 70 {
			return 0, m.malformed("number too long")
		}
		if shift < 64 {
			v |= uint64(b[0]&0x7f) << shift
		}
		if b[0]&0x80 == 0 {
			return v, nil
		}
	}
}

func (m *machine) sleb() (int64, error) {
	v := int64(0)
	for shift := 0; ; {
		b, err := m.need(1)
		if err != nil {
			return 0, err
		}
		if shift >= 70 {
			return 0, m.malformed("number too long")
		}
		if shift < 64 {
			v |= int64(b[0]&0x7f) << shift
		}
		shift += 7
		if b[0]&0x80 == 0 {
			if shift < 64 && b[0]&0x40 != 0 {
				v |= -1 << shift
			}
			return v, nil
		}
	}
}
