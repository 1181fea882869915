package target

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cacheFile is where ldconfig keeps which libraries there are.
const cacheFile = "/etc/ld.so.cache"

// libraryDirs are those that the dynamic linker looks through without the cache (ld.so(8)),
// and Debian's.
var libraryDirs = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"}

// Library finds a shared library by its name, with what follows .so or without: libc,
// libssl.so, libssl.so.3. The error is an os.ErrNotExist if there is none.
func Library(name string) (string, error) {
	if filepath.Base(name) != name {
		return "", fmt.Errorf("%s is no name of a library: %w", name, os.ErrNotExist)
	}
	if b, err := os.ReadFile(cacheFile); err == nil {
		for _, path := range cached(b) {
			if IsLibrary(filepath.Base(path), name) {
				if found, err := File(path); err == nil {
					return found, nil
				}
			}
		}
	}
	for _, dir := range libraryDirs {
		all, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range all {
			if IsLibrary(e.Name(), name) {
				if found, err := File(filepath.Join(dir, e.Name())); err == nil {
					return found, nil
				}
			}
		}
	}
	return "", fmt.Errorf("no library is called %s: %w", name, os.ErrNotExist)
}

// IsLibrary says whether a file's name is that of the library that is called name.
func IsLibrary(file, name string) bool {
	rest, ok := strings.CutPrefix(file, name)
	if !ok {
		return false
	}
	if strings.Contains(name, ".so") {
		return rest == "" || rest[0] == '.'
	}
	if strings.HasPrefix(rest, ".so") {
		return rest == ".so" || rest[3] == '.'
	}
	// libc-2.31.so, as glibc was called before 2.34.
	return strings.HasPrefix(rest, "-") && strings.HasSuffix(rest, ".so") && len(rest) > 4 && '0' <= rest[1] && rest[1] <= '9'
}

// cached lists the libraries for x86-64 that a cache of ldconfig knows, the one that the
// dynamic linker would take first. The form is glibc's (sysdeps/generic/dl-cache.h, struct
// cache_file_new), which may stand behind the older one.
func cached(b []byte) (paths []string) {
	const (
		magic      = "glibc-ld.so.cache1.1"
		headerSize = 48
		entrySize  = 24
		x86_64     = 0x0303 // FLAG_X8664_LIB64 | FLAG_ELF_LIBC6
	)
	at := bytes.Index(b, []byte(magic))
	if at < 0 || len(b)-at < headerSize {
		return nil
	}
	b = b[at:] // strings are counted from here
	le := binary.LittleEndian
	n := int(min(uint64(le.Uint32(b[20:])), uint64(len(b)-headerSize)/entrySize))
	for i := range n {
		e := b[headerSize+i*entrySize:]
		value := le.Uint32(e[8:])
		if le.Uint32(e) != x86_64 || uint64(value) >= uint64(len(b)) {
			continue
		}
		text, _, ok := bytes.Cut(b[value:min(len(b), int(value)+4096)], []byte{0})
		if path := string(text); ok && filepath.IsAbs(path) && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}
