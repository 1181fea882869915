package spell

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"price", "name", "id"}
	for word, want := range map[string]string{
		"price": "price", "prize": "price", "pirce": "price", "nam": "name", "elephant": "", "": "", "pri": "price",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Nearest("x", nil); got != "" {
		t.Errorf("of none: %q", got)
	}
}
