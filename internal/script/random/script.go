package random

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// maker writes a script.
type maker struct {
	*rand.Rand
	b     strings.Builder
	vars  []string // numbers
	texts []string // variables that hold text
	fresh int
	deep  int
	site  string // what it knows: "" in the tracer's probes
	loops int
}

// Script is a script of some probes. What its begin probes print hangs on nothing outside
// of it.
func Script(r *rand.Rand) string {
	m := &maker{Rand: r}
	if r.IntN(2) == 0 {
		m.defined()
	}
	for range 1 + r.IntN(2) {
		m.probe("begin", "")
	}
	for range r.IntN(3) {
		switch m.IntN(8) {
		case 0:
			m.probe("uprobe:app::g", "few")
		case 1:
			m.probe(m.pick("uprobe", "uretprobe")+":app::plain", "none")
		case 2, 3:
			m.probe("uretprobe:app::f", "uretprobe")
		default:
			m.probe("uprobe:"+m.pick("app::f", "app::f", "app::*"), "uprobe")
		}
	}
	m.defined()
	return m.b.String()
}

// defined gives all maps what they hold.
func (m *maker) defined() {
	m.printf("begin { @n[0] = 1; @t[\"a\", 1] = \"text\"; @s = 2; @c = count(); }\n")
}

// Mutated is a script in which some bytes are others.
func Mutated(r *rand.Rand, text string) string {
	words := []string{"$a", "@m", "(", ")", "{", "}", "[", "]", ";", "args", ".", "retval", "if", "0", "1", "\"s\"", "==", "+", "-", "->", "*", "&", "!", "/", "count()", "str(", "is(", "print(", "$1", "0xffffffffffffffff", "::", "'", "\"", ",", "let", "for", "while", "unroll", ":", "?"}
	for range 1 + r.IntN(4) {
		if text == "" {
			break
		}
		i := r.IntN(len(text))
		j := min(len(text), i+r.IntN(12))
		switch r.IntN(3) {
		case 0:
			text = text[:i] + text[j:]
		case 1:
			text = text[:i] + words[r.IntN(len(words))] + text[j:]
		default:
			k := r.IntN(len(text))
			text = text[:i] + text[k:min(len(text), k+r.IntN(30))] + text[i:]
		}
	}
	return text
}

func (m *maker) pick(of ...string) string { return of[m.IntN(len(of))] }

func (m *maker) printf(format string, a ...any) { fmt.Fprintf(&m.b, format, a...) }

func (m *maker) probe(point, site string) {
	m.site, m.vars, m.texts, m.deep = site, nil, nil, 0
	m.printf("%s", point)
	if site != "" && m.IntN(3) == 0 {
		m.printf(" /%s/", m.num(2))
	}
	m.printf(" {\n")
	m.block(3 + m.IntN(6))
	m.printf("}\n")
}

func (m *maker) block(n int) {
	vars, texts := len(m.vars), len(m.texts)
	m.deep++
	for range n {
		m.stmt()
	}
	m.deep--
	m.vars, m.texts = m.vars[:vars], m.texts[:texts]
}

func (m *maker) name() string {
	m.fresh++
	return fmt.Sprintf("$v%d", m.fresh)
}

func (m *maker) stmt() {
	switch k := m.IntN(22); {
	case k < 3:
		x := m.num(3)
		v := m.name()
		m.printf("%s%s = %s;\n", m.pick("", "let "), v, x)
		m.vars = append(m.vars, v)
	case k < 5:
		x := m.text(2)
		v := m.name()
		m.printf("%s = %s;\n", v, x)
		m.texts = append(m.texts, v)
	case k < 7 && len(m.vars) > 0:
		m.printf("%s %s %s;\n", m.pick(m.vars...), m.pick("=", "+=", "-=", "*=", "&=", "|=", "^=", "<<=", ">>="), m.num(2))
	case k == 7 && m.deep < 3:
		m.printf("if (%s) {\n", m.num(2))
		m.block(1 + m.IntN(3))
		m.printf("} else {\n")
		m.block(m.IntN(3))
		m.printf("}\n")
	case k == 8 && m.deep < 3:
		v := m.name()
		lo := m.IntN(5)
		m.printf("for (%s : %d..%d) {\n", v, lo, lo+m.IntN(5))
		m.vars = append(m.vars, v)
		m.loops++
		m.block(1 + m.IntN(3))
		if m.IntN(3) == 0 {
			m.printf("if (%s) { %s; }\n", m.num(1), m.pick("break", "continue"))
		}
		m.loops--
		m.vars = m.vars[:len(m.vars)-1]
		m.printf("}\n")
	case k == 9 && m.deep < 3:
		v := m.name()
		m.printf("let %s = 0; while (%s < %d) { %s++;\n", v, v, m.IntN(5), v)
		m.block(1 + m.IntN(2))
		m.printf("}\n")
	case k == 10 && m.deep < 3:
		m.printf("unroll (%d) {\n", 1+m.IntN(3))
		m.block(1)
		m.printf("}\n")
	case k == 11:
		m.printf("@n[%s] = %s;\n", m.num(1), m.num(2))
	case k == 12:
		m.printf("@t[%s, %s] = %s;\n", m.text(1), m.num(1), m.text(1))
	case k == 13:
		m.printf("@%s[%s] = %s(%s);\n", m.pick("sum", "min", "max", "avg", "stats"), m.num(1), "", m.num(1))
	case k == 14:
		m.printf("@c%s = count(); @h = hist(%s, %d); @l = lhist(%s, 0, 100, 10);\n", m.pick("", "[1]")[:0], m.num(1), 2, m.num(1))
	case k == 15:
		m.printf("%s;\n", m.pick("delete(@n, "+m.num(1)+")", "@s++", "--@s", "@s += "+m.num(1), "clear(@n)", "zero(@c)", "print(@n)"))
	case k == 16 && m.site != "":
		m.printf("print(%s);\n", m.whole())
	case k == 17:
		m.printf("print((%s, %s, %s));\n", m.num(2), m.text(1), m.num(1))
	case k == 18 && m.deep < 3:
		m.printf("for ($kv : @n) { @s += $kv.1; }\n")
	default:
		m.printf("printf(\"%%ld %%s %%lx\\n\", %s, %s, %s);\n", m.num(3), m.text(2), m.num(2))
	}
}

