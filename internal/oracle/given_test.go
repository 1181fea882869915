package oracle

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/index"
)

// signatures are patterns with the signatures of a crate's functions, as far as they can
// be given for a build without debug info: the build with debug info knows them.
func signatures(t *testing.T, crate string, typed, plain fixture.Profile) (patterns []string) {
	t.Helper()
	from, err := index.Open(fixture.Build(t, crate, typed), "")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	seen := map[string]int{}
	for _, fn := range from.Functions() {
		seen[fn.Name]++
	}
	for _, fn := range from.Functions() {
		params, ok := strings.CutPrefix(fn.Type(), "fn")
		if !strings.Contains(fn.Name, crate+"::") || !ok || seen[fn.Name] > 1 || strings.Contains(fn.Name, "::<") || strings.Contains(fn.Name, "{") {
			continue
		}
		if _, err := index.ParsePattern(fn.Name); err != nil {
			t.Log(err) // a symbol of the legacy scheme that is no path
			continue
		}
		patterns = append(patterns, fn.Name+params)
	}
	patterns, refused := accepted(t, fixture.Build(t, crate, plain), patterns)
	t.Logf("%d signatures, %d refused", len(patterns), refused)
	return patterns
}

// accepted are the signatures that can be given for functions of a program.
func accepted(t *testing.T, program string, patterns []string) (some []string, refused int) {
	t.Helper()
	ix, err := index.Open(program, "")
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	for _, text := range patterns {
		p, err := index.ParsePattern(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		found := ix.Find(p)
		if note, err := ix.Give(p, found); err != nil || note != "" {
			refused++
		} else if len(found) > 0 {
			some = append(some, text)
		}
	}
	return some, refused
}

// TestGiven: what a signature that is right makes of the registers of a program without
// debug info is what the program prints, whatever the optimiser has made of it.
func TestGiven(t *testing.T) {
	plain := []fixture.Profile{fixture.Plain}
	for _, c := range []struct {
		crate    string
		profiles []fixture.Profile
		right    int
		args     []string
	}{{"values", plain, 200, nil}, {"traps", append(plain, fixture.Limited), 150, nil},
		{"flow", plain, 500, []string{"recursion"}}, {"flow", plain, 20, []string{"exits"}}} {
		t.Run(strings.Join(append([]string{c.crate}, c.args...), " "), func(t *testing.T) {
			each(t, c.profiles, func(t *testing.T, p fixture.Profile, rt string) {
				patterns := signatures(t, c.crate, fixture.Release, p)
				args := append(patterns, "--", fixture.Build(t, c.crate, p))
				truth, events := run(t, rt, "trace", append(args, c.args...)...)
				v := check(t, truth, events, func(path string, told, traced int) bool {
					// Inlined calls have no name in such a file; merged ones another's.
					return traced < told || strings.HasPrefix(path, "traps::merged::") || path == "traps::arguments::tail_recursive"
				})
				if v.Right < c.right {
					t.Errorf("only %d values were right", v.Right)
				}
				for _, e := range events {
					if c, ok := e.(event.Call); ok {
						for _, a := range c.Args {
							if !a.Given {
								t.Errorf("%s: %+v is not marked as given", c.Function, a)
							}
						}
					}
				}
			})
		})
	}
}

// sourceSignatures are the signatures of the functions of a source of the crate given,
// as they stand there.
func sourceSignatures(t *testing.T, file string) (patterns []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^((?:extern "C" )?fn )(\w+\(.+\).*) \{$`).FindAllStringSubmatch(string(b), -1) {
		patterns = append(patterns, m[1]+"given::"+m[2])
	}
	return patterns
}

// TestGivenTraps: where the optimiser sees all calls, and takes arguments out or passes
// others in their place, nothing of that is shown as what it is not.
func TestGivenTraps(t *testing.T) {
	tool(t)
	const source = "testdata/given.rs"
	patterns := sourceSignatures(t, source)
	for _, c := range []struct {
		toolchain fixture.Toolchain
		name      string
		flags     []string
		right     int
		runtimes  []string
	}{
		{fixture.Toolchain{}, "one unit", []string{"-O", "-Ccodegen-units=1"}, 100, runtimes},
		{fixture.Toolchain{}, "lto", []string{"-O", "-Clto=fat"}, 80, runtimes[1:]},
		{fixture.Toolchain{}, "debug", []string{"-Copt-level=0"}, 200, runtimes[1:]},
		{fixture.Toolchain{}, "size", []string{"-Copt-level=s"}, 80, runtimes[1:]},
		{fixture.Toolchain{}, "panic=abort", []string{"-Copt-level=2", "-Cpanic=abort", "-Cforce-frame-pointers=yes"}, 80, runtimes[1:]},
		{fixture.Nightly, "one unit", []string{"-O", "-Ccodegen-units=1"}, 100, runtimes},
		{fixture.Nightly, "debug", []string{"-Copt-level=0"}, 200, runtimes[1:]},
		{fixture.Debian12, "one unit", []string{"-O", "-Ccodegen-units=1"}, 100, runtimes[1:]},
		{fixture.Debian12, "debug", []string{"-Copt-level=0"}, 150, runtimes[1:]},
	} {
		t.Run("rustc"+c.toolchain.Name+"/"+c.name, func(t *testing.T) {
			dir := t.TempDir()
			compile := func(args ...string) {
				t.Helper()
				args = append([]string{"--edition=2021", "--out-dir", dir, "-L", dir}, append(args, c.flags...)...)
				if out, err := exec.Command(c.toolchain.Rustc(t), args...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			compile("--crate-type=rlib", "--crate-name=truth", "../../testdata/fixtures/truth/src/lib.rs")
			compile("--extern=truth", source)
			patterns, refused := accepted(t, filepath.Join(dir, "given"), patterns)
			// Of what depends on the compiler's version nothing is said for one that was not tested.
			if old := c.toolchain == fixture.Debian12; old != (refused > 0) {
				t.Errorf("%d signatures are refused", refused)
			}
			for _, rt := range c.runtimes {
				t.Run(rt, func(t *testing.T) {
					truth, events := run(t, rt, "trace", append(slices.Clone(patterns), "--max-items", "256", "--", filepath.Join(dir, "given"))...)
					v := check(t, truth, events, func(_ string, told, traced int) bool {
						return traced > told || traced == 0 && refused > 0
					})
					if v.Right < c.right {
						t.Errorf("only %d values were right", v.Right)
					}
				})
			}
		})
	}
}
