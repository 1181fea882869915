package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ferrotrace/internal/dwarf"
)

const program = `
#include <stdio.h>
__attribute__((noinline)) int twice(int x) { return 2 * x; }
__attribute__((noinline)) static int thrice(int x) { return 3 * x; }
__attribute__((noinline)) static int hidden(int x) { return 4 * x; }
int (*volatile const table[])(int) = { twice, thrice };
int main(int argc, char **argv) { printf("%d\n", table[argc & 1](argc) + hidden(argc)); return 0; }
`

// compile builds the program with a C compiler and the flags given.
func compile(t testing.TB, flags ...string) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	dir := t.TempDir()
	src, out := filepath.Join(dir, "program.c"), filepath.Join(dir, "program")
	if err := os.WriteFile(src, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-g", "-O1", "-o", out, src, "-Wl,--build-id=sha1"}, flags...)
	if slices.Contains(flags, "-fuse-ld=lld") {
		// rustc brings its own lld.
		if root, err := exec.Command("rustc", "--print", "sysroot").Output(); err == nil {
			args = append(args, "-B"+filepath.Join(strings.TrimSpace(string(root)), "lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld"))
		}
	}
	if msg, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Skipf("gcc %v: %v\n%s", flags, err, msg)
	}
	return out
}

func mustOpen(t testing.TB, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func function(t testing.TB, f *File, name string) Symbol {
	t.Helper()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(syms, func(s Symbol) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no symbol %s", name)
	}
	return syms[i]
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		name        string
		flags       []string
		pie, static bool
	}{
		{"pie", []string{"-pie", "-fPIE"}, true, false},
		{"non-PIE", []string{"-no-pie", "-fno-pie"}, false, false},
		{"static", []string{"-static", "-no-pie"}, false, true},
		{"static-pie", []string{"-static-pie", "-fPIE"}, true, true},
		{"packed relocations", []string{"-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"}, true, false},
		{"one segment", []string{"-no-pie", "-fno-pie", "-Wl,-z,noseparate-code"}, false, false},
		{"lld", []string{"-pie", "-fPIE", "-fuse-ld=lld"}, true, false},
		{"lld, packed relocations", []string{"-pie", "-fPIE", "-fuse-ld=lld", "-Wl,--pack-dyn-relocs=relr"}, true, false},
		{"library", []string{"-shared", "-fPIC"}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := compile(t, c.flags...)
			f := mustOpen(t, path)
			if f.PIE() != c.pie || f.Static() != c.static || f.Path != path {
				t.Errorf("PIE %v, static %v", f.PIE(), f.Static())
			}
			if (f.Interp() == "") != (c.static || c.name == "library") {
				t.Errorf("interpreter %q", f.Interp())
			}
			if len(f.BuildID()) != 20 {
				t.Errorf("build-id %x", f.BuildID())
			}
			if out, err := exec.Command("readelf", "-n", path).Output(); err == nil {
				if m := regexp.MustCompile(`Build ID: ([0-9a-f]+)`).FindSubmatch(out); m != nil && string(m[1]) != hex.EncodeToString(f.BuildID()) {
					t.Errorf("build-id %x, not %s", f.BuildID(), m[1])
				}
			}
			if c.name != "library" && !f.Executable(f.Entry()) {
				t.Errorf("entry %#x", f.Entry())
			}
			if !f.HasDWARF() || !f.HasSymtab() || f.Stripped() {
				t.Error("no debug info")
			}
			main := function(t, f, "main")
			if !main.Func || !main.Global || main.Size == 0 || main.Dynamic {
				t.Errorf("%+v", main)
			}
			off, ok := f.FileOffset(main.Addr)
			if !ok {
				t.Fatal("main is not in the file")
			}
			if addr, ok := f.Addr(off); !ok || addr != main.Addr {
				t.Errorf("offset %#x is address %#x", off, addr)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b := f.Bytes(main.Addr); uint64(len(b)) < main.Size || !bytes.Equal(b[:main.Size], raw[off:off+main.Size]) {
				t.Error("other bytes of main than in the file")
			}
			for name, want := range map[string]bool{"twice": true, "thrice": true, "hidden": false} {
				if s := function(t, f, name); f.AddressTaken(s.Addr) != want {
					t.Errorf("address of %s taken: %v", name, !want)
				}
			}
			if strings.Contains(c.name, "packed") && f.dynamic()[dtRELR] == 0 {
				t.Error("no packed relocations")
			}
			if c.flags[len(c.flags)-1] == "-fuse-ld=lld" && off == main.Addr {
				t.Error("lld's addresses are file offsets: nothing is tested")
			}
			if f.AddressTaken(main.Addr + 1) {
				t.Error("address within main taken")
			}
			if addr, b, ok := f.SectionAddr(".text"); !ok || !f.Executable(addr) || len(b) == 0 {
				t.Error("no .text")
			}
			checkAgainstGo(t, f, path)
		})
	}
}

