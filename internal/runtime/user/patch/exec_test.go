package patch

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/cpu"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/x86"
)

// TestWindows takes short sequences of instructions from a real program, plants a
// jump into them, and executes them with and without it, from random registers, with
// memory operands bent to a scratch page, and branches to stubs behind.
func TestWindows(t *testing.T) {
	p := toolchainProgram(t, "rustfmt")
	m := newMachine(t)
	rng := rand.New(rand.NewPCG(1, 2))
	n := 3000
	if testing.Short() {
		n = 600
	}
	var kinds [int(x86.Syscall) + 1]int
	var hows [int(Pun) + 1]int
	done, refused := 0, map[string]int{}
	for tries := 0; done < n && tries < 40*n; tries++ {
		r := p.funcs[rng.IntN(len(p.funcs))]
		f, err := x86.NewFunc(p.code, []x86.Range{r}, nil)
		if err != nil || len(f.Insts) < 4 {
			continue
		}
		w, ok := newWindow(m, p, f, rng)
		if !ok {
			continue
		}
		how, in, why := w.try(t)
		if t.Failed() {
			return
		}
		if why != nil {
			refused[unwrapped(why)]++
			continue
		}
		done++
		hows[how]++
		for _, i := range in {
			kinds[i.Kind]++
		}
	}
	t.Logf("%d windows: %v by way; refused %v", done, hows, refused)
	for k, n := range kinds {
		t.Logf("%s: %d", x86.Kind(k), n)
	}
	if done < n/2 {
		t.Errorf("only %d windows of %d could be tried", done, n)
	}
	for h, n := range hows {
		if n == 0 && !testing.Short() && How(h) != ShortToPadding && How(h) != ShortToRoom {
			t.Errorf("%v was not tried", How(h))
		}
	}
	for _, k := range []x86.Kind{x86.Jcc, x86.Jmp, x86.Call, x86.CallIndirect, x86.Push, x86.Pop, x86.Ret, x86.Lea} {
		if kinds[k] == 0 && !testing.Short() {
			t.Errorf("no %v was tried", k)
		}
	}
}

func unwrapped(err error) string {
	for {
		u, ok := err.(interface{ Unwrap() []error })
		if ok {
			return u.Unwrap()[0].Error()
		}
		w, ok := err.(interface{ Unwrap() error })
		if !ok || w.Unwrap() == nil {
			return err.Error()
		}
		err = w.Unwrap()
	}
}

// window is a sequence that can be executed. It is laid out as: lea -depth(%rsp),%rsp;
// the instructions; stubs.
type window struct {
	m      *machine
	rng    *rand.Rand
	insts  []x86.Inst // as in the program
	raw    [][]byte
	at     []int64 // rsp before each, from that before the first
	end    int64   // rsp at the end
	regs   [16]uint64
	fixed  uint16 // registers whose value code counts on
	code   []byte
	starts []uint64
	depth  int64
}

const calleeSlot = scratchAt + 0x40 // holds the address of the callee

// newWindow takes a sequence of f that is harmless once its operands are bent.
func newWindow(m *machine, p *program, f *x86.Func, rng *rand.Rand) (*window, bool) {
	w := &window{m: m, rng: rng}
	first := rng.IntN(len(f.Insts))
	if rng.IntN(3) == 0 { // in front of a return, a call, a branch
		var at []int
		for i := range f.Insts {
			switch f.Insts[i].Kind {
			case x86.Ret, x86.Call, x86.CallIndirect, x86.Jmp, x86.Jcc:
				at = append(at, i)
			}
		}
		if len(at) > 0 {
			first = max(0, at[rng.IntN(len(at))]-rng.IntN(4))
		}
	}
	for r := range w.regs {
		w.regs[r] = rng.Uint64() >> rng.IntN(64)
	}
	var written x86.RegSet
	rsp := int64(0)
	for i := first; i < len(f.Insts) && len(w.insts) < 8; i++ {
		in := f.Insts[i]
		raw := append([]byte(nil), p.code(in.Addr)[:in.Len]...)
		next := rsp
		if !w.harmless(&in, raw, written, &next) {
			break
		}
		w.insts, w.raw, w.at = append(w.insts, in), append(w.raw, raw), append(w.at, rsp)
		written |= in.Writes
		rsp = next
		if !in.FallsThrough() || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			break
		}
	}
	w.end = rsp
	size := 0
	for i := range w.raw {
		size += len(w.raw[i])
	}
	if size < 5 {
		return nil, false
	}
	return w, w.layout()
}

