package ast

import (
	"strings"

	"ferrotrace/internal/script/source"
)

// A Provider is a kind of probe, by its full name.
type Provider string

// The probes of user space.
const (
	Begin     Provider = "begin"
	End       Provider = "end"
	Self      Provider = "self"
	Interval  Provider = "interval"
	Profile   Provider = "profile"
	Uprobe    Provider = "uprobe"
	Uretprobe Provider = "uretprobe"
	Usdt      Provider = "usdt"
	Test      Provider = "test"
	Bench     Provider = "bench"
)

// The kernel's own probes: they are read, so that they can be refused by name.
const (
	Kprobe        Provider = "kprobe"
	Kretprobe     Provider = "kretprobe"
	Fentry        Provider = "fentry"
	Fexit         Provider = "fexit"
	Tracepoint    Provider = "tracepoint"
	Rawtracepoint Provider = "rawtracepoint"
	Iter          Provider = "iter"
	Software      Provider = "software"
	Hardware      Provider = "hardware"
	Watchpoint    Provider = "watchpoint"
)

var providers = map[string]Provider{
	"u": Uprobe, "ur": Uretprobe, "U": Usdt, "i": Interval, "p": Profile,
	"k": Kprobe, "kr": Kretprobe, "f": Fentry, "fr": Fexit, "t": Tracepoint, "rt": Rawtracepoint,
	"it": Iter, "s": Software, "h": Hardware, "w": Watchpoint,
	"kfunc": Fentry, "kretfunc": Fexit,
}

func init() {
	for _, p := range []Provider{
		Begin, End, Self, Interval, Profile, Uprobe, Uretprobe, Usdt, Test, Bench,
		Kprobe, Kretprobe, Fentry, Fexit, Tracepoint, Rawtracepoint, Iter, Software, Hardware, Watchpoint,
	} {
		providers[string(p)] = p
	}
}

// ProviderNamed is the provider with that name, full or short. BEGIN and other
// capitals are understood; of the short names, u and U are two.
func ProviderNamed(name string) (Provider, bool) {
	p, ok := providers[name]
	if !ok {
		p, ok = providers[strings.ToLower(name)]
	}
	return p, ok
}

// Kernel says whether only a kernel has such probes.
func (p Provider) Kernel() bool {
	switch p {
	case Kprobe, Kretprobe, Fentry, Fexit, Tracepoint, Rawtracepoint, Iter, Software, Hardware, Watchpoint:
		return true
	}
	return false
}

// An AttachPoint is one thing that sets off a probe. Which fields count depends
// on the provider:
//
//	uprobe, uretprobe   Target, Lang, and one of: Func with Offset; Addr; File, Line, Col
//	usdt                Target, Namespace, Func
//	interval, profile   Unit, Count
//	self                Event "signal", Func the signal's name
//	test, bench         Func, a name
//	the kernel's        Parts
type AttachPoint struct {
	source.Span
	Name     string // the name given with NAME=
	Provider Provider
	Raw      string // as written, without NAME=

	Target    string // the file, library or process, "" where -p, -b or the command says it; may hold wildcards
	Lang      string // "cpp" or another language's name, "" for Rust's and plain symbols
	Namespace string // of a usdt probe
	Func      string // a pattern as the user wrote it, unquoted: a Rust path, a symbol, /regex/
	Offset    uint64 // bytes from the start of Func
	HasAddr   bool
	Addr      uint64 // an address in the file's own numbering
	File      string // a source file, with Line, and Col or 0
	Line, Col uint64

	Event string
	Unit  string // "hz", "s", "ms", "us" or "ns"
	Count uint64 // Units, or how often a second

	Parts []string // what stands between the colons after the provider
}

// Wild says whether a file's name is a pattern for several. Names of functions
// have their own rules: [u8] is a type there.
func Wild(name string) bool { return strings.ContainsAny(name, "*[") }
