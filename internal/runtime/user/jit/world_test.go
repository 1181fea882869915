package jit_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// onCPU runs both on one thread that stays on its CPU.
func onCPU(t testing.TB, f, g func() uint64) (uint64, uint64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		t.Fatal(err)
	}
	for c := range possibleCPUs {
		if old.IsSet(c) {
			one.Set(c)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &old)
	a := f()
	return a, g()
}

// world is what programs ask about: each calls one helper with its arguments from
// the context.
func world(t testing.TB, helpers map[string]bpf.BuiltinFunc) *machine {
	memory, mem := newShared(t, possibleCPUs, map[string]*ebpf.MapSpec{"a": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}})
	var progs []*insn.Program
	for name, f := range helpers {
		progs = append(progs, program(t, name, bpf.Instructions{
			bpf.Mov.Reg(bpf.R6, bpf.R1),
			bpf.LoadMem(bpf.R2, bpf.R6, 8, bpf.DWord),
			bpf.LoadMem(bpf.R3, bpf.R6, 16, bpf.DWord),
			bpf.LoadMem(bpf.R4, bpf.R6, 24, bpf.DWord),
			bpf.LoadMem(bpf.R1, bpf.R6, 0, bpf.DWord),
			f.Call(),
			bpf.Return(),
		}))
	}
	m := load(t, options(memory.Layout), mem, progs...)
	m.memory = memory
	return m
}

func (m *machine) ask(name string, args ...uint64) uint64 {
	ctx := make([]byte, 32)
	for i, a := range args {
		binary.LittleEndian.PutUint64(ctx[8*i:], a)
	}
	return m.run(name, ctx)
}

func TestClocks(t *testing.T) {
	m := world(t, map[string]bpf.BuiltinFunc{
		"monotonic": bpf.FnKtimeGetNs, "boot": bpf.FnKtimeGetBootNs, "tai": bpf.FnKtimeGetTaiNs, "coarse": bpf.FnKtimeGetCoarseNs,
	})
	ids := map[string]int32{"monotonic": unix.CLOCK_MONOTONIC, "boot": unix.CLOCK_BOOTTIME, "tai": unix.CLOCK_TAI, "coarse": unix.CLOCK_MONOTONIC}
	check := func(how string) {
		for name, id := range ids {
			var before, after unix.Timespec
			unix.ClockGettime(id, &before)
			got := int64(m.ask(name))
			unix.ClockGettime(id, &after)
			const slack = 2_000_000
			if got < before.Nano()-slack || got > after.Nano()+slack {
				t.Errorf("%s, %s: %d is not between %d and %d", how, name, got, before.Nano(), after.Nano())
			}
		}
	}
	check("by system call")
	c := shm.NewCalibrator()
	time.Sleep(3 * time.Millisecond)
	for range 5 {
		c.Publish(m.memory)
		check("by the counter")
	}
	if binary.LittleEndian.Uint64(m.shared[shm.OffClocks:]) == 0 {
		t.Skip("no invariant time-stamp counter: system calls only")
	}
	last := uint64(0)
	for range 10_000 {
		now := m.ask("monotonic")
		if now < last {
			t.Fatal("time goes back")
		}
		last = now
	}
}

