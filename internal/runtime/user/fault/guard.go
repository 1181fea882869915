// Package fault lets programs in a traced process read foreign memory by plain
// instructions: where such a load faults, a handler of SIGSEGV and SIGBUS in the process
// continues it at its fixup. It decides, for each process, whether that is safe.
//
// Where it is not, programs read by system call (shm.ProcDirect is 0), which is always
// right and only slow. A fault while its signal is blocked ends the process whatever the
// handler, and one that another handler gets is that handler's; so direct reads need that
//
//   - this package's handler is that of both signals,
//   - no thread has either signal blocked, nor does any handler run so, but those of the
//     two signals themselves, which are entered by way of ours,
//   - what could change this is watched: calls of the C library, by probes at their
//     entries (Watches), which turn direct reads off before the call has its effect.
//
// It is established with all threads stopped, none of them on its way through one of
// the watched calls. A call that would replace our handler waits until no read is under
// way any more that began as a direct one. What a program does by system calls of its own
// is seen only when it is looked at again, about once a second.
//
// # The handler
//
// Every signal that is not the fault of such a load goes to the handler that the program
// has installed itself, with the registers, the stack and the mask it would have had, or
// has the default action. What a program can notice: rt_sigaction(2) returns another
// handler's address; a call that changes the action of one of the two signals may take
// some milliseconds; a signal's frame for a bad pointer needs room on the stack, where a
// thread may have none to spare in a handler on a small alternate stack; and one of the
// two signals that another process sends to a thread just when its read has failed, and
// before that is delivered, is dropped, for the kernel keeps one of a kind (legacy_queue
// in kernel/signal.c).
package fault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"ferrotrace/internal/runtime/user/inject"
	"ferrotrace/internal/runtime/user/jit"
	"ferrotrace/internal/runtime/user/shm"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoRoom: a handler that was found has no room for so many fixups.
	ErrNoRoom = errors.New("the handler has no room for the fixups")
	// ErrNoHandler: there is no handler at that place.
	ErrNoHandler = errors.New("there is no fault handler")
)

// Config says what a Guard is for.
type Config struct {
	// Block is the process block's address.
	Block uint64
	// Handler is memory for the handler, readable and executable, of at least Size bytes:
	// fresh, or with a handler in it that Remove left behind, which is used again.
	Handler inject.Region
	// Image is where programs are in the process, and Fixups are theirs.
	Image  inject.Range
	Fixups []jit.Fixup
	// Calls is the code in which a thread is between the entry of a watched call and its
	// effect: the functions named by Watches and Inner, and the trampolines of their probes.
	Calls []inject.Range
	// Unwatched are those of the Watches that should be watched but are not.
	Unwatched []string
}

// Guard decides about the direct reads of one process. It is not safe for concurrent
// use, and its calls must not come between other stops of the process and their Resume.
type Guard struct {
	t       *inject.Tracee
	handler inject.Region
	block   uint64
	image   inject.Range
	calls   []inject.Range
	never   string // why there can't be direct reads

	used      []slot
	installed map[unix.Signal]bool // whether one of the slots has been, by this Guard
	known     bool                 // the program may know the handler's address

	direct bool
	why    string
	since  time.Time     // of the last change of direct
	began  time.Time     // the first Check
	next   time.Time     // before, there is nothing to do but to read some words
	wait   time.Duration // how long after a refusal to look again
}

// slot is one that is used.
type slot struct {
	action inject.Sigaction
	sig    unix.Signal
}

var signals = [...]unix.Signal{unix.SIGSEGV, unix.SIGBUS}

// both is a mask of the two signals.
const both = 1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1)

const (
	// grace is how long a program is left alone that has no handlers of the two signals:
	// Rust's std installs its own, which report stack overflows, when a program starts, and
	// only if there are none.
	grace = time.Second
	// recheck is how often it is looked whether direct reads are right still.
	recheck = time.Second
	// minWait and maxWait bound the time from one refusal to the next look: a look takes a
	// stop, and a program may go on changing its mind.
	minWait = 20 * time.Millisecond
	maxWait = 2 * time.Second
	// stopWait bounds a stop.
	stopWait = 100 * time.Millisecond
	// drainSteps is how many instructions a thread is stepped out of a read.
	drainSteps = 300
	// settled is how long direct reads must have lasted for the program to be believed.
	settled = 10 * time.Second
)

// From include/uapi/asm-generic/signal-defs.h and arch/x86/include/uapi/asm/signal.h.
const (
	saSiginfo   = 0x4
	saRestorer  = 0x04000000
	saOnstack   = 0x08000000
	saResethand = 0x80000000

	sigIgn = 1
)

