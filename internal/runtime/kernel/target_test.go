package kernel

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

var built = sync.OnceValues(func() (string, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "kernel")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "target")
	if b, err := exec.Command(cc, "-O1", "-pthread", "-o", out, "testdata/target.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, b)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	if os.Getenv(tracerEnv) != "" {
		os.Exit(tracerMain())
	}
	code := m.Run()
	if path, err := built(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func needRoot(t *testing.T) {
	t.Helper()
	if err := Permission(); err != nil {
		t.Skipf("loading programs: %v", err)
	}
}

// newTarget builds the target, once, and gives each test a file of its own: others
// must not be seen through it.
func newTarget(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Skipf("no target: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(own, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return own
}

// process is a running target.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, path string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(path)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("the target: %v", err)
		}
	})
	p.do("none 0") // it has been loaded
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// do has the target do something and returns its answer.
func (p *process) do(line string) int {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// symbol is the offset in the file of a symbol, and its size.
func symbol(t *testing.T, path, name string) (offset, size uint64) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		for _, p := range f.Progs {
			if s.Name == name && p.Type == elf.PT_LOAD && p.Vaddr <= s.Value && s.Value < p.Vaddr+p.Filesz {
				return s.Value - p.Vaddr + p.Off, s.Size
			}
		}
	}
	t.Fatalf("no symbol %s in %s", name, path)
	return 0, 0
}

// text compares the code of a symbol in the process with the file's.
func (p *process) text(path, name string) error {
	offset, size := symbol(p.t, path, name)
	want := make([]byte, size)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.ReadAt(want, int64(offset)); err != nil {
		return err
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid()))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var start, end, off uint64
		var perms string
		if n, _ := fmt.Sscanf(line, "%x-%x %s %x", &start, &end, &perms, &off); n != 4 || perms[2] != 'x' || !strings.HasSuffix(strings.TrimSpace(line), path) {
			continue
		}
		if offset < off || offset >= off+end-start {
			continue
		}
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid()))
		if err != nil {
			return err
		}
		defer mem.Close()
		got := make([]byte, size)
		if _, err := mem.ReadAt(got, int64(start+offset-off)); err != nil {
			return err
		}
		if string(got) != string(want) {
			return fmt.Errorf("%s is % x in memory, % x in the file", name, got, want)
		}
		return nil
	}
	return fmt.Errorf("%s is not mapped", path)
}

// record is what the program "record" writes.
type record struct {
	cookie uint64
	pid    uint32
	time   uint64
}

const recordSize = 24

func decode(b []byte) record {
	return record{
		binary.LittleEndian.Uint64(b),
		uint32(binary.LittleEndian.Uint64(b[8:]) >> 32),
		binary.LittleEndian.Uint64(b[16:]),
	}
}

// newSpec is a collection of the shape that codegen makes: "record" writes a record,
// "count" adds 1 to element 0 of counts.
func newSpec(targets, sleepable bool) *ebpf.CollectionSpec {
	add := func(name string, element int32) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, int64(element), asm.Word),
			asm.LoadMapPtr(asm.R1, 0).WithReference(name),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		}
	}
	rec := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetCurrentPidTgid.Call(),
		asm.StoreMem(asm.RFP, -16, asm.R0, asm.DWord),
	}
	if targets {
		rec = append(rec,
			asm.RSh.Imm(asm.R0, 32),
			asm.StoreMem(asm.RFP, -32, asm.R0, asm.Word),
			asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapTargets),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -32),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
		)
	}
	rec = append(rec,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetAttachCookie.Call(),
		asm.StoreMem(asm.RFP, -24, asm.R0, asm.DWord),
		asm.FnKtimeGetNs.Call(),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, 0).WithReference(runtime.MapEvents),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -24),
		asm.Mov.Imm(asm.R3, recordSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	)
	rec = append(rec, add(runtime.MapCounters, int32(runtime.EntryNoRoom))...)

	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{
			runtime.MapEvents:   {Name: runtime.MapEvents, Type: ebpf.RingBuf, MaxEntries: 1 << 20},
			runtime.MapCounters: {Name: runtime.MapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: uint32(runtime.NumCounters)},
			runtime.MapCounts:   {Name: runtime.MapCounts, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 4},
			runtime.MapScratch:  {Name: runtime.MapScratch, Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 1},
		},
		Programs: map[string]*ebpf.ProgramSpec{
			"record": {Name: "record", Type: ebpf.Kprobe, SectionName: "uprobe", License: license, Instructions: rec},
			"count":  {Name: "count", Type: ebpf.Kprobe, SectionName: "uprobe", License: license, Instructions: add(runtime.MapCounts, 0)},
		},
	}
	if targets {
		spec.Maps[runtime.MapTargets] = &ebpf.MapSpec{Name: runtime.MapTargets, Type: ebpf.Hash, KeySize: 4, ValueSize: 1, MaxEntries: 64}
	}
	if sleepable {
		for _, p := range spec.Programs {
			p.Flags |= 1 << 4 // BPF_F_SLEEPABLE
		}
	}
	return spec
}

// load loads spec, on a runtime that attaches one by one if single.
func load(t *testing.T, single bool, spec *ebpf.CollectionSpec) *session {
	t.Helper()
	r, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.single = single
	s, err := r.Load(t.Context(), spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*session)
}

// attach attaches, and all must go well.
func (s *session) mustAttach(t *testing.T, who runtime.Who, probes ...runtime.Probe) {
	t.Helper()
	failed, err := s.Attach(t.Context(), probes, who)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range failed {
		t.Errorf("%+v: %v", e.Probe, e)
	}
}

// records reads what is in the ring.
func (s *session) records(t *testing.T) (all []record) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := s.Read(ctx, func(b []byte) error {
		all = append(all, decode(b))
		return nil
	}, func(uint64) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}
