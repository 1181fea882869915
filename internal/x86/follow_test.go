package x86

import (
	"slices"
	"testing"
)

// TestCallsWith: the drop glue of a coroutine, as it is without optimisation.
func TestCallsWith(t *testing.T) {
	glue := slices.Concat(
		[]byte{0x48, 0x83, 0xec, 0x18},       // 00: sub rsp, 0x18
		[]byte{0x48, 0x89, 0x3c, 0x24},       // 04: mov [rsp], rdi
		[]byte{0x0f, 0xb6, 0x47, 0x10},       // 08: movzx eax, byte [rdi+0x10]
		[]byte{0x89, 0x44, 0x24, 0x0c},       // 0c: mov [rsp+0xc], eax
		[]byte{0x8b, 0x44, 0x24, 0x0c},       // 10: mov eax, [rsp+0xc]
		[]byte{0x85, 0xc0},                   // 14: test eax, eax
		[]byte{0x74, 0x0a},                   // 16: je 22
		[]byte{0x83, 0xe8, 0x03},             // 18: sub eax, 3
		[]byte{0x74, 0x17},                   // 1b: je 34
		[]byte{0x48, 0x83, 0xc4, 0x18, 0xc3}, // 1d: add rsp, 0x18; ret
		[]byte{0x48, 0x8b, 0x3c, 0x24},       // 22: mov rdi, [rsp]
		[]byte{0x48, 0x83, 0xc7, 0x08},       // 26: add rdi, 8
		[]byte{0xe8, 0xd1, 0, 0, 0},          // 2a: call 100
		[]byte{0x48, 0x83, 0xc4, 0x18, 0xc3}, // 2f: add rsp, 0x18; ret
		[]byte{0x48, 0x8b, 0x04, 0x24},       // 34: mov rax, [rsp]
		[]byte{0xf6, 0x40, 0x11, 0x01},       // 38: test byte [rax+0x11], 1
		[]byte{0x75, 0x0d},                   // 3c: jne 4b
		[]byte{0x48, 0x8b, 0x3c, 0x24},       // 3e: mov rdi, [rsp]
		[]byte{0x48, 0x83, 0xc7, 0x20},       // 42: add rdi, 0x20
		[]byte{0xe8, 0xb5, 0x01, 0, 0},       // 46: call 200
		[]byte{0x48, 0x8b, 0x3c, 0x24},       // 4b: mov rdi, [rsp]
		[]byte{0x48, 0x83, 0xc7, 0x18},       // 4f: add rdi, 0x18
		[]byte{0x48, 0x83, 0xc4, 0x18},       // 53: add rsp, 0x18
		[]byte{0xe9, 0xa4, 0x02, 0, 0},       // 57: jmp 300
	)
	slot := []byte{
		0x48, 0x83, 0xc7, 0x08, // add rdi, 8
		0x48, 0x8b, 0x05, 0xf5, 0x0f, 0, 0, // mov rax, [rip+ff5]
		0xff, 0xd0, // call rax
		0xc3,
	}
	looping := []byte{0x48, 0x85, 0xff, 0x75, 0xfb, 0xc3} // 1: test rdi, rdi; jne 1b; ret
	for _, c := range []struct {
		name  string
		code  []byte
		known Known
		want  []PassedOn
	}{
		{"state 0", glue, Known{0x10, 1, 0}, []PassedOn{{0x100, 8}}},
		{"state 3, with a flag", glue, Known{0x10, 1, 3}, []PassedOn{{0x300, 0x18}}},
		{"state 1", glue, Known{0x10, 1, 1}, nil},
		{"any state", glue, Known{0x11, 1, 0}, nil},
		{"through a slot", slot, Known{}, []PassedOn{{0x400, 8}}},
		{"without an end", looping, Known{0x10, 1, 0}, nil},
	} {
		f, err := NewFunc(func(addr uint64) []byte { return c.code[addr:] }, []Range{{0, uint64(len(c.code))}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.CallsWith(c.known, func(addr uint64) (uint64, bool) { return 0x400, addr == 0x1000 }); !slices.Equal(got, c.want) {
			t.Errorf("%s: %x, not %x", c.name, got, c.want)
		}
	}
}
