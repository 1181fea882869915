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
	ix            *Index
	name, linkage string
	scope         int32       // -1 for none
	decl          *subprogram // whose decl_file and decl_line hold
}

func (ix *Index) describe(s *subprogram) described {
	d := described{ix: ix}
	for range maxRefs {
		if d.name == "" {
			d.name = ix.debug.Str(s.name)
		}
		if d.linkage == "" {
			d.linkage = ix.debug.Str(s.linkage)
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

// appendScope appends the names of a scope and of those that it is in, the outermost
// first.
func (ix *Index) appendScope(segments []string, scope int32) []string {
	if scope < 0 {
		return segments
	}
	s := &ix.scopes[scope]
	return append(ix.appendScope(segments, s.parent), ix.debug.Str(s.name))
}

// pathText writes the function's path. Each source knows what the other lacks: a
// legacy symbol names the types of an impl, but neither generics nor closures'
// numbers; DWARF has those, but calls impls {impl#N}. A v0 symbol has it all.
func (d described) pathText() string {
	segments := d.ix.appendScope(nil, d.scope)
	if d.name != "" {
		name := d.name
		if d.scope >= 0 {
			name = ownArguments(name, segments[len(segments)-1])
		}
		segments = append(segments, name)
	}
	symbol, ok := demangle.Demangle(d.linkage)
	if !ok {
		if len(segments) == 0 {
			return d.linkage
		}
		return strings.Join(withoutBodies(segments), "::")
	}
	if len(segments) < 2 || strings.HasPrefix(strings.TrimLeft(d.linkage, "_"), "R") {
		return asDebugInfo(symbol, segments)
	}
	impl := -1
	for i, s := range segments {
		if strings.HasPrefix(s, "{impl#") {
			impl = i
		}
	}
	if impl < 0 {
		return strings.Join(withoutBodies(segments), "::")
	}
	tail := segments[impl+1:]
	of := split(symbol)
	if len(of) <= len(tail) {
		return symbol
	}
	return strings.Join(withoutBodies(append(of[:len(of)-len(tail):len(of)-len(tail)], tail...)), "::")
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
func (ix *Index) source(decl *subprogram) (file string, line int) {
	if decl == nil {
		return "", 0
	}
	return fileName(ix.unit(decl), uint64(decl.declFile)), int(decl.declLine)
}

// unit is the one that a subprogram is in.
func (ix *Index) unit(s *subprogram) *dwarf.Unit { return ix.debug.Units()[s.unit] }

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
