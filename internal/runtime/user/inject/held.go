package inject

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// AttachHeld takes over a command that is held at its first instruction, releases it,
// and stops it again when its loader is done: its libraries are mapped and relocated and
// its thread-local storage is there, and nothing of the program itself has run but, in
// static programs, what the C library does to set that up. It returns with the leader
// stopped, as by Stop. Until then the command is killed if this process dies.
//
// On the way from one tracer to the other the command runs freely, for it can't have
// two; it can't get past its entry point meanwhile, where it finds an endless loop.
func AttachHeld(ctx context.Context, c *target.Command) (*Tracee, error) {
	ctx, cancel := context.WithTimeout(ctx, heldWait)
	defer cancel()
	entry, err := entryPoint(c.PID)
	if err != nil {
		return nil, err
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", c.PID), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer mem.Close()
	old := make([]byte, 2)
	if _, err := mem.ReadAt(old, int64(entry)); err != nil {
		return nil, fmt.Errorf("the command's entry point %#x: %w", entry, err)
	}
	if _, err := mem.WriteAt([]byte{0xeb, 0xfe}, int64(entry)); err != nil { // jmp .
		return nil, fmt.Errorf("the command's entry point %#x: %w", entry, err)
	}
	c.Release()
	t, err := takeOver(ctx, c.PID)
	if err != nil {
		// Without its tracer it would loop for ever, or run untraced.
		_ = c.Kill()
		return nil, err
	}
	err = t.call(ctx, func(ctx context.Context, _ time.Time) error {
		deadline, _ := ctx.Deadline()
		err := t.runToEntry(ctx, deadline, entry, old)
		if err == nil && t.worker.regs.Fs_base == 0 {
			err = t.runToTLS(ctx, deadline)
		}
		if err == nil {
			err = t.ptraceError(t.worker, "setoptions", ptrace(unix.PTRACE_SETOPTIONS, t.worker.tid, 0, options))
		}
		return err
	})
	if err != nil {
		_ = t.Detach()
		return nil, err
	}
	return t, nil
}

// heldWait bounds how long a command's loader may take.
const heldWait = 30 * time.Second

// takeOver attaches as soon as the thread that held the command has let it go.
func takeOver(ctx context.Context, pid int) (*Tracee, error) {
	var p patience
	for {
		t, err := attach(ctx, pid, options|unix.PTRACE_O_EXITKILL)
		var traced *TracedError
		if err == nil || !errors.As(err, &traced) || traced.Tracer != os.Getpid() {
			return t, err
		}
		if ctx.Err() != nil {
			return nil, err
		}
		p.pause()
	}
}

// entryPoint is AT_ENTRY of the auxiliary vector (getauxval(3)): where the program
// begins once its loader is done, if it has one.
func entryPoint(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return 0, err
	}
	for ; len(b) >= 16; b = b[16:] {
		const atEntry = 9
		if binary.LittleEndian.Uint64(b) == atEntry {
			return binary.LittleEndian.Uint64(b[8:]), nil
		}
	}
	return 0, fmt.Errorf("process %d: no entry point", pid)
}

// runToEntry runs the command to its entry point, and puts back what was there.
func (t *Tracee) runToEntry(ctx context.Context, deadline time.Time, entry uint64, old []byte) error {
	th := t.worker
	if err := t.interrupt(ctx, th, deadline); err != nil {
		return err
	}
	if th.regs.Rip == entry {
		return t.writeAt(old, entry)
	}
	if err := t.writeAt([]byte{0xcc, old[1]}, entry); err != nil { // int3
		return err
	}
	sig := 0
	how := unix.PTRACE_CONT
	for {
		th.stopped = false
		if err := ptrace(how, th.tid, 0, uintptr(sig)); err != nil {
			return t.ptraceError(th, "cont", err)
		}
		sig, how = 0, unix.PTRACE_CONT
		s, err := t.await(ctx, th, deadline)
		if err != nil {
			_ = t.writeAt(old, entry)
			return err
		}
		switch {
		case s.interrupted() && s.sig != int(unix.SIGTRAP):
			how = unix.PTRACE_LISTEN
		case s.sig == int(unix.SIGTRAP) && s.signal():
			if err := t.load(th); err != nil {
				return err
			}
			if th.regs.Rip != entry+1 {
				sig = s.sig // its own
				continue
			}
			th.regs.Rip = entry
			if err := t.store(th, &th.regs); err != nil {
				return err
			}
			if err := t.writeAt(old, entry); err != nil {
				return err
			}
			return t.restop(ctx, th, deadline)
		case s.signal():
			sig = s.sig
		}
	}
}

// restop brings a thread from any stop, whose signal is dropped, into that of an
// interrupt.
func (t *Tracee) restop(ctx context.Context, th *thread, deadline time.Time) error {
	if _, err := t.take(th, stop{}); err != nil {
		return err
	}
	return t.settle(ctx, th, deadline)
}

// Before a static program's thread-local storage is there, its C library makes no other
// calls than these.
var early = map[uint64]bool{
	unix.SYS_BRK: true, unix.SYS_ARCH_PRCTL: true, unix.SYS_MMAP: true, unix.SYS_MPROTECT: true,
	unix.SYS_MUNMAP: true, unix.SYS_UNAME: true, unix.SYS_READLINK: true, unix.SYS_READLINKAT: true,
	unix.SYS_ACCESS: true, unix.SYS_SET_TID_ADDRESS: true, unix.SYS_GETRANDOM: true, unix.SYS_PRLIMIT64: true,
}

// runToTLS runs a static program until it has set its FS base, or makes a call that
// shows that it will do without.
func (t *Tracee) runToTLS(ctx context.Context, deadline time.Time) error {
	const archSetFS = 0x1002
	th := t.worker
	sig := 0
	var r Regs
	for entered := false; ; {
		th.stopped = false
		if err := ptrace(unix.PTRACE_SYSCALL, th.tid, 0, uintptr(sig)); err != nil {
			return t.ptraceError(th, "syscall", err)
		}
		sig = 0
		s, err := t.await(ctx, th, deadline)
		if err != nil {
			return err
		}
		if !s.syscall() {
			if s.signal() {
				sig = s.sig
			}
			continue
		}
		if entered = !entered; entered {
			if err := ptrace(unix.PTRACE_GETREGS, th.tid, 0, uintptr(unsafe.Pointer(&r))); err != nil {
				return t.ptraceError(th, "getregs", err)
			}
			if early[r.Orig_rax] {
				continue
			}
			// Not this call: back before it. A number below 0 is no call, and leaves rax
			// (do_syscall_64 in arch/x86/entry/syscall_64.c).
			r.Rip -= 2
			r.Rax, r.Orig_rax = r.Orig_rax, noSyscall
			if err := t.store(th, &r); err != nil {
				return err
			}
			return t.restop(ctx, th, deadline)
		}
		if r.Orig_rax == unix.SYS_ARCH_PRCTL && r.Rdi == archSetFS {
			return t.restop(ctx, th, deadline)
		}
	}
}
