package x86

// vex decodes an instruction with a two- or three-byte VEX prefix (SDM vol. 2,
// 2.3). C4 and C5 are always VEX in 64-bit mode.
func (d *dec) vex(first byte) {
	d.Vex = true
	if d.hasREX || d.Prefixes&(Prefix66|PrefixF2|PrefixF3|PrefixLock) != 0 {
		d.fail()
		return
	}
	b := d.byte()
	d.rex = ^b >> 5 & 4 // R
	m := byte(1)
	if first == 0xc4 {
		d.rex = ^b >> 5 & 7
		m = b & 31
		b = d.byte()
		d.w = b&0x80 != 0
		if d.w {
			d.rex |= 8
		}
	}
	d.REX = d.rex
	d.osz = 4
	if d.w {
		d.osz = 8
	}
	d.vvvv = Reg(^b >> 3 & 15)
	d.vlen = 16 << (b >> 2 & 1)
	d.pfx = [4]uint8{0, 0x66, 0xf3, 0xf2}[b&3]
	d.Opcode = d.byte()
	d.Map = m
	d.OpSize = 0
	if d.bad != nil {
		return
	}
	if m == 1 && d.Opcode == 0x77 { // vzeroupper, vzeroall: no ModRM
		if d.vlen == 32 {
			for r := X0; r < X0+16; r++ {
				d.writeX(r)
			}
		}
		return
	}
	switch m {
	case 1, 2, 3:
		d.vexModRM()
		d.vector()
	default: // 7 has wrmsrns with an immediate; the rest is not assigned
		d.fail()
	}
}

// evex decodes an instruction with an EVEX prefix (SDM vol. 2, 2.7). The bits
// that APX gives a meaning must have their old values.
func (d *dec) evex() {
	d.Vex, d.Evex = true, true
	if d.hasREX || d.Prefixes&(Prefix66|PrefixF2|PrefixF3|PrefixLock) != 0 {
		d.fail()
		return
	}
	p0, p1, p2 := d.byte(), d.byte(), d.byte()
	d.Opcode = d.byte()
	if d.bad != nil {
		return
	}
	d.Map = p0 & 7
	if p0&8 != 0 || p1&4 == 0 || d.Map == 0 || d.Map == 4 || d.Map == 7 {
		d.fail()
		return
	}
	d.rex = ^p0 >> 5 & 7
	d.osz = 4
	if p1&0x80 != 0 {
		d.w, d.osz = true, 8
		d.rex |= 8
	}
	d.REX = d.rex
	d.pfx = [4]uint8{0, 0x66, 0xf3, 0xf2}[p1&3]
	d.vvvv = Reg(^p1>>3&15 | ^p2<<1&16)
	d.masked = p2&7 != 0
	d.zeroing = p2&0x80 != 0
	d.bcast = p2&0x10 != 0
	d.vlen = 16 << (p2 >> 5 & 3)
	if d.vlen > 64 {
		// LL = 3 is only valid as a rounding mode of register operands.
		d.vlen = 64
	}
	d.OpSize = 0
	d.vexModRM()
	// The fifth bit of a vector register: R' for reg, X for rm.
	if p0&0x10 == 0 {
		d.regX += 16
	}
	if p0&0x40 == 0 {
		d.rmX += 16
	}
	if d.mod == 1 {
		d.scaleDisp()
	}
	d.vector()
	if d.masked {
		if d.MemWrite {
			d.MemSize = 0 // which bytes is not known
		}
		if !d.zeroing {
			d.Reads |= d.Writes
		}
	}
}

// vexModRM reads ModRM and what follows, immediates too.
func (d *dec) vexModRM() {
	op := d.Opcode
	if d.Map == 2 && d.pfx == 0x66 && (op >= 0x90 && op <= 0x93 || d.Evex && (op >= 0xa0 && op <= 0xa3 || op == 0xc6 || op == 0xc7)) {
		d.vsib = true
	}
	d.modrm()
	d.regX, d.rmX = X0+d.reg, X0+d.rm
	switch {
	case d.Map == 3:
		d.imm(1)
	case d.Map == 1 && (op >= 0x70 && op <= 0x73 || op == 0xc2 || op >= 0xc4 && op <= 0xc6):
		d.imm(1)
	}
}

// scaleDisp multiplies an EVEX disp8 by the operand's size (SDM vol. 2, 2.7.5,
// "disp8*N") for the plain moves, which is what fills stack slots. For others
// the displacement is marked as not known.
func (d *dec) scaleDisp() {
	n := 0
	op := d.Opcode
	switch d.Map {
	case 1:
		switch op {
		case 0x10, 0x11:
			n = d.vlen
			if d.pfx == 0xf3 {
				n = 4
			} else if d.pfx == 0xf2 {
				n = 8
			}
		case 0x28, 0x29, 0x2b, 0x6f, 0x7f, 0xe7:
			n = d.vlen
		case 0xd6:
			n = 8
		case 0x6e, 0x7e:
			n = 4
			if d.w || d.pfx == 0xf3 {
				n = 8
			}
		}
	case 5:
		if op == 0x10 || op == 0x11 {
			n = 2
		}
	}
	if n == 0 {
		d.Mem.Vague = true
		return
	}
	d.Mem.Disp *= int64(n)
}
