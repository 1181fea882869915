package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferrotrace/internal/output"
	"ferrotrace/internal/session"
)

// flags are what verbs can be told alike. A verb embeds them and adds the groups
// that make sense for it; fields of other groups keep their zero value, except
// for the format, which is text then.
type flags struct {
	// Target: a process or a command, a file, or a file in one of these.
	pids    []int    // -p, thread group ids
	binary  string   // -b, a path
	command []string // after --: the program and its arguments

	// Output.
	format    output.Format // -o
	out       string        // --out, a path; "" for standard output
	debugFile string        // --debug-file, a path
	quiet     bool          // -q: nothing but errors on standard error
	verbose   bool          // -v; without meaning under -q

	// Tracing.
	runtime  string        // session.Auto, Kernel or User
	duration time.Duration // --for; 0: no limit
	limit    uint64        // calls; 0: no limit
	inlined  bool          // trace inlined instances too
	locals   bool          // show the variables in scope at lines
	pretty   bool          // values as {:#?} has them, in text
	maxStr   int           // bytes
	maxItems int           // elements
	depth    int           // pointers
	leave    bool          // the command runs on when tracing ends
}

func (f *flags) addTarget(cmd *cobra.Command) {
	s := cmd.Flags()
	s.VarP(pidsValue{&f.pids}, "pid", "p", "trace the process `PID`; repeatable")
	s.StringVarP(&f.binary, "binary", "b", "", "trace every process that runs `FILE` or maps it, now and later")
}

func (f *flags) addFormat(cmd *cobra.Command) {
	f.format = output.Text
	cmd.Flags().VarP(choiceOf((*string)(&f.format), "text", "json"), "output", "o", "format of the output, `text|json`")
	complete(cmd, "output", "text", "json")
}

// complete has a flag's values completed: words, each with what it means after a tab.
func complete(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

func (f *flags) addOutput(cmd *cobra.Command) {
	f.addFormat(cmd)
	s := cmd.Flags()
	s.StringVar(&f.out, "out", "", "write the output to `FILE`, not to standard output")
	s.StringVar(&f.debugFile, "debug-file", "", "take debug info from `FILE`")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "nothing on standard error but errors")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "say more on standard error")
}

func (f *flags) addTrace(cmd *cobra.Command) {
	f.runtime, f.inlined, f.maxStr, f.maxItems, f.depth = session.Auto, true, 256, 64, 8
	s := cmd.Flags()
	s.Var(choiceOf(&f.runtime, session.Auto, session.Kernel, session.User), "runtime",
		"where probes run, `auto|kernel|user`: in the kernel, or in the traced process itself, which is cheaper")
	complete(cmd, "runtime", session.Auto+"\tuser where it is permitted, safe and complete, else kernel",
		session.Kernel+"\tin the kernel; needs privileges", session.User+"\tin the traced process itself; needs the right to ptrace it")
	s.Var(durationValue{&f.duration}, "for", "end after `DURATION`, such as 500ms, 10s or 2m")
	s.Var(inlineValue{&f.inlined}, "inline", "trace inlined instances, `all|none`")
	complete(cmd, "inline", "all", "none")
	s.Var(naturalValue{&f.maxStr}, "max-str", "show at most `N` bytes of a string")
	s.Var(naturalValue{&f.maxItems}, "max-items", "show at most `N` elements of a collection")
	s.Var(naturalValue{&f.depth}, "depth", "follow at most `N` pointers, one behind the other")
	s.BoolVar(&f.leave, "leave", false, "let the command run on when tracing ends")
}

// addLimit is for the verbs that know what a call is: a script ends itself, by exit().
func (f *flags) addLimit(cmd *cobra.Command) {
	cmd.Flags().Var(countValue{&f.limit}, "limit", "end after `N` calls")
}

// patterns takes what follows the flags apart: patterns, then the command after --.
func (f *flags) patterns(cmd *cobra.Command, args []string) (patterns []string, err error) {
	patterns = args
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		patterns, f.command = args[:dash], args[dash:]
		if len(f.command) == 0 {
			return nil, usageError("ferrotrace "+cmd.Name()+" hello -- ./args 1 2 3", "no command after --")
		}
	}
	switch {
	case len(patterns) == 0:
		return nil, usageError("ferrotrace list FILE shows which there are", "no function to trace is named")
	case slices.Contains(patterns, ""):
		return nil, usageError("ferrotrace list FILE shows which there are", "an empty pattern matches nothing")
	}
	return patterns, nil
}

