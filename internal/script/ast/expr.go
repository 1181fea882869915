package ast

import "ferrotrace/internal/script/source"

// An Op is an operator as it is written.
type Op string

// An Int is an integer literal: 10, 0x1f, 017, 0b101, 1e6, 1_000, 5UL, 10ms.
// Value has a duration's unit in it: nanoseconds.
type Int struct {
	source.Span
	Text  string
	Value uint64
}

// A Float is a floating-point literal.
type Float struct {
	source.Span
	Text string
}

// A Str is a string literal; Value has the escapes resolved, and need not be
// UTF-8.
type Str struct {
	source.Span
	Value string
}

// A Char is a Rust character literal.
type Char struct {
	source.Span
	Value rune
}

// A Bool is true or false.
type Bool struct {
	source.Span
	Value bool
}

// An Ident is a bare name, perhaps with a path: a builtin (pid, args), a macro
// without parameters, a macro's parameter, an enum's constant, Some,
// shop::Kind::Fruit.
type Ident struct {
	source.Span
	Name string
}

// A ParamRef is a positional parameter, $1 being 1.
type ParamRef struct {
	source.Span
	N uint64
}

// A ParamCount is $#, the number of positional parameters.
type ParamCount struct {
	source.Span
}

// A Var is a scratch variable.
type Var struct {
	source.Span
	Name string // without the $
}

// A Map is a map, or with Keys what it holds there. @m[(1, 2)] has one key here,
// a tuple, and means the same as @m[1, 2].
type Map struct {
	source.Span
	Name string // without the @; "" for the nameless one
	Keys []Expr
}

// A Call calls a function of the language, a macro or a Func; no value is
// callable.
type Call struct {
	source.Span
	Name string
	Args []Expr // a *TypeArg among them only where a macro takes a type
}

// A Unary is a prefix operator: - ! ~ * &.
type Unary struct {
	source.Span
	Op Op
	X  Expr
}

// An IncDec is ++ or --, before or after a variable or map.
type IncDec struct {
	source.Span
	Op   Op
	Post bool
	X    Expr // *Var or *Map
}

// A Binary is an operator between two operands, && and || among them.
type Binary struct {
	source.Span
	Op   Op
	X, Y Expr
}

// A Cond is C ? A : B; with C ?: B, Then is nil and stands for C, evaluated once.
type Cond struct {
	source.Span
	If, Then, Else Expr
}

// An If is if COND { } else { }, as a statement or a value. Else is a *Block, an
// *If or nil.
type If struct {
	source.Span
	Cond Expr
	Then *Block
	Else Expr
}

// A Block is { ... }. Value is the expression at its end that the block stands
// for; nil where there is none, or nothing would take it.
type Block struct {
	source.Span
	Stmts []Stmt
	Value Expr
}

// A Cast is (TYPE)X.
type Cast struct {
	source.Span
	Type *Type
	X    Expr
}

// A Tuple is (A, B), (A,) or ().
type Tuple struct {
	source.Span
	Elems []Expr
}

// A Record is (a=1, b=2).
type Record struct {
	source.Span
	Fields []*RecordField
}

// A RecordField is one field of a Record.
type RecordField struct {
	source.Span
	Name  string
	Value Expr
}

// An Array is [A, B, C].
type Array struct {
	source.Span
	Elems []Expr
}

// A Field is X.NAME, through a pointer too: a struct's field, a tuple's by number
// ("0"), a Rust variant, .len.
type Field struct {
	source.Span
	X        Expr
	Name     string
	NameSpan source.Span
}

// An Index is X[I].
type Index struct {
	source.Span
	X, I Expr
}

// A Range is FROM..TO, TO itself left out. It stands only in a For.
type Range struct {
	source.Span
	From, To Expr
}

// A Sizeof is sizeof(TYPE); of an expression, it is the size of its type.
type Sizeof struct {
	source.Span
	Type *Type
}

// An Offsetof is offsetof(TYPE, A.B).
type Offsetof struct {
	source.Span
	Type   *Type
	Fields []string
}

// A Typeinfo is typeinfo(TYPE).
type Typeinfo struct {
	source.Span
	Type *Type
}

// A Comptime is comptime X: X must be known before the script runs.
type Comptime struct {
	source.Span
	X Expr
}

// A TypeArg is typeof(...) as an argument of a macro.
type TypeArg struct {
	source.Span
	Type *Type
}

func (*Int) expr()        {}
func (*Float) expr()      {}
func (*Str) expr()        {}
func (*Char) expr()       {}
func (*Bool) expr()       {}
func (*Ident) expr()      {}
func (*ParamRef) expr()   {}
func (*ParamCount) expr() {}
func (*Var) expr()        {}
func (*Map) expr()        {}
func (*Call) expr()       {}
func (*Unary) expr()      {}
func (*IncDec) expr()     {}
func (*Binary) expr()     {}
func (*Cond) expr()       {}
func (*If) expr()         {}
func (*Block) expr()      {}
func (*Cast) expr()       {}
func (*Tuple) expr()      {}
func (*Record) expr()     {}
func (*Array) expr()      {}
func (*Field) expr()      {}
func (*Index) expr()      {}
func (*Range) expr()      {}
func (*Sizeof) expr()     {}
func (*Offsetof) expr()   {}
func (*Typeinfo) expr()   {}
func (*Comptime) expr()   {}
func (*TypeArg) expr()    {}
