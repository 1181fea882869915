// Package vmtest holds what the tests of the interpreter and of the JIT share: the
// vectors of the public conformance suite.
package vmtest

import (
	"bufio"
	_ "embed"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
)

//go:embed conformance.txt
var vectors string

// Vector is one case.
type Vector struct {
	Name string
	Code []byte // bytecode
	Mem  []byte // what r1 points to, r2 is its length; may be empty
	// Error: the program must be refused. Else R0 is the result.
	Error bool
	R0    uint64
}

// Vectors returns the conformance suite. Each call makes new slices.
func Vectors(t testing.TB) []Vector {
	t.Helper()
	var all []Vector
	for s := bufio.NewScanner(strings.NewReader(vectors)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		v := Vector{Name: f[0], Error: f[3] == "error"}
		var err error
		if v.Code, err = hex.DecodeString(f[1]); err != nil {
			t.Fatal(f[0], err)
		}
		if f[2] != "-" {
			if v.Mem, err = hex.DecodeString(f[2]); err != nil {
				t.Fatal(f[0], err)
			}
		}
		if !v.Error {
			if v.R0, err = strconv.ParseUint(f[3], 16, 64); err != nil {
				t.Fatal(f[0], err)
			}
		}
		all = append(all, v)
	}
	if len(all) < 300 {
		t.Fatalf("only %d vectors", len(all))
	}
	return all
}
