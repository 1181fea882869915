package index

import (
	"slices"
	"strings"
	"sync"

	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// glue are the functions that drop values, by the type, and those types by address.
type glue struct {
	once   sync.Once
	byType map[string][]*subprogram
	byAddr map[uint64]string
}

// maxGlue bounds the functions for one type that are looked into. Units have copies, and
// two versions of a crate have types of one name.
const maxGlue = 8

// dropped is the type of which s drops values, by its name: that of core::ptr::drop_in_place,
// or core::ptr::drop_glue since 1.97. It is "" of another function's.
func (ix *Index) dropped(s *subprogram) string {
	name := ix.debug.Str(s.name)
	of, ok := strings.CutPrefix(name, "drop_in_place<")
	if !ok {
		of, ok = strings.CutPrefix(name, "drop_glue<")
	}
	if !ok || !slices.Equal(ix.appendScope(nil, s.scope), []string{"core", "ptr"}) {
		return ""
	}
	return types.Written(strings.TrimSuffix(of, ">"))
}

// drops answers for types.Reader by what the code of the type's drop glue does. That code
// calls the glue of each part, where it has not been optimised.
func (ix *Index) drops(t string, off int64, size int, tag uint64) []types.Dropped {
	known := x86.Known{Off: off, Size: size, Value: tag}
	ix.glue.once.Do(func() {
		ix.glue.byType, ix.glue.byAddr = map[string][]*subprogram{}, map[uint64]string{}
		for i := range ix.subs.all {
			if s := &ix.subs.all[i]; s.low != 0 {
				if of := ix.dropped(s); of != "" {
					ix.glue.byType[of] = append(ix.glue.byType[of], s)
					if other, ok := ix.glue.byAddr[s.low]; ok && other != of {
						of = "" // merged: it may be the one or the other
					}
					ix.glue.byAddr[s.low] = of
				}
			}
		}
	})
	all := ix.glue.byType[t]
	if len(all) == 0 || len(all) > maxGlue {
		return nil
	}
	parts := ix.dropsIn(all[0], known)
	for _, s := range all[1:] {
		more := ix.dropsIn(s, known)
		parts = slices.DeleteFunc(parts, func(d types.Dropped) bool { return !slices.Contains(more, d) })
	}
	return parts
}

// dropsIn are the parts that a type's drop glue drops if its value is as known.
func (ix *Index) dropsIn(s *subprogram, known x86.Known) (parts []types.Dropped) {
	ranges, err := ix.ranges(s.off)
	if err != nil || len(ranges) == 0 {
		return nil
	}
	f, err := x86.NewFunc(ix.File.Bytes, ranges, nil)
	if err != nil {
		return nil
	}
	for _, c := range f.CallsWith(known, func(addr uint64) (uint64, bool) {
		s, ok := ix.File.SlotAt(addr)
		return s.Target, ok && s.Target != 0
	}) {
		if of := ix.glue.byAddr[c.Target]; of != "" {
			parts = append(parts, types.Dropped{Off: c.Off, Type: of})
		}
	}
	return parts
}
