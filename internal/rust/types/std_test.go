package types

import "testing"

// TestContainerEdges are what of a container's memory leads on.
func TestContainerEdges(t *testing.T) {
	u32 := &Type{Name: "u32", Kind: Uint, Size: 4, Align: 4}
	part := func(size int64, s StdInfo) *Type {
		return &Type{Name: "T", Kind: Struct, Size: size, Align: 8, Std: &s}
	}
	bucket := part(16, StdInfo{Kind: Bucket, Item: Field{Type: tStr}})
	link := part(24, StdInfo{Kind: Link, Item: Field{Offset: 8, Type: tStr}})
	link.Std.Elem = link
	leaf := part(200, StdInfo{Kind: TreeNode, Len: 190, Keys: Field{Offset: 8, Type: tStr}, Vals: Field{Type: UnitType}})
	inner := part(300, StdInfo{Kind: TreeNode, Len: 190, Keys: Field{Type: u32}, Vals: Field{Type: u32}, Children: 200, Child: leaf, Follow: 2})
	for _, c := range []struct {
		name string
		t    *Type
		want string
	}{
		{"table", part(24, StdInfo{Kind: Table, Ptr: 0, Cap: 8, Len: 16, Elem: bucket}), "0/8 T str=false if 16:8 not=true [{{0 0} {0 0}}]"},
		{"bucket", bucket, "0/8 str str=true"},
		{"ring", part(32, StdInfo{Kind: Ring, Ptr: 0, Len: 8, Head: 16, Cap: 24, Elem: u32}), "0/8 u32 str=false\n0/8 u32 str=false"},
		{"chain", part(16, StdInfo{Kind: Chain, Len: 8, Elem: link}), "0/-1 T str=false if 8:8 not=true [{{0 0} {0 0}}]"},
		{"link", link, "0/-1 T str=false if 0:8 not=true [{{0 0} {0 0}}]\n8/16 str str=true"},
		{"tree", part(24, StdInfo{Kind: Tree, Height: 8, Len: 16, Nodes: []*Type{leaf}}),
			"0/-1 T str=false if 16:8 not=true [{{0 0} {0 0}}] if 8:8 not=false [{{0 0} {0 0}}]"},
		{"inner node", inner, "200/-1 T str=false if 190:2 not=false [{{0 0} {0 b}}]\n208/-1 T str=false if 190:2 not=false [{{0 1} {0 b}}]"},
		{"shared", part(8, StdInfo{Kind: Shared, Len: -1, Add: 16, Elem: u32}), "0/-1 u32 str=false"},
		{"shared nothing", part(8, StdInfo{Kind: Shared, Len: -1, Add: 16, Elem: UnitType}), ""},
		{"once", part(24, StdInfo{Kind: Once, State: 16, Done: 3, Item: Field{Type: tStr}}), "0/8 str str=true if 16:4 not=false [{{0 3} {0 3}}]"},
		{"uninit", part(16, StdInfo{Kind: Uninit}), ""},
	} {
		edges, complete := c.t.Edges()
		if got := show(edges); got != c.want || !complete {
			t.Errorf("%s: complete=%v\n%s\nwant\n%s", c.name, complete, got, c.want)
		}
	}
	if edges, _ := leaf.Edges(); len(edges) != NodeCap {
		t.Errorf("%d edges of a leaf's keys", len(edges))
	}
}

// TestWithin: what lies outside of a value is not looked at.
func TestWithin(t *testing.T) {
	u64 := Field{Type: tU64}
	for _, c := range []struct {
		s    StdInfo
		size int64 // the least that will do
	}{
		{StdInfo{Kind: Vec, Ptr: 8, Len: 16}, 24},
		{StdInfo{Kind: Ring, Ptr: 0, Len: 8, Head: 24, Cap: 16}, 32},
		{StdInfo{Kind: Table, Ptr: 0, Len: 8, Cap: 16}, 24},
		{StdInfo{Kind: Tree, Ptr: 0, Len: 8, Height: 16}, 24},
		{StdInfo{Kind: Shared, Ptr: 0, Len: -1}, 8},
		{StdInfo{Kind: Shared, Ptr: 0, Len: 8}, 16},
		{StdInfo{Kind: Link, Ptr: 0, Item: Field{Offset: 8, Type: tU64}}, 16},
		{StdInfo{Kind: Bucket, Item: u64}, 8},
		{StdInfo{Kind: Once, State: 8, Item: u64}, 12},
		{StdInfo{Kind: TreeNode, Len: 88, Keys: u64, Vals: u64}, 90},
		{StdInfo{Kind: TreeNode, Len: 88, Keys: u64, Vals: u64, Children: 96, Child: tU64}, 192},
	} {
		if !c.s.within(c.size) || c.s.within(c.size-1) {
			t.Errorf("%+v: within %d %v, within %d %v", c.s, c.size, c.s.within(c.size), c.size-1, c.s.within(c.size-1))
		}
	}
	for _, s := range []StdInfo{{Kind: Vec, Ptr: -8}, {Kind: Bucket}, {Kind: Vec, Len: 1<<63 - 4}} {
		if s.within(1 << 40) {
			t.Errorf("%+v is within", s)
		}
	}
}
