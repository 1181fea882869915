// Package native runs machine code in this process: it is how tests and bpf exec
// call what the JIT made. Code runs on a stack of its own, outside of Go's; a fault
// in it ends the process.
package native

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stackSize is room for the deepest chain of eBPF frames with its helpers.
const stackSize = 64 << 10

// Code is executable memory. Close unmaps it.
type Code struct {
	text  []byte
	mu    sync.Mutex // of the stack
	stack []byte
}

// New maps size bytes for code, which Base says the place of, and calls fill to
// write them; then they become executable and are no longer writable.
func New(size int, fill func(base uint64) ([]byte, error)) (*Code, error) {
	text, err := unix.Mmap(-1, 0, max(size, 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mapping code: %w", err)
	}
	c := &Code{text: text}
	code, err := fill(c.Base())
	if err == nil && len(code) > len(text) {
		err = fmt.Errorf("%d bytes of code in %d", len(code), len(text))
	}
	if err == nil {
		copy(text, code)
		if err = unix.Mprotect(text, unix.PROT_READ|unix.PROT_EXEC); err == nil {
			c.stack, err = unix.Mmap(-1, 0, stackSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("mapping code: %w", err)
	}
	return c, nil
}

// Base is the address of the code.
func (c *Code) Base() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.text)))) }

// Call calls the function at an offset in the code with two arguments in rdi and
// rsi, as the System V ABI has it, and returns rax. What a1 and a2 point to must
// stay where it is: memory of Go's heap that the caller keeps alive, or mapped.
func (c *Code) Call(offset int, a1, a2 uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	runtime.LockOSThread() // the code may ask for its thread and CPU
	defer runtime.UnlockOSThread()
	top := uintptr(unsafe.Pointer(&c.stack[0])) + uintptr(len(c.stack))
	r := call(uintptr(c.Base())+uintptr(offset), top, a1, a2)
	runtime.KeepAlive(c)
	return r
}

// Close unmaps the code, which must not be running.
func (c *Code) Close() error {
	err := unix.Munmap(c.text)
	if c.stack != nil {
		if e := unix.Munmap(c.stack); err == nil {
			err = e
		}
	}
	return err
}

// call switches to the stack that ends at top and calls fn.
//
//go:noescape
func call(fn, top uintptr, a1, a2 uint64) uint64

// HasRDPID says whether the processor has the instruction rdpid (SDM, CPUID leaf 7).
func HasRDPID() bool {
	_, _, c, _ := cpuid(7, 0)
	return c>>22&1 != 0
}

func cpuid(leaf, sub uint32) (a, b, c, d uint32)
