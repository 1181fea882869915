package session

import (
	"slices"
	"strings"

	"ferrotrace/internal/objfile"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/x86"
)

// symbolText is what a file's symbols tell of its code; it does not know landing pads.
type symbolText struct {
	*objfile.File
	fs []objfile.Symbol
}

func textOf(f *file) user.Text {
	syms, _ := f.ix.File.Symbols()
	s := &symbolText{File: f.ix.File}
	for _, y := range syms {
		if y.Func && y.Size > 0 {
			s.fs = append(s.fs, y)
		}
	}
	slices.SortFunc(s.fs, func(a, b objfile.Symbol) int { return int(int64(a.Addr - b.Addr)) })
	return s
}
func (s *symbolText) FunctionRanges() (r []x86.Range) {
	for _, f := range s.fs {
		r = append(r, x86.Range{Low: f.Addr, High: f.Addr + f.Size})
	}
	return
}
func (s *symbolText) FunctionAt(addr uint64) (parts []x86.Range, targets []uint64, rust, ok bool) {
	for _, f := range s.fs {
		if addr >= f.Addr && addr < f.Addr+f.Size {
			return []x86.Range{{Low: f.Addr, High: f.Addr + f.Size}}, nil, strings.HasPrefix(f.Name, "_R") || strings.HasPrefix(f.Name, "_ZN"), true
		}
	}
	return
}
func (s *symbolText) NoReturn(uint64) bool { return false }
