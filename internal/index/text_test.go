package index

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/x86"
)

func open(t *testing.T, path string) *Index {
	t.Helper()
	ix, err := Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	return ix
}

func in(ranges []x86.Range, addr uint64) bool {
	return slices.ContainsFunc(ranges, func(r x86.Range) bool { return r.Contains(addr) })
}

// TestText holds what Text says of a program against its plans, and against its symbols
// and sections as the standard library reads them.
func TestText(t *testing.T) {
	for _, p := range []fixture.Profile{fixture.Debug, fixture.Release, fixture.LTO, fixture.Plain, fixture.Stripped, fixture.NonPIE} {
		t.Run(p.Name, func(t *testing.T) {
			path := fixture.Build(t, "flow", p)
			ix := open(t, path)
			text := ix.Text()
			ranges := text.FunctionRanges()
			for i, r := range ranges {
				if r.Low >= r.High || i > 0 && r.Low < ranges[i-1].High {
					t.Fatalf("range %x behind %x", r, ranges[max(0, i-1)])
				}
			}
			covered(t, path, ranges)
			plansIn(t, ix, text)

			frames, err := ix.debug.Frames()
			if err != nil {
				t.Fatal(err)
			}
			pads := 0
			for _, r := range frames.Ranges() {
				parts, targets, rust, ok := text.FunctionAt(r.High - 1)
				if !ok || !in(parts, r.High-1) || !in(ranges, r.Low) || !in(ranges, r.High-1) {
					t.Fatalf("the function at %x: %x, known: %v", r, parts, ok)
				}
				if rust && p == fixture.Stripped {
					t.Errorf("%x is Rust's without a name", r)
				}
				sites, err := frames.LandingPads(r.Low)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range sites {
					pads++
					if !slices.Contains(targets, s.Pad) {
						t.Errorf("%x: pad %#x is not among %x", r, s.Pad, targets)
					}
				}
			}
			if pads < 10 {
				t.Errorf("only %d landing pads", pads)
			}
			if parts, _, _, ok := text.FunctionAt(ranges[len(ranges)-1].High + 1<<20); ok {
				t.Errorf("a function where no code is: %x", parts)
			}
		})
	}
}

// covered checks that the symbols and the sections are within ranges.
func covered(t *testing.T, path string, ranges []x86.Range) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, _ := f.Symbols()
	dynamic, _ := f.DynamicSymbols()
	for _, s := range slices.Concat(symbols, dynamic) {
		if typ := elf.ST_TYPE(s.Info); typ != elf.STT_FUNC || s.Section == elf.SHN_UNDEF {
			continue
		}
		if !in(ranges, s.Value) || s.Size > 0 && !in(ranges, s.Value+s.Size-1) {
			t.Errorf("%s at %#x is not within the ranges", s.Name, s.Value)
		}
	}
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Name != ".text" && !(in(ranges, s.Addr) && in(ranges, s.Addr+s.Size-1)) {
			t.Errorf("section %s is not within the ranges", s.Name)
		}
	}
}

// plansIn checks that all sites are in the functions that Text has there.
func plansIn(t *testing.T, ix *Index, text *Text) {
	t.Helper()
	rusty := 0
	for _, f := range ix.Functions() {
		instances, err := f.Instances()
		if err != nil {
			t.Fatal(err)
		}
		for _, inst := range instances {
			if inst.Inlined && !strings.HasPrefix(f.Name, "flow::") {
				continue // there are ten thousand in std
			}
			plan, err := inst.Plan()
			if err != nil {
				continue // handwritten code may be without end
			}
			at := inst.Outer.Low()
			parts, targets, rust, ok := text.FunctionAt(at)
			if !ok || len(parts) == 0 || parts[0].Low != at {
				t.Errorf("%s at %#x: parts %x, known: %v", f.Name, at, parts, ok)
				continue
			}
			if rust {
				rusty++
			}
			if _, err := x86.NewFunc(text.Bytes, parts, text.NoReturn); err != nil {
				t.Errorf("%s: %v", f.Name, err)
			}
			for _, a := range targets {
				if !in(parts, a) || a == at {
					t.Errorf("%s: target %#x of %x", f.Name, a, parts)
				}
			}
			var sites []uint64
			for _, s := range plan.Entries {
				sites = append(sites, s.Addr)
			}
			if plan.More != nil {
				sites = append(sites, plan.More.Addr)
			}
			for _, x := range plan.Exits {
				sites = append(sites, x.Addr)
			}
			for _, a := range sites {
				own, _, _, ok := text.FunctionAt(a)
				if !in(parts, a) || !ok || own[0].Low != at {
					t.Errorf("%s: the site at %#x is not in %x, but in %x", f.Name, a, parts, own)
				}
			}
		}
	}
	if ix.Level() != NoSymbols && rusty < 100 {
		t.Errorf("only %d functions are Rust's", rusty)
	}
}

