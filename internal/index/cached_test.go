package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/index/store"
)

// everythingOf is all that an index says of its functions.
func everythingOf(t *testing.T, ix *Index) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintln(&b, ix.Problem, ix.Level(), ix.Lack())
	begin, land := ix.PanicSites()
	fmt.Fprintln(&b, begin, land)
	for i, f := range ix.Functions() {
		out, in := f.Counts()
		fmt.Fprintln(&b, f.Name, f.Rust, f.File, f.Line, f.Aliases, f.Ambiguous, out, in)
		params, result, ok := f.Signature()
		fmt.Fprintln(&b, len(params), result != nil, ok)
		instances, err := f.Instances()
		fmt.Fprintln(&b, err)
		for _, in := range instances {
			fmt.Fprintln(&b, in.Inlined, in.Ranges, in.Symbol, in.Outer.Low(), in.Outer.Fn.Name, in.Caller, in.File, in.Line, in.entry, in.origin)
			if i%50 == 0 {
				p, err := in.Plan()
				if fmt.Fprint(&b, err); p != nil {
					fmt.Fprint(&b, p.Entries, p.Exits, p.Exact)
				}
			}
		}
	}
	for _, text := range []string{"main", "fmt", "std::*::drop", "Formatter::pad", "<* as Debug>::fmt", "str", "u8", "{closure#0}", "/panic/", "no::such"} {
		p, err := ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, text, namesOf(ix.Find(p)))
	}
	fmt.Fprintln(&b, ix.NoMatch("flow::plan::hto"))
	for _, r := range ix.Text().FunctionRanges() {
		parts, targets, rust, ok := ix.Text().FunctionAt(r.Low)
		fmt.Fprintln(&b, r, parts, targets, rust, ok)
	}
	return b.String()
}

