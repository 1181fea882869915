package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"ferrotrace/internal/index/store"
	"ferrotrace/internal/objfile"
)

// What is kept of a file is its table, and the names of its functions. All else is read
// again, of what is probed alone.

// caching is how an index is kept.
type caching struct {
	dir    *store.Dir // nil if it is not
	name   string
	key    store.Key
	mapped *store.Mapped // what it came from, nil if it was read

	once   sync.Once
	saving sync.WaitGroup
	err    error
}

// minCached is the size of a file, in bytes of debug info, from which on it is worth the
// space: below, it is read within milliseconds.
var minCached = 1 << 20

// lean is held where the garbage collector has been told to be thrifty.
var lean sync.Mutex

// names are those of all functions, by their numbers.
type names struct {
	all     []name
	aliases []part // of text
	sorted  []int32
	text    []byte // names with aliases, those of one function together, with NUL after each
	files   []byte
}

type name struct {
	name, file, aliases part
	line                int32
	flags               nameFlags
}

type nameFlags int32

const (
	nameRust nameFlags = 1 << iota
	nameAmbiguous
)

// cacheable says whether the index can be kept, and under which name. It is not if part of
// it could not be read: that may be different the next time.
func (ix *Index) cacheable() bool {
	c := &ix.caching
	size := len(ix.symbols) * int(unsafe.Sizeof(subprogram{}))
	for _, u := range ix.debug.Units() {
		size += int(u.End - u.Offset)
	}
	id := ix.File.BuildID()
	if len(id) < 8 || len(id) > 64 || ix.Problem != nil || size < minCached {
		return false
	}
	tool, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	h := sha256.New()
	add := func(values ...int64) {
		for _, v := range values {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(v)))
		}
	}
	// Another build of ferrotrace may read files in another way.
	add(tool.Size(), tool.ModTime().UnixNano())
	for _, f := range append([]*objfile.File{ix.File, ix.debugFile}, ix.splits.files...) {
		id := f.BuildID()
		add(f.Size, f.ModTime.UnixNano(), int64(len(id)))
		h.Write(id)
	}
	add(int64(len(ix.symbols)), int64(len(ix.debug.Units())))
	h.Sum(c.key[:0])
	c.name = hex.EncodeToString(id)
	return true
}

// load takes the table from the cache, if it is there.
func (ix *Index) load() bool {
	c := &ix.caching
	if c.dir == nil {
		return false
	}
	if !ix.cacheable() {
		c.dir = nil
		return false
	}
	m, err := c.dir.Load(c.name, c.key)
	if err != nil {
		return false // it will be written, or that will say why it cannot be
	}
	if !ix.take(m.Sections) {
		m.Close()
		return false
	}
	c.mapped = m
	return true
}

// take makes the sections of a cached file the index's.
func (ix *Index) take(sections [][]byte) bool {
	t, n, ok := ix.decode(sections)
	if ok {
		ix.table, ix.names = *t, n
		ix.made = make([]atomic.Pointer[Function], len(ix.functions))
	}
	return ok
}

// save begins to keep the index, unless it comes from the cache. Close waits until it is.
func (ix *Index) save() {
	c := &ix.caching
	if c.dir == nil || c.mapped != nil {
		return
	}
	c.once.Do(func() {
		if ix.Problem != nil {
			return
		}
		c.saving.Go(func() {
			// Names are made by way of much that is not kept. With memory for as much garbage
			// as there is of all else, which is Go's way, this would be the peak of a run.
			lean.Lock()
			defer lean.Unlock()
			defer debug.SetGCPercent(debug.SetGCPercent(25))
			sections, err := ix.encode()
			if err == nil {
				err = c.dir.Save(c.name, c.key, sections)
			}
			c.err = err
		})
	})
}

// Uncached says why an index could not be kept in the cache, nil if it was or was not to
// be. It waits until that is known.
func (ix *Index) Uncached() error {
	ix.caching.saving.Wait()
	return ix.caching.err
}

// Cached says whether the index came from the cache.
func (ix *Index) Cached() bool { return ix.caching.mapped != nil }

func (ix *Index) closeCache() error {
	ix.caching.saving.Wait()
	if m := ix.caching.mapped; m != nil {
		return m.Close()
	}
	return nil
}

