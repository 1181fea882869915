package x86

// form says which operands of a vector instruction are read and written.
type form uint8

const (
	fBad   form = iota
	fRMW        // reg = f(reg or vvvv, rm)
	fMov        // reg = f(rm)
	fSto        // rm = f(reg)
	fCmp        // flags = f(reg, rm)
	fToG        // general register reg = f(rm)
	fToGrm      // general register or memory rm = f(reg)
	fFromG      // reg = f(general register or memory rm)
	fInsG       // reg = f(reg or vvvv, general register or memory rm)
	fShift      // rm (VEX: vvvv) = f(rm), immediate
	fMask       // no vector or general register written: the result is a mask register
	fMMX        // MMX registers only, which are not tracked
	fNone       // no operands tracked
)

// vector0F decodes the legacy SSE and MMX part of map 0F.
func (d *dec) vector0F() {
	op := d.Opcode
	if op == 0x77 { // emms
		d.OpSize = 0
		return
	}
	d.OpSize = 0
	d.vlen = 16
	switch {
	case op >= 0x10 && op <= 0x17, op >= 0x28 && op <= 0x2f, op >= 0x50 && op <= 0x76,
		op >= 0x7c && op <= 0x7f, op == 0xc2, op >= 0xc4 && op <= 0xc6, op >= 0xd0 && op <= 0xfe:
	case op == 0x78 || op == 0x79:
		d.oddities()
		return
	default:
		d.fail()
		return
	}
	d.modrm()
	if op >= 0x70 && op <= 0x73 || op == 0xc2 || op >= 0xc4 && op <= 0xc6 {
		d.imm(1)
	}
	d.vector()
}

// oddities is 0F 78 and 79: vmread and vmwrite, or AMD's extrq and insertq.
func (d *dec) oddities() {
	d.modrm()
	switch d.pfx {
	case 0:
		d.OpSize = 8
		if d.Opcode == 0x78 {
			d.read(d.reg)
			d.rmWrite(8)
		} else {
			d.read(d.reg)
			d.rmRead(8)
		}
		d.setFlags()
	case 0x66, 0xf2:
		if d.mod != 3 {
			d.fail()
		}
		if d.Opcode == 0x78 {
			d.imm(1)
			d.num(1)
		}
		d.Reads |= d.regX.Set() | d.rmX.Set()
		d.writeX(d.regX)
		d.writeX(d.rmX)
		d.Loose = true
	default:
		d.fail()
	}
}

// map38 decodes legacy map 0F38.
func (d *dec) map38() {
	d.modrm()
	op := d.Opcode
	osz := int(d.osz)
	switch {
	case op >= 0xf0 && op <= 0xf1 && d.pfx == 0xf2: // crc32
		w := 1
		if op == 0xf1 {
			w = osz
		}
		d.rmRead(w)
		d.read(d.reg)
		d.Dst = d.reg
		d.write(d.reg, 4)
		return
	case op == 0xf0: // movbe
		d.load(osz)
		d.Dst = d.reg
		d.write(d.reg, osz)
		return
	case op == 0xf1:
		d.read(d.reg)
		d.store(osz)
		return
	case op == 0xf6 && d.pfx != 0: // adcx, adox
		d.rmRead(osz)
		d.read(d.reg)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.useFlags()
		d.someFlags()
		return
	case op == 0xf5, op == 0xf6: // wruss, wrss
		d.read(d.reg)
		d.store(osz)
		return
	case op == 0xf8, op == 0xf9, op == 0xfc: // movdir64b, enqcmd, movdiri, aadd
		d.read(d.reg)
		d.store(0)
		d.MemRead = true
		if op == 0xf8 {
			d.Mem.Vague = true
			d.someFlags()
		}
		return
	case op >= 0x80 && op <= 0x82: // invept, invvpid, invpcid
		d.read(d.reg)
		d.load(16)
		d.someFlags()
		return
	case op >= 0xd8 && op <= 0xda || op == 0xfa || op == 0xfb: // key locker
		d.loose()
		return
	}
	d.OpSize = 0
	d.vlen = 16
	if op > 0x41 && op < 0xc8 {
		d.fail()
		return
	}
	d.vector()
}

// map3A decodes legacy map 0F3A.
func (d *dec) map3A() {
	d.modrm()
	d.imm(1)
	d.OpSize = 0
	d.vlen = 16
	d.vector()
}

