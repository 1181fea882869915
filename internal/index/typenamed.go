package index

import (
	"strings"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/types"
)

var typeTags = dwarf.Tags(dwarf.TagStructureType, dwarf.TagUnionType, dwarf.TagEnumerationType, dwarf.TagTypedef, dwarf.TagBaseType)

// TypeNamed is the type that a path ("shop::Item") or a C name ("Foo") means: the first
// definition of it that the debug info has, nil if there is none. Types inside of functions
// have no name that could be said.
func (ix *Index) TypeNamed(name string) *types.Type {
	ix.typesOnce.Do(func() { ix.typeNames = ix.namedTypes() })
	off, ok := ix.typeNames[name]
	if !ok {
		return nil
	}
	t, err := ix.types.Type(off)
	if err != nil || t.Size <= 0 {
		return nil
	}
	return t
}

// namedTypes finds the definitions that are in units and namespaces.
func (ix *Index) namedTypes() map[string]dwarf.Offset {
	found := map[string]dwarf.Offset{}
	for _, u := range ix.debug.Units() {
		var path []string
		c := u.Cursor(0)
		for c.Next() {
			e := c.Entry()
			depth := c.Depth()
			if depth == 0 {
				continue
			}
			path = path[:min(len(path), depth-1)]
			switch {
			case e.Tag == dwarf.TagNamespace:
				path = append(path, e.Name())
				continue
			case typeTags.Has(e.Tag) && !e.Flag(dwarf.AttrDeclaration):
				if name := e.Name(); name != "" {
					name = strings.Join(append(path[:len(path):len(path)], name), "::")
					if _, ok := found[name]; !ok {
						found[strings.Clone(name)] = e.Offset
					}
				}
			}
			c.Skip()
		}
	}
	return found
}
