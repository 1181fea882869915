package session

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

// TestProcessWithoutItsFile: a process is traced by the file that it runs, with its debug
// info, whatever has become of that file's name.
func TestProcessWithoutItsFile(t *testing.T) {
	remove := func(t *testing.T, file string) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	for name, gone := range map[string]func(t *testing.T, file string){
		"deleted": remove,
		"replaced": func(t *testing.T, file string) {
			if err := os.Rename(fixture.Private(t, fixture.Build(t, "flow", fixture.Debug)), file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, rt string) {
				file := everywhere(t)
				cmd := server(t, file)
				gone(t, file)
				served(t, rt, cmd)
			})
		})
	}
	t.Run("stripped, deleted", func(t *testing.T) {
		if _, err := exec.LookPath("objcopy"); err != nil {
			t.Skip("skipped: needs objcopy")
		}
		both(t, func(t *testing.T, rt string) {
			file := everywhere(t)
			for _, args := range [][]string{{"--only-keep-debug", file, file + ".debug"}, {"--strip-all", "--add-gnu-debuglink=" + file + ".debug", file}} {
				if out, err := exec.Command("objcopy", args...).CombinedOutput(); err != nil {
					t.Fatalf("objcopy: %v\n%s", err, out)
				}
			}
			cmd := server(t, file)
			remove(t, file)
			served(t, rt, cmd)
		})
	})
	t.Run("another root", func(t *testing.T) {
		needRoot(t)
		both(t, func(t *testing.T, rt string) {
			file := fixture.Private(t, fixture.Build(t, "flow", fixture.Static))
			served(t, rt, server(t, "/"+filepath.Base(file), filepath.Dir(file)))
		})
	})
}

// served demands calls of serve with their arguments.
func served(t *testing.T, rt string, cmd *exec.Cmd) {
	t.Helper()
	// Names of arguments are valid until the run ends.
	got := flow(t, Trace, func(e event.Event) error {
		if c, ok := e.(event.Call); ok && (len(c.Args) != 2 || c.Args[0].Name != "n" || c.Args[0].Missing != "") {
			t.Errorf("%+v", c)
		}
		return nil
	}, Options{Runtime: rt, Patterns: []string{"flow::plain::serve"}, PIDs: []int{cmd.Process.Pid}, Limit: 2})
	if got.err != nil {
		t.Fatal(got.err)
	}
	if s := got.summary(t); s.Shown != 2 || s.Runtime != rt || len(got.warnings) > 0 {
		t.Errorf("%+v; warnings %q", s, got.warnings)
	}
}
