package cli

import (
	"github.com/spf13/cobra"

	"ferrotrace/internal/session"
)

func newCount() *cobra.Command {
	return newTracing(session.Count, false, &cobra.Command{
		Use:   "count PATTERN... (-- COMMAND [ARG...] | -p PID | -b FILE)",
		Short: "Count the calls of functions, one table at the end",
		Example: `  $ ferrotrace count 'args::*' -- target/debug/args 1 2 3 4
  COUNT  FUNCTION
      4  args::hello
      1  args::main

  $ ferrotrace count src/cart.rs:42 src/cart.rs:57 -p 812 --for 10s`,
		Long: patternHelp,
	})
}
