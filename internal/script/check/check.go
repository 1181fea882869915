// Package check makes a typed program of a script: it finds out what names and types
// mean, at each site that a probe stands for, and says what is wrong before anything is
// attached.
//
// Types are inferred. A variable has the type of what is assigned to it, a map those of
// its keys and values, wherever in the script these stand: so the whole script is gone
// through again and again until nothing new is learnt, and what was made in the last
// round is the result.
//
// A body is checked once for all sites at which the values that it looks at have the
// same types.
package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/script/ast"
	"ferrotrace/internal/script/source"
)

// Symbols is what the checker asks of what is traced.
type Symbols interface {
	// Sites are the places that an attach point means: none if nothing matches.
	Sites(p *ast.AttachPoint) ([]*Site, error)
	// Type is the type that a path or a C name means in the debug info, nil if none.
	Type(name string) *types.Type
	// Symbol is where a symbol of a site's file is, as linked, and how many bytes it has.
	Symbol(s *Site, name string) (addr, size uint64, ok bool)
}

// Site is a place that a probe stands for, as far as types are concerned. A site of a
// uretprobe stands for all exits of a function.
type Site struct {
	Probe string // what the builtin probe is there
	Func  string // and func
	// Args are the function's parameters in the source's order; nil, with NoArgs saying
	// why, if they are not known.
	Args   []Arg
	NoArgs string
	// Result is nil for a function that has none, and for what is no uretprobe.
	Result *Arg
	// C says that the function is none of Rust's: what can't be read there is zero, as it is
	// in bpftrace.
	C bool
}

// Arg is a value at a site. Missing says why it can't be had there.
type Arg struct {
	Name    string
	Type    *types.Type
	Missing string
	// Led is, of a result in memory to which nothing leads at the exit, the register that
	// leads to it where the function is entered.
	Led *location.Reg
}

// Options are what a script can't say itself.
type Options struct {
	Params []string // the positional parameters
	// Named are the named ones: a value is "" for one that is only there.
	Named map[string]string
	// Settings are those of the environment: as in the config block, which stands above them.
	Settings map[string]string
	// Warnings has lookups and deletions warn that find no element.
	Warnings bool
	MaxStr   int // bytes of a string
	CPUs     int
	Start    uint64 // CLOCK_MONOTONIC in ns: what elapsed counts from
	Unsafe   bool
	Child    bool // a command is started, whose process is cpid
	Hidden   bool // hits for which a predicate does not hold are counted
	// CgroupID is the number of the cgroup that a directory stands for.
	CgroupID func(path string) (uint64, error)
	// Format says what is wrong with a format and its arguments, nil if nothing.
	Format func(format string, args []*ir.Type) error
}

// Use is a handler at a site. Roots are the values that it looks at: indices of the
// site's arguments, or Result.
type Use struct {
	Site    *Site
	Handler int
	Roots   []int
	// Registers says that it looks at registers as they are when the function is entered.
	Registers bool
	// Entry says that it runs where the function is entered, though the site is an exit:
	// it keeps what the exit's handler wants.
	Entry bool
	// Result says that it looks at the result, or keeps what leads to it.
	Result bool
}

// Result stands for a site's result in Use.Roots.
const Result = -1

// Output is a script that can be run.
type Output struct {
	Script *ir.Script
	Uses   []Use
	Config Config
	// Wanted are the named parameters that the script asks for.
	Wanted []Option
	// Child is the number of the map, without keys, that is to hold the command's process; -1 if
	// the script does not ask for it.
	Child int
	// Probes are how many attach points the script has that stand for something.
	Probes int
}

// Option is a named parameter, and what the script says it is for.
type Option struct{ Name, About string }

// Config is what a script's config block says of how it is run.
type Config struct {
	MaxMapKeys      int
	MaxCat          int // bytes of a file that cat() shows
	MaxStr          int // bytes of a string that is shown, 0 if that is not said
	PrintMapsOnExit bool
	StackMode       string // of ustack: "", "perf", "raw" or "build_id"
	Missing         string // what is done about probes that match nothing: "error", "warn" or "ignore"
}

