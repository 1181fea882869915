package types

import (
	"slices"
	"strconv"
	"strings"

	"ferrotrace/internal/dwarf"
)

// StdKind is a type of std whose contents are printed rather than its fields. The
// kinds in the second group are not std's own types but parts of their memory, made
// here so that what is found there can be told apart by its type.
type StdKind uint8

const (
	String StdKind = iota + 1 // PathBuf and OsString too
	Vec
	Ring   // VecDeque
	Table  // HashMap, HashSet
	Tree   // BTreeMap, BTreeSet
	Chain  // LinkedList
	Shared // Rc, Arc; the guards of cells and locks, without counters
	Once   // OnceLock, LazyLock
	Uninit // MaybeUninit, which prints its name
	IOError

	Bucket   // a slot of a Table
	TreeNode // a node of a Tree, of one height
	Link     // a node of a Chain
)

// StdInfo says where the parts of a value are: offsets in it. Which of them mean
// something depends on the kind.
type StdInfo struct {
	Kind StdKind
	// Ptr is where the address is: of the elements; a Table's control bytes, below
	// which its buckets lie, the first next to them; a Tree's root; a Chain's first
	// Link, a Link's next; a Shared's counters, before what is shared.
	Ptr int64
	// Len is where their number is: 8 bytes, 2 in a TreeNode. -1 in a Shared that is
	// one value. In one of an Object, where its vtable's address is: Elem is then the
	// counters and what is shared, which is the last field.
	Len int64
	// Elem is the type of the elements: StrBytes for a String, a Bucket or Link for
	// a Table or Chain.
	Elem *Type
	Head int64 // Ring: of the first element's index
	// Ends says that there is no number of a Ring's elements, but at Len the index where
	// they end.
	Ends bool
	Cap  int64 // Ring: of how many there is room for; Table: of one less than there are buckets
	Add  int64 // Shared: from the counters to what is shared
	// Set says that of a Table's or Tree's entries only the keys are printed.
	Set bool

	Height int64   // Tree: of the root's height
	Nodes  []*Type // Tree: by height

	// Keys and Vals of a TreeNode are arrays, of NodeCap elements of the types given.
	Keys, Vals Field
	// Children is where a TreeNode's 1 + Len children begin, of type Child; nil for a
	// leaf. Follow is how many of them are captured.
	Children int64
	Child    *Type
	Follow   int

	// Item is what is in a Bucket, Link or Once.
	Item Field
	// State is where the 4 bytes are that hold Done when a Once has its Item.
	State int64
	Done  uint64

	Path bool // Uninit: the whole path is printed
	GNU  bool // IOError: the system's messages are glibc's
}

// The lowest two bits of an IOError's word say what it is
// (std::io::error::repr_bitpacked): the address of a message, Elem; that of a Custom,
// Child, and one; in its upper half the number of the system's error; or there one of
// Item's, an ErrorKind.
const (
	TagMessage = iota
	TagCustom
	TagOS
	TagKind
)

// NodeCap is how many entries a TreeNode holds (alloc::collections::btree::node::CAPACITY).
const NodeCap = 11

// MaxHeight bounds the trees whose nodes are followed. Nodes have six children at
// least, but for the root.
const MaxHeight = 7

// within says whether all that is looked at lies in size bytes.
func (s *StdInfo) within(size int64) bool {
	in := func(off, n int64) bool { return off >= 0 && n >= 0 && off <= size-n }
	item := func(f Field) bool { return f.Type != nil && in(f.Offset, f.Type.Size) }
	switch s.Kind {
	case Shared:
		return in(s.Ptr, 8) && (s.Len < 0 || in(s.Len, 8))
	case Ring:
		return in(s.Ptr, 8) && in(s.Len, 8) && in(s.Head, 8) && in(s.Cap, 8)
	case Table:
		return in(s.Ptr, 8) && in(s.Len, 8) && in(s.Cap, 8)
	case Tree:
		return in(s.Ptr, 8) && in(s.Len, 8) && in(s.Height, 8)
	case Once:
		return in(s.State, 4) && item(s.Item)
	case IOError:
		return in(s.Ptr, 8)
	case Bucket:
		return item(s.Item)
	case Link:
		return in(s.Ptr, 8) && item(s.Item)
	case Uninit:
		return true
	case TreeNode:
		array := func(f Field) bool {
			return f.Type != nil && f.Type.Size >= 0 && f.Type.Size <= size && in(f.Offset, NodeCap*f.Type.Size)
		}
		return in(s.Len, 2) && array(s.Keys) && array(s.Vals) && (s.Child == nil || in(s.Children, (NodeCap+1)*8))
	}
	return in(s.Ptr, 8) && in(s.Len, 8)
}

