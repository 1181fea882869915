package user

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/tracer"
	"ferrotrace/internal/target"
)

// session implements runtime.Session.
type session struct {
	options Options
	clock   *shm.Calibrator
	layout  *shm.Layout
	image   *jit.Image
	// programs belong to no site.
	programs tracer.Programs

	mu        sync.Mutex // of what follows
	processes map[int]*process
	order     []*process // as they were attached to
	skipped   uint64     // records of threads that died while they wrote them
	keeper    *keeper
	closed    bool
}

var errClosed = errors.New("user runtime: the session is closed")

// ErrEverywhere: this runtime can't be in every process that runs a file.
var ErrEverywhere = errors.New("the user runtime traces the processes that it is put into, not every one that runs a file")

// Attach implements runtime.Session. It may be called once for each process: probes are
// planted all at once.
//
// Children follow by themselves, whatever who says, for they begin as copies.
func (s *session) Attach(ctx context.Context, probes []runtime.Probe, who runtime.Who) (failed []*runtime.ProbeError, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if len(who.PIDs) == 0 {
		return nil, ErrEverywhere
	}
	var added []*process
	defer func() {
		if err == nil {
			return
		}
		for _, p := range added {
			p.unheeded()
			err = errors.Join(err, p.remove(context.WithoutCancel(ctx)))
			p.unshare()
			delete(s.processes, p.pid)
		}
		s.order = s.order[:len(s.order)-len(added)]
		failed = nil
	}()
	for _, pid := range who.PIDs {
		if s.processes[pid] != nil {
			return nil, fmt.Errorf("process %d has its probes already", pid)
		}
		var held *target.Command
		if who.Command != nil && who.Command.PID == pid {
			held = who.Command
		}
		var p *process
		var bad []*runtime.ProbeError
		var err error
		inject.Hurry(func() { p, bad, err = s.attach(ctx, pid, held, probes) })
		if errors.Is(err, target.ErrGone) || errors.Is(err, target.ErrNoExecutable) {
			err = errors.Join(err, inject.ErrGone)
		}
		if errors.Is(err, inject.ErrGone) && len(who.PIDs) > 1 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("user runtime: %w", err)
		}
		added = append(added, p)
		s.processes[pid] = p
		s.order = append(s.order, p)
		for _, e := range bad {
			if !slices.ContainsFunc(failed, func(o *runtime.ProbeError) bool { return o.Probe == e.Probe }) {
				failed = append(failed, e)
			}
		}
	}
	if len(added) == 0 {
		return nil, fmt.Errorf("user runtime: %w", inject.ErrGone)
	}
	if s.keeper != nil {
		s.keeper.stop()
	}
	s.keeper = keep(s) // of the new ones too
	return failed, nil
}

