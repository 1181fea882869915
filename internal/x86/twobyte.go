package x86

// twoByte decodes the part of opcode map 0F that has nothing to do with vector
// registers (SDM vol. 2, table A-3); the rest is in vector.go.
func (d *dec) twoByte() {
	op := d.Opcode
	osz := int(d.osz)
	switch {
	case op >= 0x80 && op <= 0x8f:
		d.branch(Jcc, 4)
		d.Cond = op & 15
		d.useFlags()
		return
	case op >= 0x40 && op <= 0x4f: // cmov: the destination may keep its value
		d.modrm()
		d.rmRead(osz)
		d.read(d.reg)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.useFlags()
		return
	case op >= 0x90 && op <= 0x9f: // setcc
		d.modrm()
		d.OpSize = 1
		d.rmWrite(1)
		if d.mod == 3 {
			d.Dst = d.gpr8(d.rm)
		}
		d.useFlags()
		return
	case op >= 0xc8 && op <= 0xcf: // bswap
		d.Dst = Reg(op&7 | d.rex<<3&8)
		d.read(d.Dst)
		d.write(d.Dst, osz)
		return
	case op >= 0x18 && op <= 0x1f: // prefetches and hinted nops
		d.modrm()
		d.OpSize = 0
		switch {
		case op == 0x1f, op == 0x1e && d.Prefixes&PrefixF3 != 0 && d.mod == 3 && d.regLo == 7:
			d.Kind = Nop // the latter with rm 2 is endbr64
			d.Reads = 0
			d.nopl = op == 0x1f && d.regLo == 0
		case op == 0x1e && d.Prefixes&PrefixF3 != 0 && d.mod == 3 && d.regLo == 1:
			d.Dst = d.rm // rdssp: leaves the register alone without a shadow stack
			d.read(d.rm)
			d.write(d.rm, 8)
		case op == 0x1a || op == 0x1b: // MPX
			if d.Mem.Has {
				d.MemRead = true
				d.MemWrite = op == 0x1b
			}
		}
		return
	}
	switch op {
	case 0x00: // sldt, str, lldt, ltr, verr, verw
		d.modrm()
		switch d.regLo {
		case 0, 1:
			d.rmWrite(2)
		case 2, 3, 4, 5:
			d.rmRead(2)
			d.someFlags()
		default:
			d.fail()
		}
	case 0x01:
		d.group7()
	case 0x02, 0x03: // lar, lsl
		d.modrm()
		d.rmRead(2)
		d.read(d.reg)
		d.write(d.reg, osz)
		d.someFlags()
	case 0x05, 0x34: // syscall, sysenter
		d.Kind = Syscall
		for _, r := range []Reg{RAX, RDI, RSI, RDX, R10, R8, R9} {
			d.read(r)
		}
		d.write(RAX, 8)
		d.write(RCX, 8)
		d.write(R11, 8)
	case 0x06, 0x07, 0x08, 0x09, 0x35, 0x37:
		d.loose()
		if op == 0x07 || op == 0x35 {
			d.Kind = Ret
		}
	case 0x0b:
		d.Kind = Trap
	case 0xb9, 0xff: // ud1, ud0
		d.modrm()
		d.Reads = 0
		d.Kind = Trap
	case 0x0d: // prefetchw
		d.modrm()
	case 0x20, 0x21, 0x22, 0x23: // mov to and from control registers: mod is ignored
		if d.p < len(d.code) {
			b := d.byte()
			r := Reg(b&7 | d.rex<<3&8)
			if op < 0x22 {
				d.write(r, 8)
			} else {
				d.read(r)
			}
		} else {
			d.byte()
		}
	case 0x30:
		d.loose()
	case 0x31: // rdtsc
		d.write(RAX, 4)
		d.write(RDX, 4)
	case 0x32, 0x33: // rdmsr, rdpmc
		d.read(RCX)
		d.write(RAX, 4)
		d.write(RDX, 4)
	case 0xa0, 0xa8:
		d.stackSize()
		d.push(8)
	case 0xa1, 0xa9:
		d.stackSize()
		d.pop()
	case 0xa2: // cpuid
		d.read(RAX)
		d.read(RCX)
		for _, r := range []Reg{RAX, RBX, RCX, RDX} {
			d.write(r, 4)
		}
	case 0xa3, 0xab, 0xb3, 0xbb: // bt, bts, btr, btc
		d.modrm()
		d.read(d.reg)
		d.bitTest(op != 0xa3)
		if d.Mem.Has { // the register may reach beyond the operand
			d.MemSize = 0
			d.Mem.Vague = true
		}
	case 0xba:
		d.modrm()
		d.imm(1)
		if d.regLo < 4 {
			d.fail()
		}
		d.bitTest(d.regLo != 4)
	case 0xa4, 0xa5, 0xac, 0xad: // shld, shrd
		d.modrm()
		if op&1 == 0 {
			d.imm(1)
		} else {
			d.read(RCX)
		}
		d.read(d.reg)
		d.rmRead(osz)
		d.rmWrite(osz)
		d.MemRead = d.MemWrite
		if d.mod == 3 {
			d.Dst = d.rm
		}
		d.someFlags()
	case 0xae:
		d.group15()
	case 0xaf: // imul
		d.modrm()
		d.rmRead(osz)
		d.read(d.reg)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.setFlags()
	case 0xb0, 0xb1: // cmpxchg
		d.modrm()
		w := d.opWidth()
		d.rmRead(w)
		d.rmWrite(w)
		d.MemRead = d.MemWrite
		d.read(d.sized(d.reg, w))
		d.read(RAX)
		d.write(RAX, w)
		d.setFlags()
	case 0xb2, 0xb4, 0xb5: // lss, lfs, lgs
		d.modrm()
		if d.mod == 3 {
			d.fail()
		}
		d.load(osz + 2)
		d.write(d.reg, osz)
	case 0xb6, 0xb7, 0xbe, 0xbf: // movzx, movsx
		d.modrm()
		src := 1
		if op&1 != 0 {
			src = 2
		}
		d.rmRead(src)
		if d.mod == 3 {
			d.Src = d.sized(d.rm, src)
		}
		d.Dst = d.reg
		d.write(d.reg, osz)
		if osz >= 4 {
			d.Kind = Movzx
			if op >= 0xbe {
				d.Kind = Movsx
			}
		}
	case 0xb8: // popcnt; without F3 it is Itanium's jmpe
		d.modrm()
		if d.pfx != 0xf3 {
			d.fail()
		}
		d.rmRead(osz)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.setFlags()
	case 0xbc, 0xbd: // bsf, bsr, tzcnt, lzcnt
		d.modrm()
		d.rmRead(osz)
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.setFlags()
		if d.pfx != 0xf3 {
			// bsf and bsr leave the register as it is if the source is 0.
			// LLVM makes use of that at times, and at others has a source
			// that can't be 0.
			d.read(d.reg)
			d.Loose = true
		}
	case 0xc0, 0xc1: // xadd
		d.modrm()
		w := d.opWidth()
		r := d.sized(d.reg, w)
		d.rmRead(w)
		d.rmWrite(w)
		d.MemRead = d.MemWrite
		d.read(r)
		d.write(r, w)
		d.setFlags()
	case 0xc3: // movnti
		d.modrm()
		if d.mod == 3 {
			d.fail()
		}
		d.read(d.reg)
		d.Src = d.reg
		d.store(osz)
	case 0xc7:
		d.group9()
	default:
		d.vector0F()
	}
}

