package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/target"
)

// named are the files that an attach point's target means, each by the name that its probes
// are called by: those of a pattern that are programs or libraries, or the one. Without a
// name, or by *, all are meant that are traced.
func (s *scripted) named(name string) (files []*file, err error) {
	if name == "" || name == "*" {
		return s.r.files, nil
	}
	if !ast.Wild(name) {
		f, err := s.file(name)
		if err != nil {
			return nil, err
		}
		return []*file{f}, nil
	}
	names, err := filepath.Glob(name)
	if err != nil {
		return nil, fmt.Errorf("%s is no pattern: %w", name, err)
	}
	var why error
	for _, n := range names {
		if !strings.Contains(n, "/") { // Glob drops what ./ says: that it is no library's name
			n = "./" + n
		}
		if st, err := os.Stat(n); err != nil || !st.Mode().IsRegular() {
			continue
		}
		f, err := s.file(n)
		if err != nil { // a script, or an object file, or text
			why = err
			continue
		}
		files = append(files, f)
	}
	switch {
	case len(files) > 0:
		return files, nil
	case why != nil:
		return nil, fmt.Errorf("no program or library is called %s: %w", name, why)
	}
	return nil, fmt.Errorf("no file is called %s", name)
}

// prefix begins the names of a file's probes: as the script has it, unless that is a pattern or a
// library's name.
func (s *scripted) prefix(p *ast.AttachPoint, f *file) string {
	switch {
	case p.Target == "":
		return string(p.Provider) + ":"
	case ast.Wild(p.Target) || !strings.Contains(p.Target, "/"):
		return string(p.Provider) + ":" + f.shown + ":"
	}
	return string(p.Provider) + ":" + p.Target + ":"
}

// file is one that a probe names: of a traced process, or by its path, or a library.
func (s *scripted) file(name string) (*file, error) {
	path, shown, err := s.find(name)
	if err != nil {
		return nil, err
	}
	for _, f := range s.r.files {
		if target.SameFile(f.path, path) {
			return f, nil
		}
	}
	return s.r.index(s.ctx, path, shown)
}

// find is the path by which a file is opened, and the one that a user knows.
func (s *scripted) find(name string) (path, shown string, err error) {
	for _, p := range s.r.procs {
		if p.Exe == name {
			return p.Path, p.Exe, nil
		}
		libraries, err := p.Libraries()
		if err != nil {
			continue
		}
		for _, l := range libraries {
			if l[1] == name || !strings.Contains(name, "/") && target.IsLibrary(filepath.Base(l[1]), name) {
				return l[0], l[1], nil
			}
		}
	}
	path, err = target.File(name)
	if err == nil {
		if !strings.Contains(name, "/") {
			return path, path, nil
		}
		return path, name, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		if found, lerr := target.Library(name); lerr == nil {
			return found, found, nil
		}
	}
	return "", "", err
}
