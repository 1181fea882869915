package cli

import (
	"github.com/spf13/cobra"

	"ferrotrace/internal/script/verb"
)

func newCount() *cobra.Command {
	return newTracing(verb.Count, false, &cobra.Command{
		Use:   "count PATTERN... (-- COMMAND [ARG...] | -p PID | -b FILE)",
		Short: "Count the calls of functions, by function, argument or anything",
		Example: `  $ ferrotrace count 'args::*' -- target/debug/args 1 2 3 4
  COUNT  FUNCTION
      4  args::hello
      1  args::main

  $ ferrotrace count shop::add --by args.item.name -p 812
  COUNT  FUNCTION   BY
     12  shop::add  "pear"
      4  shop::add  "fig"
  $ ferrotrace count shop::load --where 'is(retval, Err)' --by retval.Err.0 -p 812 --for 10s`,
		Long: patternHelp + `

EXPR is an expression of the probe language (docs/language.md): args.NAME with fields,
variants and elements, retval, duration (in ns), pid, tid, comm and the like. Without
--by and --where, counting is at its cheapest: it costs some nanoseconds a call.`,
	})
}
