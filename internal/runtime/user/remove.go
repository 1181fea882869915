package user

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/patch"

	"golang.org/x/sys/unix"
)

// remainsError says that memory had to be left in a process.
type remainsError struct {
	pid, threads int
	size         uint64
}

func (e *remainsError) Error() string {
	return fmt.Sprintf("process %d runs its own code again, but %d of its threads have not left that of the probes: %d KiB stay mapped, until it is traced again or ends", e.pid, e.threads, e.size>>10)
}

// leaveWait bounds how long threads are waited for that are inside a probe.
const leaveWait = time.Second

// remove takes everything out of the process, which need not live any more. A command
// that was never released shall not run: it is ended.
func (p *process) remove(ctx context.Context) error {
	if p.hold {
		p.hold = false
		err := unix.Kill(p.pid, unix.SIGKILL) // it is stopped, and this process's child: no other has its number
		return errors.Join(os.NewSyscallError("kill", err), p.t.Detach())
	}
	p.lookForExec(ctx)
	err := p.restore(ctx)
	if err == nil {
		err = p.unmap(ctx)
	}
	var remains *remainsError
	if err != nil && !errors.As(err, &remains) {
		if over(err) {
			err = nil
		} else {
			err = fmt.Errorf("taking the probes out: %w", err)
		}
	}
	return errors.Join(err, p.t.Detach())
}

// over says that the process has ended, or executes another program: what was put
// into it is gone.
func over(err error) bool { return errors.Is(err, inject.ErrGone) || errors.Is(err, inject.ErrExec) }

// restore puts the program's own code back and sees every thread out of that of the
// probes.
func (p *process) restore(ctx context.Context) error {
	inside := interiors(p.patches)
	code := p.codeRegions()
	sorted := slices.Clone(p.patches)
	slices.SortFunc(sorted, func(a, b *patch.Patch) int { return compare(a.Trampoline, b.Trampoline) })
	restored := len(p.patches) == 0
	for begin := time.Now(); ; {
		if _, err := p.t.StopAll(ctx, inside...); err != nil {
			return err
		}
		var conflicts []*inject.ConflictError
		var err error
		if !restored {
			_, conflicts, err = p.journal.Restore(ctx)
			restored = err == nil && len(conflicts) == 0
		}
		left, merr := 0, error(nil)
		if restored {
			if left, merr = p.moveOut(ctx, sorted, code); merr == nil {
				_ = p.t.Membarrier(ctx) // where there is none, stops have to do
			}
		}
		rerr := p.resume()
		if err == nil && len(conflicts) > 0 {
			// Another tracer's probes lie over ours. What they lead to has to stay.
			return conflicts[0]
		}
		if errors.Is(err, inject.ErrBusy) {
			err, left = nil, 1
		}
		if err := errors.Join(err, merr, rerr); err != nil || left == 0 {
			return err
		}
		if time.Since(begin) > leaveWait {
			if !restored {
				return fmt.Errorf("process %d: %w", p.pid, inject.ErrBusy)
			}
			e := &remainsError{pid: p.pid, threads: left}
			for _, m := range p.regions {
				e.size += m.Size
			}
			return e
		}
		if err := sleep(ctx, stopWait); err != nil {
			return err
		}
	}
}

func compare(a, b uint64) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// codeRegions are the places that a thread can be inside, in order.
func (p *process) codeRegions() (rs []inject.Range) {
	for _, m := range p.regions {
		if m.code {
			rs = append(rs, inject.Range{Start: m.Addr, End: m.Addr + m.Size})
		}
	}
	slices.SortFunc(rs, func(a, b inject.Range) int { return compare(a.Start, b.Start) })
	return rs
}

// contains looks an address up in ranges in order.
func contains(rs []inject.Range, addr uint64) bool {
	i := sort.Search(len(rs), func(i int) bool { return rs[i].End > addr })
	return i < len(rs) && rs[i].Start <= addr
}

// moveOut moves stopped threads that stand at a copy of one of the program's
// instructions to the instruction itself, and counts those that are elsewhere in code
// of ours, or will come back there from a signal handler.
func (p *process) moveOut(ctx context.Context, sorted []*patch.Patch, code []inject.Range) (left int, err error) {
	threads, err := p.t.Threads(ctx)
	if err != nil {
		return 0, err
	}
	// own is where a thread has to go on; ok is false if it has to be waited for.
	own := func(ip uint64) (uint64, bool) {
		if !contains(code, ip) {
			return ip, true
		}
		i := sort.Search(len(sorted), func(i int) bool { return sorted[i].Trampoline+uint64(len(sorted[i].Code.Bytes)) > ip })
		if i < len(sorted) && sorted[i].Trampoline <= ip {
			return sorted[i].Removed(ip)
		}
		return ip, false
	}
	in := func(ip uint64) bool { return contains(code, ip) }
	for _, th := range threads {
		if to, ok := own(th.Regs.Rip); !ok {
			left++
		} else if to != th.Regs.Rip {
			if th.InSyscall() {
				left++
			} else if err := p.t.SetRIP(ctx, th.TID, to); err != nil {
				return 0, err
			}
		}
		left += len(p.interrupted(ctx, th.Regs.Rsp, bounds(code), in))
	}
	return left, nil
}
