package session

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"time"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/explain"
	"ferrotrace/internal/index"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/target"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

// Values of Options.Runtime.
const (
	Auto   = "auto" // the user runtime where it is permitted, safe and complete
	Kernel = "kernel"
	User   = "user"
)

// permission refuses what no runtime may trace, before files are read that may be
// large. What forbids the user runtime is kept in notUser.
func (r *run) permission() error {
	if r.o.Runtime != Kernel {
		r.notUser = mayUser(&r.o)
	}
	switch {
	case r.o.Runtime == Kernel:
		return r.kernelRefused(kernel.Permission())
	case r.notUser == nil:
		return nil
	case r.o.Runtime == User:
		return userRefused(r.notUser)
	}
	return neither(r.notUser, kernel.Permission())
}

// mayUser says why the user runtime can't be in what is to be traced, as far as that is
// known beforehand.
func mayUser(o *Options) error {
	if len(o.PIDs) == 0 && len(o.Command) == 0 {
		return user.ErrEverywhere
	}
	for _, pid := range o.PIDs {
		// What is no process any more, or has never been one, is named by who opens it.
		if err := user.Check(pid); err != nil && !errors.Is(err, inject.ErrGone) {
			return err
		}
	}
	return nil
}

// attach has what was built run by the runtime that was asked for, or the one that will
// do: it starts the command, if there is one, which stands before its first instruction
// then, and plants the probes.
func (r *run) attach(ctx context.Context) (*codegen.Compiled, int, error) {
	if ctx.Err() != nil {
		return nil, 0, errInterrupted
	}
	if len(r.b.prog.Probes) == 0 {
		return nil, 0, refuse(nothing, errors.New("what matches has no code to probe"),
			"ferrotrace explain "+r.files[0].shown+" "+r.o.Patterns[0]+" says why")
	}
	if r.o.Runtime != Kernel && r.notUser == nil {
		c, failed, err := r.onUser(ctx)
		var start *target.StartError
		switch {
		case ctx.Err() != nil:
			return nil, 0, errInterrupted
		case errors.As(err, &start): // the same on every runtime
			return nil, 0, err
		case r.o.Runtime == User && err != nil:
			return nil, 0, userRefused(err)
		case r.o.Runtime == User:
			return r.attached(c, failed)
		case err == nil:
			i := slices.IndexFunc(failed, func(e *runtime.ProbeError) bool { return r.kernelCould(e.Probe.Cookie) })
			if i < 0 {
				if r.o.Verbose {
					r.o.Note("user runtime: it is permitted, and every probe can be planted that can be at all")
				}
				return r.attached(c, failed)
			}
			err = r.incomplete(failed[i].Probe.Cookie, failed[i])
		}
		r.notUser = err
		if err := r.undo(); err != nil {
			return nil, 0, err
		}
	}
	c, failed, err := r.onKernel(ctx)
	switch {
	case ctx.Err() != nil:
		return nil, 0, errInterrupted
	case err != nil && r.notUser != nil:
		return nil, 0, neither(r.notUser, err)
	case err != nil:
		return nil, 0, r.kernelRefused(err)
	}
	if r.notUser != nil {
		r.o.Note("kernel runtime: %v", r.notUser)
	}
	return r.attached(c, failed)
}

// attached says what could not be planted, and does without it.
func (r *run) attached(c *codegen.Compiled, missed []*runtime.ProbeError) (*codegen.Compiled, int, error) {
	r.o.Doing("")
	n := len(c.Probes) - len(missed)
	if n == 0 {
		err := fmt.Errorf("no probe could be planted: %w", missed[0])
		if r.rt.Name() == User {
			err = userRefused(err)
		}
		return nil, 0, err
	}
	r.leaveOut(missed)
	r.unmapped()
	return c, n, nil
}

// leaveOut names the sites that have no probe, and expects nothing of them.
func (r *run) leaveOut(missed []*runtime.ProbeError) {
	told := 0
	for _, e := range missed {
		cookie := e.Probe.Cookie
		if slices.Contains(r.unplanted, cookie) { // several programs at one address
			continue
		}
		r.unplanted = append(r.unplanted, cookie)
		if told++; told <= maxTold {
			r.o.Warn("not probed: %s: %v", r.b.name(cookie), e)
		}
	}
	if told > maxTold {
		r.o.Warn("and %d more that can't be probed", told-maxTold)
	}
	r.b.without(r.unplanted)
}

