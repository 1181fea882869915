package insn

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Classes of opcodes (RFC 9669, 3.1).
const (
	classLD, classLDX, classST, classSTX     = 0, 1, 2, 3
	classALU, classJMP, classJMP32, classA64 = 4, 5, 6, 7
)

// Modes of loads and stores (RFC 9669, 5).
const (
	modeIMM, modeABS, modeIND   = 0x00, 0x20, 0x40
	modeMEM, modeMEMSX, modeATM = 0x60, 0x80, 0xc0
)

// sourceX says that the operand is a register.
const sourceX = 0x08

const maxReg = 10

var aluOps = [16]Op{Add, Sub, Mul, Div, Or, And, Lsh, Rsh, Neg, Mod, Xor, Mov, Arsh}

var jumpOps = [16]Op{0, JEq, JGt, JGe, JSet, JNe, JSGt, JSGe, 0, 0, JLt, JLe, JSLt, JSLe}

// Decode checks bytecode. maps names the map of a file descriptor or index that
// 64-bit immediate loads refer to; with nil they are refused.
func Decode(raw []byte, maps func(n int32) (string, bool)) (*Program, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: no instructions", ErrRefused)
	}
	if len(raw)%Size != 0 {
		return nil, fmt.Errorf("%w: %d bytes are not a multiple of %d", ErrRefused, len(raw), Size)
	}
	if len(raw)/Size > MaxSlots {
		return nil, fmt.Errorf("%w: %d instructions, more than %d", ErrRefused, len(raw)/Size, MaxSlots)
	}
	d := decoder{p: &Program{Insns: make([]Insn, len(raw)/Size)}, maps: maps, index: make(map[string]int)}
	for slot := 0; slot < len(d.p.Insns); {
		r := rawAt(raw, slot)
		var next *rawInsn
		if (slot+2)*Size <= len(raw) {
			n := rawAt(raw, slot+1)
			next = &n
		}
		in, width, err := d.insn(slot, r, next)
		if err != nil {
			return nil, fmt.Errorf("%w: instruction %d: %w", ErrRefused, slot, err)
		}
		d.p.Insns[slot] = in
		slot += width
	}
	if err := d.flow(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return d.p, nil
}

type rawInsn struct {
	op       byte
	dst, src uint8
	off      int16
	imm      int32
}

func rawAt(raw []byte, slot int) rawInsn {
	b := raw[slot*Size:]
	return rawInsn{
		op: b[0], dst: b[1] & 15, src: b[1] >> 4,
		off: int16(binary.LittleEndian.Uint16(b[2:])),
		imm: int32(binary.LittleEndian.Uint32(b[4:])),
	}
}

// unused returns an error for the first of the named fields that is not zero.
func (r rawInsn) unused(fields string) error {
	for _, f := range fields {
		switch {
		case f == 'd' && r.dst != 0:
			return fmt.Errorf("opcode %#02x: unused field dst is %d", r.op, r.dst)
		case f == 's' && r.src != 0:
			return fmt.Errorf("opcode %#02x: unused field src is %d", r.op, r.src)
		case f == 'o' && r.off != 0:
			return fmt.Errorf("opcode %#02x: unused field offset is %d", r.op, r.off)
		case f == 'i' && r.imm != 0:
			return fmt.Errorf("opcode %#02x: unused field imm is %d", r.op, r.imm)
		}
	}
	return nil
}

func (r rawInsn) unknown() error { return fmt.Errorf("unknown opcode %#02x", r.op) }

type decoder struct {
	p     *Program
	maps  func(int32) (string, bool)
	index map[string]int
}

