// Package index answers what there is to probe in one file: from a name to its
// functions, from a function to its instances (out of line and inlined), and from an
// instance to its sites, with the places of its arguments and its result at each.
package index

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/index/store"
	"ferrotrace/internal/objfile"
	"ferrotrace/internal/rust/types"
	"ferrotrace/internal/x86"
)

// Index is the functions of one file. Its methods may be called concurrently.
type Index struct {
	File *objfile.File
	// Problem is what could not be read of the debug info, nil if all could.
	Problem error

	debug     *dwarf.Data // nil without debug info
	debugFile *objfile.File
	splits    splits
	types     *types.Reader
	typesOnce sync.Once
	typeNames map[string]dwarf.Offset // of TypeNamed
	symbols   []objfile.Symbol        // functions in order of address
	table
	bodies   bodies
	glue     glue
	resuming coroutineBodies
	made     []atomic.Pointer[Function] // by number, nil as long as nobody has asked
	names    *names                     // from the cache, nil if they are not
	caching  caching
	sortOnce sync.Once
	sorted   []*Function // with names, in order of those
	text     Text
	// codeSections are the file's sections of code.
	codeSections func() []objfile.CodeSection

	typedUnits sync.Map // *dwarf.Unit → bool
	lines      sync.Map // *dwarf.Unit → *dwarf.LineTable

	partsOnce sync.Once
	parts     map[string][]x86.Range // split parts by the symbol of the function

	mu    sync.Mutex
	outer map[*subprogram]*Instance
	flows map[*Instance]*flow
	refs  map[uint64][]x86.Ref
	never map[uint64]bool // functions that do not return, by address
	code  func(addr uint64) bool
}

// Function is one function of the source: one monomorphisation of it, if it is
// generic.
type Function struct {
	// Name is its path, canonical: what is printed, and accepted as a pattern.
	Name string
	// Rust says that it is one: its name is mangled or its unit is Rust's.
	Rust bool
	// File and Line are where it is declared; "" and 0 without debug info.
	File string
	Line int
	// Aliases are the names of other functions that were merged into it. Ambiguous:
	// other instances of the same generic function were.
	Aliases   []string
	Ambiguous bool

	ix       *Index
	linkage  string
	abstract *subprogram    // the entry that states its parameters; nil for a bare symbol
	symbol   objfile.Symbol // of a bare symbol
	is       *function
	number   int32

	given *given // what the user states of it

	// The exported fields hold, once these have been done; Rust does before if
	// there is debug info.
	nameOnce, mergeOnce sync.Once
}

// Options say how to open a file.
type Options struct {
	// DebugFile is the file with the debug info; "": the file itself, or what is found if
	// that has none.
	DebugFile string
	// Doing is told what is being done that takes its time; nil if nobody wants to know.
	Doing func(what string)
	// Cache is where what was read is kept for the next time; nil: nowhere.
	Cache *store.Dir
}

// Open reads the functions of a file, with debugFile as in Options.
func Open(file, debugFile string) (*Index, error) {
	return OpenContext(context.Background(), file, Options{DebugFile: debugFile})
}

// OpenContext reads the functions of a file. When ctx is done nothing is fetched any more.
func OpenContext(ctx context.Context, file string, o Options) (*Index, error) {
	f, err := objfile.Open(file)
	if err != nil {
		return nil, err
	}
	ix := &Index{File: f, debugFile: f,
		outer: map[*subprogram]*Instance{}, flows: map[*Instance]*flow{}, refs: map[uint64][]x86.Ref{}}
	ix.text.ix = ix
	ix.codeSections = sync.OnceValue(f.CodeSections)
	if o.DebugFile != "" {
		if err := ix.openDebugFile(o.DebugFile); err != nil {
			f.Close()
			return nil, err
		}
	} else if !f.HasDWARF() {
		ix.findDebugFile(ctx, o.Doing)
	}
	ix.caching.dir = o.Cache
	if err := ix.read(); err != nil {
		ix.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ix, nil
}

// Close releases the file. Of what came from the index only the names of functions, with
// their aliases, are valid afterwards.
func (ix *Index) Close() error {
	err := errors.Join(ix.closeCache(), ix.File.Close())
	if ix.debugFile != ix.File {
		err = errors.Join(err, ix.debugFile.Close())
	}
	return errors.Join(err, ix.splits.close())
}

func (ix *Index) read() error {
	named := ix.debugFile
	if !named.HasSymtab() {
		named = ix.File
	}
	symbols, err := named.Symbols()
	if err != nil {
		return fmt.Errorf("reading symbols: %w", err)
	}
	for _, s := range symbols {
		if s.Func {
			ix.symbols = append(ix.symbols, s)
		}
	}
	sections, err := ix.debugFile.DWARF()
	if err != nil {
		return fmt.Errorf("reading debug info: %w", err)
	}
	// A file of debug info has no contents for what is loaded.
	if addr, b, ok := ix.File.SectionAddr(".eh_frame"); ok {
		sections.EhFrame, sections.EhFrameAddr = b, addr
	}
	sections.Mem = ix.File.Bytes
	d, err := dwarf.New(sections)
	if err != nil {
		// The symbols are still good.
		ix.problem(fmt.Errorf("debug info of %s: %w", ix.debugFile.Path, err))
		d, err = dwarf.New(dwarf.Sections{EhFrame: sections.EhFrame, EhFrameAddr: sections.EhFrameAddr, Mem: sections.Mem})
		if err != nil {
			return err
		}
	}
	ix.debug = d
	ix.joinSplits()
	ix.types = types.NewReader(d, types.Image{Bytes: ix.File.Bytes, GNU: ix.gnu, Drops: ix.drops, Resumes: ix.resumes, Kept: ix.kept, StringErrors: ix.stringErrors})
	if ix.load() {
		return nil
	}
	t, err := scan(d, ix.File.Executable)
	if err != nil {
		ix.problem(fmt.Errorf("debug info of %s: %w", ix.debugFile.Path, err))
	}
	ix.table = *t
	ix.group()
	ix.made = make([]atomic.Pointer[Function], len(ix.functions))
	return nil
}

// thinLTO takes off the suffix that ThinLTO gives to symbols that it makes visible to
// other units.
func thinLTO(symbol string) string {
	if i := strings.Index(symbol, ".llvm."); i > 0 {
		return symbol[:i]
	}
	return symbol
}

// partOf takes the suffix off a symbol that names a part of a function which was
// split from the rest: LLVM's and GCC's .cold, LLVM's .eh and .__part.N for sections of
// basic blocks, BOLT's .warm and .cold.N.
func partOf(symbol string) (base string, part bool) {
	if strings.IndexByte(symbol, '.') < 0 {
		return symbol, false
	}
	for _, mark := range []string{".cold", ".warm", ".__part", ".eh"} {
		if i := strings.Index(symbol, mark); i > 0 {
			rest := symbol[i+len(mark):]
			if rest == "" || rest[0] == '.' {
				return symbol[:i], true
			}
		}
	}
	return symbol, false
}