// use makes a register hold v; it says no if it holds another value that is relied on.
func (w *window) use(r x86.Reg, v uint64, written x86.RegSet) bool {
	if written.Has(r) || w.fixed>>r&1 != 0 && w.regs[r] != v {
		return false
	}
	w.fixed |= 1 << r
	w.regs[r] = v
	return true
}

// harmless says whether in can be executed, and changes its bytes where that needs
// another displacement. rsp is moved.
func (w *window) harmless(in *x86.Inst, raw []byte, written x86.RegSet, rsp *int64) bool {
	fma := cpu.X86.HasAVX2 && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 && cpu.X86.HasFMA
	switch {
	case in.Kind == x86.Syscall, in.Kind == x86.Trap, in.Kind == x86.Leave, in.Loose, in.Evex, in.Vex && !fma,
		in.Prefixes&(x86.PrefixFS|x86.PrefixGS|x86.Prefix67) != 0, in.Cond == x86.CondXbegin:
		return false
	case in.Map == 0:
		switch op := in.Opcode; {
		case op >= 0x6c && op <= 0x6f, op >= 0xa0 && op <= 0xaf && op != 0xa8 && op != 0xa9, op >= 0xd7 && op <= 0xdf,
			op == 0x9d, op == 0xc8, op == 0xfc, op == 0xfd, op == 0x8e, op == 0x8c:
			return false
		case op == 0xf6 || op == 0xf7:
			if modrm := raw[opcodeOffset(in, raw)+1]; modrm>>4&3 == 3 {
				return false // a division may fault
			}
		}
	case in.Map == 1 && !in.Vex:
		switch op := in.Opcode; {
		case op < 0x10, op == 0x31, op == 0xa2, op == 0xae, op == 0xc7, op == 0x01:
			return false
		case (op == 0xa3 || op == 0xab || op == 0xb3 || op == 0xbb) && in.Mem.Has:
			return false // bit strings of any length
		case (op >= 0x60 && op <= 0x7f || op >= 0xd0) && in.Prefixes&(x86.Prefix66|x86.PrefixF2|x86.PrefixF3) == 0:
			return false // MMX
		}
	case in.Map >= 2 && (in.Opcode >= 0x90 && in.Opcode <= 0x93 || in.Opcode >= 0xc8 && in.Opcode <= 0xcf || in.Opcode >= 0xd8 && !in.Vex && in.Opcode < 0xe0):
		return false // gather, sha, aes
	}
	// The stack.
	switch {
	case in.Kind == x86.Push && in.OpSize == 8:
		*rsp -= 8
	case in.Kind == x86.Pop && in.OpSize == 8 && in.Dst < 16 && in.Dst != x86.RSP:
		*rsp += 8
	case in.Kind == x86.Ret:
		if in.HasImm {
			return false
		}
	case in.Kind == x86.Call, in.Kind == x86.CallIndirect:
	case in.Writes.Has(x86.RSP):
		switch {
		case (in.Kind == x86.Add || in.Kind == x86.Sub) && in.HasImm && in.OpSize == 8 && in.Dst == x86.RSP && !in.Mem.Has:
			d := in.Imm
			if in.Kind == x86.Sub {
				d = -d
			}
			*rsp += d
		case in.Kind == x86.Lea && in.Mem.Base == x86.RSP && in.Mem.Index == x86.NoReg && in.OpSize == 8:
			*rsp += in.Mem.Disp
		default:
			return false
		}
		if *rsp < -4096 || *rsp > 4096 {
			return false
		}
	}
	switch in.Kind {
	case x86.JmpIndirect:
		return false
	case x86.CallIndirect:
		if !in.Mem.Has {
			return in.Reads&^x86.RSP.Set() != 0 && w.use(firstReg(in.Reads&^x86.RSP.Set()), machineText+calleeAt, written)
		}
		if !in.Mem.RIPRel {
			return false
		}
		return bend(in, raw, machineData+calleeSlot)
	}
	m := &in.Mem
	if !m.Has || in.Kind == x86.Nop {
		return in.Kind == x86.Push || in.Kind == x86.Pop || in.Kind == x86.Call || in.Kind == x86.Ret || !in.MemRead && !in.MemWrite
	}
	if m.RIPRel {
		return bend(in, raw, machineData+scratchAt+0x1000+64*uint64(w.rng.IntN(32)))
	}
	if in.Kind == x86.Lea {
		return true
	}
	if m.Vague || in.MemSize == 0 {
		return false
	}
	if m.Base == x86.RSP {
		return m.Index == x86.NoReg && in.MemSize < 16 && m.Disp >= -128 && m.Disp < 2048
	}
	addr := uint64(0)
	if m.Base != x86.NoReg {
		if m.Base == m.Index || m.Disp < -0x1000 || m.Disp > 0x1000 {
			return false
		}
		if w.fixed>>m.Base&1 == 0 && !w.use(m.Base, machineData+scratchAt+0x2000+64*uint64(w.rng.IntN(16)), written) {
			return false
		}
		addr = w.regs[m.Base]
	}
	if m.Index != x86.NoReg {
		if w.fixed>>m.Index&1 == 0 && !w.use(m.Index, 0, written) {
			return false
		}
		addr += w.regs[m.Index] * uint64(m.Scale)
	}
	if written.Has(m.Base) || written.Has(m.Index) {
		return false
	}
	addr += uint64(m.Disp)
	return addr >= machineData+scratchAt && addr < machineData+scratchAt+0x5000 && (in.MemSize < 16 || addr%64 == 0)
}

