package user_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/inject"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"golang.org/x/sys/unix"
)

// TestUprobe: a site at which the kernel has a uprobe is left to it, and named; the others
// are traced, and all bytes are afterwards what they were.
func TestUprobe(t *testing.T) {
	_ = rlimit.RemoveMemlock()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Kprobe, License: "MIT", Instructions: bpf.Instructions{bpf.Mov.Imm(bpf.R0, 0), bpf.Return()}})
	if err != nil {
		t.Skipf("skipped: no eBPF: %v", err)
	}
	defer prog.Close()
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "storm", "0")
	clean := footprintOf(t, p.PID)
	exe, err := link.OpenExecutable(x.path)
	if err != nil {
		t.Fatal(err)
	}
	up, err := exe.Uprobe("mix", prog, nil)
	if err != nil {
		t.Skipf("skipped: no uprobes: %v", err)
	}
	defer up.Close()
	before := footprintOf(t, p.PID)
	mix := x.offset(x.named("mix")[0].Low)
	var other uint32
	for i, f := range x.all() {
		if f.name == "branch" {
			other = uint32(i)
		}
	}
	for range 3 {
		s := load(t, x)
		conflicts := 0
		for _, e := range attachSome(t, s, everything(x, "count"), runtime.Who{PIDs: []int{p.PID}}) {
			if errors.Is(e, inject.ErrConflict) {
				conflicts++
				if !strings.Contains(e.Error(), "uprobe") {
					t.Errorf("it is not said what is there: %v", e)
				}
				if e.Probe.Offset != mix {
					t.Logf("also %#x: %v", e.Probe.Offset, e)
				}
			}
		}
		if conflicts == 0 {
			t.Error("no conflict")
		}
		for deadline := time.Now().Add(10 * time.Second); sum(t, s, runtime.MapCounts, other) == 0; time.Sleep(time.Millisecond) {
			if p.alive(); time.Now().After(deadline) {
				t.Fatal("the others count nothing")
			}
		}
		mustClose(t, s)
		p.alive()
		before.same(t, p.PID)
	}
	if err := up.Close(); err != nil {
		t.Fatal(err)
	}
	clean.same(t, p.PID)
	p.Finish(unix.SIGUSR1)
}
