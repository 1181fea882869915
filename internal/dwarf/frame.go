package dwarf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// ErrNoFrame says that no call frame information covers an address.
var ErrNoFrame = errors.New("no call frame information")

// Frames is the file's call frame information (DWARF 5 §6.4; LSB 5.0 §10.6 for
// .eh_frame). It is not to be modified.
type Frames struct {
	d       *Data
	section []byte
	addr    uint64 // of the section, as linked
	eh      bool
	fdes    []fde // by start, without overlap
	cies    []cie
}

// fde is a frame description entry: the range, and where the rest is.
type fde struct {
	start, end uint64
	cie        uint32 // index
	off, limit uint32 // of what follows the range, in the section
}

// cie is common information entry.
type cie struct {
	codeAlign    uint64
	dataAlign    int64
	program      []byte
	encoding     uint8 // of addresses in FDEs
	lsda         uint8 // encoding of the pointer to the LSDA, peOmit if none
	augmentation bool  // FDEs have augmentation data
	signal       bool
	addrSize     int
	bad          error
}

// Encodings of pointers (LSB 5.0 §10.5.1).
const (
	peOmit     = 0xff
	peAbsptr   = 0x00
	peUleb     = 0x01
	peUdata2   = 0x02
	peUdata4   = 0x03
	peUdata8   = 0x04
	peSleb     = 0x09
	peSdata2   = 0x0a
	peSdata4   = 0x0b
	peSdata8   = 0x0c
	pePCRel    = 0x10
	peAligned  = 0x50
	peIndirect = 0x80
)

// Frames reads the table of functions of .eh_frame, or of .debug_frame if there is no
// .eh_frame, once. The frames of entries that are broken are missing.
func (d *Data) Frames() (*Frames, error) {
	d.framesOnce.Do(func() {
		f := &Frames{d: d, section: d.s.EhFrame, addr: d.s.EhFrameAddr, eh: true}
		if len(f.section) == 0 {
			f.section, f.addr, f.eh = d.s.DebugFrame, 0, false
		}
		d.frames, d.framesErr = f, f.scan()
	})
	return d.frames, d.framesErr
}

// NewFrames reads call frame information without other debug information, of which
// stripped files have none.
func NewFrames(s Sections) (*Frames, error) { return (&Data{s: s}).Frames() }

// scan finds all entries. A length that leads nowhere ends the section.
func (f *Frames) scan() error {
	if uint64(len(f.section)) > 1<<32-1 {
		return fmt.Errorf("%w: call frame information of %d bytes", ErrDWARF, len(f.section))
	}
	known := map[uint64]uint32{} // CIE by offset
	for off := uint64(0); off < uint64(len(f.section)); {
		h, ok := f.header(off)
		if !ok {
			break
		}
		off = h.end
		if h.isCIE || h.start == h.end {
			continue
		}
		i, ok := known[h.cie]
		if !ok {
			i = uint32(len(f.cies))
			f.cies = append(f.cies, f.parseCIE(h.cie))
			known[h.cie] = i
		}
		c := &f.cies[i]
		if c.bad != nil {
			continue
		}
		b := buf{b: f.section[:h.end], pos: int(h.start)}
		start := f.pointer(&b, c.encoding, c.addrSize)
		n := f.pointer(&b, c.encoding&0x0f, c.addrSize)
		if b.bad || n == 0 || start == 0 || start+n < start {
			continue
		}
		f.fdes = append(f.fdes, fde{start, start + n, i, uint32(b.pos), uint32(h.end)})
	}
	slices.SortStableFunc(f.fdes, func(a, b fde) int { return cmp.Compare(a.start, b.start) })
	// What overlaps an earlier entry is no function of its own.
	out := f.fdes[:0]
	for _, e := range f.fdes {
		if n := len(out); n > 0 && e.start < out[n-1].end {
			continue
		}
		out = append(out, e)
	}
	f.fdes = out
	return nil
}

type entryHeader struct {
	start, end uint64 // of the contents
	isCIE      bool
	cie        uint64 // offset, for an FDE
}

