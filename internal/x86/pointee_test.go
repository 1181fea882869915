package x86

import "testing"

func TestReadsThrough(t *testing.T) {
	noCallee := func(*Inst, Reg) (bool, bool) { return false, false }
	for _, c := range []struct {
		name string
		code []byte
		src  Source
		want bool
	}{
		{"a read", []byte{0x8b, 0x07, 0xc3}, Source{Reg: RDI}, true},                                       // mov (%rdi),%eax; ret
		{"a read of another", []byte{0x8b, 0x06, 0xc3}, Source{Reg: RDI}, false},                           // mov (%rsi),%eax; ret
		{"a copy's", []byte{0x48, 0x89, 0xf8, 0x8b, 0x00, 0xc3}, Source{Reg: RDI}, true},                   // mov %rdi,%rax; mov (%rax),%eax; ret
		{"after the register is another's", []byte{0x31, 0xff, 0x8b, 0x07, 0xc3}, Source{Reg: RDI}, false}, // xor %edi,%edi; mov (%rdi),%eax; ret
		{"a write first", []byte{0x89, 0x37, 0x8b, 0x07, 0xc3}, Source{Reg: RDI}, false},                   // mov %esi,(%rdi); mov (%rdi),%eax; ret
		{"a read, then a write", []byte{0x8b, 0x07, 0x89, 0x37, 0xc3}, Source{Reg: RDI}, true},             // mov (%rdi),%eax; mov %esi,(%rdi); ret
		{"a test alone", []byte{0x48, 0x85, 0xff, 0xc3}, Source{Reg: RDI}, false},                          // test %rdi,%rdi; ret
		{"it escapes", []byte{0x48, 0x89, 0x3e, 0xc3}, Source{Reg: RDI}, true},                             // mov %rdi,(%rsi); ret
		{"from the stack", []byte{0x48, 0x8b, 0x44, 0x24, 0x08, 0x8b, 0x00, 0xc3}, Source{NoReg, 0}, true}, // mov 8(%rsp),%rax; mov (%rax),%eax; ret
		{"from another slot", []byte{0x48, 0x8b, 0x44, 0x24, 0x08, 0x8b, 0x00, 0xc3}, Source{NoReg, 8}, false},
		{"put into place for a call", []byte{0x48, 0x89, 0xf7, 0xff, 0xd0, 0xc3}, Source{Reg: RSI}, true}, // mov %rsi,%rdi; call *%rax; ret
		{"left over at a call", []byte{0xff, 0xd0, 0xc3}, Source{Reg: RSI}, false},                        // call *%rax; ret
	} {
		f, err := NewFunc(func(addr uint64) []byte { return c.code[addr-0x1000:] }, []Range{{0x1000, 0x1000 + uint64(len(c.code))}}, nil)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := f.ReadsThrough(c.src, noCallee); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
