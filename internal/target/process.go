package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running process. It stays this process, whatever happens to its pid,
// until it is closed.
type Process struct {
	PID   int
	Start uint64 // its start, in clock ticks since boot: with the pid, its identity
	Comm  string
	// Exe is the executable's path as the process's own mount namespace has it, for
	// messages.
	Exe string
	// Path opens the executable from here: Exe itself if that is the same file, else
	// a path below /proc, which works while the process lives.
	Path string
	// Deleted: the executable's file has been removed or replaced since.
	Deleted bool

	fd *os.File // a pidfd
}

// Open finds a process by its pid. The error is ErrGone if there is none,
// ErrNoExecutable for a kernel thread, or an os.ErrPermission.
func Open(pid int) (*Process, error) {
	p, err := open(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

func open(pid int) (*Process, error) {
	if pid <= 0 {
		return nil, ErrGone
	}
	// Threads have a place in /proc too, though it does not list them.
	leader, err := tgid(pid)
	if err != nil {
		return nil, err
	}
	if leader != pid {
		return nil, fmt.Errorf("is a thread of process %d", leader)
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, gone(os.NewSyscallError("pidfd_open", err))
	}
	p := &Process{PID: pid, fd: os.NewFile(uintptr(fd), "pidfd")}
	if err := p.read(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Process) read() error {
	st, err := readStat(p.PID)
	if err != nil {
		return err
	}
	p.Start, p.Comm = st.start, st.comm
	link := proc(p.PID, "exe")
	exe, err := os.Readlink(link)
	if errors.Is(err, os.ErrNotExist) {
		// A process that has ended has no memory left, and kernel threads never had.
		if st.state == 'Z' || !p.Alive() {
			return ErrGone
		}
		return ErrNoExecutable
	}
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("it is not this user's, or has capabilities that this one lacks; CAP_SYS_PTRACE would do: %w", err)
	}
	if err != nil {
		return gone(err)
	}
	p.Exe, p.Deleted = strings.CutSuffix(exe, deleted)
	p.Path = p.find(p.Exe, link)
	if p.Path == link && !p.Deleted {
		p.Deleted = true // another file has its name now
	}
	// All of this was read of this process and not of one with the same pid.
	if !p.Alive() {
		return ErrGone
	}
	return nil
}

// find returns a path by which this process can open the file that the link below
// /proc leads to, and which the traced process calls name.
func (p *Process) find(name, link string) string {
	want, err := os.Stat(link)
	if err != nil || !filepath.IsAbs(name) {
		return link
	}
	for _, path := range []string{name, proc(p.PID, "root") + name} {
		if got, err := os.Stat(path); err == nil && os.SameFile(got, want) {
			return path
		}
	}
	return link
}

// Close lets go of the process.
func (p *Process) Close() error { return p.fd.Close() }

// Alive reports whether the process has not ended.
func (p *Process) Alive() bool {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	_ = conn.Control(func(fd uintptr) { alive = !readable(fd) })
	return alive
}

// readable is what a pidfd becomes when all threads have ended.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err != nil || n > 0
		}
	}
}

// Signal sends the process a signal. It is no error if it has ended. It goes through the
// pidfd, for the pid may be another's as soon as the process has been waited for.
func (p *Process) Signal(sig unix.Signal) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if serr == unix.ESRCH {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", serr)
}

// Wait returns nil when the process has ended, or ctx's error. Only one may be
// under way.
func (p *Process) Wait(ctx context.Context) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	if err := p.fd.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.fd.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	err = conn.Read(readable)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// Maps are the process's mappings, in order of address.
func (p *Process) Maps() ([]Mapping, error) {
	b, err := os.ReadFile(proc(p.PID, "maps"))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.PID, gone(err))
	}
	// One that is about to end, or whose leader has, has no memory left; nor can be told
	// what it has while it executes a program.
	if len(b) == 0 || !p.Alive() {
		return nil, fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	return parseMaps(b), nil
}

// FilePath opens the file of a mapping from here, as Path does the executable.
// Mappings of files that have been removed need CAP_SYS_ADMIN or
// CAP_CHECKPOINT_RESTORE.
func (p *Process) FilePath(m Mapping) string {
	return p.find(m.Path, fmt.Sprintf("%s/%x-%x", proc(p.PID, "map_files"), m.Start, m.End))
}

// Address is where an offset of a file is in memory, executable; the file is
// that of one of ms.
func Address(ms []Mapping, dev string, inode, offset uint64) (uint64, bool) {
	for _, m := range ms {
		if m.Exec && m.Dev == dev && m.Inode == inode && m.Offset <= offset && offset-m.Offset < m.End-m.Start {
			return m.Start + offset - m.Offset, true
		}
	}
	return 0, false
}

// Threads are the ids of the process's threads.
func (p *Process) Threads() ([]int, error) {
	es, err := os.ReadDir(proc(p.PID, "task"))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.PID, gone(err))
	}
	var ids []int
	for _, e := range es {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	if !p.Alive() {
		return nil, fmt.Errorf("process %d: %w", p.PID, ErrGone)
	}
	return ids, nil
}

// Alive reports whether a process that was seen with this pid and start has not
// ended.
func Alive(pid int, start uint64) bool {
	st, err := readStat(pid)
	return err == nil && st.start == start && st.state != 'Z' && st.state != 'X'
}

// PIDs are the processes that there are.
func PIDs() (pids []int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// SameFile says whether two paths lead to one file.
func SameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// Comm is the name of a thread, "" if it has ended.
func Comm(tid int) string {
	b, err := os.ReadFile(proc(tid, "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// gone turns what the kernel says of processes that are not there into ErrGone.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Libraries are the files beside its executable that the process has mapped code of now,
// by the path that opens them from here and by the process's own.
func (p *Process) Libraries() (files [][2]string, err error) {
	ms, err := p.Maps()
	if err != nil {
		return nil, err
	}
	seen := map[uint64]bool{}
	for _, m := range ms {
		if !m.Exec || m.Inode == 0 || m.Path == p.Exe || !filepath.IsAbs(m.Path) || seen[m.Inode] {
			continue
		}
		seen[m.Inode] = true
		files = append(files, [2]string{p.FilePath(m), m.Path})
	}
	return files, nil
}