// attach puts the probes into one process.
func (s *session) attach(ctx context.Context, pid int, held *target.Command, probes []runtime.Probe) (p *process, failed []*runtime.ProbeError, err error) {
	// What can be found out beforehand is, so that the process is stopped for less.
	texts := map[string]Text{}
	byPath := map[string][]runtime.Probe{}
	for _, pr := range probes {
		if texts[pr.Path] == nil {
			if texts[pr.Path], err = s.options.Text(pr.Path); err != nil {
				return nil, nil, err
			}
			texts[pr.Path].FunctionRanges()
		}
		byPath[pr.Path] = append(byPath[pr.Path], pr)
	}
	entered, err := enter(ctx, pid, held)
	if err != nil {
		return nil, nil, err
	}
	p = entered
	defer func() {
		if err != nil {
			err = errors.Join(err, entered.remove(context.WithoutCancel(ctx)))
			entered.unshare()
		}
	}()
	proc, err := target.Open(pid)
	if err != nil {
		return nil, nil, err
	}
	defer proc.Close()
	ms, err := proc.Maps()
	if err != nil {
		return nil, nil, err
	}
	var aims []aim
	near := uint64(0)
	mapped := map[string]bool{} // libraries
	var libraries []string
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		t := texts[path]
		b, err := bias(ms, path, offsets(byPath[path]), t)
		if r := t.FunctionRanges(); err == nil && near == 0 && len(r) > 0 {
			near = r[0].Low + b
		}
		switch library := !target.SameFile(path, proc.Path); {
		case library && (err == nil || errors.Is(err, ErrNotMapped)):
			mapped[path] = err == nil
			libraries = append(libraries, path)
		case err != nil:
			for _, pr := range byPath[path] {
				failed = append(failed, &runtime.ProbeError{Probe: pr, Err: err})
			}
		default:
			aims = append(aims, aim{path: path, text: t, bias: b})
		}
	}
	if i := slices.IndexFunc(ms, func(m target.Mapping) bool { return m.Exec && m.Path == proc.Exe }); near == 0 && i >= 0 {
		near = ms[i].Start
	}
	p.began = proc.Start
	if err := p.furnish(ctx, s.layout, s.image, len(probes), near); err != nil {
		return nil, nil, err
	}
	s.clock.Publish(p.memory)
	at := map[string]map[uint64][]runtime.Probe{}
	for i := range aims {
		a := &aims[i]
		at[a.path] = map[uint64][]runtime.Probe{}
		var bad []*runtime.ProbeError
		a.places, bad = p.places(a, byPath[a.path], at[a.path])
		failed = append(failed, bad...)
	}
	all := p.watch(proc, ms, aims)
	if len(libraries) > 0 {
		all = p.watchLoader(ctx, proc, ms, all)
	}
	missed, err := p.arm(ctx, all, nil)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range missed {
		if m.place.watched == loader {
			p.loader = false
			continue
		}
		if name := m.place.watched; name != "" {
			if slices.ContainsFunc(fault.Watches(p.block), func(w fault.Watch) bool { return w.Name == name }) {
				p.unwatched = append(p.unwatched, name)
			}
			continue
		}
		for _, pr := range at[m.path][m.place.addr] {
			failed = append(failed, &runtime.ProbeError{Probe: pr, Err: m.err})
		}
	}
	for i := range aims {
		blind, err := p.raise(ctx, &aims[i], byPath[aims[i].path], failed)
		if err != nil {
			return nil, nil, err
		}
		failed = append(failed, blind...)
	}
	if err := p.guardReads(ctx); err != nil {
		return nil, nil, err
	}
	for _, path := range libraries {
		m := &module{path: path, text: texts[path], probes: byPath[path]}
		p.modules = append(p.modules, m)
		if !mapped[path] {
			failed = append(failed, m.refuse(Explain(m.text, m.addresses()))...)
		}
	}
	for _, m := range p.follow(ctx, held == nil) {
		switch {
		case !mapped[m.Path]:
			s.tell(m)
		case m.Err != nil:
			for _, pr := range byPath[m.Path] {
				failed = append(failed, &runtime.ProbeError{Probe: pr, Err: m.Err})
			}
		default:
			failed = append(failed, m.Failed...)
		}
	}
	return p, failed, nil
}

// tell tells of a file that has been mapped.
func (s *session) tell(m Mapped) {
	if s.options.Mapped != nil {
		s.options.Mapped(m)
	}
}

func offsets(probes []runtime.Probe) []uint64 {
	offs := make([]uint64, len(probes))
	for i, pr := range probes {
		offs[i] = pr.Offset
	}
	return offs
}

// places sorts probes of one file by address; what happens at one is in the order of
// the probes.
func (p *process) places(a *aim, probes []runtime.Probe, at map[uint64][]runtime.Probe) (places []place, failed []*runtime.ProbeError) {
	for _, pr := range probes {
		addr, ok := a.text.Addr(pr.Offset)
		if !ok {
			failed = append(failed, &runtime.ProbeError{Probe: pr, Err: fmt.Errorf("offset %#x of %s is not mapped", pr.Offset, pr.Path)})
			continue
		}
		if _, ok := p.image.Entries[pr.Program]; !ok {
			failed = append(failed, &runtime.ProbeError{Probe: pr, Err: fmt.Errorf("there is no program %q", pr.Program)})
			continue
		}
		at[addr] = append(at[addr], pr)
	}
	for addr, prs := range at {
		pl := place{addr: addr}
		for _, pr := range prs {
			e := p.image.Entries[pr.Program]
			pl.programs = append(pl.programs, patch.Program{
				Entry: p.code.Start + uint64(e.Offset), Cookie: pr.Cookie, Clobbers: e.Clobbers, Context: e.Context, Vectors: e.Context.Vectors,
			})
		}
		places = append(places, pl)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.addr, b.addr) })
	return places, failed
}

// Release implements runtime.Session.
func (s *session) Release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.order {
		if err := p.release(); err != nil && !over(err) {
			return fmt.Errorf("user runtime: %w", err)
		}
	}
	return nil
}

