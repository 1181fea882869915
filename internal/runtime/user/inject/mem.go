package inject

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// ConflictError: memory is not as it should be. It is ErrConflict.
type ConflictError struct {
	Addr       uint64
	Want, Have []byte
	What       string // what it looks like
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("at %#x the memory is % x, not % x: %s", e.Addr, e.Have, e.Want, e.What)
}

func (e *ConflictError) Unwrap() error { return ErrConflict }

// ReadMem reads memory of the process, all of b or an error, whether it runs or not.
func (t *Tracee) ReadMem(ctx context.Context, b []byte, addr uint64) error {
	return t.call(ctx, func(context.Context, time.Time) error { return t.readAt(b, addr) })
}

// WriteMem writes memory of the process that no one executes yet.
func (t *Tracee) WriteMem(ctx context.Context, b []byte, addr uint64) error {
	return t.call(ctx, func(context.Context, time.Time) error { return t.writeAt(b, addr) })
}

// WriteCode replaces code, in a private mapping, and verifies that old was there and
// that new is now. If file is not nil, it holds the bytes that the file has there, and
// names the conflict better. The error is a *ConflictError, and nothing is written, if
// something else was there, such as the int3 of a kernel uprobe.
//
// It is the caller's to see that no thread executes the bytes meanwhile.
func (t *Tracee) WriteCode(ctx context.Context, addr uint64, old, new, file []byte) error {
	if len(old) != len(new) || file != nil && len(file) != len(old) {
		return fmt.Errorf("replacing %d bytes of code by %d", len(old), len(new))
	}
	return t.call(ctx, func(context.Context, time.Time) error { return t.writeCode(addr, old, new, file) })
}

// CheckCode is WriteCode without the writing: the error is a *ConflictError if something
// else than want is there. It does not matter whether the process runs.
func (t *Tracee) CheckCode(ctx context.Context, addr uint64, want []byte) error {
	return t.call(ctx, func(context.Context, time.Time) error {
		have := make([]byte, len(want))
		if err := t.readAt(have, addr); err != nil {
			return err
		}
		if !bytes.Equal(have, want) {
			return &ConflictError{addr, want, have, t.culprit(addr, want, have, want)}
		}
		return nil
	})
}

func (t *Tracee) writeCode(addr uint64, old, new, file []byte) error {
	have := make([]byte, len(old))
	if err := t.readAt(have, addr); err != nil {
		return err
	}
	if !bytes.Equal(have, old) {
		return &ConflictError{addr, old, have, t.culprit(addr, old, have, file)}
	}
	if err := t.writeAt(new, addr); err != nil {
		return err
	}
	if err := t.readAt(have, addr); err != nil {
		return err
	}
	if !bytes.Equal(have, new) {
		return &ConflictError{addr, new, have, "something writes there at the same time"}
	}
	return nil
}

// culprit says what changed code looks like.
func (t *Tracee) culprit(addr uint64, want, have, file []byte) string {
	i := 0
	for i < len(have)-1 && have[i] == want[i] {
		i++
	}
	changed := file == nil || !bytes.Equal(have, file)
	switch {
	case !changed:
		return "the file's own bytes are there"
	case have[i] == 0xcc:
		return "a breakpoint: a kernel uprobe's or a debugger's"
	case (have[i] == 0xe8 || have[i] == 0xe9) && len(have)-i >= 5:
		to := addr + uint64(i) + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(have[i+1:]))))
		ms, _ := t.proc.Maps()
		for _, m := range ms {
			if m.Start <= to && to < m.End {
				switch {
				case m.Path == "[uprobes-trampoline]":
					return "a kernel uprobe"
				case m.Path != "":
					return "a jump into " + m.Path
				}
				return "a jump into memory without a name: another tracer's"
			}
		}
	case have[i] == 0xeb || have[i] == 0xff:
		return "a jump: another tracer's"
	}
	if file == nil {
		return "it is not what the file was thought to hold, or another tracer's"
	}
	return "another tracer's, or the program changes its own code"
}

