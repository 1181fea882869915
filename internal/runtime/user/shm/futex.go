package shm

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Operations of futex(2), between processes.
const (
	FutexWait       = 0
	FutexWake       = 1
	FutexWaitBitset = 9
)

// futexWait sleeps while a word has a value, at most for a time.
func futexWait(w *uint32, value uint32, d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), FutexWait, uintptr(value), uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// futexWake wakes all who sleep on a word.
func futexWake(w *uint32) {
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w)), FutexWake, math.MaxInt32, 0, 0, 0)
}
