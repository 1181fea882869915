package target

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Mapping is a line of /proc/PID/maps.
type Mapping struct {
	Start, End uint64 // addresses
	Offset     uint64 // in the file
	Exec       bool
	Dev        string // "08:01"
	Inode      uint64 // 0: no file
	Path       string // as the process's mount namespace has it; with " (deleted)" cut off
	Deleted    bool
}

// parseMaps reads /proc/PID/maps (proc_pid_maps(5)). Lines that are not of its form
// are left out.
func parseMaps(b []byte) []Mapping {
	var ms []Mapping
	for line := range bytes.Lines(b) {
		if m, ok := parseMapping(strings.TrimSuffix(string(line), "\n")); ok {
			ms = append(ms, m)
		}
	}
	return ms
}

func parseMapping(line string) (m Mapping, ok bool) {
	field := func() (f string) {
		f, line, _ = strings.Cut(line, " ")
		return f
	}
	from, to, ok := strings.Cut(field(), "-")
	perms := field()
	offset := field()
	m.Dev = field()
	inode := field()
	if !ok || len(perms) < 4 {
		return m, false
	}
	for _, n := range []struct {
		to   *uint64
		text string
		base int
	}{{&m.Start, from, 16}, {&m.End, to, 16}, {&m.Offset, offset, 16}, {&m.Inode, inode, 10}} {
		v, err := strconv.ParseUint(n.text, n.base, 64)
		if err != nil {
			return m, false
		}
		*n.to = v
	}
	if m.End < m.Start {
		return m, false
	}
	m.Exec = perms[2] == 'x'
	// Of the bytes of a path only newline is escaped (show_map_vma in
	// fs/proc/task_mmu.c).
	m.Path = strings.ReplaceAll(strings.TrimLeft(line, " "), `\012`, "\n")
	m.Path, m.Deleted = strings.CutSuffix(m.Path, deleted)
	return m, true
}

const deleted = " (deleted)"

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	comm  string
	state byte   // 'Z': has ended, its parent has not asked yet
	start uint64 // clock ticks since boot
}

// parseStat finds the end of comm, which may hold any character, from behind.
func parseStat(b []byte) (s stat, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return s, fmt.Errorf("stat: %q", b)
	}
	s.comm = string(b[open+1 : end])
	f := strings.Fields(string(b[end+1:]))
	// The state is field 3 and starttime field 22.
	if len(f) < 20 || len(f[0]) != 1 {
		return s, fmt.Errorf("stat: %q", b)
	}
	s.state = f[0][0]
	if s.start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return s, fmt.Errorf("stat: %w", err)
	}
	return s, nil
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return stat{}, gone(err)
	}
	return parseStat(b)
}

// tgid is the thread group that a thread is in.
func tgid(tid int) (int, error) {
	b, err := os.ReadFile(proc(tid, "status"))
	if err != nil {
		return 0, gone(err)
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(text))
		}
	}
	return 0, fmt.Errorf("status of %d has no Tgid", tid)
}

func proc(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// shebang is the interpreter that the beginning of a file names.
func shebang(head []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", false
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) == 0 {
		return "", false
	}
	return string(f[0]), true
}
