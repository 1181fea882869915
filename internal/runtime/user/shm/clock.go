package shm

import (
	"math/bits"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Calibrator keeps the clock of shared memory in step with CLOCK_MONOTONIC, which
// the kernel's time keeping bends a little all the time. It is not safe for
// concurrent use.
type Calibrator struct {
	usable    bool
	first     sample
	clock     Clock // that was published last
	published bool
}

// Clock turns a time-stamp counter into nanoseconds of CLOCK_MONOTONIC: the upper
// 64 bits of tsc*Mult, plus Offset.
type Clock struct{ Mult, Offset uint64 }

// At is the time at tsc.
func (c Clock) At(tsc uint64) uint64 {
	hi, _ := bits.Mul64(tsc, c.Mult)
	return hi + c.Offset
}

type sample struct{ tsc, ns uint64 }

// minSpan is the least time in ns between two samples that a rate is made of.
const minSpan = 2_000_000

// slew is the time in ns within which a difference is made up for, and step the
// difference at which that is not worth it.
const (
	slew = 1_000_000_000
	step = 1_000_000
)

// NewCalibrator takes a first sample: the longer before Publish, the better its
// rate.
func NewCalibrator() *Calibrator {
	c := &Calibrator{usable: invariantTSC()}
	if c.usable {
		c.first = takeSample()
	}
	return c
}

// invariantTSC says whether the counter runs at one rate on all CPUs: the processor
// promises it (SDM, 17.17.1), and the kernel has not found it to be untrue.
func invariantTSC() bool {
	if !cpuInvariantTSC() {
		return false
	}
	source, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return false
	}
	switch s := strings.TrimSpace(string(source)); {
	case s == "tsc", s == "kvm-clock", s == "xen", strings.HasPrefix(s, "hyperv"):
		return true
	}
	return false
}

// takeSample reads both clocks as closely together as it can.
func takeSample() sample {
	var best sample
	width := ^uint64(0)
	for range 32 {
		before := rdtsc()
		ns := monotonic(unix.CLOCK_MONOTONIC)
		after := rdtsc()
		if after-before < width {
			width = after - before
			best = sample{before + width/2, ns}
		}
	}
	return best
}

func monotonic(id int32) uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// Publish makes m's clock right for now. It should be called about once a second
// while programs run. Time does not jump where it is called, unless it was far off.
func (c *Calibrator) Publish(m *Memory) {
	if !c.usable {
		return // the multiplier 0 has programs ask the kernel
	}
	now := takeSample()
	if span := now.ns - c.first.ns; span < minSpan {
		time.Sleep(time.Duration(minSpan - span))
		now = takeSample()
	}
	ticks, ns := now.tsc-c.first.tsc, now.ns-c.first.ns
	if ns >= ticks { // a counter below 1 GHz does not fit the format
		c.usable = false
		return
	}
	rate, _ := bits.Div64(ns, 0, ticks)
	next := clockThrough(rate, now.tsc, now.ns)
	if c.published {
		is := c.clock.At(now.tsc)
		if off := int64(now.ns - is); off > -step && off < step {
			// Meet the true line one slew from here.
			hi, lo := bits.Mul64(slew, ticks)
			ahead, _ := bits.Div64(hi, lo, ns)
			slewed, _ := bits.Div64(uint64(slew+off), 0, ahead)
			next = clockThrough(slewed, now.tsc, is)
		}
	}
	// The rate is that of the last seconds, not of all time.
	if now.ns-c.first.ns > 64*slew {
		c.first = now
	}
	c.clock, c.published = next, true
	m.publish(next)
}

func clockThrough(mult, tsc, ns uint64) Clock {
	c := Clock{Mult: mult}
	c.Offset = ns - c.At(tsc)
	return c
}

// publish writes the clock that is not valid, then makes it valid.
func (m *Memory) publish(c Clock) {
	next := ClockSize - atomic.LoadUint64(m.u64(OffClock))
	if next != 0 {
		next = ClockSize
	}
	at := OffClocks + next
	mono := monotonic(unix.CLOCK_MONOTONIC)
	atomic.StoreUint64(m.u64(at+ClockMult), c.Mult)
	atomic.StoreUint64(m.u64(at+ClockOffset), c.Offset)
	atomic.StoreUint64(m.u64(at+ClockBoot), roundMs(monotonic(unix.CLOCK_BOOTTIME)-mono))
	atomic.StoreUint64(m.u64(at+ClockTAI), monotonic(unix.CLOCK_TAI)-mono)
	atomic.StoreUint64(m.u64(OffClock), next)
}

// roundMs removes the time between two readings of clocks that differ by the time
// that the machine slept.
func roundMs(ns uint64) uint64 { return ns / 1_000_000 * 1_000_000 }

func rdtsc() uint64

func cpuInvariantTSC() bool
