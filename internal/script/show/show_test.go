package show

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program/ir"
)

var env = &Env{
	Names: []string{"shop::add", "uprobe:shop::add"},
	Symbol: func(pid uint32, addr, _ uint64) string {
		if pid == 7 && addr == 0x1000 {
			return "main"
		}
		return ""
	},
	Frames: func(f Frame) []string {
		if f.Addr != 0x1000 && f.Addr != 0x1005 {
			return nil
		}
		s := fmt.Sprintf("main+%d", f.Addr-0x1000)
		switch f.Mode {
		case PerfStack:
			s += " (/bin/app)"
		case BuildIDStack:
			return []string{fmt.Sprintf("6f2c90 0x%x", f.Addr)}
		}
		if f.Return {
			return []string{"[inlined] f", s}
		}
		return []string{s}
	},
	User: func(uid uint32) string {
		if uid == 0 {
			return "root"
		}
		return ""
	},
	Cgroup: func(id uint64, filter string) string {
		if id == 7 {
			return filter + ":/a"
		}
		return ""
	},
	Wall: func(c ir.Clock, ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() },
}

func le(words ...any) []byte {
	var b []byte
	for _, w := range words {
		switch w := w.(type) {
		case string:
			b = append(b, w...)
		case int:
			b = binary.LittleEndian.AppendUint64(b, uint64(w))
		default:
			var err error
			if b, err = binary.Append(b, binary.LittleEndian, w); err != nil {
				panic(err)
			}
		}
	}
	return b
}

func stack(mode string) *ir.Type { return &ir.Type{Kind: ir.Stack, Size: 40, Count: 3, Format: mode} }

