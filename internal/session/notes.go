package session

import (
	"cmp"
	"fmt"
	"slices"

	"ferrotrace/internal/index"
)

// notes collects what a trace can't show, and why: a line for each function.
type notes struct {
	lines   []string
	inlined map[string]*inlined // by function
	order   []string
	untyped []string // functions without debug info
}

// inlined are a function's inlined instances.
type inlined struct {
	first   *index.Instance
	n       int
	inexact int
	why     string // of the first inexact one
}

func (n *notes) of(in *index.Instance, p *index.Plan) {
	name := in.Fn.Name
	switch {
	case in.Inlined:
		i := n.inlined[name]
		if i == nil {
			i = &inlined{first: in}
			n.inlined[name] = i
			n.order = append(n.order, name)
		}
		i.n++
		if !p.Exact {
			i.inexact++
			i.why = cmp.Or(i.why, p.Inexact)
		}
	case p.NoExits != "":
		n.add(fmt.Sprintf("%s: only its entries are shown: %s", name, p.NoExits))
	case len(p.Exits) == 0:
		n.add(name + " never returns: it ends by a panic or with its thread")
	case in.Untyped():
		if !slices.Contains(n.untyped, name) {
			n.untyped = append(n.untyped, name)
		}
	}
}

// add adds a line, if it is not one of another instance too.
func (n *notes) add(line string) {
	if !slices.Contains(n.lines[max(0, len(n.lines)-maxNotes):], line) {
		n.lines = append(n.lines, line)
	}
}

// all are the notes, those on inlined instances last.
func (n *notes) all() []string {
	var lines []string
	switch len(n.untyped) {
	case 0:
	case 1:
		lines = append(lines, n.untyped[0]+" has "+untyped)
	default:
		lines = append(lines, fmt.Sprintf("%s and %d functions more have %s", n.untyped[0], len(n.untyped)-1, untyped))
	}
	lines = append(lines, n.lines...)
	for _, name := range n.order {
		i := n.inlined[name]
		s := fmt.Sprintf("%s is inlined into %s at %s:%d", name, i.first.Caller, i.first.File, i.first.Line)
		if i.n > 1 {
			s += fmt.Sprintf(" and in %d places more", i.n-1)
		}
		s += ": results and durations of these calls can't be seen"
		switch {
		case i.inexact == 0:
		case i.n == 1:
			s += "; and they can't be told apart: " + i.why
		default:
			s += fmt.Sprintf("; and in %d places they can't be told apart: %s", i.inexact, i.why)
		}
		lines = append(lines, s)
	}
	return lines
}

const untyped = "no debug info: neither arguments nor results are known. Build with debug = true under [profile.release] in Cargo.toml to see them, or give a signature with the path: 'shop::add(id: u64, name: &str) -> bool'"

// maxNotes is how many notes are printed unless all are asked for.
const maxNotes = 4

func (n *notes) print(note func(string, ...any), all bool) {
	lines := n.all()
	for i, l := range lines {
		if i == maxNotes && !all {
			note("and the like of %d functions more: -v shows all, and ferrotrace explain more of each", len(lines)-i)
			return
		}
		note("%s", l)
	}
}
