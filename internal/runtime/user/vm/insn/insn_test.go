package insn

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	const exit = "9500000000000000"
	for _, c := range []struct{ code, want string }{
		{"", "no instructions"},
		{"950000", "not a multiple"},
		{"b700000000000000", "falls off the end"},
		{"ff00000000000000" + exit, "unknown opcode 0xff"},
		{"b70b000000000000" + exit, "no register r11"},
		{"b70a000000000000" + exit, "read-only"},
		{"0500010000000000" + exit, "out of range"},
		{"0500feff00000000" + exit, "out of range"},
		{"0500010000000000" + "1800000000000000" + "0000000000000000" + exit, "into the middle of instruction 1"},
		{"1800000000000000", "second half"},
		{"1800000000000000" + exit, "second half"},
		{"3000000000000000" + exit, "legacy packet access"},
		{"8500000000000000" + exit, ""},
		{"8510000005000000" + exit, "function at 6 is out of range"},
		{"85100000ffffffff" + exit, "nest deeper"},
		{"8520000001000000" + exit, "kernel function 1"},
		{"8d00000000000000" + exit, "call of a register"},
		{"e500000000000000" + exit, "may_goto"},
		{"1830000000000000" + "0000000000000000" + exit, "kernel variable"},
		{"1810000000000000" + "0000000000000000" + exit, "there are no maps"},
		{"c300000002000000" + exit, "unknown atomic operation 0x2"},
		{"d300000000000000" + exit, "on 1 bytes"},
		{"db00000000010000" + exit, "load-acquire"},
		{"d700000008000000" + exit, "byte swap of 8 bits"},
		{"bf00070000000000" + exit, "unknown offset 7"},
	} {
		code, err := hex.DecodeString(c.code)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Decode(code, nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.code, err)
		case c.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.code, err, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xb7\x00\x00\x00\x00\x00\x00\x00\x95\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, code []byte) {
		p, err := Decode(code, func(n int32) (string, bool) { return "m", n == 1 })
		if err != nil {
			return
		}
		for _, in := range p.Insns {
			_ = in.String()
			if in.Op.IsJump() && p.Insns[in.Target].Op == Second {
				t.Error("jump into the middle")
			}
		}
		if p.Funcs[0].Start != 0 || p.Funcs[len(p.Funcs)-1].End != len(p.Insns) {
			t.Error("functions do not cover the program")
		}
	})
}