// New puts the handler and its fixups into the process. It does nothing yet: Check
// installs it. The memory is the caller's; see Remove for when it may be unmapped.
func New(ctx context.Context, t *inject.Tracee, c Config) (*Guard, error) {
	table, size, err := table(c.Fixups)
	if err != nil {
		return nil, err
	}
	g, err := Open(ctx, t, c.Handler)
	switch {
	case errors.Is(err, ErrNoHandler):
		if c.Handler.Size < Size(len(c.Fixups)) {
			return nil, ErrNoRoom
		}
		g = &Guard{t: t, handler: c.Handler}
		b := make([]byte, offCode, offCode+len(code))
		copy(b, magic)
		if err := t.WriteMem(ctx, append(b, code...), c.Handler.Addr); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case c.Handler.Size < Size(len(c.Fixups)):
		return nil, ErrNoRoom
	}
	g.block, g.image, g.calls, g.wait, g.installed = c.Block, c.Image, c.Calls, minWait, map[unix.Signal]bool{}
	if len(c.Unwatched) > 0 {
		g.never = fmt.Sprintf("%s of its C library cannot be watched", c.Unwatched[0])
	}
	g.why = "the process has just begun to be traced"
	if g.never != "" {
		g.why = g.never
	}
	if err := g.write32(ctx, g.block+shm.ProcTraced, 1); err != nil {
		return nil, err
	}
	// A thread may be in a handler that was left behind: it finds no fixups, or all.
	h := make([]byte, offUsed-offBlock)
	binary.LittleEndian.PutUint64(h, c.Block)
	binary.LittleEndian.PutUint64(h[offImage-offBlock:], c.Image.Start)
	binary.LittleEndian.PutUint32(h[offSize-offBlock:], size)
	binary.LittleEndian.PutUint32(h[offCount-offBlock:], uint32(len(c.Fixups)))
	for _, w := range []struct {
		off int
		b   []byte
	}{{offCount, make([]byte, 4)}, {offCode + len(code), table}, {offBlock, h}} {
		if err := t.WriteMem(ctx, w.b, c.Handler.Addr+uint64(w.off)); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Open finds the handler that another Guard has put into a process: the one that the
// process was forked from, or one whose tracer was killed. The Guard is for Remove. The
// error is ErrNoHandler if there is none.
func Open(ctx context.Context, t *inject.Tracee, r inject.Region) (*Guard, error) {
	h := make([]byte, offNone)
	if r.Size < Size(0) {
		return nil, ErrNoHandler
	}
	if err := t.ReadMem(ctx, h, r.Addr); err != nil {
		return nil, err
	}
	used := binary.LittleEndian.Uint32(h[offUsed:])
	if string(h[:len(magic)]) != magic || used > slots {
		return nil, ErrNoHandler
	}
	g := &Guard{t: t, handler: r, installed: map[unix.Signal]bool{}, block: binary.LittleEndian.Uint64(h[offBlock:])}
	g.known = binary.LittleEndian.Uint32(h[offKnown:]) != 0
	for i := range used {
		b := h[offSlots+slotSize*i:]
		s := slot{sig: unix.Signal(binary.LittleEndian.Uint32(b[offSignal:]))}
		if _, err := binary.Decode(b, binary.LittleEndian, &s.action); err != nil {
			return nil, err
		}
		g.used = append(g.used, s)
		g.installed[s.sig] = true
	}
	return g, nil
}

// Direct reports whether programs read directly, as of the last Check, and if not, why.
func (g *Guard) Direct() (bool, string) { return g.direct, g.why }

// Check looks what has become of the process, and turns direct reads on or off. It is to
// be called all the time, every 10 to 50 ms, from when the process runs: a command not
// before it is released. Mostly it reads a few words; where it seems that direct reads can
// be turned on, it stops all threads for about half a millisecond.
//
// After an error they are off, or are turned off by the process itself as they should be.
func (g *Guard) Check(ctx context.Context) error {
	now := time.Now()
	if g.began.IsZero() {
		g.began = now
	}
	if err := g.read(ctx, now); err != nil {
		return err
	}
	if g.never != "" || now.Before(g.next) {
		return nil
	}
	why, err := g.surmise(now)
	if err == nil && why == "" && !g.direct {
		why, err = g.establish(ctx)
	}
	took := time.Since(now)
	now = now.Add(took)
	if err != nil || why != "" {
		if g.direct {
			err = errors.Join(err, g.write32(ctx, g.block+shm.ProcDirect, 0))
		}
		if why == "" {
			why = err.Error()
		}
		g.off(why, now)
		return err
	}
	if !g.direct {
		g.direct, g.why, g.since = true, "", now
	}
	g.next = now.Add(max(recheck, 100*took)) // a process may have a thousand threads
	return nil
}

// off notes that reads are checked.
func (g *Guard) off(why string, now time.Time) {
	if g.direct && now.Sub(g.since) > settled {
		g.wait = minWait
	} else {
		g.wait = min(2*g.wait, maxWait)
	}
	if g.direct {
		g.direct, g.since = false, now
	}
	g.why, g.next = why, now.Add(g.wait)
}

// read reads what the process itself says.
func (g *Guard) read(ctx context.Context, now time.Time) error {
	b := make([]byte, shm.ProcDirected+4-shm.ProcConfig)
	if err := g.t.ReadMem(ctx, b, g.block+shm.ProcConfig); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b[shm.ProcSaved-shm.ProcConfig:]) != 0 {
		if err := g.setKnown(ctx); err != nil {
			return err
		}
	}
	if g.direct && binary.LittleEndian.Uint32(b[shm.ProcDirect-shm.ProcConfig:]) == 0 {
		g.off("the program is changing what its signals do", now)
	}
	if binary.LittleEndian.Uint32(b[shm.ProcDirected-shm.ProcConfig:]) == 2 {
		return g.drain(ctx)
	}
	return nil
}

// drain sees all threads out of direct reads, which are off, for one that is about to
// replace the handler and waits for it. If it can't, it is tried again next time.
func (g *Guard) drain(ctx context.Context) (err error) {
	if _, err := g.stop(ctx); err != nil {
		return ignoreBusy(err)
	}
	defer func() {
		_, rerr := g.t.Resume()
		err = errors.Join(err, rerr)
	}()
	threads, err := g.t.Threads(ctx)
	if err != nil {
		return err
	}
	for _, th := range threads {
		if !inside(g.image, th.Regs.Rip) || int64(th.Regs.Orig_rax) >= 0 {
			// In a system call it has no direct read under way: there is none in one.
			continue
		}
		if err := g.t.StepOut(ctx, th.TID, g.image, drainSteps); err != nil && !errors.Is(err, inject.ErrBusy) {
			return err
		}
	}
	// Those that were stepped are elsewhere; or before a system call; or in the handler,
	// for their read has failed.
	if threads, err = g.t.Threads(ctx); err != nil {
		return err
	}
	for _, th := range threads {
		if !inside(g.image, th.Regs.Rip) || int64(th.Regs.Orig_rax) >= 0 {
			continue
		}
		b := make([]byte, 2)
		if err := g.t.ReadMem(ctx, b, th.Regs.Rip); err != nil {
			return err
		}
		if b[0] != 0x0f || b[1] != 0x05 {
			return nil
		}
	}
	return g.write32(ctx, g.block+shm.ProcDirected, 0)
}

func inside(r inject.Range, addr uint64) bool { return r.Start <= addr && addr < r.End }

// stop stops all threads. It would be nice to have, no more: nobody waits long for it.
// The error is inject.ErrBusy if a thread does not stop.
func (g *Guard) stop(ctx context.Context) (*inject.Stopped, error) {
	short, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	st, err := g.t.StopAll(short)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = inject.ErrBusy
	}
	return st, err
}