// note is what recognising a type of std takes beside its fields.
type note struct {
	params []*Type // by the names that noted gives
	era    Era
}

// noted are the types that are noted, by what their names begin with, and the names
// of the generic parameters that matter.
var noted = map[string][]string{
	"alloc::vec::Vec":                          {"T"},
	"alloc::collections::vec_deque::VecDeque":  {"T"},
	"alloc::collections::btree::map::BTreeMap": {"K", "V"},
	"hashbrown::raw::RawTable":                 {"T"},
	"std::sync::once_lock::OnceLock":           nil,
	"std::sync::poison::mutex::Mutex":          nil,
	"std::sync::lazy_lock::LazyLock":           nil,
	"core::mem::maybe_uninit::MaybeUninit":     nil,
	"alloc::ffi::c_str::CString":               nil,
	"core::marker::PhantomData":                {"T"}, // of an ErrorData
	"std::path::PathBuf":                       nil,
	"std::ffi::os_str::OsString":               nil,
	"alloc::rc::Rc":                            nil,
	"alloc::sync::Arc":                         nil,
	"std::io::error::Error":                    nil,
}

// note keeps what the entry of a type of std says and its fields do not.
func (r *Reader) note(t *Type, e *dwarf.Entry) {
	path, _, _ := strings.Cut(t.Name, "<")
	names, ok := noted[path]
	if path == "core::marker::PhantomData" {
		t.Era = era(e)
	}
	if !ok || path == "core::marker::PhantomData" && !strings.HasPrefix(t.Name, path+"<std::io::error::ErrorData<") {
		return
	}
	n := note{era: era(e)}
	for _, name := range names {
		n.params = append(n.params, r.parameter(e, name))
	}
	r.notes[t] = n
	t.Era = n.era
}

// param is a noted generic parameter of t; nil if the debug info does not have it.
func (r *Reader) param(t *Type, i int) *Type {
	if n := r.notes[t]; i < len(n.params) {
		return n.params[i]
	}
	return nil
}

func era(e *dwarf.Entry) Era { return EraOf(e.Unit) }

// EraOf is the era of the compiler that wrote a unit.
func EraOf(u *dwarf.Unit) Era {
	_, v, ok := strings.Cut(u.Producer(), "rustc version 1.")
	minor, _, _ := strings.Cut(v, ".")
	n, err := strconv.Atoi(minor)
	switch {
	case !ok || err != nil:
	case n == 63:
		return Old
	case n >= 95 && n <= 97:
		return New
	}
	return Untested
}

// textOf is the type of the bytes of an unsized text, nil if name is not that of one.
func textOf(name string, e *dwarf.Entry) *Type { return text(name, era(e)) }

func text(name string, e Era) *Type {
	switch name {
	case "str":
		return StrBytes
	case "std::path::Path", "std::ffi::os_str::OsStr":
		return TextBytes(OsText, e)
	case "core::ffi::c_str::CStr":
		return TextBytes(CText, e)
	}
	return nil
}

