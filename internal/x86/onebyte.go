package x86

// opWidth returns the operand size of an opcode whose lowest bit is its w bit.
func (d *dec) opWidth() int {
	if d.Opcode&1 == 0 {
		d.OpSize = 1
		return 1
	}
	return int(d.osz)
}

// oneByte decodes the one-byte opcode map (SDM vol. 2, table A-2).
func (d *dec) oneByte() {
	op := d.Opcode
	switch {
	case op < 0x40:
		d.alu(op>>3, op&7)
		return
	case op >= 0x50 && op <= 0x5f:
		r := Reg(op&7 | d.rex<<3&8)
		d.stackSize()
		if op < 0x58 {
			d.push(8)
			d.read(r)
			d.Src = r
		} else {
			d.pop()
			d.write(r, int(d.OpSize))
			d.Dst = r
		}
		return
	case op >= 0x70 && op <= 0x7f:
		d.Kind, d.Cond = Jcc, op&15
		d.Imm = d.num(1)
		d.useFlags()
		return
	case op >= 0x91 && op <= 0x97 || op == 0x90 && d.rex&1 != 0:
		r := Reg(op&7 | d.rex<<3&8)
		d.read(r)
		d.read(RAX)
		d.write(r, int(d.osz))
		d.write(RAX, int(d.osz))
		return
	case op >= 0xb0 && op <= 0xb7:
		d.OpSize = 1
		d.Dst = d.gpr8(Reg(op&7 | d.rex<<3&8))
		d.write(d.Dst, 1)
		d.imm(1)
		return
	case op >= 0xb8 && op <= 0xbf:
		d.Dst = Reg(op&7 | d.rex<<3&8)
		d.write(d.Dst, int(d.osz))
		d.imm(int(d.osz))
		if d.osz >= 4 {
			d.Kind = MovRegImm
			if d.osz == 4 {
				d.Imm = int64(uint32(d.Imm))
			}
		}
		return
	case op >= 0xd8 && op <= 0xdf:
		d.x87()
		return
	}
	osz := int(d.osz)
	switch op {
	case 0x63: // movsxd
		d.modrm()
		d.rmRead(min(osz, 4))
		d.Kind, d.Dst = Movsx, d.reg
		if d.mod == 3 {
			d.Src = d.rm
		}
		d.write(d.reg, osz)
	case 0x68, 0x6a:
		d.stackSize()
		if op == 0x68 {
			d.immz()
		} else {
			d.imm(1)
		}
		d.push(8)
	case 0x69, 0x6b: // imul r, r/m, imm
		d.modrm()
		d.rmRead(osz)
		if op == 0x69 {
			d.immz()
		} else {
			d.imm(1)
		}
		d.Dst = d.reg
		d.write(d.reg, osz)
		d.setFlags()
	case 0x6c, 0x6d, 0x6e, 0x6f: // ins, outs
		d.stringOp(op < 0x6e, op >= 0x6e)
		d.read(RDX)
	case 0x80, 0x81, 0x83:
		d.modrm()
		w := d.opWidth()
		if op == 0x81 {
			d.immz()
		} else {
			d.imm(1)
		}
		d.aluOp(d.regLo, w, true, d.sized(d.rm, w), NoReg)
	case 0x84, 0x85: // test
		d.modrm()
		w := d.opWidth()
		d.rmRead(w)
		d.read(d.sized(d.reg, w))
		d.setFlags()
	case 0x86, 0x87: // xchg
		d.modrm()
		w := d.opWidth()
		r := d.sized(d.reg, w)
		d.rmRead(w)
		d.rmWrite(w)
		d.read(r)
		d.write(r, w)
	case 0x88, 0x89:
		d.modrm()
		w := d.opWidth()
		r := d.sized(d.reg, w)
		d.read(r)
		d.rmWrite(w)
		d.Src = r
		d.mov(w)
		if d.mod == 3 {
			d.Dst = d.sized(d.rm, w)
		}
	case 0x8a, 0x8b:
		d.modrm()
		w := d.opWidth()
		d.rmRead(w)
		d.Dst = d.sized(d.reg, w)
		d.write(d.Dst, w)
		if d.mod == 3 {
			d.Src = d.sized(d.rm, w)
			d.mov(w)
		} else if w >= 4 {
			d.Kind = MovLoad
		}
	case 0x8c: // mov r/m, sreg
		d.modrm()
		if d.regLo > 5 {
			d.fail()
		}
		if d.mod == 3 {
			d.Dst = d.rm
			d.write(d.rm, osz)
		} else {
			d.store(2)
		}
	case 0x8e:
		d.modrm()
		if d.regLo > 5 || d.regLo == 1 {
			d.fail()
		}
		d.rmRead(2)
		d.toSS = d.regLo == 2
	case 0x8d:
		d.modrm()
		if d.mod == 3 {
			d.fail()
		}
		d.Dst = d.reg
		d.write(d.reg, osz)
		if osz >= 4 {
			d.Kind = Lea
		}
	case 0x8f:
		// 8F with a map number of 8 or more is XOP, which AMD has dropped.
		if d.p < len(d.code) && d.code[d.p]&0x38 != 0 {
			d.fail()
			return
		}
		d.modrm()
		d.stackSize()
		d.pop()
		d.rmWrite(int(d.OpSize))
		if d.mod == 3 {
			d.Dst = d.rm
		}
	case 0x90:
		if d.Prefixes&PrefixF3 == 0 { // f3 90 is pause
			d.Kind = Nop
		}
		d.OpSize = 0
	case 0x98: // cbw, cwde, cdqe
		d.Dst, d.Src = RAX, RAX
		d.read(RAX)
		d.write(RAX, osz)
		d.Kind = Movsx
	case 0x99: // cwd, cdq, cqo
		d.read(RAX)
		d.write(RDX, osz)
	case 0x9b: // fwait
		d.OpSize = 0
	case 0x9c:
		d.stackSize()
		d.push(8)
		d.useFlags()
	case 0x9d:
		d.stackSize()
		d.pop()
		d.setFlags()
	case 0x9e: // sahf
		d.read(RAX)
		d.someFlags()
	case 0x9f: // lahf
		d.useFlags()
		d.write(RAX, 1)
	case 0xa0, 0xa1, 0xa2, 0xa3: // mov to and from an absolute address
		w := d.opWidth()
		n := 8
		if d.Prefixes&Prefix67 != 0 {
			n = 4
		}
		d.Mem.Has, d.Mem.Disp = true, d.num(n)
		d.Mem.Seg = d.Prefixes&(PrefixFS|PrefixGS) != 0
		if op < 0xa2 {
			d.load(w)
			d.Dst = RAX
			d.write(RAX, w)
		} else {
			d.store(w)
			d.read(RAX)
			d.Src = RAX
		}
	case 0xa4, 0xa5: // movs
		d.stringOp(true, true)
	case 0xa6, 0xa7: // cmps
		d.stringOp(true, true)
		d.MemWrite = false
		d.someFlags() // none if rcx is 0
	case 0xa8, 0xa9: // test
		w := d.opWidth()
		d.read(RAX)
		if w == 1 {
			d.imm(1)
		} else {
			d.immz()
		}
		d.setFlags()
	case 0xaa, 0xab: // stos
		d.stringOp(true, false)
		d.MemRead = false
		d.read(RAX)
	case 0xac, 0xad: // lods
		d.stringOp(false, true)
		d.MemWrite = false
		d.write(RAX, d.opWidth())
		if d.Reads.Has(RCX) {
			d.WritesFull &^= RAX.Set()
		}
	case 0xae, 0xaf: // scas
		d.stringOp(true, false)
		d.MemWrite = false
		d.read(RAX)
		d.someFlags()
	case 0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3:
		d.shift()
	case 0xc2, 0xc3:
		d.stackSize()
		if d.OpSize == 2 { // pops 16 bits on AMD
			d.fail()
		}
		if op == 0xc2 {
			d.imm(2)
		}
		d.Kind = Ret
		d.read(RSP)
		d.write(RSP, 8)
	case 0xc6, 0xc7:
		d.modrm()
		w := d.opWidth()
		if d.regLo == 7 && d.mod == 3 && d.rm&7 == 0 { // xabort, xbegin
			if op == 0xc6 {
				d.imm(1)
				d.read(RAX)
			} else {
				d.branch(Jcc, 4)
				d.Cond = CondXbegin
			}
			d.write(RAX, 4)
			return
		}
		if d.regLo != 0 {
			d.fail()
		}
		if w == 1 {
			d.imm(1)
		} else {
			d.immz()
		}
		d.rmWrite(w)
		if d.mod == 3 {
			d.Dst = d.sized(d.rm, w)
			if w >= 4 {
				d.Kind = MovRegImm
				if w == 4 {
					d.Imm = int64(uint32(d.Imm))
				}
			}
		} else {
			d.Kind = MovStore
		}
	case 0xc8: // enter
		d.imm(2)
		d.num(1)
		d.loose()
		d.read(RBP)
		d.read(RSP)
		d.write(RBP, 8)
		d.write(RSP, 8)
	case 0xc9:
		d.Kind, d.OpSize = Leave, 8
		d.read(RBP)
		d.write(RSP, 8)
		d.write(RBP, 8)
	case 0xca, 0xcb, 0xcf: // far returns
		if op == 0xca {
			d.imm(2)
		}
		d.Kind = Ret
		d.read(RSP)
		d.write(RSP, 8)
	case 0xcc, 0xf1, 0xf4:
		d.Kind = Trap
	case 0xcd:
		d.imm(1)
		d.Kind = Syscall
		d.loose()
	case 0xd7: // xlat
		d.read(RAX)
		d.read(RBX)
		d.write(RAX, 1)
		d.load(1)
	case 0xe0, 0xe1, 0xe2, 0xe3:
		d.Kind, d.Cond = Jcc, CondLoopne+op-0xe0
		d.Imm = d.num(1)
		d.read(RCX)
		if op < 0xe2 {
			d.useFlags()
		}
		if op < 0xe3 {
			d.write(RCX, 8)
		}
	case 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef: // in, out
		if op < 0xe8 {
			d.imm(1)
		} else {
			d.read(RDX)
		}
		if op&2 == 0 {
			d.write(RAX, d.opWidth())
		} else {
			d.read(RAX)
		}
	case 0xe8:
		d.branch(Call, 4)
		d.call()
	case 0xe9:
		d.branch(Jmp, 4)
	case 0xeb:
		d.Kind = Jmp
		d.Imm = d.num(1)
	case 0xf5: // cmc
		d.useFlags()
		d.someFlags()
	case 0xf8, 0xf9:
		d.someFlags()
	case 0xfa, 0xfb, 0xfc, 0xfd: // cli, sti, cld, std
	case 0xf6, 0xf7:
		d.group3()
	case 0xfe, 0xff:
		d.group5()
	default:
		d.fail()
	}
}