func ignoreBusy(err error) error {
	if errors.Is(err, inject.ErrBusy) {
		return nil
	}
	return err
}

// setKnown notes that the program may know the handler's address, also for who comes
// after this tracer.
func (g *Guard) setKnown(ctx context.Context) error {
	if g.known || len(g.installed) == 0 {
		return nil
	}
	g.known = true
	return g.write32(ctx, g.handler.Addr+offKnown, 1)
}

func (g *Guard) write32(ctx context.Context, addr uint64, v uint32) error {
	return g.t.WriteMem(ctx, binary.LittleEndian.AppendUint32(nil, v), addr)
}

// surmise looks from outside whether there can be direct reads; why not, if not.
func (g *Guard) surmise(now time.Time) (why string, err error) {
	caught, err := caughtBy(g.t.PID)
	if err != nil {
		return "", err
	}
	if caught&both != both {
		if g.direct {
			return "the program took a signal's handler away", nil
		}
		if now.Sub(g.began) < grace {
			return "the program may be about to install its own handlers", nil
		}
	}
	if inject.Vforking(g.t.PID) {
		return "a child of vfork uses its memory", nil
	}
	return blocking(g.t.PID)
}

// establish installs the handler and turns direct reads on, if they are safe: why not,
// if not.
func (g *Guard) establish(ctx context.Context) (why string, err error) {
	stopped, err := g.stop(ctx)
	if errors.Is(err, inject.ErrBusy) {
		return "a thread does not stop", nil
	}
	if err != nil {
		return "", err
	}
	defer func() {
		_, rerr := g.t.Resume()
		err = errors.Join(err, rerr)
	}()
	threads, err := g.t.Threads(ctx)
	if err != nil {
		return "", err
	}
	for _, th := range threads {
		if th.PID != g.t.PID {
			return "a child of vfork uses its memory", nil
		}
		inCall := slices.ContainsFunc(g.calls, func(r inject.Range) bool { return inside(r, th.Regs.Rip) })
		if inCall && !waits[th.Regs.Orig_rax] {
			return "the program is changing what its signals do", nil
		}
	}
	for _, tid := range stopped.LeftAlone {
		if !inSyscall(g.t.PID, tid) {
			return "a thread does not stop", nil
		}
	}
	if why, err := blocking(g.t.PID); why != "" || err != nil {
		return why, err
	}
	if len(g.installed) == 0 {
		// What the program has asked so far was about its own.
		if err := g.write32(ctx, g.block+shm.ProcSaved, 0); err != nil {
			return "", err
		}
	}
	if why, err := g.masks(ctx); why != "" || err != nil {
		return why, err
	}
	var installs [len(signals)]*inject.Sigaction
	for i, sig := range signals {
		if installs[i], why, err = g.plan(ctx, sig); why != "" || err != nil {
			return why, err
		}
	}
	for i, a := range installs {
		if a != nil {
			if _, err := g.t.RtSigaction(ctx, int(signals[i]), a); err != nil {
				return "", err
			}
		}
		g.installed[signals[i]] = true
	}
	if err := g.write32(ctx, g.block+shm.ProcDirected, 1); err != nil {
		return "", err
	}
	return "", g.write32(ctx, g.block+shm.ProcDirect, 1)
}

