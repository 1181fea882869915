package index

import "bytes"

// gnu says whether the program's C library is glibc: whether the file asks for versions
// of its symbols, or has its table of messages linked into it.
func (ix *Index) gnu() bool {
	section, mark := ".dynstr", "\x00GLIBC_2."
	if ix.File.Static() {
		section, mark = ".strtab", "\x00_sys_errlist_internal\x00"
	}
	b, err := ix.File.Section(section)
	return err == nil && bytes.Contains(b, []byte(mark))
}