// stackSize sets the operand size of an instruction that works on the stack:
// 8 bytes unless there is a 66 prefix.
func (d *dec) stackSize() {
	d.OpSize = 8
	if d.osz == 2 {
		d.OpSize = 2
	}
}

func (d *dec) push(int) {
	d.Kind = Push
	d.read(RSP)
	d.write(RSP, 8)
}

func (d *dec) pop() {
	d.Kind = Pop
	d.read(RSP)
	d.write(RSP, 8)
}

func (d *dec) call() {
	d.read(RSP)
	d.write(RSP, 8)
	d.OpSize = 8
}

// mov sets the kind of a plain move whose source is a register.
func (d *dec) mov(w int) {
	if d.mod != 3 {
		d.Kind = MovStore
	} else if w >= 4 {
		d.Kind = MovRegReg
	}
}

// stringOp notes a string instruction that uses rdi, rsi or both. Under rep the
// registers may be left as they are, if rcx is 0.
func (d *dec) stringOp(di, si bool) {
	d.OpSize = uint8(d.opWidth())
	full := 8
	if d.Prefixes&(PrefixF2|PrefixF3) != 0 {
		d.read(RCX)
		d.write(RCX, 8)
		full = 2
	}
	if di {
		d.read(RDI)
		d.write(RDI, full)
		d.MemWrite = true
	}
	if si {
		d.read(RSI)
		d.write(RSI, full)
		d.MemRead = true
	}
	if di && !si {
		d.MemRead = true
	}
}

