// Package show makes text and JSON of what handlers of the probe language say: values,
// formatted lines, and maps, in the shapes that bpftrace gives them. It knows types and
// bytes, and reads and writes nothing else.
//
// The bytes come from memory that a traced process may be able to write: nothing in
// them makes the text longer than the type allows, and without Env.Raw nothing in them
// reaches a terminal as anything but characters.
package show

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/output"
	"ferrotrace/internal/program/ir"
	"ferrotrace/internal/rust/debugfmt"
)

// Env is what values mean that their bytes alone don't say. Functions may be nil.
type Env struct {
	// Names is that of the Script.
	Names []string
	// Symbol names the function that an address of a process is in: "main". "" if it has no
	// name. The bias is that of the file in which the process hit a probe.
	Symbol func(pid uint32, addr, bias uint64) string
	// Frames names what an entry of a stack is in, innermost inlined function first:
	// "main+12".
	Frames func(Frame) []string
	// User is a user's name, and Cgroup the paths of a cgroup in the hierarchies that match a
	// filter. "" if there is none.
	User   func(uid uint32) string
	Cgroup func(id uint64, filter string) string
	// Wall is when a clock shows, or showed, ns. Its location is the one that times are
	// printed for.
	Wall func(c ir.Clock, ns uint64) time.Time
	// Raw is for text that no terminal sees as it is: JSON and command lines. Strings are
	// not escaped then.
	Raw bool
}

// Frame is an entry of a stack.
type Frame struct {
	PID  uint32
	Addr uint64
	Bias uint64 // of the file in which the process hit a probe
	// Return: Addr is where a call returns to. The first entry's is where the process is.
	Return bool
	// Mode asks for more: with PerfStack for the file behind the name, "main+12 (/bin/app)";
	// with BuildIDStack for the file's build id and an offset in it instead: "6f2c…90 0x1234".
	Mode string
}

// Stack modes: the Format of a Stack type. "" is bpftrace's default.
const (
	PerfStack    = "perf"     // with addresses and files
	RawStack     = "raw"      // addresses only
	BuildIDStack = "build_id" // where in which build of a file
)

// Arg is a value: its bytes as they lie in memory, of which those that are missing are
// zeros; or, of a Value, what a Rust value was printed as.
type Arg struct {
	Type  *ir.Type
	Bytes []byte
	Rust  *event.Value
}

// Text is what print shows of a value.
func (e *Env) Text(a Arg) string { return e.text(a, false) }

// Debug is what %? shows: strings as {:?} prints them, all else as Text.
func (e *Env) Debug(a Arg) string { return e.text(a, true) }

// Record is what print(args) shows: values with names.
func (e *Env) Record(names []string, args []Arg) string {
	var b strings.Builder
	for i, a := range args {
		b.WriteString(recordSep(i) + e.escape(names[i]) + " = " + e.text(a, a.Rust != nil))
	}
	b.WriteString(recordEnd(len(args)))
	return b.String()
}

func recordSep(i int) string {
	if i == 0 {
		return "{ ."
	}
	return ", ."
}

func recordEnd(n int) string {
	if n == 0 {
		return "{}"
	}
	return " }"
}

func (e *Env) text(a Arg, debug bool) string {
	if a.Rust != nil {
		return e.rust(a.Rust, debug)
	}
	p := printer{e: e, div: 1, debug: debug}
	p.value(a.Type, a.Bytes)
	return p.b.String()
}

// rust is the text of a Rust value. A string is without its quotes, unless debug.
func (e *Env) rust(v *event.Value, debug bool) string {
	if v.Missing != "" {
		return e.escape("<" + v.Missing + ">")
	}
	if s, ok := unquote(v.Text); ok && !debug {
		return e.escape(s)
	}
	return e.escape(v.Text)
}

func (e *Env) escape(s string) string {
	if e.Raw {
		return s
	}
	return output.Escape(s)
}

// printer writes values as text.
type printer struct {
	e   *Env
	b   strings.Builder
	div int64
	// debug: strings as {:?} prints them. compact: no spaces but those in strings and names, as
	// keys of maps have it in JSON.
	debug, compact bool
}

func (p *printer) write(s string) { p.b.WriteString(s) }

// sep writes what stands before element i.
func (p *printer) sep(i int, first, next string) {
	s := next
	if i == 0 {
		s = first
	}
	if p.compact {
		s = strings.ReplaceAll(s, " ", "")
	}
	p.write(s)
}

