package path

import "strings"

// MatchKind is how a pattern matches a path. The higher, the better.
type MatchKind uint8

const (
	NoMatch MatchKind = iota
	Suffix            // the path ends so
	Exact             // the whole path is so
)

// Match returns how the pattern matches a path: not at all for KindLine,
// Exact for a regular expression that matches anywhere in it.
func (p Pattern) Match(path Path) MatchKind {
	switch p.Kind {
	case KindRegexp:
		if p.regexp.MatchString(path.String()) {
			return Exact
		}
	case KindPath, KindSignature:
		if !glob(p.path.suffix, path.suffix) {
			return NoMatch
		}
		best := NoMatch
		for _, view := range views(path.segs) {
			if matchPath(p.path.segs, view, true) {
				return Exact
			}
			if best == NoMatch && matchPath(p.path.segs, view, false) {
				best = Suffix
			}
		}
		return best
	}
	return NoMatch
}

// MatchName is Match for a path in text. It does not parse what cannot match.
// What is no Rust path, such as the name of a C++ function, is one name.
func (p Pattern) MatchName(name string) MatchKind {
	if name == "" || !strings.Contains(name, p.hint) {
		return NoMatch
	}
	path, err := Parse(name)
	if err != nil {
		path = Path{segs: []segment{{name: name}}}
	}
	return p.Match(path)
}

// maxViews bounds the work on paths of many impls within each other.
const maxViews = 64

// views returns the ways to see a path: as it is, and for the method of a
// trait, as its type's and as its trait's.
func views(segs []segment) [][]segment {
	at := 0
	for at < len(segs) && segs[at].self == nil {
		at++
	}
	if at == len(segs) {
		return [][]segment{segs}
	}
	q := &segs[at]
	heads := [][]segment{segs[:at+1]}
	if q.impl { // the module that has the impl is no part of its name
		heads = append(heads, segs[at:at+1])
	}
	switch {
	case q.self.op == opPath:
		heads = append(heads, views(q.self.path)...)
	case q.trait != nil:
		heads = append(heads, []segment{{self: q.self}})
	}
	if q.trait != nil {
		heads = append(heads, q.trait)
	}
	var all [][]segment
	for _, tail := range views(segs[at+1:]) {
		for _, head := range heads {
			if len(all) == maxViews {
				return all
			}
			all = append(all, append(head[:len(head):len(head)], tail...))
		}
	}
	return all
}

// matchPath matches the segments of a pattern with all of a path, or if whole
// is not set, with its end.
func matchPath(pat, segs []segment, whole bool) bool {
	// The classic walk for wildcards: of several `**`, only the last one met has
	// to be tried again with one segment more. A suffix match begins behind one.
	retry, from := -1, 0
	if !whole {
		retry = 0
	}
	p, s := 0, 0
	for s < len(segs) {
		if p < len(pat) && pat[p].self == nil && pat[p].name == anyDepth {
			p++
			retry, from = p, s
			continue
		}
		if p < len(pat) && (matchSegment(&pat[p], &segs[s], whole) || p == 0 && isFacade(pat, &segs[s])) {
			p++
			s++
			continue
		}
		if retry < 0 {
			return false
		}
		from++
		p, s = retry, from
	}
	for p < len(pat) && pat[p].self == nil && pat[p].name == anyDepth {
		p++
	}
	return p == len(pat)
}

// isFacade reports whether a pattern begins with `std` where a path has one of
// the crates that std re-exports.
func isFacade(pat []segment, s *segment) bool {
	return len(pat) > 1 && pat[0].name == "std" && pat[0].self == nil && (s.name == "core" || s.name == "alloc")
}

func matchSegment(pat, s *segment, whole bool) bool {
	if pat.self != nil {
		return s.self != nil && matchType(pat.self, s.self, whole) &&
			(pat.trait == nil || s.trait != nil && matchPath(pat.trait, s.trait, whole))
	}
	if s.self != nil {
		return pat.name == "*" && pat.args == nil
	}
	return matchName(pat.name, s.name) && (pat.args == nil || s.args != nil && matchArgs(pat.args, s.args))
}

