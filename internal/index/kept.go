package index

import (
	"slices"
	"strings"
	"sync"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// coroutineBodies are the functions that resume coroutines, by the coroutine's type.
type coroutineBodies struct {
	once    sync.Once
	byType  map[string][]*subprogram // those that are out of line
	symbols map[string]string
}

// resumed is the type of coroutine that d resumes: its body is beside it, as {async_fn#0}
// is beside {async_fn_env#0}. It is "" of other functions.
func (d described) resumed() string {
	for _, kind := range []string{"{async_", "{coroutine#", "{gen_"} {
		if strings.HasPrefix(d.name, kind) {
			path := append(d.ix.appendScope(nil, d.scope), strings.Replace(d.name, "#", "_env#", 1))
			return types.Written(strings.Join(path, "::"))
		}
	}
	return ""
}

// bodiesOfCoroutines finds the functions that resume coroutines.
func (ix *Index) bodiesOfCoroutines() *coroutineBodies {
	b := &ix.resuming
	b.once.Do(func() {
		b.byType, b.symbols = map[string][]*subprogram{}, map[string]string{}
		for i := range ix.subs.all {
			s := &ix.subs.all[i]
			if s.name == 0 && s.low == 0 || s.name != 0 && !strings.HasPrefix(ix.debug.Str(s.name), "{") {
				continue
			}
			d := ix.describe(s)
			of := d.resumed()
			if of == "" {
				continue
			}
			if s.low != 0 {
				b.byType[of] = append(b.byType[of], s)
			}
			if d.linkage != "" {
				b.symbols[of] = d.linkage
			}
		}
	})
	return b
}

// resumes answers for types.Reader.
func (ix *Index) resumes(t string) string { return ix.bodiesOfCoroutines().symbols[t] }

// kept answers for types.Reader by what the code that resumes a coroutine does.
func (ix *Index) kept(c types.Coroutines) types.Kept {
	var all keptByAll
	bodies := ix.bodiesOfCoroutines().byType[c.Type]
	if len(bodies) == 0 || len(bodies) > maxGlue {
		return nil
	}
	for _, s := range bodies {
		k := ix.keptBy(s, c)
		if k == nil {
			return nil
		}
		all = append(all, *k)
	}
	return all
}

// keptByAll is what several functions show, of which one resumes the coroutine.
type keptByAll []keptBy

type keptBy struct {
	*x86.States
	plain bool // its code is not optimised
}

// Given relies on the order of statements, which an optimiser changes: it may make a
// round of a loop of its own and leave out what does not happen in that.
func (all keptByAll) Given(tag uint64, off, size int64) bool {
	for _, k := range all {
		m := k.Resumed(tag)
		if !k.plain || len(m) == 0 || !k.States.Given(m[0], off, size) {
			return false
		}
	}
	return true
}

func (all keptByAll) Used(tag uint64, off, size int64) []bool {
	var used [][]bool
	for _, k := range all {
		m := k.Resumed(tag)
		if len(m) == 0 {
			return nil
		}
		used = append(used, k.States.Used(m[0], off, size))
	}
	return everywhere(used)
}

// everywhere are the bytes that are used in all of several ways.
func everywhere(used [][]bool) []bool {
	if len(used) == 0 {
		return nil
	}
	all := slices.Clone(used[0])
	for _, more := range used[1:] {
		for i := range all {
			all[i] = all[i] && more != nil && more[i]
		}
	}
	return all
}

func (ix *Index) keptBy(s *subprogram, c types.Coroutines) *keptBy {
	ranges, err := ix.ranges(s.off)
	if err != nil || len(ranges) == 0 {
		return nil
	}
	f, err := x86.NewFunc(ix.File.Bytes, ranges, ix.noReturn)
	if err != nil {
		return nil
	}
	fl := flow{code: f}
	fl.landingPads(ix, &Instance{Ranges: ranges})
	states := ix.states(&fl, c)
	if states == nil {
		return nil
	}
	return &keptBy{states, f.KeepsInFrame(fl.pads)}
}

// states follows code that resumes a coroutine.
func (ix *Index) states(fl *flow, c types.Coroutines) *x86.States {
	return fl.code.States(x86.Coroutine{
		Size: c.Size, TagOff: c.Tag.Offset, TagSize: c.Tag.Size, First: c.First,
		Resumes: func(tag uint64) bool { return slices.Contains(c.Suspended, tag) },
		Edges:   fl.edges,
		Slot: func(addr uint64) (uint64, bool) {
			s, ok := ix.File.SlotAt(addr)
			return s.Target, ok && s.Target != 0
		},
		Callee: ix.calleeMemory,
	})
}

// calleeMemory is what a function does with what is in its first registers, as far as the
// sizes and kinds of its types tell: types can't be read where it is asked.
func (ix *Index) calleeMemory(call *x86.Inst) x86.Callee {
	target := ix.callTarget(call)
	switch strings.TrimSuffix(ix.symbolAt(target), "@plt") {
	case "memcpy", "memmove":
		return x86.Callee{Copies: true}
	}
	unknown := x86.Callee{Result: -1}
	s := ix.text.subprogramAt(target)
	if s == nil || s.low != target {
		return unknown
	}
	e, err := ix.debug.Entry(s.off)
	if err != nil {
		return unknown
	}
	size, _, ok := ix.shape(e)
	if !ok {
		return unknown
	}
	// Results of more than two words are written to memory, those of one word never.
	c := x86.Callee{Result: int64(size), Sure: size > 16}
	regs := []x86.Reg{x86.RDI, x86.RSI, x86.RDX, x86.RCX, x86.R8, x86.R9}
	switch {
	case size <= 8:
		c.Result = 0
	case size <= 16:
		return c // it may have taken rdi
	default:
		regs = regs[1:]
	}
	off := s.off
	if s.flags&subOrigin != 0 {
		off = s.ref
	}
	params, err := ix.children(off, dwarf.TagFormalParameter)
	if err != nil {
		return c
	}
	for _, p := range params {
		size, tag, ok := ix.shape(p)
		switch {
		case !ok || len(regs) == 0:
			return c
		case size == 0:
			continue
		case tag == dwarf.TagPointerType:
			c.Pointers |= regs[0].Set()
		case tag != dwarf.TagBaseType || size > 8:
			return c
		}
		regs = regs[1:]
	}
	return c
}

// shape is the size of the type that an entry states, and what kind of type it is: a
// pointer, or a number or the like that a general register takes, TagBaseType. ok is false
// if it can't be read.
func (ix *Index) shape(e *dwarf.Entry) (size uint64, tag dwarf.Tag, ok bool) {
	_, owner, stated := e.Inherited(dwarf.AttrType)
	if !stated {
		return 0, 0, true // ()
	}
	off, ok := owner.Ref(dwarf.AttrType)
	if !ok {
		return 0, 0, false
	}
	t, err := ix.debug.Entry(off)
	if err != nil {
		return 0, 0, false
	}
	size, ok = t.Uint(dwarf.AttrByteSize)
	switch enc, _ := t.Uint(dwarf.AttrEncoding); {
	case t.Tag == dwarf.TagPointerType:
		return 8, t.Tag, true // its size may go without saying
	case t.Tag == dwarf.TagBaseType && enc != dwarf.EncFloat:
		return size, t.Tag, ok
	}
	return size, 0, ok
}
