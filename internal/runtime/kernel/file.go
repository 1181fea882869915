package kernel

import (
	"debug/elf"
	"fmt"
	"math"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// file is an object file while probes are planted in it.
type file struct {
	*link.Executable
	f        *os.File
	code     []segment
	from, to uint64 // what has been used
	mapping  []byte
}

// segment is bytes of the file that are mapped executable.
type segment struct{ from, to uint64 }

func openFile(path string) (*file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // it names the path
	}
	fl, err := newFile(path, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return fl, nil
}

func newFile(path string, f *os.File) (*file, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	fl := &file{f: f, from: math.MaxUint64}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && p.Off < uint64(st.Size()) {
			fl.code = append(fl.code, segment{p.Off, min(p.Off+p.Filesz, uint64(st.Size()))})
		}
	}
	if fl.Executable, err = link.OpenExecutable(path); err != nil {
		return nil, err
	}
	return fl, nil
}

// executable says whether the byte at an offset is code. A breakpoint elsewhere
// would change the target's data.
func (f *file) executable(offset uint64) bool {
	for _, s := range f.code {
		if s.from <= offset && offset < s.to && offset != 0 {
			return true
		}
	}
	return false
}

func (f *file) use(offset uint64) {
	f.from = min(f.from, offset)
	f.to = max(f.to, offset+1)
}

// mapped maps the code that is used into the tracer. The kernel looks at a probed
// instruction only when it puts a breakpoint into a mapping: without one it
// accepts any probe, and when a process maps the file later it passes those that
// it can't plant over in silence (uprobe_mmap in kernel/events/uprobes.c).
//
// It is of no use for probes that the kernel confines to a process, which has
// mapped its executable already; in a library that it has not loaded yet they are
// not tried. Where mapping can't be done, as from a file system mounted noexec, where no program
// could run either, probes are simply not tried.
func (f *file) mapped() {
	if f.from >= f.to {
		return
	}
	page := uint64(os.Getpagesize())
	from := f.from &^ (page - 1)
	m, err := unix.Mmap(int(f.f.Fd()), int64(from), int(f.to-from), unix.PROT_READ, unix.MAP_PRIVATE)
	if err == nil {
		f.mapping = m
	}
}

func (f *file) close() {
	if f.mapping != nil {
		_ = unix.Munmap(f.mapping)
	}
	f.f.Close()
}
