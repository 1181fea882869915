package inject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// Patches are made under running threads, noted, and put back by another tracer.
func TestJournal(t *testing.T) {
	ctx := t.Context()
	p := start(t, "calls", "calls", "sum")
	old := make([]byte, 6)
	tr := attachTo(t, p)
	must(t, tr.ReadMem(ctx, old, p.victim))
	j, err := tr.CreateJournal(ctx, 10)
	must(t, err)
	apply := func(ps ...Patch) []error {
		t.Helper()
		for range 100 { // a thread inside has to leave first
			_, err := tr.StopAll(ctx)
			must(t, err)
			ths, err := tr.Threads(ctx)
			must(t, err)
			if !slices.ContainsFunc(ths, func(th ThreadState) bool {
				return Range{p.victim + 1, p.victim + 20}.has(th.Regs.Rip)
			}) {
				break
			}
			_, err = tr.Resume()
			must(t, err)
		}
		errs, err := j.Apply(ctx, ps...)
		must(t, err)
		_, err = tr.Resume()
		must(t, err)
		return errs
	}
	new := []byte{0xb8, 1, 0, 0, 0, 0xc3} // mov $1, %eax; ret
	errs := apply(Patch{Addr: p.victim, Old: old, New: new, File: old})
	must(t, errs[0])
	errs = apply(Patch{Addr: p.victim, Old: old, New: new, File: old})
	if !errors.Is(errs[0], ErrConflict) {
		t.Errorf("patching what is patched: %v", errs[0])
	}
	must(t, j.AddRegion(ctx, Region{0x10000, 4096}))
	must(t, tr.Detach())
	time.Sleep(20 * time.Millisecond)

	tr = attachTo(t, p)
	js, err := tr.FindJournals(ctx)
	if err != nil || len(js) != 1 {
		t.Fatalf("%d journals, %v", len(js), err)
	}
	j = js[0]
	if !j.Owned() || j.TracerPID != os.Getpid() {
		t.Errorf("it is %d's", j.TracerPID)
	}
	ps := j.Patches()
	if len(ps) != 1 || ps[0].Addr != p.victim || !bytes.Equal(ps[0].Old, old) || !bytes.Equal(ps[0].New, new) {
		t.Errorf("%+v", ps)
	}
	if rs := j.Regions(); !slices.Equal(rs, []Region{{0x10000, 4096}}) {
		t.Errorf("%+v", rs)
	}
	must(t, j.Claim(ctx))
	must(t, j.DropRegion(ctx, Region{0x10000, 4096}))
	n, conflicts, err := j.Restore(ctx)
	if n != 1 || len(conflicts) != 0 || err != nil {
		t.Errorf("%d, %v, %v", n, conflicts, err)
	}
	now := make([]byte, 6)
	must(t, tr.ReadMem(ctx, now, p.victim))
	if !bytes.Equal(now, old) {
		t.Errorf("% x, want % x", now, old)
	}
	// What another wrote since is not touched.
	must(t, apply(Patch{Addr: p.victim, Old: old, New: new})[0])
	must(t, unix.Kill(p.PID, unix.SIGSTOP))
	waitState(t, p.PID, 'T')
	must(t, tr.WriteMem(ctx, []byte{0x90}, p.victim))
	if n, conflicts, err := j.Restore(ctx); n != 0 || len(conflicts) != 1 || err != nil {
		t.Errorf("%d, %v, %v", n, conflicts, err)
	}
	must(t, tr.WriteMem(ctx, old, p.victim))
	must(t, j.Close(ctx))
	if js, err := tr.FindJournals(ctx); len(js) != 0 || err != nil {
		t.Errorf("%v, %v", js, err)
	}
	must(t, tr.Detach())
}

// A fork's journal is its own.
func TestForkedJournal(t *testing.T) {
	ctx := t.Context()
	p := start(t, "vfork") // any: the mapping is what matters
	tr := attachTo(t, p)
	_, err := tr.CreateJournal(ctx, 10)
	must(t, err)
	must(t, tr.Detach())
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID))
	must(t, err)
	i := strings.Index(string(b), "memfd:ferrotrace-journal")
	if i < 0 {
		t.Fatalf("no journal in %s", b)
	}
	line := string(b)[strings.LastIndex(string(b)[:i], "\n")+1 : i]
	if !strings.Contains(line, "r--p") {
		t.Errorf("it is mapped %s", line)
	}
}

