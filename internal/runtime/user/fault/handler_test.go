package fault

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"unsafe"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

// pages is a handler in this process, which stands for a program's own.
type pages struct {
	*native.Code
	thunk int
	// What the code gets the addresses of is in the heap, which does not move.
	block, info, context []byte
	args                 []uint64
}

// forwarded is what the program's handler leaves in place of RIP.
const forwarded = 0x4242

func load(t *testing.T, image uint64, fixups []jit.Fixup, retired bool) *pages {
	t.Helper()
	p := &pages{block: make([]byte, shm.ProcSize), info: make([]byte, 128), context: make([]byte, 1024), args: make([]uint64, 4)}
	table, size, err := table(fixups)
	if err != nil {
		t.Fatal(err)
	}
	var a asm.Assembler
	// thunk(args): a handler takes a third argument.
	a.Mov(8, asm.RAX, asm.RDI)
	for i, r := range []asm.Reg{asm.RDI, asm.RSI, asm.RDX} {
		a.Load(8, r, asm.At(asm.RAX, int32(8*i)))
	}
	a.Load(8, asm.RAX, asm.At(asm.RAX, 24))
	a.JmpReg(asm.RAX)
	own := a.Len()
	a.StoreImm(8, asm.At(asm.RDX, contextRIP), forwarded)
	a.Ret()
	extra, _, err := a.Finish()
	if err != nil {
		t.Fatal(err)
	}
	p.thunk = offCode + len(code) + len(table)
	p.Code, err = native.New(p.thunk+len(extra), func(base uint64) ([]byte, error) {
		b := make([]byte, offCode)
		if !retired {
			binary.LittleEndian.PutUint64(b[offBlock:], uint64(uintptr(unsafe.Pointer(&p.block[0]))))
		}
		binary.LittleEndian.PutUint64(b[offImage:], image)
		binary.LittleEndian.PutUint32(b[offSize:], size)
		binary.LittleEndian.PutUint32(b[offCount:], uint32(len(fixups)))
		for i := range slots {
			binary.LittleEndian.PutUint64(b[offSlots+slotSize*i:], base+uint64(p.thunk+own))
		}
		return append(append(append(b, code...), table...), extra...), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// signal enters a handler and returns what RIP has become.
func (p *pages) signal(slot int, sig unix.Signal, code int32, rip uint64) uint64 {
	binary.LittleEndian.PutUint32(p.block[shm.ProcDirect:], 1)
	binary.LittleEndian.PutUint32(p.info[infoCode:], uint32(code))
	binary.LittleEndian.PutUint64(p.context[contextRIP:], rip)
	at := func(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }
	copy(p.args, []uint64{uint64(sig), at(p.info), at(p.context), p.Base() + uint64(offCode+entrySize*slot)})
	p.Call(p.thunk, uint64(uintptr(unsafe.Pointer(&p.args[0]))), 0)
	runtime.KeepAlive(p)
	return binary.LittleEndian.Uint64(p.context[contextRIP:])
}

func (p *pages) direct() bool {
	return binary.LittleEndian.Uint32(p.block[shm.ProcDirect:]) == 1
}

// TestHandler enters the handler with all kinds of faults.
func TestHandler(t *testing.T) {
	const image = 0x7f12_3456_7000
	p := load(t, image, []jit.Fixup{{Start: 10, End: 13, Target: 900}}, false)
	for _, c := range []struct {
		sig  unix.Signal
		code int32
		rip  uint64
		want uint64
	}{
		{unix.SIGSEGV, 1, image + 10, image + 900},
		{unix.SIGSEGV, 2, image + 12, image + 900},
		{unix.SIGSEGV, 0x80, image + 11, image + 900}, // SI_KERNEL: no canonical address
		{unix.SIGBUS, 2, image + 10, image + 900},
		{unix.SIGBUS, 4, image + 10, image + 900},        // BUS_MCEERR_AR
		{unix.SIGBUS, 5, image + 10, forwarded},          // BUS_MCEERR_AO
		{unix.SIGSEGV, 5, image + 10, image + 900},       // SEGV_ADIDERR, say
		{unix.SIGSEGV, 0, image + 10, forwarded},         // SI_USER
		{unix.SIGSEGV, -1, image + 10, forwarded},        // SI_QUEUE
		{unix.SIGBUS, -6, image + 10, forwarded},         // SI_TKILL
		{unix.SIGSEGV, 1, image + 9, forwarded},          // before
		{unix.SIGSEGV, 1, image + 13, forwarded},         // behind
		{unix.SIGSEGV, 1, image + 1<<32 + 10, forwarded}, // far away
		{unix.SIGSEGV, 1, 10, forwarded},
		{unix.SIGSEGV, 1, image - 1, forwarded},
	} {
		for slot := range slots {
			if got := p.signal(slot, c.sig, c.code, c.rip); got != c.want {
				t.Errorf("slot %d, %v: %#x, want %#x", slot, c, got, c.want)
			}
			if p.direct() != (c.want != forwarded) {
				t.Errorf("slot %d, %v: direct %v", slot, c, p.direct())
			}
		}
	}
	p = load(t, 0, nil, true)
	if got := p.signal(3, unix.SIGSEGV, 1, 0); got != forwarded || !p.direct() {
		t.Errorf("a handler that only forwards: %#x, or it wrote into the block", got)
	}
}

// TestTable finds fixups in tables of all sizes.
func TestTable(t *testing.T) {
	const image = 1 << 40
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 70 {
		var fixups []jit.Fixup
		want := map[int]int{}
		at := r.IntN(3)
		for i := range n {
			f := jit.Fixup{Start: at, End: at + 1 + r.IntN(8), Target: 10_000 + i}
			fixups = append(fixups, f)
			for o := f.Start; o < f.End; o++ {
				want[o] = f.Target
			}
			at = f.End + r.IntN(4)
		}
		r.Shuffle(n, func(i, j int) { fixups[i], fixups[j] = fixups[j], fixups[i] })
		p := load(t, image, fixups, false)
		for o := range at + 5 {
			w := uint64(forwarded)
			if want[o] != 0 {
				w = image + uint64(want[o])
			}
			if got := p.signal(0, unix.SIGSEGV, 1, image+uint64(o)); got != w {
				t.Fatalf("%d fixups, offset %d: %#x, want %#x", n, o, got, w)
			}
		}
	}
	for _, bad := range [][]jit.Fixup{
		{{Start: 1, End: 1, Target: 5}}, {{Start: -1, End: 1, Target: 5}}, {{Start: 1, End: 2, Target: -5}},
		{{Start: 1, End: 3, Target: 9}, {Start: 2, End: 4, Target: 9}}, {{Start: 1, End: 1 << 33, Target: 9}},
	} {
		if _, _, err := table(bad); err == nil {
			t.Errorf("%+v is no error", bad)
		}
	}
}
