package record

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"ferrotrace/internal/event"
	"ferrotrace/internal/program"
	"ferrotrace/internal/rust/debugfmt"
	"ferrotrace/internal/rust/types"
)

// Schema says what the bytes of a collection's records mean. It is not modified
// once it is in use, and then safe for concurrent use.
type Schema struct {
	// Probes are by cookie. An item that makes no record has no Values.
	Probes []Probe
	// Events are those of a script's handlers; of their arguments an Item has the Rust
	// values, the others are whoever asks for them. A record of one has the index as its
	// cookie, and ScriptItem as its item.
	Events []Item
	// Classes are the classes of the types that regions hold elements of.
	Classes map[*types.Type]uint32
	// Objects are the types that objects may be of, by the addresses of their vtables as
	// linked; nil where a vtable does not tell.
	Objects map[*types.Type]map[uint64]*types.Type
	Limits  program.Limits
	// Pretty: texts are those of {:#?}.
	Pretty bool
	// Func names the function at an address of a process, "" if there is none. It
	// may be nil.
	Func func(pid uint32, addr uint64) string
}

// Probe is what one probe's records hold, by item.
type Probe struct{ Items []Item }

// Item is what the records of one item hold.
type Item struct {
	Kind program.ItemKind
	// Size is that of the fixed part, a multiple of 8.
	Size int
	// Bias is where in it the load bias of the probe's file is, by which vtables are told
	// (8 bytes); -1 if no objects hang on the values.
	Bias   int
	Values []Value
}

// Value is one captured value.
type Value struct {
	Name string
	Type *types.Type
	Rust string // the type's name, as signatures have it
	// Missing says why there is nothing of it: "optimized out" or
	// "unsupported: WHY". Then the fields below are unset.
	Missing string
	// Off is where its bytes begin in the fixed part, and Size how many there are:
	// the type's size, less if that is beyond what a record holds, 0 if all of them
	// are known here.
	Off, Size int
	// Known are bytes that are the same in every record, and so not in it.
	Known []Known
	// Holes are the parts that no record has.
	Holes []debugfmt.Hole
	// Reads are the parts that were read from memory.
	Reads []Read
	// Poll and Args are as in program.Value.
	Poll bool
	Args []types.Argument
}

// Known are the bytes of a value from Off on.
type Known struct {
	Off   int
	Bytes []byte
}

// Read is a part of a value, and the bit of the record's Failed that says that
// it could not be read. Reads may share the last bit.
type Read struct{ Off, Size, Bit int }

