package oracle

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWhole traces every function of large programs that nobody here wrote, entries and
// exits, in the process itself, and holds what the programs do against what they do
// untraced.
func TestWhole(t *testing.T) {
	bin := tool(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip("skipped: no home directory, so no Rust toolchain")
	}
	find := func(t *testing.T, name string) string {
		files, _ := filepath.Glob(filepath.Join(home, ".rustup/toolchains/*/bin", name))
		if len(files) == 0 {
			t.Skipf("skipped: no toolchain under ~/.rustup has a %s", name)
		}
		return files[0] // it finds its libraries by its own place
	}
	// run runs a program in a directory of its own and returns what it says and leaves.
	run := func(t *testing.T, prepare func(dir string), result string, args ...string) []byte {
		t.Helper()
		dir := t.TempDir()
		prepare(dir)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		// A cache of its own, and no colours.
		cmd.Env = append(os.Environ(), "CARGO_TERM_COLOR=never", "CARGO_TARGET_DIR=target")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v\n%.3000s", args, err, errs.Bytes())
		}
		if result == "" {
			return bytes.ReplaceAll(out.Bytes(), []byte(dir), nil)
		}
		said, err := exec.Command(filepath.Join(dir, result)).Output()
		if err != nil {
			t.Fatal(err)
		}
		return append(out.Bytes(), said...)
	}
	write := func(t *testing.T, file, text string) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		program string
		verbs   []string
		long    bool
		args    []string
		result  string
	}{
		{"rustfmt", []string{"trace"}, false, []string{"--emit", "stdout", "src/main.rs"}, ""},
		{"cargo", []string{"count", "trace"}, true, []string{"build", "--offline"}, "target/debug/whole"},
	} {
		t.Run(c.program, func(t *testing.T) {
			if c.long && os.Getenv("FERROTRACE_SOAK") == "" {
				t.Skip("skipped: long; make soak runs it")
			}
			program := append([]string{find(t, c.program)}, c.args...)
			prepare := func(dir string) {
				write(t, filepath.Join(dir, "src/main.rs"), "mod sum;\nfn   main( ){let x=vec![1,2,3];println!(\"{}\", sum::sum(&x))}\n")
				write(t, filepath.Join(dir, "src/sum.rs"), "pub fn sum(x:&[i32])->i32{x.iter( ).map(|x|x*2).sum()}\n")
				write(t, filepath.Join(dir, "Cargo.toml"), "[package]\nname = \"whole\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n")
			}
			want := run(t, prepare, c.result, program...)
			if len(want) == 0 {
				t.Fatal("the program says nothing")
			}
			for _, verb := range c.verbs {
				args := append([]string{bin, verb, "--runtime", "user", "-q", "--out", os.DevNull, "**", "--"}, program...)
				if got := run(t, prepare, c.result, args...); !bytes.Equal(got, want) {
					t.Errorf("%s: traced it says\n%.2000s\nwithout\n%.2000s", verb, got, want)
				}
			}
		})
	}
}
