// Package vm interprets eBPF: the reference that the JIT is held against, and what
// runs the programs that belong to the tracer itself (begin, end, interval) over
// the maps that it shares with the traced processes.
//
// Memory is safe: a program reaches its stack, the memory that it was given and the
// values that maps handed out, and anything else is an error. Addresses are the
// real ones of that memory, so that a pointer which a program leaves in a shared
// map keeps its meaning.
package vm

import (
	"errors"
	"fmt"
	"math/bits"
	"syscall"

	"ferrotrace/internal/runtime/user/vm/insn"
)

// Errors that Run wraps.
var (
	ErrBudget   = errors.New("instruction budget exhausted")
	ErrMemory   = errors.New("memory access out of bounds")
	ErrDepth    = errors.New("calls nest too deeply")
	ErrArgument = errors.New("helper got a bad argument")
)

// DefaultBudget is how many instructions a run may take if Config does not say: as
// many as the kernel's verifier follows.
const DefaultBudget = 1_000_000

// Map is what programs do with a map. Errors are syscall.Errno as the kernel's.
type Map interface {
	KeySize() int
	ValueSize() int // as a program sees it: of one CPU
	// Lookup returns the memory of the value itself, on that CPU if the map is per
	// CPU, or nil.
	Lookup(key []byte, cpu int) []byte
	// Update copies the value, on that CPU if the map is per CPU.
	Update(key, value []byte, flags uint64, cpu int) error
	Delete(key []byte) error
	// Each passes every element until f returns false; the slices are the map's own.
	Each(cpu int, f func(key, value []byte) bool)
}

// Ring is what programs do with a ring buffer.
type Ring interface {
	// Reserve returns memory for n bytes, or nil if there is no room.
	Reserve(n int, cpu int) []byte
	// Commit ends the reservation of a sample, which a reader then sees unless it is
	// discarded.
	Commit(sample []byte, discard bool)
	// Query answers bpf_ringbuf_query.
	Query(what uint64) uint64
}

// Config is a program's surroundings.
type Config struct {
	// Maps and Rings by the names in Program.Maps.
	Maps  map[string]Map
	Rings map[string]Ring
	// Budget bounds the instructions of one run; 0 is DefaultBudget.
	Budget int
	// Cookie and FuncIP answer the helpers of these names.
	Cookie, FuncIP uint64
}

// Machine runs one program. It is not safe for concurrent use.
type Machine struct {
	p       *insn.Program
	c       Config
	maps    []Map // by insn.Program.Maps
	rings   []Ring
	mem     memory
	stack   []byte
	depth   int
	left    int
	samples map[uint64]sample
	random  uint64
}

type sample struct {
	ring  Ring
	bytes []byte
}

// Handles stand for what has no memory; they are no addresses that user space has.
const (
	mapHandle  = 0xffff_b000_0000_0000
	funcHandle = 0xffff_f000_0000_0000
)

// New makes a machine. A map that is missing or a helper that is unknown is refused
// by name.
func New(p *insn.Program, c Config) (*Machine, error) {
	m := &Machine{
		p: p, c: c,
		maps: make([]Map, len(p.Maps)), rings: make([]Ring, len(p.Maps)),
		stack:  make([]byte, insn.StackSize*insn.MaxDepth),
		random: 0x9e3779b97f4a7c15,
	}
	if m.c.Budget == 0 {
		m.c.Budget = DefaultBudget
	}
	for i, name := range p.Maps {
		m.maps[i], m.rings[i] = c.Maps[name], c.Rings[name]
		if m.maps[i] == nil && m.rings[i] == nil {
			return nil, fmt.Errorf("%w: there is no map %s", insn.ErrRefused, name)
		}
	}
	for slot, in := range p.Insns {
		if in.Op == insn.Call && helpers[in.Imm].call == nil {
			return nil, fmt.Errorf("%w: instruction %d: helper %s is not supported", insn.ErrRefused, slot, insn.HelperName(in.Imm))
		}
		if in.Op == insn.LoadValue {
			if m.maps[in.Map] == nil || m.maps[in.Map].KeySize() != 4 {
				return nil, fmt.Errorf("%w: instruction %d: map %s has no direct values", insn.ErrRefused, slot, p.Maps[in.Map])
			}
			if in.Imm >= int64(m.maps[in.Map].ValueSize()) {
				return nil, fmt.Errorf("%w: instruction %d: offset %d is beyond the value of map %s", insn.ErrRefused, slot, in.Imm, p.Maps[in.Map])
			}
		}
	}
	return m, nil
}

