package ir

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ferrotrace/internal/location"
	"ferrotrace/internal/rust/types"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// everything is a script with each statement and each expression in it.
func everything() *Script {
	n := func(v uint64) Expr { return &Const{T: I64, V: v} }
	text := TextType(16)
	v := &Var{T: I64, Slot: 0}
	item := &types.Type{Name: "shop::Item", Kind: types.Struct, Size: 32}
	pair := TupleOf(nil, []*Type{I64, text})
	array := &Type{Kind: Array, Elem: I32, Count: 4, Size: 16}
	stack := &Type{Kind: Stack, Size: 24, Count: 2}
	eval := func(x Expr) Stmt { return &Eval{X: x} }
	return &Script{
		Names: []string{"uprobe:shop::add"},
		Maps: []*Map{
			{Name: "@n", Value: &Type{Kind: Count, Size: 8}, Key: pair, Entries: 10},
			{Name: "@last", Value: I64, Entries: 1, Declared: "lruhash"},
		},
		Events: []*Event{
			{Kind: Printf, Format: "%d\n", Args: []*Type{I64}, Rust: []*types.Type{nil}},
			{Kind: Print, Args: []*Type{{Kind: Value}}, Rust: []*types.Type{item}},
			{Kind: PrintMap, Map: 0, Top: 5, Div: 1000},
		},
		Timers: []Timer{{Kind: Begin, Handler: 1}, {Kind: Interval, Every: time.Second, Handler: 1}, {Kind: Profile, Every: time.Second / 99, Handler: 1}, {Kind: Signal, Signal: 10, Handler: 1}},
		Handlers: []*Handler{
			{Name: "uprobe:shop::add", Vars: []*Type{I64, pair}, Roots: []*types.Type{item}, Body: []Stmt{
				&If{Cond: &Unary{T: BoolType, Op: Not, X: &Binary{T: BoolType, Op: Gt, X: &Root{T: U32, Off: 24}, Y: n(3)}}, Then: []Stmt{&Return{}}, Else: []Stmt{&Kill{Signal: n(9)}}},
				&SetVar{Slot: 0, X: &Cond{T: I64, C: &Const{T: BoolType, V: 1}, X: n(1), Y: n(^uint64(0))}},
				&SetMap{Map: 1, X: v}, &AddMap{Map: 1, X: n(1)}, &Delete{Map: 1},
				&Aggregate{Map: 0, Key: &MakeTuple{T: pair, Elems: []Expr{v, &String{T: text, S: "pear"}}}},
				&Aggregate{Map: 0, Key: v, X: n(2), N: n(3)},
				&While{Cond: &HasKey{Map: 0, Key: v}, Body: []Stmt{&Break{}}}, &While{Body: []Stmt{&Continue{}}},
				&ForRange{Slot: 0, From: n(0), To: &MapLen{Map: 0}, Body: []Stmt{&Emit{Event: 0, Args: []Expr{v}}}},
				&ForMap{Map: 0, Slot: 1, Body: []Stmt{eval(&Part{T: I64, X: &Var{T: pair, Slot: 1}, I: 0})}},
				eval(&Cast{T: U8, X: &MapGet{T: I64, Map: 1}}),
				eval(&Index{T: I32, X: &MakeTuple{T: array, Elems: []Expr{n(1), n(2)}}, I: v}),
				eval(&Load{T: U16, Addr: v, Strict: true}),
				eval(&ReadText{T: text, Addr: v}), eval(&ReadText{T: text, Addr: v, Len: n(3), Strict: true}),
				eval(&ReadBytes{T: BytesType(8), Addr: v, Len: n(8)}), eval(&BytesOf{T: BytesType(8), X: &String{T: text, S: "a"}, Len: n(1)}),
				eval(&Require{C: &Const{T: BoolType}, X: v}),
				eval(&Capture{Rust: item, Off: 8}), eval(&Capture{Rust: item, Addr: v}),
				eval(&Register{Reg: location.RDI}), eval(&Builtin{T: stack, Kind: UserStack, N: 2}), eval(&Const{T: NameType}),
				eval(&TextLen{X: &String{T: text}}), eval(&TextCmp{X: &String{T: text}, Y: &String{T: text}, N: 4}), eval(&TextHas{T: BoolType, X: &String{T: text}, Y: &String{T: text}}),
				eval(&Block{Body: []Stmt{&SetVar{Slot: 0, X: n(1)}}, X: &Unary{T: I64, Op: Inv, X: v}}),
			}},
			{Name: "begin"},
		},
	}
}

func TestDump(t *testing.T) {
	var b bytes.Buffer
	if err := Dump(&b, everything()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "dump.golden")
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}
