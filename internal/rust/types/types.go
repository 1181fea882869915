// Package types is the graph of Rust types: what a value's bytes mean. It is
// read from DWARF as rustc writes it, and knows layout, variants and their
// discriminants, the parts of std's containers, and which bytes of a value are
// addresses that lead to more of it.
package types

// Kind says how a value of a type is laid out and printed.
type Kind uint8

const (
	Opaque    Kind = iota // debug info does not say what it is
	Unit                  // ()
	Bool                  //
	Char                  //
	Int                   // i8 … i128, isize
	Uint                  // u8 … u128, usize
	Float                 // f16, f32, f64, f128
	Struct                // named fields, tuple fields ("__0"), none; a closure's captures
	Tuple                 // (A, B)
	Enum                  // C-like and data enums
	Array                 // [T; N]
	Union                 //
	Pointer               // references, raw pointers, Box, fn pointers; thin or wide
	Never                 // !
	Fn                    // a function: what a fn pointer points to, and a function item, which has no bytes
	Str                   // the unsized bytes behind a &str
	Slice                 // the unsized elements behind a &[T]
	Dyn                   // the unsized object behind a &dyn Trait
	Coroutine             // the state of an async fn, async block or coroutine
)

func (k Kind) String() string {
	return [...]string{"opaque", "unit", "bool", "char", "int", "uint", "float", "struct", "tuple", "enum",
		"array", "union", "pointer", "never", "fn", "str", "slice", "dyn", "coroutine"}[k]
}

// Type is one Rust type. Types that contain themselves are cyclic graphs.
// A Type is not modified once it has been handed out.
type Type struct {
	// Name is the type as Rust writes it, with full paths:
	// "core::option::Option<u32>", "&str", "(i32, u8)".
	Name string
	Kind Kind
	// Size and Align are in bytes. Size is that of one element for Str and Slice,
	// so that length times Size is the size of what a wide pointer leads to, and 0
	// for Fn and Dyn. Align is 0 where the debug info does not say.
	Size, Align int64
	// Fields are in the order of the source, which is not that of their offsets.
	// They are set for Struct, Tuple and Union, and for a Coroutine's captures.
	Fields  []Field
	Enum    *EnumInfo    // Enum, Coroutine
	Elem    *Type        // Array, Slice
	Count   int64        // Array
	Pointer *PointerInfo // Pointer
	// Sig is what a function takes and gives; Fn only, and nil if not known.
	Sig *Signature
	// Std is set for the std containers whose contents are printed rather than
	// their fields; such a type keeps its Kind and Fields.
	Std *StdInfo
	// File and Line are where a closure stands in the source, if the debug info says so.
	File string
	Line int
	// Func is the path of the function that a Coroutine is the state of; "" if it is
	// the one that Name says.
	Func string
	Text Text // Str
	// Era is set for Str, and for what in std has changed without a trace in debug info.
	Era Era

	impls  func() []Impl // of an Object
	listed [][]Field     // of a Coroutine: the variables by state, as the debug info has them
}

// Field is one field of a struct, tuple, union or variant. Tuple fields are
// named "__0", "__1", ….
type Field struct {
	Name   string
	Offset int64
	Type   *Type
}

// Signature is the type of a function.
type Signature struct {
	Params []*Type
	Result *Type // UnitType for none
}

// EnumInfo is how the variants of an enum are told apart.
type EnumInfo struct {
	// Tag is nil if there is nothing to tell: at most one variant is inhabited.
	Tag      *Discr
	Variants []Variant
	// CLike says that no variant has data: the discriminants are the source's.
	CLike bool
}

// Discr is where a discriminant is. It is read as Size (1, 2, 4, 8 or 16)
// little-endian bytes at Offset.
type Discr struct {
	Offset int64
	Size   int
	Signed bool
}

// Variant is one variant of an enum.
type Variant struct {
	Name string
	// Values are the tags that select this variant, masked to the tag's width.
	// None: the variant that is meant when no other's Values fit (with niches, the
	// one that has the data).
	Values []Interval
	Fields []Field
	// Type is the variant as a struct of its own; nil in C-like enums.
	Type *Type
	// Uninhabited says that no value of this variant can exist.
	Uninhabited bool
	// File and Line are, of a Coroutine's state, where it is suspended, and of its first
	// state where it begins; "" and 0 if the debug info does not say.
	File string
	Line int
}

// U128 is an unsigned 128-bit integer.
type U128 struct{ Hi, Lo uint64 }

