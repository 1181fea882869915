package output

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"ferrotrace/internal/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got); go test -update accepts it:\n%s", name, diff)
	}
}

var (
	start = time.Date(2026, 11, 22, 8, 46, 42, 123456789, time.FixedZone("CET", 3600))
	main1 = event.Thread{PID: 812, TID: 812, Comm: "args"}
	work1 = event.Thread{PID: 812, TID: 813, Comm: "worker"}
	other = event.Thread{PID: 900, TID: 901, Comm: "args"}
	hello = event.Place{File: "src/main.rs", Line: 3}
	call1 = event.Place{File: "src/main.rs", Line: 12}
)

func i32(name, text string) event.Value { return event.Value{Name: name, Rust: "i32", Text: text} }

func call(id uint64, th event.Thread, fn string, args ...event.Value) event.Call {
	return event.Call{ID: id, Time: start, Thread: th, Function: fn, Source: hello, Args: args}
}

func ret(id uint64, th event.Thread, fn string, v *event.Value) event.Return {
	return event.Return{ID: id, Time: start.Add(14123), Thread: th, Function: fn, Duration: 14123, Value: v}
}

var stories = map[string][]event.Event{
	"args": {
		event.Attached{Probes: 3},
		event.Call{ID: 17, Time: start, Thread: main1, Function: "args::hello", Source: hello,
			Args: []event.Value{i32("i", "1"), {Name: "len", Rust: "usize", Missing: "optimized out"}}},
		ret(17, main1, "args::hello", &event.Value{Rust: "i32", Text: "6"}),
		event.Lost{},
		event.Summary{Calls: 4, Shown: 4, Runtime: "user", Duration: 1203344, Cost: 120},
	},
	"values": {
		call(1, main1, "f::string", event.Value{Name: "s", Rust: "&str", Text: `"abc…"`, Truncated: true}),
		ret(1, main1, "f::string", &event.Value{Rust: "alloc::string::String", Text: ""}),
		call(2, main1, "f::part", event.Value{Name: "p", Rust: "f::P<'_>", Text: "P { a: <unreadable>, b: 1 }", Partial: true}),
		ret(2, main1, "f::part", &event.Value{Rust: "f64", Missing: "unsupported: the result is in xmm0"}),
		call(3, main1, "f::given", event.Value{Name: "id", Rust: "u64", Text: "7", Given: true}, event.Value{Name: "", Rust: "()", Text: "()"}),
		ret(3, main1, "f::given", nil),
		call(4, main1, "f::noargs"),
		event.Return{ID: 4, Time: start, Thread: main1, Function: "f::noargs", Duration: 1500 * time.Millisecond, Tail: true,
			Value: &event.Value{Rust: "u8", Missing: "unsupported: tail call to f::given"}},
		call(5, main1, "f::hostile", event.Value{Name: "n\x1b", Rust: "\x07", Text: "a\x1b[31m\u009b\u202e\u007f\xff\nb"}),
		event.Ended{ID: 5, Thread: main1, Function: "f::hostile", Duration: 20111},
	},
	"nesting": {
		call(1, main1, "fib", i32("n", "2")),
		call(2, main1, "fib", i32("n", "1")),
		ret(2, main1, "fib", &event.Value{Rust: "i32", Text: "1"}),
		event.Call{ID: 3, Time: start, Thread: main1, Function: "add", Source: hello, Args: []event.Value{},
			Inline: &event.Inline{Caller: "fib", Call: call1, Exact: true}},
		event.Call{ID: 4, Time: start, Thread: main1, Function: "push", Aliases: []string{"push2"},
			Inline: &event.Inline{Caller: "fib", Call: call1}},
		call(5, work1, "job", i32("n", "9")),
		call(6, other, "job", i32("n", "10")),
		event.Unwind{ID: 5, Thread: event.Thread{PID: 812, TID: 813}, Function: "job", Duration: 20111},
		ret(1, main1, "fib", &event.Value{Rust: "i32", Text: "2"}),
		event.Ended{ID: 6, Thread: event.Thread{PID: 900, TID: 901}, Function: "job", Duration: 2 * time.Hour},
	},
	"lines": {
		call(1, main1, "fib", i32("n", "2")),
		event.Line{ID: 2, Time: start, Thread: main1, Function: "fib", Source: event.Place{File: "src/fib.rs", Line: 7}, Exact: true,
			Locals: []event.Value{i32("n", "2"), {Name: "name", Rust: "&str", Text: `"a"`}, {Name: "sum", Rust: "u64", Missing: "optimized out"}}},
		event.Line{ID: 3, Time: start, Thread: main1, Function: "add", Aliases: []string{"plus"}, Source: hello,
			Inline: &event.Inline{Caller: "fib", Call: call1}},
		ret(1, main1, "fib", nil),
	},
	"count": {
		event.Count{Function: "args::hello", Count: 4, Exact: true},
		event.Count{Function: "zoo::feed", Count: 1000, Exact: false},
		event.Count{Function: "args::main", Count: 4, Exact: true},
	},
	"list": {
		event.Function{Function: "args::hello", Signature: "fn(i: i32, len: usize) -> i32", Source: hello, OutOfLine: 1, Inlined: 4},
		event.Function{Function: "<shop::Cart as core::fmt::Debug>::fmt", OutOfLine: 1, Aliases: []string{"shop::same"}},
	},
	"explain": {
		event.Instance{Function: "args::hello", Exact: true, Address: 0x14cb0, Symbol: "_ZN4args5hello17h0fef722aa66d4e7cE",
			Args:   []event.Located{{Name: "i", Rust: "i32", Where: "edi"}, {Name: "len", Rust: "usize", Missing: "optimized out"}, {Rust: "()", Where: "nowhere: zero-sized"}},
			Result: &event.Located{Rust: "i32", Where: "eax"},
			Exits:  []event.Exit{{Address: 0x14d11, Kind: "ret"}, {Address: 0x14d20, Kind: "tail", Target: "args::other"}, {Address: 0x14d25, Kind: "tail"}},
			Runtimes: map[string]event.Plan{"user": {How: "5-byte jump", CostNS: 3},
				"kernel": {How: "uprobe on push", CostNS: 770}},
			Auto: "user, in processes that may be traced"},
		event.Instance{Function: "args::hello", Aliases: []string{"args::twin"}, Address: 0x15000, Entries: []uint64{0x15000, 0x15010},
			Inline:  &event.Inline{Caller: "args::main", Call: call1},
			Result:  &event.Located{Rust: "i32", Missing: "unsupported: inlined"},
			NoExits: "inlined",
			Runtimes: map[string]event.Plan{"user": {Missing: "unsupported: at 0x15000: no way was found"},
				"kernel": {How: "uprobe on mov, single-stepped", CostNS: 11200}},
			Notes: []string{"build with debug = 2 to see its arguments"}},
		event.Instance{Function: "args::hello", Source: hello, Address: 0x15000, Entries: []uint64{0x15000},
			Args: []event.Located{{Name: "i", Rust: "i32", Where: "edi"}}},
	},
}

