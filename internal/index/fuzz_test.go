package index

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzIndex damages a small program: whatever its headers, debug info, call frames and
// code say, an index of it ends, in an error or with plans, and does not panic.
func FuzzIndex(f *testing.F) {
	for _, name := range []string{"sites-debug.elf", "sites-release.elf"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint(0), byte(0), uint(0), byte(0))
		for at := uint(0); at < uint(len(b)); at += 997 {
			f.Add(b, at, byte(0xff), at*7%uint(len(b)), byte(0x41))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte, at1 uint, to1 byte, at2 uint, to2 byte) {
		if len(b) == 0 || len(b) > 1<<20 {
			return
		}
		b = append([]byte(nil), b...)
		b[at1%uint(len(b))] = to1
		b[at2%uint(len(b))] = to2
		file, err := os.CreateTemp(dir, "elf")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		ix, err := Open(file.Name(), "")
		if err != nil {
			return
		}
		defer ix.Close()
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
			ix.Text().FunctionAt(r.High - 1)
		}
		ix.PanicSites()
		ix.NoMatch("shop::cart::add")
	})
}
