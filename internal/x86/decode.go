package x86

import "encoding/binary"

// maxLen is the longest instruction that a processor accepts (SDM vol. 2, 2.3.11).
const maxLen = 15

// dec is the state of decoding one instruction.
type dec struct {
	Inst
	code []byte
	p    int
	bad  error

	rex       uint8
	pfx       uint8 // mandatory prefix: 0, 0x66, 0xf2 or 0xf3, the last of f2/f3 winning
	osz       uint8 // operand size: 2, 4 or 8
	hasREX    bool
	mod       uint8
	reg, rm   Reg // general-purpose number, with REX.R and REX.B
	regLo     uint8
	regX, rmX Reg // the same fields as vector registers
	vvvv      Reg // VEX.vvvv as a number 0..31
	vlen      int // vector length in bytes
	masked    bool
	zeroing   bool
	bcast     bool
	vsib      bool
	w         bool // VEX.W
}

// Decode decodes the instruction at the start of code, which lies at addr. It
// returns ErrTruncated if code ends inside it, else ErrInvalid if it is none;
// the Inst then means nothing. It looks at 15 bytes at most.
func Decode(code []byte, addr uint64) (Inst, error) {
	if len(code) > maxLen {
		code = code[:maxLen]
	}
	var d dec
	d.code = code
	d.Addr = addr
	d.Dst, d.Src = NoReg, NoReg
	d.Mem.Base, d.Mem.Index = NoReg, NoReg
	d.decode()
	if d.bad != nil {
		// Running past 15 bytes is no truncation: no more bytes would help.
		if d.bad == ErrTruncated && len(code) == maxLen {
			d.bad = ErrInvalid
		}
		return Inst{}, d.bad
	}
	d.Len = d.p
	if d.Mem.RIPRel {
		d.Mem.Target = addr + uint64(d.p) + uint64(d.Mem.Disp)
		if d.Prefixes&Prefix67 != 0 {
			d.Mem.Target = uint64(uint32(d.Mem.Target))
		}
	}
	switch d.Kind {
	case Jmp, Jcc, Call:
		d.Target = addr + uint64(d.p) + uint64(d.Imm)
	}
	return d.Inst, nil
}

func (d *dec) fail() { d.bad = ErrInvalid }

// byte returns the next byte, 0 and bad at the end.
func (d *dec) byte() byte {
	if d.p >= len(d.code) {
		if d.bad == nil {
			d.bad = ErrTruncated
		}
		return 0
	}
	b := d.code[d.p]
	d.p++
	return b
}

