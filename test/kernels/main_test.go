package main

import (
	"strings"
	"testing"
)

func TestFollow(t *testing.T) {
	const good = `[    1.0] Linux
@@@ begin a/b
=== RUN   TestA
=== RUN   TestA/x
    a_test.go:1: no such thing
--- PASS: TestA (0.00s)
    --- SKIP: TestA/x (0.00s)
PASS

@@@ end ok
`
	for _, c := range []struct{ console, out, err string }{
		{good + "@@@ done\n", "skipped TestA/x: no such thing\na/b ok: 1 passed, 0 failed, 1 skipped", ""},
		{good, "a/b ok", "the machine stopped"},
		{"[ 1.0] x\n@@@ fatal no disk\n", "", "no disk"},
		{"@@@ begin a\n=== RUN   TestA\n    a_test.go:1: why\n--- FAIL: TestA (0.00s)\n@@@ end exit status 1\n@@@ done\n", "why\n--- FAIL: TestA", "a: exit status 1"},
		{"@@@ begin a\npanic: at the disco\n@@@ end exit status 2\n@@@ done\n", "panic: at", "a: exit status 2"},
		{good + "[    2.5] BUG: unable to handle page fault\n@@@ done\n", "", "BUG: unable"},
		{good + "[    2.5] WARNING: CPU: 1 PID: 5 at kernel/events/uprobes.c\n@@@ done\r\n", "", "uprobes.c"},
	} {
		var b strings.Builder
		err := follow(&b, strings.NewReader(c.console), false)
		if out := strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' }), " "); !strings.Contains(out, c.out) {
			t.Errorf("%q: printed %q, want %q", c.console, out, c.out)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v, want %q", c.console, err, c.err)
		}
	}
}

func TestCPIO(t *testing.T) {
	b := string(cpio([]entry{{"dir", nil, 0o040755}, {"dir/file", []byte("hello"), 0o100644}}))
	const head = "0707010000000100" + "0041ed"
	if !strings.HasPrefix(b, head) || len(b)%4 != 0 || !strings.Contains(b, "dir/file\x00") || !strings.Contains(b, "TRAILER!!!\x00") {
		t.Errorf("%q", b)
	}
	if i := strings.Index(b, "hello"); i%4 != 0 {
		t.Errorf("the content is at %d", i)
	}
}

func TestEnvironment(t *testing.T) {
	if got := strings.Join(environment([]string{"PATH=/bin", "TOKEN=secret", "FERROTRACE_X=1"}), " "); got != "PATH=/bin FERROTRACE_X=1" {
		t.Error(got)
	}
}
