package vm_test

import (
	"errors"
	"strings"
	"testing"

	"ferrotrace/internal/runtime/user/vm"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/runtime/user/vm/vmtest"

	"github.com/cilium/ebpf/asm"
)

// notInRFC are vectors of the suite that RFC 9669 does not have.
var notInRFC = map[string]bool{"tests/callx": true}

func TestConformance(t *testing.T) {
	for _, v := range vmtest.Vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			if notInRFC[v.Name] {
				t.Skip("a call through a register is not part of RFC 9669")
			}
			p, err := insn.Decode(v.Code, nil)
			if v.Error {
				if !errors.Is(err, insn.ErrRefused) {
					t.Fatalf("not refused: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := vm.New(p, vm.Config{})
			if err != nil {
				t.Fatal(err)
			}
			r0, err := m.Run(v.Mem)
			if err != nil || r0 != v.R0 {
				t.Errorf("r0 = %#x, %v; want %#x", r0, err, v.R0)
			}
		})
	}
}

func run(t *testing.T, c vm.Config, mem []byte, insns asm.Instructions) (uint64, error) {
	t.Helper()
	p, err := insn.FromInstructions(insns)
	if err != nil {
		t.Fatal(err)
	}
	m, err := vm.New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return m.Run(mem)
}

func TestBudget(t *testing.T) {
	_, err := run(t, vm.Config{Budget: 1000}, nil, asm.Instructions{
		asm.Mov.Imm(asm.R0, 1).WithSymbol("top"),
		asm.Ja.Label("top"),
	})
	if !errors.Is(err, vm.ErrBudget) {
		t.Error(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	mem := make([]byte, 16)
	for name, c := range map[string]struct {
		ins asm.Instruction
		ok  bool
	}{
		"first":       {asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), true},
		"last":        {asm.LoadMem(asm.R0, asm.R1, 8, asm.DWord), true},
		"beyond":      {asm.LoadMem(asm.R0, asm.R1, 9, asm.DWord), false},
		"before":      {asm.StoreMem(asm.R1, -1, asm.R2, asm.Byte), false},
		"stack":       {asm.StoreImm(asm.RFP, -512, 1, asm.Word), true},
		"under stack": {asm.StoreImm(asm.RFP, -4096, 1, asm.Word), true}, // other frames
		"above stack": {asm.StoreImm(asm.RFP, -1, 1, asm.Word), false},
		"null":        {asm.LoadMem(asm.R0, asm.R2, 0, asm.Byte), false},
		"misaligned":  {asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 1), false},
	} {
		_, err := run(t, vm.Config{}, mem, asm.Instructions{asm.Mov.Imm(asm.R0, 0), c.ins, asm.Return()})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, vm.ErrMemory) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoop(t *testing.T) {
	// Adds up 0…i and stops at 5.
	r0, err := run(t, vm.Config{}, nil, asm.Instructions{
		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Imm(asm.R1, 100),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("body"),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
		asm.LSh.Imm(asm.R0, 32),
		asm.LoadMem(asm.R1, asm.RFP, -8, asm.DWord),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.Return(),
		asm.LoadMem(asm.R3, asm.R2, 0, asm.DWord).WithSymbol("body"),
		asm.Add.Reg(asm.R3, asm.R1),
		asm.StoreMem(asm.R2, 0, asm.R3, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.JNE.Imm(asm.R1, 5, "out"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return().WithSymbol("out"),
	})
	if err != nil || r0 != 6<<32|15 {
		t.Errorf("%#x, %v", r0, err)
	}
}

func TestRefusesByName(t *testing.T) {
	_, err := insn.FromInstructions(asm.Instructions{asm.Mov.Imm(asm.R0, 0)})
	if err == nil || !strings.Contains(err.Error(), "falls off the end") {
		t.Error(err)
	}
	p, err := insn.FromInstructions(asm.Instructions{asm.FnTailCall.Call(), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = vm.New(p, vm.Config{}); err == nil || !strings.Contains(err.Error(), "bpf_tail_call") {
		t.Error(err)
	}
	p, err = insn.FromInstructions(asm.Instructions{asm.LoadMapPtr(asm.R1, 0).WithReference("lost"), asm.Mov.Imm(asm.R0, 0), asm.Return()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = vm.New(p, vm.Config{}); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Error(err)
	}
}

func FuzzRun(f *testing.F) {
	for _, v := range vmtest.Vectors(f) {
		f.Add(v.Code, v.Mem)
	}
	f.Fuzz(func(t *testing.T, code, mem []byte) {
		p, err := insn.Decode(code, func(n int32) (string, bool) { return "m", n == 0 })
		if err != nil {
			if !errors.Is(err, insn.ErrRefused) {
				t.Fatal(err)
			}
			return
		}
		m, err := vm.New(p, vm.Config{Budget: 10_000})
		if err != nil {
			return
		}
		m.Run(mem)
	})
}

func BenchmarkRun(b *testing.B) {
	p, err := insn.FromInstructions(asm.Instructions{
		asm.Mov.Imm(asm.R0, 1000),
		asm.Sub.Imm(asm.R0, 1).WithSymbol("top"),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.JNE.Imm(asm.R0, 0, "top"),
		asm.Return(),
	})
	if err != nil {
		b.Fatal(err)
	}
	m, err := vm.New(p, vm.Config{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := m.Run(nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/3002, "ns/insn")
}