func opcodeOffset(in *x86.Inst, raw []byte) int {
	for i, b := range raw {
		if b == in.Opcode {
			return i
		}
	}
	return 0
}

func firstReg(s x86.RegSet) x86.Reg {
	for r := x86.RAX; r <= x86.R15; r++ {
		if s.Has(r) {
			return r
		}
	}
	return x86.NoReg
}

// bend only notes the target: the displacement depends on the place, which layout
// knows.
func bend(in *x86.Inst, _ []byte, target uint64) bool {
	in.Mem.Target = target
	return true
}

const (
	windowAt = 0x100
	calleeAt = 0x40
	stubSize = 16

	programsAt = 0x8000
)

// layout writes the code: branches go to stubs, each of which marks that it was
// reached, and returns.
func (w *window) layout() bool {
	last := &w.insts[len(w.insts)-1]
	w.depth = 512
	if last.Kind == x86.Ret {
		w.depth = w.at[len(w.at)-1]
	}
	size := 8
	for i, r := range w.raw {
		size += len(r)
		// The way back to the harness must stay.
		in, rsp := &w.insts[i], w.at[i]-w.depth
		switch {
		case in.Kind == x86.Push, in.Kind == x86.Call, in.Kind == x86.CallIndirect:
			rsp -= 8
		case in.Mem.Has && in.Mem.Base == x86.RSP && in.MemWrite:
			rsp += in.Mem.Disp
		default:
			continue
		}
		if rsp > -16 && rsp < 24 {
			return false
		}
	}
	var a asm.Assembler
	lea := func(d int64) {
		a.Bytes(0x48, 0x8d, 0xa4, 0x24) // lea disp32(%rsp),%rsp
		a.Bytes(binary.LittleEndian.AppendUint32(nil, uint32(int32(d)))...)
	}
	stub := func(i int) uint64 { return machineText + windowAt + uint64(size+stubSize*i) }
	lea(-w.depth)
	for i := range w.insts {
		in, raw := &w.insts[i], w.raw[i]
		at := uint64(machineText + windowAt + a.Len())
		w.starts = append(w.starts, at)
		target := uint64(0)
		switch {
		case in.Kind == x86.Call:
			target = machineText + calleeAt
		case in.Branches():
			target = stub(i + 1)
		case in.Mem.RIPRel:
			if !displace(raw, at, in) {
				return false
			}
		}
		if target != 0 {
			rel := int64(target - (at + uint64(len(raw))))
			if op := in.Opcode; in.Map == 0 && (op == 0xeb || op >= 0x70 && op < 0x80 || op >= 0xe0 && op <= 0xe3) {
				raw[len(raw)-1] = byte(rel)
				if rel > 127 {
					return false
				}
			} else {
				binary.LittleEndian.PutUint32(raw[len(raw)-4:], uint32(rel))
			}
		}
		a.Bytes(raw...)
	}
	for i := range len(w.insts) + 1 {
		at := uint64(machineText + windowAt + a.Len())
		a.Bytes(0xc6, 0x05) // movb $1, mark(%rip)
		a.Bytes(binary.LittleEndian.AppendUint32(nil, uint32(machineData+scratchAt+uint64(i)-at-7))...)
		a.Bytes(1)
		up := w.end
		if i > 0 {
			up = w.at[i-1]
		}
		lea(w.depth - up)
		a.Ret()
	}
	var err error
	w.code, _, err = a.Finish()
	return err == nil
}

