package session

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/calls"
	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/program"
	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/x86"

	"golang.org/x/sys/unix"
)

// server starts the story "server", under another root directory if one is given, and
// waits until it serves.
func server(t *testing.T, program string, root ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program, "server", "60")
	if len(root) > 0 {
		cmd.SysProcAttr = &unix.SysProcAttr{Chroot: root[0]}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
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
	lines := bufio.NewScanner(out)
	lines.Scan()
	go func() {
		for lines.Scan() {
		}
	}()
	return cmd
}

// A process that runs already, and runs on.
func TestProcess(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		cmd := server(t, everywhere(t))
		got := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"serve"}, PIDs: []int{cmd.Process.Pid}, Limit: 3})
		if got.err != nil {
			t.Fatal(got.err)
		}
		if s := got.summary(t); s.Shown != 3 || s.Runtime != rt {
			t.Errorf("%+v", s)
		}
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Errorf("the process: %v", err)
		}
	})
}

// A process that is killed under the trace ends it.
func TestProcessEnds(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		cmd := server(t, everywhere(t))
		got := flow(t, Trace, func(e event.Event) error {
			if _, ok := e.(event.Call); ok {
				return cmd.Process.Kill()
			}
			return nil
		}, Options{Runtime: rt, Patterns: []string{"serve"}, PIDs: []int{cmd.Process.Pid}, For: time.Minute})
		if got.err != nil && !errors.Is(got.err, os.ErrProcessDone) {
			t.Fatal(got.err)
		}
		if s := got.summary(t); s.Calls == 0 || s.Duration > 50*time.Second {
			t.Errorf("%+v", s)
		}
	})
}

// A user's Ctrl-C ends the trace and the command, with all that was seen.
func TestCtrlC(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		got := flow(t, func(_ context.Context, o Options) error { return Trace(ctx, o) }, func(e event.Event) error {
			if _, ok := e.(event.Call); ok {
				cancel()
			}
			return nil
		}, Options{Runtime: rt, Patterns: []string{"serve"}}, "server", "60")
		if got.err != nil {
			t.Fatal(got.err)
		}
		if s := got.summary(t); s.Shown == 0 || s.ExitStatus != "killed by SIGTERM" {
			t.Errorf("%+v", s)
		}
	})
}

// Without a wish the user runtime is taken, and what is said of it is what it does.
func TestAuto(t *testing.T) {
	got := flow(t, Trace, nil, Options{Patterns: []string{"work"}, Verbose: true}, "work", "3")
	if got.err != nil {
		t.Fatal(got.err)
	}
	if s := got.summary(t); s.Runtime != User || s.Cost != 2*user.Cost(true) {
		t.Errorf("%+v", s)
	}
	if !slices.ContainsFunc(got.notes, func(n string) bool { return strings.HasPrefix(n, "user runtime: ") }) {
		t.Errorf("notes: %q", got.notes)
	}
}

// Every process that runs a file: only the kernel can do that, and it is said.
func TestEverywhere(t *testing.T) {
	file := everywhere(t)
	got := flow(t, Count, nil, Options{Runtime: User, Patterns: []string{"work"}, Binary: file})
	if got.status() != usage || !errors.Is(got.err, user.ErrEverywhere) {
		t.Errorf("user: %v", got.err)
	}
	needRoot(t)
	got = flow(t, Count, nil, Options{Patterns: []string{"work"}, Binary: file, For: 10 * time.Millisecond})
	if got.err != nil || len(got.notes) != 1 || !strings.HasPrefix(got.notes[0], "kernel runtime: ") {
		t.Errorf("auto: %v, notes %q", got.err, got.notes)
	}
	if s := got.summary(t); s.Runtime != Kernel {
		t.Errorf("auto took the %s runtime", s.Runtime)
	}
}

// Where the user runtime has jumps, no one else plants probes: the kernel's would send
// threads into the middle of one.
func TestJumpsAreLeftAlone(t *testing.T) {
	needRoot(t)
	file := everywhere(t)
	cmd := server(t, file)
	pid := []int{cmd.Process.Pid}
	got := flow(t, Trace, func(e event.Event) error {
		if _, ok := e.(event.Attached); !ok {
			return nil
		}
		for _, o := range []Options{{Runtime: Kernel, PIDs: pid}, {Runtime: Auto, PIDs: pid}, {Runtime: User, PIDs: pid},
			{Runtime: Auto, Binary: file}, {Runtime: Kernel, Command: []string{file, "work", "3"}}} {
			o.Patterns, o.For = []string{"serve"}, 10*time.Millisecond
			second := flow(t, Count, nil, o)
			if second.err == nil || !strings.Contains(second.err.Error(), "another ferrotrace") || len(second.events) > 0 {
				t.Errorf("%s: %v, %v", o.Runtime, second.err, second.events)
			}
		}
		return nil
	}, Options{Runtime: User, Patterns: []string{"serve"}, PIDs: pid, Limit: 3})
	if got.err != nil {
		t.Fatal(got.err)
	}
	got.summary(t)
	// And afterwards it may be probed by the kernel.
	got = flow(t, Count, nil, Options{Runtime: Kernel, Patterns: []string{"serve"}, PIDs: pid, Limit: 1})
	if got.err != nil {
		t.Fatal(got.err)
	}
}

