package user_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user/inject"

	"golang.org/x/sys/unix"
)

// everything is probes of all entries and exits of a program of C.
func everything(x *elfText, program string) []runtime.Probe {
	fs := x.all()
	return append(x.entries(program, fs), x.anyExits(program, fs, uint64(len(fs)))...)
}

// cycles attaches to a program and detaches, again and again.
func cycles(t *testing.T, p *proc, x *elfText, n iter.Seq[int]) {
	t.Helper()
	probes := everything(x, "count")
	before := footprintOf(t, p.PID)
	for i := range n {
		s := load(t, x)
		attachSome(t, s, probes, runtime.Who{PIDs: []int{p.PID}})
		time.Sleep(time.Duration(i%5) * time.Millisecond)
		mustClose(t, s)
		p.alive()
		before.same(t, p.PID)
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
}

// TestHammer: threads do nothing but run into the jumps.
func TestHammer(t *testing.T) {
	for _, threads := range []string{"1", "50"} {
		t.Run(threads, func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			p := launch(t, x.path, "storm", threads)
			cycles(t, p, x, rounds(20, 500))
			p.Finish(unix.SIGUSR1)
		})
	}
}

// TestHandlers: signals interrupt programs and trampolines, and their handlers run into
// others, or take their time while everything is taken out.
func TestHandlers(t *testing.T) {
	for _, work := range [][]string{{"timers"}, {"slow", "0"}, {"slow", "40"}, {"slow", "300"}, {"slowalt", "0"}, {"slowalt", "200"}} {
		t.Run(strings.Join(work, "-"), func(t *testing.T) {
			x := openText(t, compile(t, enemy))
			p := launch(t, x.path, work...)
			cycles(t, p, x, rounds(15, 500))
			var done, handled int
			if s := p.Finish(unix.SIGUSR1); true {
				if _, err := fmt.Sscanf(s, "work %d handled %d", &done, &handled); err != nil || done == 0 || handled == 0 {
					t.Error(s)
				}
			}
		})
	}
}

// TestMapping: the program maps memory all the time, also where trampolines go.
func TestMapping(t *testing.T) {
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "maps")
	cycles(t, p, x, rounds(20, 500))
	p.Finish(unix.SIGUSR1)
}

// TestGivenUp: attaching is given up at any moment.
func TestGivenUp(t *testing.T) {
	x := openText(t, compile(t, enemy))
	p := launch(t, x.path, "storm", "2")
	probes := everything(x, "count")
	before := footprintOf(t, p.PID)
	cancelled := 0
	for i := range rounds(60, 1000) {
		s := load(t, x)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(60_000))*time.Microsecond)
		_, err := s.Attach(ctx, probes, runtime.Who{PIDs: []int{p.PID}})
		cancel()
		if err != nil {
			cancelled++
			if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, inject.ErrBusy) {
				t.Error(err)
			}
		}
		mustClose(t, s)
		p.alive()
		before.same(t, p.PID)
		if t.Failed() {
			t.Fatalf("in round %d", i)
		}
	}
	t.Logf("%d were given up", cancelled)
	p.Finish(unix.SIGUSR1)
}