// alu decodes opcodes 00 to 3F: operation op in one of six operand forms.
func (d *dec) alu(op, form byte) {
	if form >= 6 {
		d.fail()
		return
	}
	w := d.opWidth()
	switch form {
	case 0, 1:
		d.modrm()
		d.aluOp(op, w, true, d.sized(d.rm, w), d.sized(d.reg, w))
	case 2, 3:
		d.modrm()
		src := NoReg
		if d.mod == 3 {
			src = d.sized(d.rm, w)
		} else {
			d.load(w)
		}
		d.aluOp(op, w, false, d.sized(d.reg, w), src)
	case 4:
		d.mod = 3
		d.imm(1)
		d.aluOp(op, w, false, RAX, NoReg)
	case 5:
		d.mod = 3
		d.immz()
		d.aluOp(op, w, false, RAX, NoReg)
	}
}

var aluKinds = [8]Kind{0: Add, 4: And, 5: Sub, 6: Xor, 7: Cmp}

// aluOp notes add, or, adc, sbb, and, sub, xor or cmp of size w. If rm is set,
// the destination is the r/m operand, which is dst if it is a register. src is
// NoReg if the source is an immediate or memory.
func (d *dec) aluOp(op byte, w int, rm bool, dst, src Reg) {
	mem := rm && d.mod != 3
	// With an immediate the reg field is a part of the opcode.
	if !d.HasImm && d.sized(d.reg, w) != d.reg || d.sized(d.rm, w) != d.rm {
		// ah and its like: not the register that the tracker means.
		d.Kind = Other
	} else if w >= 4 || op == 4 || op == 7 {
		d.Kind = aluKinds[op]
	}
	d.read(src)
	d.setFlags()
	if op == 2 || op == 3 {
		d.useFlags()
	}
	if mem {
		d.load(w)
		if op != 7 {
			d.store(w)
			d.MemRead = true
		}
		d.Src = src
		if op == 7 {
			d.Src = NoReg
		}
		return
	}
	if op == 7 {
		d.read(dst)
		d.Src = NoReg
		if d.HasImm {
			d.Src = dst
		}
		return
	}
	d.Dst, d.Src = dst, src
	d.write(dst, w)
	// The result does not depend on the register: xor, sub and sbb of a
	// register with itself, and with 0, or with -1.
	idiom := src == dst && d.reg == d.rm && (op == 3 || op == 5 || op == 6)
	idiom = idiom || d.HasImm && (op == 4 && d.Imm == 0 || op == 1 && d.Imm == -1)
	if idiom {
		d.Reads &^= dst.Set()
	} else {
		d.read(dst)
	}
}