func TestValues(t *testing.T) {
	pair := ir.TupleOf(nil, []*ir.Type{ir.I32, ir.TextType(8)})
	record := ir.TupleOf([]string{"id", "name", "at"}, []*ir.Type{ir.U8, ir.TextType(8), pair})
	fruit := &ir.EnumNames{Enum: "fruit", Names: map[uint64]string{1: "APPLE", 0xff: "PEAR"}}
	for _, c := range []struct {
		name       string
		t          *ir.Type
		b          []byte
		text, json string
	}{
		{"mac", &ir.Type{Kind: ir.Bytes, Size: 16, Format: ir.MAC}, le(int32(6), "\x05\x04\xfe\x02\x01\x00"), "05:04:FE:02:01:00", `"05:04:FE:02:01:00"`},
		{"inet", &ir.Type{Kind: ir.Bytes, Size: 24, Format: ir.Inet}, le(int32(4), "\x7f\x00\x00\x01"), "127.0.0.1", `"127.0.0.1"`},
		{"inet6", &ir.Type{Kind: ir.Bytes, Size: 24, Format: ir.Inet}, le(int32(16), "\xfe\x80", int64(0), int32(0), "\x00\x01"), "fe80::1", `"fe80::1"`},
		{"inet6 of 4", &ir.Type{Kind: ir.Bytes, Size: 24, Format: ir.Inet}, le(int32(16), int64(0), int32(0), "\x01\x02\x03\x04"), "::1.2.3.4", `"::1.2.3.4"`},
		{"inet none", &ir.Type{Kind: ir.Bytes, Size: 24, Format: ir.Inet}, le(int32(0)), "", `""`},
		{"user", &ir.Type{Kind: ir.User, Size: 8}, le(0), "root", `"root"`},
		{"no user", &ir.Type{Kind: ir.User, Size: 8}, le(77), "77", `"77"`},
		{"cgroup", &ir.Type{Kind: ir.CgroupPath, Size: 8, Format: "unified"}, le(7), "unified:/a", `"unified:/a"`},
		{"no cgroup", &ir.Type{Kind: ir.CgroupPath, Size: 8}, le(8), "cgroup:8", `"cgroup:8"`},
		{"i8", ir.I8, le(-3), "-3", "-3"},
		{"u8", ir.U8, le(-3), "253", "253"},
		{"i32", ir.I32, le(0x1_8000_0000), "-2147483648", "-2147483648"},
		{"u64", ir.U64, le(uint64(1<<64 - 1)), "18446744073709551615", `"18446744073709551615"`},
		{"i64 min", ir.I64, le(-1 << 63), "-9223372036854775808", "-9223372036854775808"},
		{"beyond float64", ir.I64, le(1<<53 + 1), "9007199254740993", `"9007199254740993"`},
		{"within float64", ir.U64, le(1 << 62), "4611686018427387904", "4611686018427387904"},
		{"missing bytes", ir.U64, le(uint16(513)), "513", "513"},
		{"bool", ir.BoolType, le(2), "true", "true"},
		{"not", ir.BoolType, nil, "false", "false"},
		{"enum", &ir.Type{Kind: ir.Int, Size: 4, Enum: fruit}, le(1), "APPLE", "1"},
		{"enum, signed", &ir.Type{Kind: ir.Int, Size: 1, Signed: true, Enum: fruit}, le(-1), "PEAR", "-1"},
		{"no such variant", &ir.Type{Kind: ir.Int, Size: 4, Enum: fruit}, le(2), "2", "2"},
		{"text", ir.TextType(8), le("pear\x00xyz"), "pear", `"pear"`},
		{"full text", ir.TextType(8), le("pear pie"), "pear pie", `"pear pie"`},
		{"hostile text", ir.TextType(16), le("a\x1b[2J\n\xff\u202e\x00"), `a\u{1b}[2J\n\xff\u{202e}`, `"a\u001b[2J\n\\xff\u202e"`},
		{"bytes", ir.BytesType(8), le(uint32(6), "a\x00\xff~\n\"zz"), `a\x00\xff~\x0a"`, "[97,0,255,126,10,34]"},
		{"bytes, hostile length", ir.BytesType(4), le(uint32(0xffffffff), "abcdefgh"), "abcd", "[97,98,99,100]"},
		{"tuple", pair, le(1, "abc"), "(1, abc)", `[1,"abc"]`},
		{"empty tuple", ir.TupleOf(nil, nil), nil, "()", "[]"},
		{"record", record, le(9, "x y\x00\x00\x00\x00\x00", -1, "in"), "{ .id = 9, .name = x y, .at = (-1, in) }", `{"id": 9, "name": "x y", "at": [-1,"in"]}`},
		{"array", &ir.Type{Kind: ir.Array, Elem: ir.U16, Count: 3, Size: 6}, le(uint16(1), uint16(2), uint16(60000)), "[1,2,60000]", "[1,2,60000]"},
		{"arrays", &ir.Type{Kind: ir.Array, Elem: &ir.Type{Kind: ir.Array, Elem: ir.U8, Count: 2, Size: 2}, Count: 2, Size: 4}, le(uint32(0x08070605)), "[[5,6],[7,8]]", "[[5,6],[7,8]]"},
		{"empty array", &ir.Type{Kind: ir.Array, Elem: ir.U8}, nil, "[]", "[]"},
		{"pointer", &ir.Type{Kind: ir.Pointer, Size: 8}, le(0x7ffc1234), "0x7ffc1234", "2147226164"},
		{"name", ir.NameType, le(1), "uprobe:shop::add", `"uprobe:shop::add"`},
		{"no name", ir.NameType, le(-1), "<unknown>", `"<unknown>"`},
		{"symbol", &ir.Type{Kind: ir.Symbol, Size: ir.SymbolSize}, le(0x1000, 7), "main", `"main"`},
		{"no symbol", &ir.Type{Kind: ir.Symbol, Size: ir.SymbolSize}, le(0x2000, 7), "0x2000", `"0x2000"`},
		{"stack", stack(""), le(uint32(7), uint32(3), 0, 0x1000, 0x1005, 0x9), "\n        main+0\n        [inlined] f\n        main+5\n        0x9\n", `"\n        main+0\n        [inlined] f\n        main+5\n        0x9\n"`},
		{"stack, perf", stack(PerfStack), le(uint32(7), uint32(1), 0, 0x1000), "\n\t1000 main+0 (/bin/app)\n", `"\n\t1000 main+0 (/bin/app)\n"`},
		{"stack, build ids", stack(BuildIDStack), le(uint32(7), uint32(2), 0, 0x1000, 0x2000), "\n6f2c90 0x1000\n2000\n", `"\n6f2c90 0x1000\n2000\n"`},
		{"stack, raw, hostile count", stack(RawStack), le(uint32(7), uint32(0xffffffff), 0, 0x1000, 2, 3, 4, 5), "\n1000\n2\n3\n", `"\n1000\n2\n3\n"`},
		{"stack cut short", stack(RawStack), le(uint32(7), uint32(3), 0, 0x1000), "\n1000\n", `"\n1000\n"`},
		{"no stack", stack(""), nil, "\n", `"\n"`},
		{"stamp", &ir.Type{Kind: ir.Stamp, Size: 8, Format: "%d.%m.%y %H:%M:%S.%f %k %l"}, le(1700000000_123456789), "14.11.23 22:13:20.123456 123456789 123", `"14.11.23 22:13:20.123456 123456789 123"`},
		{"void", ir.VoidType, nil, "null", "null"},
	} {
		a := Arg{Type: c.t, Bytes: c.b}
		if got := env.Text(a); got != c.text {
			t.Errorf("%s: text %q, want %q", c.name, got, c.text)
		}
		if got := string(env.JSON(a)); got != c.json {
			t.Errorf("%s: JSON %s, want %s", c.name, got, c.json)
		}
	}
	a := Arg{Type: record, Bytes: le(9, "x\ty\x00\x00\x00\x00\x00", -1, "\"")}
	if got, want := env.Debug(a), `{ .id = 9, .name = "x\ty", .at = (-1, "\"") }`; got != want {
		t.Errorf("debug %s, want %s", got, want)
	}
	if got := (&Env{}).Text(Arg{Type: stack(""), Bytes: le(uint32(7), uint32(1), 0, 0x1000)}); got != "\n        0x1000\n" {
		t.Errorf("a stack of no one's: %q", got)
	}
}

