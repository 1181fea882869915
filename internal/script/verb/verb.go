// Package verb makes the script that a verb is. A verb that counts or measures is a short
// program of the probe language: the script says what it does, and what its maps hold in
// the end is the verb's table.
package verb

import (
	"fmt"
	"strconv"
	"strings"

	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/parse"
)

// Kind is what is done with calls.
type Kind string

const (
	Trace   Kind = "trace"
	Count   Kind = "count"
	Latency Kind = "latency"
	Hist    Kind = "hist"
)

// Verb is a verb with its wishes. The expressions are the language's; "" is for none.
type Verb struct {
	Kind     Kind
	Patterns []string // functions and lines
	Value    string   // what Hist shows
	Where    string   // a predicate: other calls are hidden
	By       string   // what else but the function makes a row of its own
}

// Plain says that no expression was given.
func (v *Verb) Plain() bool { return v.Value == "" && v.Where == "" && v.By == "" }

// Check parses the expressions. What is wrong with one is a source.Errors.
func (v *Verb) Check() error {
	for _, e := range [...]struct{ name, text string }{{"the expression", v.Value}, {"--where", v.Where}, {"--by", v.By}} {
		if e.text == "" {
			continue
		}
		text := e.text
		if e.name == "--by" {
			text = "(" + text + ")" // several are a tuple
		}
		if _, errs := parse.Expr(e.name, text); errs.Failed() {
			return errs
		}
	}
	return nil
}

// AtEnd says whether the verb looks at what is known only once a call has ended.
func (v *Verb) AtEnd() bool {
	return v.Kind == Latency || atEnd(v.Value) || atEnd(v.By) || atEnd(v.Where)
}

func atEnd(text string) (found bool) {
	x, errs := parse.Expr("", "("+text+")")
	if text == "" || errs.Failed() {
		return false
	}
	ast.Inspect(x, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && (id.Name == "retval" || id.Name == "duration")
		return !found
	})
	return found
}

// The maps of scripts, by name.
const (
	counts    = "@"
	durations = "@ns"
	shortest  = "@min"
	longest   = "@max"
	sum       = "@sum"
)

// bits of durations' histogram are how exact percentiles are: 1/32.
const bits = 5

// Script is the text. Check has found nothing wrong.
func (v *Verb) Script() string {
	var b strings.Builder
	if len(v.Patterns) > 1 {
		b.WriteString("config = { missing_probes = \"warn\" }\n\n")
	}
	if v.Kind == Trace {
		v.trace(&b)
		return b.String()
	}
	provider := ast.Uprobe
	if v.AtEnd() {
		provider = ast.Uretprobe
	}
	v.probe(&b, provider)
	b.WriteString("{\n")
	statement := func(format string, a ...any) { fmt.Fprintf(&b, "  "+format+";\n", a...) }
	key := v.key()
	switch v.Kind {
	case Latency:
		if v.By != "" {
			statement("$key = (%s)", key)
			key = "$key"
		}
		statement("%s[%s] = hist(duration, %d)", durations, key, bits)
		statement("%s[%s] = min(duration)", shortest, key)
		statement("%s[%s] = max(duration)", longest, key)
		statement("%s[%s] = sum(duration)", sum, key)
	case Hist:
		statement("%s[%s] = hist(%s)", counts, key, v.Value)
	default:
		statement("%s[%s] = count()", counts, key)
	}
	b.WriteString("}\n")
	return b.String()
}

// Predicate is a script that does nothing but to tell whether the predicate holds.
func (v *Verb) Predicate() string {
	var b strings.Builder
	provider := ast.Uprobe
	if v.AtEnd() {
		provider = ast.Uretprobe
	}
	v.probe(&b, provider)
	b.WriteString("{ }\n")
	return b.String()
}

// probe writes the attach points and the predicate.
func (v *Verb) probe(b *strings.Builder, provider ast.Provider) {
	for i, pattern := range v.Patterns {
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(b, "%s:%s", provider, point(pattern))
	}
	b.WriteString("\n")
	if v.Where != "" {
		where := v.Where
		if strings.Contains(where, "/") { // no reader shall take it for the predicate's end
			where = "(" + where + ")"
		}
		fmt.Fprintf(b, "/%s/\n", where)
	}
}

// point is a pattern as an attach point has it.
func point(pattern string) string {
	if isLine(pattern) || !strings.ContainsAny(pattern, " \t,;{}()/\"@\\+$") {
		return pattern
	}
	return strconv.Quote(pattern)
}

func isLine(pattern string) bool {
	p, err := path.ParsePattern(pattern)
	return err == nil && p.Kind == path.KindLine
}

// lines says whether one of the patterns is a line: then rows are named by probe, and not
// by the function that the line is in.
func (v *Verb) lines() bool {
	for _, pattern := range v.Patterns {
		if isLine(pattern) {
			return true
		}
	}
	return false
}

// key is what makes a row, without parentheses.
func (v *Verb) key() string {
	key := "func"
	if v.lines() {
		key = "probe"
	}
	if v.By != "" {
		key += ", " + v.By
	}
	return key
}

// trace writes what shows each call with its arguments, result and duration.
func (v *Verb) trace(b *strings.Builder) {
	if v.AtEnd() { // nothing is shown of a call until then
		v.probe(b, ast.Uretprobe)
		b.WriteString("{\n  printf(\"%s %? → %? in %lu ns\\n\", func, args, retval, duration);\n}\n")
		return
	}
	v.probe(b, ast.Uprobe)
	b.WriteString("{\n  printf(\"%s %?\\n\", func, args);\n}\n")
	if v.lines() {
		return
	}
	b.WriteString("\n")
	v.probe(b, ast.Uretprobe)
	b.WriteString("{\n  printf(\"%s → %? in %lu ns\\n\", func, retval, duration);\n}\n")
}
