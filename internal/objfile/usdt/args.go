package usdt

import (
	"encoding/binary"
	"strconv"
	"strings"

	"ferrotrace/internal/location"
)

// arguments reads a probe's text: SIZE@OPERAND, parted by spaces, where the size may be
// negative, for a signed value, or end in f, for a floating-point one, or be left out with its
// @; and the operand is an assembler's: $7, %eax, -8(%rbp), 8(%rax,%rbx,4).
func arguments(text string, symbol func(string) (uint64, bool)) (args []Arg) {
	for _, word := range words(text) {
		if len(args) == maxArgs {
			return args
		}
		args = append(args, argument(word, symbol))
	}
	return args
}

// words parts a text by spaces that stand in no parentheses.
func words(text string) (out []string) {
	depth, start := 0, -1
	for i, c := range text {
		switch {
		case c == ' ' && depth == 0:
			if start >= 0 {
				out = append(out, text[start:i])
			}
			start = -1
			continue
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		out = append(out, text[start:])
	}
	return out
}

func argument(word string, symbol func(string) (uint64, bool)) Arg {
	a := Arg{Text: word, Size: 8, Signed: true}
	operand := word
	if size, rest, ok := strings.Cut(word, "@"); ok {
		operand = rest
		if a.Float = strings.HasSuffix(size, "f"); a.Float {
			size = strings.TrimSuffix(size, "f")
		}
		n, err := strconv.Atoi(size)
		a.Signed = n < 0
		if n < 0 {
			n = -n
		}
		if err != nil || n != 1 && n != 2 && n != 4 && n != 8 || a.Float && n < 4 {
			a.Size = 0
			a.Place = missing(0, "a value of "+size+" bytes")
			return a
		}
		a.Size = n
	}
	piece, why := operandOf(operand, a.Size, a.Signed, symbol)
	if why != "" {
		a.Place = missing(a.Size, why)
		return a
	}
	a.Place = location.Place{Pieces: []location.Piece{piece}}
	return a
}

func missing(size int, why string) location.Place {
	return location.Place{Pieces: []location.Piece{{Size: size, Kind: location.Missing, Why: "unsupported: " + why}}}
}

// operandOf is where size bytes of an operand are, or why that can't be said.
func operandOf(text string, size int, signed bool, symbol func(string) (uint64, bool)) (p location.Piece, why string) {
	p.Size = size
	text = strings.TrimPrefix(text, "*") // of an indirect jump; seen in notes of Go
	switch {
	case strings.HasPrefix(text, "$"):
		n, err := number(text[1:])
		if err != nil {
			return p, "the constant " + text
		}
		p.Kind = location.Constant
		p.Bytes = binary.LittleEndian.AppendUint64(nil, n)[:size]
		return p, ""
	case strings.HasPrefix(text, "%"):
		r, ok := registers[text[1:]]
		switch {
		case !ok:
			return p, "the register " + text
		case r.reg.IsXMM():
			p.Kind, p.Reg = location.Register, r.reg
			return p, ""
		case r.high && size > 1:
			return p, "the register " + text
		case r.high:
			p.Kind = location.Value
			p.Expr = location.Expr{{Kind: location.OpRegister, Reg: r.reg}, {Kind: location.OpConst, Arg: 8}, {Kind: location.OpShr}}
			return p, ""
		case size > r.size: // what the register's other bits hold is nobody's
			extend := location.OpZeroExtend
			if signed {
				extend = location.OpSignExtend
			}
			p.Kind = location.Value
			p.Expr = location.Expr{{Kind: location.OpRegister, Reg: r.reg}, {Kind: extend, Size: uint8(r.size)}}
			return p, ""
		}
		p.Kind, p.Reg = location.Register, r.reg
		return p, ""
	}
	if n, err := number(text); err == nil { // as clang writes constants of old
		p.Kind = location.Constant
		p.Bytes = binary.LittleEndian.AppendUint64(nil, n)[:size]
		return p, ""
	}
	open := strings.IndexByte(text, '(')
	if open < 0 || !strings.HasSuffix(text, ")") {
		return p, "the operand " + text
	}
	expr, ok := address(text[:open], text[open+1:len(text)-1], symbol)
	if !ok {
		return p, "the operand " + text
	}
	p.Kind, p.Expr = location.Memory, expr
	return p, ""
}

// address is what DISPLACEMENT(BASE,INDEX,SCALE) computes.
//
// SYMBOL+OFFSET(%rip) is a variable of the program's.
func address(displacement, inner string, symbol func(string) (uint64, bool)) (location.Expr, bool) {
	disp, static := int64(0), false
	if displacement = strings.TrimSpace(displacement); displacement != "" {
		for i, part := range sums(displacement) {
			if i > 8 {
				return nil, false
			}
			n, err := number(part)
			if err != nil {
				var ok bool
				if n, ok = symbol(strings.TrimPrefix(part, "+")); !ok || static {
					return nil, false
				}
				static = true
			}
			disp += int64(n)
		}
	}
	if strings.TrimSpace(inner) == "%rip" {
		return location.Expr{{Kind: location.OpStatic, Arg: disp}}, static
	}
	if static {
		return nil, false // an absolute address, in code that is not moved
	}
	parts := strings.Split(inner, ",")
	if len(parts) > 3 {
		return nil, false
	}
	reg := func(text string) (location.Reg, bool) {
		r, ok := registers[strings.TrimPrefix(strings.TrimSpace(text), "%")]
		return r.reg, ok && r.size == 8
	}
	var e location.Expr
	if base := strings.TrimSpace(parts[0]); base != "" {
		r, ok := reg(base)
		if !ok {
			return nil, false
		}
		e = append(e, location.Op{Kind: location.OpRegister, Reg: r, Arg: disp})
	} else {
		e = append(e, location.Op{Kind: location.OpConst, Arg: disp})
	}
	if len(parts) == 1 {
		return e, strings.TrimSpace(parts[0]) != ""
	}
	r, ok := reg(parts[1])
	if !ok {
		return nil, false
	}
	e = append(e, location.Op{Kind: location.OpRegister, Reg: r})
	if len(parts) == 3 {
		switch n, err := number(strings.TrimSpace(parts[2])); {
		case err != nil || n != 1 && n != 2 && n != 4 && n != 8:
			return nil, false
		case n > 1:
			e = append(e, location.Op{Kind: location.OpConst, Arg: int64(n)}, location.Op{Kind: location.OpMul})
		}
	}
	return append(e, location.Op{Kind: location.OpAdd}), true
}

// sums parts 8+16-4 into its terms, with their signs.
func sums(text string) (out []string) {
	start := 0
	for i := 1; i < len(text); i++ {
		if text[i] == '+' || text[i] == '-' {
			out = append(out, text[start:i])
			start = i
		}
	}
	return append(out, text[start:])
}

// number reads an integer of 64 bits, signed or not, as a word.
func number(text string) (uint64, error) {
	text = strings.TrimPrefix(text, "+")
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return uint64(n), nil
	}
	return strconv.ParseUint(text, 0, 64)
}

// register is one by its assembler's name.
type register struct {
	reg  location.Reg
	high bool // bits 8 to 15
	size int  // in bytes
}

var registers = map[string]register{}

func init() {
	for r := location.RAX; r <= location.R15; r++ {
		for _, size := range []int{1, 2, 4, 8} {
			registers[r.Name(size)] = register{reg: r, size: size}
		}
	}
	for name, r := range map[string]location.Reg{"ah": location.RAX, "bh": location.RBX, "ch": location.RCX, "dh": location.RDX} {
		registers[name] = register{reg: r, high: true, size: 1}
	}
	for r := location.XMM0; r <= location.XMM15; r++ {
		registers[r.String()] = register{reg: r, size: 16}
	}
}
