package user_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/target"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/asm"
)

// counts is how many counters there are.
const counts = 4096

// spec has two programs: count adds 1 to the counter of the probe's cookie, write
// writes a record of pid_tgid, time, cookie, rsp and comm.
func spec() *ebpf.CollectionSpec {
	count := bpf.Instructions{
		bpf.FnGetAttachCookie.Call(),
		bpf.StoreMem(bpf.RFP, -4, bpf.R0, bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP),
		bpf.Add.Imm(bpf.R2, -4),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference(runtime.MapCounts),
		bpf.FnMapLookupElem.Call(),
		bpf.JEq.Imm(bpf.R0, 0, "out"),
		bpf.Mov.Imm(bpf.R1, 1),
		bpf.AddAtomic.Mem(bpf.R0, bpf.R1, bpf.DWord, 0),
		bpf.Mov.Imm(bpf.R0, 0).WithSymbol("out"),
		bpf.Return(),
	}
	write := bpf.Instructions{
		bpf.Mov.Reg(bpf.R6, bpf.R1),
		bpf.FnGetAttachCookie.Call(),
		bpf.StoreMem(bpf.RFP, -32, bpf.R0, bpf.DWord),
		bpf.FnGetCurrentPidTgid.Call(),
		bpf.StoreMem(bpf.RFP, -48, bpf.R0, bpf.DWord),
		bpf.FnKtimeGetNs.Call(),
		bpf.StoreMem(bpf.RFP, -40, bpf.R0, bpf.DWord),
		bpf.LoadMem(bpf.R1, bpf.R6, 152, bpf.DWord), // rsp
		bpf.StoreMem(bpf.RFP, -24, bpf.R1, bpf.DWord),
		bpf.Mov.Reg(bpf.R1, bpf.RFP),
		bpf.Add.Imm(bpf.R1, -16),
		bpf.Mov.Imm(bpf.R2, 16),
		bpf.FnGetCurrentComm.Call(),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference(runtime.MapEvents),
		bpf.Mov.Reg(bpf.R2, bpf.RFP),
		bpf.Add.Imm(bpf.R2, -48),
		bpf.Mov.Imm(bpf.R3, 48),
		bpf.Mov.Imm(bpf.R4, 0),
		bpf.FnRingbufOutput.Call(),
		bpf.JEq.Imm(bpf.R0, 0, "out"),
		bpf.StoreImm(bpf.RFP, -4, int64(runtime.EntryNoRoom), bpf.Word),
		bpf.Mov.Reg(bpf.R2, bpf.RFP),
		bpf.Add.Imm(bpf.R2, -4),
		bpf.LoadMapPtr(bpf.R1, 0).WithReference(runtime.MapCounters),
		bpf.FnMapLookupElem.Call(),
		bpf.JEq.Imm(bpf.R0, 0, "out"),
		bpf.Mov.Imm(bpf.R1, 1),
		bpf.AddAtomic.Mem(bpf.R0, bpf.R1, bpf.DWord, 0),
		bpf.Mov.Imm(bpf.R0, 0).WithSymbol("out"),
		bpf.Return(),
	}
	return &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			runtime.MapCounts:   {Name: runtime.MapCounts, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: counts},
			runtime.MapCounters: {Name: runtime.MapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(runtime.NumCounters)},
			runtime.MapEvents:   {Name: runtime.MapEvents, Type: ebpf.RingBuf, MaxEntries: 1 << 20},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"count": {Name: "count", Type: ebpf.Kprobe, Instructions: count, License: "MIT"},
			"write": {Name: "write", Type: ebpf.Kprobe, Instructions: write, License: "MIT"},
		},
	}
}

// record is what write writes.
type record struct {
	TID, PID          uint32
	Time, Cookie, Rsp uint64
	Comm              [16]byte
}

func (r record) comm() string { return string(bytes.TrimRight(r.Comm[:], "\x00")) }

func parseRecord(t testing.TB, b []byte) (r record) {
	t.Helper()
	if _, err := binary.Decode(b, binary.LittleEndian, &r); err != nil || len(b) != 48 {
		t.Fatalf("a record of %d bytes: %v", len(b), err)
	}
	return r
}

