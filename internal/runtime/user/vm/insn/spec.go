package insn

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// FromSpec checks a program of a collection. Its maps are named as the
// instructions' references name them.
func FromSpec(spec *ebpf.ProgramSpec) (*Program, error) {
	p, err := FromInstructions(spec.Instructions)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Name, err)
	}
	p.Name = spec.Name
	return p, nil
}

// FromInstructions checks symbolic instructions, which are not modified: jumps and
// calls lead to symbols or by offset, maps are references to their names.
func FromInstructions(insns asm.Instructions) (*Program, error) {
	var (
		symbols = make(map[string]int)
		slots   = make([]int, len(insns))
		slot    int
	)
	for i, in := range insns {
		slots[i] = slot
		if s := in.Symbol(); s != "" {
			if _, ok := symbols[s]; ok {
				return nil, fmt.Errorf("%w: symbol %s is there twice", ErrRefused, s)
			}
			symbols[s] = slot
		}
		slot += int(in.Width())
	}
	var (
		raw   bytes.Buffer
		maps  []string
		index = make(map[string]int)
	)
	for i, in := range insns {
		if err := resolve(&in, slots[i], symbols, func(name string) int32 {
			n, ok := index[name]
			if !ok {
				n = len(maps)
				index[name] = n
				maps = append(maps, name)
			}
			return int32(n)
		}); err != nil {
			return nil, fmt.Errorf("%w: instruction %d: %w", ErrRefused, slots[i], err)
		}
		if _, err := in.Marshal(&raw, binary.LittleEndian); err != nil {
			return nil, fmt.Errorf("%w: instruction %d: %w", ErrRefused, slots[i], err)
		}
	}
	p, err := Decode(raw.Bytes(), func(n int32) (string, bool) {
		if n < 0 || int(n) >= len(maps) {
			return "", false
		}
		return maps[n], true
	})
	if err != nil {
		return nil, err
	}
	for name, slot := range symbols {
		if f := p.FuncAt(slot); p.Funcs[f].Start == slot {
			p.Funcs[f].Name = name
		}
	}
	return p, nil
}

// ownRegs says whether a relocation is about where a field of struct pt_regs is:
// that is ABI on x86-64, so that the instruction is right as it was compiled.
func ownRegs(relo *btf.CORERelocation) bool {
	s := relo.String()
	return strings.HasPrefix(s, "CORERelocation(byte_off,") && strings.Contains(s, `"pt_regs"`)
}

// resolve turns references into numbers.
func resolve(in *asm.Instruction, slot int, symbols map[string]int, mapIndex func(string) int32) error {
	if relo := btf.CORERelocationMetadata(in); relo != nil && !ownRegs(relo) {
		return fmt.Errorf("%v is not supported", relo)
	}
	ref := in.Reference()
	if in.IsLoadFromMap() {
		if ref == "" {
			return fmt.Errorf("map by file descriptor %d is not supported", int32(in.Constant))
		}
		in.Constant = in.Constant&^math.MaxUint32 | int64(mapIndex(ref))
		return nil
	}
	if ref == "" {
		return nil
	}
	target, ok := symbols[ref]
	if !ok {
		return fmt.Errorf("no symbol %s: %w", ref, asm.ErrUnsatisfiedProgramReference)
	}
	rel := int64(target - slot - 1)
	switch {
	case in.IsFunctionReference():
		in.Constant = rel
	case in.OpCode.Class() == asm.Jump32Class && in.OpCode.JumpOp() == asm.Ja:
		in.Constant = rel
	case in.OpCode.Class().IsJump():
		if rel < math.MinInt16 || rel > math.MaxInt16 {
			return fmt.Errorf("jump to %s is %d instructions long", ref, rel)
		}
		in.Offset = int16(rel)
	default:
		return fmt.Errorf("reference to %s is not supported", ref)
	}
	return nil
}
