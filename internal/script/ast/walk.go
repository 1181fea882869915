package ast

import (
	"reflect"

	"ferrotrace/internal/script/source"
)

// The passes below read the tree by reflection: a node's children are its
// exported fields that are nodes or lists of them. So a new kind of node is known
// to all of them at once, and none can forget a field.

var spanType = reflect.TypeFor[source.Span]()

// node is the node that a field or element holds, nil if it is none.
func node(v reflect.Value) Node {
	if k := v.Kind(); k != reflect.Pointer && k != reflect.Interface || v.IsNil() {
		return nil
	}
	n, _ := v.Interface().(Node)
	return n
}

// slots calls f for each place in a node where a child may stand, empty or not,
// in the order of the fields.
func slots(n Node, f func(label string, slot reflect.Value)) {
	v := reflect.ValueOf(n).Elem()
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch field.Kind() {
		case reflect.Pointer, reflect.Interface:
			f(name, field)
		case reflect.Slice:
			for j := range field.Len() {
				f(name, field.Index(j))
			}
		}
	}
}

// Inspect calls f for n and all nodes below it, each before its children, which
// are left out where f says false.
func Inspect(n Node, f func(Node) bool) {
	if !f(n) {
		return
	}
	slots(n, func(_ string, slot reflect.Value) {
		if child := node(slot); child != nil {
			Inspect(child, f)
		}
	})
}

// Rewrite calls f for all nodes below n, each before its children; what f returns
// takes the node's place, and its children are seen in turn if f says so. Where
// the tree demands one kind of node (the Block of a loop, the Var of a Let), f
// may change that node but must return it.
func Rewrite(n Node, f func(Node) (Node, bool)) {
	slots(n, func(_ string, slot reflect.Value) {
		child := node(slot)
		if child == nil {
			return
		}
		replaced, descend := f(child)
		if replaced != child {
			slot.Set(reflect.ValueOf(replaced))
		}
		if descend {
			Rewrite(replaced, f)
		}
	})
}

// Clone copies a tree; of the text that it came from there is but one.
func Clone[N Node](n N) N {
	return clone(reflect.ValueOf(n)).Interface().(N)
}

func clone(v reflect.Value) reflect.Value {
	if n := node(v); n == nil {
		return v
	}
	from := v
	if v.Kind() == reflect.Interface {
		from = v.Elem()
	}
	to := reflect.New(from.Type().Elem())
	to.Elem().Set(from.Elem())
	for i := range to.Elem().NumField() {
		switch field := to.Elem().Field(i); field.Kind() {
		case reflect.Pointer, reflect.Interface:
			field.Set(clone(field))
		case reflect.Slice:
			if field.IsNil() {
				continue
			}
			list := reflect.MakeSlice(field.Type(), field.Len(), field.Len())
			for j := range field.Len() {
				list.Index(j).Set(clone(field.Index(j)))
			}
			field.Set(list)
		}
	}
	return to
}