// displace changes the displacement in raw so that at at the operand is Mem.Target.
func displace(raw []byte, at uint64, in *x86.Inst) bool {
	disp := uint32(in.Mem.Target - at - uint64(in.Len))
	for i := 2; i+4 <= len(raw); i++ {
		b := append([]byte(nil), raw...)
		binary.LittleEndian.PutUint32(b[i:], disp)
		if got, err := x86.Decode(b, at); err == nil && got.Len == in.Len && got.Mem.RIPRel && got.Mem.Target == in.Mem.Target && got.Imm == in.Imm && got.Opcode == in.Opcode && got.Kind == in.Kind {
			copy(raw, b)
			return true
		}
	}
	return false
}

// callee notes its return address, and returns.
func callee() []byte {
	var a asm.Assembler
	a.Push(asm.RAX)
	a.Push(asm.RCX)
	a.Load(8, asm.RAX, asm.At(asm.RSP, 16))
	a.MovImm(asm.RCX, machineData+scratchAt+0x20)
	a.Store(8, asm.At(asm.RCX, 0), asm.RAX)
	a.Pop(asm.RCX)
	a.Pop(asm.RAX)
	a.Ret()
	b, _, _ := a.Finish()
	return b
}

// try executes the window without and with a patch.
func (w *window) try(t *testing.T) (How, []x86.Inst, error) {
	t.Helper()
	m, rng := w.m, w.rng
	clear(m.text)
	copy(m.text[calleeAt:], callee())
	copy(m.text[windowAt:], w.code)
	low := uint64(machineText + windowAt)
	code := func(addr uint64) []byte {
		if addr < machineText || addr >= machineText+textSize {
			return nil
		}
		return m.text[addr-machineText:]
	}
	text := bytes.Clone(m.text)
	f, err := x86.NewFunc(func(addr uint64) []byte {
		if c := code(addr); c != nil {
			return text[addr-machineText:]
		}
		return nil
	}, []x86.Range{{Low: low, High: low + uint64(len(w.code))}}, nil)
	if err != nil {
		t.Fatalf("window does not decode: %v\n% x", err, w.code)
	}
	i := rng.IntN(len(w.insts))
	site := Site{Addr: w.starts[i], Kind: Line, Rust: rng.IntN(2) == 0}
	copies := rng.IntN(2) == 0
	clobbers := asm.RegSet(rng.Uint32()) &^ asm.Set(asm.RSP)
	site.Programs = []Program{m.program(0, clobbers, copies)}
	if rng.IntN(4) == 0 {
		site.Programs = append(site.Programs, m.program(1, clobbers>>3&^asm.Set(asm.RSP), false))
	}
	for j := range site.Programs {
		if p := &site.Programs[j]; rng.IntN(2) == 0 { // as a function
			at := programsAt + 0x400*j
			copy(m.text[at:], append(p.Body, 0xc3))
			copy(text[at:], m.text[at:at+0x400])
			p.Body, p.Entry = nil, machineText+uint64(at)
		}
	}
	var dead x86.RegSet
	if w.insts[i].Kind == x86.Ret && site.Rust {
		site.Kind = Exit
		live, _, _ := site.live(&w.insts[i])
		dead = x86.RegSet(^live) | x86.Flags.Set()
	}
	fn := Function{Code: f, Sites: []Site{site}}
	if rng.IntN(3) == 0 {
		fn.Targets = w.starts // only a pun, or a long instruction, will do
	}
	sp := m.free()
	pl := &Planner{Code: func(addr uint64) []byte { return text[addr-machineText:] }, Alloc: sp}
	patches, problems := pl.Plan([]Function{fn})
	if len(problems) > 0 {
		return 0, nil, problems[0].Err
	}
	for range 3 {
		var s state
		s.regs, s.flags = w.regs, rng.Uint64()
		for r := range s.regs {
			if w.fixed>>r&1 == 0 {
				s.regs[r] = rng.Uint64() >> rng.IntN(64)
			}
		}
		for x := range s.xmm {
			s.xmm[x] = [2]uint64{rng.Uint64(), rng.Uint64() >> rng.IntN(64)}
		}
		seed := rng.Uint64()
		fill := func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for i := 0; i < len(m.data); i += 8 {
				binary.LittleEndian.PutUint64(m.data[i:], r.Uint64())
			}
			clear(m.data[scratchAt : scratchAt+0x40])
			binary.LittleEndian.PutUint64(m.data[calleeSlot:], machineText+calleeAt)
			*m.counter(0), *m.counter(1) = 0, 0
		}
		fill()
		want := m.run(low, s)
		before := bytes.Clone(m.data[scratchAt:])
		fill()
		remove := m.plant(patches, sp)
		got := m.run(low, s)
		after := bytes.Clone(m.data[scratchAt:])
		remove()
		fail := func(format string, args ...any) {
			t.Helper()
			t.Errorf(format, args...)
			t.Logf("window % x, site %d at %#x, %v of %d instructions, trampoline at %#x: % x", w.code[8:], i, site.Addr, patches[0].How, len(patches[0].Displaced), patches[0].Trampoline, patches[0].Code.Bytes)
		}
		if d := want.diff(&got, dead); d != "" {
			fail("%s", d)
			return 0, nil, nil
		}
		// Memory, without what lies below the probe's stack pointer and its red zone.
		above := int(entryRSP-machineData-scratchAt-w.depth+w.at[i]) - 128
		below := above - 0x3000
		if site.Kind == Exit {
			above += 128
		}
		if !bytes.Equal(before[:below], after[:below]) || !bytes.Equal(before[above:], after[above:]) {
			fail("memory differs")
			return 0, nil, nil
		}
		reached := *m.counter(0)
		for j := range i { // a branch before the site may have been taken
			if m := before[1+j]; m != 0 && w.insts[j].Branches() {
				reached++
			}
		}
		if reached != 1 || len(site.Programs) > 1 && *m.counter(1) != *m.counter(0) {
			fail("the probe was hit %d and %d times", *m.counter(0), *m.counter(1))
			return 0, nil, nil
		}
		if copies && i == 0 {
			w.checkContext(fail, &s, site)
		}
	}
	if !bytes.Equal(m.text, text) {
		t.Error("removed patches leave traces")
	}
	return patches[0].How, patches[0].Displaced, nil
}

