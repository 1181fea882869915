package inject

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/runtime/user/proctest"
	"ferrotrace/internal/target"
)

// TestDeath: a process ends in any way while its threads are stopped and let go. Whoever
// waits for it learns of it though its tracer does not detach.
func TestDeath(t *testing.T) {
	file := proctest.Compile(t, "-O1", "testdata/mortal.c")
	ways := map[string]string{
		"exit": "exit status 3", "exitother": "exit status 3", "vfork": "exit status 3",
		"kill": "killed by SIGKILL", "abort": "killed by SIGABRT",
		"exec": "exit status 0", "execother": "exit status 0", "leader": "exit status 0",
	}
	rounds := 6
	if os.Getenv("FERROTRACE_SOAK") != "" {
		rounds = 400
	}
	for how, want := range ways {
		for _, whose := range []string{"ours", "another's"} {
			t.Run(how+"/"+whose, func(t *testing.T) {
				t.Parallel()
				for i := range rounds {
					us := fmt.Sprint(rand.IntN(20_000))
					if !t.Run(fmt.Sprint(i), func(t *testing.T) {
						if whose == "ours" {
							mortalChild(t, i, want, file, how, us)
						} else {
							mortal(t, want, file, how, us, "loud")
						}
					}) {
						return
					}
				}
			})
		}
	}
}

// mortalChild traces a process that this one waits for.
func mortalChild(t *testing.T, i int, want string, argv ...string) {
	c, err := target.Start(argv)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer func() { _ = c.Kill() }()
	var tr *Tracee
	if i%3 == 0 {
		tr, err = AttachHeld(t.Context(), c)
	} else {
		c.Release()
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		tr, err = Attach(t.Context(), c.PID)
		for traced := (*TracedError)(nil); errors.As(err, &traced) && traced.Tracer == os.Getpid(); { // it is being released
			tr, err = Attach(t.Context(), c.PID)
		}
	}
	exercise(t, tr, err)
	ctx, cancel := context.WithTimeout(t.Context(), endWait)
	defer cancel()
	st, err := c.Wait(ctx)
	if err != nil {
		t.Errorf("it does not end: %v\n%s", err, (&proctest.Process{PID: c.PID}).States())
	} else if st.String() != want {
		t.Errorf("it ends with %v, not %s", st, want)
	}
	ended(t, tr)
}

// endWait is how long an end may take to be noticed on a busy machine.
const endWait = 20 * time.Second

// mortal traces a process that another one waits for.
func mortal(t *testing.T, want string, argv ...string) {
	p := proctest.Start(t, argv[0], argv[1:]...)
	time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
	tr, err := Attach(t.Context(), p.PID)
	exercise(t, tr, err)
	line := make(chan string, 1)
	go func() {
		s, err := p.Out.ReadString('\n')
		if err != nil {
			s = err.Error()
		}
		line <- strings.TrimSpace(s)
	}()
	select {
	case got := <-line:
		want = map[string]string{
			"exit status 0": "status 0", "exit status 3": "status 3",
			"killed by SIGKILL": "status 137", "killed by SIGABRT": "status 134",
		}[want]
		if got != want {
			t.Errorf("it ends with %s, not %s", got, want)
		}
	case <-time.After(endWait):
		t.Errorf("nobody learns of its end:\n%s", p.States())
	}
	ended(t, tr)
}

// exercise stops a process and lets it go until it has ended, or is another program.
func exercise(t *testing.T, tr *Tracee, err error) {
	ctx := t.Context()
	for begin := time.Now(); err == nil; {
		if time.Since(begin) > endWait {
			t.Error("its end is not noticed")
			break
		}
		switch rand.IntN(5) {
		case 0:
			_, err = tr.Gettid(ctx)
		case 1:
			if err = tr.Stop(ctx); err == nil {
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
				_, err = tr.Resume()
			}
		case 2:
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		default:
			if _, err = tr.StopAll(ctx); err == nil {
				_, err = tr.Resume()
			}
		}
		if errors.Is(err, ErrBusy) {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrExec) {
		t.Error(err)
	}
}

// ended verifies that a tracer whose process has ended can be asked and detached still.
func ended(t *testing.T, tr *Tracee) {
	if tr == nil {
		return
	}
	if _, err := tr.Gettid(context.Background()); !errors.Is(err, ErrGone) && !errors.Is(err, ErrExec) {
		t.Errorf("afterwards: %v", err)
	}
	if err := tr.Detach(); err != nil {
		t.Error(err)
	}
}
