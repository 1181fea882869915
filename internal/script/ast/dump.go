package ast

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// Dump writes the tree, a node a line, its children indented below: each line is
// the field that holds the node, the kind of node, and what it holds itself.
// Fields that are empty, and places in the text, are left out.
func Dump(w io.Writer, n Node) error {
	var b strings.Builder
	dump(&b, "", "", n)
	_, err := io.WriteString(w, b.String())
	return err
}

func dump(b *strings.Builder, indent, label string, n Node) {
	b.WriteString(indent)
	if label != "" {
		b.WriteString(label + ": ")
	}
	v := reflect.ValueOf(n).Elem()
	b.WriteString(v.Type().Name())
	if t, ok := n.(*Type); ok && !defines(t) {
		b.WriteString(" " + t.String() + "\n")
		return
	}
	for i := range v.NumField() {
		if field := v.Field(i); field.Type() != spanType && !field.IsZero() {
			scalar(b, v.Type().Field(i).Name, field)
		}
	}
	b.WriteByte('\n')
	slots(n, func(label string, slot reflect.Value) {
		if child := node(slot); child != nil {
			dump(b, indent+"  ", label, child)
		}
	})
}

func scalar(b *strings.Builder, name string, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		fmt.Fprintf(b, " %s=%q", name, v.String())
	case reflect.Bool:
		fmt.Fprintf(b, " %s", name)
	case reflect.Int32:
		fmt.Fprintf(b, " %s=%q", name, rune(v.Int()))
	case reflect.Uint64:
		fmt.Fprintf(b, " %s=%d", name, v.Uint())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			fmt.Fprintf(b, " %s=%q", name, v.Interface())
		}
	}
}

// defines says whether a type has a struct's definition in it, which is more than
// a line.
func defines(t *Type) bool {
	for t.Elem != nil {
		t = t.Elem
	}
	return t.Def != nil
}