func FuzzJournal(f *testing.F) {
	j := make([]byte, 4096)
	copy(j, journalMagic)
	j[8], j[12], j[16] = 1, 3, 2
	copy(j[64:], entry{addr: 5, live: true, kind: kindPatch, old: []byte{1, 2}, new: []byte{3, 4}}.encode())
	copy(j[128:], entry{addr: 5, live: true, kind: kindRegion, size: 4096}.encode())
	if _, es, err := parseJournal(j); err != nil || len(es) != 2 || es[1].size != 4096 || es[0].new[1] != 4 {
		f.Errorf("%+v, %v", es, err)
	}
	f.Add(j)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, es, err := parseJournal(b)
		if err == nil && len(es) != int(h.Used) {
			t.Error(len(es))
		}
		for _, e := range es {
			if e.kind == kindPatch && (len(e.old) == 0 || len(e.old) != len(e.new) || len(e.old) > MaxPatch) {
				t.Errorf("%+v", e)
			}
		}
	})
}

func TestWriteCode(t *testing.T) {
	ctx := t.Context()
	p := start(t, "idle")
	tr := attachTo(t, p)
	old := make([]byte, 8)
	must(t, tr.ReadMem(ctx, old, p.victim))
	new := bytes.Repeat([]byte{0x90}, 8)
	must(t, tr.WriteCode(ctx, p.victim, old, new, old))
	must(t, tr.WriteCode(ctx, p.victim, new, old, old))
	must(t, tr.WriteMem(ctx, []byte{0xcc}, p.victim))
	err := tr.WriteCode(ctx, p.victim, old, new, old)
	var c *ConflictError
	if !errors.As(err, &c) || !strings.Contains(c.What, "breakpoint") {
		t.Errorf("%v", err)
	}
	must(t, tr.WriteMem(ctx, old[:1], p.victim))
	if err := tr.WriteCode(ctx, 0x1000, old, new, nil); !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EFAULT) {
		t.Errorf("%v", err)
	}
}

func TestFreeRange(t *testing.T) {
	ms := []target.Mapping{
		{Start: 0x400000, End: 0x500000},
		{Start: 0x600000, End: 0x700000, Path: "[heap]"},
		{Start: 0x7f0000000000, End: 0x7f0000100000},
		{Start: 0x7ffffff00000, End: 0x7ffffffff000, Path: "[stack]"},
	}
	for _, c := range []struct {
		near, size, want uint64
		ok               bool
	}{
		{0x480000, 4096, 0x500000, true},
		{0x410000, 4096, 0x3ff000, true},
		{0x480000, 0x200000, 0x200000, true},
		{0x480000, 1 << 30, 0x4700000, true}, // beyond the heap's room to grow
		{0x7f0000080000, 4096, 0x7f0000100000, true},
		{0x7f0000010000, 8192, 0x7effffffe000, true},
		{0x7ffffff80000, 4096, 0x7ffffff00000 - stackGap - 4096, true},
		{0x480000, 0, 0, false},
		{0x480000, 1 << 32, 0, false},
		{1 << 60, 4096, 0, false},
	} {
		got, ok := freeRange(ms, c.near, c.size, 65536)
		if got != c.want || ok != c.ok {
			t.Errorf("near %#x, %#x bytes: %#x, %v; want %#x", c.near, c.size, got, ok, c.want)
		}
	}
	p := start(t, "idle")
	tr := attachTo(t, p)
	for range 20 {
		at, err := tr.FreeRange(t.Context(), p.victim, 1<<20)
		must(t, err)
		if d := int64(at - p.victim); d > 1<<31-1<<20 || d < -(1<<31) {
			t.Errorf("%#x is not near %#x", at, p.victim)
		}
		got, err := tr.Mmap(t.Context(), at, 1<<20, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, -1, 0)
		if err != nil || got != at {
			t.Errorf("%#x, %v", got, err)
		}
	}
}

// A thread is moved, and stepped, out of a range.
func TestMoveThread(t *testing.T) {
	ctx := t.Context()
	p := start(t, "sum", "sum")
	for range 20 {
		tr := attachTo(t, p)
		_, err := tr.StopAll(ctx)
		must(t, err)
		ths, err := tr.Threads(ctx)
		must(t, err)
		for _, th := range ths {
			must(t, tr.SetRIP(ctx, th.TID, th.Regs.Rip))
			r := Range{th.Regs.Rip, th.Regs.Rip + 1}
			err := tr.StepOut(ctx, th.TID, r, 3)
			if err != nil && !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
			now, terr := tr.Threads(ctx)
			must(t, terr)
			i := slices.IndexFunc(now, func(s ThreadState) bool { return s.TID == th.TID })
			if i < 0 || err == nil && r.has(now[i].Regs.Rip) {
				t.Errorf("thread %d: %+v", th.TID, now)
			}
		}
		must(t, tr.Detach())
	}
	p.finish()
}

