// Package record is the bytes of one record and their decoding: what codegen's
// programs write into the ring, and what the tracer makes of it.
//
// A record is little endian and has three parts.
//
// The header, HeaderSize bytes:
//
//	offset  type      field
//	     0  u16       version: Version
//	     2  u16       program: which program of the collection wrote it
//	     4  u32       length of the whole record in bytes, a multiple of 8
//	     8  u64       cookie: the index of the probe
//	    16  u32       pid: the thread group
//	    20  u32       tid
//	    24  u64       time: CLOCK_MONOTONIC in ns
//	    32  u64       cfa: the canonical frame address; 0 with FlagNoCFA
//	    40  [16]byte  comm, ended by a zero byte
//	    56  u16       item: which item of the probe
//	    58  u16       flags: Flag…
//	    60  u32       regions: how many there are
//	    64  u64       failed: bit i says that the i-th fixed read failed
//
// The fixed part: the pieces of the item's values that have a fixed place, at the
// offsets that the Schema says. Bytes of a read that failed mean nothing, nor do
// those between pieces.
//
// The regions: what hangs on pointers. Each is a header of RegionSize bytes, and
// its bytes padded to a multiple of 8:
//
//	offset  type  field
//	     0  u32   class of the elements' type (Schema.Classes)
//	     4  u32   length: bytes that are present
//	     8  u64   address of the first element
//	    16  u64   count of the elements that there are
//	    24  u32   status: Status…
//	    28  u32   0
//
// A pointer's target is found by class and address, so sharing and cycles need no
// further thought, and a target that is not there was cut by a limit. Two types
// are of one class when their bytes are captured alike: the same size, and the
// same pointers at the same offsets to types of one class.
package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// ScriptItem is the item of records that a script's handlers make: events.
const ScriptItem = 0xffff

// Version is that of the format above.
const Version = 1

// Offsets of the header's fields, for whoever writes records.
const (
	OffVersion = 0
	OffProgram = 2
	OffLength  = 4
	OffCookie  = 8
	OffPID     = 16
	OffTID     = 20
	OffTime    = 24
	OffCFA     = 32
	OffComm    = 40
	OffItem    = 56
	OffFlags   = 58
	OffRegions = 60
	OffFailed  = 64

	HeaderSize = 72
)

// Offsets of the fields of a region's header.
const (
	RegionClass   = 0
	RegionLength  = 4
	RegionAddress = 8
	RegionCount   = 16
	RegionStatus  = 24

	RegionSize = 32
)

// Flags of a record.
const (
	// FlagExhausted: the list of pending pointers or the budget ran out, so that
	// some pointers were not followed.
	FlagExhausted = 1 << iota
	// FlagNoCFA: the canonical frame address could not be read.
	FlagNoCFA
	// FlagForeign: the thread is not in the tracer's pid namespace; pid and tid
	// are those of the initial one.
	FlagForeign
	// FlagHidden: a predicate does not hold.
	FlagHidden
)

// Status of a region.
const (
	StatusOK = iota
	// StatusUnreadable: the memory could not be read; no bytes are present.
	StatusUnreadable
	// StatusOwnFrame: the address is in the frame of the function that an inlined
	// instance is part of, where the value may never have been stored.
	StatusOwnFrame
)

// Header is the first part of a record.
type Header struct {
	Version, Program uint16
	Length           uint32
	Cookie           uint64
	PID, TID         uint32
	Time             uint64
	CFA              uint64
	Comm             [16]byte
	Item, Flags      uint16
	Regions          uint32
	Failed           uint64
}

// ErrMalformed says that bytes are not a record of this format, or not one of
// this schema.
var ErrMalformed = errors.New("malformed record")

// ParseHeader reads the header of raw, which must hold the whole record; bytes
// after it are allowed, as a ring may pad.
func ParseHeader(raw []byte) (h Header, err error) {
	if len(raw) < HeaderSize {
		return h, fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	b := raw[:HeaderSize]
	h.Version = binary.LittleEndian.Uint16(b[OffVersion:])
	h.Program = binary.LittleEndian.Uint16(b[OffProgram:])
	h.Length = binary.LittleEndian.Uint32(b[OffLength:])
	h.Cookie = binary.LittleEndian.Uint64(b[OffCookie:])
	h.PID = binary.LittleEndian.Uint32(b[OffPID:])
	h.TID = binary.LittleEndian.Uint32(b[OffTID:])
	h.Time = binary.LittleEndian.Uint64(b[OffTime:])
	h.CFA = binary.LittleEndian.Uint64(b[OffCFA:])
	h.Comm = [16]byte(b[OffComm:])
	h.Item = binary.LittleEndian.Uint16(b[OffItem:])
	h.Flags = binary.LittleEndian.Uint16(b[OffFlags:])
	h.Regions = binary.LittleEndian.Uint32(b[OffRegions:])
	h.Failed = binary.LittleEndian.Uint64(b[OffFailed:])
	switch {
	case h.Version != Version:
		return h, fmt.Errorf("%w: version %d", ErrMalformed, h.Version)
	case h.Length < HeaderSize || uint64(h.Length) > uint64(len(raw)):
		return h, fmt.Errorf("%w: length %d of %d bytes", ErrMalformed, h.Length, len(raw))
	}
	return h, nil
}

// Command is the thread's name, up to its zero byte.
func (h *Header) Command() string {
	name, _, _ := bytes.Cut(h.Comm[:], []byte{0})
	return string(name)
}