func matchName(pat, name string) bool {
	if pat == name {
		return true
	}
	if strings.IndexByte(pat, '*') >= 0 {
		return glob(pat, name)
	}
	return pat[0] == '{' && name[0] == '{' && matchBraced(pat, name)
}

// glob matches a name with a pattern in which `*` is any characters.
func glob(pat, name string) bool {
	retry, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pat) && pat[p] == '*':
			p++
			retry, from = p, n
		case p < len(pat) && pat[p] == name[n]:
			p++
			n++
		case retry >= 0:
			from++
			p, n = retry, from
		default:
			return false
		}
	}
	return strings.Trim(pat[p:], "*") == ""
}

// matchBraced matches names that the legacy scheme does not number
// (`{{closure}}`) with numbered ones (`{closure#0}`).
func matchBraced(a, b string) bool {
	what := func(s string) (kind string, numbered bool) {
		s = strings.Trim(s, "{}")
		if s == "vtable.shim" {
			s = "shim:vtable"
		}
		if i := strings.LastIndexByte(s, '#'); i >= 0 {
			return s[:i], true
		}
		return s, false
	}
	kindA, numberedA := what(a)
	kindB, numberedB := what(b)
	return kindA == kindB && !(numberedA && numberedB)
}

// matchArgs matches lists of generic arguments. Of associated types, only
// those are compared that both name.
func matchArgs(pat, args []node) bool {
	i := 0
	next := func() *node {
		for ; i < len(args); i++ {
			if args[i].op != opBinding {
				i++
				return &args[i-1]
			}
		}
		return nil
	}
	for j := range pat {
		p := &pat[j]
		if p.op == opBinding {
			for k := range args {
				if a := &args[k]; a.op == opBinding && a.text == p.text && !matchType(&p.kids[0], &a.kids[0], false) {
					return false
				}
			}
			continue
		}
		if a := next(); a == nil && !isDefault(p) || a != nil && !matchType(p, a, false) {
			return false
		}
	}
	for a := next(); a != nil; a = next() {
		if !isDefault(a) {
			return false
		}
	}
	return true
}

// isDefault reports whether an argument is one that a type of std has by
// default. Debug info writes it, v0 symbols do not.
func isDefault(n *node) bool {
	if n.op != opPath {
		return false
	}
	switch n.path[len(n.path)-1].name {
	case "Global", "RandomState":
		return true
	}
	return false
}

// matchType matches a type; one that is a path by its end too, unless whole is
// set.
func matchType(pat, n *node, whole bool) bool {
	if pat.op == opPath && len(pat.path) == 1 && pat.path[0].args == nil && (pat.path[0].name == "_" || pat.path[0].name == "*") {
		return true
	}
	if pat.op != n.op {
		return false
	}
	switch pat.op {
	case opPath:
		return matchPath(pat.path, n.path, whole)
	case opBounds: // the order says nothing, nor does a missing `dyn`
		return (pat.text == "impl") == (n.text == "impl") && matchBounds(pat.kids, n.kids, whole)
	case opPrefix, opFn, opLiteral, opPattern:
		if pat.text != n.text {
			return false
		}
	}
	if len(pat.kids) != len(n.kids) {
		return false
	}
	for i := range pat.kids {
		if !matchType(&pat.kids[i], &n.kids[i], whole) {
			return false
		}
	}
	return true
}

func matchBounds(pat, bounds []node, whole bool) bool {
	if len(pat) != len(bounds) {
		return false
	}
	for i := range pat {
		found := false
		for j := range bounds {
			found = found || matchType(&pat[i], &bounds[j], whole)
		}
		if !found {
			return false
		}
	}
	return true
}
