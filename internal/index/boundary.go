package index

import "ferrotrace/internal/x86"

// Boundary says whether an instruction begins at addr, or where the one does that addr is
// inside of. Where it is not known what function this is, it is taken to be one.
func (ix *Index) Boundary(addr uint64) (begin uint64, ok bool) {
	parts, _, _, known := ix.Text().FunctionAt(addr)
	if !known {
		return addr, true
	}
	for _, p := range parts {
		if addr < p.Low || addr >= p.High {
			continue
		}
		for at := p.Low; at < addr; {
			inst, err := x86.Decode(ix.File.Bytes(at), at)
			if err != nil {
				return addr, true
			}
			next := at + uint64(inst.Len)
			if next > addr {
				return at, false
			}
			at = next
		}
	}
	return addr, true
}
