package demangle

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

//go:embed testdata/vectors.txt
var vectorText string

type vector struct{ mode, sym, want string }

// vectors returns rustc-demangle's own test vectors (testdata/vectors.txt).
func vectors(t testing.TB) []vector {
	var vs []vector
	for line := range strings.Lines(vectorText) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		f := append(strings.Split(line, "\t"), "")
		vs = append(vs, vector{f[0], f[1], f[2]})
	}
	if len(vs) < 100 {
		t.Fatalf("only %d vectors", len(vs))
	}
	return vs
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		hide, okHide := Demangle(v.sym)
		keep, okKeep := Options{KeepHash: true}.Demangle(v.sym)
		if okHide != okKeep {
			t.Errorf("%s: is it a symbol? %v and %v", v.sym, okHide, okKeep)
		}
		good := okHide
		got := keep
		switch v.mode {
		case "hide":
			got = hide
			good = good && hide == v.want
		case "keep":
			good = good && keep == v.want
		case "none":
			good = !okHide
		case "part":
			good = good && strings.Contains(keep, v.want)
		case "tail":
			good = good && strings.HasSuffix(keep, v.want)
		case "any":
			continue
		default:
			t.Fatalf("unknown mode %q", v.mode)
		}
		if !good {
			t.Errorf("%s (%s)\n got %q, %v\nwant %q", v.sym, v.mode, got, okHide, v.want)
		}
	}
}

func TestEarlyRecursionLimit(t *testing.T) {
	f, err := os.Open("testdata/early-recursion-limit.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for sym := range strings.Lines(string(text)) {
		n++
		if got, ok := Demangle(strings.TrimSuffix(sym, "\n")); ok {
			t.Errorf("line %d is a symbol: %.100q", n, got)
		}
	}
	if n < 4 {
		t.Errorf("%d symbols", n)
	}
}

// Levels of recursion are given back by paths and types.
func TestRecursionLimitLeaks(t *testing.T) {
	for _, leaf := range [][2]string{{"p", "_"}, {"Rp", "&_"}, {"C1x", "x"}} {
		sym := "_RIC0p" + strings.Repeat(leaf[0], 2*maxDepth) + "E"
		want := "::<_" + strings.Repeat(", "+leaf[1], 2*maxDepth) + ">"
		if got, ok := Demangle(sym); !ok || got != want {
			t.Errorf("leaf %s: %.100q…, %v", leaf[0], got, ok)
		}
	}
}

// A long nesting hidden in a name, then referred to, is limited too.
func TestRecursionLimitBackref(t *testing.T) {
	sym := fmt.Sprintf("_RIC%d", 100_000)
	start := len(sym) - 2
	sym += strings.Repeat("R", 100_000) + "B" + string("0123456789abcdefghij"[start-1]) + "_E"
	if got, ok := Demangle(sym); !ok || !strings.Contains(got, "{recursion limit reached}") {
		t.Errorf("%v, %d bytes", ok, len(got))
	}
}

func TestSuffixes(t *testing.T) {
	for sym, want := range map[string]string{
		"_RNvC4shop3add.cold":                     "shop::add.cold",
		"_RNvC4shop3add.warm":                     "shop::add.warm",
		"_RNvC4shop3add.0":                        "shop::add.0",
		"_RNvC4shop3add.llvm.1234567890":          "shop::add",
		"_RNvC4shop3addC4main":                    "shop::add",
		"_RNvC4shop3addC4main.cold.1":             "shop::add.cold.1",
		"_ZN4shop3addE.cold":                      "shop::add.cold",
		"_ZN4shop3add17h0123456789abcdefE.warm.1": "shop::add.warm.1",
		"__RNvC4shop3add":                         "shop::add",
		"RNvC4shop3add":                           "shop::add",
		"_ZN4shop3addE.llvm.12.cold":              "shop::add.llvm.12.cold",
	} {
		if got, ok := Demangle(sym); !ok || got != want {
			t.Errorf("%s: %q, %v, want %q", sym, got, ok, want)
		}
	}
	for _, sym := range []string{"", "_", "R", "_R", "__R", "_ZN", "ZN", "_ZN3fooEv", "_RNvC4shop3add@", "_RNvC4shop3add.\n",
		"_RNvC4shop3add.é", "_RNvC4sh\xffp3add", "RUST", "README", "_Rust", "_RNvB_1a_"} {
		if got, ok := Demangle(sym); ok {
			t.Errorf("%q is a symbol: %q", sym, got)
		}
	}
}