// cached opens a file with a cache.
func cached(t *testing.T, d *store.Dir, file, debugFile string) *Index {
	t.Helper()
	ix, err := OpenContext(context.Background(), file, Options{DebugFile: debugFile, Cache: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	return ix
}

func cacheAll(t *testing.T) *store.Dir {
	before := minCached
	minCached = 0
	t.Cleanup(func() { minCached = before })
	return &store.Dir{Path: filepath.Join(t.TempDir(), "index"), Limit: store.Limit}
}

// TestCached: an index from the cache says what one that has read the file says.
func TestCached(t *testing.T) {
	d := cacheAll(t)
	dir := t.TempDir()
	separate := func() (string, string) {
		whole := fixture.Build(t, "flow", fixture.Release)
		debug := filepath.Join(dir, "flow.debug")
		tool(t, "objcopy", "--only-keep-debug", whole, debug)
		tool(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, whole, filepath.Join(dir, "linked"))
		tool(t, "objcopy", "--strip-all", whole, filepath.Join(dir, "bare"))
		return filepath.Join(dir, "linked"), debug
	}
	linked, debug := separate()
	for _, c := range []struct{ name, file, debug string }{
		{"debug", fixture.Build(t, "flow", fixture.Debug), ""},
		{"lto", fixture.Build(t, "flow", fixture.LTO), ""},
		{"v0", fixture.Build(t, "flow", fixture.ReleaseV0), ""},
		{"symbols only", fixture.Build(t, "flow", fixture.Plain), ""},
		{"lines only", fixture.Build(t, "flow", fixture.Limited), ""},
		{"stripped", fixture.Build(t, "flow", fixture.Stripped), ""},
		{"packed", fixture.Build(t, "flow", fixture.Packed), ""},
		{"unpacked", fixture.Build(t, "flow", fixture.Unpacked), ""},
		{"linked", linked, ""},
		{"debug file", filepath.Join(dir, "bare"), debug},
	} {
		t.Run(c.name, func(t *testing.T) {
			plain, err := Open(c.file, c.debug)
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			want := everythingOf(t, plain)
			for i := range 2 {
				ix := cached(t, d, c.file, c.debug)
				// By a pattern first, before all have names.
				p, _ := ParsePattern("main")
				found := namesOf(ix.Find(p))
				if want := namesOf(plain.Find(p)); !slices.Equal(found, want) {
					t.Errorf("time %d: main is %q, want %q", i, found, want)
				}
				if got := everythingOf(t, ix); got != want {
					t.Errorf("time %d: other answers: %s", i, difference(got, want))
				}
				if err := ix.Uncached(); err != nil || ix.Cached() != (i > 0) {
					t.Errorf("time %d: cached: %v, %v", i, ix.Cached(), err)
				}
				ix.Close()
			}
		})
	}
}

func difference(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(la), len(lb)) {
		if la[i] != lb[i] {
			return fmt.Sprintf("line %d:\n%s\n%s", i, la[i], lb[i])
		}
	}
	return fmt.Sprintf("%d lines and %d", len(la), len(lb))
}

// TestCachedOfAnother: what the cache has of another file of the same build id, or of the
// same file at another time, is not used.
func TestCachedOfAnother(t *testing.T) {
	d := cacheAll(t)
	file := copied(t, fixture.Build(t, "flow", fixture.Release), filepath.Join(t.TempDir(), "flow"))
	use := func(what, file, debug string, want bool) {
		t.Helper()
		ix := cached(t, d, file, debug)
		ix.Functions()
		if ix.Cached() != want {
			t.Errorf("%s: cached: %v", what, ix.Cached())
		}
		if err := ix.Uncached(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		ix.Close()
	}
	use("new", file, "", false)
	use("again", file, "", true)
	bare := file + ".bare"
	tool(t, "objcopy", "--strip-debug", file, bare)
	use("stripped", bare, "", false)
	use("stripped again", bare, "", true)
	use("with its debug info", bare, file, false)
	copied(t, file, file)
	use("written again", bare, file, false)

	// What cannot be kept does no harm.
	if err := os.RemoveAll(d.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ix := cached(t, d, file, "")
	if len(ix.Functions()) == 0 || ix.Cached() || ix.Uncached() == nil {
		t.Errorf("%d functions, cached: %v, %v", len(ix.Functions()), ix.Cached(), ix.Uncached())
	}
}

// aligned is a copy of a section as the store has it.
func aligned(b []byte) []byte {
	words := make([]uint64, len(b)/8+1)
	return append(raw(words)[:0], b...)
}

// encoded are the sections of a small file's index.
func encoded(t testing.TB, file string) [][]byte {
	t.Helper()
	ix, err := Open(file, "")
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	sections, err := ix.encode()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sections {
		sections[i] = bytes.Clone(s)
	}
	return sections
}

// FuzzCache damages the sections of a cached file: what is taken of them does not make an
// index panic, nor not end. What is damaged on disk does not get as far: its checksum is
// wrong.
func FuzzCache(f *testing.F) {
	file := filepath.Join("testdata", "sites-debug.elf")
	good := encoded(f, file)
	f.Add([]byte{})
	// An edit is the number of a section, a place in it, what to do, and a value.
	r := rand.New(rand.NewPCG(1, 2))
	for i, s := range good {
		for range 8 {
			e := []byte{byte(i), 0, 0, byte(r.IntN(4)), 0, 0, 0, 0}
			binary.LittleEndian.PutUint16(e[1:], uint16(r.IntN(len(s)+1)))
			binary.LittleEndian.PutUint32(e[4:], uint32(r.IntN(20)-2))
			f.Add(e)
		}
	}
	f.Fuzz(func(t *testing.T, edits []byte) {
		sections := make([][]byte, len(good))
		for i, s := range good {
			sections[i] = aligned(s)
		}
		for ; len(edits) >= 8; edits = edits[8:] {
			s := &sections[int(edits[0])%len(sections)]
			at := min(int(binary.LittleEndian.Uint16(edits[1:])), len(*s))
			if edits[3]&0x80 != 0 {
				*s = (*s)[:at]
				continue
			}
			value := binary.LittleEndian.AppendUint64(nil, uint64(int64(int32(binary.LittleEndian.Uint32(edits[4:])))))
			copy((*s)[at:], value[:1<<(edits[3]&3)])
		}
		ix, err := Open(file, "")
		if err != nil {
			t.Fatal(err)
		}
		defer ix.Close()
		if !ix.take(sections) {
			return
		}
		for _, text := range []string{"main", "*", "sites::looped"} {
			p, err := ParsePattern(text)
			if err != nil {
				t.Fatal(err)
			}
			ix.Find(p)
		}
		for i, fn := range ix.Functions() {
			if i == 100 {
				break
			}
			fn.Signature()
			instances, err := fn.Instances()
			if err != nil {
				continue
			}
			for j, in := range instances {
				if j == 20 {
					break
				}
				_, _ = in.Plan()
			}
		}
		for _, r := range ix.Text().FunctionRanges() {
			ix.Text().FunctionAt(r.Low)
		}
		ix.NoMatch("shop::cart::add")
	})
}
