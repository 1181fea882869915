package index

import (
	"strings"
	"testing"

	"ferrotrace/internal/fixture"
)

// TestNamesStay: results are printed when all files are closed.
func TestNamesStay(t *testing.T) {
	ix, err := Open(fixture.Build(t, "flow", fixture.Release), "")
	if err != nil {
		t.Fatal(err)
	}
	functions := ix.Functions()
	want := make([]string, len(functions))
	for i, f := range functions {
		want[i] = strings.Clone(f.Name)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	for i, f := range functions { // the end of the test, if one is the file's
		if f.Name != want[i] {
			t.Errorf("%s has become %s", want[i], f.Name)
		}
	}
}
