package session

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ferrotrace/internal/codegen"
	"ferrotrace/internal/event"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	local "ferrotrace/internal/runtime/user/tracer"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
	"ferrotrace/internal/script/show"
	"ferrotrace/internal/script/source"
)

// Script is a program of the probe language, and how it is run.
type Script struct {
	Name, Text string
	Params     []string          // positional
	Named      map[string]string // named; "" is the value of one that has none
	Unsafe     bool
	JSON       bool // what it says is JSON
	NoWarnings bool // warnf is not heard
	// Filter leaves out attach points that it does not match, but begin and end; nil for none.
	Filter   *regexp.Regexp
	Settings map[string]string // of the environment: see check.Options
	Lookups  bool              // warn of elements of maps that are looked up, or deleted, and not there
	NoMaps   bool              // maps are not printed at the end
	DryRun   bool              // nothing is attached
	Hidden   bool              // hits for which a predicate does not hold are counted
	// Dump shows a stage in place of running: "ast", "program", "sites" or "bpf"; to Out.
	Dump string
	Out  func(format string, a ...any)
	// Warned gets what is no error in the script.
	Warned func(source.Errors)
	// Errors gets what the script says as errors or warnings while it runs.
	Errors func(text string)
}

// RunScript runs a script until it exits, or what is traced ends, or ctx is done. The status
// is what it asked for by exit(). What is wrong with the script is a source.Errors.
func RunScript(ctx context.Context, o Options, sc Script) (status int, err error) {
	tree, errs := parse.File(sc.Name, sc.Text, sc.Params...)
	if errs.Failed() {
		return failed, errs
	}
	if sc.Dump == "ast" {
		var b bytes.Buffer
		if err := ast.Dump(&b, tree); err != nil {
			return failed, err
		}
		sc.Out("%s", b.String())
		return 0, nil
	}
	if errs := macro.Expand(tree, check.Builtin); errs.Failed() {
		return failed, errs
	}
	if sc.Filter != nil {
		keepMatching(tree, sc.Filter)
	}
	r := &run{o: o, started: time.Now(), b: newBuilder(o.Limits)}
	s := &scripted{r: r, ctx: ctx, sc: sc, places: map[*check.Site]*scriptPlace{}, full: make(chan struct{}), said: newOrdered(func(e *said) uint64 { return e.time })}
	defer func() {
		if s.symbols != nil {
			err = errors.Join(err, s.symbols.close())
		}
		err = errors.Join(err, r.close())
	}()
	if s.targeted(tree) {
		if err := s.target(tree); err != nil {
			return failed, err
		}
	}
	if err := s.check(tree); err != nil {
		return failed, err
	}
	if err := s.bind(); err != nil {
		return failed, err
	}
	if sc.Dump != "" || sc.DryRun {
		return s.dry()
	}
	return s.run()
}

// keepMatching takes the attach points out of a script that an expression does not match.
func keepMatching(tree *ast.Program, re *regexp.Regexp) {
	for _, pr := range tree.Probes {
		pr.Points = slices.DeleteFunc(pr.Points, func(p *ast.AttachPoint) bool {
			return p.Provider != ast.Begin && p.Provider != ast.End && !re.MatchString(p.Raw)
		})
	}
	tree.Probes = slices.DeleteFunc(tree.Probes, func(pr *ast.Probe) bool { return len(pr.Points) == 0 })
}

// check makes a program of the script.
func (s *scripted) check(tree *ast.Program) error {
	cpus, err := runtime.CPUs()
	if err != nil {
		return err
	}
	o := s.r.o
	out, errs := check.Check(tree, s, check.Options{
		Params: s.sc.Params, MaxStr: o.Limits.MaxStr, CPUs: cpus, Start: runtime.Monotonic(), Unsafe: s.sc.Unsafe, Child: len(o.Command) > 0,
		Settings: s.sc.Settings, Warnings: s.sc.Lookups,
		Named: s.sc.Named, CgroupID: cgroupID,
		Hidden: s.sc.Hidden, Format: show.CheckFormat,
	})
	if errs.Failed() {
		if s.missed != nil { // the hint of what is like it stands in the script
			return refuse(nothing, errs, "")
		}
		return errs
	}
	if err := s.options(out.Wanted); err != nil {
		return err
	}
	if len(errs) > 0 {
		s.sc.Warned(errs)
	}
	s.out = out
	s.r.b.prog.Script = out.Script
	if n := out.Config.MaxStr; n > 0 {
		s.r.b.prog.Limits.MaxStr = n
	}
	return nil
}

