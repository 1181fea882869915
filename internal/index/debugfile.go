package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/objfile/debugfile"
	"ferrotrace/internal/objfile/debuginfod"
)

// debugDirs are where distributions put debug info.
var debugDirs = []string{"/usr/lib/debug"}

// MismatchError says that a debug file belongs to another build.
type MismatchError struct{ File, DebugFile string }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is not the debug info of %s: the build ids differ", e.DebugFile, e.File)
}

// ExitCode is that of a usage error.
func (e *MismatchError) ExitCode() int { return 2 }

func (ix *Index) openDebugFile(name string) error {
	d, err := objfile.Open(name)
	if err != nil {
		return err
	}
	a, b := ix.File.BuildID(), d.BuildID()
	if len(a) == 0 || !bytes.Equal(a, b) {
		d.Close()
		return &MismatchError{ix.File.Path, name}
	}
	ix.debugFile = d
	return nil
}

// findDebugFile looks for the debug info of a file that has none.
func (ix *Index) findDebugFile(ctx context.Context, doing func(string)) {
	finder := debugfile.Finder{Dirs: debugDirs}
	if c := debuginfod.FromEnv(); c != nil {
		if doing != nil {
			c.Progress = func(server string, done, total int64) {
				what := fmt.Sprintf("fetching debug info from %s: %.1f", server, float64(done)/1e6)
				if total > 0 {
					what += fmt.Sprintf(" of %.1f", float64(total)/1e6)
				}
				doing(what + " MB")
			}
			defer doing("reading " + ix.File.Path)
		}
		finder.Fetch = func(id []byte) (string, error) { return c.DebugInfo(ctx, id) }
	}
	d, passed := finder.Separate(ix.File)
	for _, err := range passed {
		ix.problem(err)
	}
	if d != nil {
		ix.debugFile = d
	}
}

// problem adds to what could not be read.
func (ix *Index) problem(err error) { ix.Problem = errors.Join(ix.Problem, err) }

// splits are the files of split debug info.
type splits struct {
	files []*objfile.File
	// lost says of the units that are not there how many they are, of how many, and the
	// file of the first.
	lost, of int
	first    string
}

func (s *splits) close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// joinSplits finds the files of split debug info and joins their units to the rest: the
// package of them if there is one, and single files for what is not in it.
func (ix *Index) joinSplits() {
	skeletons := ix.debug.Skeletons()
	if len(skeletons) == 0 {
		return
	}
	ix.splits.of = len(skeletons)
	files := []*objfile.File{ix.File}
	if ix.debugFile != ix.File {
		files = append(files, ix.debugFile)
	}
	p, passed := debugfile.Package(files...)
	for _, err := range passed {
		ix.problem(err)
	}
	if p != nil {
		ix.join([]*objfile.File{p})
	}
	var single []*objfile.File
	var first error
	tried := map[[2]string]bool{} // several units may be in one file
	for _, u := range ix.debug.Skeletons() {
		name := [2]string{u.CompDir(), u.SplitName()}
		if tried[name] {
			continue
		}
		tried[name] = true
		f, err := debugfile.Split(ix.File, u.CompDir(), u.SplitName())
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		single = append(single, f)
	}
	ix.join(single)
	if lost := ix.debug.Skeletons(); len(lost) > 0 {
		ix.splits.lost, ix.splits.first = len(lost), lost[0].SplitName()
		if first == nil {
			first = errors.New("nothing there fits")
		}
		ix.problem(fmt.Errorf("the debug info of %d of %d units is in files of their own, which were not found: %w", len(lost), ix.splits.of, first))
	}
}

func (ix *Index) join(files []*objfile.File) {
	all := make([]dwarf.Sections, 0, len(files))
	for _, f := range files {
		s, err := f.SplitDWARF()
		if err != nil {
			ix.problem(fmt.Errorf("debug info: %w", err))
		}
		all = append(all, s)
	}
	for i, err := range ix.debug.Join(all) {
		if err != nil {
			ix.problem(fmt.Errorf("debug info of %s: %w", files[i].Path, err))
		}
	}
	ix.splits.files = append(ix.splits.files, files...)
}
