package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
)

// The kernel describes its own types in vmlinuxBTF: hundreds of thousands, of which two
// are wanted. Decoding all of them takes longer than all else that it takes to arm a
// probe; this looks for names in what is as the kernel wrote it
// (Documentation/bpf/btf.rst).

const vmlinuxBTF = "/sys/kernel/btf/vmlinux"

// kernelTypes is a description of types.
type kernelTypes struct {
	types, strings []byte
	at             []uint32 // by type id, its offset in types; 0 has none
}

const (
	btfMagic = 0xeb9f

	// struct btf_type, and struct btf_member.
	btfTypeSize, btfMemberSize = 12, 12
)

// btfStruct and btfUnion are kinds of types that have members.
const btfStruct, btfUnion = 4, 5

// btfFollows is, by kind, how many bytes follow a type: so many in any case, and so many for
// each of what it has. Of a kind that is not here the size is not known.
var btfFollows = [...]struct{ any, each int }{
	1: {any: 4}, 2: {}, 3: {any: 12}, btfStruct: {each: btfMemberSize}, btfUnion: {each: btfMemberSize}, 6: {each: 8}, 7: {}, 8: {}, 9: {}, 10: {},
	11: {}, 12: {}, 13: {each: 8}, 14: {any: 4}, 15: {each: 12}, 16: {}, 17: {any: 4}, 18: {}, 19: {each: 12},
}

var errBTF = errors.New("the kernel's description of its types is not understood")

func readKernelTypes() (*kernelTypes, error) {
	b, err := os.ReadFile(vmlinuxBTF)
	if err != nil {
		return nil, err
	}
	return parseTypes(b)
}

// parseTypes finds where each type is.
func parseTypes(b []byte) (*kernelTypes, error) {
	le := binary.LittleEndian
	if len(b) < 24 || le.Uint16(b) != btfMagic {
		return nil, errBTF
	}
	section := func(at int) []byte {
		from := uint64(le.Uint32(b[4:])) + uint64(le.Uint32(b[at:]))
		to := from + uint64(le.Uint32(b[at+4:]))
		if to > uint64(len(b)) {
			return nil
		}
		return b[from:to]
	}
	k := &kernelTypes{types: section(8), strings: section(16), at: []uint32{0}}
	for off := 0; off < len(k.types); {
		if len(k.types)-off < btfTypeSize {
			return nil, errBTF
		}
		kind, n, _ := k.info(uint32(off))
		if kind == 0 || int(kind) >= len(btfFollows) {
			return nil, fmt.Errorf("%w: kind %d", errBTF, kind)
		}
		next := off + btfTypeSize + btfFollows[kind].any + n*btfFollows[kind].each
		if next > len(k.types) {
			return nil, errBTF
		}
		k.at = append(k.at, uint32(off))
		off = next
	}
	return k, nil
}

// info is a type's kind, how many it has, and its flag.
func (k *kernelTypes) info(off uint32) (kind uint32, n int, flag bool) {
	v := binary.LittleEndian.Uint32(k.types[off+4:])
	return v >> 24 & 31, int(v & 0xffff), v>>31 != 0
}

func (k *kernelTypes) word(off uint32) uint32 { return binary.LittleEndian.Uint32(k.types[off:]) }

// named says whether the type or member at an offset has a name.
func (k *kernelTypes) named(off uint32, name string) bool {
	from := k.word(off)
	if uint64(from) > uint64(len(k.strings)) {
		return false
	}
	s := k.strings[from:]
	return len(s) > len(name) && string(s[:len(name)]) == name && s[len(name)] == 0
}

// member is where, in bytes, a struct has a member, maybe inside of anonymous ones.
func (k *kernelTypes) member(structure, name string) (int16, error) {
	for _, off := range k.at[min(1, len(k.at)):] {
		if kind, _, _ := k.info(off); kind != btfStruct || !k.named(off, structure) {
			continue
		}
		bits, ok := k.inside(off, name, 0)
		if at := int16(bits / 8); ok && bits%8 == 0 && uint32(at)*8 == bits {
			return at, nil
		}
		break
	}
	return 0, fmt.Errorf("struct %s has no member %s: %w", structure, name, ebpf.ErrNotSupported)
}

// maxAnonymous is how deep anonymous members are nested at most.
const maxAnonymous = 8

func (k *kernelTypes) inside(off uint32, name string, depth int) (bits uint32, ok bool) {
	kind, n, flag := k.info(off)
	if kind != btfStruct && kind != btfUnion || depth > maxAnonymous {
		return 0, false
	}
	for i := range n {
		m := off + btfTypeSize + uint32(i)*btfMemberSize
		at := k.word(m + 8)
		if flag { // the upper byte is the size of a bit field
			at &= 1<<24 - 1
		}
		if k.named(m, name) {
			return at, true
		}
		if !k.named(m, "") {
			continue
		}
		if id := k.word(m + 4); id > 0 && uint64(id) < uint64(len(k.at)) {
			if in, ok := k.inside(k.at[id], name, depth+1); ok {
				return at + in, true
			}
		}
	}
	return 0, false
}