// What stands against both runtimes is said of both; what against one, with the other
// if that would do.
func TestRefusals(t *testing.T) {
	denied := &kernel.PermissionError{Missing: []string{"CAP_BPF"}}
	seccomp := user.ErrSeccomp
	err := neither(seccomp, denied)
	if g := (&told{err: err}); g.status() != notPermitted || !strings.Contains(err.Error(), "seccomp") || !strings.Contains(err.Error(), "CAP_BPF") {
		t.Errorf("%v, %d", err, g.status())
	}
	if neither(seccomp, nil) != nil {
		t.Error("the kernel runtime would do")
	}
	if err := neither(seccomp, kernel.ErrGone); err != kernel.ErrGone {
		t.Errorf("a process that has ended: %v", err)
	}
	for err, want := range map[error]int{user.ErrSeccomp: notPermitted, user.ErrEverywhere: usage, errors.New("x"): failed} {
		if g := (&told{err: userRefused(err)}); g.status() != want {
			t.Errorf("%v: exit status %d, want %d", err, g.status(), want)
		}
	}
	if userRefused(nil) != nil {
		t.Error("nothing is refused")
	}
}

// What has no probe is not waited for, and nothing is said that only it could tell.
func TestWithout(t *testing.T) {
	b := newBuilder(program.DefaultLimits)
	in := &event.Inline{Exact: true}
	entry := &calls.Site{Kind: program.Entry, Instance: 1, Function: "f", Awaits: true, Exits: true,
		Args: []event.Value{{Name: "a"}, {Name: "b", Missing: recordLost}}}
	other := &calls.Site{Kind: program.Entry, Instance: 2, Function: "g", Awaits: true, Exits: true}
	b.sites = [][]*calls.Site{
		{entry, other},
		{{Kind: program.More, Instance: 1, ArgOf: []int{1}}},
		{{Kind: program.Exit, Instance: 1}},
		{{Kind: program.Entry, Instance: 3, Inline: in}},
		{{Kind: program.Landing}},
	}
	b.prog.Probes = make([]program.Probe, len(b.sites))
	b.insts = make([]x86.Inst, len(b.sites))
	b.without([]uint64{1, 2, 3, 4})
	if entry.Awaits || entry.Exits || entry.Args[0].Missing != "" || entry.Args[1].Missing != noProbe {
		t.Errorf("%+v", entry)
	}
	if !other.Awaits || !other.Exits {
		t.Errorf("%+v", other)
	}
	if in.Exact {
		t.Error("an entry is not seen, but calls are exact")
	}
	for cookie, want := range map[uint64]string{0: "entry of f at 0x0 (and of 1 more)", 4: "landing at 0x0"} {
		if got := b.name(cookie); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A process that ends at once has told where its code is: function pointers have names.
func TestNamesOfEnded(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		values := fixture.Private(t, fixture.Build(t, "values", fixture.Release))
		got := flow(t, Trace, nil, Options{Runtime: rt, Patterns: []string{"values::closures::pointer"}, Command: []string{values, "closures"}})
		if got.err != nil {
			t.Fatal(got.err)
		}
		named := false
		for _, e := range got.events {
			if c, ok := e.(event.Call); ok {
				named = named || c.Args[0].Text == "fn values::closures::twice"
			}
		}
		if !named {
			t.Errorf("no fn values::closures::twice: %+v", got.events)
		}
	})
}

// What becomes another program is not traced any more by the user runtime, which says so.
func TestExecuted(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("skipped: no bash, which becomes another program")
	}
	got := flow(t, Count, nil, Options{Runtime: User, Patterns: []string{"/^execute_/"}, Command: []string{bash, "-c", "exec sleep 0.5"}})
	if got.err != nil {
		t.Skipf("skipped: nothing in %s can be probed: %v", bash, got.err)
	}
	if !slices.ContainsFunc(got.warnings, func(w string) bool { return strings.Contains(w, "executed another program") }) {
		t.Errorf("warnings: %q", got.warnings)
	}
	if s := got.summary(t); s.ExitStatus != "exit status 0" {
		t.Errorf("the command: %s", s.ExitStatus)
	}
}
