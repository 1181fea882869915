package kernel

import (
	"errors"
	"fmt"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
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
			"sched_process_fork": {Name: "fork", Type: ebpf.RawTracepoint, License: license, Instructions: o.fork()},
			"sched_process_exit": {Name: "exit", Type: ebpf.RawTracepoint, License: license, Instructions: o.exit()},
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
	for _, name := range []string{"sched_process_exit", "sched_process_fork"} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: f.coll.Programs[name]})
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
	k, err := readKernelTypes()
	if err != nil {
		return o, err
	}
	for _, m := range []struct {
		typ, name string
		to        *int16
	}{
		{"task_struct", "tgid", &o.tgid}, {"task_struct", "signal", &o.signal}, {"signal_struct", "live", &o.live},
	} {
		if *m.to, err = k.member(m.typ, m.name); err != nil {
			return o, err
		}
	}
	return o, nil
}

// fork runs at sched_process_fork(parent, child), in the parent and before the
// child runs. A thread has its parent's tgid.
func (o offsets) fork() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord),
		asm.LoadMem(asm.R7, asm.R1, 8, asm.DWord),
	}
	ins = append(ins, peek(asm.R6, asm.R6, o.tgid, asm.Word)...)
	ins = append(ins, peek(asm.R7, asm.R7, o.tgid, asm.Word)...)
	return append(ins,
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
	)
}

// peek makes dst what is at an offset of a struct of the kernel at src. Neither is of the
// registers that calls destroy.
func peek(dst, src asm.Register, off int16, size asm.Size) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, -8),
		asm.Mov.Imm(asm.R2, int32(size.Sizeof())),
		asm.Mov.Reg(asm.R3, src),
		asm.Add.Imm(asm.R3, int32(off)),
		asm.FnProbeReadKernel.Call(),
		asm.LoadMem(dst, asm.RFP, -8, size),
	}
}

// exit runs at sched_process_exit(task), when the thread runs user code no more.
// live has been counted down by then (do_exit in kernel/exit.c).
func (o offsets) exit() asm.Instructions {
	ins := asm.Instructions{asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord)}
	ins = append(ins, peek(asm.R7, asm.R6, o.signal, asm.DWord)...)
	ins = append(ins, peek(asm.R7, asm.R7, o.live, asm.Word)...)
	ins = append(ins, asm.JNE.Imm(asm.R7, 0, "out"))
	ins = append(ins, peek(asm.R6, asm.R6, o.tgid, asm.Word)...)
	return append(ins,
		asm.StoreMem(asm.RFP, -8, asm.R6, asm.Word),
		asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapTargets),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -8),
		asm.FnMapDeleteElem.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
}
