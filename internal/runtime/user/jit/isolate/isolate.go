// Package isolate runs an eBPF program that nobody has verified, by the JIT, so that
// the worst it can do is to end a process made for it: Here in that process, Apart
// from outside.
package isolate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"

	"golang.org/x/sys/unix"
)

// Timeout is how long a program may run.
const Timeout = 10 * time.Second

// Check reports what Here would refuse.
func Check(code []byte) error {
	_, _, err := compile(code)
	return err
}

func compile(code []byte) (*jit.Image, int, error) {
	p, err := insn.Decode(code, nil)
	if err != nil {
		return nil, 0, err
	}
	im, err := jit.Compile([]*insn.Program{p}, jit.Options{RDPID: native.HasRDPID()})
	if err != nil {
		return nil, 0, err
	}
	return im, im.Entries[p.Name].Offset, nil
}

// Here runs bytecode in this process with r1 = the address of a copy of mem and
// r2 = its length, and returns r0. There are no maps. A fault ends the process by
// its signal; what the program writes outside of its memory may do anything.
func Here(code, mem []byte) (uint64, error) {
	im, entry, err := compile(code)
	if err != nil {
		return 0, err
	}
	// The memory ends where a page that is not accessible begins, or up to 7 bytes
	// before.
	page := os.Getpagesize()
	whole := func(n int) int { return (n + page - 1) &^ (page - 1) }
	size, world := whole(len(mem)), whole(max(shm.OffSeeds+64*4096, shm.ProcSize))
	region, err := unix.Mmap(-1, 0, 2*world+size+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("mapping memory: %w", err)
	}
	defer unix.Munmap(region)
	end := len(region) - page
	if err := unix.Mprotect(region[end:], unix.PROT_NONE); err != nil {
		return 0, fmt.Errorf("mapping memory: %w", err)
	}
	base := uint64(uintptr(unsafe.Pointer(&region[0])))
	var addr uint64
	if len(mem) > 0 {
		at := (end - len(mem)) &^ 7
		copy(region[at:], mem)
		addr = base + uint64(at)
	}
	c, err := native.New(len(im.Code), func(uint64) ([]byte, error) { return im.Link(base, base+uint64(world)), nil })
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := dieQuietly(); err != nil {
		return 0, err
	}
	return c.Call(entry, addr, uint64(len(mem))), nil
}

// dieQuietly lets faults end the process as they end any other, without Go's report
// of its own state, and without a core.
func dieQuietly() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("no core dumps: %w", err)
	}
	var dfl [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags, no mask
	for _, s := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP} {
		if _, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0); e != 0 {
			return fmt.Errorf("handling %v: %w", s, e)
		}
	}
	return nil
}

// Errors that Apart wraps.
var (
	ErrFault   = errors.New("the program faulted")
	ErrTimeout = errors.New("the program did not end")
)

// Apart runs this executable again with the arguments, which are to lead to Here,
// and stdin, and returns its standard output.
func Apart(ctx context.Context, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	var out, messages strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &messages
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		return "", fmt.Errorf("%w within %v", ErrTimeout, Timeout)
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return "", fmt.Errorf("%w: %v", ErrFault, s.Signal())
		}
		return "", fmt.Errorf("running the program: %s", firstLine(messages.String()))
	}
	if err != nil {
		return "", fmt.Errorf("starting a process: %w", err)
	}
	return out.String(), nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
