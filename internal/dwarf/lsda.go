package dwarf

import "fmt"

// CallSite is a run of instructions whose exceptions go to a landing pad.
type CallSite struct {
	Low, High uint64
	Pad       uint64 // where the unwinder enters the function again
	Catches   bool   // the pad may end the exception; otherwise it only cleans up
}

// maxCallSites bounds the call sites of one function.
const maxCallSites = 1 << 16

// LandingPads lists the call sites with a landing pad of the function whose frame
// description covers pc, from its language-specific data area in .gcc_except_table:
// none if the function has no such area. The error says that it has one that can't be
// read.
func (f *Frames) LandingPads(pc uint64) ([]CallSite, error) {
	e := f.find(pc)
	if e == nil {
		return nil, nil
	}
	c := &f.cies[e.cie]
	if !c.augmentation || c.lsda == peOmit {
		return nil, nil
	}
	b := buf{b: f.section[:e.limit], pos: int(e.off)}
	if n := b.uleb(); n > uint64(b.left()) {
		b.fail()
	}
	addr := f.pointer(&b, c.lsda, c.addrSize)
	if !b.bad && addr == 0 {
		return nil, nil
	}
	if !b.bad && c.lsda&peIndirect == 0 && f.d.s.Mem != nil {
		if sites, ok := parseLSDA(f.d.s.Mem(addr), addr, Range{e.start, e.end}); ok {
			return sites, nil
		}
	}
	return nil, fmt.Errorf("%w: exception table of the code at %#x", ErrDWARF, e.start)
}

// parseLSDA reads a language-specific data area, whose form is that of GCC's C++
// personality routine and also that of Rust's (library/std/src/sys/personality/dwarf/eh.rs).
func parseLSDA(mem []byte, addr uint64, fn Range) (sites []CallSite, ok bool) {
	b := buf{b: mem}
	pads := fn.Low
	if enc := b.u8(); enc != peOmit {
		pads = encoded(&b, enc, addr, 8)
	}
	if enc := b.u8(); enc != peOmit {
		b.uleb() // where the table of types ends
	}
	enc := b.u8()
	n := b.uleb()
	if b.bad || n > uint64(b.left()) || enc&0xf0 != 0 {
		return nil, false
	}
	b.b = b.b[:b.pos+int(n)]
	for b.left() > 0 {
		if len(sites) >= maxCallSites {
			return nil, false
		}
		start := encoded(&b, enc, addr, 8)
		size := encoded(&b, enc, addr, 8)
		pad := encoded(&b, enc, addr, 8)
		action := b.uleb()
		if b.bad {
			return nil, false
		}
		if pad == 0 {
			continue
		}
		s := CallSite{Low: fn.Low + start, High: fn.Low + start + size, Pad: pads + pad, Catches: action != 0}
		if s.Low < fn.Low || s.High < s.Low || s.High > fn.High {
			return nil, false // not a table of this function
		}
		sites = append(sites, s)
	}
	return sites, true
}
