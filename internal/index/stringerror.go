package index

import (
	"encoding/binary"
	"strings"

	"ferrotrace/internal/rust/demangle"
)

// maxMethods bounds the vtables that are looked at, in words.
const maxMethods = 32

// stringErrors finds vtables that debug info does not have: those, in the prebuilt std, of
// what From<&str> makes of a text for Box<dyn Error>, alloc's StringError. They are told
// by the method that returns the type's id, which no other type's vtable may have: it is
// not the same for any other.
func (ix *Index) stringErrors() []uint64 {
	var found []uint64
	for i, s := range ix.symbols {
		if !strings.Contains(s.Name, "StringError") || !strings.Contains(s.Name, "type_id") || !isStringErrorID(s.Name) {
			continue
		}
		if i > 0 && ix.symbols[i-1].Addr == s.Addr || i+1 < len(ix.symbols) && ix.symbols[i+1].Addr == s.Addr {
			continue // merged with another function
		}
		for _, slot := range ix.File.SlotsOf(s.Addr) {
			if base, ok := ix.vtableOf(slot); ok {
				found = append(found, base)
			}
		}
	}
	return found
}

func isStringErrorID(symbol string) bool {
	name, ok := demangle.Demangle(symbol)
	return ok && strings.HasPrefix(name, "<") &&
		(strings.HasSuffix(name, "::from::StringError as core::error::Error>::type_id") ||
			strings.HasSuffix(name, "::from::StringError as std::error::Error>::type_id"))
}

// vtableOf is the beginning of the vtable that slot is a method in. Before methods, and
// vtables of supertraits, all of them addresses, are the alignment, which is none, the
// size and the drop glue: those of a String.
func (ix *Index) vtableOf(slot uint64) (base uint64, ok bool) {
	for range maxMethods {
		if slot < 24 {
			break
		}
		slot -= 8
		if _, pointer := ix.File.SlotAt(slot); pointer {
			continue
		}
		base = slot - 16
		b := ix.File.Bytes(base)
		drop, dropped := ix.File.SlotAt(base)
		_, size := ix.File.SlotAt(base + 8)
		return base, len(b) >= 24 && !size && dropped && ix.File.Executable(drop.Target) &&
			binary.LittleEndian.Uint64(b[8:]) == 24 && binary.LittleEndian.Uint64(b[16:]) == 8
	}
	return 0, false
}