// Cmp is -1, 0 or 1 as u is below, equal to or above v.
func (u U128) Cmp(v U128) int {
	switch {
	case u == v:
		return 0
	case u.Hi < v.Hi || u.Hi == v.Hi && u.Lo < v.Lo:
		return -1
	}
	return 1
}

// mask keeps the low size bytes of u.
func (u U128) mask(size int) U128 {
	switch {
	case size < 8:
		return U128{Lo: u.Lo & (1<<(8*size) - 1)}
	case size == 8:
		return U128{Lo: u.Lo}
	}
	return u
}

// Interval is Lo … Hi, both included, unsigned.
type Interval struct{ Lo, Hi U128 }

// Contains says whether v is in the interval.
func (i Interval) Contains(v U128) bool { return i.Lo.Cmp(v) <= 0 && v.Cmp(i.Hi) <= 0 }

// PointerKind is what kind of pointer a Pointer is.
type PointerKind uint8

const (
	Ref PointerKind = iota
	RefMut
	ConstPtr
	MutPtr
	Box
	FnPtr
)

// Meta is what a wide pointer holds beside its address.
type Meta uint8

const (
	Thin   Meta = iota
	Length      // a count of elements
	VTable      // the address of a vtable
)

// PointerInfo describes a Pointer.
type PointerInfo struct {
	Kind   PointerKind
	Target *Type
	Meta   Meta
	// PtrOff and MetaOff are offsets in the pointer of its address and of what
	// Meta says.
	PtrOff, MetaOff int64
}

// StrBytes is the type of a string's bytes: the target of a &str, the Elem of a String.
var StrBytes = &Type{Name: "str", Kind: Str, Size: 1, Align: 1}

// Text is whose text a Str is, and with it how {:?} escapes it.
type Text uint8

const (
	StrText Text = iota
	OsText       // OsStr and Path
	CText        // CStr: the zero byte that ends it is one of its bytes, and not printed
)

// Era is when the compiler of a binary was made, where debug info does not say what has
// changed since.
type Era uint8

const (
	Untested Era = iota
	Old          // 1.63
	New          // 1.95 to 1.97
)

// textTypes are the types of OsText and CText, by era.
var textTypes = [...][3]*Type{
	OsText: {
		{Name: "std::path::Path", Kind: Str, Size: 1, Align: 1, Text: OsText, Era: Untested},
		{Name: "std::path::Path", Kind: Str, Size: 1, Align: 1, Text: OsText, Era: Old},
		{Name: "std::path::Path", Kind: Str, Size: 1, Align: 1, Text: OsText, Era: New},
	},
	CText: {
		{Name: "core::ffi::c_str::CStr", Kind: Str, Size: 1, Align: 1, Text: CText, Era: Untested},
		{Name: "core::ffi::c_str::CStr", Kind: Str, Size: 1, Align: 1, Text: CText, Era: Old},
		{Name: "core::ffi::c_str::CStr", Kind: Str, Size: 1, Align: 1, Text: CText, Era: New},
	},
}

// TextBytes is the type of the bytes of a text of the given era.
func TextBytes(t Text, e Era) *Type {
	if t == StrText {
		return StrBytes
	}
	return textTypes[t][e]
}

// UnitType is the type of what has no type in DWARF.
var UnitType = &Type{Name: "()", Kind: Unit, Align: 1}

// IsTupleLike says whether the fields are written without their names.
func IsTupleLike(fields []Field) bool { return len(fields) > 0 && fields[0].Name == "__0" }

// Display is the type's name in signatures: as Name, with the paths of std types
// that the prelude names, or that everyone knows by their last segment, left out.
func (t *Type) Display() string { return display(t.Name) }

// Find returns the index of the variant that the tag selects, masked to the tag's
// width: -1 if no valid value has it.
func (e *EnumInfo) Find(tag U128) int {
	fallback := -1
	for i := range e.Variants {
		v := &e.Variants[i]
		if len(v.Values) == 0 && !v.Uninhabited {
			if fallback >= 0 {
				return -1 // broken debug info: nothing tells the two apart
			}
			fallback = i
		}
		for _, r := range v.Values {
			if r.Contains(tag) {
				return i
			}
		}
	}
	return fallback
}

// Only returns the index of the one variant that can exist where there is no
// tag; -1 if there is none, or more than one.
func (e *EnumInfo) Only() int {
	only := -1
	for i := range e.Variants {
		if !e.Variants[i].Uninhabited {
			if only >= 0 {
				return -1
			}
			only = i
		}
	}
	return only
}

// Zero says whether values of t take no bytes.
func (t *Type) Zero() bool { return t.Size == 0 && t.Kind != Dyn }
