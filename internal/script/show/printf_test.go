package show

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program/ir"
)

func TestPrintf(t *testing.T) {
	fruit := &ir.Type{Kind: ir.Int, Size: 4, Enum: &ir.EnumNames{Enum: "fruit", Names: map[uint64]string{1: "APPLE"}}}
	i64 := func(n int) Arg { return Arg{Type: ir.I64, Bytes: le(n)} }
	text := func(s string) Arg { return Arg{Type: ir.TextType(16), Bytes: []byte(s)} }
	buf := Arg{Type: ir.BytesType(8), Bytes: le(uint32(6), "Hi\x00\xff \n")}
	ptr := Arg{Type: &ir.Type{Kind: ir.Pointer, Size: 8}, Bytes: le(0x7ffe0010)}
	big := i64(0x12345678abcdef)
	for _, c := range []struct {
		format string
		args   []Arg
		want   string
	}{
		{"100% done\n", []Arg{i64(5)}, "100 5one\n"}, // as in C
		{"100%, %%d %y\x1b[0m", nil, "100%, %d %y\x1b[0m"},
		{"%", nil, "%"},
		{"%-5y %5.3", nil, "%-5y %5.3"},
		{"%%%s%%", []Arg{text("x")}, "%x%"},
		{"%.s|%.0d", []Arg{text("x"), i64(7)}, "|7"},
		{"%d|%i|%ld", []Arg{i64(-5), i64(7), i64(-1 << 40)}, "-5|7|-1099511627776"},
		{"%hhx %hx %x %jx %llx %zx %tx %lX", []Arg{big, big, big, big, big, big, big, big}, "ef cdef 78abcdef 12345678abcdef 12345678abcdef 12345678abcdef 12345678abcdef 12345678ABCDEF"},
		{"%hhd %hd %d %u %hhu", []Arg{i64(200), i64(40000), i64(1 << 31), i64(-1), i64(-1)}, "-56 -25536 -2147483648 4294967295 255"},
		{"%lu", []Arg{i64(-1)}, "18446744073709551615"},
		{"%5d|%-5d|%05d|%+d|% d|%.3d|%-05d", []Arg{i64(-42), i64(42), i64(-42), i64(42), i64(42), i64(7), i64(3)}, "  -42|42   |-0042|+42| 42|007|3    "},
		{"%08x|%#x|%#X|%#o|%o|%#x|%#08x", []Arg{i64(255), i64(255), i64(255), i64(8), i64(8), i64(0), i64(255)}, "000000ff|0xff|0XFF|010|10|0|0x0000ff"},
		{"%s|%10s|%-10s|%.3s|%5s", []Arg{text("pear"), text("pear"), text("pear"), text("pear"), text("äöü")}, "pear|      pear|pear      |pea|  äöü"},
		{"%c%c%c%c", []Arg{i64('A'), {Type: ir.U8, Bytes: le('b')}, i64(0x1f980), i64(10)}, "Ab🦀\\n"},
		{"%p %lx %p", []Arg{ptr, ptr, i64(16)}, "0x7ffe0010 7ffe0010 0x10"},
		{"%r|%rx|%rh|%s|%20rh|", []Arg{buf, buf, buf, buf, buf}, `Hi\x00\xff \x0a|\x48\x69\x00\xff\x20\x0a|48 69 00 ff 20 0a|Hi\x00\xff \x0a|   48 69 00 ff 20 0a|`},
		{"%d %s %-7s| %x", []Arg{{Type: fruit, Bytes: le(1)}, {Type: fruit, Bytes: le(1)}, {Type: fruit, Bytes: le(1)}, {Type: fruit, Bytes: le(2)}}, "1 APPLE APPLE  | 2"},
		{"%d %s", []Arg{{Type: ir.BoolType, Bytes: le(1)}, {Type: ir.BoolType, Bytes: le(1)}}, "1 true"},
		{"%s %? %?", []Arg{text("a\tb"), text("a\tb"), i64(3)}, `a\tb "a\tb" 3`},
		{"%s=%?", []Arg{{Type: &ir.Type{Kind: ir.Value}, Rust: &event.Value{Text: `"x"`}}, {Type: &ir.Type{Kind: ir.Value}, Rust: &event.Value{Text: `"x"`}}}, `x="x"`},
		{"%s\n", []Arg{{Type: ir.NameType, Bytes: le(0)}}, "shop::add\n"},
		{"%s", []Arg{{Type: stack(RawStack), Bytes: le(uint32(1), uint32(1), 0, 16)}}, "\n10\n"},
	} {
		var types []*ir.Type
		for _, a := range c.args {
			types = append(types, a.Type)
		}
		if err := CheckFormat(c.format, types); err != nil {
			t.Errorf("%q: %v", c.format, err)
		}
		got, err := env.Printf(c.format, c.args)
		if err != nil || got != c.want {
			t.Errorf("%q: %q, %v, want %q", c.format, got, err, c.want)
		}
	}
	raw := *env
	raw.Raw = true
	if got, err := raw.Printf("ls '%s'", []Arg{text("a\tb")}); err != nil || got != "ls 'a\tb'" {
		t.Errorf("raw: %q, %v", got, err)
	}
}