// stackGap is what the kernel keeps free below a stack that grows (stack_guard_gap in
// mm/mmap.c), with room to grow on, as far as RLIMIT_STACK's usual 8 MiB.
const stackGap = 8<<20 + 256<<12

// FreeRange finds size bytes, in whole pages, that nothing is mapped in and every byte of
// which a 32-bit displacement reaches from near and from the 16 bytes behind it. It must
// be mapped with MAP_FIXED_NOREPLACE, and anew sought for if the process was faster
// (unix.EEXIST). It is never below a stack that grows. The error is ErrNoRoom.
func (t *Tracee) FreeRange(ctx context.Context, near, size uint64) (addr uint64, err error) {
	err = t.call(ctx, func(context.Context, time.Time) error {
		ms, merr := t.proc.Maps()
		if merr != nil {
			return merr
		}
		a, ok := freeRange(ms, near, size, minAddr())
		if !ok {
			return fmt.Errorf("process %d: %w: %d bytes near %#x", t.pid, ErrNoRoom, size, near)
		}
		addr = a
		return nil
	})
	return addr, err
}

func minAddr() uint64 {
	if b, err := os.ReadFile("/proc/sys/vm/mmap_min_addr"); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return max(n, 65536)
		}
	}
	return 65536
}

const topAddr = 1<<47 - 4096 // TASK_SIZE_MAX, without five-level paging

// freeRange looks through the gaps between mappings, in order of address, for the place
// that is nearest.
func freeRange(ms []target.Mapping, near, size, lowest uint64) (best uint64, ok bool) {
	const page = 4096
	if size == 0 || size > math.MaxInt32 || near > topAddr {
		return 0, false
	}
	size = (size + page - 1) &^ (page - 1)
	reach := uint64(1<<31 - page)
	low, high := lowest, uint64(topAddr)
	if near > reach {
		low = max(low, near-reach)
	}
	high = min(high, near+reach)
	low, high = (low+page-1)&^(page-1), high&^(page-1)
	dist := uint64(math.MaxUint64)
	for _, gap := range gaps(ms, lowest) {
		from, to := max(gap.Start, low), min(gap.End, high)
		if from >= to || to-from < size {
			continue
		}
		a := from
		if near >= to {
			a = to - size
		}
		if d := max(a, near) - min(a, near); d < dist {
			best, dist, ok = a, d, true
		}
	}
	return best, ok
}

// gaps are the addresses between mappings, in order, but for those that a stack or the
// heap may grow into.
func gaps(ms []target.Mapping, lowest uint64) (free []Range) {
	prev := (lowest + 4095) &^ 4095
	for _, m := range ms {
		end := m.Start
		if strings.HasPrefix(m.Path, "[stack") {
			end -= min(end, stackGap)
		}
		if end = min(end, topAddr); end > prev {
			free = append(free, Range{prev, end})
		}
		prev = max(prev, m.End)
		if m.Path == "[heap]" { // it grows upwards
			prev += 64 << 20
		}
	}
	if prev < topAddr {
		free = append(free, Range{prev, topAddr})
	}
	return free
}

// FreeRanges are all addresses that nothing is mapped at, in order, in whole pages. What
// FreeRange says of mapping there holds here too.
func (t *Tracee) FreeRanges(ctx context.Context) (free []Range, err error) {
	err = t.call(ctx, func(context.Context, time.Time) error {
		ms, err := t.proc.Maps()
		if err == nil {
			free = gaps(ms, minAddr())
		}
		return err
	})
	return free, err
}

// sigcode is the si_code of the signal that a thread has stopped for.
func (t *Tracee) sigcode(th *thread) (int32, bool) {
	var info [128]byte
	if ptrace(unix.PTRACE_GETSIGINFO, th.tid, 0, uintptr(unsafe.Pointer(&info))) != nil {
		return 0, false
	}
	return int32(binary.LittleEndian.Uint32(info[8:])), true
}
