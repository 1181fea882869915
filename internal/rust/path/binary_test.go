package path

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/rust/demangle"
)

// Every symbol of real programs is a path, and its text keeps what it promises.
func TestBinaries(t *testing.T) {
	var files []string
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		files = append(files, strings.TrimSpace(string(out)))
	}
	if out, err := exec.Command("rustc", "--print", "sysroot").Output(); err == nil && !testing.Short() {
		libs, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "lib", "librustc_driver-*.so"))
		files = append(files, libs...)
	}
	if len(files) == 0 {
		t.Skip("no cargo, no rustc: no Rust binary to read")
	}
	for _, file := range files {
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		static, _ := f.Symbols()
		dynamic, _ := f.DynamicSymbols()
		f.Close()
		parsed, failed := 0, 0
		for _, sym := range append(static, dynamic...) {
			name, ok := demangle.Demangle(sym.Name)
			if !ok {
				continue
			}
			if _, err := Parse(name); err != nil {
				if failed++; failed < 10 {
					t.Error(err)
				}
				continue
			}
			parsed++
			checkCanonical(t, name)
		}
		t.Logf("%s: parsed %d paths, failed on %d", filepath.Base(file), parsed, failed)
	}
}
