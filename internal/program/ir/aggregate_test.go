package ir

import (
	"encoding/binary"
	"slices"
	"testing"
)

func words(ws ...uint64) []byte {
	var b []byte
	for _, w := range ws {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

func TestTotal(t *testing.T) {
	minus := func(n uint64) uint64 { return -n }
	least, most := &Type{Kind: Min, Signed: true}, &Type{Kind: Max, Signed: true}
	for _, c := range []struct {
		t    *Type
		cpus [][]byte
		want Total
	}{
		{&Type{Kind: Count}, [][]byte{words(1), words(2), nil, words(3)}, Total{Number: 6}},
		{&Type{Kind: Sum, Signed: true}, [][]byte{words(minus(5)), words(2)}, Total{Number: minus(3)}},
		{&Type{Kind: Avg, Signed: true}, [][]byte{words(minus(10), 3), words(0, 0), words(3, 1)}, Total{Number: minus(1), Sum: minus(7), Count: 4}},
		{&Type{Kind: Avg}, [][]byte{words(1<<63, 1), words(1<<63-1, 1)}, Total{Number: 1<<63 - 1, Sum: 1<<64 - 1, Count: 2}},
		{&Type{Kind: Stats, Signed: true}, [][]byte{words(7, 0)}, Total{Sum: 7}},
		{&Type{Kind: Stats, Signed: true}, [][]byte{words(7, minus(1))}, Total{Sum: 7, Count: minus(1)}}, // no count is that large
		{least, [][]byte{words(least.Rank(5), 1), words(least.Rank(minus(5)), 1), words(^uint64(0), 0)}, Total{Number: minus(5), Count: 1}},
		{most, [][]byte{words(0, 0), words(most.Rank(minus(5)), 1), words(most.Rank(minus(7)), 1)}, Total{Number: minus(5), Count: 1}},
		{most, [][]byte{words(0, 0), {1, 2, 3}, nil}, Total{}},
		{least, nil, Total{}},
	} {
		if got := c.t.Total(c.cpus); got != c.want {
			t.Errorf("%s of %v: %+v, want %+v", c.t, c.cpus, got, c.want)
		}
	}
}

func TestRank(t *testing.T) {
	numbers := []int64{-1 << 63, -7, -1, 0, 1, 1 << 40, 1<<63 - 1}
	for _, kind := range []TypeKind{Min, Max} {
		typ := &Type{Kind: kind, Signed: true}
		for i, n := range numbers {
			r := typ.Rank(uint64(n))
			if typ.Rank(r) != uint64(n) {
				t.Errorf("%s: the rank of %d's rank is not it", typ, n)
			}
			if i > 0 && (r > typ.Rank(uint64(numbers[i-1]))) != (kind == Max) {
				t.Errorf("%s: %d has rank %x", typ, n, r)
			}
		}
	}
}

func TestPoints(t *testing.T) {
	entries := func(es ...[3]uint64) []byte {
		b := make([]byte, 4*SeriesSize)
		for _, e := range es {
			copy(b[e[0]%4*SeriesSize:], words(e[0]+1, e[1], e[2]))
		}
		return b
	}
	two := [][]byte{entries([3]uint64{5, 10, 2}, [3]uint64{7, 1, 1}), entries([3]uint64{5, 4, 5}, [3]uint64{8, 9, 3}, [3]uint64{2, 1, 1})}
	for agg, want := range map[TypeKind][]Point{
		Void:  {{5, 4}, {7, 1}, {8, 9}},
		Sum:   {{5, 14}, {7, 1}, {8, 9}},
		Avg:   {{5, 2}, {7, 1}, {8, 3}},
		Count: {{5, 7}, {7, 1}, {8, 3}},
		Max:   {{5, 10}, {7, 1}, {8, 9}},
	} {
		typ := &Type{Kind: Series, Count: 4, Agg: agg}
		if got := typ.Points(two); !slices.Equal(got, want) {
			t.Errorf("%d: %v, want %v", agg, got, want)
		}
	}
	typ := &Type{Kind: Series, Count: 4}
	wrong := entries([3]uint64{5, 1, 1})
	copy(wrong, words(100, 1, 1)) // interval 99 is not entry 0's
	if got := typ.Points([][]byte{wrong, nil, wrong[:30]}); !slices.Equal(got, []Point{{5, 1}}) {
		t.Errorf("with a wrong entry: %v", got)
	}
	last := entries([3]uint64{1<<64 - 2, 3, 1})
	if got := typ.Points([][]byte{last}); !slices.Equal(got, []Point{{1<<64 - 2, 3}}) {
		t.Errorf("the last interval: %v", got)
	}
}

func TestCounters(t *testing.T) {
	typ := &Type{Kind: LHist, To: 2, Step: 1}
	got := typ.Counters([][]byte{words(1, 2, 3, 4, 99), words(10, 20), nil, {1, 2, 3}})
	if want := []uint64{11, 22, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTypeString(t *testing.T) {
	list := &Type{Kind: Tuple}
	list.Fields = []TypeField{{Name: "next", Type: &Type{Kind: Pointer, Size: 8, Elem: list}}}
	for _, c := range []struct {
		t    *Type
		want string
	}{
		{U8, "uint8"}, {I64, "int64"}, {BoolType, "bool"}, {TextType(8), "string[8]"}, {BytesType(4), "buffer[4]"},
		{&Type{Kind: Int, Size: 4, Enum: &EnumNames{Enum: "fruit"}}, "enum fruit"},
		{&Type{Kind: Array, Elem: U16, Count: 3}, "uint16[3]"}, {&Type{Kind: Pointer, Elem: U8}, "uint8 *"}, {&Type{Kind: Pointer}, "void *"},
		{TupleOf(nil, []*Type{I32, TextType(8)}), "(int32, string[8])"}, {TupleOf([]string{"a"}, []*Type{I32}), "{ a: int32 }"},
		{list, "{ next: pointer }"}, {&Type{Kind: Sum}, "usum_t"}, {&Type{Kind: Stats, Signed: true}, "stats_t"}, {&Type{Kind: 99}, "type 99"},
	} {
		if got := c.t.String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
