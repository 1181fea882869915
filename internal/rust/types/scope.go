package types

import (
	"slices"
	"sort"
	"strings"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/rust/path"
)

// children calls f for each direct child of e.
func (r *Reader) children(e *dwarf.Entry, f func(*dwarf.Entry) error) error {
	if !e.HasChildren {
		return nil
	}
	c := e.Unit.Cursor(e.Offset)
	c.Next() // e itself
	for c.Next() {
		child := *c.Entry()
		if err := f(&child); err != nil {
			return err
		}
		c.Skip()
	}
	return c.Err()
}

// scopes are the entries of a unit that types and functions lie in: an entry does
// not say what it is in, so a unit is walked once.
type scopes struct {
	list []scope // by off
	// closures are the functions of closures and the bodies of async functions, by where
	// they are.
	closures map[closureKey]dwarf.Offset
}

type scope struct {
	off, end dwarf.Offset
	parent   int // index in list; -1: the unit
	name     string
}

type closureKey struct {
	scope int
	name  string // "{closure#0}", "{async_fn#0}"
}

var scopeTags = dwarf.Tags(dwarf.TagNamespace, dwarf.TagStructureType, dwarf.TagUnionType,
	dwarf.TagEnumerationType, dwarf.TagClassType, dwarf.TagSubprogram, dwarf.TagModule)

// scopesOf returns u's scopes: none if the unit can't be walked.
func (r *Reader) scopesOf(u *dwarf.Unit) *scopes {
	if s := r.scopes[u]; s != nil {
		return s
	}
	s := &scopes{closures: map[closureKey]dwarf.Offset{}}
	r.scopes[u] = s
	open := []int{} // indices of the scopes around what comes next
	depths := []int{}
	c := u.Cursor(0)
	for c.Next() {
		e := c.Entry()
		for len(open) > 0 && c.Depth() <= depths[len(depths)-1] {
			s.list[open[len(open)-1]].end = e.Offset
			open, depths = open[:len(open)-1], depths[:len(depths)-1]
		}
		if c.Depth() == 0 {
			continue
		}
		if !scopeTags.Has(e.Tag) {
			c.Skip()
			continue
		}
		parent := -1
		if len(open) > 0 {
			parent = open[len(open)-1]
		}
		if e.Tag == dwarf.TagSubprogram {
			// rustc puts no types into functions but into namespaces of their name.
			if name := e.Name(); strings.HasPrefix(name, "{closure#") || strings.HasPrefix(name, "{async_fn#") {
				key := closureKey{parent, strings.Clone(name[:strings.IndexByte(name+"}", '}')+1])}
				if _, ok := s.closures[key]; !ok && e.Has(dwarf.AttrDeclLine) {
					s.closures[key] = e.Offset
				}
			}
			c.Skip()
			continue
		}
		if !e.HasChildren {
			continue
		}
		open, depths = append(open, len(s.list)), append(depths, c.Depth())
		s.list = append(s.list, scope{e.Offset, u.End, parent, e.Name()})
	}
	return s
}

// around is the index of the scope that the entry at off lies in, -1 if in none.
func (s *scopes) around(off dwarf.Offset) int {
	i := sort.Search(len(s.list), func(i int) bool { return s.list[i].off >= off }) - 1
	for i >= 0 && s.list[i].end <= off {
		i = s.list[i].parent
	}
	return i
}

// qualify is name with the path of what e lies in.
func (r *Reader) qualify(e *dwarf.Entry, name string) string {
	s := r.scopesOf(e.Unit)
	var path []string
	for i := s.around(e.Offset); i >= 0; i = s.list[i].parent {
		path = append(path, s.list[i].name)
	}
	if len(path) == 0 {
		return name
	}
	slices.Reverse(path)
	return Written(strings.Join(append(path, name), "::"))
}

// closure is where the closure whose captures e describes stands in the source.
func (r *Reader) closure(e *dwarf.Entry, name string) (file string, line int) {
	f := r.codeOf(e, name)
	if f == nil {
		return "", 0
	}
	return decl(f)
}

// codeOf is the function whose captures e describes, nil if it is not there. It lies
// beside e: {closure#0} beside {closure_env#0}.
func (r *Reader) codeOf(e *dwarf.Entry, name string) *dwarf.Entry {
	s := r.scopesOf(e.Unit)
	kind, n, _ := strings.Cut(name[:strings.IndexByte(name+"}", '}')], "_env#")
	off, ok := s.closures[closureKey{s.around(e.Offset), kind + "#" + n + "}"}]
	if !ok {
		return nil
	}
	f, err := r.d.Entry(off)
	if err != nil {
		return nil
	}
	return f
}

// asyncFn is the path of the async function whose state e describes, as far as only its
// symbol says it: debug info numbers impls. It is "" for a function in none.
func (r *Reader) asyncFn(e *dwarf.Entry, name, qualified string) string {
	if !strings.HasPrefix(name, "{async_fn_env#") || !strings.Contains(qualified, "{impl#") {
		return ""
	}
	symbol := ""
	if f := r.codeOf(e, name); f != nil {
		symbol = f.String(dwarf.AttrLinkageName)
	}
	if symbol == "" && r.image.Resumes != nil {
		symbol = r.image.Resumes(qualified)
	}
	text, ok := demangle.Demangle(symbol)
	if !ok {
		return ""
	}
	if p, err := path.Parse(text); err == nil {
		text = p.String()
	}
	// Its body is {closure#0} in symbols, or {{closure}}.
	if i := strings.LastIndex(text, "::{"); i > 0 && strings.HasSuffix(text, "}") {
		return text[:i]
	}
	return ""
}

// decl is where e is declared in the source.
func decl(e *dwarf.Entry) (file string, line int) {
	index, ok := e.Uint(dwarf.AttrDeclFile)
	n, _ := e.Uint(dwarf.AttrDeclLine)
	if f, found := e.Unit.File(index); ok && found && n < 1<<31 {
		return strings.Clone(f.Path), int(n)
	}
	return "", 0
}
