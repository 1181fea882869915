package x86

import (
	"errors"
	"fmt"
)

// ErrUnknownExit is returned by Exits for a function with an indirect jump
// that may or may not leave it.
var ErrUnknownExit = errors.New("x86: an indirect jump may leave the function")

// ExitKind is how a function is left.
type ExitKind uint8

// The kinds of exit.
const (
	ExitRet  ExitKind = iota // a return
	ExitTail                 // a jump to another function
)

func (k ExitKind) String() string {
	if k == ExitRet {
		return "ret"
	}
	return "tail"
}

// Exit is an instruction that leaves a function, other than by unwinding or by
// a call that never returns.
type Exit struct {
	Addr     uint64
	Kind     ExitKind
	Target   uint64 // where a tail call goes; 0 if not known
	Indirect bool   // through a register or memory
	Cond     int    // condition code 0..15 of a conditional jump, -1 without condition
}

// Exits returns the exits of the function whose ranges are parts, entered at
// parts[0].Low. It is NewFunc and Func.Exits in one.
func Exits(code Code, parts []Range) ([]Exit, error) {
	f, err := NewFunc(code, parts, nil)
	if err != nil {
		return nil, err
	}
	return f.Exits()
}

// Exits returns the function's exits in order of address: each return, and each
// jump that leaves all of its parts. A jump to the function's own first byte is
// a loop; a tail call of itself looks the same and is none either. An indirect
// jump is an exit unless it is a table dispatch, or the stack is not at the
// depth of the entry; if that cannot be told, the error wraps ErrUnknownExit
// and names its address.
func (f *Func) Exits() ([]Exit, error) {
	var exits []Exit
	for i := range f.Insts {
		in := &f.Insts[i]
		switch in.Kind {
		case Ret:
			exits = append(exits, Exit{Addr: in.Addr, Kind: ExitRet, Cond: -1})
		case Jmp, Jcc:
			if f.Contains(in.Target) {
				continue
			}
			e := Exit{Addr: in.Addr, Kind: ExitTail, Target: in.Target, Cond: -1}
			if in.Kind == Jcc {
				e.Cond = int(in.Cond)
			}
			exits = append(exits, e)
		case JmpIndirect:
			leaves, err := f.leaves(i)
			if err != nil {
				return nil, err
			}
			if leaves {
				exits = append(exits, Exit{Addr: in.Addr, Kind: ExitTail, Indirect: true, Cond: -1})
			}
		}
	}
	return exits, nil
}

// leaves says whether indirect jump i leaves the function.
func (f *Func) leaves(i int) (bool, error) {
	in := &f.Insts[i]
	t := f.tableAt(i)
	if t != nil && (t.targets != nil || t.table && !in.Mem.Has && f.relativeForm(i)) {
		return false, nil
	}
	if in.Mem.RIPRel {
		return true, nil // through the GOT
	}
	if at, known := f.atEntryDepth(i); known {
		return at, nil
	}
	if in.Mem.Has && in.Mem.Index == NoReg && in.Mem.Base != RSP && in.Mem.Base != RBP {
		return true, nil // through a vtable
	}
	return false, fmt.Errorf("%w: at %#x", ErrUnknownExit, in.Addr)
}

// relativeForm says whether jump i adds an entry to a base: code that nothing
// but a dispatch has, even if its table could not be read.
func (f *Func) relativeForm(i int) bool {
	def, ok := f.localDef(i, f.Insts[i].Src)
	return ok && f.Insts[def].Kind == Add
}

// Unresolved returns the addresses of the indirect jumps that stay in the
// function, or may do so, and whose targets are not known.
func (f *Func) Unresolved() []uint64 {
	var addrs []uint64
	for _, t := range f.tables {
		if t.targets == nil {
			if leaves, err := f.leaves(t.at); err != nil || !leaves {
				addrs = append(addrs, f.Insts[t.at].Addr)
			}
		}
	}
	return addrs
}

// atEntryDepth says whether rsp at instruction i is what it was at the entry.
func (f *Func) atEntryDepth(i int) (at, known bool) {
	if s := f.frames[i]; s.known&(1<<RSP) != 0 {
		return s.sp == -8, true
	}
	if f.AtEntryDepth != nil {
		return f.AtEntryDepth(f.Insts[i].Addr)
	}
	return false, false
}