func (d *decoder) insn(slot int, r rawInsn, next *rawInsn) (Insn, int, error) {
	if r.dst > maxReg || r.src > maxReg {
		return Insn{}, 0, fmt.Errorf("no register r%d", max(r.dst, r.src))
	}
	var (
		in  Insn
		err error
	)
	switch r.op & 7 {
	case classALU, classA64:
		in, err = alu(r)
	case classJMP, classJMP32:
		in, err = jump(slot, r)
	case classLDX:
		in, err = load(r)
	case classST, classSTX:
		in, err = store(r)
	default:
		if r.op == classLD|modeIMM|0x18 {
			in, err = d.imm64(slot, r, next)
			return in, 2, err
		}
		if m := r.op & 0xe0; m == modeABS || m == modeIND {
			return in, 0, fmt.Errorf("legacy packet access (opcode %#02x) is not supported", r.op)
		}
		return in, 0, r.unknown()
	}
	return in, 1, err
}

func alu(r rawInsn) (Insn, error) {
	in := Insn{Dst: r.dst, Src: r.src, Imm: int64(r.imm), Wide: r.op&7 == classA64, Reg: r.op&sourceX != 0}
	if r.dst == maxReg {
		return in, errFrame
	}
	code := r.op >> 4
	if code == 0xd {
		in.Op = ToLE
		if in.Reg {
			in.Op = ToBE
		}
		if in.Wide {
			if in.Reg {
				return in, r.unknown()
			}
			in.Op = Swap
		}
		if r.imm != 16 && r.imm != 32 && r.imm != 64 {
			return in, fmt.Errorf("byte swap of %d bits", r.imm)
		}
		in.Bytes, in.Imm, in.Reg, in.Wide = uint8(r.imm/8), 0, false, true
		return in, r.unused("so")
	}
	if code > 0xd {
		return in, r.unknown()
	}
	in.Op = aluOps[code]
	unused := "s"
	if in.Reg {
		unused = "i"
	}
	switch in.Op {
	case Neg:
		if in.Reg {
			return in, r.unknown()
		}
		return in, r.unused("soi")
	case Div, Mod:
		if r.off == 1 {
			in.Op++ // SDiv follows Div, and SMod Mod
		} else if r.off != 0 {
			return in, fmt.Errorf("opcode %#02x: unknown offset %d", r.op, r.off)
		}
		return in, r.unused(unused)
	case Mov:
		if r.off != 0 {
			if !in.Reg || r.off != 8 && r.off != 16 && (r.off != 32 || !in.Wide) {
				return in, fmt.Errorf("opcode %#02x: unknown offset %d", r.op, r.off)
			}
			in.Op, in.Bytes = MovSX, uint8(r.off/8)
		}
		return in, r.unused(unused)
	}
	return in, r.unused(unused + "o")
}

var errFrame = fmt.Errorf("the frame pointer r10 is read-only")

func jump(slot int, r rawInsn) (Insn, error) {
	in := Insn{Dst: r.dst, Src: r.src, Imm: int64(r.imm), Wide: r.op&7 == classJMP, Reg: r.op&sourceX != 0}
	code := r.op >> 4
	switch code {
	case 0x0:
		in.Op, in.Imm = Ja, 0
		if in.Reg {
			return in, r.unknown()
		}
		if in.Wide {
			in.Target = slot + 1 + int(r.off)
			return in, r.unused("dsi")
		}
		in.Target = slot + 1 + int(r.imm)
		return in, r.unused("dso")
	case 0x8:
		if !in.Wide {
			return in, r.unknown()
		}
		if in.Reg {
			return in, fmt.Errorf("call of a register (opcode %#02x) is not supported", r.op)
		}
		switch r.src {
		case 0:
			in.Op = Call
		case 1:
			in.Op, in.Target = CallLocal, slot+1+int(r.imm)
		case 2:
			return in, fmt.Errorf("call of kernel function %d by BTF id is not supported", r.imm)
		default:
			return in, fmt.Errorf("unknown kind of call %d", r.src)
		}
		return in, r.unused("do")
	case 0x9:
		in.Op = Exit
		if !in.Wide || in.Reg {
			return in, r.unknown()
		}
		return in, r.unused("dsoi")
	case 0xe:
		return in, fmt.Errorf("may_goto (opcode %#02x) is not supported", r.op)
	case 0xf:
		return in, r.unknown()
	}
	in.Op, in.Off = jumpOps[code], r.off
	in.Target = slot + 1 + int(r.off)
	if in.Reg {
		return in, r.unused("i")
	}
	return in, r.unused("s")
}

