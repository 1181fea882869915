package x86

import (
	"debug/dwarf"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// buildRust compiles testdata/shapes.rs with the given options.
func buildRust(t *testing.T, args ...string) string {
	t.Helper()
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("rustc is missing: real inlined code is not looked at")
	}
	out := filepath.Join(t.TempDir(), "shapes")
	cmd := exec.Command(rustc, append(args, "-o", out, "testdata/shapes.rs")...)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rustc: %v\n%s", err, b)
	}
	return out
}

// inlined is an inlined instance and the function that it lies in.
type inlined struct {
	name  string
	fn    []Range
	inst  []Range
	entry string
}

// inlinedInstances reads all inlined instances of the crate "shapes" from
// DWARF.
func inlinedInstances(t *testing.T, file string) []inlined {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	ranges := func(e *dwarf.Entry) []Range {
		rs, err := d.Ranges(e)
		if err != nil {
			t.Fatal(err)
		}
		var out []Range
		for _, r := range rs {
			if r[0] < r[1] {
				out = append(out, Range{r[0], r[1]})
			}
		}
		return out
	}
	name := func(off dwarf.Offset) string {
		r := d.Reader()
		r.Seek(off)
		e, err := r.Next()
		if err != nil || e == nil {
			return ""
		}
		n, _ := e.Val(dwarf.AttrName).(string)
		return n
	}
	var out []inlined
	var fn []Range
	var fnName string
	ours := false
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e == nil {
			return out
		}
		switch e.Tag {
		case dwarf.TagCompileUnit:
			n, _ := e.Val(dwarf.AttrName).(string)
			ours = strings.Contains(n, "shapes.rs")
		case dwarf.TagSubprogram:
			if fn = nil; ours {
				fn = ranges(e)
				fnName, _ = e.Val(dwarf.AttrName).(string)
			}
		case dwarf.TagInlinedSubroutine:
			if off, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok && fn != nil {
				out = append(out, inlined{name: name(off), fn: fn, inst: ranges(e), entry: fnName})
			}
		}
	}
}

