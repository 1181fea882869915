package ast

import (
	"fmt"
	"io"
	"strings"
)

// Format writes the tree as a script. Parsed again, it gives the same tree;
// comments are not in a tree and so not in the script either.
func Format(w io.Writer, p *Program) error {
	f := &formatter{}
	f.program(p)
	_, err := io.WriteString(w, f.b.String())
	return err
}

// Text is an expression as it is written in a script.
func Text(x Expr) string {
	f := &formatter{}
	f.expr(x)
	return f.b.String()
}

type formatter struct {
	b      strings.Builder
	indent int
}

func (f *formatter) put(parts ...string) {
	for _, s := range parts {
		f.b.WriteString(s)
	}
}

func (f *formatter) line() { f.put("\n", strings.Repeat("  ", f.indent)) }

func (f *formatter) program(p *Program) {
	first := true
	item := func(write func()) {
		if !first {
			f.put("\n")
		}
		first = false
		write()
		f.put("\n")
	}
	if len(p.Defines) > 0 {
		item(func() {
			for i, d := range p.Defines {
				if i > 0 {
					f.line()
				}
				f.put("#define ", d.Name, " ")
				f.expr(d.Value)
			}
		})
	}
	for _, s := range p.Structs {
		item(func() { f.structDef(s); f.put(";") })
	}
	for _, e := range p.Enums {
		item(func() { f.enum(e) })
	}
	if len(p.Config) > 0 {
		item(func() {
			f.braces("config = {", func() {
				for _, s := range p.Config {
					f.line()
					f.put(s.Key, " = ")
					f.expr(s.Value)
					f.put(";")
				}
			})
		})
	}
	if len(p.Maps) > 0 {
		item(func() {
			for i, m := range p.Maps {
				if i > 0 {
					f.line()
				}
				f.put("let @", m.Name, " = ", m.Kind, "(", fmt.Sprint(m.Len), ");")
			}
		})
	}
	for _, m := range p.Macros {
		item(func() {
			f.put("macro ", m.Name, "(")
			f.list(m.Params)
			f.put(") ")
			f.block(m.Body, true)
		})
	}
	for _, fn := range p.Funcs {
		item(func() {
			f.put("fn ", fn.Name, "(")
			for i, a := range fn.Params {
				if i > 0 {
					f.put(", ")
				}
				f.put("$", a.Name, " : ", a.Type.String())
			}
			f.put(") : ", fn.Result.String(), " ")
			f.block(fn.Body, false)
		})
	}
	for _, probe := range p.Probes {
		item(func() { f.probe(probe) })
	}
}

func (f *formatter) probe(p *Probe) {
	for i, a := range p.Points {
		if i > 0 {
			f.put(",\n")
		}
		if a.Name != "" {
			f.put(a.Name, "=")
		}
		f.put(a.Raw)
	}
	if p.Pred != nil {
		f.put("\n/")
		f.expr(p.Pred)
		f.put("/\n")
	} else {
		f.put(" ")
	}
	f.block(p.Body, false)
}

func (f *formatter) braces(open string, body func()) {
	f.put(open)
	f.indent++
	body()
	f.indent--
	f.line()
	f.put("}")
}

func (f *formatter) structDef(s *Struct) {
	word := "struct "
	if s.Union {
		word = "union "
	}
	if s.Name != "" {
		word += s.Name + " "
	}
	f.braces(word+"{", func() {
		for _, field := range s.Fields {
			f.line()
			f.field(field)
			f.put(";")
		}
	})
	var attrs []string
	if s.Packed {
		attrs = append(attrs, "packed")
	}
	if s.Align != 0 {
		attrs = append(attrs, fmt.Sprintf("aligned(%d)", s.Align))
	}
	if len(attrs) > 0 {
		f.put(" __attribute__((", strings.Join(attrs, ", "), "))")
	}
}

// field writes a field as C does, its type around its name.
func (f *formatter) field(s *StructField) {
	base, declarator := s.Type, s.Name
	for ; base.Kind == PointerType || base.Kind == ArrayType; base = base.Elem {
		if base.Kind == PointerType {
			declarator = "*" + declarator
			continue
		}
		if strings.HasPrefix(declarator, "*") {
			declarator = "(" + declarator + ")"
		}
		if base.Len == 0 {
			declarator += "[]"
		} else {
			declarator += fmt.Sprintf("[%d]", base.Len)
		}
	}
	if base.Def != nil {
		f.structDef(base.Def)
	} else {
		f.put(base.String())
	}
	if declarator != "" {
		f.put(" ", declarator)
	}
	if s.Bits != 0 {
		f.put(fmt.Sprintf(" : %d", s.Bits))
	}
}

func (f *formatter) enum(e *Enum) {
	word := "enum "
	if e.Name != "" {
		word += e.Name + " "
	}
	f.braces(word+"{", func() {
		for _, v := range e.Values {
			f.line()
			f.put(v.Name)
			if v.Value != nil {
				f.put(" = ")
				f.expr(v.Value)
			}
			f.put(",")
		}
	})
	f.put(";")
}

// block writes { ... }. valued says whether the parser would take an expression
// at its end for the block's value.
func (f *formatter) block(b *Block, valued bool) {
	if len(b.Stmts) == 0 && b.Value == nil {
		f.put("{ }")
		return
	}
	f.braces("{", func() {
		for i, s := range b.Stmts {
			f.line()
			f.stmt(s, valued && b.Value == nil && i == len(b.Stmts)-1)
		}
		if b.Value != nil {
			f.line()
			f.expr(b.Value)
		}
	})
}

// stmt writes a statement. last says that it ends a block whose value it would
// become without a semicolon.
func (f *formatter) stmt(s Stmt, last bool) {
	switch s := s.(type) {
	case *Let:
		f.put("let $", s.Var.Name)
		if s.Type != nil {
			f.put(" : ", s.Type.String())
		}
		if s.Value != nil {
			f.put(" = ")
			f.expr(s.Value)
		}
		f.put(";")
	case *Assign:
		f.expr(s.Target)
		f.put(" ", string(s.Op), " ")
		f.expr(s.Value)
		f.put(";")
	case *ExprStmt:
		f.exprStmt(s.X, last)
	case *Discard:
		f.put("_ = ")
		f.expr(s.X)
		f.put(";")
	case *For:
		f.put("for ($", s.Var.Name, " : ")
		f.expr(s.Over)
		f.put(") ")
		f.block(s.Body, false)
	case *While:
		f.put("while (")
		f.expr(s.Cond)
		f.put(") ")
		f.block(s.Body, false)
	case *Unroll:
		f.put("unroll (")
		f.expr(s.N)
		f.put(") ")
		f.block(s.Body, false)
	case *Break:
		f.put("break;")
	case *Continue:
		f.put("continue;")
	case *Return:
		f.put("return")
		if s.X != nil {
			f.put(" ")
			f.expr(s.X)
		}
		f.put(";")
	}
}

func (f *formatter) exprStmt(x Expr, last bool) {
	switch x := x.(type) {
	case *If:
		f.ifElse(x, false)
	case *Block:
		f.block(x, false)
	default:
		f.expr(x)
		last = true
	}
	if last {
		f.put(";")
	}
}
