package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ferrotrace/internal/event"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/output"
	"ferrotrace/internal/program"
	"ferrotrace/internal/session"
)

func newTrace() *cobra.Command {
	return newTracing(session.Trace, true, &cobra.Command{
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
func newTracing(run func(context.Context, session.Options) error, values bool, cmd *cobra.Command) *cobra.Command {
	var f flags
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		patterns, err := f.parse(cmd, args)
		if err != nil {
			return err
		}
		o, done, err := f.open(cmd)
		if err != nil {
			return err
		}
		stderr := newProgress(cmd.ErrOrStderr(), f.quiet)
		cmd.SetErr(stderr)
		err = run(cmd.Context(), session.Options{
			PIDs: f.pids, Binary: f.binary, Command: f.command, Patterns: patterns, DebugFile: f.debugFile,
			Inlined: f.inlined, Locals: f.locals, Pretty: f.pretty && f.format == output.Text,
			Limits:  program.Limits{MaxStr: f.maxStr, MaxItems: f.maxItems, Depth: f.depth},
			Runtime: f.runtime, For: f.duration, Limit: f.limit, Leave: f.leave, Verbose: f.verbose, Cache: store.User(),
			Emit:  func(e event.Event) error { return f.emit(stderr, o, e) },
			Idle:  o.Flush,
			Doing: stderr.doing,
			Warn:  func(format string, a ...any) { f.warn(cmd, format, a...) },
			Note: func(format string, a ...any) {
				if !f.quiet {
					fmt.Fprintf(stderr, "note: %s\n", escapeLines(fmt.Sprintf(format, a...)))
				}
			},
		})
		stderr.doing("")
		return cmp.Or(err, done())
	}
	f.addTarget(cmd)
	f.addOutput(cmd)
	f.addTrace(cmd)
	if values {
		cmd.Flags().BoolVar(&f.pretty, "pretty", false, "show values on several lines, as {:#?} does; without meaning for JSON")
		cmd.Flags().BoolVar(&f.locals, "locals", false, "show the variables in scope where a line is probed")
	}
	return cmd
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
