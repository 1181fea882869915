package patch

import (
	"fmt"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/x86"
)

// machine runs code of this process with chosen registers and a chosen stack. Its
// memory is far from all else, so that puns find room.
type machine struct {
	t       testing.TB
	harness *native.Code
	text    []byte // at machineText, writable and executable
	data    []byte // at machineData
}

const (
	machineText = 0x5000_0000_0000
	machineData = machineText + 0x100_0000
	textSize    = 1 << 16
	dataSize    = 1 << 16

	// In data, from its start.
	stateAt   = 0
	counterAt = 0x800  // 64 counters of 8 bytes
	contextIn = 0xa00  // what contextProgram copies
	scratchAt = 0x1000 // what code may use
	stackTop  = 0xc000
)

// state is the registers before a run, and after it.
type state struct {
	regs  [16]uint64
	flags uint64
	saved uint64
	xmm   [16][2]uint64
}

// statusFlags are CF, PF, AF, ZF, SF and OF.
const statusFlags = 0x8d5

// pointer is addr, which no Go object is at.
func pointer(addr uint64) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

func mapAt(addr, size uint64) ([]byte, error) {
	p, err := unix.MmapPtr(-1, 0, pointer(addr), uintptr(size), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), size), nil
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t}
	var err error
	unmap := func(b []byte) {
		t.Cleanup(func() { unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b))) })
	}
	if m.text, err = mapAt(machineText, textSize); err != nil {
		t.Skip("memory that is writable and executable cannot be had: ", err)
	}
	unmap(m.text)
	if m.data, err = mapAt(machineData, dataSize); err != nil {
		t.Fatal(err)
	}
	unmap(m.data)
	m.harness, err = native.New(4096, func(uint64) ([]byte, error) { return harness() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.harness.Close() })
	return m
}

// harness is a function of a *state in rdi and an address in rsi: it calls that with
// the registers of the state, and puts there what they are then.
func harness() ([]byte, error) {
	var s state
	off := func(p unsafe.Pointer) int32 { return int32(uintptr(p) - uintptr(unsafe.Pointer(&s))) }
	reg := func(r asm.Reg) int32 { return off(unsafe.Pointer(&s.regs[r])) }
	flags, saved := off(unsafe.Pointer(&s.flags)), off(unsafe.Pointer(&s.saved))
	callee := []asm.Reg{asm.RBX, asm.RBP, asm.R12, asm.R13, asm.R14, asm.R15}
	var a asm.Assembler
	for _, r := range callee {
		a.Push(r)
	}
	a.Store(8, asm.At(asm.RDI, saved), asm.RSP)
	a.Load(8, asm.RSP, asm.At(asm.RDI, reg(asm.RSP)))
	a.Push(asm.RDI)
	a.Push(asm.RSI)
	a.Load(8, asm.RAX, asm.At(asm.RDI, flags))
	a.Push(asm.RAX)
	a.Bytes(0x9d) // popfq
	for x := range 16 {
		a.Movups(x, asm.At(asm.RDI, off(unsafe.Pointer(&s.xmm[x]))), false)
	}
	for r := asm.RAX; r <= asm.R15; r++ {
		if r != asm.RSP && r != asm.RDI {
			a.Load(8, r, asm.At(asm.RDI, reg(r)))
		}
	}
	a.Load(8, asm.RDI, asm.At(asm.RDI, reg(asm.RDI)))
	a.Bytes(0xff, 0x14, 0x24)                // call *(%rsp)
	a.Lea(asm.RSP, asm.At(asm.RSP, -0x2000)) // what the code has left on the stack stays
	a.Bytes(0x9c)                            // pushfq
	a.Push(asm.RAX)
	a.Load(8, asm.RAX, asm.At(asm.RSP, 0x2000+24))
	for r := asm.RCX; r <= asm.R15; r++ {
		if r != asm.RSP {
			a.Store(8, asm.At(asm.RAX, reg(r)), r)
		}
	}
	for x := range 16 {
		a.Movups(x, asm.At(asm.RAX, off(unsafe.Pointer(&s.xmm[x]))), true)
	}
	a.Pop(asm.RCX)
	a.Store(8, asm.At(asm.RAX, reg(asm.RAX)), asm.RCX)
	a.Pop(asm.RCX)
	a.Store(8, asm.At(asm.RAX, flags), asm.RCX)
	a.Lea(asm.RCX, asm.At(asm.RSP, 0x2000+16))
	a.Store(8, asm.At(asm.RAX, reg(asm.RSP)), asm.RCX)
	a.Load(8, asm.RSP, asm.At(asm.RAX, saved))
	a.Bytes(0xfc) // cld
	for i := range callee {
		a.Pop(callee[len(callee)-1-i])
	}
	a.Ret()
	code, _, err := a.Finish()
	return code, err
}

