package x86

// bmi decodes the VEX instructions on general registers (SDM vol. 2, BMI1 and
// BMI2), and cmpccxadd.
func (d *dec) bmi() {
	op, pfx := d.Opcode, d.pfx
	osz := int(d.osz)
	d.OpSize = d.osz
	switch {
	case op <= 0xef:
		if pfx != 0x66 || d.mod == 3 {
			d.fail()
			return
		}
		// cmpccxadd: reg = [m]; if cond, [m] += vvvv
		d.read(d.reg)
		d.read(d.vvvv)
		d.write(d.reg, osz)
		d.store(osz)
		d.MemRead = true
		d.setFlags()
	case op == 0xf2: // andn
		d.rmRead(osz)
		d.read(d.vvvv)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.setFlags()
	case op == 0xf3: // blsr, blsmsk, blsi
		if d.regLo == 0 || d.regLo > 3 {
			d.fail()
			return
		}
		d.rmRead(osz)
		d.Dst = d.vvvv
		d.write(d.vvvv, osz)
		d.setFlags()
	case op == 0xf5: // bzhi, pext, pdep
		d.rmRead(osz)
		d.read(d.vvvv)
		d.Dst = d.reg
		d.write(d.reg, osz)
		if pfx == 0 {
			d.setFlags()
		}
	case op == 0xf6: // mulx
		d.read(RDX)
		d.rmRead(osz)
		d.write(d.reg, osz)
		d.write(d.vvvv, osz)
	case op == 0xf7: // bextr, shlx, sarx, shrx
		d.rmRead(osz)
		d.read(d.vvvv)
		d.Dst = d.reg
		d.write(d.reg, osz)
		if pfx == 0 {
			d.setFlags()
		}
	default:
		d.fail()
	}
}

func (d *dec) form3A() (form, int) {
	op := d.Opcode
	switch op {
	case 0x0f:
		if !d.Vex && d.pfx == 0 {
			return fMMX, 0
		}
	case 0x08, 0x09:
		return fMov, 0
	case 0x0a, 0x0b: // roundss, roundsd
		if !d.Vex {
			return fMov, 4 + 4*int(op&1)
		}
		return fRMW, 4 + 4*int(op&1)
	case 0x00, 0x01, 0x04, 0x05:
		if d.Vex {
			return fMov, 0
		}
		return fBad, 0
	case 0x14:
		return fToGrm, 1
	case 0x15:
		return fToGrm, 2
	case 0x16:
		return fToGrm, 4 + 4*b2i(d.w)
	case 0x17:
		return fToGrm, 4
	case 0x19, 0x39:
		return fSto, 16
	case 0x1b, 0x3b:
		return fSto, 32
	case 0x1d:
		return fSto, d.vlen / 2
	case 0x1e, 0x1f, 0x3e, 0x3f, 0x66, 0x67:
		if d.Evex {
			return fMask, 0
		}
	case 0x20:
		return fInsG, 1
	case 0x22:
		return fInsG, 4 + 4*b2i(d.w)
	case 0x30, 0x31, 0x32, 0x33:
		if d.Vex && !d.Evex {
			return fNone, 0 // kshift
		}
	case 0x4a, 0x4b, 0x4c, 0x48, 0x49, 0x5c, 0x5d, 0x5e, 0x5f, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
		0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d, 0x7e, 0x7f:
		if d.Vex && !d.Evex { // the fourth operand is in the immediate
			d.Reads |= (X0 + Reg(uint8(d.Imm)>>4)).Set()
		}
	case 0x60, 0x61, 0x62, 0x63: // pcmpestrm, pcmpestri, pcmpistrm, pcmpistri
		d.Reads |= d.regX.Set()
		d.rmVec(16)
		if op < 0x62 {
			d.read(RAX)
			d.read(RDX)
		}
		if op&1 != 0 {
			d.write(RCX, 4)
		} else {
			d.writeX(X0)
		}
		d.setFlags()
		return fNone, 0
	case 0x26, 0x27, 0x56, 0x57:
		if op < 0x50 || d.Evex {
			return fMov, 0
		}
	case 0xdf:
		return fMov, 0
	case 0xf0:
		if d.Vex && !d.Evex { // rorx
			d.OpSize = d.osz
			d.rmRead(int(d.osz))
			d.Dst = d.reg
			d.write(d.reg, int(d.osz))
			return fNone, 0
		}
		d.loose() // hreset
		return fNone, 0
	}
	if d.Evex && (op == 0x25 || op == 0x54 || op == 0x55 || op >= 0x70 && op <= 0x73) {
		d.Reads |= d.regX.Set()
		d.Loose = true
	}
	return fRMW, 0
}

// form5 is EVEX map 5, half-precision floats (AVX512-FP16).
func (d *dec) form5() (form, int) {
	scalar := d.pfx == 0xf3 || d.pfx == 0xf2
	switch d.Opcode {
	case 0x10:
		return fMov, 2
	case 0x11:
		return fSto, 2
	case 0x2a, 0x7b:
		if scalar {
			return fFromG, 4 + 4*b2i(d.w)
		}
		return fMov, 0
	case 0x2c, 0x2d, 0x78, 0x79:
		if scalar {
			return fToG, 2
		}
		return fMov, 0
	case 0x2e, 0x2f:
		return fCmp, 2
	case 0x6e:
		return fFromG, 2
	case 0x7e:
		return fToGrm, 2
	case 0x51, 0x5b, 0x7a, 0x7c, 0x7d:
		return fMov, 0
	}
	return fRMW, 0
}
