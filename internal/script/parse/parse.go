// Package parse reads a script: bpftrace's language as its docs/language.md has
// it, with Rust's paths, character literals and array literals added.
//
// It is one pass of recursive descent over the text, without backtracking but
// for the types of casts, which are short. It knows syntax only: whether names
// exist and types fit is the checker's affair. After an error it goes on at the
// next statement, so that one run shows several.
package parse

import (
	"fmt"
	"strings"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// Bounds on what is read, so that no text can exhaust the memory or the stack of
// the parser or of what walks the tree after it.
const (
	maxText   = 1 << 20 // bytes
	maxNest   = 200     // constructs within each other
	maxChain  = 1000    // operators in one chain: a + b + c, a.b.c
	maxErrors = 20
)

// File reads a script. Its name is what errors call it; params are the positional
// parameters, which may be part of an attach point. The program is never nil, but
// is meant to be used only where no error has come with it.
func File(name, text string, params ...string) (*ast.Program, source.Errors) {
	p := newParser(name, text)
	p.params = params
	program := &ast.Program{Span: source.Span{Start: 0, End: len(text)}, Source: p.src}
	p.run(func() { p.program(program) })
	return program, p.errs
}

// Expr reads a single expression; it is nil where there are errors.
func Expr(name, text string) (ast.Expr, source.Errors) {
	p := newParser(name, text)
	var x ast.Expr
	p.run(func() {
		x = p.expr()
		if p.tok.kind != endOfText {
			p.unexpected("the end")
		}
	})
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return x, nil
}

// Point reads a single attach point, as a listing takes it; it is nil where there
// are errors.
func Point(name, text string) (*ast.AttachPoint, source.Errors) {
	p := newParser(name, text)
	var a *ast.AttachPoint
	p.run(func() {
		a = p.attachPoint()
		if p.tok.kind != endOfText {
			p.unexpected("the end")
		}
	})
	if len(p.errs) > 0 {
		return nil, p.errs
	}
	return a, nil
}

type parser struct {
	src    *source.Source
	text   string // src.Text, or less of it while one line is read
	tok    token  // the next token
	end    int    // where the one before it ended
	nest   int
	errs   source.Errors
	params []string
}

func newParser(name, text string) *parser {
	src := source.New(name, text)
	return &parser{src: src, text: src.Text}
}

// A bailout unwinds the parser to where it can go on after an error.
type bailout struct{}

// run reads from the start of the text, up to an error that f does not recover
// from.
func (p *parser) run(f func()) {
	if len(p.text) > maxText {
		p.errs = append(p.errs, &source.Error{Source: p.src, Msg: fmt.Sprintf("the script is longer than %d bytes", maxText)})
		return
	}
	p.attempt(func() {
		p.tok = p.lex(0)
		f()
	})
}

// attempt says whether f came to its end without giving up.
func (p *parser) attempt(f func()) (ok bool) {
	nest := p.nest
	defer func() {
		if r := recover(); r != nil {
			if _, is := r.(bailout); !is {
				panic(r)
			}
			p.nest = nest
		}
	}()
	f()
	return true
}

func (p *parser) report(at source.Span, msg, hint string) {
	p.errs = append(p.errs, &source.Error{Source: p.src, Span: at, Msg: msg, Hint: hint})
}

// fail reports an error and gives up what is being read.
func (p *parser) fail(at source.Span, msg, hint string) {
	p.report(at, msg, hint)
	panic(bailout{})
}

// unexpected fails at the next token, which is not what is wanted.
func (p *parser) unexpected(wanted string) {
	p.unexpectedHint(wanted, "")
}

func (p *parser) unexpectedHint(wanted, hint string) {
	t := p.tok
	if t.kind == invalid {
		p.fail(t.Span, t.text, t.hint)
	}
	found := "the end of the script"
	if t.kind != endOfText {
		found = "`" + p.text[t.Start:t.End] + "`"
	}
	p.fail(t.Span, fmt.Sprintf("expected %s, found %s", wanted, found), hint)
}

// next takes the next token.
func (p *parser) next() token {
	t := p.tok
	if t.kind == invalid {
		p.fail(t.Span, t.text, t.hint)
	}
	p.seek(t.End)
	return t
}

// seek goes on reading at an offset.
func (p *parser) seek(offset int) {
	p.end = offset
	p.tok = p.lex(offset)
}

func (p *parser) at(text string) bool { return p.tok.is(text) }

// peek is the token after the next one.
func (p *parser) peek() token { return p.lex(p.tok.End) }

func (p *parser) accept(text string) bool {
	if !p.at(text) {
		return false
	}
	p.next()
	return true
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		p.unexpected("`" + text + "`")
	}
}