// parse does the same, and demands that something to trace is named. Only verbs that have
// all groups of flags call it.
func (f *flags) parse(cmd *cobra.Command, args []string) ([]string, error) {
	patterns, err := f.patterns(cmd, args)
	const way = "name a process (-p PID), a file (-b FILE) or, after the patterns, a command (-- COMMAND ARG...)"
	switch {
	case err != nil && len(args) > 0:
		return nil, err
	case len(f.pids) == 0 && f.binary == "" && len(f.command) == 0:
		return nil, usageError(way, "nothing to trace is named")
	case len(f.pids) > 0 && len(f.command) > 0:
		return nil, usageError("trace them in runs of their own", "-p and -- COMMAND can't be mixed")
	case err != nil:
		return nil, err
	case f.leave && len(f.command) == 0:
		return nil, usageError("what runs already is always left running", "--leave is for a command that ferrotrace starts")
	}
	return patterns, nil
}

// open makes the verb's output. done flushes it, and closes the file of --out;
// its error matters: it may be the first to tell of a full disk.
func (f *flags) open(cmd *cobra.Command) (o output.Output, done func() error, err error) {
	w, closeOut, err := f.writer(cmd)
	if err != nil {
		return nil, nil, err
	}
	o = output.New(w, f.format)
	return o, func() error { return errors.Join(o.Flush(), closeOut()) }, nil
}

func (f *flags) writer(cmd *cobra.Command) (io.Writer, func() error, error) {
	if f.out == "" {
		return cmd.OutOrStdout(), func() error { return nil }, nil
	}
	file, err := os.Create(f.out)
	if err != nil {
		return nil, nil, fmt.Errorf("--out: %w", err)
	}
	return file, file.Close, nil
}

// warn writes a warning to standard error unless -q forbids it.
func (f *flags) warn(cmd *cobra.Command, format string, a ...any) {
	if !f.quiet {
		fmt.Fprintf(cmd.ErrOrStderr(), "ferrotrace: warning: %s\n", escapeLines(fmt.Sprintf(format, a...)))
	}
}

// The flag values below exist for their messages: each says what is allowed.

// choice is a flag with a few allowed words.
type choice struct {
	value   *string
	allowed []string
}

func choiceOf(value *string, allowed ...string) pflag.Value { return choice{value, allowed} }

func (c choice) String() string { return *c.value }
func (c choice) Type() string   { return "string" }
func (c choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		last := len(c.allowed) - 1
		return fmt.Errorf("must be %s or %s", strings.Join(c.allowed[:last], ", "), c.allowed[last])
	}
	*c.value = s
	return nil
}

type inlineValue struct{ all *bool }

func (v inlineValue) Type() string { return "string" }
func (v inlineValue) String() string {
	if *v.all {
		return "all"
	}
	return "none"
}
func (v inlineValue) Set(s string) error {
	word := v.String()
	err := choiceOf(&word, "all", "none").Set(s)
	*v.all = word == "all"
	return err
}

type pidsValue struct{ pids *[]int }

func (v pidsValue) Type() string   { return "pid" }
func (v pidsValue) String() string { return strings.Trim(fmt.Sprint(*v.pids), "[]") }
func (v pidsValue) Set(s string) error {
	pid, err := strconv.ParseInt(s, 10, 32)
	if err != nil || pid <= 0 {
		return &UsageError{"is not a process id", "a process id is a positive number; pgrep NAME finds it"}
	}
	if !slices.Contains(*v.pids, int(pid)) {
		*v.pids = append(*v.pids, int(pid))
	}
	return nil
}

type durationValue struct{ d *time.Duration }

func (v durationValue) Type() string { return "duration" }
func (v durationValue) String() string {
	if *v.d == 0 {
		return "" // no default is shown for "no limit"
	}
	return v.d.String()
}
func (v durationValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return &UsageError{"is not a duration", "write a number with its unit: 500ms, 10s, 2m"}
	}
	*v.d = d
	return nil
}

// naturalValue is a number from 0 to a bound that no record can hold anyway.
type naturalValue struct{ n *int }

const maxNatural = 1 << 20

func (v naturalValue) Type() string   { return "int" }
func (v naturalValue) String() string { return strconv.Itoa(*v.n) }
func (v naturalValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxNatural {
		return fmt.Errorf("must be a whole number from 0 to %d", maxNatural)
	}
	*v.n = n
	return nil
}

// countValue is a number without a bound; 0, for none, is not shown as a default.
type countValue struct{ n *uint64 }

func (v countValue) Type() string { return "uint" }
func (v countValue) String() string {
	if *v.n == 0 {
		return ""
	}
	return strconv.FormatUint(*v.n, 10)
}
func (v countValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return errors.New("must be a whole number")
	}
	*v.n = n
	return nil
}
