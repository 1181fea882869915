package index

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"ferrotrace/internal/dwarf"
	rustpath "ferrotrace/internal/rust/path"
	"ferrotrace/internal/x86"
)

// Line is a line of the source that has code.
type Line struct {
	// File is its path as the debug info has it, or as much of that path's end as tells
	// it from the others that were found with it.
	File   string
	Number int
	// Instances are by function, those out of line first, then by address.
	Instances []*LineInstance

	full string
}

func (l *Line) String() string { return fmt.Sprintf("%s:%d", l.File, l.Number) }

// LineInstance is the code of a line in one instance of a function.
type LineInstance struct {
	Line *Line
	// In is the instance that the code is part of: the inlined one, if it was inlined.
	In *Instance

	// ranges are the line's code, and called that of functions that it calls and that were
	// inlined there.
	ranges, called []x86.Range
	own            *lineFiles
}

// lineFiles are a unit's numbers of the file that a line is in.
type lineFiles struct {
	unit    *dwarf.Unit
	numbers map[uint64]bool
}

// LineError says that a line has no code, and why that may be.
type LineError struct {
	File    string
	Pattern string
	// Nearest are lines that have code, or files, if there is none that the pattern names.
	Nearest []string
	Reason  string
	Advice  string
}

func (e *LineError) Error() string {
	s := fmt.Sprintf("no code in %s is of %s", e.File, e.Pattern)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if len(e.Nearest) > 0 {
		s += "\nnearest: " + strings.Join(e.Nearest, "\n         ")
	}
	return s
}

func (e *LineError) Hint() string  { return e.Advice }
func (e *LineError) ExitCode() int { return 3 }

// unitSubs are the subprograms of one unit.
type unitSubs struct {
	*dwarf.Unit
	subs []subprogram
}

// units are those that have subprograms, in order.
func (ix *Index) units() []unitSubs {
	var all []unitSubs
	subs := ix.subs.all
	for len(subs) > 0 {
		n := slices.IndexFunc(subs, func(s subprogram) bool { return s.unit != subs[0].unit })
		if n < 0 {
			n = len(subs)
		}
		all = append(all, unitSubs{ix.unit(&subs[0]), subs[:n]})
		subs = subs[n:]
	}
	return all
}

// isFile says whether a path, or its end from a segment's beginning on, is that of f.
func isFile(f dwarf.File, name string) bool {
	for _, p := range []string{f.Full, f.Path} {
		if p == name || strings.HasSuffix(p, name) && strings.HasSuffix(p[:len(p)-len(name)], "/") {
			return true
		}
		if c := path.Clean(p); c != p && (c == name || strings.HasSuffix(c, "/"+name)) {
			return true
		}
	}
	return false
}

// FindLine returns the lines that a pattern of kind KindLine names: one in each file
// whose path ends so. The error is a *LineError if none of them has code.
func (ix *Index) FindLine(p rustpath.Pattern) ([]*Line, error) {
	name := path.Clean(p.File)
	f := lineFinder{ix: ix, number: p.Line, byFile: map[string]*Line{}, instances: map[lineKey]*LineInstance{}, inlines: inlineRanges{}}
	for _, u := range ix.units() {
		for _, own := range filesOf(u.Unit, name) {
			f.rows(own)
			f.calls(u, own)
		}
	}
	found := f.found
	order := func(in *LineInstance) int {
		if in.In.Inlined {
			return 1
		}
		return 0
	}
	for _, l := range found {
		l.Instances = slices.DeleteFunc(l.Instances, func(in *LineInstance) bool { return !in.recommended() })
		slices.SortStableFunc(l.Instances, func(a, b *LineInstance) int {
			return cmp.Or(cmp.Compare(a.In.Fn.Name, b.In.Fn.Name), cmp.Compare(order(a), order(b)), cmp.Compare(a.low(), b.low()))
		})
	}
	found = slices.DeleteFunc(found, func(l *Line) bool { return len(l.Instances) == 0 })
	if len(found) == 0 {
		return nil, ix.noLine(p, name)
	}
	tellApart(found)
	return found, nil
}

// lineFinder collects the code of a line.
type lineFinder struct {
	ix        *Index
	number    int
	found     []*Line
	byFile    map[string]*Line
	instances map[lineKey]*LineInstance
	inlines   inlineRanges
}

