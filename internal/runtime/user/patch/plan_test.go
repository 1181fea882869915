package patch

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/runtime/user/asm"
	"ferrotrace/internal/x86"
)

const textBase = 0x5555_0000_0000

// assemble returns the text of an assembler source at textBase, with its labels.
// There is no linker: calls must go to local labels.
func assemble(t testing.TB, src string) ([]byte, map[string]uint64) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("cc is missing: the sources of this test can't be assembled")
	}
	dir := t.TempDir()
	s, o := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(s, []byte(".text\n"+src+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(cc, "-c", "-o", o, s).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, b)
	}
	f, err := elf.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := f.Section(".rela.text"); r != nil {
		t.Fatal("the source has relocations")
	}
	text, err := f.Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]uint64{}
	syms, _ := f.Symbols()
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_NOTYPE && s.Name != "" {
			labels[s.Name] = textBase + s.Value
		}
	}
	return text, labels
}

// golden is a function f with labels: those that begin with l, i, x are sites of
// that kind, e is the entry; t are further targets. end ends the function, next
// begins the one after.
type golden struct {
	name, src string
	want      string
}

var goldens = []golden{
	{"jump over whole instructions", `
f: e: push %rbp
 mov %rsp,%rbp
 push %rbx
 push %rax
 mov %rdi,%rbx
x: ret
end: .p2align 4,0xcc
next: ret`, `
5-byte jump at 0: 5 bytes, sites e, back at 5
5-byte jump at 9: 1 bytes and 4 of padding, sites x`},
	{"a line's jump takes in the return", `
f: e: push %rbx
 mov %rdi,%rbx
 mov $7,%eax
l1: xor %ecx,%ecx
 add $8,%rsp
 pop %rbx
x: ret
end: 
next: ret`, `
5-byte jump at 0: 9 bytes, sites e, back at 9
5-byte jump at 9: 8 bytes, sites l1 x`},
	{"a function of three bytes: entry and exit in one", `
f: e: xor %eax,%eax
x: ret
end: nopl 0(%rax)
 nop
next: ret`, `
5-byte jump at 0: 3 bytes and 2 of padding, sites e x`},
	{"the entry's jump takes in the exit that has no room", `
f: e: push %rbx
 mov $1,%edi
 pop %rbx
x: ret
end:
next: ret`, `
5-byte jump at 0: 8 bytes, sites e x`},
	{"a loop into the first bytes: short jump to padding", `
f: e: xor %eax,%eax
l2: inc %eax
 dec %edi
 jnz l2
 jmp *%rsi
 .p2align 4,0xcc
next: ret
end2: `, `
5-byte jump at 2: 6 bytes, sites l2, back at 8
short jump to padding at 0: 2 bytes, sites e, room at 10, back at 2`},
	{"an epilogue that is jumped to, and padding in reach of it", `
f: test %edi,%edi
 jz 1f
 push %rbx
 jmp 1f
 .fill 5,1,0xcc
1: pop %rbx
x: ret
end:
next: ret`, `
short jump to padding at 12: 2 bytes, sites x, room at 7`},
	{"an epilogue that is jumped to, and room to be made", `
f: test %edi,%edi
 jz 1f
 movabs $0x1122334455667788,%rax
 push %rbx
1: pop %rbx
x: ret
end:
next: ret`, `
5-byte jump at 0: 14 bytes, sites, back at 14
short jump to room made nearby at 15: 2 bytes, sites x, room at 5`},
	{"a landing pad in the first bytes", `
f: e: push %rax
t: push %rbx
 mov %rdi,%rbx
 mov %rdi,%rcx
 ret
end:
next: ret`, `
punned jump at 0: 1 bytes, sites e, back at 1`},
	{"a return address in the first bytes", `
f: e: call *%rdi
 mov %eax,%ecx
 mov %eax,%edx
 ud2
end: .p2align 4,0x90
next: ret`, `
short jump to padding at 0: 2 bytes, sites e, room at 8`},
	{"a call that ends the bytes may be among them", `
f: e: push %rax
 call next
 pop %rcx
x: ret
end: .p2align 4,0xcc
next: ret`, `
5-byte jump at 0: 6 bytes, sites e
5-byte jump at 7: 1 bytes and 4 of padding, sites x`},
	{"behind an endbr64", `
f: e: endbr64
 mov $1,%eax
x: ret
end: .p2align 4,0xcc
next: ret`, `
5-byte jump at 4: 5 bytes, sites e, back at 9
5-byte jump at 9: 1 bytes and 4 of padding, sites x`},
	{"a return with its epilogue", `
f: e: push %rbx
 mov %rdi,%rbx
 mov $7,%eax
 xor %ecx,%ecx
l1: add $8,%rsp
l2: pop %rbx
x: ret
end:
next: mov $1,%eax`, `
5-byte jump at 0: 9 bytes, sites e, back at 9
5-byte jump at 11: 6 bytes, sites l1 l2 x`},
	{"a return that is jumped to, and no padding: its next four bytes lead 0x2345 further", `
f: e: test %edi,%edi
 je x
 pop %rbx
x: ret
end: .byte 0x45,0x23,0,1
next: ret`, `
5-byte jump at 0: 5 bytes, sites e, back at 5
punned jump at 5: 1 bytes, sites x`},
	{"a return with its epilogue, without lines", `
f: e: push %rbx
 mov %rdi,%rbx
 mov $7,%eax
 xor %ecx,%ecx
 add $8,%rsp
 pop %rbx
x: ret
end:
next: ret`, `
5-byte jump at 0: 9 bytes, sites e, back at 9
5-byte jump before it at 11: 6 bytes, sites x`},
	{"a conditional jump and a tail call among the bytes", `
f: e: test %edi,%edi
 je 1f
x: jmp next
1: add $1,%rax
x2: ret
end: .p2align 4,0xcc
next: ret`, `
5-byte jump at 0: 6 bytes, sites e x
5-byte jump at 10: 1 bytes and 4 of padding, sites x2`},
	{"a system call has no copy", `
f: e: mov %ecx,%eax
 syscall
 nop
 nop
x: ret
end: .p2align 4,0xcc
next: ret`, `
5-byte jump at 6: 1 bytes and 4 of padding, sites x
short jump to padding at 0: 2 bytes, sites e, room at 11, back at 2`},
}

