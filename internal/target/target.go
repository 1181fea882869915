// Package target is what is traced: a running process, a file that processes run,
// or a command that is started for it. It knows /proc and ptrace, not what is
// inside the files.
package target

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone: the process has ended.
	ErrGone = errors.New("the process is gone")
	// ErrNoExecutable: the process has no file that it runs, as kernel threads.
	ErrNoExecutable = errors.New("a kernel thread, which runs no file")
	// ErrScript: the file is a script, which an interpreter runs.
	ErrScript = errors.New("a script")
)

// File resolves the path of a file that processes run or map to an absolute one
// without symbolic links. A name without a slash that is not there is looked up in
// PATH.
func File(name string) (string, error) {
	path, err := filepath.EvalSymlinks(name)
	if errors.Is(err, os.ErrNotExist) && filepath.Base(name) == name {
		if found, lerr := look(name); lerr == nil {
			path, err = filepath.EvalSymlinks(found)
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	if interp, ok := interpreter(path); ok {
		return "", fmt.Errorf("%s is %w: %s runs it", name, ErrScript, interp)
	}
	return path, nil
}

// look finds a command as a shell does.
func look(name string) (string, error) {
	path, err := exec.LookPath(name)
	// A command that PATH finds in the current directory is what the user asked for.
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	return path, err
}

// interpreter is what the first line of a script names. The kernel reads 256 bytes
// (BINPRM_BUF_SIZE in include/uapi/linux/binfmts.h).
func interpreter(path string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	return shebang(head[:n])
}

// PIDNamespace identifies the pid namespace of this process by device and inode, as
// stat(2) has them; initial is whether programs see pids as this process does anyway.
func PIDNamespace() (dev, ino uint64, initial bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/pid", &st); err != nil {
		return 0, 0, false, fmt.Errorf("pid namespace: %w", err)
	}
	// PROC_PID_INIT_INO in include/linux/proc_ns.h.
	return st.Dev, st.Ino, st.Ino == 0xEFFFFFFC, nil
}
