package index

import (
	"strings"

	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/x86"
)

// noReturn says whether the function at an address, or the one that a call through the
// word there goes to, never returns: the debug info of it, its name, or its code tell.
// Without that the code behind a call of a panic would count as reached from there.
func (ix *Index) noReturn(addr uint64) bool {
	if !ix.File.Executable(addr) {
		s, ok := ix.File.SlotAt(addr)
		if !ok {
			return false
		}
		if s.Import != "" {
			return neverReturns(s.Import)
		}
		addr = s.Target
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.never == nil {
		ix.never = map[uint64]bool{}
		for i := range ix.subs.all {
			s := &ix.subs.all[i]
			if s.low != 0 && ix.isNoreturn(s) {
				ix.never[s.low] = true
			}
		}
		ix.code = x86.NoReturn(ix.File.Bytes)
	}
	never, ok := ix.never[addr]
	if !ok {
		never = neverReturns(ix.symbolAt(addr)) || ix.code(addr)
		ix.never[addr] = never
	}
	return never
}

// isNoreturn says whether a subprogram or what it refers to is marked as one
// that does not return.
func (ix *Index) isNoreturn(s *subprogram) bool {
	for range maxRefs {
		if s == nil {
			return false
		}
		if s.flags&subNoreturn != 0 {
			return true
		}
		s = ix.subs.at(s.ref)
	}
	return false
}

// neverReturns knows the functions by name that end a path of many functions.
func neverReturns(symbol string) bool {
	switch symbol {
	case "":
		return false
	case "abort", "exit", "_exit", "_Exit", "_Unwind_Resume", "__stack_chk_fail", "longjmp", "siglongjmp", "__cxa_rethrow", "pthread_exit":
		return true
	}
	name, ok := demangle.Demangle(symbol)
	if !ok {
		return false
	}
	for _, prefix := range []string{"core::panicking::", "std::panicking::begin_panic", "core::option::unwrap_failed",
		"core::option::expect_failed", "core::result::unwrap_failed", "core::slice::index::slice_", "core::str::slice_error_fail",
		"core::cell::panic_already_", "alloc::alloc::handle_alloc_error", "alloc::raw_vec::capacity_overflow",
		"alloc::raw_vec::handle_error", "std::process::abort", "std::process::exit"} {
		if strings.HasPrefix(name, prefix) {
			return !strings.Contains(name, "{closure")
		}
	}
	return false
}
