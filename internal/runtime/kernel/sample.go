package kernel

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Sample implements runtime.Session, by an event of the CPUs' clocks on each that is online.
// What is attached hangs on descriptors, as all else.
func (s *session) Sample(program string, every time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	prog := s.coll.Programs[program]
	if prog == nil || prog.Type() != ebpf.PerfEvent {
		return fmt.Errorf("kernel runtime: there is no program %q that samples", program)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("kernel runtime: %w", err)
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
		Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Sample: uint64(every), Bits: unix.PerfBitDisabled,
	}
	before := len(s.samples)
	for cpu := range cpus {
		fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ENODEV) { // it is offline
			continue
		}
		if err != nil {
			return fmt.Errorf("kernel runtime: sampling CPU %d: %w", cpu, permission(os.NewSyscallError("perf_event_open", err)))
		}
		s.samples = append(s.samples, fd)
		err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD())
		if err == nil {
			err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
		}
		if err != nil {
			return fmt.Errorf("kernel runtime: sampling CPU %d: %w", cpu, permission(os.NewSyscallError("ioctl", err)))
		}
	}
	if len(s.samples) == before {
		return errors.New("kernel runtime: there is no CPU that could be sampled")
	}
	return nil
}
