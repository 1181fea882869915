package jit_test

import (
	"testing"

	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/vm/insn"

	bpf "github.com/cilium/ebpf/asm"
)

func TestContextVectors(t *testing.T) {
	const xmm = jit.ContextSize
	for name, c := range map[string]struct {
		off  int16
		size bpf.Size
		want jit.Context
	}{
		"the last word before them": {xmm - 8, bpf.DWord, jit.Context{Regs: 1 << 20}},
		"xmm0":                      {xmm, bpf.DWord, jit.Context{Vectors: 1}},
		"xmm0's upper half":         {xmm + 8, bpf.DWord, jit.Context{Vectors: 1}},
		"a float":                   {xmm + 16*7, bpf.Word, jit.Context{Vectors: 1 << 7}},
		"across two":                {xmm + 16*8 - 2, bpf.Word, jit.Context{Vectors: 3 << 7}},
		"across the border":         {xmm - 4, bpf.DWord, jit.Context{Regs: 1 << 20, Vectors: 1}},
		"xmm15":                     {xmm + 16*15 + 8, bpf.DWord, jit.Context{Vectors: 1 << 15}},
		"beyond":                    {xmm + 16*16 - 4, bpf.DWord, jit.Context{Full: true, Regs: 1<<21 - 1}},
		"before":                    {-8, bpf.DWord, jit.Context{Full: true, Regs: 1<<21 - 1}},
	} {
		im, err := jit.Compile([]*insn.Program{program(t, "p", bpf.Instructions{
			bpf.Mov.Reg(bpf.R6, bpf.R1), bpf.LoadMem(bpf.R0, bpf.R6, c.off, c.size), bpf.Return(),
		})}, options(nil))
		if err != nil {
			t.Fatal(name, err)
		}
		if got := im.Entries["p"].Context; got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