func (d *dec) bitTest(writes bool) {
	osz := int(d.osz)
	d.rmRead(osz)
	if writes {
		d.rmWrite(osz)
		d.MemRead = d.MemWrite
		if d.mod == 3 {
			d.Dst = d.rm
		}
	}
	d.someFlags()
}

// group7 is 0F 01: descriptor tables and a bag of later instructions.
func (d *dec) group7() {
	d.modrm()
	if d.mod != 3 {
		switch d.regLo {
		case 0, 1:
			d.store(10)
		case 4:
			d.store(2)
		case 2, 3, 6:
			d.load(10)
		case 5: // rstorssp
			d.load(8)
			d.MemWrite = true
			d.someFlags()
		}
		return
	}
	switch b := d.regLo<<3 | uint8(d.rm&7); b {
	case 0x10: // xgetbv
		d.read(RCX)
		d.write(RAX, 4)
		d.write(RDX, 4)
	case 0x2e: // rdpkru
		d.read(RCX)
		d.write(RAX, 4)
		d.write(RDX, 4)
	case 0x39: // rdtscp
		d.write(RAX, 4)
		d.write(RDX, 4)
		d.write(RCX, 4)
	case 0x16: // xtest
		d.setFlags()
	case 0x15, 0x28, 0x38: // xend, serialize, swapgs
	default:
		switch d.regLo {
		case 4: // smsw
			d.write(d.rm, int(d.osz))
		case 6: // lmsw
			d.read(d.rm)
		default:
			d.loose()
		}
	}
}

