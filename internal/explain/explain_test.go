package explain

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
	"ferrotrace/internal/index"
	"ferrotrace/internal/x86"
)

// explained explains one function of the fixture flow; bad are addresses at which the
// user runtime finds no way.
func explained(t *testing.T, pattern string, bad ...uint64) (event.Instance, *index.Index) {
	t.Helper()
	ix, err := index.Open(fixture.Build(t, "flow", fixture.Release), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ix.Close() })
	p, err := index.ParsePattern(pattern)
	if err != nil {
		t.Fatal(err)
	}
	fs := ix.Find(p)
	if len(fs) != 1 {
		t.Fatalf("%d functions are called %s", len(fs), pattern)
	}
	all, err := fs[0].Instances()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d instances, %v", len(all), err)
	}
	asked := 0
	es := Instances(ix, all[:1], Runtimes{
		Kernel: func(x86.Inst) time.Duration { return 770 },
		User: func(addrs []uint64) (ways []Way) {
			asked++
			for _, a := range addrs {
				w := Way{How: "5-byte jump"}
				if slices.Contains(bad, a) {
					w = Way{Err: errors.New("no room")}
				}
				ways = append(ways, w)
			}
			return ways
		},
		UserCost: 25,
	})
	if asked != 1 {
		t.Errorf("sites are planned %d times, for they are planted all at once", asked)
	}
	return es[0], ix
}

func TestRuntimes(t *testing.T) {
	const name = "flow::processes::work"
	e, ix := explained(t, name)
	u := e.Runtimes["user"]
	if u.Missing != "" || u.How != "5-byte jump; and on each exit (5-byte jump), about 25ns more" || u.CostNS != 25 {
		t.Errorf("%+v", u)
	}
	if !strings.HasPrefix(e.Auto, "user") {
		t.Errorf("auto: %s", e.Auto)
	}
	if k := e.Runtimes["kernel"]; k.Missing != "" || k.CostNS != 770 {
		t.Errorf("%+v", k)
	}
	if len(e.Exits) == 0 || len(e.Entries) == 0 {
		t.Fatalf("%+v", e)
	}
	_, land := ix.PanicSites()
	if len(land) == 0 {
		t.Fatal("it is not known where panics land")
	}
	for _, c := range []struct {
		bad           uint64
		missing, auto string
	}{
		{e.Entries[0], "no room", "kernel: at "},
		{e.Exits[0].Address, "at the exit ", "kernel: at the exit "},
		{land[0], "", "kernel: panics can't be watched in the process"},
	} {
		e, _ := explained(t, name, c.bad)
		if u := e.Runtimes["user"]; !strings.Contains(u.Missing, c.missing) || (u.Missing == "") != (c.missing == "") || (u.Missing == "") != (u.How != "") {
			t.Errorf("no way at %#x: %+v", c.bad, u)
		}
		if !strings.HasPrefix(e.Auto, c.auto) {
			t.Errorf("no way at %#x: auto: %s", c.bad, e.Auto)
		}
	}
}

// A float in a register is had by one runtime, and not by the other.
func TestUnseen(t *testing.T) {
	ix, err := index.Open(fixture.Build(t, "values", fixture.Release), "")
	if err != nil {
		t.Fatal(err)
	}
	defer ix.Close()
	p, err := index.ParsePattern("values::scalars::half_f32")
	if err != nil {
		t.Fatal(err)
	}
	all, err := ix.Find(p)[0].Instances()
	if err != nil {
		t.Fatal(err)
	}
	e := Instances(ix, all[:1], Runtimes{Kernel: func(x86.Inst) time.Duration { return 0 }, User: func(a []uint64) []Way { return make([]Way, len(a)) }})[0]
	const want = "xmm0 (the kernel runtime cannot see it)"
	if len(e.Args) != 1 || e.Args[0].Where != want || e.Args[0].Missing != "" || e.Result == nil || e.Result.Where != want {
		t.Errorf("%+v, %+v", e.Args, e.Result)
	}
}