// std recognises types of std by their paths and the fields that must be there. One
// whose parts are not where they are known to be is left as it is.
func (r *Reader) std(t *Type) {
	if t.Kind != Struct && t.Kind != Union || t.Std != nil {
		return
	}
	path, _, _ := strings.Cut(t.Name, "<")
	var s *StdInfo
	switch path {
	case "alloc::string::String", "std::path::PathBuf", "std::ffi::os_str::OsString":
		s = stringInfo(t)
		if s != nil && path != "alloc::string::String" {
			s.Elem = TextBytes(OsText, r.notes[t].era)
		}
	case "alloc::vec::Vec":
		if elem := r.param(t, 0); elem != nil {
			s = vecInfo(t, 0)
			if s != nil {
				s.Kind, s.Elem = Vec, elem
			}
		}
	case "alloc::collections::vec_deque::VecDeque":
		s = ringInfo(t, r.param(t, 0))
	case "std::collections::hash::map::HashMap", "std::collections::hash::set::HashSet",
		"hashbrown::map::HashMap", "hashbrown::set::HashSet":
		s = r.tableInfo(t)
		if s != nil {
			s.Set = strings.HasSuffix(path, "Set")
		}
	case "alloc::collections::btree::map::BTreeMap":
		s = r.treeInfo(t, 0)
	case "alloc::collections::btree::set::BTreeSet":
		if m, off := find(t, "map"); m != nil {
			if s = r.treeInfo(m, off); s != nil {
				s.Set = true
			}
		}
	case "alloc::collections::linked_list::LinkedList":
		s = r.chainInfo(t)
	case "alloc::rc::Rc", "alloc::sync::Arc":
		s = sharedInfo(t, r.notes[t].era)
	case "core::cell::Ref", "core::cell::RefMut":
		s = pointerInfo(t, "value")
	case "std::sync::mutex::MutexGuard", "std::sync::poison::mutex::MutexGuard",
		"std::sync::rwlock::RwLockReadGuard", "std::sync::poison::rwlock::RwLockReadGuard",
		"std::sync::rwlock::RwLockWriteGuard", "std::sync::poison::rwlock::RwLockWriteGuard":
		if field(t, "data") != nil {
			s = pointerInfo(t, "data")
		} else if s = pointerInfo(t, "lock"); s != nil {
			if s.Elem, s.Add = find(s.Elem, "data", "value"); s.Elem == nil {
				s = nil
			}
		}
	case "std::io::error::Error":
		s = r.errorInfo(t)
	case "std::sync::once_lock::OnceLock":
		s = r.onceInfo(t, "value")
	case "std::sync::lazy_lock::LazyLock":
		s = r.onceInfo(t, "data")
	case "alloc::ffi::c_str::CString":
		// A Box<[u8]>.
		if f := field(t, "inner"); f != nil && f.Type.Kind == Pointer && f.Type.Pointer.Meta == Length {
			p := f.Type.Pointer
			s = &StdInfo{Kind: Shared, Ptr: f.Offset + p.PtrOff, Len: f.Offset + p.MetaOff, Elem: TextBytes(CText, r.notes[t].era)}
		}
	case "core::mem::maybe_uninit::MaybeUninit":
		if e := r.notes[t].era; e != Untested {
			s = &StdInfo{Kind: Uninit, Path: e == Old}
		}
	}
	t.Std = s
}

// stringInfo is a String's, which is a struct of a Vec; a PathBuf is one of an OsString.
func stringInfo(t *Type) *StdInfo {
	vec, off := t, int64(0)
	for range 8 {
		if strings.HasPrefix(vec.Name, "alloc::vec::Vec<") || len(vec.Fields) != 1 {
			break
		}
		off += vec.Fields[0].Offset
		vec = vec.Fields[0].Type
	}
	s := vecInfo(vec, off)
	if s != nil {
		s.Kind, s.Elem = String, StrBytes
	}
	return s
}

// vecInfo is where the parts of a Vec are, which is at off.
func vecInfo(vec *Type, off int64) *StdInfo {
	length, buf := field(vec, "len"), field(vec, "buf")
	if length == nil || buf == nil || !isUsize(length.Type) {
		return nil
	}
	at, ok := pointerIn(buf.Type, 0)
	if !ok {
		return nil
	}
	return &StdInfo{Ptr: off + buf.Offset + at, Len: off + length.Offset}
}

// ringInfo is a VecDeque's: since 1.67 head and len, before tail and head.
func ringInfo(t, elem *Type) *StdInfo {
	head, ok1 := usizeAt(t, "head")
	length, ok2 := usizeAt(t, "len")
	tail, ends := usizeAt(t, "tail")
	if ends && !ok2 {
		head, length, ok2 = tail, head, ok1
	}
	buf := field(t, "buf")
	if !ok1 || !ok2 || buf == nil || elem == nil {
		return nil
	}
	at, ok := pointerIn(buf.Type, 0)
	capacity, off := find(buf.Type, "inner", "cap")
	if capacity == nil {
		capacity, off = find(buf.Type, "cap")
	}
	if !ok || capacity == nil {
		return nil
	}
	if inner, at := sole(capacity, off); isUsize(inner) {
		off = at
	} else {
		return nil
	}
	return &StdInfo{Kind: Ring, Ptr: buf.Offset + at, Len: length, Head: head, Cap: buf.Offset + off, Elem: elem, Ends: ends}
}

