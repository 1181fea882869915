package target

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helperEnv makes the test binary a tracer in miniature: it starts its arguments as
// a command, tells on descriptor 3 what happens, and does what the value says.
const helperEnv = "FERROTRACE_TEST_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		os.Unsetenv(helperEnv)
		os.Exit(helper(what))
	}
	os.Exit(m.Run())
}

func helper(what string) int {
	tell := os.NewFile(3, "tell")
	syscall.CloseOnExec(3)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	c, err := Start(os.Args[1:])
	if err != nil {
		fmt.Fprintln(tell, "error:", err)
		return 1
	}
	fmt.Fprintln(tell, c.PID)
	switch what {
	case "hold":
		time.Sleep(time.Hour)
	case "line": // hold until standard error's reader says so, by a signal
		usr := make(chan os.Signal, 1)
		signal.Notify(usr, syscall.SIGUSR1)
		fmt.Fprintln(tell, "ready")
		<-usr
	}
	c.Release()
	if what == "leave" {
		time.Sleep(time.Hour)
	}
	st, err := c.Wait(context.Background())
	fmt.Fprintln(tell, st, err)
	return 0
}

// run is a helper under way.
type run struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	tell *bufio.Reader
}

func runHelper(t *testing.T, what string, attr *syscall.SysProcAttr, argv ...string) *run {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &run{t: t, cmd: exec.Command(os.Args[0], argv...), tell: bufio.NewReader(r)}
	h.cmd.Env = append(os.Environ(), helperEnv+"="+what)
	h.cmd.Stdin = strings.NewReader("input\n")
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.out
	h.cmd.ExtraFiles = []*os.File{w}
	h.cmd.SysProcAttr = attr
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { r.Close() })
	return h
}