func (p *parser) name(what string) string {
	if p.tok.kind != identifier {
		p.unexpected(what)
	}
	return p.next().text
}

// from is the span from an offset to where the last token ended.
func (p *parser) from(start int) source.Span {
	return source.Span{Start: start, End: max(start, p.end)}
}

// enter bounds how deep constructs nest; leave is its counterpart.
func (p *parser) enter() {
	if p.nest++; p.nest > maxNest {
		p.fail(p.tok.Span, fmt.Sprintf("this is nested more than %d deep", maxNest), "")
	}
}

func (p *parser) leave() { p.nest-- }

// chain bounds the length of a chain of operators.
func (p *parser) chain(n int) {
	if n > maxChain {
		p.fail(p.tok.Span, fmt.Sprintf("this is a chain of more than %d operators", maxChain), "")
	}
}

func (p *parser) program(out *ast.Program) {
	if strings.HasPrefix(p.text, "#!") {
		if n := strings.IndexByte(p.text, '\n'); n >= 0 {
			p.seek(n)
		} else {
			p.seek(len(p.text))
		}
	}
	for p.tok.kind != endOfText && len(p.errs) < maxErrors {
		if !p.attempt(func() { p.item(out) }) {
			p.skipItem()
		}
	}
}

// skipItem goes on after an item that could not be read: behind its block.
func (p *parser) skipItem() {
	for p.tok.kind != endOfText {
		if p.at("{") {
			p.skipTo(func() bool { return false })
			return
		}
		if p.at("}") || p.at(";") {
			p.seek(p.tok.End)
			return
		}
		p.seek(max(p.tok.End, p.tok.Start+1))
	}
}

// body reads { ... }, calling f at each statement or what is like one; where it
// fails, it goes on at the next.
func (p *parser) body(f func()) {
	start := p.tok.Start
	if !p.accept("{") {
		p.unexpectedHint("`{`", "a block stands in { }, even a single statement")
	}
	for !p.at("}") {
		if p.tok.kind == endOfText {
			p.fail(p.from(start), "this block never ends", "close it with }")
		}
		if !p.attempt(f) {
			if len(p.errs) >= maxErrors {
				panic(bailout{})
			}
			p.skipTo(func() bool { return p.at(";") })
			p.accept(";")
		}
	}
	p.expect("}")
}

// skipTo passes over tokens, blocks as a whole, until one that stop asks for, or
// the end of the block that it is in; starting at a block, it passes that one.
func (p *parser) skipTo(stop func() bool) {
	depth := 0
	for p.tok.kind != endOfText {
		switch {
		case p.at("{"):
			depth++
		case p.at("}") && depth == 0:
			return
		case p.at("}"):
			if depth--; depth == 0 {
				p.seek(p.tok.End)
				return
			}
		case depth == 0 && stop():
			return
		}
		p.seek(max(p.tok.End, p.tok.Start+1))
	}
}

// item reads one thing that stands outside of all blocks. The order that bpftrace
// asks for is kept: C definitions, then config, then all else.
func (p *parser) item(out *ast.Program) {
	begun := len(out.Maps)+len(out.Macros)+len(out.Funcs)+len(out.Probes) > 0
	early := func(what string) {
		if begun {
			p.report(p.tok.Span, what+" must stand before probes, macros, functions and maps", "move it to the top of the script")
		}
	}
	after := p.peek()
	switch {
	case p.at("#"):
		early("a C directive")
		p.directive(out)
	case (p.at("struct") || p.at("union")) && p.cDefinition():
		early("a C definition")
		s := p.structDef()
		if s.Name == "" {
			p.report(s.Span, "a struct or union needs a name here", "")
		}
		out.Structs = append(out.Structs, s)
		p.accept(";")
	case p.at("enum") && p.cDefinition():
		early("a C definition")
		out.Enums = append(out.Enums, p.enumDef())
		p.accept(";")
	case p.at("config") && after.is("="):
		early("the config block")
		if len(out.Config) > 0 {
			p.report(p.tok.Span, "there is a config block already", "put all settings into one")
		}
		out.Config = append(out.Config, p.config()...)
	case p.at("import") && after.kind == str:
		p.importStmt()
	case p.at("macro") && after.kind == identifier:
		out.Macros = append(out.Macros, p.macro())
	case p.at("fn") && after.kind == identifier:
		out.Funcs = append(out.Funcs, p.function())
	case p.at("let"):
		out.Maps = append(out.Maps, p.mapDecl())
	default:
		out.Probes = append(out.Probes, p.probe())
	}
}