func (d *dec) shift() {
	d.modrm()
	w := d.opWidth()
	switch d.Opcode & 0xfe {
	case 0xc0:
		d.imm(1)
	case 0xd2:
		d.read(RCX)
	}
	d.rmRead(w)
	d.rmWrite(w)
	if d.mod == 3 {
		d.Dst = d.sized(d.rm, w)
		if d.regLo == 5 && d.HasImm && w >= 4 {
			d.Kind = Shr
		}
	} else {
		d.MemRead = true
	}
	if d.regLo == 2 || d.regLo == 3 { // rcl, rcr
		d.useFlags()
	}
	d.someFlags() // none if the count is 0
}

// group3 is test, not, neg, mul, imul, div and idiv.
func (d *dec) group3() {
	d.modrm()
	w := d.opWidth()
	switch d.regLo {
	case 0, 1:
		if w == 1 {
			d.imm(1)
		} else {
			d.immz()
		}
		d.rmRead(w)
		d.setFlags()
	case 2, 3:
		d.rmRead(w)
		d.rmWrite(w)
		if d.mod == 3 {
			d.Dst = d.sized(d.rm, w)
		} else {
			d.MemRead = true
		}
		if d.regLo == 3 {
			d.setFlags()
		}
	default:
		d.rmRead(w)
		d.read(RAX)
		d.write(RAX, max(w, 2))
		if w > 1 {
			d.write(RDX, w)
			if d.regLo >= 6 {
				d.read(RDX)
			}
		}
		if d.regLo >= 6 {
			d.someFlags() // undefined, and unchanged on AMD
		} else {
			d.setFlags()
		}
	}
}

