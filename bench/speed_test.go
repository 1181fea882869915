package bench

import (
	"bytes"
	"context"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/index"
	"ferrotrace/internal/index/store"
)

// name is the one that is looked for.
const name = "main"

// subject is the program that is read: FERROTRACE_BENCH_FILE, the one that make bench
// builds, or a fixture.
func subject(b *testing.B) string {
	if f := os.Getenv("FERROTRACE_BENCH_FILE"); f != "" {
		return f
	}
	if f, err := filepath.Abs("subject/target/release/web"); err == nil {
		if _, err := os.Stat(f); err == nil {
			return f
		}
	}
	b.Log("skipped: bench/subject is not built; a fixture is read in its place, most of which is the standard library")
	return fixture.Build(b, "values", fixture.Release)
}

// times makes a copy of a program that has its .debug_info n times over. All that units
// refer to is either in themselves or in other sections, so the copies are as good as the
// original.
func times(b *testing.B, file string, n int) string {
	mem, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(mem))
	if err != nil {
		b.Fatal(err)
	}
	for i, s := range f.Sections {
		if s.Name != ".debug_info" || s.Flags&elf.SHF_COMPRESSED != 0 {
			continue
		}
		// Elf64_Ehdr.e_shoff; Elf64_Shdr.sh_offset and sh_size.
		head := mem[binary.LittleEndian.Uint64(mem[0x28:])+uint64(i)*64:]
		info := mem[s.Offset : s.Offset+s.Size]
		binary.LittleEndian.PutUint64(head[24:], uint64(len(mem)))
		binary.LittleEndian.PutUint64(head[32:], uint64(n)*s.Size)
		out := filepath.Join(b.TempDir(), "times")
		if err := os.WriteFile(out, append(mem, bytes.Repeat(info, n)...), 0o755); err != nil {
			b.Fatal(err)
		}
		return out
	}
	b.Skip("skipped: no .debug_info, or it is compressed")
	return ""
}

// BenchmarkSpeed looks for a name: without the cache and with it, with one pass of Go's
// debug/dwarf over all entries, and with gdb, in turns. Of each the quickest turn counts, the
// one that the rest of the machine has disturbed least. The second file has the debug info of
// the first ten times over.
func BenchmarkSpeed(b *testing.B) {
	file := subject(b)
	var first map[string]time.Duration
	b.Run("once", func(b *testing.B) { first = speed(b, file) })
	b.Run("tenfold", func(b *testing.B) {
		for what, d := range speed(b, times(b, file, 10)) {
			if f := first[what]; f > 0 {
				b.ReportMetric(float64(d)/float64(f), what+"-growth")
			}
		}
	})
}

func speed(b *testing.B, file string) map[string]time.Duration {
	best := map[string]time.Duration{}
	measure := func(what string, f func()) {
		start := time.Now()
		f()
		if d := time.Since(start); best[what] == 0 || d < best[what] {
			best[what] = d
		}
	}
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		b.Log("skipped: gdb is not installed")
	}
	cache := &store.Dir{Path: filepath.Join(b.TempDir(), "index"), Limit: store.Limit}
	find(b, file, cache)
	memory := 0.0
	for b.Loop() {
		measure("find", func() { find(b, file, nil) })
		measure("cached", func() {
			if !find(b, file, cache) {
				b.Log("not cached: the file is small, or has no build id")
			}
		})
		measure("go", func() { pass(b, file) })
		if gdb != "" {
			measure("gdb", func() { debugger(b, gdb, file, "-ex", "info line "+name) })
			measure("gdb-start", func() { debugger(b, gdb) })
		}
		memory = max(memory, peak(b, file))
	}
	best["gdb"] -= best["gdb-start"]
	for what, d := range best {
		if what != "gdb-start" && d > 0 {
			b.ReportMetric(float64(d.Microseconds())/1000, what+"-ms")
		}
	}
	b.ReportMetric(float64(best["find"])/float64(best["go"]), "find/go")
	if best["gdb"] > 0 {
		b.ReportMetric(float64(best["find"])/float64(best["gdb"]), "find/gdb")
	}
	b.ReportMetric(memory, "MB-peak")
	b.ReportMetric(0, "ns/op")
	return map[string]time.Duration{"find": best["find"], "cached": best["cached"], "go": best["go"], "gdb": best["gdb"]}
}

// find opens a file and finds a name in it; it says whether the cache had it.
func find(tb testing.TB, file string, cache *store.Dir) bool {
	p, err := index.ParsePattern(name)
	if err != nil {
		tb.Fatal(err)
	}
	ix, err := index.OpenContext(context.Background(), file, index.Options{Cache: cache})
	if err != nil {
		tb.Fatal(err)
	}
	defer ix.Close()
	if len(ix.Find(p)) == 0 {
		tb.Fatal(name + " is not there")
	}
	return ix.Cached()
}

// pass is one pass of the standard library's reader.
func pass(b *testing.B, file string) {
	e, err := elf.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	d, err := e.DWARF()
	if err != nil {
		b.Fatal(err)
	}
	for r := d.Reader(); ; {
		e, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if e == nil {
			return
		}
		_ = e.Val(dwarf.AttrName)
	}
}

func debugger(b *testing.B, gdb string, args ...string) {
	if out, err := exec.Command(gdb, append([]string{"-nx", "-batch", "-iex", "set debuginfod enabled off"}, args...)...).CombinedOutput(); err != nil {
		b.Fatalf("gdb: %v\n%s", err, out)
	}
}

// peakFile makes this test's program, run again, find a name in a file and print how much
// memory that took.
const peakFile = "FERROTRACE_BENCH_PEAK"

// peak is the most memory, in MB, that a process took which finds a name: without what it has
// mapped of files.
func peak(b *testing.B, file string) float64 {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestPeak$", "-test.v")
	cmd.Env = append(os.Environ(), peakFile+"="+file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	_, text, _ := strings.Cut(string(out), peakFile+" ")
	text, _, _ = strings.Cut(text, "\n")
	kB, err := strconv.ParseFloat(text, 64)
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return kB / 1000
}

// TestPeak is what peak runs.
func TestPeak(t *testing.T) {
	file := os.Getenv(peakFile)
	if file == "" {
		t.Skip("skipped: for benchmarks only")
	}
	done := make(chan struct{})
	most := make(chan int)
	go func() {
		kB := 0
		for {
			kB = max(kB, anonymous(t))
			select {
			case <-done:
				most <- kB
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	// The first run keeps what it reads too.
	find(t, file, &store.Dir{Path: filepath.Join(t.TempDir(), "index"), Limit: store.Limit})
	close(done)
	fmt.Println(peakFile, <-most)
}

// anonymous is the memory of this process, in kB, that is not of files (proc_pid_status(5)).
func anonymous(t *testing.T) int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB
}
