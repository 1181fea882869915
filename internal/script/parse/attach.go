package parse

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// An attach point has a grammar of its own: it is what stands up to white space,
// a comma or a brace, divided by colons. Two things of Rust's are whole within
// it: <...>, so that <Db as Store>::get needs no quotes, and {{closure}} behind a
// colon. Quotes keep all else.

var closureSegment = regexp.MustCompile(`^\{\{?[A-Za-z_][\w#:.*-]*\}?\}`)

// pointEnd is the offset where the attach point ends that begins at i.
func (p *parser) pointEnd(i int) int {
	start, colon, angles := i, false, true
	for i < len(p.text) {
		switch c := p.text[i]; c {
		case ' ', '\t', '\r', '\n', '\v', '\f', ',', ';', '}', ')':
			return i
		case '{':
			n := len(closureSegment.FindString(p.text[i:min(i+128, len(p.text))]))
			if n == 0 || !strings.HasSuffix(p.text[start:i], "::") {
				return i
			}
			i += n
			continue
		case '/':
			// Before any colon this cannot be part of a file's name.
			if !colon && i > start {
				return i
			}
		case ':':
			colon = true
		case '<':
			// One that is not closed is an operator's name, and so are all after it.
			if angles {
				if end := p.angleEnd(i); end > i {
					i = end
					continue
				}
				angles = false
			}
		case '"':
			end := i + 1
			for end < len(p.text) && p.text[end] != '"' && p.text[end] != '\n' {
				if p.text[end] == '\\' {
					end++
				}
				end++
			}
			if p.byteAt(end) != '"' {
				p.fail(source.Span{Start: i, End: min(end, len(p.text))}, "this quote is never closed", "")
			}
			i = end
		}
		i++
	}
	return i
}

// angleEnd is the offset behind the > that closes the < at i, on the same line
// and before any brace; i itself if there is none.
func (p *parser) angleEnd(i int) int {
	depth := 0
	for j := i; j < len(p.text); j++ {
		switch p.text[j] {
		case '<':
			depth++
		case '>':
			if p.text[j-1] == '-' {
				continue
			}
			if depth--; depth == 0 {
				return j + 1
			}
		case '\n', '{', '"':
			return i
		}
	}
	return i
}

// A part is what stands between two colons.
type part struct {
	text   string // without quotes
	quoted bool   // it begins with a quote
	at     bool   // an @ stood in front of it instead of a colon
}

// split divides an attach point. joined says that :: is part of a name, as in
// Rust, instead of an empty part.
func split(raw string, joined bool) []part {
	var parts []part
	var cur part
	var b strings.Builder
	quoted := false
	flush := func(at bool) {
		cur.text = b.String()
		parts = append(parts, cur)
		cur = part{at: at}
		b.Reset()
	}
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			cur.quoted = cur.quoted || !quoted && b.Len() == 0
			quoted = !quoted
		case quoted && c == '\\' && i+1 < len(raw):
			i++
			b.WriteByte(raw[i])
		case quoted:
			b.WriteByte(c)
		case c == ':' && joined && i+1 < len(raw) && raw[i+1] == ':':
			b.WriteString("::")
			i++
		case c == ':', c == '@' && joined:
			flush(c == '@')
		default:
			b.WriteByte(c)
		}
	}
	flush(false)
	return parts
}