// Run runs the program with r1 = the address of mem and r2 = its length, and
// returns r0.
func (m *Machine) Run(mem []byte) (uint64, error) {
	m.mem.reset()
	m.mem.add(m.stack)
	addr := m.mem.add(mem)
	m.samples = make(map[uint64]sample)
	m.depth, m.left = 0, m.c.Budget
	r0, err := m.call(0, [5]uint64{addr, uint64(len(mem))})
	for _, s := range m.samples { // the verifier would not let a program leak one
		s.ring.Commit(s.bytes, true)
	}
	return r0, err
}

// poison is what registers hold that a call destroyed.
const poison = 0xdead_0000_dead_0000

// call runs the function at slot in a frame of its own.
func (m *Machine) call(slot int, args [5]uint64) (uint64, error) {
	if m.depth == insn.MaxDepth {
		return 0, fmt.Errorf("instruction %d: %w", slot, ErrDepth)
	}
	var r [11]uint64
	for i := range r {
		r[i] = poison
	}
	copy(r[1:6], args[:])
	m.depth++
	r[10] = address(m.stack) + uint64(len(m.stack)-insn.StackSize*(m.depth-1))
	defer func() { m.depth-- }()
	for pc := slot; ; {
		if m.left == 0 {
			return 0, fmt.Errorf("instruction %d: %w", pc, ErrBudget)
		}
		m.left--
		in := &m.p.Insns[pc]
		pc++
		operand := uint64(in.Imm)
		if in.Reg {
			operand = r[in.Src]
		}
		var err error
		switch {
		case in.Op.IsALU():
			r[in.Dst] = ALU(in, r[in.Dst], operand)
		case in.Op == insn.Load, in.Op == insn.LoadSX:
			var v uint64
			v, err = m.mem.load(r[in.Src]+uint64(in.Off), in.Bytes)
			if in.Op == insn.LoadSX {
				v = signExtend(v, in.Bytes)
			}
			r[in.Dst] = v
		case in.Op == insn.Store:
			err = m.mem.store(r[in.Dst]+uint64(in.Off), in.Bytes, operand)
		case in.Op.IsAtomic():
			err = m.atomic(in, &r)
		case in.Op == insn.Ja:
			pc = in.Target
		case in.Op.IsCond():
			if Taken(in, r[in.Dst], operand) {
				pc = in.Target
			}
		case in.Op == insn.Call:
			r[0], err = helpers[in.Imm].call(m, [5]uint64(r[1:6]))
			clobber(&r)
		case in.Op == insn.CallLocal:
			r[0], err = m.call(in.Target, [5]uint64(r[1:6]))
			clobber(&r)
			if err != nil {
				return 0, err
			}
		case in.Op == insn.Exit:
			return r[0], nil
		case in.Op == insn.LoadImm:
			r[in.Dst] = uint64(in.Imm)
			pc++
		case in.Op == insn.LoadMap:
			r[in.Dst] = mapHandle + uint64(in.Map)
			pc++
		case in.Op == insn.LoadValue:
			r[in.Dst] = m.mem.add(m.maps[in.Map].Lookup(make([]byte, 4), 0)) + uint64(in.Imm)
			pc++
		case in.Op == insn.LoadFunc:
			r[in.Dst] = funcHandle + uint64(in.Target)
			pc++
		}
		if err != nil {
			return 0, fmt.Errorf("instruction %d: %v: %w", pc-1, in, err)
		}
	}
}

