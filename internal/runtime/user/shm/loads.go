package shm

import (
	"sync/atomic"
	"time"
)

// A thread that has loaded or unloaded a library rings, puts the number of its process
// into a free slot, and waits until the tracer has taken it out again, or for as long as
// it may. Offsets from OffLoads:
const (
	// LoadRung: u32, changed whenever a thread has rung. It is a futex.
	LoadRung = 0
	// LoadLate: u32, how often a thread went on without an answer.
	LoadLate = 4
	// LoadAbsent: u32, 1 if it is of no use to wait.
	LoadAbsent = 8
	// LoadBeat: u32, changed by the tracer all the time, as long as it lives.
	LoadBeat = 12
	// LoadSlots: a u32 each, the process that a thread waits in, or 0. Each is a futex.
	LoadSlots    = 16
	NumLoadSlots = 8
)

// Loads is the tracer's side of that.
type Loads struct{ m *Memory }

// Loads are what the processes that share the memory tell of libraries.
func (m *Memory) Loads() Loads { return Loads{m} }

func (l Loads) word(off uint64) *uint32 { return l.m.u32(OffLoads + off) }

// Await waits until a thread rings, if none has since Await returned rung, or a time has
// passed.
func (l Loads) Await(rung uint32, d time.Duration) uint32 {
	w := l.word(LoadRung)
	if now := atomic.LoadUint32(w); now != rung {
		return now
	}
	futexWait(w, rung, d)
	return atomic.LoadUint32(w)
}

// Ring makes Await return.
func (l Loads) Ring() {
	w := l.word(LoadRung)
	atomic.AddUint32(w, 1)
	futexWake(w)
}

// Waiting are the processes in which threads wait. Their numbers are what they say.
func (l Loads) Waiting() (pids []int) {
	for i := range uint64(NumLoadSlots) {
		if pid := atomic.LoadUint32(l.word(LoadSlots + 4*i)); pid != 0 {
			pids = append(pids, int(pid))
		}
	}
	return pids
}

// Answer lets the threads of a process go on, of all processes if pid is 0.
func (l Loads) Answer(pid int) {
	for i := range uint64(NumLoadSlots) {
		w := l.word(LoadSlots + 4*i)
		if old := atomic.LoadUint32(w); old != 0 && (pid == 0 || int(old) == pid) && atomic.CompareAndSwapUint32(w, old, 0) {
			futexWake(w)
		}
	}
}

// SetAbsent says whether it is of no use to wait for the tracer.
func (l Loads) SetAbsent(absent bool) {
	v := uint32(0)
	if absent {
		v = 1
	}
	atomic.StoreUint32(l.word(LoadAbsent), v)
}

// Beat shows that the tracer lives.
func (l Loads) Beat() { atomic.AddUint32(l.word(LoadBeat), 1) }

// Late is how often threads went on without an answer.
func (l Loads) Late() uint32 { return atomic.LoadUint32(l.word(LoadLate)) }
