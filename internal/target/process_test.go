package target

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeper runs a copy of sleep.
func sleeper(t *testing.T) (*exec.Cmd, string) {
	t.Helper()
	from, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sleep")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, path
}

func TestOpen(t *testing.T) {
	cmd, path := sleeper(t)
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Exe != path || p.Path != path || p.Deleted || p.Comm != "sleep" {
		t.Errorf("%+v", p)
	}
	if !p.Alive() || !Alive(p.PID, p.Start) || Alive(p.PID, p.Start+1) {
		t.Error("who is alive?")
	}
	if ids, err := p.Threads(); err != nil || !slices.Equal(ids, []int{p.PID}) {
		t.Errorf("threads %v, %v", ids, err)
	}
	if c := Comm(p.PID); c != "sleep" {
		t.Errorf("comm %q", c)
	}

	// The file is replaced, as by a new build, and then removed.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, replaced := range []bool{true, false} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if replaced {
			if err := os.WriteFile(path, []byte("other"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		d, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if !d.Deleted || d.Exe != path || d.Path == path {
			t.Errorf("replaced=%v: %+v", replaced, d)
		}
		if got, err := os.ReadFile(d.Path); err != nil || string(got) != string(b) {
			t.Errorf("replaced=%v: %s holds %d bytes, %v; want %d", replaced, d.Path, len(got), err, len(b))
		}
	}

	_ = cmd.Process.Kill()
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	// It is a zombie now: it has ended although its pid is there.
	if p.Alive() || Alive(p.PID, p.Start) {
		t.Error("a zombie is alive")
	}
	if _, err := Open(p.PID); !errors.Is(err, ErrGone) {
		t.Errorf("a zombie: %v", err)
	}
	_ = cmd.Wait()
	if _, err := Open(p.PID); !errors.Is(err, ErrGone) {
		t.Errorf("a process that has ended: %v", err)
	}
	if _, err := p.Maps(); !errors.Is(err, ErrGone) {
		t.Errorf("maps: %v", err)
	}
	if _, err := p.Threads(); !errors.Is(err, ErrGone) {
		t.Errorf("threads: %v", err)
	}
	if c := Comm(p.PID); c != "" {
		t.Errorf("comm %q", c)
	}
}

func TestWait(t *testing.T) {
	cmd, _ := sleeper(t)
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	done := make(chan error)
	go func() { done <- p.Wait(t.Context()) }()
	time.Sleep(10 * time.Millisecond)
	_ = cmd.Process.Kill()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the end was missed")
	}
}

func TestOpenErrors(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, err := Open(pid); !errors.Is(err, ErrGone) {
			t.Errorf("%d: %v", pid, err)
		}
	}
	// A thread that is no process.
	tid := make(chan int)
	stop := make(chan bool)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		<-stop
	}()
	id := <-tid
	if id != os.Getpid() {
		if _, err := Open(id); err == nil || !strings.Contains(err.Error(), "is a thread of process") {
			t.Errorf("a thread: %v", err)
		}
	}
	close(stop)

	if comm := Comm(2); comm != "kthreadd" {
		t.Logf("process 2 is %q: no kernel thread to try", comm)
	} else if _, err := Open(2); !errors.Is(err, ErrNoExecutable) && !errors.Is(err, os.ErrPermission) {
		t.Errorf("a kernel thread: %v", err)
	}
}

func TestAddress(t *testing.T) {
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ms, err := p.Maps()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if m.Path != p.Exe || !m.Exec {
			continue
		}
		if a, ok := Address(ms, m.Dev, m.Inode, m.Offset+5); !ok || a != m.Start+5 {
			t.Errorf("%#x, %v; want %#x", a, ok, m.Start+5)
		}
		if _, ok := Address(ms, m.Dev, m.Inode, m.Offset+m.End-m.Start); ok {
			t.Error("an offset beyond the mapping has an address")
		}
		if got := p.FilePath(m); got != p.Exe {
			t.Errorf("the file is %s, want %s", got, p.Exe)
		}
		return
	}
	t.Errorf("%s is not in %+v", p.Exe, ms)
}

