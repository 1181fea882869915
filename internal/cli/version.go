package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"ferrotrace/internal/output"
)

// version is set by the build: -ldflags "-X ferrotrace/internal/cli.version=…".
var version string

type versionData struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which ferrotrace this is",
		Example: `  $ ferrotrace version
  ferrotrace v0.1.0 (go1.26.0, linux/amd64)`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionData{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if f.format == output.JSON {
				return output.JSONLine(cmd.OutOrStdout(), "version", v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "ferrotrace %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return err
		},
	}
	f.addFormat(cmd)
	return cmd
}

// buildVersion is what the build stamped, else what Go knows of the module.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
		if v := info.Main.Version; v != "" && v != "(devel)" {
			return v
		}
	}
	return "devel"
}