// encode makes the sections of a cached file.
func (ix *Index) encode() ([][]byte, error) {
	n, err := ix.allNames()
	if err != nil {
		return nil, err
	}
	return [][]byte{raw(ix.subs.all), raw(ix.inlines), raw(ix.scopes), raw(ix.functions), raw(ix.concrete), raw(ix.places), raw(ix.merged),
		raw(n.all), raw(n.aliases), raw(n.sorted), n.text, n.files}, nil
}

// appendText adds a text, and returns where it stands.
func appendText(to *[]byte, s string) part {
	p := part{int32(len(*to)), int32(len(s))}
	*to = append(append(*to, s...), 0)
	return p
}

// allNames names all functions. It leaves none behind that nobody has asked for: together they
// would be most of the memory of a run.
func (ix *Index) allNames() (*names, error) {
	const batch = 256
	type some struct {
		names
		of []string // the functions' files
	}
	all := make([]some, (len(ix.functions)+batch-1)/batch)
	parallel(len(all), func() func(int) {
		return func(b int) {
			n := &all[b]
			for i := b * batch; i < min((b+1)*batch, len(ix.functions)); i++ {
				r := name{name: part{first: int32(len(n.text))}, aliases: part{first: int32(len(n.aliases))}}
				file := ""
				if !ix.functions[i].hidden() {
					f := ix.made[i].Load()
					if f == nil {
						f = ix.makeFunction(int32(i))
					}
					file = n.add(&r, f.named())
				}
				n.all, n.of = append(n.all, r), append(n.of, file)
			}
			n.text, n.aliases = slices.Clip(n.text), slices.Clip(n.aliases)
		}
	})
	n := &names{all: make([]name, 0, len(ix.functions))}
	files := map[string]part{}
	for b := range all {
		s := &all[b]
		for i, r := range s.all {
			var ok bool
			if r.file, ok = files[s.of[i]]; !ok {
				r.file = appendText(&n.files, s.of[i])
				files[s.of[i]] = r.file
			}
			r.name.first += int32(len(n.text))
			r.aliases.first += int32(len(n.aliases))
			n.all = append(n.all, r)
		}
		for _, a := range s.aliases {
			a.first += int32(len(n.text))
			n.aliases = append(n.aliases, a)
		}
		n.text = append(n.text, s.text...)
		if len(n.text) > math.MaxInt32 || len(n.files) > math.MaxInt32 {
			return nil, errTooMany
		}
		*s = some{}
	}
	for i := range ix.functions {
		if !ix.functions[i].hidden() {
			n.sorted = append(n.sorted, int32(i))
		}
	}
	slices.SortFunc(n.sorted, func(a, b int32) int {
		if c := bytes.Compare(of(n.text, n.all[a].name), of(n.text, n.all[b].name)); c != 0 {
			return c
		}
		return ix.compare(&ix.functions[a], &ix.functions[b])
	})
	return n, nil
}

// add appends the names of f, which r is to say, and returns its file.
func (n *names) add(r *name, f *Function) (file string) {
	r.name, r.line = appendText(&n.text, f.Name), int32(f.Line)
	for _, a := range f.Aliases {
		n.aliases = append(n.aliases, appendText(&n.text, a))
		r.aliases.n++
	}
	if f.Rust {
		r.flags |= nameRust
	}
	if f.Ambiguous {
		r.flags |= nameAmbiguous
	}
	return f.File
}