// group15 is 0F AE: state saving, fences, fs and gs bases.
func (d *dec) group15() {
	d.modrm()
	if d.mod == 3 {
		switch {
		case d.pfx == 0xf3 && d.regLo < 2: // rdfsbase, rdgsbase
			d.Dst = d.rm
			d.write(d.rm, int(d.osz))
		case d.pfx == 0xf3 && (d.regLo < 6): // wrfsbase, ptwrite, incssp
			d.read(d.rm)
		case d.regLo == 6 && d.pfx != 0: // umonitor, umwait, tpause
			d.read(d.rm)
			d.read(RAX)
			d.read(RDX)
			d.someFlags()
		case d.pfx == 0 && d.regLo < 5 || d.pfx == 0xf2:
			d.fail()
		}
		return
	}
	switch d.regLo {
	case 0:
		d.store(512)
	case 1:
		d.load(512)
	case 2:
		d.load(4)
	case 3:
		d.store(4)
	case 4, 6:
		switch d.pfx {
		case 0xf3: // ptwrite, clrssbsy
			d.load(8)
			if d.regLo == 6 {
				d.MemWrite = true
				d.someFlags()
			}
		case 0x66: // clwb
		default: // xsave, xsaveopt
			d.store(0)
			d.read(RAX)
			d.read(RDX)
		}
	case 5:
		d.load(0)
		d.read(RAX)
		d.read(RDX)
	}
}

// group9 is 0F C7.
func (d *dec) group9() {
	d.modrm()
	osz := int(d.osz)
	if d.mod == 3 {
		switch {
		case d.regLo == 6 && d.pfx == 0xf3: // senduipi
			d.read(d.rm)
		case d.regLo >= 6: // rdrand, rdseed, rdpid
			d.Dst = d.rm
			if d.pfx == 0xf3 {
				osz = 8
			} else {
				d.setFlags()
			}
			d.write(d.rm, osz)
		default:
			d.fail()
		}
		return
	}
	switch d.regLo {
	case 1: // cmpxchg8b, cmpxchg16b
		for _, r := range []Reg{RAX, RDX, RBX, RCX} {
			d.read(r)
		}
		d.store(8)
		if d.osz == 8 {
			d.MemSize = 16
		}
		d.MemRead = true
		d.write(RAX, max(osz, 4))
		d.write(RDX, max(osz, 4))
		d.someFlags()
	case 3, 4, 5: // xrstors, xsavec, xsaves
		d.read(RAX)
		d.read(RDX)
		if d.regLo == 3 {
			d.load(0)
		} else {
			d.store(0)
		}
	case 6, 7: // vmptrld, vmptrst
		d.loose()
	default:
		d.fail()
	}
}
