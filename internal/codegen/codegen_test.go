package codegen

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var everything = Options{Sleepable: true, HaveLoop: true}

// at is a probe in a file that need not be there.
func at(addr uint64, items ...program.Item) program.Probe {
	return program.Probe{Path: "app", Addr: addr, Offset: addr - 0x1000, Items: items}
}

func TestGolden(t *testing.T) {
	strArg := value("s", tStr, inReg(0, 8, location.RDI), inReg(8, 8, location.RSI))
	taken := entry()
	taken.Kind, taken.Cond = program.Exit, 0xe
	inNamespace := programOf(at(0x5000, counting(0), entry(value("n", tI32, inReg(0, 4, location.RDI)))))
	inNamespace.Filter = true
	inNamespace.PIDNamespace = &program.PIDNamespace{Dev: 4, Ino: 4026531836}
	own := entry(value("p", refTo(tU64), inReg(0, 8, location.RDI)))
	own.CFA = location.Expr{{Kind: location.OpRegister, Reg: location.RBP, Arg: 16}, {Kind: location.OpDeref, Size: 8}}
	own.Values[0].OwnFrame = true
	for _, tt := range []struct {
		name string
		p    *program.Program
		o    Options
	}{
		{"count", programOf(at(0x5000, counting(0)), at(0x6000, counting(1))), everything},
		{"count-several", programOf(at(0x5000, counting(2), counting(0), counting(1))), everything},
		{"scalars", programOf(at(0x5000, entry(
			value("a", tI32, inReg(0, 4, location.RDI)),
			value("b", structOf("B", 7), inReg(0, 7, location.RSI)),
			value("c", tU64, inMemory(0, 8, location.Op{Kind: location.OpCFA, Arg: -24})),
			value("d", tU64, inMemory(0, 8, location.Op{Kind: location.OpStatic, Arg: 0x4010})),
			value("e", tU64, computed(0, 8, reg(location.RAX), reg(location.RDX), location.Op{Kind: location.OpMul})),
			value("f", tU32, constant(0, 1, 2, 3, 4)),
			value("g", tF64, inReg(0, 8, location.XMM1)),
		))), everything},
		{"str", programOf(at(0x5000, entry(strArg))), Options{}},
		{"deep", programOf(at(0x5000, entry(value("l", refTo(tNode), inReg(0, 8, location.RDI)), by("c", choice(), location.RSI)))), everything},
		{"namespace", inNamespace, everything},
		{"items", programOf(at(0x5000, taken, own)), everything},
		{"user-str", programOf(at(0x5000, entry(strArg, value("n", tU64, inReg(0, 8, location.RDX))))), byReserve},
		{"user-exit", programOf(at(0x5000, program.Item{Kind: program.Exit, CFA: cfaAtEntry, Cond: -1, Count: -1,
			Values: []program.Value{value("", tI64, inReg(0, 8, location.RAX))}})), byReserve},
		{"user-items", programOf(at(0x5000, taken, own, counting(0), entry(by("s", tString, location.RDI)))), byReserve},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Compile(tt.p, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := c.Dump(&b); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", tt.name+".golden")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("-want +got; -update rewrites it\n%s", d)
			}
		})
	}
}

