package index

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
)

// summary is all that list shows of a file, one function a line.
func summary(t *testing.T, file, debugFile string) (lines string, ix *Index) {
	t.Helper()
	ix, err := Open(file, debugFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	var b strings.Builder
	for _, f := range ix.Functions() {
		if !f.Rust {
			continue
		}
		out, in := f.Counts()
		params, result, ok := f.Signature()
		for _, p := range params {
			fmt.Fprint(&b, p.Name, ": ", p.Type.Name, ", ")
		}
		if result != nil {
			fmt.Fprint(&b, result.Name)
		}
		fmt.Fprintln(&b, f.Name, ok, f.File, f.Line, out, in)
	}
	return b.String(), ix
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("skipped: needs " + name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func copied(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestElsewhere: whatever way a file's debug info goes, the same functions are found.
func TestElsewhere(t *testing.T) {
	program := fixture.Build(t, "flow", fixture.Release)
	want, _ := summary(t, program, "")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	debug := in("flow.debug")
	tool(t, "objcopy", "--only-keep-debug", program, debug)
	tool(t, "objcopy", "--strip-all", program, in("stripped"))
	tool(t, "objcopy", "--strip-debug", program, in("symbols"))
	same := func(t *testing.T, file, debugFile string) {
		t.Helper()
		got, ix := summary(t, file, debugFile)
		if got != want {
			t.Errorf("%d functions, %d in the whole program", strings.Count(got, "\n"), strings.Count(want, "\n"))
		}
		if ix.Problem != nil || ix.Level() != Debug || ix.Lack() != "" {
			t.Errorf("level %d; %v; %s", ix.Level(), ix.Problem, ix.Lack())
		}
	}
	for _, how := range []string{"zlib", "zlib-gnu", "zstd"} {
		t.Run(how, func(t *testing.T) {
			if out, err := exec.Command("objcopy", "--compress-debug-sections="+how, program, in(how)).CombinedOutput(); err != nil {
				t.Skipf("skipped: this objcopy can't: %s", out)
			}
			same(t, in(how), "")
		})
	}
	t.Run("debug file", func(t *testing.T) {
		same(t, in("stripped"), debug)
		same(t, in("symbols"), debug)
		same(t, in("symbols"), program)
	})
	t.Run("debug link", func(t *testing.T) {
		tool(t, "objcopy", "--add-gnu-debuglink="+debug, in("stripped"), in("linked"))
		same(t, in("linked"), "")
		if err := os.Mkdir(in(".debug"), 0o755); err != nil {
			t.Fatal(err)
		}
		// The compressed form of distributions, with another checksum.
		tool(t, "objcopy", "--compress-debug-sections", debug, in(".debug/small.debug"))
		tool(t, "objcopy", "--add-gnu-debuglink="+in(".debug/small.debug"), in("stripped"), in("linked2"))
		same(t, in("linked2"), "")
	})
	t.Run("build id", func(t *testing.T) {
		_, ix := summary(t, program, "")
		id := fmt.Sprintf("%x", ix.File.BuildID())
		if len(id) < 4 {
			t.Skip("skipped: this linker gives no build id")
		}
		defer func(dirs []string) { debugDirs = dirs }(debugDirs)
		debugDirs = []string{in("lib")}
		place := filepath.Join(in("lib"), ".build-id", id[:2], id[2:]+".debug")
		if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
			t.Fatal(err)
		}
		copied(t, debug, place)
		same(t, in("stripped"), "")
		same(t, in("symbols"), "")
	})
	t.Run("debuginfod", func(t *testing.T) {
		asked := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			http.ServeFile(w, r, debug)
		}))
		defer s.Close()
		t.Setenv("DEBUGINFOD_URLS", s.URL)
		t.Setenv("DEBUGINFOD_CACHE_PATH", in("cache"))
		same(t, in("stripped"), "")
		same(t, in("stripped"), "")
		same(t, program, "")
		if asked != 1 {
			t.Errorf("%d requests", asked)
		}
	})
	t.Run("another build's", func(t *testing.T) {
		other := fixture.Build(t, "flow", fixture.Debug)
		_, err := Open(in("stripped"), other)
		var m *MismatchError
		if !errors.As(err, &m) || m.ExitCode() != 2 {
			t.Errorf("%v", err)
		}
		tool(t, "objcopy", "--add-gnu-debuglink="+copied(t, other, in("other.debug")), in("stripped"), in("wrong"))
		_, ix := summary(t, in("wrong"), "")
		if ix.Problem == nil || !strings.Contains(ix.Problem.Error(), "the build ids differ") || ix.Level() != NoSymbols {
			t.Errorf("level %d; %v", ix.Level(), ix.Problem)
		}
		if lack := ix.Lack(); !strings.Contains(lack, "other.debug") {
			t.Error(lack)
		}
	})
}

