package x86

import (
	"slices"
	"testing"
)

// TestStates: what a coroutine's code shows of its memory, which is two numbers with the
// tag in between: the first has a value on one way only, the second is used afterwards.
func TestStates(t *testing.T) {
	head := []byte{
		0x0f, 0xb6, 0x47, 0x04, // 00: movzx eax, byte [rdi+4]
		0x85, 0xc0, // 04: test eax, eax
		0x75, 0x16, // 06: jne 1e
		0x85, 0xf6, // 08: test esi, esi
		0x74, 0x06, // 0a: je 12
		0xc7, 0x07, 5, 0, 0, 0, // 0c: mov dword [rdi], 5
		0xc7, 0x47, 0x08, 7, 0, 0, 0, // 12: mov dword [rdi+8], 7
	}
	plain := slices.Concat(head,
		[]byte{0xc6, 0x47, 0x04, 3},       // 19: mov byte [rdi+4], 3
		[]byte{0xc3},                      // 1d: ret
		[]byte{0x8b, 0x47, 0x08},          // 1e: mov eax, [rdi+8]
		[]byte{0xc6, 0x47, 0x04, 1, 0xc3}, // 21: mov byte [rdi+4], 1; ret
	)
	joined := slices.Concat(head,
		[]byte{0xb1, 3},                   // 19: mov cl, 3
		[]byte{0xeb, 0x06, 0x90},          // 1b: jmp 23
		[]byte{0x8b, 0x47, 0x08, 0xb1, 1}, // 1e: mov eax, [rdi+8]; mov cl, 1
		[]byte{0x88, 0x4f, 0x04, 0xc3},    // 23: mov [rdi+4], cl; ret
	)
	// The number is given another value before it is used, or the callee may do so.
	overwritten := slices.Concat(plain[:0x1e], []byte{0x89, 0x77, 0x08}, plain[0x1e:])
	called := slices.Concat(plain[:0x1e], []byte{0xe8, 0xdd, 0, 0, 0}, plain[0x1e:])
	unknown := slices.Concat(plain[:0x19], []byte{0x88, 0x4f, 0x04, 0xc3}, plain[0x1d:])
	for _, c := range []struct {
		name          string
		code          []byte
		first, second bool // are given
		used          bool
	}{
		{"not optimised", plain, false, true, true},
		{"with joined ways", joined, false, true, true},
		{"overwritten", overwritten, false, true, false},
		{"passed on", called, false, true, false},
		{"with a tag that is not known", unknown, false, false, false},
	} {
		f, err := NewFunc(func(addr uint64) []byte { return c.code[addr:] }, []Range{{0, uint64(len(c.code))}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := f.States(Coroutine{
			Size: 12, TagOff: 4, TagSize: 1,
			Resumes: func(tag uint64) bool { return tag == 3 },
			Slot:    func(uint64) (uint64, bool) { return 0, false },
			Callee:  func(*Inst) Callee { return Callee{Result: -1} },
		})
		if s == nil {
			if c.second || c.used {
				t.Errorf("%s: nothing is known", c.name)
			}
			continue
		}
		resumed := s.Resumed(3)
		if len(resumed) != 1 || s.Resumed(4) != nil {
			t.Errorf("%s: it is resumed %v", c.name, resumed)
			continue
		}
		m := resumed[0]
		if s.Given(m, 0, 4) != c.first || s.Given(m, 8, 4) != c.second {
			t.Errorf("%s: given are %v and %v", c.name, s.Given(m, 0, 4), s.Given(m, 8, 4))
		}
		if got := s.Used(m, 8, 4) != nil; got != c.used {
			t.Errorf("%s: used is %v", c.name, got)
		}
		if s.Used(m, 0, 4) != nil || s.Used(m, 9, 4) != nil || s.Given(m, 9, 4) {
			t.Errorf("%s: what is not there is used", c.name)
		}
		// Only the first call comes behind the jump, and has set nothing yet.
		before := s.Before(3)
		given := 0
		for _, m := range before {
			if off, ok := m.Register(RDI, 8); off != 8 || !ok {
				t.Errorf("%s: rdi leads to %d", c.name, off)
			}
			given += b2i(s.Given(m, 8, 4))
		}
		if len(before) != 1 || given != 0 {
			t.Errorf("%s: %d of %d", c.name, given, len(before))
		}
	}
}
