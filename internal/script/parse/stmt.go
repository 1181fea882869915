package parse

import "ferrotrace/internal/script/ast"

// action reads a block that is run for its effect only.
func (p *parser) action() *ast.Block {
	b := p.block()
	ast.DropValue(b)
	return b
}

func (p *parser) block() *ast.Block {
	p.enter()
	defer p.leave()
	start := p.tok.Start
	b := &ast.Block{}
	p.body(func() { p.step(b) })
	b.Span = p.from(start)
	return b
}

// step reads what comes next in a block: a statement, or the value at its end.
func (p *parser) step(b *ast.Block) {
	if p.accept(";") {
		return
	}
	start := p.tok.Start
	add := func(s ast.Stmt) { b.Stmts = append(b.Stmts, s) }
	switch after := p.peek(); {
	case p.at("import") && after.kind == str:
		p.importStmt()
	case p.at("let"):
		add(p.let())
	case p.at("for"):
		add(p.forLoop())
	case p.at("while"):
		p.next()
		cond := p.condition()
		body := p.action()
		add(&ast.While{Span: p.from(start), Cond: cond, Body: body})
	case p.at("unroll"):
		p.next()
		n := p.condition()
		body := p.action()
		add(&ast.Unroll{Span: p.from(start), N: n, Body: body})
	case p.at("break"):
		add(&ast.Break{Span: p.next().Span})
		p.stmtEnd()
	case p.at("continue"):
		add(&ast.Continue{Span: p.next().Span})
		p.stmtEnd()
	case p.at("return"):
		p.next()
		var x ast.Expr
		if !p.at(";") && !p.at("}") {
			x = p.expr()
		}
		add(&ast.Return{Span: p.from(start), X: x})
		p.stmtEnd()
	case p.at("_") && after.is("="):
		p.next()
		p.next()
		x := p.expr()
		add(&ast.Discard{Span: p.from(start), X: x})
		p.stmtEnd()
	default:
		p.exprStmt(b)
	}
}

// exprStmt reads what begins with an expression. An `if` or a block there is a
// statement by itself, and needs no semicolon, unless an operator follows that
// can only go on with its value.
func (p *parser) exprStmt(b *ast.Block) {
	start := p.tok.Start
	blockLike := p.at("if") || p.at("{")
	var x ast.Expr
	if blockLike {
		if x = p.primary(); p.infixOnly() {
			x, blockLike = p.operators(x), false
		}
	} else {
		x = p.expr()
	}
	if op, ok := p.assignOp(); ok {
		b.Stmts = append(b.Stmts, p.assign(start, x, op))
		p.stmtEnd()
		return
	}
	if p.at("}") {
		b.Value = x
		return
	}
	if !p.accept(";") && !blockLike {
		if p.at("(") {
			p.unexpectedHint("`;`", "values have no methods: a length is `.len`, without parentheses")
		}
		p.unexpected("`;`")
	}
	ast.DropValue(x)
	b.Stmts = append(b.Stmts, &ast.ExprStmt{Span: x.At(), X: x})
}

// infixOnly says whether the next token is an operator that no statement can
// begin with.
func (p *parser) infixOnly() bool {
	if p.tok.kind != punctuation {
		return false
	}
	switch p.tok.text {
	case "-", "*", "&":
		return false
	case ".", "->", "?":
		return true
	}
	return ast.Op(p.tok.text).Precedence() > 0
}

// stmtEnd wants a semicolon, which the last statement of a block can do without.
func (p *parser) stmtEnd() {
	if !p.at("}") {
		p.expect(";")
	}
}

func (p *parser) assignOp() (ast.Op, bool) {
	if p.tok.kind != punctuation {
		return "", false
	}
	switch t := p.tok.text; t {
	case "=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=":
		return ast.Op(t), true
	}
	return "", false
}

func (p *parser) assign(start int, target ast.Expr, op ast.Op) ast.Stmt {
	switch target.(type) {
	case *ast.Var, *ast.Map:
	case *ast.Field, *ast.Index:
		p.fail(target.At(), "a part of a value cannot be assigned", "values do not change once they are made: make a new one and assign that")
	default:
		p.fail(target.At(), "this cannot be assigned", "only variables ($x) and maps (@x, @x[key]) can be")
	}
	p.next()
	value := p.expr()
	return &ast.Assign{Span: p.from(start), Op: op, Target: target, Value: value}
}

func (p *parser) let() ast.Stmt {
	start := p.next().Start
	if p.tok.kind != variable {
		hint := "a variable is written $x"
		if p.tok.kind == mapName {
			hint = "maps need no declaration; how one is kept is declared outside of probes"
		}
		p.unexpectedHint("a variable", hint)
	}
	t := p.next()
	s := &ast.Let{Var: &ast.Var{Span: t.Span, Name: t.text}}
	if p.accept(":") {
		s.Type = p.typeName()
	}
	if p.accept("=") {
		s.Value = p.expr()
	}
	s.Span = p.from(start)
	p.stmtEnd()
	return s
}

func (p *parser) forLoop() ast.Stmt {
	start := p.next().Start
	open := p.accept("(")
	if p.tok.kind != variable {
		p.unexpectedHint("a variable", "for ($kv : @map) { ... } and for ($i : 0..10) { ... } are the two loops")
	}
	t := p.next()
	s := &ast.For{Var: &ast.Var{Span: t.Span, Name: t.text}}
	p.expect(":")
	from := p.tok.Start
	s.Over = p.binary(p.unary(), 1)
	if p.accept("..") {
		to := p.binary(p.unary(), 1)
		s.Over = &ast.Range{Span: p.from(from), From: s.Over, To: to}
	}
	if open {
		p.expect(")")
	}
	s.Body = p.action()
	s.Span = p.from(start)
	return s
}

// condition reads what stands between `if`, `while` or `unroll` and their block,
// mostly in parentheses, which are then not those of a cast or a record.
func (p *parser) condition() ast.Expr {
	if !p.at("(") {
		return p.expr()
	}
	p.enter()
	defer p.leave()
	p.next()
	x := p.expr()
	if p.at("=") {
		p.unexpectedHint("`)`", "`==` compares")
	}
	p.expect(")")
	if p.at("{") {
		return x
	}
	return p.operators(x)
}