// tableInfo is that of hashbrown's tables, which std's wrap: one or two structs
// around a RawTable.
func (r *Reader) tableInfo(t *Type) *StdInfo {
	raw, off := t, int64(0)
	for range 4 {
		if strings.HasPrefix(raw.Name, "hashbrown::raw::RawTable<") {
			break
		}
		for _, name := range []string{"base", "map", "table"} {
			if f := field(raw, name); f != nil {
				raw, off = f.Type, off+f.Offset
				break
			}
		}
	}
	elem := r.param(raw, 0)
	if elem == nil || elem.Size < 0 || elem.Kind != Tuple || len(elem.Fields) != 2 {
		return nil
	}
	inner, at := find(raw, "table")
	if inner == nil {
		return nil
	}
	off += at
	mask, ok1 := usizeAt(inner, "bucket_mask")
	items, ok2 := usizeAt(inner, "items")
	ctrl := field(inner, "ctrl")
	if !ok1 || !ok2 || ctrl == nil {
		return nil
	}
	ptr, ok := pointerIn(ctrl.Type, 0)
	if !ok {
		return nil
	}
	bucket := r.part(elem, elem.Size, StdInfo{Kind: Bucket, Item: Field{Type: elem}})
	return &StdInfo{Kind: Table, Ptr: off + ctrl.Offset + ptr, Len: off + items, Cap: off + mask, Elem: bucket}
}

// part makes the type of a part of a container's memory, once for each type it is
// named after.
func (r *Reader) part(t *Type, size int64, s StdInfo) *Type {
	for _, n := range r.nodes[t] {
		if n.Std.Kind == s.Kind {
			return n
		}
	}
	if !s.within(size) {
		return nil
	}
	n := &Type{Name: t.Name, Kind: Struct, Size: size, Align: t.Align, Std: &s}
	r.nodes[t] = append(r.nodes[t], n)
	return n
}

// treeInfo is that of a BTreeMap at off.
func (r *Reader) treeInfo(m *Type, off int64) *StdInfo {
	key, value := r.param(m, 0), r.param(m, 1)
	length, ok := usizeAt(m, "length")
	root := field(m, "root")
	if key == nil || value == nil || !ok || root == nil || root.Type.Enum == nil {
		return nil
	}
	for _, v := range root.Type.Enum.Variants {
		if len(v.Fields) != 1 {
			continue
		}
		ref := v.Fields[0]
		height, ok := usizeAt(ref.Type, "height")
		node := field(ref.Type, "node")
		if !ok || node == nil {
			return nil
		}
		ptr, leaf := pointee(node.Type, 0)
		nodes := r.treeNodes(leaf, key, value)
		if nodes == nil {
			return nil
		}
		at := off + root.Offset + ref.Offset
		return &StdInfo{Kind: Tree, Ptr: at + node.Offset + ptr, Len: off + length, Height: at + height, Nodes: nodes}
	}
	return nil
}

// treeNodes are the nodes of a tree by height, whose leaves are of the given type. An
// inner node is a leaf and its children; its type is what a leaf's parent points to.
func (r *Reader) treeNodes(leaf, key, value *Type) []*Type {
	if leaf == nil {
		return nil
	}
	if n := r.nodes[leaf]; n != nil {
		return n
	}
	length, keys, vals, parent := field(leaf, "len"), field(leaf, "keys"), field(leaf, "vals"), field(leaf, "parent")
	if length == nil || keys == nil || vals == nil || parent == nil || length.Type.Kind != Uint || length.Type.Size != 2 {
		return nil
	}
	for f, elem := range map[*Field]*Type{keys: key, vals: value} {
		if f.Type.Kind != Array || f.Type.Count != NodeCap || f.Type.Elem.Size != elem.Size {
			return nil
		}
	}
	info := StdInfo{Kind: TreeNode, Len: length.Offset, Keys: Field{"keys", keys.Offset, key}, Vals: Field{"vals", vals.Offset, value}}
	if !info.within(leaf.Size) {
		return nil
	}
	nodes := []*Type{{Name: leaf.Name, Kind: Struct, Size: leaf.Size, Align: leaf.Align, Std: &info}}
	if inner := innerNode(parent.Type); inner != nil {
		data, edges := field(inner, "data"), field(inner, "edges")
		for data != nil && data.Offset == 0 && data.Type == leaf && edges != nil &&
			edges.Type.Kind == Array && edges.Type.Count == NodeCap+1 && edges.Type.Elem.Size == 8 && len(nodes) <= MaxHeight {
			n := info
			n.Children, n.Child, n.Follow = edges.Offset, nodes[len(nodes)-1], NodeCap+1
			if len(nodes) > 2 {
				// More entries than are ever printed are below these.
				n.Follow = 4
			}
			if !n.within(inner.Size) {
				break
			}
			nodes = append(nodes, &Type{Name: inner.Name, Kind: Struct, Size: inner.Size, Align: inner.Align, Std: &n})
		}
	}
	r.nodes[leaf] = nodes
	return nodes
}

