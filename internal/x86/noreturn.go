package x86

// NoReturn returns a function that says whether the code at an address never
// returns to its caller, as far as the code itself shows it: every path ends in
// a trap, in a loop, or in a call of such a function. It follows direct calls
// and jumps only and gives up (answering false) on large functions, so what a
// symbol's name or DW_AT_noreturn tells should be asked first. The function
// remembers its answers and must not be called from several goroutines at once.
func NoReturn(code Code) func(target uint64) bool {
	n := &noReturn{code: code, known: map[uint64]bool{}}
	return func(target uint64) bool { return n.never(target, 0) }
}

const (
	noReturnInsts = 400 // instructions looked at in one function
	noReturnDepth = 6   // calls followed
)

type noReturn struct {
	code  Code
	known map[uint64]bool
}

func (n *noReturn) never(start uint64, depth int) bool {
	if v, ok := n.known[start]; ok {
		return v
	}
	if depth >= noReturnDepth {
		return false
	}
	n.known[start] = false // a recursive call is taken to return
	v := n.walk(start, depth)
	n.known[start] = v
	return v
}

func (n *noReturn) walk(start uint64, depth int) bool {
	seen := map[uint64]bool{}
	work := []uint64{start}
	for left := noReturnInsts; len(work) > 0; {
		addr := work[len(work)-1]
		work = work[:len(work)-1]
		for next := addr; !seen[next]; {
			addr = next
			seen[addr] = true
			if left--; left < 0 {
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