func TestSteppable(t *testing.T) {
	for code, want := range map[string]bool{
		"\x9c": false, "\x66\x9c": false, "\x9d": false, "\x48\x9d": false, "\x0f\x05": false, "\x48\x0f\x05": false,
		"\xf3\x0f\x1e\xfa": true, "\x90": true, "\x41\x57": true, "\xcc": false, "\x0f": false, "": false, "\x66": false,
	} {
		if got := steppable([]byte(code)); got != want {
			t.Errorf("% x: %v", code, got)
		}
	}
}

func TestRestarted(t *testing.T) {
	for _, c := range []struct{ rax, orig, rip, wantRax, wantRip uint64 }{
		{errno(512), 0, 100, 0, 98},
		{errno(514), 271, 100, 271, 98},
		{errno(516), 35, 100, 219, 98},
		{errno(4), 0, 100, errno(4), 100},
		{errno(512), noSyscall, 100, errno(512), 100},
	} {
		r := restarted(Regs{Rax: c.rax, Orig_rax: c.orig, Rip: c.rip})
		if r.Rax != c.wantRax || r.Rip != c.wantRip || r.Orig_rax != noSyscall {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

// takesStops reports whether a command's stops would be taken by wait4 of the thread that
// started it: wait4 and waitid report the stops of a child that its own process traces,
// whatever they are asked for.
func takesStops(t *testing.T) bool {
	t.Helper()
	c, err := target.Start([]string{"sleep", "100"})
	must(t, err)
	defer c.Close()
	c.Release()
	time.Sleep(50 * time.Millisecond)
	tids, err := tasks(os.Getpid())
	must(t, err)
	takes := false
	for _, tid := range tids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
		takes = takes || strings.HasPrefix(string(b), fmt.Sprintf("%d %#x ", unix.SYS_WAIT4, c.PID))
	}
	must(t, c.Kill())
	return takes
}

// Commands of all kinds are armed at their entry point, their threads' storage in place.
func TestHeld(t *testing.T) {
	if takesStops(t) {
		t.Skip("target.Command takes the command's stops: it must wait for the command's end by pidfd")
	}
	for _, flags := range []string{"", "-no-pie", "-static", "-static-pie"} {
		t.Run("gcc"+flags, func(t *testing.T) {
			file := build(t, strings.Fields(flags)...)
			for range 5 {
				c, err := target.Start([]string{file})
				must(t, err)
				tr, err := AttachHeld(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				base, err := tr.FSBase(t.Context())
				if err != nil || base == 0 {
					t.Errorf("FS base %#x, %v", base, err)
				}
				entry, err := entryPoint(c.PID)
				must(t, err)
				b := make([]byte, 2)
				must(t, tr.ReadMem(t.Context(), b, entry))
				if b[0] == 0xcc || b[0] == 0xeb && b[1] == 0xfe {
					t.Errorf("the entry point is % x", b)
				}
				if tid, err := tr.Gettid(t.Context()); err != nil || tid != c.PID {
					t.Errorf("%d, %v", tid, err)
				}
				_, err = tr.StopAll(t.Context())
				must(t, err)
				_, err = tr.Resume()
				must(t, err)
				must(t, tr.Detach())
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				st, err := c.Wait(ctx)
				cancel()
				if err != nil || st.Code != 2 { // as without arguments
					t.Errorf("%v, %v", st, err)
				}
				c.Close()
			}
		})
	}
}

func TestStaticRust(t *testing.T) {
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("rustc is missing")
	}
	dir := t.TempDir()
	src := dir + "/a.rs"
	must(t, os.WriteFile(src, []byte(`fn main() {
    println!("ready {} {:p}", std::process::id(), main as fn());
    let h: Vec<_> = (0..4).map(|i| std::thread::spawn(move || { let mut x = i; loop {
        x = std::hint::black_box(x + 1);
        if x % 5000 == 0 { let r = std::panic::catch_unwind(|| std::panic::resume_unwind(Box::new(1))); assert!(r.is_err()); }
    } })).collect();
    for h in h { h.join().unwrap() }
}`), 0o644))
	if out, err := exec.Command(rustc, "-O", "-o", dir+"/a", src).CombinedOutput(); err != nil {
		t.Skipf("rustc: %v: %s", err, out)
	}
	p := startFile(t, dir+"/a")
	for range 100 {
		tr := attachTo(t, p)
		_, err := tr.StopAll(t.Context())
		must(t, err)
		_, err = tr.Gettid(t.Context())
		must(t, err)
		must(t, tr.Detach())
	}
	if !living(p.PID) {
		t.Errorf("it died: %s", p.rest())
	}
}
