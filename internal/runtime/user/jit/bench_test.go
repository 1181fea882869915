package jit_test

import (
	"encoding/binary"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/asm"
)

// benchmark reports the best time of a program, called from a loop of machine code, and calls drain now
// and then.
func benchmark(b *testing.B, maps map[string]*ebpf.MapSpec, insns bpf.Instructions, drain func(*shm.Memory)) {
	memory, mem := newShared(b, possibleCPUs, maps)
	im, err := jit.Compile([]*insn.Program{program(b, "p", insns)}, options(memory.Layout))
	if err != nil {
		b.Fatal(err)
	}
	process := make([]byte, shm.ProcSize)
	binary.LittleEndian.PutUint32(process[shm.ProcDirect:], 1)
	binary.LittleEndian.PutUint64(process[shm.ProcTID:], ^uint64(7)) // a word of Go's own
	c := shm.NewCalibrator()
	c.Publish(memory)

	// void times(ctx, n)
	var a asm.Assembler
	a.Push(asm.R15)
	at := a.Len()
	a.MovImm(asm.R15, 1<<40)
	a.Push(asm.RBX)
	a.Push(asm.R12)
	a.Mov(8, asm.R12, asm.RDI)
	a.Mov(8, asm.RBX, asm.RSI)
	top := a.Here()
	a.Mov(8, asm.RDI, asm.R12)
	a.CallReg(asm.R15)
	a.ALUImm(asm.SUB, 8, asm.RBX, 1)
	a.Jcc(asm.NE, top)
	a.Pop(asm.R12)
	a.Pop(asm.RBX)
	a.Pop(asm.R15)
	a.Ret()
	stub, _, err := a.Finish()
	if err != nil {
		b.Fatal(err)
	}
	image := (len(im.Code) + 63) &^ 63
	code, err := native.New(image+len(stub), func(base uint64) ([]byte, error) {
		all := append(im.Link(addr(mem), addr(process)), make([]byte, image-len(im.Code))...)
		binary.LittleEndian.PutUint64(stub[at+2:], base+uint64(im.Entries["p"].Offset))
		return append(all, stub...), nil
	})
	if err != nil {
		b.Fatal(err)
	}
	defer code.Close()
	block := make([]byte, 16+jit.ContextSize+64)
	ctx := addr(block) + 16
	binary.LittleEndian.PutUint64(block[16+112:], ctx+jit.ContextSize)
	const batch = 1000
	best := time.Hour // other processes disturb the mean
	for b.Loop() {
		start := time.Now()
		code.Call(image, ctx, batch)
		best = min(best, time.Since(start))
		if drain != nil {
			b.StopTimer()
			drain(memory)
			b.StartTimer()
		}
	}
	b.ReportMetric(float64(best.Nanoseconds())/batch, "ns/hit")
	_ = block[0]
}

func lookup(m string) bpf.Instructions {
	return bpf.Instructions{
		bpf.StoreMem(bpf.RFP, -4, bpf.R1, bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP),
		bpf.Add.Imm(bpf.R2, -4),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference(m),
		bpf.FnMapLookupElem.Call(),
		bpf.JEq.Imm(bpf.R0, 0, "out"),
	}
}

var counts = map[string]*ebpf.MapSpec{
	"counts": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 16},
	"sites":  {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 16},
	"keys":   {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1024},
	"events": {Type: ebpf.RingBuf, MaxEntries: 1 << 20},
}

func concat(parts ...bpf.Instructions) (all bpf.Instructions) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

var end = bpf.Instructions{bpf.Mov.Imm(bpf.R0, 0).WithSymbol("out"), bpf.Return()}

func BenchmarkEmpty(b *testing.B) { benchmark(b, counts, end, nil) }

