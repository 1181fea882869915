package asm

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"ferrotrace/internal/x86"
)

// Expectations are written from the SDM's tables; objdump -D -b binary -m i386:x86-64
// shows them as the comments have them.
func TestRelocate(t *testing.T) {
	const from, near, far = 0x5555_0000_1000, 0x5555_0001_0000, 0x7000_0000_0000
	const lowFrom = 0x40_1000
	for _, c := range []struct {
		name     string
		from, to uint64
		raw      string
		want     string // empty: refused
	}{
		{"no address", from, near, "4889e5", "4889e5"},
		{"lea 0x10(%rip),%rax", from, near, "488d0510000000", "488d05 1010ffff"},
		{"mov 0x10(%rip),%rax far", from, far, "488b0510000000", "48b8 1710000055550000 488b00"},
		{"mov 0x10(%rip),%r13d far", from, far, "448b2d10000000", "49bd 1710000055550000 458b6d00"},
		{"lea far", from, far, "488d0510000000", "48b8 1710000055550000"},
		{"movl $0x05050505,0x05(%rip)", from, near, "c7050505000005050505", "c705 0515ffff 05050505"},
		{"cmpb $5,0x10(%rip)", from, near, "803d1000000005", "803d 1010ffff 05"},
		{"addsd 0(%rip),%xmm0", from, near, "f20f580500000000", "f20f5805 0010ffff"},
		{"vpshufd $5,0(%rip),%xmm0", from, near, "c5f970050000000005", "c5f97005 0010ffff 05"},
		{"add far", from, far, "48030510000000", ""},
		{"jmp .+2 short", from, near, "eb00", "e9 fd0fffff"},
		{"jmp short, far", from, far, "eb00", "ff2500000000 0210000055550000"},
		{"jne .+2", from, near, "7500", "0f85 fc0fffff"},
		{"jne .+6 long, far", from, far, "0f8500000000", "740e ff2500000000 0610000055550000"},
		{"loop", from, near, "e2fe", "e202 eb05 e9 f70fffff"},
		{"jrcxz far", from, far, "e300", "e302 eb0e ff2500000000 0210000055550000"},
		{"jecxz", from, near, "67e300", "67e302 eb05 e9 f90fffff"},
		{"call, low addresses", lowFrom, 0x41_0000, "e8fb0f0000", "6805104000 e9 f61fffff"},
		{"call", from, near, "e8fb0f0000", "6805100000 c744240455550000 e9 ee1fffff"},
		{"call *%rax", lowFrom, 0x41_0000, "ffd0", "6802104000 ffe0"},
		{"call *%r12", lowFrom, 0x41_0000, "41ffd4", "6803104000 41ffe4"},
		{"call *%rsp", lowFrom, 0x41_0000, "ffd4", ""},
		{"call *0x18(%rax)", lowFrom, 0x41_0000, "ff5018", "6803104000 ff6018"},
		{"call *(%rsp)", lowFrom, 0x41_0000, "ff1424", "6803104000 ff642408"},
		{"call *0x78(%rsp,%rax,8)", lowFrom, 0x41_0000, "ff54c478", "6804104000 ffa4c480000000"},
		{"call *0x10(%rip)", lowFrom, 0x41_0000, "ff1510000000", "6806104000 ff25 0b10ffff"},
		{"call *0x10(%rip) far", from, far, "ff1510000000", ""},
		{"jmp *0x10(%rip)", from, near, "ff2510000000", "ff25 1010ffff"},
		{"jmp *%rax", from, near, "ffe0", "ffe0"},
		{"ret", from, near, "c3", "c3"},
		{"endbr64", from, near, "f30f1efa", "f30f1efa"},
		{"lea 0x10(%eip),%eax", from, near, "678d0510000000", ""},
		{"xbegin", from, near, "c7f800000000", ""},
		{"syscall", from, near, "0f05", ""},
		{"ud2", from, near, "0f0b", ""},
		{"int3", from, near, "cc", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := hex.DecodeString(c.raw)
			if err != nil {
				t.Fatal(err)
			}
			in, err := x86.Decode(raw, c.from)
			if err != nil || in.Len != len(raw) {
				t.Fatal(err, in.Len)
			}
			var a Assembler
			err = a.Relocate(c.to, &in, raw)
			if (err != nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrRelocate) || a.Len() != 0) {
				t.Fatalf("%v, with %d bytes written", err, a.Len())
			}
			got, _, err := a.Finish()
			if want := strings.ReplaceAll(c.want, " ", ""); err != nil || hex.EncodeToString(got) != want {
				t.Errorf("got %x, %v; want %s", got, err, want)
			}
		})
	}
}

func TestCallTo(t *testing.T) {
	for _, c := range []struct {
		target uint64
		want   string
	}{
		{0x40_2000, "e8fb0f0000"},
		{0x7000_0000_0000, "ff1502000000eb08000000000070" + "0000"},
	} {
		var a Assembler
		a.CallTo(0x40_1000, c.target)
		if got, _, err := a.Finish(); err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%x, %v; want %s", got, err, c.want)
		}
	}
}

// FuzzRelocate: bytes that the decoder takes never make Relocate panic, and what it
// writes for an instruction without an address is the instruction.
func FuzzRelocate(f *testing.F) {
	f.Add([]byte{0x48, 0x8d, 0x05, 1, 2, 3, 4}, uint64(0x400000), uint64(0x500000))
	f.Add([]byte{0xff, 0x54, 0xc4, 0x78}, uint64(0x400000), uint64(0x7000_0000_0000))
	f.Fuzz(func(t *testing.T, raw []byte, from, to uint64) {
		in, err := x86.Decode(raw, from)
		if err != nil {
			return
		}
		raw = raw[:in.Len]
		var a Assembler
		if a.Relocate(to, &in, raw) != nil {
			if a.Len() != 0 {
				t.Fatalf("%x: refused, but %d bytes are written", raw, a.Len())
			}
			return
		}
		got, _, err := a.Finish()
		if err != nil {
			t.Fatalf("%x: %v", raw, err)
		}
		if in.Mem.RIPRel && len(got) == in.Len {
			moved, err := x86.Decode(got, to)
			if err != nil || moved.Mem.Target != in.Mem.Target || moved.Kind != in.Kind {
				t.Fatalf("%x at %#x became %x at %#x", raw, from, got, to)
			}
		}
	})
}
