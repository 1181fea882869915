package record

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/debugfmt"
	"ferrotrace/internal/rust/types"
)

var (
	tU32   = &types.Type{Name: "u32", Kind: types.Uint, Size: 4, Align: 4}
	tStr   = &types.Type{Name: "&str", Kind: types.Pointer, Size: 16, Align: 8, Pointer: &types.PointerInfo{Target: types.StrBytes, Meta: types.Length, MetaOff: 8}}
	tArray = &types.Type{Name: "[u32; 3]", Kind: types.Array, Size: 12, Align: 4, Elem: tU32, Count: 3}
	tHuge  = &types.Type{Name: "[u32; 1000000]", Kind: types.Array, Size: 4000000, Align: 4, Elem: tU32, Count: 1000000}
)

// testSchema has a probe with an item for each test.
func testSchema() *Schema {
	return &Schema{
		Limits:  program.Limits{MaxStr: 64, MaxItems: 4, Depth: 4},
		Classes: map[*types.Type]uint32{types.StrBytes: 7},
		Probes: []Probe{{Items: []Item{
			{Kind: program.Entry, Size: 16, Values: []Value{
				{Name: "n", Type: tU32, Off: 0, Size: 4},
				{Name: "known", Type: tU32, Known: []Known{{Bytes: []byte{9, 0, 0, 0}}}},
				{Name: "gone", Type: tU32, Missing: "optimized out"},
				{Name: "read", Type: tU32, Off: 8, Size: 4, Reads: []Read{{Size: 4, Bit: 3}}},
			}},
			{Kind: program.Exit, Size: 32, Values: []Value{
				{Name: "s", Type: tStr, Off: 0, Size: 16},
				{Name: "t", Type: tStr, Off: 16, Size: 16},
			}},
			{Kind: program.More, Size: 16, Values: []Value{
				{Name: "a", Type: tArray, Off: 0, Size: 12, Known: []Known{{Off: 4, Bytes: []byte{5, 0, 0, 0}}},
					Holes: []debugfmt.Hole{{Off: 8, Size: 4, Why: "optimized out"}}},
				{Name: "u", Type: types.UnitType},
				{Name: "h", Type: tHuge, Off: 0, Size: 12},
			}},
			{Kind: program.Landing},
		}}},
	}
}

// rec builds a record from a header's fields that matter, a fixed part and
// regions.
type rec struct{ b []byte }

func newRec(item uint16, fixed ...byte) *rec {
	r := &rec{make([]byte, HeaderSize)}
	binary.LittleEndian.PutUint16(r.b[OffVersion:], Version)
	binary.LittleEndian.PutUint16(r.b[OffItem:], item)
	binary.LittleEndian.PutUint32(r.b[OffPID:], 42)
	copy(r.b[OffComm:], "comm")
	r.b = append(r.b, fixed...)
	return r
}

func (r *rec) region(class uint32, addr, count uint64, status uint32, bytes string) *rec {
	h := make([]byte, RegionSize)
	binary.LittleEndian.PutUint32(h[RegionClass:], class)
	binary.LittleEndian.PutUint32(h[RegionLength:], uint32(len(bytes)))
	binary.LittleEndian.PutUint64(h[RegionAddress:], addr)
	binary.LittleEndian.PutUint64(h[RegionCount:], count)
	binary.LittleEndian.PutUint32(h[RegionStatus:], status)
	r.b = append(r.b, h...)
	r.b = append(r.b, bytes...)
	r.b = append(r.b, make([]byte, -len(bytes)&7)...)
	binary.LittleEndian.PutUint32(r.b[OffRegions:], binary.LittleEndian.Uint32(r.b[OffRegions:])+1)
	return r
}

func (r *rec) failed(bits uint64) *rec {
	binary.LittleEndian.PutUint64(r.b[OffFailed:], bits)
	return r
}

func (r *rec) bytes() []byte {
	binary.LittleEndian.PutUint32(r.b[OffLength:], uint32(len(r.b)))
	return r.b
}

