package index

import (
	"math/bits"

	"ferrotrace/internal/x86"
)

// origin is where a byte comes from: which one it is of what an argument register held
// at the entry, or of the caller's frame. The zero value is anything else.
type origin struct {
	from x86.Reg // x86.RSP: the caller's frame
	n    int64   // of the byte, from 1 on; in the caller's frame its distance from the CFA and 1
}

// spoilt is what is at a place that held an argument and then something else.
var spoilt = origin{n: -1}

func (o origin) known() bool { return o.n > 0 }

// contents is where the bytes in registers and in the frame come from, on the straight
// path from the entry.
type contents struct {
	regs [x86.X0 + 8][16]origin
	// frame has bytes by their distance from the CFA.
	frame map[int64]origin
}

func atCall() *contents {
	c := &contents{frame: map[int64]origin{}}
	for r := range x86.Reg(len(c.regs)) {
		for i := range c.regs[r] {
			if argumentRegs.Has(r) {
				c.regs[r][i] = origin{r, int64(i) + 1}
			}
		}
	}
	return c
}

// at is where a byte of a frame comes from.
func (c *contents) at(off int64) origin {
	o, written := c.frame[off]
	if !written && off >= 0 {
		return origin{x86.RSP, off + 1}
	}
	return o
}

// put notes that a byte of a frame is stored. A place is one variable's for the whole
// of the straight path, as far as is known: what is stored there after an argument, and
// is not the same, is a later value of the variable.
func (c *contents) put(off int64, o origin) {
	if old := c.at(off); (old.known() || old == spoilt) && o != old {
		o = spoilt
	}
	c.frame[off] = o
}

// taken is what an instruction takes of a register or of memory, and how many bytes.
func (c *contents) taken(s *x86.Step) (v [16]origin, n int) {
	n = int(s.OpSize)
	switch {
	case s.Kind == x86.Push:
		n = 8
	case s.Mem.Has && s.MemSize > 0:
		n = s.MemSize
	case s.Kind == x86.Movzx || s.Kind == x86.Movsx:
		switch {
		case s.Opcode == 0x63: // movsxd
			n = 4
		case s.Opcode&1 == 0:
			n = 1
		default:
			n = 2
		}
	case s.Opcode&1 == 0: // mov of bytes
		n = 1
	}
	n = min(n, len(v))
	if s.Mem.Has && s.MemRead {
		if off, ok := loaded(s); ok {
			for i := range n {
				v[i] = c.at(off + int64(i))
			}
		}
		return v, n
	}
	src := s.Src
	if s.Kind == x86.Push || vectorStore(s) { // the one register that is read
		reads := s.Reads &^ (x86.RSP.Set() | s.Mem.Base.Set() | s.Mem.Index.Set())
		if bits.OnesCount64(uint64(reads)) != 1 {
			return v, n
		}
		src = x86.Reg(bits.TrailingZeros64(uint64(reads)))
	} else if s.Mem.Has && s.Kind != x86.MovStore {
		return v, n
	}
	if int(src) < len(c.regs) && !s.High {
		copy(v[:n], c.regs[src][:])
	}
	return v, n
}

// vectorStore says whether s stores the low bytes of an xmm register: movss, movsd,
// movups, movaps, movd, movq, movdqa.
func vectorStore(s *x86.Step) bool {
	if !s.MemWrite || s.Map != 1 {
		return false
	}
	switch s.Opcode {
	case 0x11, 0x29, 0x7e, 0x7f, 0xd6:
		return s.Reads>>x86.X0 != 0
	}
	return false
}

// step changes c to what it is after s.
func (c *contents) step(s *x86.Step) {
	if s.MemWrite || s.Stores {
		if to, known := stored(s); known {
			var v [16]origin
			if s.Stores && to.Size <= len(v) {
				v, _ = c.taken(s)
			}
			for i := range to.Size {
				o := origin{}
				if i < len(v) {
					o = v[i]
				}
				c.put(to.Offset+int64(i), o)
			}
		}
	}
	var v [16]origin
	kept := 0 // bytes of Dst that v is put into; those above are cleared by a write of 4 or 8
	switch {
	case s.Dst >= 16 || s.High:
	case loads(s), (s.Kind == x86.Movzx || s.Kind == x86.Movsx), copies(s):
		v, kept = c.taken(s)
	case s.Kind == x86.And && s.OpSize == 1 && s.Imm == 1 && s.HasImm:
		v[0], kept = c.regs[s.Dst][0], 1 // a bool, made sure of
	case s.Kind == x86.Shr && s.Imm >= 0 && s.Imm%8 == 0 && s.Imm < 64:
		from, size := int(s.Imm/8), int(s.OpSize)
		if from < size {
			kept = copy(v[:], c.regs[s.Dst][from:size])
		}
	}
	for r := range x86.Reg(len(c.regs)) {
		switch {
		case !s.Writes.Has(r):
		case r == s.Dst && kept > 0:
			if s.WritesFull.Has(r) {
				clear(c.regs[r][:])
			}
			copy(c.regs[r][:kept], v[:kept])
		default:
			clear(c.regs[r][:])
		}
	}
}

// copies are the argument registers whose lowest byte each register has as its own.
func (c *contents) copies() (from [x86.X0 + 8]x86.Reg) {
	for r := range from {
		from[r] = x86.NoReg
		if o := c.regs[r][0]; o.n == 1 && o.from != x86.RSP {
			from[r] = o.from
		}
	}
	return from
}

// run is where bytes that lie in a row come from: what an argument register held, or a
// word of the caller's frame, from its first byte on, at a distance from the value's.
type run struct {
	from  x86.Reg
	word  int64 // in the caller's frame: its distance from the CFA
	bytes [2]int64
}

// runs are where a value's bytes at off come from, as far as they are data; nil if one
// is not of an argument, or not at the place to which the first byte of its register
// leads: a value is stored whole, what is put together of parts may be a later one.
func (c *contents) runs(off int64, data []bool) []run {
	var found []run
next:
	for i, d := range data {
		if !d {
			continue
		}
		o := c.at(off + int64(i))
		if !o.known() {
			return nil
		}
		r := run{from: o.from}
		n := o.n - 1
		if o.from == x86.RSP {
			r.word, n = n&^7, n&7
		}
		r.bytes = [2]int64{int64(i) - n, int64(i) + 1}
		if r.bytes[0] < 0 {
			return nil
		}
		for j := range found {
			if f := &found[j]; f.from == r.from && f.word == r.word {
				if f.bytes[0] != r.bytes[0] {
					return nil
				}
				f.bytes[1] = r.bytes[1]
				continue next
			}
		}
		found = append(found, r)
	}
	return found
}

// argument says whether the size bytes at off are the first ones of what an argument
// register held, or of the caller's frame.
func (c *contents) argument(off int64, size int) bool {
	first := c.at(off)
	for i := range int64(size) {
		if o := c.at(off + i); !o.known() || o != (origin{first.from, first.n + i}) || first.from != x86.RSP && o.n != i+1 {
			return false
		}
	}
	return size > 0
}
