package cli

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"ferrotrace/internal/runtime/user/jit/isolate"
	"ferrotrace/internal/runtime/user/vm/insn"
)

func newBPF() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bpf VERB",
		Short:   "Run eBPF programs that ferrotrace did not make",
		Example: "  $ echo b7000000 2a000000 95000000 00000000 | ferrotrace bpf exec\n  2a",
		Args:    cobra.ArbitraryArgs, // so that RunE can name the nearest verb
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("ferrotrace help bpf lists them", "bpf needs a verb")
			}
			return unknownVerb(cmd, args[0])
		},
	}
	cmd.AddCommand(newBPFExec())
	return cmd
}

func newBPFExec() *cobra.Command {
	var (
		mem  string
		here bool
	)
	cmd := &cobra.Command{
		Use:   "exec",
		Short: "Run eBPF bytecode by the JIT and print its result",
		Example: `  $ echo b7000000 2a000000 95000000 00000000 | ferrotrace bpf exec
  2a
  $ echo 71100100 00000000 95000000 00000000 | ferrotrace bpf exec --mem 0a0b0c
  b`,
		Long: `The bytecode stands in hex on standard input; white space does not matter. It
runs with r1 = the address and r2 = the length of the memory that --mem fills, and
r0 is printed in hex. Nothing verifies the program: it runs in a process of its
own, for at most ` + isolate.Timeout.String() + `, and a fault ends that process. This is the plugin
protocol of the public eBPF conformance suite.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxHex))
			if err != nil {
				return err
			}
			if len(text) == maxHex {
				return fmt.Errorf("the bytecode on standard input is longer than %d instructions", insn.MaxSlots)
			}
			code, err := parseHex(string(text))
			if err != nil {
				return fmt.Errorf("the bytecode on standard input: %w", err)
			}
			memory, err := parseHex(mem)
			if err != nil {
				return usageError("", "--mem: %s", err)
			}
			if here {
				r0, err := isolate.Here(code, memory)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%x\n", r0)
				return err
			}
			if err := isolate.Check(code); err != nil {
				return err
			}
			out, err := isolate.Apart(cmd.Context(), string(text), "bpf", "exec", "--here", "--mem", mem)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), out)
			return err
		},
	}
	cmd.Flags().StringVar(&mem, "mem", "", "the memory in hex")
	cmd.Flags().BoolVar(&here, "here", false, "run it in this process")
	if err := cmd.Flags().MarkHidden("here"); err != nil {
		panic(err)
	}
	return cmd
}

// maxHex is more than the longest program has in hex, with some white space.
const maxHex = 4 * insn.MaxSlots * insn.Size

func parseHex(s string) ([]byte, error) {
	return hex.DecodeString(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s))
}
