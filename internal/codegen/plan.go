package codegen

import (
	"fmt"
	"slices"
	"strings"

	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/record"
	"ferrotrace/internal/rust/debugfmt"
	"ferrotrace/internal/rust/types"
)

// plan is what the code for one item does. Items with equal keys share code.
type plan struct {
	item  int
	kind  program.ItemKind
	cond  int
	count bool // add to a counter; what follows is for records

	cfa    location.Expr // nil: there is none
	save   location.Expr // kept for the exits; nil for none
	where  *program.Item // as the handler that decides has it; nil if there is none
	mark   bool          // where marks the record
	cfaBad bool          // it may turn out to be unreadable
	own    bool          // pointers into the frame are not followed
	static bool          // the load bias is needed
	fixed  int           // bytes of the fixed part
	ops    []op
	spans  []span // by value
	roots  []root
}

// span is a value in the fixed part, and which ops fetch it.
type span struct{ off, size, first, end int }

// op puts one piece of a value into the fixed part.
type op struct {
	location.Piece
	off int // in the fixed part
	bit int // of Failed, -1 if it can't fail
}

// root is a value whose pointers are followed.
type root struct {
	off   int // in the fixed part
	class *class
	edges []types.Edge // those whose bytes are known
	kept  []int        // their indices in the class
	reads uint64       // the bits of Failed that must be clear
}

// maxRootCost bounds the code for the pointers of one item's values, so that its
// jumps reach.
const maxRootCost = 20000

// cost is an upper bound of the instructions for an edge.
func cost(e types.Edge) int {
	n := 20 + 8*intervals(e)
	if e.Part != types.NoRing {
		n += 16
	}
	return n
}

// deep says whether the loop is needed to follow the root's edges.
func (cs *classes) deep(edges []types.Edge) bool {
	for _, e := range edges {
		if c := cs.byType[e.Elem]; c.scanned() || c.object {
			return true
		}
	}
	return false
}

// planner plans the items of a program.
type planner struct {
	opts   Options
	limits program.Limits
	cs     *classes

	plan plan
	cost int
	bits int // fixed reads so far
}

// planItem makes an item's plan, and what its records mean.
func (pl *planner) planItem(i int, it *program.Item) (plan, record.Item) {
	pl.plan = plan{item: i, kind: it.Kind, cond: it.Cond, count: it.Count >= 0}
	pl.cost, pl.bits = 0, 0
	if pl.plan.count {
		return pl.plan, record.Item{Kind: it.Kind}
	}
	if len(it.CFA) > 0 && exprProblem(it.CFA) == "" && !it.CFA.Uses(location.OpCFA) {
		pl.plan.cfa = it.CFA
	}
	if w := it.Where; w != nil {
		pl.plan.where, pl.plan.mark = &program.Item{Kind: program.Run, CFA: it.CFA, Cond: -1, Handler: w.Handler, Values: w.Values}, w.Mark
	}
	pl.plan.static = it.CFA.Uses(location.OpStatic)
	pl.plan.cfaBad = pl.plan.cfa == nil || mayFail(it.CFA, false)
	if len(it.Save) > 0 && exprProblem(it.Save) == "" {
		pl.plan.save = it.Save
	}
	item := record.Item{Kind: it.Kind}
	for j := range it.Values {
		v := pl.value(&it.Values[j])
		v.Poll, v.Args = it.Values[j].Poll, it.Values[j].Args
		item.Values = append(item.Values, v)
	}
	item.Bias = pl.bias()
	item.Size = pl.plan.fixed
	return pl.plan, item
}

// bias plans the capture of the load bias if it takes that to tell vtables, and returns
// where it is; -1 if it does not.
func (pl *planner) bias() int {
	if !slices.ContainsFunc(pl.plan.roots, func(r root) bool { return pl.cs.leads(r.edges) }) {
		return -1
	}
	at := pl.plan.fixed
	pl.plan.fixed += 8
	pl.plan.static = true
	pl.plan.ops = append(pl.plan.ops, op{Piece: location.Piece{Kind: location.Value, Size: 8, Expr: location.Expr{{Kind: location.OpStatic}}}, off: at, bit: -1})
	return at
}

// value plans the capture of one value.
func (pl *planner) value(v *program.Value) record.Value {
	out := record.Value{Name: v.Name, Type: v.Type}
	if v.Type != nil {
		out.Rust = v.Type.Name
	}
	missing := func(why string) record.Value {
		return record.Value{Name: out.Name, Type: out.Type, Rust: out.Rust, Missing: why}
	}
	switch {
	case v.Type == nil:
		return missing("unsupported: unknown type")
	case v.Type.Zero():
		return out
	case v.Type.Size <= 0:
		return missing("unsupported: type without a size")
	}
	size := int(min(v.Type.Size, maxPiece))
	if pl.plan.fixed+size > maxFixed {
		return missing(fmt.Sprintf("unsupported: more than %d bytes in one record", maxFixed))
	}
	c := pl.cs.byType[v.Type]
	edges := c.edges
	if pl.limits.Depth < 1 {
		edges = nil
	}
	if len(edges) > 0 && !pl.opts.HaveLoop && pl.cs.deep(edges) {
		return missing("unsupported: needs bpf_loop (Linux 5.17)")
	}

	ops, gone := pl.pieces(v.Place, size, len(edges) > 0, &out)
	if gone != "" {
		return missing(gone)
	}
	if len(ops) == 0 {
		return out
	}
	out.Off, out.Size = pl.plan.fixed, size
	pl.plan.fixed += align8(size)
	var reads uint64
	for _, o := range ops {
		o.off = out.Off + o.Offset
		o.bit = -1
		if o.Kind == location.Memory || mayFail(o.Expr, pl.plan.cfaBad) {
			o.bit = min(pl.bits, 63)
			pl.bits++
			reads |= 1 << o.bit
			out.Reads = append(out.Reads, record.Read{Off: o.Offset, Size: o.Size, Bit: o.bit})
		}
		pl.plan.static = pl.plan.static || o.Expr.Uses(location.OpStatic)
		pl.plan.ops = append(pl.plan.ops, o)
	}
	pl.plan.spans = append(pl.plan.spans, span{out.Off, align8(size), len(pl.plan.ops) - len(ops), len(pl.plan.ops)})
	pl.root(root{off: out.Off, class: c, reads: reads}, edges, size, out.Holes)
	pl.plan.own = pl.plan.own || v.OwnFrame && len(edges) > 0
	return out
}