// checkContext holds the context that the probe at the first instruction got against
// the registers.
func (w *window) checkContext(fail func(string, ...any), s *state, site Site) {
	ctx := w.m.data[contextIn+16:]
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(ctx[off:]) }
	s.regs[asm.RSP] = uint64(entryRSP - w.depth)
	for r, off := range ctxOffset {
		if word(int(off)) != s.regs[r] {
			fail("the context's %v is %#x instead of %#x", asm.Reg(r), word(int(off)), s.regs[r])
		}
	}
	if word(ctxFlags)&statusFlags != s.flags&statusFlags || word(ctxIP) != site.Addr {
		fail("the context has flags %#x, ip %#x instead of %#x, %#x", word(ctxFlags), word(ctxIP), s.flags, site.Addr)
	}
	for x := range s.xmm {
		for h := range 2 {
			if v := word(VectorsOffset + 16*x + 8*h); v != s.xmm[x][h] {
				fail("the context's xmm%d is %#x instead of %#x", x, v, s.xmm[x][h])
			}
		}
	}
	below := w.m.data[contextIn:]
	if c := binary.LittleEndian.Uint64(below[16+jit.CookieOffset:]); c != site.Programs[0].Cookie {
		fail("the cookie is %#x", c)
	}
	if ip := binary.LittleEndian.Uint64(below[16+jit.FuncIPOffset:]); ip != site.Addr {
		fail("the probe's address is %#x", ip)
	}
}