func (h *run) line() string {
	h.t.Helper()
	s, err := h.tell.ReadString('\n')
	if err != nil {
		h.t.Fatalf("the helper says nothing more: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

func (h *run) pid() int {
	h.t.Helper()
	line := h.line()
	pid, err := strconv.Atoi(line)
	if err != nil {
		h.t.Fatalf("the helper: %s", line)
	}
	return pid
}

func TestStatus(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"exit 0", "exit status 0"},
		{"exit 3", "exit status 3"},
		{"ulimit -c 0; kill -SEGV $$", "killed by SIGSEGV"},
		{"kill -TERM $$", "killed by SIGTERM"},
		{"kill -40 $$", "killed by signal 40"},
	} {
		h := runHelper(t, "run", nil, "sh", "-c", c.script)
		h.pid()
		if got := h.line(); got != c.want+" <nil>" {
			t.Errorf("%s: %s, want %s", c.script, got, c.want)
		}
		_ = h.cmd.Wait()
	}
	if s := (Status{Signal: syscall.SIGSEGV, Core: true}).String(); s != "killed by SIGSEGV (core dumped)" {
		t.Error(s)
	}
}

// A command can't tell that it was held: not by its signals, nor by its files.
func TestInvisible(t *testing.T) {
	const script = `grep -E '^(Sig[^Q]|Shd|TracerPid|NoNewPrivs)' /proc/self/status
for f in /proc/$$/fd/*; do echo ${f##*/}; done
ulimit -a
cat
echo $0 $# "$1"
env | grep -v ^_= | sort | cksum
echo error >&2`
	argv := []string{"sh", "-c", script, "zero", "an argument"}
	direct := exec.Command(argv[0], argv[1:]...)
	direct.Stdin = strings.NewReader("input\n")
	want, err := direct.CombinedOutput()
	if err != nil {
		t.Skip(err)
	}
	h := runHelper(t, "run", nil, argv...)
	h.pid()
	if got := h.line(); got != "exit status 0 <nil>" {
		t.Error(got)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if got := h.out.String(); got != string(want) {
		t.Errorf("held and released:\n%s\nstarted directly:\n%s", got, want)
	}
}

func TestHeld(t *testing.T) {
	c, err := Start([]string{"sleep", "100"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st, err := readStat(c.PID)
	if err != nil || st.state != 't' {
		t.Errorf("state %c, %v; want t", st.state, err)
	}
	if filepath.Base(c.Path) != "sleep" && filepath.Base(c.Path) != "coreutils" {
		t.Errorf("it executes %s", c.Path)
	}
	ms, err := c.Maps()
	if err != nil {
		t.Fatal(err)
	}
	mapped := false
	for _, m := range ms {
		mapped = mapped || m.Path == c.Exe && m.Exec
	}
	if !mapped {
		t.Errorf("%s is not mapped: %+v", c.Exe, ms)
	}
	c.Release()
	c.Release() // once is enough
	time.Sleep(20 * time.Millisecond)
	if !c.Alive() {
		t.Fatal("it does not live on")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := c.Terminate(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Wait(t.Context()); err != nil || st.String() != "killed by SIGTERM" {
		t.Errorf("%v, %v", st, err)
	}
	if err := c.Terminate(); err != nil {
		t.Errorf("terminating what has ended: %v", err)
	}
}

func TestTerminateHeld(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	c, err := Start([]string{"touch", file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Terminate(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.Wait(t.Context()); err != nil || st.String() != "killed by SIGKILL" {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it ran")
	}
}

// A command that ends by itself while it is held is not waited for in vain.
func TestKilledHeld(t *testing.T) {
	c, err := Start([]string{"sleep", "100"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := syscall.Kill(c.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.Release()
	if st, err := c.Wait(t.Context()); err != nil || st.String() != "killed by SIGKILL" {
		t.Errorf("%v, %v", st, err)
	}
}

func waitGone(t *testing.T, pid int, start uint64) {
	t.Helper()
	for range 500 {
		if !Alive(pid, start) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	st, err := readStat(pid)
	t.Errorf("process %d is still there: %+v, %v", pid, st, err)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestTracerKilled(t *testing.T) {
	h := runHelper(t, "hold", nil, "sleep", "1000")
	pid := h.pid()
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
	waitGone(t, pid, st.start)

	// Once released it lives on.
	h = runHelper(t, "leave", nil, "sleep", "1000")
	pid = h.pid()
	if st, err = readStat(pid); err != nil {
		t.Fatal(err)
	}
	for st.state == 't' {
		time.Sleep(time.Millisecond)
		if st, err = readStat(pid); err != nil {
			t.Fatal(err)
		}
	}
	_ = h.cmd.Process.Kill()
	time.Sleep(50 * time.Millisecond)
	if !Alive(pid, st.start) {
		t.Error("a released command died with its tracer")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_ = h.cmd.Wait() // only now its output is closed
}

// Ctrl-C goes to the tracer and to the command, held or not.
func TestInterrupt(t *testing.T) {
	for _, held := range []bool{true, false} {
		h := runHelper(t, "line", &syscall.SysProcAttr{Setpgid: true}, "sleep", "1000")
		pid := h.pid()
		h.line()
		interrupt := func() {
			if err := syscall.Kill(-h.cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if held {
			interrupt()
		}
		if err := h.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if !held {
			for st, err := readStat(pid); err == nil && st.state == 't'; st, err = readStat(pid) {
				time.Sleep(time.Millisecond)
			}
			interrupt()
		}
		if got := h.line(); got != "killed by SIGINT <nil>" {
			t.Errorf("held=%v: %s", held, got)
		}
		if err := h.cmd.Wait(); err != nil {
			t.Errorf("the tracer: %v", err)
		}
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		is   error
		want string
	}{
		{"no-such-command-anywhere", exec.ErrNotFound, "command not found: no-such-command-anywhere"},
		{"/no/such/file", os.ErrNotExist, "command not found: /no/such/file"},
		{write(t, "data", "data", 0o644), os.ErrPermission, "permission denied"},
		{write(t, "text", "neither\n", 0o755), syscall.ENOEXEC, "is not a program"},
		{write(t, "script", "#!/no/such/interpreter\n", 0o755), os.ErrNotExist, "command not found"},
		{t.TempDir(), nil, "is a directory"},
	} {
		_, err := Start([]string{c.name})
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", c.name, err, c.want)
		}
	}
	if _, err := Start(nil); err == nil {
		t.Error("no command starts")
	}
}

func TestScript(t *testing.T) {
	path := write(t, "script", "#! /bin/sh -e\nexit 4\n", 0o755)
	c, err := Start([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if c.Script != path || c.Exe != sh {
		t.Errorf("script %q run by %q; want %q, %q", c.Script, c.Exe, path, sh)
	}
	c.Release()
	if st, err := c.Wait(t.Context()); err != nil || st.Code != 4 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := File(path); !errors.Is(err, ErrScript) {
		t.Error(err)
	}
}

func TestSetuid(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a setuid file needs root")
	}
	from, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "setuid", string(b), 0o755|os.ModeSetuid)
	// The temporary directories and the test binary are root's own.
	dir, err := os.MkdirTemp("/tmp", "setuid")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "setuid")
	if err := os.WriteFile(own, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(own, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	tracer, err := os.OpenFile(filepath.Join(dir, "tracer"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(tracer, self); err != nil {
		t.Fatal(err)
	}
	tracer.Close()

	old := os.Args[0]
	os.Args[0] = tracer.Name()
	h := runHelper(t, "run", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}, own)
	os.Args[0] = old
	if got := h.line(); !strings.Contains(got, "setuid") || !strings.HasPrefix(got, "error: ") {
		t.Errorf("nobody starts a setuid command: %s", got)
	}
	_ = h.cmd.Wait()

	// Root may.
	h = runHelper(t, "run", nil, path)
	h.pid()
	if got := h.line(); got != "exit status 0 <nil>" {
		t.Error(got)
	}
	_ = h.cmd.Wait()
}
