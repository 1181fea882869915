package patch

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ferrotrace/internal/x86"
)

// program is a real program's code with the ranges of its functions.
type program struct {
	segs  []elfSegment
	funcs []x86.Range     // sorted by Low, those at one address once
	rust  map[uint64]bool // functions with Rust names, by address
}

type elfSegment struct {
	addr uint64
	data []byte
}

func (p *program) code(addr uint64) []byte {
	for _, s := range p.segs {
		if addr >= s.addr && addr-s.addr < uint64(len(s.data)) {
			return s.data[addr-s.addr:]
		}
	}
	return nil
}

// toolchainProgram opens a program of an installed Rust toolchain.
func toolchainProgram(t testing.TB, name string) *program {
	t.Helper()
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip("no home directory, so no Rust toolchain: ", err)
	}
	files, _ := filepath.Glob(filepath.Join(home, ".rustup/toolchains/*/bin", name))
	for _, file := range files {
		f, err := elf.Open(file)
		if err != nil {
			continue
		}
		defer f.Close()
		syms, err := f.Symbols()
		if err != nil || f.Machine != elf.EM_X86_64 {
			continue
		}
		p := &program{rust: map[uint64]bool{}}
		for _, s := range f.Progs {
			if s.Type != elf.PT_LOAD || s.Filesz == 0 {
				continue
			}
			data := make([]byte, s.Filesz)
			if _, err := s.ReadAt(data, 0); err != nil {
				t.Fatal(err)
			}
			p.segs = append(p.segs, elfSegment{s.Vaddr, data})
		}
		slices.SortStableFunc(syms, func(a, b elf.Symbol) int {
			if a.Value != b.Value {
				return int(int64(a.Value) - int64(b.Value))
			}
			return int(int64(b.Size) - int64(a.Size))
		})
		for _, s := range syms {
			if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Size == 0 || s.Section == elf.SHN_UNDEF {
				continue
			}
			if strings.HasPrefix(s.Name, "_R") || strings.HasPrefix(s.Name, "_ZN") && strings.HasSuffix(s.Name, "E") && strings.Contains(s.Name, "17h") {
				p.rust[s.Value] = true
			}
			if n := len(p.funcs); n > 0 && p.funcs[n-1].Low == s.Value {
				continue
			}
			p.funcs = append(p.funcs, x86.Range{Low: s.Value, High: s.Value + s.Size})
		}
		return p
	}
	t.Skipf("no toolchain under ~/.rustup has a %s with symbols", name)
	return nil
}

// exits are the returns of a function and its direct tail calls.
func exits(f *x86.Func) (sites []Site) {
	all, _ := f.Exits()
	for _, e := range all {
		sites = append(sites, Site{Addr: e.Addr, Kind: Exit, Rust: true, Programs: []Program{counter}})
	}
	return sites
}

// counter stands for a program in tests that do not run it.
var counter = Program{Body: []byte{0x90}}

// sites are the entries and exits of every nth function of p.
func (p *program) sites(every int) (funcs []Function) {
	for i, r := range p.funcs {
		if i%every != 0 || !p.rust[r.Low] {
			continue
		}
		f, err := x86.NewFunc(p.code, []x86.Range{r}, nil)
		if err != nil {
			continue
		}
		sites := append([]Site{{Addr: r.Low, Kind: Entry, Rust: true, Programs: []Program{counter}}}, exits(f)...)
		funcs = append(funcs, Function{Code: f, Sites: sites})
	}
	return funcs
}

// rebase moves the program to where a position-independent one is loaded: with
// addresses near 0 half of the puns would lead below it.
func (p *program) rebase(base uint64) {
	for i := range p.segs {
		p.segs[i].addr += base
	}
	m := map[uint64]bool{}
	for i := range p.funcs {
		if p.rust[p.funcs[i].Low] {
			m[p.funcs[i].Low+base] = true
		}
		p.funcs[i].Low += base
		p.funcs[i].High += base
	}
	p.rust = m
}

// TestStatistics plans the entries and exits of real programs, and holds the shares
// of the ways against what has been measured before.
func TestStatistics(t *testing.T) {
	for _, name := range []string{"cargo", "rustfmt"} {
		t.Run(name, func(t *testing.T) {
			p := toolchainProgram(t, name)
			const base = 0x5555_5555_0000
			p.rebase(base)
			every := max(1, len(p.funcs)/6000)
			funcs := p.sites(every)
			sp := NewSpace([]x86.Range{{Low: 0x10000, High: base}, {Low: base + 64<<20, High: 0x7fff_0000_0000}})
			pl := &Planner{Code: p.code, Functions: p.funcs, Alloc: sp}
			start := time.Now()
			patches, problems := pl.Plan(funcs)
			took := time.Since(start)
			var entries, rets, tails shares
			count := func(s Site, in *x86.Inst, how int) {
				switch {
				case s.Kind == Entry:
					entries[how]++
				case in.Kind == x86.Ret:
					rets[how]++
				default:
					tails[how]++
				}
			}
			for _, pa := range patches {
				for _, s := range pa.Sites {
					count(s, displacedAt(pa, s.Addr), int(pa.How))
				}
			}
			for _, pr := range problems {
				count(pr.Site, instAt(funcs, pr.Site.Addr), none)
			}
			t.Logf("%d functions in %v, %d runs of pages", len(funcs), took, len(sp.Pages()))
			t.Logf("entries: %v", entries)
			t.Logf("returns: %v", rets)
			t.Logf("tail calls: %v", tails)
			hold := func(what string, got, low, high float64) {
				if got < low || got > high {
					t.Errorf("%s: %.2f %%, which is not in %v to %v", what, got, low, high)
				}
			}
			hold("entries by a plain jump", entries.percent(int(Jump5)), 98, 100)
			hold("entries not taken", entries.percent(none), 0, 0.1)
			hold("returns into padding", rets.percent(int(Jump5)), 15, 45)
			hold("returns with their epilogue", rets.percent(int(Around)), 50, 85)
			hold("returns by a pun", rets.percent(int(Pun)), 0.3, 12)
			hold("returns not taken", rets.percent(none), 0, 0.3)
			hold("tail calls not taken", tails.percent(none), 0, 0.5)
		})
	}
}

// shares counts sites by How, and those not taken.
type shares [none + 1]int

const none = int(Pun) + 1

func (s shares) percent(how int) float64 {
	n := 0
	for _, v := range s {
		n += v
	}
	return 100 * float64(s[how]) / float64(max(n, 1))
}

func (s shares) String() string {
	var b strings.Builder
	for h := Jump5; h <= Pun; h++ {
		fmt.Fprintf(&b, "%s %.2f, ", h, s.percent(int(h)))
	}
	return fmt.Sprintf("%snone %.2f %%", b.String(), s.percent(none))
}

func displacedAt(p *Patch, addr uint64) *x86.Inst {
	for i := range p.Displaced {
		if p.Displaced[i].Addr == addr {
			return &p.Displaced[i]
		}
	}
	return nil
}

func instAt(funcs []Function, addr uint64) *x86.Inst {
	for _, f := range funcs {
		if i, ok := f.Code.Index(addr); ok {
			return &f.Code.Insts[i]
		}
	}
	return nil
}
