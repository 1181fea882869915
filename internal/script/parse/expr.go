package parse

import (
	"fmt"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

func (p *parser) expr() ast.Expr {
	p.enter()
	defer p.leave()
	return p.operators(p.unary())
}

// operators goes on behind an expression's first operand, of which only a suffix
// may be missing: with suffixes, binary operators and ?:.
func (p *parser) operators(x ast.Expr) ast.Expr {
	x = p.binary(p.postfix(x), 1)
	if !p.accept("?") {
		return x
	}
	p.enter()
	defer p.leave()
	c := &ast.Cond{If: x}
	if !p.at(":") {
		c.Then = p.expr()
	}
	p.expect(":")
	c.Else = p.expr()
	c.Span = p.from(x.At().Start)
	return c
}

// binary climbs from x over all operators that bind at least as tightly as least.
func (p *parser) binary(x ast.Expr, least int) ast.Expr {
	for n := 0; ; n++ {
		p.chain(n)
		prec := 0
		if p.tok.kind == punctuation {
			prec = ast.Op(p.tok.text).Precedence()
		}
		if prec < least || prec == 0 || p.endsPredicate() {
			return x
		}
		op := ast.Op(p.next().text)
		y := p.binary(p.unary(), prec+1)
		x = &ast.Binary{Span: p.from(x.At().Start), Op: op, X: x, Y: y}
	}
}

// endsPredicate tells the slash before a probe's action from a division.
func (p *parser) endsPredicate() bool { return p.at("/") && p.peek().is("{") }

func (p *parser) unary() ast.Expr {
	p.enter()
	defer p.leave()
	t := p.tok
	if t.kind != punctuation {
		return p.postfix(p.primary())
	}
	switch t.text {
	case "++", "--":
		p.next()
		x := p.unary()
		p.wantVariable(x, x.At())
		return &ast.IncDec{Span: p.from(t.Start), Op: ast.Op(t.text), X: x}
	case "&":
		p.next()
		x := p.unary()
		switch x := x.(type) {
		case *ast.Var:
		case *ast.Map:
			if len(x.Keys) > 0 {
				p.fail(x.Span, "a map's entry has no address", "& takes a variable or a whole map")
			}
		default:
			p.fail(x.At(), "only a variable or a map has an address", "")
		}
		return &ast.Unary{Span: p.from(t.Start), Op: "&", X: x}
	case "*", "!", "~", "-":
		p.next()
		x := p.unary()
		return &ast.Unary{Span: p.from(t.Start), Op: ast.Op(t.text), X: x}
	}
	return p.postfix(p.primary())
}

// wantVariable refuses to count what is neither a variable nor a map.
func (p *parser) wantVariable(x ast.Expr, at source.Span) {
	switch x.(type) {
	case *ast.Var, *ast.Map:
		return
	}
	p.fail(at, "++ and -- take a variable or a map", "")
}

func (p *parser) postfix(x ast.Expr) ast.Expr {
	start := x.At().Start
	for n := 0; p.tok.kind == punctuation; n++ {
		p.chain(n)
		switch p.tok.text {
		case ".", "->":
			f := &ast.Field{X: x}
			f.Name, f.NameSpan = p.fieldName()
			f.Span = p.from(start)
			x = f
		case "[":
			p.next()
			i := p.expr()
			p.expect("]")
			x = &ast.Index{Span: p.from(start), X: x, I: i}
		case "++", "--":
			p.wantVariable(x, p.tok.Span)
			op := ast.Op(p.next().text)
			return &ast.IncDec{Span: p.from(start), Op: op, Post: true, X: x}
		default:
			return x
		}
	}
	return x
}

// fieldName reads what follows a dot: a name, or digits, which are no number
// here: $x.0.1 is a field of a field.
func (p *parser) fieldName() (string, source.Span) {
	i, _ := p.skip(p.tok.End)
	end := i
	for digit(p.byteAt(end)) {
		end++
	}
	if end > i {
		p.seek(end)
		return p.text[i:end], source.Span{Start: i, End: end}
	}
	p.next()
	// r#type is Rust's way to name a field like a keyword.
	if t := p.tok; t.is("r") && p.byteAt(t.End) == '#' && p.identEnd(t.End+1) > t.End+1 {
		end := p.identEnd(t.End + 1)
		p.seek(end)
		return p.text[t.End+1 : end], source.Span{Start: t.Start, End: end}
	}
	t := p.tok
	return p.name("the name of a field"), t.Span
}

func (p *parser) primary() ast.Expr {
	switch t := p.tok; t.kind {
	case identifier:
		return p.word()
	case integer:
		return &ast.Int{Span: p.next().Span, Text: t.text, Value: t.value}
	case float:
		return &ast.Float{Span: p.next().Span, Text: t.text}
	case str:
		return &ast.Str{Span: p.next().Span, Value: t.text}
	case char:
		return &ast.Char{Span: p.next().Span, Value: rune(t.value)}
	case variable:
		return &ast.Var{Span: p.next().Span, Name: t.text}
	case parameter:
		return &ast.ParamRef{Span: p.next().Span, N: t.value}
	case parameters:
		return &ast.ParamCount{Span: p.next().Span}
	case mapName:
		return p.mapRef()
	case punctuation:
		switch t.text {
		case "(":
			return p.paren()
		case "{":
			return p.block()
		case "[":
			p.next()
			x := &ast.Array{Elems: p.exprs("]")}
			x.Span = p.from(t.Start)
			return x
		}
	}
	p.unexpected("an expression")
	return nil
}

func (p *parser) mapRef() ast.Expr {
	t := p.next()
	m := &ast.Map{Name: t.text}
	if p.at("[") {
		p.next()
		for {
			m.Keys = append(m.Keys, p.expr())
			if !p.accept(",") {
				break
			}
		}
		p.expect("]")
	}
	m.Span = p.from(t.Start)
	return m
}

// exprs reads expressions up to the bracket that closes them.
func (p *parser) exprs(end string) []ast.Expr {
	var out []ast.Expr
	for !p.at(end) {
		out = append(out, p.expr())
		if !p.accept(",") {
			break
		}
	}
	p.expect(end)
	return out
}

// word reads an expression that begins with a word.
func (p *parser) word() ast.Expr {
	t := p.tok
	switch t.text {
	case "true", "false":
		return &ast.Bool{Span: p.next().Span, Value: t.text == "true"}
	case "if":
		return p.ifElse()
	case "comptime":
		p.next()
		x := p.unary()
		return &ast.Comptime{Span: p.from(t.Start), X: x}
	case "for", "while", "unroll", "let", "break", "continue", "return", "else", "import":
		p.fail(t.Span, fmt.Sprintf("`%s` cannot stand in an expression", t.text), "")
	}
	name := p.path()
	if p.at("!") && p.tok.Start == p.end && p.byteAt(p.tok.End) == '(' {
		p.next() // Rust's way to call a macro, which bpftrace's page has too
	}
	if !p.at("(") {
		return &ast.Ident{Span: p.from(t.Start), Name: name}
	}
	p.next()
	switch name {
	case "sizeof":
		typ := p.typeOrExpr()
		p.expect(")")
		return &ast.Sizeof{Span: p.from(t.Start), Type: typ}
	case "typeinfo":
		typ := p.typeOrExpr()
		p.expect(")")
		return &ast.Typeinfo{Span: p.from(t.Start), Type: typ}
	case "offsetof":
		x := &ast.Offsetof{Type: p.typeOrExpr()}
		p.expect(",")
		x.Fields = append(x.Fields, p.name("the name of a field"))
		for p.at(".") {
			field, _ := p.fieldName()
			x.Fields = append(x.Fields, field)
		}
		p.expect(")")
		x.Span = p.from(t.Start)
		return x
	}
	call := &ast.Call{Name: name}
	for !p.at(")") {
		call.Args = append(call.Args, p.arg())
		if !p.accept(",") {
			break
		}
		if p.at(")") {
			p.unexpected("an argument")
		}
	}
	p.expect(")")
	call.Span = p.from(t.Start)
	return call
}

// path reads a name, or a Rust path of several.
func (p *parser) path() string {
	name := p.name("a name")
	for n := 0; p.at("::"); n++ {
		p.chain(n)
		p.next()
		name += "::" + p.name("a name")
	}
	return name
}

func (p *parser) arg() ast.Expr {
	if p.at("typeof") && p.peek().is("(") {
		start := p.tok.Start
		typ := p.typeName()
		return &ast.TypeArg{Span: p.from(start), Type: typ}
	}
	return p.expr()
}

func (p *parser) ifElse() ast.Expr {
	p.enter()
	defer p.leave()
	start := p.next().Start
	x := &ast.If{Cond: p.condition()}
	x.Then = p.block()
	if p.accept("else") {
		switch {
		case p.at("{"):
			x.Else = p.block()
		case p.at("if"):
			x.Else = p.ifElse()
		default:
			p.unexpected("`{` or `if` after `else`")
		}
	}
	x.Span = p.from(start)
	return x
}

// paren reads what may begin with a parenthesis: a tuple, a record, a cast, or an
// expression in parentheses.
func (p *parser) paren() ast.Expr {
	p.enter()
	defer p.leave()
	start := p.next().Start
	if p.accept(")") {
		return &ast.Tuple{Span: p.from(start)}
	}
	if p.tok.kind == identifier && p.peek().is("=") {
		return p.record(start)
	}
	if typ := p.castType(); typ != nil {
		x := p.unary()
		return &ast.Cast{Span: p.from(start), Type: typ, X: x}
	}
	x := p.expr()
	if !p.at(",") {
		p.expect(")")
		return x
	}
	tuple := &ast.Tuple{Elems: []ast.Expr{x}}
	for p.accept(",") && !p.at(")") {
		tuple.Elems = append(tuple.Elems, p.expr())
	}
	p.expect(")")
	tuple.Span = p.from(start)
	return tuple
}

func (p *parser) record(start int) ast.Expr {
	r := &ast.Record{}
	seen := map[string]bool{}
	for !p.at(")") {
		t := p.tok
		name := p.name("the name of a field")
		if seen[name] {
			p.report(t.Span, fmt.Sprintf("the record has a field `%s` already", name), "")
		}
		seen[name] = true
		p.expect("=")
		value := p.expr()
		r.Fields = append(r.Fields, &ast.RecordField{Span: p.from(t.Start), Name: name, Value: value})
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	r.Span = p.from(start)
	return r
}
