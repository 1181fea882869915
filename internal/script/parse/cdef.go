package parse

import (
	"fmt"
	"strings"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// directive reads a line of the C preprocessor. Constants are understood; what
// would need a C compiler is refused, and the script read on.
func (p *parser) directive(out *ast.Program) {
	start := p.next().Start
	eol := start
	for eol < len(p.text) && p.text[eol] != '\n' {
		if p.text[eol] == '\\' && p.byteAt(eol+1) == '\n' {
			eol++
		}
		eol++
	}
	whole := p.text
	p.text = whole[:eol]
	p.seek(p.end)
	p.attempt(func() { p.directiveLine(out, source.Span{Start: start, End: eol}) })
	p.text = whole
	p.seek(eol)
}

func (p *parser) directiveLine(out *ast.Program, line source.Span) {
	switch {
	case p.at("include"):
		p.fail(line, "C headers cannot be included", "define the structs that the script needs, or use the debug info's types: args.NAME has them")
	case !p.at("define"):
		p.fail(line, "this C directive is not understood", "only #define NAME VALUE is")
	}
	p.next()
	d := &ast.Define{Name: p.name("the name of a constant")}
	if p.byteAt(p.end) == '(' {
		p.fail(line, "C macros with parameters are not understood", "write a macro of this language: macro name(x) { ... }")
	}
	if p.tok.kind == endOfText {
		p.fail(line, "the constant has no value", "")
	}
	d.Value = p.expr()
	if p.tok.kind != endOfText {
		p.unexpected("the end of the line")
	}
	ast.Inspect(d.Value, func(n ast.Node) bool {
		if _, ok := n.(*ast.Block); ok {
			p.fail(n.At(), "a constant cannot hold a block", "write a macro of this language: macro name() { ... }")
		}
		return true
	})
	d.Span = p.from(line.Start)
	out.Defines = append(out.Defines, d)
}

// cDefinition says whether a C definition begins here, and no probe of that name.
func (p *parser) cDefinition() bool {
	t := p.peek()
	return t.is("{") || t.kind == identifier
}

func (p *parser) structDef() *ast.Struct {
	p.enter()
	defer p.leave()
	start := p.tok.Start
	s := &ast.Struct{Union: p.next().text == "union"}
	p.attributes(s)
	if p.tok.kind == identifier && !p.at("__attribute__") {
		s.Name = p.next().text
	}
	p.attributes(s)
	p.body(func() { s.Fields = append(s.Fields, p.fields()...) })
	p.attributes(s)
	s.Span = p.from(start)
	return s
}

// attributes reads GCC's attributes, of which those count that move fields.
func (p *parser) attributes(s *ast.Struct) {
	for p.accept("__attribute__") {
		p.expect("(")
		p.expect("(")
		for !p.at(")") {
			t := p.tok
			switch strings.Trim(p.name("an attribute"), "_") {
			case "packed":
				s.Packed = true
			case "aligned":
				p.expect("(")
				if p.tok.kind != integer {
					p.unexpected("a number of bytes")
				}
				s.Align = p.next().value
				p.expect(")")
			default:
				p.fail(t.Span, fmt.Sprintf("the attribute `%s` is not understood", t.text), "packed and aligned(N) are")
			}
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
		p.expect(")")
	}
}

// fields reads one line of a struct, which may declare several: int a, *b, c[4];
func (p *parser) fields() []*ast.StructField {
	start := p.tok.Start
	var base *ast.Type
	after := p.peek()
	if (p.at("struct") || p.at("union")) && (after.is("{") || p.lex(after.End).is("{") || after.is("__attribute__")) {
		def := p.structDef()
		base = &ast.Type{Span: def.Span, Kind: ast.StructType, Name: def.Name, Def: def}
		if def.Union {
			base.Kind = ast.UnionType
		}
		if p.accept(";") {
			return []*ast.StructField{{Span: p.from(start), Type: base}}
		}
	} else {
		base = p.baseType()
	}
	var out []*ast.StructField
	for {
		f := &ast.StructField{}
		first := p.tok.Start
		f.Name, f.Type = p.declarator(ast.Clone(base))
		if p.accept(":") {
			if p.tok.kind != integer {
				p.unexpected("a number of bits")
			}
			f.Bits = p.next().value
		}
		if f.Span = p.from(first); len(out) == 0 {
			f.Span.Start = start
		}
		out = append(out, f)
		if !p.accept(",") {
			break
		}
	}
	p.stmtEnd()
	return out
}

// declarator reads a field's name and what C writes around it: *name, name[4],
// (*name)[4]. A pointer to a function is one to void: nothing here calls it.
func (p *parser) declarator(base *ast.Type) (string, *ast.Type) {
	p.enter()
	defer p.leave()
	t := base
	for n := 0; p.at("*"); n++ {
		p.chain(n)
		t = &ast.Type{Span: p.next().Span, Kind: ast.PointerType, Elem: t}
		for p.at("const") || p.at("volatile") || p.at("restrict") {
			p.next()
		}
	}
	if p.accept("(") {
		hole := &ast.Type{}
		name, inner := p.declarator(hole)
		p.expect(")")
		*hole = *p.lengths(t)
		if p.accept("(") {
			for !p.at(")") && p.tok.kind != endOfText && !p.at("{") && !p.at("}") {
				p.next()
			}
			p.expect(")")
			*hole = ast.Type{Span: t.Span, Kind: ast.NamedType, Name: "void"}
		}
		return name, inner
	}
	name := p.name("the name of a field")
	return name, p.lengths(t)
}

// lengths reads the lengths of arrays, the outermost first, as C does.
func (p *parser) lengths(t *ast.Type) *ast.Type {
	if !p.at("[") {
		return t
	}
	p.enter()
	defer p.leave()
	start := p.next().Start
	a := &ast.Type{Kind: ast.ArrayType}
	if !p.at("]") {
		if p.tok.kind != integer {
			p.unexpected("the length of an array")
		}
		a.Len = p.next().value
	}
	p.expect("]")
	a.Span = p.from(start)
	a.Elem = p.lengths(t)
	return a
}

func (p *parser) enumDef() *ast.Enum {
	start := p.next().Start
	e := &ast.Enum{}
	if p.tok.kind == identifier {
		e.Name = p.next().text
	}
	p.expect("{")
	for !p.at("}") {
		v := &ast.EnumValue{}
		first := p.tok.Start
		v.Name = p.name("the name of a constant")
		if p.accept("=") {
			v.Value = p.expr()
		}
		v.Span = p.from(first)
		e.Values = append(e.Values, v)
		if !p.accept(",") {
			break
		}
	}
	p.expect("}")
	e.Span = p.from(start)
	return e
}
