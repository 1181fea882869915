package session

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"ferrotrace/internal/objfile"
	"ferrotrace/internal/objfile/usdt"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/target"
	"ferrotrace/internal/x86"
)

// usdtFiles are the files whose static probes an attach point means. Unlike functions these
// are looked for in all that a process has mapped; without a process, * means all processes.
func (s *scripted) usdtFiles(p *ast.AttachPoint) (files []*file, err error) {
	if p.Target != "" && p.Target != "*" {
		return s.named(p.Target)
	}
	procs := s.r.procs
	if len(procs) == 0 && len(s.r.files) == 0 {
		pids, err := target.PIDs()
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if proc, err := target.Open(pid); err == nil {
				defer proc.Close()
				procs = append(procs, proc)
			}
		}
	}
	files = slices.Clone(s.r.files)
	seen := map[string]bool{}
	for _, proc := range procs {
		libraries, err := proc.Libraries()
		if err != nil {
			continue // it has ended
		}
		for _, l := range append([][2]string{{proc.Path, proc.Exe}}, libraries...) {
			if seen[l[1]] || !hasProbe(l[0], p) {
				continue
			}
			seen[l[1]] = true
			if slices.ContainsFunc(files, func(f *file) bool { return target.SameFile(f.path, l[0]) }) {
				continue
			}
			f, err := s.r.index(s.ctx, l[0], l[1])
			if err != nil {
				s.r.o.Warn("%v", err)
				continue
			}
			files = append(files, f)
		}
	}
	return files, nil
}

// hasProbe says whether a file has a static probe that an attach point means.
func hasProbe(name string, p *ast.AttachPoint) bool {
	f, err := objfile.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	all, _ := usdt.Read(f)
	return slices.ContainsFunc(all, func(u usdt.Probe) bool { return meansProbe(p, &u) })
}

// meansProbe says whether an attach point means a static probe.
func meansProbe(p *ast.AttachPoint, u *usdt.Probe) bool {
	return globs(p.Namespace, u.Provider) && globs(p.Func, u.Name)
}

// globs says whether a name is what a script says, where * and ? and [a-z] stand for others and
// nothing for all.
func globs(pattern, name string) bool {
	if pattern == "" || pattern == name {
		return true
	}
	ok, err := path.Match(pattern, strings.ReplaceAll(name, "/", "\x00"))
	return ok && err == nil
}

// usdtSites adds the places of static probes: one for each note.
func (s *scripted) usdtSites(p *ast.AttachPoint, files []*file, add func(*check.Site, *scriptPlace)) error {
	var why error
	n, notes := 0, 0
	for _, f := range files {
		all, err := usdt.Read(f.ix.File)
		if err != nil {
			why = err
			continue
		}
		notes += len(all)
		for i := range all {
			u := &all[i]
			if !meansProbe(p, u) {
				continue
			}
			name := usdtName(f, p, u)
			inst, err := x86.Decode(f.ix.File.Bytes(u.Addr), u.Addr)
			if err != nil {
				why = fmt.Errorf("%s at %#x: %w", name, u.Addr, err)
				continue
			}
			site := &check.Site{Probe: name, Func: f.functionAt(u.Addr), C: true, NoArgs: name + " has none"}
			for j := range u.Args {
				a := &u.Args[j]
				missing, gone := a.Place.Gone()
				if !gone {
					missing = ""
				}
				site.Args = append(site.Args, check.Arg{Name: fmt.Sprintf("arg%d", j), Type: usdtType(a), Missing: missing})
			}
			n++
			add(site, &scriptPlace{f: f, usdt: u, addr: u.Addr, inst: inst})
		}
	}
	switch {
	case n > 0:
		return nil
	case why != nil:
		return why
	case len(files) == 1 && notes == 0:
		return fmt.Errorf("%s has no static probes: it was built without them, or they were stripped", files[0].shown)
	}
	where := ""
	if len(files) == 1 {
		where = " in " + files[0].shown
	}
	return errors.New("no static probe" + where + " matches " + strings.TrimPrefix(p.Raw, "usdt:"))
}

// usdtName is what a static probe is called.
func usdtName(f *file, p *ast.AttachPoint, u *usdt.Probe) string {
	name := f.shown
	if p.Target != "" && p.Target != "*" && !ast.Wild(p.Target) && strings.Contains(p.Target, "/") {
		name = p.Target
	}
	return "usdt:" + name + ":" + u.Provider + ":" + u.Name
}

// usdtTypes are C's, by size in bytes, signedness and whether they are floating-point numbers.
var usdtTypes = func() map[usdtKind]*types.Type {
	m := map[usdtKind]*types.Type{}
	for _, size := range []int{1, 2, 4, 8} {
		for _, signed := range []bool{false, true} {
			name, kind := fmt.Sprintf("uint%d", 8*size), types.Uint
			if signed {
				name, kind = fmt.Sprintf("int%d", 8*size), types.Int
			}
			m[usdtKind{size, signed, false}] = &types.Type{Name: name, Kind: kind, Size: int64(size), Align: int64(size)}
			if size >= 4 {
				m[usdtKind{size, signed, true}] = &types.Type{Name: fmt.Sprintf("f%d", 8*size), Kind: types.Float, Size: int64(size), Align: int64(size)}
			}
		}
	}
	return m
}()

type usdtKind struct {
	size          int
	signed, float bool
}

// usdtType is an argument's type, which is all that its note says.
func usdtType(a *usdt.Arg) *types.Type {
	if t := usdtTypes[usdtKind{a.Size, a.Signed, a.Float}]; t != nil {
		return t
	}
	return &types.Type{Name: "?"}
}
