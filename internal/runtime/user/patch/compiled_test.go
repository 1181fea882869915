package patch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/x86"
)

// load puts a shared object that needs nothing outside of itself at machineText, and
// returns its functions and the address of work.
func (m *machine) load(file string) (funcs []x86.Range, work uint64) {
	m.t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Vaddr+p.Memsz > textSize {
			m.t.Fatalf("%s is too large", file)
		}
		if _, err := p.ReadAt(m.text[p.Vaddr:p.Vaddr+p.Filesz], 0); err != nil {
			m.t.Fatal(err)
		}
	}
	if s := f.Section(".rela.dyn"); s != nil {
		b, err := s.Data()
		if err != nil {
			m.t.Fatal(err)
		}
		for ; len(b) >= 24; b = b[24:] {
			if typ := elf.R_X86_64(binary.LittleEndian.Uint32(b[8:])); typ != elf.R_X86_64_RELATIVE {
				m.t.Fatalf("%s has a relocation of type %v", file, typ)
			}
			binary.LittleEndian.PutUint64(m.text[binary.LittleEndian.Uint64(b):], machineText+binary.LittleEndian.Uint64(b[16:]))
		}
	}
	syms, err := f.Symbols()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Size == 0 {
			continue
		}
		r := x86.Range{Low: machineText + s.Value, High: machineText + s.Value + s.Size}
		if s.Name == "work" {
			work = r.Low
		}
		if !slices.Contains(funcs, r) {
			funcs = append(funcs, r)
		}
	}
	slices.SortFunc(funcs, func(a, b x86.Range) int { return int(int64(a.Low) - int64(b.Low)) })
	return funcs, work
}

// TestCompiled plants a probe into every entry and exit of a compiled library, calls
// it with random arguments with and without, and compares results, registers and how
// often functions were entered and left.
func TestCompiled(t *testing.T) {
	rustc := lookRustc(t)
	for _, opt := range []string{"-Copt-level=3", "-Copt-level=s", "-Copt-level=1 -Cforce-frame-pointers=yes"} {
		t.Run(opt, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "work.so")
			args := append(strings.Fields(opt), "-Cpanic=abort", "-Coverflow-checks=off", "-Cdebug-assertions=off", "-Clink-arg=-nostartfiles", "-Clink-arg=-nodefaultlibs", "-o", out, "testdata/work.rs")
			if b, err := exec.Command(rustc, args...).CombinedOutput(); err != nil {
				t.Fatalf("rustc: %v\n%s", err, b)
			}
			m := newMachine(t)
			funcs, work := m.load(out)
			m.all(t, funcs, work)
		})
	}
}

func lookRustc(t testing.TB) string {
	t.Helper()
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		home, _ := os.UserHomeDir()
		rustc = filepath.Join(home, ".cargo/bin/rustc")
		if _, err := os.Stat(rustc); err != nil {
			t.Skip("rustc is missing: the library of this test can't be compiled")
		}
	}
	return rustc
}

func (m *machine) all(t *testing.T, ranges []x86.Range, work uint64) {
	text := bytes.Clone(m.text)
	code := func(addr uint64) []byte {
		if addr < machineText || addr >= machineText+textSize {
			return nil
		}
		return text[addr-machineText:]
	}
	var funcs []Function
	conditional := map[int]bool{}
	for i, r := range ranges {
		f, err := x86.NewFunc(code, []x86.Range{r}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if 2*i+1 >= 64 {
			t.Fatal("more functions than counters")
		}
		caller := asm.RegSet(1<<asm.RAX | 1<<asm.RCX | 1<<asm.RDX | 1<<asm.RSI | 1<<asm.RDI | 0xf<<asm.R8)
		fn := Function{Code: f, Sites: []Site{{Addr: r.Low, Kind: Entry, Rust: true, Programs: []Program{m.program(2*i, caller, false)}}}}
		all, err := f.Exits()
		if err != nil {
			t.Fatal(err)
		}
		for j, e := range all {
			conditional[i] = conditional[i] || e.Cond >= 0
			fn.Sites = append(fn.Sites, Site{Addr: e.Addr, Kind: Exit, Rust: true, Programs: []Program{m.program(2*i+1, caller, j%2 == 0)}})
		}
		funcs = append(funcs, fn)
	}
	sp := m.free()
	pl := &Planner{Code: code, Functions: ranges, Alloc: sp}
	patches, problems := pl.Plan(funcs)
	for _, p := range problems {
		t.Log(p)
	}
	var hows [int(Pun) + 1]int
	sites := 0
	for _, p := range patches {
		hows[p.How]++
		sites += len(p.Sites)
	}
	t.Logf("%d functions, %d sites, %v by way, %d not taken", len(funcs), sites, hows, len(problems))
	if len(problems) > sites/20 {
		t.Error("too many sites are not taken")
	}
	left := map[uint64]bool{}
	for _, p := range problems {
		left[p.Site.Addr] = true
	}
	rng := rand.New(rand.NewPCG(3, 4))
	runs := make([]state, 3000)
	for i := range runs {
		for r := range runs[i].regs {
			runs[i].regs[r] = rng.Uint64() >> rng.IntN(64)
		}
		for x := range runs[i].xmm {
			runs[i].xmm[x] = [2]uint64{rng.Uint64(), rng.Uint64()}
		}
	}
	want := make([]state, len(runs))
	for i := range runs {
		want[i] = m.run(work, runs[i])
	}
	for i := range 64 {
		*m.counter(i) = 0
	}
	remove := m.plant(patches, sp)
	for i := range runs {
		got := m.run(work, runs[i])
		const callee = 1<<asm.RBX | 1<<asm.RBP | 1<<asm.RSP | 1<<asm.R12 | 1<<asm.R13 | 1<<asm.R14 | 1<<asm.R15 | 1<<asm.RAX
		for x := range got.xmm {
			got.xmm[x] = want[i].xmm[x] // no results here
		}
		if d := want[i].diff(&got, ^x86.RegSet(callee)); d != "" {
			t.Fatalf("run %d: %s", i, d)
		}
	}
	remove()
	if !bytes.Equal(m.text[:len(text)], text) {
		t.Error("removed patches leave traces")
	}
	calls := uint64(0)
	for i, fn := range funcs {
		in, out := *m.counter(2 * i), *m.counter(2*i + 1)
		calls += in
		whole := !conditional[i]
		for _, s := range fn.Sites {
			whole = whole && !left[s.Addr]
		}
		if whole && in != out {
			t.Errorf("the function at %#x was entered %d times and left %d times", fn.Sites[0].Addr, in, out)
		}
	}
	if calls < uint64(len(runs))*uint64(5) {
		t.Errorf("only %d calls were counted in %d runs", calls, len(runs))
	}
}
