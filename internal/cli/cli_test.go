package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"ferrotrace/internal/fixture"
	"ferrotrace/internal/spell"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ferrotrace": func() { os.Exit(Main(os.Args[1:]...)) },
	})
}

// TestScript runs the stories: one file each, the command line as a user types it
// and what comes of it. Their extra conditions are [root], [cargo], [ptrace] (without
// privileges too) and, for a verb that is there, [verb:NAME]; "status N COMMAND..."
// demands an exit status. With cargo, $ARGS_DEBUG, $ARGS_RELEASE (with debug info) and
// $ARGS_PLAIN are builds of examples/args, $HELLO is one of examples/helloworld, $FLOW
// one of that fixture, $FLOW_PLAIN the same without debug info, $SDT one of the fixture sdt: copies that every user can read. $ARGS_KERNEL is $ARGS_DEBUG as
// another file, for the kernel runtime: it may probe every process that runs the file,
// also those in which another story has the user runtime.
func TestScript(t *testing.T) {
	programs := map[string]string{}
	_, err := exec.LookPath("cargo")
	if cargo := err == nil; cargo {
		for name, program := range map[string]string{
			"ARGS_DEBUG":   fixture.Build(t, "args", fixture.Debug),
			"ARGS_KERNEL":  fixture.Build(t, "args", fixture.Debug),
			"ARGS_RELEASE": fixture.Build(t, "args", fixture.Release),
			"ARGS_PLAIN":   fixture.Build(t, "args", fixture.Plain),
			"HELLO":        fixture.Build(t, "helloworld", fixture.Debug),
			"FLOW":         fixture.Build(t, "flow", fixture.Release),
			"FLOW_PLAIN":   fixture.Build(t, "flow", fixture.Plain),
			"SDT":          fixture.Build(t, "sdt", fixture.Release),
		} {
			programs[name] = openCopy(t, program)
		}
	} else {
		t.Log("no cargo: stories that trace a program are skipped")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for name, path := range programs {
				env.Setenv(name, path)
			}
			env.Setenv("XDG_CACHE_HOME", env.WorkDir)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if name, ok := strings.CutPrefix(cond, "verb:"); ok {
				verb, rest, err := newRoot().Find([]string{name})
				return err == nil && len(rest) == 0 && verb.Name() == name, nil
			}
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "cargo":
				return len(programs) > 0, nil
			case "ptrace":
				scope, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
				return !strings.ContainsAny(string(scope), "23"), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// openCopy copies a program to where every user can read it.
func openCopy(t *testing.T, program string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ferrotrace")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b, err := os.ReadFile(program)
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	path := filepath.Join(dir, filepath.Base(program))
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// status runs a command and demands that it exits so: status N COMMAND [ARG...].
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND [ARG...]")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := new(exec.ExitError)
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit status is %d, not %s", code, args[0])
	}
}

// Each verb's help shows an example, before its flags.
func TestHelpShowsAnExampleFirst(t *testing.T) {
	for _, cmd := range append(newRoot().Commands(), newRoot()) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example or no line that says what it is for", cmd.Name())
		}
		var b bytes.Buffer
		cmd.SetOut(&b)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		help := b.String()
		example, usage := strings.Index(help, "Example:"), strings.Index(help, "Usage:")
		if example < 0 || usage < example {
			t.Errorf("%s: no example before the usage:\n%s", cmd.Name(), help)
		}
	}
}

// parseFlags parses a command line of a verb that has all flags.
func parseFlags(line ...string) (flags, []string, error) {
	var (
		f        flags
		patterns []string
		err      error
	)
	cmd := &cobra.Command{Use: "verb", RunE: func(cmd *cobra.Command, args []string) error {
		patterns, err = f.parse(cmd, args)
		return err
	}}
	f.addTarget(cmd)
	f.addOutput(cmd)
	f.addTrace(cmd)
	f.addLimit(cmd)
	root := newRoot()
	root.AddCommand(cmd)
	root.SetArgs(append([]string{"verb"}, line...))
	err = root.Execute()
	return f, patterns, err
}

