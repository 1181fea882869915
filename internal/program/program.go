// Package program is the typed program: what shall happen at which address. Verbs
// and the probe language make it; codegen compiles it. It knows neither debug
// info nor runtimes.
package program

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
)

// Program is one run's probes.
type Program struct {
	Probes []Probe
	// Script is what items of kind Run do; nil if there are none, nor timers.
	Script *ir.Script
	Limits Limits
	// Counts is the number of counters that items add to.
	Counts int
	// Filter: only thread groups in the map of targets are recorded.
	Filter bool
	// PIDNamespace is the tracer's own, if that is not the initial one: pids in
	// records and in the filter are its pids.
	PIDNamespace *PIDNamespace
}

// PIDNamespace identifies a pid namespace by the device and inode of its file.
type PIDNamespace struct{ Dev, Ino uint64 }

// Limits bound what one record holds.
type Limits struct {
	MaxStr   int // bytes of a string
	MaxItems int // elements of a collection
	Depth    int // pointers followed
}

// DefaultLimits are those of the command line.
var DefaultLimits = Limits{MaxStr: 256, MaxItems: 64, Depth: 8}

// Probe is one address and all that happens there.
type Probe struct {
	Path   string // the object file
	Addr   uint64 // as linked
	Offset uint64 // in the file
	Items  []Item
}

// ItemKind says what happened when an item's site is reached.
type ItemKind uint8

const (
	Entry   ItemKind = iota // a function is entered
	More                    // further arguments of an entry are in place
	Exit                    // a function is left
	Panic                   // a panic begins
	Landing                 // a panic has been caught
	Run                     // a handler of the script runs
	Line                    // control comes to a line of the source
)

func (k ItemKind) String() string {
	return [...]string{"entry", "more", "exit", "panic", "landing", "run", "line"}[k]
}

// Item is one site of one instance: it emits one record, or adds to a counter.
type Item struct {
	Kind ItemKind
	// CFA gives the canonical frame address of the function that the address is in.
	CFA location.Expr
	// Save is a word that an entry keeps for the exits of its call, whose places have it
	// as OpSaved; nil if they want none. Calls are told apart by thread and CFA.
	Save location.Expr
	// Cond is the x86 condition code under which a conditional jump is taken, and
	// so the item happens; -1 for always.
	Cond int
	// Count is the counter to add 1 to in place of a record; -1 for a record.
	Count int
	// Handler is the one of the script that Run runs.
	Handler int
	// Where decides about the item's record; nil if it is written in any case.
	Where  *Where
	Values []Value
}

// Where is a handler of the script that decides about a record: it is written if the
// handler comes to its end.
type Where struct {
	Handler int
	Values  []Value // the handler's roots
	// Mark: the record is written in any case, and has record.FlagHidden if the handler does
	// not come to its end.
	Mark bool
}

// Value is one thing to capture.
type Value struct {
	Name  string
	Type  *types.Type
	Place location.Place
	// OwnFrame: pointers into [stack pointer, CFA) are not followed. What an
	// inlined instance's pointers into its own frame lead to may never have been
	// stored.
	OwnFrame bool
	// Poll: it is what the body of an async function or block gets at a poll
	// (types.Type.Polled). Args are the arguments of the async function, which records
	// then hold in its place; nil of a block.
	Poll bool
	Args []types.Argument
}
