package path

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{
		"args::main", "args::hello", "args::help", "shop::cart::add", "shop::Cart::add", "shop::cart::add::{closure#0}",
		"shop::parse::<u32>", "shop::parse::<u64>", "<shop::Cart as core::fmt::Debug>::fmt", "alloc::vec::Vec<u32>::push",
		"alloc::vec::Vec<u64>::push", "core::ptr::drop_in_place::<alloc::string::String>", "other::add",
	}
	for _, c := range []struct {
		want  string
		n     int
		names []string
	}{
		{"args::helo", 2, []string{"args::help", "args::hello"}},
		{"helo", 1, []string{"args::help"}},
		{"hlelo", 1, []string{"args::hello"}},
		{"HELLO", 1, []string{"args::hello"}},
		{"shop::parze", 3, []string{"shop::parse"}},
		{"shop::parze::<u32>", 3, []string{"shop::parse"}},
		{"Vec::psuh", 3, []string{"alloc::vec::Vec::push"}},
		{"shp::cart::add", 2, []string{"shop::Cart::add", "shop::cart::add"}},
		{"nowhere::fmt", 3, []string{"<shop::Cart as core::fmt::Debug>::fmt"}},
		{"drop_in_plaec", 3, []string{"core::ptr::drop_in_place"}},
		{"zzzzzz", 3, nil},
		{"", 3, nil},
		{"hello", 0, nil},
	} {
		if got := Nearest(c.want, slices.Values(names), c.n); !slices.Equal(got, c.names) {
			t.Errorf("%q: %q, want %q", c.want, got, c.names)
		}
	}
}

// The bounded distance is the plain one, up to the bound.
func TestDistance(t *testing.T) {
	plain := func(a, b string) int {
		d := make([][]int, len(a)+1)
		for i := range d {
			d[i] = make([]int, len(b)+1)
			for j := range d[i] {
				switch {
				case i == 0 || j == 0:
					d[i][j] = i + j
				case a[i-1] == b[j-1]:
					d[i][j] = d[i-1][j-1]
				default:
					d[i][j] = 1 + min(d[i-1][j-1], d[i-1][j], d[i][j-1])
					if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
						d[i][j] = min(d[i][j], 1+d[i-2][j-2])
					}
				}
			}
		}
		return d[len(a)][len(b)]
	}
	r := rand.New(rand.NewPCG(1, 1))
	word := func() string {
		s := make([]byte, r.IntN(9))
		for i := range s {
			s[i] = "abc"[r.IntN(3)]
		}
		return string(s)
	}
	for range 50_000 {
		a, b, limit := word(), word(), r.IntN(6)
		if got, want := newSpelling(a).distance(b, limit), min(plain(a, b), limit+1); got != want {
			t.Fatalf("%q, %q within %d: %d, want %d", a, b, limit, got, want)
		}
	}
}

func TestStripArgs(t *testing.T) {
	for text, want := range map[string]string{
		"a::b":                               "a::b",
		"a::b::<u8>":                         "a::b",
		"a::V<fn(A) -> B>::f::<X<Y>>::{c#0}": "a::V::f::{c#0}",
		"<A<u8> as B<C>>::f::<D>":            "<A<u8> as B<C>>::f",
		"a::<impl T<u8> for X>::f":           "a::<impl T<u8> for X>::f",
		"a<":                                 "a",
		"":                                   "",
	} {
		if got := stripArgs(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func manyNames() []string {
	r := rand.New(rand.NewPCG(5, 6))
	parts := strings.Fields("alloc core vec string shop cart add parse fmt push pop insert remove iter next map filter collect hyper tokio runtime poll drop_in_place spawn serde json value from into clone debug")
	names := make([]string, 150_000)
	for i := range names {
		p := make([]string, 2+r.IntN(5))
		for j := range p {
			p[j] = parts[r.IntN(len(parts))]
			if r.IntN(4) == 0 {
				p[j] += fmt.Sprint(r.IntN(1000))
			}
		}
		names[i] = strings.Join(p, "::")
		if r.IntN(3) == 0 {
			names[i] += "::<alloc::vec::Vec<u8>>"
		}
	}
	return names
}

func BenchmarkNearest(b *testing.B) {
	names := manyNames()
	for b.Loop() {
		Nearest("shop::cart::inzert", slices.Values(names), 5)
	}
}

func BenchmarkMatchName(b *testing.B) {
	names := manyNames()
	for _, text := range []string{"shop::cart::add", "fmt", "shop::**", "**::*"} {
		pat, err := ParsePattern(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(strings.ReplaceAll(text, "/", "|"), func(b *testing.B) {
			for b.Loop() {
				for _, name := range names {
					pat.MatchName(name)
				}
			}
		})
	}
}
