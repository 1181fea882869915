package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func sections(seed byte) [][]byte {
	return [][]byte{bytes.Repeat([]byte{seed}, 1001), nil, {seed, 1, 2}, bytes.Repeat([]byte{seed, 7}, 4096)}
}

func same(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func load(t *testing.T, d *Dir, name string, key Key) [][]byte {
	t.Helper()
	m, err := d.Load(name, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m.Sections
}

func newDir(t *testing.T) *Dir {
	return &Dir{Path: filepath.Join(t.TempDir(), "a", "b"), Limit: 1 << 20}
}

func TestSaveAndLoad(t *testing.T) {
	d := newDir(t)
	if _, err := d.Load("x", Key{1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for seed := range byte(3) {
		if err := d.Save("x", Key{seed}, sections(seed)); err != nil {
			t.Fatal(err)
		}
		if got := load(t, d, "x", Key{seed}); !same(got, sections(seed)) {
			t.Errorf("got other bytes back: %d", seed)
		}
		if _, err := d.Load("x", Key{seed, 1}); !errors.Is(err, ErrStale) {
			t.Errorf("another key: %v", err)
		}
	}
	if st, _ := os.Stat(d.Path); st.Mode().Perm() != 0o700 {
		t.Errorf("the directory's mode is %v", st.Mode())
	}
	if all, _ := os.ReadDir(d.Path); len(all) != 1 {
		t.Errorf("the directory holds %v", all)
	}
}

// TestDamage: whatever byte changes, and wherever the file ends, it is not used.
func TestDamage(t *testing.T) {
	d := newDir(t)
	key := Key{9}
	if err := d.Save("x", key, [][]byte{{1, 2, 3}, []byte("some text")}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path, "x"+suffix)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := func(b []byte, what string, at int) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := d.Load("x", key); !errors.Is(err, ErrStale) {
			t.Errorf("%s at %d: %v", what, at, err)
			if m != nil {
				m.Close()
			}
		}
	}
	for i := range good {
		damaged(good[:i], "cut", i)
		b := bytes.Clone(good)
		b[i] ^= 0x10
		damaged(b, "changed", i)
	}
	damaged(append(bytes.Clone(good), 0), "grown", len(good))
}

func TestUnsafe(t *testing.T) {
	d := newDir(t)
	if err := d.Save("x", Key{}, sections(1)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.Path, "x"+suffix)
	refused := func(what string) {
		t.Helper()
		if _, err := d.Load("x", Key{}); !errors.Is(err, ErrUnsafe) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Chmod(file, 0o620); err != nil {
		t.Fatal(err)
	}
	refused("a file that others can write")
	_ = os.Chmod(file, 0o600)
	load(t, d, "x", Key{})
	if err := os.Chmod(d.Path, 0o777); err != nil {
		t.Fatal(err)
	}
	refused("a directory that others can write")
	if err := d.Save("y", Key{}, nil); !errors.Is(err, ErrUnsafe) {
		t.Errorf("saved into a directory that others can write: %v", err)
	}
	_ = os.Chmod(d.Path, 0o700)
	link := &Dir{Path: filepath.Join(t.TempDir(), "link"), Limit: d.Limit}
	if err := os.Symlink(d.Path, link.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := link.Load("x", Key{}); !errors.Is(err, ErrUnsafe) {
		t.Errorf("through a link: %v", err)
	}
	if err := os.Symlink(file, filepath.Join(d.Path, "z"+suffix)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load("z", Key{}); err == nil {
		t.Error("a linked file was read")
	}
	if os.Geteuid() != 0 {
		t.Log("skipped: files of other users need root")
		return
	}
	if err := os.Chown(file, 12345, -1); err != nil {
		t.Fatal(err)
	}
	refused("another user's file")
	_ = os.Chown(file, 0, -1)
	if err := os.Chown(d.Path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	refused("another user's directory")
}

// TestUser: with root's rights, the cache is root's, whatever the environment says.
func TestUser(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "there"))
	if d := User(); d == nil || d.Path != filepath.Join(dir, "there", "ferrotrace", "index") {
		t.Errorf("the cache is %v", d)
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: directories of other users need root")
	}
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	if d := User(); d == nil || filepath.Dir(filepath.Dir(d.Path)) == filepath.Join(dir, "there") {
		t.Errorf("the cache is %v, another user's", d)
	}
}

// TestFull: on a full disk nothing is kept, and nothing of what was tried stays.
func TestFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("skipped: no tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // it goes with the test
	d := &Dir{Path: filepath.Join(dir, "index"), Limit: 1 << 20}
	if err := d.Save("small", Key{}, sections(1)); err != nil {
		t.Fatal(err)
	}
	err := d.Save("large", Key{}, [][]byte{make([]byte, 1<<17)})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	if all, _ := os.ReadDir(d.Path); len(all) != 1 {
		t.Errorf("the directory holds %v", all)
	}
	load(t, d, "small", Key{})
}

func TestLimit(t *testing.T) {
	d := newDir(t)
	d.Limit = 40_000
	old := time.Now().Add(-48 * time.Hour)
	for i := range byte(4) { // of 9,300 bytes each
		name := fmt.Sprint(i)
		if err := d.Save(name, Key{i}, sections(i)); err != nil {
			t.Fatal(err)
		}
		when := old.Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(filepath.Join(d.Path, name+suffix), when, when); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(d.Path, temporary+"1")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Chtimes(left, old, old)
	load(t, d, "0", Key{0}) // used: 1 is the oldest now
	if err := d.Save("4", Key{4}, sections(4)); err != nil {
		t.Fatal(err)
	}
	var names []string
	all, _ := os.ReadDir(d.Path)
	for _, e := range all {
		names = append(names, e.Name())
	}
	if got, want := fmt.Sprint(names), "[0.idx 2.idx 3.idx 4.idx]"; got != want {
		t.Errorf("kept %v, want %v", got, want)
	}
	if err := d.Save("huge", Key{}, [][]byte{make([]byte, 50_000)}); err == nil {
		t.Error("more was kept than the limit")
	}
}

// TestConcurrent: whoever writes, readers see one whole file.
func TestConcurrent(t *testing.T) {
	d := newDir(t)
	if err := d.Save("x", Key{}, sections(0)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range byte(4) {
		wg.Go(func() {
			for range 50 {
				if err := d.Save("x", Key{}, sections(w)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				m, err := d.Load("x", Key{})
				if err != nil {
					t.Error(err)
					continue
				}
				if !same(m.Sections, sections(m.Sections[2][0])) {
					t.Error("read of two files")
				}
				m.Close()
			}
		})
	}
	wg.Wait()
}

// FuzzFile: whatever a file holds behind a right checksum, its sections are within it.
func FuzzFile(f *testing.F) {
	d := &Dir{Path: f.TempDir(), Limit: 1 << 20}
	for _, s := range [][][]byte{nil, {{1, 2, 3}}, sections(3)} {
		if err := d.Save("x", Key{}, s); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(d.Path, "x"+suffix))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= countAt {
			copy(b, magic)
			binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b[countAt:], castagnoli))
		}
		found, err := parse(b, Key{})
		if err != nil {
			return
		}
		for _, s := range found {
			if len(s) > len(b) || cap(s) != len(s) {
				t.Fatalf("a section of %d bytes, up to %d, in a file of %d", len(s), cap(s), len(b))
			}
		}
	})
}
