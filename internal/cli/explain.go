package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"ferrotrace/internal/explain"
	"ferrotrace/internal/index"
	"ferrotrace/internal/session"
)

func newExplain() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "explain FILE PATTERN...",
		Short: "Say how a function would be probed, what can be read there, and why not the rest",
		Example: `  $ ferrotrace explain target/release/args hello
  args::hello
    address   0x149e3
    inlined   into args::main at src/main.rs:13
    argument  i: i32      [rsp+0xc]
              len: usize  [rsp+0x30]
    …`,
		Long: `Nothing is attached or run. For each piece of code that runs the function: where it
is, where each argument lives when it is entered, where the result is, where it is
left, how its probe would be planted and what a hit would cost. When the function is
not there: why, and what to do about it.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			file, patterns, err := f.object(cmd, args)
			if err != nil {
				return err
			}
			if len(patterns) == 0 {
				return usageError("ferrotrace list "+file+" shows which there are", "no function to explain is named")
			}
			ix, functions, lines, err := f.search(cmd, file, patterns)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.closeIndex(cmd, ix)) }()
			if lack := ix.Lack(); lack != "" {
				f.warn(cmd, "%s", lack)
			}
			o, done, err := f.open(cmd)
			if err != nil {
				return err
			}
			var all []*index.Instance
			for _, fn := range functions {
				instances, err := fn.Instances()
				if err != nil {
					f.warn(cmd, "%v", err)
				}
				all = append(all, instances...)
			}
			found := explain.Instances(ix, all, session.Runtimes(ix))
			for _, e := range append(found, explain.Lines(lines, session.Runtimes(ix))...) {
				if err := o.Event(e); err != nil {
					return err
				}
			}
			return done()
		},
	}
	f.addTarget(cmd)
	f.addOutput(cmd)
	return cmd
}
