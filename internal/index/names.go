package index

import (
	"strings"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/demangle"
)

// maxRefs bounds the chain definition → abstract origin → declaration.
const maxRefs = 8

// described is what a subprogram and those that it refers to say together.
type described struct {
	name, linkage string
	scope         *scope
	decl          *subprogram // whose decl_file and decl_line hold
}

func (ix *Index) describe(s *subprogram) described {
	var d described
	for range maxRefs {
		if d.name == "" {
			d.name = s.name
		}
		if d.linkage == "" {
			d.linkage = s.linkage
		}
		if d.decl == nil && s.declLine != 0 {
			d.decl = s
		}
		// The last of the chain is the one that stands where the source has it.
		d.scope = s.scope
		next := ix.subs.at(s.ref)
		if s.ref == 0 || next == nil {
			break
		}
		s = next
	}
	return d
}

func (sc *scope) appendTo(segments []string) []string {
	if sc == nil {
		return segments
	}
	return append(sc.parent.appendTo(segments), sc.name)
}

// pathText writes the function's path. Each source knows what the other lacks: a
// legacy symbol names the types of an impl, but neither generics nor closures'
// numbers; DWARF has those, but calls impls {impl#N}. A v0 symbol has it all.
func (d described) pathText() string {
	segments := d.scope.appendTo(nil)
	if d.name != "" {
		name := d.name
		if d.scope != nil {
			name = ownArguments(name, d.scope.name)
		}
		segments = append(segments, name)
	}
	symbol, ok := demangle.Demangle(d.linkage)
	if !ok {
		if len(segments) == 0 {
			return d.linkage
		}
		return strings.Join(segments, "::")
	}
	if len(segments) < 2 || strings.HasPrefix(strings.TrimLeft(d.linkage, "_"), "R") {
		return symbol
	}
	impl := -1
	for i, s := range segments {
		if strings.HasPrefix(s, "{impl#") {
			impl = i
		}
	}
	if impl < 0 {
		return strings.Join(segments, "::")
	}
	tail := segments[impl+1:]
	of := split(symbol)
	if len(of) <= len(tail) {
		return symbol
	}
	return strings.Join(append(of[:len(of)-len(tail):len(of)-len(tail)], tail...), "::")
}

// ownArguments takes from a method's generic arguments those of its type, which DWARF
// repeats: push<u32, Global> of Vec<u32, Global> is push.
func ownArguments(method, typ string) string {
	i := strings.IndexByte(method, '<')
	j := strings.IndexByte(typ, '<')
	if i <= 0 || j <= 0 || !strings.HasSuffix(method, ">") || !strings.HasSuffix(typ, ">") {
		return method
	}
	own, ok := strings.CutPrefix(method[i+1:len(method)-1], typ[j+1:len(typ)-1])
	if own, more := strings.CutPrefix(own, ", "); ok && more {
		return method[:i] + "<" + own + ">"
	}
	if ok && own == "" {
		return method[:i]
	}
	return method
}

// split cuts a path at the :: that are not within brackets.
func split(path string) []string {
	var segments []string
	depth, start := 0, 0
	for i := 0; i < len(path); i++ {
		switch path[i] {
		case '<', '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '>':
			if i == 0 || path[i-1] != '-' {
				depth--
			}
		case ':':
			if depth == 0 && strings.HasPrefix(path[i:], "::") {
				segments = append(segments, path[start:i])
				start = i + 2
				i++
			}
		}
	}
	return append(segments, path[start:])
}

// source is the file and line of a declaration; the file as rustc was told it.
func source(decl *subprogram) (file string, line int) {
	if decl == nil {
		return "", 0
	}
	return fileName(decl.unit, decl.declFile), int(decl.declLine)
}

func fileName(u *dwarf.Unit, n uint64) string {
	f, _ := u.File(n)
	return f.Path
}

// lineTable is a unit's, nil if it has none that can be read.
func (ix *Index) lineTable(u *dwarf.Unit) *dwarf.LineTable {
	if t, ok := ix.lines.Load(u); ok {
		return t.(*dwarf.LineTable)
	}
	t, err := u.Lines()
	if err != nil {
		t = nil
	}
	ix.lines.Store(u, t)
	return t
}
