package inject

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// named adds the call's name to the error of a system call in the process.
func named(name string, err error) error {
	if _, ok := err.(unix.Errno); ok {
		return fmt.Errorf("%s in the process: %w", name, err)
	}
	return err
}

// Mmap maps memory in the process as mmap(2) does. A file is named by a descriptor of
// the process's, else fd is -1.
func (t *Tracee) Mmap(ctx context.Context, addr, size uint64, prot, flags, fd int, offset uint64) (uint64, error) {
	at, err := t.Syscall(ctx, unix.SYS_MMAP, addr, size, uint64(prot), uint64(flags), uint64(int64(fd)), offset)
	return at, named("mmap", err)
}

// Munmap unmaps memory of the process. No thread may be inside it.
func (t *Tracee) Munmap(ctx context.Context, addr, size uint64) error {
	_, err := t.Syscall(ctx, unix.SYS_MUNMAP, addr, size)
	return named("munmap", err)
}

// Mprotect changes the protection of memory of the process.
func (t *Tracee) Mprotect(ctx context.Context, addr, size uint64, prot int) error {
	_, err := t.Syscall(ctx, unix.SYS_MPROTECT, addr, size, uint64(prot))
	return named("mprotect", err)
}

// MemfdCreate makes a file in memory that can be sealed, which belongs to the process, and opens it from
// here too. The file must be closed, and fd, the process's descriptor (which programs
// that it executes don't inherit), as soon as it is mapped there, by CloseFD.
func (t *Tracee) MemfdCreate(ctx context.Context, name string) (fd int, f *os.File, err error) {
	err = t.with(ctx, func(ctx context.Context, deadline time.Time) error {
		fd, err = t.memfd(ctx, deadline, name)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	if f, err = os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", t.pid, fd), os.O_RDWR, 0); err != nil {
		_ = t.CloseFD(context.WithoutCancel(ctx), fd)
		return 0, nil, err
	}
	return fd, f, nil
}

func (t *Tracee) memfd(ctx context.Context, deadline time.Time, name string) (int, error) {
	at, err := t.argument(ctx, deadline, append([]byte(name), 0))
	if err != nil {
		return 0, err
	}
	fd, err := t.remote(ctx, deadline, unix.SYS_MEMFD_CREATE, at, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	return int(fd), named("memfd_create", err)
}

// CloseFD closes a descriptor of the process's.
func (t *Tracee) CloseFD(ctx context.Context, fd int) error {
	_, err := t.Syscall(ctx, unix.SYS_CLOSE, uint64(fd))
	return named("close", err)
}

// Membarrier makes every running thread of the process see code that has been written,
// before it goes on: MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE (membarrier(2)), which is
// what cross-modifying code asks for (Intel SDM vol. 3, 9.1.3). The error is
// unix.EINVAL or unix.ENOSYS on kernels that have none.
func (t *Tracee) Membarrier(ctx context.Context) error {
	const (
		syncCore = 1 << 5
		register = 1 << 6
	)
	return t.with(ctx, func(ctx context.Context, deadline time.Time) error {
		if !t.sync {
			if _, err := t.remote(ctx, deadline, unix.SYS_MEMBARRIER, register); err != nil {
				return named("membarrier", err)
			}
			t.sync = true
		}
		_, err := t.remote(ctx, deadline, unix.SYS_MEMBARRIER, syncCore)
		return named("membarrier", err)
	})
}

// Sigaction is the kernel's struct sigaction (include/linux/signal_types.h).
type Sigaction struct {
	Handler  uint64 // 0: SIG_DFL, 1: SIG_IGN
	Flags    uint64 // SA_..., with SA_RESTORER
	Restorer uint64
	Mask     uint64
}

// RtSigaction reads what a signal does in the process and, if action is not nil, changes
// it.
func (t *Tracee) RtSigaction(ctx context.Context, sig int, action *Sigaction) (old Sigaction, err error) {
	err = t.with(ctx, func(ctx context.Context, deadline time.Time) error {
		b := make([]byte, 64)
		if action != nil {
			if _, err := binary.Encode(b, binary.LittleEndian, action); err != nil {
				return err
			}
		}
		at, err := t.argument(ctx, deadline, b)
		if err != nil {
			return err
		}
		in := at
		if action == nil {
			in = 0
		}
		if _, err := t.remote(ctx, deadline, unix.SYS_RT_SIGACTION, uint64(sig), in, at+32, 8); err != nil {
			return named("rt_sigaction", err)
		}
		if err := t.readAt(b, at); err != nil {
			return err
		}
		_, err = binary.Decode(b[32:], binary.LittleEndian, &old)
		return err
	})
	return old, err
}

// Gettid is the id that the thread which system calls are made for has in the process's
// own pid namespace.
func (t *Tracee) Gettid(ctx context.Context) (int, error) {
	tid, err := t.Syscall(ctx, unix.SYS_GETTID)
	return int(tid), named("gettid", err)
}

// FSBase is the leader's FS base: where its thread control block is, 0 if there is no
// thread-local storage yet.
func (t *Tracee) FSBase(ctx context.Context) (base uint64, err error) {
	err = t.with(ctx, func(context.Context, time.Time) error {
		base = t.worker.regs.Fs_base
		return nil
	})
	return base, err
}

const scratchSize = 4096

// argument puts an argument of a system call into memory of its own in the process. It
// is valid until the next.
func (t *Tracee) argument(ctx context.Context, deadline time.Time, b []byte) (uint64, error) {
	if len(b) > scratchSize {
		return 0, fmt.Errorf("an argument of %d bytes", len(b))
	}
	if t.scratch == 0 {
		at, err := t.remote(ctx, deadline, unix.SYS_MMAP, 0, scratchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, noSyscall, 0)
		if err != nil {
			return 0, named("mmap", err)
		}
		t.scratch = at
	}
	return t.scratch, t.writeAt(b, t.scratch)
}

func (t *Tracee) cleanScratch(ctx context.Context, deadline time.Time) {
	if t.scratch != 0 {
		_, _ = t.remote(ctx, deadline, unix.SYS_MUNMAP, t.scratch, scratchSize)
		t.scratch = 0
	}
}