func (p *printer) value(t *ir.Type, b []byte) {
	switch t.Kind {
	case ir.Void:
		p.write("null")
	case ir.Int:
		n := intOf(t, b)
		if t.Enum != nil {
			if name, ok := t.Enum.Names[word(b, t.Size)]; ok {
				p.write(p.e.escape(name))
			} else {
				p.write(decimal(t, n))
			}
			return
		}
		p.write(decimal(t, divide(t, n, p.div)))
	case ir.Bool:
		p.write(strconv.FormatBool(word(b, 1) != 0))
	case ir.Pointer:
		p.write(hex(word(b, 8)))
	case ir.Text:
		s := string(textOf(t, b))
		if p.debug {
			s = debugfmt.Quote(s)
		}
		p.write(p.e.escape(s))
	case ir.Bytes:
		p.write(bytesText(t, b))
	case ir.Tuple:
		p.tuple(t, b)
	case ir.Array:
		for i := range t.Count {
			p.sep(i, "[", ",")
			p.value(t.Elem, slice(b, i*t.Elem.Size, t.Elem.Size))
		}
		if t.Count == 0 {
			p.write("[")
		}
		p.write("]")
	case ir.Name:
		p.write(p.e.escape(p.e.name(b)))
	case ir.Symbol:
		p.write(p.e.escape(p.e.symbol(b)))
	case ir.Stack:
		p.stack(t, b)
	case ir.User:
		p.write(p.e.escape(p.e.user(b)))
	case ir.CgroupPath:
		p.write(p.e.escape(p.e.cgroup(t, b)))
	case ir.Stamp:
		p.write(p.e.escape(p.e.stamp(t, b)))
	default:
		// An aggregate as a value is the Int that it stands for, and a Value has no bytes.
		p.write("<" + t.String() + ">")
	}
}

func (p *printer) tuple(t *ir.Type, b []byte) {
	record := isRecord(t)
	for i, f := range t.Fields {
		switch {
		case record:
			p.sep(i, "{ .", ", .")
			p.write(p.e.escape(f.Name))
			p.sep(0, " = ", "")
		default:
			p.sep(i, "(", ", ")
		}
		p.value(f.Type, slice(b, f.Off, f.Type.Size))
	}
	switch {
	case len(t.Fields) == 0:
		p.write("()")
	case record:
		p.sep(0, " }", "")
	default:
		p.write(")")
	}
}

func isRecord(t *ir.Type) bool { return len(t.Fields) > 0 && t.Fields[0].Name != "" }

func (p *printer) stack(t *ir.Type, b []byte) {
	pid, bias, addrs := stackOf(t, b)
	p.write("\n")
	for i, addr := range addrs {
		number := strconv.FormatUint(addr, 16)
		var names []string
		if p.e.Frames != nil && t.Format != RawStack {
			names = p.e.Frames(Frame{PID: pid, Addr: addr, Bias: bias, Return: i > 0, Mode: t.Format})
		}
		indent := "        "
		switch t.Format {
		case RawStack, BuildIDStack:
			indent = ""
			if len(names) == 0 {
				names = []string{number}
			}
		case PerfStack:
			indent = "\t" + number + " "
		default:
			if p.compact {
				indent = ""
			}
		}
		if len(names) == 0 {
			names = []string{hex(addr)}
		}
		for _, name := range names {
			p.write(indent + p.e.escape(name) + "\n")
		}
	}
}

func (e *Env) name(b []byte) string {
	if i := word(b, 8); i < uint64(len(e.Names)) {
		return e.Names[i]
	}
	return "<unknown>"
}

func (e *Env) symbol(b []byte) string {
	addr, pid, bias := word(b, 8), word(slice(b, 8, 8), 8), word(slice(b, 16, 8), 8)
	if e.Symbol != nil {
		if s := e.Symbol(uint32(pid), addr, bias); s != "" {
			return s
		}
	}
	return hex(addr)
}

// bytesText is a buffer, or what its bytes are an address of.
func bytesText(t *ir.Type, b []byte) string {
	b = bytesOf(t, b)
	switch t.Format {
	case ir.MAC:
		var parts []string
		for _, c := range b {
			parts = append(parts, fmt.Sprintf("%02X", c))
		}
		return strings.Join(parts, ":")
	case ir.Inet:
		if a, ok := netip.AddrFromSlice(b); ok {
			return inet(a)
		}
		return ""
	}
	return hexBytes(b, true, true)
}

