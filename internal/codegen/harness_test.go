package codegen

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// kernelOptions are what the running kernel offers; the test is skipped without
// the right to load programs.
func kernelOptions(t *testing.T) Options {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("loading programs needs root")
	}
	if err := features.HaveProgramType(ebpf.Kprobe); err != nil {
		t.Skipf("no kprobe programs: %v", err)
	}
	return Options{
		Sleepable: true,
		HaveLoop:  features.HaveProgramHelper(ebpf.Kprobe, asm.FnLoop) == nil,
	}
}

var target = sync.OnceValues(func() (string, error) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "codegen")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "target")
	if b, err := exec.Command(gcc, "-O1", "-g", "-pthread", "-o", out, "testdata/target.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, b)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := target(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// targetAt is a probe at a symbol of the target.
func targetAt(t *testing.T, symbol string, items ...program.Item) program.Probe {
	t.Helper()
	path, err := target()
	if err != nil {
		t.Skipf("no target: %v", err)
	}
	addr, offset := lookupSymbol(t, path, symbol)
	return program.Probe{Path: path, Addr: addr, Offset: offset, Items: items}
}

func lookupSymbol(t *testing.T, path, symbol string) (addr, offset uint64) {
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
		if s.Name != symbol {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && p.Vaddr <= s.Value && s.Value < p.Vaddr+p.Filesz {
				return s.Value, s.Value - p.Vaddr + p.Off
			}
		}
	}
	t.Fatalf("no symbol %s", symbol)
	return 0, 0
}

// loaded is a compiled program in the kernel.
type loaded struct {
	*Compiled
	coll *ebpf.Collection
}

func load(t testing.TB, p *program.Program, o Options, change ...func(*ebpf.CollectionSpec)) *loaded {
	t.Helper()
	c, err := Compile(p, o)
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Spec.Maps[runtime.MapScratch]; m != nil {
		m.MaxEntries = uint32(runtime.SlotsPerCPU * ebpf.MustPossibleCPU())
	}
	for _, f := range change {
		f(c.Spec)
	}
	coll, err := ebpf.NewCollection(c.Spec)
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			t.Fatalf("%+v", ve)
		}
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return &loaded{c, coll}
}

// run attaches the probes to the target and lets it run with args.
func (l *loaded) run(t *testing.T, args ...string) (pid int) {
	t.Helper()
	path, err := target()
	if err != nil {
		t.Skipf("no target: %v", err)
	}
	cmd := exec.Command(path, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	ex, err := link.OpenExecutable(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Probes {
		u, err := ex.Uprobe("", l.coll.Programs[p.Program], &link.UprobeOptions{Address: p.Offset, Cookie: p.Cookie, PID: cmd.Process.Pid})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
	}
	if l.coll.Maps[runtime.MapTargets] != nil {
		if err := l.coll.Maps[runtime.MapTargets].Put(uint32(cmd.Process.Pid), uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("target: %v", err)
	}
	return cmd.Process.Pid
}

// records decodes all that is in the ring.
func (l *loaded) records(t *testing.T) []*record.Record {
	t.Helper()
	rd, err := ringbuf.NewReader(l.coll.Maps[runtime.MapEvents])
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	rd.SetDeadline(time.Now())
	var all []*record.Record
	for {
		raw, err := rd.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Schema.Decode(raw.RawSample)
		if err != nil {
			t.Fatalf("%v: %x", err, raw.RawSample)
		}
		all = append(all, r)
	}
}

// sum is element i of a per-CPU array, over all CPUs.
func (l *loaded) sum(t *testing.T, name string, i uint32) (n uint64) {
	t.Helper()
	m := l.coll.Maps[name]
	if m == nil {
		t.Fatalf("no map %s", name)
	}
	var values []uint64
	if err := m.Lookup(i, &values); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		n += v
	}
	return n
}

func (l *loaded) noLoss(t *testing.T) {
	t.Helper()
	for i := range uint32(runtime.NumCounters) {
		if n := l.sum(t, runtime.MapCounters, i); n != 0 {
			t.Errorf("counter %d: %d", i, n)
		}
	}
}

// texts are the values of a record, one a line.
func texts(r *record.Record) string {
	var b strings.Builder
	for _, v := range r.Values {
		fmt.Fprintf(&b, "%s: ", v.Name)
		if v.Missing != "" {
			fmt.Fprintf(&b, "(%s)", v.Missing)
		} else {
			b.WriteString(v.Text)
		}
		if v.Truncated {
			b.WriteString(" truncated")
		}
		if v.Partial {
			b.WriteString(" partial")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// instructions is how many instructions the verifier looked at.
func instructions(log string) (n int) {
	s := bufio.NewScanner(strings.NewReader(log))
	for s.Scan() {
		fmt.Sscanf(s.Text(), "processed %d insns", &n)
	}
	return n
}