// Check makes a program of the script, whose macros have been expanded. It returns nil
// where there are errors; warnings may come with a program.
func Check(p *ast.Program, syms Symbols, o Options) (*Output, source.Errors) {
	if o.MaxStr <= 0 {
		o.MaxStr = 256
	}
	c := &checker{prog: p, syms: syms, o: o, bases: map[string]uint64{}, vars: map[varKey]*typ{}, tables: map[string]*table{}, sites: map[*ast.AttachPoint][]*Site{}}
	c.settings()
	c.definitions()
	c.resolve()
	if c.errs.Failed() {
		return nil, c.errs
	}
	before := c.errs
	for n := 0; ; n++ {
		c.errs = append(source.Errors(nil), before...)
		c.changed = false
		c.round()
		switch {
		case c.changed && n == maxRounds:
			c.errorf(p, "", "what the script's maps and variables hold is not found out")
		case c.changed:
			continue
		case !c.guess && c.unknown():
			c.guess = true
			continue
		}
		break
	}
	if !c.errs.Failed() {
		c.undefined()
	}
	c.errs = unique(c.errs)
	if c.errs.Failed() {
		return nil, c.errs
	}
	return c.out, c.errs
}

// maxRounds is more than any sane script needs.
const maxRounds = 100

// typ is a type with what only the checker knows of it.
type typ struct {
	*ir.Type
	to *types.Type // what a Pointer leads to, if that is known
	// held: it stands for the value there, which is none of the language.
	held bool
}

type varKey struct {
	handler string // the values that its sites have
	decl    ast.Node
}

// table is a map of the script.
type table struct {
	name     string
	number   int
	key, val *typ
	keyless  bool
	used     ast.Node // the first use
	read     ast.Node // one that only reads
	declared *ast.MapDecl
}

type checker struct {
	prog *ast.Program
	syms Symbols
	o    Options
	errs source.Errors

	config  Config
	structs map[string]*types.Type
	// pointees are the types that pointers of the script lead to, by how they are written.
	pointees map[string]*types.Type
	consts   map[string]constant

	sites   map[*ast.AttachPoint][]*Site
	vars    map[varKey]*typ
	tables  map[string]*table
	order   []*table
	changed bool
	// guess: maps of which nothing has been learnt are taken to hold integers. Before, what
	// is made of their values is left out.
	guess bool

	out   *Output
	names map[string]uint64
	// namings are the tables of names that the script uses, and bases where they begin in the
	// script's names.
	namings []string
	bases   map[string]uint64

	h *body // being checked
}

type constant struct {
	value uint64
	enum  *ir.EnumNames
}

// body is a handler being made.
type body struct {
	key    string
	probe  *ast.Probe
	point  *ast.AttachPoint
	site   *Site // nil for those of the tracer
	ret    bool
	h      *ir.Handler
	roots  []int
	scopes []map[string]*variable
	loops  int
	number int
	inline *inlining // the subprogram that is being put in
	// registers: it looks at them, or at the stack.
	registers bool
	// result: it looks at that.
	result bool
	// duration is how long the call took, if that is asked for.
	duration *ir.Var
	entry    *entry // what a uretprobe wants of it; nil if nothing
}

type variable struct {
	slot int
	t    *typ
	decl ast.Node
	name string
}

func (c *checker) errorf(n ast.Node, hint, format string, a ...any) {
	c.errs = append(c.errs, &source.Error{Source: c.prog.Source, Span: n.At(), Msg: fmt.Sprintf(format, a...), Hint: hint})
}

func (c *checker) warnf(n ast.Node, hint, format string, a ...any) {
	c.errs = append(c.errs, &source.Error{Source: c.prog.Source, Span: n.At(), Msg: fmt.Sprintf(format, a...), Hint: hint, Warning: true})
}

