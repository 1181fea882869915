package fault_test

import (
	"cmp"
	"debug/elf"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/jit/native"
	"ferrotrace/internal/runtime/user/patch"
	"ferrotrace/internal/runtime/user/proctest"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/runtime/user/vm/insn"
	"ferrotrace/internal/target"
	"ferrotrace/internal/x86"

	"github.com/cilium/ebpf"
	bpf "github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// build compiles a program, or skips the test.
func build(t *testing.T, compiler string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(compiler)
	if err != nil {
		t.Skipf("%s is missing: it compiles the programs that this test traces", compiler)
	}
	out := filepath.Join(t.TempDir(), "target")
	if b, err := exec.Command(path, append(args, "-o", out)...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v\n%s", compiler, err, b)
	}
	return out
}

func buildC(t *testing.T, flags ...string) string {
	t.Helper()
	return proctest.Compile(t, append(flags, "-O1", "testdata/target.c")...)
}

func TestMain(m *testing.M) { proctest.Main(m) }

// proc is a program under test.
type proc struct{ *proctest.Process }

func start(t *testing.T, file string) *proc {
	t.Helper()
	return &proc{proctest.Start(t, file)}
}

func (p *proc) tell(format string, args ...any) {
	p.T.Helper()
	if _, err := fmt.Fprintf(p.In, format+"\n", args...); err != nil {
		p.T.Fatal(err)
	}
}

func (p *proc) ask(format string, args ...any) string {
	p.T.Helper()
	p.tell(format, args...)
	return p.Line()
}

func (p *proc) want(want, format string, args ...any) {
	p.T.Helper()
	if got := p.ask(format, args...); got != want {
		p.T.Fatalf("%s: %q, want %q", fmt.Sprintf(format, args...), got, want)
	}
}

// ends waits for the program's end.
func (p *proc) ends(status int) {
	p.T.Helper()
	if got, want := p.Line(), fmt.Sprintf("status %d", status); got != want {
		p.T.Fatalf("%q, want %q; %s", got, want, p.Err)
	}
}

// world is a traced process with a program that reads: of a context {dst, size, src}.
type world struct {
	*proc
	tr      *inject.Tracee
	block   uint64
	image   *jit.Image
	at      uint64 // of the image
	read    uint64 // the program
	handler inject.Region
	calls   []inject.Range
	guard   *fault.Guard
}

func attach(t *testing.T, p *proc) *world {
	t.Helper()
	if err := inject.Check(p.PID); err != nil {
		t.Skip(err)
	}
	tr, err := inject.Attach(t.Context(), p.PID)
	if err != nil {
		t.Fatal(err)
	}
	return furnish(t, p, tr)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// furnish puts everything into the process, which is stopped meanwhile, and the
// handler, which Check is to install.
func furnish(t *testing.T, p *proc, tr *inject.Tracee) *world {
	t.Helper()
	t.Cleanup(func() { must(t, tr.Detach()) })
	ctx := t.Context()
	w := &world{proc: p, tr: tr}
	must(t, tr.Stop(ctx))
	const private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	var err error
	w.block, err = tr.Mmap(ctx, 0, shm.ProcSize, unix.PROT_READ|unix.PROT_WRITE, private, -1, 0)
	must(t, err)
	shared, err := tr.Mmap(ctx, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, private, -1, 0)
	must(t, err)
	prog, err := insn.FromInstructions(bpf.Instructions{
		bpf.Mov.Reg(bpf.R6, bpf.R1),
		bpf.LoadMem(bpf.R2, bpf.R6, 8, bpf.DWord),
		bpf.LoadMem(bpf.R3, bpf.R6, 16, bpf.DWord),
		bpf.LoadMem(bpf.R1, bpf.R6, 0, bpf.DWord),
		bpf.FnProbeReadUser.Call(),
		bpf.Return(),
	})
	must(t, err)
	prog.Name = "read"
	layout, err := shm.NewLayout(map[string]*ebpf.MapSpec{"a": {Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}}, 64)
	must(t, err)
	w.image, err = jit.Compile([]*insn.Program{prog}, jit.Options{Layout: layout, RDPID: native.HasRDPID()})
	must(t, err)
	link := w.image.Link(shared, w.block)
	w.at, err = tr.Mmap(ctx, 0, uint64(len(link)), unix.PROT_READ|unix.PROT_EXEC, private, -1, 0)
	must(t, err)
	must(t, tr.WriteMem(ctx, link, w.at))
	w.read = w.at + uint64(w.image.Entries["read"].Offset)
	w.handler.Size = fault.Size(len(w.image.Fixups))
	w.handler.Addr, err = tr.Mmap(ctx, 0, w.handler.Size, unix.PROT_READ|unix.PROT_EXEC, private, -1, 0)
	must(t, err)
	w.plant()
	w.arm()
	_, err = tr.Resume()
	must(t, err)
	return w
}

func (w *world) config() fault.Config {
	return fault.Config{Block: w.block, Handler: w.handler, Image: inject.Range{Start: w.at, End: w.at + uint64(len(w.image.Code))}, Fixups: w.image.Fixups, Calls: w.calls}
}

func (w *world) arm() {
	w.T.Helper()
	var err error
	w.guard, err = fault.New(w.T.Context(), w.tr, w.config())
	must(w.T, err)
}

// plant plants the watches, while nothing else runs in the process.
func (w *world) plant() {
	t, ctx := w.T, w.T.Context()
	t.Helper()
	proc, err := target.Open(w.PID)
	must(t, err)
	defer proc.Close()
	ms, err := proc.Maps()
	must(t, err)
	path := ""
	for _, m := range ms {
		if strings.HasPrefix(filepath.Base(m.Path), "libc.so") {
			path = m.Path
		}
	}
	if path == "" {
		path = proc.Exe
	}
	f, err := elf.Open(path)
	must(t, err)
	defer f.Close()
	dyn, _ := f.DynamicSymbols()
	static, _ := f.Symbols()
	i := slices.IndexFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 })
	text := make([]byte, f.Progs[i].Filesz)
	_, err = f.Progs[i].ReadAt(text, 0)
	must(t, err)
	var base uint64
	for _, m := range ms {
		if m.Exec && m.Path == path {
			base = m.Start + f.Progs[i].Off%4096
		}
	}
	bias := base - f.Progs[i].Vaddr
	code := func(a uint64) []byte {
		if a-base < uint64(len(text)) {
			return text[a-base:]
		}
		return nil
	}
	byName := map[string]x86.Range{}
	var all []x86.Range
	for _, s := range append(dyn, static...) {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Size > 0 && s.Section != elf.SHN_UNDEF {
			r := x86.Range{Low: s.Value + bias, High: s.Value + bias + s.Size}
			byName[s.Name] = r
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b x86.Range) int { return cmp.Compare(a.Low, b.Low) })
	free, err := w.tr.FreeRanges(ctx)
	must(t, err)
	var ranges []x86.Range
	for _, r := range free {
		ranges = append(ranges, x86.Range{Low: r.Start, High: r.End})
	}
	space := patch.NewSpace(ranges)
	planner := patch.Planner{Code: code, Functions: all, Alloc: space}
	var funcs []patch.Function
	for _, watch := range fault.Watches(w.block) {
		r, ok := byName[watch.Name]
		if !ok {
			if !watch.Optional && len(dyn) > 0 && path != proc.Exe {
				t.Errorf("%s has no %s", path, watch.Name)
			}
			continue
		}
		fn, err := x86.NewFunc(code, []x86.Range{r}, x86.NoReturn(code))
		must(t, err)
		funcs = append(funcs, patch.Function{Code: fn, Sites: []patch.Site{{Addr: r.Low, Kind: patch.Entry, Programs: []patch.Program{watch.Program}}}})
		w.calls = append(w.calls, inject.Range{Start: r.Low, End: r.High})
	}
	for _, name := range fault.Inner {
		if r, ok := byName[name]; ok {
			w.calls = append(w.calls, inject.Range{Start: r.Low, End: r.High})
		}
	}
	patches, problems := planner.Plan(funcs)
	for _, p := range problems {
		t.Errorf("a watch has no probe: %v", p)
	}
	for _, r := range space.Pages() {
		w.calls = append(w.calls, inject.Range{Start: r.Low, End: r.High})
		_, err := w.tr.Mmap(ctx, r.Low, r.High-r.Low, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
		must(t, err)
	}
	for _, p := range patches {
		must(t, w.tr.WriteMem(ctx, p.Code.Bytes, p.Trampoline))
	}
	for _, p := range patches {
		for _, wr := range p.Writes {
			must(t, w.tr.WriteCode(ctx, wr.Addr, wr.Old, wr.New, nil))
		}
	}
}

// checks looks at the process until its reads are direct, or are not for a reason that
// has why in it.
func (w *world) checks(direct bool, why string) {
	w.T.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		w.guard.Hurry()
		must(w.T, w.guard.Check(w.T.Context()))
		d, reason := w.guard.Direct()
		if d != w.direct() {
			continue // the process was faster
		}
		if d == direct && strings.Contains(reason, why) {
			return
		}
		if time.Since(begin) > 20*time.Second {
			w.T.Fatalf("direct %v, %q; want %v, %q", d, reason, direct, why)
		}
	}
}

// direct is what the process itself has noted.
func (w *world) direct() bool {
	w.T.Helper()
	b := make([]byte, 4)
	must(w.T, w.tr.ReadMem(w.T.Context(), b, w.block+shm.ProcDirect))
	return b[0] != 0
}

const unreadable = "-14 0"

// reads has the program read a good and some bad pointers.
func (w *world) reads() {
	w.T.Helper()
	w.want(unreadable, "read %x 8", w.read)
	w.want(unreadable, "read %x %x", w.read, uint64(1)<<63)
	want := fmt.Sprintf("0 %x", littleEndian(w.image.Link(0, 0)[w.image.Entries["read"].Offset:]))
	w.want(want, "read %x %x", w.read, w.read)
}

func littleEndian(b []byte) (v uint64) {
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// remove takes the handler out.
func (w *world) remove() (keep bool) {
	w.T.Helper()
	keep, err := w.guard.Remove(w.T.Context())
	must(w.T, err)
	if w.direct() {
		w.T.Fatal("reads are direct after Remove")
	}
	return keep
}

func (w *world) munmap() {
	w.T.Helper()
	ctx := w.T.Context()
	must(w.T, w.tr.Munmap(ctx, w.handler.Addr, w.handler.Size))
}