func load(t testing.TB, texts ...*elfText) runtime.Session {
	t.Helper()
	rt, err := user.New(user.Options{Text: func(path string) (user.Text, error) {
		for _, x := range texts {
			if x.path == path {
				return x, nil
			}
		}
		return nil, os.ErrNotExist
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := rt.Load(t.Context(), spec())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

// hold starts a command that is held.
func hold(t testing.TB, argv ...string) *target.Command {
	t.Helper()
	c, err := target.Start(argv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Kill()
		_ = c.Close()
	})
	return c
}

func attach(t testing.TB, s runtime.Session, probes []runtime.Probe, who runtime.Who) {
	t.Helper()
	failed, err := s.Attach(t.Context(), probes, who)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range failed {
		t.Errorf("%#x: %v", e.Probe.Offset, e)
	}
}

func wait(t testing.TB, c *target.Command) target.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := c.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func sum(t testing.TB, s runtime.Session, name string, i uint32) uint64 {
	t.Helper()
	m, ok := s.Map(name)
	if !ok {
		t.Fatalf("no map %s", name)
	}
	n, err := m.Sum(i)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCommand counts the calls of a command from its first to its last.
func TestCommand(t *testing.T) {
	for _, p := range []fixture.Profile{fixture.Debug, fixture.Release, fixture.NonPIE, fixture.Static, fixture.StaticPIE} {
		t.Run(p.Name, func(t *testing.T) {
			x := openText(t, fixture.Build(t, "flow", p))
			s := load(t, x)
			c := hold(t, x.path, "recursion")
			fs := x.named("plain", "fib")
			attach(t, s, append(x.entries("count", fs), x.entries("write", fs)...), runtime.Who{PIDs: []int{c.PID}, Command: c})
			if err := s.Release(); err != nil {
				t.Fatal(err)
			}
			if st := wait(t, c); st.String() != "exit status 0" {
				t.Errorf("the command: %s", st)
			}
			if err := s.Detach(); err != nil {
				t.Error(err)
			}
			if n := sum(t, s, runtime.MapCounts, 0); n != 25 { // fib(6)
				t.Errorf("%d calls counted, 25 were made", n)
			}
			records, last := 0, uint64(0)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			err := s.Read(ctx, func(b []byte) error {
				r := parseRecord(t, b)
				records++
				if int(r.PID) != c.PID || int(r.TID) != c.PID || r.comm() != "flow" || r.Time < last {
					t.Errorf("%+v, want pid %d", r, c.PID)
				}
				last = r.Time
				return nil
			}, func(uint64) error { return nil })
			if err != nil || records != 25 {
				t.Errorf("%d records, %v", records, err)
			}
		})
	}
}

// start starts a program and waits until it has said something.
func start(t testing.TB, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// code is a process's own executable memory, by mapping.
func code(t testing.TB, pid int) map[string]string {
	t.Helper()
	p, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ms, err := p.Maps()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	out := map[string]string{}
	for _, m := range ms {
		if !m.Exec || strings.HasPrefix(m.Path, "[v") || strings.HasPrefix(m.Path, "[u") {
			continue
		}
		b := make([]byte, m.End-m.Start)
		if _, err := mem.ReadAt(b, int64(m.Start)); err != nil {
			t.Fatal(err)
		}
		out[m.Path+" "+strconv.Itoa(int(m.Start))] = string(b)
	}
	return out
}

// TestProcess traces a running program again and again; it keeps running, and gets
// every byte back.
func TestProcess(t *testing.T) {
	x := openText(t, fixture.Build(t, "flow", fixture.Release))
	cmd := start(t, x.path, "server", "60")
	time.Sleep(100 * time.Millisecond)
	before := code(t, cmd.Process.Pid)
	fs := x.named("plain", "serve")
	for range 5 {
		s := load(t, x)
		attach(t, s, append(x.entries("count", fs), x.exits(t, "count", fs)...), runtime.Who{PIDs: []int{cmd.Process.Pid}})
		for deadline := time.Now().Add(10 * time.Second); sum(t, s, runtime.MapCounts, 0) < 4; {
			if time.Now().After(deadline) {
				t.Fatal("no call was counted")
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		after := code(t, cmd.Process.Pid)
		for name, b := range after {
			if before[name] != b {
				t.Errorf("%s is not as it was", name)
			}
		}
		if len(after) != len(before) {
			t.Errorf("%d executable mappings, there were %d", len(after), len(before))
		}
	}
}

// TestNeverReleased: a command that was attached to and not released does not run.
func TestNeverReleased(t *testing.T) {
	x := openText(t, fixture.Build(t, "flow", fixture.Release))
	s := load(t, x)
	c := hold(t, x.path, "recursion")
	attach(t, s, x.entries("count", x.named("main")), runtime.Who{PIDs: []int{c.PID}, Command: c})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if st := wait(t, c); st.String() != "killed by SIGKILL" {
		t.Errorf("the command: %s", st)
	}
}

// TestSecond: a process that is attached to later is traced as the first is, and each gets
// its bytes back though the other goes on.
func TestSecond(t *testing.T) {
	x := openText(t, fixture.Build(t, "flow", fixture.Release))
	s := load(t, x)
	var before []map[string]string
	var pids []int
	for range 2 {
		cmd := start(t, x.path, "server", "60")
		time.Sleep(50 * time.Millisecond)
		pids = append(pids, cmd.Process.Pid)
		before = append(before, code(t, cmd.Process.Pid))
		attach(t, s, x.entries("write", x.named("plain", "serve")), runtime.Who{PIDs: []int{cmd.Process.Pid}})
	}
	if _, err := s.Attach(t.Context(), x.entries("write", x.named("plain", "serve")), runtime.Who{PIDs: pids[:1]}); err == nil {
		t.Error("no error, though it has its probes already")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := map[int]int{}
	if err := s.Read(ctx, func(b []byte) error {
		if seen[int(parseRecord(t, b).PID)]++; seen[pids[0]] > 3 && seen[pids[1]] > 3 {
			cancel()
		}
		return nil
	}, func(uint64) error { return nil }); err != nil {
		t.Error(err)
	}
	if len(seen) != 2 || seen[pids[0]] == 0 || seen[pids[1]] == 0 {
		t.Errorf("records of %v, want %v", seen, pids)
	}
	if err := s.Detach(); err != nil {
		t.Error(err)
	}
	for i, pid := range pids {
		for name, b := range code(t, pid) {
			if before[i][name] != b {
				t.Errorf("process %d: %s is not as it was", pid, name)
			}
		}
	}
}