func TestPlan(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			text, labels := assemble(t, g.src)
			code := func(addr uint64) []byte {
				if addr < textBase || addr >= textBase+uint64(len(text)) {
					return nil
				}
				return text[addr-textBase:]
			}
			end := labels["end"]
			if end == 0 {
				end = labels["next"]
			}
			f, err := x86.NewFunc(code, []x86.Range{{Low: labels["f"], High: end}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			fn := Function{Code: f}
			names := map[uint64]string{}
			for n, addr := range labels {
				kind, ok := map[byte]Kind{'e': Entry, 'l': Line, 'i': InlinedEntry, 'x': Exit}[n[0]]
				if n[0] == 't' {
					fn.Targets = append(fn.Targets, addr)
				}
				if !ok || strings.HasPrefix(n, "end") {
					continue
				}
				names[addr] = n
				fn.Sites = append(fn.Sites, Site{Addr: addr, Kind: kind, Rust: true, Programs: []Program{counter}})
				if n == "e" && text[addr-textBase] == 0xf3 {
					names[addr+4] = n
				}
			}
			pl := &Planner{Code: code, Alloc: everywhere(),
				Functions: []x86.Range{{Low: labels["f"], High: end}, {Low: labels["next"], High: textBase + uint64(len(text))}}}
			patches, problems := pl.Plan([]Function{fn})
			var b strings.Builder
			for _, p := range patches {
				fmt.Fprintf(&b, "\n%s", describe(p, names))
				checkPatch(t, p, text)
			}
			for _, p := range problems {
				fmt.Fprintf(&b, "\n%s: %v", names[p.Site.Addr], p.Err)
			}
			if got := b.String(); got != g.want {
				t.Errorf("got:%s\nwant:%s", got, g.want)
			}
			pl.Release(patches)
			if len(pl.owner)+len(pl.current)+len(pl.frozen) != 0 {
				t.Error("released patches leave traces: ", pl.owner, pl.current, pl.frozen)
			}
		})
	}
}

