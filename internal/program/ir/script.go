// Package ir is a program of the probe language, typed: what script/check makes of its
// text and codegen makes eBPF of. It knows no sites and no debug info.
package ir

import (
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

// Script is a program of the probe language, typed: what its handlers do, and on which
// maps.
type Script struct {
	Maps     []*Map
	Handlers []*Handler
	Events   []*Event
	Timers   []Timer
	// Names are what values of type Name mean: functions and probes.
	Names []string
	// Words are, by probe of the Program, what FuncName and ProbeName are there: indices in
	// Names.
	Words []Words
	// Start is the time, CLOCK_MONOTONIC, from which Elapsed counts.
	Start uint64
}

// Has says whether there is a handler of a number.
func (s *Script) Has(handler int) bool {
	return s != nil && handler >= 0 && handler < len(s.Handlers)
}

// Words are what is particular to a probe.
type Words struct{ Func, Probe uint32 }

// Map is a map of the script.
type Map struct {
	Name string
	// Key is nil for a map of one value. Hidden maps are the tracer's own, and not shown.
	Key, Value *Type
	Entries    int
	Hidden     bool
	// Declared is the kind of map that the script asked for: "hash", "lruhash", "percpuhash",
	// "percpulruhash"; "" if it leaves that open.
	Declared string
}

// Handler is what is done when a probe is hit.
type Handler struct {
	Name string // of the probe, for people
	// Vars are the types of its variables, by slot.
	Vars []*Type
	// Roots are the types of the Values that its items have: those of the function's
	// arguments or result that it looks at.
	Roots []*types.Type
	Body  []Stmt
}

// TimerKind says when a handler runs that belongs to no site.
type TimerKind uint8

const (
	Begin TimerKind = iota
	End
	Interval // every Every
	Signal   // the tracer gets the signal Signal
	Profile  // on each CPU that runs what is traced, every Every
)

// Timer has a handler run by the tracer, or by the kernel's clock.
type Timer struct {
	Kind    TimerKind
	Every   time.Duration
	Signal  int
	Handler int
}

// EventKind is what the tracer does on an event.
type EventKind uint8

const (
	Printf   EventKind = iota // Format with the arguments
	Errorf                    // likewise, to standard error, as an error
	Warnf                     // as a warning
	Debugf                    // as what helps to find a mistake in the script
	Print                     // the one argument, as print does
	PrintMap                  // Map, its Top largest or all if 0, divided by Div
	PrintKey                  // of Map the value of the key that is the argument
	ClearMap
	ZeroMap
	Exit   // with the status that is the argument, if there is one
	Join   // the strings that are the arguments, parted by Format
	Time   // the time of day by Format
	System // a command line: Format with the arguments
	Cat    // a file's content: its name is Format with the arguments
	Helper // a warning, Format: Helper has answered with Code
)

// Event is one way in which handlers speak to the tracer.
type Event struct {
	Kind EventKind
	// Args are the types of the arguments. That of a Value is in Rust, at the same index.
	Args     []*Type
	Rust     []*types.Type
	Names    []string // of the arguments, where they are fields of `args`; else nil
	Format   string
	Map      int
	Top, Div int64
	// Helper is a function of the kernel, for people, and Code what it has returned.
	Helper string
	Code   int
	// Where it stands in the script: its line, and its first column and the one behind its last,
	// from 1.
	Line, Col, End int
}

// Stmt is a statement.
type Stmt interface{ stmt() }

type (
	// SetVar assigns to a variable, and makes it if it was not.
	SetVar struct {
		Slot int
		X    Expr
	}
	// SetMap assigns to an element. Key is nil if the map has none.
	SetMap struct {
		Map int
		Key Expr
		X   Expr
	}
	// AddMap adds X to an integer element, atomically; one that is not there is 0.
	AddMap struct {
		Map int
		Key Expr
		X   Expr
	}
	// Aggregate gives X to an element of an aggregating type; X is nil for Count. What it
	// does is the type's; N is how many times it counts, nil for once.
	Aggregate struct {
		Map int
		Key Expr
		X   Expr
		N   Expr
	}
	// Delete removes an element.
	Delete struct {
		Map int
		Key Expr
	}
	// If has branches.
	If struct {
		Cond       Expr
		Then, Else []Stmt
	}
	// While repeats Body, as long as Cond holds, if it is not nil: at most MaxLoop times.
	While struct {
		Cond Expr
		Body []Stmt
	}
	// ForRange counts the variable from From up to To, which is not reached.
	ForRange struct {
		Slot     int
		From, To Expr
		Body     []Stmt
	}
	// ForMap runs Body for each element of a map: the variable is a Tuple of key and value;
	// of an aggregating map the value is the sum over CPUs, as MapGet has it.
	ForMap struct {
		Map  int
		Slot int
		Body []Stmt
	}
	// Break and Continue are those of the innermost loop.
	Break    struct{}
	Continue struct{}
	// Return ends the handler. Hidden: for a predicate, and that is counted.
	Return struct{ Hidden bool }
	// Emit sends an event.
	Emit struct {
		Event int
		Args  []Expr
	}
	// Eval evaluates what is of no use but for what it does.
	Eval struct{ X Expr }
	// Kill sends a signal to the process that hit the probe, or to the Thread.
	Kill struct {
		Signal Expr
		Thread bool
	}
)

// MaxLoop is how often the body of a While or ForRange runs at most: what bpf_loop allows
// (kernel, BPF_MAX_LOOPS).
const MaxLoop = 1 << 23

func (*SetVar) stmt()    {}
func (*SetMap) stmt()    {}
func (*AddMap) stmt()    {}
func (*Aggregate) stmt() {}
func (*Delete) stmt()    {}
func (*If) stmt()        {}
func (*While) stmt()     {}
func (*ForRange) stmt()  {}
func (*ForMap) stmt()    {}
func (*Break) stmt()     {}
func (*Continue) stmt()  {}
func (*Return) stmt()    {}
func (*Emit) stmt()      {}
func (*Eval) stmt()      {}
func (*Kill) stmt()      {}

// Expr is an expression. What a scalar is computed from is 64 bits wide, sign- or
// zero-extended by its type.
type Expr interface{ Type() *Type }

type (
	// Const is a scalar.
	Const struct {
		T *Type
		V uint64
	}
	// String is a literal.
	String struct {
		T *Type
		S string
	}
	// Var is a variable.
	Var struct {
		T    *Type
		Slot int
	}
	// Unary is an operation on a scalar.
	Unary struct {
		T  *Type
		Op UnaryOp
		X  Expr
	}
	// Binary is an operation on scalars, whose operands have been cast to one type; or
	// Eq or Ne of two values of one other type, of which Text may differ in size.
	Binary struct {
		T    *Type
		Op   BinaryOp
		X, Y Expr
	}
	// Cond is X where C holds, else Y: of one type, of which Text may differ in size.
	Cond struct {
		T       *Type
		C, X, Y Expr
	}
	// Cast is a scalar as a scalar of another type: truncated and extended anew; to Bool:
	// whether it is not 0. Or Text, Bytes or an Array as one of another size, cut or filled up
	// with zeros; or the Bytes of X's memory as an Array of bytes of the same size and back.
	Cast struct {
		T *Type
		X Expr
	}
	// MapGet is an element: zeros if it is not there. Of an aggregating map it is the Int that it stands for
	// over all CPUs; Series and the histograms have none.
	MapGet struct {
		T   *Type
		Map int
		Key Expr
	}
	// HasKey says whether an element is there.
	HasKey struct {
		Map int
		Key Expr
	}
	// MapLen is how many elements there are.
	MapLen struct{ Map int }
	// MakeTuple puts values together: T is a Tuple, or an Array.
	MakeTuple struct {
		T     *Type
		Elems []Expr
	}
	// Part is a field of a Tuple.
	Part struct {
		T *Type // that of the field
		X Expr
		I int
	}
	// Index is an element of an Array. Out of bounds the handler ends.
	Index struct {
		T    *Type
		X, I Expr
	}
	// Root is T.Size bytes of one of the handler's roots, from Off on. If they can't be read the
	// handler ends.
	Root struct {
		T    *Type
		Root int
		Off  int64
	}
	// Load is memory of the process. If it can't be read and Strict is set the handler
	// ends; otherwise it is zeros.
	Load struct {
		T      *Type
		Addr   Expr
		Strict bool
	}
	// ReadText is the text at an address, T or less long: Len bytes, or up to a zero byte if
	// Len is nil. What is unreadable is as with Load.
	ReadText struct {
		T         *Type
		Addr, Len Expr
		Strict    bool
	}
	// ReadBytes are Len bytes at an address, T or less.
	ReadBytes struct {
		T         *Type
		Addr, Len Expr
		Strict    bool
	}
	// BytesOf are the first Len bytes of a Text or an Array, T or less.
	BytesOf struct {
		T      *Type
		X, Len Expr
	}
	// Require is X if C holds; else the handler ends: the value is another variant.
	Require struct{ C, X Expr }
	// Capture is a Rust value, as an argument of an event: that of a root from Off on, or
	// that at Addr if it is not nil. Pointers are followed when it is printed.
	Capture struct {
		Rust *types.Type
		Root int
		Off  int64
		Addr Expr
	}
	// Register is what a register of the process holds.
	Register struct{ Reg location.Reg }
	// Builtin is something that the kernel, or the probe, knows.
	Builtin struct {
		T    *Type
		Kind BuiltinKind
		// N is a parameter: a Clock; frames of a stack.
		N int
	}
	// TextLen is how many bytes stand before the first zero byte.
	TextLen struct{ X Expr }
	// TextCmp says whether the first N bytes of two strings are equal, as strncmp does.
	TextCmp struct {
		X, Y Expr
		N    int
	}
	// TextHas is whether, or where, Y is in X: T is Bool, or an Int that is -1 if it is not.
	TextHas struct {
		T    *Type
		X, Y Expr
	}
	// NameText is the text of a Name, cut to T.
	NameText struct {
		T *Type
		X Expr
	}
	// Block does something before X.
	Block struct {
		Body []Stmt
		X    Expr
	}
)

// BuiltinKind is what a Builtin is.
type BuiltinKind uint8

const (
	Pid       BuiltinKind = iota // u32; the thread group, in the tracer's namespace
	Tid                          // u32
	UID                          // u32
	GID                          // u32
	Comm                         // Text of 16 bytes
	Now                          // u64: nanoseconds of the Clock N
	CPU                          // u32
	Rand                         // u32
	FuncName                     // Name
	ProbeName                    // Name
	IP                           // u64, as the process has it
	CFA                          // u64: the frame's; if it is not known the handler ends
	UserStack                    // Stack of N frames by frame pointers
	Cgroup                       // u64
	NUMANode                     // u32
	Bias                         // u64: by what addresses in the site's file are more than as linked
)

// UnaryOp is an operation on one scalar.
type UnaryOp uint8

const (
	Neg UnaryOp = iota // -x
	Not                // !x, a Bool
	Inv                // ~x
)

// BinaryOp is an operation on two values.
type BinaryOp uint8

const (
	Add BinaryOp = iota
	Sub
	Mul
	Div // by the signedness of the operands; 1 where Y is 0, as Mod is
	Mod
	And
	Or
	Xor
	Shl
	Shr // arithmetic if X is signed
	Eq  // these and the following are Bool
	Ne
	Lt
	Le
	Gt
	Ge
	LAnd // Y is evaluated only if it decides
	LOr
)

func (x *Const) Type() *Type     { return x.T }
func (x *String) Type() *Type    { return x.T }
func (x *Var) Type() *Type       { return x.T }
func (x *Unary) Type() *Type     { return x.T }
func (x *Binary) Type() *Type    { return x.T }
func (x *Cond) Type() *Type      { return x.T }
func (x *Cast) Type() *Type      { return x.T }
func (x *MapGet) Type() *Type    { return x.T }
func (x *HasKey) Type() *Type    { return BoolType }
func (x *MapLen) Type() *Type    { return U64 }
func (x *MakeTuple) Type() *Type { return x.T }
func (x *Part) Type() *Type      { return x.T }
func (x *Index) Type() *Type     { return x.T }
func (x *Root) Type() *Type      { return x.T }
func (x *Load) Type() *Type      { return x.T }
func (x *ReadText) Type() *Type  { return x.T }
func (x *ReadBytes) Type() *Type { return x.T }
func (x *BytesOf) Type() *Type   { return x.T }
func (x *Require) Type() *Type   { return x.X.Type() }
func (x *Capture) Type() *Type   { return &Type{Kind: Value} }
func (x *Register) Type() *Type  { return U64 }
func (x *Builtin) Type() *Type   { return x.T }
func (x *TextLen) Type() *Type   { return U64 }
func (x *TextCmp) Type() *Type   { return BoolType }
func (x *TextHas) Type() *Type   { return x.T }
func (x *NameText) Type() *Type  { return x.T }
func (x *Block) Type() *Type     { return x.X.Type() }
