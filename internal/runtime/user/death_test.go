package user_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/runtime"
	"ferrotrace/internal/runtime/user"
	"ferrotrace/internal/runtime/user/proctest"

	"golang.org/x/sys/unix"
)

const mortal = "inject/testdata/mortal.c"

// endWait is how long an end may take to be noticed on a busy machine.
const endWait = 20 * time.Second

// TestDeath: a process ends in any way and at any moment, on its own or another's account.
// Whoever waits for it learns of it before the session is closed, and nothing of that stays.
func TestDeath(t *testing.T) {
	x := openText(t, compile(t, mortal))
	probes := everything(x, "write")
	for how, want := range map[string]string{
		"exit": "exit status 3", "exitother": "exit status 3", "vfork": "exit status 3",
		"kill": "killed by SIGKILL", "abort": "killed by SIGABRT",
		"exec": "exit status 0", "execother": "exit status 0", "leader": "exit status 0",
	} {
		t.Run(how, func(t *testing.T) {
			for i := range rounds(20, 300) {
				before := goruntime.NumGoroutine()
				s := load(t, x)
				c := hold(t, x.path, how, fmt.Sprint(rand.IntN(30_000)))
				attachSome(t, s, probes, runtime.Who{PIDs: []int{c.PID}, Command: c})
				if err := s.Release(); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), endWait)
				over := context.AfterFunc(ctx, func() { t.Errorf("in round %d it does not end:\n%s", i, (&proctest.Process{PID: c.PID}).States()) })
				read := make(chan error, 1)
				reading, done := context.WithCancel(t.Context())
				go func() {
					read <- s.Read(reading, func([]byte) error { return nil }, func(uint64) error { return nil })
				}()
				if i%3 == 2 { // detached from at any moment
					time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond)
					if err := s.Detach(); err != nil && !strings.Contains(err.Error(), "stay mapped") {
						t.Errorf("in round %d: %v", i, err)
					}
				}
				if st, err := c.Wait(ctx); err != nil || st.String() != want {
					t.Errorf("in round %d it ended with %v, %v, not %s", i, st, err, want)
				}
				over()
				cancel()
				done()
				if err := <-read; err != nil {
					t.Errorf("in round %d: %v", i, err)
				}
				mustClose(t, s)
				quiet(t, before)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// TestModuleDeath: a process is killed while its threads load and unload a library.
func TestModuleDeath(t *testing.T) {
	host, x, probes := plugin(t, fixture.Debug)
	for i := range rounds(20, 300) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p := launch(t, host, "storm", x.path, "3")
			before := goruntime.NumGoroutine()
			var m told
			s := loadTold(t, &m, x)
			killed := make(chan error, 1)
			wait := time.Duration(rand.IntN(40_000)) * time.Microsecond
			if i%2 == 0 {
				go func() { time.Sleep(wait); killed <- unix.Kill(p.PID, unix.SIGKILL) }()
			}
			if _, err := s.Attach(t.Context(), probes, runtime.Who{PIDs: []int{p.PID}}); err != nil && !user.Over(err) {
				t.Error(err)
			}
			if i%2 != 0 {
				time.Sleep(wait)
				killed <- unix.Kill(p.PID, unix.SIGKILL)
			}
			if err := <-killed; err != nil {
				t.Error(err)
			}
			line := make(chan string, 1)
			go func() { l, _ := p.Out.ReadString('\n'); line <- l }()
			select {
			case l := <-line:
				if l != "status 137\n" {
					t.Errorf("it ended with %q", l)
				}
			case <-time.After(endWait):
				t.Errorf("nobody learns of its end:\n%s", p.States())
			}
			mustClose(t, s)
			quiet(t, before)
		})
	}
}

// quiet waits until there are no more goroutines than before.
func quiet(t testing.TB, before int) {
	t.Helper()
	for begin := time.Now(); goruntime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Since(begin) > endWait {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, there were %d:\n%s", goruntime.NumGoroutine(), before, b[:goruntime.Stack(b, true)])
		}
	}
}
