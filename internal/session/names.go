package session

import "golang.org/x/sys/unix"

// names finds the function at an address of a process, for fn pointers.
type names struct {
	stacks *stacks // whose mappings it shares
	files  []*file
	inodes []uint64 // of files; the device differs between maps and stat on some file systems
}

func newNames(s *stacks, files []*file) *names {
	n := &names{stacks: s, files: files}
	for _, f := range files {
		n.inodes = append(n.inodes, inode(f.path))
	}
	return n
}

func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// at returns "" for what is in none of the traced files.
func (n *names) at(pid uint32, addr uint64) string {
	m, ok := n.stacks.mapping(pid, addr)
	if !ok || m.Inode == 0 {
		return ""
	}
	for i, f := range n.files {
		if n.inodes[i] == m.Inode {
			if linked, ok := f.ix.File.Addr(m.Offset + addr - m.Start); ok {
				return f.ix.NameAt(linked)
			}
		}
	}
	return ""
}

// functionAt is the path of the function that an address, as linked, is in, "" if it is in
// none that has a name.
func (f *file) functionAt(addr uint64) string {
	if parts, _, _, ok := f.ix.Text().FunctionAt(addr); ok && len(parts) > 0 {
		addr = parts[0].Low
	}
	return f.ix.NameAt(addr)
}
