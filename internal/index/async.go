package index

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/types"
)

// An async fn is two functions: one that makes the future, under its name, and its body,
// which debug info calls {async_fn#0} and symbols {closure#0}. To whoever wrote it the
// body is the function; so that has its name here, and the other is its {new}.

const (
	asyncBody   = "{async_fn#"
	constructor = "{new}"
)

// bodies are the bodies of async functions, by line, once many are asked for: to find them
// all takes a look at the name of each subprogram.
type bodies struct {
	asked  atomic.Int32
	once   sync.Once
	byLine map[uint32][]*subprogram
}

// fewBodies are looked for one by one.
const fewBodies = 32

// nameOf is the path of a function as it is printed, before it is made canonical.
func (ix *Index) nameOf(d *described) string {
	text := d.pathText()
	if d.decl != nil && !strings.HasPrefix(d.name, "{") && ix.hasBody(bare(d.name), d.decl) {
		return text + "::" + constructor
	}
	return text
}

// hasBody says whether an async function of the name, without generic arguments, has a
// body, so that what is declared at decl makes its future.
func (ix *Index) hasBody(name string, decl *subprogram) bool {
	isBody := func(s *subprogram) bool {
		return s.scope >= 0 && strings.HasPrefix(ix.debug.Str(s.name), asyncBody)
	}
	same := func(s *subprogram) bool {
		return bare(ix.debug.Str(ix.scopes[s.scope].name)) == name &&
			fileName(ix.unit(s), uint64(s.declFile)) == fileName(ix.unit(decl), uint64(decl.declFile))
	}
	if ix.bodies.asked.Add(1) <= fewBodies {
		for i := range ix.subs.all {
			if s := &ix.subs.all[i]; s.declLine == decl.declLine && isBody(s) && same(s) {
				return true
			}
		}
		return false
	}
	ix.bodies.once.Do(func() {
		ix.bodies.byLine = map[uint32][]*subprogram{}
		for i := range ix.subs.all {
			if s := &ix.subs.all[i]; s.name != 0 && isBody(s) {
				ix.bodies.byLine[s.declLine] = append(ix.bodies.byLine[s.declLine], s)
			}
		}
	})
	return slices.ContainsFunc(ix.bodies.byLine[decl.declLine], same)
}

// bare is a name without its generic arguments.
func bare(name string) string {
	name, _, _ = strings.Cut(name, "<")
	return name
}

// withoutBodies takes the segments out that stand for the bodies of async functions; their
// generic arguments are the function's.
func withoutBodies(segments []string) []string {
	if !slices.ContainsFunc(segments, func(s string) bool { return strings.HasPrefix(s, asyncBody) }) {
		return segments
	}
	var out []string
	for i, s := range segments {
		if i == 0 || !strings.HasPrefix(s, asyncBody) {
			out = append(out, s)
			continue
		}
		if args := strings.IndexByte(s, '<'); args > 0 && !strings.HasSuffix(out[len(out)-1], ">") {
			out[len(out)-1] += s[args:]
		}
	}
	return out
}

// asDebugInfo names the closures in a symbol's path that are async bodies as debug info
// does, whose path is segments.
func asDebugInfo(symbol string, segments []string) string {
	isCoroutine := func(s string) bool { return strings.HasPrefix(s, "{async_") || strings.HasPrefix(s, "{gen_") }
	if !slices.ContainsFunc(segments, isCoroutine) {
		return symbol
	}
	var of []string
	for _, s := range split(symbol) {
		if n := len(of); n > 0 && strings.HasPrefix(s, "<") { // the arguments of a turbofish
			of[n-1] += "::" + s
			continue
		}
		of = append(of, s)
	}
	for i := 1; i <= min(len(of), len(segments)); i++ {
		s, c := segments[len(segments)-i], &of[len(of)-i]
		if isCoroutine(s) && strings.HasPrefix(*c, "{") {
			*c = bare(s)
		}
	}
	return strings.Join(withoutBodies(of), "::")
}

// poll makes of the parameters of an async body that one by which a poll is told: the
// pinned future, which compilers before 1.64 leave out. Others are the executor's.
func (ix *Index) poll(in *Instance, params []Param) []Param {
	if len(params) == 0 {
		return params
	}
	d := ix.describe(in.Fn.abstract)
	if !strings.HasPrefix(d.name, "{async_") {
		return params
	}
	future := params[0].Type.Polled()
	if future == nil {
		return slices.DeleteFunc(params, func(p Param) bool { return strings.HasSuffix(p.Type.Name, "::ResumeTy") })
	}
	params = params[:1]
	params[0].Poll = true
	args, ok := future.Arguments()
	if !ok {
		return params
	}
	params[0].Args = []types.Argument{}
	names := ix.variableNames(in.Fn.abstract)
	for _, a := range args {
		a.Shared = names[a.Name] > 1
		params[0].Args = append(params[0].Args, a)
	}
	return params
}

// variableNames says how often each name is one of a variable in the blocks of a
// function. An async body begins by moving each argument to a variable of its name.
func (ix *Index) variableNames(s *subprogram) map[string]int {
	names := map[string]int{}
	c := ix.unit(s).Cursor(s.off)
	if !c.Next() {
		return names
	}
	base := c.Depth()
	for c.Next() && c.Depth() > base {
		e := c.Entry()
		switch e.Tag {
		case dwarf.TagLexicalBlock:
			continue
		case dwarf.TagVariable:
			if c.Depth() > base+1 {
				names[strings.Clone(e.Name())]++
			}
		}
		if e.HasChildren {
			c.Skip()
		}
	}
	return names
}
