// Package debugfile finds the debug information of a file that has it elsewhere: in a
// stripped file's counterpart, by build id or .gnu_debuglink, and in split files.
//
// Places and their order are gdb's ("Debugging Information in Separate Files" in its
// manual). A file is taken only if it fits: a file with other debug information would make
// every address and every value wrong.
package debugfile

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"ferrotrace/internal/objfile"
)

// Finder says where to look.
type Finder struct {
	// Dirs are the directories of separate debug info, as /usr/lib/debug.
	Dirs []string
	// Fetch gets a file of debug info by its build id from elsewhere and returns its
	// path, "" if there is none; nil if there is no elsewhere.
	Fetch func(buildID []byte) (path string, err error)
}

// Separate opens the file with f's debug information, nil if there is none. The errors are
// about files that were passed over. The caller closes the file.
func (d *Finder) Separate(f *objfile.File) (*objfile.File, []error) {
	var passed []error
	id := f.BuildID()
	places := placesOf(f.Path)
	if len(id) > 1 {
		name := hex.EncodeToString(id)
		name = filepath.Join(".build-id", name[:2], name[2:]+".debug")
		for _, dir := range d.Dirs {
			for _, root := range roots(places) {
				if c := try(f, root+filepath.Join(dir, name), &passed, sameBuild); c != nil {
					return c, passed
				}
			}
		}
	}
	if name, crc := f.Debuglink(); name != "" && filepath.Base(name) == name && name != ".." {
		fits := func(f, c *objfile.File) error {
			if len(id) > 0 && c.BuildID() != nil {
				if err := sameBuild(f, c); err != nil {
					return err
				}
			}
			if c.CRC() != crc {
				return errors.New("its contents are not those that .gnu_debuglink asks for: the checksums differ")
			}
			return nil
		}
		for _, p := range places {
			tries := []string{filepath.Join(p.dir, name), filepath.Join(p.dir, ".debug", name)}
			for _, dir := range d.Dirs {
				tries = append(tries, filepath.Join(dir, p.dir, name))
			}
			for _, path := range tries {
				if c := try(f, p.root+path, &passed, fits); c != nil {
					return c, passed
				}
			}
		}
	}
	if d.Fetch != nil && len(id) > 0 {
		path, err := d.Fetch(id)
		if err != nil {
			passed = append(passed, err)
		} else if path != "" {
			if c := try(f, path, &passed, sameBuild); c != nil {
				return c, passed
			}
		}
	}
	return nil, passed
}

// try opens a candidate; nil if it is not there, or, with a note, if it does not fit.
func try(f *objfile.File, path string, passed *[]error, fits func(f, c *objfile.File) error) *objfile.File {
	if sameFile(f.Path, path) {
		return nil
	}
	c, err := objfile.Open(path)
	if absent(err) {
		return nil
	}
	if err == nil {
		if err = fits(f, c); err == nil && c.Stripped() {
			err = errors.New("it has no debug info")
		}
		if err == nil {
			return c
		}
		c.Close()
		err = fmt.Errorf("%s: %w", path, err)
	}
	*passed = append(*passed, fmt.Errorf("passed over: %w", err))
	return nil
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

func sameBuild(f, c *objfile.File) error {
	if !bytes.Equal(f.BuildID(), c.BuildID()) {
		return fmt.Errorf("it is not the debug info of %s: the build ids differ", f.Path)
	}
	return nil
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// Package opens the package of split units (.dwp) that stands beside one of the files,
// nil if none does. It is for the caller to see whether it fits.
func Package(files ...*objfile.File) (*objfile.File, []error) {
	var passed []error
	for _, f := range files {
		for _, p := range placesOf(f.Path) {
			c, err := objfile.Open(p.root + filepath.Join(p.dir, p.name) + ".dwp")
			if err == nil {
				return c, passed
			}
			if !absent(err) {
				passed = append(passed, fmt.Errorf("passed over: %w", err))
			}
		}
	}
	return nil, passed
}

// Split opens the split file that one of f's units names, from the directory that the
// compiler ran in, or beside f, as when both have been moved.
func Split(f *objfile.File, dir, name string) (*objfile.File, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	var first error
	places := placesOf(f.Path)
	for _, root := range roots(places) {
		c, err := objfile.Open(root + path)
		if err == nil {
			return c, nil
		}
		if first == nil || absent(first) {
			first = err
		}
	}
	for _, p := range places {
		if c, err := objfile.Open(p.root + filepath.Join(p.dir, filepath.Base(name))); err == nil {
			return c, nil
		}
	}
	return nil, first
}

// place is a directory and a file's name in it, within a root directory, "" for this
// process's own.
type place struct{ root, dir, name string }

var procPath = regexp.MustCompile(`^(/proc/[0-9]+)/(root/.*|exe|map_files/[^/]+)$`)

// placesOf is where a file stands. One that was opened through /proc, as it is deleted or
// under another root, stands where the process has it, or stood there.
func placesOf(path string) []place {
	m := procPath.FindStringSubmatch(path)
	if m == nil {
		var all []place
		if abs, err := filepath.Abs(path); err == nil {
			all = append(all, place{"", filepath.Dir(abs), filepath.Base(abs)})
			// A symbolic link may lead to where the rest is.
			if real, err := filepath.EvalSymlinks(abs); err == nil && real != abs {
				all = append(all, place{"", filepath.Dir(real), filepath.Base(real)})
			}
		}
		return all
	}
	inside, ok := strings.CutPrefix(m[2], "root")
	if !ok {
		var err error
		if inside, err = os.Readlink(path); err != nil || !filepath.IsAbs(inside) {
			return nil
		}
		inside = strings.TrimSuffix(inside, " (deleted)")
	}
	inside = filepath.Clean(inside)
	return []place{{m[1] + "/root", filepath.Dir(inside), filepath.Base(inside)}}
}

// roots are the root directories of places, and this process's own.
func roots(places []place) []string {
	for _, p := range places {
		if p.root != "" {
			return []string{p.root, ""}
		}
	}
	return []string{""}
}