func TestRustValues(t *testing.T) {
	for _, c := range []struct {
		v                 event.Value
		text, debug, json string
	}{
		{event.Value{Rust: "&str", Text: `"pear"`}, "pear", `"pear"`, `"pear"`},
		{event.Value{Rust: "&str", Text: `"a\n\"b\"\\\u{1b}\xFF\u{1f980}'"`}, `a\n"b"\\u{1b}\xff🦀'`, `"a\n\"b\"\\\u{1b}\xFF\u{1f980}'"`, `"a\n\"b\"\\\u001b\\xff🦀'"`},
		{event.Value{Rust: "&str", Text: `"pea…"`}, "pea…", `"pea…"`, `"pea…"`},
		{event.Value{Rust: "T", Text: `"a" + "b"`}, `"a" + "b"`, `"a" + "b"`, `"\"a\" + \"b\""`},
		{event.Value{Rust: "Item", Text: `Item { name: "pear", n: 3 }`}, `Item { name: "pear", n: 3 }`, `Item { name: "pear", n: 3 }`, `"Item { name: \"pear\", n: 3 }"`},
		{event.Value{Rust: "i32", Text: "-5"}, "-5", "-5", "-5"},
		{event.Value{Rust: "u64", Text: "18446744073709551615"}, "18446744073709551615", "18446744073709551615", `"18446744073709551615"`},
		{event.Value{Rust: "f64", Text: "1e100"}, "1e100", "1e100", "1e100"},
		{event.Value{Rust: "f32", Text: "NaN"}, "NaN", "NaN", `"NaN"`},
		{event.Value{Rust: "bool", Text: "true"}, "true", "true", "true"},
		{event.Value{Rust: "char", Text: "'a'"}, "'a'", "'a'", `"'a'"`},
		{event.Value{Rust: "u8", Missing: "optimized out"}, "<optimized out>", "<optimized out>", `"<optimized out>"`},
		{event.Value{Rust: "T", Text: "\x1b[2J"}, `\u{1b}[2J`, `\u{1b}[2J`, `"\u001b[2J"`},
	} {
		a := Arg{Type: &ir.Type{Kind: ir.Value}, Rust: &c.v}
		if got := env.Text(a); got != c.text {
			t.Errorf("%s: text %s, want %s", c.v.Text, got, c.text)
		}
		if got := env.Debug(a); got != c.debug {
			t.Errorf("%s: debug %s, want %s", c.v.Text, got, c.debug)
		}
		if got := string(env.JSON(a)); got != c.json {
			t.Errorf("%s: JSON %s, want %s", c.v.Text, got, c.json)
		}
	}
	args := []Arg{{Type: &ir.Type{Kind: ir.Value}, Rust: &event.Value{Text: `"pear"`}}, {Type: ir.I32, Bytes: le(4)}}
	if got, want := env.Record([]string{"name", "n"}, args), `{ .name = "pear", .n = 4 }`; got != want {
		t.Errorf("record %s, want %s", got, want)
	}
	if got, want := string(env.RecordJSON([]string{"name", "n"}, args)), `{"name": "pear", "n": 4}`; got != want {
		t.Errorf("record %s, want %s", got, want)
	}
	if got := env.Record(nil, nil) + string(env.RecordJSON(nil, nil)); got != "{}{}" {
		t.Errorf("empty record %s", got)
	}
}

