package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"ferrotrace/internal/event"
	"ferrotrace/internal/output"
	"ferrotrace/internal/program/ir"
)

// JSON is text in JSON. bpftrace parts the members of an object by ", " and the elements of
// an array by ",", and scripts cut its lines by that; it is kept.
type JSON []byte

// Line writes one line {"type": typ, "data": data}.
func Line(w io.Writer, typ string, data JSON) error {
	_, err := fmt.Fprintf(w, "{\"type\": %s, \"data\": %s}\n", Quote(typ), data)
	return err
}

// CountLine writes a line that says how many there are of something, attached_probes or
// lost_events: it has the number twice.
func CountLine(w io.Writer, typ, what string, n uint64) error {
	_, err := fmt.Fprintf(w, "{\"type\": %s, \"count\": %d, \"data\": {%s: %d}}\n", Quote(typ), n, Quote(what), n)
	return err
}

// MessageLine writes the line of an errorf or warnf, or of an error in a handler, with
// where it stands in the script: line and column from 1.
func MessageLine(w io.Writer, typ, message, file string, line, col int) error {
	_, err := fmt.Fprintf(w, "{\"type\": %s, \"msg\": %s, \"filename\": %s, \"line\": %d, \"col\": %d}\n", Quote(typ), Quote(message), Quote(file), line, col)
	return err
}

// HelperLine writes the line of a warning that a helper of the kernel has failed.
func HelperLine(w io.Writer, message, helper string, code int, file string, line, col int) error {
	_, err := fmt.Fprintf(w, "{\"type\": \"helper_error\", \"msg\": %s, \"helper\": %s, \"retcode\": %d, \"filename\": %s, \"line\": %d, \"col\": %d}\n", Quote(message), Quote(helper), code, Quote(file), line, col)
	return err
}

// Quote is s as a string. A byte that is not UTF-8 is written as \xNN.
func Quote(s string) JSON {
	if !utf8.ValidString(s) {
		var b strings.Builder
		for i := 0; i < len(s); {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			} else {
				b.WriteString(s[i : i+n])
			}
			i += n
		}
		s = b.String()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return JSON(`""`) // a string can be encoded
	}
	return JSON(output.EscapeJSON(bytes.TrimRight(b.Bytes(), "\n")))
}

// JSON is a value: numbers as numbers, enums and pointers too, and as strings if a
// float64 can't hold them; strings, names, symbols, stacks and times as strings; tuples and
// arrays as arrays; records as objects; buffers as arrays of bytes. A Rust value is a number
// or a bool if it is one, else a string: that of a string itself, or what {:?} prints.
func (e *Env) JSON(a Arg) JSON {
	if a.Rust != nil {
		return e.rustJSON(a.Rust)
	}
	return e.appendJSON(nil, a.Type, a.Bytes, 1)
}

// RecordJSON is values with names.
func (e *Env) RecordJSON(names []string, args []Arg) JSON {
	b := JSON("{")
	for i, a := range args {
		b = appendKey(b, i, names[i])
		b = append(b, e.JSON(a)...)
	}
	return append(b, '}')
}

func appendKey(b JSON, i int, name string) JSON {
	if i > 0 {
		b = append(b, ", "...)
	}
	return append(append(b, Quote(name)...), ": "...)
}

var numbers = []string{"i8", "i16", "i32", "i64", "i128", "isize", "u8", "u16", "u32", "u64", "u128", "usize", "f32", "f64"}

func (e *Env) rustJSON(v *event.Value) JSON {
	raw := Env{Raw: true}
	text := raw.rust(v, false)
	switch {
	case v.Missing != "":
	case v.Rust == "bool" && (text == "true" || text == "false"):
		return JSON(text)
	case slices.Contains(numbers, v.Rust):
		if _, err := strconv.ParseFloat(text, 64); err != nil || !json.Valid([]byte(text)) {
			break // NaN, inf
		}
		if n, err := strconv.ParseInt(text, 10, 64); v.Rust[0] != 'f' && (err != nil || !exact(float64(n), n)) {
			break
		}
		return JSON(text)
	}
	return Quote(text)
}

// exact says whether the conversion of n to f lost nothing.
func exact(f float64, n int64) bool { return f < 1<<63 && int64(f) == n }

func (e *Env) appendJSON(b JSON, t *ir.Type, v []byte, div int64) JSON {
	switch t.Kind {
	case ir.Void:
		return append(b, "null"...)
	case ir.Int:
		n := intOf(t, v)
		if t.Enum == nil {
			n = divide(t, n, div)
		}
		return appendNumber(b, t, n)
	case ir.Pointer:
		return appendNumber(b, t, word(v, 8))
	case ir.Bool:
		return strconv.AppendBool(b, word(v, 1) != 0)
	case ir.Bytes:
		if t.Format != "" {
			break
		}
		b = append(b, '[')
		for i, c := range bytesOf(t, v) {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, uint64(c), 10)
		}
		return append(b, ']')
	case ir.Array:
		b = append(b, '[')
		for i := range t.Count {
			if i > 0 {
				b = append(b, ',')
			}
			b = e.appendJSON(b, t.Elem, slice(v, i*t.Elem.Size, t.Elem.Size), div)
		}
		return append(b, ']')
	case ir.Tuple:
		record := isRecord(t)
		open, shut := byte('['), byte(']')
		if record {
			open, shut = '{', '}'
		}
		b = append(b, open)
		for i, f := range t.Fields {
			switch {
			case record:
				b = appendKey(b, i, f.Name)
			case i > 0:
				b = append(b, ',')
			}
			b = e.appendJSON(b, f.Type, slice(v, f.Off, f.Type.Size), div)
		}
		return append(b, shut)
	}
	raw := *e
	raw.Raw = true
	return append(b, Quote(raw.Text(Arg{Type: t, Bytes: v}))...)
}

// appendNumber writes an integer; in quotes if a float64, which is what readers of JSON
// make of numbers, can't hold it.
func appendNumber(b JSON, t *ir.Type, n uint64) JSON {
	ok := false
	if t.Signed {
		ok = exact(float64(int64(n)), int64(n))
	} else {
		f := float64(n)
		ok = f < 1<<64 && uint64(f) == n
	}
	if ok {
		return append(b, decimal(t, n)...)
	}
	return append(b, `"`+decimal(t, n)+`"`...)
}
