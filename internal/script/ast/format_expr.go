package ast

import (
	"fmt"
	"strings"
)

// String is the type as it is written.
func (t *Type) String() string {
	switch t.Kind {
	case PointerType:
		return t.Elem.String() + "*"
	case ArrayType:
		if t.Len == 0 {
			return t.Elem.String() + "[]"
		}
		return fmt.Sprintf("%s[%d]", t.Elem, t.Len)
	case TypeofType:
		// A bare name would read as a type's, and name[1] as an array of it.
		switch t.X.(type) {
		case *Ident, *Index:
			return "typeof((" + Text(t.X) + "))"
		}
		return "typeof(" + Text(t.X) + ")"
	case StructType, UnionType, EnumType:
		if t.Def != nil {
			f := &formatter{}
			f.structDef(t.Def)
			return f.b.String()
		}
		return string(t.Kind) + " " + t.Name
	}
	return t.Name
}

// Precedence is how tightly a binary operator binds, from 1 for || to 10 for *;
// 0 if there is no such operator.
func (op Op) Precedence() int {
	switch op {
	case "||":
		return 1
	case "&&":
		return 2
	case "|":
		return 3
	case "^":
		return 4
	case "&":
		return 5
	case "==", "!=":
		return 6
	case "<", "<=", ">", ">=":
		return 7
	case "<<", ">>":
		return 8
	case "+", "-":
		return 9
	case "*", "/", "%":
		return 10
	}
	return 0
}

// How tightly an expression holds together: what binds less tightly than its
// place asks for gets parentheses.
const (
	bindAny     = 0
	bindOperand = 1 // the loosest binary operator; tighter ones up to 10
	bindUnary   = 11
	bindPostfix = 12
)

func binding(x Expr) int {
	switch x := x.(type) {
	case *Cond, *If, *Block, *Range:
		// If and Block are safe as a whole value only: as an operand at the start
		// of a statement they would end it.
		return bindAny
	case *Binary:
		return x.Op.Precedence()
	case *Unary, *Cast, *Comptime:
		return bindUnary
	case *IncDec:
		if !x.Post {
			return bindUnary
		}
	case *Int, *Float:
		// 5.x would read as the start of 5.0.
		return bindUnary
	}
	return bindPostfix
}

// operand writes an expression that must bind at least so tightly.
func (f *formatter) operand(x Expr, least int) {
	if binding(x) >= least {
		f.expr(x)
		return
	}
	f.put("(")
	f.expr(x)
	f.put(")")
}

func (f *formatter) list(xs []Expr) {
	for i, x := range xs {
		if i > 0 {
			f.put(", ")
		}
		f.expr(x)
	}
}

func (f *formatter) ifElse(x *If, valued bool) {
	f.put("if (")
	f.expr(x.Cond)
	f.put(") ")
	f.block(x.Then, valued)
	switch e := x.Else.(type) {
	case *Block:
		f.put(" else ")
		f.block(e, valued)
	case *If:
		f.put(" else ")
		f.ifElse(e, valued)
	}
}

func (f *formatter) expr(x Expr) {
	switch x := x.(type) {
	case *Int:
		f.put(x.Text)
	case *Float:
		f.put(x.Text)
	case *Str:
		f.put(Quote(x.Value))
	case *Char:
		f.put(quoteChar(x.Value))
	case *Bool:
		f.put(fmt.Sprint(x.Value))
	case *Ident:
		f.put(x.Name)
	case *ParamRef:
		f.put(fmt.Sprintf("$%d", x.N))
	case *ParamCount:
		f.put("$#")
	case *Var:
		f.put("$", x.Name)
	case *Map:
		f.put("@", x.Name)
		if len(x.Keys) > 0 {
			f.put("[")
			f.list(x.Keys)
			f.put("]")
		}
	case *Call:
		f.put(x.Name, "(")
		f.list(x.Args)
		f.put(")")
	case *Unary:
		f.unary(x)
	case *IncDec:
		if x.Post {
			f.operand(x.X, bindPostfix)
			f.put(string(x.Op))
		} else {
			f.put(string(x.Op))
			f.operand(x.X, bindUnary)
		}
	case *Binary:
		least := x.Op.Precedence()
		f.operand(x.X, least)
		f.put(" ", string(x.Op), " ")
		f.operand(x.Y, least+1)
	case *Cond:
		f.operand(x.If, bindOperand)
		f.put(" ? ")
		if x.Then != nil {
			f.operand(x.Then, bindOperand)
			f.put(" ")
		}
		f.put(": ")
		f.operand(x.Else, bindOperand)
	case *If:
		f.ifElse(x, true)
	case *Block:
		f.block(x, true)
	case *Cast:
		f.put("(", x.Type.String(), ")")
		f.operand(x.X, bindUnary)
	case *Tuple:
		f.put("(")
		f.list(x.Elems)
		if len(x.Elems) == 1 {
			f.put(",")
		}
		f.put(")")
	case *Record:
		f.put("(")
		for i, r := range x.Fields {
			if i > 0 {
				f.put(", ")
			}
			f.put(r.Name, "=")
			f.expr(r.Value)
		}
		f.put(")")
	case *Array:
		f.put("[")
		f.list(x.Elems)
		f.put("]")
	case *Field:
		f.operand(x.X, bindPostfix)
		f.put(".", x.Name)
	case *Index:
		f.indexed(x.X)
		f.put("[")
		f.expr(x.I)
		f.put("]")
	case *Range:
		f.operand(x.From, bindOperand)
		f.put("..")
		f.operand(x.To, bindOperand)
	case *Sizeof:
		f.put("sizeof(", x.Type.String(), ")")
	case *Offsetof:
		f.put("offsetof(", x.Type.String(), ", ", strings.Join(x.Fields, "."), ")")
	case *Typeinfo:
		f.put("typeinfo(", x.Type.String(), ")")
	case *Comptime:
		f.put("comptime ")
		f.operand(x.X, bindUnary)
	case *TypeArg:
		if x.Type.Kind == TypeofType {
			f.put(x.Type.String())
		} else {
			f.put("typeof(", x.Type.String(), ")")
		}
	}
}

// unary writes a prefix operator, apart from an operand that begins with the same
// sign: -(-1) is not --1.
func (f *formatter) unary(x *Unary) {
	f.put(string(x.Op))
	open := ""
	switch y := x.X.(type) {
	case *Unary:
		open = string(y.Op)
	case *IncDec:
		if !y.Post {
			open = string(y.Op)
		}
	}
	if open != "" && open[0] == x.Op[0] && (x.Op == "-" || x.Op == "&") {
		f.put("(")
		f.expr(x.X)
		f.put(")")
		return
	}
	f.operand(x.X, bindUnary)
}

// indexed writes what an index stands behind. A map without keys takes the first
// index for its key, unless it stands in parentheses.
func (f *formatter) indexed(x Expr) {
	if m, ok := x.(*Map); ok && len(m.Keys) == 0 {
		f.put("(")
		f.expr(x)
		f.put(")")
		return
	}
	f.operand(x, bindPostfix)
}

// Quote writes a string as a literal of the language, which reads back as the
// same bytes.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func quoteChar(r rune) string {
	switch r {
	case '\n':
		return `'\n'`
	case '\t':
		return `'\t'`
	case '\r':
		return `'\r'`
	case '\'', '\\':
		return `'\` + string(r) + `'`
	}
	if r < ' ' || r == 0x7f {
		return fmt.Sprintf(`'\u{%x}'`, r)
	}
	return "'" + string(r) + "'"
}