func TestGolden(t *testing.T) {
	for name, events := range stories {
		for _, format := range []Format{Text, JSON} {
			t.Run(name+"/"+string(format), func(t *testing.T) {
				var b bytes.Buffer
				o := New(&b, format)
				for _, e := range events {
					if err := o.Event(e); err != nil {
						t.Fatal(err)
					}
				}
				if err := o.Flush(); err != nil {
					t.Fatal(err)
				}
				checkSafe(t, b.Bytes())
				if format == JSON {
					checkJSON(t, b.Bytes(), events)
				}
				golden(t, name+"."+string(format), b.Bytes())
			})
		}
	}
}

// checkSafe demands that a terminal shows every byte and acts on none.
func checkSafe(t *testing.T, out []byte) {
	t.Helper()
	if !utf8.Valid(out) {
		t.Errorf("not UTF-8: %q", out)
	}
	for _, r := range string(out) {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("control character %U in %q", r, out)
		}
	}
}

func checkJSON(t *testing.T, out []byte, events []event.Event) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	if len(lines) != len(events) {
		t.Fatalf("%d lines for %d events", len(lines), len(events))
	}
	for i, l := range lines {
		var env struct {
			Type string
			Data map[string]any
		}
		if err := json.Unmarshal(l, &env); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		if env.Type != events[i].Type() || env.Data == nil {
			t.Errorf("line %s for a %s", l, events[i].Type())
		}
	}
}

