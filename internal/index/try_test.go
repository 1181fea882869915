package index

import (
	"fmt"
	"os"
	"testing"
	"time"

	"ferrotrace/internal/rust/path"
)

func TestTry(t *testing.T) {
	f := os.Getenv("FT_FILE")
	if f == "" {
		t.Skip("no file")
	}
	t0 := time.Now()
	ix, err := Open(f, "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("open", time.Since(t0), len(ix.Functions()), ix.Level(), ix.Problem)
	p, err := path.ParsePattern(os.Getenv("FT_PAT"))
	if err != nil {
		t.Fatal(err)
	}
	t0 = time.Now()
	fns := ix.Find(p)
	fmt.Println("find", time.Since(t0), len(fns))
	for i, fn := range fns {
		if i > 20 {
			break
		}
		fmt.Println(fn.Name, fn.File, fn.Line, fn.Aliases)
		ins, err := fn.Instances()
		if err != nil {
			t.Error(err)
		}
		for _, in := range ins {
			pl, err := in.Plan()
			if err != nil {
				t.Error(err)
				continue
			}
			fmt.Printf("  inl=%v low=%#x %s %s:%d exact=%v %s\n", in.Inlined, in.Low(), in.Caller, in.File, in.Line, pl.Exact, pl.Inexact)
			for _, s := range pl.Entries {
				fmt.Printf("    entry %#x %s cfa=%s", s.Addr, s.Inst.Kind, s.CFA)
				for i, pp := range s.Places {
					fmt.Printf(" %s:%s=%s", pl.Params[i].Name, pl.Params[i].Type.Name, pp)
				}
				fmt.Println()
			}
			if pl.More != nil {
				fmt.Printf("    more %#x", pl.More.Addr)
				for i, pp := range pl.More.Places {
					fmt.Printf(" %s=%s", pl.Params[i].Name, pp)
				}
				fmt.Println()
			}
			for _, x := range pl.Exits {
				fmt.Printf("    exit %#x %s %s\n", x.Addr, x.Kind, x.To)
			}
			if pl.NoExits != "" {
				fmt.Println("    noexits", pl.NoExits)
			}
			if r := pl.Result; r != nil {
				fmt.Printf("    result %s %s %s\n", r.Type.Name, r.Place, r.Missing)
			}
		}
	}
	if len(fns) == 0 {
		fmt.Println(ix.NoMatch(os.Getenv("FT_PAT")))
	}
}