// num is a number.
func (m *maker) num(depth int) string {
	if depth > 0 {
		switch m.IntN(13) {
		case 11:
			return fmt.Sprintf("(%s %s (%s | 1))", m.num(depth-1), m.pick("/", "%"), m.num(depth-1))
		case 0, 1, 2:
			return fmt.Sprintf("(%s %s %s)", m.num(depth-1), m.pick("+", "-", "*", "&", "|", "^", "<<", ">>"), m.num(depth-1))
		case 3:
			return fmt.Sprintf("(%s %s %s)", m.num(depth-1), m.pick("<", "<=", ">", ">=", "==", "!=", "&&", "||"), m.num(depth-1))
		case 4:
			return fmt.Sprintf("%s(%s)", m.pick("-", "!", "~"), m.num(depth-1))
		case 5:
			return fmt.Sprintf("(%s ? %s : %s)", m.num(depth-1), m.num(depth-1), m.num(depth-1))
		case 6:
			return fmt.Sprintf("(%s)%s", m.pick("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool"), m.num(depth-1))
		case 7:
			return fmt.Sprintf("(%s %s %s)", m.text(depth-1), m.pick("==", "!="), m.text(depth-1))
		case 8:
			return fmt.Sprintf("strlen(%s)", m.text(depth-1))
		case 9:
			return m.pick(fmt.Sprintf("@n[%s]", m.num(depth-1)), fmt.Sprintf("(has_key(@n, %s))", m.num(depth-1)), "@s", "len(@n)", fmt.Sprintf("strcontains(%s, %s)", m.text(depth-1), m.text(depth-1)), fmt.Sprintf("bswap(%s)", m.num(depth-1)))
		case 10:
			return fmt.Sprintf("(%s, %s).%d", m.num(depth-1), m.num(depth-1), m.IntN(2))
		}
	}
	if len(m.vars) > 0 && m.IntN(2) == 0 {
		v := m.pick(m.vars...)
		return m.pick(v, v, v+"++", "--"+v)
	}
	switch {
	case m.site == "uprobe" && m.IntN(3) > 0:
		return m.pick("args.n", "args.u", "args.big", "args.flag", "args.ch", "args.kind", "args.item.id", "args.item.price", "args.item.dims.1", "args.item.kind",
			"args.whole.price", "args.opt.Some.0", "args.res.Ok.0", "is(args.opt, Some)", "is(args.res, Err)", "is(args.kind, Tool)", "args.words.len", "args.bytes[1]", "args.bytes.len", "args.list[2]",
			"args.node.value", "args.node.next.value", "args.item.tags.len", "args.item.owner.age", "args.item.fresh", "pid", "tid", "arg0", "reg(\"di\")", "(uint64)args.node")
	case m.site == "few" && m.IntN(2) == 0:
		return m.pick("args.n", "args.u", "args.big", "args.flag", "is(args.kind, Fruit)")
	case m.site == "none" && m.IntN(2) == 0:
		return m.pick("arg0", "reg(\"ip\")", "pid", "sarg0")
	case m.site == "uretprobe" && m.IntN(2) == 0:
		return m.pick("retval.Ok.0", "is(retval, Err)", "duration", "args.n", "args.item.price")
	}
	return m.pick("0", "1", "2", "7", "-1", "255", "65536", "4294967295", "0x123456789a", "9223372036854775807")
}

// text is a string.
func (m *maker) text(depth int) string {
	if depth > 0 && m.IntN(4) == 0 {
		return fmt.Sprintf("(%s ? %s : %s)", m.num(depth-1), m.text(depth-1), m.text(depth-1))
	}
	if len(m.texts) > 0 && m.IntN(2) == 0 {
		return m.pick(m.texts...)
	}
	switch {
	case m.site == "uprobe" && m.IntN(3) > 0:
		return m.pick("args.name", "args.owned", "args.item.name", "args.whole.name", "args.res.Err.0", "args.words[0]", "args.words[args.u]", "args.item.owner.name", "args.item.tags[1]", "str(arg1)", "str(args.big, 5)", "comm")
	case m.site == "few" && m.IntN(2) == 0:
		return m.pick("args.name", "args.owned")
	case m.site == "uretprobe" && m.IntN(2) == 0:
		return m.pick("retval.Err.0", "args.name")
	}
	return m.pick(`""`, `"a"`, `"pear"`, `"exactly8"`, `"a longer text, of more than thirty-two bytes"`, `@t["a", 1]`)
}

// whole is any value.
func (m *maker) whole() string {
	switch m.site {
	case "uretprobe":
		return "retval"
	case "few":
		return m.pick("args.kind", "args.real", "args")
	case "none":
		return "func"
	}
	return m.pick("args.item", "args.whole", "args.opt", "args.res", "args.words", "args.bytes", "args.list", "args.real", "args.odd", "args.item.owner", "args.kind", "args.node", "args")
}
