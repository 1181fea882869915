package oracle

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
)

// A script of testdata/scripts: it runs as it is, and its comments say how, and with what
// outcome.
//
//	// run: scripts fields      a fixture and its arguments; without, the tracer alone runs it
//	// builds: release          some of the profiles debug and release
//	// runtimes: kernel         where not both will do
//	// flags: --unsafe          of ferrotrace run
//	/* prints:                  what it prints; without, what the program itself prints
//	...
//	*/
//	/* fails:                   what it fails with before anything is attached
//	...
//	*/
type script struct {
	file          string
	run           []string
	flags         []string
	builds, on    []string
	prints, fails *string
}

func readScript(t *testing.T, file string) script {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := script{file: file, builds: []string{"debug", "release"}, on: runtimes}
	for line := range strings.Lines(string(b)) {
		for key, to := range map[string]*[]string{"run": &s.run, "builds": &s.builds, "runtimes": &s.on, "flags": &s.flags} {
			if v, ok := strings.CutPrefix(line, "// "+key+": "); ok {
				*to = strings.Fields(strings.ReplaceAll(v, ",", " "))
			}
		}
	}
	for key, to := range map[string]**string{"prints": &s.prints, "fails": &s.fails} {
		if _, v, ok := strings.Cut(string(b), "\n/* "+key+":\n"); ok {
			v, _, _ = strings.Cut(v, "*/\n")
			*to = &v
		}
	}
	if s.run == nil && s.prints == nil && s.fails == nil {
		t.Fatalf("%s says neither what it is run on nor what it prints", file)
	}
	return s
}

// command runs a script to its end.
func (s script) command(t *testing.T, bin, rt string, program []string) (printed, said, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out := filepath.Join(t.TempDir(), "out")
	args := append([]string{"run", "-q", "--runtime", rt, "--out", out}, s.flags...)
	args = append(args, filepath.Base(s.file))
	if len(program) > 0 {
		args = append(append(args, "--"), program...)
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = filepath.Dir(s.file)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if failed := err != nil; failed != (s.fails != nil) {
		t.Fatalf("ferrotrace %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	b, err := os.ReadFile(out)
	if err != nil && s.fails == nil {
		t.Fatal(err)
	}
	return string(b), stdout.String(), stderr.String()
}

// check compares what a script did with what it should have done.
func (s script) check(t *testing.T, printed, said, errs string) {
	t.Helper()
	trim := func(s string) string { return strings.Trim(s, "\n") }
	got, want := printed, said
	switch {
	case s.fails != nil:
		got, want = errs, *s.fails
	case s.prints != nil:
		want = *s.prints
	}
	if trim(got) != trim(want) {
		t.Errorf("got:\n%s\nwant:\n%s\nstandard error:\n%s", trim(got), trim(want), errs)
	}
}

// scriptsIn are the corpus' cases in a directory of it.
func scriptsIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../testdata/scripts", dir, "*.bt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	return files
}

// TestScripts: scripts on Rust's values print the same on both runtimes and of both
// builds: what the program itself prints, or what they say.
func TestScripts(t *testing.T) {
	bin := tool(t)
	for _, file := range scriptsIn(t, "rust") {
		s := readScript(t, file)
		for _, p := range profiles[:2] {
			if !slices.Contains(s.builds, p.Name) {
				continue
			}
			program := fixture.Build(t, s.run[0], p)
			for _, rt := range s.on {
				t.Run(fmt.Sprintf("%s/%s/%s", strings.TrimSuffix(filepath.Base(file), ".bt"), p.Name, rt), func(t *testing.T) {
					program := program
					if rt == "kernel" {
						program = fixture.Private(t, program)
					}
					printed, said, errs := s.command(t, bin, rt, append([]string{program}, s.run[1:]...))
					s.check(t, printed, said, errs)
				})
			}
		}
	}
}

// TestLanguage: scripts that need no process, which the tracer runs for anyone.
func TestLanguage(t *testing.T) {
	bin, err := ferrotrace()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range scriptsIn(t, "language") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bt"), func(t *testing.T) {
			t.Parallel()
			s := readScript(t, file)
			printed, said, errs := s.command(t, bin, "auto", nil)
			s.check(t, printed, said, errs)
		})
	}
}
