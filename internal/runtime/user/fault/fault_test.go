package fault_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/fault"
	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/proctest"
	"ferrotrace/internal/runtime/user/shm"
	"ferrotrace/internal/target"

	"golang.org/x/sys/unix"
)

// TestReads: a bad pointer continues at the fixup, whatever the program does with its
// signals, and the program's own faults are its own.
func TestReads(t *testing.T) {
	t.Parallel()
	file := buildC(t)
	for _, own := range []string{"default", "jumps", "onstack", "plain"} {
		t.Run(own, func(t *testing.T) {
			t.Parallel()
			p := start(t, file)
			p.want("0", "altstack")
			for _, sig := range []int{11, 7} {
				p.want("0", "sigaction %d %s", sig, own)
			}
			before := []string{p.ask("action 11"), p.ask("action 7")}
			w := attach(t, p)
			w.reads()
			w.checks(true, "")
			w.reads()
			bus := strings.TrimPrefix(p.ask("truncated"), "0x")
			w.want(unreadable, "read %x %s", w.read, bus)
			if !w.direct() {
				t.Fatal("reads are no longer direct")
			}
			if got := p.ask("action 11"); got == before[0] {
				t.Errorf("the handler is not there: %s", got)
			}
			if own != "default" {
				code := func(c int) int {
					if own == "plain" {
						return 0
					}
					return c
				}
				w.want(fmt.Sprint("handled 11 ", code(1)), "deref 8")
				w.checks(true, "")
				w.want(fmt.Sprint("handled 11 ", code(128)), "deref %x", uint64(1)<<63)
				w.checks(true, "")
				w.want(fmt.Sprint("handled 7 ", code(2)), "deref %s", bus)
				w.checks(true, "")
				w.want(fmt.Sprint("handled 11 ", code(-6)), "raise 11")
				if w.direct() {
					t.Error("the program's handler was entered and reads are still direct")
				}
				w.reads()
				w.checks(true, "")
				w.reads()
			}
			if w.remove() {
				t.Error("the handler has to stay, though the program knows nothing of it")
			}
			w.munmap()
			for i, sig := range []int{11, 7} {
				if got := p.ask("action %d", sig); got != before[i] {
					t.Errorf("signal %d: %s, before %s", sig, got, before[i])
				}
			}
			w.reads()
			if own == "default" {
				p.tell("deref 8")
				p.ends(128 + 11)
			} else {
				w.want(strings.Join(strings.Fields(p.ask("deref 8")), " "), "deref 8")
			}
		})
	}
}

// TestDefault: without a handler of its own, the program dies as it would.
func TestDefault(t *testing.T) {
	t.Parallel()
	file := buildC(t)
	for name, c := range map[string]struct {
		do     func(p *proc)
		status int
	}{
		"fault":     {func(p *proc) { p.tell("deref 8") }, 128 + 11},
		"general":   {func(p *proc) { p.tell("deref %x", uint64(1)<<63) }, 128 + 11},
		"bus":       {func(p *proc) { p.tell("deref %s", strings.TrimPrefix(p.ask("truncated"), "0x")) }, 128 + 7},
		"raised":    {func(p *proc) { p.tell("raise 11") }, 128 + 11},
		"raisedbus": {func(p *proc) { p.tell("raise 7") }, 128 + 7},
		"killed":    {func(p *proc) { _ = unix.Kill(p.PID, unix.SIGSEGV) }, 128 + 11},
		"killedbus": {func(p *proc) { _ = unix.Kill(p.PID, unix.SIGBUS) }, 128 + 7},
		"inaread":   {func(p *proc) { p.tell("thread 0 0"); p.Line(); _ = unix.Kill(p.PID, unix.SIGSEGV) }, 128 + 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := attach(t, start(t, file))
			w.checks(true, "")
			w.reads()
			c.do(w.proc)
			w.ends(c.status)
			if err := w.guard.Check(t.Context()); err == nil {
				t.Error("no error though the process is gone")
			}
			if _, err := w.guard.Remove(t.Context()); err == nil {
				t.Error("no error though the process is gone")
			}
		})
	}
}

// TestRegisters: the program's handler finds what it would have found.
func TestRegisters(t *testing.T) {
	t.Parallel()
	p := start(t, buildC(t))
	p.want("0", "sigaction 11 bare")
	want := p.ask("regs")
	w := attach(t, p)
	w.want(want, "regs")
	w.checks(true, "")
	w.want(want, "regs")
	if w.direct() {
		t.Error("the handler was not reached through ours")
	}
}

