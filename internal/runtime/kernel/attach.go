package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// maxLink is how many probes one uprobe_multi link gets: few enough that a
	// cancelled attach ends soon. The kernel takes 1<<20.
	maxLink = 4096
	// maxConfined is to how many processes the kernel confines probes by itself:
	// each is one more consumer that it asks at every hit.
	maxConfined = 16

	// enotsupp is the kernel's internal ENOTSUPP, which leaks out of
	// arch_uprobe_analyze_insn (include/linux/errno.h).
	enotsupp = syscall.Errno(524)
)

// ErrGone says that all processes that were to be traced have ended.
var ErrGone = errors.New("the process is gone")

// group is the probes of one program in one file.
type group struct {
	file   *file
	prog   *ebpf.Program
	probes []runtime.Probe
}

// Attach implements runtime.Session. It may be called again, for further probes
// or processes.
//
// Children are followed from the call on: those that exist already are not.
func (s *session) Attach(ctx context.Context, probes []runtime.Probe, who runtime.Who) (failed []*runtime.ProbeError, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if who.Command != nil {
		s.held = who.Command
	}
	before, followed := len(s.links), s.forks != nil && s.forks.links != nil
	added, err := s.aim(who)
	defer func() {
		if err == nil {
			return
		}
		failed = nil
		err = errors.Join(err, closeAll(s.links[before:]))
		s.links = s.links[:before]
		if s.forks != nil && !followed {
			err = errors.Join(err, s.forks.detach())
		}
		for _, pid := range added {
			_ = s.coll.Maps[runtime.MapTargets].Delete(pid)
		}
	}()
	if err != nil {
		return nil, err
	}
	pids := s.confine(who)

	semaphores := s.semaphores(probes, who)
	groups, failed, done := s.group(probes, len(pids) == 0)
	defer done()
	// Of several probes at one address the kernel runs the one first that was planted last
	// (consumer_add in kernel/events/uprobes.c): they shall run in their order.
	for _, g := range slices.Backward(groups) {
		alive := 0
		for _, pid := range pids {
			bad, err := s.attach(ctx, g, pid)
			if errors.Is(err, ErrGone) {
				continue
			}
			if err != nil {
				return nil, err
			}
			alive++
			failed = merge(failed, bad)
		}
		if len(pids) == 0 {
			bad, err := s.attach(ctx, g, 0)
			if err != nil {
				return nil, err
			}
			failed = append(failed, bad...)
		} else if alive == 0 {
			return nil, ErrGone
		}
	}
	s.raised = append(s.raised, semaphores.raise(failed)...)
	return failed, nil
}

// merge adds the errors of bad whose probes have none yet.
func merge(failed, bad []*runtime.ProbeError) []*runtime.ProbeError {
	if len(bad) == 0 {
		return failed
	}
	seen := make(map[runtime.Probe]bool, len(failed))
	for _, e := range failed {
		seen[e.Probe] = true
	}
	for _, e := range bad {
		if !seen[e.Probe] {
			failed = append(failed, e)
		}
	}
	return failed
}

// aim tells the programs whom to record, and returns the pids that are new to
// them.
func (s *session) aim(who runtime.Who) (added []uint32, err error) {
	targets := s.coll.Maps[runtime.MapTargets]
	if who.Forks && len(who.PIDs) > 0 {
		if err := s.follow(targets); err != nil {
			return nil, err
		}
	}
	if targets == nil {
		return nil, nil
	}
	if targets.KeySize() != 4 || targets.ValueSize() == 0 {
		return nil, fmt.Errorf("kernel runtime: map %s has keys of %d bytes", runtime.MapTargets, targets.KeySize())
	}
	yes := make([]byte, targets.ValueSize())
	yes[0] = 1
	for _, pid := range who.PIDs {
		key := uint32(pid)
		switch err := targets.Update(key, yes, ebpf.UpdateNoExist); {
		case err == nil:
			added = append(added, key)
		case errors.Is(err, ebpf.ErrKeyExist):
		default:
			return added, fmt.Errorf("kernel runtime: map %s: %w", runtime.MapTargets, err)
		}
	}
	return added, nil
}

func (s *session) follow(targets *ebpf.Map) (err error) {
	switch {
	case s.forks == nil:
		s.forks, err = followForks(targets)
	case s.forks.links == nil:
		err = s.forks.attach()
	}
	return err
}

// confine returns the processes to which the kernel shall confine the probes, so
// that others that run the same file never meet a breakpoint; none if programs
// have to tell processes apart, or need not.
func (s *session) confine(who runtime.Who) []int {
	if len(who.PIDs) == 0 || who.Forks {
		return nil
	}
	if s.coll.Maps[runtime.MapTargets] == nil {
		return who.PIDs
	}
	if s.multi && !s.features.MultiPIDFilter || len(who.PIDs) > maxConfined {
		return nil
	}
	for _, pid := range who.PIDs {
		// The kernel compares memory with that of the thread group's leader, which
		// has none left if it has ended before its threads (uprobe_multi_link_filter
		// in kernel/trace/bpf_trace.c, __uprobe_perf_filter in trace_uprobe.c).
		if state(pid) == 'Z' {
			return nil
		}
	}
	return who.PIDs
}

// state is the state of a thread as in proc_pid_stat(5), 0 if there is none.
func state(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	if _, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") "); ok && rest != "" {
		return rest[0]
	}
	return 0
}