func everywhere() *Space {
	return NewSpace([]x86.Range{{Low: 0x10000, High: textBase}, {Low: textBase + 1<<20, High: 0x7fff_0000_0000}})
}

func describe(p *Patch, names map[uint64]string) string {
	size := 0
	for _, in := range p.Displaced {
		size += in.Len
	}
	s := fmt.Sprintf("%s at %d: %d bytes", p.How, p.Addr-textBase, size)
	if p.pads > 0 {
		s += fmt.Sprintf(" and %d of padding", p.pads)
	}
	s += ", sites"
	for _, site := range p.Sites {
		s += " " + names[site.Addr]
	}
	if p.room != 0 {
		s += fmt.Sprintf(", room at %d", p.Writes[0].Addr-textBase)
	}
	if p.ResumeAt != 0 {
		s += fmt.Sprintf(", back at %d", p.ResumeAt-textBase)
	}
	return s
}

// checkPatch follows the jumps of a patch, planted into a copy of text.
func checkPatch(t *testing.T, p *Patch, text []byte) {
	t.Helper()
	planted := bytes.Clone(text)
	for _, w := range p.Writes {
		if len(w.Old) != len(w.New) {
			t.Fatalf("%d bytes over %d", len(w.New), len(w.Old))
		}
		copy(planted[w.Addr-textBase:], w.New)
	}
	at := p.Addr
	for n := 0; at != p.Trampoline; n++ {
		if at < textBase || at >= textBase+uint64(len(planted)) || n > 2 {
			t.Fatalf("the jump at %#x leads to %#x, the trampoline is at %#x", p.Addr, at, p.Trampoline)
		}
		in, err := x86.Decode(planted[at-textBase:], at)
		if err != nil || in.Kind != x86.Jmp {
			t.Fatalf("no jump at %#x", at)
		}
		at = in.Target
	}
	if p.ResumeAt != 0 {
		c := p.Code.Copies[len(p.Code.Copies)-1]
		in, err := x86.Decode(p.Code.Bytes[c.Copy:], p.Trampoline+uint64(c.Copy))
		if err != nil || c.Addr != p.ResumeAt || in.Kind != x86.Jmp || in.Target != p.ResumeAt {
			t.Fatalf("the trampoline of %#x does not jump back", p.Addr)
		}
	}
}

