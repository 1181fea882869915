package index

import (
	"fmt"

	"ferrotrace/internal/dwarf"
)

// duplicated says whether the function has another inlined instance for the same call
// in the source. Then pieces of one call may be in both.
func (in *Instance) duplicated(fl *flow) bool {
	inlines := in.Fn.ix.instances(in.sub)
	keys := make([]string, len(inlines))
	own := ""
	if fl.calls == nil {
		fl.calls = map[string]int{}
		for i := range inlines {
			keys[i] = in.Fn.ix.callKey(in.sub, int32(i), keys)
			fl.calls[keys[i]]++
		}
	}
	for i := range inlines {
		if inlines[i].off == in.entry {
			own = in.Fn.ix.callKey(in.sub, int32(i), keys)
		}
	}
	return fl.calls[own] > 1
}

// callKey names the call that inlined instance i of s stands for, by what is called,
// from where, within which other calls. keys are those of the instances before.
func (ix *Index) callKey(s *subprogram, i int32, keys []string) string {
	outer := ""
	inlines := ix.instances(s)
	key := func(i int32) string {
		c := inlines[i]
		e, err := ix.debug.Entry(c.off)
		if err != nil {
			return fmt.Sprintf("%d", c.off)
		}
		file, _ := e.Uint(dwarf.AttrCallFile)
		line, _ := e.Uint(dwarf.AttrCallLine)
		column, _ := e.Uint(dwarf.AttrCallColumn)
		return fmt.Sprintf("%d %d:%d:%d", c.origin, file, line, column)
	}
	own := key(i)
	for p := inlines[i].parent; p >= 0; p = inlines[p].parent {
		if keys[p] != "" {
			outer += "<" + keys[p]
			break
		}
		outer += "<" + key(p)
	}
	return own + outer
}
