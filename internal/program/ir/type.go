package ir

import "time"

// TypeKind is what a value of the probe language is.
type TypeKind uint8

const (
	Void       TypeKind = iota
	Int                 // Size 1, 2, 4 or 8 bytes, Signed or not
	Bool                // 1 byte
	Text                // a string: Size bytes, ended by a zero byte unless it fills them
	Bytes               // a buffer: 4 bytes that say how many of the Size-4 that follow count
	Tuple               // Fields; a record if they have names
	Array               // Count × Elem
	Pointer             // 8 bytes: an address in the traced process, of Elem if that is known
	Name                // 8 bytes: an index in Script.Names
	Symbol              // SymbolSize bytes: an address in a process, its pid, and the Bias of the handler
	Stack               // a stack: 4 bytes pid, 4 bytes how many, the Bias, then up to Count return addresses of 8
	Stamp               // 8 bytes: nanoseconds of Clock, to be printed by a format
	User                // 8 bytes: a user's number, to be printed as its name
	CgroupPath          // 8 bytes: a cgroup's number, to be printed as its paths, in hierarchies that match Format
	Value               // a Rust value; as an argument of an event only

	// The kinds that only maps hold, one for each CPU, to be added up.
	Count  // 8 bytes
	Sum    // 8 bytes, Signed or not
	Avg    // 16 bytes: the sum, Signed or not, and the count
	Stats  // as Avg
	Min    // 16 bytes: the value, Signed or not, and 8 bytes that are 1 once there is one
	Max    // as Min
	Hist   // Buckets() counters of 8 bytes
	LHist  // Buckets() counters of 8 bytes
	Series // tseries: Count buckets of 24 bytes: the interval's number, a value, a count
)

// Aggregate says whether maps of the kind are per CPU.
func (k TypeKind) Aggregate() bool { return k >= Count }

// Type is the type of an expression or of what a map holds. Which fields mean
// something depends on the kind. A Type is not modified once it is in use.
type Type struct {
	Kind   TypeKind
	Size   int // bytes that a value takes in memory; a multiple of 8 for a Tuple
	Signed bool
	Fields []TypeField // Tuple
	Elem   *Type       // Array, Pointer; nil for a pointer to what is not known
	Count  int         // Array, Stack, Series
	// Enum are the names of an Int's values, nil if they have none.
	Enum *EnumNames
	// Bits of a Hist are the linear parts of a power of two, as a power of two: 0 to 5.
	Bits int
	// From, To and Step bound the buckets of an LHist.
	From, To, Step int64
	// Every and Agg are of a Series: its interval and what it does with the values of
	// one: Count, Sum, Avg, Min or Max; Void to keep the last.
	Every time.Duration
	Agg   TypeKind
	// Format is a Stamp's, as strftime has it, and Clock where its nanoseconds are from; a
	// Stack's mode: "", "perf", "raw" or "build_id"; how Bytes are shown: "", MAC or Inet;
	// or a CgroupPath's filter, "" for none.
	Format string
	Clock  Clock
}

// TypeField is a part of a Tuple.
type TypeField struct {
	Name string // "" if it has none
	Off  int
	Type *Type
}

// EnumNames name the values of an enum.
type EnumNames struct {
	Enum  string
	Names map[uint64]string
}

const (
	// SymbolSize is the size of a Symbol, of three words.
	SymbolSize = 24
	// StackHead is what stands before the addresses of a Stack.
	StackHead = 16
)

// Formats of Bytes.
const (
	MAC  = "mac"  // 6 bytes, as 0A:1B:…
	Inet = "inet" // 4 or 16 bytes: an address of IPv4 or IPv6
)

// Clock is one of the kernel's clocks.
type Clock uint8

const (
	Monotonic Clock = iota
	Boot
	TAI
	Wall
	Coarse // Monotonic, as the kernel has it at hand
)

// Types that have no parameters.
var (
	VoidType = &Type{Kind: Void}
	BoolType = &Type{Kind: Bool, Size: 1}
	I8       = &Type{Kind: Int, Size: 1, Signed: true}
	I16      = &Type{Kind: Int, Size: 2, Signed: true}
	I32      = &Type{Kind: Int, Size: 4, Signed: true}
	I64      = &Type{Kind: Int, Size: 8, Signed: true}
	U8       = &Type{Kind: Int, Size: 1}
	U16      = &Type{Kind: Int, Size: 2}
	U32      = &Type{Kind: Int, Size: 4}
	U64      = &Type{Kind: Int, Size: 8}
	NameType = &Type{Kind: Name, Size: 8}
)

// TextType is a string of up to n bytes.
func TextType(n int) *Type { return &Type{Kind: Text, Size: align(n, 8)} }

// BytesType is a buffer of up to n bytes.
func BytesType(n int) *Type { return &Type{Kind: Bytes, Size: align(4+n, 8)} }

// TupleOf lays fields out one after the other, each at a multiple of its alignment, up
// to 8, as C does; bytes between them are zero. Names may be nil.
func TupleOf(names []string, types []*Type) *Type {
	t := &Type{Kind: Tuple}
	for i, ft := range types {
		f := TypeField{Off: align(t.Size, ft.Align()), Type: ft}
		if names != nil {
			f.Name = names[i]
		}
		t.Fields = append(t.Fields, f)
		t.Size = f.Off + ft.Size
	}
	t.Size = align(t.Size, t.Align())
	return t
}

// Align is what offsets of values of the type are a multiple of.
func (t *Type) Align() int {
	switch t.Kind {
	case Int, Bool:
		return max(t.Size, 1)
	case Array:
		return t.Elem.Align()
	case Tuple:
		n := 1
		for _, f := range t.Fields {
			n = max(n, f.Type.Align())
		}
		return n
	}
	return 8
}

// Scalar says whether a value is one word in a register.
func (t *Type) Scalar() bool {
	switch t.Kind {
	case Int, Bool, Pointer, Name, Stamp, User, CgroupPath:
		return true
	}
	return false
}

// Buckets is how many counters a Hist or LHist has.
//
// A Hist's first is of what is negative, the second of 0; then come the values below
// 2^(Bits+1) each for itself, and 2^Bits for each power of two. An LHist's first is of what is
// below From, its last of what is To or above.
func (t *Type) Buckets() int {
	if t.Kind == LHist {
		return int((t.To-t.From+t.Step-1)/t.Step) + 2
	}
	return 1 + (64-t.Bits)<<t.Bits + 1<<t.Bits
}

func align(n, to int) int { return (n + to - 1) / to * to }
