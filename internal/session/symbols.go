package session

import (
	"errors"
	"fmt"

	"ferrotrace/internal/index"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/script/show"
	"ferrotrace/internal/target"
)

// symbols names what is at addresses of processes: in the traced files, and in all else that
// a process has mapped.
type symbols struct {
	names  *names
	opened map[string]*objfile.File // by path; nil for what can't be read
}

func newSymbols(n *names) *symbols { return &symbols{names: n, opened: map[string]*objfile.File{}} }

// close closes the files that were opened for their symbols.
func (s *symbols) close() error {
	var errs []error
	for _, f := range s.opened {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// find is the file that an address is in, and where as linked. Of a process that is gone
// only the traced file is known, if it is one: by what its addresses are more than as linked.
func (s *symbols) find(pid uint32, addr, bias uint64) (f *objfile.File, path string, linked uint64, ok bool) {
	n := s.names
	m, ok := n.stacks.mapping(pid, addr)
	if !ok {
		if _, alive := n.stacks.known[pid]; alive || len(n.files) != 1 {
			return nil, "", 0, false
		}
		f := n.files[0].ix.File
		return f, n.files[0].shown, addr - bias, f.Executable(addr - bias)
	}
	if m.Inode == 0 {
		return nil, "", 0, false
	}
	path = m.Path
	for i := range n.files {
		if n.inodes[i] == m.Inode {
			f = n.files[i].ix.File
		}
	}
	if f == nil {
		f = s.open(pid, m)
	}
	if f == nil {
		return nil, "", 0, false
	}
	linked, ok = f.Addr(m.Offset + addr - m.Start)
	return f, path, linked, ok
}

func (s *symbols) open(pid uint32, m target.Mapping) *objfile.File {
	if f, ok := s.opened[m.Path]; ok {
		return f
	}
	path := m.Path
	if p, err := target.Open(int(pid)); err == nil {
		path = p.FilePath(m)
		p.Close()
	}
	f, err := objfile.Open(path)
	if err != nil || inode(path) != m.Inode {
		if err == nil {
			f.Close()
		}
		f = nil
	}
	s.opened[m.Path] = f
	return f
}

// symbol is the function that an address is in, "" if that is not known.
func (s *symbols) symbol(pid uint32, addr, bias uint64) string {
	f, _, linked, ok := s.find(pid, addr, bias)
	if !ok {
		return ""
	}
	if sym, ok := f.Within(linked); ok {
		return index.SymbolName(sym.Name)
	}
	return ""
}

// frames is what an entry of a stack is in. A return address may be behind a function's last
// instruction: the call before it is looked for.
func (s *symbols) frames(fr show.Frame) []string {
	at := fr.Addr
	if fr.Return {
		at--
	}
	f, path, linked, ok := s.find(fr.PID, at, fr.Bias)
	if !ok {
		return nil
	}
	if fr.Mode == show.BuildIDStack {
		off, ok := f.FileOffset(linked)
		id := f.BuildID()
		if !ok || len(id) == 0 {
			return nil
		}
		return []string{fmt.Sprintf("%x %#x", id, off+fr.Addr-at)}
	}
	sym, ok := f.Within(linked)
	if !ok {
		return nil
	}
	name := fmt.Sprintf("%s+%d", index.SymbolName(sym.Name), linked+fr.Addr-at-sym.Addr)
	if fr.Mode == show.PerfStack {
		name += " (" + path + ")"
	}
	return []string{name}
}
