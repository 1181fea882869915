package path

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"
	"strings"
)

const (
	// farPath stands for any distance of whole paths that is no smaller: beyond
	// it, only the last segment tells.
	farPath = 6
	// maxCompared is how much of a name is compared, in bytes.
	maxCompared = 128
)

// Nearest returns at most n paths among names that are most like want, the
// nearest first, for a "did you mean". Each is given once, without generic
// arguments, so that as a pattern it means all its instances. A path is near
// if its last segment is spelt nearly as want's, or the whole path is.
func Nearest(want string, names iter.Seq[string], n int) []string {
	type candidate struct {
		name  string
		score int
	}
	wantPath := stripArgs(strings.Trim(want, " "))
	path, last := newSpelling(wantPath), newSpelling(lastSegment(wantPath))
	if len(last.text) == 0 || n <= 0 {
		return nil
	}
	single := len(path.text) == len(last.text)
	near := last.tolerance()

	// Many names are instances of one path, and thousands of one method's name:
	// last segments are judged once.
	judged := map[string]int{}
	seen := map[string]bool{}
	var found []candidate
	for name := range names {
		name = stripArgs(name)
		tail := lastSegment(name)
		dLast, ok := judged[tail]
		if !ok {
			dLast = last.distance(tail, near)
			judged[tail] = dLast
		}
		if single && dLast > near {
			continue
		}
		score := 2 * dLast
		if !single {
			dPath := path.distance(name, farPath-1)
			if dLast > near && dPath > path.tolerance() {
				continue
			}
			score = dLast + dPath
		}
		if !seen[name] {
			seen[name] = true
			found = append(found, candidate{name, score})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	var out []string
	for _, c := range found[:min(n, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// lastSegment returns the last segment of a path without generic arguments.
func lastSegment(s string) string {
	depth := 0
	for i := len(s) - 1; i > 0; i-- {
		switch s[i] {
		case '>', '}':
			depth++
		case '<', '{':
			depth--
		case ':':
			if depth == 0 {
				return s[i+1:]
			}
		}
	}
	return s
}

// A spelling is a text to which many are compared.
type spelling struct {
	text    string
	letters uint64 // a set of the bytes in text, folded to 64
	rows    [3][maxCompared + 1]int
}

func newSpelling(s string) *spelling {
	s = s[:min(len(s), maxCompared)]
	return &spelling{text: s, letters: letters(s)}
}

func letters(s string) uint64 {
	var set uint64
	for i := range len(s) {
		set |= 1 << (fold(s[i]) & 63)
	}
	return set
}

// fold makes ASCII letters lower case.
func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// tolerance is how many slips a text of this length may have.
func (a *spelling) tolerance() int {
	switch n := len(a.text); {
	case n <= 2:
		return 0
	case n <= 4:
		return 1
	case n <= 8:
		return 2
	}
	return 3
}

// distance returns how many letters must be inserted, deleted, replaced or
// swapped with their neighbour to make b of a, whatever their case; limit+1 if
// more than limit.
func (a *spelling) distance(b string, limit int) int {
	b = b[:min(len(b), maxCompared)]
	if diff := len(a.text) - len(b); diff > limit || -diff > limit {
		return limit + 1
	}
	if limit == 0 {
		if strings.EqualFold(a.text, b) {
			return 0
		}
		return 1
	}
	// Each slip adds at most one letter to either set.
	set := letters(b)
	if bits.OnesCount64(a.letters&^set) > limit || bits.OnesCount64(set&^a.letters) > limit {
		return limit + 1
	}
	// Of each row, only what lies within limit of the diagonal can matter.
	far := limit + 1
	before, last, row := &a.rows[0], &a.rows[1], &a.rows[2]
	for j := range min(len(b), limit) + 1 {
		last[j] = j
	}
	if limit < len(b) {
		last[limit+1] = far
	}
	for i := 1; i <= len(a.text); i++ {
		lo, hi := max(1, i-limit), min(len(b), i+limit)
		row[lo-1] = far
		if lo == 1 {
			row[0] = i
		}
		best := row[lo-1]
		c := fold(a.text[i-1])
		for j := lo; j <= hi; j++ {
			d := fold(b[j-1])
			v := last[j-1]
			if c != d {
				v = 1 + min(v, last[j], row[j-1])
				if i > 1 && j > 1 && c == fold(b[j-2]) && d == fold(a.text[i-2]) {
					v = min(v, 1+before[j-2])
				}
			}
			v = min(v, far)
			row[j] = v
			best = min(best, v)
		}
		if hi < len(b) {
			row[hi+1] = far
		}
		if best == far {
			return far
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], far)
}
