package session

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/index"
	"ferrotrace/internal/objfile/usdt"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/check"
	"ferrotrace/internal/script/macro"
	"ferrotrace/internal/script/parse"
)

// Listing says which probes are to be listed.
type Listing struct {
	// Pattern is an attach point, whose kind may be a pattern too; "" for all that there are.
	Pattern string
	// Script, if it is not nil, is the one whose probes are listed.
	Script *Script
	// Verbose lists arguments with their types too.
	Verbose bool
	// Found gets a probe, and what is to be said of it: a line each.
	Found func(name string, about []string)
}

// ListProbes lists what a script could probe, or what one probes. Nothing is attached, and
// no permission is needed but to read what is traced.
func ListProbes(ctx context.Context, o Options, l Listing) (err error) {
	r := &run{o: o, started: time.Now(), b: newBuilder(o.Limits)}
	s := &scripted{r: r, ctx: ctx, places: map[*check.Site]*scriptPlace{}}
	defer func() { err = errors.Join(err, r.close()) }()
	points, err := l.points()
	if err != nil {
		return err
	}
	if err := permitted(r.openTarget(ctx)); err != nil {
		return err
	}
	r.o.Doing("")
	ls := &lister{scripted: s, l: l, seen: map[string]bool{}}
	var missed error
	for _, p := range points {
		if err := ls.list(p); err != nil && missed == nil {
			missed = err
		}
	}
	if len(ls.seen) > 0 {
		return nil
	}
	if missed != nil {
		return refuse(nothing, missed, "")
	}
	return refuse(nothing, errors.New("there is no such probe"), "uprobe:FILE:*, usdt:FILE:*, or -p PID with nothing behind it")
}

// listed are the kinds that a pattern can mean; a uretprobe is where a uprobe is, and listed
// only if it is asked for by name.
var listed = []ast.Provider{ast.Begin, ast.End, ast.Self, ast.Interval, ast.Profile, ast.Uprobe, ast.Usdt}

// points are the attach points that a listing means.
func (l *Listing) points() (points []*ast.AttachPoint, err error) {
	if l.Script != nil {
		tree, errs := parse.File(l.Script.Name, l.Script.Text, l.Script.Params...)
		if !errs.Failed() {
			errs = macro.Expand(tree, check.Builtin)
		}
		if errs.Failed() {
			return nil, errs
		}
		for _, pr := range tree.Probes {
			points = append(points, pr.Points...)
		}
		return points, nil
	}
	kind, rest, parted := strings.Cut(l.Pattern, ":")
	if _, known := ast.ProviderNamed(kind); !parted && !known {
		// Without a kind it is part of a name.
		kind, rest = "*", kind
	}
	if !strings.ContainsAny(kind, "*?[") {
		if p, known := ast.ProviderNamed(kind); known && rest == "" {
			return []*ast.AttachPoint{{Provider: p, Raw: kind}}, nil
		}
		return point(kind + ":" + rest)
	}
	for _, p := range append(slices.Clone(listed), ast.Uretprobe) {
		ok, err := path.Match(kind, string(p))
		if err != nil {
			return nil, refuse(usage, fmt.Errorf("%s is no pattern: %w", kind, err), "")
		}
		if !ok || p == ast.Uretprobe && kind == "*" {
			continue
		}
		if rest == "" {
			points = append(points, &ast.AttachPoint{Provider: p, Raw: string(p)})
			continue
		}
		// What is no attach point of this kind may be one of another.
		if more, err := point(string(p) + ":" + rest); err == nil {
			points = append(points, more...)
		}
	}
	return points, nil
}

func point(text string) ([]*ast.AttachPoint, error) {
	kind, rest, _ := strings.Cut(text, ":")
	unit, _, _ := strings.Cut(rest, ":")
	some := strings.Contains(rest, "*") && slices.ContainsFunc(units, func(u string) bool { return globs(unit, u) })
	if p, _ := ast.ProviderNamed(kind); (p == ast.Interval || p == ast.Profile) && some {
		return []*ast.AttachPoint{{Provider: p, Raw: text}}, nil
	}
	p, errs := parse.Point("-l", text)
	if p == nil || errs.Failed() {
		return nil, errs
	}
	return []*ast.AttachPoint{p}, nil
}

// lister lists probes, each once.
type lister struct {
	*scripted
	l    Listing
	seen map[string]bool
}

