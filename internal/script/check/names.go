package check

import (
	"fmt"
	"strings"
	"sync"
	"syscall"

	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/script/ast"

	"golang.org/x/sys/unix"
)

// naming is a table of texts that numbers stand for, and the text of all other numbers.
type naming struct {
	texts func() []string
	other string
	// magnitude: -2 is looked up as 2.
	magnitude bool
}

var namings = map[string]naming{
	"strerror":     {errorTexts, "Unknown error", true},
	"signal_name":  {signalTexts, "N/A", false},
	"syscall_name": {func() []string { return syscallNames }, "Unknown syscall", false},
}

// capital makes a text of Go's tables, which are C's with a small letter in front, C's again.
func capital(s string) string {
	if s == "" || len(s) > 1 && (s[1] < 'a' || s[1] > 'z') {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func errorTexts() []string {
	texts := []string{"Success"}
	const last = 132
	for n := 1; n <= last; n++ {
		s := syscall.Errno(n).Error()
		if strings.HasPrefix(s, "errno ") { // a number that is not used
			s = ""
		}
		texts = append(texts, capital(s))
	}
	return append(texts, "Memory page has hardware error") // EHWPOISON, which Go's table lacks
}

// signalTexts are those of strsignal(3).
func signalTexts() []string {
	const first, last = 34, 64 // SIGRTMIN and SIGRTMAX, as glibc has them
	var texts []string
	for n := range first {
		s := capital(syscall.Signal(n).String())
		if strings.HasPrefix(s, "Signal ") {
			s = fmt.Sprintf("Unknown signal %d", n)
		}
		texts = append(texts, s)
	}
	for n := first; n <= last; n++ {
		texts = append(texts, fmt.Sprintf("Real-time signal %d", n-first))
	}
	return texts
}

// text is what a number is called.
func (n naming) text(v int64) string {
	if n.magnitude && v < 0 {
		v = -v
	}
	texts := n.texts()
	if v < 0 || v >= int64(len(texts)) || texts[v] == "" {
		return n.other
	}
	return texts[v]
}

// reserve gives the names of the tables that the script uses their numbers, one after the
// other. A text that is there twice is known by its first number.
func (c *checker) reserve() {
	for _, of := range c.namings {
		n := namings[of]
		c.bases[of] = uint64(len(c.out.Script.Names))
		for _, s := range append(n.texts(), n.other) {
			if s == "" {
				s = n.other
			}
			if _, ok := c.names[s]; !ok {
				c.names[s] = uint64(len(c.out.Script.Names))
			}
			c.out.Script.Names = append(c.out.Script.Names, s)
		}
	}
}

// numberName is strerror(n) and its like.
func (c *checker) numberName(x *ast.Call) *operand {
	table := namings[x.Name]
	if v, ok := c.constant(x.Args[0]); ok {
		return c.strLit(table.text(int64(v)), x)
	}
	o := c.scalar(x.Args[0])
	if o == nil {
		return nil
	}
	base, ok := c.bases[x.Name]
	if !ok { // from the next round on it is there
		c.namings = append(c.namings, x.Name)
		c.bases[x.Name] = 0
		c.changed = true
	}
	n := c.temp(ir.I64)
	c.emit(&ir.SetVar{Slot: n.Slot, X: convert(o, ir.I64)})
	if table.magnitude {
		negative := &ir.Binary{T: ir.BoolType, Op: ir.Lt, X: n, Y: &ir.Const{T: ir.I64}}
		c.emit(&ir.If{Cond: negative, Then: []ir.Stmt{&ir.SetVar{Slot: n.Slot, X: &ir.Unary{T: ir.I64, Op: ir.Neg, X: n}}}})
	}
	last := &ir.Const{T: ir.U64, V: uint64(len(table.texts()))}
	at := &ir.Cast{T: ir.U64, X: n}
	within := &ir.Cond{T: ir.U64, C: &ir.Binary{T: ir.BoolType, Op: ir.Lt, X: at, Y: last}, X: at, Y: last}
	sum := &ir.Binary{T: ir.U64, Op: ir.Add, X: within, Y: &ir.Const{T: ir.U64, V: base}}
	return of(ir.NameType, &ir.Cast{T: ir.NameType, X: sum}, x)
}

// wellKnown are numbers that C's headers name: of errors, signals and families of addresses.
var wellKnown = sync.OnceValue(func() map[string]uint64 {
	all := map[string]uint64{"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6}
	for n := range 256 {
		if s := unix.ErrnoName(syscall.Errno(n)); s != "" {
			all[s] = uint64(n)
		}
		if s := unix.SignalName(syscall.Signal(n)); s != "" {
			all[s] = uint64(n)
		}
	}
	return all
})
