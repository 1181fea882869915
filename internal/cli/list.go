package cli

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"ferrotrace/internal/event"
	"ferrotrace/internal/explain"
	"ferrotrace/internal/index"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/session"
	"ferrotrace/internal/target"
)

func newList() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "list [FILE | -b FILE | -p PID] [PATTERN...]",
		Short: "List the functions that can be traced",
		Example: `  $ ferrotrace list target/debug/args hello
  args::hello(i: i32, len: usize) -> i32  src/main.rs:3  1 out of line
  $ ferrotrace list -p 812 'shop::**'`,
		Long: `A path that is listed can be given to every verb as a pattern. Generic functions
are listed once for each set of types that they were compiled for; a pattern
without types means all of them. Without a PATTERN, all Rust functions are listed.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			file, patterns, err := f.object(cmd, args)
			if err != nil {
				return err
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
			for _, e := range append(rows(functions), lineRows(lines)...) {
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

// object takes the file to look at from -b, -p or the first argument; the other
// arguments are patterns.
func (f *flags) object(cmd *cobra.Command, args []string) (file string, patterns []string, err error) {
	how := "ferrotrace " + cmd.Name() + " target/debug/args hello"
	switch {
	case len(f.pids) > 0 && f.binary != "":
		return "", nil, usageError(how, "-p and -b can't be mixed")
	case len(f.pids) > 1:
		return "", nil, usageError(how, "%s looks at one process", cmd.Name())
	case len(f.pids) == 1:
		p, err := target.Open(f.pids[0])
		if err != nil {
			return "", nil, err
		}
		defer p.Close()
		return p.Path, args, nil
	case f.binary != "":
		return f.binary, args, nil
	case len(args) == 0:
		return "", nil, usageError(how, "no file is named")
	}
	return args[0], args[1:], nil
}

// search finds what patterns name in a file or, if there is nothing in that of a process,
// in the first of its Rust libraries that has something. The index is the caller's to close.
func (f *flags) search(cmd *cobra.Command, file string, patterns []string) (*index.Index, []*index.Function, []*index.Line, error) {
	ix, functions, lines, err := f.searchFile(cmd, file, patterns)
	var none *index.NoMatchError
	if !errors.As(err, &none) || len(f.pids) == 0 {
		return ix, functions, lines, err
	}
	p, perr := target.Open(f.pids[0])
	if perr != nil {
		return nil, nil, nil, perr
	}
	defer p.Close()
	for _, l := range session.Libraries(p) {
		if ix, functions, lines, err := f.searchFile(cmd, l[0], patterns); err == nil {
			return ix, functions, lines, nil
		}
	}
	return nil, nil, nil, err
}

func (f *flags) searchFile(cmd *cobra.Command, file string, patterns []string) (*index.Index, []*index.Function, []*index.Line, error) {
	ix, err := f.index(cmd, file)
	if err != nil {
		return nil, nil, nil, err
	}
	functions, lines, err := f.select_(cmd, ix, patterns)
	if err != nil {
		return nil, nil, nil, errors.Join(err, f.closeIndex(cmd, ix))
	}
	return ix, functions, lines, nil
}

// index reads a file, which may take its time.
func (f *flags) index(cmd *cobra.Command, file string) (*index.Index, error) {
	p := newProgress(cmd.ErrOrStderr(), f.quiet)
	p.doing("reading " + file)
	defer p.doing("")
	ix, err := index.OpenContext(cmd.Context(), file, index.Options{DebugFile: f.debugFile, Doing: p.doing, Cache: store.User()})
	if err == nil && ix.Problem != nil {
		p.doing("")
		f.warn(cmd, "%v", ix.Problem)
	}
	return ix, err
}

// closeIndex closes what index opened.
func (f *flags) closeIndex(cmd *cobra.Command, ix *index.Index) error {
	if err := ix.Uncached(); err != nil && f.verbose {
		f.warn(cmd, "the index of %s was not kept: %v", ix.File.Path, err)
	}
	return ix.Close()
}

// select_ returns the functions and lines that patterns name, all Rust functions without
// one.
func (f *flags) select_(cmd *cobra.Command, ix *index.Index, patterns []string) ([]*index.Function, []*index.Line, error) {
	if len(patterns) == 0 {
		var rust []*index.Function
		for _, fn := range ix.Functions() {
			if fn.Rust {
				rust = append(rust, fn)
			}
		}
		if len(rust) == 0 {
			return nil, nil, ix.NoMatch("any pattern")
		}
		return rust, nil, nil
	}
	var all []*index.Function
	var lines []*index.Line
	var missed error
	for _, text := range patterns {
		p, err := index.ParsePattern(text)
		if err != nil {
			return nil, nil, err
		}
		var none error
		if p.Kind == path.KindLine {
			var found []*index.Line
			found, none = ix.FindLine(p)
			lines = append(lines, found...)
		} else {
			found := ix.Find(p)
			note, err := ix.Give(p, found)
			if err != nil {
				return nil, nil, err
			}
			if note != "" {
				f.warn(cmd, "%s", note)
			}
			if len(found) == 0 {
				none = ix.NoMatch(text)
			}
			all = append(all, found...)
		}
		if none != nil {
			missed = none
			if len(patterns) > 1 {
				f.warn(cmd, "%v", missed)
			}
		}
	}
	if len(all)+len(lines) == 0 {
		return nil, nil, missed
	}
	return all, lines, nil
}

// rows makes one row of functions that share their path and signature: the copies
// that a legacy symbol's name does not tell apart.
func rows(functions []*index.Function) []event.Function {
	type key struct {
		name, signature string
		line            int // units may write the file's path in different ways
	}
	at := map[key]int{}
	seen := map[*index.Function]bool{}
	var out []event.Function
	for _, fn := range functions {
		if seen[fn] {
			continue
		}
		seen[fn] = true
		e := explain.Function(fn)
		k := key{e.Function, e.Signature, e.Source.Line}
		if i, ok := at[k]; ok {
			out[i].OutOfLine += e.OutOfLine
			out[i].Inlined += e.Inlined
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out
}

// lineRows makes a row of each function that lines are in.
func lineRows(lines []*index.Line) []event.Function {
	var out []event.Function
	for _, l := range lines {
		for _, in := range l.Instances {
			e := explain.Function(in.In.Fn)
			e.Source = event.Place{File: l.File, Line: l.Number}
			e.OutOfLine, e.Inlined = 0, 0
			i := slices.IndexFunc(out, func(o event.Function) bool {
				return o.Function == e.Function && o.Signature == e.Signature && o.Source == e.Source
			})
			if i < 0 {
				i = len(out)
				out = append(out, e)
			}
			if in.In.Inlined {
				out[i].Inlined++
			} else {
				out[i].OutOfLine++
			}
		}
	}
	return out
}
