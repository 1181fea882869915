package path

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Kind is what a pattern chooses functions by.
type Kind uint8

const (
	KindPath      Kind = iota // by path
	KindRegexp                // by a regular expression over the canonical path: `/regex/`
	KindLine                  // by a line of source, File and Line: `src/cart.rs:42`
	KindSignature             // by path, with a signature that the user knows: `shop::add(id: u64) -> bool`
)

// Pattern is a parsed pattern. Match decides those of all kinds but KindLine; the
// signature of a KindSignature is only found here, not read.
//
// A path pattern is a path whose names may hold `*`, any characters of a
// segment; a segment `**` is any number of segments (at the end, at least one).
// It matches a path that it describes as a whole (Exact), or whose end, from a
// segment's beginning on, it describes (Suffix). Generic arguments that are
// left out match any; given, they must be there, types in them may be
// shortened to their last segments, `_` and `*` are any type, and the
// allocator and hasher that std's types default to may be left out. A first
// segment `std` also stands for the `core` and `alloc` that it is a facade of.
//
// A suffix like `.cold` marks a part of a function, which only a pattern with
// that suffix matches.
//
// The methods of a trait impl, `<shop::Cart as core::fmt::Debug>::fmt`, match by
// that text, by the type (`shop::Cart::fmt`) and by the trait (`Debug::fmt`).
type Pattern struct {
	Kind Kind
	Text string // as given, without the spaces around it
	File string // of KindLine
	Line int    // of KindLine, from 1
	// Params is where in Text the '(' of a KindSignature is, and Extern the convention
	// that stands before it: "C" for `extern "C" fn f(i32)`; "" for Rust's.
	Params int
	Extern string

	path   Path
	hint   string
	regexp *regexp.Regexp
}

// ParsePattern reads a pattern. The error is a *SyntaxError.
func ParsePattern(s string) (Pattern, error) {
	text := strings.Trim(s, " ")
	pat := Pattern{Text: text}
	if file, line, ok := cutLine(text); ok {
		n, err := strconv.Atoi(line)
		if err != nil || n == 0 {
			return Pattern{}, &SyntaxError{text, len(file) + 1, "no such line: they count from 1"}
		}
		pat.Kind, pat.File, pat.Line = KindLine, file, n
		return pat, nil
	}
	if strings.HasPrefix(text, "/") {
		expr, ok := strings.CutSuffix(text[1:], "/")
		if !ok {
			return Pattern{}, &SyntaxError{text, len(text), "a regular expression ends in '/', a place in a file in ':' and a line"}
		}
		if expr == "" {
			return Pattern{}, &SyntaxError{text, 1, "the regular expression is empty"}
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return Pattern{}, &SyntaxError{text, 1, err.Error()}
		}
		pat.Kind, pat.regexp = KindRegexp, re
		return pat, nil
	}
	p := parser{s: text, pattern: true}
	declared := false
	if q := qualifiers.FindStringSubmatchIndex(text); q != nil {
		declared, p.i = true, q[1]
		if q[2] >= 0 {
			return Pattern{}, &SyntaxError{text, q[2], "an async fn's path means its body, which is polled and takes no arguments: leave the signature out"}
		}
		if q[4] >= 0 {
			pat.Extern = "C"
			if q[6] >= 0 {
				pat.Extern = text[q[6]:q[7]]
			}
		}
	}
	path, err := p.whole()
	switch {
	case err != nil:
		return Pattern{}, err
	case declared && p.peek() != '(':
		return Pattern{}, p.error("behind fn NAME the parameters are missing")
	case p.peek() == '(':
		if !strings.Contains(text[p.i:], ")") {
			return Pattern{}, p.error("'(' without ')'")
		}
		pat.Kind, pat.Params = KindSignature, p.i
	case p.has("/"):
		return Pattern{}, p.error("unexpected '/': a place in a file is FILE:LINE, a regular expression stands between two '/'")
	case p.i < len(text):
		return Pattern{}, p.unexpected("the pattern")
	}
	path.segs = anyDepths(path.segs)
	pat.path = path
	pat.hint = longestName("", path.segs)
	return pat, nil
}

// qualifiers are what source has before a function's name.
var qualifiers = regexp.MustCompile(`^(?:pub(?:\([^)]*\))? +)?(?:const +)?(async +)?(?:unsafe +)?(extern(?: *"([^"]*)")? +)?fn +`)

// cutLine splits FILE:LINE.
func cutLine(s string) (file, line string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 || s[i-1] == ':' || strings.Trim(s[i+1:], "0123456789") != "" || strings.ContainsAny(s[:i], "<({") {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

const anyDepth = "**"

// anyDepths makes one of several `**` in a row, and lets one at the end stand
// for at least one segment.
func anyDepths(segs []segment) []segment {
	is := func(s segment) bool { return s.self == nil && s.name == anyDepth }
	segs = slices.CompactFunc(segs, func(a, b segment) bool { return is(a) && is(b) })
	if last := len(segs) - 1; is(segs[last]) {
		segs = slices.Insert(segs, last, segment{name: "*"})
	}
	return segs
}

// Single reports whether the pattern is one segment (`hello`, `parse_*`). All
// that such a pattern matches is meant; of what a longer one matches, only the
// exact matches are if there are any.
func (p Pattern) Single() bool { return len(p.path.segs) == 1 }

// Hint returns a text that is part of every matching path's text, whoever
// wrote it; "" if none is known. What does not contain it needs no parsing.
func (p Pattern) Hint() string { return p.hint }

// longestName returns the longest of best and the parts of names that paths
// matched by segs have verbatim.
func longestName(best string, segs []segment) string {
	for i := range segs {
		s := &segs[i]
		if s.self != nil {
			if s.self.op == opPath {
				best = longestName(best, s.self.path)
			}
			best = longestName(best, s.trait)
			continue
		}
		if s.isBraced() || s.name == "_" || i == 0 && s.name == "std" {
			continue // written in several ways
		}
		for part := range strings.SplitSeq(s.name, "*") {
			if len(part) > len(best) {
				best = part
			}
		}
	}
	return best
}

func (p Pattern) String() string { return p.Text }