func TestIdentity(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := world(t, map[string]bpf.BuiltinFunc{
		"pid": bpf.FnGetCurrentPidTgid, "ns": bpf.FnGetNsCurrentPidTgid, "uid": bpf.FnGetCurrentUidGid, "comm": bpf.FnGetCurrentComm,
		"cpu": bpf.FnGetSmpProcessorId, "random": bpf.FnGetPrandomU32,
	})
	want := uint64(os.Getpid())<<32 | uint64(unix.Gettid())
	if got := m.ask("pid"); got != want {
		t.Errorf("pid_tgid %#x, want %#x", got, want)
	}
	if pid := binary.LittleEndian.Uint32(m.process); pid != 0 {
		t.Errorf("pid %d is cached though threads ask for their number", pid)
	}
	info := make([]byte, 8)
	if r := m.ask("ns", 1, 2, addr(info), 8); r != 0 || binary.LittleEndian.Uint64(info) != want {
		t.Errorf("%d, % x", r, info)
	}
	if r := m.ask("ns", 1, 2, addr(info), 7); int64(r) != -int64(unix.EINVAL) || info[0]|info[6] != 0 || info[7] == 0 && want>>56 != 0 {
		t.Errorf("%d, % x", r, info)
	}
	if got, want := m.ask("uid"), uint64(os.Getgid())<<32|uint64(os.Getuid()); got != want {
		t.Errorf("uid_gid %#x, want %#x", got, want)
	}
	if got, want := onCPU(t, func() uint64 { return m.ask("cpu") }, func() uint64 {
		var cpu uint32
		unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
		return uint64(cpu)
	}); got != want {
		t.Errorf("cpu %d, want %d", got, want)
	}
	seen := make(map[uint64]bool)
	for range 1000 {
		seen[m.ask("random")] = true
	}
	for r := range seen {
		if r>>32 != 0 {
			t.Errorf("%#x has more than 32 bits", r)
		}
	}
	if len(seen) < 990 {
		t.Errorf("%d different random numbers of 1000", len(seen))
	}

	name := func(size int) string {
		buf := bytes.Repeat([]byte{0xee}, 40)
		if r := m.ask("comm", addr(buf), uint64(size)); r != 0 {
			t.Errorf("comm: %d", int64(r))
		}
		if !bytes.Equal(buf[size:], bytes.Repeat([]byte{0xee}, 40-size)) {
			t.Errorf("comm writes beyond %d bytes: % x", size, buf)
		}
		s, rest, _ := strings.Cut(string(buf[:size]), "\x00")
		if strings.Trim(rest, "\x00") != "" {
			t.Errorf("comm leaves % x", buf[:size])
		}
		return s
	}
	setName := func(s string) {
		if err := os.WriteFile("/proc/thread-self/comm", []byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	old, _ := os.ReadFile("/proc/thread-self/comm")
	defer setName(strings.TrimSpace(string(old)))
	setName("fifteen letters")
	for _, size := range []int{16, 32, 40, 5, 1, 15} {
		if got, want := name(size), "fifteen letters"[:min(15, size-1)]; got != want {
			t.Errorf("comm of %d bytes: %q, want %q", size, got, want)
		}
	}
	setName("two")
	if got := name(16); got != "fifteen letters" {
		t.Errorf("the cache says %q", got)
	}
	m.memory.ExpireComms()
	if got := name(16); got != "two" {
		t.Errorf("after expiry %q", got)
	}
}

// TestThreadFromTLS: a process whose TLS says which thread it is, is believed.
func TestThreadFromTLS(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := world(t, map[string]bpf.BuiltinFunc{"pid": bpf.FnGetCurrentPidTgid})
	// Any word will do that is not zero: Go's TLS slot, which holds g.
	const slot = ^uint64(7) // -8
	binary.LittleEndian.PutUint64(m.process[shm.ProcTID:], slot)
	var fs uint64
	if _, _, e := unix.RawSyscall(unix.SYS_ARCH_PRCTL, 0x1003, uintptr(unsafe.Pointer(&fs)), 0); e != 0 {
		t.Fatal(e)
	}
	p := uintptr(fs + slot)
	want := **(**uint32)(unsafe.Pointer(&p))
	if got := uint32(m.ask("pid")); got != want {
		t.Errorf("tid %d, want %d", got, want)
	}
	if pid := binary.LittleEndian.Uint32(m.process); pid != uint32(os.Getpid()) {
		t.Errorf("cached pid %d", pid)
	}
}

// TestQuiet: where no system call may be made, what is not at hand is not known.
func TestQuiet(t *testing.T) {
	m := world(t, map[string]bpf.BuiltinFunc{
		"pid": bpf.FnGetCurrentPidTgid, "uid": bpf.FnGetCurrentUidGid, "comm": bpf.FnGetCurrentComm, "read": bpf.FnProbeReadUser,
	})
	binary.LittleEndian.PutUint32(m.process[shm.ProcDirect:], 0)
	binary.LittleEndian.PutUint32(m.process[shm.ProcQuiet:], 1)
	if got := m.ask("pid"); got != 0 {
		t.Errorf("pid_tgid %#x", got)
	}
	if got := m.ask("uid"); got != 0 {
		t.Errorf("uid_gid %#x", got)
	}
	buf, from := bytes.Repeat([]byte{0xee}, 16), make([]byte, 16)
	if r := m.ask("comm", addr(buf), 16); r != 0 || !bytes.Equal(buf, make([]byte, 16)) {
		t.Errorf("comm: %d, % x", int64(r), buf)
	}
	if r := int64(m.ask("read", addr(buf), 16, addr(from))); r >= 0 {
		t.Errorf("read: %d", r)
	}
}

func TestProbeContext(t *testing.T) {
	get := func(name string, f bpf.BuiltinFunc) *insn.Program {
		return program(t, name, bpf.Instructions{f.Call(), bpf.Return()})
	}
	m := load(t, options(nil), nil, get("cookie", bpf.FnGetAttachCookie), get("ip", bpf.FnGetFuncIp))
	block := make([]byte, 16+jit.ContextSize)
	binary.LittleEndian.PutUint64(block, 0x1234_5678_9abc)
	binary.LittleEndian.PutUint64(block[8:], 0x7fff_0000_1111)
	if r := m.run("cookie", block[16:]); r != 0x1234_5678_9abc {
		t.Errorf("cookie %#x", r)
	}
	if r := m.run("ip", block[16:]); r != 0x7fff_0000_1111 {
		t.Errorf("ip %#x", r)
	}
	if c := m.im.Entries["cookie"].Context; !c.Cookie || c.FuncIP || c.Full || c.Regs != 0 {
		t.Errorf("%+v", c)
	}
}

func TestContext(t *testing.T) {
	for name, c := range map[string]struct {
		insns bpf.Instructions
		want  jit.Context
	}{
		"none": {bpf.Instructions{bpf.Mov.Imm(bpf.R0, 0), bpf.Return()}, jit.Context{}},
		"di": {bpf.Instructions{
			bpf.Mov.Reg(bpf.R6, bpf.R1), bpf.LoadMem(bpf.R0, bpf.R6, 112, bpf.DWord), bpf.Return(),
		}, jit.Context{Regs: 1 << 14}},
		"a part": {bpf.Instructions{bpf.LoadMem(bpf.R0, bpf.R1, 116, bpf.Word), bpf.Return()}, jit.Context{Regs: 1 << 14}},
		"in a function": {bpf.Instructions{
			bpf.Mov.Reg(bpf.R2, bpf.R1), bpf.Call.Label("f"), bpf.Mov.Imm(bpf.R0, 0), bpf.Return(),
			bpf.LoadMem(bpf.R0, bpf.R2, 152, bpf.DWord).WithSymbol("f"), bpf.Return(),
		}, jit.Context{Regs: 1 << 19}},
		"stored": {bpf.Instructions{
			bpf.StoreMem(bpf.RFP, -8, bpf.R1, bpf.DWord), bpf.Mov.Imm(bpf.R0, 0), bpf.Return(),
		}, jit.Context{Full: true, Regs: 1<<21 - 1}},
		"overwritten": {bpf.Instructions{
			bpf.Mov.Imm(bpf.R1, 0), bpf.StoreMem(bpf.RFP, -8, bpf.R1, bpf.DWord), bpf.Mov.Imm(bpf.R0, 0), bpf.Return(),
		}, jit.Context{}},
		"one way": {bpf.Instructions{
			bpf.Mov.Imm(bpf.R0, 0),
			bpf.Mov.Imm(bpf.R2, 0),
			bpf.JEq.Imm(bpf.R0, 0, "other"),
			bpf.Mov.Reg(bpf.R2, bpf.R1),
			bpf.LoadMem(bpf.R0, bpf.R2, 8, bpf.DWord).WithSymbol("other"),
			bpf.Return(),
		}, jit.Context{Regs: 1 << 1}},
	} {
		im, err := jit.Compile([]*insn.Program{program(t, "p", c.insns)}, options(nil))
		if err != nil {
			t.Fatal(name, err)
		}
		if got := im.Entries["p"].Context; got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestClobbers(t *testing.T) {
	im, err := jit.Compile([]*insn.Program{program(t, "p", bpf.Instructions{
		bpf.LoadMem(bpf.R6, bpf.R1, 0, bpf.DWord),
		bpf.Mov.Reg(bpf.R0, bpf.R6),
		bpf.Return(),
	})}, options(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := im.Entries["p"].Clobbers; got != asm.Set(asm.RAX) {
		t.Errorf("%b", got)
	}
}

// pages returns three pages of which the last is not accessible.
func pages(t testing.TB) []byte {
	t.Helper()
	p, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(p) })
	if err := unix.Mprotect(p[2*4096:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * 4096 {
		p[i] = byte('a' + i%26)
	}
	return p
}

// TestReads reads good and bad memory by both ways: by system call, and by plain
// instructions whose faults a signal handler continues as the fixups say.
func TestReads(t *testing.T) {
	for _, direct := range []bool{false, true} {
		m := world(t, map[string]bpf.BuiltinFunc{
			"read": bpf.FnProbeReadUser, "str": bpf.FnProbeReadUserStr, "copy": bpf.FnCopyFromUser, "strncmp": bpf.FnStrncmp,
		})
		if direct {
			binary.LittleEndian.PutUint32(m.process[shm.ProcDirect:], 1)
			handleFaults(t, m)
		}
		src := pages(t)
		end := 2 * 4096
		const guard = 0xee
		read := func(name string, size int, from uint64) (int64, []byte) {
			buf := bytes.Repeat([]byte{guard}, size+16)
			r := int64(m.ask(name, addr(buf), uint64(size), from))
			if !bytes.Equal(buf[size:], bytes.Repeat([]byte{guard}, 16)) {
				t.Errorf("%s writes beyond %d bytes", name, size)
			}
			return r, buf[:size]
		}
		for size := range 70 {
			for _, at := range []int{0, 1, 4096 - 3, end - size, end - size - 1} {
				for _, name := range []string{"read", "copy"} {
					if r, got := read(name, size, addr(src)+uint64(at)); r != 0 || !bytes.Equal(got, src[at:at+size]) {
						t.Fatalf("direct %v: %s of %d bytes at %d: %d, %q", direct, name, size, at, r, got)
					}
				}
			}
			for _, bad := range []uint64{0, 1, addr(src) + uint64(end), addr(src) + uint64(end-size+1), 1 << 63, ^uint64(0) - 3, 0x7fff_ffff_f000} {
				if size == 0 {
					continue
				}
				for _, name := range []string{"read", "str"} {
					r, got := read(name, size, bad)
					if r != -int64(unix.EFAULT) || !bytes.Equal(got, make([]byte, size)) {
						t.Fatalf("direct %v: %s of %d bytes at %#x: %d, %q", direct, name, size, bad, r, got)
					}
				}
			}
		}
		for _, c := range []struct {
			size, at, length int // of the string with its zero
		}{{10, 0, 5}, {5, 0, 5}, {4, 0, 5}, {1, 0, 5}, {300, 4096 - 100, 200}, {300, end - 20, 20}, {64, end - 64, 64}, {5000, 10, 4500}} {
			old := src[c.at+c.length-1]
			src[c.at+c.length-1] = 0
			r, got := read("str", c.size, addr(src)+uint64(c.at))
			n := min(c.size, c.length)
			want := append(bytes.Clone(src[c.at:c.at+n-1]), 0)
			if r != int64(n) || !bytes.Equal(got[:n], want) {
				t.Errorf("direct %v: %+v: %d, %q, want %q", direct, c, r, got[:n], want)
			}
			src[c.at+c.length-1] = old
		}
		if r, _ := read("str", 0, 0); r != 0 {
			t.Errorf("a string of no size: %d", r)
		}
		x, y := []byte("abc\x00x"), []byte("abd\x00y")
		for _, c := range []struct {
			a, b []byte
			n    uint64
			want int64
		}{{x, y, 2, 0}, {x, y, 3, -1}, {y, x, 3, 1}, {x, x, 5, 0}, {x, []byte("abc\x00y"), 5, 0}, {x, y, 0, 0}} {
			if r := int64(m.ask("strncmp", addr(c.a), c.n, addr(c.b))); r != c.want {
				t.Errorf("strncmp(%q, %d, %q) = %d", c.a, c.n, c.b, r)
			}
		}
	}
}

// handleFaults installs, before Go's, a handler of SIGSEGV and SIGBUS that knows the
// fixups of m. It is what the injected one will be.
func handleFaults(t *testing.T, m *machine) {
	t.Helper()
	table := make([]byte, 0, 24*len(m.im.Fixups))
	for _, f := range m.im.Fixups {
		for _, off := range []int{f.Start, f.End, f.Target} {
			table = binary.LittleEndian.AppendUint64(table, m.Base()+uint64(off))
		}
	}
	type action struct{ handler, flags, restorer, mask uint64 }
	for _, sig := range []unix.Signal{unix.SIGSEGV, unix.SIGBUS} {
		var old action
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0); e != 0 {
			t.Fatal(e)
		}
		// ucontext_t: the registers from 40 on, rip the 17th of them.
		const rip = 40 + 16*8
		var a asm.Assembler
		next, none := a.NewLabel(), a.NewLabel()
		a.Load(8, asm.RAX, asm.At(asm.RDX, rip))
		a.MovImm(asm.RCX, int64(addr(table)))
		a.MovImm(asm.R8, int64(addr(table))+int64(len(table)))
		top := a.Here()
		a.ALU(asm.CMP, 8, asm.RCX, asm.R8)
		a.Jcc(asm.E, none)
		a.ALULoad(asm.CMP, 8, asm.RAX, asm.At(asm.RCX, 0))
		a.Jcc(asm.B, next)
		a.ALULoad(asm.CMP, 8, asm.RAX, asm.At(asm.RCX, 8))
		a.Jcc(asm.AE, next)
		a.Load(8, asm.RAX, asm.At(asm.RCX, 16))
		a.Store(8, asm.At(asm.RDX, rip), asm.RAX)
		a.Ret()
		a.Bind(next)
		a.ALUImm(asm.ADD, 8, asm.RCX, 24)
		a.Jmp(top)
		a.Bind(none)
		a.MovImm(asm.RAX, int64(old.handler))
		a.JmpReg(asm.RAX)
		code, _, err := a.Finish()
		if err != nil {
			t.Fatal(err)
		}
		c, err := native.New(len(code), func(uint64) ([]byte, error) { return code, nil })
		if err != nil {
			t.Fatal(err)
		}
		ours := old
		ours.handler = c.Base()
		if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&ours)), 0, 8, 0, 0); e != 0 {
			t.Fatal(e)
		}
		t.Cleanup(func() {
			unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
			runtime.KeepAlive(table)
		})
	}
}

func TestGetStack(t *testing.T) {
	p := program(t, "stack", bpf.Instructions{
		bpf.Mov.Reg(bpf.R6, bpf.R1),
		bpf.LoadMem(bpf.R2, bpf.R6, 168, bpf.DWord),
		bpf.LoadMem(bpf.R3, bpf.R6, 176, bpf.DWord),
		bpf.LoadMem(bpf.R4, bpf.R6, 184, bpf.DWord),
		bpf.FnGetStack.Call(),
		bpf.Return(),
	})
	m := load(t, options(nil), nil, p)
	frames := make([]uint64, 16) // each frame: its caller's, the return address
	at := func(i int) uint64 { return uint64(uintptr(unsafe.Pointer(&frames[i]))) }
	frames[0], frames[1] = at(4), 0x1001
	frames[4], frames[5] = at(10), 0x1002
	frames[10], frames[11] = 0, 0x1003
	ask := func(size int, flags uint64) (int64, []uint64) {
		buf := make([]uint64, 10)
		for i := range buf {
			buf[i] = 0xee
		}
		ctx := make([]byte, 192)
		binary.LittleEndian.PutUint64(ctx[32:], at(0))
		binary.LittleEndian.PutUint64(ctx[128:], 0x1000)
		binary.LittleEndian.PutUint64(ctx[168:], uint64(uintptr(unsafe.Pointer(&buf[0]))))
		binary.LittleEndian.PutUint64(ctx[176:], uint64(size))
		binary.LittleEndian.PutUint64(ctx[184:], flags)
		return int64(m.run("stack", ctx)), buf
	}
	const user = 1 << 8
	for _, c := range []struct {
		size  int
		flags uint64
		r     int64
		want  []uint64
	}{
		{64, user, 32, []uint64{0x1000, 0x1001, 0x1002, 0x1003, 0, 0, 0, 0, 0xee}},
		{64, user | 1, 24, []uint64{0x1001, 0x1002, 0x1003, 0, 0, 0, 0, 0, 0xee}},
		{16, user, 16, []uint64{0x1000, 0x1001, 0xee}},
		{16, user | 9, 0, []uint64{0, 0, 0xee}},
		{12, user, -int64(unix.EINVAL), []uint64{0}},
		{16, 0, -int64(unix.EINVAL), []uint64{0, 0, 0xee}},
	} {
		r, got := ask(c.size, c.flags)
		for i, w := range c.want {
			if got[i] != w {
				t.Errorf("%d bytes, flags %#x: %#x, want %#x", c.size, c.flags, got, c.want)
				break
			}
		}
		if r != c.r {
			t.Errorf("%d bytes, flags %#x: %d, want %d", c.size, c.flags, r, c.r)
		}
	}
	if c := m.im.Entries["stack"].Context; c.Full {
		t.Log("the arguments lie beyond the registers, so the context is read in full")
	}
}
