package cli

import (
	"github.com/spf13/cobra"

	"ferrotrace/internal/script/verb"
)

func newLatency() *cobra.Command {
	return newTracing(verb.Latency, false, &cobra.Command{
		Use:   "latency PATTERN... (-- COMMAND [ARG...] | -p PID | -b FILE)",
		Short: "Measure how long calls take: percentiles and a histogram for each function",
		Example: `  $ ferrotrace latency shop::load -p 812 --for 10s
  COUNT     MIN     P50     P90     P99   P99.9     MAX   TOTAL  FUNCTION
    412  1.21µs  1.31µs  3.94µs  12.3µs  98.0µs  98.0µs  1.02ms  shop::load

  shop::load
  [1.02µs, 2.05µs)         350 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|
  …
  $ ferrotrace latency 'shop::**' --by tid -p 812
  $ ferrotrace latency shop::load --where 'is(retval, Err)' -p 812`,
		Long: patternHelp + `

A call is measured from its entry to its return. Calls that a panic ends are not in the
table, nor are those that were inlined: the end of such a call can't be seen. EXPR is an
expression of the probe language (docs/language.md).`,
	})
}

func newHist() *cobra.Command {
	return newTracing(verb.Hist, false, &cobra.Command{
		Use:   "hist EXPR PATTERN... (-- COMMAND [ARG...] | -p PID | -b FILE)",
		Short: "Show how the values of an expression are distributed, by function",
		Example: `  $ ferrotrace hist args.len args::hello -- target/debug/args 1 2 3 4
  args::hello
  [4, 8)                 4 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|

  $ ferrotrace hist 'args.items.len' shop::cart::checkout --by args.user.kind -p 812
  $ ferrotrace hist 'duration / 1000' shop::load --where 'is(retval, Ok)' -p 812`,
		Long: patternHelp + `

EXPR is an expression of the probe language (docs/language.md) whose value is a number:
args.NAME with fields, variants and elements, retval, duration (in ns). A call for which
it has no value, another variant perhaps, is not in the histogram.`,
	})
}