// rows adds the code that a unit's line table has of the line.
func (f *lineFinder) rows(own *sourceFile) {
	table := f.ix.lineTable(own.unit)
	if table == nil {
		return
	}
	for i, row := range table.Rows[:max(0, len(table.Rows)-1)] {
		if row.EndSequence || int(row.Line) != f.number || !own.numbers[uint64(row.File)] {
			continue
		}
		sub := f.ix.text.subprogramAt(row.Addr)
		if sub == nil || sub.fn < 0 {
			continue
		}
		if in := f.instance(sub, f.inlines.at(f.ix, sub, row.Addr), own); in != nil {
			in.add(x86.Range{Low: row.Addr, High: table.Rows[i+1].Addr})
		}
	}
}

// calls adds the code of functions that are called from the line and were inlined there:
// often it is all that is left of it.
func (f *lineFinder) calls(u unitSubs, own *sourceFile) {
	for i := range u.subs {
		s := &u.subs[i]
		if s.low == 0 || s.fn < 0 {
			continue
		}
		for _, c := range f.ix.instances(s) {
			e, err := f.ix.debug.Entry(c.off)
			if err != nil {
				continue
			}
			file, _ := e.Uint(dwarf.AttrCallFile)
			line, _ := e.Uint(dwarf.AttrCallLine)
			if int(line) != f.number || !own.numbers[file] {
				continue
			}
			ranges, _ := f.ix.ranges(c.off)
			if len(ranges) == 0 {
				continue
			}
			if in := f.instance(s, c.parent, own); in != nil {
				in.called = append(in.called, ranges...)
			}
		}
	}
}

// instance is the line's in a subprogram or in what was inlined into it; nil if the
// debug info does not name that.
func (f *lineFinder) instance(s *subprogram, inline int32, own *sourceFile) *LineInstance {
	l := f.byFile[own.full]
	if l == nil {
		l = &Line{Number: f.number, File: own.path, full: own.full}
		f.byFile[own.full], f.found = l, append(f.found, l)
	}
	key := lineKey{s, inline, l}
	if in := f.instances[key]; in != nil {
		return in
	}
	within := f.ix.lineIn(s, inline)
	if within == nil {
		return nil
	}
	in := &LineInstance{Line: l, In: within, own: &own.lineFiles}
	f.instances[key] = in
	l.Instances = append(l.Instances, in)
	return in
}

type lineKey struct {
	sub    *subprogram
	inline int32
	line   *Line
}

// sourceFile is a file of a unit.
type sourceFile struct {
	lineFiles
	path, full string
}

// filesOf are the files of a unit whose path ends in name.
func filesOf(u *dwarf.Unit, name string) []*sourceFile {
	files, err := u.Files()
	if err != nil {
		return nil
	}
	var found []*sourceFile
	for n, f := range files {
		if f.Path == "" || !isFile(f, name) {
			continue
		}
		full := path.Clean(f.Full)
		i := slices.IndexFunc(found, func(s *sourceFile) bool { return s.full == full })
		if i < 0 {
			i = len(found)
			found = append(found, &sourceFile{lineFiles{u, map[uint64]bool{}}, f.Path, full})
		}
		found[i].numbers[uint64(n)] = true
	}
	return found
}

// tellApart gives lines of several files names that are not alike.
func tellApart(lines []*Line) {
	for _, l := range lines {
		same := func(name string) bool {
			return slices.ContainsFunc(lines, func(o *Line) bool {
				return o != l && (o.full == name || strings.HasSuffix(o.full, "/"+name))
			})
		}
		if len(lines) == 1 || !same(l.File) {
			continue
		}
		segments := strings.Split(l.full, "/")
		n := strings.Count(l.File, "/") + 1
		for n < len(segments) && same(strings.Join(segments[len(segments)-n:], "/")) {
			n++
		}
		l.File = strings.Join(segments[max(0, len(segments)-n):], "/")
	}
	slices.SortFunc(lines, func(a, b *Line) int { return cmp.Compare(a.full, b.full) })
}

// inlineRanges are the ranges of the inlined instances of subprograms.
type inlineRanges map[*subprogram][][]x86.Range