func stream(t testing.TB, o Options, text string) string {
	var out bytes.Buffer
	if err := o.Stream(&out, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestStream(t *testing.T) {
	const (
		legacy = "_ZN9backtrace3foo17hbb467fcdaea5d79bE"
		v0     = "_RNvMNtNtNtNtCs8a2262Dv4r_3mio3sys4unix8selector5epollNtB2_8Selector6select"
		v0Path = "<mio::sys::unix::selector::epoll::Selector>::select"
	)
	for _, c := range [][2]string{
		{"", ""},
		{"_ZN3fooE.llvm moocow _ZN3fooE.llvm", "foo.llvm moocow foo.llvm"}, // rustc-demangle's find_multiple
		{"_ZN3fooE.llvm moocow " + v0 + " _ZN3fooE.llvm", "foo.llvm moocow " + v0Path + " foo.llvm"},
		{"  call " + legacy + "@PLT\n", "  call backtrace::foo@PLT\n"},
		{"J∆ƒƒ∆Ǥ" + v0 + "∆ʓ", "J∆ƒƒ∆Ǥ" + v0Path + "∆ʓ"},
		{"\x00\xff" + v0 + "\xfe\x00", "\x00\xff" + v0Path + "\xfe\x00"},
		{legacy + "\t" + v0, "backtrace::foo\t" + v0Path},
		{"see " + legacy + ". Then", "see backtrace::foo. Then"},
		{"at_ZN3foo3barE", "atfoo::bar"}, // as rustfilt
		{"__" + v0[1:] + " __ZN3fooE ZN3foo3barE " + v0[1:], v0Path + " foo foo::bar " + v0Path},
		{"(R" + v0[2:] + ")", "(" + v0Path + ")"},
		{".text." + v0, ".text." + v0Path},
		{".text.__ZN3fooE", ".text.foo"},
		{"a__ZN3fooE", "a_foo"},
		{"_ZN3fooEv _Rubbish _RC0 RC1a RNA RX", "_ZN3fooEv _Rubbish _RC0 RC1a RNA RX"},
		{"RUST README ZN4 RN RYE RIC0E0 fooZN3barE _R _ZN", "RUST README ZN4 RN RYE RIC0E0 fooZN3barE _R _ZN"},
		{"\r\n\r\n", "\r\n\r\n"},
	} {
		if got := stream(t, Options{}, c[0]); got != c[1] {
			t.Errorf("%q\n got %q\nwant %q", c[0], got, c[1])
		}
		var out bytes.Buffer
		if err := (Options{}).Stream(&out, iotest.OneByteReader(strings.NewReader(c[0]))); err != nil || out.String() != c[1] {
			t.Errorf("byte by byte: %q\n got %q, %v\nwant %q", c[0], out.String(), err, c[1])
		}
	}
	if got, want := stream(t, Options{KeepHash: true}, legacy), "backtrace::foo::hbb467fcdaea5d79b"; got != want {
		t.Errorf("with hash: %q", got)
	}
}

// A symbol is found wherever the reader's pieces end, words too long are left
// alone, and what comes after them is not.
func TestStreamPieces(t *testing.T) {
	const sym, path = "_ZN3foo17h05af221e174051e9E", "foo"
	for _, pad := range []int{chunk - 5, chunk, chunk - len(sym), 2*chunk - 1, maxWord + 10} {
		for _, fill := range []string{" ", "x"} {
			text := strings.Repeat(fill, pad) + " " + sym + "\n" + strings.Repeat("y", maxWord+1) + sym + "\n" + sym
			want := strings.Repeat(fill, pad) + " " + path + "\n" + strings.Repeat("y", maxWord+1) + sym + "\n" + path
			if got := stream(t, Options{}, text); got != want {
				t.Errorf("after %d × %q: %d bytes, want %d", pad, fill, len(got), len(want))
			}
		}
	}
}

func TestStreamErrors(t *testing.T) {
	var out bytes.Buffer
	if err := (Options{}).Stream(&out, iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("_ZN3fooE")))); err != iotest.ErrTimeout || out.String() != "_" {
		t.Errorf("%v, %q", err, out.String())
	}
	pr, pw := io.Pipe()
	pr.Close()
	if err := (Options{}).Stream(pw, strings.NewReader("text ")); err != io.ErrClosedPipe {
		t.Errorf("%v", err)
	}
}

func FuzzDemangle(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.sym)
	}
	f.Fuzz(func(t *testing.T, sym string) {
		hide, ok := Demangle(sym)
		keep, ok2 := Options{KeepHash: true}.Demangle(sym)
		if ok != ok2 {
			t.Errorf("a symbol with hash: %v, without: %v", ok2, ok)
		}
		if n := max(len(hide), len(keep)); n > maxSize+len(sizeLimitReached)+len(sym) {
			t.Errorf("%d bytes", n)
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("_ZN3fooE.llvm moocow _ZN3fooE.llvm"))
	f.Add([]byte("RUST README\x00\xff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 256 {
			return
		}
		var whole, pieces bytes.Buffer
		if err := (Options{}).Stream(&whole, bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if err := (Options{}).Stream(&pieces, iotest.OneByteReader(bytes.NewReader(text))); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(whole.Bytes(), pieces.Bytes()) {
			t.Errorf("in one piece %q, in many %q", whole.Bytes(), pieces.Bytes())
		}
		if !bytes.ContainsAny(text, "RZ") && !bytes.Equal(whole.Bytes(), text) {
			t.Errorf("text without symbols changed: %q", whole.Bytes())
		}
	})
}

func BenchmarkDemangle(b *testing.B) {
	var syms []string
	for _, v := range vectors(b) {
		if v.mode == "hide" && len(v.sym) > 40 {
			syms = append(syms, v.sym)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(syms), func(i, j int) { syms[i], syms[j] = syms[j], syms[i] })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Demangle(syms[i%len(syms)])
	}
}