// TestTextRust: rust is true of what rustc compiled and of nothing else, and control
// comes into flow_try from flow_escape, which is hand-written.
func TestTextRust(t *testing.T) {
	for _, p := range []fixture.Profile{fixture.Debug, fixture.Plain} {
		t.Run(p.Name, func(t *testing.T) {
			ix := open(t, fixture.Build(t, "flow", p))
			text := ix.Text()
			for name, want := range map[string]bool{
				"flow::panics::catcher": true, "flow::panics::risky": true, "flow::ends::tries": true, "core::fmt::write": true,
				"_start": false, "main": false, "flow_try": false, "flow_escape": false, "_init": false, "frame_dummy": false,
			} {
				_, _, rust, ok := text.FunctionAt(entryOf(t, ix, name))
				if !ok || rust != want {
					t.Errorf("%s: Rust %v, known %v", name, rust, ok)
				}
			}
			_, pads, _, _ := text.FunctionAt(entryOf(t, ix, "flow::panics::catcher"))
			if p == fixture.Plain && len(pads) == 0 { // at -O0 the catch is in std's catch_unwind
				t.Error("what is caught in catcher lands nowhere")
			}
			parts, _, _, _ := text.FunctionAt(entryOf(t, ix, "flow_escape"))
			code, err := x86.NewFunc(text.Bytes, parts, nil)
			if err != nil {
				t.Fatal(err)
			}
			jump := code.Insts[len(code.Insts)-1]
			_, targets, _, _ := text.FunctionAt(entryOf(t, ix, "flow_try"))
			if !slices.Equal(targets, []uint64{jump.Target}) {
				t.Errorf("flow_try is entered at %x; flow_escape jumps to %#x", targets, jump.Target)
			}
		})
	}
}

func entryOf(t *testing.T, ix *Index, name string) uint64 {
	t.Helper()
	for _, f := range ix.Functions() {
		if f.Name != name {
			continue
		}
		instances, err := f.Instances()
		if err != nil || len(instances) == 0 || instances[0].Inlined {
			t.Fatalf("%s: %v, %v", name, instances, err)
		}
		return instances[0].Low()
	}
	t.Fatalf("no function %s", name)
	return 0
}

// TestTextSeparate: the code and its frames are those of the program, its symbols those
// of the file of debug info, which has none of the former.
func TestTextSeparate(t *testing.T) {
	objcopy, err := exec.LookPath("objcopy")
	if err != nil {
		t.Skip("skipped: needs objcopy")
	}
	whole := fixture.Build(t, "flow", fixture.Release)
	debug, program := filepath.Join(t.TempDir(), "flow.debug"), filepath.Join(t.TempDir(), "flow")
	for _, args := range [][]string{{"--only-keep-debug", whole, debug}, {"--strip-all", whole, program}} {
		if msg, err := exec.Command(objcopy, args...).CombinedOutput(); err != nil {
			t.Fatalf("objcopy %v: %v\n%s", args, err, msg)
		}
	}
	if f, err := elf.Open(whole); err == nil {
		id := f.Section(".note.gnu.build-id")
		f.Close()
		if id == nil {
			t.Skip("skipped: the linker gives no build id")
		}
	}
	want := open(t, whole)
	ix, err := Open(program, debug)
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	if got, want := ix.Text().FunctionRanges(), want.Text().FunctionRanges(); !slices.Equal(got, want) {
		t.Errorf("ranges %x, not %x", got, want)
	}
	for _, r := range want.Text().FunctionRanges() {
		parts, targets, rust, ok := ix.Text().FunctionAt(r.Low)
		parts2, targets2, rust2, ok2 := want.Text().FunctionAt(r.Low)
		if !slices.Equal(parts, parts2) || !slices.Equal(targets, targets2) || rust != rust2 || ok != ok2 {
			t.Errorf("at %#x: %x %x %v %v, not %x %x %v %v", r.Low, parts, targets, rust, ok, parts2, targets2, rust2, ok2)
		}
	}
}