func TestProblems(t *testing.T) {
	text, labels := assemble(t, "f: mov %edi,%eax\n std\n ret\n g: push %rax\n ret\n end:")
	code := func(addr uint64) []byte { return text[addr-textBase:] }
	f, err := x86.NewFunc(code, []x86.Range{{Low: labels["f"], High: labels["g"]}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	nowhere := NewSpace(nil)
	pl := &Planner{Code: code, Alloc: nowhere}
	_, problems := pl.Plan([]Function{{Code: f, Sites: []Site{
		{Addr: labels["f"] + 1, Kind: Entry},
		{Addr: labels["f"] + 2, Kind: Line},
		{Addr: labels["f"], Kind: Entry},
	}}})
	want := []error{ErrNoMemory, ErrNoInstruction, ErrDirection}
	if len(problems) != len(want) {
		t.Fatal(problems)
	}
	for i, p := range problems {
		if !errors.Is(p, want[i]) {
			t.Errorf("%v, want %v", p, want[i])
		}
	}
	if len(pl.owner)+len(pl.current) != 0 {
		t.Error("sites that could not be taken leave traces")
	}
}

// TestLater adds sites to a function that has patches.
func TestLater(t *testing.T) {
	text, labels := assemble(t, `
f: test %edi,%edi
 je x
 pop %rbx
x: ret
n: .byte 0x45,0x23,0 # and (%r8),%r8d
 push %rbx
m: mov $1,%eax
 ret
end:`)
	code := func(addr uint64) []byte { return text[addr-textBase:] }
	f, err := x86.NewFunc(code, []x86.Range{{Low: labels["f"], High: labels["end"]}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pl := &Planner{Code: code, Alloc: everywhere()}
	plan := func(label string) ([]*Patch, error) {
		patches, problems := pl.Plan([]Function{{Code: f, Sites: []Site{{Addr: labels[label], Programs: []Program{counter}}}}})
		if len(problems) > 0 {
			return patches, problems[0]
		}
		return patches, nil
	}
	pun, err := plan("x")
	if err != nil || pun[0].How != Pun {
		t.Fatal(pun, err)
	}
	if _, err := plan("x"); !errors.Is(err, ErrTaken) {
		t.Error("a site that has been taken: ", err)
	}
	if _, err := plan("n"); !errors.Is(err, ErrTaken) {
		t.Error("a jump over what a pun relies on: ", err)
	}
	behind, err := plan("m")
	if err != nil || behind[0].How != Jump5 {
		t.Error("a jump behind what a pun relies on: ", err)
	}
	pl.Release(append(pun, behind...))
	if p, err := plan("n"); err != nil || p[0].How != Jump5 {
		t.Error("when the pun is gone: ", err)
	}
}

// TestMove moves threads in and out of trampolines.
func TestMove(t *testing.T) {
	text, labels := assemble(t, "f: push %rbx\n mov %rdi,%rbx\nl: pop %rbx\nx: ret\nend: .p2align 4,0xcc\nnext: ret")
	code := func(addr uint64) []byte { return text[addr-textBase:] }
	f, err := x86.NewFunc(code, []x86.Range{{Low: labels["f"], High: labels["end"]}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pl := &Planner{Code: code, Alloc: everywhere()}
	site := func(label string) Site { return Site{Addr: labels[label], Programs: []Program{counter}} }
	patches, problems := pl.Plan([]Function{{Code: f, Sites: []Site{site("f"), site("x")}}})
	if len(patches) != 1 || len(problems) != 0 {
		t.Fatal(patches, problems)
	}
	p := patches[0]
	if got := p.Planted(labels["f"]); got != labels["f"] {
		t.Errorf("the first instruction is %#x", got)
	}
	if got := p.Planted(labels["next"]); got != labels["next"] {
		t.Errorf("another instruction is %#x", got)
	}
	for i, l := range []string{"l", "x"} {
		c := p.Code.Copies[i+2]
		in := p.Planted(labels[l])
		if in != p.Trampoline+uint64(c.Begin) {
			t.Errorf("%s is moved to %#x", l, in)
		}
		for _, at := range []int{c.Begin, c.Copy} {
			if out, ok := p.Removed(p.Trampoline + uint64(at)); !ok || out != labels[l] {
				t.Errorf("%s comes back to %#x, %v", l, out, ok)
			}
		}
	}
	if _, ok := p.Removed(p.Trampoline + 1); ok {
		t.Error("a thread inside a probe can be moved")
	}
	if got, ok := p.Removed(labels["l"]); !ok || got != labels["l"] {
		t.Error("a thread elsewhere has to be waited for")
	}
}

func TestLive(t *testing.T) {
	all := asm.RegSet(0xffff)
	for _, c := range []struct {
		raw            string
		site           Site
		dead           asm.RegSet
		flags, redZone bool // that they are kept
	}{
		{"\x50", Site{Kind: Entry, Rust: true}, asm.Set(asm.RAX, asm.R10, asm.R11), false, false},
		{"\x50", Site{Kind: Entry}, 0, true, true},
		{"\x50", Site{Kind: InlinedEntry, Rust: true}, 0, true, true},
		{"\x50", Site{Kind: Line, Rust: true}, 0, true, true},
		{"\xc3", Site{Kind: Exit, Rust: true}, asm.Set(asm.RSI, asm.RDI, asm.R8, asm.R9, asm.R10, asm.R11), false, false},
		{"\xc3", Site{Kind: Exit}, 0, true, true},
		{"\xeb\x00", Site{Kind: Exit, Rust: true}, asm.Set(asm.R10, asm.R11), false, false},
		{"\x41\xff\xe3", Site{Kind: Exit, Rust: true}, asm.Set(asm.R10), false, false}, // jmp *%r11
		{"\x74\x00", Site{Kind: Exit, Rust: true}, 0, true, true},
	} {
		in, err := x86.Decode([]byte(c.raw), textBase)
		if err != nil {
			t.Fatal(err)
		}
		if regs, flags, redZone := c.site.live(&in); regs != all&^c.dead || flags != c.flags || redZone != c.redZone {
			t.Errorf("%v at % x, rust %v: %#x %v %v", c.site.Kind, c.raw, c.site.Rust, regs, flags, redZone)
		}
	}
}

// FuzzPlan: no code makes Plan panic, what it writes undoes itself, and patches do
// not overlap.
func FuzzPlan(f *testing.F) {
	f.Add([]byte("\x55\x48\x89\xe5\x31\xc0\x5d\xc3\xcc\xcc\xcc\xcc\xcc"), uint64(0x55))
	f.Add([]byte("\xf3\x0f\x1e\xfa\x31\xc0\x74\xfc\xff\xd0\xeb\xfe\xc3"), uint64(0xff))
	f.Fuzz(func(t *testing.T, text []byte, sites uint64) {
		code := func(addr uint64) []byte {
			if addr < textBase || addr >= textBase+uint64(len(text)) {
				return nil
			}
			return text[addr-textBase:]
		}
		half := uint64(len(text)) * 3 / 4
		fn, err := x86.NewFunc(code, []x86.Range{{Low: textBase, High: textBase + half}}, nil)
		if err != nil || half == 0 {
			return
		}
		var all []Site
		for i := range fn.Insts {
			if sites>>(i%64)&1 != 0 {
				all = append(all, Site{Addr: fn.Insts[i].Addr, Kind: Kind(i % 4), Rust: i%3 == 0, Programs: []Program{counter}})
			}
		}
		pl := &Planner{Code: code, Alloc: everywhere(), Functions: []x86.Range{{Low: textBase, High: textBase + half}, {Low: textBase + uint64(len(text)), High: textBase + 1<<16}}}
		patches, problems := pl.Plan([]Function{{Code: fn, Sites: all}})
		n := len(problems)
		planted := bytes.Clone(text)
		for _, p := range patches {
			n += len(p.Sites)
			for _, w := range p.Writes {
				if !bytes.Equal(planted[w.Addr-textBase:][:len(w.Old)], w.Old) {
					t.Fatalf("at %#x there is not %x", w.Addr, w.Old)
				}
				copy(planted[w.Addr-textBase:], w.New)
			}
		}
		if n != len(all) {
			t.Fatalf("%d sites of %d", n, len(all))
		}
		for _, p := range patches { // all at once: none has changed another's jump
			at := p.Addr
			for at >= textBase && at < textBase+uint64(len(planted)) {
				in, err := x86.Decode(planted[at-textBase:], at)
				if err != nil || in.Kind != x86.Jmp || at == in.Target {
					t.Fatalf("no jump at %#x: %v", at, p.How)
				}
				at = in.Target
			}
			if at != p.Trampoline {
				t.Fatalf("the %v at %#x leads to %#x, not to %#x", p.How, p.Addr, at, p.Trampoline)
			}
		}
		pl.Release(patches)
		if len(pl.owner)+len(pl.current)+len(pl.frozen) != 0 {
			t.Fatal("released patches leave traces")
		}
	})
}