// group5 is inc, dec, call, jmp and push.
func (d *dec) group5() {
	d.modrm()
	w := d.opWidth()
	if d.regLo < 2 {
		d.rmRead(w)
		d.rmWrite(w)
		if d.mod == 3 {
			d.Dst = d.sized(d.rm, w)
		} else {
			d.MemRead = true
		}
		d.someFlags() // not the carry
		return
	}
	if d.Opcode == 0xfe {
		d.fail()
		return
	}
	switch d.regLo {
	case 2, 4:
		if d.osz == 2 {
			d.fail()
		}
		d.rmRead(8)
		if d.mod == 3 {
			d.Src = d.rm
		}
		d.OpSize = 8
		if d.regLo == 2 {
			d.Kind = CallIndirect
			d.call()
		} else {
			d.Kind = JmpIndirect
		}
	case 3, 5: // far
		if d.mod == 3 {
			d.fail()
		}
		d.load(10)
		if d.regLo == 3 {
			d.Kind = CallIndirect
			d.call()
		} else {
			d.Kind = JmpIndirect
		}
	case 6:
		d.stackSize()
		d.push(8)
		d.rmRead(int(d.OpSize))
		if d.mod == 3 {
			d.Src = d.rm
		}
	default:
		d.fail()
	}
}

// x87 decodes the floating-point escapes (SDM vol. 2, A.5).
func (d *dec) x87() {
	d.modrm()
	d.OpSize = 0
	esc, r := d.Opcode&7, d.regLo
	if d.mod == 3 {
		switch {
		case esc == 7 && r == 4 && d.rm&7 == 0: // fnstsw ax
			d.Dst = RAX
			d.write(RAX, 2)
		case (esc == 2 || esc == 3) && r < 4: // fcmov
			d.useFlags()
		case (esc == 3 || esc == 7) && (r == 5 || r == 6): // f(u)comi(p)
			d.setFlags()
		}
		return
	}
	size := [8]int{4, 4, 4, 4, 8, 8, 2, 2}[esc]
	write := false
	switch esc {
	case 1:
		write = r == 2 || r == 3 || r >= 6
		if r == 7 || r == 5 {
			size = 2
		} else if r == 4 || r == 6 {
			size = 28
		}
	case 3:
		write = r >= 1 && r <= 3 || r == 7
		if r == 5 || r == 7 {
			size = 10
		}
	case 5:
		write = r >= 1 && r <= 3 || r >= 6
		if r == 4 || r == 6 {
			size = 108
		} else if r == 7 {
			size = 2
		}
	case 7:
		write = r >= 1 && r <= 3 || r >= 6
		if r == 4 || r == 6 {
			size = 10
		} else if r == 5 || r == 7 {
			size = 8
		}
	}
	if write {
		d.store(size)
	} else {
		d.load(size)
	}
}
