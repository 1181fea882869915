package verb

import (
	"strings"
	"testing"

	"ferrotrace/internal/script/parse"
)

func TestScript(t *testing.T) {
	for _, c := range []struct {
		v    Verb
		want string
	}{
		{Verb{Kind: Count, Patterns: []string{"shop::add"}}, "uprobe:shop::add\n{\n  @[func] = count();\n}\n"},
		{Verb{Kind: Count, Patterns: []string{"a", "<T as U>::b"}, By: "args.x, tid"},
			"config = { missing_probes = \"warn\" }\n\nuprobe:a,\nuprobe:\"<T as U>::b\"\n{\n  @[func, args.x, tid] = count();\n}\n"},
		{Verb{Kind: Count, Patterns: []string{"src/a.rs:3"}, Where: "args.x / 2 > 1"}, "uprobe:src/a.rs:3\n/(args.x / 2 > 1)/\n{\n  @[probe] = count();\n}\n"},
		{Verb{Kind: Count, Patterns: []string{"/^a/"}, Where: "retval"}, "uretprobe:\"/^a/\"\n/retval/\n{\n  @[func] = count();\n}\n"},
		{Verb{Kind: Hist, Value: "args.n", Patterns: []string{"f(n: u64) -> u8"}}, "uprobe:\"f(n: u64) -> u8\"\n{\n  @[func] = hist(args.n);\n}\n"},
		{Verb{Kind: Hist, Value: "duration / 1000", Patterns: []string{"f"}}, "uretprobe:f\n{\n  @[func] = hist(duration / 1000);\n}\n"},
		{Verb{Kind: Latency, Patterns: []string{"f"}, By: "tid"}, "uretprobe:f\n{\n  $key = (func, tid);\n" +
			"  @ns[$key] = hist(duration, 5);\n  @min[$key] = min(duration);\n  @max[$key] = max(duration);\n  @sum[$key] = sum(duration);\n}\n"},
		{Verb{Kind: Trace, Patterns: []string{"f"}, Where: "args.x > 1"}, "uprobe:f\n/args.x > 1/\n{\n  printf(\"%s %?\\n\", func, args);\n}\n\n" +
			"uretprobe:f\n/args.x > 1/\n{\n  printf(\"%s → %? in %lu ns\\n\", func, retval, duration);\n}\n"},
		{Verb{Kind: Trace, Patterns: []string{"f"}, Where: "retval"}, "uretprobe:f\n/retval/\n{\n  printf(\"%s %? → %? in %lu ns\\n\", func, args, retval, duration);\n}\n"},
	} {
		if err := c.v.Check(); err != nil {
			t.Errorf("%+v: %v", c.v, err)
		}
		got := c.v.Script()
		if got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c.v, got, c.want)
		}
		tree, errs := parse.File("test", got)
		if errs.Failed() || len(tree.Probes) != strings.Count(c.want, "{\n") {
			t.Errorf("%s\ndoes not parse: %v", got, errs)
		}
	}
}

// What is no single expression is refused before it becomes part of a script.
func TestCheck(t *testing.T) {
	for _, v := range []Verb{
		{Where: "1/ { } begin"}, {Where: "a >"}, {By: "x) = 1; @y[(1"}, {Value: "1); exit("}, {By: "a,,b"}, {Where: "1 }"},
	} {
		if v.Check() == nil {
			t.Errorf("%+v was taken", v)
		}
	}
}
