package path

import "strings"

// sum reads a type that may be a sum of traits without `dyn`, as old symbols
// have it.
func (p *parser) sum() (node, error) {
	first, err := p.typ()
	if err != nil {
		return node{}, err
	}
	at := p.i
	p.spaces()
	if !p.eat("+") {
		p.i = at
		return first, nil
	}
	if endsInBounds(&first) { // only parentheses lead here
		return node{}, p.error("the '+' may belong to two types")
	}
	rest, err := p.bounds()
	if err != nil || len(rest) == 0 {
		return first, err
	}
	return node{op: opBounds, kids: append([]node{first}, rest...)}, nil
}

// endsInBounds reports whether a `+` behind the text of n would go on with it.
func endsInBounds(n *node) bool {
	switch n.op {
	case opBounds:
		return true
	case opPrefix, opFn:
		return endsInBounds(&n.kids[len(n.kids)-1])
	}
	return false
}

// bounds reads the traits of a sum, which may be none.
func (p *parser) bounds() ([]node, error) {
	var list []node
	for {
		p.spaces()
		if !p.lifetime() {
			if p.i == len(p.s) || strings.IndexByte(">),;]=", p.s[p.i]) >= 0 || p.keyword() {
				return list, nil
			}
			bound, err := p.bound()
			if err != nil {
				return nil, err
			}
			list = append(list, bound)
		}
		at := p.i
		p.spaces()
		if !p.eat("+") {
			p.i = at
			return list, nil
		}
	}
}

// keyword reports whether a word is there that ends a type.
func (p *parser) keyword() bool {
	at := p.i
	is := !p.has("for<") && (p.word("as") || p.word("for") || p.word("is"))
	p.i = at
	return is
}

func (p *parser) bound() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	if p.eat("(") {
		n, err := p.bound()
		p.spaces()
		if err == nil && !p.eat(")") {
			err = p.unexpected("a trait in parentheses")
		}
		return n, err
	}
	if err := p.binder(); err != nil {
		return node{}, err
	}
	path, err := p.path(false)
	return node{op: opPath, path: path}, err
}

// typ reads a type or a const argument.
func (p *parser) typ() (node, error) {
	if err := p.enter(); err != nil {
		return node{}, err
	}
	defer p.leave()
	p.spaces()
	n, err := p.bareType()
	if err != nil {
		return node{}, err
	}
	at := p.i
	if p.spaces(); p.i == at || !p.word("is") {
		p.i = at
		return n, nil
	}
	text, err := p.valuePattern()
	return node{op: opPattern, text: text, kids: []node{n}}, err
}

func (p *parser) bareType() (node, error) {
	switch p.peek() {
	case '&':
		p.i++
		p.spaces()
		p.lifetime()
		if p.word("mut") {
			return p.prefixed("&mut ")
		}
		return p.prefixed("&")
	case '*':
		at := p.i
		p.i++
		if p.has("const ") && p.word("const") {
			return p.prefixed("*const ")
		}
		if p.has("mut ") && p.word("mut") {
			return p.prefixed("*mut ")
		}
		p.i = at
	case '[':
		return p.array()
	case '(':
		list, comma, err := p.list("a tuple")
		if err == nil && len(list) == 1 && !comma && list[0].op == opBounds {
			return list[0], nil // parentheses around a sum
		}
		return node{op: opTuple, kids: list}, err
	case '!':
		p.i++
		return node{op: opLiteral, text: "!"}, nil
	case '.':
		if p.eat("...") { // further arguments of a C function
			return node{op: opLiteral, text: "..."}, nil
		}
	case '"', '\'':
		start := p.i
		if !p.literal() {
			return node{}, p.unexpected("a type")
		}
		return node{op: opLiteral, text: p.s[start:p.i]}, nil
	case '{':
		// An expression, unless a path goes on behind it.
		start := p.i
		if err := p.braces(); err != nil {
			return node{}, err
		}
		if p.i == len(p.s) || strings.IndexByte(">),;]= +", p.s[p.i]) >= 0 {
			return node{op: opLiteral, text: p.s[start:p.i]}, nil
		}
		p.i = start
	case 'd':
		if p.word("dyn") {
			traits, err := p.bounds()
			return node{op: opBounds, text: "dyn", kids: traits}, err
		}
	case 'i':
		if p.word("impl") {
			traits, err := p.bounds()
			return node{op: opBounds, text: "impl", kids: traits}, err
		}
	case 'f':
		if p.has("for<") {
			if err := p.binder(); err != nil {
				return node{}, err
			}
			return p.typ()
		}
		if p.has("fn(") {
			return p.fn()
		}
	case 'u', 'e':
		if p.has("unsafe ") || p.has("extern ") {
			return p.fn()
		}
	}
	path, err := p.path(false)
	return node{op: opPath, path: path}, err
}

func (p *parser) prefixed(prefix string) (node, error) {
	kid, err := p.typ()
	return node{op: opPrefix, text: prefix, kids: []node{kid}}, err
}

func (p *parser) array() (node, error) {
	p.i++
	item, err := p.sum()
	if err != nil {
		return node{}, err
	}
	n := node{op: opSlice, kids: []node{item}}
	p.spaces()
	if p.eat(";") {
		size, err := p.sum()
		if err != nil {
			return node{}, err
		}
		n = node{op: opArray, kids: []node{item, size}}
		p.spaces()
	}
	if !p.eat("]") {
		return node{}, p.unexpected("an array")
	}
	return n, nil
}

// fn reads the type of a function pointer.
func (p *parser) fn() (node, error) {
	n := node{op: opFn}
	if p.word("unsafe") {
		n.text = "unsafe "
	}
	if p.eat("extern ") {
		p.spaces()
		start := p.i
		abi := `"C"`
		if p.peek() == '"' && p.literal() {
			abi = p.s[start:p.i]
			p.spaces()
		}
		n.text += "extern " + abi + " "
	}
	if !p.has("fn(") {
		return n, p.unexpected("a function pointer")
	}
	p.i += len("fn")
	params, _, err := p.list("parameters")
	if err != nil {
		return n, err
	}
	result := node{op: opTuple}
	if p.arrow() {
		if result, err = p.typ(); err != nil {
			return n, err
		}
	}
	n.kids = append(params, result)
	return n, nil
}

// valuePattern reads what follows the `is` of a pattern type: `1..=9 | 12`.
func (p *parser) valuePattern() (string, error) {
	start := p.i
	for p.i < len(p.s) && strings.IndexByte(">),;]", p.s[p.i]) < 0 {
		switch p.s[p.i] {
		case '{':
			if err := p.braces(); err != nil {
				return "", err
			}
			continue
		case '"', '\'':
			if p.literal() {
				continue
			}
		}
		p.i++
	}
	text := strings.TrimRight(p.s[start:p.i], " ")
	if text == "" {
		return "", p.unexpected("a pattern type")
	}
	return text, nil
}
