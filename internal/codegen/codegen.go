// Package codegen compiles a typed program to eBPF: programs and maps, the probes
// that run them, and the schema of the records that they write. It is pure: it
// touches no kernel.
//
// There is one program for each shape, not for each site. Probes whose items want
// the same pieces from the same places, and follow pointers of like types, share
// a program; the attach cookie, which is the probe's index, names the site. What
// is known when compiling (constants, names, types) stays in the schema, and what
// differs between sites of one shape (addresses, counters) is in the map sites.
package codegen

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/rust/types"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Options are what the runtime offers to programs.
type Options struct {
	// Sleepable programs may fault pages in: memory that has not been touched yet
	// is read too (Linux 6.0 for uprobes).
	Sleepable bool
	// HaveLoop: there is bpf_loop (Linux 5.17). Without it only pointers to what
	// holds no pointers are followed.
	HaveLoop bool
	// XMM is the offset in the context of xmm0 … xmm15, 16 bytes each; 0 if they
	// are not there, as in the kernel.
	XMM int
	// CPUs is the number of possible CPUs, for handlers that add up maps.
	CPUs int
	// Reserve: bpf_ringbuf_reserve takes a size that is not a constant. Records whose
	// size is known before they are written are then written straight into the ring,
	// in room of just their size, without a scratch slot. The kernel's verifier wants
	// a constant.
	Reserve bool
}

// read is the helper that reads user memory: (dst, size, address) → 0 if it could.
// When it can't, it zeroes dst.
func (o Options) read() asm.BuiltinFunc {
	if o.Sleepable {
		return asm.FnCopyFromUser
	}
	return asm.FnProbeReadUser
}

// Compiled is a program ready to be loaded.
type Compiled struct {
	Spec *ebpf.CollectionSpec
	// Probes are in the order of the program's; one with very many items is
	// attached several times. Cookie is the index of the program's probe.
	Probes []runtime.Probe
	Schema *record.Schema
	// Timers are the programs of the script's timers, in their order. They are of type
	// RawTracepoint, or PerfEvent for those that sample, and belong to no site.
	Timers []string
	// Maps are the names of the script's maps in the collection, in their order.
	Maps []string
	// Single says which of them are an array of one element, whose value is followed by a word
	// that is 1 once there is a value, and 0 if there is none. Of the others no element is
	// there that has not been made.
	Single []bool
	// Events are what records of events mean, by cookie.
	Events []Emitted

	frame int      // bytes of the largest handler's
	zeros int      // that handlers ask for
	named bool     // they ask for texts of names
	names []string // of programs, in the order in which they were made
}

// Maps beside those that runtimes know.
const (
	// mapSites is an array, by cookie, of what is particular to a site.
	mapSites = "sites"
	// mapIndices holds the counters of probes with several counts.
	mapIndices = "indices"
	// mapSaved is a hash, by thread and CFA, of the words that entries keep for exits.
	mapSaved = "saved"
	// mapVTables is a hash, by vtable and class of object, of what hangs on the object's
	// address.
	mapVTables = "vtables"
)

// One element of mapSites.
const (
	siteAddr  = 0  // u64: the address as linked
	siteCount = 8  // u32: the counter of the first count
	siteMore  = 12 // u32: where in mapIndices those of the others begin
	siteSize  = 16
)

const (
	ringSize    = 4 << 20 // of runtime.MapEvents, unless the runtime knows better
	targetsSize = 16 << 10
	savedSize   = 64 << 10 // calls under way

	// maxItems bounds the records that one program makes: a program has at most
	// 256 functions. maxEdgesTotal bounds the verifier's work on their values.
	maxItems      = 32
	maxEdgesTotal = 1024

	// BPF_F_RDONLY_PROG and BPF_F_SLEEPABLE (kernel, include/uapi/linux/bpf.h).
	flagReadOnly  = 1 << 7
	flagSleepable = 1 << 4
)

// shape is a set of probes that share a program.
type shape struct {
	name  string
	plans []plan
}