// innerNode is what a leaf's parent, an Option of a pointer, points to; nil if it is
// something else.
func innerNode(option *Type) *Type {
	if option.Kind == Enum {
		for _, v := range option.Enum.Variants {
			if len(v.Fields) == 1 {
				_, t := pointee(v.Fields[0].Type, 0)
				return t
			}
		}
	}
	return nil
}

func (r *Reader) chainInfo(t *Type) *StdInfo {
	length, ok := usizeAt(t, "len")
	head := field(t, "head")
	if !ok || head == nil {
		return nil
	}
	node := innerNode(head.Type)
	if node == nil {
		return nil
	}
	next, element := field(node, "next"), field(node, "element")
	if next == nil || element == nil || next.Type.Size != 8 || head.Type.Size != 8 {
		return nil
	}
	link := r.part(node, node.Size, StdInfo{Kind: Link, Ptr: next.Offset, Item: *element})
	if link == nil {
		return nil
	}
	link.Std.Elem = link
	return &StdInfo{Kind: Chain, Ptr: head.Offset, Len: length, Elem: link}
}

// sharedInfo is that of an Rc or Arc. What it points to are two counters and the
// value. Of an object they are one: where the value is depends on its alignment.
func sharedInfo(t *Type, e Era) *StdInfo {
	f := field(t, "ptr")
	if f == nil {
		return nil
	}
	s := &StdInfo{Kind: Shared, Ptr: f.Offset, Len: -1}
	nonNull := f.Type
	if len(nonNull.Fields) != 1 || nonNull.Fields[0].Type.Kind != Pointer {
		return nil
	}
	s.Ptr += nonNull.Fields[0].Offset
	p := nonNull.Fields[0].Type.Pointer
	inner := p.Target
	strong, weak := field(inner, "strong"), field(inner, "weak")
	value := field(inner, "value")
	if value == nil {
		value = field(inner, "data")
	}
	if strong == nil || weak == nil || value == nil || len(inner.Fields) != 3 {
		return nil
	}
	s.Elem, s.Add = value.Type, value.Offset
	_, name, _ := strings.Cut(strings.TrimSuffix(t.Name, ">"), "<")
	switch {
	case p.Meta == Thin:
	case p.Meta == VTable:
		if !inner.Object() {
			return nil
		}
		s.Elem, s.Add, s.Len = inner, 0, s.Ptr+p.MetaOff
	case text(name, e) != nil:
		s.Elem = text(name, e)
	case !strings.HasPrefix(name, "["):
		return nil // a struct with an unsized tail
	}
	if p.Meta == Length {
		s.Len = s.Ptr + p.MetaOff
	}
	s.Ptr += p.PtrOff
	return s
}

// pointerInfo is that of a field that is a thin pointer, which it is told by its name.
func pointerInfo(t *Type, name string) *StdInfo {
	if f := field(t, name); f != nil {
		if off, to := pointee(f.Type, f.Offset); to != nil {
			return &StdInfo{Kind: Shared, Ptr: off, Len: -1, Elem: to}
		}
	}
	return nil
}