var sizes = [4]uint8{4, 2, 1, 8}

func load(r rawInsn) (Insn, error) {
	in := Insn{Op: Load, Dst: r.dst, Src: r.src, Off: r.off, Bytes: sizes[r.op>>3&3], Wide: true}
	switch r.op & 0xe0 {
	case modeMEM:
	case modeMEMSX:
		in.Op = LoadSX
		if in.Bytes == 8 {
			return in, r.unknown()
		}
	default:
		return in, r.unknown()
	}
	if r.dst == maxReg {
		return in, errFrame
	}
	return in, r.unused("i")
}

func store(r rawInsn) (Insn, error) {
	in := Insn{Op: Store, Dst: r.dst, Src: r.src, Off: r.off, Bytes: sizes[r.op>>3&3], Wide: true, Reg: r.op&7 == classSTX}
	switch {
	case r.op&0xe0 == modeATM && in.Reg:
		return atomic(in, r)
	case r.op&0xe0 != modeMEM:
		return in, r.unknown()
	case in.Reg:
		return in, r.unused("i")
	}
	in.Imm = int64(r.imm)
	return in, r.unused("s")
}

// Atomic operations (RFC 9669, 5.3).
func atomic(in Insn, r rawInsn) (Insn, error) {
	if in.Bytes < 4 {
		return in, fmt.Errorf("atomic operation %#x on %d bytes is not supported", r.imm, in.Bytes)
	}
	in.Fetch = r.imm&1 != 0
	in.Wide = in.Bytes == 8
	switch r.imm {
	case 0x00, 0x01:
		in.Op = AtomicAdd
	case 0x40, 0x41:
		in.Op = AtomicOr
	case 0x50, 0x51:
		in.Op = AtomicAnd
	case 0xa0, 0xa1:
		in.Op = AtomicXor
	case 0xe1:
		in.Op = Xchg
	case 0xf1:
		in.Op = CmpXchg
		return in, nil
	case 0x100, 0x110:
		return in, fmt.Errorf("load-acquire and store-release are not supported")
	default:
		return in, fmt.Errorf("unknown atomic operation %#x", r.imm)
	}
	if in.Fetch && r.src == maxReg {
		return in, errFrame
	}
	return in, nil
}

// Sources of 64-bit immediates (RFC 9669, 5.4).
const (
	immValue = iota
	immMapFD
	immMapFDValue
	immVariable
	immFunc
	immMapIndex
	immMapIndexValue
)

func (d *decoder) imm64(slot int, r rawInsn, next *rawInsn) (Insn, error) {
	in := Insn{Op: LoadImm, Dst: r.dst, Wide: true}
	if next == nil {
		return in, fmt.Errorf("the second half of a 64-bit immediate is missing")
	}
	if next.op != 0 || next.dst != 0 || next.src != 0 || next.off != 0 {
		return in, fmt.Errorf("the second half of a 64-bit immediate has an opcode, register or offset")
	}
	if r.dst == maxReg {
		return in, errFrame
	}
	if err := r.unused("o"); err != nil {
		return in, err
	}
	in.Imm = int64(next.imm)<<32 | int64(uint32(r.imm))
	switch r.src {
	case immValue:
		return in, nil
	case immMapFD, immMapIndex:
		in.Op = LoadMap
		in.Imm = 0
		if next.imm != 0 {
			return in, fmt.Errorf("the upper half of a map is %d", next.imm)
		}
	case immMapFDValue, immMapIndexValue:
		in.Op = LoadValue
		in.Imm = int64(uint32(next.imm))
	case immFunc:
		in.Op, in.Target, in.Imm = LoadFunc, slot+1+int(r.imm), 0
		if next.imm != 0 {
			return in, fmt.Errorf("the upper half of a function is %d", next.imm)
		}
		return in, nil
	case immVariable:
		return in, fmt.Errorf("address of a kernel variable by BTF id is not supported")
	default:
		return in, fmt.Errorf("unknown source %d of a 64-bit immediate", r.src)
	}
	if d.maps == nil {
		return in, fmt.Errorf("map %d: there are no maps", r.imm)
	}
	name, ok := d.maps(r.imm)
	if !ok {
		return in, fmt.Errorf("there is no map %d", r.imm)
	}
	i, ok := d.index[name]
	if !ok {
		i = len(d.p.Maps)
		d.index[name] = i
		d.p.Maps = append(d.p.Maps, name)
	}
	in.Map = i
	return in, nil
}