// masks says which handler, if any, runs with one of the signals blocked.
func (g *Guard) masks(ctx context.Context) (why string, err error) {
	caught, err := caughtBy(g.t.PID)
	if err != nil {
		return "", err
	}
	for sig := 1; sig <= 64; sig++ {
		if caught>>(sig-1)&1 == 0 || both>>(sig-1)&1 != 0 {
			continue
		}
		a, err := g.t.RtSigaction(ctx, sig, nil)
		if err != nil {
			return "", err
		}
		if a.Mask&both != 0 {
			return fmt.Sprintf("its handler of signal %d runs with SIGSEGV or SIGBUS blocked", sig), nil
		}
	}
	return "", nil
}

// plan prepares a slot for a signal, and returns what is to be installed: nil if that is
// there.
func (g *Guard) plan(ctx context.Context, sig unix.Signal) (install *inject.Sigaction, why string, err error) {
	was, err := g.t.RtSigaction(ctx, int(sig), nil)
	if err != nil {
		return nil, "", err
	}
	name := unix.SignalName(sig)
	if _, ok := g.slotOf(sig, was.Handler); ok {
		if was.Flags&(saSiginfo|saRestorer|saResethand) != saSiginfo|saRestorer {
			return nil, fmt.Sprintf("the program has installed this handler of %s in its own way", name), nil
		}
		return nil, "", nil
	}
	switch {
	case was.Handler == sigIgn:
		return nil, fmt.Sprintf("the program ignores %s", name), nil
	case was.Handler == 0:
		quiet := make([]byte, 4)
		if err := g.t.ReadMem(ctx, quiet, g.block+shm.ProcQuiet); err != nil {
			return nil, "", err
		}
		// The handler would have to ask for the default action.
		if g.t.Seccomp() || binary.LittleEndian.Uint32(quiet) != 0 {
			return nil, fmt.Sprintf("the program has no handler of %s and its system calls are filtered", name), nil
		}
	case was.Flags&saResethand != 0:
		return nil, fmt.Sprintf("the program's handler of %s is for one signal only", name), nil
	case was.Flags&saRestorer == 0:
		return nil, fmt.Sprintf("the program's handler of %s cannot return", name), nil
	}
	if g.installed[sig] {
		// The program replaced ours, and may have asked what it was.
		if err := g.setKnown(ctx); err != nil {
			return nil, "", err
		}
	}
	want := slot{was, sig}
	i := slices.Index(g.used, want)
	if i < 0 {
		if i = len(g.used); i == slots {
			return nil, fmt.Sprintf("the program changes its handler of %s again and again", name), nil
		}
		b, err := binary.Append(nil, binary.LittleEndian, was)
		if err != nil {
			return nil, "", err
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(sig))
		if err := g.t.WriteMem(ctx, b, g.handler.Addr+uint64(offSlots+slotSize*i)); err != nil {
			return nil, "", err
		}
		if err := g.write32(ctx, g.handler.Addr+offUsed, uint32(i+1)); err != nil {
			return nil, "", err
		}
		g.used = append(g.used, want)
	}
	a := g.action(i)
	return &a, "", nil
}