// TestShapes: what shares a program, and what does not.
func TestShapes(t *testing.T) {
	arg := func(t *types.Type, r location.Reg) program.Item {
		return entry(value("x", t, inReg(0, int(t.Size), r)))
	}
	other := node("other::Node")
	deeper := structOf("deeper", 16, types.Field{Name: "next", Type: option(refTo(tPoint))}, types.Field{Name: "value", Offset: 8, Type: tU64})
	tests := []struct {
		name   string
		a, b   program.Item
		shared bool
	}{
		{"constants", entry(value("x", tU32, constant(0, 1, 0, 0, 0))), entry(value("y", tU32, constant(0, 2, 0, 0, 0))), true},
		{"types of one size", arg(tI32, location.RDI), arg(tU32, location.RDI), true},
		{"of another size", arg(tU16, location.RDI), arg(tU32, location.RDI), false},
		{"in another register", arg(tU32, location.RSI), arg(tU32, location.RDI), false},
		{"like recursive types", arg(refTo(tNode), location.RDI), arg(refTo(other), location.RDI), true},
		{"pointers to unlike types", arg(refTo(tNode), location.RDI), arg(refTo(deeper), location.RDI), false},
		{"a string and bytes", arg(refTo(arrayOf(tU8, 1)), location.RDI), arg(refTo(types.StrBytes), location.RDI), false},
		{"counters", counting(0), counting(1), true},
		{"known bytes that are looked at", entry(value("s", tStr, inReg(0, 8, location.RDI), constant(8, 1, 0, 0, 0, 0, 0, 0, 0))),
			entry(value("s", tStr, inReg(0, 8, location.RDI), constant(8, 2, 0, 0, 0, 0, 0, 0, 0))), false},
		{"addresses", entry(value("x", tU32, inMemory(0, 4, location.Op{Kind: location.OpStatic, Arg: 16}))),
			entry(value("x", tU32, inMemory(0, 4, location.Op{Kind: location.OpStatic, Arg: 32}))), false},
	}
	for _, tt := range tests {
		c, err := Compile(programOf(at(0x5000, tt.a), at(0x6000, tt.b)), everything)
		if err != nil {
			t.Fatal(err)
		}
		if shared := len(c.Spec.Programs) == 1; shared != tt.shared {
			t.Errorf("%s: shared %t", tt.name, shared)
		}
		if len(c.Probes) != 2 || c.Probes[1].Cookie != 1 || c.Probes[1].Offset != 0x5000 {
			t.Errorf("%s: probes %+v", tt.name, c.Probes)
		}
	}
}

func TestTenThousandFunctions(t *testing.T) {
	var probes []program.Probe
	for i := range 10000 {
		probes = append(probes, at(uint64(0x5000+16*i), counting(i)))
	}
	c, err := Compile(programOf(probes...), everything)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Spec.Programs) != 1 || len(c.Probes) != 10000 || len(c.Spec.Maps[mapSites].Contents) != 10000 {
		t.Errorf("%d programs, %d probes", len(c.Spec.Programs), len(c.Probes))
	}
	// Nothing that only records need.
	for _, m := range []string{"events", "scratch", "counters", "targets", mapIndices} {
		if c.Spec.Maps[m] != nil {
			t.Errorf("map %s", m)
		}
	}
	for _, p := range c.Spec.Programs {
		if p.Type != ebpf.Kprobe || p.Flags != 0 || p.License != "Dual MIT/GPL" {
			t.Errorf("%+v", p)
		}
	}
}

func TestSplit(t *testing.T) {
	var items []program.Item
	for i := range 100 {
		items = append(items, entry(), counting(i))
	}
	c, err := Compile(programOf(at(0x5000, items...)), everything)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Probes) != 4 || len(c.Spec.Programs) != 4 {
		t.Errorf("%d probes, %d programs", len(c.Probes), len(c.Spec.Programs))
	}
	for _, p := range c.Probes {
		if p.Cookie != 0 {
			t.Errorf("cookie %d", p.Cookie)
		}
	}
	if n := len(c.Schema.Probes[0].Items); n != 200 {
		t.Errorf("%d items", n)
	}
}

func TestRefused(t *testing.T) {
	for _, it := range []program.Item{
		{Cond: -1, Count: 5},
		{Cond: 16, Count: -1},
	} {
		p := programOf(at(0x5000))
		p.Counts = 5
		p.Probes[0].Items = []program.Item{it}
		if _, err := Compile(p, everything); err == nil {
			t.Errorf("%+v compiles", it)
		}
	}
	p := programOf(at(0x5000, entry()))
	p.Limits.MaxItems = -1
	if _, err := Compile(p, everything); err == nil {
		t.Error("negative limits compile")
	}
	f := newFn("f")
	for range maxJump + 1 {
		f.imm(r0, 0)
	}
	if _, err := f.finish(); !errors.Is(err, errTooLong) {
		t.Error(err)
	}
}

