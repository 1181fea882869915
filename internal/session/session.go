// Package session is one traced run from first to last: it finds what is to be
// traced, has it indexed and compiled, attaches it, and makes events of what comes.
package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/target"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

// Options are one run's wishes. Of PIDs, Binary and Command, PIDs and Binary may
// stand together: then the file is traced in those processes.
type Options struct {
	PIDs      []int
	Binary    string
	Command   []string
	Patterns  []string
	DebugFile string
	Inlined   bool
	Limits    program.Limits

	Runtime string        // "auto", "kernel" or "user"
	For     time.Duration // 0: no limit
	Limit   uint64        // calls shown; 0: no limit
	Leave   bool
	Verbose bool // all notes, however many

	// Emit gets each event, in order; Idle is called when no further one is at hand.
	Emit func(event.Event) error
	Idle func() error
	// Doing tells what is being done until its next call; "" that something is to be
	// seen from now on.
	Doing func(what string)
	// Warn tells what is amiss, Note what a user may want to know.
	Warn, Note func(format string, a ...any)
}

// file is one object file that is probed.
type file struct {
	path  string // by which the kernel and this process open it
	shown string // by which the user knows it
	ix    *index.Index
}

// run is a session under way.
type run struct {
	o        Options
	started  time.Time
	patterns []path.Pattern
	command  *target.Command
	running  bool // the command has been released
	procs    []*target.Process
	files    []*file
	rt       *kernel.Runtime
	sess     runtime.Session
	b        *builder
	who      runtime.Who
	// failed is the first error of Emit.
	failed error
	// unplanted are the cookies of the probes that could not be attached.
	unplanted []uint64
}

// open resolves the target and indexes its files. A command is held, not yet run.
func open(ctx context.Context, o Options) (*run, error) {
	r := &run{o: o, started: time.Now(), b: newBuilder(o.Limits)}
	if o.Runtime == "user" {
		return nil, refuse(usage, errors.New("this version has no user runtime"), "leave --runtime out, or take --runtime kernel")
	}
	// What can be refused at once is, before files are read that may be large.
	for _, text := range o.Patterns {
		p, err := index.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		r.patterns = append(r.patterns, p)
	}
	if err := kernel.Permission(); err != nil {
		return nil, permitted(err)
	}
	if err := r.openTarget(ctx); err != nil {
		r.close()
		return nil, permitted(err)
	}
	return r, nil
}

func (r *run) openTarget(ctx context.Context) error {
	var paths [][2]string // path, shown
	for _, pid := range r.o.PIDs {
		p, err := target.Open(pid)
		if err != nil {
			return err
		}
		r.procs = append(r.procs, p)
		r.who.PIDs = append(r.who.PIDs, pid)
		paths = append(paths, [2]string{p.Path, p.Exe})
	}
	name := r.o.Binary
	if name == "" && len(r.o.Command) > 0 {
		name = r.o.Command[0]
	}
	if name != "" {
		path, err := target.File(name)
		switch {
		case errors.Is(err, target.ErrScript):
			return refuse(failed, err, "to trace what its interpreter runs, name that file: -b FILE -- "+name+" …")
		case errors.Is(err, os.ErrNotExist) && r.o.Binary == "":
			return &target.StartError{Name: name, Err: err}
		case err != nil:
			return err
		}
		paths = [][2]string{{path, name}}
	}
	for _, p := range paths {
		if slices.ContainsFunc(r.files, func(f *file) bool { return sameFile(f.path, p[0]) }) {
			continue
		}
		r.o.Doing("reading " + p[1])
		ix, err := index.Open(p[0], r.o.DebugFile)
		if err != nil {
			return err
		}
		if ix.Problem != nil {
			r.o.Warn("%v", ix.Problem)
		}
		r.files = append(r.files, &file{path: p[0], shown: p[1], ix: ix})
	}
	return nil
}

