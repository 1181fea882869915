package output

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"ferrotrace/internal/event"
)

// JSONLine writes one line {"type": typ, "data": data}, the envelope of all JSON
// that ferrotrace prints.
func JSONLine(w io.Writer, typ string, data any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // types hold & < > and are read by people too
	err := enc.Encode(struct {
		Type string `json:"type"`
		Data any    `json:"data"`
	}{typ, data})
	if err != nil {
		return fmt.Errorf("write %s as JSON: %w", typ, err)
	}
	_, err = w.Write(EscapeJSON(b.Bytes()))
	return err
}

type jsonOutput struct{ w *bufio.Writer }

func newJSON(w io.Writer) *jsonOutput { return &jsonOutput{bufio.NewWriterSize(w, 64<<10)} }

func (o *jsonOutput) Flush() error { return o.w.Flush() }

func (o *jsonOutput) Event(e event.Event) error {
	if said, ok := e.(event.Said); ok {
		if said.Lines != nil {
			_, err := o.w.Write(said.Lines)
			return err
		}
		// Spaced as bpftrace's lines are: scripts cut them by that.
		_, err := fmt.Fprintf(o.w, "{\"type\": %q, \"data\": %s}\n", said.Kind, said.Data)
		return err
	}
	data, err := jsonData(e)
	if err != nil {
		return err
	}
	if err := JSONLine(o.w, e.Type(), data); err != nil {
		return err
	}
	if _, ok := e.(event.Attached); ok {
		// A script waits for this line before it makes the target do something.
		return o.w.Flush()
	}
	return nil
}

// The structs below fix names and order of the fields; docs of each are in
// package event.

type address uint64

func (a address) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "0x%x", uint64(a)), nil }

type jsonValue struct {
	Name      *string `json:"name,omitempty"` // a nameless parameter has "", a result none
	Type      string  `json:"type"`
	Text      *string `json:"text,omitempty"` // a text may be empty
	Missing   string  `json:"missing,omitempty"`
	Truncated bool    `json:"truncated,omitempty"`
	Partial   bool    `json:"partial,omitempty"`
	Given     bool    `json:"given,omitempty"`
}

type jsonInline struct {
	Caller   string `json:"caller"`
	CallFile string `json:"call_file"`
	CallLine int    `json:"call_line"`
	Exact    bool   `json:"exact"`
}

// jsonHit is what calls and passes through lines begin with.
type jsonHit struct {
	ID       uint64   `json:"id"`
	Time     string   `json:"time"`
	PID      uint32   `json:"pid"`
	TID      uint32   `json:"tid"`
	Comm     string   `json:"comm"`
	Function string   `json:"function"`
	Aliases  []string `json:"aliases,omitempty"`
	Inlined  bool     `json:"inlined"`
}

func hitData(id uint64, at time.Time, t event.Thread, function string, aliases []string, in *event.Inline) jsonHit {
	return jsonHit{id, jsonTime(at), t.PID, t.TID, t.Comm, function, aliases, in != nil}
}

type jsonCall struct {
	jsonHit
	*jsonInline
	File string      `json:"file,omitempty"`
	Line int         `json:"line,omitempty"`
	Poll uint64      `json:"poll,omitempty"`
	Args []jsonValue `json:"args"`
}

type jsonLine struct {
	jsonHit
	Caller   string      `json:"caller,omitempty"`
	CallFile string      `json:"call_file,omitempty"`
	CallLine int         `json:"call_line,omitempty"`
	Exact    bool        `json:"exact"`
	File     string      `json:"file"`
	Line     int         `json:"line"`
	Locals   []jsonValue `json:"locals"`
}

type jsonReturn struct {
	ID       uint64     `json:"id"`
	Time     string     `json:"time"`
	PID      uint32     `json:"pid"`
	TID      uint32     `json:"tid"`
	Function string     `json:"function"`
	Duration int64      `json:"duration_ns"`
	Tail     bool       `json:"tail,omitempty"`
	Value    *jsonValue `json:"value,omitempty"`
}

