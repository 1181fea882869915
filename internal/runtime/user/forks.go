package user

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/target"
)

// A process that a traced one forks begins as a copy of it, with its probes, and goes
// on to write into the memory that is shared. It is known by that.

// forks are the other processes that share the memory of p.
func (p *process) forks() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == p.pid || pid == os.Getpid() {
			continue
		}
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

// removeForks takes the probes out of all processes that were forked from p, until
// there is none left that has them.
func (p *process) removeForks(ctx context.Context) error {
	failed := map[int]error{}
	for more := true; more; {
		more = false
		for _, pid := range p.forks() {
			if failed[pid] != nil {
				continue
			}
			more = true
			if err := p.removeFork(ctx, pid); err != nil {
				failed[pid] = err
			}
		}
	}
	var errs []error
	for _, err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *process) removeFork(ctx context.Context, pid int) error {
	t, err := inject.Attach(ctx, pid)
	if err != nil {
		if over(err) {
			return nil
		}
		return err
	}
	js, err := t.FindJournals(ctx)
	child := *p
	child.pid, child.t, child.hold, child.executed, child.journal = pid, t, false, nil, nil
	for _, j := range js {
		if j.Addr() == p.journal.Addr() {
			child.journal = j
		}
	}
	if child.journal == nil {
		return errors.Join(err, inject.ErrJournal, t.Detach())
	}
	// It may have begun before everything was there.
	there := child.journal.Regions()
	child.regions = slices.DeleteFunc(slices.Clone(p.regions), func(m mapping) bool { return !slices.Contains(there, m.Region) })
	return child.remove(ctx)
}