// raw is the memory of values without pointers.
func raw[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

// typed takes values out of a section; not ok if it does not hold whole ones.
func typed[T any](sections *[][]byte, to *[]T) bool {
	b, size := (*sections)[0], int(unsafe.Sizeof(*new(T)))
	*sections = (*sections)[1:]
	n := len(b) / size
	if len(b)%size != 0 || n > math.MaxInt32 {
		return false
	}
	*to = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
	return true
}

// decode is the inverse of encode. What it returns is sound: whatever the sections hold, no
// index in it is out of bounds and no chain of them endless.
func (ix *Index) decode(sections [][]byte) (*table, *names, bool) {
	t, n, s := &table{}, &names{}, &sections
	if len(sections) != 12 || !typed(s, &t.subs.all) || !typed(s, &t.inlines) || !typed(s, &t.scopes) || !typed(s, &t.functions) ||
		!typed(s, &t.concrete) || !typed(s, &t.places) || !typed(s, &t.merged) ||
		!typed(s, &n.all) || !typed(s, &n.aliases) || !typed(s, &n.sorted) || !typed(s, &n.text) || !typed(s, &n.files) {
		return nil, nil, false
	}
	checks := []func() bool{
		func() bool { return ix.soundSubprograms(t) },
		func() bool { return ix.soundFunctions(t) },
		func() bool { return soundNames(t, n) },
	}
	ok := make([]bool, len(checks))
	parallel(len(checks), func() func(int) { return func(i int) { ok[i] = checks[i]() } })
	return t, n, ok[0] && ok[1] && ok[2]
}

// within says whether p is a part of a slice of a length.
func (p part) within(length int) bool {
	return p.first >= 0 && p.n >= 0 && int(p.first)+int(p.n) <= length
}

// number says whether i is an index, or -1 for none.
func number(i int32, length int) bool { return i >= -1 && int(i) < length }

func (ix *Index) soundSubprograms(t *table) bool {
	units := ix.debug.Units()
	for i := range t.subs.all {
		s := &t.subs.all[i]
		if i > 0 && s.off <= t.subs.all[i-1].off || s.unit < 0 || int(s.unit) >= len(units) ||
			s.off < units[s.unit].Offset || s.off >= units[s.unit].End ||
			!number(s.scope, len(t.scopes)) || !number(s.fn, len(t.functions)) || s.low != 0 && s.fn < 0 ||
			!(part{s.inlines, s.instances}).within(len(t.inlines)) {
			return false
		}
		for j, in := range t.instances(s) {
			if in.parent < -1 || int(in.parent) >= j || !number(in.of, len(t.functions)) {
				return false
			}
		}
	}
	for i := range t.scopes {
		if !number(t.scopes[i].parent, i) {
			return false
		}
	}
	return true
}

func (ix *Index) soundFunctions(t *table) bool {
	for i := range t.functions {
		f := &t.functions[i]
		if !number(f.abstract, len(t.subs.all)) || !number(f.symbol, len(ix.symbols)) || f.abstract < 0 && f.symbol < 0 ||
			!f.concrete.within(len(t.concrete)) || !f.inlines.within(len(t.places)) || !f.merged.within(len(t.merged)) {
			return false
		}
	}
	live := func(sub int32) bool {
		return sub >= 0 && int(sub) < len(t.subs.all) && t.subs.all[sub].low != 0
	}
	for _, s := range t.concrete {
		if !live(s) {
			return false
		}
	}
	for _, p := range t.places {
		if !live(p.in) || p.n < 0 || p.n >= t.subs.all[p.in].instances {
			return false
		}
	}
	for _, m := range t.merged {
		if !number(m.fn, len(t.functions)) || !number(m.symbol, len(ix.symbols)) || m.fn < 0 && m.symbol < 0 {
			return false
		}
	}
	return true
}

func soundNames(t *table, n *names) bool {
	if len(n.all) != len(t.functions) {
		return false
	}
	last := int32(0)
	for i := range n.all {
		r := &n.all[i]
		if r.name.first < last || !r.name.within(len(n.text)) || !r.file.within(len(n.files)) || !r.aliases.within(len(n.aliases)) {
			return false
		}
		last = r.name.first
	}
	for _, a := range n.aliases {
		if !a.within(len(n.text)) {
			return false
		}
	}
	for _, i := range n.sorted {
		if i < 0 || int(i) >= len(n.all) {
			return false
		}
	}
	return true
}

// takeName is makeName for an index from the cache.
func (f *Function) takeName() {
	n := f.ix.names
	r := &n.all[f.number]
	// Names outlive the mapping.
	f.Name, f.File, f.Line = string(of(n.text, r.name)), string(of(n.files, r.file)), int(r.line)
	for _, a := range of(n.aliases, r.aliases) {
		f.Aliases = append(f.Aliases, string(of(n.text, a)))
	}
	f.Rust, f.Ambiguous = r.flags&nameRust != 0, r.flags&nameAmbiguous != 0
}

// cachedWith are the functions that have a text in one of their names.
func (ix *Index) cachedWith(text string) []*Function {
	n, want := ix.names, []byte(text)
	var all []*Function
	if strings.IndexByte(text, 0) >= 0 {
		return nil
	}
	for at := 0; ; {
		i := bytes.Index(n.text[at:], want)
		if i < 0 {
			return all
		}
		// The one whose text it is, and on with the next.
		at += i
		next := sort.Search(len(n.all), func(i int) bool { return int(n.all[i].name.first) > at })
		if next > 0 {
			all = append(all, ix.function(int32(next-1)).named())
		}
		if next == len(n.all) {
			return all
		}
		at = int(n.all[next].name.first)
	}
}