// Compile makes eBPF of p for a runtime that offers o.
func Compile(p *program.Program, o Options) (*Compiled, error) {
	if l := p.Limits; l.MaxStr < 0 || l.MaxItems < 0 || l.Depth < 0 {
		return nil, fmt.Errorf("codegen: limits %+v", l)
	}
	roots := scriptRoots(p.Script)
	for i := range p.Probes {
		if n := len(p.Probes[i].Items); n > 1<<16 {
			return nil, fmt.Errorf("codegen: %d items at %#x", n, p.Probes[i].Addr)
		}
		for j := range p.Probes[i].Items {
			it := &p.Probes[i].Items[j]
			if it.Count >= p.Counts || it.Cond > 15 || it.Kind == program.Run && !p.Script.Has(it.Handler) ||
				it.Where != nil && !p.Script.Has(it.Where.Handler) {
				return nil, fmt.Errorf("codegen: counter %d of %d, condition %d at %#x", it.Count, p.Counts, it.Cond, p.Probes[i].Addr)
			}
			for _, v := range it.Values {
				if v.Type != nil {
					roots = append(roots, v.Type)
				}
			}
		}
	}
	cs := classify(roots)

	c := &Compiled{
		Spec:   &ebpf.CollectionSpec{Maps: make(map[string]*ebpf.MapSpec), Programs: make(map[string]*ebpf.ProgramSpec)},
		Schema: &record.Schema{Probes: make([]record.Probe, len(p.Probes)), Classes: cs.ids(), Objects: cs.objects, Limits: p.Limits},
	}
	if p.Script != nil {
		c.Single = singles(p.Script) // which predicates of items ask for too
	}
	var (
		shapes []*shape
		byKey  = make(map[string]*shape)
		fixed  int
		pl     = planner{opts: o, limits: p.Limits, cs: cs}
	)
	for i := range p.Probes {
		probe := &p.Probes[i]
		var plans []plan
		for j := range probe.Items {
			if probe.Items[j].Kind == program.Run {
				c.Schema.Probes[i].Items = append(c.Schema.Probes[i].Items, record.Item{Kind: program.Run})
				continue
			}
			plan, item := pl.planItem(j, &probe.Items[j])
			plans = append(plans, plan)
			c.Schema.Probes[i].Items = append(c.Schema.Probes[i].Items, item)
			fixed = max(fixed, item.Size)
		}
		for _, part := range split(plans) {
			key := keyOf(part)
			s := byKey[key]
			if s == nil {
				s = &shape{name: fmt.Sprintf("%s_%d", label(part), len(shapes)), plans: part}
				byKey[key] = s
				shapes = append(shapes, s)
			}
			c.Probes = append(c.Probes, runtime.Probe{Path: probe.Path, Offset: probe.Offset, Cookie: uint64(i), Program: s.name})
		}
	}

	sz := newSizes(p.Limits, max(fixed, eventSize(p.Script)))
	if len(shapes) > 1<<16 {
		return nil, fmt.Errorf("codegen: %d shapes", len(shapes))
	}
	if p.Script != nil {
		c.Single = singles(p.Script)
	}
	for i, s := range shapes {
		g := generator{c: c, p: p, o: o, cs: cs, sizes: sz, number: i, shape: s}
		ins, err := g.program()
		if err != nil {
			return nil, fmt.Errorf("codegen: program %s: %w", s.name, err)
		}
		spec := &ebpf.ProgramSpec{Name: s.name, Type: ebpf.Kprobe, SectionName: "uprobe", Instructions: ins, License: "Dual MIT/GPL"}
		// Programs that read no memory need not be able to wait for it.
		if o.Sleepable && g.records {
			spec.SectionName, spec.Flags = "uprobe.s", flagSleepable
		}
		c.Spec.Programs[s.name] = spec
		c.names = append(c.names, s.name)
	}
	if err := c.handlers(p, o, cs, sz); err != nil {
		return nil, err
	}
	c.maps(p, sz, cs.vtables(sz))
	return c, nil
}

// ids are the classes by type.
func (cs *classes) ids() map[*types.Type]uint32 {
	m := make(map[*types.Type]uint32, len(cs.byType))
	for t, c := range cs.byType {
		m[t] = c.id
	}
	return m
}

