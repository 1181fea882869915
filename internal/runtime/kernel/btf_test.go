package kernel

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// What is found in the kernel's own description is what cilium/ebpf finds.
func TestKernelTypes(t *testing.T) {
	k, err := readKernelTypes()
	if err != nil {
		t.Skipf("no types of the kernel: %v", err)
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Skip(err)
	}
	for _, typ := range []string{"task_struct", "signal_struct", "mm_struct", "file", "page", "sk_buff"} {
		var s *btf.Struct
		if err := spec.TypeByName(typ, &s); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range s.Members {
			if m.Name == "" || m.BitfieldSize > 0 || m.Offset.Bytes() >= 1<<15 {
				continue
			}
			n++
			if got, err := k.member(typ, m.Name); err != nil || uint32(got) != m.Offset.Bytes() {
				t.Errorf("%s.%s is at %d, %v; want %d", typ, m.Name, got, err, m.Offset.Bytes())
			}
		}
		if n == 0 && typ != "mm_struct" { // whose members are in an anonymous one
			t.Errorf("%s has no members", typ)
		}
	}
	if _, err := k.member("mm_struct", "mmap_base"); err != nil {
		t.Errorf("inside of an anonymous member: %v", err)
	}
	if _, err := k.member("task_struct", "no_such"); !errors.Is(err, ebpf.ErrNotSupported) {
		t.Error(err)
	}
}

// A description that is none is refused, and nothing is read behind its end.
func TestKernelTypesDamaged(t *testing.T) {
	le := binary.LittleEndian
	good := func() []byte {
		b := le.AppendUint16(nil, btfMagic)
		b = append(b, 1, 0)
		for _, v := range []uint32{24, 0, 24, 24, 5} { // header, types, strings
			b = le.AppendUint32(b, v)
		}
		for _, v := range []uint32{1, btfStruct<<24 | 1, 8, 3, 0, 32} { // struct s { t at bit 32 }
			b = le.AppendUint32(b, v)
		}
		return append(b, "\x00s\x00t\x00"...)
	}
	k, err := parseTypes(good())
	if err != nil {
		t.Fatal(err)
	}
	if at, err := k.member("s", "t"); at != 4 || err != nil {
		t.Errorf("%d, %v", at, err)
	}
	for i := range good() {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			b := good()
			b[i] = v
			if k, err := parseTypes(b); err == nil {
				_, _ = k.member("s", "t")
			}
			if k, err := parseTypes(b[:i]); err == nil {
				_, _ = k.member("s", "t")
			}
		}
	}
}