func clobber(r *[11]uint64) {
	for i := 1; i <= 5; i++ {
		r[i] = poison
	}
}

func signExtend(v uint64, size uint8) uint64 {
	shift := 64 - 8*uint(size)
	return uint64(int64(v<<shift) >> shift)
}

// ALU is the result of an arithmetic instruction (RFC 9669, 4.1 and 4.2).
func ALU(in *insn.Insn, dst, src uint64) uint64 {
	switch in.Op {
	case insn.MovSX:
		v := signExtend(src, in.Bytes)
		if !in.Wide {
			v = uint64(uint32(v))
		}
		return v
	case insn.ToLE:
		return dst & (^uint64(0) >> (64 - 8*uint(in.Bytes)))
	case insn.ToBE, insn.Swap:
		return bits.ReverseBytes64(dst) >> (64 - 8*uint(in.Bytes))
	}
	if in.Wide {
		return alu64(in.Op, dst, src)
	}
	return uint64(alu32(in.Op, uint32(dst), uint32(src)))
}

func alu64(op insn.Op, dst, src uint64) uint64 {
	switch op {
	case insn.Add:
		return dst + src
	case insn.Sub:
		return dst - src
	case insn.Mul:
		return dst * src
	case insn.Div:
		if src == 0 {
			return 0
		}
		return dst / src
	case insn.SDiv:
		if src == 0 {
			return 0
		}
		return uint64(int64(dst) / int64(src)) // Go too says MinInt64 / -1 = MinInt64
	case insn.Mod:
		if src == 0 {
			return dst
		}
		return dst % src
	case insn.SMod:
		if src == 0 {
			return dst
		}
		return uint64(int64(dst) % int64(src))
	case insn.Or:
		return dst | src
	case insn.And:
		return dst & src
	case insn.Xor:
		return dst ^ src
	case insn.Lsh:
		return dst << (src & 63)
	case insn.Rsh:
		return dst >> (src & 63)
	case insn.Arsh:
		return uint64(int64(dst) >> (src & 63))
	case insn.Neg:
		return -dst
	}
	return src // Mov
}

func alu32(op insn.Op, dst, src uint32) uint32 {
	switch op {
	case insn.SDiv:
		if src == 0 {
			return 0
		}
		return uint32(int32(dst) / int32(src))
	case insn.SMod:
		if src == 0 {
			return dst
		}
		return uint32(int32(dst) % int32(src))
	case insn.Div:
		if src == 0 {
			return 0
		}
		return dst / src
	case insn.Mod:
		if src == 0 {
			return dst
		}
		return dst % src
	case insn.Lsh:
		return dst << (src & 31)
	case insn.Rsh:
		return dst >> (src & 31)
	case insn.Arsh:
		return uint32(int32(dst) >> (src & 31))
	}
	return uint32(alu64(op, uint64(dst), uint64(src)))
}

// Taken says whether a conditional jump is taken (RFC 9669, 4.3).
func Taken(in *insn.Insn, dst, src uint64) bool {
	sd, ss := int64(dst), int64(src)
	if !in.Wide {
		dst, src = uint64(uint32(dst)), uint64(uint32(src))
		sd, ss = int64(int32(dst)), int64(int32(src))
	}
	switch in.Op {
	case insn.JEq:
		return dst == src
	case insn.JNe:
		return dst != src
	case insn.JGt:
		return dst > src
	case insn.JGe:
		return dst >= src
	case insn.JLt:
		return dst < src
	case insn.JLe:
		return dst <= src
	case insn.JSet:
		return dst&src != 0
	case insn.JSGt:
		return sd > ss
	case insn.JSGe:
		return sd >= ss
	case insn.JSLt:
		return sd < ss
	}
	return sd <= ss // JSLe
}

// errno is what a helper returns for an error.
func errno(err error) uint64 {
	if err == nil {
		return 0
	}
	if e := syscall.Errno(0); errors.As(err, &e) {
		return -uint64(e)
	}
	return errno(syscall.EINVAL)
}