// header reads the length and the CIE pointer at off. An entry without contents, the
// terminator of .eh_frame among them, has start == end.
func (f *Frames) header(off uint64) (h entryHeader, ok bool) {
	b := buf{b: f.section, pos: int(off)}
	n, format64 := b.initialLength()
	if b.bad || n > uint64(b.left()) {
		return h, false
	}
	h.end = uint64(b.pos) + n
	b.b = b.b[:h.end]
	if n == 0 {
		h.start = h.end
		return h, true
	}
	at := uint64(b.pos)
	id := b.offset(format64 && !f.eh) // 4 bytes in .eh_frame whatever the format (LSB 5.0 §10.6.1)
	if b.bad {
		return h, false
	}
	h.start = uint64(b.pos)
	switch {
	case f.eh && id == 0:
		h.isCIE = true
	case f.eh:
		if id > at {
			h.start = h.end
			return h, true
		}
		h.cie = at - id
	case id == 1<<32-1 && !format64, id == 1<<64-1:
		h.isCIE = true
	default:
		h.cie = id
	}
	return h, true
}

func (f *Frames) parseCIE(off uint64) (c cie) {
	bad := func(format string, args ...any) cie {
		return cie{bad: fmt.Errorf("%w: common frame information at %#x: %s", ErrDWARF, off, fmt.Sprintf(format, args...))}
	}
	if off >= uint64(len(f.section)) {
		return bad("beyond the section")
	}
	h, ok := f.header(off)
	if !ok || !h.isCIE {
		return bad("none there")
	}
	b := buf{b: f.section[:h.end], pos: int(h.start)}
	c = cie{lsda: peOmit, addrSize: 8}
	version := b.u8()
	if version != 1 && version != 3 && version != 4 {
		return bad("version %d", version)
	}
	aug := text(b.cstring())
	if version == 4 {
		c.addrSize = int(b.u8())
		if seg := b.u8(); c.addrSize != 8 || seg != 0 {
			return bad("addresses of %d bytes", c.addrSize)
		}
	}
	c.codeAlign = b.uleb()
	c.dataAlign = b.sleb()
	if version == 1 {
		b.u8() // return address register
	} else {
		b.uleb()
	}
	if len(aug) > 0 && aug[0] == 'z' {
		c.augmentation = true
		data := buf{b: f.section[:h.end]}
		n := b.uleb()
		data.pos = b.pos
		b.skip(n)
		data.b = data.b[:b.pos]
	known:
		for _, ch := range aug[1:] {
			switch ch {
			case 'R':
				c.encoding = data.u8()
			case 'L':
				c.lsda = data.u8()
			case 'P':
				f.pointer(&data, data.u8(), 8) // personality
			case 'S':
				c.signal = true
			case 'B', 'G':
			default:
				break known // the length says where the rest is
			}
		}
		if data.bad {
			return bad("augmentation %q cut short", aug)
		}
	} else if aug != "" {
		return bad("augmentation %q", aug)
	}
	if b.bad {
		return bad("cut short")
	}
	c.program = b.b[b.pos:]
	return c
}

// pointer reads an encoded pointer. What is relative to anything but the place where
// it stands fails. An indirect pointer's own address is returned.
func (f *Frames) pointer(b *buf, enc uint8, addrSize int) uint64 {
	return encoded(b, enc, f.addr, addrSize)
}

// encoded reads an encoded pointer in a buffer whose first byte is at base.
func encoded(b *buf, enc uint8, base uint64, addrSize int) uint64 {
	if enc == peOmit {
		return 0
	}
	at := base + uint64(b.pos)
	if enc == peAligned {
		b.skip(-at & 7)
		return b.u64()
	}
	var v uint64
	switch enc & 0x0f {
	case peAbsptr:
		v = b.uint(addrSize)
	case peUleb:
		v = b.uleb()
	case peUdata2:
		v = uint64(b.u16())
	case peUdata4:
		v = uint64(b.u32())
	case peUdata8, peSdata8:
		v = b.u64()
	case peSleb:
		v = uint64(b.sleb())
	case peSdata2:
		v = uint64(int64(int16(b.u16())))
	case peSdata4:
		v = uint64(int64(int32(b.u32())))
	default:
		b.fail()
		return 0
	}
	switch enc & 0x70 {
	case 0:
	case pePCRel:
		if v != 0 { // null stays null
			v += at
		}
	default:
		b.fail()
		return 0
	}
	return v
}

