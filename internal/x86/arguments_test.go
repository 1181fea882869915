package x86

import "testing"

func testFunc(t *testing.T, code []byte) *Func {
	t.Helper()
	f, err := NewFunc(func(addr uint64) []byte { return code[addr-0x1000:] }, []Range{{0x1000, 0x1000 + uint64(len(code))}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestArgumentsRead(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want RegSet
	}{
		{"two", []byte{0x8d, 0x04, 0x37, 0xc3}, RDI.Set() | RSI.Set()},                                                   // lea (%rdi,%rsi,1),%eax; ret
		{"written first", []byte{0x31, 0xff, 0x89, 0xf8, 0xc3}, 0},                                                       // xor %edi,%edi; mov %edi,%eax; ret
		{"on one path", []byte{0x85, 0xf6, 0x74, 0x02, 0x89, 0xd7, 0x89, 0xf8, 0xc3}, RDI.Set() | RSI.Set() | RDX.Set()}, // test %esi,%esi; je 1f; mov %edx,%edi; 1: mov %edi,%eax; ret
		{"to align the stack", []byte{0x57, 0x31, 0xc0, 0x59, 0xc3}, 0},                                                  // push %rdi; xor %eax,%eax; pop %rcx; ret
		{"a float", []byte{0xf2, 0x0f, 0x58, 0xc1, 0xc3}, X0.Set() | (X0 + 1).Set()},                                     // addsd %xmm1,%xmm0; ret
		{"passed on to who reads it", []byte{0xe9, 0xfb, 0x0f, 0x00, 0x00}, RDI.Set()},                                   // jmp 0x2000
		{"lost at a call", []byte{0xff, 0xd0, 0x89, 0xf0, 0xc3}, 0},                                                      // call *%rax; mov %esi,%eax; ret
		{"kept over a call", []byte{0x53, 0x89, 0xf3, 0xff, 0xd0, 0x89, 0xd8, 0x5b, 0xc3}, RSI.Set()},                    // push %rbx; mov %esi,%ebx; call *%rax; mov %ebx,%eax; pop %rbx; ret
	} {
		got := testFunc(t, c.code).ArgumentsRead(func(in *Inst, r Reg) bool { return in.Target == 0x2000 && r == RDI })
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestStoresPair(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want bool
	}{
		{"beside each other", []byte{0x48, 0x89, 0x7c, 0x24, 0xe8, 0x48, 0x89, 0x74, 0x24, 0xf0, 0xc3}, true},                   // mov %rdi,-24(%rsp); mov %rsi,-16(%rsp); ret
		{"the other way round", []byte{0x48, 0x89, 0x74, 0x24, 0xe8, 0x48, 0x89, 0x7c, 0x24, 0xf0, 0xc3}, false},                // mov %rsi,-24(%rsp); mov %rdi,-16(%rsp); ret
		{"with a gap", []byte{0x48, 0x89, 0x7c, 0x24, 0xe0, 0x48, 0x89, 0x74, 0x24, 0xf0, 0xc3}, false},                         // mov %rdi,-32(%rsp); mov %rsi,-16(%rsp); ret
		{"one is changed by then", []byte{0x48, 0x89, 0x7c, 0x24, 0xe8, 0x31, 0xf6, 0x48, 0x89, 0x74, 0x24, 0xf0, 0xc3}, false}, // with xor %esi,%esi
		{"half of it", []byte{0x48, 0x89, 0x7c, 0x24, 0xe8, 0x89, 0x74, 0x24, 0xf0, 0xc3}, false},                               // mov %esi,-16(%rsp)
	} {
		if got := testFunc(t, c.code).StoresPair(RDI, RSI); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestDereferences(t *testing.T) {
	for _, c := range []struct {
		name string
		code []byte
		want bool
	}{
		{"a read", []byte{0x8b, 0x07, 0xc3}, true},                                                                               // mov (%rdi),%eax; ret
		{"a write", []byte{0x89, 0x77, 0x08, 0xc3}, true},                                                                        // mov %esi,8(%rdi); ret
		{"too far", []byte{0x8b, 0x47, 0x10, 0xc3}, false},                                                                       // mov 16(%rdi),%eax; ret
		{"before it", []byte{0x8b, 0x47, 0xfc, 0xc3}, false},                                                                     // mov -4(%rdi),%eax; ret
		{"an address alone", []byte{0x48, 0x8d, 0x47, 0x08, 0xc3}, false},                                                        // lea 8(%rdi),%rax; ret
		{"either may be the pointer", []byte{0x8a, 0x04, 0x37, 0xc3}, false},                                                     // mov (%rdi,%rsi,1),%al; ret
		{"an index of its own", []byte{0x8b, 0x04, 0xb7, 0xc3}, true},                                                            // mov (%rdi,%rsi,4),%eax; ret
		{"a copy", []byte{0x48, 0x89, 0xf8, 0x8b, 0x00, 0xc3}, true},                                                             // mov %rdi,%rax; mov (%rax),%eax; ret
		{"half a copy", []byte{0x89, 0xf8, 0x8b, 0x00, 0xc3}, false},                                                             // mov %edi,%eax; mov (%rax),%eax; ret
		{"another by then", []byte{0x48, 0x89, 0xf7, 0x8b, 0x07, 0xc3}, false},                                                   // mov %rsi,%rdi; mov (%rdi),%eax; ret
		{"on one path another", []byte{0x85, 0xf6, 0x74, 0x03, 0x48, 0x89, 0xd7, 0x8b, 0x07, 0xc3}, false},                       // test %esi,%esi; je 1f; mov %rdx,%rdi; 1: mov (%rdi),%eax; ret
		{"by the frame", []byte{0x48, 0x89, 0x7c, 0x24, 0xf8, 0x31, 0xff, 0x48, 0x8b, 0x44, 0x24, 0xf8, 0x8b, 0x00, 0xc3}, true}, // mov %rdi,-8(%rsp); xor %edi,%edi; mov -8(%rsp),%rax; mov (%rax),%eax; ret
		{"written over in the frame", []byte{0x48, 0x89, 0x7c, 0x24, 0xf8, 0x48, 0x89, 0x74, 0x24, 0xf8, 0x48, 0x8b, 0x44, 0x24, 0xf8, 0x8b, 0x00, 0xc3}, false},
		{"behind a call", []byte{0xff, 0xd0, 0x8b, 0x07, 0xc3}, false}, // call *%rax; mov (%rdi),%eax; ret
	} {
		if got := testFunc(t, c.code).Dereferences(RDI, 16); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