// options refuses named parameters that the script does not ask for.
func (s *scripted) options(wanted []check.Option) error {
	var unexpected, expected []string
	for name := range s.sc.Named {
		if !slices.ContainsFunc(wanted, func(o check.Option) bool { return o.Name == name }) {
			unexpected = append(unexpected, "--"+name)
		}
	}
	if len(unexpected) == 0 {
		return nil
	}
	for _, o := range wanted {
		text := "--" + o.Name
		if o.About != "" {
			text += ": " + o.About
		}
		expected = append(expected, text)
	}
	hint := "the script takes none"
	if len(expected) > 0 {
		hint = "expected program options: " + strings.Join(expected, "\n")
	}
	slices.Sort(unexpected)
	return refuse(usage, fmt.Errorf("unexpected program command line options: %s", strings.Join(unexpected, ", ")), hint)
}

// child puts the command's process where the script looks for it.
func (s *scripted) child() error {
	if s.out.Child < 0 || s.r.command == nil {
		return nil
	}
	return s.table(s.out.Child).set(binary.NativeEndian.AppendUint64(nil, uint64(s.r.command.PID)))
}

// targeted says whether anything of a script belongs to what is traced: its sites, and its
// samples if a process is named.
func (s *scripted) targeted(p *ast.Program) bool {
	named := len(s.r.o.PIDs) > 0 || len(s.r.o.Command) > 0
	return hasSites(p) || named && anyPoint(p, func(ap *ast.AttachPoint) bool { return ap.Provider == ast.Profile })
}

// namesTarget says whether any probe names the file that it is in.
func namesTarget(p *ast.Program) bool {
	return anyPoint(p, func(ap *ast.AttachPoint) bool { return ap.Target != "" })
}

// hasSites says whether any probe belongs to a site.
func hasSites(p *ast.Program) bool {
	return anyPoint(p, func(ap *ast.AttachPoint) bool {
		return ap.Provider == ast.Uprobe || ap.Provider == ast.Uretprobe || ap.Provider == ast.Usdt
	})
}

func anyPoint(p *ast.Program, is func(*ast.AttachPoint) bool) bool {
	return slices.ContainsFunc(p.Probes, func(pr *ast.Probe) bool { return slices.ContainsFunc(pr.Points, is) })
}

// scripted is a script's run.
type scripted struct {
	r      *run
	ctx    context.Context
	sc     Script
	out    *check.Output
	places map[*check.Site]*scriptPlace

	compiled *codegen.Compiled
	env      *show.Env
	symbols  *symbols
	said     ordered[said]
	status   int
	closed   bool
	full     chan struct{}
	// muted: the script has exited, and what is hit until its end is not heard.
	muted  bool
	missed error // that a probe matches nothing
}

// said is an event's record.
type said struct {
	time uint64
	raw  []byte
}

// target resolves what is traced. A file that a probe names is opened when it is looked at.
func (s *scripted) target(tree *ast.Program) error {
	r := s.r
	if r.o.Binary == "" && len(r.o.PIDs) == 0 && len(r.o.Command) == 0 && !namesTarget(tree) {
		return refuse(usage, errors.New("nothing is said of what to trace"), "name a file in the probe (uprobe:./app:FUNCTION), or use -p PID, -b FILE or -- COMMAND")
	}
	if s.sc.Dump == "" && !s.sc.DryRun {
		if err := r.permission(); err != nil {
			return err
		}
	}
	if err := r.oneProcess(); err != nil {
		return err
	}
	return permitted(r.openTarget(s.ctx))
}

// oneProcess has the kernel run a script that is for several processes.
func (r *run) oneProcess() error {
	if len(r.o.PIDs) < 2 {
		return nil
	}
	r.notUser = errors.New("the maps of a script are those of one process there, or of its children")
	if r.o.Runtime == User {
		return userRefused(r.notUser)
	}
	return nil
}