func (f *Frames) find(pc uint64) *fde {
	i := sort.Search(len(f.fdes), func(i int) bool { return f.fdes[i].end > pc })
	if i == len(f.fdes) || pc < f.fdes[i].start {
		return nil
	}
	return &f.fdes[i]
}

// Range is the code that the frame description which covers pc is for: a function, or
// a part of one.
func (f *Frames) Range(pc uint64) (Range, bool) {
	e := f.find(pc)
	if e == nil {
		return Range{}, false
	}
	return Range{e.start, e.end}, true
}

// Ranges lists the code of all frame descriptions in the order of addresses.
func (f *Frames) Ranges() []Range {
	rs := make([]Range, len(f.fdes))
	for i, e := range f.fdes {
		rs[i] = Range{e.start, e.end}
	}
	return rs
}

// Within lists the code of the frame descriptions that cover something of r, in the
// order of addresses.
func (f *Frames) Within(r Range) []Range {
	var rs []Range
	i := sort.Search(len(f.fdes), func(i int) bool { return f.fdes[i].end > r.Low })
	for ; i < len(f.fdes) && f.fdes[i].start < r.High; i++ {
		rs = append(rs, Range{f.fdes[i].start, f.fdes[i].end})
	}
	return rs
}

// CFARule says how the canonical frame address is computed: the register with the
// DWARF number Reg plus Off, or, if Expr is not nil, by that expression.
type CFARule struct {
	Reg  uint16
	Off  int64
	Expr []byte
}

// CFA is the rule for the canonical frame address when the program is about to do the
// instruction at pc.
func (f *Frames) CFA(pc uint64) (CFARule, error) {
	e := f.find(pc)
	if e == nil {
		return CFARule{}, fmt.Errorf("%#x: %w", pc, ErrNoFrame)
	}
	c := &f.cies[e.cie]
	b := buf{b: f.section[:e.limit], pos: int(e.off)}
	if c.augmentation {
		b.skip(b.uleb())
	}
	if b.bad {
		return CFARule{}, fmt.Errorf("frame of %#x: %w", pc, b.err("augmentation"))
	}
	m := cfaMachine{cie: c, frames: f, loc: e.start, pc: pc}
	start := buf{b: c.program}
	if err := m.run(&start, true); err != nil {
		return CFARule{}, fmt.Errorf("frame of %#x: %w", pc, err)
	}
	m.past = false
	if err := m.run(&b, false); err != nil {
		return CFARule{}, fmt.Errorf("frame of %#x: %w", pc, err)
	}
	if !m.known {
		return CFARule{}, fmt.Errorf("frame of %#x: %w: no rule", pc, ErrDWARF)
	}
	return m.rule, nil
}

// cfaMachine runs call frame instructions (DWARF 5 §6.4.2) for the sake of the CFA
// alone: rules for registers are passed over.
type cfaMachine struct {
	cie     *cie
	frames  *Frames
	loc, pc uint64
	past    bool // the next row begins after pc
	rule    CFARule
	known   bool
	stack   []cfaState
}

type cfaState struct {
	rule  CFARule
	known bool
}