// TestRefused: where a fault would be the end, reads are checked.
func TestRefused(t *testing.T) {
	t.Parallel()
	file := buildC(t)
	for name, c := range map[string]struct{ do, undo, why string }{
		"blocked":  {"mask block", "mask unblock", "has SIGSEGV blocked"},
		"thread":   {"thread 0 1", "join", "has SIGSEGV blocked"},
		"mask":     {"sigaction 10 full", "sigaction 10 counts", "handler of signal 10"},
		"once":     {"sigaction 11 once", "sigaction 11 plain", "for one signal only"},
		"ignored":  {"sigaction 7 ignore", "sigaction 7 default", "ignores SIGBUS"},
		"twofulls": {"sigaction 34 full", "sigaction 34 ignore", "handler of signal 34"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, file)
			p.ask(c.do)
			w := attach(t, p)
			w.checks(false, c.why)
			w.reads()
			p.ask(c.undo)
			w.checks(true, "")
			w.reads()
			p.ask(c.do)
			if c.do != "thread 0 1" && w.direct() {
				t.Error("the call was not seen")
			}
			w.checks(false, c.why)
			w.reads()
			w.remove()
		})
	}
}

func TestUnwatched(t *testing.T) {
	t.Parallel()
	w := attach(t, start(t, buildC(t)))
	c := w.config()
	c.Unwatched = []string{"sigaction"}
	var err error
	w.guard, err = fault.New(t.Context(), w.tr, c)
	must(t, err)
	w.checks(false, "sigaction of its C library cannot be watched")
	w.reads()
	if w.remove() {
		t.Error("nothing was installed")
	}
}

// TestReplaced: a program that puts a handler of its own over ours, one that leads to
// ours, and takes it back.
func TestReplaced(t *testing.T) {
	t.Parallel()
	p := start(t, buildC(t))
	p.want("0", "sigaction 11 jumps")
	w := attach(t, p)
	w.checks(true, "")
	ours := p.ask("action 11")
	for range 3 {
		p.want("0", "sigaction 11 default") // before: ours
		if w.direct() {
			t.Fatal("the call was not seen")
		}
		p.want("0", "sigaction 11 before")
		p.want("0", "sigaction 11 default")
		w.checks(true, "")
		w.reads()
		p.want("0", "sigaction 11 jumps")
		w.checks(true, "")
		w.reads()
		if got := p.ask("action 11"); got != ours {
			t.Errorf("the same handler of the program's got another of ours: %s, before %s", got, ours)
		}
		w.want("handled 11 1", "deref 8")
		w.checks(true, "")
	}
	// Now one that calls ours for all it gets: it must come to jumps, and not in circles.
	p.want("0", "sigaction 11 jumps") // before: ours
	p.want("0", "sigaction 11 chains")
	w.checks(true, "")
	w.reads()
	w.want("handled 11 1", "deref 8")
	w.checks(true, "")
	w.want("handled 11 -6", "raise 11")
	w.checks(true, "")
	chains := p.ask("action 11")
	if !w.remove() {
		t.Fatal("the program keeps the handler's address, and it need not stay")
	}
	if got := p.ask("action 11"); got == chains {
		t.Errorf("the handler is still there: %s", got)
	}
	w.want("handled 11 1", "deref 8")
	w.reads()
	// The next one to trace it uses it again.
	w.arm()
	w.checks(true, "")
	w.reads()
	if got := p.ask("action 11"); got != chains {
		t.Errorf("%s, before %s", got, chains)
	}
	w.want("handled 11 1", "deref 8")
	if !w.remove() {
		t.Fatal("the program still keeps the address")
	}
	// It puts back what was before: ours, which has nothing to do any more.
	p.want("0", "sigaction 11 before")
	w.want("handled 11 1", "deref 8")
	w.arm()
	w.checks(true, "")
	w.reads()
	w.remove()
	w.want("handled 11 1", "deref 8")
}

// TestMany: a program that has ever new handlers gets checked reads in the end.
func TestMany(t *testing.T) {
	t.Parallel()
	p := start(t, buildC(t))
	w := attach(t, p)
	w.checks(true, "")
	kinds := []string{"jumps", "plain", "onstack", "bare", "counts", "full", "chains"}
	for _, sig := range []int{11, 7} {
		for _, k := range kinds {
			p.want("0", "sigaction %d %s", sig, k)
			w.checks(true, "")
			w.reads()
		}
	}
	// These were 16, the default ones with them.
	p.want("0", "sigaction 11 nodefer")
	w.checks(false, "again and again")
	w.reads()
	p.want("0", "sigaction 11 plain")
	w.checks(true, "")
	if !w.remove() {
		t.Error("the program knows the handler")
	}
}