func (ls *lister) found(name string, about ...string) {
	if ls.seen[name] {
		return
	}
	ls.seen[name] = true
	if !ls.l.Verbose {
		about = nil
	}
	ls.l.Found(name, about)
}

// units are those of the probes that are regular.
var units = []string{"hz", "us", "ms", "s"}

func (ls *lister) list(p *ast.AttachPoint) error {
	switch {
	case p.Provider.Kernel():
		return fmt.Errorf("%s probes are the kernel's own: ferrotrace traces what runs in user space", p.Provider)
	case ls.l.Script != nil && !ast.Wild(p.Target) && !strings.Contains(p.Func, "*") || p.HasAddr || p.Line > 0 || p.Offset > 0 || p.Count > 0:
		// As it stands: it means one thing, or is meant to.
		if p.Provider != ast.Uprobe && p.Provider != ast.Uretprobe && p.Provider != ast.Usdt || p.HasAddr || p.Line > 0 || p.Offset > 0 {
			ls.found(p.Raw)
			return nil
		}
	}
	switch p.Provider {
	case ast.Begin, ast.End:
		ls.found(string(p.Provider))
	case ast.Self:
		if p.Event == "" || p.Event == "signal" {
			ls.found("self:signal:SIGUSR1")
		}
	case ast.Interval, ast.Profile:
		for _, u := range units {
			ls.found(string(p.Provider) + ":" + u + ":")
		}
	case ast.Usdt:
		return ls.static(p)
	case ast.Uprobe, ast.Uretprobe:
		return ls.functions(p)
	}
	return nil
}

// static lists static probes.
func (ls *lister) static(p *ast.AttachPoint) error {
	files, err := ls.usdtFiles(p)
	if err != nil {
		return err
	}
	for _, f := range files {
		all, err := usdt.Read(f.ix.File)
		if err != nil {
			ls.r.o.Warn("%v", err)
			continue
		}
		for i := range all {
			u := &all[i]
			if !meansProbe(p, u) {
				continue
			}
			var about []string
			for j := range u.Args {
				about = append(about, fmt.Sprintf("%s arg%d", usdtType(&u.Args[j]).Name, j))
			}
			ls.found(usdtName(f, p, u), about...)
		}
	}
	return nil
}

// functions lists functions that have code.
func (ls *lister) functions(p *ast.AttachPoint) error {
	files, err := ls.named(p.Target)
	if err != nil {
		return err
	}
	name := p.Func
	if name == "" {
		name = "*"
	}
	pattern, err := index.ParsePattern(name)
	if err != nil {
		return err
	}
	var missed error
	for _, f := range files {
		prefix := ls.prefix(p, f)
		if p.Target == "" {
			prefix = string(p.Provider) + ":" + f.shown + ":"
		}
		functions := f.ix.Find(pattern)
		if len(functions) == 0 && missed == nil {
			missed = f.ix.NoMatch(name)
		}
		for _, fn := range functions {
			if out, in := fn.Counts(); out > 0 || in > 0 && ls.r.o.Inlined && p.Provider == ast.Uprobe {
				ls.found(prefix+called(fn, p.Func), signature(fn, p.Provider == ast.Uretprobe)...)
			}
		}
	}
	if len(files) == 0 {
		return errors.New("no file is named")
	}
	return missed
}

// signature is what a function takes, and gives if that is asked for: of a Rust function as Rust
// writes it, in one line; of others an argument a line, as bpftrace has it.
func signature(fn *index.Function, ret bool) (lines []string) {
	if fn.Rust {
		if t := fn.Type(); t != "" {
			return []string{t}
		}
		return nil
	}
	params, result, ok := fn.Signature()
	if !ok {
		return nil
	}
	for _, p := range params {
		lines = append(lines, strings.TrimSpace(inC(p.Type)+" "+p.Name))
	}
	if ret && result != nil {
		lines = append(lines, inC(result)+" retval")
	}
	return lines
}

// inC is a type as C writes it.
func inC(t *types.Type) string {
	switch t.Kind {
	case types.Pointer:
		if t.Pointer == nil || t.Pointer.Target == nil || t.Pointer.Target.Kind == types.Unit {
			return "void*"
		}
		if t.Pointer.Kind != types.FnPtr {
			return inC(t.Pointer.Target) + "*"
		}
	case types.Struct:
		return "struct " + t.Display()
	case types.Union:
		return "union " + t.Display()
	case types.Enum:
		return "enum " + t.Display()
	}
	return t.Display()
}
