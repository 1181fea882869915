package source

import (
	"strings"
	"testing"
)

func TestPosition(t *testing.T) {
	s := New("x", "ab\nçd\r\n\nz")
	for _, c := range []struct{ offset, line, col int }{
		{0, 1, 1}, {2, 1, 3}, {3, 2, 1}, {5, 2, 2}, {8, 3, 1}, {9, 4, 1}, {10, 4, 2}, {99, 4, 2}, {-1, 1, 1},
	} {
		if line, col := s.Position(c.offset); line != c.line || col != c.col {
			t.Errorf("offset %d is at %d:%d, want %d:%d", c.offset, line, col, c.line, c.col)
		}
	}
	if s.Line(2) != "çd" || s.Line(3) != "" || s.Line(5) != "" || s.Line(0) != "" {
		t.Errorf("%q %q %q", s.Line(2), s.Line(3), s.Line(5))
	}
}

func TestRender(t *testing.T) {
	long := strings.Repeat("a", 500)
	for _, c := range []struct{ name, text, part, want string }{
		{"a line", "begin {\n  $x = 1 $y;\n}", "$y", `
error: wrong
 --> x.bt:2:10
  |
2 |   $x = 1 $y;
  |          ^^
  = hint: right
`},
		{"a tab, and more than one byte a character", "\té = £;", "£", `
error: wrong
 --> x.bt:1:6
  |
1 |     é = £;
  |         ^
  = hint: right
`},
		{"several lines", "{\n  a\n}", "{\n  a\n}", `
error: wrong
 --> x.bt:1:1
  |
1 | {
  | ^
  = hint: right
`},
		{"what would move the cursor", "a\x1b[2Jb\u202e", "b", `
error: wrong
 --> x.bt:1:6
  |
1 | a�[2Jb�
  |      ^
  = hint: right
`},
		{"a long line", long + "X" + long, "X", `
error: wrong
 --> x.bt:1:501
  |
1 | …` + strings.Repeat("a", 100) + "X" + strings.Repeat("a", 98) + `…
  | ` + strings.Repeat(" ", 101) + `^
  = hint: right
`},
		{"a long part", long, long, `
error: wrong
 --> x.bt:1:1
  |
1 | ` + strings.Repeat("a", 199) + `…
  | ` + strings.Repeat("^", 200) + `
  = hint: right
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := strings.Index(c.text, c.part)
			e := &Error{Source: New("x.bt", c.text), Span: Span{start, start + len(c.part)}, Msg: "wrong", Hint: "right"}
			var b strings.Builder
			if err := e.Render(&b, false); err != nil {
				t.Fatal(err)
			}
			if b.String() != c.want[1:] {
				t.Errorf("got\n%s\nwant\n%s", b.String(), c.want[1:])
			}
		})
	}
}

// Whatever the span is, there is something to see and nothing panics.
func TestRenderAnywhere(t *testing.T) {
	for _, text := range []string{"", "a", "a\nb", "\n", "é\xff\x00"} {
		src := New("x", text)
		for start := -1; start < len(text)+2; start++ {
			for end := -1; end < len(text)+2; end++ {
				var b strings.Builder
				e := &Error{Source: src, Span: Span{start, end}, Msg: "wrong", Warning: true}
				if err := e.Render(&b, true); err != nil || !strings.Contains(b.String(), "^") {
					t.Errorf("%q %v: %q", text, e.Span, b.String())
				}
			}
		}
	}
}

func TestErrors(t *testing.T) {
	src := New("x", "abc")
	e := &Error{Source: src, Span: Span{1, 2}, Msg: "wrong", Hint: "right"}
	if got := (Errors{e, e}).Error(); got != "x:1:2: wrong (right) (and 1 more)" {
		t.Error(got)
	}
	if (Errors{{Source: src, Warning: true}}).Failed() || !(Errors{e}).Failed() || Errors(nil).Failed() {
		t.Error("a warning is no failure, an error is one")
	}
}
