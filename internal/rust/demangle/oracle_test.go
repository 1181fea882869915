package demangle

import (
	"bytes"
	"debug/elf"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const oracleToml = `[package]
name = "oracle"
version = "0.0.0"
edition = "2021"
[dependencies]
rustc-demangle = { version = "0.1.28", features = ["std"] }
[profile.dev]
opt-level = 1
debug = false
[workspace]
`

// One symbol a line; "+" and its path, or "-" if it is none. With "stream",
// any text.
const oracleMain = `use std::io::{stdin, stdout, BufRead, BufWriter, Write};
fn main() {
    let keep = std::env::args().any(|a| a == "keep");
    let mut out = BufWriter::new(stdout().lock());
    if std::env::args().any(|a| a == "stream") {
        return rustc_demangle::demangle_stream(&mut stdin().lock(), &mut out, keep).unwrap();
    }
    for line in stdin().lock().lines() {
        match rustc_demangle::try_demangle(&line.unwrap()) {
            Ok(d) if keep => writeln!(out, "+{}", d).unwrap(),
            Ok(d) => writeln!(out, "+{:#}", d).unwrap(),
            Err(_) => writeln!(out, "-").unwrap(),
        }
    }
}
`

// oracle builds a program around the rustc-demangle crate.
func oracle(t *testing.T) string {
	if testing.Short() {
		t.Skip("builds a Rust crate: skipped by -short")
	}
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skip("no cargo to build rustc-demangle with")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"Cargo.toml": oracleToml, "src/main.rs": oracleMain} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(cargo, "build", "--quiet")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CARGO_NET_RETRY=0", "CARGO_TARGET_DIR="+filepath.Join(dir, "target"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the crate rustc-demangle can't be had: %v\n%s", err, text)
	}
	return filepath.Join(dir, "target", "debug", "oracle")
}

func ask(t *testing.T, oracle, input string, args ...string) string {
	cmd := exec.Command(oracle, args...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle: %v\n%s", err, stderr.Bytes())
	}
	return string(out)
}

// binaries returns cargo, the library that rustc is, and those that
// FERROTRACE_SYMBOLS names.
func binaries(t *testing.T) []string {
	files := filepath.SplitList(os.Getenv("FERROTRACE_SYMBOLS"))
	if out, err := exec.Command("rustup", "which", "cargo").Output(); err == nil {
		files = append(files, strings.TrimSpace(string(out)))
	}
	if out, err := exec.Command("rustc", "--print", "sysroot").Output(); err == nil {
		libs, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "lib", "librustc_driver-*.so"))
		files = append(files, libs...)
	}
	if len(files) == 0 {
		t.Skip("no cargo, no rustc: no Rust binary to read")
	}
	return files
}

func symbols(t testing.TB, file string) []string {
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	static, _ := f.Symbols()
	dynamic, _ := f.DynamicSymbols()
	var names []string
	for _, s := range append(static, dynamic...) {
		if s.Name != "" && !strings.ContainsRune(s.Name, '\n') {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// compare holds the answers for syms against the oracle's.
func compare(t *testing.T, oracle, what string, syms []string) {
	input := strings.Join(syms, "\n") + "\n"
	for _, o := range []Options{{}, {KeepHash: true}} {
		var args []string
		if o.KeepHash {
			args = []string{"keep"}
		}
		want := strings.Split(ask(t, oracle, input, args...), "\n")
		if len(want) != len(syms)+1 {
			t.Fatalf("%d answers for %d symbols", len(want)-1, len(syms))
		}
		agreed, rust, wrong := 0, 0, 0
		for i, sym := range syms {
			got := "-"
			if path, ok := o.Demangle(sym); ok {
				got = "+" + path
				rust++
			}
			if got == want[i] {
				agreed++
			} else if wrong++; wrong < 10 {
				t.Errorf("%.300s\n got %.300s\nwant %.300s", sym, got, want[i])
			}
		}
		t.Logf("%s, %+v: agreed on %d of %d symbols, %d of them Rust's", what, o, agreed, len(syms), rust)
	}
}

func TestAgainstRustcDemangle(t *testing.T) {
	oracle := oracle(t)
	t.Run("stream", func(t *testing.T) { compareStreams(t, oracle) })
	for _, file := range binaries(t) {
		compare(t, oracle, filepath.Base(file), symbols(t, file))
	}

	// Symbols that are nearly right, to compare limits and errors.
	var seeds []string
	for _, v := range vectors(t) {
		seeds = append(seeds, v.sym)
	}
	r := rand.New(rand.NewPCG(3, 4))
	const letters = "CNMXYIBRQPOASTFDLKGUEWpvuszejbc_0123456789abf$.ZRH"
	var mutants []string
	for range 20_000 {
		s := []byte(seeds[r.IntN(len(seeds))])
		for range 1 + r.IntN(4) {
			if len(s) < 4 {
				break
			}
			i := 1 + r.IntN(len(s)-1)
			switch r.IntN(4) {
			case 0:
				s[i] = letters[r.IntN(len(letters))]
			case 1:
				s = slices.Delete(s, i, i+1)
			case 2:
				s = slices.Insert(s, i, letters[r.IntN(len(letters))])
			case 3:
				other := seeds[r.IntN(len(seeds))]
				s = append(s[:i], other[r.IntN(len(other)):]...)
			}
		}
		if len(s) < 400 {
			mutants = append(mutants, strings.ToValidUTF8(string(s), "?"))
		}
	}
	compare(t, oracle, "mutants", mutants)
}

// compareStreams holds what becomes of symbols in text against the oracle's.
func compareStreams(t *testing.T, oracle string) {
	var text strings.Builder
	for i, file := range binaries(t)[:1] {
		for _, sym := range symbols(t, file) {
			if strings.HasPrefix(sym, "R") || strings.HasPrefix(sym, "Z") || strings.HasPrefix(sym, "__") {
				continue // these rustfilt leaves
			}
			text.WriteString([]string{"  call ", "at ", "text.", "é", ""}[i%5] + sym + []string{"@PLT\n", ".\n", " (x)\n", "\n", "é"}[i%5])
			i++
		}
	}
	for _, keep := range []bool{false, true} {
		args := []string{"stream"}
		if keep {
			args = append(args, "keep")
		}
		want := ask(t, oracle, text.String(), args...)
		got := stream(t, Options{KeepHash: keep}, text.String())
		if got != want {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Errorf("differs at byte %d:\n got %.200q\nwant %.200q", i, got[max(0, i-80):], want[max(0, i-80):])
		}
	}
}

// 150,000 symbols should take well under 200 ms.
func BenchmarkBinary(b *testing.B) {
	out, err := exec.Command("rustup", "which", "cargo").Output()
	if err != nil {
		b.Skip("no cargo to read symbols of")
	}
	syms := symbols(b, strings.TrimSpace(string(out)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Demangle(syms[i%len(syms)])
	}
}