type jsonEnd struct {
	ID       uint64 `json:"id"`
	Function string `json:"function"`
	Duration int64  `json:"duration_ns"`
}

type jsonFunction struct {
	Function  string   `json:"function"`
	Signature string   `json:"signature,omitempty"`
	File      string   `json:"file,omitempty"`
	Line      int      `json:"line,omitempty"`
	OutOfLine int      `json:"out_of_line"`
	Inlined   int      `json:"inlined"`
	Aliases   []string `json:"aliases"`
}

type jsonLocated struct {
	Name    *string `json:"name,omitempty"`
	Type    string  `json:"type"`
	Where   string  `json:"where,omitempty"`
	Missing string  `json:"missing,omitempty"`
	Given   bool    `json:"given,omitempty"`
}

type jsonExit struct {
	Address address `json:"address"`
	Kind    string  `json:"kind"`
	Target  string  `json:"target,omitempty"`
}

type jsonPlan struct {
	How     string `json:"how,omitempty"`
	Cost    *int64 `json:"cost_ns,omitempty"`
	Missing string `json:"missing,omitempty"`
}

type jsonInstance struct {
	Function string   `json:"function"`
	File     string   `json:"file,omitempty"` // and Line: what is explained is this line's code
	Line     int      `json:"line,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	Inlined  bool     `json:"inlined"`
	Caller   string   `json:"caller,omitempty"`
	CallFile string   `json:"call_file,omitempty"`
	CallLine int      `json:"call_line,omitempty"`
	Exact    bool     `json:"exact"`
	Address  address  `json:"address"`
	// Entries stand only where Address does not say it all.
	Entries  []address           `json:"entries,omitempty"`
	Symbol   string              `json:"symbol,omitempty"`
	Args     []jsonLocated       `json:"args"`
	Result   *jsonLocated        `json:"result,omitempty"`
	Exits    []jsonExit          `json:"exits"`
	NoExits  string              `json:"no_exits,omitempty"`
	Runtimes map[string]jsonPlan `json:"runtimes"`
	Notes    []string            `json:"notes,omitempty"`
}

type jsonAttached struct {
	Probes int `json:"probes"`
}

type jsonLost struct {
	Events uint64 `json:"events"`
}

type jsonSummary struct {
	Calls      uint64 `json:"calls"`
	Shown      uint64 `json:"shown"`
	Hidden     uint64 `json:"hidden"`
	Lost       uint64 `json:"lost"`
	LostExits  uint64 `json:"lost_exits"`
	Open       uint64 `json:"open"`
	Runtime    string `json:"runtime"`
	Duration   int64  `json:"duration_ns"`
	Cost       int64  `json:"cost_ns"`
	ExitStatus string `json:"exit_status,omitempty"`
}

func jsonTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func valueData(v event.Value) jsonValue {
	d := jsonValue{Type: v.Rust, Missing: v.Missing, Given: v.Given}
	if v.Missing == "" {
		d.Text, d.Truncated, d.Partial = &v.Text, v.Truncated, v.Partial
	}
	return d
}

func namedData(v event.Value) jsonValue {
	d := valueData(v)
	d.Name = &v.Name
	return d
}

func inlineData(i *event.Inline) *jsonInline {
	if i == nil {
		return nil
	}
	return &jsonInline{Caller: i.Caller, CallFile: i.Call.File, CallLine: i.Call.Line, Exact: i.Exact}
}

func locatedData(l event.Located) jsonLocated {
	d := jsonLocated{Type: l.Rust, Where: l.Where, Missing: l.Missing, Given: l.Given}
	if d.Missing != "" {
		d.Where = ""
	}
	return d
}

func jsonData(e event.Event) (any, error) {
	switch e := e.(type) {
	case event.Call:
		d := jsonCall{jsonHit: hitData(e.ID, e.Time, e.Thread, e.Function, e.Aliases, e.Inline), jsonInline: inlineData(e.Inline),
			File: e.Source.File, Line: e.Source.Line, Poll: e.Poll, Args: make([]jsonValue, len(e.Args))}
		for i, a := range e.Args {
			d.Args[i] = namedData(a)
		}
		return d, nil
	case event.Line:
		d := jsonLine{jsonHit: hitData(e.ID, e.Time, e.Thread, e.Function, e.Aliases, e.Inline), Exact: e.Exact, File: e.Source.File, Line: e.Source.Line,
			Locals: make([]jsonValue, len(e.Locals))}
		if e.Inline != nil {
			d.Caller, d.CallFile, d.CallLine = e.Inline.Caller, e.Inline.Call.File, e.Inline.Call.Line
		}
		for i, v := range e.Locals {
			d.Locals[i] = namedData(v)
		}
		return d, nil
	case event.Return:
		d := jsonReturn{ID: e.ID, Time: jsonTime(e.Time), PID: e.Thread.PID, TID: e.Thread.TID,
			Function: e.Function, Duration: e.Duration.Nanoseconds(), Tail: e.Tail}
		if e.Value != nil {
			v := valueData(*e.Value)
			d.Value = &v
		}
		return d, nil
	case event.Unwind:
		return jsonEnd{e.ID, e.Function, e.Duration.Nanoseconds()}, nil
	case event.Ended:
		return jsonEnd{e.ID, e.Function, e.Duration.Nanoseconds()}, nil
	case event.Count:
		return jsonCount{e.Function, e.By, e.Count, e.Exact}, nil
	case event.Latency:
		return latencyData(e), nil
	case event.Hist:
		return histData(e), nil
	case event.Function:
		return jsonFunction{Function: e.Function, Signature: e.Signature, File: e.Source.File, Line: e.Source.Line,
			OutOfLine: e.OutOfLine, Inlined: e.Inlined, Aliases: append([]string{}, e.Aliases...)}, nil
	case event.Instance:
		return instanceData(e), nil
	case event.Attached:
		return jsonAttached{e.Probes}, nil
	case event.Lost:
		return jsonLost{e.Events}, nil
	case event.Summary:
		return jsonSummary{e.Calls, e.Shown, e.Hidden, e.Lost, e.LostExits, e.Open, e.Runtime,
			e.Duration.Nanoseconds(), e.Cost.Nanoseconds(), e.ExitStatus}, nil
	}
	return nil, fmt.Errorf("output: unknown event %T", e)
}

func instanceData(e event.Instance) jsonInstance {
	d := jsonInstance{Function: e.Function, File: e.Source.File, Line: e.Source.Line, Aliases: e.Aliases, Exact: e.Exact, Address: address(e.Address),
		Symbol: e.Symbol, Args: make([]jsonLocated, len(e.Args)), Exits: make([]jsonExit, len(e.Exits)),
		NoExits: e.NoExits, Runtimes: make(map[string]jsonPlan), Notes: e.Notes}
	if e.Inline != nil {
		d.Inlined, d.Caller, d.CallFile, d.CallLine = true, e.Inline.Caller, e.Inline.Call.File, e.Inline.Call.Line
	}
	if !simpleEntry(e) {
		for _, a := range e.Entries {
			d.Entries = append(d.Entries, address(a))
		}
	}
	for i, a := range e.Args {
		d.Args[i] = locatedData(a)
		d.Args[i].Name = &a.Name
	}
	if e.Result != nil {
		r := locatedData(*e.Result)
		d.Result = &r
	}
	for i, x := range e.Exits {
		d.Exits[i] = jsonExit{address(x.Address), x.Kind, x.Target}
	}
	for name, p := range e.Runtimes {
		if p.Missing != "" {
			d.Runtimes[name] = jsonPlan{Missing: p.Missing}
		} else {
			d.Runtimes[name] = jsonPlan{How: p.How, Cost: &p.CostNS}
		}
	}
	return d
}

// simpleEntry reports whether the instance is entered at its address and nowhere
// else.
func simpleEntry(e event.Instance) bool {
	return len(e.Entries) == 0 || len(e.Entries) == 1 && e.Entries[0] == e.Address
}
