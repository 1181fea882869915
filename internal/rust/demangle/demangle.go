// Package demangle turns the symbols that rustc writes into the paths they
// name, and replaces such symbols inside any text.
//
// Both schemes are read: the legacy one (an Itanium-like list of length-prefixed
// elements that ends in a hash) and v0 (RFC 2603). What is printed is what the
// rustc-demangle crate prints, to the letter, its limits included: `{:#}`
// without hashes, `{}` with them.
package demangle

import (
	"strings"
	"sync"
)

// maxSize is how many bytes the path of one symbol may have, as in
// rustc-demangle: back-references let a short v0 symbol name an exponentially
// long path.
const maxSize = 1_000_000

const sizeLimitReached = "{size limit reached}"

// Options says how symbols are printed. The zero value hides hashes.
type Options struct {
	// KeepHash prints what tells apart equal paths: the hash of a legacy
	// symbol (`::h05af221e174051e9`), the crate disambiguators of a v0 symbol
	// (`core[846817f741e54dfd]`), and the types of its integer constants (`3usize`).
	KeepHash bool
}

// Demangle returns the path that a Rust symbol names, as rustc-demangle's {:#}
// prints it (without hash), and whether sym is a Rust symbol.
func Demangle(sym string) (string, bool) { return Options{}.Demangle(sym) }

// Demangle is like the function Demangle, under the options o. The result has
// at most about a million bytes, and parts that cannot be decoded stand in it
// as `{invalid syntax}`, `{recursion limit reached}` or `?`.
func (o Options) Demangle(sym string) (string, bool) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	out, ok := o.append((*buf)[:0], sym)
	if cap(out) <= 16<<10 { // what is larger is rare, and not worth keeping
		*buf = out
	}
	if !ok {
		return "", false
	}
	return string(out), true
}

// buffers holds what paths are built in, so that the only allocation is the
// result's.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// append appends the path of sym to dst. If sym is no Rust symbol, the result
// is dst, whose spare capacity may have been written to.
func (o Options) append(dst []byte, sym string) ([]byte, bool) {
	sym = trimLLVM(sym)
	var (
		out    []byte
		suffix string
		ok     bool
	)
	switch {
	case strings.HasPrefix(sym, "_ZN"):
		out, suffix, ok = appendLegacy(dst, sym[3:], o.KeepHash)
	case strings.HasPrefix(sym, "ZN"): // Windows: dbghelp strips the underscore
		out, suffix, ok = appendLegacy(dst, sym[2:], o.KeepHash)
	case strings.HasPrefix(sym, "__ZN"): // macOS adds one
		out, suffix, ok = appendLegacy(dst, sym[4:], o.KeepHash)
	case strings.HasPrefix(sym, "_R"):
		out, suffix, ok = appendV0(dst, sym[2:], o.KeepHash)
	case strings.HasPrefix(sym, "R"):
		out, suffix, ok = appendV0(dst, sym[1:], o.KeepHash)
	case strings.HasPrefix(sym, "__R"):
		out, suffix, ok = appendV0(dst, sym[3:], o.KeepHash)
	}
	// LLVM and linkers append words after a period (.cold, .warm, .0,
	// .exit.i.i): they are kept, as rustc-demangle keeps them.
	if !ok || suffix != "" && (suffix[0] != '.' || !isGraphic(suffix)) {
		return dst, false
	}
	return append(out, suffix...), true
}

// trimLLVM takes off the ".llvm.9D1C9369" that ThinLTO appends to a local
// symbol it has made global. A version ("@@16") may follow it.
func trimLLVM(sym string) string {
	const mark = ".llvm."
	i := strings.Index(sym, mark)
	if i < 0 {
		return sym
	}
	for _, c := range []byte(sym[i+len(mark):]) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') && c != '@' {
			return sym
		}
	}
	return sym[:i]
}

// isGraphic reports whether s is of visible ASCII characters only.
func isGraphic(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
