// Package ast is the syntax tree of a script: bpftrace's language with Rust's
// names in it. The parser makes the tree, macro expansion rewrites it, and the
// checker reads it; no node knows a type or whether a name exists.
//
// Nodes are pointers, and every one says where in the text it stands, so that
// later passes can keep what they find out in maps keyed by node and report
// errors at the right place. Dump shows a tree for golden files; Format writes
// it back as a script.
package ast

import "ferrotrace/internal/script/source"

// A Node is any part of the tree.
type Node interface {
	At() source.Span
}

// An Expr is what has a value.
type Expr interface {
	Node
	expr()
}

// A Stmt is one step of a block.
type Stmt interface {
	Node
	stmt()
}

// A Program is one script. The lists are in the order of the text; what stands
// in different lists may have been mixed there.
type Program struct {
	source.Span
	Source  *source.Source
	Config  []*Setting
	Defines []*Define
	Structs []*Struct
	Enums   []*Enum
	Maps    []*MapDecl
	Macros  []*Macro
	Funcs   []*Func
	Probes  []*Probe
}

// A Setting is one line of the config block.
type Setting struct {
	source.Span
	Key   string
	Value Expr // *Int, *Str, *Bool or *Ident
}

// A Define is a C constant: #define NAME EXPR.
type Define struct {
	source.Span
	Name  string
	Value Expr
}

// A Struct is the C definition of a struct or union, named or (inside another)
// not.
type Struct struct {
	source.Span
	Union  bool
	Name   string
	Fields []*StructField
	Packed bool
	Align  uint64 // bytes; 0 if not given
}

// A StructField is a field of a C struct. One without a name holds an anonymous
// struct or union, whose fields count as the outer one's.
type StructField struct {
	source.Span
	Name string
	Type *Type
	Bits uint64 // a bit field's width; 0 if it is none
}

// An Enum is the C definition of an enum, with a name or without.
type Enum struct {
	source.Span
	Name   string
	Values []*EnumValue
}

// An EnumValue is one constant of an enum; Value is nil where it is one more
// than the one before.
type EnumValue struct {
	source.Span
	Name  string
	Value Expr
}

// A MapDecl says how a map is kept: let @NAME = KIND(LEN).
type MapDecl struct {
	source.Span
	Name string // without the @
	Kind string // "hash", "lruhash", "percpuhash", ...
	Len  uint64
}

// A Macro is a piece of script with parameters. Its body's Value is what a call
// stands for.
type Macro struct {
	source.Span
	Name   string
	Params []Expr // *Var, *Map (without keys) or *Ident
	Body   *Block
}

// A Func is a subprogram of the script: fn NAME($x : T) : T { ... }.
type Func struct {
	source.Span
	Name   string
	Params []*Param
	Result *Type
	Body   *Block
}

// A Param is a parameter of a Func.
type Param struct {
	source.Span
	Name string // without the $
	Type *Type
}

// A Probe is an action and what sets it off. Its body has no Value.
type Probe struct {
	source.Span // of the attach points
	Points      []*AttachPoint
	Pred        Expr // nil if there is none
	Body        *Block
}

// A TypeKind says which of a Type's fields count.
type TypeKind string

// The kinds of types as they are written.
const (
	NamedType   TypeKind = "named"   // Name: uint8, string, unsigned long, shop::Item
	StructType  TypeKind = "struct"  // Name, or Def where a field defines it in place
	UnionType   TypeKind = "union"   // likewise
	EnumType    TypeKind = "enum"    // Name
	PointerType TypeKind = "pointer" // Elem
	ArrayType   TypeKind = "array"   // Elem, Len; 0 where it is left open. For string, buffer and inet: their size
	TypeofType  TypeKind = "typeof"  // X
)

// A Type is a type as it is written.
type Type struct {
	source.Span
	Kind TypeKind
	Name string
	Elem *Type
	Len  uint64
	X    Expr
	Def  *Struct
}
