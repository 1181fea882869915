package ir

import (
	"fmt"
	"strings"
)

var kindNames = [...]string{
	Void: "void", Bool: "bool", Text: "string", Bytes: "buffer", Name: "string", Symbol: "usym", Stack: "ustack",
	Stamp: "timestamp", User: "username", CgroupPath: "cgroup_path", Value: "Rust value", Count: "count_t", Sum: "sum_t", Avg: "avg_t", Stats: "stats_t",
	Min: "min_t", Max: "max_t", Hist: "hist_t", LHist: "lhist_t", Series: "tseries_t",
}

// String is the type's name, for people: as a script would have it, where it can.
func (t *Type) String() string {
	switch t.Kind {
	case Int:
		if t.Enum != nil && t.Enum.Enum != "" {
			return "enum " + t.Enum.Enum
		}
		return unsigned(t) + fmt.Sprintf("int%d", 8*t.Size)
	case Text, Bytes:
		switch t.Format {
		case MAC:
			return "macaddr"
		case Inet:
			return "inet"
		}
		size := t.Size
		if t.Kind == Bytes {
			size = max(size-4, 0)
		}
		return fmt.Sprintf("%s[%d]", kindNames[t.Kind], size)
	case Tuple:
		var parts []string
		record := len(t.Fields) > 0 && t.Fields[0].Name != ""
		for _, f := range t.Fields {
			if record {
				parts = append(parts, f.Name+": "+f.Type.String())
			} else {
				parts = append(parts, f.Type.String())
			}
		}
		if record {
			return "{ " + strings.Join(parts, ", ") + " }"
		}
		return "(" + strings.Join(parts, ", ") + ")"
	case Array:
		return fmt.Sprintf("%s[%d]", t.Elem, t.Count)
	case Pointer:
		if t.Elem == nil {
			return "void *"
		}
		// A type may point to itself, as a list's does.
		switch t.Elem.Kind {
		case Tuple, Array, Pointer:
			return "pointer"
		}
		return t.Elem.String() + " *"
	case Sum, Avg, Stats, Min, Max:
		return unsigned(t) + kindNames[t.Kind]
	}
	if int(t.Kind) < len(kindNames) {
		return kindNames[t.Kind]
	}
	return fmt.Sprintf("type %d", t.Kind)
}

func unsigned(t *Type) string {
	if t.Signed {
		return ""
	}
	return "u"
}
