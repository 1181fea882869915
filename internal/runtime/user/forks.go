package user

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/target"
)

// A process that a traced one forks begins as a copy of it, with its probes, and goes
// on to write into the memory that is shared. It is known by that.

// forks are the other processes that share the memory of p, without those that have been
// seen before, to which it adds all there are.
func (p *process) forks(seen map[int]bool) (pids []int) {
	all, _ := target.PIDs()
	for _, pid := range all {
		if pid == p.pid || pid == os.Getpid() || seen[pid] {
			continue
		}
		seen[pid] = true
		if p.sharedBy(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (p *process) sharedBy(pid int) bool {
	proc, err := target.Open(pid)
	if err != nil {
		return false
	}
	defer proc.Close()
	if proc.Start < p.began {
		return false
	}
	ms, err := proc.Maps()
	if err != nil {
		return false
	}
	for _, m := range ms {
		if m.Inode == p.inode && m.Path == "/memfd:"+memoryName {
			return true
		}
	}
	return false
}

// fleetingWait bounds for how long processes are looked for that end, and leave others,
// before they can be stopped.
const fleetingWait = 5 * time.Second

// ErrFleeting: processes that were forked by a traced one keep their probes, whose hits
// come to nothing.
var ErrFleeting = errors.New("processes that the traced one has started end and start others too fast for their probes to be taken out")

// removeForks takes the probes out of all processes that were forked from p. While it
// looks, one that it has not come to yet may fork and end: it is done when no process
// has begun anywhere between the beginning and the end of a look.
func (p *process) removeForks(ctx context.Context) error {
	if p.journal == nil {
		return nil
	}
	var errs []error
	seen := map[int]bool{}
	for begin := time.Now(); ; {
		before := begun()
		pids := p.forks(seen)
		for _, pid := range pids {
			errs = append(errs, p.removeFork(ctx, pid))
		}
		if len(pids) == 0 && begun() == before {
			return errors.Join(errs...)
		}
		if time.Since(begin) > fleetingWait {
			if len(pids) > 0 {
				errs = append(errs, ErrFleeting)
			}
			return errors.Join(errs...)
		}
	}
}

// begun is how many processes and threads have begun since the system did
// (proc_stat(5), "processes").
func begun() string {
	b, _ := os.ReadFile("/proc/stat")
	_, rest, _ := strings.Cut(string(b), "\nprocesses ")
	n, _, _ := strings.Cut(rest, "\n")
	return n
}

func (p *process) removeFork(ctx context.Context, pid int) error {
	t, err := inject.Attach(ctx, pid)
	if err != nil {
		if over(err) {
			return nil
		}
		return err
	}
	if err := t.Stop(ctx); err != nil && !over(err) { // before it ends
		return errors.Join(err, t.Detach())
	}
	js, err := t.FindJournals(ctx)
	child := *p
	child.pid, child.t, child.hold, child.executed, child.journal, child.guard = pid, t, false, nil, nil, nil
	for _, j := range js {
		if j.Addr() == p.journal.Addr() {
			child.journal = j
		}
	}
	if over(err) {
		return t.Detach()
	}
	if child.journal == nil {
		return errors.Join(err, inject.ErrJournal, t.Detach())
	}
	// It may have begun before everything was there.
	there := child.journal.Regions()
	if !slices.Contains(there, p.handler) {
		child.handler = inject.Region{}
	}
	child.regions = slices.DeleteFunc(slices.Clone(p.regions), func(m mapping) bool { return !slices.Contains(there, m.Region) })
	if err := orphans(ctx, t, js); err != nil && !over(err) {
		return errors.Join(err, child.remove(ctx))
	}
	return child.remove(ctx)
}
