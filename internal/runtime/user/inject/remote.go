package inject

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A system call is made in the name of a stopped thread by letting it execute a stub:
//
//	syscall
//	...            every register and flag as it was
//	jmp back
//
// It is stopped again at the end of the call and never gets behind the instruction. The
// rest is for the tracer's death: wherever that comes, the thread finishes the call,
// restores itself and goes on. Nothing is pushed, so a signal can come at any point, and
// be handled on the thread's own stack as ever.
//
// Signals are blocked meanwhile, or a program that gets many would never come to the call.
// The stub has the mask too, and the order is such that there is no moment in which a
// blocked thread is outside of the stub. Under seccomp, where rt_sigprocmask may not be
// permitted, they are not blocked: each is delivered, and the call begun anew.
//
// The instruction is reached with the number of a call that does nothing, read(-1), and
// the real one is put in its place at the stop before it begins. So a tracer that dies
// in between has done nothing, even under a strict seccomp mode, which permits read.
//
// Vector registers and the rest of the xsave state need no saving: neither a system call
// nor the stub changes them.

// stub is the code for a thread, which continues as r says and, if mask is not nil, with
// that signal mask.
func stub(r Regs, mask *uint64, tid int) []byte {
	r = restarted(r)
	b := []byte{0x0f, 0x05} // syscall
	b = append(b, 0xa9)     // test $tid, %eax: for who finds it
	b = binary.LittleEndian.AppendUint32(b, uint32(tid))
	if mask != nil { // rt_sigprocmask(SIG_SETMASK, mask, NULL, 8)
		b = append(b,
			0xb8, unix.SYS_RT_SIGPROCMASK, 0, 0, 0, // mov $nr, %eax
			0xbf, 2, 0, 0, 0, // mov $SIG_SETMASK, %edi
			0x31, 0xd2, // xor %edx, %edx
			0x41, 0xba, 8, 0, 0, 0, // mov $8, %r10d
			0x48, 0x8d, 0x35, 4, 0, 0, 0, // lea 1f(%rip), %rsi
			0x0f, 0x05, // syscall
			0xeb, 8) // jmp 2f
		b = binary.LittleEndian.AppendUint64(b, *mask) // 1: 2:
	}
	if r.Eflags&0x400 != 0 {
		b = append(b, 0xfd) // std
	} else {
		b = append(b, 0xfc) // cld
	}
	// The arithmetic flags, without a stack: adding 0x7f to 1 overflows, to 0 does not,
	// and sahf sets all the others from ah.
	b = append(b, 0xb8)                                                                      // mov $imm32, %eax
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Eflags&0xff)<<8|uint32(r.Eflags>>11&1)) // ah: flags, al: OF
	b = append(b, 0x04, 0x7f, 0x9e)                                                          // add $0x7f, %al; sahf
	for i, v := range []uint64{r.Rcx, r.Rdx, r.Rbx, 0, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rax} {
		n := byte(i+1) & 15
		if n == 4 { // rsp is as it was
			continue
		}
		b = append(b, 0x48|n>>3, 0xb8|n&7) // movabs
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = append(b, 0xff, 0x25, 0, 0, 0, 0) // jmp *(%rip)
	return binary.LittleEndian.AppendUint64(b, r.Rip)
}

// stubOwner is the thread that a stub was written for.
func stubOwner(b []byte) (tid int, ok bool) {
	if !bytes.HasPrefix(b, []byte{0x0f, 0x05, 0xa9}) || !bytes.Contains(b, []byte{0x04, 0x7f, 0x9e}) {
		return 0, false
	}
	return int(int32(binary.LittleEndian.Uint32(b[3:]))), true
}