// TestFork: a child has the handler too, and is on its own.
func TestFork(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"default", "jumps"} {
		t.Run(own, func(t *testing.T) {
			t.Parallel()
			p := start(t, buildC(t))
			p.want("0", "sigaction 11 %s", own)
			w := attach(t, p)
			w.checks(true, "")
			p.want(unreadable, "fork %x 8", w.read)
			if got := p.Line(); got != unreadable {
				t.Errorf("after the child's sigaction: %q", got)
			}
			if got := p.Line(); got != "signal 11" {
				t.Errorf("the child's end: %q", got)
			}
			if !w.direct() {
				t.Error("the child turned off its parent's direct reads")
			}
			w.reads()
			w.remove()
		})
	}
}

// TestLoad: threads read bad pointers all the time while the handler comes and goes.
func TestLoad(t *testing.T) {
	t.Parallel()
	for _, own := range []string{"default", "jumps"} {
		t.Run(own, func(t *testing.T) {
			t.Parallel()
			p := start(t, buildC(t))
			p.want("0", "sigaction 11 %s", own)
			p.want("0", "sigaction 7 %s", own)
			before := p.ask("action 11")
			w := attach(t, p)
			for range 4 {
				p.ask("thread %x 0", w.read)
			}
			for i := range 6 {
				w.checks(true, "")
				time.Sleep(5 * time.Millisecond)
				if i%2 == 0 {
					p.want("0", "sigaction 10 counts") // another signal's
				}
				w.checks(true, "")
				p.want("-14 0", "read %x 8", w.read)
				p.want("4", "hold") // no thread may be in the image when the handler goes
				if w.remove() {
					t.Fatal("the handler has to stay")
				}
				if got := p.ask("action 11"); got != before {
					t.Fatalf("%s, before %s", got, before)
				}
				w.arm()
				p.want("4", "go")
			}
			var loops, wrong int
			if _, err := fmt.Sscanf(p.ask("join"), "%d %d", &loops, &wrong); err != nil || loops == 0 || wrong != 0 {
				t.Errorf("%d reads, %d of them wrong, %v", loops, wrong, err)
			}
		})
	}
}

// TestInHandler: the program's handler runs with the signal blocked, and reads.
func TestInHandler(t *testing.T) {
	t.Parallel()
	for _, flags := range []string{"", "-static", "-static-pie", "-no-pie"} {
		t.Run("gcc"+flags, func(t *testing.T) {
			t.Parallel()
			p := start(t, buildC(t, strings.Fields(flags)...))
			w := attach(t, p)
			p.want("0", "sigaction 11 reads") // it asks for the handler before, which is not ours yet
			for range 3 {
				w.checks(true, "")
				w.reads()
				w.want("handled 11 -14", "readin %x", w.read)
			}
			if w.remove() {
				t.Error("the handler has to stay")
			}
			w.munmap()
			w.want("handled 11 -14", "readin %x", w.read)
		})
	}
}

// TestQuiet: a process that may make no system call, without a handler, dies all the
// same.
func TestQuiet(t *testing.T) {
	t.Parallel()
	file := buildC(t)
	for _, c := range []string{"deref 8", "raise 11"} {
		w := attach(t, start(t, file))
		w.checks(true, "")
		must(t, w.tr.WriteMem(t.Context(), binary.LittleEndian.AppendUint32(nil, 1), w.block+shm.ProcQuiet))
		w.tell(c)
		w.ends(128 + 11)
	}
	w := attach(t, start(t, file))
	must(t, w.tr.WriteMem(t.Context(), binary.LittleEndian.AppendUint32(nil, 1), w.block+shm.ProcQuiet))
	w.checks(false, "its system calls are filtered")
	w.remove()
}

func buildRust(t *testing.T, flags ...string) string {
	return build(t, "rustc", append(flags, "-O", "testdata/overflow.rs")...)
}

