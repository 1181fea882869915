package x86

import "testing"

func TestHoldsAtExit(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want bool
	}{
		{"mov rax,rdi; ret", []byte{0x48, 0x89, 0xf8, 0xc3}, true},
		{"mov [rdi],rsi; ret", []byte{0x48, 0x89, 0x37, 0xc3}, false},
		{"push rbx; mov rbx,rdi; call +0; mov rax,rbx; pop rbx; ret",
			[]byte{0x53, 0x48, 0x89, 0xfb, 0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xd8, 0x5b, 0xc3}, true},
		{"call +0; mov rax,rdi; ret", []byte{0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xf8, 0xc3}, false},
		{"mov eax,edi; ret: half of it", []byte{0x89, 0xf8, 0xc3}, false},
		{"test esi,esi; je 1f; mov rax,rdi; 1: ret: on one path", []byte{0x85, 0xf6, 0x74, 0x03, 0x48, 0x89, 0xf8, 0xc3}, false},
	} {
		code := func(addr uint64) []byte { return c.code[addr:] }
		f, err := NewFunc(code, []Range{{0, uint64(len(c.code))}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		exits, err := f.Exits()
		if err != nil || len(exits) != 1 {
			t.Fatalf("%s: exits %v, %v", c.name, exits, err)
		}
		if got := f.HoldsAtExit(exits[0], RDI, RAX, nil); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
