package native

import "testing"

func TestCall(t *testing.T) {
	c, err := New(16, func(base uint64) ([]byte, error) {
		return []byte{0x48, 0x8d, 0x04, 0x37, 0xc3}, nil // lea rax, [rdi+rsi]; ret
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r := c.Call(0, 40, 2); r != 42 {
		t.Error(r)
	}
}
