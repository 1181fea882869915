package index

import (
	"fmt"
	"strings"

	"ferrotrace/internal/dwarf"
)

// Level is what a file tells of its functions.
type Level int

const (
	NoSymbols   Level = iota // stripped: what it exports at most
	SymbolsOnly              // no debug info: functions out of line, by symbol
	LinesOnly                // line tables: inlined functions too, but no generics
	NoTypes                  // debug = 1: all functions, but no types and no variables
	Debug                    // debug info
)

// Level says what the file tells about itself. The standard library's debug info, which
// comes with every program that is not stripped of it, does not count.
func (ix *Index) Level() Level {
	level := NoSymbols
	if len(ix.symbols) > 0 {
		level = SymbolsOnly
	}
	last := int32(-1)
	own := false
	for i := range ix.subs.all {
		s := &ix.subs.all[i]
		if s.unit != last {
			last = s.unit
			u := ix.unit(s)
			own = u.SplitName() == "" && !prebuilt(u)
			if own && ix.typed(s) {
				return Debug
			}
		}
		if own {
			level = max(level, LinesOnly)
			if s.linkage != 0 {
				level = NoTypes
			}
		}
	}
	return level
}

// prebuilt says whether a unit came with the compiler: of the standard library, or of a
// crate that it is made with.
func prebuilt(u *dwarf.Unit) bool {
	return strings.HasPrefix(u.CompDir(), "/rustc/") || strings.HasPrefix(u.CompDir(), "/rust/deps/")
}

// Lack says what the file does not tell and how to change that, "" if it tells all.
func (ix *Index) Lack() string {
	switch ix.Level() {
	case NoSymbols:
		return "the file is stripped: only what it exports has a name. " + ix.moreDebug()
	case SymbolsOnly:
		return "the file has no debug info: inlined functions, arguments and results are not known. " + ix.moreDebug() + "; " + stateIt
	case LinesOnly:
		return "the file's debug info is line tables only: arguments, results and the types of generics are not known. " + ix.moreDebug() + "; " + stateIt
	case NoTypes:
		return "the file's debug info is without types (debug = 1): arguments and results are not known. " + ix.moreDebug() + "; " + stateIt
	}
	return ""
}

// stateIt says how to see values without debug info.
const stateIt = "or give a function's signature with its path: 'shop::add(id: u64, name: &str) -> bool'"

// moreDebug says how to come by debug info.
func (ix *Index) moreDebug() string {
	if name, _ := ix.File.Debuglink(); name != "" && ix.debugFile == ix.File {
		return fmt.Sprintf("Its debug info was taken out into %s, of which none that fits was found: name the file with --debug-file", name)
	}
	return "Add debug = true, and no strip, under [profile.release] in Cargo.toml and build again"
}
