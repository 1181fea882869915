package dwarf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"
)

// buf reads forward from a section. After the first failure it stays failed and
// returns zeros, so that callers check once.
type buf struct {
	b   []byte
	pos int
	bad bool
}

func (b *buf) err(what string) error {
	if !b.bad {
		return nil
	}
	return fmt.Errorf("%w: %s cut short at %#x", ErrDWARF, what, b.pos)
}

func (b *buf) fail() { b.bad, b.pos = true, len(b.b) }

func (b *buf) left() int { return len(b.b) - b.pos }

func (b *buf) skip(n uint64) {
	if n > uint64(b.left()) {
		b.fail()
		return
	}
	b.pos += int(n)
}

// bytes returns the next n bytes, nil on failure.
func (b *buf) bytes(n uint64) []byte {
	if n > uint64(b.left()) {
		b.fail()
		return nil
	}
	s := b.b[b.pos : b.pos+int(n) : b.pos+int(n)]
	b.pos += int(n)
	return s
}

func (b *buf) u8() uint8 {
	if b.left() < 1 {
		b.fail()
		return 0
	}
	v := b.b[b.pos]
	b.pos++
	return v
}

func (b *buf) u16() uint16 {
	if s := b.bytes(2); s != nil {
		return binary.LittleEndian.Uint16(s)
	}
	return 0
}

func (b *buf) u32() uint32 {
	if s := b.bytes(4); s != nil {
		return binary.LittleEndian.Uint32(s)
	}
	return 0
}

func (b *buf) u64() uint64 {
	if s := b.bytes(8); s != nil {
		return binary.LittleEndian.Uint64(s)
	}
	return 0
}

// uint reads an n-byte number, n from 0 to 8.
func (b *buf) uint(n int) uint64 { return word(b.bytes(uint64(n))) }

// offset reads a section offset of the 32- or 64-bit format.
func (b *buf) offset(format64 bool) uint64 {
	if format64 {
		return b.u64()
	}
	return uint64(b.u32())
}

// initialLength reads a unit's length and with it the format (DWARF 5 §7.4).
func (b *buf) initialLength() (n uint64, format64 bool) {
	v := b.u32()
	switch {
	case v == 0xffffffff:
		return b.u64(), true
	case v >= 0xfffffff0:
		b.fail()
		return 0, false
	}
	return uint64(v), false
}

// uleb reads an unsigned LEB128 number of at most 10 bytes, what exceeds 64 bits cut.
func (b *buf) uleb() uint64 {
	if b.pos < len(b.b) && b.b[b.pos] < 0x80 {
		b.pos++
		return uint64(b.b[b.pos-1])
	}
	v, n := uleb(b.b[b.pos:])
	if n == 0 {
		b.fail()
		return 0
	}
	b.pos += n
	return v
}

func (b *buf) sleb() int64 {
	v, n := sleb(b.b[b.pos:])
	if n == 0 {
		b.fail()
		return 0
	}
	b.pos += n
	return v
}

// cstring reads a string that ends in NUL.
func (b *buf) cstring() []byte {
	s := cstring(b.b, uint64(b.pos))
	if s == nil {
		b.fail()
		return nil
	}
	b.pos += len(s) + 1
	return s
}

// uleb decodes a LEB128 number; n is its length, 0 if it does not end within 10 bytes.
func uleb(s []byte) (v uint64, n int) {
	for i, c := range s {
		if i == 10 {
			return 0, 0
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

func sleb(s []byte) (v int64, n int) {
	for i, c := range s {
		if i == 10 {
			return 0, 0
		}
		v |= int64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c&0x40 != 0 && i < 9 {
				v |= -1 << (7 * (i + 1))
			}
			return v, i + 1
		}
	}
	return 0, 0
}

// lebLen is the length of the LEB128 number at the front of s, 0 if it does not end.
func lebLen(s []byte) int {
	for i, c := range s {
		if i == 10 {
			return 0
		}
		if c < 0x80 {
			return i + 1
		}
	}
	return 0
}

// cstring is the string at off in s without its NUL; nil if it does not end. An empty
// string is not nil.
func cstring(s []byte, off uint64) []byte {
	if off >= uint64(len(s)) {
		return nil
	}
	s = s[off:]
	n := bytes.IndexByte(s, 0)
	if n < 0 {
		return nil
	}
	return s[:n:n]
}

// word is a little-endian number of up to 8 bytes.
func word(b []byte) (v uint64) {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	for i, c := range b {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// text is b as a string that shares its memory.
func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