// bind puts the handlers where they belong.
func (s *scripted) bind() error {
	var words []ir.Words
	names := map[string]uint32{}
	script := s.out.Script
	for i, text := range script.Names {
		names[text] = uint32(i)
	}
	name := func(text string) uint32 {
		n, ok := names[text]
		if !ok {
			n = uint32(len(script.Names))
			names[text] = n
			script.Names = append(script.Names, text)
		}
		return n
	}
	for _, u := range s.out.Uses {
		w := ir.Words{Func: name(u.Site.Func), Probe: name(u.Site.Probe)}
		n := len(s.r.b.prog.Probes)
		if err := s.place(u); err != nil {
			s.r.o.Warn("%v", err)
		}
		for range s.r.b.prog.Probes[n:] {
			words = append(words, w)
		}
	}
	script.Words = words
	if s.out.Probes == 0 {
		return refuse(nothing, errors.New("no probe of the script matches anything"), "")
	}
	if len(s.out.Uses) > 0 && len(words) == 0 {
		return refuse(nothing, errors.New("no probe of the script has a place where it could be planted"), "")
	}
	return nil
}

// run runs it.
func (s *scripted) run() (int, error) {
	r := s.r
	if samples(s.out.Script) {
		if r.notUser = errSamples; r.o.Runtime == User {
			return failed, userRefused(r.notUser)
		}
	}
	switch {
	case len(r.b.prog.Probes) > 0:
		c, _, err := r.attach(s.ctx)
		if err != nil {
			return failed, err
		}
		s.compiled = c
	case samples(s.out.Script):
		c, _, err := r.onKernel(s.ctx)
		if err != nil {
			return failed, neither(r.notUser, err)
		}
		r.o.Note("kernel runtime: %v", r.notUser)
		s.compiled = c
	default:
		if err := s.alone(); err != nil {
			return failed, err
		}
	}
	s.surroundings()
	if err := s.child(); err != nil {
		return failed, err
	}
	if err := r.o.Emit(event.Attached{Probes: s.out.Probes}); err != nil {
		return failed, err
	}
	if err := r.o.Idle(); err != nil {
		return failed, err
	}
	work, stop := r.until(s.ctx)
	defer stop()
	reading, stopReading := context.WithCancel(context.Background())
	defer stopReading()
	var ran error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer stopReading()
		ran = s.timers(work)
	}()
	err := r.sess.Read(reading, s.add, s.idle)
	if err != nil {
		s.finish()
	}
	<-done
	err = cmp.Or(err, ran)
	if err == nil {
		err = s.end()
	}
	if err == nil {
		err = s.last()
	}
	command := r.finish()
	if err == nil {
		err = s.account()
	}
	if command != "" && r.o.Verbose {
		r.o.Note("the command: %s", command)
	}
	return s.status, cmp.Or(err, r.failed, r.o.Idle())
}

// errSamples: profile probes.
var errSamples = errors.New("what runs on the CPUs only the kernel knows, for profile probes")

// alone has a script without sites run by the tracer.
func (s *scripted) alone() error {
	r := s.r
	rt := local.Runtime{}
	r.rt = rt
	c, err := r.compile(codegen.Options{HaveLoop: true})
	if err != nil {
		return err
	}
	s.compiled = c
	if err := r.start(); err != nil {
		return err
	}
	r.sess, err = rt.Load(s.ctx, c.Spec)
	if err == nil && r.command != nil {
		r.command.Release()
	}
	return err
}

// surroundings is what values mean.
func (s *scripted) surroundings() {
	r := s.r
	procs := r.procs
	if r.command != nil {
		procs = append(slices.Clip(procs), r.command.Process)
	}
	stacks := newStacks(procs)
	functions := newNames(stacks, r.files)
	s.symbols = newSymbols(functions)
	s.compiled.Schema.Func = functions.at
	wall := wallClock()
	boot := ahead(7) // CLOCK_BOOTTIME
	tai := ahead(11) // CLOCK_TAI
	s.env = &show.Env{
		Names:  s.out.Script.Names,
		Symbol: s.symbols.symbol,
		Frames: s.symbols.frames,
		User:   userName,
		Cgroup: newCgroups().path,
		Wall: func(c ir.Clock, ns uint64) time.Time {
			switch c {
			case ir.Boot:
				ns -= boot
			case ir.TAI, ir.Wall:
				ns -= tai
			}
			return wall(ns)
		},
		Raw: s.sc.JSON,
	}
}