// Syscall makes a system call in the process, in the name of its leader, and returns what
// it returned. The error is a unix.Errno, with the call's name added by who calls this,
// or one of this package.
func (t *Tracee) Syscall(ctx context.Context, nr uint64, args ...uint64) (uint64, error) {
	var ret uint64
	err := t.with(ctx, func(ctx context.Context, deadline time.Time) (err error) {
		ret, err = t.remote(ctx, deadline, nr, args...)
		return err
	})
	return ret, err
}

// maxTries bounds how often a call is begun anew because a signal came first.
const maxTries = 1000

// remote makes a call in the worker's name. It does not mind ctx once it has begun, for
// it is over in no time; if not, the process is given up: the thread gets through its
// stub by itself, which must not be written again.
func (t *Tracee) remote(ctx context.Context, deadline time.Time, nr uint64, args ...uint64) (uint64, error) {
	switch { // since a call before, of the same request
	case t.err != nil:
		return 0, t.err
	case t.worker == nil:
		return 0, fmt.Errorf("process %d: %w", t.pid, ErrGone)
	}
	if err := t.openCave(); err != nil {
		return 0, err
	}
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return 0, context.Cause(ctx)
		}
		if time.Now().After(deadline) {
			break
		}
		ret, done, err := t.try(context.Background(), time.Now().Add(maxWait), nr, args)
		if err != nil {
			t.fail(err)
			return 0, err
		}
		if !done {
			continue
		}
		if e := -ret; e != 0 && e < 4096 {
			switch e {
			case eRestartSys, eRestartNoIntr, eRestartNoHand, eRestartRestart:
				continue
			}
			return 0, unix.Errno(e)
		}
		return ret, nil
	}
	return 0, fmt.Errorf("%w: thread %d handles signals all the time", ErrBusy, t.worker.tid)
}

// try makes one call. It is not done if a signal came, which has been delivered then.
func (t *Tracee) try(ctx context.Context, deadline time.Time, nr uint64, args []uint64) (ret uint64, done bool, err error) {
	th := t.worker
	t.leaveRseq(th)
	var mask *uint64
	if !t.seccomp {
		mask = new(uint64)
		if err := ptrace(unix.PTRACE_GETSIGMASK, th.tid, 8, uintptr(unsafe.Pointer(mask))); err != nil {
			return 0, false, t.ptraceError(th, "getsigmask", err)
		}
	}
	if err := t.writeAt(stub(th.regs, mask, th.tid), t.cave.addr); err != nil {
		return 0, false, err
	}
	r := th.regs
	r.Rip = t.cave.addr
	r.Orig_rax = noSyscall // nothing to restart
	r.Rax, r.Rdi, r.Rsi, r.Rdx = unix.SYS_READ, ^uint64(0), 0, 0
	back := th.regs
	if err := t.store(th, &r); err != nil {
		return 0, false, err
	}
	if err := t.block(th, mask); err != nil {
		return 0, false, err
	}
	th.stopped = false
	ok, err := t.toSyscall(ctx, th, &back, mask, deadline)
	if err != nil || !ok {
		return 0, false, err
	}
	if t.seccomp {
		if err := ptrace(unix.PTRACE_SETOPTIONS, th.tid, 0, options|unix.PTRACE_O_SUSPEND_SECCOMP); err != nil {
			// Not permitted after all: read(-1) fails, and that is all.
			nr, args = unix.SYS_READ, []uint64{^uint64(0)}
			defer func() { err = fmt.Errorf("process %d: %w", t.pid, ErrSeccomp) }()
		}
	}
	r.Rip += 2
	r.Orig_rax, r.Rax = nr, errno(uint64(unix.ENOSYS))
	for i, p := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		*p = 0
		if i < len(args) {
			*p = args[i]
		}
	}
	// rcx and r11 are the kernel's here; the stub restores them.
	if err := t.store(th, &r); err != nil {
		return 0, false, err
	}
	if ok, err := t.toSyscall(ctx, th, &back, mask, deadline); err != nil || !ok {
		return 0, false, err
	}
	if t.seccomp {
		_ = ptrace(unix.PTRACE_SETOPTIONS, th.tid, 0, options)
	}
	if err := ptrace(unix.PTRACE_GETREGS, th.tid, 0, uintptr(unsafe.Pointer(&r))); err != nil {
		return 0, false, t.ptraceError(th, "getregs", err)
	}
	// The interrupt comes before the registers: what is left of the interrupted call
	// must not reach user mode, and the kernel looks at it only if a signal is pending.
	if err := ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0); err != nil {
		return 0, false, t.ptraceError(th, "interrupt", err)
	}
	if err := t.unblock(th, mask); err != nil {
		return 0, false, err
	}
	if err := t.store(th, &back); err != nil {
		return 0, false, err
	}
	if err := ptrace(unix.PTRACE_CONT, th.tid, 0, 0); err != nil {
		return 0, false, t.ptraceError(th, "cont", err)
	}
	return r.Rax, true, t.settle(ctx, th, deadline)
}

