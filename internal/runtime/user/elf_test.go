package user_test

import (
	"debug/elf"
	"slices"
	"sort"
	"strings"
	"testing"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/x86"
)

// elfText is what a file's symbols tell of its code: it implements user.Text. Landing
// pads it does not know, but where they can be.
type elfText struct {
	file  *elf.File
	path  string
	segs  []segment
	funcs []function
}

type segment struct {
	addr, offset uint64
	data         []byte
	exec         bool
}

type function struct {
	x86.Range
	name string
}

func openText(t testing.TB, path string) *elfText {
	t.Helper()
	x, err := readText(path)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func readText(path string) (*elfText, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x := &elfText{file: f, path: path}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			return nil, err
		}
		x.segs = append(x.segs, segment{p.Vaddr, p.Off, data, p.Flags&elf.PF_X != 0})
	}
	syms, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Size > 0 && s.Section != elf.SHN_UNDEF {
			x.funcs = append(x.funcs, function{x86.Range{Low: s.Value, High: s.Value + s.Size}, s.Name})
		}
	}
	slices.SortFunc(x.funcs, func(a, b function) int { return int(int64(a.Low) - int64(b.Low)) })
	return x, nil
}

func (x *elfText) Bytes(addr uint64) []byte {
	for _, s := range x.segs {
		if addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return s.data[addr-s.addr:]
		}
	}
	return nil
}

func (x *elfText) Addr(offset uint64) (uint64, bool) {
	for _, s := range x.segs {
		if offset >= s.offset && offset-s.offset < uint64(len(s.data)) {
			return s.addr + offset - s.offset, true
		}
	}
	return 0, false
}

func (x *elfText) offset(addr uint64) uint64 {
	for _, s := range x.segs {
		if addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return addr - s.addr + s.offset
		}
	}
	return 0
}

func (x *elfText) FunctionRanges() (rs []x86.Range) {
	for _, f := range x.funcs {
		rs = append(rs, f.Range)
	}
	return rs
}

func (x *elfText) FunctionAt(addr uint64) (parts []x86.Range, targets []uint64, rust, ok bool) {
	i := sort.Search(len(x.funcs), func(i int) bool { return x.funcs[i].Low > addr })
	for i--; i >= 0; i-- {
		if f := x.funcs[i]; f.Contains(addr) {
			return []x86.Range{f.Range}, x.pads(f), f.rust(), true
		} else if addr-f.Low > 1<<20 {
			break
		}
	}
	return nil, nil, false, false
}

// pads are the addresses at which there may be a landing pad: nothing runs into one.
func (x *elfText) pads(f function) (targets []uint64) {
	code, err := x86.NewFunc(x.Bytes, []x86.Range{f.Range}, nil)
	if err != nil {
		return nil
	}
	for _, in := range code.Insts {
		if !in.FallsThrough() || in.Kind == x86.Call || in.Kind == x86.CallIndirect {
			targets = append(targets, in.End())
		}
	}
	return targets
}

// rusts are the functions of Rust.
func (x *elfText) rusts() []function {
	return slices.DeleteFunc(slices.Clone(x.funcs), func(f function) bool { return !f.rust() })
}

func (f function) rust() bool {
	return strings.HasPrefix(f.name, "_R") || strings.HasPrefix(f.name, "_ZN")
}

func (x *elfText) NoReturn(uint64) bool { return false }

// named finds the functions whose symbols contain all of parts.
func (x *elfText) named(parts ...string) (fs []function) {
	for _, f := range x.funcs {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(f.name, p) }) {
			fs = append(fs, f)
		}
	}
	return fs
}

// entries are probes of the first instructions of functions, with the cookies 0, 1, ….
func (x *elfText) entries(program string, fs []function) (ps []runtime.Probe) {
	for i, f := range fs {
		ps = append(ps, runtime.Probe{Path: x.path, Offset: x.offset(f.Low), Cookie: uint64(i), Program: program})
	}
	return ps
}

// exits are probes of the instructions by which functions are left.
func (x *elfText) exits(t testing.TB, program string, fs []function) (ps []runtime.Probe) {
	t.Helper()
	for i, f := range fs {
		code, err := x86.NewFunc(x.Bytes, []x86.Range{f.Range}, nil)
		if err != nil {
			t.Fatal(err)
		}
		all, err := code.Exits()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			ps = append(ps, runtime.Probe{Path: x.path, Offset: x.offset(e.Addr), Cookie: uint64(i), Program: program})
		}
	}
	return ps
}
