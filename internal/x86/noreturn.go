package x86

// NoReturn returns a function that says whether the code at an address never
// returns to its caller, as far as the code itself shows it: every path ends in
// a trap, in a loop, or in a call of such a function. It follows direct calls
// and jumps only and gives up (answering false) on large functions, so what a
// symbol's name or DW_AT_noreturn tells should be asked first. The function
// remembers its answers and must not be called from several goroutines at once.
func NoReturn(code Code) func(target uint64) bool {
	n := &noReturn{code: code, known: map[uint64]bool{}}
	return n.ask
}

const (
	noReturnInsts = 400  // instructions looked at in one function
	noReturnDepth = 8    // calls followed
	noReturnTotal = 4000 // instructions looked at for one answer
)

type noReturn struct {
	code  Code
	known map[uint64]bool
	left  int  // of noReturnTotal
	cut   bool // a limit was met, so that a negative answer may be wrong
}

// ask answers for target; what limits have spoilt is remembered for target
// alone, so that the next question starts afresh.
func (n *noReturn) ask(target uint64) bool {
	n.left = noReturnTotal
	v := n.never(target, 0)
	n.known[target] = v
	return v
}

func (n *noReturn) never(start uint64, depth int) bool {
	if v, ok := n.known[start]; ok {
		return v
	}
	if depth >= noReturnDepth {
		n.cut = true
		return false
	}
	before := n.cut
	n.cut = false
	n.known[start] = false // a recursive call is taken to return
	v := n.walk(start, depth)
	if !v && n.cut {
		delete(n.known, start)
	} else {
		n.known[start] = v
	}
	n.cut = n.cut || before
	return v
}

func (n *noReturn) walk(start uint64, depth int) bool {
	seen := map[uint64]bool{}
	work := []uint64{start}
	for len(work) > 0 {
		addr := work[len(work)-1]
		work = work[:len(work)-1]
		for next := addr; !seen[next]; {
			addr = next
			seen[addr] = true
			if n.left--; n.left < 0 || len(seen) > noReturnInsts {
				n.cut = true
				return false
			}
			in, err := Decode(n.code(addr), addr)
			if err != nil {
				return false
			}
			next = in.End()
			switch in.Kind {
			case Ret, JmpIndirect:
				return false
			case Trap:
				next = start // padding, too: it ends the path
			case Jmp:
				next = in.Target
			case Jcc:
				work = append(work, in.Target)
			case Call:
				if n.never(in.Target, depth+1) {
					next = start
				}
			}
		}
	}
	return true
}
