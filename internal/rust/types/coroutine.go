package types

import (
	"slices"
	"strings"
)

// coroutines are what the names of coroutines' types begin with.
var coroutines = [...]string{"{async_", "{coroutine_env#", "{gen_"}

func isCoroutine(name string) bool {
	for _, p := range coroutines {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// coroutine leaves of the variables that the states of a coroutine list those of which
// it is certain that they are alive; of the others only the names. A state is named
// after its type.
//
// What rustc lists of a suspended state is more than what is alive (its
// locals_live_across_suspend_points): what has been borrowed is listed until its scope
// ends though it has been moved from since, or was given no value on the way that was
// taken, and what was captured is listed always.
//
// And LLVM takes members of one name in one type for one (isODRMember): all have the
// place and the type of the first.
//
// What a suspended coroutine's drop drops is alive, if that is known (Image.Drops), and
// what its code goes on with, or has given a value on every way (Image.Kept).
func (r *Reader) coroutine(t *Type) {
	var captured []Field
	for i := range t.Enum.Variants {
		v := &t.Enum.Variants[i]
		v.Name = v.Type.Name[strings.LastIndex(v.Type.Name, ":")+1:]
	}
	k := keeping{r: r, t: t}
	for i := range t.Enum.Variants {
		t.listed = append(t.listed, t.Enum.Variants[i].Fields)
	}
	for i := range t.Enum.Variants {
		v := &t.Enum.Variants[i]
		listed := v.Fields
		v.Fields = nil
		switch v.Name {
		case Unresumed:
			captured = listed
			for j, f := range listed {
				if named(listed[:j], f.Name) > 0 {
					f = Field{Name: f.Name, Type: unknown}
				}
				v.Fields = append(v.Fields, f)
			}
			continue
		case "Returned", "Panicked":
			continue // what was captured has been dropped
		}
		dropped := r.dropped(t, v)
		for j, f := range listed {
			if temporary(f.Name) || named(listed[:j], f.Name) > 0 {
				continue
			}
			capture := slices.Contains(captured, f)
			if capture && isAsyncFn(t) {
				continue // its body has begun by moving all arguments to variables
			}
			// That of an async closure has moved its arguments too, but not what the closure
			// had captured: nothing tells the one from the other.
			certain := !capture || !strings.Contains(t.Name, "{async_closure_env#")
			switch {
			case slices.Contains(dropped, Dropped{f.Offset, f.Type.Name}), f.Name == Awaitee:
			case certain && (&plainWalk{1000}).plain(f.Type) && k.keeps(i, f, capture):
			case capture && certain && outlives(f.Type):
			case certain && slices.ContainsFunc(captured, func(g Field) bool { return g.Name == f.Name && g.Type == f.Type && outlives(f.Type) }):
			default:
				f.Type = &Type{Name: f.Type.Name, Kind: Opaque, Size: f.Type.Size, Align: f.Type.Align}
			}
			v.Fields = append(v.Fields, f)
			for range named(listed, f.Name) - 1 - named(captured, f.Name) {
				v.Fields = append(v.Fields, Field{Name: f.Name, Type: unknown})
			}
		}
	}
}

func named(fs []Field, name string) (n int) {
	for _, f := range fs {
		if f.Name == name {
			n++
		}
	}
	return n
}

func (r *Reader) dropped(t *Type, v *Variant) []Dropped {
	if tag := t.Enum.Tag; r.image.Drops != nil && tag != nil && tag.Size <= 8 && len(v.Values) == 1 {
		return r.image.Drops(t.Name, tag.Offset, tag.Size, v.Values[0].Lo.Lo)
	}
	return nil
}

// unknown is the type of a variable of which nothing but the name is known.
var unknown = &Type{Name: "?", Kind: Opaque, Align: 1}

// Awaitee is the name of a coroutine's variable that holds what it awaits.
const Awaitee = "__awaitee"

func isAsyncFn(t *Type) bool { return strings.Contains(t.Name, "{async_fn_env#") }

// outlives says whether a captured value of t is a reference, which can be copied but
// not moved, and which what it leads to outlives: its lifetime is one of the coroutine's.
func outlives(t *Type) bool {
	return t.Kind == Pointer && t.Pointer.Kind != Box
}

func temporary(name string) bool {
	return len(name) > 2 && strings.HasPrefix(name, "__") && '0' <= name[2] && name[2] <= '9'
}

// plainWalk bounds the walk of broken graphs.
type plainWalk struct{ steps int }

// plain says whether a value of t owns and refers to nothing.
func (w *plainWalk) plain(t *Type) bool {
	if w.steps--; w.steps < 0 {
		return false
	}
	fields := func(fs []Field) bool {
		return !slices.ContainsFunc(fs, func(f Field) bool { return !w.plain(f.Type) })
	}
	switch t.Kind {
	case Unit, Bool, Char, Int, Uint, Float:
		return true
	case Array:
		return w.plain(t.Elem)
	case Struct, Tuple:
		return fields(t.Fields)
	case Enum:
		return !slices.ContainsFunc(t.Enum.Variants, func(v Variant) bool { return !fields(v.Fields) })
	}
	return false
}

// Polled is the coroutine that a value of t pins, as the body of an async function gets
// it at each poll: that of a Pin<&mut C>; nil if t is something else.
func (t *Type) Polled() *Type {
	if t.Kind != Struct || !strings.HasPrefix(t.Name, "core::pin::Pin<&mut ") || len(t.Fields) != 1 {
		return nil
	}
	p := t.Fields[0].Type
	if p == nil || p.Kind != Pointer || p.Pointer.Kind != RefMut || p.Pointer.Meta != Thin || p.Pointer.Target.Kind != Coroutine {
		return nil
	}
	return p.Pointer.Target
}

// Argument is an argument of an async function, which the function leaves in the
// coroutine that it returns.
type Argument struct {
	Field // as in the first state
	// Shared: other variables of the body have the argument's name, so that in a later
	// state one of that name need not be it.
	Shared bool
}

// Arguments are those of the async function that t is the state of, in the order of the
// source; ok is false if t is another coroutine. Until the first poll they all are there.
func (t *Type) Arguments() (args []Argument, ok bool) {
	if t.Kind != Coroutine || !isAsyncFn(t) || len(t.Enum.Variants) == 0 || t.Enum.Variants[0].Name != Unresumed {
		return nil, false
	}
	for _, f := range t.Enum.Variants[0].Fields {
		args = append(args, Argument{Field: f})
	}
	return args, true
}

// Label is the argument's name; "" for one that is taken apart by a pattern.
func (a *Argument) Label() string {
	if strings.HasPrefix(a.Name, "__arg") || a.Name == "_" {
		return ""
	}
	return a.Name
}

// Unresumed is the name of the state of a coroutine that has not been polled.
const Unresumed = "Unresumed"