// TestContract holds lines that docs promise to the letter.
func TestContract(t *testing.T) {
	two := "\"args\":[{\"name\":\"i\",\"type\":\"i32\",\"text\":\"1\"},{\"name\":\"len\",\"type\":\"usize\",\"missing\":\"optimized out\"}]}}\n"
	for _, c := range []struct {
		e    event.Event
		want string
	}{
		{stories["args"][1], `{"type":"call","data":{"id":17,"time":"2026-11-22T07:46:42.123456789Z","pid":812,"tid":812,"comm":"args","function":"args::hello","inlined":false,"file":"src/main.rs","line":3,` + two},
		{event.Unwind{ID: 18, Function: "args::risky", Duration: 20111}, `{"type":"unwind","data":{"id":18,"function":"args::risky","duration_ns":20111}}` + "\n"},
		{event.Ended{ID: 19, Function: "args::risky", Duration: 20111}, `{"type":"ended","data":{"id":19,"function":"args::risky","duration_ns":20111}}` + "\n"},
		{stories["list"][0], `{"type":"function","data":{"function":"args::hello","signature":"fn(i: i32, len: usize) -> i32","file":"src/main.rs","line":3,"out_of_line":1,"inlined":4,"aliases":[]}}` + "\n"},
		{event.Lost{}, `{"type":"lost_events","data":{"events":0}}` + "\n"},
		{event.Attached{Probes: 2}, `{"type":"attached_probes","data":{"probes":2}}` + "\n"},
	} {
		var b bytes.Buffer
		o := New(&b, JSON)
		if err := o.Event(c.e); err != nil {
			t.Fatal(err)
		}
		o.Flush()
		if b.String() != c.want {
			t.Errorf("got  %swant %s", b.String(), c.want)
		}
	}
}

func TestAttachedIsNotHeldBack(t *testing.T) {
	var b bytes.Buffer
	if err := New(&b, JSON).Event(event.Attached{Probes: 1}); err != nil {
		t.Fatal(err)
	}
	if b.Len() == 0 {
		t.Error("attached_probes was buffered; scripts wait for it")
	}
}

func TestSummary(t *testing.T) {
	var b bytes.Buffer
	Attached(&b, event.Attached{Probes: 1})
	Attached(&b, event.Attached{Probes: 12})
	Summary(&b, event.Summary{Calls: 4, Shown: 4, Runtime: "kernel", Duration: 1203344, Cost: 92100, ExitStatus: "exit status 0"})
	Summary(&b, event.Summary{Calls: 1, Hidden: 1, Lost: 0, LostExits: 1, Open: 2, Duration: 90 * time.Second})
	golden(t, "summary", b.Bytes())
}

// A function whose end is never seen must not push all others to the right.
func TestUnendedFunctionsDoNotIndent(t *testing.T) {
	var b bytes.Buffer
	o := newText(&b, false)
	for i := range uint64(100) {
		o.Event(call(i, main1, "endless"))
	}
	o.Event(call(1000, main1, "after"))
	o.Flush()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if last := lines[len(lines)-1]; last != "after()" {
		t.Errorf("last line is %q", last)
	}
}

