package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Features are what the running kernel has, found by trying.
type Features struct {
	// Uprobes can be attached through perf events (Linux 4.17).
	Uprobes bool
	// Cookie: programs are told which probe they run for (Linux 5.15).
	Cookie bool
	// RingBuf: there are ring buffers (Linux 5.8).
	RingBuf bool
	// Loop: there is the helper bpf_loop (Linux 5.17).
	Loop bool
	// Sleepable uprobe programs can fault pages in (Linux 6.0).
	Sleepable bool
	// UprobeMulti: many probes are attached by one call (Linux 6.6).
	UprobeMulti bool
	// MultiPIDFilter: uprobe_multi's own filter picks a process. Before Linux 6.10,
	// and the stable versions that the correction went into, it picked a thread.
	MultiPIDFilter bool
	// BTF: the kernel describes its own types, without which children cannot be
	// followed.
	BTF bool
	// Err says why the features could not be found out; all are false then.
	Err error
}

// ProbeFeatures tries what the kernel has, once in a process's life. Without the
// right to load programs Err is a *PermissionError.
var ProbeFeatures = sync.OnceValue(func() Features {
	if err := Permission(); err != nil {
		return Features{Err: err}
	}
	var (
		f     Features
		wrong error
	)
	have := func(err error) bool {
		if err != nil && !errors.Is(err, ebpf.ErrNotSupported) && wrong == nil {
			wrong = err
		}
		return err == nil
	}
	_, err := os.Stat("/sys/bus/event_source/devices/uprobe/type")
	f.Uprobes = err == nil
	f.Cookie = have(features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie))
	f.RingBuf = have(features.HaveMapType(ebpf.RingBuf))
	f.Loop = have(features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop))
	f.Sleepable = have(haveSleepable())
	f.UprobeMulti = have(features.HaveBPFLinkUprobeMulti())
	f.MultiPIDFilter = f.UprobeMulti && have(haveMultiPIDFilter())
	_, err = os.Stat(vmlinuxBTF)
	f.BTF = err == nil
	if wrong != nil {
		return Features{Err: fmt.Errorf("finding out what the kernel has: %w", permission(wrong))}
	}
	return f
})

// haveSleepable loads a program that sleeps as a uprobe's may.
func haveSleepable() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sleepable", Type: ebpf.Kprobe, Flags: unix.BPF_F_SLEEPABLE, License: license,
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R1, asm.RFP),
			asm.Add.Imm(asm.R1, -8),
			asm.Mov.Imm(asm.R2, 8),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnCopyFromUser.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			return err
		}
		return ebpf.ErrNotSupported
	}
	return p.Close()
}

// haveMultiPIDFilter tells the corrected filter by what came with it: a negative
// pid is refused with EINVAL before the path is looked at, which here is refused
// with EBADF for being a directory (Linux 46ba0e49b642, "bpf: fix multi-uprobe PID
// filtering logic").
func haveMultiPIDFilter() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pid_filter", Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: license,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer p.Close()
	ex, err := link.OpenExecutable("/")
	if err != nil {
		return err
	}
	l, err := ex.UprobeMulti(nil, p, &link.UprobeMultiOptions{Addresses: []uint64{1}, PID: ^uint32(0)})
	if err == nil {
		l.Close()
		return errors.New("uprobe_multi on a directory")
	}
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return ebpf.ErrNotSupported
}

// license lets programs use the helpers that are for GPL-compatible ones only.
const license = "Dual MIT/GPL"