// block blocks all signals of a thread that is about to enter the stub; unblock has the
// mask be as it was.
func (t *Tracee) block(th *thread, mask *uint64) error {
	all := ^uint64(0)
	if mask == nil {
		return nil
	}
	return t.unblock(th, &all)
}

func (t *Tracee) unblock(th *thread, mask *uint64) error {
	if mask == nil {
		return nil
	}
	return t.ptraceError(th, "setsigmask", ptrace(unix.PTRACE_SETSIGMASK, th.tid, 8, uintptr(unsafe.Pointer(mask))))
}

// toSyscall runs a thread in the stub to the next beginning or end of a system call. A
// signal that comes before is delivered to the thread as it really is, back; then it
// stands at its handler, and the answer is false.
func (t *Tracee) toSyscall(ctx context.Context, th *thread, back *Regs, mask *uint64, deadline time.Time) (bool, error) {
	for {
		if err := ptrace(unix.PTRACE_SYSCALL, th.tid, 0, 0); err != nil {
			return false, t.ptraceError(th, "syscall", err)
		}
		s, err := t.await(ctx, th, deadline)
		if err != nil {
			return false, err
		}
		switch {
		case s.syscall():
			return true, nil
		case s.signal():
			if err := t.unblock(th, mask); err != nil {
				return false, err
			}
			if err := t.store(th, back); err != nil {
				return false, err
			}
			if err := ptrace(unix.PTRACE_INTERRUPT, th.tid, 0, 0); err != nil {
				return false, t.ptraceError(th, "interrupt", err)
			}
			if err := ptrace(unix.PTRACE_CONT, th.tid, 0, uintptr(s.sig)); err != nil {
				return false, t.ptraceError(th, "cont", err)
			}
			return false, t.settle(ctx, th, deadline)
		}
		// A group stop that begins or ends: it is looked at again afterwards.
	}
}

// leaveRseq does for a thread inside a restartable sequence what the kernel does when it
// preempts one: it goes to the sequence's abort handler (Documentation: rseq(2)). The
// kernel itself could not, for it would find the thread in the stub.
func (t *Tracee) leaveRseq(th *thread) {
	var conf struct {
		Addr                 uint64
		Size, Sign, Flags, _ uint32
	}
	if ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, th.tid, unsafe.Sizeof(conf), uintptr(unsafe.Pointer(&conf))) != nil || conf.Addr == 0 {
		return
	}
	// struct rseq: rseq_cs at 8; struct rseq_cs: start_ip at 8, post_commit_offset at
	// 16, abort_ip at 24 (include/uapi/linux/rseq.h).
	var b [32]byte
	if t.readAt(b[:8], conf.Addr+8) != nil {
		return
	}
	cs := binary.LittleEndian.Uint64(b[:])
	if cs == 0 || t.readAt(b[:], cs) != nil {
		return
	}
	start, length, abort := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	if th.regs.Rip-start < length {
		th.regs.Rip = abort
	}
}
