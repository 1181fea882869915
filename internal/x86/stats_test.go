package x86

import (
	"os"
	"sort"
	"strings"
	"testing"
	"time"
)

// TestFunctions decodes every function that the symbol table of
// X86_FUNCTIONS_FILE names and counts what can be told of their exits.
func TestFunctions(t *testing.T) {
	file := os.Getenv("X86_FUNCTIONS_FILE")
	if file == "" {
		t.Skip("X86_FUNCTIONS_FILE names no file whose functions are to be looked at")
	}
	m := openImage(t, file)
	nr := NoReturn(m.code)
	var names []string
	for n, r := range m.syms {
		if r.High > r.Low && !strings.Contains(n, ".cold") && !strings.Contains(n, ".warm") {
			for _, s := range m.segs {
				if s.exec && r.Low >= s.addr && r.High <= s.addr+uint64(len(s.data)) {
					names = append(names, n)
				}
			}
		}
	}
	sort.Strings(names)
	var decodeErr, exitErr, ok, rets, tails, indirect, tables, bounded, unresolved, insts int
	start := time.Now()
	for _, n := range names {
		parts := []Range{m.syms[n]}
		for _, s := range []string{".cold", ".warm", ".cold.1", ".cold.0"} {
			if r, ok := m.syms[n+s]; ok {
				parts = append(parts, r)
			}
		}
		f, err := NewFunc(m.code, parts, nr)
		if err != nil {
			if decodeErr++; decodeErr < 10 {
				t.Logf("%s: %v", n, err)
			}
			continue
		}
		insts += len(f.Insts)
		for _, d := range f.tables {
			if d.targets != nil {
				tables++
				if d.bounded {
					bounded++
				}
			}
		}
		if u := f.Unresolved(); len(u) > 0 {
			unresolved += len(u)
			if unresolved < 20 {
				t.Logf("unresolved %s: %#x", n, u)
			}
		}
		exits, err := f.Exits()
		if err != nil {
			if exitErr++; exitErr < 20 {
				t.Logf("%s: %v", n, err)
			}
			continue
		}
		ok++
		for _, e := range exits {
			switch {
			case e.Kind == ExitRet:
				rets++
			case e.Indirect:
				indirect++
			default:
				tails++
			}
		}
	}
	t.Logf("%d functions, %d instructions in %v: %d with exits (%d ret, %d tail, %d indirect tail), %d not decoded, %d unknown exits; %d tables (%d bounded), %d unresolved",
		len(names), insts, time.Since(start), ok, rets, tails, indirect, decodeErr, exitErr, tables, bounded, unresolved)
}