// checkAgainstGo compares symbols and sections with those that debug/elf reads.
func checkAgainstGo(t *testing.T, f *File, path string) {
	t.Helper()
	g, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	gs, err := g.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		gs, err = g.DynamicSymbols()
		if errors.Is(err, elf.ErrNoSymbols) {
			err = nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, s := range gs {
		typ := elf.ST_TYPE(s.Info)
		if s.Section != elf.SHN_UNDEF && s.Name != "" && f.Executable(s.Value) &&
			(typ == elf.STT_FUNC || typ == elf.STT_NOTYPE || typ == elf.STT_GNU_IFUNC) {
			want[s.Name+strconv.FormatUint(s.Value, 16)+"+"+strconv.FormatUint(s.Size, 16)]++
		}
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, s := range syms {
		if i > 0 && syms[i-1].Addr > s.Addr {
			t.Fatal("symbols are not sorted")
		}
		name := s.Name
		if at := strings.Index(name, "@"); at > 0 && s.Dynamic {
			name = name[:at]
		}
		key := name + strconv.FormatUint(s.Addr, 16) + "+" + strconv.FormatUint(s.Size, 16)
		if want[key] == 0 {
			t.Fatalf("Go has no %+v", s)
		}
		want[key]--
		n++
	}
	for k, left := range want {
		if left != 0 {
			t.Fatalf("only Go has %s", k)
		}
	}
	if n == 0 && len(gs) > 0 {
		t.Log("no symbols")
	}
	var code []CodeSection
	for _, s := range g.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Type != elf.SHT_NOBITS {
			code = append(code, CodeSection{s.Name, s.Addr, s.Addr + s.Size})
		}
	}
	if got := f.CodeSections(); !slices.Equal(got, code) {
		t.Errorf("sections of code %+v, Go %+v", got, code)
	}
	for _, s := range g.Sections {
		if s.Type == elf.SHT_NOBITS || s.Type == elf.SHT_NULL {
			continue
		}
		b, err := f.Section(s.Name)
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, w) && g.Section(s.Name) == s {
			t.Errorf("section %s: %d bytes, Go %d", s.Name, len(b), len(w))
		}
	}
}

func TestCompressed(t *testing.T) {
	plain := compile(t)
	want, err := mustOpen(t, plain).Section(".debug_info")
	if err != nil || len(want) == 0 {
		t.Fatal(err)
	}
	for _, how := range []string{"zlib-gabi", "zlib-gnu", "zstd"} {
		t.Run(how, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "compressed")
			msg, err := exec.Command("objcopy", "--compress-debug-sections="+how, plain, out).CombinedOutput()
			if err != nil {
				llvm, lookErr := exec.LookPath("llvm-objcopy")
				if lookErr != nil {
					t.Skipf("objcopy: %v\n%s", err, msg)
				}
				if msg, err := exec.Command(llvm, "--compress-debug-sections="+how, plain, out).CombinedOutput(); err != nil {
					t.Skipf("llvm-objcopy: %v\n%s", err, msg)
				}
			}
			f := mustOpen(t, out)
			got, err := f.Section(".debug_info")
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, not %d: %v", len(got), len(want), err)
			}
			if !f.HasDWARF() {
				t.Error("no DWARF")
			}
			s, err := f.DWARF()
			if err != nil {
				t.Fatal(err)
			}
			d, err := dwarf.New(s)
			if err != nil || len(d.Units()) == 0 {
				t.Fatal(err)
			}
		})
	}
}

