// Package store keeps what was read of a file in a directory of the user's, so that it need
// not be read again. It knows names, keys and bytes, and not what they mean.
//
// A directory of the cache, and all in it, belongs to the user that runs ferrotrace, and
// nobody else can write there: what is read is believed, once its checksum is right. Files
// are written under another name and renamed: a reader sees all of a file or nothing, whoever
// else writes or is killed while writing. A file is never changed once it has its name.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how many bytes a cache holds at most. What was not used for longest goes first.
const Limit = 1 << 30

// Dir is a directory with cached files, which is made when it is needed.
type Dir struct {
	Path  string
	Limit int64 // of bytes
}

// User is the cache of the user that ferrotrace runs as: root's own for root, whose
// environment may be that of the user who called sudo. Nil if there is none.
func User() *Dir {
	base, err := os.UserCacheDir()
	if err != nil || !owned(base) {
		if os.Geteuid() != 0 {
			return nil
		}
		root, err := user.LookupId("0")
		if err != nil {
			return nil
		}
		if base = filepath.Join(root.HomeDir, ".cache"); !owned(base) {
			return nil
		}
	}
	return &Dir{Path: filepath.Join(base, "ferrotrace", "index"), Limit: Limit}
}

// owned says whether a directory or, if it is not there, the one that it would be made in is
// the user's.
func owned(dir string) bool {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = os.Stat(filepath.Dir(dir))
	}
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Uid == uint32(os.Geteuid())
}

// ErrUnsafe says that somebody else may have written what is in the cache.
var ErrUnsafe = errors.New("not the user's alone")

// ErrStale says that a file is damaged, or of another key.
var ErrStale = errors.New("stale")

// private checks that none but the user can have written a file or directory.
func private(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid != uint32(os.Geteuid()) || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s: %w", path, ErrUnsafe)
	}
	return nil
}

// check looks whether the directory may be trusted.
func (d *Dir) check() error {
	st, err := os.Lstat(d.Path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: %w", d.Path, ErrUnsafe)
	}
	return private(d.Path, st)
}

// Key says what a file has been made of, and by what. Files of another are not read.
type Key [32]byte

// A file is a header, the table of its sections, and these, each at a multiple of 8 bytes.
// All numbers are little-endian.
const (
	magic       = "ferroidx"
	suffix      = ".idx"
	temporary   = ".new-"
	maxSections = 64

	crcAt      = 8 // of all that comes after it
	countAt    = 12
	keyAt      = 16
	headerSize = keyAt + len(Key{})
	entrySize  = 16 // offset and length
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Mapped is a cached file in memory.
type Mapped struct {
	Sections [][]byte // at addresses that are multiples of 8
	mem      []byte
}

// Close unmaps the file. Its sections may not be used afterwards.
func (m *Mapped) Close() error {
	mem := m.mem
	m.mem, m.Sections = nil, nil
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// Load maps the file with a name, if it is of the key. The error wraps fs.ErrNotExist,
// ErrUnsafe, ErrStale, or what the system said.
func (d *Dir) Load(name string, key Key) (*Mapped, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	path := filepath.Join(d.Path, name+suffix)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := private(path, st); err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() < int64(headerSize) || st.Size() > 1<<40 {
		return nil, fmt.Errorf("%s: %w", path, ErrStale)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: path, Err: err}
	}
	sections, err := parse(mem, key)
	if err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// What was used lately is kept. That this cannot be noted does no harm.
	now := time.Now()
	_ = os.Chtimes(path, now, now)
	return &Mapped{Sections: sections, mem: mem}, nil
}

func parse(mem []byte, key Key) ([][]byte, error) {
	le := binary.LittleEndian
	size := uint64(len(mem))
	if size < uint64(headerSize) || string(mem[:crcAt]) != magic || Key(mem[keyAt:headerSize]) != key {
		return nil, ErrStale
	}
	n := uint64(le.Uint32(mem[countAt:]))
	if n > maxSections || uint64(headerSize)+n*entrySize > size || le.Uint32(mem[crcAt:]) != crc32.Checksum(mem[countAt:], castagnoli) {
		return nil, fmt.Errorf("%w: damaged", ErrStale)
	}
	sections := make([][]byte, n)
	for i := range sections {
		e := mem[headerSize+i*entrySize:]
		off, length := le.Uint64(e), le.Uint64(e[8:])
		if off%8 != 0 || off > size || length > size-off {
			return nil, fmt.Errorf("%w: section %d of %#x bytes at %#x", ErrStale, i, length, off)
		}
		sections[i] = mem[off : off+length : off+length]
	}
	return sections, nil
}

// Save writes a file under a name, in place of what was there, and then removes files beyond
// the limit. An error leaves nothing behind.
func (d *Dir) Save(name string, key Key, sections [][]byte) error {
	if len(sections) > maxSections {
		return fmt.Errorf("%d sections", len(sections))
	}
	le := binary.LittleEndian
	head := make([]byte, headerSize+len(sections)*entrySize)
	copy(head, magic)
	le.PutUint32(head[countAt:], uint32(len(sections)))
	copy(head[keyAt:], key[:])
	at := uint64(len(head))
	for i, s := range sections {
		e := head[headerSize+i*entrySize:]
		le.PutUint64(e, at)
		le.PutUint64(e[8:], uint64(len(s)))
		at += uint64(len(s)+7) &^ 7
	}
	if at > uint64(d.Limit) {
		return fmt.Errorf("%d bytes are more than the cache holds", at)
	}
	parts := [][]byte{head}
	for _, s := range sections {
		parts = append(parts, s, make([]byte, -len(s)&7))
	}
	sum := crc32.Checksum(head[countAt:], castagnoli)
	for _, p := range parts[1:] {
		sum = crc32.Update(sum, castagnoli, p)
	}
	le.PutUint32(head[crcAt:], sum)

	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.Path, temporary)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err == nil {
			_, err = f.Write(p)
		}
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(d.Path, name+suffix))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	d.clean(name + suffix)
	return nil
}

// abandoned is how old what a killed writer has left must be to be removed.
const abandoned = time.Hour

// clean removes what was not used for longest until the rest is within the limit, but not
// keep, and what writers that were killed have left.
func (d *Dir) clean(keep string) {
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		st, err := e.Info()
		switch {
		case err != nil || !st.Mode().IsRegular():
		case strings.HasPrefix(e.Name(), temporary):
			if time.Since(st.ModTime()) > abandoned {
				_ = os.Remove(filepath.Join(d.Path, e.Name()))
			}
		case strings.HasSuffix(e.Name(), suffix):
			total += st.Size()
			if e.Name() != keep {
				files = append(files, st)
			}
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, st := range files {
		if total <= d.Limit {
			return
		}
		if os.Remove(filepath.Join(d.Path, st.Name())) == nil {
			total -= st.Size()
		}
	}
}
