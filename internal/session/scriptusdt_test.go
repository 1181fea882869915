package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/script/source"
)

// script runs a script as a session. heard gets what it prints.
func script(t *testing.T, o Options, text string, heard func(event.Event) error) *told {
	t.Helper()
	return flow(t, func(ctx context.Context, o Options) error {
		_, err := RunScript(ctx, o, Script{
			Name: "script", Text: text,
			Warned: func(errs source.Errors) { t.Logf("warned: %v", errs) },
			Errors: func(text string) { t.Error(text) },
		})
		return err
	}, heard, o)
}

// lines are what a script has printed.
func (g *told) lines() (lines []string) {
	for _, e := range g.events {
		if s, ok := e.(event.Said); ok && s.Kind == "printf" {
			lines = append(lines, strings.TrimSuffix(s.Text, "\n"))
		}
	}
	return lines
}

// staticProbes prints what the fixture sdt says of itself.
const staticProbes = `
usdt:%[1]s:sdt:sold { printf("sold %%d %%lu %%s %%lu %%d %%d\n", arg0, arg1, str(arg2), arg3, arg4, arg5); }
usdt:%[1]s:priced { printf("priced %%d %%d\n", arg0, arg1); }
usdt:%[1]s:s*:stock?d { printf("stocked %%d %%d\n", arg0, arg1); }
`

// Static probes of a command: it sees from its first instruction that they are looked at.
func TestStaticProbes(t *testing.T) { both(t, staticProbesOfCommand) }

func staticProbesOfCommand(t *testing.T, rt string) {
	program := fixture.Private(t, fixture.Build(t, "sdt", fixture.Release))
	got := script(t, Options{Runtime: rt, Command: []string{program, "count", "2"}}, fmt.Sprintf(staticProbes, program), nil)
	if got.err != nil {
		t.Fatal(got.err)
	}
	want := []string{"sold 1 101 plum 102 -7 1", "priced 1 1", "stocked 1 1", "sold 2 102 pear 103 -7 2", "sold 2 102 pear ", "priced 2 1", "stocked 2 1"}
	lines := got.lines()
	if len(lines) > 4 { // one argument is of no known value
		lines[4], _, _ = strings.Cut(lines[4], "pear")
		lines[4] += "pear "
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q\nwant %q", lines, want)
	}
	if n := got.events[0].(event.Attached).Probes; n != 3 {
		t.Errorf("%d probes are said to be attached", n)
	}
}

// counting is the fixture sdt, which hits its probes once for each line that it is given.
type counting struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	said *bufio.Scanner
}

func newCounting(t *testing.T, program string) *counting {
	t.Helper()
	c := &counting{t: t, cmd: exec.Command(program, "serve")}
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.in, c.said = in, bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	c.upTo("ready")
	return c
}

// upTo returns what it says up to a line that begins so.
func (c *counting) upTo(begin string) (lines []string) {
	c.t.Helper()
	for c.said.Scan() {
		lines = append(lines, c.said.Text())
		if strings.HasPrefix(c.said.Text(), begin) {
			return lines
		}
	}
	c.t.Fatalf("it ended without %q, having said %q", begin, lines)
	return nil
}

func (c *counting) round() {
	c.t.Helper()
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		c.t.Fatal(err)
	}
}

// Semaphores of a process that runs already, one of them in memory that it can't write any
// more, are counted in while a script runs, and are as they were when it has ended.
func TestSemaphores(t *testing.T) { both(t, semaphores) }

func semaphores(t *testing.T, rt string) {
	program := fixture.Private(t, fixture.Build(t, "sdt", fixture.Release))
	c := newCounting(t, program)
	c.round()
	if lines := c.upTo("unstocked"); !slices.Contains(lines, "unpriced 1") {
		t.Fatalf("before: %q", lines)
	}
	got := script(t, Options{Runtime: rt, PIDs: []int{c.cmd.Process.Pid}}, `
usdt:*:priced { printf("priced %d %d\n", arg0, arg1); }
usdt:*:stocked { printf("stocked %d %d\n", arg0, arg1); exit(); }`, func(e event.Event) error {
		if _, ok := e.(event.Attached); ok {
			c.round()
		}
		return nil
	})
	if got.err != nil {
		t.Fatal(got.err)
	}
	if lines := got.lines(); !slices.Equal(lines, []string{"priced 2 1", "stocked 2 1"}) {
		t.Errorf("the script said %q", lines)
	}
	c.upTo("stocked")
	c.round()
	if lines := c.upTo("unstocked"); !slices.Contains(lines, "unpriced 3") {
		t.Errorf("afterwards: %q", lines)
	}
	if err := c.in.Close(); err != nil {
		t.Fatal(err)
	}
	if lines := c.upTo("semaphores"); lines[len(lines)-1] != "semaphores 0 0" {
		t.Errorf("at the end: %q", lines)
	}
}

// What is wrong with a static probe is said before anything is attached.
func TestNoStaticProbe(t *testing.T) {
	program := fixture.Build(t, "sdt", fixture.Release)
	without := fixture.Build(t, "flow", fixture.Release)
	for _, c := range []struct{ text, want string }{
		{"usdt:" + program + ":sdt:solt { print(1); }", "no static probe in " + program + " matches"},
		{"usdt:" + without + ":sold { print(1); }", without + " has no static probes"},
		{"usdt:" + program + ":sdt:priced { print(arg2); }", "sdt:priced has 2 arguments: arg0 is the first"},
		{"usdt:" + program + ":sdt:priced { print(retval); }", "retval is that of a uretprobe"},
	} {
		got := flow(t, func(ctx context.Context, o Options) error {
			_, err := RunScript(ctx, o, Script{Name: "script", Text: c.text, DryRun: true})
			return err
		}, nil, Options{})
		var errs source.Errors
		if !errors.As(got.err, &errs) || !strings.Contains(errs[0].Msg, c.want) {
			t.Errorf("%s: %v", c.text, got.err)
		}
	}
}
