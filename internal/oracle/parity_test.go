package oracle

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"ferrotrace/internal/event"
	"ferrotrace/internal/fixture"
)

// TestParity: both runtimes show the same calls with the same values, one after the
// other. What only one of them can see (registers that kernel probes cannot) is all
// that may differ.
func TestParity(t *testing.T) {
	for _, c := range []struct {
		crate string
		args  []string
	}{
		{"values", nil}, {"traps", nil}, {"flow", []string{"recursion"}}, {"flow", []string{"exits"}}, {"flow", []string{"panics"}}, {"flow", []string{"jump"}},
	} {
		for _, p := range profiles[:2] {
			t.Run(strings.Join(append([]string{c.crate, p.Name}, c.args...), "/"), func(t *testing.T) {
				program := fixture.Build(t, c.crate, p)
				seen := map[string][]event.Event{}
				for _, rt := range runtimes {
					_, seen[rt] = run(t, rt, "trace", append([]string{c.crate + "::**", "--", program}, c.args...)...)
				}
				// Few returns have bytes that no jump fits into: such a function's ends are
				// not seen by the user runtime, which has said so.
				returns := returnsOf(seen["user"])
				without := map[string]bool{}
				for f := range returnsOf(seen["kernel"]) {
					if returns[f] == 0 {
						t.Logf("no ends are seen of %s", f)
						without[f] = true
					}
				}
				if len(without) > 2 {
					t.Errorf("%d functions without ends", len(without))
				}
				kernel, user := lines(seen["kernel"], without), lines(seen["user"], without)
				if len(kernel) == 0 || len(kernel) != len(user) {
					t.Errorf("%d events on the kernel runtime, %d on the user runtime", len(kernel), len(user))
				}
				differ := 0
				for i := range min(len(kernel), len(user)) {
					if differ > 0 && len(kernel) != len(user) {
						break // what follows is shifted
					}
					if !alike(kernel[i], user[i]) {
						differ++
						t.Errorf("event %d:\nkernel: %s\nuser:   %s", i, kernel[i], user[i])
					}
				}
			})
		}
	}
}

func returnsOf(events []event.Event) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		if r, ok := e.(event.Return); ok {
			n[r.Function]++
		}
	}
	return n
}

// unsteady are the functions whose values are those of one run (addresses, times, ports), or
// that several threads call at once.
var unsteady = regexp.MustCompile(`^values::(system::|objects::broken)`)

var address = regexp.MustCompile(`0x[0-9a-f]+`)

// lines are events without what differs from run to run, and without the ends of some
// functions' calls.
func lines(events []event.Event, without map[string]bool) (ls []string) {
	function := map[uint64]string{}
	number := map[uint64]int{} // of the calls that are compared
	value := func(v event.Value) string {
		if v.Missing != "" {
			return v.Name + ": ‹" + v.Missing + "›"
		}
		return fmt.Sprintf("%s: %s %v %v", v.Name, address.ReplaceAllString(v.Text, "0x…"), v.Truncated, v.Partial)
	}
	for _, e := range events {
		switch e := e.(type) {
		case event.Call:
			function[e.ID] = e.Function
			if unsteady.MatchString(e.Function) {
				continue
			}
			number[e.ID] = len(number)
			var args []string
			for _, a := range e.Args {
				args = append(args, value(a))
			}
			ls = append(ls, fmt.Sprintf("%d calls %s\x00%s", number[e.ID], e.Function, strings.Join(args, "\x00")))
		case event.Return:
			if without[e.Function] || unsteady.MatchString(e.Function) {
				continue
			}
			l := fmt.Sprintf("%d returns ", number[e.ID])
			if e.Value != nil {
				l += "\x00" + value(*e.Value)
			}
			ls = append(ls, l)
		case event.Unwind:
			if without[function[e.ID]] {
				continue
			}
			ls = append(ls, fmt.Sprintf("%d unwinds", number[e.ID]))
		case event.Ended:
			if without[function[e.ID]] {
				continue
			}
			ls = append(ls, fmt.Sprintf("%d ends", number[e.ID]))
		}
	}
	return ls
}

// alike compares two lines value by value.
func alike(kernel, user string) bool {
	ks, us := strings.Split(kernel, "\x00"), strings.Split(user, "\x00")
	if len(ks) != len(us) {
		return false
	}
	for i := range ks {
		if ks[i] == us[i] || strings.Contains(ks[i], "which a kernel probe cannot see") {
			continue
		}
		// A float in a register is a part that the kernel can't see.
		parts := strings.Split(strings.TrimSuffix(ks[i], " false true"), "<unreadable>")
		pattern := "^" + regexp.QuoteMeta(parts[0])
		for _, p := range parts[1:] {
			pattern += `-?[0-9.e-]+` + regexp.QuoteMeta(p)
		}
		if ok, err := regexp.MatchString(pattern+" false false$", us[i]); len(parts) == 1 || err != nil || !ok {
			return false
		}
	}
	return true
}
