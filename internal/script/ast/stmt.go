package ast

import "ferrotrace/internal/script/source"

// A Let declares a variable: let $x : TYPE = VALUE. Type and Value may be nil.
type Let struct {
	source.Span
	Var   *Var
	Type  *Type
	Value Expr
}

// An Assign is TARGET = VALUE or TARGET op= VALUE.
type Assign struct {
	source.Span
	Op     Op   // "=", "+=", ...
	Target Expr // *Var or *Map
	Value  Expr
}

// An ExprStmt is an expression for its effect. An *If or *Block here has no
// Value anywhere that would be a result.
type ExprStmt struct {
	source.Span
	X Expr
}

// A Discard is _ = X: the value is not wanted, and that is no mistake.
type Discard struct {
	source.Span
	X Expr
}

// A For runs its body for each entry of a map, the variable being (key, value),
// or for each integer of a range.
type For struct {
	source.Span
	Var  *Var
	Over Expr // *Range, *Map, or what the checker refuses
	Body *Block
}

// A While runs its body as long as Cond holds.
type While struct {
	source.Span
	Cond Expr
	Body *Block
}

// An Unroll runs its body N times, N being a constant.
type Unroll struct {
	source.Span
	N    Expr
	Body *Block
}

// A Break ends the innermost loop.
type Break struct{ source.Span }

// A Continue goes on with the innermost loop's next round.
type Continue struct{ source.Span }

// A Return ends the probe's action or the Func; X is nil where nothing is
// returned.
type Return struct {
	source.Span
	X Expr
}

// DropValue makes statements of the values of blocks and ifs that nobody takes,
// so that an expression for its effect has none. Other expressions it leaves.
func DropValue(x Expr) {
	switch x := x.(type) {
	case *Block:
		if x.Value != nil {
			DropValue(x.Value)
			x.Stmts = append(x.Stmts, &ExprStmt{Span: x.Value.At(), X: x.Value})
			x.Value = nil
		}
	case *If:
		DropValue(x.Then)
		DropValue(x.Else)
	}
}

func (*Let) stmt()      {}
func (*Assign) stmt()   {}
func (*ExprStmt) stmt() {}
func (*Discard) stmt()  {}
func (*For) stmt()      {}
func (*While) stmt()    {}
func (*Unroll) stmt()   {}
func (*Break) stmt()    {}
func (*Continue) stmt() {}
func (*Return) stmt()   {}
