package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"ferrotrace/internal/rust/demangle"
)

func newDemangle() *cobra.Command {
	var (
		in, out string
		opts    demangle.Options
	)
	cmd := &cobra.Command{
		Use:   "demangle [NAME...]",
		Short: "Turn Rust symbols into the paths that they stand for",
		Example: `  $ ferrotrace demangle _ZN4args5hello17h0fef722aa66d4e7cE
  args::hello
  $ nm target/release/args | ferrotrace demangle`,
		Long: `Each NAME is one symbol; what is none is printed unchanged. Without a NAME, every
symbol in the text on standard input is replaced, and all else is left as it is,
byte for byte.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) > 0 && in != "" {
				return usageError("give one or the other", "NAME and -i FILE can't be mixed")
			}
			r := cmd.InOrStdin()
			if in != "" {
				file, err := os.Open(in)
				if err != nil {
					return err
				}
				defer file.Close()
				r = file
				if same(in, out) {
					return usageError("write to another file and rename it", "-i and -o are the same file %q", in)
				}
			}
			w := cmd.OutOrStdout()
			if out != "" {
				file, err := os.Create(out)
				if err != nil {
					return err
				}
				defer func() {
					// The first to tell of a full disk may be the close.
					if e := file.Close(); err == nil {
						err = e
					}
				}()
				w = file
			}
			if len(args) == 0 {
				return opts.Stream(w, r)
			}
			return demangleNames(w, opts, args)
		},
	}
	cmd.Flags().StringVarP(&in, "input", "i", "", "read from `FILE`, not from standard input")
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to `FILE`, not to standard output")
	cmd.Flags().BoolVar(&opts.KeepHash, "keep-hash", false, "show the hash that makes a legacy symbol unique, ::h0fef722aa66d4e7c")
	return cmd
}

func demangleNames(w io.Writer, opts demangle.Options, names []string) error {
	for _, name := range names {
		if path, ok := opts.Demangle(name); ok {
			name = path
		}
		if _, err := fmt.Fprintln(w, name); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether both paths lead to one file: opening it for writing would
// empty it before it is read.
func same(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}
