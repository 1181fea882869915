package debugfmt

import "ferrotrace/internal/rust/types"

// Poll is what the argument of an async function's or block's body says of the poll.
type Poll struct {
	// Future is the address of what is polled, which it keeps from its first poll on; 0
	// if it is not known.
	Future uint64
	// First: it has not been polled before.
	First bool
	// Args are the arguments of the async function.
	Args []Result
}

const (
	mayBeGone = "unsupported: it may have been moved or dropped since the first poll"
	shared    = "unsupported: several variables of the body have its name"

	notFollowed = "unsupported: the pointer to the future was not followed"
)

// FormatPoll reads a Pin<&mut C> (types.Polled) and what there is of args in C: at the
// first poll all of them, and then those that the state still has.
func FormatPoll(v Value, args []types.Argument, m Memory, o Options) Poll {
	out := Poll{Args: make([]Result, len(args))}
	missing := func(why string) Poll {
		for i := range out.Args {
			out.Args[i] = Result{Missing: why}
		}
		return out
	}
	pin := view{bytes: v.Bytes, holes: v.Holes, after: "unreadable"}
	ptr := v.Type.Fields[0]
	at := pin.at(ptr.Offset)
	if s, why := at.state(8); s != whole {
		return missing(why)
	}
	out.Future = uintOf(at.bytes[:8])
	p := printer{mem: m, opt: o}
	t := ptr.Type.Pointer.Target
	future, ok := p.region(t, out.Future)
	i := -1
	if ok {
		i = p.variant(t, future)
	}
	if i < 0 {
		if p.why == "" {
			p.why = notFollowed
		}
		return missing(p.why)
	}
	state := &t.Enum.Variants[i]
	out.First = state.Name == types.Unresumed
	for j := range args {
		out.Args[j] = argument(state, out.First, &args[j], future, m, o)
	}
	return out
}

func argument(state *types.Variant, first bool, arg *types.Argument, future view, m Memory, o Options) Result {
	var found *types.Field
	for i := range state.Fields {
		f := &state.Fields[i]
		if f.Name != arg.Name || f.Type != arg.Type {
			continue
		}
		if found != nil {
			return Result{Missing: shared}
		}
		found = f
	}
	switch {
	case found == nil:
		return Result{Missing: mayBeGone}
	case !first && arg.Shared:
		return Result{Missing: shared}
	}
	p := printer{mem: m, opt: o, depth: 1}
	p.value(found.Type, future.at(found.Offset), 1)
	return p.result()
}
