package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/output"
	"ferrotrace/internal/program"
	"ferrotrace/internal/script/show"
	"ferrotrace/internal/script/source"
	"ferrotrace/internal/session"
)

// runFlags are those of run: bpftrace's own where it has them.
type runFlags struct {
	flags
	texts   []string // -e
	start   string   // -c: a command as one word
	outFile string   // -o
	noMaps  bool
	unsafe  bool
	dump    string
	dryRun  bool
	buffer  string
	warnAll bool
	noWarn  bool
	filter  string   // --probe-filter, a regular expression
	named   []string // --param NAME=VALUE
	version bool
	list    bool
	info    bool
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run (SCRIPT | -e TEXT) [PARAM...] [-p PID | -b FILE | -- COMMAND [ARG...]]",
		Short: "Run a script of the probe language, which is bpftrace's with Rust's types",
		Example: `  $ ferrotrace run -e 'uprobe:shop::cart::add /args.item.price > 100/ { @[args.item.name] = count(); }' -p 812
  ^C
  @[pear]: 4

  $ ferrotrace run -e 'uretprobe:app::load { if (is(retval, Err)) { printf("%s: %?\n", comm, retval.Err.0); } }' -- ./app
  $ ferrotrace run -e 'uretprobe:app::serve { @us = hist(duration / 1000); }' -p 812 --for 10s
  $ ferrotrace run slow.bt 100 -p 812
  $ ferrotrace run -lv 'uprobe:./app:shop::**'`,
		Long: `A script is probes with what they do: uprobe:FUNCTION /CONDITION/ { … }. Functions are
named as in the source; their arguments are args.NAME, with fields, variants and
elements, and the result is retval. docs/language.md has all of the language.
Parameters ($1, $2, …) stand behind the script, before --.`,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) }
	s := cmd.Flags()
	f.addTarget(cmd)
	f.format = output.Text
	s.StringArrayVarP(&f.texts, "expr", "e", nil, "the script is `TEXT`")
	s.VarP(choiceOf((*string)(&f.format), "text", "json"), "format", "f", "format of the output, `text|json`")
	s.StringVarP(&f.outFile, "output", "o", "", "write the output to `FILE`; json is understood as a format")
	s.StringVar(&f.out, "out", "", "write the output to `FILE`")
	s.StringVar(&f.debugFile, "debug-file", "", "take debug info from `FILE`")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "nothing on standard error but errors")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "say more on standard error")
	s.StringVarP(&f.start, "cmd", "c", "", "start `COMMAND`, its arguments parted by spaces, and trace it")
	s.BoolVar(&f.unsafe, "unsafe", false, "allow what may harm: system(), signal()")
	s.BoolVarP(&f.warnAll, "warnings", "k", false, "warn where a map's element is not there, and say how many reads of memory failed")
	s.StringVar(&f.dump, "dump", "", "show a stage in place of running, `ast|program|bpf|sites`")
	complete(cmd, "dump", "ast", "program", "bpf", "sites")
	s.BoolVar(&f.noWarn, "no-warnings", false, "say nothing of what is only doubtful, warnf() included")
	s.StringVar(&f.filter, "probe-filter", "", "run only those probes of the script that match `REGEX`, and begin and end")
	s.StringArrayVar(&f.named, "param", nil, "give the script's getopt() `NAME=VALUE`; repeatable, and the same as --NAME=VALUE behind --")
	s.BoolVar(&f.version, "version", false, "say which ferrotrace this is")
	s.BoolVarP(&f.list, "list", "l", false, "list the probes that a pattern means (uprobe:./app:shop::*, usdt:*, nothing with -p) or those of a script, with -v their arguments too")
	s.BoolVar(&f.info, "info", false, "say what this ferrotrace and this machine can do")
	s.BoolVar(&f.dryRun, "dry-run", false, "check and compile the script, and attach nothing")
	f.buffer = "line"
	s.VarP(choiceOf(&f.buffer, "line", "full", "none"), "buffer", "B", "when output is written: `line|full|none`")
	complete(cmd, "buffer", "line", "full", "none")
	f.addTrace(cmd)
	return cmd
}

// statusError ends ferrotrace with the status that a script asked for.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }
func (e statusError) ExitCode() int { return int(e) }