// entryRSP is the stack pointer at the first instruction that run executes.
const entryRSP = machineData + stackTop - 24

// run calls addr with s; rsp is the machine's own.
func (m *machine) run(addr uint64, s state) state {
	s.regs[asm.RSP] = machineData + stackTop
	s.flags = s.flags&statusFlags | 2
	in := (*state)(unsafe.Pointer(&m.data[stateAt]))
	*in = s
	m.harness.Call(0, machineData+stateAt, addr)
	out := *in
	out.saved = 0
	out.flags &= statusFlags
	return out
}

func (m *machine) counter(i int) *uint64 {
	return (*uint64)(unsafe.Pointer(&m.data[counterAt+8*i]))
}

// free is the memory around the text.
func (m *machine) free() *Space {
	return NewSpace([]x86.Range{{Low: machineText - 1<<31, High: machineText}, {Low: machineText + textSize, High: machineData},
		{Low: machineData + dataSize, High: machineText + 1<<31}})
}

// plant makes the writes of patches, whose trampolines are in memory of sp, and
// returns what undoes it.
func (m *machine) plant(patches []*Patch, sp *Space) (remove func()) {
	m.t.Helper()
	var mapped [][]byte
	for _, r := range sp.Pages() {
		b, err := mapAt(r.Low, r.High-r.Low)
		if err != nil {
			m.t.Fatalf("mapping %#x: %v", r.Low, err)
		}
		mapped = append(mapped, b)
	}
	for _, p := range patches {
		copy(unsafe.Slice((*byte)(pointer(p.Trampoline)), len(p.Code.Bytes)), p.Code.Bytes)
	}
	for _, p := range patches {
		for _, w := range p.Writes {
			m.write(w.Addr, w.Old, w.New)
		}
	}
	return func() {
		for i := len(patches) - 1; i >= 0; i-- {
			ws := patches[i].Writes
			for j := len(ws) - 1; j >= 0; j-- {
				m.write(ws[j].Addr, ws[j].New, ws[j].Old)
			}
		}
		for _, b := range mapped {
			unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b)))
		}
	}
}

func (m *machine) write(addr uint64, old, now []byte) {
	m.t.Helper()
	at := m.text[addr-machineText:]
	if string(at[:len(old)]) != string(old) {
		m.t.Fatalf("at %#x there is %x, not %x", addr, at[:len(old)], old)
	}
	copy(at, now)
}

// program counts at counter i, copies the context if copies, and changes all
// registers of its clobbers, some xmm registers, and the flags.
func (m *machine) program(i int, clobbers asm.RegSet, copies bool) Program {
	var a asm.Assembler
	p := Program{Cookie: 0x1122334455667700 + uint64(i), Clobbers: clobbers | asm.Set(asm.R11)}
	a.MovImm(asm.R11, machineData+counterAt+8*int64(i))
	a.LockInc(8, asm.At(asm.R11, 0))
	if copies {
		p.Context.Full, p.Context.Cookie, p.Context.FuncIP = true, true, true
		p.Vectors, p.VectorClobbers = 0xffff, 0x00f1
		p.Clobbers |= asm.Set(asm.RSI, asm.RDI, asm.RCX)
		a.Lea(asm.RSI, asm.At(asm.RDI, -16))
		a.MovImm(asm.RDI, machineData+contextIn)
		a.MovImm(asm.RCX, 16+VectorsOffset+256)
		a.RepMovsb()
		for x := range 16 {
			if p.VectorClobbers>>x&1 != 0 {
				a.Movups(x, asm.At(asm.RSP, 0), false)
			}
		}
	}
	for r := asm.RAX; r <= asm.R15; r++ {
		if p.Clobbers.Has(r) {
			a.MovImm(r, 0x6b6b6b00+int64(r))
		}
	}
	a.ALUImm(asm.CMP, 4, asm.RAX, int32(i))
	var err error
	if p.Body, _, err = a.Finish(); err != nil {
		m.t.Fatal(err)
	}
	return p
}

// diff names the first register in which x and y differ, but for those in dead.
func (x *state) diff(y *state, dead x86.RegSet) string {
	for r := range x.regs {
		if x.regs[r] != y.regs[r] && !dead.Has(x86.Reg(r)) {
			return fmt.Sprintf("%v is %#x instead of %#x", x86.Reg(r), y.regs[r], x.regs[r])
		}
	}
	if x.flags != y.flags && !dead.Has(x86.Flags) {
		return fmt.Sprintf("flags are %#x instead of %#x", y.flags, x.flags)
	}
	for i := range x.xmm {
		if x.xmm[i] != y.xmm[i] {
			return fmt.Sprintf("xmm%d is %#x instead of %#x", i, y.xmm[i], x.xmm[i])
		}
	}
	return ""
}