// countHits runs file with a breakpoint at each address and returns how often
// each was reached.
func countHits(t *testing.T, file string, addrs map[uint64]int) map[uint64]int {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Skipf("no process can be traced here: %v", err)
	}
	pid := cmd.Process.Pid
	var ws syscall.WaitStatus
	wait := func() {
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	wait()
	if !ws.Stopped() {
		t.Skipf("no process can be traced here: status %#x", ws)
	}
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	var base uint64
	for _, line := range strings.Split(string(maps), "\n") {
		if strings.HasSuffix(line, file) {
			base, err = strconv.ParseUint(line[:strings.IndexByte(line, '-')], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	poke := func(addr uint64, b byte) {
		if _, err := syscall.PtracePokeData(pid, uintptr(addr), []byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	orig := map[uint64]byte{}
	for a := range addrs {
		var b [1]byte
		if _, err := syscall.PtracePeekData(pid, uintptr(base+a), b[:]); err != nil {
			t.Fatal(err)
		}
		orig[a] = b[0]
		poke(base+a, 0xcc)
	}
	hits := map[uint64]int{}
	for {
		if err := syscall.PtraceCont(pid, 0); err != nil {
			t.Fatal(err)
		}
		wait()
		if ws.Exited() {
			return hits
		}
		if ws.StopSignal() != syscall.SIGTRAP {
			t.Fatalf("the program stopped by %v", ws.StopSignal())
		}
		var regs syscall.PtraceRegs
		if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
			t.Fatal(err)
		}
		a := regs.Rip - 1 - base
		if _, ok := orig[a]; !ok {
			t.Fatalf("a trap at %#x is none of ours", a)
		}
		hits[a]++
		regs.Rip--
		if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
			t.Fatal(err)
		}
		poke(base+a, orig[a])
		if err := syscall.PtraceSingleStep(pid); err != nil {
			t.Fatal(err)
		}
		wait()
		if ws.Exited() {
			return hits
		}
		poke(base+a, 0xcc)
	}
}

// TestInlinedEntries compares the entries of real inlined instances with how
// often a run reaches them.
func TestInlinedEntries(t *testing.T) {
	file := buildRust(t, "-O", "-g")
	m := openImage(t, file)
	nr := NoReturn(m.code)
	sets := map[string][]EntrySet{}
	addrs := map[uint64]int{}
	lowest := map[string][]uint64{}
	for _, in := range inlinedInstances(t, file) {
		switch in.name {
		case "push", "rare", "sum_step", "vec_step", "search", "store":
		default:
			continue
		}
		f, err := NewFunc(m.code, in.fn, nr)
		if err != nil {
			t.Fatal(err)
		}
		set := f.Entries(in.inst, nil)
		if !set.Exact {
			t.Errorf("%s in %s: %s", in.name, in.entry, set.Reason)
		}
		sets[in.name] = append(sets[in.name], set)
		for _, e := range set.Entries {
			addrs[e.Addr] = 0
		}
		low := in.inst[0].Low
		for _, r := range in.inst {
			low = min(low, r.Low)
		}
		lowest[in.name] = append(lowest[in.name], low)
	}
	hits := countHits(t, file, addrs)
	calls := map[string]int{"push": 1000, "rare": 112, "sum_step": 1000, "vec_step": 1000, "search": 10, "store": 20}
	for name, want := range calls {
		got, looped, single := 0, false, true
		for _, s := range sets[name] {
			single = single && len(s.Entries) <= 1
			for _, e := range s.Entries {
				got += hits[e.Addr]
				looped = looped || e.Looped
			}
		}
		if len(sets[name]) == 0 {
			t.Errorf("%s: not inlined anywhere", name)
			continue
		}
		t.Logf("%s: %d calls, %d hits, %d instances, one entry each %v, looped %v, sets %+v", name, want, got, len(sets[name]), single, looped, sets[name])
		switch name {
		case "push", "rare", "store":
			if got != want {
				t.Errorf("%s: %d hits at %+v, %d calls (lowest addresses %#x)", name, got, sets[name], want, lowest[name])
			}
		case "search":
			if got != want && !looped && single {
				t.Errorf("%s: %d hits, %d calls, not marked", name, got, want)
			}
		default:
			if got == 0 || got > want {
				t.Errorf("%s: %d hits, %d calls", name, got, want)
			}
		}
	}
}

// TestRustResults looks at the results of real functions.
func TestRustResults(t *testing.T) {
	for _, c := range []struct {
		args []string
		want map[string]Evidence // by function
	}{
		{[]string{"-g"}, map[string]Evidence{"kept": Yes, "removed": Yes, "halves": Yes, "unrolled": Yes}},
		{[]string{"-O", "-g"}, map[string]Evidence{"kept": Yes, "removed": Unknown}},
	} {
		file := buildRust(t, c.args...)
		m := openImage(t, file)
		for name, r := range m.syms {
			for fn, want := range c.want {
				if !strings.Contains(name, "6shapes") || !strings.Contains(name, "shapes"+strconv.Itoa(len(fn))+fn+"17h") {
					continue
				}
				f, err := NewFunc(m.code, []Range{r}, NoReturn(m.code))
				if err != nil {
					t.Fatal(err)
				}
				exits, err := f.Exits()
				if err != nil || len(exits) == 0 {
					t.Fatalf("%s: %v, %v", fn, exits, err)
				}
				got := f.ResultWritten(exits[0], RAX)
				for _, e := range exits[1:] {
					if f.ResultWritten(e, RAX) != got {
						got = Unknown
					}
				}
				if got != want && !(want == Unknown && got == No) {
					t.Errorf("rustc %v: %s: result written: %v, want %v", c.args, fn, got, want)
				}
				// What a caller does with it.
				var reads []Evidence
				for _, s := range m.segs {
					if !s.exec {
						continue
					}
					for _, ref := range FindRefs(s.data, s.addr, map[uint64]struct{}{r.Low: {}}) {
						if ref.Kind == RefCall {
							reads = append(reads, CallerReads(m.code, ref.Addr+5, RAX, 100))
						}
					}
				}
				t.Logf("rustc %v: %s: written %v, callers read %v", c.args, fn, got, reads)
				if fn == "removed" && len(c.args) == 2 {
					for _, r := range reads {
						if r == Yes {
							t.Errorf("a caller reads a result that was removed")
						}
					}
				}
			}
		}
	}
}