func (p *process) release() error {
	p.stops.Lock()
	defer p.stops.Unlock()
	if !p.hold {
		return nil
	}
	p.hold = false
	return p.resume()
}

// Detach implements runtime.Session.
func (s *session) Detach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detach()
}

func (s *session) detach() error {
	if s.keeper != nil {
		s.keeper.stop()
		s.keeper = nil
	}
	var errs []error
	for _, p := range s.order {
		if p.t == nil {
			continue
		}
		p.unheeded()
		forked := *p // with all that is in them
		inject.Hurry(func() {
			errs = append(errs, p.remove(context.Background()), forked.removeForks(context.Background()))
		})
		p.t = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("user runtime: %w", err)
	}
	return nil
}

// Close implements runtime.Session. Read must have returned, and no Map be used any
// more.
func (s *session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.detach()
	for _, p := range s.order {
		p.unshare()
	}
	s.order, s.processes = nil, nil
	return err
}

// Map implements runtime.Session.
func (s *session) Map(name string) (runtime.Map, bool) {
	if m, ok := s.layout.Map(name); !ok || m.IsRing() {
		return nil, false
	}
	return sum{s, name}, true
}

// sum is a map of all processes.
type sum struct {
	s    *session
	name string
}

// ErrManyMaps: each process has maps of its own, and a script wants one.
var ErrManyMaps = errors.New("the maps of several processes can't be one in the user runtime")

// one is the map of the one process that there is, in which its forks share.
func (m sum) one() (tracer.Map, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.closed {
		return tracer.Map{}, errClosed
	}
	if len(m.s.order) != 1 {
		return tracer.Map{}, ErrManyMaps
	}
	v, ok := m.s.order[0].memory.View(m.name)
	if !ok {
		return tracer.Map{}, fmt.Errorf("user runtime: there is no map %q", m.name)
	}
	return tracer.Map{View: v}, nil
}

// Lookup implements runtime.Map.
func (m sum) Lookup(key []byte) ([][]byte, error) {
	one, err := m.one()
	if err != nil {
		return nil, err
	}
	return one.Lookup(key)
}

// Each implements runtime.Map.
func (m sum) Each(f func(key []byte, values [][]byte) bool) error {
	one, err := m.one()
	if err != nil {
		return err
	}
	return one.Each(f)
}

// Update implements runtime.Map.
func (m sum) Update(key []byte, values [][]byte) error {
	one, err := m.one()
	if err != nil {
		return err
	}
	return one.Update(key, values)
}

// Delete implements runtime.Map.
func (m sum) Delete(key []byte) error {
	one, err := m.one()
	if err != nil {
		return err
	}
	return one.Delete(key)
}

// Run implements runtime.Session, by the interpreter over the process's maps.
func (s *session) Run(program string) error {
	s.mu.Lock()
	if s.closed || len(s.order) != 1 {
		defer s.mu.Unlock()
		if s.closed {
			return errClosed
		}
		return ErrManyMaps
	}
	m := s.order[0].memory
	s.mu.Unlock()
	return s.programs.Run(program, m)
}

// Sample implements runtime.Session: what runs on the CPUs only the kernel knows.
func (s *session) Sample(program string, _ time.Duration) error {
	return fmt.Errorf("user runtime: sampling by %s: %w", program, errors.ErrUnsupported)
}

// Sum implements runtime.Map.
func (m sum) Sum(i uint32) (total uint64, err error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if m.s.closed {
		return 0, errClosed
	}
	return m.s.sum(m.name, i)
}

func (s *session) sum(name string, i uint32) (total uint64, err error) {
	for _, p := range s.order {
		v, ok := p.memory.View(name)
		if !ok {
			return 0, fmt.Errorf("user runtime: there is no map %q", name)
		}
		n, err := v.Sum(i)
		if err != nil {
			return 0, fmt.Errorf("user runtime: %w", err)
		}
		total += n
	}
	return total, nil
}

// Stats implements runtime.Session.
func (s *session) Stats() (st runtime.Stats, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return st, errClosed
	}
	if _, ok := s.layout.Map(runtime.MapCounters); ok {
		for c := range runtime.NumCounters {
			if st.Counters[c], err = s.sum(runtime.MapCounters, uint32(c)); err != nil {
				return st, err
			}
		}
	}
	for _, p := range s.order {
		if p.executed.Load() {
			st.Executed++
		}
	}
	// What kind of record it was to be is not known.
	st.Counters[runtime.EntryNoSlot] += s.skipped
	return st, nil
}
