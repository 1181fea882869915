package oracle

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"ferrotrace/internal/fixture"
)

// TestMatrix holds all values against what {:?} prints of them, in each build by each
// compiler at hand, on both runtimes. In full it is long: make matrix runs it so, with
// a file for its tables; else the builds are few, and what is held is the same: that no
// value is wrong, and that debug builds lack none that the runtime can read.
func TestMatrix(t *testing.T) {
	file := os.Getenv("FERROTRACE_MATRIX")
	full := file != ""
	builds := []fixture.Profile{fixture.Debug, fixture.OptS}
	toolchains := fixture.Toolchains[1:] // TestValues has the default one
	if full {
		builds, toolchains = fixture.Profiles, fixture.Toolchains
	}
	m := matrix{cells: map[row]map[string]tally{}}
	for _, tc := range toolchains {
		t.Run("rustc"+tc.Name, func(t *testing.T) {
			version := tc.Version(t)
			for _, p := range builds {
				for _, rt := range runtimes {
					t.Run(p.Name+"/"+rt, func(t *testing.T) { m.run(t, version, p.On(tc), rt) })
				}
			}
		})
	}
	if full {
		if err := os.WriteFile(file, m.tables(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tally is how many values of a cell are right, missing and wrong.
type tally struct{ right, missing, wrong int }

func (a *tally) add(b tally) {
	a.right, a.missing, a.wrong = a.right+b.right, a.missing+b.missing, a.wrong+b.wrong
}

func (a tally) String() string { return fmt.Sprintf("%d/%d/%d", a.right, a.missing, a.wrong) }

// row is a build on a runtime.
type row struct{ rustc, profile, runtime string }

// matrix has a tally for each row and each kind of value, which is the module that the
// values are of.
type matrix struct {
	rows  []row
	cells map[row]map[string]tally
}

func (m *matrix) run(t *testing.T, version string, p fixture.Profile, rt string) {
	r := row{version, p.Name, rt}
	truth, events := run(t, rt, "trace", "values::**", "--", fixture.Build(t, "values", p))
	v := fixture.Compare(truth, events)
	for _, w := range v.Wrong {
		t.Error(w)
	}
	// What was told of functions that the trace has other numbers of calls of is not
	// compared; merged ones are among them.
	uneven := map[string]bool{}
	for _, u := range v.Uneven {
		uneven[u.Path] = true
	}
	kinds := map[string]tally{}
	count := func(path string, by tally) {
		kind := strings.Split(strings.TrimLeft(path, "<"), "::")[1]
		k := kinds[kind]
		k.add(by)
		kinds[kind] = k
	}
	for _, l := range truth {
		n := len(l.Args)
		if l.Kind == fixture.Ret && l.Text != "" && l.Text != "()" {
			n++
		}
		if uneven[fixture.Path(l.Path)] {
			count(l.Path, tally{missing: n})
		} else {
			count(l.Path, tally{right: n})
		}
	}
	for _, g := range v.Missing {
		count(g.Where, tally{right: -1, missing: 1})
		if strings.Contains(p.Name, "debug") && !unreadable(g, rt) {
			t.Errorf("missing in a debug build: %s: %s", g.Where, g.Why)
		}
	}
	for _, w := range v.Wrong {
		count(w, tally{right: -1, wrong: 1})
	}
	m.rows = append(m.rows, r)
	m.cells[r] = kinds
	var sum tally
	for _, k := range kinds {
		sum.add(k)
	}
	t.Logf("right/missing/wrong: %s", sum)
}

// notShown is why there is no text of a type of which that is known.
var notShown = regexp.MustCompile(`^unsupported: \w+$`)

// unreadable says whether a runtime can't read a value of a debug build: what is in no
// register that it sees, what is no type that is shown, or what debug info does not say:
// it leaves out results without bytes, of late such parameters too, and does not know
// what the program has put together by hand (values::objects::broken).
func unreadable(g fixture.Gap, rt string) bool {
	return rt == "kernel" && strings.Contains(g.Why, "which a kernel probe cannot see") ||
		g.Why == "not spoken of" || notShown.MatchString(g.Why) || g.Why == "unsupported: trait object of unknown type" || strings.Contains(g.Why, "which the debug info does not say")
}

// tables are one of each compiler's builds on each runtime, and one of the sums.
func (m *matrix) tables() []byte {
	var groups []row
	var kinds []string
	for _, r := range m.rows {
		if g := (row{rustc: r.rustc, runtime: r.runtime}); !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
		for k := range m.cells[r] {
			if !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	slices.Sort(kinds)
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, g := range groups {
		fmt.Fprintf(w, "\nrustc %s, %s runtime: right/missing/wrong\n", g.rustc, g.runtime)
		lines := map[string]string{"": "kind"}
		for _, r := range m.rows {
			if r.rustc == g.rustc && r.runtime == g.runtime {
				lines[""] += "\t" + r.profile
				for _, k := range kinds {
					lines[k] += "\t" + m.cells[r][k].String()
				}
			}
		}
		fmt.Fprintln(w, lines[""])
		for _, k := range kinds {
			fmt.Fprintln(w, k+lines[k])
		}
	}
	fmt.Fprintf(w, "\nin all:\n| rustc\t| build\t| runtime\t| right\t| missing\t| wrong\t|\n|---\t|---\t|---\t|---\t|---\t|---\t|\n")
	var all tally
	for _, r := range m.rows {
		var sum tally
		for _, k := range kinds {
			sum.add(m.cells[r][k])
		}
		all.add(sum)
		fmt.Fprintf(w, "| %s\t| %s\t| %s\t| %d\t| %d\t| %d\t|\n", r.rustc, r.profile, r.runtime, sum.right, sum.missing, sum.wrong)
	}
	fmt.Fprintf(w, "| all\t|\t|\t| %d\t| %d\t| %d\t|\n", all.right, all.missing, all.wrong)
	w.Flush()
	return out.Bytes()
}