func TestLine(t *testing.T) {
	var b strings.Builder
	if err := CountLine(&b, "attached_probes", "probes", 3); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `{"type": "attached_probes", "count": 3, "data": {"probes": 3}}`+"\n"; got != want {
		t.Errorf("%s want %s", got, want)
	}
	b.Reset()
	if err := MessageLine(&b, "errorf", "too \"large\"\n", "stdin", 1, 87); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `{"type": "errorf", "msg": "too \"large\"\n", "filename": "stdin", "line": 1, "col": 87}`+"\n"; got != want {
		t.Errorf("%s want %s", got, want)
	}
	b.Reset()
	if err := Line(&b, "printf", Quote("a<b> \"c\"\n\x7f\u2028")); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `{"type": "printf", "data": "a<b> \"c\"\n\u007f\u2028"}`+"\n"; got != want {
		t.Errorf("%s want %s", got, want)
	}
}

// typeFrom builds a type of the bytes that it takes from the front.
func typeFrom(b *[]byte, depth int) *ir.Type {
	next := func() int {
		if len(*b) == 0 {
			return 0
		}
		c := (*b)[0]
		*b = (*b)[1:]
		return int(c)
	}
	kind := ir.TypeKind(next() % int(ir.Series+1))
	if depth > 3 && (kind == ir.Tuple || kind == ir.Array) {
		kind = ir.Int
	}
	t := &ir.Type{Kind: kind, Size: 8, Signed: next()%2 == 1}
	switch kind {
	case ir.Int:
		t.Size = 1 << (next() % 4)
	case ir.Text, ir.Bytes:
		t.Size = 8 + 8*(next()%4)
	case ir.Tuple:
		var types []*ir.Type
		for range next() % 4 {
			types = append(types, typeFrom(b, depth+1))
		}
		return ir.TupleOf(nil, types)
	case ir.Array:
		t.Elem, t.Count = typeFrom(b, depth+1), next()%5
		t.Size = t.Count * t.Elem.Size
	case ir.Stack:
		t.Count = next() % 8
		t.Size = ir.StackHead + 8*t.Count
	case ir.Symbol:
		t.Size = ir.SymbolSize
	case ir.Stamp:
		t.Format = "%c %f"
	case ir.Hist:
		t.Bits = next() % 6
	case ir.LHist:
		t.From, t.To, t.Step = -10, int64(next()), 3
	case ir.Series:
		t.Count, t.Every, t.Agg = 1+next()%8, time.Duration(1+next()), []ir.TypeKind{ir.Void, ir.Count, ir.Sum, ir.Avg, ir.Min, ir.Max}[next()%6]
	}
	return t
}

// Whatever a traced process has written: text is safe and bounded, JSON is JSON.
func FuzzText(f *testing.F) {
	for k := range byte(ir.Series + 1) {
		f.Add([]byte{k, 1, 3, 2, 1, 0}, []byte("\xff\xff\xff\xff\x1b[2J\n\u202e\xff\xff\xff\xff\xff\xff"))
		f.Add([]byte{byte(ir.Tuple), 0, 3, k, 1, 2, k, 0, 1, byte(ir.Text), 0, 0}, []byte(strings.Repeat("\xff", 200)))
	}
	f.Fuzz(func(t *testing.T, spec, b []byte) {
		rest := spec
		typ := typeFrom(&rest, 0)
		a := Arg{Type: typ, Bytes: b}
		for _, text := range []string{env.Text(a), env.Debug(a)} {
			safe(t, text)
			if n := len(text); n > 200+100*(len(b)+len(spec)*10) {
				t.Errorf("%s of %d bytes: %d bytes of text", typ, len(b), n)
			}
		}
		if s := env.JSON(a); !json.Valid(s) {
			t.Errorf("JSON %s", s)
		}
		m := &ir.Map{Name: "@x", Key: ir.TextType(8), Value: typ}
		if len(spec)%2 == 1 {
			m.Key = typeFrom(&rest, 0)
		}
		half := len(b) / 2
		v := env.Map(m, []Entry{{b[:half], [][]byte{b[half:], b}}, {b[half:], [][]byte{b}}, {nil, nil}}, int64(len(spec)%4), int64(len(b)%3))
		var out strings.Builder
		if err := v.Text(&out); err != nil {
			t.Fatal(err)
		}
		safe(t, out.String())
		out.Reset()
		if err := v.JSON(&out); err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(out.String())) {
			t.Errorf("JSON %s", out.String())
		}
		for _, verb := range []string{"%s", "%?", "%d", "%-20x", "%c", "%r", "%#o"} {
			if CheckFormat(verb, []*ir.Type{typ}) != nil {
				continue
			}
			s, err := env.Printf(verb, []Arg{a})
			if err != nil {
				t.Fatal(err)
			}
			safe(t, s)
		}
	})
}

func safe(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("not UTF-8: %q", text)
	}
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
			t.Fatalf("control character in %q", text)
		}
	}
}
