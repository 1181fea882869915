package session

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"

	"golang.org/x/sys/unix"
)

// talker is a program that does what lines on its standard input say, once it has said
// that it is ready.
type talker struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// talk starts one, of copies of files in one folder of its own: of the first, and {} in
// args stands for the second.
func talk(t *testing.T, files []string, args ...string) (*talker, []string) {
	t.Helper()
	dir := t.TempDir()
	files = slices.Clone(files)
	for i, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(files[i], b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "{}", files[1])
	}
	p := &talker{t: t, cmd: exec.Command(files[0], args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.in.Close()
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	p.out = bufio.NewScanner(out)
	p.until(fmt.Sprint("ready ", p.cmd.Process.Pid))
	return p, files
}

func (p *talker) until(line string) {
	p.t.Helper()
	for p.out.Scan() {
		if p.out.Text() == line {
			return
		}
	}
	p.t.Errorf("it never said %q", line)
}

func (p *talker) order(what string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, what+"\n"); err != nil {
		p.t.Error(err)
	}
	p.until("done " + what)
}

// A process loads a library under the trace, unloads it, and loads it again.
func TestLibraryLoadedLater(t *testing.T) {
	for _, first := range []string{"", "open"} {
		both(t, func(t *testing.T, rt string) {
			p, files := talk(t, []string{fixture.Build(t, "host", fixture.Release), fixture.Library(t, "plugin", fixture.Release)}, "orders", "{}")
			if first != "" {
				p.order(first)
			}
			got := flow(t, Trace, func(e event.Event) error {
				if _, ok := e.(event.Attached); ok {
					go func() {
						for _, order := range []string{"close", "open", "quiet 3", "close", "open", "quiet 2", "close"} {
							p.order(order)
						}
						p.in.Close()
					}()
				}
				return nil
			}, Options{Runtime: rt, PIDs: []int{p.cmd.Process.Pid}, Binary: files[1], Patterns: []string{"plugin::work::*"}, Verbose: true})
			if got.err != nil {
				t.Fatal(got.err)
			}
			calls, ends := got.calls()
			if s := got.summary(t); calls != 7 || ends != 7 || s.Lost+s.LostExits > 0 || s.Runtime != rt {
				t.Errorf("%d calls, %d ends; %+v", calls, ends, s)
			}
			if len(got.warnings) > 0 {
				t.Errorf("%q", got.warnings)
			}
			noted := slices.ContainsFunc(got.notes, func(n string) bool { return strings.Contains(n, "its calls are shown if it does") })
			if noted != (first == "") {
				t.Errorf("%q", got.notes)
			}
		})
	}
}

// Functions of a process's Rust libraries are found without the library's name.
func TestLibraryOfProcess(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		p, _ := talk(t, []string{fixture.Build(t, "linked", fixture.Release), fixture.Library(t, "shared", fixture.Release)}, "lines")
		got := flow(t, Trace, func(e event.Event) error {
			if _, ok := e.(event.Attached); ok {
				_, err := io.WriteString(p.in, "\n\n")
				return err
			}
			return nil
		}, Options{Runtime: rt, PIDs: []int{p.cmd.Process.Pid}, Patterns: []string{"shared::double", "own"}, Limit: 4})
		if got.err != nil {
			t.Fatal(got.err)
		}
		names := map[string]int{}
		for _, e := range got.events {
			if c, ok := e.(event.Call); ok {
				names[c.Function]++
			}
		}
		if names["shared::double"] != 2 || names["linked::own"] != 2 {
			t.Errorf("%v", names)
		}
		if err := p.cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Error(err)
		}
	})
}

// What the child of a traced process loads is shown by the kernel runtime, and said to be
// missing by the user runtime.
func TestLibraryOfChild(t *testing.T) {
	both(t, func(t *testing.T, rt string) {
		host := fixture.Private(t, fixture.Build(t, "host", fixture.Release))
		plugin := fixture.Private(t, fixture.Library(t, "plugin", fixture.Release))
		got := flow(t, Count, nil, Options{Runtime: rt, Command: []string{host, "fork", plugin}, Binary: plugin, Patterns: []string{"twice"}})
		if got.err != nil {
			t.Fatal(got.err)
		}
		warned := slices.ContainsFunc(got.warnings, func(w string) bool { return strings.Contains(w, "a child of a traced one, has mapped") })
		if s := got.summary(t); s.Shown == 3 && warned || s.Shown != 3 && !warned || rt == Kernel && warned {
			t.Errorf("%+v, %q", s, got.warnings)
		}
	})
}