func TestRecursionKeepsIndenting(t *testing.T) {
	var b bytes.Buffer
	o := newText(&b, false)
	o.Event(call(1000, main1, "fib"))
	o.Event(ret(1000, main1, "fib", nil)) // seen to end once: recursion, not loss
	for i := range uint64(20) {
		o.Event(call(i, main1, "fib"))
	}
	o.Flush()
	if !strings.HasSuffix(b.String(), "\n"+strings.Repeat("  ", 19)+"fib()\n") {
		t.Errorf("no recursion to be seen:\n%s", b.String())
	}
}

func TestColours(t *testing.T) {
	var b bytes.Buffer
	o := newText(&b, true)
	for _, e := range stories["args"] {
		o.Event(e)
	}
	o.Flush()
	plain := strings.NewReplacer(o.bold, "", o.dim, "", o.red, "", o.off, "").Replace(b.String())
	want, _ := os.ReadFile("testdata/args.text")
	if plain != string(want) || !strings.Contains(b.String(), o.bold+"args::hello"+o.off) {
		t.Errorf("coloured text differs from plain text by more than colours:\n%q", b.String())
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 999: "999ns", 1000: "1.00µs", 9994: "9.99µs", 9996: "10.0µs", 14123: "14.1µs", 999_600: "1000µs",
		1203344: "1.20ms", 59 * time.Second: "59.0s", 90 * time.Second: "1m30s", -5: "-5ns",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%d) = %s, want %s", d, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("plain")
	f.Add("a\x1b[31m\u009b\u202e\u007f\xff\nb\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		checkSafe(t, []byte(Escape(s)))
		if strings.ContainsRune(Escape(s), '\n') {
			t.Error("newline passed")
		}
		var b bytes.Buffer
		if err := JSONLine(&b, "x", s); err != nil {
			t.Fatal(err)
		}
		checkSafe(t, b.Bytes())
		var env struct{ Data string }
		if err := json.Unmarshal(b.Bytes(), &env); err != nil {
			t.Fatalf("%v: %q", err, b.Bytes())
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); utf8.ValidString(s) && env.Data != want {
			t.Errorf("JSON of %q reads back as %q", s, env.Data)
		}
	})
}

// TestLines: a value on several lines is set below its line, however deep that stands.
func TestLines(t *testing.T) {
	var b bytes.Buffer
	o := newText(&b, false)
	text := event.Value{Name: "c", Text: "Cart {\n    id: 7,\n}\x1b", Lines: true}
	result := event.Value{Text: "Some(\n    7,\n)", Lines: true}
	for _, e := range []event.Event{
		event.Call{ID: 1, Function: "outer", Args: []event.Value{}},
		event.Call{ID: 2, Function: "add", Args: []event.Value{text, {Name: "n", Text: "1"}}, Poll: 3},
		event.Return{ID: 2, Function: "add", Value: &result, Duration: time.Microsecond},
	} {
		if err := o.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Flush(); err != nil {
		t.Fatal(err)
	}
	want := `outer()
  add(c: Cart {
      id: 7,
  }\u{1b}, n: 1)  poll 3
  add → Some(
      7,
  )  1.00µs
`
	if got := b.String(); got != want {
		t.Errorf("%s\nnot\n%s", got, want)
	}
}

// What a script says keeps bpftrace's spaces, and its lines.
func TestSaid(t *testing.T) {
	for _, c := range []struct {
		e    event.Said
		want string
	}{
		{event.Said{Kind: "value", Data: []byte(`{"a": 1, "b": [2,3]}`)}, `{"type": "value", "data": {"a": 1, "b": [2,3]}}` + "\n"},
		{event.Said{Kind: "map", Lines: []byte("{}\n")}, "{}\n"},
	} {
		var b bytes.Buffer
		o := newJSON(&b)
		if err := o.Event(c.e); err != nil {
			t.Fatal(err)
		}
		if err := o.Flush(); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s want %s", b.String(), c.want)
		}
	}
}
