package kernel

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// The kernel counts in a static probe's semaphore wherever it plants the probe, and takes that
// back when the tracer is gone. But it looks for a mapping of that part of the file that the
// process may write (valid_ref_ctr_vma in kernel/events/uprobes.c), and where the page has been
// made read-only after relocation, as lld's layout has it, it finds none, or another of the
// same page, in which nobody looks. In processes that run already it is counted here then: by
// /proc/PID/mem, which may write what the process itself may not.
//
// A tracer that is killed leaves those counters as they are: the program goes on making what
// nobody looks at, which is harmless.

// counter is a semaphore in a process.
type counter struct {
	pid   int
	start uint64
	addr  uint64
	// before is what it was before the probes were planted.
	before uint16
	probes []runtime.Probe
}

// counters are those of probes that are about to be planted.
type counters []counter

// semaphores reads those of probes in all processes in which they are about to be planted.
func (s *session) semaphores(probes []runtime.Probe, who runtime.Who) (all counters) {
	byPath := map[string][]runtime.Probe{}
	for _, p := range probes {
		if p.Semaphore.Offset != 0 {
			byPath[p.Path] = append(byPath[p.Path], p)
		}
	}
	if len(byPath) == 0 {
		return nil
	}
	pids := who.PIDs
	if len(pids) == 0 {
		pids, _ = target.PIDs()
	}
	for _, pid := range pids {
		p, err := target.Open(pid)
		if err != nil {
			continue
		}
		if ms, err := p.Maps(); err == nil {
			for path, probes := range byPath {
				all = append(all, countersOf(p, ms, path, probes)...)
			}
		}
		p.Close()
	}
	return all
}

// countersOf are the semaphores of a file's probes where a process has them.
func countersOf(p *target.Process, ms []target.Mapping, path string, probes []runtime.Probe) (all counters) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	at := map[uint64]int{}
	for _, pr := range probes {
		i := slices.IndexFunc(ms, func(m target.Mapping) bool {
			return m.Exec && m.Inode == st.Ino && m.Offset <= pr.Offset && pr.Offset-m.Offset < m.End-m.Start
		})
		if i < 0 {
			continue // it may map it later: the kernel counts then, before anything is read-only
		}
		addr := ms[i].Start + pr.Offset - ms[i].Offset + uint64(pr.Semaphore.Ahead)
		n, ok := at[addr]
		if !ok {
			c := counter{pid: p.PID, start: p.Start, addr: addr}
			if c.before, ok = c.read(); !ok {
				continue
			}
			n = len(all)
			at[addr] = n
			all = append(all, c)
		}
		all[n].probes = append(all[n].probes, pr)
	}
	return all
}

// raise counts in those that the kernel has not counted in, and returns them.
func (all counters) raise(failed []*runtime.ProbeError) (raised []counter) {
	for _, c := range all {
		planted := slices.ContainsFunc(c.probes, func(p runtime.Probe) bool {
			return !slices.ContainsFunc(failed, func(e *runtime.ProbeError) bool { return e.Probe == p })
		})
		if now, ok := c.read(); planted && ok && now <= c.before && c.add(1) {
			raised = append(raised, c)
		}
	}
	return raised
}

// lower counts them down again.
func lower(raised []counter) {
	for _, c := range raised {
		if target.Alive(c.pid, c.start) {
			c.add(-1)
		}
	}
}

func (c *counter) open(flag int) (*os.File, error) {
	return os.OpenFile(filepath.Join("/proc", strconv.Itoa(c.pid), "mem"), flag, 0)
}

func (c *counter) read() (uint16, bool) {
	f, err := c.open(os.O_RDONLY)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	var b [2]byte
	_, err = f.ReadAt(b[:], int64(c.addr))
	return binary.LittleEndian.Uint16(b[:]), err == nil
}

func (c *counter) add(n int) bool {
	now, ok := c.read()
	v := int(now) + n
	if !ok || v < 0 || v > 0xffff {
		return false
	}
	f, err := c.open(os.O_WRONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteAt(binary.LittleEndian.AppendUint16(nil, uint16(v)), int64(c.addr))
	return err == nil
}