// maxTold is how many sites are named that have no probe.
const maxTold = 5

// onUser puts the probes into the processes. With Auto nothing is touched if it is
// known beforehand that one of them can't be planted.
func (r *run) onUser(ctx context.Context) (*codegen.Compiled, []*runtime.ProbeError, error) {
	if r.o.Runtime == Auto {
		r.o.Doing(fmt.Sprintf("planning %d probes", len(r.b.prog.Probes)))
		if err := r.unplantable(); err != nil {
			return nil, nil, err
		}
	}
	rt, err := user.New(user.Options{Text: r.text, RingSize: ringSize(), Mapped: r.later.add})
	if err != nil {
		return nil, nil, err
	}
	// Only what it is put into runs it, and what forks from that.
	r.b.prog.Filter, r.b.prog.PIDNamespace = false, nil
	c, err := r.compile(codegen.Options{HaveLoop: true, XMM: user.XMM, Reserve: true})
	if err != nil {
		return nil, nil, err
	}
	if err := r.start(); err != nil {
		return nil, nil, err
	}
	failed, err := r.plant(ctx, rt, c)
	return c, failed, err
}

// ringSize is what a process may write on each CPU before it is read. Nothing slows it
// down to the speed at which calls are shown, so a burst of tens of thousands shall fit;
// but what it fills counts as its own memory, for which it may have a limit.
func ringSize() int {
	const all, most, least = 256 << 20, 16 << 20, 4 << 20
	size := most
	for size > least && size*goruntime.NumCPU() > all {
		size /= 2
	}
	return size
}

// unplantable is the first site that would have no probe, and has one in the kernel.
func (r *run) unplantable() error {
	for _, f := range r.files {
		var addrs []uint64
		var cookies []uint64
		for i, p := range r.b.prog.Probes {
			if p.Path == f.path {
				addrs, cookies = append(addrs, p.Addr), append(cookies, uint64(i))
			}
		}
		for i, p := range user.Explain(f.ix.Text(), addrs) {
			if p.Err != nil && r.kernelCould(cookies[i]) {
				return r.incomplete(cookies[i], p.Err)
			}
		}
	}
	return nil
}

// kernelCould says whether the kernel allows a probe at a site.
func (r *run) kernelCould(cookie uint64) bool { return x86.CanProbe(r.b.insts[cookie]) }

func (r *run) incomplete(cookie uint64, err error) error {
	return &incompleteError{fmt.Errorf("%s can't be planted in the process: %w", r.b.name(cookie), err)}
}

// text is what the user runtime has to know of a file's code.
func (r *run) text(path string) (user.Text, error) {
	for _, f := range r.files {
		if f.path == path {
			return f.ix.Text(), nil
		}
	}
	return nil, fmt.Errorf("%s is not being traced", path)
}

// errRefused: what arch_uprobe_analyze_insn in the kernel's arch/x86/kernel/uprobes.c
// refuses, or worse: a uprobe on some vector instructions makes them compute nothing.
var errRefused = errors.New("the kernel allows no probe on that instruction")

// onKernel has the kernel plant the probes.
func (r *run) onKernel(ctx context.Context) (*codegen.Compiled, []*runtime.ProbeError, error) {
	rt, err := kernel.New(kernel.Options{})
	if err != nil {
		return nil, nil, err
	}
	dev, ino, initial, err := target.PIDNamespace()
	if err != nil {
		return nil, nil, err
	}
	if err := r.start(); err != nil {
		return nil, nil, err
	}
	r.b.prog.Filter, r.b.prog.PIDNamespace = len(r.who.PIDs) > 0, nil
	if !initial {
		r.b.prog.PIDNamespace = &program.PIDNamespace{Dev: dev, Ino: ino}
		// The kernel runtime knows children by their initial pids.
		if r.who.Forks {
			r.who.Forks = false
			r.o.Warn("in this pid namespace the kernel runtime can't follow the command's child processes: they are not traced; -b %s without a command would", r.files[0].shown)
		}
	}
	c, err := r.compile(codegen.Options{Sleepable: rt.Features().Sleepable, HaveLoop: rt.Features().Loop})
	if err != nil {
		return nil, nil, err
	}
	// The command is there already: it shall not have this limit.
	if err := allowFiles(len(c.Spec.Programs)); err != nil {
		return nil, nil, err
	}
	var refused []*runtime.ProbeError
	all := c.Probes
	c.Probes = nil
	for _, p := range all {
		if r.kernelCould(p.Cookie) {
			c.Probes = append(c.Probes, p)
		} else {
			refused = append(refused, &runtime.ProbeError{Probe: p, Err: errRefused})
		}
	}
	failed, err := r.plant(ctx, rt, c)
	c.Probes = all
	return c, append(refused, failed...), err
}