// words are little-endian u64s.
func words(w ...uint64) (b []byte) {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func TestDecode(t *testing.T) {
	s := testSchema()
	many := newRec(1, words(0x1000+3*19, 3, 0, 0)...)
	for i := range uint64(20) {
		many.region(7, 0x1000+3*i, 3, StatusOK, string([]byte{'a' + byte(i), 'b', 'c'}))
	}
	for _, tt := range []struct {
		name string
		raw  []byte
		want string
	}{
		{"fixed", newRec(0, words(5, 6)...).bytes(), "n=5 known=9 gone:optimized out read=6"},
		{"failed", newRec(0, words(5, 6)...).failed(8).bytes(), "n=5 known=9 gone:optimized out read:unreadable"},
		{"another bit", newRec(0, words(5, 6)...).failed(^uint64(8)).bytes(), "n=5 known=9 gone:optimized out read=6"},
		{"string", newRec(1, words(0x1000, 3, 0x2000, 0)...).region(7, 0x1000, 3, StatusOK, "abc").bytes(), `s="abc" t=""`},
		{"of another class", newRec(1, words(0x1000, 3, 0x2000, 0)...).region(6, 0x1000, 3, StatusOK, "abc").bytes(), `s=… truncated t=""`},
		{"shared", newRec(1, words(0x1000, 3, 0x1000, 2)...).region(7, 0x1000, 2, StatusOK, "ab").region(7, 0x1000, 3, StatusOK, "abc").bytes(), `s="abc" t="ab"`},
		{"unreadable", newRec(1, words(0x1000, 3, 0x3000, 1)...).region(7, 0x1000, 3, StatusUnreadable, "").region(7, 0x3000, 1, StatusOwnFrame, "").bytes(), `s:unreadable t:unreadable`},
		{"cut by the budget", newRec(1, words(0x1000, 3, 0x3000, 0)...).region(7, 0x1000, 3, StatusOK, "").bytes(), `s=… truncated t=""`},
		{"not followed", newRec(1, words(0x1000, 3, 0x3000, 2)...).bytes(), `s=… truncated t=… truncated`},
		{"many regions", many.bytes(), `s="tbc" t=""`},
		{"parts", newRec(2, words(1, 2)...).bytes(), "a=[1, 5, <unreadable>] partial u=() h=[1, 0, 2, …, …] truncated"},
		{"no values", newRec(3).bytes(), ""},
		{"padded by the ring", append(newRec(3).bytes(), 1, 2, 3), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := s.Decode(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			if r.PID != 42 || r.Command() != "comm" {
				t.Errorf("header %+v", r.Header)
			}
			var got []string
			for _, v := range r.Values {
				text := v.Name + "=" + v.Text
				if v.Missing != "" {
					text = v.Name + ":" + v.Missing
				}
				if v.Truncated {
					text += " truncated"
				}
				if v.Partial {
					text += " partial"
				}
				got = append(got, text)
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Errorf("got  %s\nwant %s", g, tt.want)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	s := testSchema()
	edit := func(off int, b ...byte) []byte {
		raw := newRec(1, words(0x1000, 3, 0x2000, 0)...).region(7, 0x1000, 3, StatusOK, "abc").bytes()
		copy(raw[off:], b)
		return raw
	}
	whole := edit(0)
	for _, tt := range []struct {
		name string
		raw  []byte
	}{
		{"empty", nil},
		{"short", whole[:HeaderSize-1]},
		{"cut", whole[:len(whole)-1]},
		{"version", edit(OffVersion, 9)},
		{"length below the header", edit(OffLength, HeaderSize-1, 0)},
		{"length below the fixed part", edit(OffLength, HeaderSize+8, 0)},
		{"length beyond the bytes", edit(OffLength, 0xff, 0xff, 0xff, 0xff)},
		{"cookie", edit(OffCookie, 1)},
		{"item", edit(OffItem, 200)},
		{"regions", edit(OffRegions, 2)},
		{"very many regions", edit(OffRegions, 0xff, 0xff, 0xff, 0xff)},
		{"region's length", edit(HeaderSize+32+RegionLength, 9)},
		{"region's length wraps", edit(HeaderSize+32+RegionLength, 0xff, 0xff, 0xff, 0xff)},
	} {
		if _, err := s.Decode(tt.raw); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := s.Decode(whole); err != nil {
		t.Error(err)
	}
}

func TestFuncNames(t *testing.T) {
	s := testSchema()
	fn := &types.Type{Name: "fn()", Kind: types.Pointer, Size: 8, Align: 8, Pointer: &types.PointerInfo{Kind: types.FnPtr, Target: &types.Type{Kind: types.Fn}}}
	s.Probes[0].Items[0] = Item{Size: 8, Values: []Value{{Type: fn, Size: 8}}}
	s.Func = func(pid uint32, addr uint64) string {
		if pid == 42 && addr == 0x5000 {
			return "shop::add"
		}
		return ""
	}
	r, err := s.Decode(newRec(0, words(0x5000)...).bytes())
	if err != nil || r.Values[0].Text != "fn shop::add" {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(newRec(0, words(5, 6)...).bytes())
	f.Add(newRec(1, words(0x1000, 3, 0x2000, 0)...).region(7, 0x1000, 3, StatusOK, "abc").bytes())
	f.Add(newRec(2, words(1, 2)...).region(0, 0, 0, 9, "").bytes())
	s := testSchema()
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := s.Decode(raw)
		if (r == nil) == (err == nil) {
			t.Fatal("neither a record nor an error")
		}
		if err != nil {
			return
		}
		for _, v := range r.Values {
			if (v.Missing != "") == (v.Text != "") {
				t.Errorf("%+v has both or neither", v)
			}
		}
	})
}

func BenchmarkParseHeader(b *testing.B) {
	raw := newRec(0, words(5, 6)...).bytes()
	for b.Loop() {
		if _, err := ParseHeader(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	s := testSchema()
	raw := newRec(1, words(0x1000, 3, 0x2000, 0)...).region(7, 0x1000, 3, StatusOK, "abc").bytes()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}

// TestObject: a vtable is told by its address as linked, if the record has the load bias.
func TestObject(t *testing.T) {
	dyn := &types.Type{Name: "dyn T", Kind: types.Dyn}
	s := &Schema{Objects: map[*types.Type]map[uint64]*types.Type{dyn: {0x100: tU32, 0x200: nil}}}
	m := &memory{schema: s, bias: 0x7000, biased: true}
	for addr, want := range map[uint64]*types.Type{0x7100: tU32, 0x7200: nil, 0x100: nil, 0: nil} {
		if got, ok := m.Object(dyn, addr); got != want || !ok {
			t.Errorf("%#x: %v, %t", addr, got, ok)
		}
	}
	if _, ok := (&memory{schema: s}).Object(dyn, 0x100); ok {
		t.Error("a vtable is known without a bias")
	}
}