// BenchmarkCount adds 1 to a counter of this CPU, atomically.
func BenchmarkCount(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{bpf.Mov.Imm(bpf.R1, 3)}, lookup("counts"), bpf.Instructions{
		bpf.Mov.Imm(bpf.R1, 1), bpf.AddAtomic.Mem(bpf.R0, bpf.R1, bpf.DWord, 0),
	}, end), nil)
}

// BenchmarkCountSite finds the counter by the probe's cookie, as count does.
func BenchmarkCountSite(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{bpf.FnGetAttachCookie.Call(), bpf.Mov.Reg(bpf.R1, bpf.R0)}, lookup("sites"),
		bpf.Instructions{bpf.LoadMem(bpf.R1, bpf.R0, 8, bpf.Word)}, lookup("counts"), bpf.Instructions{
			bpf.Mov.Imm(bpf.R1, 1), bpf.AddAtomic.Mem(bpf.R0, bpf.R1, bpf.DWord, 0),
		}, end), nil)
}

// BenchmarkUpdate updates one element of a hash.
func BenchmarkUpdate(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{
		bpf.StoreImm(bpf.RFP, -8, 7, bpf.Word), bpf.StoreImm(bpf.RFP, -4, 7, bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP), bpf.Add.Imm(bpf.R2, -8),
		bpf.Mov.Reg(bpf.R3, bpf.R2), bpf.Mov.Imm(bpf.R4, 0),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference("keys"),
		bpf.FnMapUpdateElem.Call(),
	}, end), nil)
}

// BenchmarkAddByKey finds an element of a hash and adds to it.
func BenchmarkAddByKey(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{
		bpf.StoreImm(bpf.RFP, -8, 7, bpf.Word), bpf.StoreImm(bpf.RFP, -4, 7, bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP), bpf.Add.Imm(bpf.R2, -8), bpf.Mov.Reg(bpf.R3, bpf.R2), bpf.Mov.Imm(bpf.R4, 1),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference("keys"),
		bpf.FnMapUpdateElem.Call(),
		bpf.Mov.Reg(bpf.R2, bpf.RFP), bpf.Add.Imm(bpf.R2, -8),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference("keys"),
		bpf.FnMapLookupElem.Call(),
		bpf.JEq.Imm(bpf.R0, 0, "out"),
		bpf.Mov.Imm(bpf.R1, 1), bpf.AddAtomic.Mem(bpf.R0, bpf.R1, bpf.DWord, 0),
	}, end), nil)
}

func BenchmarkKtime(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{bpf.FnKtimeGetNs.Call()}, end), nil)
}

func BenchmarkPidTgid(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{bpf.FnGetCurrentPidTgid.Call()}, end), nil)
}

func BenchmarkComm(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{
		bpf.Mov.Reg(bpf.R1, bpf.RFP), bpf.Add.Imm(bpf.R1, -16), bpf.Mov.Imm(bpf.R2, 16), bpf.FnGetCurrentComm.Call(),
	}, end), nil)
}

func BenchmarkRead64(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{
		bpf.LoadMem(bpf.R3, bpf.R1, 112, bpf.DWord),
		bpf.Mov.Reg(bpf.R1, bpf.RFP), bpf.Add.Imm(bpf.R1, -64), bpf.Mov.Imm(bpf.R2, 64), bpf.FnProbeReadUser.Call(),
	}, end), nil)
}

// BenchmarkOutput writes a record of 160 bytes.
func BenchmarkOutput(b *testing.B) {
	benchmark(b, counts, concat(bpf.Instructions{
		bpf.StoreImm(bpf.RFP, -8, 7, bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP), bpf.Add.Imm(bpf.R2, -160), bpf.Mov.Imm(bpf.R3, 160), bpf.Mov.Imm(bpf.R4, 0),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference("events"),
		bpf.FnRingbufOutput.Call(),
	}, end), func(m *shm.Memory) {
		r, _ := m.Ring("events")
		if _, err := r.Read(func([]byte) error { return nil }); err != nil || r.Lost() != 0 {
			b.Fatal(err, r.Lost())
		}
	})
}