// split parts a probe's plans into those of one program each: all counts are in
// the first.
func split(plans []plan) [][]plan {
	var parts [][]plan
	var part []plan
	for _, p := range plans {
		if p.count {
			part = append(part, p)
		}
	}
	items, edges := 0, 0
	for _, p := range plans {
		if p.count {
			continue
		}
		n := 0
		for _, r := range p.roots {
			n += len(r.edges)
		}
		if items > 0 && (items == maxItems || edges+n > maxEdgesTotal) {
			parts = append(parts, part)
			part, items, edges = nil, 0, 0
		}
		part = append(part, p)
		items++
		edges += n
	}
	if len(part) > 0 {
		parts = append(parts, part)
	}
	return parts
}

func keyOf(plans []plan) string {
	var b strings.Builder
	for i := range plans {
		b.WriteString(plans[i].key())
		b.WriteByte('\n')
	}
	return b.String()
}

// label names a shape by what it does first.
func label(plans []plan) string {
	if plans[0].count {
		return "count"
	}
	return plans[0].kind.String()
}

// maps adds the maps that the programs refer to.
func (c *Compiled) maps(p *program.Program, s sizes, vtables []ebpf.MapKV) {
	sites := make([]ebpf.MapKV, 0, len(p.Probes))
	var indices []ebpf.MapKV
	for i := range p.Probes {
		site := site{Addr: p.Probes[i].Addr, More: uint32(len(indices))}
		n := 0
		for _, it := range p.Probes[i].Items {
			if it.Count < 0 {
				continue
			}
			if n == 0 {
				site.Count = uint32(it.Count)
			} else {
				indices = append(indices, ebpf.MapKV{Key: uint32(len(indices)), Value: uint32(it.Count)})
			}
			n++
		}
		sites = append(sites, ebpf.MapKV{Key: uint32(i), Value: site})
	}
	all := []*ebpf.MapSpec{
		{Name: mapSites, Type: ebpf.Array, KeySize: 4, ValueSize: siteSize, MaxEntries: uint32(len(sites)), Flags: flagReadOnly, Contents: sites},
		{Name: mapIndices, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: uint32(len(indices)), Flags: flagReadOnly, Contents: indices},
		{Name: runtime.MapEvents, Type: ebpf.RingBuf, MaxEntries: ringSize},
		{Name: runtime.MapTargets, Type: ebpf.Hash, KeySize: 4, ValueSize: 1, MaxEntries: targetsSize},
		{Name: mapSaved, Type: ebpf.Hash, KeySize: 16, ValueSize: 8, MaxEntries: savedSize},
		{Name: mapVTables, Type: ebpf.Hash, KeySize: 16, ValueSize: 16, MaxEntries: uint32(max(len(vtables), 1)), Flags: flagReadOnly, Contents: vtables},
		{Name: runtime.MapScratch, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(s.slot), MaxEntries: runtime.SlotsPerCPU},
		{Name: runtime.MapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(runtime.NumCounters)},
		{Name: runtime.MapCounts, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(max(p.Counts, 1))},
	}
	c.scriptMaps(p)
	c.optional(all...)
}

// optional adds those of the maps that programs refer to.
func (c *Compiled) optional(all ...*ebpf.MapSpec) {
	used := make(map[string]bool)
	for _, prog := range c.Spec.Programs {
		for _, ins := range prog.Instructions {
			if ins.IsLoadFromMap() {
				used[ins.Reference()] = true
			}
		}
	}
	for _, m := range all {
		if used[m.Name] {
			c.Spec.Maps[m.Name] = m
		}
	}
}

// site is one element of mapSites.
type site struct {
	Addr        uint64
	Count, More uint32
}

// Dump prints the maps, the probes, the schema, and the programs as assembly.
func (c *Compiled) Dump(w io.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(c.Spec.Maps)) {
		m := c.Spec.Maps[name]
		if _, err := fmt.Fprintf(w, "map %s %s: key %d, value %d, entries %d\n", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries); err != nil {
			return err
		}
	}
	for _, p := range c.Probes {
		if _, err := fmt.Fprintf(w, "probe %d: %s at %#x\n", p.Cookie, p.Program, p.Offset); err != nil {
			return err
		}
	}
	if err := c.Schema.Dump(w); err != nil {
		return err
	}
	for _, name := range c.names {
		p := c.Spec.Programs[name]
		if _, err := fmt.Fprintf(w, "\nprogram %s (%s)\n%v", name, p.SectionName, p.Instructions); err != nil {
			return err
		}
	}
	return nil
}
