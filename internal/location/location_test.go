package location

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type golden struct {
	expr []byte
	ctx  Context
	text string
}

// goldens reads testdata/expressions.txt: lines of an expression in hex ("-" for
// none), the value's size, "entry" or "inside" for where the program stands, and how
// the place reads.
func goldens(t testing.TB) (gs []golden) {
	b, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		var h, where string
		g := golden{ctx: Context{Unit: testUnit{}}}
		if _, err := fmt.Sscan(line, &h, &g.ctx.Size, &where); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if h != "-" {
			if g.expr, err = hex.DecodeString(h); err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
		}
		g.ctx.EntryPC = where == "entry"
		if _, text, ok := strings.Cut(line, where+"  "); ok {
			g.text = strings.TrimSpace(text)
		}
		gs = append(gs, g)
	}
	return gs
}

func read(g golden) string {
	p, err := Compile(g.expr, g.ctx)
	if err != nil {
		return "error: " + err.Error()
	}
	return p.String()
}

func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		if got := read(g); got != g.text && !*update {
			t.Errorf("%x, %d bytes, entry %v: %q, not %q", g.expr, g.ctx.Size, g.ctx.EntryPC, got, g.text)
		}
		p, _ := Compile(g.expr, g.ctx)
		check(t, p, g.ctx.Size)
	}
	if !*update {
		return
	}
	b, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	gs := goldens(t)
	lines := strings.Split(string(b), "\n")
	for i, line := range lines {
		if line != "" && line[0] != '#' {
			f := strings.Fields(line)
			lines[i] = fmt.Sprintf("%s %s %s  %s", f[0], f[1], f[2], read(gs[0]))
			gs = gs[1:]
		}
	}
	if err := os.WriteFile("testdata/expressions.txt", []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func compile(t *testing.T, h string, size int) Place {
	t.Helper()
	b, err := hex.DecodeString(h)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(b, Context{Size: size, EntryPC: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPieces(t *testing.T) {
	p := compile(t, "559308549304", 16)
	want := Place{Pieces: []Piece{
		{Offset: 0, Size: 8, Kind: Register, Reg: RDI},
		{Offset: 8, Size: 4, Kind: Register, Reg: RSI},
		{Offset: 12, Size: 4, Kind: Missing, Why: OptimizedOut},
	}}
	if !reflect.DeepEqual(p, want) || !p.Equal(want) || p.Complete() {
		t.Errorf("%+v", p)
	}
	if p.Equal(compile(t, "559308549304", 12)) {
		t.Error("equal to a shorter one")
	}
	// More than the value has is cut.
	if p := compile(t, "559308549308", 12); p.Size() != 12 || !p.Complete() {
		t.Errorf("%+v", p)
	}
}

func TestRebase(t *testing.T) {
	base, err := FrameBase([]byte{opReg0 + 7}, Context{})
	if err != nil {
		t.Fatal(err)
	}
	p := compile(t, "9114", 4)
	if got := p.Rebase(base).String(); got != "[rsp+0x14]" {
		t.Error(got)
	}
	if p.String() != "stack frame+0x14" {
		t.Errorf("changed: %v", p)
	}
	// fbreg 8, deref, plus_uconst 16: the base is used within.
	if got := compile(t, "9108062310", 4).Rebase(base).String(); got != "[[rsp+0x8] + 16]" {
		t.Error(got)
	}
	cfa, err := FrameBase([]byte{opCFA}, Context{})
	if err != nil {
		t.Fatal(err)
	}
	if got := compile(t, "9168", 4).Rebase(cfa); got.String() != "stack CFA-0x18" {
		t.Error(got)
	} else if got := got.RebaseCFA(Expr{{Kind: OpRegister, Reg: RSP, Arg: 8}}).String(); got != "[rsp-0x10]" {
		t.Error(got)
	}
	// A base that is computed.
	far := Expr{{Kind: OpRegister, Reg: RBP, Arg: -8}, {Kind: OpDeref, Size: 8}}
	if got := compile(t, "9108", 4).Rebase(far).String(); got != "[[rbp-0x8] + 8]" {
		t.Error(got)
	}
	for _, bad := range []string{"", "9100", "319f", "61", "559304549304"} {
		b, _ := hex.DecodeString(bad)
		if e, err := FrameBase(b, Context{}); err == nil {
			t.Errorf("frame base %q: %v", bad, e)
		}
	}
}

func TestCFA(t *testing.T) {
	if e, err := CFA(7, 8, nil); err != nil || e.String() != "rsp+0x8" {
		t.Error(e, err)
	}
	// The PLT's rule: rsp + 8 + ((rip & 15 >= 11) << 3).
	if _, err := CFA(0, 0, []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}); err == nil {
		t.Error("the PLT's rule has the return address in it")
	}
	if e, err := CFA(0, 0, []byte{0x76, 0x78, 0x06}); err != nil || e.String() != "[rbp-0x8]" {
		t.Error(e, err)
	}
	if _, err := CFA(16, 0, nil); err == nil {
		t.Error("register 16")
	}
}

func TestFrameSlots(t *testing.T) {
	for _, c := range []struct {
		expr string
		size int
		want []Slot
	}{
		{"9114", 4, []Slot{{Base: OpFrame, Off: 0x14, Size: 4}}},
		{"910806", 24, []Slot{{Base: OpFrame, Off: 8, Size: 8}}},
		{"7710", 8, []Slot{{Base: OpRegister, Reg: RSP, Off: 16, Size: 8}}},
		{"77100623189f", 8, []Slot{{Base: OpRegister, Reg: RSP, Off: 16, Size: 8}}},
		{"9c1168229304", 4, []Slot{{Base: OpCFA, Off: -0x18, Size: 4}}},
		{"9c1168229f", 8, nil}, // the address of a slot, not its contents
		{"91089f", 8, nil},
		{"7400", 16, nil},
		{"55", 8, nil},
		{"7610940223019f9302", 2, []Slot{{Base: OpRegister, Reg: RBP, Off: 16, Size: 2}}},
		{"7700930876789308", 16, []Slot{{Base: OpRegister, Reg: RSP, Size: 8}, {Base: OpRegister, Reg: RBP, Off: -8, Size: 8}}},
	} {
		b, err := hex.DecodeString(c.expr)
		if err != nil {
			continue
		}
		p, _ := Compile(b, Context{Size: c.size})
		if got := p.FrameSlots(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v, not %+v", c.expr, got, c.want)
		}
	}
}

func TestConstantPlace(t *testing.T) {
	for _, c := range []struct {
		b      []byte
		signed bool
		size   int
		want   string
	}{
		{[]byte{5, 0, 0, 0, 0, 0, 0, 0}, false, 4, "constant 5"},
		{[]byte{0xff}, true, 2, "constant 65535"},
		{[]byte{0xff}, false, 2, "constant 255"},
		{[]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true, 16, "constant 0xfffffffffffffffffffffffffffffffe"},
		{nil, true, 1, "constant 0"},
		{[]byte{1}, true, 0, "no bytes"},
	} {
		p := ConstantPlace(c.b, c.signed, c.size)
		check(t, p, c.size)
		if p.String() != c.want {
			t.Errorf("%x: %v, not %s", c.b, p, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, h := range []string{
		"91", "03aabb", "22", "9f", "5559", "9e05", "9e0501", "10ffffffffffffffffffff01", "0e01", "55930854",
		"a1ff01", "16", "31 17",
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(h, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		p, err := Compile(b, Context{Size: 8, Unit: testUnit{}})
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", h, p, err)
		}
		if why, gone := p.Gone(); !gone || why != "unsupported: malformed debug info" {
			t.Errorf("%s: %v", h, p)
		}
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"edi": RDI.Name(4), "dil": RDI.Name(1), "di": RDI.Name(2), "rdi": RDI.String(), "r8d": R8.Name(3),
		"r15b": R15.Name(1), "xmm0": XMM0.Name(4), "xmm15": XMM15.String(), "rdx": Reg(1).String(), "rcx": Reg(2).String(),
		"rsp": Reg(7).String(), "ra": RA.Name(8), "reg40": Reg(40).Name(8),
	} {
		if got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}