// TestOverflow: Rust's own handler reports a stack overflow as ever, with ours in front
// and after it.
func TestOverflow(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"dynamic": nil, "static": {"-Ctarget-feature=+crt-static"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := buildRust(t, flags...)
			for _, c := range []struct{ do, message string }{
				{"overflow", "thread 'main'"}, {"thread", "thread 'worker'"}, {"null", ""},
			} {
				for _, removed := range []bool{false, true} {
					w := attach(t, start(t, file))
					w.checks(true, "")
					if removed {
						if w.remove() {
							t.Error("the handler has to stay")
						}
						w.munmap()
					}
					w.tell(c.do)
					if c.message == "" {
						w.ends(128 + 11)
						continue
					}
					w.ends(128 + 6)
					w.Wait()
					if got := w.Err.String(); !strings.Contains(got, c.message) || !strings.Contains(got, "has overflowed its stack") {
						t.Errorf("removed %v, %s: %q", removed, c.do, got)
					}
				}
			}
		})
	}
}

// TestStart: a command is looked at from its first moment, and its std still installs
// its handler.
func TestStart(t *testing.T) {
	t.Parallel()
	file := buildRust(t)
	for range 5 {
		dir := t.TempDir()
		c, err := target.Start([]string{file, filepath.Join(dir, "out")})
		must(t, err)
		t.Cleanup(func() { _ = c.Kill(); c.Close() })
		tr, err := inject.AttachHeld(t.Context(), c)
		must(t, err)
		w := furnish(t, &proc{&proctest.Process{T: t, PID: c.PID}}, tr)
		w.checks(true, "")
		must(t, os.WriteFile(filepath.Join(dir, "out.go"), nil, 0o600))
		if st, err := c.Wait(t.Context()); err != nil || st.Signal != unix.SIGABRT {
			t.Errorf("%+v, %v", st, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || !strings.Contains(string(b), "has overflowed its stack") {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestSent: signals that are sent to a thread are the program's, whatever the thread is
// doing: here, reading, now and then a bad pointer.
func TestSent(t *testing.T) {
	t.Parallel()
	p := start(t, buildC(t))
	p.want("0", "sigaction 11 counts")
	w := attach(t, p)
	var tids []int
	for range 2 {
		tid, err := strconv.Atoi(p.ask("thread %x 2", w.read))
		must(t, err)
		tids = append(tids, tid)
	}
	p.ask("action 11") // the count begins
	for i := range 100 {
		w.checks(true, "")
		before := p.ask("handled")
		// The kernel drops a signal of which one is pending for the thread: here, that of
		// a fault that it is about to deliver.
		for tries := 0; p.ask("handled") == before; tries++ {
			if tries%20 == 0 {
				must(t, unix.Tgkill(p.PID, tids[i%2], unix.SIGSEGV))
			}
			if tries == 10_000 {
				t.Fatal("the program's handler is not called")
			}
		}
	}
	var loops, wrong int
	if _, err := fmt.Sscanf(p.ask("join"), "%d %d", &loops, &wrong); err != nil || loops == 0 || wrong != 0 {
		t.Errorf("%d reads, %d of them wrong, %v", loops, wrong, err)
	}
}

// TestChanges: while threads read bad pointers all the time, the program changes its
// handlers and its mind, and the process is looked at all the time.
func TestChanges(t *testing.T) {
	t.Parallel()
	p := start(t, buildC(t))
	p.want("0", "sigaction 11 jumps")
	w := attach(t, p)
	for range 3 {
		p.ask("thread %x 0", w.read)
	}
	end, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-end:
				done <- nil
				return
			case <-time.After(time.Millisecond):
			}
			w.guard.Hurry()
			if err := w.guard.Check(t.Context()); err != nil {
				done <- err
				return
			}
		}
	}()
	kinds := []string{"default", "jumps", "plain", "counts", "full", "ignore"}
	for i := range 100 {
		p.want("0", "sigaction %d %s", []int{11, 7, 10}[i%3], kinds[i%len(kinds)])
		p.want("0", "mask block")
		p.want("0", "mask unblock")
		if i%5 == 0 {
			p.want("0", "sigaction 7 jumps")
			p.want("0", "sigaction 10 counts")
			for begin := time.Now(); !w.direct(); time.Sleep(time.Millisecond) {
				if time.Since(begin) > 20*time.Second {
					t.Fatal("reads are not direct any more")
				}
			}
		}
	}
	close(end)
	must(t, <-done)
	var loops, wrong int
	if _, err := fmt.Sscanf(p.ask("join"), "%d %d", &loops, &wrong); err != nil || loops == 0 || wrong != 0 {
		t.Errorf("%d reads, %d of them wrong, %v", loops, wrong, err)
	}
}
