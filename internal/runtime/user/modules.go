package user

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// module is a file of code that a process may map and unmap while it is traced: a library.
type module struct {
	path   string
	text   Text
	probes []runtime.Probe
	// planted is nil while the process has not mapped the file.
	planted *planted
}

// planted is what is in the process for a module.
type planted struct {
	bias    uint64
	file    inject.File
	patches []*patch.Patch
	regions []mapping // trampolines, of no other
}

// Mapped tells what became of probes in a file that a process mapped after it was
// attached to.
type Mapped struct {
	PID  int
	Path string
	// Failed are the probes that could not be planted, but for those that Attach has
	// named.
	Failed []*runtime.ProbeError
	// Missed says that calls may have been made before the probes were in.
	Missed bool
	// Err is why there are none: ErrFork for the child of a traced process.
	Err error
}

// ErrFork: what a child maps after it has begun gets no probes.
var ErrFork = errors.New("it is a child of a traced process, and has mapped the file itself")

// addresses are those of the probes, as linked; 0 for what is in no segment.
func (m *module) addresses() []uint64 {
	addrs := make([]uint64, len(m.probes))
	for i, pr := range m.probes {
		addrs[i], _ = m.text.Addr(pr.Offset)
	}
	return addrs
}

// refuse takes out the probes that could not be planted anywhere.
func (m *module) refuse(ways []Planned) (failed []*runtime.ProbeError) {
	for i, way := range ways {
		if way.Err != nil {
			failed = append(failed, &runtime.ProbeError{Probe: m.probes[i], Err: way.Err})
		}
	}
	m.without(failed)
	return failed
}

// without expects nothing of probes any more that could not be planted once.
func (m *module) without(failed []*runtime.ProbeError) {
	m.probes = slices.DeleteFunc(slices.Clone(m.probes), func(pr runtime.Probe) bool {
		return slices.ContainsFunc(failed, func(e *runtime.ProbeError) bool { return e.Probe == pr })
	})
}

// fileOf is the part of a mapped file that holds what is probed.
func fileOf(ms []target.Mapping, text Text, bias uint64) (f inject.File, ok bool) {
	rs := text.FunctionRanges()
	if len(rs) == 0 {
		return f, false
	}
	for _, m := range ms {
		low, high := rs[0].Low+bias, rs[len(rs)-1].High+bias
		if !m.Exec || m.End <= low || m.Start >= high || m.Inode == 0 {
			continue
		}
		if f.Inode == 0 {
			f = inject.File{Range: inject.Range{Start: m.Start, End: m.End}, Inode: m.Inode, Offset: m.Offset}
		} else if m.Inode == f.Inode && m.Start == f.End {
			f.End = m.End
		}
	}
	return f, f.Inode != 0
}

// follow looks which of the modules the process has mapped now, plants the probes of
// those that are new, and forgets those that are gone. late: the process may have run
// their code already.
func (p *process) follow(ctx context.Context, late bool) (told []Mapped) {
	late = late || !p.loader
	ms, err := mapsOf(p.pid)
	if err != nil {
		return nil
	}
	for _, m := range p.modules {
		if m.planted != nil && !p.there(ctx, m, ms) {
			if err := p.forget(ctx, m); err != nil {
				return told
			}
		}
	}
	p.sweepStale(ctx)
	for _, m := range p.modules {
		if m.planted != nil || len(m.probes) == 0 {
			continue
		}
		b, err := bias(ms, m.path, offsets(m.probes), m.text)
		if err != nil {
			continue
		}
		failed, err := p.plantModule(ctx, m, b, ms)
		if over(err) || errors.Is(err, errMoved) {
			continue
		}
		told = append(told, Mapped{PID: p.pid, Path: m.path, Failed: failed, Missed: late, Err: err})
		if err != nil {
			m.probes = nil // once is enough to be told
		}
	}
	return told
}

// there says whether a module is where it was, with its probes: it may have been mapped
// anew at the same place.
func (p *process) there(ctx context.Context, m *module, ms []target.Mapping) bool {
	pl := m.planted
	if !pl.file.In(ms) {
		return false
	}
	if len(pl.patches) == 0 {
		return true
	}
	w := pl.patches[0].Writes[0]
	have := make([]byte, len(w.Old))
	return p.t.ReadMem(ctx, have, w.Addr) != nil || !bytes.Equal(have, w.Old)
}

// forget forgets the probes of a module that is gone. Threads may be in the trampolines
// yet, on their way back to other code.
func (p *process) forget(ctx context.Context, m *module) error {
	pl := m.planted
	if err := p.journal.Forget(ctx, pl.file); err != nil {
		return err
	}
	gone := map[*patch.Patch]bool{}
	for _, pt := range pl.patches {
		gone[pt] = true
	}
	p.patches = slices.DeleteFunc(p.patches, func(pt *patch.Patch) bool { return gone[pt] })
	p.stale = append(p.stale, pl.regions...)
	m.planted = nil
	return nil
}