func TestFlags(t *testing.T) {
	f, patterns, err := parseFlags(strings.Fields("hello a::b --for 2s --limit 3 --inline none --max-str 0 --max-items 5 --depth 1 --runtime kernel -o json --out x --leave -v -- ./args -v 1 --")...)
	if err != nil {
		t.Fatal(err)
	}
	want := flags{command: []string{"./args", "-v", "1", "--"}, format: "json", out: "x", verbose: true,
		runtime: "kernel", duration: 2e9, limit: 3, inlined: false, maxStr: 0, maxItems: 5, depth: 1, leave: true}
	if diff := cmp.Diff(want, f, cmp.AllowUnexported(flags{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"hello", "a::b"}, patterns); diff != "" {
		t.Error(diff)
	}
}

func TestFlagDefaults(t *testing.T) {
	f, _, err := parseFlags("hello", "-p", "7")
	if err != nil {
		t.Fatal(err)
	}
	want := flags{pids: []int{7}, format: "text", runtime: "auto", inlined: true, maxStr: 256, maxItems: 64, depth: 8}
	if diff := cmp.Diff(want, f, cmp.AllowUnexported(flags{})); diff != "" {
		t.Error(diff)
	}
}

// A wrong command line is refused with one message, and says what to do.
func TestFlagErrors(t *testing.T) {
	for _, c := range []struct{ line, want, hint string }{
		{"hello", "nothing to trace is named", "-p PID"},
		{"hello -p 1 -- x", "-p and -- COMMAND can't be mixed", "runs of their own"},
		{"hello --", "no command after --", "-- ./args"},
		{"-p 1", "no function to trace is named", "ferrotrace list"},
		{"hello -p 1 --leave", "--leave is for a command that ferrotrace starts", "left running"},
		{"hello -p 0", `-p "0": is not a process id`, "positive"},
		{"hello -p -5", `-p "-5": is not a process id`, "positive"},
		{"hello -p x", `-p "x": is not a process id`, "pgrep"},
		{"hello -p 1 -o xml", `-o "xml": must be text or json`, "help verb"},
		{"hello -p 1 --runtime jvm", `--runtime "jvm": must be auto, kernel or user`, "help verb"},
		{"hello -p 1 --inline some", `--inline "some": must be all or none`, "help verb"},
		{"hello -p 1 --for 5", `--for "5": is not a duration`, "unit"},
		{"hello -p 1 --for -5s", `--for "-5s": is not a duration`, "unit"},
		{"hello -p 1 --limit -1", `--limit "-1": must be a whole number`, "help verb"},
		{"hello -p 1 --max-str 1e9", `--max-str "1e9": must be a whole number from 0 to 1048576`, "help verb"},
		{"hello -p 1 --depth -1", `--depth "-1": must be a whole number from 0 to 1048576`, "help verb"},
		{"hello -p 1 --max-item 1", "unknown flag --max-item", "--max-items"},
		{"hello -p 1 -z", "unknown flag -z", "help verb"},
		{"hello -p", "-p needs a value", "help verb"},
	} {
		_, _, err := parseFlags(strings.Fields(c.line)...)
		usage := new(UsageError)
		if !errors.As(err, &usage) {
			t.Errorf("%s: %v is no usage error", c.line, err)
			continue
		}
		if usage.Error() != c.want || !strings.Contains(usage.Hint(), c.hint) || exitCode(err) != 2 {
			t.Errorf("%s:\n got %s (hint: %s), %d\nwant %s (hint: …%s…), 2", c.line, usage.Error(), usage.Hint(), exitCode(err), c.want, c.hint)
		}
	}
}

func TestRepeatedPIDs(t *testing.T) {
	var pids []int
	v := pidsValue{&pids}
	for _, s := range []string{"812", "7", "812"} {
		if err := v.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]int{812, 7}, pids); diff != "" {
		t.Error(diff)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"trace", "count", "list", "explain", "demangle", "doctor", "version", "completion"}
	for word, want := range map[string]string{"trcae": "trace", "cuont": "count", "lst": "list", "explian": "explain",
		"demngle": "demangle", "ver": "version", "xyzzy": "", "": "", "traces": "trace"} {
		if got := spell.Nearest(word, names); got != want {
			t.Errorf("spell.Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// Errors of other rooms choose status and hint through small interfaces, however
// deep they are wrapped; names out of foreign files can't act on the terminal.
func TestReport(t *testing.T) {
	var b bytes.Buffer
	err := fmt.Errorf("trace: %w", &notPermitted{"missing CAP_BPF in \x1b[31m", "run as root"})
	report(&b, err)
	want := "ferrotrace: trace: missing CAP_BPF in \\u{1b}[31m\n  hint: run as root\n"
	if b.String() != want || exitCode(err) != 4 {
		t.Errorf("%q, %d; want %q, 4", b.String(), exitCode(err), want)
	}
	b.Reset()
	report(&b, errors.New("plain"))
	if b.String() != "ferrotrace: plain\n" || exitCode(errors.New("plain")) != 1 {
		t.Errorf("%q", b.String())
	}
}