var positional = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\$[1-9][0-9]*`)

// fill puts the positional parameters into an attach point, outside of quotes;
// one that is not given is empty.
func (p *parser) fill(raw string) string {
	return positional.ReplaceAllStringFunc(raw, func(s string) string {
		if s[0] == '"' {
			return s
		}
		if n, err := strconv.Atoi(s[1:]); err == nil && n <= len(p.params) {
			return p.params[n-1]
		}
		return ""
	})
}

var pointName = regexp.MustCompile(`^[A-Za-z_]\w*=`)

// attachPoint reads one attach point. What is wrong with it is reported without
// giving up, for the action behind it can be read all the same.
func (p *parser) attachPoint() *ast.AttachPoint {
	start := p.tok.Start
	end := p.pointEnd(start)
	if end == start {
		p.unexpected("a probe, such as uprobe:NAME")
	}
	p.seek(end)
	raw := p.text[start:end]
	a := &ast.AttachPoint{Span: p.from(start)}
	if name := pointName.FindString(raw); name != "" {
		a.Name, raw = strings.TrimSuffix(name, "="), raw[len(name):]
	}
	a.Raw = raw
	raw = p.fill(raw)
	word, rest, more := strings.Cut(raw, ":")
	provider, ok := ast.ProviderNamed(word)
	if !ok {
		p.unknownProbe(a.Span, word, raw)
		return a
	}
	a.Provider = provider
	if strings.HasPrefix(rest, ":") && (provider == ast.Uprobe || provider == ast.Uretprobe) {
		rest = rest[1:] // ::path begins at the crate
		if !strings.Contains(rest, ":") {
			p.report(a.Span, fmt.Sprintf("%s needs something between its colons", provider), "a function is named uprobe:PATH, or uprobe:FILE:PATH")
			return a
		}
	}
	var parts []part
	if more {
		parts = split(rest, provider == ast.Uprobe || provider == ast.Uretprobe)
	}
	if msg, hint := point(a, parts); msg != "" {
		p.report(a.Span, msg, hint)
	}
	return a
}

func (p *parser) unknownProbe(at source.Span, word, raw string) {
	hint := "probes are begin, end, uprobe, uretprobe, usdt, interval, profile and self"
	switch lower := strings.ToLower(word); {
	case strings.HasPrefix(lower, "upro"):
		hint = "did you mean uprobe?"
	case strings.HasPrefix(lower, "uret"):
		hint = "did you mean uretprobe?"
	case strings.Contains(raw, "::"):
		hint = "a function is probed as uprobe:" + raw
	case ast.Wild(word):
		hint = "the kind of probe cannot be a wildcard"
	}
	p.report(at, fmt.Sprintf("there is no kind of probe `%s`", word), hint)
}

// number is an integer as scripts write them, with a unit or not.
func number(part part) (value uint64, unit bool, ok bool) {
	if part.quoted || part.text == "" || !digit(part.text[0]) {
		return 0, false, false
	}
	p := newParser("", part.text)
	t := p.lex(0)
	if t.kind != integer || t.End != len(part.text) {
		return 0, false, false
	}
	last := part.text[len(part.text)-1]
	hex := strings.HasPrefix(part.text, "0x") || strings.HasPrefix(part.text, "0X")
	return t.value, !digit(last) && !hex, true
}

// point fills in an attach point from its parts, or says what is wrong.
func point(a *ast.AttachPoint, parts []part) (msg, hint string) {
	for _, part := range parts {
		a.Parts = append(a.Parts, part.text)
	}
	count := func(least, most int, usage string) bool {
		if least <= len(parts) && len(parts) <= most {
			return true
		}
		msg, hint = fmt.Sprintf("%s does not take %d parts", a.Provider, len(parts)), "it is written "+usage
		return false
	}
	if !a.Provider.Kernel() {
		defer func() { a.Parts = nil }()
	}
	switch a.Provider {
	case ast.Begin, ast.End:
		if len(parts) == 1 && parts[0].text == "*" {
			return "", ""
		}
		count(0, 0, string(a.Provider))
	case ast.Self:
		if count(2, 2, "self:signal:SIGUSR1") {
			a.Event, a.Func = parts[0].text, parts[1].text
		}
	case ast.Test, ast.Bench:
		if count(1, 1, string(a.Provider)+":NAME") {
			a.Func = parts[0].text
		}
	case ast.Interval, ast.Profile:
		if count(1, 2, fmt.Sprintf("%s:hz:99 or %[1]s:10ms", a.Provider)) {
			return timer(a, parts)
		}
	case ast.Usdt:
		if count(1, 3, "usdt:FILE:PROBE or usdt:FILE:PROVIDER:PROBE") {
			a.Func = parts[len(parts)-1].text
			if len(parts) > 1 {
				a.Target = parts[0].text
			}
			if len(parts) > 2 {
				a.Namespace = parts[1].text
			}
			if a.Func == "" {
				return "the usdt probe has no name", "it is written usdt:FILE:PROBE"
			}
		}
	case ast.Uprobe, ast.Uretprobe:
		return uprobe(a, parts)
	}
	return msg, hint
}

func timer(a *ast.AttachPoint, parts []part) (msg, hint string) {
	last := parts[len(parts)-1]
	value, unit, ok := number(last)
	if !ok {
		return fmt.Sprintf("`%s` is no number", last.text), fmt.Sprintf("%s is written %[1]s:hz:99, %[1]s:s:1 or %[1]s:10ms", a.Provider)
	}
	a.Count, a.Unit = value, "ns"
	if len(parts) == 2 {
		switch a.Unit = parts[0].text; a.Unit {
		case "hz", "s", "ms", "us":
		default:
			return fmt.Sprintf("`%s` is no unit of time", a.Unit), "it is hz, s, ms or us"
		}
		if unit {
			return "there are two units of time", fmt.Sprintf("write %s:%s", a.Provider, last.text)
		}
		if a.Count == 0 {
			return "the rate must be more than 0", ""
		}
	} else if a.Count < 1000 {
		return fmt.Sprintf("%d ns is too short", a.Count), "the shortest time is 1us; without a unit the number counts nanoseconds"
	}
	return "", ""
}

// languages are the names that may stand between a file and a function; only
// C++'s changes how the function is named.
var languages = map[string]bool{"cpp": true, "rust": true, "c": true}

var offset = regexp.MustCompile(`^(.+)\+(0[xX][0-9a-fA-F]+|[0-9]+)$`)

func uprobe(a *ast.AttachPoint, parts []part) (msg, hint string) {
	usage := fmt.Sprintf("it is written %s:PATH or %[1]s:FILE:PATH", a.Provider)
	if len(parts) == 0 {
		return fmt.Sprintf("%s needs a function", a.Provider), usage
	}
	if file, rest := sourceLine(parts); file >= 0 {
		if a.Provider == ast.Uretprobe {
			return "a line has no return", "uretprobe takes a function"
		}
		if file > 1 {
			return "a line is given by one file to trace, a source file and a number", "it is written uprobe:FILE:src/main.rs:42"
		}
		if file == 1 {
			a.Target = parts[0].text
		}
		a.File = parts[file].text
		var ok bool
		if a.Line, _, ok = number(rest[0]); !ok || a.Line == 0 {
			return fmt.Sprintf("`%s` is no line", rest[0].text), "lines are counted from 1"
		}
		if len(rest) > 1 {
			if a.Col, _, ok = number(rest[1]); !ok {
				return fmt.Sprintf("`%s` is no column", rest[1].text), ""
			}
		}
		if ast.Wild(a.Target) {
			return "a line cannot be in any of several files", "name the file to trace"
		}
		return "", ""
	}
	name := parts[len(parts)-1]
	front := parts[:len(parts)-1]
	if n := len(front); n > 0 && languages[front[n-1].text] && !front[n-1].quoted {
		a.Lang, front = front[n-1].text, front[:n-1]
	}
	switch len(front) {
	case 0:
	case 1:
		a.Target = front[0].text
	case 2:
		return fmt.Sprintf("`%s` is no language", front[1].text), "segments of a path are separated by `::`; the language is rust, c or cpp"
	default:
		return fmt.Sprintf("%s does not take %d parts", a.Provider, len(parts)), usage
	}
	if name.text == "" {
		return fmt.Sprintf("%s needs a function", a.Provider), usage
	}
	if len(parts) == 1 && !name.quoted && !regex(name.text) &&
		(strings.HasPrefix(name.text, "/") || strings.HasPrefix(name.text, "./") || strings.HasPrefix(name.text, "../")) {
		return fmt.Sprintf("%s needs a function behind the file", a.Provider), usage
	}
	if value, unit, ok := number(name); ok && !unit {
		if ast.Wild(a.Target) {
			return "an address cannot be in any of several files", "name the file to trace"
		}
		a.HasAddr, a.Addr = true, value
		return "", ""
	}
	a.Func = name.text
	if m := offset.FindStringSubmatch(name.text); m != nil && !regex(name.text) {
		value, err := strconv.ParseUint(m[2], 0, 64)
		if err != nil {
			return fmt.Sprintf("`%s` is no offset", m[2]), ""
		}
		if a.Provider == ast.Uretprobe {
			return "uretprobe cannot have an offset", "it fires where the function returns"
		}
		a.Func, a.Offset = m[1], value
	}
	return "", ""
}

// regex says whether a name is a /regular expression/.
func regex(name string) bool {
	return len(name) > 2 && name[0] == '/' && name[len(name)-1] == '/'
}

// sourceLine finds the source file of FILE:LINE, FILE:LINE:COL, or bpftrace's
// BINARY@FILE:LINE among the parts, and what stands behind it; -1 if there is
// none.
func sourceLine(parts []part) (file int, rest []part) {
	for i := range parts {
		if rest := parts[i+1:]; parts[i].at && len(rest) > 0 && len(rest) < 3 {
			return i, rest
		}
	}
	for n := 2; n <= 3 && n <= len(parts); n++ {
		i := len(parts) - n
		numbers := true
		for _, part := range parts[i+1:] {
			_, unit, ok := number(part)
			numbers = numbers && ok && !unit
		}
		if numbers && path.Ext(parts[i].text) == ".rs" {
			return i, parts[i+1:]
		}
	}
	return -1, nil
}
