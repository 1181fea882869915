package session

import (
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/target"
)

// Libraries are the files that a process has mapped beside its own and that Rust code is
// in: their functions are the program's as much as its own are. Each is the path that opens it from
// here, and the process's own.
func Libraries(p *target.Process) (files [][2]string) {
	all, err := p.Libraries()
	if err != nil {
		return nil // it has ended, which is said elsewhere
	}
	for _, l := range all {
		f, err := objfile.Open(l[0])
		if err != nil {
			continue // what can't be opened can't be named
		}
		if f.Rust() {
			files = append(files, l)
		}
		_ = f.Close()
	}
	return files
}
