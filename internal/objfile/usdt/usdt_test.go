package usdt

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/objfile"
)

func noSymbol(string) (uint64, bool) { return 0, false }

// note makes a note as the assembler would.
func note(addr, base, semaphore uint64, texts ...string) []byte {
	le := binary.LittleEndian
	var desc []byte
	for _, n := range []uint64{addr, base, semaphore} {
		desc = le.AppendUint64(desc, n)
	}
	for _, t := range texts {
		desc = append(append(desc, t...), 0)
	}
	b := le.AppendUint32(nil, 8)
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, 3)
	b = append(append(b, owner...), desc...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestParse(t *testing.T) {
	b := append(note(0x1000, 0x5000, 0, "shop", "sold", "-4@%edi"), note(0x1010, 0x5000, 0x6000, "shop", "priced", "")...)
	other := note(0x1020, 0, 0, "shop", "lost", "")
	other[12] = 'S' // another owner
	b = append(other, b...)
	for _, c := range []struct {
		at, addr, semaphore uint64
		moved               bool
	}{
		{0, 0x1000, 0x6000, false},
		{0x5000, 0x1000, 0x6000, true},
		{0x7000, 0x3000, 0x8000, true}, // by prelink
	} {
		all := Parse(b, c.at, c.moved, noSymbol)
		if len(all) != 2 {
			t.Fatalf("%d probes: %+v", len(all), all)
		}
		if p := all[0]; p.Provider != "shop" || p.Name != "sold" || p.Addr != c.addr || p.Semaphore != 0 || len(p.Args) != 1 {
			t.Errorf("base at %#x: %+v", c.at, p)
		}
		if p := all[1]; p.Name != "priced" || p.Semaphore != c.semaphore || p.Args != nil {
			t.Errorf("base at %#x: %+v", c.at, p)
		}
	}
	// What is cut off does not count.
	if all := Parse(b[:len(b)-8], 0, false, noSymbol); len(all) != 1 {
		t.Errorf("of a section that is cut off: %+v", all)
	}
}

func TestArguments(t *testing.T) {
	symbol := func(name string) (uint64, bool) { return 0x4000, name == "stock" }
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"-4@%edi", "int32 edi"},
		{"4@%edi 8@%r10", "uint32 edi, uint64 r10"},
		{"1@%dil", "uint8 dil"},
		{"1@%ah", "uint8 value rax >> 8"},
		{"2@%ah", "uint16 unsupported: the register %ah"},
		{"-8@%eax", "int64 value i32(rax)"},
		{"8@%ax", "uint64 value u16(rax)"},
		{"-8@-8(%rbp)", "int64 [rbp-0x8]"},
		{"8@(%rsp)", "uint64 [rsp]"},
		{"4@8+4(%rax)", "uint32 [rax+0xc]"},
		{"8@16(%rax, %rbx, 4)", "uint64 [rax+0x10 + (rbx * 4)]"},
		{"8@(%rax,%rbx)", "uint64 [rax + rbx]"},
		{"8@(,%rbx,8)", "uint64 [0 + (rbx * 8)]"},
		{"-2@$-7", "int16 constant 65529"},
		{"4@$0x10", "uint32 constant 16"},
		{"8@$18446744073709551615", "uint64 constant 0xffffffffffffffff"},
		{"4@stock+8(%rip)", "uint32 static 0x4008"},
		{"4@other(%rip)", "uint32 unsupported: the operand other(%rip)"},
		{"4@stock(%rax)", "uint32 unsupported: the operand stock(%rax)"},
		{"8f@%xmm3", "float64 xmm3"},
		{"4f@(%rsp)", "float32 [rsp]"},
		{"%rax", "int64 rax"},
		{"3@%rax", "? unsupported: a value of 3 bytes"},
		{"x@%rax", "? unsupported: a value of x bytes"},
		{"4@%eip", "uint32 unsupported: the register %eip"},
		{"4@(%rax,%rbx,3)", "uint32 unsupported: the operand (%rax,%rbx,3)"},
		{"4@()", "uint32 unsupported: the operand ()"},
		{"4@(%eax)", "uint32 unsupported: the operand (%eax)"},
	} {
		var parts []string
		for _, a := range arguments(c.text, symbol) {
			parts = append(parts, shape(a))
		}
		if diff := cmp.Diff(c.want, strings.Join(parts, ", ")); diff != "" {
			t.Errorf("%s:\n%s", c.text, diff)
		}
	}
}

// Every probe of a Rust program is found, where its code has a nop.
func TestRead(t *testing.T) {
	f, err := objfile.Open(fixture.Build(t, "sdt", fixture.Release))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, p := range all {
		names[p.Provider+":"+p.Name]++
		if b := f.Bytes(p.Addr); len(b) == 0 || b[0] != 0x90 {
			t.Errorf("%s: there is no nop at %#x", p.Name, p.Addr)
		}
		if has := p.Name == "priced" || p.Name == "stocked"; has != (p.Semaphore != 0) {
			t.Errorf("%s has its semaphore at %#x", p.Name, p.Semaphore)
		}
		if _, ok := f.FileOffset(p.Semaphore); p.Semaphore != 0 && !ok {
			t.Errorf("%s: there is nothing at %#x", p.Name, p.Semaphore)
		}
	}
	want := map[string]int{"sdt:sold": 2, "sdt:weighed": 1, "sdt:priced": 1, "sdt:stocked": 1}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := objfile.Open(self); err == nil {
		defer f.Close()
		if all, err := Read(f); len(all) > 0 || err != nil {
			t.Errorf("of a program without: %v, %v", all, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(note(0x1000, 0x5000, 0x6000, "shop", "sold", "-4@%edi 8@16(%rax,%rbx,4) -2@$-7 8f@%xmm0 4@stock+8(%rip)"), uint64(0x7000))
	f.Fuzz(func(t *testing.T, b []byte, at uint64) {
		for _, p := range Parse(b, at, at != 0, func(string) (uint64, bool) { return 1, true }) {
			for _, a := range p.Args {
				_ = a.Place.String()
				if a.Size != 0 && a.Place.Size() != a.Size {
					t.Errorf("%s: %d bytes in a place of %d", a.Text, a.Size, a.Place.Size())
				}
			}
		}
	})
}

// shape is an argument in one line.
func shape(a Arg) string {
	typ := "?"
	switch {
	case a.Size == 0:
	case a.Float:
		typ = fmt.Sprintf("float%d", 8*a.Size)
	case a.Signed:
		typ = fmt.Sprintf("int%d", 8*a.Size)
	default:
		typ = fmt.Sprintf("uint%d", 8*a.Size)
	}
	return typ + " " + a.Place.String()
}
