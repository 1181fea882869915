package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ferrotrace/internal/output"
	"ferrotrace/internal/spell"
)

// Exit statuses.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitNoMatch      = 3
	exitNotPermitted = 4
)

// An error from any room may choose its exit status and add what to do next.
type (
	exitCoder interface{ ExitCode() int }
	hinter    interface{ Hint() string }
)

// UsageError is a mistake in the command line.
type UsageError struct {
	Message string
	Advice  string // what to do about it, "" if that is plain
}

func (e *UsageError) Error() string { return e.Message }
func (e *UsageError) Hint() string  { return e.Advice }
func (e *UsageError) ExitCode() int { return exitUsage }

func usageError(hint, format string, a ...any) error {
	return &UsageError{Message: fmt.Sprintf(format, a...), Advice: hint}
}

func exitCode(err error) int {
	if e := exitCoder(nil); errors.As(err, &e) {
		return e.ExitCode()
	}
	if errors.Is(err, fs.ErrPermission) {
		return exitNotPermitted
	}
	return exitFailed
}

// report writes one message, and what to do next if the error knows it.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "ferrotrace: %s\n", escapeLines(err.Error()))
	if h := hinter(nil); errors.As(err, &h) && h.Hint() != "" {
		fmt.Fprintf(w, "  hint: %s\n", escapeLines(h.Hint()))
	}
}

// escapeLines keeps the line breaks of a message, which may quote names out of
// a foreign file, and escapes all else that a terminal would act on.
func escapeLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = output.Escape(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// flagError makes pflag's errors read like all others.
func flagError(cmd *cobra.Command, err error) error {
	help := "ferrotrace help " + cmd.Name() + " lists the flags"
	if cmd == cmd.Root() {
		help = "ferrotrace help lists the verbs; flags follow the verb"
	}
	var (
		unknown *pflag.NotExistError
		invalid *pflag.InvalidValueError
		bare    *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if unknown.GetSpecifiedShortnames() != "" {
			return usageError(help, "unknown flag -%s", name)
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		if near := spell.Nearest(name, names); near != "" {
			help = fmt.Sprintf("did you mean --%s? %s", near, help)
		}
		return usageError(help, "unknown flag --%s", name)
	case errors.As(err, &invalid):
		cause := invalid.Unwrap()
		hint := help
		if h := hinter(nil); errors.As(cause, &h) && h.Hint() != "" {
			hint = h.Hint()
		}
		return usageError(hint, "%s %q: %s", flagName(invalid.GetFlag()), invalid.GetValue(), cause)
	case errors.As(err, &bare):
		return usageError(help, "%s needs a value", flagName(bare.GetFlag()))
	}
	return usageError(help, "%s", err)
}

func flagName(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return "-" + f.Shorthand
	}
	return "--" + f.Name
}

// noArgs refuses arguments where a verb has no use for them.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("ferrotrace help "+cmd.Name()+" shows how it is used", "%s takes no argument, but got %q", cmd.Name(), args[0])
	}
	return nil
}
