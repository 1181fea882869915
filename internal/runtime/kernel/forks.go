package kernel

import (
	"errors"
	"fmt"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// forks keeps the map of targets true while they multiply and end.
type forks struct {
	coll  *ebpf.Collection
	links []link.Link
}

const mapUnfollowed = "unfollowed"

// followForks adds the children of targets to the map from now on, before they
// run, and takes processes out that have ended, whose pids others may get.
func followForks(targets *ebpf.Map) (*forks, error) {
	if targets == nil {
		return nil, fmt.Errorf("kernel runtime: following children needs a map %q", runtime.MapTargets)
	}
	if !initialPIDNamespace() {
		// task_struct tells pids as the initial namespace numbers them.
		return nil, errors.New("kernel runtime: children can be followed from the initial pid namespace only")
	}
	if targets.KeySize() != 4 || targets.ValueSize() > 8 {
		return nil, fmt.Errorf("kernel runtime: map %s: %d → %d bytes", runtime.MapTargets, targets.KeySize(), targets.ValueSize())
	}
	o, err := taskOffsets()
	if err != nil {
		return nil, fmt.Errorf("kernel runtime: following children: %w", err)
	}
	coll, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			runtime.MapTargets: {Name: runtime.MapTargets, Type: targets.Type(), KeySize: targets.KeySize(), ValueSize: targets.ValueSize(), MaxEntries: targets.MaxEntries(), Flags: targets.Flags()},
			mapUnfollowed:      {Name: mapUnfollowed, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"fork": {Name: "fork", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_fork", License: license, Instructions: o.fork()},
			"exit": {Name: "exit", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_process_exit", License: license, Instructions: o.exit()},
		},
	}, ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{runtime.MapTargets: targets}})
	if err != nil {
		return nil, fmt.Errorf("kernel runtime: following children: %w", permission(err))
	}
	f := &forks{coll: coll}
	if err := f.attach(); err != nil {
		coll.Close()
		return nil, err
	}
	return f, nil
}

func (f *forks) attach() error {
	for _, name := range []string{"exit", "fork"} {
		l, err := link.AttachTracing(link.TracingOptions{Program: f.coll.Programs[name]})
		if err != nil {
			return errors.Join(fmt.Errorf("kernel runtime: following children: %w", permission(err)), f.detach())
		}
		f.links = append(f.links, l)
	}
	return nil
}

func (f *forks) detach() error {
	err := closeAll(f.links)
	f.links = nil
	return err
}

// lost is how many children could not be added.
func (f *forks) lost() (uint64, error) { return perCPU{f.coll.Maps[mapUnfollowed]}.Sum(0) }

// offsets of members, in bytes.
type offsets struct {
	tgid, signal int16 // in struct task_struct
	live         int16 // in struct signal_struct: threads that have not ended
}

func taskOffsets() (o offsets, err error) {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return o, err
	}
	for _, m := range []struct {
		typ, name string
		to        *int16
	}{
		{"task_struct", "tgid", &o.tgid}, {"task_struct", "signal", &o.signal}, {"signal_struct", "live", &o.live},
	} {
		var s *btf.Struct
		if err := kernel.TypeByName(m.typ, &s); err != nil {
			return o, err
		}
		off, ok := member(s.Members, m.name)
		if !ok || off != uint32(int16(off)) {
			return o, fmt.Errorf("struct %s has no member %s: %w", m.typ, m.name, ebpf.ErrNotSupported)
		}
		*m.to = int16(off)
	}
	return o, nil
}

// member finds a member, inside of anonymous ones too.
func member(ms []btf.Member, name string) (offset uint32, ok bool) {
	for _, m := range ms {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if off, ok := member(inner, name); ok {
			return m.Offset.Bytes() + off, true
		}
	}
	return 0, false
}

// fork runs at sched_process_fork(parent, child), in the parent and before the
// child runs. A thread has its parent's tgid.
func (o offsets) fork() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
		asm.LoadMem(asm.R6, asm.R6, o.tgid, asm.Word),
		asm.LoadMem(asm.R7, asm.R7, o.tgid, asm.Word),
		asm.JEq.Reg(asm.R6, asm.R7, "out"),
		asm.StoreMem(asm.RFP, -8, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapTargets),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),

		asm.StoreMem(asm.RFP, -8, asm.R7, asm.Word),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, -16, asm.R1, asm.DWord),
		asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapTargets),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -16),
		asm.Mov.Imm(asm.R4, 0), // BPF_ANY
		asm.FnMapUpdateElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),

		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference(mapUnfollowed),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}

// exit runs at sched_process_exit(task), when the thread runs user code no more.
// live has been counted down by then (do_exit in kernel/exit.c).
func (o offsets) exit() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R6, o.signal, asm.DWord),
		asm.LoadMem(asm.R7, asm.R7, o.live, asm.Word),
		asm.JNE.Imm(asm.R7, 0, "out"),
		asm.LoadMem(asm.R6, asm.R6, o.tgid, asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapTargets),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapDeleteElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}
