// Package debugfmt turns the bytes of a Rust value into the text that {:?} prints
// for it, as far as they are known: what is missing is said in its place, and
// nothing is guessed.
package debugfmt

import "ferrotrace/internal/rust/types"

// Memory is what was read of the traced program's memory.
type Memory interface {
	// Region returns what was read at addr for an edge whose Elem is t: the bytes
	// of one element or of several, one after the other. It is false if the
	// address was not followed.
	Region(t *types.Type, addr uint64) (Region, bool)
	// Object returns what type an object of type t is of that has its vtable at an
	// address, nil if that is not known. It is false if objects were not looked into.
	Object(t *types.Type, vtable uint64) (*types.Type, bool)
}

// Status says why a region has no more bytes.
type Status uint8

const (
	OK         Status = iota // all that was asked for, within the limits
	Unreadable               // what follows could not be read
	Cut                      // the budget for the record was used up
)

// Region is memory that a pointer leads to. Bytes is valid during Format only.
type Region struct {
	Bytes  []byte
	Status Status
}

// Hole is a part of a value that is not known.
type Hole struct {
	Off, Size int
	// Why is "optimized out", "unreadable" or "unsupported: WHY".
	Why string
}

// Value is the bytes of one value. Bytes that are missing at the end of it count
// as unreadable.
type Value struct {
	Type  *types.Type
	Bytes []byte
	Holes []Hole
}

// Result is the text of a value. It has Text or Missing, never both.
type Result struct {
	Text string
	// Missing says why nothing of the value is known: "optimized out",
	// "unreadable" or "unsupported: WHY".
	Missing string
	// Truncated: a limit cut something, which ends in "…".
	Truncated bool
	// Partial: a part is not known and stands as "<unreadable>" in Text.
	Partial bool
}

// Options limit the text, and name what bytes alone don't.
type Options struct {
	MaxStr   int // bytes of a string
	MaxItems int // elements of a collection or array
	Depth    int // pointers followed
	// Pretty: as {:#?} writes, each item on a line of its own.
	Pretty bool
	// Func names the function at an address of the program, "" if there is none.
	// It may be nil.
	Func func(addr uint64) string
}

const (
	// maxText bounds the text of one value, in bytes: limits of items and depth
	// multiply.
	maxText = 1 << 20
	// maxNesting bounds how deep values lie in one another by value. No real type
	// comes near; broken debug info may have one that contains itself.
	maxNesting = 128
)

// Format writes v as {:?} does, or {:#?}.
func Format(v Value, m Memory, o Options) Result {
	p := printer{mem: m, opt: o}
	p.value(v.Type, view{bytes: v.Bytes, holes: v.Holes, after: "unreadable"}, 0)
	return p.result()
}

func (p *printer) result() Result {
	if !p.known && p.why != "" {
		return Result{Missing: p.why}
	}
	return Result{Text: string(p.out), Truncated: p.truncated, Partial: p.partial}
}

// view is the memory of a value from its first byte on.
type view struct {
	bytes []byte // what there is of it; may go on past the value's end
	off   int    // of bytes[0] in the root's bytes, as holes count
	holes []Hole
	// after says why bytes end: as Hole.Why, or "" if a limit cut them.
	after string
}

// at is the view from off on.
func (v view) at(off int64) view {
	if off < 0 || off > int64(len(v.bytes)) {
		v.bytes = nil
	} else {
		v.bytes = v.bytes[off:]
	}
	v.off += int(off)
	return v
}

// state says how much of the first size bytes is known.
type state uint8

const (
	whole state = iota // every byte
	some               // a part
	none               // no byte, all for the same reason
)

// state returns what is known of the first size bytes, and why the rest is not:
// as Hole.Why, or "" for what a limit cut.
func (v view) state(size int64) (s state, why string) {
	if size == 0 {
		return whole, ""
	}
	covered, first := int64(0), true
	if short := size - int64(len(v.bytes)); short > 0 {
		covered, why, first = min(short, size), v.after, false
	}
	same := true
	for _, h := range v.holes {
		// The overlap with what bytes there are.
		lo, hi := max(h.Off, v.off), min(h.Off+h.Size, v.off+int(min(size, int64(len(v.bytes)))))
		if lo >= hi {
			continue
		}
		covered += int64(hi - lo)
		same = same && (first || why == h.Why)
		if first {
			why, first = h.Why, false
		}
	}
	switch {
	case covered == 0:
		return whole, ""
	case covered >= size && same:
		return none, why
	}
	return some, why
}