// vector notes what an instruction with ModRM already read does to registers
// and memory. Legacy SSE, VEX and EVEX share their opcodes.
func (d *dec) vector() {
	if d.bad != nil {
		return
	}
	f := fRMW
	size := 0 // of memory; 0 is the vector length
	switch d.Map {
	case 1:
		f, size = d.form0F()
	case 2:
		f, size = d.form38()
	case 3:
		f, size = d.form3A()
	case 5:
		f, size = d.form5()
	case 6: // fused multiply-add of half-precision floats
		d.Reads |= d.regX.Set()
		d.Loose = true
	}
	if f == fNone {
		return
	}
	d.apply(f, size)
}

func (d *dec) rmVec(size int) {
	if d.mod == 3 {
		d.Reads |= d.rmX.Set()
	} else {
		d.load(size)
	}
}

func (d *dec) apply(f form, size int) {
	if size == 0 {
		size = d.vlen
	}
	gsize := 4
	if d.w {
		gsize = 8
	}
	switch f {
	case fBad:
		d.fail()
	case fRMW:
		d.rmVec(size)
		a := d.regX
		if d.Vex {
			a = X0 + d.vvvv
		}
		zero := d.mod == 3 && a == d.rmX && d.zeroIdiom()
		if zero {
			d.Reads &^= d.rmX.Set()
		} else {
			d.Reads |= a.Set()
		}
		d.Dst = d.regX
		d.writeX(d.regX)
	case fMov:
		d.rmVec(size)
		d.Dst = d.regX
		d.writeX(d.regX)
	case fSto:
		d.Reads |= d.regX.Set()
		if d.mod == 3 {
			d.Dst = d.rmX
			d.writeX(d.rmX)
		} else {
			d.Src = d.regX
			d.store(size)
		}
	case fCmp:
		d.Reads |= d.regX.Set()
		d.rmVec(size)
		d.setFlags()
	case fToG:
		d.rmVec(size)
		d.Dst = d.reg
		d.write(d.reg, gsize)
	case fToGrm:
		d.Reads |= d.regX.Set()
		if d.mod == 3 {
			d.Dst = d.rm
			d.write(d.rm, gsize)
		} else {
			d.Src = d.regX
			d.store(size)
		}
	case fFromG, fInsG:
		if d.mod == 3 {
			d.read(d.rm)
		} else {
			d.load(size)
		}
		if f == fInsG {
			if d.Vex {
				d.Reads |= (X0 + d.vvvv).Set()
			} else {
				d.Reads |= d.regX.Set()
			}
		}
		d.Dst = d.regX
		d.writeX(d.regX)
	case fShift:
		d.rmVec(size)
		d.Dst = d.rmX
		if d.Vex {
			d.Dst = X0 + d.vvvv
		}
		d.writeX(d.Dst)
	case fMask:
		d.Reads |= (X0 + d.vvvv).Set()
		d.rmVec(size)
	case fMMX:
		if d.mod != 3 {
			d.load(8)
		}
	}
}

// zeroIdiom says whether the operation on twice the same register gives a
// constant: xor, and-not, subtraction and comparison of integers.
func (d *dec) zeroIdiom() bool {
	if d.Map != 1 {
		return false
	}
	switch d.Opcode {
	case 0x57, 0xef, 0x55, 0xdf, 0xf8, 0xf9, 0xfa, 0xfb, 0x74, 0x75, 0x76:
		return !d.Evex || !d.masked
	}
	return false
}