// num returns the next n bytes as a sign-extended number.
func (d *dec) num(n int) int64 {
	if len(d.code)-d.p < n {
		d.p = len(d.code)
		if d.bad == nil {
			d.bad = ErrTruncated
		}
		return 0
	}
	b := d.code[d.p:]
	d.p += n
	switch n {
	case 1:
		return int64(int8(b[0]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

func (d *dec) imm(n int) {
	d.Imm = d.num(n)
	d.HasImm = true
}

// immz reads an immediate of operand size, 4 bytes at most.
func (d *dec) immz() { d.imm(int(min(d.osz, 4))) }

func (d *dec) decode() {
	var op byte
prefixes:
	for {
		op = d.byte()
		if d.bad != nil {
			return
		}
		switch op {
		case 0x26:
			d.Prefixes |= PrefixES
		case 0x2e:
			d.Prefixes |= PrefixCS
		case 0x36:
			d.Prefixes |= PrefixSS
		case 0x3e:
			d.Prefixes |= PrefixDS
		case 0x64:
			d.Prefixes |= PrefixFS
		case 0x65:
			d.Prefixes |= PrefixGS
		case 0x66:
			d.Prefixes |= Prefix66
			if d.pfx == 0 {
				d.pfx = 0x66
			}
		case 0x67:
			d.Prefixes |= Prefix67
		case 0xf0:
			d.Prefixes |= PrefixLock
		case 0xf2, 0xf3:
			d.pfx = op
			if op == 0xf2 {
				d.Prefixes |= PrefixF2
			} else {
				d.Prefixes |= PrefixF3
			}
		default:
			if op&0xf0 != 0x40 {
				break prefixes
			}
			// A REX counts only directly before the opcode.
			d.rex, d.hasREX = op, true
			continue
		}
		d.rex, d.hasREX = 0, false
	}
	d.REX = d.rex
	d.osz = 4
	if d.rex&8 != 0 {
		d.osz, d.w = 8, true
	} else if d.Prefixes&Prefix66 != 0 {
		d.osz = 2
	}
	d.OpSize = d.osz
	d.Opcode = op
	switch op {
	case 0x0f:
		d.Opcode = d.byte()
		switch d.Opcode {
		case 0x38:
			d.Map, d.Opcode = 2, d.byte()
		case 0x3a:
			d.Map, d.Opcode = 3, d.byte()
		default:
			d.Map = 1
		}
		if d.bad != nil {
			return
		}
		switch d.Map {
		case 1:
			d.twoByte()
		case 2:
			d.map38()
		case 3:
			d.map3A()
		}
	case 0xc4, 0xc5:
		d.vex(op)
	case 0x62:
		d.evex()
	default:
		d.oneByte()
	}
	if d.Prefixes&PrefixLock != 0 && !(d.MemRead && d.MemWrite) {
		// lock is #UD but on a read-modify-write of memory.
		d.fail()
	}
}

// modrm reads ModRM, SIB and displacement (SDM vol. 2, 2.1.5 and 2.2.1).
func (d *dec) modrm() {
	b := d.byte()
	d.mod = b >> 6
	d.regLo = b >> 3 & 7
	d.reg = Reg(d.regLo | d.rex<<1&8)
	d.rm = Reg(b&7 | d.rex<<3&8)
	if !d.Vex {
		d.regX, d.rmX = X0+d.reg, X0+d.rm
	}
	if d.mod == 3 || d.bad != nil {
		return
	}
	m := &d.Mem
	m.Has = true
	m.Seg = d.Prefixes&(PrefixFS|PrefixGS) != 0
	base := b & 7
	if base == 4 {
		s := d.byte()
		base = s & 7
		index := Reg(s>>3&7 | d.rex<<2&8)
		if d.vsib {
			d.Reads |= (X0 + index).Set()
		} else if index != RSP {
			m.Index, m.Scale = index, 1<<(s>>6)
		}
	} else if d.vsib {
		d.fail()
		return
	}
	switch {
	case base == 5 && d.mod == 0:
		if b&7 == 5 {
			m.RIPRel, m.Base = true, RIP
		}
		m.Disp = d.num(4)
	default:
		m.Base = Reg(base | d.rex<<3&8)
		switch d.mod {
		case 1:
			m.Disp = d.num(1)
		case 2:
			m.Disp = d.num(4)
		}
	}
	if d.Prefixes&Prefix67 != 0 && !m.RIPRel {
		// A 32-bit address wraps; nobody computes frame slots so.
		m.Vague = true
	}
	d.Reads |= m.Base.Set() | m.Index.Set()
}

// gpr8 returns the register that holds byte register r: without REX, 4 to 7
// are ah, ch, dh and bh.
func (d *dec) gpr8(r Reg) Reg {
	if !d.hasREX && r >= 4 && r < 8 {
		d.High = true
		return r - 4
	}
	return r
}

// sized maps register number r of the given operand size to the register.
func (d *dec) sized(r Reg, size int) Reg {
	if size == 1 {
		return d.gpr8(r)
	}
	return r
}

func (d *dec) read(r Reg) { d.Reads |= r.Set() }

// write notes a write of size bytes to general-purpose register r.
func (d *dec) write(r Reg, size int) {
	d.Writes |= r.Set()
	if size >= 4 {
		d.WritesFull |= r.Set()
	}
}

func (d *dec) writeX(r Reg) {
	d.Writes |= r.Set()
	d.WritesFull |= r.Set()
}

// load and store note an access to the memory operand.
func (d *dec) load(size int)  { d.MemRead, d.MemSize = true, size }
func (d *dec) store(size int) { d.MemWrite, d.MemSize = true, size }

// rmRead and rmWrite note an access of size bytes to the r/m operand.
func (d *dec) rmRead(size int) {
	if d.mod == 3 {
		d.read(d.sized(d.rm, size))
	} else {
		d.load(size)
	}
}

func (d *dec) rmWrite(size int) {
	if d.mod == 3 {
		d.write(d.sized(d.rm, size), size)
	} else {
		d.store(size)
	}
}

// setFlags notes that all status flags are replaced, someFlags that a part is.
func (d *dec) setFlags() {
	d.Writes |= Flags.Set()
	d.WritesFull |= Flags.Set()
}
func (d *dec) someFlags() { d.Writes |= Flags.Set() }
func (d *dec) useFlags()  { d.Reads |= Flags.Set() }

// loose marks the register sets as over-approximations: system instructions
// that take and return things in rax, rcx and rdx.
func (d *dec) loose() {
	d.Loose = true
	d.Reads |= RAX.Set() | RCX.Set() | RDX.Set()
	d.Writes |= RAX.Set() | RCX.Set() | RDX.Set() | RBX.Set() | Flags.Set()
}

// branch sets a direct branch whose displacement has n bytes. A 16-bit operand
// size is read differently by Intel and AMD, and no compiler emits it.
func (d *dec) branch(k Kind, n int) {
	if d.osz == 2 {
		d.fail()
		return
	}
	d.Kind = k
	d.OpSize = 8
	d.Imm = d.num(n)
}
