package index

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestSites holds the rules for sites to what they make of the functions of
// testdata/sites.rs, which is kept built: where arguments are in place, where inlined
// instances are entered, what an exit is, where the result is.
func TestSites(t *testing.T) {
	for _, name := range []string{"sites-debug", "sites-release"} {
		t.Run(name, func(t *testing.T) {
			ix, err := Open(filepath.Join("testdata", name+".elf"), "")
			if err != nil {
				t.Fatal(err)
			}
			defer ix.Close()
			var b strings.Builder
			for _, f := range ix.Functions() {
				if strings.HasPrefix(f.Name, "sites::") {
					dump(t, &b, f)
				}
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("not as %s has it (-update rewrites it):\n%s", golden, b.String())
			}
		})
	}
}

func dump(t *testing.T, b *strings.Builder, f *Function) {
	t.Helper()
	fmt.Fprintf(b, "%s %s:%d\n", f.Name, f.File, f.Line)
	instances, err := f.Instances()
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range instances {
		p, err := in.Plan()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(b, "\t%#x", in.Low())
		if in.Inlined {
			fmt.Fprintf(b, " inlined into %s at %s:%d", in.Caller, in.File, in.Line)
		}
		if !p.Exact {
			fmt.Fprintf(b, " inexact: %s", p.Inexact)
		}
		b.WriteByte('\n')
		site := func(kind string, s *Site) {
			fmt.Fprintf(b, "\t\t%s %#x %s, CFA %s\n", kind, s.Addr, s.Inst.Kind, s.CFA)
			for i, place := range s.Places {
				fmt.Fprintf(b, "\t\t\t%s: %s = %s\n", p.Params[i].Name, p.Params[i].Type.Name, place)
			}
		}
		for i := range p.Entries {
			site("entry", &p.Entries[i])
		}
		if p.More != nil {
			site("more", p.More)
		}
		for _, x := range p.Exits {
			fmt.Fprintf(b, "\t\texit %#x %s", x.Addr, x.Kind)
			if x.Cond >= 0 {
				fmt.Fprintf(b, " if condition %d", x.Cond)
			}
			if x.To != "" {
				fmt.Fprintf(b, " to %s", x.To)
			}
			b.WriteByte('\n')
		}
		if p.NoExits != "" {
			fmt.Fprintf(b, "\t\tno exits: %s\n", p.NoExits)
		}
		if r := p.Result; r != nil {
			where := r.Place.String()
			if r.Missing != "" {
				where = r.Missing
			}
			fmt.Fprintf(b, "\t\tresult %s = %s\n", r.Type.Name, where)
		}
	}
}