func (d *dec) form0F() (form, int) {
	op, pfx := d.Opcode, d.pfx
	scalar := pfx == 0xf3 || pfx == 0xf2
	ssize := 4 // of a scalar
	if pfx == 0xf2 {
		ssize = 8
	}
	fp := 0 // size of a packed or scalar operand
	if scalar {
		fp = ssize
	}
	mmx := !d.Vex && pfx == 0
	switch {
	case op >= 0x51 && op <= 0x53: // sqrt, rsqrt, rcp
		return fMov, fp
	case op == 0x5a || op == 0x5b, op == 0xe6:
		return fMov, fp
	case op >= 0x54 && op <= 0x5f:
		return fRMW, fp
	case d.Vex && !d.Evex && (op >= 0x41 && op <= 0x4b || op == 0x98 || op == 0x99):
		if op >= 0x98 {
			d.setFlags()
		}
		return fNone, 0 // mask registers only
	}
	switch op {
	case 0x10:
		if scalar && d.Vex && d.mod == 3 {
			d.Reads |= (X0 + d.vvvv).Set()
		}
		return fMov, fp
	case 0x11:
		return fSto, fp
	case 0x12:
		if pfx == 0 || pfx == 0x66 {
			return fMov, 8
		}
		return fMov, 0
	case 0x13, 0x17:
		if d.mod == 3 {
			return fBad, 0
		}
		return fSto, 8
	case 0x14, 0x15:
		return fRMW, 0
	case 0x16:
		if pfx == 0xf3 {
			return fMov, 0
		}
		return fRMW, 8
	case 0x28:
		return fMov, 0
	case 0x29:
		return fSto, 0
	case 0x2a:
		if scalar {
			return fFromG, 4 + 4*b2i(d.w)
		}
		return fMov, 8
	case 0x2b:
		if scalar {
			return fSto, ssize // SSE4a
		}
		return fSto, 0
	case 0x2c, 0x2d:
		if scalar {
			return fToG, ssize
		}
		if d.mod == 3 {
			d.Reads |= d.rmX.Set()
		}
		return fMMX, 0
	case 0x2e, 0x2f:
		return fCmp, 4 + 4*b2i(pfx == 0x66)
	case 0x50:
		if d.mod != 3 {
			return fBad, 0
		}
		return fToG, 0
	case 0x6e:
		if mmx {
			if d.mod == 3 {
				d.read(d.rm)
			}
			return fMMX, 0
		}
		return fFromG, 4 + 4*b2i(d.w)
	case 0x6f:
		if mmx {
			return fMMX, 0
		}
		return fMov, 0
	case 0x70:
		if mmx {
			return fMMX, 0
		}
		return fMov, 0
	case 0x71, 0x72, 0x73:
		if mmx {
			return fMMX, 0
		}
		if d.mod != 3 && !d.Evex {
			return fBad, 0
		}
		return fShift, 0
	case 0x77:
		return fBad, 0
	case 0x78, 0x79: // EVEX conversions to unsigned
		if scalar {
			return fToG, ssize
		}
		return fMov, 0
	case 0x7a:
		return fMov, 0
	case 0x7b:
		if scalar {
			return fFromG, 4 + 4*b2i(d.w)
		}
		return fMov, 0
	case 0x7e:
		switch {
		case pfx == 0xf3:
			return fMov, 8
		case mmx:
			if d.mod == 3 {
				d.Dst = d.rm
				d.write(d.rm, 4+4*b2i(d.w))
			} else {
				d.store(4 + 4*b2i(d.w))
			}
			return fNone, 0
		}
		return fToGrm, 4 + 4*b2i(d.w)
	case 0x7f:
		if mmx {
			if d.mod != 3 {
				d.store(8)
			}
			return fNone, 0
		}
		return fSto, 0
	case 0x90, 0x91, 0x92, 0x93: // kmov
		switch {
		case op == 0x91:
			d.store(0)
		case op == 0x92:
			d.read(d.rm)
		case op == 0x93:
			d.Dst = d.reg
			d.write(d.reg, 8)
		case d.mod != 3:
			d.load(0)
		}
		return fNone, 0
	case 0xae: // vldmxcsr, vstmxcsr
		if d.regLo == 2 {
			d.load(4)
		} else {
			d.store(4)
		}
		return fNone, 0
	case 0xc2:
		if d.Evex {
			return fMask, fp
		}
		return fRMW, fp
	case 0xc4:
		if mmx {
			if d.mod == 3 {
				d.read(d.rm)
			}
			return fMMX, 0
		}
		return fInsG, 2
	case 0xc5:
		if d.mod != 3 {
			return fBad, 0
		}
		if mmx {
			d.Dst = d.reg
			d.write(d.reg, 4)
			return fNone, 0
		}
		return fToG, 0
	case 0xc6:
		return fRMW, 0
	case 0xd6:
		switch {
		case pfx == 0x66:
			return fSto, 8
		case pfx == 0xf3:
			d.Dst = d.regX
			d.writeX(d.regX)
			return fNone, 0
		case pfx == 0xf2:
			d.Reads |= d.rmX.Set()
			return fNone, 0
		}
		return fBad, 0
	case 0xd7:
		if d.mod != 3 {
			return fBad, 0
		}
		if mmx {
			d.Dst = d.reg
			d.write(d.reg, 4)
			return fNone, 0
		}
		return fToG, 0
	case 0xe7:
		if mmx {
			d.store(8)
			return fNone, 0
		}
		return fSto, 0
	case 0xf0:
		if d.mod == 3 || pfx != 0xf2 {
			return fBad, 0
		}
		return fMov, 0
	case 0xf7: // maskmovdqu, maskmovq: to [rdi]
		if d.mod != 3 {
			return fBad, 0
		}
		if pfx == 0x66 {
			d.Reads |= d.regX.Set() | d.rmX.Set()
		}
		d.read(RDI)
		d.MemWrite = true
		return fNone, 0
	}
	if op == 0x58 || op == 0x59 || op >= 0x5c && op <= 0x5f {
		return fRMW, fp
	}
	if d.Evex && pfx == 0x66 && (op == 0x64 || op == 0x65 || op == 0x66 || op >= 0x74 && op <= 0x76) {
		return fMask, 0
	}
	if op >= 0x60 && mmx {
		return fMMX, 0
	}
	if d.Vex && op < 0x60 && op != 0x58 {
		return fBad, 0
	}
	if op >= 0x80 && op < 0xd0 {
		return fBad, 0
	}
	return fRMW, 0
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *dec) form38() (form, int) {
	op, pfx := d.Opcode, d.pfx
	if d.Vex && op >= 0xe0 && !d.Evex {
		d.bmi()
		return fNone, 0
	}
	if !d.Vex && pfx == 0 && op <= 0x1e && op != 0x10 && op != 0x14 && op != 0x15 && op != 0x17 {
		return fMMX, 0
	}
	if d.Evex && pfx == 0xf3 {
		switch {
		case op >= 0x10 && op <= 0x15, op >= 0x20 && op <= 0x25, op >= 0x30 && op <= 0x35:
			d.masked = true // narrowing moves: the size is a part of the vector length
			return fSto, 0
		case op == 0x28 || op == 0x38 || op == 0x2a || op == 0x3a:
			d.Dst = d.regX // from a mask register
			d.writeX(d.regX)
			return fNone, 0
		case op == 0x29 || op == 0x39 || op == 0x26 || op == 0x27:
			return fMask, 0
		}
	}
	switch op {
	case 0x10, 0x14, 0x15: // blendv
		if !d.Vex {
			d.Reads |= X0.Set()
		}
		return fRMW, 0
	case 0x17:
		return fCmp, 0
	case 0x0e, 0x0f:
		if d.Vex && !d.Evex {
			return fCmp, 0
		}
	case 0x13, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x2a, 0x41, 0x42, 0x43,
		0x58, 0x59, 0x5a, 0x5b, 0x78, 0x79, 0xb0, 0xb1, 0x88, 0x89, 0xc4, 0xc8, 0xca, 0xcc:
		if !d.Vex && op >= 0xc8 {
			return fRMW, 0 // sha
		}
		if d.Evex && (op == 0x43) || op == 0xb0 && d.Evex {
			return fRMW, 0
		}
		return fMov, 0
	case 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35:
		return fMov, 0
	case 0x26, 0x27, 0x29, 0x37:
		if d.Evex {
			return fMask, 0
		}
	case 0x2e, 0x2f, 0x8e: // vmaskmov, vpmaskmov stores
		if d.Vex && !d.Evex {
			d.Reads |= d.regX.Set() | (X0 + d.vvvv).Set()
			d.store(0)
			return fNone, 0
		}
	case 0x49, 0x4b, 0x5c, 0x5e, 0x6c:
		if d.Vex && !d.Evex { // AMX, and VNNI-less neighbours
			if d.mod != 3 {
				d.load(0)
				d.MemWrite = op == 0x49 && pfx == 0x66 || op == 0x4b && pfx == 0xf3
			}
			return fNone, 0
		}
	case 0x63, 0x8a, 0x8b: // vcompress, vpcompress
		d.masked = true
		return fSto, 0
	case 0x7a, 0x7b, 0x7c:
		if d.Evex { // broadcast from a general register
			if d.mod != 3 {
				return fBad, 0
			}
			return fFromG, 0
		}
	case 0x90, 0x91, 0x92, 0x93: // gather: the mask register is cleared
		if d.Vex && !d.Evex {
			d.writeX(X0 + d.vvvv)
			d.Reads |= (X0 + d.vvvv).Set()
		}
		d.Reads |= d.regX.Set()
		d.load(0)
		d.Mem.Vague = true
		d.writeX(d.regX)
		return fNone, 0
	case 0xa0, 0xa1, 0xa2, 0xa3: // scatter
		if d.Evex {
			d.Reads |= d.regX.Set()
			d.store(0)
			d.Mem.Vague = true
			return fNone, 0
		}
	case 0xc6, 0xc7:
		if d.Evex {
			return fNone, 0
		}
		return fBad, 0
	case 0xcb: // sha256rnds2
		if !d.Vex {
			d.Reads |= X0.Set()
		}
		return fRMW, 0
	case 0xdb:
		return fMov, 0
	}
	if !d.Vex && (op > 0x0b && op < 0x28 || op > 0x41 && op < 0xc8) {
		return fBad, 0
	}
	if d.Vex && (op >= 0x96 || op >= 0x45 && op <= 0x55 || op == 0x75 || op == 0x7d || op == 0x7e || op == 0x7f) {
		// Fused multiply-add and dot products read the destination too.
		d.Reads |= d.regX.Set()
		d.Loose = d.Loose || op < 0x96 || op >= 0xc0
	}
	return fRMW, 0
}