func unique(all source.Errors) (out source.Errors) {
	seen := map[source.Error]bool{}
	for _, e := range all {
		if !seen[*e] {
			seen[*e] = true
			out = append(out, e)
		}
	}
	return out
}

// resolve finds the sites of all attach points.
func (c *checker) resolve() {
	missing := c.config.Missing
	for _, p := range c.prog.Probes {
		for _, ap := range p.Points {
			switch {
			case ap.Provider.Kernel():
				c.errorf(ap, "ferrotrace traces what runs in user space: uprobe, uretprobe, usdt, interval, profile, begin, end, self", "%s probes are the kernel's own", ap.Provider)
				continue
			case ap.Provider != ast.Uprobe && ap.Provider != ast.Uretprobe && ap.Provider != ast.Usdt:
				continue
			}
			sites, err := c.syms.Sites(ap)
			switch {
			case err != nil && missing == "ignore":
			case err != nil && missing == "warn":
				msg, hint := advised(err)
				c.warnf(ap, hint, "%s", msg)
			case err != nil:
				msg, hint := advised(err)
				c.errorf(ap, hint, "%s", msg)
			}
			c.sites[ap] = sites
		}
	}
}

// advised parts what is wrong from what may help: the error's further lines, which name
// what is like it, or else its own advice.
func advised(err error) (msg, hint string) {
	msg, more, found := strings.Cut(err.Error(), "\n")
	if found {
		var lines []string
		for l := range strings.Lines(more) {
			lines = append(lines, strings.TrimSpace(l))
		}
		return msg, strings.Join(lines, ", ")
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		hint = h.Hint()
	}
	return msg, hint
}

// round goes through the whole script once.
func (c *checker) round() {
	c.out = &Output{Child: -1, Script: &ir.Script{Start: c.o.Start}, Config: c.config}
	c.names = map[string]uint64{}
	c.reserve()
	c.order = nil
	for _, t := range c.tables {
		t.number = -1
		t.used, t.read = nil, nil
	}
	for _, d := range c.prog.Maps {
		c.declare(d)
	}
	// Subprograms are put in where they are called.
	for _, p := range c.prog.Probes {
		for _, ap := range p.Points {
			c.point(p, ap)
		}
	}
	s := c.out.Script
	for _, t := range c.order {
		m := &ir.Map{Name: "@" + t.name, Entries: c.config.MaxMapKeys, Hidden: strings.HasPrefix(t.name, "$")}
		if d := t.declared; d != nil {
			m.Declared, m.Entries = d.Kind, int(d.Len)
		}
		if t.key != nil && !t.keyless {
			m.Key = t.key.Type
		}
		m.Value = ir.I64
		if t.val != nil {
			m.Value = t.val.Type
		}
		s.Maps = append(s.Maps, m)
	}
}

// unknown says whether there is a map of whose values nothing is known.
func (c *checker) unknown() bool {
	return slices.ContainsFunc(c.order, func(t *table) bool { return t.val == nil })
}

// undefined reports maps that are read and never written.
func (c *checker) undefined() {
	for _, t := range c.order {
		if t.val == nil && t.declared != nil && t.used == t.declared {
			c.warnf(t.declared, "", "unused map: @%s", t.name)
			continue
		}
		if t.val == nil && t.used != nil {
			c.errorf(t.used, "assign to it first, in this probe or another", "undefined map: @%s", t.name)
		}
	}
}