// TestSplitFiles: split debug info is found where it was made and beside the program; what
// is missing or stale is said to be.
func TestSplitFiles(t *testing.T) {
	want, _ := summary(t, fixture.Build(t, "flow", fixture.Release), "")
	count := 0
	packed, unpacked := fixture.Build(t, "flow", fixture.Packed), fixture.Build(t, "flow", fixture.Unpacked)
	for _, file := range []string{unpacked, packed} {
		got, ix := summary(t, file, "")
		// Which names of merged functions are told apart hangs on the order of units.
		plain := strings.Count(want, "\n")
		if count = strings.Count(got, "\n"); count < plain-10 || count > plain+10 || ix.Problem != nil || ix.Level() != Debug {
			t.Errorf("%s: %d functions, %d in one file; level %d, %v", file, count, plain, ix.Level(), ix.Problem)
		}
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	alone := copied(t, packed, in("flow"))
	_, ix := summary(t, alone, "")
	if ix.Problem == nil || !strings.Contains(ix.Problem.Error(), "were not found") || ix.Level() != SymbolsOnly {
		t.Errorf("level %d, %v", ix.Level(), ix.Problem)
	}
	if e := ix.NoMatch("flow::nothing::of_that_name"); e.Reason == "" {
		t.Error("no reason")
	}
	copied(t, packed+".dwp", alone+".dwp")
	if got, ix := summary(t, alone, ""); strings.Count(got, "\n") != count || ix.Problem != nil {
		t.Errorf("%d functions, %v", strings.Count(got, "\n"), ix.Problem)
	}
	// A package of another build, which has a library's units in common with this.
	copied(t, fixture.Build(t, "lines", fixture.Packed)+".dwp", alone+".dwp")
	if _, ix := summary(t, alone, ""); ix.Problem == nil || !strings.Contains(ix.Problem.Error(), "were not found") || ix.Level() == NoSymbols {
		t.Errorf("level %d, %v", ix.Level(), ix.Problem)
	}
	// The skeletons may be elsewhere too.
	tool(t, "objcopy", "--only-keep-debug", packed, in("flow.debug"))
	copied(t, packed+".dwp", in("flow.debug.dwp"))
	tool(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+in("flow.debug"), packed, in("bare"))
	if got, ix := summary(t, in("bare"), ""); strings.Count(got, "\n") != count || ix.Problem != nil {
		t.Errorf("%d functions, %v", strings.Count(got, "\n"), ix.Problem)
	}
}

func TestLevels(t *testing.T) {
	for p, want := range map[fixture.Profile]Level{
		fixture.Debug: Debug, fixture.Release: Debug, fixture.Limited: NoTypes, fixture.Plain: SymbolsOnly, fixture.Stripped: NoSymbols,
	} {
		_, ix := summary(t, fixture.Build(t, "flow", p), "")
		if ix.Level() != want || (ix.Lack() == "") != (want == Debug) {
			t.Errorf("%s: level %d, want %d: %s", p, ix.Level(), want, ix.Lack())
		}
	}
	src := filepath.Join(t.TempDir(), "lines.rs")
	if err := os.WriteFile(src, []byte("#[inline(never)] fn twice(n: usize) -> usize { n * 2 }\nfn main() { println!(\"{}\", twice(std::env::args().count())) }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]Level{"-Cdebuginfo=line-tables-only": LinesOnly, "-Cdebuginfo=0": SymbolsOnly} {
		out := filepath.Join(t.TempDir(), "lines")
		tool(t, "rustc", "-O", flags, "-o", out, src)
		if _, ix := summary(t, out, ""); ix.Level() != want {
			t.Errorf("%s: level %d, want %d", flags, ix.Level(), want)
		}
	}
}
