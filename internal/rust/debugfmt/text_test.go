package debugfmt

import (
	"bufio"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every char, and many floats, as rustc's own library writes them.
func TestTextAgainstRust(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles a program")
	}
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("no rustc")
	}
	// For go test's cache, which does not see what rustc reads.
	if _, err := os.Stat("testdata/text.rs"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "text")
	if out, err := exec.Command(rustc, "--edition=2021", "-O", "-o", file, "testdata/text.rs").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(file)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer out.Close()
	lines, bad := 0, 0
	for scan := bufio.NewScanner(out); scan.Scan() && bad < 20; lines++ {
		kind, rest, _ := strings.Cut(scan.Text(), " ")
		num, want, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(num, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		if kind == "c" {
			got = append(appendChar([]byte("'"), rune(n), '\''), `' "`...)
			got = append(appendStr(got, []byte(string(rune(n))), false), '"')
		} else {
			got = append(appendFloat(nil, math.Float64frombits(n), 64), ' ')
			got = appendFloat(got, float64(math.Float32frombits(uint32(n))), 32)
		}
		if string(got) != want {
			bad++
			t.Errorf("%s %x: got %s, want %s", kind, n, got, want)
		}
	}
	if bad == 0 && lines < 1_300_000 {
		t.Errorf("%d lines", lines)
	}
}