// Dump prints what the records of each item hold.
func (s *Schema) Dump(w io.Writer) error {
	var b strings.Builder
	for i, p := range s.Probes {
		for j, it := range p.Items {
			fmt.Fprintf(&b, "record %d.%d: %s, %d bytes\n", i, j, it.Kind, it.Size)
			for _, v := range it.Values {
				fmt.Fprintf(&b, "  %s %s:", v.Name, v.Rust)
				if v.Missing != "" {
					fmt.Fprintf(&b, " %s\n", v.Missing)
					continue
				}
				fmt.Fprintf(&b, " %d bytes at %d", v.Size, v.Off)
				for _, k := range v.Known {
					fmt.Fprintf(&b, ", known %d: %x", k.Off, k.Bytes)
				}
				for _, r := range v.Reads {
					fmt.Fprintf(&b, ", read %d+%d: bit %d", r.Off, r.Size, r.Bit)
				}
				for _, h := range v.Holes {
					fmt.Fprintf(&b, ", hole %d+%d: %s", h.Off, h.Size, h.Why)
				}
				b.WriteByte('\n')
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Record is a decoded record.
type Record struct {
	Header
	Kind   program.ItemKind
	Values []event.Value
	// Future is the address of what is polled, of a Value with Poll; 0 if there is none or
	// it is not known. First: it is polled for the first time.
	Future uint64
	First  bool
}

// maxValue bounds the bytes of a value that are laid out for a type whose size is
// beyond what a record holds.
const maxValue = 64 << 10

// Decode turns the bytes of one record into values as {:?} prints them. The
// result does not refer to raw. Errors wrap ErrMalformed.
func (s *Schema) Decode(raw []byte) (*Record, error) {
	h, err := ParseHeader(raw)
	if err != nil {
		return nil, err
	}
	if h.Item == ScriptItem {
		if h.Cookie >= uint64(len(s.Events)) {
			return nil, fmt.Errorf("%w: event %d", ErrMalformed, h.Cookie)
		}
		return s.decode(h, &s.Events[h.Cookie], raw)
	}
	if h.Cookie >= uint64(len(s.Probes)) {
		return nil, fmt.Errorf("%w: cookie %d", ErrMalformed, h.Cookie)
	}
	items := s.Probes[h.Cookie].Items
	if int(h.Item) >= len(items) {
		return nil, fmt.Errorf("%w: item %d of probe %d", ErrMalformed, h.Item, h.Cookie)
	}
	return s.decode(h, &items[h.Item], raw)
}

func (s *Schema) decode(h Header, item *Item, raw []byte) (*Record, error) {
	body := raw[HeaderSize:h.Length]
	if item.Size > len(body) {
		return nil, fmt.Errorf("%w: %d bytes after the header, %d expected", ErrMalformed, len(body), item.Size)
	}
	fixed := body[:item.Size]
	mem := memory{schema: s}
	if item.Bias >= 0 && item.Bias <= len(fixed)-8 {
		mem.bias, mem.biased = binary.LittleEndian.Uint64(fixed[item.Bias:]), true
	}
	if h.Regions > 0 {
		if err := mem.parse(body[item.Size:], h.Regions); err != nil {
			return nil, err
		}
	}
	r := &Record{Header: h, Kind: item.Kind}
	if len(item.Values) > 0 {
		r.Values = make([]event.Value, 0, len(item.Values))
	}
	o := debugfmt.Options{MaxStr: s.Limits.MaxStr, MaxItems: s.Limits.MaxItems, Depth: s.Limits.Depth, Pretty: s.Pretty}
	if s.Func != nil {
		o.Func = func(addr uint64) string { return s.Func(h.PID, addr) }
	}
	for i := range item.Values {
		r.add(&item.Values[i], fixed, &mem, o)
	}
	return r, nil
}

// add decodes a value.
func (r *Record) add(v *Value, fixed []byte, mem *memory, o debugfmt.Options) {
	out := event.Value{Name: v.Name, Rust: v.Rust}
	if v.Missing != "" && v.Args == nil {
		out.Missing = v.Missing
		r.Values = append(r.Values, out)
		return
	}
	var poll debugfmt.Poll
	var in debugfmt.Value
	if v.Missing == "" {
		in = v.bytes(&r.Header, fixed)
		if v.Poll {
			poll = debugfmt.FormatPoll(in, v.Args, mem, o)
			r.Future, r.First = poll.Future, poll.First
		}
	}
	if v.Args == nil {
		set(&out, debugfmt.Format(in, mem, o), o.Pretty)
		r.Values = append(r.Values, out)
		return
	}
	for i := range v.Args {
		arg := event.Value{Name: v.Args[i].Label(), Rust: v.Args[i].Type.Name, Missing: v.Missing}
		if v.Missing == "" {
			set(&arg, poll.Args[i], o.Pretty)
		}
		r.Values = append(r.Values, arg)
	}
}

func set(v *event.Value, res debugfmt.Result, lines bool) {
	v.Text, v.Missing, v.Truncated, v.Partial = res.Text, res.Missing, res.Truncated, res.Partial
	v.Lines = lines && v.Missing == ""
}

// bytes is what a record has of the value.
func (v *Value) bytes(h *Header, fixed []byte) debugfmt.Value {
	in := debugfmt.Value{Type: v.Type, Holes: v.Holes}
	if v.Off >= 0 && v.Size >= 0 && v.Off <= len(fixed) && v.Size <= len(fixed)-v.Off {
		in.Bytes = fixed[v.Off : v.Off+v.Size]
	}
	if size := v.size(); len(v.Known) > 0 || size > len(in.Bytes) {
		full := make([]byte, size)
		n := copy(full, in.Bytes)
		for _, k := range v.Known {
			if k.Off >= 0 && k.Off <= size {
				n = max(n, k.Off+copy(full[k.Off:], k.Bytes))
			}
		}
		in.Bytes = full
		if n < size && len(v.Holes) == 0 {
			// A limit cut it.
			in.Holes = []debugfmt.Hole{{Off: n, Size: size - n}}
		}
	}
	for _, r := range v.Reads {
		if h.Failed>>r.Bit&1 != 0 {
			in.Holes = append(in.Holes[:len(in.Holes):len(in.Holes)], debugfmt.Hole{Off: r.Off, Size: r.Size, Why: "unreadable"})
		}
	}
	return in
}

// size is how many bytes of the value are laid out.
func (v *Value) size() int {
	if v.Type == nil || v.Type.Size < 0 {
		return 0
	}
	return int(min(v.Type.Size, maxValue))
}

// region is one region of a record.
type region struct {
	class  uint32
	addr   uint64
	bytes  []byte
	status uint32
}

// memory is the regions of one record.
type memory struct {
	schema  *Schema
	bias    uint64
	biased  bool // bias is known
	regions []region
	index   map[regionKey]int32 // nil while there are few
}

type regionKey struct {
	class uint32
	addr  uint64
}

// fewRegions are found faster by looking at each.
const fewRegions = 16

func (m *memory) parse(b []byte, n uint32) error {
	m.regions = make([]region, 0, min(int(n), len(b)/RegionSize))
	for i := range n {
		if len(b) < RegionSize {
			return fmt.Errorf("%w: region %d of %d is cut", ErrMalformed, i, n)
		}
		r := region{
			class:  binary.LittleEndian.Uint32(b[RegionClass:]),
			addr:   binary.LittleEndian.Uint64(b[RegionAddress:]),
			status: binary.LittleEndian.Uint32(b[RegionStatus:]),
		}
		length := uint64(binary.LittleEndian.Uint32(b[RegionLength:]))
		b = b[RegionSize:]
		padded := (length + 7) &^ 7
		if padded > uint64(len(b)) {
			return fmt.Errorf("%w: region %d has %d bytes of %d", ErrMalformed, i, len(b), length)
		}
		r.bytes, b = b[:length], b[padded:]
		m.regions = append(m.regions, r)
	}
	if len(m.regions) > fewRegions {
		m.index = make(map[regionKey]int32, len(m.regions))
		for i, r := range m.regions {
			k := regionKey{r.class, r.addr}
			if j, ok := m.index[k]; !ok || len(m.regions[j].bytes) < len(r.bytes) {
				m.index[k] = int32(i)
			}
		}
	}
	return nil
}

// Region implements debugfmt.Memory.
func (m *memory) Region(t *types.Type, addr uint64) (debugfmt.Region, bool) {
	if len(m.regions) == 0 {
		return debugfmt.Region{}, false
	}
	class, ok := m.schema.Classes[t]
	if !ok {
		return debugfmt.Region{}, false
	}
	best := m.find(class, addr)
	if best == nil {
		return debugfmt.Region{}, false
	}
	out := debugfmt.Region{Bytes: best.bytes}
	switch {
	case best.status != StatusOK:
		out.Status = debugfmt.Unreadable
	case len(best.bytes) == 0:
		out.Status = debugfmt.Cut
	}
	return out, true
}

// Object implements debugfmt.Memory.
func (m *memory) Object(t *types.Type, vtable uint64) (*types.Type, bool) {
	if !m.biased {
		return nil, false
	}
	return m.schema.Objects[t][vtable-m.bias], true
}

// find is the longest region of a class at an address; nil if there is none.
func (m *memory) find(class uint32, addr uint64) *region {
	if m.index != nil {
		if i, ok := m.index[regionKey{class, addr}]; ok {
			return &m.regions[i]
		}
		return nil
	}
	var best *region
	for i := range m.regions {
		r := &m.regions[i]
		if r.class == class && r.addr == addr && (best == nil || len(best.bytes) < len(r.bytes)) {
			best = r
		}
	}
	return best
}
