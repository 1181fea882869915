package codegen

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Registers by their part in the calling convention: r0 is the result, r1…r5 the
// arguments, which a call destroys, r6…r9 survive calls, r10 is the frame.
const (
	r0  = asm.R0
	r1  = asm.R1
	r2  = asm.R2
	r3  = asm.R3
	r4  = asm.R4
	r5  = asm.R5
	r6  = asm.R6
	r7  = asm.R7
	r8  = asm.R8
	r9  = asm.R9
	r10 = asm.RFP
)

const (
	u8  = asm.Byte
	u16 = asm.Half
	u32 = asm.Word
	u64 = asm.DWord
)

// maxJump is how far a jump's 16-bit offset reaches, in units of 8 bytes.
const maxJump = 32767

// fn is one function in the making.
type fn struct {
	name   string
	params []btf.FuncParam
	ret    btf.Type
	// linkage decides how the verifier looks at it: a static function with each
	// call, a global one once, for any arguments.
	linkage btf.FuncLinkage
	ins     asm.Instructions
	labels  int
	label   string            // to be put on the next instruction
	alias   map[string]string // further labels of one instruction
	at      home              // of what is evaluated
}

var (
	btfU64 = &btf.Int{Name: "unsigned long", Size: 8, Encoding: btf.Unsigned}
	btfI32 = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	btfPtr = &btf.Pointer{Target: &btf.Void{}}
)

func ptr(name string) btf.FuncParam { return btf.FuncParam{Name: name, Type: btfPtr} }
func num(name string) btf.FuncParam { return btf.FuncParam{Name: name, Type: btfU64} }

// newFn starts a static function, whose name must be a C identifier and unique in the
// collection.
func newFn(name string, params ...btf.FuncParam) *fn {
	return &fn{name: name, params: params, ret: btfI32, alias: make(map[string]string)}
}

// emit appends instructions; the first takes the pending label.
func (f *fn) emit(ins ...asm.Instruction) {
	for _, i := range ins {
		if f.label != "" {
			i = i.WithSymbol(f.label)
			f.label = ""
		}
		f.ins = append(f.ins, i)
	}
}

// newLabel makes a name to jump to.
func (f *fn) newLabel(hint string) string {
	f.labels++
	return fmt.Sprintf("%s.%s%d", f.name, hint, f.labels)
}

// place puts a label on the next instruction.
func (f *fn) place(label string) {
	if f.label != "" {
		f.alias[label] = f.label
		return
	}
	f.label = label
}

func (f *fn) load(dst, base asm.Register, off int, size asm.Size) {
	f.emit(asm.LoadMem(dst, base, int16(off), size))
}

func (f *fn) store(base asm.Register, off int, src asm.Register, size asm.Size) {
	f.emit(asm.StoreMem(base, int16(off), src, size))
}

// storeImm stores a constant of at most 32 bits, sign-extended. (asm.StoreImm
// refuses 8 bytes; the instruction set has them.)
func (f *fn) storeImm(base asm.Register, off int, v int64, size asm.Size) {
	f.emit(asm.Instruction{OpCode: asm.StoreImmOp(size), Dst: base, Offset: int16(off), Constant: v})
}

func (f *fn) mov(dst, src asm.Register)          { f.emit(asm.Mov.Reg(dst, src)) }
func (f *fn) addImm(dst asm.Register, v int32)   { f.emit(asm.Add.Imm(dst, v)) }
func (f *fn) helper(b asm.BuiltinFunc)           { f.emit(b.Call()) }
func (f *fn) jump(label string)                  { f.emit(asm.Ja.Label(label)) }
func (f *fn) loadMap(dst asm.Register, m string) { f.emit(asm.LoadMapPtr(dst, 0).WithReference(m)) }

// imm loads a constant by the shortest instruction that does.
func (f *fn) imm(dst asm.Register, v int64) {
	if v == int64(int32(v)) {
		f.emit(asm.Mov.Imm(dst, int32(v)))
		return
	}
	f.emit(asm.LoadImm(dst, v, asm.DWord))
}

// call calls another function of the program.
func (f *fn) call(name string) { f.emit(asm.Call.Label(name)) }

// loadFunc loads the address of a function of the program, for helpers that take
// a callback.
func (f *fn) loadFunc(dst asm.Register, name string) {
	f.emit(asm.Instruction{
		OpCode:   asm.LoadImmOp(asm.DWord),
		Dst:      dst,
		Src:      asm.PseudoFunc,
		Constant: -1,
	}.WithReference(name))
}

// exit returns r0.
func (f *fn) exit() { f.emit(asm.Return()) }

// exitWith returns a constant.
func (f *fn) exitWith(v int32) { f.emit(asm.Mov.Imm(r0, v), asm.Return()) }

// lookup leaves in r0 the element of m at the u32 key in r1, or null. It uses the
// last 4 bytes of the frame.
func (f *fn) lookup(m string) {
	f.store(r10, -4, r1, u32)
	f.mov(r2, r10)
	f.addImm(r2, -4)
	f.loadMap(r1, m)
	f.helper(asm.FnMapLookupElem)
}

// add1 adds 1 to the u64 at base, which another program that has preempted this
// one may be doing too.
func (f *fn) add1(base asm.Register) {
	f.imm(r1, 1)
	f.atomic(asm.AddAtomic, base, 0, r1)
}

// atomic does an atomic operation on the u64 at dst + off. What it is stands in the
// immediate (kernel, instruction-set.rst), where asm's Marshal does not put it by
// itself: without, each is an addition.
func (f *fn) atomic(op asm.AtomicOp, dst asm.Register, off int, src asm.Register) {
	ins := op.Mem(dst, src, asm.DWord, int16(off))
	ins.Constant = int64(op) >> 8
	f.emit(ins)
}

// finish gives the function its name and its type, which the kernel demands of
// callbacks (BTF func_info, static linkage), and checks that its jumps reach.
func (f *fn) finish() (asm.Instructions, error) {
	if f.label != "" {
		return nil, fmt.Errorf("%s: label %s is at the end", f.name, f.label)
	}
	if f.ins.Size()/asm.InstructionSize > maxJump {
		return nil, fmt.Errorf("%s: %w", f.name, errTooLong)
	}
	for i, ins := range f.ins {
		if to, ok := f.alias[ins.Reference()]; ok {
			f.ins[i] = ins.WithReference(to)
		}
	}
	f.ins = reachable(f.ins)
	f.ins[0] = btf.WithFuncMetadata(f.ins[0].WithSymbol(f.name), &btf.Func{
		Name:    f.name,
		Linkage: f.linkage,
		Type:    &btf.FuncProto{Return: f.ret, Params: f.params},
	})
	return f.ins, nil
}

// reachable leaves out the instructions that control cannot reach, which the
// verifier refuses.
func reachable(ins asm.Instructions) asm.Instructions {
	at := make(map[string]int)
	for i := range ins {
		if s := ins[i].Symbol(); s != "" {
			at[s] = i
		}
	}
	seen := make([]bool, len(ins))
	for todo := []int{0}; len(todo) > 0; {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for i < len(ins) && !seen[i] {
			seen[i] = true
			op := ins[i].OpCode
			jumps := op.Class().IsJump() && op.JumpOp() != asm.Call
			if to, ok := at[ins[i].Reference()]; ok && jumps {
				todo = append(todo, to)
			}
			if jumps && (op.JumpOp() == asm.Ja || op.JumpOp() == asm.Exit) {
				break
			}
			i++
		}
	}
	var out asm.Instructions
	for i := range ins {
		if seen[i] {
			out = append(out, ins[i])
		}
	}
	return out
}