// unmapped tells of processes that have not mapped the file that is traced in them:
// they may do so later, or it is the wrong one.
func (r *run) unmapped() {
	if r.o.Binary == "" {
		return
	}
	for _, p := range r.procs {
		maps, err := p.Maps()
		if err == nil && !slices.ContainsFunc(maps, func(m target.Mapping) bool { return m.Exec && m.Inode == inode(r.files[0].path) }) {
			r.o.Note("process %d has not mapped %s: its calls are shown if it does", p.PID, r.files[0].shown)
		}
	}
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// find returns what the patterns match, by file. A function that several match is
// there once.
func (r *run) find() (map[*file][]*index.Function, error) {
	found := map[*file][]*index.Function{}
	seen := map[*index.Function]bool{}
	var missed []error
	r.o.Doing("finding functions")
	for i, p := range r.patterns {
		n := 0
		for _, f := range r.files {
			for _, fn := range f.ix.Find(p) {
				n++
				if !seen[fn] {
					seen[fn] = true
					found[f] = append(found[f], fn)
				}
			}
		}
		if n == 0 {
			missed = append(missed, r.files[0].ix.NoMatch(r.o.Patterns[i]))
		}
	}
	if len(missed) == len(r.patterns) {
		return nil, errors.Join(missed...)
	}
	for _, err := range missed {
		r.o.Warn("%v", err)
	}
	return found, nil
}

// instances plans the instances of a function that are wanted; what can't be planned
// is that instance's trouble.
func (r *run) instances(ctx context.Context, fn *index.Function, f func(*index.Instance, *index.Plan)) error {
	all, err := fn.Instances()
	if err != nil {
		return err
	}
	for _, in := range all {
		if ctx.Err() != nil { // attach says so
			return nil
		}
		if in.Inlined && !r.o.Inlined {
			continue
		}
		p, err := in.Plan()
		if err != nil {
			r.o.Warn("not traced: %v", err)
			continue
		}
		f(in, p)
	}
	return nil
}

// attach compiles and loads what was built and plants its probes. The command, if
// there is one, has been started and stands before its first instruction.
func (r *run) attach(ctx context.Context) (*codegen.Compiled, int, error) {
	if ctx.Err() != nil {
		return nil, 0, errInterrupted
	}
	if len(r.b.prog.Probes) == 0 {
		return nil, 0, refuse(nothing, errors.New("what matches has no code to probe"),
			"ferrotrace explain "+r.files[0].shown+" "+r.o.Patterns[0]+" says why")
	}
	for i, s := range r.b.refused {
		if i == 5 {
			r.o.Warn("and %d more that can't be probed", len(r.b.refused)-i)
			break
		}
		what := s.Kind.String() + " of " + s.Function
		if s.Function == "" {
			what = s.Kind.String() + " of panics"
		}
		r.o.Warn("not probed: %s: the kernel allows no probe on that instruction", what)
	}
	r.o.Doing(fmt.Sprintf("compiling for %d places", len(r.b.prog.Probes)))
	rt, err := kernel.New(kernel.Options{})
	if err != nil {
		return nil, 0, permitted(err)
	}
	r.rt = rt
	if len(r.o.Command) > 0 {
		if r.command, err = target.Start(r.o.Command); err != nil {
			return nil, 0, err
		}
		r.who = runtime.Who{PIDs: []int{r.command.PID}, Forks: true}
	}
	r.b.prog.Filter = len(r.who.PIDs) > 0
	dev, ino, initial, err := target.PIDNamespace()
	if err != nil {
		return nil, 0, err
	}
	if !initial {
		r.b.prog.PIDNamespace = &program.PIDNamespace{Dev: dev, Ino: ino}
		// The kernel runtime knows children by their initial pids.
		if r.who.Forks {
			r.who.Forks = false
			r.o.Warn("in this pid namespace the command's child processes can't be followed: they are not traced; -b %s without a command would", r.files[0].shown)
		}
	}
	compiled, err := codegen.Compile(&r.b.prog, codegen.Options{Sleepable: rt.Features().Sleepable, HaveLoop: rt.Features().Loop})
	if err != nil {
		return nil, 0, fmt.Errorf("compiling probes: %w", err)
	}
	// The command is there already: it shall not have this limit.
	if err := allowFiles(len(compiled.Spec.Programs)); err != nil {
		return nil, 0, err
	}
	if r.sess, err = rt.Load(ctx, compiled.Spec); err != nil {
		return nil, 0, permitted(err)
	}
	r.o.Doing(fmt.Sprintf("planting %d probes", len(compiled.Probes)))
	failed, err := r.sess.Attach(ctx, compiled.Probes, r.who)
	if ctx.Err() != nil {
		return nil, 0, errInterrupted
	}
	if err != nil {
		return nil, 0, permitted(err)
	}
	for _, e := range failed {
		r.unplanted = append(r.unplanted, e.Probe.Cookie)
	}
	for i, e := range failed {
		if i == 5 {
			r.o.Warn("and %d more probes", len(failed)-i)
			break
		}
		r.o.Warn("not probed: %#x in %s: %v", r.b.prog.Probes[e.Probe.Cookie].Addr, e.Probe.Path, e.Err)
	}
	r.o.Doing("")
	r.unmapped()
	n := len(compiled.Probes) - len(failed)
	if n == 0 {
		return nil, 0, fmt.Errorf("no probe could be attached: %w", failed[0])
	}
	return compiled, n, nil
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

// emit passes an event on. After an error only the summary is tried: it has a second
// place, and always closes a run.
func (r *run) emit(e event.Event) {
	if _, last := e.(event.Summary); r.failed != nil && !last {
		return
	}
	if err := r.o.Emit(e); r.failed == nil {
		r.failed = err
	}
}

// release lets the command run.
func (r *run) release() {
	if r.command != nil {
		r.command.Release()
	}
	r.running = true
}

// ended waits until there is nothing left to trace; it returns at once when ctx is done.
func (r *run) ended(ctx context.Context) {
	if r.command != nil {
		_, _ = r.command.Wait(ctx)
		return
	}
	if len(r.procs) == 0 {
		<-ctx.Done()
	}
	for _, p := range r.procs {
		if p.Wait(ctx) != nil {
			return
		}
	}
}

// finish ends the command, if it still runs and shall not, and says how it ended.
func (r *run) finish() string {
	if r.command == nil {
		return ""
	}
	select {
	case <-r.command.Done():
	default:
		if r.o.Leave {
			return "left running"
		}
		if err := r.command.Terminate(); err != nil {
			r.o.Warn("ending the command: %v", err)
		}
	}
	// A command that takes its time over SIGTERM is not waited for for ever.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := r.command.Wait(ctx)
	if err != nil {
		return "still running after SIGTERM"
	}
	return status.String()
}

// patience is how long a command is given to end after SIGTERM.
const patience = 2 * time.Second

func (r *run) close() error {
	var errs []error
	if r.sess != nil {
		errs = append(errs, r.sess.Close())
	}
	if r.command != nil {
		// Held for want of a successful start: it has not run an instruction.
		if !r.running {
			errs = append(errs, r.command.Kill())
		}
		errs = append(errs, r.command.Close())
	}
	for _, p := range r.procs {
		p.Close()
	}
	for _, f := range r.files {
		errs = append(errs, f.ix.Close())
	}
	return errors.Join(errs...)
}

// lost sums the hits that left no trace: of entries, of exits, and others, which are
// second sites of entries and places where panics begin and land.
func (r *run) lost(stats runtime.Stats) (entries, exits, others uint64) {
	c := &stats.Counters
	entries = c[runtime.EntryNoRoom] + c[runtime.EntryNoSlot]
	exits = c[runtime.ExitNoRoom] + c[runtime.ExitNoSlot]
	others = c[runtime.MoreNoRoom] + c[runtime.MoreNoSlot] + c[runtime.MarkNoRoom] + c[runtime.MarkNoSlot]
	for name, n := range stats.Missed {
		switch kind, _, _ := strings.Cut(name, "_"); kind {
		case program.Entry.String(), "count":
			entries += n
		case program.Exit.String():
			exits += n
		default:
			others += n
		}
	}
	if others > 0 {
		r.o.Warn("%d records of second sites and panics were lost: some arguments are missing, and how some calls ended", others)
	}
	if stats.Unfollowed > 0 {
		r.o.Warn("%d child processes were not traced", stats.Unfollowed)
	}
	return entries, exits, others
}

// until is ctx, ended when the time is up too.
func (r *run) until(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.o.For > 0 {
		return context.WithTimeout(ctx, r.o.For)
	}
	return context.WithCancel(ctx)
}

// Cost is about what a hit of a kernel probe on an instruction costs.
func Cost(in x86.Inst) time.Duration {
	return kernel.Cost(x86.Emulated(in), x86.IsNop5(in), in.Kind == x86.Ret)
}
