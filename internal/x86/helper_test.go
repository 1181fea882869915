package x86

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// image is a program's mapped bytes and its symbols.
type image struct {
	segs []segment
	syms map[string]Range
}

type segment struct {
	addr uint64
	data []byte
	exec bool
}

func (m *image) code(addr uint64) []byte {
	for _, s := range m.segs {
		if addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return s.data[addr-s.addr:]
		}
	}
	return nil
}

func (m *image) sym(t *testing.T, name string) Range {
	t.Helper()
	r, ok := m.syms[name]
	if !ok {
		t.Fatalf("no symbol %s", name)
	}
	return r
}

func openImage(t testing.TB, file string) *image {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := &image{syms: map[string]Range{}}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		m.segs = append(m.segs, segment{p.Vaddr, data, p.Flags&elf.PF_X != 0})
	}
	syms, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		t.Fatal(err)
	}
	sort.Slice(syms, func(i, j int) bool { return syms[i].Value < syms[j].Value })
	for _, s := range syms {
		if int(s.Section) >= len(f.Sections) || s.Name == "" || elf.ST_TYPE(s.Info) == elf.STT_TLS {
			continue
		}
		m.syms[s.Name] = Range{s.Value, s.Value + s.Size}
	}
	return m
}

// assemble links an assembler source without libraries. Symbols that are to be
// found need .type and .size, which FUNC and END give.
func assemble(t testing.TB, src string) *image {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("cc is missing: the sources of this test can't be assembled")
	}
	dir := t.TempDir()
	s := filepath.Join(dir, "a.s")
	text := `
.macro FUNC name
.globl \name
.type \name, @function
\name:
.endm
.macro END name
.size \name, .-\name
.endm
.text
` + src + "\n"
	if err := os.WriteFile(s, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "a")
	cmd := exec.Command(cc, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-e,0", "-o", out, s)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, b)
	}
	return openImage(t, out)
}

// newFunc decodes the function of the given symbols; those that end in .cold
// are parts too.
func (m *image) newFunc(t testing.TB, names ...string) *Func {
	t.Helper()
	var parts []Range
	for _, n := range names {
		r, ok := m.syms[n]
		if !ok {
			t.Fatalf("no symbol %s", n)
		}
		parts = append(parts, r)
	}
	f, err := NewFunc(m.code, parts, NoReturn(m.code))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// label returns the address of a symbol.
func (m *image) label(t *testing.T, name string) uint64 { return m.sym(t, name).Low }

// names turns addresses into symbol names, for messages.
func (m *image) names(addrs ...uint64) string {
	var out []string
	for _, a := range addrs {
		name := "?"
		for n, r := range m.syms {
			if r.Low == a && (name == "?" || len(n) < len(name)) {
				name = n
			}
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}
