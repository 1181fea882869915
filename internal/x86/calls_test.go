package x86

import "testing"

func TestCallsThrough(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		src  Source
		want bool
	}{
		{"a call", []byte{0xff, 0x56, 0x18, 0xc3}, Source{Reg: RSI}, true},                                       // call *0x18(%rsi); ret
		{"a tail call", []byte{0xff, 0x66, 0x18}, Source{Reg: RSI}, true},                                        // jmp *0x18(%rsi)
		{"of another table", []byte{0xff, 0x57, 0x18, 0xc3}, Source{Reg: RSI}, false},                            // call *0x18(%rdi); ret
		{"of what was loaded", []byte{0x48, 0x8b, 0x06, 0xff, 0xd0, 0xc3}, Source{Reg: RSI}, true},               // mov (%rsi),%rax; call *%rax; ret
		{"through a copy", []byte{0x48, 0x89, 0xf0, 0xff, 0x50, 0x18, 0xc3}, Source{Reg: RSI}, true},             // mov %rsi,%rax; call *0x18(%rax); ret
		{"a size alone", []byte{0x48, 0x8b, 0x46, 0x08, 0xc3}, Source{Reg: RSI}, false},                          // mov 8(%rsi),%rax; ret
		{"what was in the register before", []byte{0x31, 0xf6, 0xff, 0x56, 0x18, 0xc3}, Source{Reg: RSI}, false}, // xor %esi,%esi; call *0x18(%rsi); ret
		{"behind a call", []byte{0xff, 0xd0, 0xff, 0x56, 0x18, 0xc3}, Source{Reg: RSI}, false},                   // call *%rax; call *0x18(%rsi); ret
		{"from the stack", []byte{0x48, 0x8b, 0x44, 0x24, 0x08, 0xff, 0x50, 0x18, 0xc3}, Source{NoReg, 0}, true}, // mov 8(%rsp),%rax; call *0x18(%rax); ret
		{"from another slot", []byte{0x48, 0x8b, 0x44, 0x24, 0x08, 0xff, 0x50, 0x18, 0xc3}, Source{NoReg, 8}, false},
	} {
		f, err := NewFunc(func(addr uint64) []byte { return c.code[addr-0x1000:] }, []Range{{0x1000, 0x1000 + uint64(len(c.code))}}, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := f.CallsThrough(c.src); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
