package codegen

import (
	"ferrotrace/internal/location"
	"ferrotrace/internal/program"
	"ferrotrace/internal/program/ir"
)

// Gone says why a handler can't be compiled for places that have only a part of a value:
// what is amiss with a part that it looks at; "" if nothing is. Values are the handler's roots.
func Gone(h *ir.Handler, values []program.Value) (why string) {
	walkStmts(h.Body, nil, func(x ir.Expr) {
		r, ok := x.(*ir.Root)
		if !ok || r.Root >= len(values) || why != "" {
			return
		}
		have, end := int(r.Off), int(r.Off)+r.T.Size
		for _, p := range values[r.Root].Place.Pieces {
			if p.Offset > have || p.Offset+p.Size <= have || have >= end {
				continue
			}
			if p.Kind == location.Missing {
				why = p.Why
				return
			}
			have = p.Offset + p.Size
		}
		if have < end {
			why = location.OptimizedOut
		}
	})
	return why
}
