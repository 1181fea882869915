package kernel

import "time"

// Cost is about what one hit costs the thread that runs into it, counting only;
// a record with a string of 64 bytes costs 2–3 µs more. The figures are of one
// virtual machine with Linux 6.18: what they are for is comparing probes.
//
// emulated says that the kernel emulates the probed instruction (push, jmp, call,
// nop), nop5 that it is the five-byte nop which Linux 6.18 turns into a call.
// Everything else is executed out of line under a single step, which traps twice.
// The ret of an exit is such.
func Cost(emulated, nop5, exit bool) time.Duration {
	switch {
	case nop5:
		return 530
	case emulated:
		return 770
	case exit:
		return 10_000
	}
	return 12_000
}