// TestSchema looks at what the schema says of values that can't be had, or only
// in part.
func TestSchema(t *testing.T) {
	tests := []struct {
		name  string
		v     program.Value
		o     Options
		gone  string
		holes int
		size  int
		reads int
	}{
		{name: "no type", v: value("x", nil, inReg(0, 4, location.RDI)), gone: "unsupported: unknown type"},
		{name: "opaque", v: value("x", &types.Type{Size: -1}, inReg(0, 4, location.RDI)), gone: "unsupported: type without a size"},
		{name: "no pieces", v: value("x", tU32), gone: "optimized out"},
		{name: "xmm", v: value("x", tF64, inReg(0, 8, location.XMM7)), gone: "unsupported: in xmm7, which a kernel probe cannot see"},
		{name: "xmm visible", v: value("x", tF64, inReg(0, 8, location.XMM7)), o: Options{XMM: 176}, size: 8},
		{name: "part missing", v: value("x", tPoint, inReg(0, 4, location.RDI)), size: 8, holes: 1},
		{name: "gap", v: value("x", tPoint, inReg(4, 4, location.RDI)), size: 8, holes: 1},
		{name: "overlap", v: value("x", tPoint, inReg(0, 4, location.RDI), inReg(2, 4, location.RSI)), size: 8, holes: 1},
		{name: "beyond the type", v: value("x", tU32, inReg(0, 8, location.RDI)), size: 4},
		{name: "read", v: by("x", tPoint, location.RDI), size: 8, reads: 1},
		{name: "frame base", v: value("x", tU32, inMemory(0, 4, location.Op{Kind: location.OpFrame})), gone: "unsupported: unknown frame base"},
		{name: "return address", v: value("x", tU32, inMemory(0, 4, reg(location.RA))), gone: "unsupported: address from ra"},
		{name: "malformed expression", v: value("x", tU32, inMemory(0, 4, location.Op{Kind: location.OpAdd})), gone: "unsupported: malformed expression"},
		{name: "empty expression", v: value("x", tU32, inMemory(0, 4)), gone: "unsupported: malformed expression"},
		{name: "malformed constant", v: value("x", tU32, location.Piece{Size: 4, Kind: location.Constant, Bytes: []byte{1}}), gone: "unsupported: malformed location"},
		{name: "large register", v: value("x", arrayOf(tU32, 4), inReg(0, 16, location.RDI)), gone: "unsupported: malformed location"},
		{name: "no loop", v: by("x", vecOf(tString), location.RDI), gone: "unsupported: needs bpf_loop (Linux 5.17)"},
		{name: "no loop needed", v: by("x", tString, location.RDI), size: 24, reads: 1},
		{name: "large", v: by("x", arrayOf(tU8, 1<<20), location.RDI), size: maxPiece, reads: 1},
	}
	for _, tt := range tests {
		c, err := Compile(programOf(at(0x5000, entry(tt.v))), tt.o)
		if err != nil {
			t.Fatal(err)
		}
		v := c.Schema.Probes[0].Items[0].Values[0]
		if v.Missing != tt.gone || v.Size != tt.size || len(v.Holes) != tt.holes || len(v.Reads) != tt.reads {
			t.Errorf("%s: %+v", tt.name, v)
		}
	}

	// Values beyond the fixed part, and more reads than there are bits.
	var values []program.Value
	for i := range 70 {
		values = append(values, by(fmt.Sprint(i), arrayOf(tU8, 300), location.RDI))
	}
	c, err := Compile(programOf(at(0x5000, entry(values...))), everything)
	if err != nil {
		t.Fatal(err)
	}
	item := c.Schema.Probes[0].Items[0]
	if item.Size > maxFixed || item.Values[69].Missing == "" || item.Values[40].Missing != "" {
		t.Errorf("size %d, last %+v", item.Size, item.Values[69])
	}
	for i := range values {
		values[i] = by(fmt.Sprint(i), tU32, location.RDI)
	}
	c, err = Compile(programOf(at(0x5000, entry(values...))), everything)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range c.Schema.Probes[0].Items[0].Values {
		if want := []record.Read{{Size: 4, Bit: min(i, 63)}}; !cmp.Equal(v.Reads, want) {
			t.Errorf("value %d: %+v", i, v.Reads)
		}
	}
}

// TestEveryShapeHasProgram: each probe's program is in the collection, and the
// maps that programs refer to are too.
func TestEveryShapeHasProgram(t *testing.T) {
	c, err := Compile(stress(10, 20, 5), everything)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Probes {
		if c.Spec.Programs[p.Program] == nil {
			t.Errorf("no program %s", p.Program)
		}
	}
	for name, p := range c.Spec.Programs {
		for _, ins := range p.Instructions {
			if ins.IsLoadFromMap() && c.Spec.Maps[ins.Reference()] == nil {
				t.Errorf("%s: no map %s", name, ins.Reference())
			}
		}
	}
}
