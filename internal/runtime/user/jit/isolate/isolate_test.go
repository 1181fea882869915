package isolate

import (
	"errors"
	"testing"

	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/runtime/user/vm/vmtest"
)

// TestHere runs the conformance suite's programs, which are all well behaved; what
// becomes of others is told by the stories of bpf exec.
func TestHere(t *testing.T) {
	for _, v := range vmtest.Vectors(t) {
		if v.Name == "tests/callx" {
			continue // not part of RFC 9669
		}
		err := Check(v.Code)
		if v.Error {
			if !errors.Is(err, insn.ErrRefused) {
				t.Errorf("%s: %v", v.Name, err)
			}
			continue
		}
		if r0, err := Here(v.Code, v.Mem); err != nil || r0 != v.R0 {
			t.Errorf("%s: r0 = %#x, %v; want %#x", v.Name, r0, err, v.R0)
		}
	}
}
