package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/output"
	"ferrotrace/internal/program"
	"ferrotrace/internal/script/source"
	"ferrotrace/internal/script/verb"
	"ferrotrace/internal/session"
)

func newTrace() *cobra.Command {
	return newTracing(verb.Trace, true, &cobra.Command{
		Use:   "trace PATTERN... (-- COMMAND [ARG...] | -p PID | -b FILE)",
		Short: "Show each call of a function, with its arguments, result and duration",
		Example: `  $ ferrotrace trace hello -- target/debug/args 1 2
  args::hello(i: 1, len: 3)
  args::hello → 4  38.2µs
  args::hello(i: 2, len: 3)
  args::hello → 5  14.9µs

  $ ferrotrace trace 'shop::cart::*' -p 812 --for 10s
  $ ferrotrace trace src/cart.rs:42 --locals -p 812
  src/cart.rs:42 in shop::cart::add  total: 3, item: Item { id: 7, name: "pear" }
  $ sudo ferrotrace trace shop::Cart::add -b /usr/bin/shop -o json`,
		Long: patternHelp + `

Inlined calls are shown too, as far as the compiler left them: without their end,
and with ≈ where they can't be told apart. With --locals a line is shown with the
variables in scope there.`,
	})
}

const patternHelp = `A PATTERN is a path as the source has it: shop::cart::add, or its end, add. Types
narrow it down (shop::parse::<u32>, <Cart as Debug>::fmt), * is part of a segment
or a whole one, ** any number of them, /regex/ searches the whole path. A line of the
source is src/cart.rs:42, or with any longer or shorter end of the file's path.
Without debug info you may give the signature: 'shop::add(id: u64, name: &str) -> bool'.`

// newTracing makes a verb that runs a session; values says whether it shows any.
func newTracing(kind verb.Kind, values bool, cmd *cobra.Command) *cobra.Command {
	f := verbFlags{verb: verb.Verb{Kind: kind}}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) }
	f.addTarget(cmd)
	f.addOutput(cmd)
	f.addTrace(cmd)
	f.addLimit(cmd)
	s := cmd.Flags()
	s.StringVar(&f.verb.Where, "where", "", "only calls for which `EXPR` holds: of args, retval, duration")
	s.BoolVar(&f.print, "print-script", false, "print the script that this is, and run nothing")
	if values {
		s.BoolVar(&f.pretty, "pretty", false, "show values on several lines, as {:#?} does; without meaning for JSON")
		s.BoolVar(&f.locals, "locals", false, "show the variables in scope where a line is probed")
	} else {
		s.StringVar(&f.verb.By, "by", "", "a row for each value of `EXPR`, such as args.name or (tid, retval)")
	}
	return cmd
}

// verbFlags are those of verbs that are scripts.
type verbFlags struct {
	flags
	verb  verb.Verb
	print bool // --print-script
}

func (f *verbFlags) run(cmd *cobra.Command, args []string) error {
	if f.verb.Kind == verb.Hist {
		dash := cmd.ArgsLenAtDash()
		if len(args) == 0 || dash == 0 {
			return usageError("ferrotrace hist args.len shop::add -p 812", "hist needs an expression, and functions")
		}
		f.verb.Value = args[0]
	}
	patterns, err := f.parse(cmd, args)
	if f.print {
		patterns, err = f.patterns(cmd, args)
	}
	if err != nil {
		return err
	}
	if f.verb.Kind == verb.Hist {
		patterns = patterns[1:]
		if len(patterns) == 0 {
			return usageError("ferrotrace hist "+f.verb.Value+" shop::add -p 812", "no function is named behind the expression")
		}
	}
	color := output.Colored(cmd.ErrOrStderr())
	stderr := newProgress(cmd.ErrOrStderr(), f.quiet)
	cmd.SetErr(stderr)
	if f.print {
		return rendered(f.printScript(cmd, patterns), stderr, color)
	}
	o, done, err := f.open(cmd)
	if err != nil {
		return err
	}
	options := session.Options{
		PIDs: f.pids, Binary: f.binary, Command: f.command, Patterns: patterns, DebugFile: f.debugFile,
		Inlined: f.inlined, Locals: f.locals, Pretty: f.pretty && f.format == output.Text,
		Limits:  program.Limits{MaxStr: f.maxStr, MaxItems: f.maxItems, Depth: f.depth},
		Runtime: f.runtime, For: f.duration, Limit: f.limit, Leave: f.leave, Verbose: f.verbose, Cache: store.User(),
		Emit: func(e event.Event) error {
			stderr.live.erase()
			return f.emit(stderr, o, e)
		},
		Idle:  o.Flush,
		Doing: stderr.doing,
		Warn:  func(format string, a ...any) { f.warn(cmd, format, a...) },
		Note: func(format string, a ...any) {
			if !f.quiet {
				fmt.Fprintf(stderr, "note: %s\n", escapeLines(fmt.Sprintf(format, a...)))
			}
		},
	}
	// A command writes to the terminal too, and what it writes is not to be erased.
	if f.verb.Kind != verb.Trace && f.format == output.Text && f.out == "" && len(f.command) == 0 {
		if stderr.live = newLive(cmd.OutOrStdout()); stderr.live != nil {
			options.Live = stderr.live.draw
		}
	}
	err = f.session(cmd.Context(), options)
	stderr.doing("")
	return cmp.Or(rendered(err, stderr, color), done())
}

func (f *verbFlags) session(ctx context.Context, o session.Options) error {
	switch {
	case f.verb.Kind == verb.Trace:
		o.Where = f.verb.Where
		return session.Trace(ctx, o)
	case f.verb.Kind == verb.Count && f.verb.Plain():
		return session.Count(ctx, o) // the same, and cheaper
	}
	return session.Measure(ctx, o, f.verb)
}

// printScript prints the script that the verb is.
func (f *verbFlags) printScript(cmd *cobra.Command, patterns []string) error {
	v := f.verb
	v.Patterns = patterns
	if err := v.Check(); err != nil {
		return err
	}
	w, done, err := f.writer(cmd)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, v.Script())
	return cmp.Or(err, done())
}

// rendered shows what is wrong with a script where it stands, and leaves the status.
func rendered(err error, stderr io.Writer, color bool) error {
	var errs source.Errors
	if !errors.As(err, &errs) {
		return err
	}
	return cmp.Or(errs.Render(stderr, color), error(statusError(exitCode(err))))
}

// emit writes an event where it belongs: what frames a run stands on standard error
// too.
func (f *flags) emit(stderr io.Writer, o output.Output, e event.Event) error {
	err := o.Event(e)
	if f.quiet {
		return err
	}
	switch e := e.(type) {
	case event.Attached:
		err = cmp.Or(err, output.Attached(stderr, e))
	case event.Summary:
		// It closes a run, also one whose output can't be written.
		err = cmp.Or(err, o.Flush())
		err = cmp.Or(err, output.Summary(stderr, e))
	}
	return err
}