func TestFile(t *testing.T) {
	_, path := sleeper(t)
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if got, err := File(link); err != nil || got != path {
		t.Errorf("%s, %v; want %s", got, err, path)
	}
	if got, err := File("sleep"); err != nil || !filepath.IsAbs(got) {
		t.Errorf("by PATH: %s, %v", got, err)
	}
	if _, err := File(filepath.Dir(path)); err == nil {
		t.Error("a directory is a file")
	}
	if _, err := File("/no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What a process in another mount namespace runs is opened through /proc.
func TestOtherRoot(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("chroot needs root and a C compiler")
	}
	root := t.TempDir()
	src := write(t, "pause.c", "#include <unistd.h>\nint main(void) { write(1, \"x\", 1); pause(); }\n", 0o644)
	if out, err := exec.Command(cc, "-static", "-o", filepath.Join(root, "pause"), src).CombinedOutput(); err != nil {
		t.Skipf("static linking: %s", out)
	}
	cmd := exec.Command("/pause")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a, err := os.Stat(filepath.Join(root, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.Stat(p.Path); err != nil || !os.SameFile(a, b) {
		t.Errorf("%+v: %v", p, err)
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 100 200"
	for in, want := range map[string]stat{
		"7 (sh)" + tail:        {"sh", 'S', 4242},
		"7 (a) b) (c))" + tail: {"a) b) (c)", 'S', 4242},
		"7 ()" + tail + "\n":   {"", 'S', 4242},
		"7 (new\nline)" + tail: {"new\nline", 'S', 4242},
		"7 (Z) Z" + tail[2:]:   {"Z", 'Z', 4242},
	} {
		if got, err := parseStat([]byte(in)); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "7", "7 (", "7 )(", "7 (x)", "7 (x) S 1 2"} {
		if _, err := parseStat([]byte(in)); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}

func TestParseMaps(t *testing.T) {
	const in = `55d0-55d1 r--p 00000000 fd:00 131     /usr/bin/a b
55d1-55d9 r-xp 00001000 fd:00 131     /usr/bin/a b (deleted)
7f00-7f10 rw-p 00000000 00:00 0 
7ffd-7fff rw-p 00000000 00:00 0       [stack]
1000-2000 r-xs 00000000 00:05 9       /x\012y
rubbish
9-1 r-xp 0 0:0 0
`
	want := []Mapping{
		{0x55d0, 0x55d1, 0, false, "fd:00", 131, "/usr/bin/a b", false},
		{0x55d1, 0x55d9, 0x1000, true, "fd:00", 131, "/usr/bin/a b", true},
		{0x7f00, 0x7f10, 0, false, "00:00", 0, "", false},
		{0x7ffd, 0x7fff, 0, false, "00:00", 0, "[stack]", false},
		{0x1000, 0x2000, 0, true, "00:05", 9, "/x\ny", false},
	}
	if got := parseMaps([]byte(in)); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestPIDNamespace(t *testing.T) {
	dev, ino, initial, err := PIDNamespace()
	if err != nil || ino == 0 {
		t.Errorf("%d, %d, %v, %v", dev, ino, initial, err)
	}
}

func FuzzProc(f *testing.F) {
	f.Add([]byte("7 (sh) S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 4242 100 200"))
	f.Add([]byte("55d1-55d9 r-xp 00001000 fd:00 131 /usr/bin/a b (deleted)\n"))
	f.Add([]byte("#! /bin/sh -e\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parseStat(b)
		for _, m := range parseMaps(b) {
			if m.End < m.Start {
				t.Errorf("%+v", m)
			}
		}
		if i, ok := shebang(b); ok && i == "" {
			t.Error("an interpreter without a name")
		}
	})
}