// timers runs what belongs to no site: begin first, then what is due, end last.
func (s *scripted) timers(ctx context.Context) error {
	r := s.r
	var errs []error
	ran := func(kind ir.TimerKind) {
		for i, t := range s.out.Script.Timers {
			if t.Kind == kind {
				errs = append(errs, r.sess.Run(s.compiled.Timers[i]))
			}
		}
	}
	ran(ir.Begin)
	due := 0
	for i, t := range s.out.Script.Timers {
		if t.Kind == ir.Profile {
			due++
			errs = append(errs, r.sess.Sample(s.compiled.Timers[i], t.Every))
		}
	}
	if r.rt.Name() != (local.Runtime{}).Name() {
		errs = append(errs, r.release())
	} else {
		r.running = true
	}
	waiting, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, t := range s.out.Script.Timers {
		switch t.Kind {
		case ir.Interval:
			due++
			wg.Go(func() { s.every(waiting, t.Every, s.compiled.Timers[i]) })
		case ir.Signal:
			due++
			wg.Go(func() { s.signalled(waiting, syscall.Signal(t.Signal), s.compiled.Timers[i]) })
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// With begin and end alone the script is over by now.
		if due > 0 || len(r.b.prog.Probes) > 0 || r.command != nil {
			r.ended(waiting)
		}
	}()
	select {
	case <-ended:
	case <-s.full:
	}
	cancel()
	<-ended
	wg.Wait()
	return errors.Join(append(errs, r.sess.Detach())...)
}

// end runs the handlers of end, when all that was said before has been heard.
func (s *scripted) end() error {
	if err := s.flush(^uint64(0)); err != nil {
		return err
	}
	s.muted = false
	for i, t := range s.out.Script.Timers {
		if t.Kind == ir.End {
			if err := s.r.sess.Run(s.compiled.Timers[i]); err != nil {
				return err
			}
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.r.sess.Read(over, s.add, s.idle); err != nil {
		return err
	}
	return s.flush(^uint64(0))
}

func (s *scripted) every(ctx context.Context, d time.Duration, program string) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.r.sess.Run(program); err != nil {
				s.r.o.Warn("an interval's handler failed: %v", err)
				return
			}
		}
	}
}

func (s *scripted) signalled(ctx context.Context, sig syscall.Signal, program string) {
	c := make(chan os.Signal, 16)
	signal.Notify(c, sig)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c:
			if err := s.r.sess.Run(program); err != nil {
				s.r.o.Warn("a signal's handler failed: %v", err)
			}
		}
	}
}

func (s *scripted) finish() {
	if !s.closed {
		s.closed = true
		close(s.full)
	}
}

// add takes a record as it comes.
func (s *scripted) add(raw []byte) error {
	h, err := record.ParseHeader(raw)
	if err != nil {
		return err
	}
	if before, due := s.said.add(said{h.Time, bytes.Clone(raw)}); due {
		return s.flush(before)
	}
	return s.r.failed
}

func (s *scripted) idle(now uint64) error {
	wait := uint64(slack)
	if s.r.rt.Name() == (local.Runtime{}).Name() {
		wait = 0
	}
	if err := s.flush(now - min(now, wait)); err != nil {
		return err
	}
	if s.r.failed != nil {
		return s.r.failed
	}
	return s.r.o.Idle()
}

// flush does what happened before a time, in order.
func (s *scripted) flush(before uint64) error {
	if err := s.said.take(before, func(e *said) error {
		if s.muted {
			return nil
		}
		return s.event(e.raw)
	}); err != nil {
		return err
	}
	return s.r.failed
}

// account tells what went wrong on the way.
func (s *scripted) account() error {
	r := s.r
	m, ok := r.sess.Map(runtime.MapFaults)
	if ok {
		for k := range runtime.NumFaults {
			n, err := m.Sum(uint32(k))
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			switch k {
			case runtime.EventNoRoom:
				r.emit(event.Lost{Events: n})
				r.o.Warn("%d events were lost: there was no room for them in the ring", n)
			case runtime.Hidden:
			case runtime.ReadZeros:
				if r.o.Verbose {
					r.o.Note(faults[k], n)
				}
			default:
				r.o.Warn(faults[k], n)
			}
		}
	}
	return nil
}

var faults = map[runtime.Fault]string{
	runtime.NoFrame:      "%d hits were not handled: too many handlers ran at once on one CPU",
	runtime.MapFull:      "%d updates of maps found no room: max_map_keys in the config block makes them larger",
	runtime.Unreadable:   "%d hits were not handled to the end: a value could not be read",
	runtime.OtherVariant: "%d hits were not handled to the end: a value was not there (another variant, or the entry of the call was not seen)",
	runtime.DivideByZero: "%d divisions by zero: 1 is the result of each",
	runtime.OutOfBounds:  "%d hits were not handled to the end: an index was out of bounds",
	runtime.ReadZeros:    "%d reads of memory failed, and count as zeros",
}
