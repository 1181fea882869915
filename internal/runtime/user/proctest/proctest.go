// Package proctest compiles and runs the programs that tests of the user runtime trace.
// A program says "ready PID" first.
package proctest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	dir      string // of compiled programs
	built    = map[string]string{}
	builtErr = map[string]error{}
	building sync.Mutex
)

// Compile has gcc compile a program, once for the same arguments. It skips the test if
// there is no gcc, or if it can't do so. Main removes the programs.
func Compile(t testing.TB, args ...string) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	key := strings.Join(args, " ")
	if err := builtErr[key]; err != nil {
		t.Skip(err)
	}
	if built[key] == "" {
		gcc, err := exec.LookPath("gcc")
		if err != nil {
			t.Skip("skipped: gcc is missing; it compiles the programs that this test traces")
		}
		if dir == "" {
			if dir, err = os.MkdirTemp("", "ferrotrace-test"); err != nil {
				t.Fatal(err)
			}
		}
		out := filepath.Join(dir, fmt.Sprint("target", len(built)))
		if b, err := exec.Command(gcc, append([]string{"-pthread", "-o", out}, args...)...).CombinedOutput(); err != nil {
			builtErr[key] = fmt.Errorf("skipped: gcc %s: %w\n%s", key, err, b)
			t.Skip(builtErr[key])
		}
		built[key] = out
	}
	return built[key]
}

// Main is what TestMain does for tests that compile programs.
func Main(m *testing.M) {
	code := m.Run()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Process is a program under test. Its parent is a shell, which says how it ends: so it is
// no child of the tracer's, which would wait for it too.
type Process struct {
	T     testing.TB
	PID   int
	Ready string // what it said when it was ready
	In    io.WriteCloser
	Out   *bufio.Reader
	Err   *strings.Builder // its standard error, whole after Wait

	shell *exec.Cmd
}

// Start starts a program, which is killed when the test ends.
func Start(t testing.TB, file string, args ...string) *Process {
	t.Helper()
	shell := exec.Command("sh", append([]string{"-c", `ulimit -c 0; "$0" "$@" <&3; echo status $?`, file}, args...)...)
	p := &Process{T: t, Err: &strings.Builder{}, shell: shell}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.In = w
	shell.ExtraFiles = []*os.File{r}
	shell.Stderr = p.Err
	shell.WaitDelay = time.Second // forks may have its standard error
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	pidfd := -1 // for the number may be another's by then
	t.Cleanup(func() {
		if pidfd >= 0 {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			_ = unix.Close(pidfd)
		}
		_ = shell.Process.Kill()
		p.In.Close()
		out.Close()
		_ = shell.Wait()
	})
	p.Out = bufio.NewReader(out)
	p.Ready = p.Line()
	if _, err := fmt.Sscanf(p.Ready, "ready %d", &p.PID); err != nil {
		t.Fatalf("%q: %v", p.Ready, err)
	}
	if fd, err := unix.PidfdOpen(p.PID, 0); err == nil {
		pidfd = fd
	}
	return p
}

// Line is the next that the program says.
func (p *Process) Line() string {
	p.T.Helper()
	s, err := p.Out.ReadString('\n')
	if err != nil {
		p.T.Fatalf("the program says nothing more: %q, %v; %s", s, err, p.Err)
	}
	return strings.TrimSpace(s)
}

// Wait waits until the program has ended.
func (p *Process) Wait() { _ = p.shell.Wait() }

// Finish ends the program by a signal, unless that is 0, and returns all that it says
// until then, which must not be of a failure.
func (p *Process) Finish(sig unix.Signal) string {
	p.T.Helper()
	if sig != 0 {
		if err := unix.Kill(p.PID, sig); err != nil {
			p.T.Errorf("the program is gone: %v", err)
		}
	}
	got := make(chan string, 1)
	go func() { b, _ := io.ReadAll(p.Out); got <- string(b) }()
	select {
	case s := <-got:
		if !strings.HasSuffix(s, "status 0\n") || strings.Contains(s, "FAIL") {
			p.T.Fatalf("the program: %s%s", s, p.Err)
		}
		return s
	case <-time.After(20 * time.Second):
		p.T.Fatalf("the program hangs:\n%s", p.States())
		return ""
	}
}

// States is what all threads are doing, for a failure's message.
func (p *Process) States() string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID))
	for _, task := range tasks {
		fmt.Fprintf(&b, "%s", filepath.Base(task))
		status, _ := os.ReadFile(task + "/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "State:") || strings.HasPrefix(line, "TracerPid:") {
				fmt.Fprintf(&b, " %s", strings.TrimSpace(line))
			}
		}
		call, _ := os.ReadFile(task + "/syscall")
		fmt.Fprintf(&b, " %s\n", strings.TrimSpace(string(call)))
	}
	return b.String()
}

// SendSignals sends a process SIGRTMIN+3 with the values 0, 1, …, queued, until done is
// closed, and then how many there were.
func SendSignals(pid int, every time.Duration, done <-chan struct{}) (sent <-chan int) {
	const signal = 37
	c := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				c <- n
				return
			case <-time.After(every):
			}
			// siginfo_t: si_signo, si_errno, si_code (SI_QUEUE), si_pid, si_uid, si_value.
			var info [128]byte
			binary.LittleEndian.PutUint32(info[0:], signal)
			binary.LittleEndian.PutUint32(info[8:], 0xffffffff)
			binary.LittleEndian.PutUint32(info[24:], uint32(n))
			if _, _, e := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), signal, uintptr(unsafe.Pointer(&info))); e == 0 {
				n++
			}
		}
	}()
	return c
}
