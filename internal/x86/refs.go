package x86

import (
	"encoding/binary"
	"slices"
)

// RefKind is how an instruction refers to an address.
type RefKind uint8

// The kinds of reference.
const (
	RefCall RefKind = iota
	RefJmp
	RefJcc
	RefLea
	RefMem // any other RIP-relative memory operand
)

func (k RefKind) String() string { return [...]string{"call", "jmp", "jcc", "lea", "mem"}[k] }

// Ref is a reference to Target by the instruction that seems to start at Addr.
type Ref struct {
	Addr, Target uint64
	Kind         RefKind
}

// FindRefs finds the references by 32-bit displacement (not those of short
// jumps) in code, which lies at base, to any of targets, in order of address.
// It looks at bytes, not at instructions: nothing that is there is missed, but
// what it finds may lie across instructions or in data, and Addr may be a
// prefix too early; the caller decodes the function around it to be sure.
func FindRefs(code []byte, base uint64, targets map[uint64]struct{}) []Ref {
	if len(targets) == 0 || len(code) < 5 {
		return nil
	}
	// A reference whose 32-bit displacement d lies at offset i, with k bytes
	// of immediate after it, has d+i = target-base-4-k (modulo 2^32; code is
	// smaller). A bitmap over a hash of the right side, for each target and
	// each k, answers "surely none" for nearly all offsets.
	bits := 16
	for bits < 24 && 4*len(targets) > 1<<(bits-7) {
		bits++
	}
	shift := uint(32 - bits)
	filter := make([]uint64, 1<<(bits-6))
	for t := range targets {
		for _, k := range [...]uint64{0, 1, 2, 4} {
			h := uint32(t-base-4-k) * hashFactor >> shift
			filter[h>>6] |= 1 << (h & 63)
		}
	}
	var refs []Ref
	for i := 1; i+4 <= len(code); i++ {
		d := binary.LittleEndian.Uint32(code[i:])
		h := (d + uint32(i)) * hashFactor >> shift
		if filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		refs = refAt(refs, code, base, i, targets)
	}
	slices.SortStableFunc(refs, func(a, b Ref) int {
		if a.Addr < b.Addr {
			return -1
		}
		return b2i(a.Addr > b.Addr)
	})
	return refs
}

// hashFactor is 2^32 divided by the golden ratio (Knuth, vol. 3, 6.4).
const hashFactor = 0x9e3779b1

// refAt adds the reference whose displacement is at offset i, if it is one.
func refAt(refs []Ref, code []byte, base uint64, i int, targets map[uint64]struct{}) []Ref {
	end := base + uint64(i) + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(code[i:]))))
	if _, ok := targets[end]; ok {
		addr := base + uint64(i)
		switch b := code[i-1]; {
		case b == 0xe8:
			refs = append(refs, Ref{addr - 1, end, RefCall})
		case b == 0xe9:
			refs = append(refs, Ref{addr - 1, end, RefJmp})
		case b&0xf0 == 0x80 && i > 1 && code[i-2] == 0x0f:
			refs = append(refs, Ref{addr - 2, end, RefJcc})
		}
	}
	if code[i-1]&0xc7 != 0x05 || i < 2 {
		return refs
	}
	// A RIP-relative operand: the longest instruction that has its
	// displacement here. Opcode, prefixes and ModRM take 2 to 7 bytes.
	for n := 7; n >= 2; n-- {
		if i < n {
			continue
		}
		s := i - n
		in, err := Decode(code[s:], base+uint64(s))
		if err != nil || !in.Mem.RIPRel || in.Len < n+4 || in.Prefixes&Prefix67 != 0 {
			continue
		}
		if in.Mem.Target != end+uint64(in.Len-n-4) {
			continue // the operand's displacement is not the one at i
		}
		if _, ok := targets[in.Mem.Target]; !ok {
			continue
		}
		if in.Prefixes&^(Prefix66|PrefixF2|PrefixF3|PrefixLock) != 0 && n > 3 {
			continue // rather the end of the instruction before
		}
		kind := RefMem
		switch in.Kind {
		case Lea:
			kind = RefLea
		case CallIndirect:
			kind = RefCall
		case JmpIndirect:
			kind = RefJmp
		}
		return append(refs, Ref{base + uint64(s), in.Mem.Target, kind})
	}
	return refs
}