// at is the innermost inlined instance whose code is at an address, -1 if none is. An
// instance stands behind the one that it was inlined into.
func (r inlineRanges) at(ix *Index, s *subprogram, addr uint64) int32 {
	all, ok := r[s]
	if !ok {
		inlines := ix.instances(s)
		all = make([][]x86.Range, len(inlines))
		for i := range inlines {
			all[i], _ = ix.ranges(inlines[i].off)
		}
		r[s] = all
	}
	for i, ranges := range slices.Backward(all) {
		if slices.ContainsFunc(ranges, func(r x86.Range) bool { return r.Contains(addr) }) {
			return int32(i)
		}
	}
	return -1
}

// lineIn is the instance of a function that a line's code is part of, nil if the debug
// info does not name it.
func (ix *Index) lineIn(s *subprogram, inline int32) *Instance {
	if inline < 0 {
		in, err := ix.outOfLine(ix.function(s.fn), s)
		if err != nil {
			return nil
		}
		return in
	}
	of := ix.instances(s)[inline].of
	if of < 0 {
		return nil
	}
	in, err := ix.inlined(ix.function(of).named(), inlineRef{ix.subs.index(s.off), inline})
	if err != nil {
		return nil
	}
	return in
}

func (in *LineInstance) add(r x86.Range) {
	if n := len(in.ranges); n > 0 && in.ranges[n-1].High == r.Low {
		in.ranges[n-1].High = r.High
	} else if !slices.Contains(in.ranges, r) { // units may have one table between them
		in.ranges = append(in.ranges, r)
	}
}

// low is the lowest address of the line's code.
func (in *LineInstance) low() uint64 {
	low := ^uint64(0)
	for _, r := range append(slices.Clone(in.ranges), in.called...) {
		low = min(low, r.Low)
	}
	return low
}

// recommended says whether a breakpoint is recommended anywhere in the line's code
// (is_stmt, DWARF 5 §6.2.2): else it is but what is left of another line's.
func (in *LineInstance) recommended() bool {
	return len(in.called) > 0 || slices.ContainsFunc(in.rows(), func(r dwarf.Row) bool { return r.IsStmt })
}

// rows are the line table's for the line's code.
func (in *LineInstance) rows() []dwarf.Row {
	table := in.In.Fn.ix.lineTable(in.own.unit)
	var rows []dwarf.Row
	for _, r := range in.ranges {
		for _, row := range table.Range(r.Low, r.High) {
			if int(row.Line) == in.Line.Number && in.own.numbers[uint64(row.File)] {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// maxNearLines is how many lines are named that have code in place of one that has none.
const maxNearLines = 4

// noLine says why a line has no code.
func (ix *Index) noLine(p rustpath.Pattern, name string) error {
	e := &LineError{File: ix.File.Path, Pattern: p.Text}
	if ix.Level() < LinesOnly {
		e.Reason, e.Advice = "the file has no debug info that tells lines", ix.moreDebug()
		return e
	}
	known := false
	lines := map[string]int{} // distances
	var files []string
	for _, u := range ix.units() {
		matching := filesOf(u.Unit, name)
		for _, f := range matching {
			known = true
			table := ix.lineTable(u.Unit)
			if table == nil {
				continue
			}
			for _, row := range table.Rows {
				if row.EndSequence || !row.IsStmt || row.Line == 0 || !f.numbers[uint64(row.File)] || ix.text.subprogramAt(row.Addr) == nil {
					continue
				}
				d := int(row.Line) - p.Line
				lines[fmt.Sprintf("%s:%d", f.path, row.Line)] = max(d, -d)
			}
		}
		if !known {
			all, _ := u.Files()
			for _, f := range all {
				if f.Path != "" && path.Base(f.Path) == path.Base(name) && !slices.Contains(files, f.Path) {
					files = append(files, f.Path)
				}
			}
		}
	}
	if !known {
		e.Reason = "the debug info knows no such file"
		slices.Sort(files)
		e.Nearest = files[:min(len(files), maxNearLines)]
		e.Advice = "a file is named as the compiler was given it, or by the end of its path: ferrotrace list " + ix.File.Path + " shows those of functions"
		return e
	}
	for l := range lines {
		e.Nearest = append(e.Nearest, l)
	}
	slices.SortFunc(e.Nearest, func(a, b string) int { return cmp.Or(cmp.Compare(lines[a], lines[b]), cmp.Compare(a, b)) })
	e.Nearest = e.Nearest[:min(len(e.Nearest), maxNearLines)]
	e.Reason = "what is on it makes no code, or the compiler has removed it or merged it with another line's"
	if len(lines) == 0 {
		e.Reason = "no code of that file is left"
	}
	return e
}
