// Package session is one traced run from first to last: it finds what is to be
// traced, has it indexed and compiled, attaches it, and makes events of what comes.
package session

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/target"
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
	Locals    bool   // show the variables in scope at lines
	Where     string // of a trace: a predicate of the probe language; "" for none
	Limits    program.Limits
	Pretty    bool // values as {:#?} has them

	Runtime string        // Auto, Kernel or User
	For     time.Duration // 0: no limit
	Limit   uint64        // calls shown; 0: no limit
	Leave   bool
	Verbose bool       // all notes, however many
	Cache   *store.Dir // where indexes are kept, nil for nowhere

	// Emit gets each event, in order; Idle is called when no further one is at hand.
	Emit func(event.Event) error
	Idle func() error
	// Live, if not nil, gets the rows of a table as it is by now, from time to time. It is
	// called by another goroutine than Emit, and not any more when Emit gets the rows.
	Live func(rows []event.Event)
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
	found    []string // the patterns that match something
	atEnd    bool     // a trace's predicate is told when calls have ended
	command  *target.Command
	running  bool // the command has been released
	procs    []*target.Process
	files    []*file
	rt       runtime.Runtime
	sess     runtime.Session
	notUser  error // why Auto does not take the user runtime
	later    later
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
	for _, text := range o.Patterns {
		p, err := index.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		r.patterns = append(r.patterns, p)
	}
	if err := r.permission(); err != nil {
		return nil, err
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
	if r.o.Binary == "" && r.o.DebugFile == "" {
		for _, p := range r.procs {
			paths = append(paths, Libraries(p)...)
		}
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
		if slices.ContainsFunc(r.files, func(f *file) bool { return target.SameFile(f.path, p[0]) }) {
			continue
		}
		if _, err := r.index(ctx, p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}

// index adds a file to those that are probed.
func (r *run) index(ctx context.Context, path, shown string) (*file, error) {
	r.o.Doing("reading " + shown)
	ix, err := index.OpenContext(ctx, path, index.Options{DebugFile: r.o.DebugFile, Doing: r.o.Doing, Cache: r.o.Cache})
	if err != nil {
		return nil, err
	}
	if ix.Problem != nil {
		r.o.Warn("%v", ix.Problem)
	}
	f := &file{path: path, shown: shown, ix: ix}
	r.files = append(r.files, f)
	return f, nil
}

// unmapped tells of processes that have not mapped the file that is traced in them:
// they may do so later, or it is the wrong one.
func (r *run) unmapped() {
	if r.o.Binary == "" {
		return
	}
	procs := r.procs
	if r.command != nil && r.rt.Name() == User { // its loader is done
		procs = append(procs, r.command.Process)
	}
	for _, p := range procs {
		maps, err := p.Maps()
		if err == nil && !slices.ContainsFunc(maps, func(m target.Mapping) bool { return m.Exec && m.Inode == inode(r.files[0].path) }) {
			r.o.Note("process %d has not mapped %s: its calls are shown if it does", p.PID, r.files[0].shown)
		}
	}
}

// find returns what the patterns match, by file. A function or line that several match
// is there once.
func (r *run) find() (map[*file]*matches, error) {
	found := map[*file]*matches{}
	for _, f := range r.files {
		found[f] = &matches{}
	}
	seen := map[*index.Function]bool{}
	var missed []error
	r.o.Doing("finding functions")
	for i, p := range r.patterns {
		if p.Kind == path.KindLine {
			if err := r.findLine(p, found); err != nil {
				missed = append(missed, err)
			} else {
				r.found = append(r.found, r.o.Patterns[i])
			}
			continue
		}
		n := 0
		for _, f := range r.files {
			functions := f.ix.Find(p)
			note, err := f.ix.Give(p, functions)
			if err != nil {
				return nil, err
			}
			if note != "" {
				r.o.Warn("%s", note)
			}
			for _, fn := range functions {
				n++
				if !seen[fn] {
					seen[fn] = true
					found[f].functions = append(found[f].functions, fn)
				}
			}
		}
		if n == 0 {
			missed = append(missed, r.files[0].ix.NoMatch(r.o.Patterns[i]))
		} else {
			r.found = append(r.found, r.o.Patterns[i])
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
func (r *run) release() error {
	if err := r.sess.Release(); err != nil {
		return err
	}
	r.running = true
	return nil
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
	if r.running {
		errs = append(errs, r.sess.Close())
		if r.command != nil {
			errs = append(errs, r.command.Close())
		}
	} else { // for want of a successful start
		errs = append(errs, r.undo())
	}
	for _, p := range r.procs {
		p.Close()
	}
	for _, f := range r.files {
		if err := f.ix.Uncached(); err != nil && r.o.Verbose {
			r.o.Note("the index of %s was not kept: %v", f.shown, err)
		}
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
		case program.Entry.String(), program.Line.String(), "count":
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
	if stats.Executed > 0 {
		r.o.Warn("%d of the processes executed another program, in which the user runtime is not: --runtime kernel would trace that too if it is of the same file", stats.Executed)
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