func TestZstd(t *testing.T) {
	head := make([]byte, 24)
	binary.LittleEndian.PutUint32(head, uint32(elf.COMPRESS_ZSTD))
	// A frame with one raw block: RFC 8878 §3.1.
	raw := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 5, 5<<3 | 1, 0, 0, 'h', 'e', 'l', 'l', 'o'}
	binary.LittleEndian.PutUint64(head[8:], 5)
	if b, err := inflate(append(slices.Clone(head), raw...)); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	binary.LittleEndian.PutUint64(head[8:], 6)
	if b, err := inflate(append(slices.Clone(head), raw...)); !errors.Is(err, ErrFormat) {
		t.Errorf("a shorter frame: %q, %v", b, err)
	}
	// A block of 128 kB out of one byte, over and over: more than the header says.
	bomb := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58}
	for range 1000 {
		bomb = append(bomb, 0x02, 0x00, 0x10, 'x')
	}
	binary.LittleEndian.PutUint64(head[8:], 10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := inflate(append(slices.Clone(head), bomb...))
	runtime.ReadMemStats(&after)
	if len(b) > 10 || after.TotalAlloc-before.TotalAlloc > 32<<20 {
		t.Errorf("%d bytes, %v, %d allocated", len(b), err, after.TotalAlloc-before.TotalAlloc)
	}
	binary.LittleEndian.PutUint32(head, 77)
	if _, err := inflate(append(slices.Clone(head), raw...)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	binary.LittleEndian.PutUint32(head, uint32(elf.COMPRESS_ZLIB))
	binary.LittleEndian.PutUint64(head[8:], 1<<31)
	if _, err := inflate(append(slices.Clone(head), raw...)); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	header := func(class elf.Class, order elf.Data, m elf.Machine) []byte {
		b := make([]byte, 64)
		copy(b, elf.ELFMAG)
		b[4], b[5], b[6] = byte(class), byte(order), 1
		if order == elf.ELFDATA2MSB {
			binary.BigEndian.PutUint16(b[18:], uint16(m))
		} else {
			binary.LittleEndian.PutUint16(b[18:], uint16(m))
		}
		return b
	}
	sections := header(elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64)
	binary.LittleEndian.PutUint64(sections[40:], 1000)
	binary.LittleEndian.PutUint16(sections[58:], 64)
	binary.LittleEndian.PutUint16(sections[60:], 3)
	for _, c := range []struct {
		path string
		want error
		text string
	}{
		{filepath.Join(dir, "none"), os.ErrNotExist, "none"},
		{dir, ErrNotELF, dir},
		{write("empty", nil), ErrNotELF, "empty"},
		{write("script", []byte("#!/bin/sh\necho\n")), ErrNotELF, "script"},
		{write("magic", []byte(elf.ELFMAG)), ErrTruncated, "magic"},
		{write("arm", header(elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_AARCH64)), ErrArch, "aarch64"},
		{write("i386", header(elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_386)), ErrArch, "i386"},
		{write("x32", header(elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_X86_64)), ErrArch, "x32"},
		{write("s390", header(elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_S390)), ErrArch, "s390x"},
		{write("short", header(elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64)[:40]), ErrTruncated, "short"},
		{write("sections", sections), ErrTruncated, "sections"},
	} {
		f, err := Open(c.path)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, not %v", c.path, err, c.want)
		}
	}
	if exec.Command("mkfifo", filepath.Join(dir, "pipe")).Run() == nil {
		if _, err := Open(filepath.Join(dir, "pipe")); !errors.Is(err, ErrNotELF) {
			t.Errorf("pipe: %v", err)
		}
	}
	// A program cut anywhere is refused or read, never wrong.
	whole, err := os.ReadFile(compile(t))
	if err != nil {
		t.Fatal(err)
	}
	path := write("half", whole[:len(whole)/2])
	if _, err := Open(path); !errors.Is(err, ErrTruncated) {
		t.Errorf("half a program: %v", err)
	}
}

func TestStripped(t *testing.T) {
	path := compile(t)
	dir := t.TempDir()
	stripped, debug := filepath.Join(dir, "stripped"), filepath.Join(dir, "program.debug")
	if msg, err := exec.Command("objcopy", "--only-keep-debug", path, debug).CombinedOutput(); err != nil {
		t.Skipf("objcopy: %v\n%s", err, msg)
	}
	if msg, err := exec.Command("objcopy", "--strip-all", "--add-gnu-debuglink="+debug, path, stripped).CombinedOutput(); err != nil {
		t.Fatalf("objcopy: %v\n%s", err, msg)
	}
	f := mustOpen(t, stripped)
	if f.HasDWARF() || f.HasSymtab() || !f.Stripped() {
		t.Error("not stripped")
	}
	if name, crc := f.Debuglink(); name != "program.debug" || crc == 0 {
		t.Errorf("debuglink %q %#x", name, crc)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if !s.Dynamic {
			t.Errorf("%+v", s)
		}
	}
	g := mustOpen(t, debug)
	if !g.HasDWARF() || !bytes.Equal(g.BuildID(), f.BuildID()) {
		t.Error("the debug file does not fit")
	}
	if b := g.Bytes(function(t, g, "main").Addr); b != nil && bytes.Equal(b, f.Bytes(function(t, g, "main").Addr)) {
		t.Log("the debug file has code")
	}
}

// FuzzOpen reads all that a File offers, of any bytes.
func FuzzOpen(f *testing.F) {
	for _, path := range []string{compile(f), compile(f, "-static-pie", "-fPIE"), "/bin/true"} {
		b, err := os.ReadFile(path)
		if err == nil && len(b) < 64<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := parse(b)
		if err != nil {
			return
		}
		for _, addr := range []uint64{0, file.Entry(), ^uint64(0)} {
			file.Bytes(addr)
			file.Executable(addr)
			file.AddressTaken(addr)
			if off, ok := file.FileOffset(addr); ok {
				if off >= uint64(len(b)) {
					t.Fatalf("offset %#x of %#x", off, len(b))
				}
				file.Addr(off)
			}
		}
		for _, s := range file.Segments() {
			if s.FileSize > 0 && file.Bytes(s.Addr) == nil {
				t.Fatalf("no bytes of %+v", s)
			}
		}
		_, _ = file.Symbols()
		_, _, _ = file.BuildID(), file.Interp(), file.Static()
		_, _ = file.Debuglink()
		if s, err := file.DWARF(); err == nil {
			_, _ = dwarf.New(s)
		}
	})
}