// group sorts probes by file and program, in the order in which they come. done
// must be called when they are attached. With try, the kernel is made to try each
// probe on a mapping of the file by the tracer itself: see file.mapped.
func (s *session) group(probes []runtime.Probe, try bool) (groups []*group, failed []*runtime.ProbeError, done func()) {
	type key struct{ path, program string }
	var (
		byKey  = make(map[key]*group)
		files  = make(map[string]*file)
		errs   = make(map[string]error)
		refuse = func(p runtime.Probe, err error) {
			failed = append(failed, &runtime.ProbeError{Probe: p, Err: err})
		}
	)
	for _, p := range probes {
		f, err := files[p.Path], errs[p.Path]
		if f == nil && err == nil {
			if f, err = openFile(p.Path); err != nil {
				errs[p.Path] = err
			} else {
				files[p.Path] = f
			}
		}
		prog := s.coll.Programs[p.Program]
		switch {
		case err != nil:
			refuse(p, err)
		case prog == nil || prog.Type() != ebpf.Kprobe:
			refuse(p, fmt.Errorf("there is no uprobe program %q", p.Program))
		case !f.executable(p.Offset):
			refuse(p, fmt.Errorf("offset %#x of %s is not in an executable segment", p.Offset, p.Path))
		default:
			k := key{p.Path, p.Program}
			g := byKey[k]
			if g == nil {
				g = &group{file: f, prog: prog}
				byKey[k] = g
				groups = append(groups, g)
			}
			g.probes = append(g.probes, p)
			f.use(p.Offset)
		}
	}
	for _, f := range files {
		if try {
			f.mapped()
		}
	}
	return groups, failed, func() {
		for _, f := range files {
			f.close()
		}
	}
}

// attach plants g in the process pid, 0 for all. An error concerns all probes, and
// is ErrGone if the process has ended.
func (s *session) attach(ctx context.Context, g *group, pid int) (failed []*runtime.ProbeError, err error) {
	if !s.multi {
		return s.attachSingle(ctx, g, pid)
	}
	for probes := g.probes; len(probes) > 0; {
		n := min(len(probes), maxLink)
		bad, err := s.attachMulti(ctx, g, probes[:n], pid)
		if err != nil {
			return nil, err
		}
		failed = append(failed, bad...)
		probes = probes[n:]
	}
	return failed, nil
}

// attachMulti makes one link of probes, or, since one that can't be planted spoils
// them all, several without the culprits, which are found by halving.
func (s *session) attachMulti(ctx context.Context, g *group, probes []runtime.Probe, pid int) ([]*runtime.ProbeError, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o := link.UprobeMultiOptions{PID: uint32(pid)}
	for _, p := range probes {
		o.Addresses = append(o.Addresses, p.Offset)
		o.Cookies = append(o.Cookies, p.Cookie)
		o.RefCtrOffsets = append(o.RefCtrOffsets, p.Semaphore.Offset)
	}
	l, err := g.file.UprobeMulti(nil, g.prog, &o)
	if err == nil {
		s.links = append(s.links, l)
		return nil, nil
	}
	if err := common(err, pid); err != nil {
		return nil, err
	}
	if len(probes) == 1 {
		return []*runtime.ProbeError{{Probe: probes[0], Err: reason(err)}}, nil
	}
	half := len(probes) / 2
	failed, err := s.attachMulti(ctx, g, probes[:half], pid)
	if err != nil {
		return nil, err
	}
	more, err := s.attachMulti(ctx, g, probes[half:], pid)
	return append(failed, more...), err
}

// attachSingle makes one perf event for each probe.
func (s *session) attachSingle(ctx context.Context, g *group, pid int) ([]*runtime.ProbeError, error) {
	var (
		mu     sync.Mutex // of failed, fatal and s.links
		failed []*runtime.ProbeError
		fatal  error
	)
	each(len(g.probes), func(i int) {
		p := g.probes[i]
		mu.Lock()
		stop := fatal != nil || ctx.Err() != nil
		mu.Unlock()
		if stop {
			return
		}
		l, err := g.file.Uprobe("", g.prog, &link.UprobeOptions{Address: p.Offset, Cookie: p.Cookie, PID: pid, RefCtrOffset: p.Semaphore.Offset})
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			s.links = append(s.links, l)
			return
		}
		if c := common(err, pid); c != nil {
			fatal = c
			return
		}
		failed = append(failed, &runtime.ProbeError{Probe: p, Err: reason(err)})
	})
	if fatal == nil {
		fatal = ctx.Err()
	}
	return failed, fatal
}

// common returns the error if it concerns all probes, not the one or few that were
// tried.
func common(err error, pid int) error {
	// cilium/ebpf turns ESRCH of uprobe_multi into os.ErrNotExist.
	if pid != 0 && (errors.Is(err, unix.ESRCH) || errors.Is(err, os.ErrNotExist)) && gone(pid) {
		return ErrGone
	}
	// Stable kernels of 2025 and later want more than CAP_PERFMON for uprobes of
	// perf_event_open (perf_uprobe_event_init in kernel/events/core.c).
	if (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && effective()&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("kernel runtime: attaching: %w", &PermissionError{Missing: []string{"CAP_SYS_ADMIN"}, Err: err})
	}
	for _, all := range []error{unix.EPERM, unix.EACCES, unix.ENOMEM, unix.EMFILE, unix.ENFILE, ebpf.ErrNotSupported} {
		if errors.Is(err, all) {
			return fmt.Errorf("kernel runtime: attaching: %w", permission(err))
		}
	}
	return nil
}

func gone(pid int) bool {
	return errors.Is(unix.Kill(pid, 0), unix.ESRCH) || state(pid) == 'Z'
}

// reason says of one probe why the kernel would not have it.
func reason(err error) error {
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, enotsupp), errors.Is(err, unix.EIO):
		return fmt.Errorf("the kernel refuses a uprobe on this instruction: %w", err)
	}
	return err
}