// TestTextForeign: code of other compilers and of hands.
func TestTextForeign(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("skipped: needs gcc")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "foreign.c")
	if err := os.WriteFile(src, []byte(foreign), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"-g", "-g0", "-s"} {
		t.Run(flags, func(t *testing.T) {
			out := filepath.Join(dir, "foreign"+flags)
			if msg, err := exec.Command(gcc, "-O2", flags, "-Wl,--export-dynamic", "-o", out, src).CombinedOutput(); err != nil {
				t.Skipf("skipped: gcc: %v\n%s", err, msg)
			}
			ix := open(t, out)
			text := ix.Text()
			addr := map[string]uint64{}
			for _, s := range symbolsOf(t, out) {
				addr[s.Name] = s.Value
			}
			at := func(name string) ([]x86.Range, []uint64) {
				parts, targets, rust, ok := text.FunctionAt(addr[name])
				if !ok || rust || addr[name] == 0 {
					t.Fatalf("%s at %#x: %x, Rust %v, known %v", name, addr[name], parts, rust, ok)
				}
				return parts, targets
			}
			// Without a size, up to the next function.
			if parts, targets := at("unsized"); parts[0] != (x86.Range{Low: addr["unsized"], High: addr["sized"]}) || !slices.Contains(targets, addr["within"]) {
				t.Errorf("unsized %x with %x", parts, targets)
			}
			// A name like Rust's is not enough: one has no frame description, the other
			// takes a value from r11.
			at("_ZN4fake5naked17h0123456789abcdefE")
			at("_ZN4fake6framed17h0123456789abcdefE")
			at("variadic")
			// Jumps from a part that was split off come back to where no symbol is.
			frames, err := ix.debug.Frames()
			if err != nil {
				t.Fatal(err)
			}
			parts, targets := at("may_fail")
			back := backJumps(t, text, frames, parts)
			if len(back) == 0 {
				t.Skip("skipped: this gcc has not split may_fail")
			}
			for _, a := range back {
				if flags == "-s" && !slices.Contains(targets, a) {
					t.Errorf("may_fail is entered at %#x from its cold part; known are %x", a, targets)
				}
			}
			if flags != "-s" && len(parts) != 2 {
				t.Errorf("may_fail has the parts %x", parts)
			}
			if flags != "-s" {
				cold := parts[1]
				if again, _, _, ok := text.FunctionAt(cold.Low); !ok || !slices.Equal(again, parts) {
					t.Errorf("in the cold part: %x, not %x", again, parts)
				}
			}
		})
	}
}

// backJumps finds the jumps of code elsewhere into the first of parts.
func backJumps(t *testing.T, text *Text, frames *dwarf.Frames, parts []x86.Range) (to []uint64) {
	t.Helper()
	for _, r := range frames.Ranges() {
		if r.Low == parts[0].Low {
			continue
		}
		for a := r.Low; a < r.High; {
			in, err := x86.Decode(text.Bytes(a), a)
			if err != nil {
				break
			}
			if in.Branches() && in.Target > parts[0].Low && in.Target < parts[0].High {
				to = append(to, in.Target)
			}
			a = in.End()
		}
	}
	return to
}

func symbolsOf(t *testing.T, path string) []elf.Symbol {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		symbols, err = f.DynamicSymbols()
	}
	if err != nil {
		t.Fatal(err)
	}
	return symbols
}

const foreign = `
#include <stdarg.h>
#include <stdio.h>

__attribute__((cold, noinline)) void complain(int n) { fprintf(stderr, "%d\n", n); }

__attribute__((noinline)) int may_fail(int *p, int n) {
	int sum = 0;
	for (int i = 0; i < n; i++) {
		if (__builtin_expect(p[i] < 0, 0)) {
			complain(p[i]);
			complain(i);
		}
		sum += p[i] * i;
	}
	return sum;
}

__attribute__((noinline)) double variadic(int n, ...) {
	va_list ap;
	va_start(ap, n);
	double sum = 0;
	for (int i = 0; i < n; i++)
		sum += va_arg(ap, double);
	va_end(ap);
	return sum;
}

int main(int argc, char **argv) {
	int a[] = { argc, 2, 3 };
	return may_fail(a, 3) + (int)variadic(2, 1.0, 2.0);
}

__asm__(
	".text\n"
	".globl unsized\n.type unsized, @function\nunsized:\n\tmov %rdi, %rax\n"
	".globl within\nwithin:\n\tinc %rax\n\tret\n"
	".balign 16\n"
	".globl sized\n.type sized, @function\nsized:\n\tret\n.size sized, . - sized\n"
	".balign 16\n"
	".macro rusty name\n.globl \\name\n.type \\name, @function\n\\name:\n.endm\n"
	"rusty _ZN4fake5naked17h0123456789abcdefE\n\tmov %rdi, %rax\n\tret\n"
	".size _ZN4fake5naked17h0123456789abcdefE, . - _ZN4fake5naked17h0123456789abcdefE\n"
	".balign 16\n"
	"rusty _ZN4fake6framed17h0123456789abcdefE\n.cfi_startproc\n\tmov %r11, %rax\n\tret\n.cfi_endproc\n"
	".size _ZN4fake6framed17h0123456789abcdefE, . - _ZN4fake6framed17h0123456789abcdefE\n"
);
`