// sweepStale unmaps the trampolines of modules that are gone, if no thread is in any.
func (p *process) sweepStale(ctx context.Context) {
	if len(p.stale) == 0 {
		return
	}
	var code []inject.Range
	for _, r := range p.stale {
		code = append(code, r.Range())
	}
	slices.SortFunc(code, func(a, b inject.Range) int { return int(min(1, max(-1, int64(a.Start-b.Start)))) })
	inside := map[int]bool{}
	if p.addInside(ctx, code, inside) != nil || len(inside) > 0 || p.t.Stop(ctx) != nil {
		return
	}
	p.stale = slices.DeleteFunc(p.stale, func(r mapping) bool {
		if p.t.Munmap(ctx, r.Addr, r.Size) != nil || p.journal.DropRegion(ctx, r.Region) != nil {
			return false
		}
		p.regions = slices.DeleteFunc(p.regions, func(m mapping) bool { return m == r })
		return true
	})
	_ = p.resume()
}

// errMoved: the process has unmapped a module meanwhile.
var errMoved = errors.New("the file is not mapped there any more")

// plantModule plants the probes of a module that has been mapped.
func (p *process) plantModule(ctx context.Context, m *module, bias uint64, ms []target.Mapping) (failed []*runtime.ProbeError, err error) {
	file, ok := fileOf(ms, m.text, bias)
	if !ok {
		return nil, errMoved
	}
	if err := p.journal.AddFile(ctx, file); err != nil {
		return nil, err
	}
	a := aim{path: m.path, text: m.text, bias: bias}
	at := map[uint64][]runtime.Probe{}
	a.places, failed = p.places(&a, m.probes, at)
	regions, patches := len(p.regions), len(p.patches)
	missed, err := p.arm(ctx, []aim{a}, func() error {
		ms, err := mapsOf(p.pid)
		if err == nil && !file.In(ms) {
			err = errMoved
		}
		return err
	})
	m.planted = &planted{
		bias: bias, file: file,
		patches: slices.Clone(p.patches[patches:]), regions: slices.Clone(p.regions[regions:]),
	}
	if err != nil {
		if now, merr := mapsOf(p.pid); merr == nil && !file.In(now) {
			err = errors.Join(errMoved, p.forget(ctx, m))
		}
		return nil, err
	}
	for _, x := range missed {
		for _, pr := range at[x.place.addr] {
			failed = append(failed, &runtime.ProbeError{Probe: pr, Err: x.err})
		}
	}
	blind, err := p.raise(ctx, &a, m.probes, failed)
	failed = append(failed, blind...)
	m.without(failed)
	return failed, err
}

// heed looks after the modules when a thread has rung, or when it is time to look.
func (p *process) heed(ctx context.Context, tell func(Mapped)) {
	p.stops.Lock()
	defer p.stops.Unlock()
	if p.hold || p.t == nil {
		return
	}
	all := func(told []Mapped) {
		for _, m := range told {
			tell(m)
		}
	}
	ctx = context.WithoutCancel(ctx) // what is begun is ended soon
	loads := p.memory.Loads()
	loads.SetAbsent(false)
	waiting, late := loads.Waiting(), loads.Late()
	all(p.follow(ctx, late != p.late))
	p.late = late
	for _, pid := range waiting {
		if pid != p.pid {
			all(p.forkMapped(ctx, pid))
		}
		loads.Answer(pid)
	}
}

// unheeded has no thread wait any more for the tracer.
func (p *process) unheeded() {
	loads := p.memory.Loads()
	loads.SetAbsent(true)
	loads.Answer(0)
}

// forkMapped tells of the modules that a child of the process has mapped, and in which it has
// no probes.
func (p *process) forkMapped(ctx context.Context, pid int) (told []Mapped) {
	ms, err := mapsOf(pid)
	if err != nil {
		return nil
	}
	for _, m := range p.modules {
		b, err := bias(ms, m.path, offsets(m.probes), m.text)
		if err != nil || p.childTold {
			continue
		}
		if pl := m.planted; pl != nil && pl.bias == b && len(pl.patches) > 0 {
			w := pl.patches[0].Writes[0]
			have := make([]byte, len(w.New))
			n, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &have[0], Len: uint64(len(have))}},
				[]unix.RemoteIovec{{Base: uintptr(w.Addr), Len: len(have)}}, 0)
			if err == nil && n == len(have) && bytes.Equal(have, w.New) {
				continue
			}
		}
		p.childTold = true
		told = append(told, Mapped{PID: pid, Path: m.path, Missed: true, Err: ErrFork})
	}
	return told
}