// pieces sorts the first size bytes of a place into what code has to fetch, what
// is known now, and what is missing. If nothing can be had, gone says why. Known
// bytes are fetched too if the value has pointers, for the code must see it whole.
func (pl *planner) pieces(p location.Place, size int, pointers bool, out *record.Value) (ops []op, gone string) {
	hole := func(off, n int, why string) {
		out.Holes = append(out.Holes, debugfmt.Hole{Off: off, Size: n, Why: why})
	}
	at, have := 0, 0
	for _, q := range p.Pieces {
		if q.Offset < at || q.Size <= 0 {
			continue // overlapping pieces come from broken debug info
		}
		if q.Offset >= size {
			break
		}
		if q.Offset > at {
			hole(at, q.Offset-at, location.OptimizedOut)
		}
		q.Size = min(q.Size, size-q.Offset)
		at = q.Offset + q.Size
		why := pl.problem(q)
		switch {
		case why != "":
			hole(q.Offset, q.Size, why)
			continue
		case q.Kind != location.Constant || pointers:
			ops = append(ops, op{Piece: q})
		default:
			out.Known = append(out.Known, record.Known{Off: q.Offset, Bytes: q.Bytes[:q.Size]})
		}
		have += q.Size
	}
	if at < size {
		hole(at, size-at, location.OptimizedOut)
	}
	if have > 0 {
		return ops, ""
	}
	// The first reason that says more than that it is gone.
	gone = location.OptimizedOut
	for _, h := range out.Holes {
		if h.Why != location.OptimizedOut {
			return nil, h.Why
		}
	}
	return nil, gone
}

// problem says why a piece can't be had; "" if it can.
func (pl *planner) problem(q location.Piece) string {
	switch q.Kind {
	case location.Missing:
		return q.Why
	case location.Constant:
		if len(q.Bytes) >= q.Size {
			return ""
		}
	case location.Register:
		switch {
		case q.Reg.IsXMM() && pl.opts.XMM == 0:
			return "unsupported: in " + q.Reg.String() + ", which a kernel probe cannot see"
		case q.Reg.IsGeneral() && q.Size <= 8, q.Reg.IsXMM() && q.Size <= 16:
			return ""
		}
	case location.Memory:
		return exprProblem(q.Expr)
	case location.Value:
		if q.Size <= 8 {
			return exprProblem(q.Expr)
		}
	}
	return "unsupported: malformed location"
}

// root plans the following of a value's edges that lie in its known bytes.
func (pl *planner) root(r root, edges []types.Edge, size int, holes []debugfmt.Hole) {
	for i, e := range edges {
		if !known(e, size, holes) {
			continue
		}
		if pl.cost += cost(e); pl.cost > maxRootCost {
			break
		}
		r.edges = append(r.edges, e)
		r.kept = append(r.kept, i)
	}
	if len(r.edges) > 0 {
		pl.plan.roots = append(pl.plan.roots, r)
	}
}

// known says whether all that an edge looks at is captured.
func known(e types.Edge, size int, holes []debugfmt.Hole) bool {
	if !covered(e, 0, int64(size)) {
		return false
	}
	out := func(off, n int64) bool {
		for _, h := range holes {
			if off < int64(h.Off+h.Size) && int64(h.Off) < off+n {
				return false
			}
		}
		return true
	}
	for _, g := range e.Guards {
		if !out(g.Off, int64(g.Size)) {
			return false
		}
	}
	for _, w := range words(e) {
		if !out(w, 8) {
			return false
		}
	}
	return true
}

// key is all that decides the plan's code.
func (p *plan) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "item %d kind %d cond %d count %t", p.item, p.kind, p.cond, p.count)
	if p.count {
		return b.String()
	}
	fmt.Fprintf(&b, " fixed %d own %t cfa %s save %s", p.fixed, p.own, exprKey(p.cfa), exprKey(p.save))
	if p.where != nil {
		fmt.Fprintf(&b, "\nwhere %t %s", p.mark, placesKey(p.where))
	}
	for _, o := range p.ops {
		fmt.Fprintf(&b, "\n%s %d+%d bit %d", o.Kind, o.off, o.Size, o.bit)
		switch o.Kind {
		case location.Register:
			fmt.Fprintf(&b, " %s", o.Reg)
		case location.Constant:
			fmt.Fprintf(&b, " %x", o.Bytes)
		default:
			fmt.Fprintf(&b, " %s", exprKey(o.Expr))
		}
	}
	for _, r := range p.roots {
		fmt.Fprintf(&b, "\nroot %d class %d kept %v reads %x", r.off, r.class.id, r.kept, r.reads)
	}
	return b.String()
}

func exprKey(e location.Expr) string {
	var b strings.Builder
	for _, o := range e {
		fmt.Fprintf(&b, "(%d %d %d %d)", o.Kind, o.Reg, o.Size, o.Arg)
	}
	return b.String()
}
