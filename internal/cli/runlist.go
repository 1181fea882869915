package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"ferrotrace/internal/index/store"
	"ferrotrace/internal/output"
	"ferrotrace/internal/runtime/kernel"
	"ferrotrace/internal/session"
)

// probes lists those that a pattern means, or, if the first argument is a file, those of a
// script.
func (f *runFlags) probes(cmd *cobra.Command, args []string) (err error) {
	l := session.Listing{Verbose: f.verbose}
	isFile := func(name string) bool {
		st, err := os.Stat(name)
		return name == "-" || err == nil && st.Mode().IsRegular()
	}
	switch {
	case len(f.texts) > 0:
		l.Script = &session.Script{Name: "stdin", Text: strings.Join(f.texts, "\n"), Params: args}
	case len(args) > 0 && isFile(args[0]):
		b, err := read(cmd, args[0])
		if err != nil {
			return fmt.Errorf("reading the script: %w", err)
		}
		l.Script = &session.Script{Name: args[0], Text: string(b), Params: args[1:]}
	case len(args) > 1:
		return usageError("ferrotrace run -l 'uprobe:./app:shop::*'", "-l takes one pattern")
	case len(args) == 1:
		l.Pattern = args[0]
	}
	closer, done, err := f.writer(cmd)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(closer)
	color := output.Colored(cmd.ErrOrStderr())
	stderr := newProgress(cmd.ErrOrStderr(), f.quiet)
	cmd.SetErr(stderr)
	l.Found = func(name string, about []string) {
		// What fails is told by the flush.
		fmt.Fprintf(w, "%s\n", output.Escape(name))
		for _, line := range about {
			fmt.Fprintf(w, "    %s\n", output.Escape(line))
		}
	}
	note := func(format string, a ...any) { f.warn(cmd, format, a...) }
	err = session.ListProbes(cmd.Context(), session.Options{
		PIDs: f.pids, Binary: f.binary, Command: f.command, DebugFile: f.debugFile, Inlined: f.inlined,
		Runtime: f.runtime, Cache: store.User(), Doing: stderr.doing, Warn: note, Note: note,
	}, l)
	stderr.doing("")
	return errors.Join(rendered(err, stderr, color), w.Flush(), done())
}

// aboutHere says what this build has, and what this machine can do.
func (f *runFlags) aboutHere(cmd *cobra.Command) error {
	w := cmd.OutOrStdout()
	v := newVersion()
	v.SetOut(w)
	if err := v.RunE(v, nil); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, `
probes    begin end self interval (in ferrotrace itself), uprobe uretprobe usdt (either runtime), profile (the kernel's)
output    text json
`)
	m := machine{root: "/", arch: runtime.GOARCH, features: append(kernelFeatures(kernel.ProbeFeatures()), userFeatures()...)}
	findings := m.examine()
	runtimes, _ := verdict(findings) // that none can be used is said too
	_, lerr := fmt.Fprintln(w)
	return cmp.Or(err, lerr, writeFindings(w, f.format, append(findings, runtimes...)))
}