// options takes the script's named parameters: those of --param, and what stands behind -- in
// place of a command. What is no option there is positional.
func (f *runFlags) options(args []string) ([]string, map[string]string, error) {
	named := map[string]string{}
	add := func(text string) {
		name, value, _ := strings.Cut(text, "=")
		named[name] = value
	}
	for _, p := range f.named {
		if name, _, _ := strings.Cut(p, "="); name == "" {
			return nil, nil, usageError("--param limit=10", "--param wants NAME=VALUE")
		}
		add(p)
	}
	if len(f.command) > 0 && strings.HasPrefix(f.command[0], "--") {
		for _, word := range f.command {
			if option, ok := strings.CutPrefix(word, "--"); ok && option != "" {
				add(option)
			} else {
				args = append(args, word)
			}
		}
		f.command = nil
	}
	return args, named, nil
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	if f.version {
		v := newVersion()
		v.SetOut(cmd.OutOrStdout())
		v.SetArgs(nil)
		return v.RunE(v, nil)
	}
	if f.info {
		return f.aboutHere(cmd)
	}
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args, f.command = slices.Clip(args[:dash]), args[dash:]
	}
	args, named, err := f.options(args)
	if err != nil {
		return err
	}
	if f.start != "" {
		if len(f.command) > 0 {
			return usageError("one of them is enough", "-c and -- COMMAND can't be mixed")
		}
		f.command = strings.Fields(f.start)
	}
	if len(f.pids) > 0 && len(f.command) > 0 {
		return usageError("trace them in runs of their own", "-p and a command can't be mixed")
	}
	if f.outFile == "json" || f.outFile == "text" { // as the other verbs have it
		f.format, f.outFile = output.Format(f.outFile), ""
	}
	f.out = cmp.Or(f.out, f.outFile)
	if f.list {
		return f.probes(cmd, args)
	}
	sc := session.Script{Named: named, Unsafe: f.unsafe, NoWarnings: f.noWarn, Settings: environment(), Lookups: f.warnAll && !f.noWarn, Dump: f.dump, NoMaps: f.noMaps}
	if f.filter != "" {
		if sc.Filter, err = regexp.Compile(f.filter); err != nil {
			return usageError("--probe-filter 'uprobe:.*cart'", "--probe-filter: %v", err)
		}
	}
	switch {
	case len(f.texts) > 0:
		sc.Name, sc.Text = "stdin", strings.Join(f.texts, "\n")
	case len(args) == 0:
		return usageError("ferrotrace run -e 'uprobe:hello { @ = count(); }' -- ./args", "no script is given")
	default:
		name := args[0]
		args = args[1:]
		b, err := read(cmd, name)
		if err != nil {
			return fmt.Errorf("reading the script: %w", err)
		}
		sc.Name, sc.Text = name, string(b)
	}
	sc.Params = args
	sc.JSON = f.format == output.JSON
	o, done, err := f.open(cmd)
	if err != nil {
		return err
	}
	color := output.Colored(cmd.ErrOrStderr())
	stderr := newProgress(cmd.ErrOrStderr(), f.quiet)
	cmd.SetErr(stderr)
	w := cmd.OutOrStdout()
	sc.Out = func(format string, a ...any) { fmt.Fprintf(w, format, a...) }
	sc.Warned = func(errs source.Errors) {
		if !f.quiet && !f.noWarn {
			_ = errs.Render(stderr, color)
		}
	}
	sc.Errors = func(text string) { fmt.Fprintf(stderr, "%s\n", escapeLines(text)) }
	sc.DryRun = f.dryRun
	idle := o.Flush
	each := o.Event
	switch f.buffer {
	case "full":
		idle = func() error { return nil }
	case "none":
		each = func(e event.Event) error { return cmp.Or(o.Event(e), o.Flush()) }
	}
	status, err := session.RunScript(cmd.Context(), session.Options{
		PIDs: f.pids, Binary: f.binary, Command: f.command, DebugFile: f.debugFile, Inlined: f.inlined,
		Limits:  program.Limits{MaxStr: f.maxStr, MaxItems: f.maxItems, Depth: f.depth},
		Runtime: f.runtime, For: f.duration, Leave: f.leave, Verbose: f.verbose || f.warnAll, Cache: store.User(),
		Emit: func(e event.Event) error {
			if a, ok := e.(event.Attached); ok {
				return f.attached(stderr, o, a)
			}
			return each(e)
		},
		Idle:  idle,
		Doing: stderr.doing,
		Warn: func(format string, a ...any) {
			if !f.noWarn {
				f.warn(cmd, format, a...)
			}
		},
		Note: func(format string, a ...any) {
			if !f.quiet {
				fmt.Fprintf(stderr, "note: %s\n", escapeLines(fmt.Sprintf(format, a...)))
			}
		},
	}, sc)
	stderr.doing("")
	err = cmp.Or(rendered(err, stderr, color), done())
	if err == nil && status != 0 {
		err = statusError(status)
	}
	return err
}

// attached tells in bpftrace's words that the probes are in, unless -q forbids it.
func (f *runFlags) attached(stderr io.Writer, o output.Output, a event.Attached) error {
	if f.quiet {
		return nil
	}
	if f.format == output.JSON {
		var b bytes.Buffer
		if err := show.CountLine(&b, "attached_probes", "probes", uint64(a.Probes)); err != nil {
			return err
		}
		return cmp.Or(o.Event(event.Said{Kind: "attached_probes", Lines: b.Bytes()}), o.Flush())
	}
	s := "s"
	if a.Probes == 1 {
		s = ""
	}
	_, err := fmt.Fprintf(stderr, "Attached %d probe%s\n", a.Probes, s)
	return err
}

// environment has the settings that bpftrace takes from there.
func environment() map[string]string {
	all := map[string]string{}
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); value != "" && strings.HasPrefix(name, "BPFTRACE_") {
			all[name] = value
		}
	}
	return all
}

// read is a script's text; - is standard input.
func read(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxScript))
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxScript))
}

const maxScript = 4 << 20
