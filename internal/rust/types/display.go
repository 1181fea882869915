package types

import "strings"

// wellKnown are paths whose last segment alone says what is meant: the prelude's
// types and those that programs import under their own name without thinking.
var wellKnown = map[string]bool{
	"core::option::Option":                     true,
	"core::result::Result":                     true,
	"alloc::string::String":                    true,
	"alloc::vec::Vec":                          true,
	"alloc::boxed::Box":                        true,
	"alloc::rc::Rc":                            true,
	"alloc::sync::Arc":                         true,
	"alloc::borrow::Cow":                       true,
	"std::collections::hash::map::HashMap":     true,
	"std::collections::hash::set::HashSet":     true,
	"alloc::collections::btree::map::BTreeMap": true,
	"alloc::collections::btree::set::BTreeSet": true,
	"alloc::collections::vec_deque::VecDeque":  true,
	"core::pin::Pin":                           true,
	"core::cell::RefCell":                      true,
	"core::cell::Cell":                         true,
	"core::time::Duration":                     true,
}

// display shortens the well-known paths in a type's name.
func display(name string) string {
	if !strings.Contains(name, "::") {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		j := i
		for j < len(name) && pathByte(name[j]) {
			j++
		}
		if j == i {
			b.WriteByte(name[i])
			i++
			continue
		}
		path := name[i:j]
		if wellKnown[path] {
			path = path[strings.LastIndex(path, "::")+2:]
		}
		b.WriteString(path)
		i = j
	}
	return b.String()
}

// pathByte says whether c is part of a path, generics aside. Bytes of non-ASCII
// identifiers are.
func pathByte(c byte) bool {
	return c == ':' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}