// point checks a probe's body for what one of its attach points stands for.
func (c *checker) point(p *ast.Probe, ap *ast.AttachPoint) {
	every := func() time.Duration {
		switch {
		case ap.Count == 0:
			return 0
		case ap.Unit == "hz":
			return time.Second / time.Duration(ap.Count)
		}
		return time.Duration(ap.Count) * map[string]time.Duration{"s": time.Second, "ms": time.Millisecond, "us": time.Microsecond, "ns": 1}[ap.Unit]
	}
	timer := func(t ir.Timer) {
		t.Handler = c.handler(p, ap, nil, ap.Raw).number
		c.out.Script.Timers = append(c.out.Script.Timers, t)
		c.out.Probes++
	}
	switch ap.Provider {
	case ast.Begin:
		timer(ir.Timer{Kind: ir.Begin})
	case ast.End:
		timer(ir.Timer{Kind: ir.End})
	case ast.Interval, ast.Profile:
		d := every()
		if d <= 0 {
			c.errorf(ap, "interval:s:1, interval:ms:100, profile:hz:99", "how often is not said, or too often")
			return
		}
		kind := ir.Interval
		if ap.Provider == ast.Profile {
			kind = ir.Profile
		}
		timer(ir.Timer{Kind: kind, Every: d})
	case ast.Self:
		n, ok := signals[strings.TrimPrefix(strings.ToUpper(ap.Func), "SIG")]
		if !ok {
			c.errorf(ap, "self:signal:SIGUSR1", "no signal %q that a tracer could wait for", ap.Func)
			return
		}
		timer(ir.Timer{Kind: ir.Signal, Signal: n})
	case ast.Uprobe, ast.Uretprobe, ast.Usdt:
		c.functions(p, ap)
	case ast.Test, ast.Bench:
		c.errorf(ap, "", "%s probes are not run by ferrotrace", ap.Provider)
	default: // resolve has said it
	}
}

var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "CHLD": 17, "CONT": 18, "WINCH": 28}

// functions checks a body for the sites of functions.
func (c *checker) functions(p *ast.Probe, ap *ast.AttachPoint) {
	bodies := map[string]*body{} // nil: not here
	var firstErrs source.Errors
	skipped, uses := 0, 0
	names := map[string]bool{}
	used := usedArgs(p)
	for _, s := range c.sites[ap] {
		key := siteKey(ap, s, used)
		before := len(c.errs)
		b, ok := bodies[key]
		if !ok {
			b = c.handler(p, ap, s, key)
			if bad := c.errs[before:]; bad.Failed() {
				// Other sites may do; but what is wrong everywhere is said once.
				if firstErrs == nil {
					firstErrs = append(firstErrs, bad...)
				}
				c.errs = c.errs[:before]
				b = nil
			}
			bodies[key] = b
		}
		if b == nil {
			skipped++
			continue
		}
		uses++
		names[s.Probe] = true
		c.out.Uses = append(c.out.Uses, Use{Site: s, Handler: b.number, Roots: b.roots, Registers: b.registers, Result: b.result})
		if b.entry != nil {
			e := b.entry.body
			c.out.Uses = append(c.out.Uses, Use{Site: s, Handler: e.number, Roots: e.roots, Entry: true, Result: e.result})
		}
	}
	switch {
	case uses == 0 && firstErrs != nil:
		c.errs = append(c.errs, firstErrs...)
	case skipped > 0:
		c.warnf(firstErrs[0].Span, firstErrs[0].Hint, "%d of %d places are left out: %s", skipped, skipped+uses, firstErrs[0].Msg)
	}
	switch {
	case uses == 0:
	case ap.Provider == ast.Usdt: // each name is one, as bpftrace counts
		c.out.Probes += len(names)
	default:
		c.out.Probes++
	}
}

// handler checks a body and adds it to the script.
func (c *checker) handler(p *ast.Probe, ap *ast.AttachPoint, s *Site, key string) *body {
	b := &body{key: key, probe: p, point: ap, site: s, ret: ap.Provider == ast.Uretprobe, h: &ir.Handler{Name: ap.Raw}}
	c.h = b
	c.push()
	if p.Pred != nil {
		cond := c.condition(p.Pred)
		c.emit(&ir.If{Cond: &ir.Unary{T: ir.BoolType, Op: ir.Not, X: cond}, Then: []ir.Stmt{&ir.Return{Hidden: c.o.Hidden}}})
	}
	c.block(p.Body)
	c.pop()
	c.entries(b, ap)
	c.h = nil
	b.number = len(c.out.Script.Handlers)
	c.out.Script.Handlers = append(c.out.Script.Handlers, b.h)
	return b
}
