// Package event holds what a traced run yields: the calls, returns, tables and
// closing figures that sessions produce and outputs print. It is the only thing
// that output knows of the rest of the program.
package event

import "time"

// Event is one of the types below. Type is the "type" of its JSON envelope.
type Event interface{ Type() string }

// Value is one argument or result. It has either Text, as {:?} prints it, or
// Missing: "optimized out", "unreadable" or "unsupported: WHY"; never both.
type Value struct {
	Name string
	Rust string // the type, as Rust writes it
	Text string
	// Missing says why nothing of the value is known.
	Missing string
	// Truncated: a limit cut a string, a collection or a chain of pointers.
	Truncated bool
	// Partial: a part could not be read and stands as <unreadable> in Text.
	Partial bool
	// Lines: Text is laid out on several lines, as {:#?} does. Else there is no end of one
	// in it but what is the target's.
	Lines bool
	// Given: the type is the user's word, not the debug info's.
	Given bool
}

// Thread names the thread in which something happened.
type Thread struct {
	PID, TID uint32
	Comm     string
}

// Place is where a function stands in the source.
type Place struct {
	File string
	Line int
}

// Inline says into what an inlined call was compiled, and whether its calls can
// be counted one by one.
type Inline struct {
	Caller string
	Call   Place
	Exact  bool
}

// Said is what a script says. Text is how a terminal shows it, with the ends of its lines;
// for JSON there is Data, a JSON value, or Lines that are whole lines of it.
type Said struct {
	Kind  string
	Text  string
	Data  []byte
	Lines []byte
}

// Type is what kind of thing was said: printf, map, hist, …
func (e Said) Type() string { return e.Kind }

// Call is the entry of a function.
type Call struct {
	ID       uint64
	Time     time.Time
	Thread   Thread
	Function string
	Aliases  []string
	Source   Place
	Inline   *Inline // nil for an out-of-line call
	Args     []Value
	// Poll is which poll of its future the call is, from 1 on; 0 if it is none or that is
	// not known.
	Poll uint64
}

// Line is that control came to a line of the source.
type Line struct {
	ID       uint64
	Time     time.Time
	Thread   Thread
	Function string // that the line's code is part of
	Aliases  []string
	Source   Place   // the line
	Inline   *Inline // nil for an out-of-line function
	Exact    bool    // each pass through the line is one event
	Locals   []Value // the variables in scope; empty unless they were asked for
}

// Return is the end of a Call by one of its exits.
type Return struct {
	ID       uint64
	Time     time.Time
	Thread   Thread
	Function string
	Duration time.Duration
	Value    *Value // nil: the type is unknown or ()
	// Tail: the duration ends at a jump into another function, which returns in
	// this one's stead.
	Tail bool
}

// Unwind is the end of a Call by a panic that was seen to land.
type Unwind struct {
	ID       uint64
	Thread   Thread
	Function string
	Duration time.Duration
}

// Ended is the end of a Call by something else that skipped its exits.
type Ended struct {
	ID       uint64
	Thread   Thread
	Function string
	Duration time.Duration
}

// Count is one row of a count's table.
type Count struct {
	Function string
	By       string // what else makes the row, as {:?} prints it; "" without --by
	Count    uint64
	Exact    bool
}

// Latency is one row of a latency's: how long the calls of a function took that have
// returned. Min, Max and Sum are exact; the percentiles are within 1/32 of their values.
type Latency struct {
	Function string
	By       string // as in Count
	Count    uint64

	Min, P50, P90, P99, P999, Max, Sum time.Duration

	Hist []Bucket // by powers of two, in ns
}

// Bucket is how many numbers are from Min to Max.
type Bucket struct{ Min, Max, Count uint64 }

// Hist is the distribution of an expression's values in the calls of a function. Text
// draws it; Buckets are the same in JSON.
type Hist struct {
	Function string
	By       string // as in Count
	Count    uint64
	Text     string
	Buckets  []byte
}

// Function is one row of a list.
type Function struct {
	Function  string
	Signature string // "" without debug info
	Source    Place
	OutOfLine int
	Inlined   int
	Aliases   []string
}

// Located is where explain finds a value; Missing may stand in Where's place.
type Located struct {
	Name    string
	Rust    string
	Where   string
	Missing string
	Given   bool // as in Value
}

// Exit is one place where a function is left.
type Exit struct {
	Address uint64
	Kind    string // "ret" or "tail"
	Target  string // the function a tail jump goes to, if known
}

// Plan is how a runtime would plant a probe, and what a hit would cost.
type Plan struct {
	How    string
	CostNS int64
	// Missing says why this runtime can't; How is empty then.
	Missing string
}

// Instance is one piece of code that runs a function.
type Instance struct {
	Function string
	// Source is set for the code of a line in the instance: Args are the variables then.
	Source   Place
	Exact    bool
	Address  uint64
	Entries  []uint64 // where control flow enters it
	Symbol   string   // mangled; "" for an inlined instance
	Aliases  []string
	Inline   *Inline
	Args     []Located
	Result   *Located // nil: () or unknown
	Exits    []Exit
	NoExits  string          // why exits can't be probed, "" if they can
	Runtimes map[string]Plan // by runtime name
	Auto     string          // which of them is taken unless one is asked for; "" if not known
	Notes    []string
}

// Attached says that everything is armed.
type Attached struct{ Probes int }

// Lost closes a run's losses.
type Lost struct{ Events uint64 }

// Summary closes a run. Calls = Shown + Hidden + Lost, always.
type Summary struct {
	Calls, Shown, Hidden, Lost uint64
	LostExits, Open            uint64
	Runtime                    string
	Duration                   time.Duration
	// Cost is what the probes cost the target, estimated from the hits.
	Cost time.Duration
	// ExitStatus is the command's, "" if none was started.
	ExitStatus string
}

func (Call) Type() string     { return "call" }
func (Line) Type() string     { return "line" }
func (Return) Type() string   { return "return" }
func (Unwind) Type() string   { return "unwind" }
func (Ended) Type() string    { return "ended" }
func (Count) Type() string    { return "count" }
func (Latency) Type() string  { return "latency" }
func (Hist) Type() string     { return "hist" }
func (Function) Type() string { return "function" }
func (Instance) Type() string { return "instance" }
func (Attached) Type() string { return "attached_probes" }
func (Lost) Type() string     { return "lost_events" }
func (Summary) Type() string  { return "summary" }