// importStmt refuses an import. It is read to its end, for it is well formed and
// what follows should be checked too.
func (p *parser) importStmt() {
	start := p.next().Start
	if p.tok.kind != str {
		p.unexpected("the file to import in \"...\"")
	}
	p.next()
	p.report(p.from(start), "scripts cannot import files here", "put what you need into this script")
	p.accept(";")
}

func (p *parser) config() []*ast.Setting {
	var out []*ast.Setting
	p.next()
	p.expect("=")
	p.body(func() {
		start := p.tok.Start
		key := p.name("the name of a setting")
		p.expect("=")
		var value ast.Expr
		switch t := p.tok; t.kind {
		case integer, str, identifier:
			value = p.primary()
		default:
			p.unexpected("a number, a string, true, false or a word")
		}
		out = append(out, &ast.Setting{Span: p.from(start), Key: key, Value: value})
		p.stmtEnd()
	})
	return out
}

func (p *parser) mapDecl() *ast.MapDecl {
	start := p.next().Start
	if p.tok.kind != mapName {
		p.unexpectedHint("a map", "outside of probes, `let` declares how a map is kept: let @a = hash(100);")
	}
	m := &ast.MapDecl{Name: p.next().text}
	p.expect("=")
	m.Kind = p.name("a kind of map, such as hash or lruhash")
	p.expect("(")
	if p.tok.kind != integer {
		p.unexpected("how many entries the map has at most")
	}
	m.Len = p.next().value
	p.expect(")")
	m.Span = p.from(start)
	p.accept(";")
	return m
}

func (p *parser) macro() *ast.Macro {
	start := p.next().Start
	m := &ast.Macro{Name: p.name("the macro's name")}
	p.expect("(")
	for !p.at(")") {
		switch t := p.tok; t.kind {
		case variable:
			m.Params = append(m.Params, &ast.Var{Span: p.next().Span, Name: t.text})
		case mapName:
			m.Params = append(m.Params, &ast.Map{Span: p.next().Span, Name: t.text})
		case identifier:
			if builtin(t.text) {
				p.fail(t.Span, fmt.Sprintf("`%s` is built in and cannot be a parameter", t.text), "choose another name")
			}
			m.Params = append(m.Params, &ast.Ident{Span: p.next().Span, Name: t.text})
		default:
			p.unexpected("a parameter: $variable, @map or a name for an expression")
		}
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	m.Span = p.from(start)
	m.Body = p.block()
	return m
}

func (p *parser) function() *ast.Func {
	start := p.next().Start
	f := &ast.Func{Name: p.name("the function's name")}
	p.expect("(")
	for !p.at(")") {
		if p.tok.kind != variable {
			p.unexpected("a parameter: $name : type")
		}
		t := p.next()
		param := &ast.Param{Name: t.text}
		p.expect(":")
		param.Type = p.typeName()
		param.Span = p.from(t.Start)
		f.Params = append(f.Params, param)
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	p.expect(":")
	f.Result = p.typeName()
	f.Span = p.from(start)
	f.Body = p.action()
	return f
}

func (p *parser) probe() *ast.Probe {
	start := p.tok.Start
	probe := &ast.Probe{}
	for {
		probe.Points = append(probe.Points, p.attachPoint())
		if !p.accept(",") || p.at("{") || p.at("/") {
			break
		}
	}
	probe.Span = p.from(start)
	if p.accept("/") {
		probe.Pred = p.expr()
		if !p.accept("/") {
			p.unexpected("the `/` that ends the predicate")
		}
	}
	if !p.at("{") {
		p.unexpectedHint("the probe's action in { }", "an attach point with a space, comma or brace in it must stand in \"...\"")
	}
	probe.Body = p.action()
	return probe
}
