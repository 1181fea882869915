package parse

import (
	"strings"

	"ferrotrace/internal/script/ast"
)

// builtins are names that stand for values wherever they are: (pid) * tid
// multiplies, while (name) *x casts to a type of that name.
var builtins = map[string]bool{
	"args": true, "ctx": true, "retval": true, "func": true, "probe": true, "probetype": true,
	"pid": true, "tid": true, "ppid": true, "cpid": true, "uid": true, "gid": true, "username": true, "comm": true,
	"cpu": true, "ncpus": true, "numaid": true, "nsecs": true, "elapsed": true, "duration": true, "jiffies": true,
	"ustack": true, "kstack": true, "curtask": true, "cgroup": true, "rand": true, "usermode": true,
}

func builtin(name string) bool {
	if builtins[name] || strings.HasPrefix(name, "__builtin_") {
		return true
	}
	digits, ok := strings.CutPrefix(strings.TrimPrefix(name, "s"), "arg")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// cWords make up the names of C's integers, which may be several words.
var cWords = map[string]bool{
	"unsigned": true, "signed": true, "long": true, "short": true, "int": true, "char": true,
}

// typeName reads a type, pointers and arrays written behind it.
func (p *parser) typeName() *ast.Type {
	if p.at("typeof") && p.peek().is("(") {
		return p.typeof()
	}
	return p.suffixes(p.baseType())
}

func (p *parser) baseType() *ast.Type {
	for p.at("const") || p.at("volatile") {
		p.next()
	}
	start := p.tok.Start
	t := &ast.Type{Kind: ast.NamedType}
	switch {
	case p.at("struct"), p.at("union"), p.at("enum"):
		t.Kind = ast.TypeKind(p.next().text)
		t.Name = p.path()
	case p.tok.kind == identifier && cWords[p.tok.text]:
		words := []string{p.next().text}
		for p.tok.kind == identifier && cWords[p.tok.text] {
			p.chain(len(words))
			words = append(words, p.next().text)
		}
		t.Name = strings.Join(words, " ")
	case p.tok.kind == identifier:
		t.Name = p.path()
	default:
		p.unexpected("a type")
	}
	t.Span = p.from(start)
	for p.at("const") || p.at("volatile") {
		p.next()
	}
	return t
}

func (p *parser) suffixes(t *ast.Type) *ast.Type {
	for n := 0; ; n++ {
		p.chain(n)
		start := t.Span.Start
		switch {
		case p.accept("*"):
			t = &ast.Type{Span: p.from(start), Kind: ast.PointerType, Elem: t}
		case p.at("["):
			p.next()
			a := &ast.Type{Kind: ast.ArrayType, Elem: t}
			if !p.at("]") {
				if p.tok.kind != integer {
					p.unexpected("the length of an array")
				}
				a.Len = p.next().value
			}
			p.expect("]")
			a.Span = p.from(start)
			t = a
		default:
			return t
		}
	}
}

func (p *parser) typeof() *ast.Type {
	start := p.next().Start
	p.expect("(")
	t := p.typeOrExpr()
	p.expect(")")
	t.Span = p.from(start)
	return t
}

// trying reads a type where there may be something else, and only if accept
// agrees with what follows it. Otherwise nothing is read and nothing reported.
func (p *parser) trying(accept func() bool) *ast.Type {
	if p.tok.kind != identifier || builtin(p.tok.text) {
		return nil
	}
	tok, end, errs := p.tok, p.end, len(p.errs)
	var t *ast.Type
	if p.attempt(func() { t = p.suffixes(p.baseType()) }) && accept() {
		return t
	}
	p.tok, p.end, p.errs = tok, end, p.errs[:errs]
	return nil
}

// typeOrExpr reads the operand of sizeof and its like: a type, or an expression
// that has one. A bare name is a type.
func (p *parser) typeOrExpr() *ast.Type {
	if p.at("typeof") && p.peek().is("(") {
		// typeof's own operand is one step deeper, and so on.
		p.enter()
		defer p.leave()
		return p.typeof()
	}
	if t := p.trying(func() bool { return p.at(")") || p.at(",") }); t != nil {
		return t
	}
	x := p.expr()
	return &ast.Type{Span: x.At(), Kind: ast.TypeofType, X: x}
}

// castType reads the type of a cast up to behind its parenthesis, the opening one
// being read; nil if this is no cast. A name in parentheses is a type if an
// operand follows.
func (p *parser) castType() *ast.Type {
	if p.at("typeof") && p.peek().is("(") {
		t := p.typeof()
		p.expect(")")
		return t
	}
	return p.trying(func() bool { return p.accept(")") && p.operandFollows() })
}

func (p *parser) operandFollows() bool {
	switch t := p.tok; t.kind {
	case integer, float, str, char, variable, parameter, parameters, mapName:
		return true
	case identifier:
		return t.text != "else"
	case punctuation:
		switch t.text {
		case "(", "-", "!", "~", "*", "--", "++":
			return true
		case "&":
			k := p.peek().kind
			return k == variable || k == mapName
		}
	}
	return false
}
