package oracle

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

// buildFlags are the ways in which random programs are compiled.
var buildFlags = []string{
	"-Copt-level=0",
	"-Copt-level=3",
	"-Copt-level=2 -Ccodegen-units=1",
	"-Copt-level=1",
	"-Copt-level=s",
	"-Copt-level=3 -Clto=fat -Ccodegen-units=1",
	"-Copt-level=2 -Cforce-frame-pointers=yes",
	"-Copt-level=3 -Cdwarf-version=5 -Ccodegen-units=1",
	"-Copt-level=0 -Cdwarf-version=5 -Cforce-frame-pointers=yes",
	"-Copt-level=1 -Cdwarf-version=5 -Cforce-frame-pointers=yes",
	"-Copt-level=z",
}

// TestRandom traces random programs. FERROTRACE_RANDOM=N tries N of them, from the
// seed FERROTRACE_SEED on; FERROTRACE_KEEP is a directory that those found lying are
// left in. What it may still find are values at inlined instances that the debug info
// itself has wrong: LLVM simplifies the computation of a value of which but some bits
// are used, or none, and goes on stating it as the variable's.
func TestRandom(t *testing.T) {
	tool(t)
	if _, err := exec.LookPath("rustc"); err != nil {
		t.Skip("skipped: no rustc on the PATH; scripts/setup.sh installs it")
	}
	programs, seed := number(t, "FERROTRACE_RANDOM", 4), number(t, "FERROTRACE_SEED", 10)
	for i := range programs {
		flags := buildFlags[(seed+i)%len(buildFlags)]
		t.Run(strconv.Itoa(seed+i)+strings.ReplaceAll(flags, " ", ""), func(t *testing.T) {
			random(t, uint64(seed+i), strings.Fields(flags))
		})
	}
}

func number(t *testing.T, variable string, def int) int {
	s := os.Getenv(variable)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

func random(t *testing.T, seed uint64, flags []string) {
	dir := t.TempDir()
	source, program := filepath.Join(dir, "random.rs"), filepath.Join(dir, "random")
	text, pure := generate(seed, 40)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv("FERROTRACE_KEEP"); keep != "" {
		t.Cleanup(func() {
			if t.Failed() {
				os.Rename(source, filepath.Join(keep, strconv.FormatUint(seed, 10)+".rs"))
				os.Rename(program, filepath.Join(keep, strconv.FormatUint(seed, 10)))
			}
		})
	}
	cmd := exec.Command("rustc", append([]string{"--edition=2021", "-g", "-o", program, source}, flags...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rustc: %v\n%.3000s", err, out)
	}
	for _, rt := range runtimes {
		t.Run(rt, func(t *testing.T) { randomOn(t, rt, program, pure) })
	}
}

func randomOn(t *testing.T, rt, program string, pure map[string]bool) {
	truth, events := run(t, rt, "count", "random::f::**", "random::c::**", "--", program)
	told := map[string]uint64{}
	for _, l := range truth {
		if l.Kind == fixture.Call {
			told[fixture.Path(l.Path)]++
		}
	}
	counts, inexact := map[string]uint64{}, map[string]bool{}
	for _, e := range events {
		if c, ok := e.(event.Count); ok {
			path := fixture.Path(c.Function)
			counts[path] += c.Count
			inexact[path] = inexact[path] || !c.Exact
		}
	}
	right, approx := 0, 0
	for path, n := range told {
		switch counted, ok := counts[path]; {
		case !ok || inexact[path]:
			approx++
		case pure[path] && counted < n:
			t.Logf("%s: counted %d; the compiler has left no more of %d calls", path, counted, n)
		case counted != n:
			t.Errorf("%s: counted %d, made %d", path, counted, n)
		default:
			right++
		}
	}
	t.Logf("%d counts exact and right, %d inexact or not there", right, approx)

	truth, events = run(t, rt, "trace", "random::f::**", "random::c::**", "--", program)
	for _, e := range events {
		// rustc may state *const [T] for a &[T] whose indexing it has inlined.
		if c, ok := e.(event.Call); ok {
			for i := range c.Args {
				if strings.HasPrefix(c.Args[i].Text, "Pointer { addr: 0x") {
					c.Args[i] = event.Value{Name: c.Args[i].Name, Missing: "a pointer in the debug info"}
				}
			}
		}
	}
	v := check(t, truth, events, func(path string, told, traced int) bool {
		_, there := counts[path]
		return inexact[path] || !there && traced == 0 || pure[path] && traced < told
	})
	if v.Right == 0 {
		t.Error("no value was compared")
	}
	imprecise(t, truth, events, v)
}

// imprecise looks at the calls that can't be told apart: each value must be one that
// was told of some call.
func imprecise(t *testing.T, truth []fixture.Line, events []event.Event, v fixture.Verdict) {
	uneven := map[string]bool{}
	for _, u := range v.Uneven {
		uneven[u.Path] = true
	}
	type key struct{ path, name, text string }
	told := map[key]bool{}
	for _, l := range truth {
		for _, a := range l.Args {
			told[key{fixture.Path(l.Path), a.Name, ""}] = true
			told[key{fixture.Path(l.Path), a.Name, a.Text}] = true
		}
	}
	for _, e := range events {
		c, ok := e.(event.Call)
		if !ok || !uneven[fixture.Path(c.Function)] {
			continue
		}
		for _, a := range c.Args {
			path := fixture.Path(c.Function)
			if a.Missing == "" && !a.Truncated && !a.Partial && told[key{path, a.Name, ""}] && !told[key{path, a.Name, a.Text}] {
				t.Errorf("%s(%s): traced %s, never told", c.Function, a.Name, a.Text)
			}
		}
	}
}