// inet is an address as inet_ntop(3) has it.
func inet(a netip.Addr) string {
	if b := a.As16(); a.Is6() && a.Unmap() == a && [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
		return fmt.Sprintf("::%d.%d.%d.%d", b[12], b[13], b[14], b[15]) // IPv4-compatible
	}
	return a.String()
}

func (e *Env) user(b []byte) string {
	uid := uint32(word(b, 8))
	if e.User != nil {
		if s := e.User(uid); s != "" {
			return s
		}
	}
	return strconv.FormatUint(uint64(uid), 10)
}

func (e *Env) cgroup(t *ir.Type, b []byte) string {
	id := word(b, 8)
	if e.Cgroup != nil {
		if s := e.Cgroup(id, t.Format); s != "" {
			return s
		}
	}
	return fmt.Sprintf("cgroup:%d", id)
}

func (e *Env) stamp(t *ir.Type, b []byte) string {
	if e.Wall == nil {
		return "(?)"
	}
	return stampText(t.Format, e.Wall(t.Clock, word(b, 8)))
}

// word is the number in the first size bytes, 8 at most.
func word(b []byte, size int) uint64 {
	var w [8]byte
	copy(w[:min(max(size, 0), 8)], b)
	return binary.NativeEndian.Uint64(w[:])
}

// intOf is an Int, extended to 64 bits by its type.
func intOf(t *ir.Type, b []byte) uint64 {
	n := word(b, t.Size)
	if shift := 64 - 8*min(max(t.Size, 1), 8); t.Signed && shift > 0 {
		n = uint64(int64(n<<shift) >> shift)
	}
	return n
}

func decimal(t *ir.Type, n uint64) string {
	if t.Signed {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(n, 10)
}

// divide is n / by, by the signedness of t.
func divide(t *ir.Type, n uint64, by int64) uint64 {
	switch {
	case by <= 1:
		return n
	case t.Signed:
		return uint64(int64(n) / by)
	}
	return n / uint64(by)
}

func textOf(t *ir.Type, b []byte) []byte {
	b = slice(b, 0, t.Size)
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

func bytesOf(t *ir.Type, b []byte) []byte {
	n := min(word(b, 4), uint64(max(t.Size-4, 0)))
	return slice(b, 4, int(n))
}

func stackOf(t *ir.Type, b []byte) (pid uint32, bias uint64, addrs []uint64) {
	n := int(min(word(slice(b, 4, 4), 4), uint64(max(t.Count, 0))))
	for i := range n {
		frame := slice(b, ir.StackHead+8*i, 8)
		if len(frame) < 8 {
			break
		}
		addrs = append(addrs, word(frame, 8))
	}
	return uint32(word(b, 4)), word(slice(b, 8, 8), 8), addrs
}

// slice is b[off:off+size], as far as there is such.
func slice(b []byte, off, size int) []byte {
	if off < 0 || size <= 0 || off >= len(b) {
		return nil
	}
	return b[off:min(len(b), off+size)]
}

func hex(n uint64) string { return "0x" + strconv.FormatUint(n, 16) }

// hexBytes writes bytes as hexadecimal numbers: with \x in front of each, or with spaces
// between them; what is printable ASCII as that if ascii is set.
func hexBytes(bytes []byte, ascii, escape bool) string {
	var b strings.Builder
	for i, c := range bytes {
		switch {
		case ascii && c >= 0x20 && c <= 0x7e:
			b.WriteByte(c)
		case escape:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%02x", c)
		}
	}
	return b.String()
}

// unquote returns the string that {:?} printed as s, and whether s is one.
func unquote(s string) (string, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	if !strings.ContainsAny(s, `\"`) {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '"':
			return "", false // two strings with something between them
		case c != '\\':
			b.WriteByte(c)
			continue
		case i+1 == len(s):
			return "", false
		}
		i++
		switch s[i] {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case '0':
			b.WriteByte(0)
		case 'x':
			n, err := strconv.ParseUint(s[min(i+1, len(s)):min(i+3, len(s))], 16, 8)
			if err != nil || i+3 > len(s) {
				return "", false
			}
			b.WriteByte(byte(n))
			i += 2
		case 'u':
			hex, _, ok := strings.Cut(s[i+1:], "}")
			if !ok || !strings.HasPrefix(hex, "{") {
				return "", false
			}
			n, err := strconv.ParseUint(hex[1:], 16, 21)
			if err != nil {
				return "", false
			}
			b.WriteRune(rune(n))
			i += len(hex) + 1
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), true
}