// errorInfo is that of an io::Error, whose one word has a type that only a marker
// beside it names.
func (r *Reader) errorInfo(t *Type) *StdInfo {
	word, off := find(t, "repr", "__0", "pointer")
	mark, _ := find(t, "repr", "__1")
	if word == nil || mark == nil || word.Size != 8 || !strings.HasPrefix(field(t, "repr").Type.Name, "std::io::error::repr_bitpacked::") {
		return nil
	}
	data := r.param(mark, 0)
	if data == nil || data.Enum == nil {
		return nil
	}
	s := &StdInfo{Kind: IOError, Ptr: off, GNU: r.image.GNU != nil && r.image.GNU()}
	for _, v := range data.Enum.Variants {
		if len(v.Fields) != 1 {
			continue
		}
		switch f := v.Fields[0]; v.Name {
		case "Simple":
			s.Item = Field{Type: f.Type}
		case "SimpleMessage":
			_, s.Elem = pointee(f.Type, 0)
		case "Custom":
			_, s.Child = pointee(f.Type, 0)
		}
	}
	if s.Item.Type == nil || s.Elem == nil || s.Child == nil {
		return nil
	}
	return s
}

// onceInfo is that of a cell that is filled once, and of which a word says whether it
// is (std::sys::sync::once::futex). Which of its values says so has changed often and
// is not in the debug info.
func (r *Reader) onceInfo(t *Type, name string) *StdInfo {
	state, at := find(t, "once", "inner", "state_and_queued")
	cell, off := find(t, name, "value")
	if r.notes[t].era != New || state == nil || state.Size != 4 || cell == nil {
		return nil
	}
	if cell.Kind != Union {
		return nil
	}
	value := field(cell, "value")
	if value == nil {
		return nil
	}
	item, off := content(value.Type, off+value.Offset)
	return &StdInfo{Kind: Once, State: at, Done: 0, Item: Field{"value", off, item}}
}

// content is what is in wrappers that std keeps from being dropped.
func content(t *Type, off int64) (*Type, int64) {
	for range 4 {
		path, _, _ := strings.Cut(t.Name, "<")
		if path != "core::mem::manually_drop::ManuallyDrop" && path != "core::mem::maybe_dangling::MaybeDangling" || len(t.Fields) != 1 {
			break
		}
		t, off = t.Fields[0].Type, off+t.Fields[0].Offset
	}
	return t, off
}

// find follows fields by their names; nil if one is not there.
func find(t *Type, path ...string) (*Type, int64) {
	off := int64(0)
	for _, name := range path {
		f := field(t, name)
		if f == nil {
			return nil, 0
		}
		t, off = f.Type, off+f.Offset
	}
	return t, off
}

// sole is what is in wrappers of one field.
func sole(t *Type, off int64) (*Type, int64) {
	for range 8 {
		if t.Kind != Struct || len(t.Fields) != 1 {
			break
		}
		t, off = t.Fields[0].Type, off+t.Fields[0].Offset
	}
	return t, off
}

func isUsize(t *Type) bool { return t.Kind == Uint && t.Size == 8 }

// usizeAt is the offset of a field that is a usize; -1 and false if it is none.
func usizeAt(t *Type, name string) (int64, bool) {
	if f := field(t, name); f != nil && isUsize(f.Type) {
		return f.Offset, true
	}
	return -1, false
}

// pointee is the offset of the thin pointer in wrappers of one field with bytes, and
// what it points to; nil if there is none.
func pointee(t *Type, off int64) (int64, *Type) {
	for range 8 {
		if t.Kind == Pointer && t.Pointer.Meta == Thin {
			return off, t.Pointer.Target
		}
		if t.Kind != Struct || len(t.Fields) != 1 {
			break
		}
		t, off = t.Fields[0].Type, off+t.Fields[0].Offset
	}
	return 0, nil
}

func field(t *Type, name string) *Field {
	i := slices.IndexFunc(t.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Fields[i]
}

// pointerIn is the offset of the one thin pointer in t, which is in wrappers like
// Unique and NonNull; not ok if there is none, or another.
func pointerIn(t *Type, depth int) (at int64, ok bool) {
	// Vec's is five deep, among three fields at most: broken graphs may be wide.
	if depth > 8 || len(t.Fields) > 4 {
		return 0, false
	}
	if t.Kind == Pointer {
		return 0, t.Pointer.Meta == Thin
	}
	if t.Kind != Struct {
		return 0, false
	}
	for _, f := range t.Fields {
		if off, found := pointerIn(f.Type, depth+1); found {
			if ok {
				return 0, false
			}
			at, ok = f.Offset+off, true
		}
	}
	return at, ok
}
