package target

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
)

func TestIsLibrary(t *testing.T) {
	for _, c := range []struct {
		file, name string
		want       bool
	}{
		{"libc.so.6", "libc", true},
		{"libc.so.6", "libc.so", true},
		{"libc.so.6", "libc.so.6", true},
		{"libc-2.31.so", "libc", true},
		{"libc.so", "libc", true},
		{"libc++.so.1", "libc", false},
		{"libcrypt.so.1", "libc", false},
		{"libc.so.66", "libc.so.6", false},
		{"libc.sock", "libc", false},
		{"libc-client.so", "libc", false},
	} {
		if got := IsLibrary(c.file, c.name); got != c.want {
			t.Errorf("IsLibrary(%s, %s) = %t", c.file, c.name, got)
		}
	}
}

// cacheOf makes a cache of ldconfig with the paths.
func cacheOf(flags int32, paths ...string) []byte {
	b := make([]byte, 48+24*len(paths))
	copy(b, "glibc-ld.so.cache1.1")
	binary.LittleEndian.PutUint32(b[20:], uint32(len(paths)))
	for i, p := range paths {
		e := b[48+24*i:]
		binary.LittleEndian.PutUint32(e, uint32(flags))
		binary.LittleEndian.PutUint32(e[8:], uint32(len(b)))
		b = append(append(b, p...), 0)
	}
	return b
}

func TestCached(t *testing.T) {
	want := []string{"/lib/a.so.1", "/lib/b.so"}
	if got := cached(cacheOf(0x0303, want...)); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := cached(append([]byte("ld.so-1.7.0 and what belongs to it, "), cacheOf(0x0303, want...)...)); !slices.Equal(got, want) {
		t.Errorf("behind the old form: %q, want %q", got, want)
	}
	if got := cached(cacheOf(3, want...)); got != nil {
		t.Errorf("of another machine: %q", got)
	}
}

func FuzzCached(f *testing.F) {
	f.Add(cacheOf(0x0303, "/lib/a.so.1"))
	f.Fuzz(func(t *testing.T, b []byte) { cached(b) })
}

func TestLibrary(t *testing.T) {
	path, err := Library("libc")
	if err != nil {
		t.Skip("skipped: no C library is installed: ", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if _, err := Library("libno-such-library"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
