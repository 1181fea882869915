package user

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/target"
)

// orphans takes out what a tracer has left that was killed between making it and noting
// it, or that a fork has got at that moment: memory and descriptors, known by their names.
// What the journals tell of stays.
func orphans(ctx context.Context, t *inject.Tracee, js []*inject.Journal) error {
	ms, err := mapsOf(t.PID)
	if err != nil {
		return err
	}
	noted := map[uint64]bool{}
	for _, j := range js {
		noted[j.Addr()] = true
		for _, r := range j.Regions() {
			noted[r.Addr] = true
		}
	}
	var errs []error
	for _, m := range ms {
		if Ours(m) && m.Offset == 0 && !noted[m.Start] {
			errs = append(errs, t.Munmap(ctx, m.Start, m.End-m.Start))
		}
	}
	dir := fmt.Sprintf("/proc/%d/fd", t.PID)
	es, _ := os.ReadDir(dir)
	for _, e := range es {
		link, _ := os.Readlink(dir + "/" + e.Name())
		if fd, err := strconv.Atoi(e.Name()); err == nil && isOurs(strings.TrimSuffix(link, " (deleted)")) {
			errs = append(errs, t.CloseFD(ctx, fd))
		}
	}
	return errors.Join(errs...)
}

// Ours says whether a mapping is of memory that this runtime has put into a process, and
// that has a name. Where there is one there may be jumps.
func Ours(m target.Mapping) bool { return isOurs(m.Path) }

// isOurs is whether a name is that of a file in memory that this package, or package
// inject, makes.
func isOurs(path string) bool {
	return path == "/memfd:"+memoryName || path == "/memfd:"+inject.JournalName
}

func mapsOf(pid int) ([]target.Mapping, error) {
	proc, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	return proc.Maps()
}

// there are the regions of a journal without those that were planned and are not: code of
// ours is in memory without a name.
func there(pid int, j *inject.Journal) ([]inject.Region, error) {
	ms, err := mapsOf(pid)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(j.Regions(), func(r inject.Region) bool {
		if !j.Planned(r) {
			return false
		}
		at := r.Addr // neighbours may have become one mapping
		for _, m := range ms {
			if m.Start <= at && at < m.End && m.Exec && m.Inode == 0 && m.Path == "" {
				at = m.End
			}
		}
		return at < r.Addr+r.Size
	}), nil
}
