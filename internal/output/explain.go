package output

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/event"
)

// instance writes explain's page for one instance: a heading, then lines of
// label and finding.
func (o *textOutput) instance(e event.Instance) {
	if o.instances++; o.instances > 1 {
		o.print("\n")
	}
	what := "calls"
	if at := place(e.Source); at != "" {
		what = "passes"
		o.print(o.bold, at, o.off, " in ")
	}
	o.print(o.bold, names(e.Function, e.Aliases), o.off, "\n")
	line := func(label, format string, a ...any) {
		fmt.Fprintf(o.w, "  %s%-8s%s  %s\n", o.dim, label, o.off, strings.TrimRight(fmt.Sprintf(format, a...), " "))
	}
	line("address", "0x%x", e.Address)
	if e.Inline != nil {
		line("inlined", "%s", strings.TrimPrefix(strings.TrimPrefix(inlinedAt(*e.Inline), "inlined"), " "))
	}
	if e.Symbol != "" {
		line("symbol", "%s", Escape(e.Symbol))
	}
	if !simpleEntry(e) {
		line("entries", "%s", addresses(e.Entries))
	}
	if !e.Exact {
		line(what, "≈ can't be counted one by one: the compiler unrolled, vectorised or duplicated this code")
	}

	width := 0
	heads := make([]string, len(e.Args))
	for i, a := range e.Args {
		name := a.Name
		if name == "" {
			name = "_"
		}
		heads[i] = Escape(name + ": " + a.Rust)
		width = max(width, len([]rune(heads[i])))
	}
	result := ""
	if e.Result != nil {
		result = Escape(e.Result.Rust)
		width = max(width, len([]rune(result)))
	}
	width = min(width, 40) // one long type must not push all else off the screen
	for i, a := range e.Args {
		label := "argument"
		if what == "passes" {
			label = "variable"
		}
		if i > 0 {
			label = ""
		}
		line(label, "%-*s  %s", width, heads[i], o.located(a))
	}
	if e.Result != nil {
		line("result", "%-*s  %s", width, result, o.located(*e.Result))
	}

	for i, x := range e.Exits {
		label := "exits"
		if i > 0 {
			label = ""
		}
		kind := x.Kind
		if kind == "tail" {
			kind = "tail call"
			if x.Target != "" {
				kind += " to " + Escape(x.Target)
			}
		}
		line(label, "0x%x %s", x.Address, kind)
	}
	if e.NoExits != "" {
		line("exits", "%s", o.missing(e.NoExits))
	}

	label := "probe"
	for _, name := range slices.Sorted(maps.Keys(e.Runtimes)) {
		p := e.Runtimes[name]
		how := o.missing(p.Missing)
		if p.Missing == "" {
			how = fmt.Sprintf("%s, about %s a hit", Escape(p.How), duration(time.Duration(p.CostNS)))
		}
		line(label, "%-6s  %s", Escape(name), how)
		label = ""
	}
	if e.Auto != "" {
		line(label, "%-6s  %s", "auto", Escape(e.Auto))
	}
	for _, n := range e.Notes {
		line("note", "%s", Escape(n))
	}
}

func (o *textOutput) located(l event.Located) string {
	if l.Missing != "" {
		return o.missing(l.Missing)
	}
	return Escape(l.Where)
}

func addresses(as []uint64) string {
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = fmt.Sprintf("0x%x", a)
	}
	return strings.Join(s, " ")
}
