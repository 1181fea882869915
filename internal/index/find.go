package index

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"ferrotrace/internal/rust/demangle"
	"ferrotrace/internal/rust/path"
	"ferrotrace/internal/rust/signature"
)

// NoMatchError says that no function matches a pattern, and why that may be.
type NoMatchError struct {
	File    string
	Pattern string
	Nearest []string
	Reason  string // what the file is like that explains it, "" if nothing does
	Advice  string
}

func (e *NoMatchError) Error() string {
	s := fmt.Sprintf("no function in %s matches %s", e.File, e.Pattern)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if len(e.Nearest) > 0 {
		s += "\nnearest: " + strings.Join(e.Nearest, "\n         ")
	}
	return s
}

func (e *NoMatchError) Hint() string  { return e.Advice }
func (e *NoMatchError) ExitCode() int { return 3 }

// Find returns the functions that a pattern names, in order of name. A pattern of
// several segments that is the whole path of a function means that one alone.
func (ix *Index) Find(p path.Pattern) []*Function {
	found := find(p, ix.candidates(p.Hint()))
	ix.save()
	return found
}

func find(p path.Pattern, functions []*Function) []*Function {
	var exact, suffix []*Function
	for _, f := range functions {
		switch f.match(p) {
		case path.Exact:
			exact = append(exact, f)
		case path.Suffix:
			suffix = append(suffix, f)
		}
	}
	slices.SortFunc(exact, byName)
	slices.SortFunc(suffix, byName)
	if !p.Single() && len(exact) > 0 {
		return exact
	}
	if len(suffix) > 0 {
		// A bare name is the last segment of paths. What is itself without a path, as
		// the C entry point main, is meant only if nothing else is.
		var paths []*Function
		for _, f := range exact {
			if f.abstract != nil || f.Rust {
				paths = append(paths, f)
			}
		}
		exact = paths
	}
	return merge(exact, suffix)
}

// merge joins two lists in order of name.
func merge(a, b []*Function) []*Function {
	out := make([]*Function, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Name <= b[0].Name {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func (f *Function) match(p path.Pattern) path.MatchKind {
	best := p.MatchName(f.Name)
	for _, a := range f.Aliases {
		best = max(best, p.MatchName(a))
	}
	return best
}

func (ix *Index) rustNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, f := range ix.Functions() {
			if f.Rust && !yield(f.Name) {
				return
			}
		}
	}
}

// NoMatch explains why nothing matches a pattern.
func (ix *Index) NoMatch(pattern string) *NoMatchError {
	e := &NoMatchError{File: ix.File.Path, Pattern: pattern, Nearest: path.Nearest(pattern, ix.rustNames(), 3)}
	switch ix.Level() {
	case NoSymbols:
		e.Reason = "the file is stripped: it names no functions"
		e.Advice = ix.moreDebug()
	case SymbolsOnly:
		e.Reason = "the file has no debug info, so what was inlined has no name in it"
		e.Advice = ix.moreDebug()
	default:
		if ix.splits.lost > 0 {
			e.Reason = fmt.Sprintf("the debug info of %d of %d units was not found", ix.splits.lost, ix.splits.of)
		} else if ix.withoutCode(pattern) {
			e.Reason = "the debug info knows it, but no code of it is left: it is never called, or its calls were optimised away, or its code was merged with a like function's"
		}
		e.Advice = "ferrotrace list " + ix.File.Path + " shows the functions that are there; " +
			"a generic function is there only if something calls it, an unused one not at all, " +
			"and one that the compiler has merged with another of the same code may go by the other's name only"
	}
	return e
}

// withoutCode says whether the debug info names a function that a pattern means and
// that has no code.
func (ix *Index) withoutCode(pattern string) bool {
	p, err := path.ParsePattern(pattern)
	if err != nil {
		return false
	}
	for i := range ix.subs.all {
		s := &ix.subs.all[i]
		if s.low == 0 && s.name != 0 && ix.matches(s, p) != path.NoMatch {
			return true
		}
	}
	return false
}

func (ix *Index) matches(s *subprogram, p path.Pattern) path.MatchKind {
	d := ix.describe(s)
	return p.MatchName(canonical(ix.nameOf(&d)))
}

// PanicSites are the entries of the functions that begin a panic, and of those that
// are called where one has been caught: by these a call that ended in a panic is told
// from one that ended in another way. Both lists are empty in a stripped file.
func (ix *Index) PanicSites() (begin, land []uint64) {
	for _, s := range ix.symbols {
		if !strings.Contains(s.Name, "rust_panic") && !strings.Contains(s.Name, "cleanup") {
			continue
		}
		name, ok := demangle.Demangle(s.Name)
		if !ok {
			name = s.Name
		}
		switch name {
		case "rust_panic", "__rustc::rust_panic", "std::panicking::rust_panic":
			begin = append(begin, s.Addr)
		case "__rust_panic_cleanup", "__rustc::__rust_panic_cleanup", "std::panicking::catch_unwind::cleanup", "std::panicking::try::cleanup":
			land = append(land, s.Addr)
		}
	}
	return begin, land
}

// PatternError says that a pattern can't be read, or is of a kind that nothing can be
// found by.
type PatternError struct{ message, advice string }

func (e *PatternError) Error() string { return e.message }
func (e *PatternError) Hint() string  { return e.advice }
func (e *PatternError) ExitCode() int { return 2 }

// ParsePattern reads a pattern to find functions by. The error is a *PatternError.
func ParsePattern(text string) (path.Pattern, error) {
	p, err := path.ParsePattern(text)
	if err == nil && p.Kind == path.KindSignature {
		_, err = signature.Parse(p)
	}
	if err != nil {
		return p, patternError(err)
	}
	return p, nil
}

func patternError(err error) *PatternError {
	return &PatternError{err.Error(), "ferrotrace help trace shows what a pattern can be"}
}
