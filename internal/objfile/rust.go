package objfile

import (
	"bytes"
	"slices"
	"strings"
)

// Rust reports whether a Rust compiler has made some of the file's code: it says so in
// .comment, as later ones do, or by the names of functions, mangled as only Rust does.
func (f *File) Rust() bool {
	if b, err := f.Section(".comment"); err == nil && bytes.Contains(b, []byte("rustc version ")) {
		return true
	}
	symbols, err := f.Symbols()
	return err == nil && slices.ContainsFunc(symbols, func(s Symbol) bool { return s.Func && mangled(s.Name) })
}

// mangled recognises RFC 2603's names, and legacy ones by their hash.
func mangled(name string) bool {
	if rest, ok := strings.CutPrefix(name, "_R"); ok {
		return rest != "" && (rest[0] >= 'A' && rest[0] <= 'Z')
	}
	const hash = "17h0123456789abcdefE"
	return strings.HasPrefix(name, "_ZN") && len(name) > len(hash) && strings.HasPrefix(name[len(name)-len(hash):], "17h") && strings.HasSuffix(name, "E")
}
