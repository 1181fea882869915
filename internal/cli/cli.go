// Package cli is ferrotrace's command line: one file a verb, the flags they share,
// the help, and how an error becomes a message and an exit status.
package cli

import (
	"context"
	"errors"
	"ferrotrace/internal/spell"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// verbs make the commands, in the order in which the help lists them.
var verbs = []func() *cobra.Command{
	newTrace,
	newCount,
	newLatency,
	newHist,
	newRun,
	newList,
	newExplain,
	newDemangle,
	newBPF,
	newDoctor,
	newVersion,
	newCompletion,
}

// Main runs ferrotrace with the arguments that follow its name and returns its
// exit status: 0 done, 1 failed, 2 usage, 3 nothing matched, 4 not permitted.
func Main(args ...string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// The first signal ends the trace in order; a second one ends ferrotrace.
	context.AfterFunc(ctx, stop)
	// A closed pipe is an error of the write then, and not the end on the spot, which
	// would leave a command behind that was started to be traced.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if errors.Is(err, syscall.EPIPE) {
		return 0 // who reads the output has seen enough
	}
	if status := statusError(0); errors.As(err, &status) {
		return int(status)
	}
	if err != nil {
		report(root.ErrOrStderr(), err)
		return exitCode(err)
	}
	return 0
}

func newRoot() *cobra.Command {
	cobra.EnableCommandSorting = false
	root := &cobra.Command{
		Use:   "ferrotrace VERB",
		Short: "ferrotrace shows what a running Rust program does, function by function",
		Long: `It shows which functions are called, with which arguments, what they return and
how long they take. The program is not rebuilt, not restarted and never harmed.`,
		Example: `  ferrotrace list ./args hello                  which functions are there
  ferrotrace trace hello -- ./args 1 2 3 4      each call, with arguments and result
  ferrotrace trace shop::cart::add -p 812       the same in a process that runs already
  ferrotrace doctor                             what this machine can do`,
		Args:              cobra.ArbitraryArgs, // so that RunE can name the nearest verb
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("ferrotrace help lists the verbs", "no verb given")
			}
			return unknownVerb(cmd, args[0])
		},
	}
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(newHelp())
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	for _, verb := range verbs {
		root.AddCommand(verb())
	}
	return root
}

func unknownVerb(root *cobra.Command, name string) error {
	var names []string
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	hint := "ferrotrace help lists the verbs"
	if near := spell.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return usageError(hint, "no verb %q", name)
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [VERB]",
		Short:   "Help on a verb, a worked example first",
		Example: "  ferrotrace help trace",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, c := range cmd.Root().Commands() {
				if len(args) == 0 && c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			verb, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 || verb == nil {
				return unknownVerb(cmd.Root(), args[0])
			}
			verb.InitDefaultHelpFlag()
			return verb.Help()
		},
	}
}

// The example stands before everything but the one line that says what the verb
// is for: it answers most questions.
const helpTemplate = `{{.Short}}.

Example:
{{.Example}}

{{.UsageString}}`

const usageTemplate = `Usage:
  {{.UseLine}}{{with .Long}}

{{. | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

Verbs:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}

"ferrotrace help VERB" shows an example and the flags of a verb.{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
