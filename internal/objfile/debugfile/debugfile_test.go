package debugfile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ferrotrace/internal/objfile"
)

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("skipped: needs " + name)
	}
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

const id = "0123456789abcdef0123"

// program compiles dir/bin/prog with the build id, "none" for none, and separates
// dir/prog.debug from it.
func program(t *testing.T, id string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(dir, "a.c")
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if id != "none" {
		id = "0x" + id
	}
	prog, debug := filepath.Join(dir, "bin", "prog"), filepath.Join(dir, "prog.debug")
	run(t, "cc", "-g", "-Wl,--build-id="+id, "-o", prog, src)
	run(t, "objcopy", "--only-keep-debug", prog, debug)
	run(t, "objcopy", "--strip-all", "--add-gnu-debuglink="+debug, prog)
	return dir
}

// put moves a file to a place below dir.
func put(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// search returns what was found, "" if nothing, and what was said.
func search(t *testing.T, d Finder, prog string) (found, said string) {
	t.Helper()
	f, err := objfile.Open(prog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, passed := d.Separate(f)
	said = fmt.Sprint(errors.Join(passed...))
	if c == nil {
		return "", said
	}
	defer c.Close()
	if !c.HasDWARF() {
		t.Errorf("%s has no debug info", c.Path)
	}
	return c.Path, said
}

func TestPlaces(t *testing.T) {
	for _, build := range []string{id, "none"} {
		dir := program(t, build)
		prog, debug := filepath.Join(dir, "bin", "prog"), filepath.Join(dir, "prog.debug")
		f := Finder{Dirs: []string{filepath.Join(dir, "lib")}}
		if found, said := search(t, f, prog); found != "" || said != "<nil>" {
			t.Errorf("%s: found %q, %s", build, found, said)
		}
		// Each place goes before the ones in front of it.
		places := []string{
			filepath.Join(dir, "lib", dir, "bin", "prog.debug"),
			filepath.Join(dir, "bin", ".debug", "prog.debug"),
			filepath.Join(dir, "bin", "prog.debug"),
		}
		if build != "none" {
			places = append(places, filepath.Join(dir, "lib", ".build-id", id[:2], id[2:]+".debug"))
		}
		for _, place := range places {
			put(t, debug, place)
			if found, said := search(t, f, prog); found != place || said != "<nil>" {
				t.Errorf("%s: found %q, %s; want %s", build, found, said, place)
			}
		}
	}
}

// TestSymlink: what stands beside the file that a link leads to is found too.
func TestSymlink(t *testing.T) {
	dir := program(t, id)
	place := filepath.Join(dir, "bin", ".debug", "prog.debug")
	put(t, filepath.Join(dir, "prog.debug"), place)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "bin", "prog"), link); err != nil {
		t.Fatal(err)
	}
	if found, said := search(t, Finder{}, link); found != place || said != "<nil>" {
		t.Errorf("found %q, %s", found, said)
	}
}

// TestUnfit: what is another's, or damaged, is passed over and said to be; what comes
// after it is found.
func TestUnfit(t *testing.T) {
	dir, other := program(t, id), program(t, "ffff456789abcdef0123")
	prog, debug := filepath.Join(dir, "bin", "prog"), filepath.Join(dir, "prog.debug")
	damaged := filepath.Join(dir, "damaged")
	b, err := os.ReadFile(debug)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(damaged, append(b, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no ELF file"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := Finder{Dirs: []string{filepath.Join(dir, "lib")}}
	beside := filepath.Join(dir, "bin", "prog.debug")
	byID := filepath.Join(dir, "lib", ".build-id", id[:2], id[2:]+".debug")
	for _, test := range []struct{ from, to, said string }{
		{filepath.Join(other, "prog.debug"), byID, "the build ids differ"},
		{filepath.Join(other, "prog.debug"), beside, "the build ids differ"},
		{text, byID, "not an ELF file"},
		{damaged, beside, "the checksums differ"},
		{prog, beside, "the checksums differ"},
	} {
		put(t, test.from, test.to)
		if found, said := search(t, f, prog); found != "" || !strings.Contains(said, test.said) || !strings.Contains(said, test.to) {
			t.Errorf("%s: found %q, %s; want it passed over: %s", test.to, found, said, test.said)
		}
		good := filepath.Join(dir, "lib", dir, "bin", "prog.debug")
		put(t, debug, good)
		if found, said := search(t, f, prog); found != good || !strings.Contains(said, test.said) {
			t.Errorf("%s: found %q, %s; want %s", test.to, found, said, good)
		}
		os.Remove(good)
		os.Remove(test.to)
	}
}

func TestFetch(t *testing.T) {
	dir := program(t, id)
	prog, debug := filepath.Join(dir, "bin", "prog"), filepath.Join(dir, "prog.debug")
	asked := ""
	f := Finder{Fetch: func(id []byte) (string, error) { asked = fmt.Sprintf("%x", id); return debug, nil }}
	if found, said := search(t, f, prog); found != debug || said != "<nil>" || asked != id {
		t.Errorf("found %q, %s for %s", found, said, asked)
	}
	f.Fetch = func([]byte) (string, error) { return "", errors.New("no network") }
	if found, said := search(t, f, prog); found != "" || said != "no network" {
		t.Errorf("found %q, %s", found, said)
	}
	f.Fetch = func([]byte) (string, error) { t.Error("asked although it is there"); return "", nil }
	put(t, debug, filepath.Join(dir, "bin", "prog.debug"))
	if found, _ := search(t, f, prog); found == "" {
		t.Error("found nothing")
	}
}

// TestProcess: a file that is reached through a process is looked for where the process
// has it, or had it.
func TestProcess(t *testing.T) {
	dir := program(t, id)
	src := filepath.Join(dir, "sleep.c")
	if err := os.WriteFile(src, []byte("#include <unistd.h>\nint main(void) { char c; return read(0, &c, 1); }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(dir, "bin", "sleep")
	run(t, "cc", "-o", prog, src)
	cmd := exec.Command(prog)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	proc := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	want := []place{{proc + "/root", filepath.Join(dir, "bin"), "sleep"}}
	check := func(path string) {
		t.Helper()
		if got := placesOf(path); len(got) != 1 || got[0] != want[0] {
			t.Errorf("%s stands at %v; want %v", path, got, want)
		}
	}
	check(proc + "/exe")
	check(proc + "/root" + prog)
	if err := os.Remove(prog); err != nil {
		t.Fatal(err)
	}
	check(proc + "/exe")
	if got := roots(want); len(got) != 2 || got[0] != proc+"/root" || got[1] != "" {
		t.Errorf("roots %q", got)
	}
}