// entry is the address of a slot's handler.
func (g *Guard) entry(i int) uint64 { return g.handler.Addr + uint64(offCode+entrySize*i) }

// action is what is installed for a slot: it has the flags and the mask of the program's
// handler, which it leads to.
func (g *Guard) action(i int) inject.Sigaction {
	a := g.used[i].action
	if a.Handler == 0 {
		// Where the stack has no room for a signal's frame, another may be there for that.
		return inject.Sigaction{Handler: g.entry(i), Flags: saSiginfo | saRestorer | saOnstack, Restorer: g.handler.Addr + offRestorer}
	}
	a.Handler = g.entry(i)
	a.Flags |= saSiginfo | saRestorer
	return a
}

// slotOf finds the slot that a handler stands for.
func (g *Guard) slotOf(sig unix.Signal, handler uint64) (int, bool) {
	for i, s := range g.used {
		if s.sig == sig && g.entry(i) == handler {
			return i, true
		}
	}
	return 0, false
}

// Remove turns direct reads off and puts back what the program had. No thread may be
// inside the image any more, for its faults would be the program's. Afterwards the
// process's block is not used any more.
//
// keep says that the handler must stay mapped: the program may have kept its address, to
// call it from a handler of its own. It then goes on to forward, and can be given to New
// again. If not, it can be unmapped once no thread is inside.
func (g *Guard) Remove(ctx context.Context) (keep bool, err error) {
	if g.block != 0 {
		if err := g.write32(ctx, g.block+shm.ProcDirect, 0); err != nil {
			return true, err
		}
		g.direct, g.why, g.never = false, "it was removed", "it was removed"
	}
	for _, sig := range signals {
		if err := g.putBack(ctx, sig); err != nil {
			return true, err
		}
	}
	if g.block != 0 {
		saved := make([]byte, 4)
		if err := g.t.ReadMem(ctx, saved, g.block+shm.ProcSaved); err != nil {
			return true, err
		}
		if binary.LittleEndian.Uint32(saved) != 0 {
			if err := g.setKnown(ctx); err != nil {
				return true, err
			}
		}
	}
	if err := g.t.WriteMem(ctx, make([]byte, offUsed-offBlock), g.handler.Addr+offBlock); err != nil {
		return true, err
	}
	g.block = 0
	return g.known, nil
}

// putBack puts back the program's own action, if ours is the current one.
func (g *Guard) putBack(ctx context.Context, sig unix.Signal) (err error) {
	if !g.installed[sig] {
		return nil
	}
	if err := g.t.Stop(ctx); err != nil {
		return err
	}
	defer func() {
		_, rerr := g.t.Resume()
		err = errors.Join(err, rerr)
	}()
	is, err := g.t.RtSigaction(ctx, int(sig), nil)
	if err != nil {
		return err
	}
	i, ok := g.slotOf(sig, is.Handler)
	if !ok {
		return g.setKnown(ctx)
	}
	own := g.used[i].action
	if is != g.action(i) {
		// It kept the handler and installed it anew, with other flags.
		own = inject.Sigaction{Handler: own.Handler, Flags: is.Flags, Restorer: is.Restorer, Mask: is.Mask}
		if err := g.setKnown(ctx); err != nil {
			return err
		}
	}
	was, err := g.t.RtSigaction(ctx, int(sig), &own)
	if err != nil || was == is {
		return err
	}
	// Another thread was faster: what it wants holds.
	if _, ours := g.slotOf(sig, was.Handler); ours {
		return g.setKnown(ctx)
	}
	if err := g.setKnown(ctx); err != nil {
		return err
	}
	_, err = g.t.RtSigaction(ctx, int(sig), &was)
	return err
}