func (r *run) compile(o codegen.Options) (*codegen.Compiled, error) {
	r.o.Doing(fmt.Sprintf("compiling for %d places", len(r.b.prog.Probes)))
	var err error
	if o.CPUs, err = runtime.CPUs(); err != nil {
		return nil, err
	}
	c, err := codegen.Compile(&r.b.prog, o)
	if err != nil {
		return nil, fmt.Errorf("compiling probes: %w", err)
	}
	for i := range c.Probes {
		c.Probes[i].Semaphore = r.b.semaphores[c.Probes[i].Cookie]
	}
	return c, nil
}

// start starts the command, if one is to be traced. It is held.
func (r *run) start() (err error) {
	if len(r.o.Command) == 0 {
		return nil
	}
	if r.command, err = target.Start(r.o.Command); err != nil {
		return err
	}
	r.who = runtime.Who{PIDs: []int{r.command.PID}, Forks: true, Command: r.command}
	return nil
}

func (r *run) plant(ctx context.Context, rt runtime.Runtime, c *codegen.Compiled) (failed []*runtime.ProbeError, err error) {
	r.rt = rt
	if r.sess, err = rt.Load(ctx, c.Spec); err != nil {
		return nil, err
	}
	r.o.Doing(fmt.Sprintf("planting %d probes", len(c.Probes)))
	if rt.Name() == Kernel {
		if err := r.jumps(); err != nil {
			return nil, err
		}
	}
	return r.sess.Attach(ctx, c.Probes, r.who)
}

// undo takes back what a runtime has begun, before another is tried. The command has
// not run an instruction of its own.
func (r *run) undo() error {
	var errs []error
	if r.sess != nil {
		errs = append(errs, r.sess.Close())
		r.sess = nil
	}
	if r.command != nil {
		errs = append(errs, r.command.Kill(), r.command.Close())
		r.command = nil
	}
	return errors.Join(errs...)
}

// allowFiles raises the number of files that may be open to what n programs take: each
// one, its types and its link.
func allowFiles(n int) error {
	need := uint64(3*n + 200)
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur >= need {
		return nil
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: need, Max: max(l.Max, need)}) == nil {
		return nil
	}
	return refuse(failed, fmt.Errorf("what matches needs %d programs, for which %d files may not be open here", n, need),
		"match fewer functions, or raise ulimit -n; ferrotrace count needs few programs, however many functions it counts")
}

// cost is about what a hit of a probe costs what is traced.
func (r *run) cost(cookie int) time.Duration {
	if r.rt.Name() == User {
		return user.Cost(r.b.prog.Counts == 0)
	}
	return kernelCost(r.b.insts[cookie])
}

func kernelCost(in x86.Inst) time.Duration {
	return kernel.Cost(x86.Emulated(in), x86.IsNop5(in), in.Kind == x86.Ret)
}

// Runtimes are what the runtimes would do with a file's sites, to be explained.
func Runtimes(ix *index.Index) explain.Runtimes {
	return explain.Runtimes{
		Kernel: kernelCost,
		User: func(addrs []uint64) []explain.Way {
			ways := make([]explain.Way, len(addrs))
			for i, p := range user.Explain(ix.Text(), addrs) {
				ways[i] = explain.Way(p)
			}
			return ways
		},
		UserCost: user.Cost(true),
	}
}
