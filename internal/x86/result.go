package x86

// Evidence is the answer to a question that the code may not settle.
type Evidence uint8

// The answers.
const (
	Unknown Evidence = iota
	Yes
	No
)

func (e Evidence) String() string { return [...]string{"unknown", "yes", "no"}[e] }

// maxWalk bounds the instructions looked at for one piece of evidence.
const maxWalk = 5000

// ResultWritten says whether the function itself, on the way to exit, writes
// reg (RAX, RDX, X0 or X0+1) as one writes a result: with a value that nothing
// else uses. It is Yes if that holds on every path to the exit, No if no path
// from the entry writes reg (or the last write is the pop that gives back an
// alignment slot), and Unknown in all other cases: after a call, which leaves
// its own result there; if the value is read again, or the flags that were set
// with it; if reg is only one of several results of the instruction.
func (f *Func) ResultWritten(exit Exit, reg Reg) Evidence {
	start, ok := f.index(exit.Addr)
	if !ok || exit.Kind != ExitRet {
		return Unknown
	}
	var writes []int
	answer, have := Unknown, false
	agree := func(e Evidence) bool {
		if have && e != answer {
			return false
		}
		answer, have = e, true
		return e != Unknown
	}
	f.begin()
	f.mark[start] = f.stamp
	if !f.pushPreds(start) {
		return Unknown
	}
	for steps := 0; ; steps++ {
		i, ok := f.pop()
		if !ok {
			break
		}
		if steps > maxWalk {
			return Unknown
		}
		in := &f.Insts[i]
		if in.Kind == Call || in.Kind == CallIndirect || in.Kind == Syscall {
			return Unknown
		}
		if !in.Writes.Has(reg) {
			if in.Addr == f.entry {
				if !agree(No) {
					return Unknown
				}
			}
			if !f.pushPreds(i) {
				return Unknown
			}
			continue
		}
		e := Yes
		switch {
		case in.Loose || in.MemWrite && in.Mem.Has:
			return Unknown
		case in.Kind == Pop:
			if e = No; i > 0 && f.fallsInto(i-1) && f.Insts[i-1].Kind == Push && f.Insts[i-1].HasImm {
				e = Yes // push imm; pop reg: how -Os loads a small constant
			}
		case in.Dst != reg:
			return Unknown
		default:
			writes = append(writes, i)
		}
		if !agree(e) {
			return Unknown
		}
	}
	if !have {
		return Unknown
	}
	for _, i := range writes {
		if f.consumed(i, reg) {
			return Unknown
		}
	}
	return answer
}

// pushPreds adds the known predecessors of i to the walk; false if there are
// none, so that nothing is known of what came before. (The function's entry
// needs none.)
func (f *Func) pushPreds(i int) bool {
	found := f.Insts[i].Addr == f.entry
	if f.fallsInto(i - 1) {
		f.push(i - 1)
		found = true
	}
	for _, p := range f.jumpsTo(i) {
		f.push(int(p))
		found = true
	}
	return found
}

// consumed says whether, after instruction w has written reg, anything may read
// it, or the flags written with it, other than the function's caller.
func (f *Func) consumed(w int, reg Reg) bool {
	argument := reg != RAX // what a callee may take as an argument
	for _, r := range []Reg{reg, Flags} {
		if !f.Insts[w].Writes.Has(r) {
			continue
		}
		f.begin()
		f.eachSucc(w, f.push)
		for steps := 0; ; steps++ {
			i, ok := f.pop()
			if !ok {
				break
			}
			if steps > maxWalk {
				return true
			}
			in := &f.Insts[i]
			if in.Reads.Has(r) {
				return true
			}
			if in.Kind == Call || in.Kind == CallIndirect {
				if argument && r == reg {
					return true
				}
				continue
			}
			if in.WritesFull.Has(r) {
				continue
			}
			if in.Kind == JmpIndirect && f.tableAt(i).targets == nil {
				return true
			}
			if in.Branches() && !f.Contains(in.Target) && argument && r == reg {
				return true
			}
			f.eachSucc(i, f.push)
		}
	}
	return false
}

// CallerReads says whether the code from at on, the address after a call, reads
// the result register reg (RAX, RDX, X0, X0+1) before writing it: Yes if it
// does on every path, No if it overwrites it on every path. It follows direct
// jumps and looks at limit instructions at most. Saving the register with push
// is no evidence, for that is also how the stack is aligned; nor is returning,
// or calling on with a register that may be an argument.
func CallerReads(code Code, at uint64, reg Reg, limit int) Evidence {
	r := callerReads{code: code, reg: reg, left: limit, seen: map[uint64]bool{}}
	e, ok := r.path(at, 0)
	if !ok {
		return Unknown
	}
	return e
}

type callerReads struct {
	code Code
	reg  Reg
	left int
	seen map[uint64]bool
}

// path follows one path. It is not ok if the path says nothing: it ends in a
// trap, or where another path has been.
func (r *callerReads) path(at uint64, depth int) (e Evidence, ok bool) {
	for {
		if r.seen[at] {
			return Unknown, false
		}
		r.seen[at] = true
		if r.left--; r.left < 0 || depth > 32 {
			return Unknown, true
		}
		in, err := Decode(r.code(at), at)
		if err != nil {
			return Unknown, true
		}
		if in.Reads.Has(r.reg) {
			if in.Loose || in.Kind == Push || in.Kind == Syscall {
				return Unknown, true
			}
			return Yes, true
		}
		if in.Writes.Has(r.reg) {
			if in.WritesFull.Has(r.reg) && !in.Loose {
				return No, true
			}
			return Unknown, true
		}
		switch in.Kind {
		case Trap:
			return Unknown, false
		case Ret, JmpIndirect, Syscall:
			return Unknown, true
		case Call, CallIndirect:
			if r.reg == RAX {
				return No, true
			}
			return Unknown, true
		case Jmp:
			at = in.Target
			continue
		case Jcc:
			a, aok := r.path(in.Target, depth+1)
			b, bok := r.path(in.End(), depth+1)
			switch {
			case !aok:
				return b, bok
			case !bok || a == b:
				return a, true
			}
			return Unknown, true
		}
		at = in.End()
	}
}