// Call frame instructions (DWARF 5 §7.24).
const (
	cfaAdvanceLoc1      = 0x02
	cfaSetLoc           = 0x01
	cfaAdvanceLoc2      = 0x03
	cfaAdvanceLoc4      = 0x04
	cfaOffsetExtended   = 0x05
	cfaRestoreExtended  = 0x06
	cfaUndefined        = 0x07
	cfaSameValue        = 0x08
	cfaRegister         = 0x09
	cfaRememberState    = 0x0a
	cfaRestoreState     = 0x0b
	cfaDefCFA           = 0x0c
	cfaDefCFARegister   = 0x0d
	cfaDefCFAOffset     = 0x0e
	cfaDefCFAExpression = 0x0f
	cfaExpression       = 0x10
	cfaOffsetExtendedSF = 0x11
	cfaDefCFASF         = 0x12
	cfaDefCFAOffsetSF   = 0x13
	cfaValOffset        = 0x14
	cfaValOffsetSF      = 0x15
	cfaValExpression    = 0x16
	cfaGNUArgsSize      = 0x2e
	cfaGNUNegOffset     = 0x2f

	maxCFAStack = 64
)

func (m *cfaMachine) advance(n uint64) {
	m.loc += n * m.cie.codeAlign
	m.past = m.loc > m.pc
}

func (m *cfaMachine) run(b *buf, initial bool) error {
	for b.left() > 0 && !m.past {
		op := b.u8()
		switch op >> 6 {
		case 1: // advance_loc
			m.advance(uint64(op & 0x3f))
			continue
		case 2: // offset
			b.uleb()
			continue
		case 3: // restore
			continue
		}
		switch op {
		case 0: // nop
		case cfaSetLoc:
			if initial {
				return fmt.Errorf("%w: an address in common frame information", ErrDWARF)
			}
			m.loc = m.frames.pointer(b, m.cie.encoding, m.cie.addrSize)
			m.past = m.loc > m.pc
		case cfaAdvanceLoc1:
			m.advance(uint64(b.u8()))
		case cfaAdvanceLoc2:
			m.advance(uint64(b.u16()))
		case cfaAdvanceLoc4:
			m.advance(uint64(b.u32()))
		case cfaDefCFA:
			m.define(b.uleb(), int64(b.uleb()))
		case cfaDefCFASF:
			m.define(b.uleb(), b.sleb()*m.cie.dataAlign)
		case cfaDefCFARegister:
			m.define(b.uleb(), m.rule.Off)
		case cfaDefCFAOffset, cfaDefCFAOffsetSF:
			off := int64(0)
			if op == cfaDefCFAOffset {
				off = int64(b.uleb())
			} else {
				off = b.sleb() * m.cie.dataAlign
			}
			if m.known = m.known && m.rule.Expr == nil; m.known {
				m.rule.Off = off
			}
		case cfaDefCFAExpression:
			m.rule = CFARule{Expr: b.bytes(b.uleb())}
			m.known = len(m.rule.Expr) > 0
		case cfaRememberState:
			if len(m.stack) >= maxCFAStack {
				return fmt.Errorf("%w: more than %d states remembered", ErrDWARF, maxCFAStack)
			}
			m.stack = append(m.stack, cfaState{m.rule, m.known})
		case cfaRestoreState:
			if len(m.stack) == 0 {
				return fmt.Errorf("%w: no state to restore", ErrDWARF)
			}
			s := m.stack[len(m.stack)-1]
			m.stack = m.stack[:len(m.stack)-1]
			m.rule, m.known = s.rule, s.known
		case cfaRestoreExtended, cfaUndefined, cfaSameValue, cfaGNUArgsSize:
			b.uleb()
		case cfaOffsetExtended, cfaRegister, cfaValOffset, cfaGNUNegOffset:
			b.uleb()
			b.uleb()
		case cfaOffsetExtendedSF, cfaValOffsetSF:
			b.uleb()
			b.sleb()
		case cfaExpression, cfaValExpression:
			b.uleb()
			b.skip(b.uleb())
		default:
			return fmt.Errorf("%w: call frame instruction %#x", ErrDWARF, op)
		}
		if b.bad {
			return b.err("call frame instructions")
		}
	}
	if b.bad {
		return b.err("call frame instructions")
	}
	return nil
}

func (m *cfaMachine) define(reg uint64, off int64) {
	m.known = reg <= 1<<16-1
	m.rule = CFARule{Reg: uint16(reg), Off: off}
}
