package cli

import (
	"ferrotrace/internal/spell"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a script that completes ferrotrace's command line in a shell",
		Example: `  $ source <(ferrotrace completion bash)
  $ ferrotrace completion fish > ~/.config/fish/completions/ferrotrace.fish`,
		Long:      "SHELL is " + strings.Join(shells, ", ") + ".",
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			hint := "one of " + strings.Join(shells, ", ")
			if len(args) != 1 {
				return usageError(hint, "completion needs the name of a shell")
			}
			root, w := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(w)
			}
			if near := spell.Nearest(args[0], shells); near != "" {
				hint = fmt.Sprintf("did you mean %q? %s", near, hint)
			}
			return usageError(hint, "no completion for the shell %q", args[0])
		},
	}
}
