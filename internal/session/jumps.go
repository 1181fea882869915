package session

import (
	"fmt"
	"slices"

	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/target"
)

// jumpsError: the user runtime's jumps are in a process.
type jumpsError struct{ pid int }

func (e *jumpsError) Error() string {
	return fmt.Sprintf("process %d has probes of another ferrotrace, or of one that was killed, in its code; the kernel's on top of them would end it", e.pid)
}

func (e *jumpsError) Hint() string {
	return fmt.Sprintf("end that trace; what a killed one has left is taken out by tracing the process with --runtime user -p %d", e.pid)
}

// jumps looks for the user runtime's jumps in the processes that the kernel would probe.
// It takes the instruction that it probes from the file, writes a breakpoint over
// whatever is there in memory, and goes on behind it, which may be inside of a jump. To
// follow a command's children it does so in every process that runs the file.
func (r *run) jumps() error {
	pids, err := target.PIDs()
	if err != nil {
		return err
	}
	var inodes []uint64
	for _, f := range r.files {
		inodes = append(inodes, inode(f.path))
	}
	for _, pid := range pids {
		p, err := target.Open(pid)
		if err != nil {
			continue // it is none, or has ended
		}
		maps, err := p.Maps()
		p.Close()
		if err != nil {
			continue
		}
		if slices.ContainsFunc(maps, user.Ours) && slices.ContainsFunc(maps, func(m target.Mapping) bool { return m.Exec && slices.Contains(inodes, m.Inode) }) {
			return &jumpsError{pid}
		}
	}
	return nil
}