func TestCheckFormat(t *testing.T) {
	for _, c := range []struct {
		format string
		types  []*ir.Type
		want   string
	}{
		{"%d %s", []*ir.Type{ir.I64}, "not enough arguments for format string (1 supplied, 2 expected)"},
		{"%d %%", []*ir.Type{ir.I64, ir.I64}, "too many arguments for format string (2 supplied, 1 expected)"},
		{"%d", []*ir.Type{ir.TextType(8)}, "unsupported format specifier for type 'string[8]': d"},
		{"%r", []*ir.Type{ir.I64}, "unsupported format specifier for type 'int64': r"},
		{"%x", []*ir.Type{{Kind: ir.Value}}, "unsupported format specifier for type 'Rust value': x"},
		{"%f", []*ir.Type{ir.I64}, "unsupported format specifier: f"},
		{"%gr", []*ir.Type{ir.I64}, "unsupported format specifier: gr"},
		{"%.*s", []*ir.Type{ir.I64}, "unsupported format specifier: %.*s: a width cannot be an argument"},
		{"%n", []*ir.Type{ir.I64}, "unsupported format specifier: n"},
		{"%*d", []*ir.Type{ir.I64}, "unsupported format specifier: %*d: a width cannot be an argument"},
		{"%s", []*ir.Type{ir.VoidType}, "unable to print none type for specifier: s"},
		{"%99999999999999999999s", []*ir.Type{ir.I64}, "a width of 99999999999999999999 in a format is more than 4096"},
	} {
		err := CheckFormat(c.format, c.types)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.format, err, c.want)
		}
		args := make([]Arg, len(c.types))
		for i, typ := range c.types {
			args[i].Type = typ
		}
		if _, err := env.Printf(c.format, args); err == nil {
			t.Errorf("%q: printed", c.format)
		}
	}
}

// date is the C library's.
func TestStrftime(t *testing.T) {
	date, err := exec.LookPath("date")
	if err != nil {
		t.Skip("no date: ", err)
	}
	var formats []string
	for _, c := range "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%" {
		formats = append(formats, "%"+string(c))
	}
	formats = append(formats, "plain", "%-d %_m %03d %^a %-H", "%Ey %Od", "%Q", "a%", "%10Y", "%")
	for _, sec := range []int64{0, 86399, 951782400, 1104537599, 1230768000, 1420070400, 1700000000, 1735689599, 4102444800} {
		at := time.Unix(sec, 0).UTC()
		cmd := exec.Command(date, "-u", "-d", "@"+strconv.FormatInt(sec, 10), "+"+strings.Join(formats, "\x01"))
		cmd.Env = []string{"LC_ALL=C"}
		out, err := cmd.Output()
		if err != nil {
			t.Skip("date is not GNU's: ", err)
		}
		for i, want := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\x01") {
			if got := Strftime(formats[i], at); got != want {
				t.Errorf("%s of %d: %q, date prints %q", formats[i], sec, got, want)
			}
		}
	}
	if got := Strftime("%k|%l|%f", time.Unix(3600, 5e6).UTC()); got != " 1| 1|%f" {
		t.Errorf("without what the language adds: %q", got)
	}
}

func BenchmarkPrintf(b *testing.B) {
	args := []Arg{{Type: ir.TextType(16), Bytes: []byte("comm\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}, {Type: ir.U32, Bytes: le(812)}, {Type: ir.U64, Bytes: le(0x7ffe00)}, {Type: ir.TextType(16), Bytes: []byte("pear\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := env.Printf("%-16s %5d %lx %s\n", args); err != nil {
			b.Fatal(err)
		}
	}
}

// Any format is refused or printed, no longer than its widths say.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{"%d %s", "%-+ #010.3llx|%%%?", "%4096s%.4096d", "%*d", "%", "%5", "%5.%d", "%.", "%hhhhhhhc%rh", "\xff%\xff"} {
		f.Add(s)
	}
	values := []Arg{{Type: ir.I64, Bytes: le(-1)}, {Type: ir.TextType(8), Bytes: []byte("a\x1bb")}, {Type: ir.BytesType(4), Bytes: le(uint32(4), "\x00\xffab")}}
	f.Fuzz(func(t *testing.T, format string) {
		_, convs, err := parseFormat(format)
		if err != nil {
			return
		}
		for _, v := range values {
			var args []Arg
			var types []*ir.Type
			for range convs {
				args, types = append(args, v), append(types, v.Type)
			}
			checked := CheckFormat(format, types)
			text, err := env.Printf(format, args)
			if (checked == nil) != (err == nil) {
				t.Errorf("%q of %s: checked %v, printed %v", format, v.Type, checked, err)
			}
			if n := len(text); n > len(format)+len(convs)*(2*maxWidth+64) {
				t.Errorf("%q: %d bytes", format, n)
			}
			if strings.Contains(text, "\x1bb") && !strings.Contains(format, "\x1b") {
				t.Errorf("%q: %q", format, text)
			}
		}
	})
}