// flow finds the functions and checks that control stays within them: a jump leads
// to an instruction of its own function, a call to one, and no function runs into
// the next.
func (d *decoder) flow() error {
	p := d.p
	inside := func(t int) bool { return t >= 0 && t < len(p.Insns) }
	starts := []int{0}
	for slot, in := range p.Insns {
		switch {
		case in.Op == CallLocal || in.Op == LoadFunc:
			if !inside(in.Target) {
				return fmt.Errorf("instruction %d: function at %d is out of range", slot, in.Target)
			}
			if p.Insns[in.Target].Op == Second {
				return fmt.Errorf("instruction %d: function at %d is in the middle of an instruction", slot, in.Target)
			}
			starts = append(starts, in.Target)
		case in.Op.IsJump():
			if !inside(in.Target) {
				return fmt.Errorf("instruction %d: jump to %d is out of range", slot, in.Target)
			}
			if p.Insns[in.Target].Op == Second {
				return fmt.Errorf("instruction %d: jump into the middle of instruction %d", slot, in.Target-1)
			}
		}
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)
	for i, s := range starts {
		end := len(p.Insns)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		p.Funcs = append(p.Funcs, Func{Start: s, End: end})
		last := p.Insns[end-1].Op
		if last != Exit && last != Ja {
			return fmt.Errorf("instruction %d: control falls off the end of a function", end-1)
		}
		for slot := s; slot < end; slot++ {
			if in := p.Insns[slot]; in.Op.IsJump() && (in.Target < s || in.Target >= end) {
				return fmt.Errorf("instruction %d: jump to %d leaves its function", slot, in.Target)
			}
		}
	}
	return p.depth()
}

// depth checks that no chain of calls, callbacks included, needs more than
// MaxDepth frames, which also rules out recursion.
func (p *Program) depth() error {
	calls := make([][]int, len(p.Funcs))
	for i, f := range p.Funcs {
		for _, in := range p.Insns[f.Start:f.End] {
			if in.Op == CallLocal || in.Op == LoadFunc {
				calls[i] = append(calls[i], p.FuncAt(in.Target))
			}
		}
		slices.Sort(calls[i])
		calls[i] = slices.Compact(calls[i])
	}
	const visiting = -1
	frames := make([]int, len(p.Funcs)) // that a call of the function needs
	var visit func(int, int) error
	visit = func(f, level int) error {
		if frames[f] == visiting || level > MaxDepth {
			return fmt.Errorf("calls nest deeper than %d at the function at %d", MaxDepth, p.Funcs[f].Start)
		}
		if frames[f] != 0 {
			return nil
		}
		frames[f] = visiting
		need := 1
		for _, c := range calls[f] {
			if err := visit(c, level+1); err != nil {
				return err
			}
			need = max(need, frames[c]+1)
		}
		if need > MaxDepth {
			return fmt.Errorf("calls nest deeper than %d at the function at %d", MaxDepth, p.Funcs[f].Start)
		}
		frames[f] = need
		return nil
	}
	for f := range p.Funcs {
		if err := visit(f, 1); err != nil {
			return err
		}
	}
	return nil
}
